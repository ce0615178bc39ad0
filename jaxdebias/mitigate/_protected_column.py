"""Tables: take a protected column out of a trained network exactly, and turn it over in the data.

A column enters a network through one row of its first affine layer. With the column's mean folded into the bias and
that row set to zero, the model cannot see the column: its counterfactual bias is 0, without any data or training. What
it does not touch are proxies, the other columns from which the protected one can be told: report group differences too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.contracts import check_type, describe, expect
from jaxdebias.core import Array, Batch, Key, Params, RepairSets
from jaxdebias.explain.influence._cut import layers_in_order
from jaxdebias.mitigate._last_layer import Model, as_function, needed


@dataclass(frozen=True, kw_only=True)
class ProtectedColumnConfig:
    """Which column, and where it enters."""

    column: int
    """Which input is protected, 0..d-1."""
    kernel_path: tuple[str | int, ...] | None = None
    """Where the first layer lies in params, see `zero_column`; None: the first layer that the model's program uses."""

    def __post_init__(self):
        expect(self.column >= 0, "config.column", "at least 0", self.column)


class ProtectedColumnInfo(NamedTuple):
    """What was put in place of the column."""

    mean: float
    """Mean of the column in the training set."""
    kernel_path: tuple[str | int, ...]
    """Where the first layer was found."""


def protected_column(
    key: Key,
    model: Model,
    params: Params,
    sets: RepairSets,
    config: ProtectedColumnConfig,
    *,
    batch_size: int = 256,
) -> tuple[Params, ProtectedColumnInfo]:
    """Hold a protected column of a table at its training mean, exactly: see `zero_column`.

    Args:
      key: not used; every repair takes them.
      batch_size: not used; every repair takes them.
      model: a classifier, a model cut in two, or any `(params, x) -> logits`.
      params: of the trained model.
      sets: `train`, the training set, for the mean of the column.
      config: the column, and where its layer lies.

    Returns:
      (params, info): only the leaves of the first layer are new.

    Raises:
      ContractError: no table, a column that it has not, a model that sees the column in more than one layer.
    """
    del key, batch_size
    check_type("config", config, ProtectedColumnConfig)
    train, apply_fn = needed(sets, "train").train, as_function(model)
    x = np.asarray(train.x)
    expect(x.ndim == 2, "sets.train.x", "a table [n d]", describe(x))
    path = config.kernel_path
    if path is None:
        path = tuple(layers_in_order(apply_fn, params, train.x[:2])[0].split("/"))
    expect(config.column < x.shape[1], "config.column", f"0..{x.shape[1] - 1}", config.column)
    mean = float(np.average(x[:, config.column], weights=train.weight))
    new = zero_column(params, path, config.column, mean, columns=x.shape[1], apply_fn=apply_fn)
    return new, ProtectedColumnInfo(mean, path)


