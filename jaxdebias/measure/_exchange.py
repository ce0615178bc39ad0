"""The exchange test behind every statement about reliance: values are dealt anew to the rows within strata.

Every row has a score for each value that it could have had, and T is the sum of the scores with the values that the
rows do have. If predictions (or labels) have nothing to do with the attribute within a stratum, all ways of dealing
the stratum's values to its rows are equally likely. Rows of one stratum with equal scores form a *cell*: only the
counts of cells by values matter, which makes the test fast.
"""

from typing import NamedTuple

import numpy as np

from jaxdebias.core import Key
from jaxdebias.measure._significance import ALPHA, FLIPS, numpy_generator, unit_flip_p

LEAST_EVENTS = 50
"""Rows outside the largest cell of their stratum from which on T is taken as normal."""
LEAST_EXPECTED = 5.0
"""Such rows to be expected with each value."""
RARE_SHARE = 0.05
"""Share of the variance that values with fewer expected rows may carry in a normal T."""
MOST_DRAWS = 16 * FLIPS
NEGLIGIBLE = 1e-12
"""Variance below which a test has nothing to exchange, relative to the squared scores."""


class ExchangeTest(NamedTuple):
    """T against all ways of dealing values to rows within strata."""

    z: float
    """T in standard deviations above its mean; 0 where nothing can be exchanged."""
    p: float
    """One-sided: small where T is high; 1 where nothing can be exchanged."""
    events: int
    """Rows outside the largest cell of their stratum: where cells are predictions, mostly the mistakes."""
    design_effect: float
    """Variance with clustered rows over that with independent ones, at least 1."""


