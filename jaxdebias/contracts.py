"""Checks at the public boundary, before anything is traced. The one place that words "what, expected, got"."""

import difflib
import functools
import os
from collections.abc import Callable, Iterable
from typing import Any, Literal, NoReturn, cast, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from jaxdebias.core import Array, Batch, Dataset, Split


class ContractError(ValueError):
    """Bad input. Its message is one line: what, expected, got. The command line prints it and exits with 2."""


@overload
def expect(condition: Literal[False], what: str, expected: str, got: object) -> NoReturn: ...
@overload
def expect(condition: bool, what: str, expected: str, got: object) -> None: ...


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


def check_choice(what: str, value: Any, choices: Iterable[str]) -> None:
    """An unknown name, with the nearest valid one.

    >>> check_choice("data", "digit", ["digits", "scenes"])
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `data`: expected one of digits, scenes, got 'digit' (did you mean 'digits'?)
    """
    choices = list(choices)
    if isinstance(value, str) and value in choices:
        return
    got = repr(value) if len(repr(value)) <= 60 else describe(value)  # a file may hold anything in its place
    near = difflib.get_close_matches(got.strip("'"), choices, n=1, cutoff=0.4)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    expect(False, what, f"one of {', '.join(choices)}", f"{got}{hint}")


def check_integers(what: str, value: Any, n: int, low: int, high: int | None) -> None:
    """Integers `[n]` in low..high-1 (`high` None: no upper bound)."""
    check_size(what, value)
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


def check_key(what: str, key: Any) -> None:
    """One random key, typed (`jax.random.key`) or of the old kind (`jax.random.PRNGKey`).

    >>> check_key("key", 0)
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `key`: expected a key, as jax.random.key(0), got int 0
    """
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ()
    expect(bool(typed or (dtype == np.uint32 and shape == (2,))), what, "a key, as jax.random.key(0)", describe(key))


def check_labelled(logits: Any, label: Any) -> None:
    """Logits `[n k]` with labels `[n]` of integers. Looks at no value, so it may stand in a traced function.

    Of a column of labels, or of fewer, an index would broadcast without a word.
    """
    check_numbers("logits", logits, "n k")
    truths = jnp.issubdtype(getattr(logits, "dtype", None) or np.asarray(logits).dtype, jnp.bool_)
    expect(not truths, "logits", "numbers [n k]", describe(logits))
    integers = jnp.issubdtype(getattr(label, "dtype", None) or np.asarray(label).dtype, jnp.integer)
    fits = bool(integers) and np.shape(label) == np.shape(logits)[:1]
    expect(fits, "label", f"int [n={np.shape(logits)[0]}]", describe(label))


def check_rows(rows: int | None) -> int:
    """How many rows a training set has, for a method that remembers something of each."""
    if rows is None or rows < 1:
        expect(False, "rows", "rows of the training set, at least 1", rows)
    return int(rows)


ROUNDING = 1e-3
"""Probabilities of a row may miss 1 by so much in sum."""
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
    check_size(what, value)
    return int(np.size(value))


def check_size(what: str, value: Any) -> None:
    """An array that the memory could hold: a view may repeat one number so often that a copy of it could not exist.

    >>> check_size("label", np.broadcast_to(np.int32(1), (2**50,)))
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `label`: expected at most ... bytes, the memory, got int32 [1125899906842624]
    """
    size = getattr(value, "nbytes", 0)  # a tracer has none
    if isinstance(size, int) and size > 2**30:
        most = _memory()
        expect(size <= most, what, f"at most {most:,} bytes, the memory", describe(value))


