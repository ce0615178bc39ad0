"""Score limits of weighted sums of independent proportions, and of paired changes.

A limit is the value of the sum that a score test just does not reject. The rates under that hypothesis are the
likeliest ones, a one-parameter family: with a tilt t, each group solves an equation of its own, and the sum moves by t
times its variance. So a limit is a root in log|t|, found for all groups, limits and batch entries at once.

Coverage on simulated designs is in `benchmarks/results/interval_coverage.json`.
"""

from collections.abc import Callable

import numpy as np

Numbers = np.ndarray | np.floating | float
"""An array, or what NumPy makes of an array of no dimension."""
Moments = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Mean, variance and third central moment of one row of each group, `[... g]`."""

LOG_TILT = (-10.0, 35.0)
"""Bracket of log|t| for weights of at most 1: a tilt is of the order of the square root of a sample size."""
SCAN = 0.25
"""Step of log|t| where there may be several roots."""
TOLERANCE = 1e-13
"""Width of the final bracket of log|t|."""


def rate_limits(x: np.ndarray, n: np.ndarray, w: np.ndarray, z: Numbers, *, skewness: bool) -> tuple[Numbers, Numbers]:
    """Score limits of S = sum w_g p_g, for independent x_g of n_g. One group without skewness: Wilson (1927).

    Args:
      x: `[... g]` successes; fractional where n is an effective sample size.
      n: `[... g]` trials, above 0.
      w: `[... g]` weights of either sign; 0 leaves a group out.
      z: `[...]` normal quantile of one side.
      skewness: whether z is corrected for the skewness of S (a Cornish-Fisher term, at least -z/2).

    Returns:
      (low, high), both `[...]`.
    """
    scale = np.max(np.abs(w), axis=-1, keepdims=True, initial=0.0)
    w = np.divide(w, scale, out=np.zeros(np.broadcast_shapes(w.shape, scale.shape)), where=scale > 0)
    low, high = _limits(
        lambda tilt: _rate_moments(tilt * w, x, n),
        n,
        w,
        z,
        skewness,
        (np.minimum(w, 0.0).sum(-1), np.maximum(w, 0.0).sum(-1)),
    )
    return low * scale[..., 0], high * scale[..., 0]


def change_limits(
    gains: np.ndarray, losses: np.ndarray, n: np.ndarray, w: np.ndarray, z: Numbers
) -> tuple[Numbers, Numbers]:
    """Score limits of S = sum w_g (b_g - c_g) / n_g for b gains and c losses in n rows. One group: Tango (1998).

    Args:
      gains: `[... g]` rows that are right after and were wrong before.
      losses: `[... g]` rows that are wrong after and were right before.
      n: `[... g]` rows, above 0.
      w: `[... g]` weights of either sign.
      z: `[...]` normal quantile of one side.

    Returns:
      (low, high), both `[...]`.
    """
    scale = np.max(np.abs(w), axis=-1, keepdims=True, initial=0.0)
    w = np.divide(w, scale, out=np.zeros(np.broadcast_shapes(w.shape, scale.shape)), where=scale > 0)
    most = np.abs(w).sum(-1)
    low, high = _limits(lambda tilt: _change_moments(tilt * w, gains, losses, n), n, w, z, False, (-most, most))
    return low * scale[..., 0], high * scale[..., 0]


def _rate_moments(b: np.ndarray, x: np.ndarray, n: np.ndarray) -> Moments:
    """The likeliest rate under a tilt b: the root in [0, 1] of b p^2 - (n + b) p + x = 0.

    For b < 0 the same equation is solved for 1 - p, so that no difference of large numbers decides a small rate.
    """
    fewer = np.where(b >= 0, x, n - x)
    a = np.abs(b)
    share = 2.0 * fewer / (n + a + np.sqrt((n - a) ** 2 + 4.0 * a * (n - fewer)))
    variance = share * (1.0 - share)
    mean = np.where(b >= 0, share, 1.0 - share)
    return mean, variance, variance * (1.0 - 2.0 * mean)


def _change_moments(b: np.ndarray, gains: np.ndarray, losses: np.ndarray, n: np.ndarray) -> Moments:
    """The likeliest shares of gains and losses under a tilt b: gains / (l + b), losses / (l - b), same / l, of sum 1.

    With the sign turned where b < 0, the pole of the sum is l = |b|. The distance u = l - |b| is what is solved for:
    Newton's steps from the left never pass the root, because the sum falls and is convex.
    """
    a = np.abs(b)
    away, near = np.where(b >= 0, gains, losses), np.where(b >= 0, losses, gains)
    same = n - gains - losses
    u = np.maximum(np.maximum(near, away - 2.0 * a), np.maximum(same - a, 0.0))  # where one share alone is 1
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(60):
            parts = _share(away, u + 2.0 * a), _share(near, u), _share(same, u + a)
            slope = _share(parts[0], u + 2.0 * a) + _share(parts[1], u) + _share(parts[2], u + a)
            step = np.where(slope > 0, np.maximum(sum(parts) - 1.0, 0.0) / slope, 0.0)
            u = u + step
            if np.all(step <= 1e-8 * u):  # and the error is its square
                break
        p_away, p_same = _share(away, u + 2.0 * a), _share(same, u + a)
    # Nothing was counted at the pole: its share is what the others leave. Elsewhere this is near / u.
    p_near = np.maximum(1.0 - p_away - p_same, 0.0)
    p_near = np.where(near > 0, _share(near, u), p_near)
    difference = p_away - p_near
    variance = np.maximum(p_away + p_near - difference**2, 0.0)
    return np.where(b >= 0, difference, -difference), variance, np.zeros_like(variance)


def _share(count: np.ndarray, total: np.ndarray) -> np.ndarray:
    """count / total, and 0 where nothing was counted, whatever the total is."""
    shape = np.broadcast_shapes(np.shape(count), np.shape(total))
    return np.divide(count, total, out=np.zeros(shape), where=np.broadcast_to(count, shape) > 0)


def _limits(
    moments: Callable[[np.ndarray], Moments],
    n: np.ndarray,
    w: np.ndarray,
    z: Numbers,
    skewness: bool,
    ends: tuple[Numbers, Numbers],
) -> tuple[Numbers, Numbers]:
    """(low, high): S at the tilt where its distance from the estimate is z standard errors, or the end of its range."""
    batch = np.broadcast_shapes(n.shape[:-1], w.shape[:-1], np.shape(z), np.shape(ends[0]))
    sign = np.array([1.0, -1.0]).reshape((2,) + (1,) * len(batch))

    def excess(log_tilt: np.ndarray) -> Numbers:
        return _excess(moments, sign * np.exp(log_tilt), n, w, z, skewness)

    left, right = (np.full((2, *batch), end) for end in LOG_TILT)
    if np.any((n < 1) & (w != 0)):  # less than one effective row: there may be several roots, and the outermost counts
        for point in np.arange(*LOG_TILT, SCAN):
            left = np.where(excess(np.full_like(left, point)) < 0, point, left)
        right = np.where(left + SCAN < LOG_TILT[1], left + SCAN, right)
    log_tilt, solved = _increasing_root(excess, left, right)
    mean, _, _ = moments((sign * np.exp(log_tilt))[..., None])
    limit = np.where(solved, (w * mean).sum(-1), np.stack([np.broadcast_to(end, batch) for end in ends]))
    return limit[0], limit[1]


def _excess(
    moments: Callable[[np.ndarray], Moments], tilt: Numbers, n: np.ndarray, w: np.ndarray, z: Numbers, skewness: bool
) -> Numbers:
    """|t| V / sqrt(V*) - c - z: below 0 where the tilt is compatible with the data.

    V is the variance of S under the tilt. V* divides by n - 1 + h instead of n, where h is the group's share of V:
    rates that were estimated in many small groups vary more than their own counts show.
    """
    _, variance, third = moments(np.asarray(tilt)[..., None])
    part = w**2 * variance / n
    total = part.sum(-1)
    known = total > 0
    share = _share(part, np.where(known, total, 1.0)[..., None])
    wider = (w**2 * variance / np.maximum(n - 1.0 + share, 0.2 * n)).sum(-1)
    correction = np.zeros_like(total)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if skewness:
            k = np.where(known, (w**3 * third / n**2).sum(-1) / total**1.5, 0.0)
            correction = np.maximum(-z / 2.0, np.sign(tilt) * k * (z**2 - 1.0) / 6.0)
        return np.where(known, np.abs(tilt) * total / np.sqrt(wider) - correction, 0.0) - z


def _increasing_root(
    function: Callable[[np.ndarray], Numbers], low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(root, whether there is one) of an increasing function between the arrays `low` and `high` (Chandrupatla 1997).

    Bisection for all entries at once, with inverse quadratic interpolation where the last three points allow it: 15
    evaluations where halving alone takes 50.
    """
    newest, opposite = high, low
    at_newest, at_opposite = function(newest), function(opposite)
    solved = (at_newest >= 0) & (at_opposite < 0)
    older, at_older = opposite, at_opposite
    part = np.full_like(high, 0.5)
    for _ in range(100):
        point = newest + part * (opposite - newest)
        value = function(point)
        same = (value >= 0) == (at_newest >= 0)
        older, at_older = np.where(same, newest, opposite), np.where(same, at_newest, at_opposite)
        opposite, at_opposite = np.where(same, opposite, newest), np.where(same, at_opposite, at_newest)
        newest, at_newest = point, value
        width = np.abs(opposite - newest)
        if np.all((width < TOLERANCE) | np.logical_not(solved)):
            break
        with np.errstate(divide="ignore", invalid="ignore"):
            xi, phi = (newest - opposite) / (older - opposite), (at_newest - at_opposite) / (at_older - at_opposite)
            alpha = (older - newest) / (opposite - newest)
            smooth = (phi**2 < xi) & ((1.0 - phi) ** 2 < 1.0 - xi)
            quadratic = at_newest / (at_opposite - at_newest) * at_older / (
                at_opposite - at_older
            ) + alpha * at_newest / (at_older - at_newest) * at_opposite / (at_older - at_opposite)
            least = np.minimum(0.5, 0.5 * TOLERANCE / width)
        part = np.where(smooth & np.isfinite(quadratic), np.clip(quadratic, least, 1.0 - least), 0.5)
    return np.where(np.abs(at_newest) <= np.abs(at_opposite), newest, opposite), np.asarray(solved)
