"""Measured intervals as records."""

from collections.abc import Mapping

import numpy as np

from jaxdebias.measure import _bootstrap as measured
from jaxdebias.results import records
from jaxdebias.results._plain import finite


def interval(found: measured.Interval) -> records.Interval:
    """An interval, NaN as null."""
    return records.Interval(**_ends(found))


def rate(found: measured.Interval | None) -> records.Rate | None:
    """The interval of a fraction; None where there is no estimate."""
    return None if found is None or not np.isfinite(found.value) else records.Rate(**_ends(found))


def rate_at(found: measured.Interval, *index: int) -> records.Rate:
    """One rate of arrays of them; its value is null where there is no estimate."""
    return records.Rate(**_ends(measured.Interval(*(np.asarray(field)[index].item() for field in found))))


def changes(found: Mapping[str, measured.Interval]) -> dict[str, records.Change]:
    """Differences by metric, those without an estimate included."""
    return {name: records.Change(**_ends(one)) for name, one in found.items()}


def intervals(found: Mapping[str, measured.Interval]) -> dict[str, records.Interval]:
    """Intervals by metric, without those that have no estimate."""
    return {name: interval(one) for name, one in found.items() if np.isfinite(one.value)}


def _ends(found: measured.Interval) -> dict[str, float | int | None]:
    value, low, high = (finite(end) for end in found[:3])
    return {"value": value, "low": low, "high": high, "n": int(found.n)}
