"""Change of the worst group's accuracy between two models on the same rows.

The lowest accuracy of several groups has no score limits, and no group can be picked to stand for it: the group that
was worst before was so partly by chance, and its accuracy rises again in any second model (regression to the mean).
With ten equal groups of 100 rows and a second model that errs independently, the paired change of the group that was
worst before is separable in 13 % of the data sets; where two groups change places, in 88 %.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdebias.contracts import check_integers, check_numbers, describe, expect
from jaxdebias.core import Key
from jaxdebias.measure._design_effect import group_counts, unit_design_effect
from jaxdebias.measure._intervals import checked_level, exact_limits, normal_quantile
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
    p = _flip_p(before, after, group, unit, size, key)
    separable = p <= 1 - level + 1e-12 and discordant >= LEAST_DISCORDANT and (low > 0 or high < 0)
    return PairedChange(value, low, high, float(n[worst].sum()), p, discordant, separable)


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
    rate, least, most = [], [], []
    for x, n in counts:
        low, high = rate_limits(x[:, None], n[:, None], np.ones(1), z, skewness=True)
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


def _flip_p(
    before: np.ndarray, after: np.ndarray, group: np.ndarray, unit: np.ndarray | None, size: np.ndarray, key: Key
) -> float:
    """Mid-p of |D| where the two models change places on rows, or on whole units, at random."""
    groups = len(size)
    change = after - before
    totals = [np.bincount(group, right, minlength=groups) for right in (before, after)]

    def distance(exchanged: np.ndarray) -> np.ndarray:
        """|D| `[r]` where the exchanged rows add `[r g]` to the first model and take as much from the second."""
        first, second = ((total + sign * exchanged) / size for total, sign in zip(totals, (1, -1), strict=True))
        return np.abs(second.min(1) - first.min(1))

    observed = distance(np.zeros((1, groups)))[0]
    rng = numpy_generator(key)
    if unit is None:
        gains, losses = (np.bincount(group, change == sign, minlength=groups) for sign in (1, -1))
        drawn = rng.binomial(gains.astype(int), 0.5, (FLIPS, groups)) - rng.binomial(
            losses.astype(int), 0.5, (FLIPS, groups)
        )
        return float(mid_p(distance(drawn), observed))
    cells = np.zeros((int(unit.max()) + 1, groups))
    np.add.at(cells, (unit, group), change)
    cells = cells[np.any(cells != 0, axis=1)]
    if len(cells) <= MOST_EXACT:
        signs = np.arange(2 ** len(cells))[:, None] >> np.arange(len(cells)) & 1
        drawn, slack = distance(signs @ cells), 1e-9
        return float(np.mean((drawn > observed + slack) + 0.5 * (np.abs(drawn - observed) <= slack)))
    at_once = max(1, CHUNK // len(cells))
    sizes = [(min(at_once, FLIPS - start), len(cells)) for start in range(0, FLIPS, at_once)]
    drawn = np.concatenate([distance(rng.integers(0, 2, shape, np.int8) @ cells) for shape in sizes])
    return float(mid_p(drawn, observed))
