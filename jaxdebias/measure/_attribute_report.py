"""A network with many yes-or-no outputs: how well each of them does, for whom, and with what it goes along.

Figures 5 and 6 of Attention-IoU (Serianni et al., CVPR 2025) put these numbers beside the scores of the maps.
"""

from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float, Int

from jaxdebias.contracts import check_finite, check_integers, check_numbers, describe, expect
from jaxdebias.core import Array, Key
from jaxdebias.measure._calibration import calibration_error
from jaxdebias.measure._design_effect import group_counts
from jaxdebias.measure._disparity import WorstGroup, worst_group_interval
from jaxdebias.measure._intervals import Interval, checked_level, exact_limits, normal_quantile, proportion_interval
from jaxdebias.measure._mean_intervals import unit_sums

LEAST_SHARE = 0.01
"""Groups with a smaller share of the rows take no part in the worst one (the paper, section 5)."""


class AttributeReport(NamedTuple):
    """Every output by itself; arrays are `[t]`."""

    accuracy: Interval
    """At logit 0, with exact limits."""
    average_precision: Interval
    normalised_average_precision: Interval
    """As if every output had the same number of positive rows, see `average_precision`."""
    worst_group_accuracy: WorstGroup
    """Over the four groups (output, attribute), those of 1 % of the rows or more; `group` is 2 * label + attribute."""
    correlation: Interval
    """Matthews correlation of the output's predictions with the attribute."""
    calibration_error: np.ndarray
    """Expected calibration error, ten bins."""
    calibration_chance: np.ndarray
    """What a perfectly calibrated network would show on the same rows."""
    n: np.ndarray
    """Rows whose label is known."""
    positives: np.ndarray


def attribute_report(
    key: Key,
    logits: Any,
    label: Any,
    attribute: Any,
    *,
    weight: Any = None,
    unit: Any = None,
    draws: int = 200,
    level: float = 0.95,
) -> AttributeReport:
    """Accuracy, average precision, worst group, correlation with an attribute and calibration of every output.

    Args:
      key: randomness of the calibration's redrawn labels.
      logits: `[n t]`, one column per output; above 0 is a yes.
      label: `[n t]` 0 or 1; -1 where unknown, which leaves the row out for that output only.
      attribute: `[n]` 0 or 1; -1 where unknown, which leaves the row out of groups and correlation.
      weight: `[n]` 0 (padding) or 1.
      unit: `[n]` which independent unit a row belongs to.
      draws: number of redrawn sets of labels, for `calibration_chance`.
      level: confidence level of every interval.

    Raises:
      ContractError: on shapes or values that do not fit.

    >>> import jax
    >>> logits = np.array([[2.0, -1.0], [1.0, 0.5], [-1.0, 1.0], [-2.0, -2.0]])
    >>> label = np.array([[1, 0], [1, 1], [0, 0], [0, -1]])
    >>> report = attribute_report(jax.random.key(0), logits, label, np.array([1, 1, 0, 0]))
    >>> report.accuracy.value.round(3).tolist(), report.average_precision.value.tolist(), report.n.tolist()
    ([1.0, 0.667], [1.0, 0.5], [4, 3])
    """
    logits, label, attribute, unit = _rows(logits, label, attribute, weight, unit)
    known = label >= 0
    rate = float((label == 1).sum() / known.sum())
    found: list[tuple[Any, ...]] = []
    for column in range(logits.shape[1]):
        rows = known[:, column]
        z, y, a = logits[rows, column], label[rows, column], attribute[rows]
        units = None if unit is None else unit[rows]
        found.append(_one_output(key, z, y, a, units, rate, draws, level))
    accuracy, precision, normalised, worst, correlation, error, chance = map(_stacked, zip(*found, strict=True))
    return AttributeReport(
        accuracy=accuracy,
        average_precision=precision,
        normalised_average_precision=normalised,
        worst_group_accuracy=worst,
        correlation=correlation,
        calibration_error=error,
        calibration_chance=chance,
        n=known.sum(0),
        positives=(label == 1).sum(0),
    )


