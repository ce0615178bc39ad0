"""Measured intervals as records."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from jaxdebias.measure import _intervals as measured
from jaxdebias.measure._fairness import Disparity
from jaxdebias.measure._row_intervals import PairedChange
from jaxdebias.results import records
from jaxdebias.results._plain import finite


def interval(found: measured.Interval) -> records.Interval:
    """An interval, NaN as null."""
    return records.Interval(**_ends(found))


def rate(found: measured.Interval | None) -> records.Rate | None:
    """The interval of a fraction; None where there is no estimate."""
    return None if found is None or not np.isfinite(found.value) else records.Rate(**_ends(found))


def difference(found: measured.Interval) -> records.Difference | None:
    """A difference of rates on different rows, separable if 0 lies outside its interval; None without an estimate."""
    if not np.isfinite(found.value):
        return None
    return records.Difference(**_ends(found), separable=bool(measured.excludes_zero(found)))


def largest_difference(found: Disparity | None, names: Sequence[str]) -> records.LargestDifference | None:
    """A fairness difference between attribute values; None where there are no two groups at all."""
    if found is None or not np.isfinite(found.all_groups):
        return None
    return records.LargestDifference(
        **_ends(found),
        p=finite(found.p),
        highest=names[found.highest] if found.highest >= 0 else None,
        lowest=names[found.lowest] if found.lowest >= 0 else None,
        all_groups=float(found.all_groups),
        left_out=tuple(names[value] for value in found.left_out),
    )


def rate_at(found: measured.Interval, *index: int) -> records.Rate:
    """One rate of arrays of them; its value is null where there is no estimate."""
    return records.Rate(**_ends(measured.Interval(*(np.asarray(field)[index].item() for field in found))))


def change(found: PairedChange) -> records.Change:
    """A difference of two models on the same rows, with its test and verdict."""
    known = bool(np.isfinite(found.value))
    return records.Change(
        **_ends(found),
        p=finite(found.p),
        discordant=int(found.discordant) if known else None,
        separable=bool(found.separable) if known else None,
    )


def changes(found: Mapping[str, PairedChange]) -> dict[str, records.Change]:
    """Differences by metric, those without an estimate included."""
    return {name: change(one) for name, one in found.items()}


def known_changes(found: Mapping[str, PairedChange]) -> dict[str, records.Change]:
    """Differences by metric, without those that have no estimate."""
    return {name: change(one) for name, one in found.items() if np.isfinite(one.value)}


class _Ends(TypedDict):
    value: float | None
    low: float | None
    high: float | None
    n: int


def _ends(found: measured.Interval | PairedChange | Disparity) -> _Ends:
    value, low, high = (finite(end) for end in found[:3])
    return {"value": value, "low": low, "high": high, "n": round(float(found.n))}
