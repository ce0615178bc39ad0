"""Clustered rows: how much fewer independent rows a number rests on, and what to count instead.

Ten pictures of one person are not ten independent rows. Every quantity has its own design effect: units that spread
over groups may cancel in a difference and add up in a mean. Counts divided by `DesignEffect.factor` go into the
intervals of `_intervals`.
"""

from typing import Any, NamedTuple, cast

import numpy as np

from jaxdebias.contracts import check_finite, check_numbers, describe, expect
from jaxdebias.measure._intervals import checked_level, normal_quantile, plain


class DesignEffect(NamedTuple):
    """Variance of a weighted sum of group rates over its variance with independent rows, and its own uncertainty."""

    design_effect: float | np.ndarray
    """At least 1."""
    t_over_z: float | np.ndarray
    """Student's quantile over the normal one, with the degrees of freedom that the units leave."""

    @property
    def factor(self) -> float | np.ndarray:
        """What x and n are divided by: `design_effect * t_over_z**2`."""
        return self.design_effect * self.t_over_z**2


def unit_design_effect(
    right: Any, group: Any, unit: Any, w: Any, *, weight: Any = None, level: float = 0.95
) -> DesignEffect:
    """Design effect of S = sum w_g p_g when rows of one unit are correlated (Kish 1965; jackknife residuals).

    d_u = sum_g w_g/n_g (sum of y - p_g over the unit's rows in g) / max(1 - m_ug/n_g, .05), V_u = (U-1)/U sum d_u^2 and
    V = sum w^2 p(1-p)/n give max(1, V_u/V). Where V = 0 or there is one unit only, no variance between units can be
    seen, and the rows of a unit count as one: Kish's sum k_u^2 / sum(w^2/n), k_u = sum_g |w_g| m_ug/n_g.
    The degrees of freedom are max(1, min((sum k)^2/sum k^2 - 1, (sum w^2/e)^2 / sum((w^2/e)^2/max(e - 1, .1)))) with
    e_g = 1 / sum_u (m_ug/n_g)^2.

    Args:
      right: `[... n]` 0 or 1. For a change on the same rows: -1, 0 or 1.
      group: `[n]` or `[... n]` integers in 0..g-1; -1 leaves the row out.
      unit: `[n]` or `[... n]` integers, whatever they are.
      w: `[g]` or `[... g]` weights of either sign. Groups with weight 0, and units that are only in them, do not count.
      weight: `[n]` or `[... n]` weights of rows; 0 is padding. n_g is then Kish's effective size, see `group_counts`.
      level: confidence level of the interval that the factor is for.

    Returns:
      DesignEffect of the batch shape.

    >>> twice = unit_design_effect([1, 1, 0, 0, 1, 1, 1, 1], [0] * 8, [0, 0, 1, 1, 2, 2, 3, 3], [1.0])
    >>> round(twice.design_effect, 3), round(twice.t_over_z, 3)
    (2.667, 1.624)
    """
    from scipy import special

    rows = _Rows.of(right, group, unit, w, weight)
    batch, groups, units = rows.batch, rows.groups, rows.units
    cells, cell = np.unique((rows.entry * units + rows.unit) * groups + rows.group, return_inverse=True)
    entry_unit = cells // groups
    entry_group = entry_unit // units * groups + cells % groups
    entry_count = rows.w.shape[0]

    def per_group(values: np.ndarray) -> np.ndarray:
        return np.bincount(entry_group, values, minlength=entry_count * groups)

    def per_unit(values: np.ndarray) -> np.ndarray:
        return np.bincount(entry_unit, values, minlength=entry_count * units).reshape(entry_count, units)

    count, total = np.bincount(cell, rows.weight), np.bincount(cell, rows.weight * rows.right)
    n = per_group(count)
    seen = n > 0
    n = np.where(seen, n, 1.0)
    squares = per_group(np.bincount(cell, rows.weight**2))
    independent = np.where(seen, n**2 / np.where(seen, squares, 1.0), 1.0)  # Kish's effective number of rows
    mean = per_group(total) / n
    variance = per_group(np.bincount(cell, rows.weight * rows.right**2)) / n - mean**2
    weights = np.where(seen, rows.w.ravel(), 0.0)

    share = count / n[entry_group]
    weight_of_cell = weights[entry_group]
    residual = per_unit(
        weight_of_cell / n[entry_group] * (total - mean[entry_group] * count) / np.maximum(1.0 - share, 0.05)
    )
    k = per_unit(np.abs(weight_of_cell) * share)
    unit_count = (k > 0).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (unit_count - 1) / unit_count * (residual**2).sum(-1)
        per_row = (weights**2 / independent).reshape(entry_count, groups)
        within = (per_row * variance.reshape(entry_count, groups)).sum(-1)
        unseen = (within <= 1e-12 * per_row.sum(-1)) | (unit_count == 1)
        effect = cast(np.ndarray, np.where(unseen, (k**2).sum(-1) / per_row.sum(-1), np.maximum(1.0, between / within)))
        effective = 1.0 / np.where(seen, per_group(share**2), 1.0)
        part = (weights**2 / effective).reshape(entry_count, groups)
        spread = (part**2 / np.maximum(effective.reshape(entry_count, groups) - 1.0, 0.1)).sum(-1)
        freedom = np.minimum(k.sum(-1) ** 2 / (k**2).sum(-1) - 1.0, part.sum(-1) ** 2 / spread)
    quantile = special.stdtrit(np.maximum(1.0, freedom), (1.0 + checked_level(level)) / 2.0)
    return DesignEffect(plain(effect.reshape(batch)), plain((quantile / normal_quantile(level)).reshape(batch)))


