"""Changes of extremes over groups between two models on the same rows: worst group, largest difference.

The lowest accuracy of several groups has no score limits, and no group can be picked to stand for it: the group that
was worst before was so partly by chance, and its accuracy rises again in any second model (regression to the mean).
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from jaxdebias.contracts import check_integers, check_numbers, describe, expect
from jaxdebias.core import Key
from jaxdebias.measure._design_effect import group_counts, unit_design_effect
from jaxdebias.measure._disparity import LargestDifference, largest_difference_interval
from jaxdebias.measure._intervals import Interval, checked_level, exact_limits, excludes_zero, normal_quantile
from jaxdebias.measure._row_intervals import PairedChange
from jaxdebias.measure._score_limits import change_limits, rate_limits
from jaxdebias.measure._significance import CHUNK, FLIPS, LEAST_DISCORDANT, MOST_EXACT, mid_p, numpy_generator

SELECTION = 0.1
"""Share of alpha with which groups are excluded from being the worst."""
UNKNOWN = PairedChange(float("nan"), float("nan"), float("nan"), 0, float("nan"), 0, False)
"""A change of what does not exist."""


def worst_group_change(
    before: Any, after: Any, group: Any, *, groups: int, key: Key, unit: Any = None, level: float = 0.95
) -> PairedChange:
    """The lowest accuracy of a group after minus that before, D = min_h a_h - min_g b_g, whichever groups these are.

    D exceeds d if every a_h exceeds some b_g by more than d, so its lower limit is min_h max_g of the lower limits of
    a_h - b_g: the extreme over h costs nothing (intersection-union), that over g a factor C in alpha (Bonferroni). The
    C groups are those that may be the worst before, by simultaneous limits at a tenth of alpha; the rest of it remains.
    The upper limit is max_g min_h in the same way. For g = h the limits are Tango's of paired rows, otherwise MOVER-D's
    of score limits with skewness, which take groups of different rows as independent.

    The test flips the signs of changed rows, or of whole units, and compares |D|. Discordant is what changed in the
    groups that are worst before and after.

    Args:
      before: `[n]` 0 or 1, whether the first model is right.
      after: `[n]` the same of the second.
      group: `[n]` integers in 0..groups-1; -1 leaves the row out.
      groups: number of groups; empty ones take no part.
      key: randomness of the signs.
      unit: `[n]` integers; None: every row is its own unit.
      level: confidence level.

    Returns:
      PairedChange, NaN without rows; n is the number of rows in the groups that are worst before and after, effective
      ones where rows are clustered.

    >>> import jax
    >>> group = np.repeat([0, 1], 100)
    >>> before, after = np.arange(200) % 100 < 50 + 40 * group, np.arange(200) % 100 < 80 + 5 * group
    >>> change = worst_group_change(before, after, group, groups=2, key=jax.random.key(0))
    >>> round(change.value, 2), round(change.low, 2), round(change.high, 2), change.discordant, change.separable
    (0.3, 0.22, 0.41, 30, True)
    """
    checked_level(level)
    check_integers("group", group, len(np.atleast_1d(group)), -1, groups)
    if unit is not None:
        check_integers("unit", unit, len(group), 0, None)
    for name, value in (("before", before), ("after", after)):
        check_numbers(name, value, "n")
    before, after, group = (np.asarray(value) for value in (before, after, group))
    for name, value in (("before", before), ("after", after)):
        right = value.shape == group.shape and bool(np.all((value == 0) | (value == 1)))
        expect(right, name, f"0 or 1 for each row of group, {list(group.shape)}", describe(value))
    known = group >= 0
    present, group = np.unique(group[known], return_inverse=True)
    if not len(present):
        return UNKNOWN
    before, after = before[known].astype(np.float64), after[known].astype(np.float64)
    unit = None if unit is None else np.unique(np.asarray(unit)[known], return_inverse=True)[1]
    size = np.bincount(group)
    rates = [np.bincount(group, right) / size for right in (before, after)]
    worst = sorted({int(rate.argmin()) for rate in rates})
    value = float(rates[1].min() - rates[0].min())
    counts = [group_counts(right, group, groups=len(present), unit=unit) for right in (before, after)]
    first, second = (_may_be_worst(*count, SELECTION * (1 - level)) for count in counts)
    lows, _ = _limits(before, after, group, unit, counts, _quantile(level, first))
    _, highs = _limits(before, after, group, unit, counts, _quantile(level, second))
    low, high = min(float(lows[:, first].max(1).min()), value), max(float(highs[second].min(0).max()), value)
    n = np.minimum(counts[0][1], counts[1][1])
    moved = (before != after) & np.isin(group, worst)
    discordant = int(moved.sum()) if unit is None else len(np.unique(unit[moved]))
    p = _exchange_p(before, after, group, unit, lambda rate: rate.min(1), key)
    return _judged(Interval(value, low, high, float(n[worst].sum())), p, discordant, level)


def largest_difference_change(
    before: Any,
    after: Any,
    family: Any,
    group: Any,
    *,
    families: int,
    groups: int,
    key: Key,
    unit: Any = None,
    level: float = 0.95,
) -> PairedChange:
    """The largest difference of rates between two groups after minus that before, whichever groups these are.

    The limits are those of the difference of two independent numbers with the limits of `largest_difference_interval`
    (MOVER-D): too wide rather than too narrow for two models that agree on most rows. The test exchanges the two models
    on random rows, or on whole units.

    Args:
      before: `[n]` 0 or 1, what the first model does.
      after: `[n]` the same of the second.
      family: `[n]` integers in 0..families-1, groups are compared within a family (label, for equalised odds).
      group: `[n]` integers in 0..groups-1; -1 leaves the row out.
      families: number of families.
      groups: number of groups.
      key: randomness of the exchanges.
      unit: `[n]` integers; None: every row is its own unit.
      level: confidence level.

    Returns:
      PairedChange, NaN where no family has two groups.

    >>> import jax
    >>> group, row = np.repeat([0, 1], 200), np.tile(np.arange(200), 2)
    >>> before, after, label = row < 150 - 80 * group, row < 140 - 10 * group, np.zeros(400, int)
    >>> change = largest_difference_change(
    ...     before, after, label, group, families=1, groups=2, key=jax.random.key(0)
    ... )
    >>> round(change.value, 2), change.discordant, change.separable
    (-0.35, 70, True)
    """
    before, after, family, group = (np.asarray(value) for value in (before, after, family, group))
    cell = np.where(group < 0, -1, family * groups + group)
    known = cell >= 0
    before, after, cell = before[known].astype(np.float64), after[known].astype(np.float64), cell[known]
    unit = None if unit is None else np.unique(np.asarray(unit)[known], return_inverse=True)[1]
    shape = families, groups
    sides: list[LargestDifference] = []
    for right in (before, after):
        x, n = group_counts(right, cell, groups=families * groups, unit=unit)
        sides.append(largest_difference_interval(x.reshape(shape), n.reshape(shape), level=level))
    first, second = sides
    if first.family < 0:
        return UNKNOWN
    value = second.value - first.value
    low = value - np.hypot(second.value - second.low, first.high - first.value)
    high = value + np.hypot(second.high - second.value, first.value - first.low)
    seen = np.bincount(cell, minlength=families * groups).reshape(shape) > 0

    def largest(rate: np.ndarray) -> np.ndarray:
        rate = rate.reshape(-1, *shape)
        ends = np.where(seen, rate, -np.inf).max(2) - np.where(seen, rate, np.inf).min(2)
        return np.maximum(ends.max(1), 0.0)

    moved = before != after
    discordant = int(moved.sum()) if unit is None else len(np.unique(unit[moved]))
    p = _exchange_p(before, after, cell, unit, largest, key, groups=families * groups)
    return _judged(Interval(value, float(low), float(high), second.n), p, discordant, level)


def _judged(interval: Interval, p: float, discordant: int, level: float) -> PairedChange:
    enough = p <= 1 - level + 1e-12 and discordant >= LEAST_DISCORDANT
    return PairedChange(*interval, p, discordant, enough and bool(excludes_zero(interval)))


def _may_be_worst(x: np.ndarray, n: np.ndarray, alpha: float) -> np.ndarray:
    """Groups `[c]` whose limits, simultaneous at alpha, do not lie above those of another group."""
    low, high = exact_limits(x, n, alpha / (2 * len(n)))
    return np.flatnonzero(low <= np.min(high))


def _quantile(level: float, groups: np.ndarray) -> float:
    return normal_quantile(1 - (1 - SELECTION) * (1 - level) / len(groups))


def _limits(
    before: np.ndarray,
    after: np.ndarray,
    group: np.ndarray,
    unit: np.ndarray | None,
    counts: Sequence[tuple[np.ndarray, np.ndarray]],
    z: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper limits of a_h - b_g, `[h g]` each."""
    groups = len(counts[0][0])
    rate: list[np.ndarray] = []
    least: list[np.ndarray] = []
    most: list[np.ndarray] = []
    for x, n in counts:
        limits = rate_limits(x[:, None], n[:, None], np.ones(1), z, skewness=True)
        low, high = (np.asarray(limit) for limit in limits)
        rate.append(x / n)
        least.append(rate[-1] - low)
        most.append(high - rate[-1])
    difference = rate[1][:, None] - rate[0]
    lows = difference - np.hypot(least[1][:, None], most[0])
    highs = difference + np.hypot(most[1][:, None], least[0])
    change = after - before
    gains, losses = (np.bincount(group, change == sign, minlength=groups) for sign in (1, -1))
    n = np.bincount(group, minlength=groups).astype(np.float64)
    if unit is not None:
        factor = unit_design_effect(change, group, unit, np.eye(groups)).factor
        gains, losses, n = gains / factor, losses / factor, n / factor
    own = np.arange(groups)
    lows[own, own], highs[own, own] = change_limits(gains[:, None], losses[:, None], n[:, None], np.ones(1), z)
    return lows, highs