def average_precision(
    scores: Float[Array, " n"],
    label: Int[Array, " n"],
    *,
    rate: float | None = None,
    unit: Int[Array, " n"] | None = None,
    level: float = 0.95,
) -> Interval:
    """Average precision: the mean, over positive rows, of the precision at the row's score; ties share a threshold.

    With `rate`, precision is what it would be if a share `rate` of the rows were positive, at the same share of
    positives found and the same number of false positives (Hoiem, Chodpathumwan and Dai 2012, section 2.2), so that
    outputs of different frequency can be compared.

    The limits are normal on the logit scale, with variance AP (1 - AP) / positives (Boyd, Eng and Page 2013). Where the
    average precision is 1 they are exact limits of a proportion of the positives.

    Args:
      scores: `[n]`, larger is more likely positive.
      label: `[n]` 0 or 1.
      rate: in (0, 1]; None: as it is.
      unit: `[n]` which independent unit a row belongs to; the positive units count in the limits.
      level: confidence level.

    Returns:
      Interval; n is the number of positive rows (units). NaN without any.

    >>> round(average_precision(np.array([3.0, 2.0, 1.0]), np.array([1, 0, 1])).value, 4)
    0.8333
    """
    check_numbers("scores", scores, "n")
    check_finite("scores", scores)
    check_integers("label", label, len(np.asarray(scores)), 0, 2)
    expect(rate is None or 0 < rate <= 1, "rate", "a share in (0, 1], or None", rate)
    scores, label = np.asarray(scores, np.float64), np.asarray(label)
    positive = int(label.sum())
    if positive == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    order = np.argsort(-scores, kind="stable")
    hit = label[order].astype(np.float64)
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(hit) - 1)  # the last row of each threshold
    true, false = np.cumsum(hit)[last], np.cumsum(1.0 - hit)[last]
    counted = true if rate is None else true / positive * rate * len(hit)
    precision = counted / np.maximum(counted + false, 1e-300)
    value = float((np.diff(true, prepend=0.0) * precision).sum() / positive)
    n = positive if unit is None else len(np.unique(np.asarray(unit)[label == 1]))
    low, high = _logit_limits(min(value, 1.0), n, level)
    return Interval(min(value, 1.0), low, high, n)


def prediction_correlation(
    one: Int[Array, " n"], other: Int[Array, " n"], *, unit: Int[Array, " n"] | None = None, level: float = 0.95
) -> Interval:
    """Matthews correlation of two yes-or-no columns, in -1..1, with limits on Fisher's scale.

    The variance is that of the correlation's linearisation, summed over units, so it does not assume normal data. Two
    columns that agree (or differ) in every row have no such variance: the limit is then the correlation that the
    largest share of other rows would give that the rows do not rule out, p = 1 - (alpha/2)^(1/n), placed evenly:
    1 - p / (2 q (1 - q)) with q the share of ones.

    Args:
      one: `[n]` 0 or 1.
      other: `[n]` 0 or 1.
      unit: `[n]` which independent unit a row belongs to.
      level: confidence level.

    Returns:
      Interval; n is the number of rows (units). NaN where a column has one value only.

    >>> found = prediction_correlation(np.tile([0, 0, 1, 1], 25), np.tile([0, 0, 1, 0], 25))
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
    (0.577, 0.453, 0.68)
    """
    check_integers("one", one, len(np.asarray(one)), 0, 2)
    check_integers("other", other, len(np.asarray(one)), 0, 2)
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    n = len(a) if unit is None else len(np.unique(unit))
    if n == 0 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), n)
    share = a.mean()
    a, b = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
    r = float(np.clip((a * b).mean(), -1.0, 1.0))
    tail = (1.0 - checked_level(level)) / 2.0
    if 1.0 - abs(r) < 1e-12:
        far = max(-1.0, 1.0 - (1.0 - tail ** (1.0 / n)) / (2.0 * share * (1.0 - share)))
        return Interval(r, far if r > 0 else -1.0, 1.0 if r > 0 else -far, n)
    totals, _ = unit_sums(a * b - r * (a**2 + b**2) / 2.0, unit, None)
    error = float(np.sqrt((totals**2).sum() * n / max(n - 1, 1)) / len(a))
    half = normal_quantile(level) * error / (1.0 - r**2)
    low, high = np.tanh(np.arctanh(r) - half), np.tanh(np.arctanh(r) + half)
    return Interval(r, float(low), float(high), n)


