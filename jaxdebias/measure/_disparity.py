"""How differently groups are served: the worst group, and the largest difference between two.

Both are extremes over groups, and an extreme over noisy numbers is biased: the lowest of ten equal rates looks low.
These intervals allow for the selection.
"""

import functools
from typing import Any, NamedTuple, cast

import numpy as np

from jaxdebias.contracts import expect
from jaxdebias.measure._intervals import checked_counts, checked_level, exact_limits, normal_quantile, plain
from jaxdebias.measure._score_limits import rate_limits


class WorstGroup(NamedTuple):
    """The lowest rate of all groups. Which group is lowest is known for this sample only."""

    value: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    n: float | np.ndarray
    """Rows of the group."""
    group: int | np.ndarray
    """Index of the group; of equal rates the first. -1 where no group has rows."""
    indistinguishable: int | np.ndarray
    """How many other groups the sample cannot tell from it, by the limits of `largest_difference_interval`."""


class LargestDifference(NamedTuple):
    """The largest difference of rates between two groups, over one or more families of groups."""

    value: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    n: float | np.ndarray
    """Rows of the two groups."""
    family: int | np.ndarray
    """Where the difference is largest; -1, as the groups, where no family has two groups with rows."""
    highest: int | np.ndarray
    lowest: int | np.ndarray


def worst_group_interval(x: Any, n: Any, *, level: float = 0.95) -> WorstGroup:
    """Interval of min_g p_g: Clopper-Pearson limits, the lower at alpha/2, the upper at alpha/(2 G).

    The smallest rate is below L with probability alpha/2 at most because one group alone decides it; it is above
    min_g U_g only if all G limits hold, hence the division.

    Args:
      x: `[... g]` successes; may be fractional where n is an effective sample size.
      n: `[... g]` trials. Groups without trials take no part; without any, everything is NaN.
      level: confidence level.

    >>> worst = worst_group_interval([30, 88], [30, 90])
    >>> worst.group, round(worst.value, 4), round(worst.low, 4), round(worst.high, 4), worst.indistinguishable
    (1, 0.9778, 0.8843, 0.9981, 1)
    """
    x, n = checked_counts(x, n)
    seen = n > 0
    groups = seen.sum(-1, keepdims=True)
    tail = (1.0 - checked_level(level)) / 2.0
    rate = np.where(seen, x / np.where(seen, n, 1.0), np.inf)
    lows, _ = exact_limits(x, n, tail)
    _, highs = exact_limits(x, n, tail / np.maximum(groups, 1))
    worst = rate.argmin(-1)
    value = rate.min(-1)
    low, high = np.where(seen, lows, np.inf).min(-1), np.where(seen, highs, np.inf).min(-1)
    some = seen.any(-1)
    least, _ = _pair_limits(x, n, _range_points(groups[..., 0], np.full_like(groups[..., 0], 1.0 - level, np.float64)))
    from_worst = np.take_along_axis(least, worst[..., None, None], axis=-1)[..., 0]
    alike = cast(np.ndarray, seen & ~(from_worst > 0) & (np.arange(n.shape[-1]) != worst[..., None]))
    value, low, high = (np.where(some, bound, np.nan) for bound in (value, low, high))
    rows = np.take_along_axis(n, worst[..., None], axis=-1)[..., 0]
    return WorstGroup(
        plain(value), plain(low), plain(high), plain(rows), plain(np.where(some, worst, -1)), plain(alike.sum(-1))
    )


