"""Intervals of means of continuous quantities over units: a studentised bootstrap, and Student's t for few units.

Rates of 0 and 1 belong to `_intervals`: a bootstrap of a rate near 1 covers too little.
"""

from typing import Any

import numpy as np

from jaxdebias.contracts import check_finite, check_numbers, describe, expect
from jaxdebias.core import Key
from jaxdebias.measure._intervals import Interval, checked_level, excludes_zero, plain
from jaxdebias.measure._row_intervals import PairedChange
from jaxdebias.measure._significance import CHUNK, LEAST_DISCORDANT, numpy_generator, unit_flip_p

FEWEST_UNITS = 20
"""Units from which on the distribution of t is resampled; below, Student's is taken."""
MOST_UNITS = 5000
"""Units up to which it is resampled; above, Hall's expansion is as exact as 2,000 draws."""


def mean_interval(
    values: Any,
    *,
    key: Key,
    unit: Any = None,
    weight: Any = None,
    bounds: tuple[float, float] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Interval of a mean over rows, for instance of paired differences: bootstrap-t over units (Efron 1979; Hall 1988).

    The mean is a ratio of sums over units, its standard error that of the linearised ratio. Under 20 units: Student's t
    with min(U - 1, (sum k)^2 / sum k^2 - 1) degrees of freedom, k rows of a unit. Above 5,000 units: the points of t
    that the resamples tend to, z - g (2 z^2 + 1) / (6 sqrt U), g the skewness of the units (Hall 1988).

    A sample without any spread has no interval of this kind. With bounds, the limits are what U draws that all gave
    the same do not rule out: a share 1 - (alpha/2)^(1/U) of the distribution may lie at a bound. Without, they are NaN.

    Args:
      values: `[... n]`.
      key: randomness of the resamples, the same for all batch entries.
      unit: `[n]` integers; None: every row is its own unit.
      weight: `[n]` weights of rows; 0 is padding.
      bounds: smallest and largest value that the quantity can take, (-1, 1) for a difference of probabilities.
      resamples: number of resamples.
      level: confidence level.

    Returns:
      Interval of the batch shape; n is the number of units. A single unit has no interval: low and high are NaN.

    >>> import jax
    >>> mean = mean_interval([0.1, 0.4, 0.2, 0.3], key=jax.random.key(0))
    >>> round(mean.value, 3), round(mean.low, 3), round(mean.high, 3), mean.n
    (0.25, 0.045, 0.455, 4)
    """
    from scipy import special  # a dependency of jax; loaded only here because it is slow to import

    totals, size = unit_sums(values, unit, weight)
    units, tail = len(size), (1.0 - checked_level(level)) / 2.0
    value, error, freedom = ratio_mean(totals, size)
    if units < FEWEST_UNITS:
        half = special.stdtrit(freedom, 1.0 - tail) * error
        low, high = value - half, value + half
    else:
        if units <= MOST_UNITS:
            t = _resampled_t(numpy_generator(key), totals, size, resamples)
            least, most = np.quantile(t, [tail, 1.0 - tail], axis=0)
        else:
            least, most = (_expanded_t(totals, size, float(special.ndtri(one))) for one in (tail, 1.0 - tail))
        low, high = value - most * error, value - least * error
    spread = error > 1e-12 * np.maximum(np.abs(value), 1e-300)
    low, high = np.where(spread, np.minimum(low, value), np.nan), np.where(spread, np.maximum(high, value), np.nan)
    if bounds is not None:
        hidden = 1.0 - tail ** (1.0 / units)
        low = np.maximum(np.where(spread, low, value - hidden * (value - bounds[0])), bounds[0])
        high = np.minimum(np.where(spread, high, value + hidden * (bounds[1] - value)), bounds[1])
    return Interval(plain(value), plain(low), plain(high), units)


def mean_change(
    before: Any,
    after: Any,
    *,
    key: Key,
    unit: Any = None,
    weight: Any = None,
    bounds: tuple[float, float] | None = None,
    level: float = 0.95,
) -> PairedChange:
    """Change of the mean of a continuous quantity between two models on the same rows, with interval, test and verdict.

    The interval is `mean_interval` of the differences, the test flips the signs of whole units (`unit_flip_p`).
    Separable is a change with p <= 1 - level, at least 6 units that changed, and 0 outside the interval.

    Args:
      before: `[n]` values with the first model.
      after: `[n]` values with the second.
      key: randomness of the resamples and the signs.
      unit: `[n]` integers; None: every row is its own unit.
      weight: `[n]` weights of rows; 0 is padding.
      bounds: smallest and largest difference that there can be.
      level: confidence level.

    >>> import jax
    >>> before = np.linspace(0.2, 0.6, 40)
    >>> change = mean_change(before, before - np.linspace(0.0, 0.2, 40), key=jax.random.key(0))
    >>> round(change.value, 3), change.separable
    (-0.1, True)
    """
    for name, value in (("before", before), ("after", after)):
        check_numbers(name, value, "n")
    expect(np.shape(before) == np.shape(after), "after", f"the rows of before, {[*np.shape(before)]}", describe(after))
    change = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    interval = mean_interval(change, key=key, unit=unit, weight=weight, bounds=bounds, level=level)
    totals, _ = unit_sums(change, unit, weight)
    p, discordant = float(unit_flip_p(totals, key=key)), int(np.count_nonzero(totals))
    enough = p <= 1.0 - level + 1e-12 and discordant >= LEAST_DISCORDANT
    return PairedChange(*interval, p, discordant, enough and bool(excludes_zero(interval)))


def unit_sums(values: Any, unit: Any, weight: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the rows of each unit `[... u]`, and the rows' weights `[u]`; units of padding only are left out."""
    check_numbers("values", values, "... n")
    values = np.asarray(values, np.float64)
    check_finite("values", values)
    rows = values.shape[-1]
    if weight is not None:
        check_numbers("weight", weight, "n")
        check_finite("weight", weight)
    weight = np.ones(rows) if weight is None else np.asarray(weight, np.float64)
    unit = np.arange(rows) if unit is None else np.asarray(unit)
    expect(unit.shape == (rows,) and unit.dtype.kind in "iu", "unit", f"int [n={rows}]", describe(unit))
    expect(
        weight.shape == (rows,) and bool(np.all(weight >= 0)), "weight", f"[n={rows}], none negative", describe(weight)
    )
    expect(bool(np.any(weight > 0)), "weight", "at least one row that counts", describe(weight))
    values, unit, weight = values[..., weight > 0], unit[weight > 0], weight[weight > 0]
    names, unit = np.unique(unit, return_inverse=True)
    flat = (values * weight).reshape(-1, len(unit))
    index = (np.arange(len(flat))[:, None] * len(names) + unit).ravel()
    totals = np.bincount(index, flat.ravel(), minlength=len(flat) * len(names))
    return totals.reshape(*values.shape[:-1], len(names)), np.bincount(unit, weight)


def ratio_mean(totals: np.ndarray, size: np.ndarray) -> tuple[Any, Any, float]:
    """(mean, its standard error over units, degrees of freedom) of sums `[... u]` over units of sizes `[u]`."""
    units, whole = len(size), size.sum()
    value = totals.sum(-1) / whole
    residual = totals - value[..., None] * size
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(units / np.float64(units - 1) * (residual**2).sum(-1)) / whole  # NaN for one unit
    return value, error, float(max(1.0, min(units - 1.0, whole**2 / (size**2).sum() - 1.0)))


def _resampled_t(rng: np.random.Generator, totals: np.ndarray, size: np.ndarray, resamples: int) -> np.ndarray:
    """(mean* - mean) / error* of resampled units, `[r ...]`.

    error*^2 gets 1/U of error^2 added: where most units agree, a resample may hold nothing else.
    """
    units, batch = len(size), totals.shape[:-1]
    flat = totals.reshape(-1, units)
    value, error, _ = ratio_mean(flat, size)
    columns = np.concatenate([flat, flat**2, flat * size, size[None], size[None] ** 2]).T
    parts, at_once = [], max(1, CHUNK // units)
    for start in range(0, resamples, at_once):
        some = min(at_once, resamples - start)
        drawn = rng.integers(0, units, (some, units)) + np.arange(some)[:, None] * units
        counts = np.bincount(drawn.ravel(), minlength=some * units).reshape(some, units)
        sums = counts.astype(np.float64) @ columns
        total, square, product = np.split(sums[:, :-2], 3, axis=1)
        whole, whole_square = sums[:, -2:-1], sums[:, -1:]
        mean = total / whole
        residual = np.maximum(square - 2.0 * mean * product + mean**2 * whole_square, 0.0)
        deviation = np.sqrt(units / (units - 1.0) * residual / whole**2 + error**2 / units)
        parts.append(np.divide(mean - value, deviation, out=np.zeros_like(mean), where=deviation > 0))
    return np.concatenate(parts).reshape(resamples, *batch)


def _expanded_t(totals: np.ndarray, size: np.ndarray, z: float) -> Any:
    """The point of (mean - truth) / error that is exceeded as z by a normal number, to the order 1/sqrt U."""
    value, _, _ = ratio_mean(totals, size)
    residual = totals - value[..., None] * size
    spread = np.sqrt((residual**2).mean(-1))
    skewness = np.divide((residual**3).mean(-1), spread**3, out=np.zeros_like(spread), where=spread > 0)
    return z - skewness * (2.0 * z**2 + 1.0) / (6.0 * np.sqrt(len(size)))
