"""Accuracy per (label, attribute) group, and every average of it that the field reports, each under its own name."""

import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Bool, Int, Shaped

from jaxdebias.contracts import (
    MOST_VALUES,
    check_finite,
    check_integers,
    check_key,
    check_logits,
    check_numbers,
    describe,
    expect,
    one_logit_hint,
    row_count,
)
from jaxdebias.core import Array, Batch, Key, group_of
from jaxdebias.measure._design_effect import group_counts
from jaxdebias.measure._disparity import worst_group_interval
from jaxdebias.measure._extreme_changes import UNKNOWN, worst_group_change
from jaxdebias.measure._intervals import Interval, proportion_interval
from jaxdebias.measure._row_intervals import PairedChange, paired_change, weighted_rate_interval

SMALL_GROUP = 30
"""Groups of fewer independent units than this are flagged: their rates say little."""


WEIGHTED = (
    "group_mean_accuracy",
    "reweighted_accuracy",
    "bias_aligned_accuracy",
    "bias_conflicting_accuracy",
    "alignment_gap",
)
"""Averages that are weighted sums of the accuracies of groups."""


class AccuracyChanges(NamedTuple):
    """What a second model gains over a first one, by the averages of a `GroupReport`. NaN where one does not exist."""

    accuracy: PairedChange
    group_mean_accuracy: PairedChange
    reweighted_accuracy: PairedChange
    worst_group_accuracy: PairedChange
    """Lowest accuracy of a group after minus lowest before: of other groups, it may be."""
    bias_aligned_accuracy: PairedChange
    bias_conflicting_accuracy: PairedChange
    alignment_gap: PairedChange


class GroupReport(NamedTuple):
    """How well a classifier does on every group. What does not exist is NaN with n = 0: an empty group, say."""

    accuracy: Interval
    """Plain: every row counts once, rows of unknown attribute included."""
    group_mean_accuracy: Interval
    """Mean over the groups that are not empty; also called unbiased accuracy."""
    reweighted_accuracy: Interval
    """Groups weighted by their share of the training set (among the groups not empty in the test set)."""
    worst_group_accuracy: Interval
    """Lowest accuracy of a group that is not empty, small ones included: see `small`."""
    bias_aligned_accuracy: Interval
    """Rows in the cells where the attribute goes with the label in training."""
    bias_conflicting_accuracy: Interval
    """Rows in the other cells."""
    alignment_gap: Interval
    """Bias-aligned minus bias-conflicting accuracy."""
    worst_group: tuple[int, int]
    """(label, attribute) of the group that is worst in this sample; (-1, -1) if no attribute is known."""
    indistinguishable: int
    """How many other groups the sample cannot tell from the worst."""
    groups: Interval
    """Accuracy of each group, arrays `[k a]`; n is the number of distinct units in it."""
    count: np.ndarray  # pyright: ignore[reportIncompatibleMethodOverride]  nobody calls tuple.count
    """Rows per group, int `[k a]`."""
    correct: np.ndarray
    """Correctly classified rows per group, int `[k a]`."""
    confusion: np.ndarray
    """Rows per group and predicted class, int `[k a k]`."""
    small: np.ndarray
    """Bool `[k a]`: not empty, but fewer than 30 units."""

    @property
    def worst_group_is_small(self) -> bool:
        """Whether the worst group has so few units that its place may be chance."""
        return self.worst_group[0] >= 0 and bool(self.small[self.worst_group])


