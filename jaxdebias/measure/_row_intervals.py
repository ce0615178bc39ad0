"""From rows to intervals: counts per group, the design effect of the quantity, the interval of the counts."""

from typing import Any, NamedTuple

import numpy as np

from jaxdebias.contracts import check_numbers, describe, expect
from jaxdebias.core import Key
from jaxdebias.measure._design_effect import group_counts, unit_design_effect
from jaxdebias.measure._intervals import Interval, paired_interval, plain, weighted_interval
from jaxdebias.measure._significance import LEAST_DISCORDANT, changed_rows, sign_flip_p, unit_flip_p

FEWEST_ROWS = 5
"""Groups of fewer rows are joined for the interval of a sum over groups."""


class PairedChange(NamedTuple):
    """A change between two models on the same rows, its interval and whether it can be told from none."""

    value: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    n: float | np.ndarray
    """Rows behind the change; effective ones where rows are clustered."""
    p: float | np.ndarray
    """Mid-p of random signs of the rows (with units: of the units) that changed."""
    discordant: int | np.ndarray
    """Rows (units) that changed."""
    separable: bool | np.ndarray
    """p <= 1 - level, at least 6 discordant, and 0 outside the interval."""


def weighted_rate_interval(
    right: Any, group: Any, w: Any, *, unit: Any = None, weight: Any = None, level: float = 0.95
) -> Interval:
    """`weighted_interval` of S = sum w_g p_g from rows, clustered where units are given.

    Args:
      right: `[... n]` 0 or 1.
      group: `[n]` or `[... n]` integers in 0..g-1; -1 leaves the row out.
      w: `[... g]` weights; several quantities on the same rows are a batch axis of w.
      unit: `[n]` or `[... n]` integers; None: every row is its own unit.
      weight: `[n]` or `[... n]` weights of rows; 0 is padding.
      level: confidence level.

    >>> rate = weighted_rate_interval([1, 1, 0, 1], [0, 0, 1, 1], [0.5, 0.5])
    >>> rate.value, round(rate.low, 3), round(rate.high, 3)
    (0.75, 0.202, 0.994)
    """
    joined = _joined_quantities(right, group, w, weight)
    if joined:
        found = [
            weighted_interval(x, n, one.w, level=level)
            for one in joined
            for (x,), n in [one.counts([np.asarray(right)], np.asarray(right), unit, level)]
        ]
        return Interval(*(plain(np.reshape(field, np.shape(w)[:-1])) for field in zip(*found, strict=True)))
    x, n = group_counts(right, group, groups=np.shape(w)[-1], weight=weight)
    factor = _factor(right, group, unit, w, weight, level)
    return weighted_interval(x / factor, n / factor, w, level=level)


def paired_change(
    before: Any, after: Any, group: Any, w: Any, *, key: Key, unit: Any = None, weight: Any = None, level: float = 0.95
) -> PairedChange:
    """Change of S = sum w_g p_g between two models on the same rows, with interval, test and verdict.

    Without units as `paired_interval` and `separable`. With units, the interval has the design effect of the change,
    and the test flips the signs of whole units.

    Args:
      before: `[n]` 0 or 1, whether the first model is right.
      after: `[n]` the same of the second.
      group: `[n]` integers in 0..g-1; -1 leaves the row out.
      w: `[g]` or `[... g]` weights; several quantities on the same rows are a batch axis of w.
      key: randomness of the signs.
      unit: `[n]` integers; None: every row is its own unit.
      weight: `[n]` weights of rows; 0 is padding.
      level: confidence level.

    >>> import jax
    >>> before, after = np.repeat([0, 1, 1], [9, 1, 50]), np.repeat([1, 0, 1], [9, 1, 50])
    >>> change = paired_change(before, after, np.zeros(60, int), [1.0], key=jax.random.key(0))
    >>> round(change.value, 3), change.discordant, change.separable
    (0.133, 10, True)
    """
    for name, value in (("before", before), ("after", after)):
        check_numbers(name, value, "n")
        expect(bool(np.all(np.isin(np.asarray(value), (0, 1)))), name, "0 or 1 for every row", describe(value))
    before, after, group, w = (np.asarray(value) for value in (before, after, group, w))
    expect(before.shape == after.shape, "after", f"the rows of before, {list(before.shape)}", describe(after))
    change, groups = after.astype(np.float64) - before, w.shape[-1]
    gains, n = group_counts(change > 0, group, groups=groups, weight=weight)
    losses, _ = group_counts(change < 0, group, groups=groups, weight=weight)
    joined = _joined_quantities(change, group, w, weight)
    if joined:
        found = [
            paired_interval(up, down, size, one.w, level=level)
            for one in joined
            for (up, down), size in [one.counts([change > 0, change < 0], change, unit, level)]
        ]
        interval = Interval(*(plain(np.reshape(field, w.shape[:-1])) for field in zip(*found, strict=True)))
    else:
        factor = _factor(change, group, unit, w, weight, level)
        interval = paired_interval(gains / factor, losses / factor, n / factor, w, level=level)
    uneven = weight is not None and not np.all(np.isin(np.asarray(weight), (0, 1)))
    if unit is None and not uneven:
        discordant = changed_rows(gains, losses, w)
        p = sign_flip_p(gains, losses, n, w, key=key)
    else:
        unit = np.arange(len(change)) if unit is None else unit
        moved, totals = _unit_totals(change, group, np.asarray(unit), w, weight)
        discordant, p = moved.sum(-1), unit_flip_p(totals, key=key)
    verdict = (
        (np.asarray(p) <= 1.0 - level + 1e-12)
        & (discordant >= LEAST_DISCORDANT)
        & ((np.asarray(interval.low) > 0) | (np.asarray(interval.high) < 0))
    )
    return PairedChange(*interval, p, plain(np.rint(discordant).astype(np.int64)), plain(verdict))


