"""Intervals of rates and of their weighted sums: exact for one rate, score limits for sums, never of zero width.

Counts enter, not rows: `[... g]` successes x of n per group, with any leading batch axes, in float64 on the host.
Counts may be fractional: where rows are clustered, `group_counts` divides both by
the design effect of the units.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxdebias.contracts import check_finite, check_numbers, describe, expect
from jaxdebias.measure._score_limits import Numbers, change_limits, rate_limits


class Interval(NamedTuple):
    """An estimate with the interval around it: Python numbers for one estimate, arrays of one shape for several."""

    value: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    n: float | np.ndarray
    """Independent rows (or units) behind the estimate."""


def proportion_interval(x: Any, n: Any, *, level: float = 0.95) -> Interval:
    """Exact interval of one rate (Clopper and Pearson 1934).

    Args:
      x: `[...]` successes.
      n: `[...]` trials. Where n = 0 the rate does not exist: value, low and high are NaN.
      level: confidence level.

    >>> interval = proportion_interval(9, 17)
    >>> round(interval.value, 4), round(interval.low, 4), round(interval.high, 4)
    (0.5294, 0.2781, 0.7702)
    """
    x, n = checked_counts(x, n, dimensions="...")
    low, high = exact_limits(x, n, (1.0 - checked_level(level)) / 2.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Interval(plain(np.where(n > 0, x / n, np.nan)), plain(low), plain(high), plain(n))


def weighted_interval(x: Any, n: Any, w: Any, *, level: float = 0.95) -> Interval:
    """Interval of S = sum w_g p_g over independent groups, weights of either sign: score limits.

    For instance the mean over groups (w = 1/G), the rate re-weighted to the training shares, or the bias-aligned minus
    the bias-conflicting rate. For a tilt t, p_g(t) is the likeliest rate of a group given that S has moved, V(t) the
    variance of S, and V*(t) the same with n - 1 + h in place of n, h the group's share of V. A limit is S - t V where
    |t| V / sqrt(V*) - c = z. It is solved with c = 0 and with a correction c for skewness; the outer of the two counts.
    Where no t solves it, the limit is the end of the range of S. One group with c = 0 is Wilson's interval.

    Args:
      x: `[... g]` successes; may be fractional where n is an effective sample size.
      n: `[... g]` trials. A group without trials needs weight 0; otherwise the result is NaN.
      w: `[... g]` or `[g]` weights.
      level: confidence level.

    Returns:
      Interval of the batch shape; n is the number of trials with a weight other than 0.

    >>> mean = weighted_interval([6, 1], [8, 30], [0.5, 0.5])
    >>> round(mean.value, 4), round(mean.low, 4), round(mean.high, 4)
    (0.3917, 0.2134, 0.5139)
    """
    x, n = checked_counts(x, n)
    w, seen, known = checked_weights(w, n)
    z = normal_quantile(level)
    trials, hits = np.where(seen, n, 1.0), np.where(seen, x, 0.0)
    weights = np.where(seen, w, 0.0)
    value = (weights * hits / trials).sum(-1)
    limits = [rate_limits(hits, trials, weights, z, skewness=skewness) for skewness in (False, True)]
    low, high = np.minimum(limits[0][0], limits[1][0]), np.maximum(limits[0][1], limits[1][1])
    return _interval(value, low, high, np.where(seen & (w != 0), n, 0.0).sum(-1), known)


def paired_interval(gains: Any, losses: Any, n: Any, w: Any, *, level: float = 0.95) -> Interval:
    """Interval of a change on the same rows, S = sum w_g (gains_g - losses_g) / n_g: score limits.

    One group is Tango's interval (1998). As `weighted_interval`, with the likeliest shares of gains and losses in place
    of a rate, and without the correction for skewness. Where no tilt solves it, the limit is -sum|w| or sum|w|.

    Args:
      gains: `[... g]` rows that are right after and were wrong before.
      losses: `[... g]` rows that are wrong after and were right before.
      n: `[... g]` rows in all. A group without rows needs weight 0; otherwise the result is NaN.
      w: `[... g]` or `[g]` weights.
      level: confidence level.

    Returns:
      Interval of the batch shape; n is the number of rows with a weight other than 0.

    >>> change = paired_interval([2, 4], [1, 2], [30, 90], [0.25, 0.75])
    >>> round(change.value, 4), round(change.low, 4), round(change.high, 4)
    (0.025, -0.0289, 0.0842)
    """
    gains, losses, n = checked_changes(gains, losses, n)
    w, seen, known = checked_weights(w, n)
    rows, weights = np.where(seen, n, 1.0), np.where(seen, w, 0.0)
    gains, losses = np.where(seen, gains, 0.0), np.where(seen, losses, 0.0)
    value = (weights * (gains - losses) / rows).sum(-1)
    low, high = change_limits(gains, losses, rows, weights, normal_quantile(level))
    return _interval(value, low, high, np.where(seen & (w != 0), n, 0.0).sum(-1), known)


def excludes_zero(interval: Any) -> Any:
    """Whether 0 lies outside the interval of a difference: a bool, or an array of the interval's shape.

    Args:
      interval: anything with `low` and `high`.

    >>> excludes_zero(Interval(0.03, -0.01, 0.07, 200)), excludes_zero(Interval(0.05, 0.02, 0.08, 200))
    (False, True)
    """
    return plain(np.less(0.0, interval.low) | np.less(interval.high, 0.0))


def exact_limits(x: np.ndarray, n: np.ndarray, tail: Numbers) -> tuple[Numbers, Numbers]:
    """Clopper-Pearson limits with `tail` of the probability beyond each; NaN where n = 0."""
    from scipy import special  # a dependency of jax; loaded only here because it is slow to import

    with np.errstate(divide="ignore", invalid="ignore"):
        low = np.where(x > 0, special.betaincinv(np.where(x > 0, x, 1.0), n - x + 1.0, tail), 0.0)
        high = np.where(x < n, special.betaincinv(x + 1.0, np.where(x < n, n - x, 1.0), 1.0 - tail), 1.0)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def normal_quantile(level: float) -> float:
    """The two-sided quantile of the normal distribution: 1.96 for a level of 95 %."""
    from scipy import special

    return float(special.ndtri((1.0 + checked_level(level)) / 2.0))


def checked_level(level: float) -> float:
    """A confidence level, strictly between 0 and 1."""
    expect(0 < level < 1, "level", "a number between 0 and 1", level)
    return level


def checked_counts(x: Any, n: Any, *, dimensions: str = "... g") -> tuple[np.ndarray, np.ndarray]:
    """Successes and trials as float64 of one shape, 0 <= x <= n."""
    x, n = _numbers("x", x, dimensions), _numbers("n", n, dimensions)
    expect(_fit(x, n), "x", f"a shape that fits that of n, {list(n.shape)}", describe(x))
    x, n = np.broadcast_arrays(x, n)
    expect(bool(np.all((x >= 0) & (x <= n))), "x", "values in 0..n", describe(x))
    return x, n


def checked_changes(gains: Any, losses: Any, n: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gains, losses and rows as float64 of one shape, gains + losses <= n."""
    gains, losses = _numbers("gains", gains, "... g"), _numbers("losses", losses, "... g")
    n = _numbers("n", n, "... g")
    expect(_fit(gains, losses, n), "gains", "a shape that fits those of losses and n", describe(gains))
    gains, losses, n = np.broadcast_arrays(gains, losses, n)
    some = (gains >= 0) & (losses >= 0) & (gains + losses <= n * (1 + 1e-12))
    expect(bool(np.all(some)), "gains + losses", "values in 0..n", describe(gains))
    return gains, losses, n