@functools.cache
def _memory() -> int:
    """Bytes of the machine's memory; 2^40 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 2**40


def check_numbers(what: str, value: Any, dimensions: str) -> None:
    """An array of real numbers with the dimensions that are named; `... h w` has two or more. Looks at no value.

    >>> check_numbers("maps", np.zeros((2, 3)), "n h w")
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `maps`: expected numbers [n h w], got float64 [2, 3]
    """
    check_size(what, value)
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
    # JAX's own names for paths in trees are of unknown type.
    found = cast(Any, jax.tree_util.tree_leaves_with_path)  # pyright: ignore[reportUnknownMemberType]
    for path, leaf in found(tree):
        check_size(what, leaf)
        leaf = np.asarray(leaf)
        # jnp's hierarchy knows bfloat16, NumPy's does not.
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and not (finite := np.isfinite(leaf)).all():
            where = what + jax.tree_util.keystr(path)  # pyright: ignore[reportUnknownMemberType]
            expect(False, where, "finite values", f"{int((~finite).sum())} of {leaf.size} not finite")


def check_batch(batch: Batch, *, classes: int | None = None, attributes: int | None = None, what: str = "data") -> None:
    """Shapes, dtypes, ranges and finiteness of every field that is there.

    Raises:
      ContractError: naming the field, what was expected and what was found.
    """
    is_batch = isinstance(batch, Batch)  # pyright: ignore[reportUnnecessaryIsInstance]  callers may have no types
    expect(is_batch, what, "a jaxdebias.Batch", type(batch).__name__)
    for name, value in batch._asdict().items():
        # A Series is indexed by its labels, not by position: it would give other rows without a word.
        good = value is None or (isinstance(getattr(value, "dtype", None), np.dtype) and not hasattr(value, "iloc"))
        expect(good, f"{what}.{name}", "an array, such as numpy.asarray(...) of it", type(value).__name__)
    x = batch.x
    expect(hasattr(x, "shape") and x.ndim in (2, 4), f"{what}.x", "images [n h w c] or a table [n d]", describe(x))
    # PyTorch's order passes every other check and is audited to the end, as pictures three pixels high.
    channels_first = x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[2] == x.shape[3] > 4
    hint = "images [n h w c]: x.transpose(0, 2, 3, 1) of [n c h w]"
    expect(not channels_first, f"{what}.x", hint, describe(x) if channels_first else None)
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
    if batch.twin_attribute is not None:
        check_integers(f"{what}.twin_attribute", batch.twin_attribute, n, -1, attributes)
    if batch.weight is not None:
        expect(np.shape(batch.weight) == (n,), f"{what}.weight", f"float [n={n}]", describe(batch.weight))
        check_numbers(f"{what}.weight", batch.weight, "n")
        check_finite(f"{what}.weight", batch.weight)
        expect(bool(np.min(batch.weight) >= 0), f"{what}.weight", "no negative weight", f"{np.min(batch.weight)}")
    if batch.unit is not None:
        check_integers(f"{what}.unit", batch.unit, n, 0, None)


def check_aligned(aligned: Any, classes: int, attributes: int) -> None:
    """Refuses what is no array of bools: of integers, `~` would be -1 and -2."""
    good = isinstance(getattr(aligned, "dtype", None), np.dtype) and aligned.dtype == bool
    good = good and aligned.shape == (classes, attributes)
    expect(good, "aligned", f"bool [k={classes}, a={attributes}]", describe(aligned))


def check_one_shape(dataset: Dataset) -> None:
    """Refuses splits whose rows are of different shapes, which one model cannot read."""
    names = list(dataset.splits)
    for name in names[1:]:
        row, first = (dataset.splits[one].x.shape[1:] for one in (name, names[0]))
        expect(row == first, f"splits[{name!r}].x", f"rows {list(first)}, as in {names[0]}", f"rows {list(row)}")


def check_attribute_region(dataset: Dataset) -> None:
    """Refuses a region of the attribute that is none of the regions of the masks."""
    name, known = dataset.attribute_region, ", ".join(dataset.regions) or "none"
    expect(name is None or name in dataset.regions, "attribute_region", f"one of the regions ({known}), or None", name)


def check_dataset(dataset: Dataset) -> None:
    """Every split and every set of pairs, against the names of labels and attributes."""
    k, a = len(dataset.label_names), len(dataset.attribute_names)
    check_aligned(dataset.aligned, k, a)
    expect("train" in dataset.splits, "splits", "a split named train", ", ".join(dataset.splits) or "none")
    for name, batch in dataset.splits.items():
        check_batch(batch, classes=k, attributes=a, what=f"splits[{name!r}]")
    check_one_shape(dataset)
    check_attribute_region(dataset)
    for name, batch in dataset.pairs.items():
        check_batch(batch, classes=k, attributes=a, what=f"pairs[{name!r}]")
        expect(batch.twin is not None, f"pairs[{name!r}].twin", "the conflicting rendering of x", None)


NOT_LOGITS = "probabilities (every row is in 0..1 and sums to 1): leave out the softmax, or return its logarithm"


def one_logit_hint(outputs: Any, n: int) -> str:
    """What to do with one number per row, `[n]` or `[n 1]` of floats: to be added to an error; empty for others.

    >>> one_logit_hint(np.zeros(3, np.float32), 3)
    ' (a single logit z is the two classes 0 and z: return jnp.stack([0 * z, z], axis=1))'
    """
    stacked: dict[tuple[int, ...], str] = {
        (n,): "jnp.stack([0 * z, z], axis=1)",
        (n, 1): "jnp.concatenate([0 * z, z], axis=1)",
    }
    shape = tuple(getattr(outputs, "shape", ()))
    single = shape in stacked and jnp.issubdtype(outputs.dtype, jnp.floating)
    return f" (a single logit z is the two classes 0 and z: return {stacked[shape]})" if single else ""


def check_logits(
    logits: Any, n: int, *, classes: int | None = None, what: str = "logits", probabilities: bool = False
) -> None:
    """Float `[n k]` with two classes or more, finite, and no probabilities, of which softmax would be taken again.

    Args:
      logits: what a model put out.
      n: rows.
      classes: k; None: any number from 2 on.
      what: their name in the error.
      probabilities: they are right, too, because only the largest of each row counts.
    """
    good = hasattr(logits, "shape") and logits.ndim == 2 and logits.shape[0] == n
    hint = one_logit_hint(logits, n)
    good = good and (logits.shape[1] == classes if classes else logits.shape[1] >= 2)
    good = good and jnp.issubdtype(logits.dtype, jnp.floating)
    expect(good, what, f"float [n={n}, k={classes or 'classes'}]", describe(logits) + hint)
    check_finite(what, logits)
    if not probabilities:
        expect(not are_probabilities(logits), what, "logits", NOT_LOGITS)


def are_probabilities(outputs: Shaped[Array, "n k"]) -> bool:
    """Whether every row is in 0..1 and sums to 1, as softmax gives them. Zeros and ones alone are classes, one-hot.

    >>> are_probabilities(np.array([[0.25, 0.75], [1.0, 0.0]])), are_probabilities(np.eye(2))
    (True, False)
    """
    outputs = np.asarray(outputs, np.float32)
    inside = ((outputs >= 0) & (outputs <= 1 + ROUNDING)).all()
    between = ((outputs > 0) & (outputs < 1)).any()
    return bool(outputs.size and inside and between and (np.abs(outputs.sum(-1) - 1) <= ROUNDING).all())


def check_output(apply_fn: Callable[[Any, Array], Any], params: Any, x: Array) -> None:
    """Refuses a model that puts out anything but one array, such as logits beside something else.

    Args:
      apply_fn: `(params, x) -> logits [n k]`.
      params: its parameters.
      x: inputs `[n ...]`, of which the first few give the shapes; nothing is computed.
    """

    def called(params: Any, x: Any) -> Any:  # a function of its own, because a model may have no hash
        return apply_fn(params, x)

    found = jax.eval_shape(called, params, x[:2])  # pyright: ignore[reportUnknownMemberType]  its argument: any callable
    expect(
        hasattr(found, "shape"),
        "model",
        "a function that returns logits [n k]: of more, return only them",
        f"one that returns a {type(found).__name__}",
    )


def check_split(
    apply_fn: Callable[[Any, Array], Any], split: Split, params: Any, x: Array, *, what: str = "split", rows: int = 8
) -> None:
    """Refuses a cut model that is another one than the whole: `head(features(x))` must equal `apply_fn(x)`.

    Args:
      apply_fn: `(params, x) -> logits [n k]`, evaluation mode.
      split: the same model, cut.
      params: of both.
      x: inputs `[n ...]`, of which the first few are tried.
      what: the name of the split in the error.
      rows: how many are tried.
    """
    whole = jnp.asarray(apply_fn(params, x[:rows]))
    parts = jnp.asarray(split.head(params, split.features(params, x[:rows])))
    same = whole.shape == parts.shape
    expect(same, what, f"the model cut in two: logits {list(whole.shape)}", f"head(features(x)) {list(parts.shape)}")
    coarse = any(value.dtype.itemsize < 4 for value in (whole, parts) if jnp.issubdtype(value.dtype, jnp.floating))
    whole, parts = (np.asarray(value, np.float32) for value in (whole, parts))
    far = float(np.max(np.abs(whole - parts), initial=0.0))
    near = far <= (0.05 if coarse else 1e-3) * max(1.0, float(np.max(np.abs(whole), initial=0.0)))
    expect(near, what, "the model cut in two: head(features(x)) equal to model(x)", f"logits that differ by {far:.3g}")
