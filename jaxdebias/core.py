"""The vocabulary that every room of the library shares. It imports nothing of ours.

Dimension letters, used in every signature of the library:

    n  examples          h w  height and width       c  channels
    d  features          k    classes                a  values of the bias attribute
    g  groups, k * a of them; the group of an example is label * a + attribute
    b  examples of one step       s  steps           p  parameters of an edited block
    m  right-hand sides solved at once               r  resamples
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

Array = jax.Array | np.ndarray
Key = PRNGKeyArray
Params = Any
"""A pytree of arrays. What our own models call params is Linen's variables, `{"params": ..., "batch_stats": ...}`."""


class Batch(NamedTuple):
    """A batch, or a whole data set that fits in memory. Groups are a view of (label, attribute).

    Data sets hold NumPy arrays; the training loop moves them to the device once.
    """

    x: Array
    """Images `[n h w c]`, uint8 as stored or float in [0, 1]; tables `[n d]` float."""
    label: Array
    """`[n]` int32, 0..k-1."""
    attribute: Array
    """`[n]` int32, 0..a-1, the bias attribute; -1 where unknown."""
    mask: Array | None = None
    """`[n h w]` int32 region labels, 0 is background."""
    twin: Array | None = None
    """Counterfactual twin of x, same shape and dtype: the same example and label, attribute changed."""
    weight: Array | None = None
    """`[n]` float, how much each example counts; 0 is padding; None is 1 for all."""
    index: Array | None = None
    """`[n]` int32, the row of each example in the training set. The training loop fills it in for the
    methods that remember something of each sample; builders of data leave it None."""
    unit: Array | None = None
    """`[n]` int32, which independent unit a row belongs to: the renderings of one digit share it. Intervals
    resample units. None: every row is its own unit."""
    twin_attribute: Array | None = None
    """`[n]` int32, the attribute of the twin, -1 where unknown. None: of two values the other one, else unknown."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A named data set in disjoint splits, with the pairs that a counterfactual measurement needs."""

    name: str
    variant: Mapping[str, Any]
    """What fixes the data besides the name: the share of conflicting samples, sizes, protocol. JSON values."""
    splits: Mapping[str, Batch]
    """`train` (biased), `edit`, `accept` (held out, for the repair and its acceptance), `test` (only ever reported)."""
    pairs: Mapping[str, Batch]
    """Keys as in `splits`, without train: x shows the aligned attribute, twin the conflicting one; `attribute` is
    that of x. Empty where no pair can be built."""
    label_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    aligned: np.ndarray
    """`[k a]` bool: the (label, attribute) cells where the attribute is associated with the label in training. All
    false: unknown, and then no cell is called conflicting either."""
    pairing: Literal["counterfactual", "matched", "none"] = "counterfactual"
    """`counterfactual`: twins are the same example; `matched`: different examples of the same label (then only
    the gap of the means is a bias, not the absolute difference of each pair)."""
    feature_names: tuple[str, ...] = field(default=())
    """Names of the columns, for tables."""
    regions: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Name of a region -> the labels of the masks that it unites, for data with masks."""
    attribute_region: str | None = None
    """Name of the region that shows the attribute and nothing of the label; None: there is none, or it is unknown."""

    @staticmethod
    def from_arrays(x: Any, label: Any, attribute: Any = None, **options: Any) -> "Dataset":
        """A data set of arrays, lists or Series of any library; see `jaxdebias.data.from_arrays`."""
        return _room_above().from_arrays(x, label, attribute, **options)

    @staticmethod
    def from_frame(frame: Any, *, label: str, **options: Any) -> "Dataset":
        """A data set of the columns of a pandas or polars frame; see `jaxdebias.data.from_frame`."""
        return _room_above().from_frame(frame, label=label, **options)


def _room_above() -> Any:
    """`jaxdebias.data`, which imports this module: looked up when it is called, so that core depends on nothing."""
    return importlib.import_module("jaxdebias.data")


class RepairSets(NamedTuple):
    """What a repair may use: the training set, and held-out samples. Never the test set.

    A repair names the sets that it needs and refuses in one line where one is None. Rows of weight 0 are padding: they
    change nothing.
    """

    train: Batch | None = None
    """The training set of the model."""
    edit: Batch | None = None
    """Held-out samples to fit on: the attribute is not associated with the label, or the groups are known."""
    pairs: Batch | None = None
    """Held-out pairs to fit on: `x` with the aligned attribute, `twin` with the changed one, same label."""
    accept: Batch | None = None
    """Other held-out samples, for choices: a penalty, a learning rate, how far an edit goes."""
    accept_pairs: Batch | None = None
    """Other held-out pairs, for the same choices."""

    def counted(self) -> "RepairSets":
        """The sets without their padding."""
        return RepairSets(*(None if batch is None else counted(batch) for batch in self))


class Split(NamedTuple):
    """A model cut in two: `head(params, features(params, x))` equals the model's logits, in evaluation mode."""

    features: Callable[[Params, Array], jax.Array]
    head: Callable[[Params, Array], jax.Array]
    head_path: tuple[str | int, ...] | None = None
    """Where in params the last affine layer lies: a node with a kernel and, perhaps, a bias. None: at `HEAD_PATH`, or,
    where nothing lies there, wherever the head is found to be."""


