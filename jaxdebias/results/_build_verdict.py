"""From a decision to the record of the verdict."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from jaxdebias.auditing import verdict as auditing_verdict
from jaxdebias.measure import Interval, PairedChange
from jaxdebias.results import records
from jaxdebias.results._plain import finite


def verdict(found: auditing_verdict.Verdict, label_names: Sequence[str]) -> records.Verdict:
    """The record of a verdict, but for headline and sentence, which are words.

    Args:
      found: the decision.
      label_names: names of the classes.
    """
    return records.Verdict(
        tolerance=float(found.tolerance),
        level=float(found.level),
        min_group=int(found.min_group),
        alpha=float(found.alpha),
        headline="",
        disparity=tuple(_disparity(entry, label_names) for entry in found.disparity),
        reliance=tuple(map(_reliance, found.reliance)),
        association=tuple(
            records.Association(attribute=one.attribute, cramers_v=_estimate(one.cramers_v), n=int(one.n))
            for one in found.association
        ),
        advice=_advice(found.advice),
    )


def _disparity(entry: Any, label_names: Sequence[str]) -> records.Disparity:
    return records.Disparity(
        attribute=entry.attribute,
        measure=entry.measure,
        class_=None if entry.class_ is None else str(label_names[entry.class_]),
        state=entry.state,
        gap=_ends(entry.gap),
        p=float(entry.p),
        highest=_rated(entry.highest),
        lowest=_rated(entry.lowest),
        left_out=tuple(records.NamedGroup(name=str(group.name), n=int(group.n)) for group in entry.left_out),
        indistinguishable=int(entry.indistinguishable),
    )


def _rated(group: Any) -> records.RatedGroup:
    ends = (float(group.value), float(group.low), float(group.high))
    return records.RatedGroup(
        name=str(group.name), n=int(group.n), **dict(zip(("value", "low", "high"), ends, strict=True))
    )


def _reliance(one: Any) -> records.Reliance:
    return records.Reliance(
        attribute=one.attribute,
        state=one.state,
        drawn=one.drawn,
        evidence=one.evidence,
        lean=_estimate(one.lean),
        p=None if one.p is None else finite(one.p),
        mistakes=int(one.mistakes),
        detectable=None if one.detectable is None else min(float(one.detectable), 1.0),
        copies=tuple(one.copies),
        rivals=records.Rivals(
            **{
                name: records.Rival(state=rival.state, figure=finite(rival.figure))
                for name, rival in one.rivals._asdict().items()
            }
        ),
    )


def _advice(found: auditing_verdict.Advice) -> records.Recommendation:
    repair, state = found.repair, cast(Any, found.state)  # one of the states that the record lists
    return records.Recommendation(
        state=state,
        sentence="",
        repair=None if repair is None else repair.name,
        held_out=None if repair is None else _effect(repair.held_out),
        test=None if repair is None or repair.test is None else _effect(repair.test),
        rows_needed=found.rows_needed,
    )


def _effect(change: PairedChange) -> records.RepairEffect | None:
    """None where the change does not exist: a group without rows."""
    gain, low, high = (finite(end) for end in change[:3])
    if gain is None or low is None or high is None:
        return None
    return records.RepairEffect(gain=gain, low=low, high=high, p=float(change.p), discordant=int(change.discordant))


def _estimate(interval: Interval | None) -> records.Estimate | None:
    if interval is None or not all(np.isfinite(float(end)) for end in interval[:3]):
        return None
    return _ends(interval)


def _ends(interval: Interval) -> records.Estimate:
    value, low, high = (float(end) for end in interval[:3])
    return records.Estimate(value=value, low=low, high=high)