def largest_difference_interval(x: Any, n: Any, *, level: float = 0.95) -> LargestDifference:
    """Interval of the largest difference between two groups' rates: accuracy gap, demographic parity, equalised odds.

    One family of groups for an accuracy gap, demographic parity or equal opportunity; one family per label for
    equalised odds. Differences of two groups have MOVER-D limits (Donner and Zou 2010) from score limits with skewness.
    The lower limit is the largest over pairs at q / sqrt 2, q the point of the studentised range of the family's G
    groups at 1 - level^(1/F), F families: simultaneous, so 0 stays inside unless some pair differs. The upper one is
    the largest over pairs at z. A finding needs `homogeneity_p` as well.

    Args:
      x: `[... f g]` successes in families and groups, or `[g]`: may be fractional where n is an effective sample size.
      n: `[... f g]` trials. Groups without trials take no part.
      level: confidence level.

    Returns:
      LargestDifference; value, low and high are NaN where no family has two groups with trials.

    >>> gap = largest_difference_interval([[80, 244, 243]], [[90, 400, 400]])
    >>> round(gap.value, 4), round(gap.low, 4), round(gap.high, 4), gap.highest, gap.lowest
    (0.2814, 0.1711, 0.3532, 0, 2)
    """
    x, n = checked_counts(x, n)
    if x.ndim == 1:
        x, n = x[None], n[None]
    level = checked_level(level)
    seen = n > 0
    groups = seen.sum(-1)
    families = (groups > 1).sum(-1, keepdims=True)
    per_family = 1.0 - level ** (1.0 / np.maximum(families, 1))
    points = _range_points(groups, np.broadcast_to(per_family, groups.shape))
    lows, _ = _pair_limits(x, n, points)
    _, highs = _pair_limits(x, n, np.full_like(points, normal_quantile(level)))
    rate = x / np.where(seen, n, 1.0)
    highest = np.where(seen, rate, -np.inf).argmax(-1)
    others = seen & cast(
        np.ndarray, np.arange(n.shape[-1]) != highest[..., None]
    )  # two groups, even where all rates are equal
    lowest = np.where(others, rate, np.inf).argmin(-1)

    def of_group(values: Any, group: Any) -> Any:
        return np.take_along_axis(np.asarray(values), np.asarray(group)[..., None], axis=-1)[..., 0]

    gaps = np.where(groups > 1, of_group(rate, highest) - of_group(rate, lowest), -np.inf)
    family = gaps.argmax(-1)
    some = (groups > 1).any(-1)
    value = gaps.max(-1)
    low = np.maximum(lows.max((-1, -2, -3)), 0.0)
    high = np.minimum(highs.max((-1, -2, -3)), 1.0)
    value, low, high = (np.where(some, bound, np.nan) for bound in (value, low, high))
    highest, lowest = of_group(highest, family), of_group(lowest, family)
    in_family = np.take_along_axis(n, family[..., None, None], axis=-2)[..., 0, :]
    rows = np.where(some, of_group(in_family, highest) + of_group(in_family, lowest), 0.0)
    index = (plain(np.where(some, i, -1)) for i in (family, highest, lowest))
    return LargestDifference(plain(value), plain(low), plain(high), plain(rows), *index)


def _pair_limits(x: np.ndarray, n: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """MOVER-D limits of p_i - p_j for all pairs, `[... g g]`; -inf for a group with itself or without trials."""
    seen = n > 0
    x, n = np.where(seen, x, 0.0), np.where(seen, n, 1.0)
    low, high = rate_limits(x[..., None], n[..., None], np.ones(1), z[..., None], skewness=True)
    rate = x / n
    below, above = (rate - low) ** 2, (high - rate) ** 2
    difference = rate[..., :, None] - rate[..., None, :]
    least = difference - np.sqrt(below[..., :, None] + above[..., None, :])
    most = difference + np.sqrt(above[..., :, None] + below[..., None, :])
    pair = seen[..., :, None] & seen[..., None, :] & ~np.eye(n.shape[-1], dtype=bool)
    return np.where(pair, least, -np.inf), np.where(pair, most, -np.inf)


def _range_points(groups: np.ndarray, tail: np.ndarray) -> np.ndarray:
    """q / sqrt 2 for each number of groups and upper tail; any number for fewer than two groups, which form no pair."""
    flat = [
        studentised_range_point(max(int(g), 2), float(a)) / np.sqrt(2.0)
        for g, a in zip(groups.ravel(), tail.ravel(), strict=True)
    ]
    return np.array(flat).reshape(groups.shape)


@functools.lru_cache(maxsize=1024)
def studentised_range_point(groups: int, tail: float) -> float:
    """The point that the range of `groups` independent standard normal numbers exceeds with probability `tail`.

    P(range <= q) = G int phi(z) (Phi(z) - Phi(z - q))^(G-1) dz; the studentised range with infinite degrees of freedom.

    >>> round(studentised_range_point(3, 0.05), 4)
    3.3145
    """
    from scipy import optimize, special

    expect(groups >= 2, "groups", "at least 2", groups)
    expect(0 < tail < 1, "tail", "a probability between 0 and 1", tail)
    node, weight = np.polynomial.legendre.leggauss(256)
    z = 9.0 * node  # beyond 9 the density is below 1e-18
    density = 9.0 * weight * np.exp(-(z**2) / 2.0) / np.sqrt(2.0 * np.pi)

    def beyond(q: float) -> float:
        return 1.0 - groups * float(density @ (special.ndtr(z) - special.ndtr(z - q)) ** (groups - 1)) - tail

    return float(optimize.brentq(beyond, 1e-6, 60.0, xtol=1e-13))