def _one_output(
    key: Key,
    logit: np.ndarray,
    label: np.ndarray,
    attribute: np.ndarray,
    unit: np.ndarray | None,
    rate: float,
    draws: int,
    level: float,
) -> tuple[Any, ...]:
    """The fields of the report but for the counts, of the rows `[m]` whose label is known."""
    from scipy import special  # a dependency of jax; loaded only here because it is slow to import

    said = (logit > 0).astype(np.int64)
    right = said == label
    x, n = group_counts(right, np.zeros(len(right), int), groups=1, unit=unit, level=level)
    accuracy = proportion_interval(x[0], n[0], level=level)
    # Groups by the labels as they are; too small ones are left out, as are rows of unknown attribute.
    group = np.where(attribute < 0, -1, 2 * label + attribute)
    share = np.bincount(group[group >= 0], minlength=4) / max(len(group), 1)
    group = np.where((group >= 0) & (share[group] >= LEAST_SHARE), group, -1)
    worst = worst_group_interval(*group_counts(right, group, groups=4, unit=unit, level=level), level=level)
    told = attribute >= 0
    correlation = prediction_correlation(
        said[told], attribute[told], unit=None if unit is None else unit[told], level=level
    )
    precision = average_precision(logit, label, unit=unit, level=level)
    normalised = average_precision(logit, label, rate=rate, unit=unit, level=level) if rate > 0 else precision
    error = calibration_error(label, special.expit(logit), key=key, unit=unit, draws=draws)
    return accuracy, precision, normalised, worst, correlation, error.value, error.chance


def _logit_limits(value: float, n: int, level: float) -> tuple[float, float]:
    if not 0.0 < value < 1.0:
        low, high = exact_limits(np.asarray(value * n), np.asarray(float(n)), (1.0 - checked_level(level)) / 2.0)
        return float(low), float(high)
    from scipy import special

    half = normal_quantile(level) / np.sqrt(n * value * (1.0 - value))
    return float(special.expit(special.logit(value) - half)), float(special.expit(special.logit(value) + half))


def _stacked(field: tuple[Any, ...]) -> Any:
    """One field of all outputs: intervals of arrays, or an array."""
    kind = cast(Any, type(field[0]))
    if issubclass(kind, tuple):
        return cast(Any, kind(*(np.asarray(part) for part in zip(*field, strict=True))))
    return np.asarray(field)


def _rows(
    logits: Any, label: Any, attribute: Any, weight: Any, unit: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """What counts, checked, on the host."""
    check_numbers("logits", logits, "n t")
    check_finite("logits", logits)
    logits, label = np.asarray(logits, np.float64), np.asarray(label)
    n = len(logits)
    good = label.shape == logits.shape and label.dtype.kind in "iu" and bool(np.isin(label, (-1, 0, 1)).all())
    expect(good, "label", f"0, 1 or -1 (unknown) for every output, int {list(logits.shape)}", describe(label))
    check_integers("attribute", attribute, n, -1, 2)
    expect(weight is None or np.shape(weight) == (n,), "weight", f"float [n={n}]", describe(weight))
    rows = np.ones(n, bool) if weight is None else np.asarray(weight) > 0
    if weight is not None:
        expect(bool(np.isin(np.asarray(weight), (0, 1)).all()), "weight", "0 (padding) or 1", describe(weight))
    if unit is not None:
        check_integers("unit", unit, n, 0, None)
    some = (label[rows] >= 0).any(0)
    expect(bool(some.all()), "label", "a known label for every output", f"none for {int((~some).sum())} of {len(some)}")
    return logits[rows], label[rows], np.asarray(attribute)[rows], None if unit is None else np.asarray(unit)[rows]
