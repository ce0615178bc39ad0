"""A run against a bound: what a continuous integration stops at."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxdebias.contracts import expect
from jaxdebias.report import formats
from jaxdebias.report.formats import applies


class Verdict(NamedTuple):
    """Whether every bound holds, and one line that says why."""

    passed: bool
    reason: str


def gate(results: Mapping[str, Any], *, max_gap: float | None = None, min_worst_group: float | None = None) -> Verdict:
    """Judges what a run measured on its test set, after the repair if there was one.

    The numbers themselves are judged, not their intervals: a bound inside the interval is said to be so.

    Args:
      results: of a run, see `jaxdebias.results.records`.
      max_gap: the most that accuracy may fall from bias-aligned to bias-conflicting samples, as a fraction.
      min_worst_group: the least accuracy of the worst group.

    Raises:
      ContractError: no bound, one outside 0..1, or a number that this run does not have.
    """
    expect(max_gap is not None or min_worst_group is not None, "check", "--max-gap or --min-worst-group", "neither")
    measured = results["after"] or results["before"]
    found, held = [], True
    if max_gap is not None:
        expect(0 <= max_gap <= 1, "--max-gap", "a fraction in 0..1", max_gap)
        gap, low, high = _gap(measured)
        held &= gap <= max_gap
        found.append(
            f"accuracy falls by {formats.points(max(gap, 0.0))} ({100 * low:.1f} to {100 * high:.1f}) from "
            f"bias-aligned to bias-conflicting samples, at most {formats.points(max_gap)} allowed"
            + _inside(low, max_gap, high)
        )
    if min_worst_group is not None:
        expect(0 <= min_worst_group <= 1, "--min-worst-group", "a fraction in 0..1", min_worst_group)
        worst = measured["worst_group_accuracy"]
        good = applies(worst) and worst["low"] is not None and worst["high"] is not None
        expect(good, "--min-worst-group", "a run whose test set has groups, with an interval", "none")
        held &= worst["value"] >= min_worst_group
        found.append(
            f"accuracy of the worst group, {worst.get('group')}, is {formats.percent(worst['value'])} "
            f"({formats.interval(worst)}), at least {formats.percent(min_worst_group)} asked"
            + _inside(worst["low"], min_worst_group, worst["high"])
        )
    return Verdict(held, f"{'passed' if held else 'failed'}: {'; '.join(found)}")


def _gap(measured: Mapping[str, Any]) -> tuple[float, float, float]:
    """Aligned minus conflicting accuracy with the interval of a difference of two rates (Newcombe 1998, method 10)."""
    aligned, conflicting = measured["bias_aligned_accuracy"], measured["bias_conflicting_accuracy"]
    both = all(applies(rate) and formats.interval(rate) for rate in (aligned, conflicting))
    expect(
        both, "--max-gap", "a run whose test set has bias-aligned and bias-conflicting samples", "only one of the two"
    )
    gap = aligned["value"] - conflicting["value"]
    below = (aligned["value"] - aligned["low"], conflicting["high"] - conflicting["value"])
    above = (aligned["high"] - aligned["value"], conflicting["value"] - conflicting["low"])
    low, high = gap - (below[0] ** 2 + below[1] ** 2) ** 0.5, gap + (above[0] ** 2 + above[1] ** 2) ** 0.5
    return gap, max(low, -1.0), min(high, 1.0)


def _inside(low: float, bound: float, high: float) -> str:
    return " (not separable from it)" if low <= bound <= high else ""
