"""What weights of rows mean before anything is trained with them: how unequal, who is drawn, who never is."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdebias.contracts import check_integers, describe, expect
from jaxdebias.core import Array

RATIO_EDGES = tuple(10.0 ** (e / 4) for e in range(-12, 13))
"""Edges of the histogram of weights over their mean, a thousandth to a thousand; the end bins take what lies beyond."""


class DrawReport(NamedTuple):
    """Of the weights of n rows. Group labels are for this report only; no weight depends on them."""

    ess: float
    """(sum W)^2 / (n sum W^2): 1 for equal weights."""
    largest: float
    """Share of the draws that the heaviest row gets."""
    never_drawn: float
    """Share of the rows not drawn in n systematic draws, expected."""
    histogram: Int[np.ndarray, "v"]
    """Rows by weight over mean weight, between `RATIO_EDGES`."""
    rarest: Int[np.ndarray, "m"]
    """Rows of largest weight, heaviest first."""
    commonest: Int[np.ndarray, "m"]
    """Rows of smallest weight, lightest first."""
    group_share: Float[np.ndarray, "g"] | None
    """Share of the draws of each group."""
    group_rows: Float[np.ndarray, "g"] | None
    """Share of the rows of each group."""
    group_auc: Float[np.ndarray, "g"] | None
    """See `weight_auc`, of each group against all other rows."""


def draw_report(
    weight: Float[Array, "n"], group: Int[Array, "n"] | None = None, *, groups: int | None = None, shown: int = 16
) -> DrawReport:
    """The diagnostics of one epoch's weights, on the host.

    Args:
      weight: `[n]`, none negative, not all 0.
      group: 0..groups-1, or -1 for rows of unknown group, which are in no group's numbers.
      groups: number of groups; None: one more than the largest.
      shown: how many rarest and commonest rows.

    >>> report = draw_report(np.array([1.0, 1.0, 1.0, 5.0]), np.array([0, 0, 1, 1]), groups=2)
    >>> round(report.ess, 4), report.largest, report.group_share.tolist(), report.group_auc.tolist()
    (0.5714, 0.625, [0.25, 0.75], [0.25, 0.75])
    """
    weight = np.asarray(weight, np.float64)
    good = weight.ndim == 1 and np.isfinite(weight).all() and (weight >= 0).all() and weight.sum() > 0
    expect(bool(good), "weight", "finite numbers [n], none negative, not all 0", describe(weight))
    n = weight.size
    ratio = n * weight / weight.sum()
    order = np.argsort(ratio, kind="stable")
    place = np.clip(np.searchsorted(RATIO_EDGES, ratio, side="right") - 1, 0, len(RATIO_EDGES) - 2)
    share = rows = auc = None
    if group is not None:
        check_integers("group", group, n, -1, groups)
        group = np.asarray(group)
        members = [group == g for g in range(int(group.max()) + 1 if groups is None else groups)]
        share = np.array([ratio[member].sum() / n for member in members])
        rows = np.array([member.mean() for member in members])
        auc = np.array([weight_auc(ratio[group >= 0], member[group >= 0]) for member in members])
    return DrawReport(
        ess=float(1.0 / np.mean(ratio**2)),
        largest=float(ratio.max() / n),
        never_drawn=float(np.mean(np.maximum(1.0 - ratio, 0.0))),
        histogram=np.bincount(place, minlength=len(RATIO_EDGES) - 1),
        rarest=order[::-1][:shown],
        commonest=order[:shown],
        group_share=share,
        group_rows=rows,
        group_auc=auc,
    )


def weight_auc(weight: Float[Array, "n"], rare: Bool[Array, "n"]) -> float:
    """Probability that a random row of `rare` weighs more than a random other one; a tie counts half.

    0.5: the weights do not know the group. NaN where one side has no row.

    >>> weight_auc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True]))
    0.875
    """
    weight, rare = np.asarray(weight), np.asarray(rare)
    common = np.sort(weight[~rare])
    if not rare.any() or not common.size:
        return float("nan")
    below = np.searchsorted(common, weight[rare], side="left") + np.searchsorted(common, weight[rare], side="right")
    return float(below.mean() / (2 * common.size))