def group_confusion(
    predicted: Int[Array, " n"], label: Int[Array, " n"], attribute: Int[Array, " n"], *, classes: int, attributes: int
) -> Int[Array, "k a k"]:
    """Rows per (label, attribute, predicted class) in one pass; rows of unknown attribute (-1) are left out.

    The sum over the last axis is the size of each group, the entries with label = predicted its correct rows. In a
    traced function, where values cannot be checked, rows with any value out of range are left out as well.

    Args:
      predicted: `[n]` predicted classes in 0..classes-1.
      label: `[n]` in 0..classes-1.
      attribute: `[n]` in 0..attributes-1, or -1.
      classes: k.
      attributes: a.

    Raises:
      ContractError: values out of range.
    """
    for name, count in cast(tuple[tuple[str, Any], ...], (("classes", classes), ("attributes", attributes))):
        good = isinstance(count, int | np.integer) and not isinstance(count, bool) and 1 <= count <= MOST_VALUES
        expect(bool(good), name, f"a whole number in 1..{MOST_VALUES}", describe(count))
    check_numbers("label", label, "n")
    for name, value in (("predicted", predicted), ("attribute", attribute)):
        check_numbers(name, value, "n")
        expect(np.shape(value) == np.shape(label), name, f"int [n={np.shape(label)[0]}]", describe(value))
    cells = classes * attributes * classes
    expect(cells <= 2**28, "classes", "a table of at most 2^28 cells", f"{classes} x {attributes} x {classes}")
    if not any(isinstance(value, Tracer) for value in (predicted, label, attribute)):
        n = row_count("label", label)
        for name, value, least, most in (
            ("predicted", predicted, 0, classes),
            ("label", label, 0, classes),
            ("attribute", attribute, -1, attributes),
        ):
            check_integers(name, value, n, least, most)
    return cast(jax.Array, _group_confusion(predicted, label, attribute, classes=classes, attributes=attributes))


@functools.partial(jax.jit, static_argnames=("classes", "attributes"))  # pyright: ignore[reportUnknownMemberType]
def _group_confusion(
    predicted: Int[Array, " n"], label: Int[Array, " n"], attribute: Int[Array, " n"], *, classes: int, attributes: int
) -> Int[Array, "k a k"]:
    # int8 would overflow in the number of the cell.
    predicted, label, attribute = (jnp.asarray(value).astype(jnp.int32) for value in (predicted, label, attribute))
    bounded = ((label, classes), (attribute, attributes), (predicted, classes))
    inside = functools.reduce(jnp.logical_and, [(value >= 0) & (value < most) for value, most in bounded])
    cell = jnp.where(inside, (label * attributes + attribute) * classes + predicted, -1)  # negative: dropped
    counts = jax.ops.segment_sum(jnp.ones_like(cell), cell, num_segments=classes * attributes * classes)
    return counts.reshape(classes, attributes, classes)


def group_report(
    predicted: Shaped[Array, "n *k"],
    batch: Batch,
    aligned: Bool[Array, "k a"],
    *,
    train_counts: Int[Array, "k a"] | None = None,
    level: float = 0.95,
) -> GroupReport:
    """Accuracies by group and their averages, each with its interval.

    The plain accuracy and the groups have exact intervals (`proportion_interval`), the averages score limits of sums of
    independent rates (`weighted_interval`): bias-aligned and bias-conflicting accuracy, too, are sums over their cells,
    weighted by the rows in each. The worst group has limits that allow for the selection (`worst_group_interval`).
    Where rows share units, every number has its own design effect.

    Args:
      predicted: predicted classes `[n]` int, or logits `[n k]` float.
      batch: label, attribute and unit are used; rows of weight 0 are padding and left out. x is not looked at.
      aligned: `[k a]` bool, the cells where the attribute is associated with the label in training.
      train_counts: `[k a]` rows of each group in the training set, for `reweighted_accuracy`; None: it is NaN.
      level: confidence level of every interval.

    Raises:
      ContractError: on shapes, dtypes or ranges that do not fit, NaN logits, or weights other than 0 and 1.
    """
    classes, attributes = _cells(aligned)
    predicted, label, attribute, unit = _rows("predicted", predicted, batch, classes, attributes)
    shares = _train_shares(train_counts, classes, attributes)
    hit, group = predicted == label, np.asarray(group_of(label, attribute, attributes))
    confusion = np.asarray(group_confusion(predicted, label, attribute, classes=classes, attributes=attributes))
    count, correct = confusion.sum(axis=-1), np.einsum("yay->ya", confusion)
    x, n = (cells.ravel().astype(np.float64) for cells in (correct, count))
    if unit is not None:
        x, n = group_counts(hit, group, groups=classes * attributes, unit=unit, level=level)
    units = units_in(group, unit, classes * attributes)
    of_groups = proportion_interval(x, n, level=level)._replace(n=units)
    groups = Interval(*(np.reshape(field, count.shape) for field in of_groups))
    in_group = units.reshape(count.shape)
    averages = _averages(hit, group, unit, count.ravel(), np.asarray(aligned).ravel(), shares.ravel(), level)
    worst = worst_group_interval(x, n, level=level)
    row, column = divmod(int(worst.group), attributes) if worst.group >= 0 else (-1, -1)
    return GroupReport(
        accuracy=_plain_accuracy(hit, unit, level),
        **averages,
        worst_group_accuracy=Interval(*worst[:3], int(units[worst.group]) if worst.group >= 0 else 0),  # pyright: ignore[reportArgumentType]
        worst_group=(row, column),
        indistinguishable=int(worst.indistinguishable),
        groups=groups,
        count=count,
        correct=correct,
        confusion=confusion,
        small=(in_group > 0) & (in_group < SMALL_GROUP),
    )