HEAD_PATH = ("params", "head")
"""Where the last layer of our own models lies: a node with `kernel` [d k] and, perhaps, `bias` [k]."""


class Classifier(NamedTuple):
    """A model as pure functions of its parameters. Builders return the same object for the same arguments.

    `x` may be uint8; each function calls `as_float` first. Whoever brings an own model needs only
    `apply_fn(params, x)`, or a `(features, head)` pair where a method looks inside.
    """

    init: Callable[[Key, Array], Params]
    """(key, x) -> params; x gives shapes only."""
    apply: Callable[[Params, Array], jax.Array]
    """(params, x) -> logits [n k], evaluation mode."""
    train: Callable[[Key, Params, Array], tuple[jax.Array, Params]]
    """(key, params, x) -> (logits, params with new batch statistics), training mode."""
    vector: Split
    """Cut before the last affine layer: features are [n d], the head is affine."""
    spatial: Split | None = None
    """Cut after the last spatial layer: features are [n h w c]. None for models without one."""

    @property
    def head_path(self) -> tuple[str | int, ...]:
        """Where in params the last affine layer lies, see `Split.head_path`."""
        return HEAD_PATH if self.vector.head_path is None else self.vector.head_path


class Learner(NamedTuple):
    """A training-time method: pure functions that close over static things only.

    A state that predicts with one network has a field `variables`, which its classifier's `apply` takes, and, if it
    is to be trained with a plateau schedule, a scalar field `lr_scale` by which every update is multiplied.
    `info` is a NamedTuple or dict of scalars per step; it has at least `loss`.
    """

    init: Callable[[Key, Batch], Any]
    """(key, batch) -> state; the batch gives shapes only: those that every step sees."""
    step: Callable[[Key, Any, Batch], tuple[Any, Any]]
    """(key, state, batch) -> (state, info); pure, jit- and vmap-able. Respects `batch.weight`."""
    predict: Callable[[Any, Array], jax.Array]
    """(state, x) -> logits [n k], evaluation mode."""
    weights: Callable[[Any, Batch], jax.Array] | None = None
    """(state, data) -> [n] weights with which the next epoch is drawn (DB-VAE, JTT); None: every row once."""


def as_float(x: Array) -> Float[jax.Array, "..."]:
    """Pixels in [0, 1]: divides uint8 by 255, returns floats as they are.

    >>> as_float(np.array([0, 255], np.uint8)).tolist()
    [0.0, 1.0]
    """
    x = jnp.asarray(x)
    return x.astype(jnp.float32) / 255.0 if x.dtype == jnp.uint8 else x


def group_of(label: Array, attribute: Array, attributes: int) -> Array:
    """The group number `label * a + attribute`, or -1 where the attribute is unknown."""
    xp = jnp if isinstance(label, jax.Array) else np
    label, attribute = (xp.asarray(value).astype(np.int32) for value in (label, attribute))  # int8 would overflow
    return xp.where(attribute < 0, -1, label * attributes + attribute)


def take(batch: Batch, index: Any) -> Batch:
    """Rows of every field of a batch; `index` is anything that indexes an array's first axis."""
    return jax.tree.map(lambda leaf: leaf[index], batch)


def counted(batch: Batch) -> Batch:
    """The batch without its padding, the rows of weight 0; the same object where there is none.

    >>> counted(Batch(np.zeros((2, 1)), np.array([0, 1]), np.array([0, 0]), weight=np.array([0.0, 2.0]))).label.tolist()
    [1]
    """
    if batch.weight is None or (np.asarray(batch.weight) != 0).all():
        return batch
    return take(batch, np.flatnonzero(np.asarray(batch.weight)))


def repair_sets(dataset: Dataset) -> RepairSets:
    """The sets of a data set that a repair may use; None where it has none.

    Args:
      dataset: splits `train`, `edit` and `accept`, and pairs `edit` and `accept`, are taken; never `test`.
    """
    splits, pairs = dataset.splits, dataset.pairs
    return RepairSets(
        splits.get("train"), splits.get("edit"), pairs.get("edit"), splits.get("accept"), pairs.get("accept")
    )


def cell_counts(
    label: Int[Array, "n"], attribute: Int[Array, "n"], classes: int, attributes: int
) -> Int[np.ndarray, "k a"]:
    """How many examples have label y and attribute a, known or guessed; unknown attributes (-1) are left out.

    >>> cell_counts(np.array([0, 0, 1]), np.array([1, 1, -1]), 2, 2).tolist()
    [[0, 2], [0, 0]]
    """
    known = np.asarray(attribute) >= 0
    counts = np.zeros((classes, attributes), np.int64)
    np.add.at(counts, (np.asarray(label)[known], np.asarray(attribute)[known]), 1)
    return counts
