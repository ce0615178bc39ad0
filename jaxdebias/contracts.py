"""Checks at the public boundary, before anything is traced. The one place that words "what, expected, got"."""

import difflib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.core import Batch, Dataset


class ContractError(ValueError):
    """Bad input. Its message is one line: what, expected, got. The command line prints it and exits with 2."""


def expect(condition: bool, what: str, expected: str, got: object) -> None:
    """Raises `ContractError("`what`: expected ..., got ...")` unless the condition holds.

    >>> expect(False, "label", "int [n=64]", describe(np.zeros((64, 1), np.float32)))
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `label`: expected int [n=64], got float32 [64, 1]
    """
    if not condition:
        raise ContractError(f"`{what}`: expected {expected}, got {got}")


def describe(value: Any) -> str:
    """dtype and shape of an array, else its type and value, short enough for one line."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} {list(value.shape)}"
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def check_choice(what: str, value: str, choices: Iterable[str]) -> None:
    """An unknown name, with the nearest valid one.

    >>> check_choice("data", "digit", ["digits", "scenes"])
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `data`: expected one of digits, scenes, got 'digit' (did you mean 'digits'?)
    """
    choices = list(choices)
    if value in choices:
        return
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.4)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    expect(False, what, f"one of {', '.join(choices)}", f"{value!r}{hint}")


def check_integers(what: str, value: Any, n: int, low: int, high: int | None) -> None:
    """Integers `[n]` in low..high-1 (`high` None: no upper bound)."""
    value = np.asarray(value)
    kind = np.issubdtype(value.dtype, np.integer) and value.shape == (n,)
    expect(bool(kind), what, f"int [n={n}]", describe(value))
    if n == 0:
        return
    least, most = int(value.min()), int(value.max())
    span = f"values in {low}..{high - 1}" if high is not None else f"values of at least {low}"
    expect(least >= low and (high is None or most < high), what, span, f"{least}..{most}")


def check_type(what: str, value: Any, kind: type) -> None:
    """An instance of a class; what came instead is named.

    >>> check_type("config", 0.7, Batch)
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `config`: expected Batch, got float 0.7
    """
    expect(isinstance(value, kind), what, kind.__name__, describe(value))


def check_rows(rows: int | None) -> int:
    """How many rows a training set has, for a method that remembers something of each."""
    expect(rows is not None and rows >= 1, "rows", "rows of the training set, at least 1", rows)
    return int(rows)


MOST_VALUES = 2**16
"""Most classes, or values of an attribute, that are counted from the data: a larger number is an identifier, not one
of them, and the tables of counts would not fit in memory."""


def row_count(what: str, value: Any) -> int:
    """How many rows an array `[n]` has, at least one.

    >>> row_count("label", np.zeros((3, 1), np.int32))
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `label`: expected an array [n], at least one row, got int32 [3, 1]
    """
    expect(np.ndim(value) == 1 and np.size(value) > 0, what, "an array [n], at least one row", describe(value))
    return int(np.size(value))


def check_numbers(what: str, value: Any, dimensions: str) -> None:
    """An array of real numbers with the dimensions that are named; `... h w` has two or more. Looks at no value.

    >>> check_numbers("maps", np.zeros((2, 3)), "n h w")
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `maps`: expected numbers [n h w], got float64 [2, 3]
    """
    dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    real = any(jnp.issubdtype(dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating))
    named = [name for name in dimensions.split() if name != "..."]
    ndim = np.ndim(value)
    fits = ndim >= len(named) if "..." in dimensions else ndim == len(named)
    expect(bool(real and fits), what, f"numbers [{dimensions}]", describe(value))


def check_counted(what: str, count: int) -> None:
    """Classes or values that were counted from the data, as one more than the largest."""
    expect(count <= MOST_VALUES, what, f"values in 0..{MOST_VALUES - 1}", f"{count - 1}")


def check_finite(what: str, tree: Any) -> None:
    """No NaN or infinity in any float leaf; the message names the first bad leaf and how many values are bad."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        leaf = np.asarray(leaf)
        # jnp's hierarchy knows bfloat16, NumPy's does not.
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and not (finite := np.isfinite(leaf)).all():
            where = what + jax.tree_util.keystr(path)
            expect(False, where, "finite values", f"{int((~finite).sum())} of {leaf.size} not finite")