def _exchange_p(
    before: np.ndarray,
    after: np.ndarray,
    group: np.ndarray,
    unit: np.ndarray | None,
    extreme: Callable[[np.ndarray], np.ndarray],
    key: Key,
    *,
    groups: int = 0,
) -> float:
    """Mid-p of the change of an extreme of the rates `[r g] -> [r]` where models change places on rows or units."""
    change, size = after - before, np.bincount(group, minlength=groups)
    groups = len(size)
    totals = [np.bincount(group, right, minlength=groups) for right in (before, after)]

    def distance(exchanged: np.ndarray) -> np.ndarray:
        """`[r]` where the exchanged rows add `[r g]` to the first model and take as much from the second."""
        first, second = (
            extreme((total + sign * exchanged) / np.maximum(size, 1))
            for total, sign in zip(totals, (1, -1), strict=True)
        )
        return np.abs(second - first)

    observed = distance(np.zeros((1, groups)))[0]
    if observed <= 1e-12:
        return 1.0
    rng = numpy_generator(key)
    if unit is None:
        gains, losses = (np.bincount(group, change == sign, minlength=groups).astype(int) for sign in (1, -1))
        drawn = rng.binomial(gains, 0.5, (FLIPS, groups)) - rng.binomial(losses, 0.5, (FLIPS, groups))
        return float(mid_p(distance(drawn), observed))
    cells = np.zeros((int(unit.max()) + 1, groups))
    np.add.at(cells, (unit, group), change)
    cells = cells[np.any(cells != 0, axis=1)]
    if len(cells) <= MOST_EXACT:
        signs = cast(np.ndarray, np.arange(2 ** len(cells))[:, None] >> np.arange(len(cells)) & 1)
        drawn, slack = distance(signs @ cells), 1e-9
        above = cast(np.ndarray, (drawn > observed + slack) + 0.5 * (np.abs(drawn - observed) <= slack))
        return float(np.mean(above))
    at_once = max(1, CHUNK // len(cells))
    sizes = [(min(at_once, FLIPS - start), len(cells)) for start in range(0, FLIPS, at_once)]
    drawn = np.concatenate([distance(rng.integers(0, 2, shape, np.int8) @ cells) for shape in sizes])
    return float(mid_p(drawn, observed))