class _Joined(NamedTuple):
    """Rows whose smallest groups are one: of one quantity."""

    group: np.ndarray
    w: np.ndarray
    weight: np.ndarray
    """`[n]`, what a row counts in its group: as much as in the quantity."""
    own: int
    """Groups that are as they were; those after them are joined."""

    def counts(
        self, events: list[np.ndarray], change: np.ndarray, unit: Any, level: float
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """(effective counts of each event `[g]`, effective rows `[g]`)."""
        groups = len(self.w)
        some = [group_counts(event, self.group, groups=groups, weight=self.weight) for event in events]
        factor = np.ones(groups)
        if unit is not None:
            effect = unit_design_effect(change, self.group, unit, self.w, weight=self.weight, level=level)
            factor = np.full(groups, effect.factor)
        else:  # rows that count more may vary more
            rows = np.arange(len(self.group))
            for g in range(self.own, groups):
                alone = np.eye(groups)[g]
                effect = unit_design_effect(change, self.group, rows, alone, weight=self.weight, level=level)
                factor[g] = effect.design_effect
        return [x / factor for x, _ in some], some[0][1] / factor


def _joined_quantities(values: Any, group: Any, w: Any, weight: Any) -> list[_Joined]:
    """Each quantity with its groups of fewer than 5 rows joined; empty where there are not two of them.

    Of one or two rows no variance can be seen: the score limits of a sum over many such groups allow for any, and say
    nothing. Joined groups lend each other theirs. A choice of ours; the tests simulate a small part of what it covers.
    """
    if np.ndim(values) != 1 or np.ndim(group) != 1:
        return []
    group, w = np.asarray(group), np.asarray(w, np.float64)
    counts = np.ones(len(group)) if weight is None else np.asarray(weight, np.float64)
    if np.ndim(counts) != 1 or not np.all(np.isin(counts, (0, 1))):
        return []
    known = (group >= 0) & (counts > 0)
    groups = w.shape[-1]
    size = np.bincount(group[known], minlength=groups)
    small = (size > 0) & (size < FEWEST_ROWS)
    quantities: list[_Joined] = []
    several = False
    for one in w.reshape(-1, groups):
        number, joined_w, row_weight = np.where(known, group, -1), one.copy(), counts.copy()
        for sign in (1, -1):
            members = small & (sign * one > 0)
            if members.sum() < 2:
                continue
            several = True
            rows = known & members[np.maximum(group, 0)]
            row_weight[rows] = (np.abs(one) / np.maximum(size, 1))[group[rows]]
            row_weight[rows] /= row_weight[rows].mean()
            number[rows] = len(joined_w)
            joined_w = np.append(np.where(np.append(members, np.zeros(len(joined_w) - groups, bool)), 0.0, joined_w),
                                 one[members].sum())  # fmt: skip
        quantities.append(_Joined(number, joined_w, row_weight, groups))
    return quantities if several else []


def _factor(right: Any, group: Any, unit: Any, w: Any, weight: Any, level: float) -> np.ndarray:
    """What counts are divided by, `[... 1]` to fit the groups."""
    if unit is None:
        return np.ones(1)
    return np.asarray(unit_design_effect(right, group, unit, w, weight=weight, level=level).factor)[..., None]


def _unit_totals(
    change: np.ndarray, group: np.ndarray, unit: np.ndarray, w: np.ndarray, weight: Any
) -> tuple[np.ndarray, np.ndarray]:
    """(whether a unit has a row that changed, what it adds to S): both `[... u]`."""
    row_weight = np.ones(len(change)) if weight is None else np.asarray(weight, np.float64)
    row_weight = np.where(group >= 0, row_weight, 0.0)
    names, unit = np.unique(unit, return_inverse=True)
    size = np.bincount(np.maximum(group, 0), row_weight, minlength=w.shape[-1])
    per_row = np.where(size > 0, w / np.where(size > 0, size, 1.0), 0.0)[..., np.maximum(group, 0)] * row_weight
    batch = per_row.shape[:-1]
    index = (np.arange(int(np.prod(batch)))[:, None] * len(names) + unit).ravel()

    def per_unit(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(index, values.ravel(), minlength=int(np.prod(batch)) * len(names))
        return sums.reshape(*batch, len(names))

    return per_unit((per_row != 0) & (change != 0)) > 0, per_unit(per_row * change)
