"""`jaxdebias check`: hold a result to bounds, for continuous integration."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from tyro.conf import Positional, arg

from jaxdebias.app.option_types import Float
from jaxdebias.app.result_set import MEASUREMENTS, is_complete
from jaxdebias.contracts import expect
from jaxdebias.report import formats
from jaxdebias.report.formats import applies
from jaxdebias.report.wording import METRIC
from jaxdebias.results.codec import read_results
from jaxdebias.results.records import FeatureResults, GroupRate, Measurement, Metrics, Results, RunResults


@dataclass(frozen=True, kw_only=True)
class Check:
    """Hold a result to bounds, for continuous integration: one line that says why, and exit code 1 where it fails.

    Without bounds, judged is the verdict: it passes if no problem was found. With bounds, judged is what
    was measured on the test set, after the repair if there was one. What cannot be judged fails.
    """

    run: Annotated[Path, Positional, arg(metavar="RUN")]
    """Folder that any command wrote."""
    max_gap: Float = None
    """Largest fall of accuracy from bias-aligned to bias-conflicting samples, as a fraction."""
    min_accuracy: Float = None
    """Lowest accuracy, as a fraction."""
    min_worst_group: Float = None
    """Lowest accuracy of the worst group, as a fraction."""

    def execute(self) -> int:
        bounds = {
            "max_gap": self.max_gap,
            "min_accuracy": self.min_accuracy,
            "min_worst_group": self.min_worst_group,
        }
        if any(bound is not None for bound in bounds.values()):
            check_bounds(**bounds)
        if not is_complete(self.run) and (self.run / MEASUREMENTS).is_file():
            verdict = Verdict(False, f"cannot be judged: {self.run} is unfinished; its command, once more, finishes it")
        else:
            record = read_results(self.run)
            judged = by_verdict(record) if all(bound is None for bound in bounds.values()) else None
            verdict = judged or gate(record, **bounds)
        print(verdict.reason)
        return 0 if verdict.passed else 1


class Verdict(NamedTuple):
    """Whether every bound holds, and one line that says why."""

    passed: bool
    reason: str


def by_verdict(record: Results) -> Verdict | None:
    """Whether no problem was found; None for results without a verdict."""
    found = getattr(record, "verdict", None)
    if found is None:
        return None
    state = found.advice.state
    if state == "not_enough_data":
        return Verdict(False, f"cannot be judged: {found.headline}")
    return Verdict(
        state == "no_problem_found", f"{'passed' if state == 'no_problem_found' else 'failed'}: {found.headline}"
    )


def check_bounds(**bounds: float | None) -> None:
    """Refuses no bound at all, and bounds that are no fractions."""
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    options = {name: f"--{name.replace('_', '-')}" for name in bounds}
    expect(bool(given), "check", "results with a verdict, or one of " + ", ".join(options.values()), "none")
    for name, bound in given.items():
        expect(0 <= bound <= 1, options[name], "a fraction in 0..1", bound)


def gate(
    record: Results,
    *,
    max_gap: float | None = None,
    min_accuracy: float | None = None,
    min_worst_group: float | None = None,
) -> Verdict:
    """Judges what was measured on the test set, after the repair if there was one.

    The numbers themselves are judged, not their intervals: a bound inside the interval is said to be so.

    Args:
      record: of any command.
      max_gap: largest fall of accuracy from bias-aligned to bias-conflicting samples, as a fraction.
      min_accuracy: lowest accuracy.
      min_worst_group: lowest accuracy of the worst group.

    Raises:
      ContractError: no bound, or one outside 0..1.
    """
    check_bounds(max_gap=max_gap, min_accuracy=min_accuracy, min_worst_group=min_worst_group)
    measured = (record.after or record.before) if isinstance(record, RunResults | FeatureResults) else None
    found, held = [], True
    if max_gap is not None:
        gap = None if measured is None else _gap(measured)
        if gap is None:
            return _unknown("accuracy of bias-aligned and of bias-conflicting samples", record)
        value, low, high = gap
        held &= value <= max_gap
        found.append(
            f"accuracy falls by {formats.points(max(value, 0.0))} ({100 * low:.1f} to {100 * high:.1f}) from "
            f"bias-aligned to bias-conflicting samples, at most {formats.points(max_gap)} allowed"
            + _inside(low, max_gap, high)
        )
    for key, name, bound in (
        ("accuracy", "accuracy", min_accuracy),
        ("worst_group_accuracy", "accuracy of the worst group", min_worst_group),
    ):
        if bound is None:
            continue
        rate = None if measured is None else METRIC[key].of(measured)
        if not formats.interval(rate):
            return _unknown(name, record)
        group = f", {rate.group}," if isinstance(rate, GroupRate) and rate.group else ""
        held &= rate.value >= bound
        found.append(
            f"{name}{group} is {formats.percent(rate.value)} ({formats.interval(rate)}), "
            f"at least {formats.percent(bound)} asked" + _inside(rate.low, bound, rate.high)
        )
    return Verdict(held, f"{'passed' if held else 'failed'}: {'; '.join(found)}")


def _unknown(what: str, record: Results) -> Verdict:
    return Verdict(False, f"cannot be judged: {record.command} measured no {what} here")


def _gap(measured: Metrics) -> tuple[float, float, float] | None:
    """Aligned minus conflicting accuracy with its interval; of two sides of pairs, that of independent rates."""
    if isinstance(measured, Measurement):
        found = measured.alignment_gap
        return None if found is None or found.value is None else (found.value, found.low, found.high)
    aligned, conflicting = measured.bias_aligned_accuracy, measured.bias_conflicting_accuracy
    if not all(applies(rate) and formats.interval(rate) for rate in (aligned, conflicting)):
        return None
    gap = formats.change(conflicting, aligned)
    return gap.value, max(gap.low, -1.0), min(gap.high, 1.0)


def _inside(low: float, bound: float, high: float) -> str:
    return " (not separable from it)" if low <= bound <= high else ""
