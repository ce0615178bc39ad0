"""What to do, by one table: from disparity, reliance and the repairs that were tried to exactly one piece of advice.

    verdict = decide(disparity, reliance, association, repairs)
    verdict.advice.state               # for instance disparity_cause_not_shown

The three answers are kept apart: a model may serve groups differently without relying on the attribute, and the other
way round. Training associations are reported; nothing follows from them here.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jaxdebias.measure import Association, AttributeDisparity, PairedChange, overall_disparity
from jaxdebias.measure._attribute_disparity import DECIDING
from jaxdebias.measure._disparity import largest_difference_interval

LEAST_GAIN = 0.01
"""A repair whose estimated gain is not above this is not recommended, however sure it is."""
RELIANCE = ("shown", "shown_given", "cannot_tell", "consistent", "no_sign")
"""States of reliance; the first that any attribute has is that of the audit."""
SHOWN_FIRST = ("shown", "shown_given", "consistent", "no_sign", "cannot_tell")
"""The order in which attributes are listed: what is known before what is not."""
SMALL_LEAN = 0.10
"""A test set on which a lean of this size would show is large enough."""
MOST_ROWS = 10_000_000


class Repair(NamedTuple):
    """A repair that was tried, by its change of the balanced accuracy (`advice.judged_changes`)."""

    name: str
    held_out: PairedChange
    """On held-out rows that neither fitted nor chose anything."""
    test: PairedChange | None
    """On the test set; None where it was not applied there."""

    @property
    def recommended(self) -> bool:
        """Whether the held-out rows show a gain."""
        return _gains(self.held_out)

    @property
    def verified(self) -> bool:
        """Whether the test set shows it again."""
        return self.recommended and self.test is not None and _gains(self.test)


class Advice(NamedTuple):
    """What to do."""

    state: str
    """no_problem_found, not_enough_data, disparity_repaired, disparity_cause_not_shown, reliance_repaired or
    reliance_retrain."""
    repair: Repair | None
    """The verified one, or the best of what was tried; None where nothing was tried or nothing is to be repaired."""
    rows_needed: int | None
    """Rows that would be enough; None where that is not the answer, or more rows of the same kind would not help."""


class Verdict(NamedTuple):
    """Three answers and what follows from them."""

    tolerance: float
    level: float
    min_group: int
    alpha: float
    disparity: tuple[AttributeDisparity, ...]
    """Worst first."""
    reliance: tuple[Any, ...]
    """One entry per attribute, the strongest evidence first."""
    association: tuple[Association, ...]
    advice: Advice


class Needed(NamedTuple):
    """Rows of a group that would settle an undecided comparison."""

    entry: Any
    """The comparison: an entry of the disparity."""
    group: str
    """Name of the group that needs most."""
    rows: int
    """Rows of it, those at hand included."""


def decide(
    disparity: Sequence[AttributeDisparity],
    reliance: Sequence[Any],
    association: Sequence[Association] = (),
    repairs: Sequence[Repair] = (),
    *,
    rows: int,
    tolerance: float = 0.05,
    min_group: int = 30,
    level: float = 0.95,
) -> Verdict:
    """Applies the table of advice: the first row that fits.

    | disparity | reliance | repair | advice |
    | --- | --- | --- | --- |
    | any | shown, shown_given | verified | reliance_repaired |
    | any | shown, shown_given | otherwise | reliance_retrain |
    | exceeds | otherwise | verified | disparity_repaired |
    | exceeds | otherwise | otherwise | disparity_cause_not_shown |
    | within | consistent, no_sign | - | no_problem_found |
    | otherwise | otherwise | - | not_enough_data |

    Args:
      disparity: of `measure.assess_disparity`.
      reliance: of `measure.assess_reliance`, one per attribute.
      association: of `measure.association`, one per attribute.
      repairs: what was tried.
      rows: test rows with known attributes, behind the reliance.
      tolerance: with which the disparity was assessed.
      min_group: fewest units of a group that takes part.
      level: confidence level; tests are at 1 - level.
    """
    ordered = tuple(sorted(reliance, key=by_evidence))
    served, relied = overall_disparity(disparity), overall_reliance(ordered)
    best = best_repair(repairs)
    verified = best is not None and best.verified
    if relied in ("shown", "shown_given"):
        advice = Advice("reliance_repaired" if verified else "reliance_retrain", best, None)
    elif served == "exceeds":
        advice = Advice("disparity_repaired" if verified else "disparity_cause_not_shown", best, None)
    elif served == "within" and relied in ("consistent", "no_sign"):
        advice = Advice("no_problem_found", None, None)
    else:
        advice = Advice("not_enough_data", None, rows_needed(disparity, ordered, tolerance, min_group, rows))
    return Verdict(
        tolerance=tolerance,
        level=level,
        min_group=min_group,
        alpha=round(1.0 - level, 12),
        disparity=tuple(disparity),
        reliance=ordered,
        association=tuple(association),
        advice=advice,
    )


def overall_reliance(reliance: Iterable[Any]) -> str:
    """The first state of `RELIANCE` that any attribute has; `cannot_tell` without attributes."""
    states = {one.state for one in reliance}
    return next((state for state in RELIANCE if state in states), "cannot_tell")


def best_repair(repairs: Sequence[Repair]) -> Repair | None:
    """The verified one, else the recommended one, with the largest gain that the held-out rows make sure of."""
    return max(repairs, key=lambda one: (one.verified, one.recommended, _low(one.held_out)), default=None)


def rows_needed(
    disparity: Sequence[Any], reliance: Sequence[Any], tolerance: float, min_group: int, rows: int
) -> int | None:
    """Rows that would settle what cannot be told, those at hand included; None where more rows would not do it alone.

    Undecided comparisons come first: the rows are those of one group (`most_needed`). If there are none, reliance is
    undecided: the detectable lean falls with the square root of the rows of the whole test set.
    """
    if any(_undecided(entry) for entry in disparity):
        needed = most_needed(disparity, tolerance, min_group)
        return None if needed is None else needed.rows
    detectable = [one.detectable for one in reliance if one.state == "cannot_tell" and one.detectable is not None]
    if overall_disparity(disparity) != "within" or not detectable:
        return None
    return math.ceil(rows * (max(detectable) / SMALL_LEAN) ** 2)


def most_needed(disparity: Iterable[Any], tolerance: float, min_group: int) -> Needed | None:
    """The undecided comparison that needs most rows, of those in which two groups are large enough to compare."""
    needed = [_needed(entry, tolerance) for entry in disparity if _undecided(entry) and not too_small(entry, min_group)]
    return max(needed, key=lambda one: one.rows, default=None)


def too_small(entry: Any, min_group: int) -> bool:
    """Whether fewer than two groups of a comparison have enough units."""
    return min(entry.highest.n, entry.lowest.n) < min_group


def _undecided(entry: Any) -> bool:
    return entry.state == "cannot_tell" and entry.measure in DECIDING


def _needed(entry: Any, tolerance: float) -> Needed:
    """Rows of each of the two groups with which, at their rates, the interval would lie on one side of the tolerance.

    Where the gap is too close to the tolerance for that, rows with which the interval is no wider than the tolerance.
    A group that has more keeps what it has.
    """
    groups = (entry.highest, entry.lowest)
    smaller = min(groups, key=lambda group: group.n)

    def settled(n: int) -> bool:
        trials = [max(float(n), float(group.n)) for group in groups]
        hits = [group.value * trial for group, trial in zip(groups, trials, strict=True)]
        gap = largest_difference_interval(hits, trials)
        return gap.low > tolerance or gap.high <= tolerance or gap.high - gap.low <= tolerance

    low, high = smaller.n, max(2 * smaller.n, 1)
    while high < MOST_ROWS and not settled(high):
        low, high = high, 2 * high
    while high - low > max(1, high // 100):  # to a hundredth: the rates are estimates
        middle = (low + high) // 2
        low, high = (low, middle) if settled(middle) else (middle, high)
    return Needed(entry, smaller.name, high)


def _gains(change: PairedChange) -> bool:
    return bool(change.separable) and float(change.value) > LEAST_GAIN


def _low(change: PairedChange) -> float:
    return -math.inf if math.isnan(float(change.low)) else float(change.low)


def by_evidence(one: Any) -> tuple[int, float]:
    """Sorts attributes by what is known of their reliance, the strongest evidence first."""
    return SHOWN_FIRST.index(one.state), 1.0 if one.p is None else float(one.p)
