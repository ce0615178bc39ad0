"""Calibration: whether the events happen as often as the probabilities say.

The expected calibration error is above 0 for a perfect model (0.05 to 0.18 at 30 rows), so it comes with its test; the
signed gap has an interval of its own.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxdebias.contracts import check_numbers, describe, expect
from jaxdebias.core import Key
from jaxdebias.measure._intervals import Interval, checked_level, plain
from jaxdebias.measure._mean_intervals import ratio_mean, unit_sums
from jaxdebias.measure._significance import CHUNK, numpy_generator

FEWEST_UNITS = 100
"""Rows (with units: units), below which the signed gap has no interval."""


class CalibrationError(NamedTuple):
    """The expected calibration error, beside what a perfectly calibrated model would show on these rows."""

    value: float
    chance: float
    """Mean error of labels that were redrawn from the probabilities."""
    p: float
    """Share of such labels with an error at least as large."""
    n: int
    """Rows."""


def calibration_gap(
    event: Any, probability: Any, *, unit: Any = None, weight: Any = None, level: float = 0.95
) -> Interval:
    """mean(event) - mean(probability) with a t interval over units, from 100 units on; above 0: too low probabilities.

    The variance is that of event - probability, or what the probabilities imply, sum q(1-q), where that is larger: no
    event among 200 rows does not show that there never is one.

    Args:
      event: `[... n]` 0 or 1: the label is the positive class, or the class whose probability this is.
      probability: `[... n]` in [0, 1].
      unit: `[n]` integers; None: every row is its own unit.
      weight: `[n]` weights of rows; 0 is padding.
      level: confidence level.

    Returns:
      Interval of the batch shape; n is the number of units. Below 100 units low and high are NaN.

    >>> gap = calibration_gap(np.tile([1, 0], 100), np.full(200, 0.4))
    >>> round(gap.value, 3), round(gap.low, 3), round(gap.high, 3)
    (0.1, 0.03, 0.17)
    """
    from scipy import special  # a dependency of jax; loaded only here because it is slow to import

    event, probability = _checked(event, probability)
    totals, size = unit_sums(event - probability, unit, weight)
    implied, _ = unit_sums(probability * (1.0 - probability), unit, None if weight is None else np.square(weight))
    value, error, freedom = ratio_mean(totals, size)
    error = np.maximum(error, np.sqrt(implied.sum(-1)) / size.sum())
    half = special.stdtrit(freedom, (1.0 + checked_level(level)) / 2.0) * error
    half = np.where((len(size) >= FEWEST_UNITS) & (half > 0), half, np.nan)
    return Interval(plain(value), plain(value - half), plain(value + half), len(size))


def calibration_error(
    event: Any, probability: Any, *, key: Key, bins: int = 10, unit: Any = None, weight: Any = None, draws: int = 2000
) -> CalibrationError:
    """Expected calibration error in bins of equal width (Guo et al. 2017), with its test against redrawn labels.

    The test redraws labels from the probabilities, as a perfectly calibrated model would have it.

    Args:
      event: `[n]` 0 or 1.
      probability: `[n]` in [0, 1].
      key: randomness of the redrawn labels.
      bins: number of bins.
      unit: `[n]` integers. Rows of a unit are redrawn with one uniform number, the strongest dependence there can be.
      weight: `[n]` weights of rows; 0 is padding.
      draws: number of redrawn sets of labels.

    >>> import jax
    >>> error = calibration_error(np.tile([1, 0], 15), np.tile([0.9, 0.6], 15), key=jax.random.key(0))
    >>> round(error.value, 3), error.p < 0.01
    (0.35, True)
    """
    event, probability = _checked(event, probability)
    expect(event.ndim == 1, "event", "0 or 1 for every row, [n]", describe(event))
    weight = np.ones(len(event)) if weight is None else np.asarray(weight, np.float64)
    unit = np.arange(len(event)) if unit is None else np.asarray(unit)
    event, probability, unit, weight = (a[weight > 0] for a in (event, probability, unit, weight))
    expect(len(event) > 0, "weight", "at least one row that counts", describe(weight))
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    share = weight / weight.sum()
    in_bin = np.zeros((len(event), bins))
    in_bin[np.arange(len(event)), place] = share
    said = probability @ in_bin

    value = float(np.abs(event @ in_bin - said).sum())
    names, unit = np.unique(unit, return_inverse=True)
    rng, at_once = numpy_generator(key), max(1, CHUNK // len(event))
    drawn: list[np.ndarray] = []
    for start in range(0, draws, at_once):
        uniform = rng.random((min(at_once, draws - start), len(names)))
        drawn.append(np.abs((uniform[:, unit] < probability) @ in_bin - said).sum(-1))
    errors = np.concatenate(drawn)
    reached = int((errors >= value * (1.0 - 1e-9)).sum())
    return CalibrationError(value, float(errors.mean()), (1 + reached) / (1 + draws), len(event))


def _checked(event: Any, probability: Any) -> tuple[np.ndarray, np.ndarray]:
    check_numbers("event", event, "... n")
    check_numbers("probability", probability, "... n")
    event, probability = np.asarray(event, np.float64), np.asarray(probability, np.float64)
    expect(bool(np.all(np.isin(event, (0, 1)))), "event", "0 or 1 for every row", describe(event))
    fits = bool(np.all((probability >= 0) & (probability <= 1)))
    expect(fits, "probability", "numbers in [0, 1]", describe(probability))
    expect(
        event.shape == probability.shape,
        "probability",
        f"the shape of event, {list(event.shape)}",
        describe(probability),
    )
    return event, probability