def zero_column(
    params: Params,
    kernel_path: tuple[str | int, ...],
    column: int,
    mean: float,
    *,
    columns: int,
    apply_fn: Callable[[Params, Array], jax.Array] | None = None,
) -> Params:
    """The model with one input column held at its mean: `bias + mean * row` is the new bias of layer 1, row becomes 0.

    Args:
      params: any pytree.
      kernel_path: where the first layer lies: keys, attribute names or positions from the root of params, for instance
        `("params", "layers_0")`. Below it: one matrix and one vector.
      column: which input, 0..columns-1.
      mean: of the column in the training set, in the units in which the model sees it.
      columns: d, the number of inputs. The kernel is `[d h]` (Linen, nnx, Haiku) or `[h d]` (Equinox, PyTorch);
        which of the two follows from its shape and that of the bias.
      apply_fn: `(params, x [n d]) -> logits`. If given, it is checked that the logits no longer depend on the column;
        for a square kernel it is needed, to tell its sides apart.

    Returns:
      params in which the two leaves of that layer are new, every other one the same object.

    Raises:
      ContractError: nothing or too much at the path, a kernel without a side of length d, a layer without a bias (and
        a mean that is not 0), a square kernel without `apply_fn`, a model that sees the column elsewhere too.

    >>> params = {"first": {"w": jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), "b": jnp.zeros(2)}}
    >>> new = zero_column(params, ("first",), 1, 0.5, columns=3)
    >>> new["first"]["w"].tolist(), new["first"]["b"].tolist()
    ([[1.0, 2.0], [0.0, 0.0], [5.0, 6.0]], [1.5, 2.0])
    """
    expect(0 <= column < columns, "column", f"0..{columns - 1}", column)
    expect(bool(np.isfinite(mean)), "mean", "a finite number", mean)
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    names = [tuple(jax.tree_util.keystr((key,), simple=True) for key in keys) for keys, _ in leaves]
    wanted = tuple(str(step) for step in kernel_path)
    where = "/".join(wanted)
    below = [i for i, name in enumerate(names) if name[: len(wanted)] == wanted and hasattr(leaves[i][1], "ndim")]
    known = sorted({"/".join(name[: len(wanted)]) for name in names})
    expect(bool(below), "kernel_path", "a path to the first layer, for instance one of " + ", ".join(known[:8]), where)
    matrices = [i for i in below if leaves[i][1].ndim == 2]
    vectors = [i for i in below if leaves[i][1].ndim == 1]
    found = ", ".join(f"{'/'.join(names[i])}: {describe(leaves[i][1])}" for i in below)
    good = len(matrices) == 1 and len(vectors) <= 1 and len(below) == len(matrices) + len(vectors)
    expect(good, f"params at {where}", "one matrix (kernel) and at most one vector (bias)", found)
    kernel, bias = leaves[matrices[0]][1], leaves[vectors[0]][1] if vectors else None
    expect(bias is not None or mean == 0, f"params at {where}", "a bias to take up the mean of the column", found)

    sides = [
        side
        for side in (0, 1)
        if kernel.shape[side] == columns and (bias is None or kernel.shape[1 - side] == bias.shape[0])
    ]
    expect(bool(sides), f"params at {where}", f"a kernel with one side of d={columns} inputs", found)
    expect(
        len(sides) == 1 or apply_fn is not None,
        "apply_fn",
        "the model, to tell which side of the square kernel the inputs are on",
        None,
    )
    candidates = []
    for side in sides:
        row = (column, slice(None)) if side == 0 else (slice(None), column)
        flat = [leaf for _, leaf in leaves]
        flat[matrices[0]] = jnp.asarray(kernel).at[row].set(0)
        if bias is not None:
            flat[vectors[0]] = (jnp.asarray(bias) + mean * jnp.asarray(kernel)[row]).astype(bias.dtype)
        candidates.append(jax.tree.unflatten(structure, flat))
    if apply_fn is None:
        return candidates[0]
    blind = [candidate for candidate in candidates if not _sees(apply_fn, candidate, column, columns)]
    expect(
        bool(blind),
        f"params at {where}",
        f"the only layer through which the model sees column {column}",
        "logits that still depend on it",
    )
    return blind[0]


def _sees(apply_fn: Callable[[Params, Array], jax.Array], params: Params, column: int, columns: int) -> bool:
    """Whether the logits on random rows change with the column, beyond what a reordered sum would."""
    x = np.array(jax.random.normal(jax.random.key(0), (64, columns)))
    logits = []
    for value in (-3.0, 3.0):
        x[:, column] = value
        logits.append(np.asarray(apply_fn(params, jnp.asarray(x)), np.float64))
    return bool(np.abs(logits[0] - logits[1]).max() > 1e-6 * np.abs(logits[0]).max())


def flip_column(batch: Batch, column: int) -> Batch:
    """Every row with its 0/1 column turned over: the counterfactual of each row, with its label and weight.

    The attribute is turned over too where it is known (0 or 1).

    >>> one = Batch(x=np.array([[0.5, 1.0]]), label=np.array([1]), attribute=np.array([1]))
    >>> flip_column(one, 1).x.tolist(), flip_column(one, 1).attribute.tolist()
    ([[0.5, 0.0]], [0])
    """
    x = np.array(batch.x)
    expect(x.ndim == 2 and 0 <= column < x.shape[1], "column", "one of a table [n d]", f"{column} of {describe(x)}")
    binary = np.isin(x[:, column], (0, 1))
    expect(bool(binary.all()), f"x[:, {column}]", "only 0 and 1", f"{int((~binary).sum())} other values")
    x[:, column] = 1 - x[:, column]
    attribute = np.where(np.asarray(batch.attribute) < 0, -1, 1 - np.asarray(batch.attribute)).astype(np.int32)
    return Batch(x=x, label=batch.label, attribute=attribute, weight=batch.weight)