def accuracy_differences(
    key: Key,
    before: Shaped[Array, "n *k"],
    after: Shaped[Array, "n *k"],
    batch: Batch,
    aligned: Bool[Array, "k a"],
    *,
    train_counts: Int[Array, "k a"] | None = None,
    level: float = 0.95,
) -> AccuracyChanges:
    """What a second model gains over a first one on the same rows: `after - before` of every average.

    Each change is `paired_change` of the rows, with a test and a verdict; that of the worst group `worst_group_change`,
    the difference of two minima. Arguments as in `group_report`.

    Args:
      key: randomness of the tests.
      before: predicted classes `[n]` or logits `[n k]` of the first model.
      after: the same of the second.
      batch: label, attribute and unit are used; rows of weight 0 are padding and left out.
      aligned: `[k a]` bool, the cells where the attribute is associated with the label in training.
      train_counts: `[k a]` rows of each group in the training set; None: the re-weighted accuracy is NaN.
      level: confidence level; tests are at 1 - level.
    """
    classes, attributes = _cells(aligned)
    first, label, attribute, unit = _rows("before", before, batch, classes, attributes)
    second, *_ = _rows("after", after, batch, classes, attributes)
    shares = _train_shares(train_counts, classes, attributes)
    group, cells = np.asarray(group_of(label, attribute, attributes)), classes * attributes
    sides = first == label, second == label
    check_key("key", key)
    key_plain, key_averages, key_worst = jax.random.split(key, 3)
    plain_change = paired_change(*sides, np.zeros_like(group), np.ones(1), key=key_plain, unit=unit, level=level)
    count = np.bincount(group[group >= 0], minlength=cells)
    weights = _weights(count, np.asarray(aligned).ravel(), shares.ravel())
    changes = dict.fromkeys(AccuracyChanges._fields, UNKNOWN)
    if weights:
        w = np.stack(list(weights.values()))
        each = paired_change(*sides, group, w, key=key_averages, unit=unit, level=level)
        changes |= {
            name: PairedChange(*(np.asarray(field)[i].item() for field in each)) for i, name in enumerate(weights)
        }
    changes["accuracy"] = plain_change
    changes["worst_group_accuracy"] = worst_group_change(
        *sides, group, groups=cells, key=key_worst, unit=unit, level=level
    )
    return AccuracyChanges(**changes)


def predicted_class(what: str, predicted: Any, n: int, classes: int) -> np.ndarray:
    """Predicted classes `[n]` on the host, from themselves or from logits `[n k]`; `what` names them in an error."""
    if np.ndim(predicted) == 2:
        check_logits(predicted, n, classes=classes, what=what, probabilities=True)
        predicted = np.argmax(predicted, axis=-1)
    hint = one_logit_hint(predicted, n)
    expect(not hint, what, f"classes, int [n={n}], or logits, float [n={n}, k={classes}]", describe(predicted) + hint)
    check_integers(what, predicted, n, 0, classes)
    return np.asarray(predicted)


def units_in(group: np.ndarray, unit: np.ndarray | None, groups: int) -> np.ndarray:
    """Independent units in each group, int `[g]`."""
    known = group >= 0
    group = group[known].astype(np.int64)
    if unit is not None:
        names, unit = np.unique(unit[known], return_inverse=True)
        group = np.unique(group * len(names) + unit) // max(len(names), 1)
    return np.bincount(group, minlength=groups)


def _weights(count: np.ndarray, aligned: np.ndarray, shares: np.ndarray) -> dict[str, np.ndarray]:
    """Weights `[g]` of the group rates of which each average is the sum, without averages that do not exist."""
    present = count > 0
    weights = {
        "group_mean_accuracy": present,
        "reweighted_accuracy": shares * present,
        "bias_aligned_accuracy": count * aligned,
        "bias_conflicting_accuracy": count * ~aligned,
    }
    weights = {name: w / w.sum() for name, w in weights.items() if w.sum() > 0}
    if "bias_aligned_accuracy" in weights and "bias_conflicting_accuracy" in weights:
        weights["alignment_gap"] = weights["bias_aligned_accuracy"] - weights["bias_conflicting_accuracy"]
    return weights


