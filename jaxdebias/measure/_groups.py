"""Accuracy per (label, attribute) group, and every average of it that the field reports, each under its own name."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxdebias.contracts import (
    check_finite,
    check_integers,
    check_logits,
    check_numbers,
    describe,
    expect,
    row_count,
)
from jaxdebias.core import Array, Batch, Key, group_of
from jaxdebias.measure._bootstrap import Interval, bootstrap, paired_difference, rate_intervals

SMALL_GROUP = 30
"""Groups of fewer independent units than this are flagged: their rates say little."""


class Accuracies(NamedTuple):
    """The averages of a `GroupReport`, or their differences between two models."""

    accuracy: Interval
    group_mean_accuracy: Interval
    reweighted_accuracy: Interval
    worst_group_accuracy: Interval
    bias_aligned_accuracy: Interval
    bias_conflicting_accuracy: Interval


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
    worst_group: tuple[int, int]
    """(label, attribute) of the worst group; (-1, -1) if no attribute is known."""
    groups: Interval
    """Accuracy of each group, arrays `[k a]`; n is the number of distinct units in it."""
    count: np.ndarray
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


@functools.partial(jax.jit, static_argnames=("classes", "attributes"))
def group_confusion(
    predicted: Int[Array, " n"], label: Int[Array, " n"], attribute: Int[Array, " n"], *, classes: int, attributes: int
) -> Int[Array, "k a k"]:
    """Rows per (label, attribute, predicted class) in one pass; rows of unknown attribute (-1) are left out.

    The sum over the last axis is the size of each group, the entries with label = predicted its correct rows.
    """
    group = group_of(jnp.asarray(label), jnp.asarray(attribute), attributes)
    cell = jnp.where(group < 0, -1, group * classes + predicted)  # segment_sum drops negative segments
    counts = jax.ops.segment_sum(jnp.ones_like(cell), cell, num_segments=classes * attributes * classes)
    return counts.reshape(classes, attributes, classes)


def group_report(
    key: Key,
    predicted: Shaped[Array, "n *k"],
    batch: Batch,
    aligned: Bool[Array, "k a"],
    *,
    train_counts: Int[Array, "k a"] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> GroupReport:
    """Accuracies by group and their averages, each with its interval.

    A rate of one pool of rows (a group, all rows, the aligned rows) has Wilson's interval, an average of groups the
    percentiles of a Bayesian bootstrap over units. For the worst group these are widened: downwards to the
    Wilson limit of that group, because the bootstrap sees no spread where all rows agree (0 of 12 correct); upwards
    to the lowest of the simultaneous Wilson limits of all groups, because the worst of many is so partly by chance.

    Args:
      key: randomness of the bootstrap.
      predicted: predicted classes `[n]` int, or logits `[n k]` float.
      batch: label, attribute and unit are used; rows of weight 0 are padding and left out. x is not looked at.
      aligned: `[k a]` bool, the cells where the attribute goes with the label in training.
      train_counts: `[k a]` rows of each group in the training set, for `reweighted_accuracy`; None: it is NaN.
      resamples: bootstrap resamples.
      level: confidence level of every interval.

    Raises:
      ContractError: on shapes, dtypes or ranges that do not fit, NaN logits, or weights other than 0 and 1.
    """
    classes, attributes = _cells(aligned)
    predicted, label, attribute, unit = _rows("predicted", predicted, batch, classes, attributes)
    shares = _train_shares(train_counts, classes, attributes)
    hit, group = predicted == label, group_of(label, attribute, attributes)

    confusion = np.asarray(group_confusion(predicted, label, attribute, classes=classes, attributes=attributes))
    count = confusion.sum(axis=-1)
    flat = rate_intervals(hit, group, unit, pools=classes * attributes, level=level)
    groups = Interval(*(field.reshape(classes, attributes) for field in flat))  # pyright: ignore[reportAttributeAccessIssue]
    everything = rate_intervals(hit, np.zeros_like(group), unit, pools=1, level=level)
    of_alignment = np.where(group < 0, -1, np.asarray(aligned, np.int32).reshape(-1)[group])
    alignment = rate_intervals(hit, of_alignment, unit, pools=2, level=level)

    averages = bootstrap(
        key,
        _averages,
        _values(hit),
        group=_with_unknown(group, classes * attributes),
        groups=classes * attributes + 1,
        unit=unit,
        args=(np.asarray(aligned), shares),
        resamples=resamples,
        level=level,
    )
    known_units = len(np.unique(np.arange(len(group))[group >= 0] if unit is None else unit[group >= 0]))
    averages = Accuracies(*(_select(averages, i, known_units) for i in range(len(Accuracies._fields))))
    worst_group, worst = (-1, -1), averages.worst_group_accuracy
    if known_units:
        row, column = np.unravel_index(np.nanargmin(groups.value), groups.value.shape)  # pyright: ignore[reportAttributeAccessIssue]
        worst_group = (int(row), int(column))
        of_group = Interval(*(field[worst_group].item() for field in groups))
        # The worst of many is low partly by chance. No true rate lies above its own limit at this level, save with
        # probability (1 - level) / 2, so neither does the lowest of them (Bonferroni).
        each = 1 - (1 - level) / int(np.count_nonzero(groups.n))
        limits = rate_intervals(hit, group, unit, pools=classes * attributes, level=each).high
        worst = of_group._replace(low=min(worst.low, of_group.low), high=max(worst.high, np.nanmin(limits).item()))
    return GroupReport(
        accuracy=_select(everything, 0),
        group_mean_accuracy=averages.group_mean_accuracy,
        reweighted_accuracy=averages.reweighted_accuracy,
        worst_group_accuracy=worst,
        bias_aligned_accuracy=_select(alignment, 1),
        bias_conflicting_accuracy=_select(alignment, 0),
        worst_group=worst_group,
        groups=groups,
        count=count,
        correct=np.einsum("yay->ya", confusion),
        confusion=confusion,
        small=(groups.n > 0) & (groups.n < SMALL_GROUP),
    )


def accuracy_differences(
    key: Key,
    before: Shaped[Array, "n *k"],
    after: Shaped[Array, "n *k"],
    batch: Batch,
    aligned: Bool[Array, "k a"],
    *,
    train_counts: Int[Array, "k a"] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> Accuracies:
    """What a second model gains over a first one on the same rows: `after - before` of every average.

    The comparison is paired: each resample weighs the rows alike for both models. Arguments as in `group_report`;
    `before` and `after` are predicted classes or logits.
    """
    classes, attributes = _cells(aligned)
    first, label, attribute, unit = _rows("before", before, batch, classes, attributes)
    second, *_ = _rows("after", after, batch, classes, attributes)
    shares = _train_shares(train_counts, classes, attributes)
    group = group_of(label, attribute, attributes)
    differences = paired_difference(
        key,
        _averages,
        _values(first == label),
        _values(second == label),
        group=_with_unknown(group, classes * attributes),
        groups=classes * attributes + 1,
        unit=unit,
        args=(np.asarray(aligned), shares),
        resamples=resamples,
        level=level,
    )
    return Accuracies(*(_select(differences, i, differences.n) for i in range(len(Accuracies._fields))))


def predicted_class(what: str, predicted: Any, n: int, classes: int) -> np.ndarray:
    """Predicted classes `[n]` on the host, from themselves or from logits `[n k]`; `what` names them in an error."""
    if np.ndim(predicted) == 2:
        check_logits(predicted, n, classes=classes, what=what, probabilities=True)
        predicted = np.argmax(predicted, axis=-1)
    check_integers(what, predicted, n, 0, classes)
    return np.asarray(predicted)


def _averages(
    sums: Float[Array, "g_plus_1 2"], aligned: Bool[Array, "k a"], shares: Float[Array, "k a"]
) -> Float[Array, "6"]:
    """The fields of `Accuracies` from (weight, correct weight) per group; the last row has no known attribute."""
    weight, correct = sums[:-1].T
    present, goes_along, shares = weight > 0, aligned.reshape(-1), shares.reshape(-1)
    accuracy = jnp.where(present, correct / jnp.where(present, weight, 1.0), 0.0)
    worst = jnp.min(jnp.where(present, accuracy, jnp.inf))
    return jnp.stack(
        [
            _ratio(jnp.sum(sums[:, 1]), jnp.sum(sums[:, 0])),
            _ratio(jnp.sum(accuracy), jnp.sum(present)),
            _ratio(jnp.sum(shares * accuracy), jnp.sum(shares * present)),
            jnp.where(jnp.any(present), worst, jnp.nan),
            _ratio(jnp.sum(correct * goes_along), jnp.sum(weight * goes_along)),
            _ratio(jnp.sum(correct * ~goes_along), jnp.sum(weight * ~goes_along)),
        ]
    )


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """part / whole, NaN where there is nothing to divide by."""
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), jnp.nan)


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
        return np.zeros((classes, attributes), np.float32)
    counts = np.asarray(train_counts)
    good = counts.shape == (classes, attributes) and counts.dtype.kind in "iuf"
    expect(good, "train_counts", f"int [k={classes}, a={attributes}]", describe(counts))
    check_finite("train_counts", counts)
    expect(bool((counts >= 0).all() and counts.sum() > 0), "train_counts", "counts, not all 0", describe(counts))
    return (counts / counts.sum()).astype(np.float32)


def _values(hit: np.ndarray) -> np.ndarray:
    return np.stack([np.ones(len(hit)), hit], axis=1).astype(np.float32)


def _with_unknown(group: np.ndarray, groups: int) -> np.ndarray:
    """Rows of unknown attribute become a last group of their own: they count in the plain accuracy only."""
    return np.where(group < 0, groups, group).astype(np.int32)


def _select(intervals: Interval, i: int, n: int | None = None) -> Interval:
    """One of several intervals; n = 0 where it does not exist."""
    value, low, high = (field[i].item() for field in intervals[:3])
    units = int(intervals.n[i]) if n is None else n
    return Interval(value, low, high, 0 if np.isnan(value) else units)