def group_counts(
    right: Any, group: Any, *, groups: int, unit: Any = None, weight: Any = None, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Successes and trials per group from rows: (x, n), both float64 `[... g]`, effective numbers where need be.

    With weights other than 0 and 1 the rate is the weighted one and n is Kish's effective size, (sum v)^2 / sum v^2.
    With units, both are divided by the factor of the group's own design effect. They are then what
    `proportion_interval`, `worst_group_interval`, `largest_difference_interval` and `homogeneity_p` take; a weighted
    sum has a design effect of its own, see `weighted_rate_interval`.

    Args:
      right: `[... n]` 0 or 1.
      group: `[n]` or `[... n]` integers in 0..groups-1; -1 leaves the row out.
      groups: number of groups.
      unit: `[n]` or `[... n]` integers; None: every row is its own unit.
      weight: `[n]` or `[... n]` weights of rows; 0 is padding.
      level: confidence level of the interval that the counts are for; matters with units only.

    >>> group_counts([1, 0, 1, 1], [0, 0, 1, -1], groups=2)
    (array([1., 1.]), array([2., 1.]))
    """
    rows = _Rows.of(right, group, np.zeros(1, np.int64), np.ones(groups), weight)
    entry_group = rows.entry * groups + rows.group
    sums = [
        np.bincount(entry_group, values, minlength=rows.w.size).reshape(*rows.batch, groups)
        for values in (rows.weight, rows.weight**2, rows.weight * rows.right)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        n = np.where(sums[1] > 0, sums[0] ** 2 / sums[1], 0.0)
        rate = np.where(n > 0, sums[2] / sums[0], 0.0)
    if unit is not None:
        alone = np.eye(groups).reshape(groups, *(1,) * len(rows.batch), groups)
        effect = unit_design_effect(right, group, unit, alone, weight=weight, level=level)
        n = np.divide(n, np.moveaxis(np.asarray(effect.factor), 0, -1), out=np.zeros_like(n), where=n > 0)
    return rate * n, n


class _Rows(NamedTuple):
    """The rows that count, of all batch entries one after the other, and the weights of the groups."""

    right: np.ndarray
    group: np.ndarray
    unit: np.ndarray
    weight: np.ndarray
    entry: np.ndarray
    """Batch entry of the row."""
    w: np.ndarray
    """`[entries g]`."""
    units: int
    batch: tuple[int, ...]

    @property
    def groups(self) -> int:
        return self.w.shape[1]

    @classmethod
    def of(cls, right: Any, group: Any, unit: Any, w: Any, weight: Any) -> "_Rows":
        for name, value in (("right", right), ("group", group), ("unit", unit)):
            check_numbers(name, value, "... n")
        check_numbers("w", w, "... g")
        right, group, w = np.asarray(right, np.float64), np.asarray(group), np.asarray(w, np.float64)
        check_finite("right", right)
        check_finite("w", w)
        expect(bool(np.all(np.abs(right) <= 1)), "right", "values of 0 or 1 (changes: -1, 0 or 1)", describe(right))
        groups = w.shape[-1]
        whole = np.issubdtype(group.dtype, np.integer) and bool(np.all((group >= -1) & (group < groups)))
        expect(whole, "group", f"integers in -1..{groups - 1}", describe(group))
        names, unit = np.unique(np.asarray(unit), return_inverse=True)
        unit = unit.reshape(np.shape(unit))
        weight = np.ones(1) if weight is None else np.asarray(weight, np.float64)
        check_finite("weight", weight)
        expect(bool(np.all(weight >= 0)), "weight", "no negative weight", describe(weight))
        try:
            shape = np.broadcast_shapes(right.shape, group.shape, unit.shape, weight.shape)
            batch = np.broadcast_shapes(shape[:-1], w.shape[:-1])
        except ValueError:
            expect(False, "right", f"the rows of group, {list(group.shape)}, and of unit and weight", describe(right))
        full = (*batch, shape[-1])
        right, group, unit, weight = (np.broadcast_to(value, full).ravel() for value in (right, group, unit, weight))
        w = np.broadcast_to(w, (*batch, groups)).reshape(-1, groups)
        entry = np.repeat(np.arange(len(w)), full[-1])
        counts = (weight > 0) & (group >= 0)
        counts &= w[entry, np.maximum(group, 0)] != 0
        right, group, unit, weight, entry = (value[counts] for value in (right, group, unit, weight, entry))
        return cls(right, group, unit, weight, entry, w, max(len(names), 1), batch)
