"""Measured intervals as records."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdebias.measure import _intervals as measured
from jaxdebias.measure._row_intervals import PairedChange
from jaxdebias.results import records
from jaxdebias.results._plain import finite


def interval(found: measured.Interval) -> records.Interval:
    """An interval, NaN as null."""
    return records.Interval(**_ends(found))


def rate(found: Any) -> records.Rate | None:
    """The interval of a fraction; None where there is no estimate."""
    return None if found is None or not np.isfinite(found.value) else records.Rate(**_ends(found))


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


def _ends(found: Any) -> dict[str, float | int | None]:
    value, low, high = (finite(end) for end in found[:3])
    return {"value": value, "low": low, "high": high, "n": round(float(found.n))}