def checked_weights(w: Any, n: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | np.bool_]:
    """(weights of the shape of n with its batch, groups that have trials, whether the sum is known)."""
    w = _numbers("w", w, "... g")
    expect(_fit(w, n) and w.shape[-1:] == n.shape[-1:], "w", f"one weight per group, [... {n.shape[-1]}]", describe(w))
    w, n = np.broadcast_arrays(w, n)
    seen = n > 0
    return w, seen, ~np.any(~seen & (w != 0), axis=-1) & np.any(seen & (w != 0), axis=-1)


def plain(value: Any) -> Any:
    """A Python number if there is one only, else a NumPy array."""
    value = np.asarray(value)
    return value.item() if value.ndim == 0 else value


def _interval(value: Numbers, low: Numbers, high: Numbers, n: Numbers, known: np.ndarray | np.bool_) -> Interval:
    # Rounding must not put the estimate outside its own interval.
    value, low, high = (np.where(known, v, np.nan) for v in (value, np.minimum(low, value), np.maximum(high, value)))
    return Interval(plain(value), plain(low), plain(high), plain(n))


def _numbers(what: str, value: Any, dimensions: str) -> np.ndarray:
    check_numbers(what, value, dimensions)
    value = np.asarray(value, np.float64)
    check_finite(what, value)
    return value


def _fit(*values: np.ndarray) -> bool:
    try:
        np.broadcast_shapes(*(value.shape for value in values))
    except ValueError:
        return False
    return True