def check_batch(batch: Batch, *, classes: int | None = None, attributes: int | None = None, what: str = "data") -> None:
    """Shapes, dtypes, ranges and finiteness of every field that is there.

    Raises:
      ContractError: naming the field, what was expected and what was found.
    """
    expect(isinstance(batch, Batch), what, "a jaxdebias.Batch", type(batch).__name__)
    x = batch.x
    expect(hasattr(x, "shape") and x.ndim in (2, 4), f"{what}.x", "images [n h w c] or a table [n d]", describe(x))
    n = x.shape[0]
    expect(n > 0, f"{what}.x", "at least one row", describe(x))
    is_float = jnp.issubdtype(x.dtype, jnp.floating)  # NumPy's hierarchy does not know bfloat16
    expect(x.dtype == np.uint8 or is_float, f"{what}.x", "uint8 or float", describe(x))
    if is_float:
        check_finite(f"{what}.x", x)
        if x.ndim == 4:
            least, most = float(np.min(x)), float(np.max(x))
            expect(least >= -1e-3 and most <= 1.001, f"{what}.x", "pixels in [0, 1]", f"{least:.4g}..{most:.4g}")
    check_integers(f"{what}.label", batch.label, n, 0, classes)
    check_integers(f"{what}.attribute", batch.attribute, n, -1, attributes)
    if batch.mask is not None:
        expect(
            x.ndim == 4 and np.shape(batch.mask) == x.shape[:3],
            f"{what}.mask",
            f"int {list(x.shape[:3])}",
            describe(batch.mask),
        )
    if batch.twin is not None:
        twin = np.shape(batch.twin), getattr(batch.twin, "dtype", None)
        same = twin == (x.shape, x.dtype)
        expect(same, f"{what}.twin", describe(x), describe(batch.twin))
        check_finite(f"{what}.twin", batch.twin)
    if batch.weight is not None:
        expect(np.shape(batch.weight) == (n,), f"{what}.weight", f"float [n={n}]", describe(batch.weight))
        check_numbers(f"{what}.weight", batch.weight, "n")
        check_finite(f"{what}.weight", batch.weight)
        expect(bool(np.min(batch.weight) >= 0), f"{what}.weight", "no negative weight", f"{np.min(batch.weight)}")
    if batch.unit is not None:
        check_integers(f"{what}.unit", batch.unit, n, 0, None)


def check_dataset(dataset: Dataset) -> None:
    """Every split and every set of pairs, against the names of labels and attributes."""
    k, a = len(dataset.label_names), len(dataset.attribute_names)
    expect(dataset.aligned.shape == (k, a), "aligned", f"bool [k={k}, a={a}]", describe(dataset.aligned))
    expect("train" in dataset.splits, "splits", "a split named train", ", ".join(dataset.splits) or "none")
    for name, batch in dataset.splits.items():
        check_batch(batch, classes=k, attributes=a, what=f"splits[{name!r}]")
    for name, batch in dataset.pairs.items():
        check_batch(batch, classes=k, attributes=a, what=f"pairs[{name!r}]")
        expect(batch.twin is not None, f"pairs[{name!r}].twin", "the conflicting rendering of x", None)


def check_logits(logits: Any, n: int, *, classes: int | None = None, what: str = "logits") -> None:
    """Float `[n k]`, finite."""
    good = hasattr(logits, "shape") and logits.ndim == 2 and logits.shape[0] == n
    good = good and (classes is None or logits.shape[1] == classes) and jnp.issubdtype(logits.dtype, jnp.floating)
    expect(good, what, f"float [n={n}, k={classes or 'classes'}]", describe(logits))
    check_finite(what, logits)