def exchange_test(
    kind: np.ndarray,
    score: np.ndarray,
    value: np.ndarray,
    stratum: np.ndarray,
    *,
    key: Key,
    unit: np.ndarray | None = None,
    resolve: float = ALPHA,
) -> ExchangeTest:
    """Tests whether rows have values with higher scores than the values of their stratum would give them.

    The p value is normal from 50 events with 5 to be expected for each value, otherwise a mid-p of permutations. With
    units, the signs of what whole units contribute are flipped instead: the rows of a unit are not exchangeable.

    Args:
      kind: `[n]` integers; rows of one kind have the same scores (the predicted class, say).
      score: `[kinds a]` score of each kind with each value.
      value: `[n]` integers in 0..a-1.
      stratum: `[n]` integers from 0. Values are dealt within strata.
      key: randomness of permutations and flips.
      unit: `[n]` integers; None: every row is its own unit.
      resolve: the level that p will be compared with.
    """
    if not len(kind):
        return ExchangeTest(0.0, 1.0, 0, 1.0)
    kinds = len(score)
    used, column = np.unique(value, return_inverse=True)  # values without rows would only cost time
    cells, cell = np.unique(stratum.astype(np.int64) * kinds + kind, return_inverse=True)
    names, cell_stratum = np.unique(cells // kinds, return_inverse=True)
    counts = np.bincount(cell * len(used) + column, minlength=len(cells) * len(used)).reshape(-1, len(used))
    table = _Table.of(counts.astype(np.float64), score[cells % kinds][:, used], cell_stratum, len(names))
    total = float((table.counts * table.centred).sum())
    variance, scale = float(table.variance.sum()), float((table.counts * table.scores**2).sum())
    events = round(float(table.events.sum()))
    if variance <= NEGLIGIBLE * max(scale, 1e-300):
        return ExchangeTest(0.0, 1.0, events, 1.0)
    if unit is not None:
        return _by_units(table.centred[cell, column], unit, variance, events, key)
    z = total / variance**0.5
    p = _upper_tail(z) if table.normal else _permutation_p(table, numpy_generator(key), resolve)
    return ExchangeTest(z, p, events, 1.0)


class _Table(NamedTuple):
    """Counts of cells by values, and what follows from the margins alone."""

    counts: np.ndarray
    """`[cells a]`."""
    scores: np.ndarray
    """`[cells a]`."""
    stratum: np.ndarray
    """`[cells]`."""
    centred: np.ndarray
    """`[cells a]` scores minus their means over the cells and over the values of the stratum."""
    variance: np.ndarray
    """`[a]`, of T with all margins fixed, by the value that contributes."""
    largest: np.ndarray
    """`[strata]` largest cell."""
    events: np.ndarray
    """`[strata]` rows outside it."""
    expected: np.ndarray
    """`[a]` events to be expected with each value."""

    @classmethod
    def of(cls, counts: np.ndarray, scores: np.ndarray, stratum: np.ndarray, strata: int) -> "_Table":
        size = counts.sum(1)
        of_value = _sums(counts, stratum, strata)
        n = of_value.sum(1)
        share_of_value, share_of_cell = of_value / n[:, None], size / n[stratum]
        over_values = (scores * share_of_value[stratum]).sum(1)
        over_cells = _sums(scores * share_of_cell[:, None], stratum, strata)
        over_both = np.bincount(stratum, over_values * share_of_cell, minlength=strata)
        centred = scores - over_values[:, None] - over_cells[stratum] + over_both[stratum][:, None]
        squares = _sums(size[:, None] * centred**2, stratum, strata)
        variance = (squares * of_value / np.maximum(n - 1.0, 1.0)[:, None]).sum(0)
        order = np.lexsort((np.arange(len(size)), size, stratum))  # the last of each stratum is its largest cell
        largest = order[np.searchsorted(stratum[order], np.arange(strata), side="right") - 1]
        events = n - size[largest]
        return cls(counts, scores, stratum, centred, variance, largest, events, events @ share_of_value)

    @property
    def normal(self) -> bool:
        """Whether T may be taken as normal: enough events, and rare values hardly matter."""
        rare = self.variance[self.expected < LEAST_EXPECTED].sum()
        return bool(self.events.sum() >= LEAST_EVENTS and rare <= RARE_SHARE * self.variance.sum())


def _sums(values: np.ndarray, stratum: np.ndarray, strata: int) -> np.ndarray:
    """Sums `[strata a]` of `[cells a]`."""
    sums = np.zeros((strata, values.shape[1]))
    np.add.at(sums, stratum, values)
    return sums


def _upper_tail(z: float) -> float:
    from scipy import special  # a dependency of jax; loaded only here because it is slow to import

    return float(special.ndtr(-z))


def _permutation_p(table: _Table, rng: np.random.Generator, resolve: float) -> float:
    """Mid-p of T among random deals; draws continue until p is on one side of `resolve` by three standard errors."""
    observed, drawn, draws = (table.counts * table.centred).sum(), np.zeros(0), FLIPS
    while True:
        drawn = np.concatenate([drawn, _deal(table, rng, draws)])
        slack = 1e-9 * max(np.abs(drawn).max(), abs(observed))  # equal sums differ by rounding
        beyond = (drawn > observed + slack).sum() + 0.5 * (np.abs(drawn - observed) <= slack).sum()
        p = float((beyond + 0.5) / (len(drawn) + 1))
        if len(drawn) >= MOST_DRAWS or abs(p - resolve) > 3.0 * (p * (1.0 - p) / len(drawn)) ** 0.5:
            return p
        draws = len(drawn)


def _deal(table: _Table, rng: np.random.Generator, draws: int) -> np.ndarray:
    """T of random deals `[draws]`: the values of all cells but the largest are drawn, which takes what is left."""
    total = np.zeros(draws)
    for stratum, largest in enumerate(table.largest):
        if not table.events[stratum]:
            continue
        cells = np.flatnonzero(table.stratum == stratum)
        left = np.tile(table.counts[cells].sum(0).astype(np.int64), (draws, 1))
        # T counts what a cell's score has above the largest cell's; the sum of the latter over all rows is fixed.
        total += float((left[0] * table.centred[largest]).sum())
        for cell in cells[cells != largest]:
            gain = table.centred[cell] - table.centred[largest]
            need, rest = np.full(draws, int(table.counts[cell].sum())), left.sum(1)
            for column in range(left.shape[1]):
                rest = rest - left[:, column]
                taken = rng.hypergeometric(left[:, column], rest, need) if column < left.shape[1] - 1 else need
                left[:, column] -= taken
                need = need - taken
                total += taken * gain[column]
    return total


def _by_units(part: np.ndarray, unit: np.ndarray, variance: float, events: int, key: Key) -> ExchangeTest:
    """T of clustered rows: its variance is that between units; signs of units are flipped where they are few.

    Flipping is Wu's wild bootstrap with the hypothesis imposed; whole units keep whatever dependence they have.
    """
    totals = np.bincount(np.unique(unit, return_inverse=True)[1], part)
    squares = float((totals**2).sum())
    if squares <= 0.0:
        return ExchangeTest(0.0, 1.0, events, 1.0)
    total = float(totals.sum())
    z = total / squares**0.5
    effective = squares**2 / float((totals**4).sum())
    if effective >= LEAST_EVENTS:
        p = _upper_tail(z)
    else:
        both = float(unit_flip_p(totals, key=key))
        p = both / 2.0 if total > 0 else 1.0 - both / 2.0
    return ExchangeTest(z, p, events, max(1.0, squares / variance))