def _averages(
    hit: np.ndarray,
    group: np.ndarray,
    unit: np.ndarray | None,
    count: np.ndarray,
    aligned: np.ndarray,
    shares: np.ndarray,
    level: float,
) -> dict[str, Interval]:
    weights = _weights(count, aligned, shares)
    nothing = Interval(float("nan"), float("nan"), float("nan"), 0)
    averages: dict[str, Interval] = dict.fromkeys(WEIGHTED, nothing)
    if weights:
        each = weighted_rate_interval(hit, group, np.stack(list(weights.values())), unit=unit, level=level)
        for i, (name, w) in enumerate(weights.items()):
            in_it = (group >= 0) & (w[group] != 0)
            units = _distinct(in_it, unit)
            least, most = (-1.0 if (w < 0).any() else 0.0), (1.0 if (w > 0).any() else 0.0)
            # Weights that sum to 1 up to rounding give sums above 1 up to rounding.
            value, low, high = (min(max(float(np.asarray(end)[i]), least), most) for end in each[:3])
            averages[name] = Interval(value, low, high, units)
    return averages


def _plain_accuracy(hit: np.ndarray, unit: np.ndarray | None, level: float) -> Interval:
    x, n = float(hit.sum()), float(len(hit))
    if unit is not None:
        x, n = (
            counts.item() for counts in group_counts(hit, np.zeros(len(hit), int), groups=1, unit=unit, level=level)
        )
    return proportion_interval(x, n, level=level)._replace(n=_distinct(np.ones(len(hit), bool), unit))


def _distinct(rows: np.ndarray, unit: np.ndarray | None) -> int:
    """Independent units among rows `[n]` bool."""
    return int(rows.sum()) if unit is None else len(np.unique(unit[rows]))


def _rows(
    what: str, predicted: Any, batch: Batch, classes: int, attributes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Predicted class, label, attribute and unit of the rows that are not padding, on the host."""
    n = row_count("label", batch.label)
    check_integers("label", batch.label, n, 0, classes)
    check_integers("attribute", batch.attribute, n, -1, attributes)
    if batch.unit is not None:
        check_integers("unit", batch.unit, n, 0, None)
    predicted = predicted_class(what, predicted, n, classes)
    rows = np.arange(n)
    if batch.weight is not None:
        check_numbers("weight", batch.weight, "n")
        weight = np.asarray(batch.weight)
        expect(weight.shape == (n,), "weight", f"float [n={n}]", describe(weight))
        expect(bool(np.isin(weight, (0, 1)).all()), "weight", "0 (padding) or 1 in a test set", describe(weight))
        rows = rows[weight > 0]
    expect(len(rows) > 0, "batch", "at least one row", f"{len(rows)} of {n} with weight")
    unit = None if batch.unit is None else np.asarray(batch.unit)[rows]
    return predicted[rows], np.asarray(batch.label)[rows], np.asarray(batch.attribute)[rows], unit


def _cells(aligned: Any) -> tuple[int, int]:
    """(k, a). Only bools: of integers, `~` would weigh rows by -1 and -2."""
    good = np.asarray(aligned).dtype.kind == "b" and np.ndim(aligned) == 2 and np.size(aligned) > 0
    expect(good, "aligned", "bool [k a]", describe(aligned))
    return np.shape(aligned)


def _train_shares(train_counts: Any, classes: int, attributes: int) -> np.ndarray:
    """Shares of the training set `[k a]`; all 0, which makes the re-weighted accuracy NaN, if they are not known."""
    if train_counts is None:
        return np.zeros((classes, attributes), np.float64)
    counts = np.asarray(train_counts)
    good = counts.shape == (classes, attributes) and counts.dtype.kind in "iuf"
    expect(good, "train_counts", f"int [k={classes}, a={attributes}]", describe(counts))
    check_finite("train_counts", counts)
    expect(bool((counts >= 0).all() and counts.sum() > 0), "train_counts", "counts, not all 0", describe(counts))
    return (counts / counts.sum()).astype(np.float64)
