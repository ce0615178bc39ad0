"""The metrics on the page: a card for each, and panels that compare the repair with the baselines."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxdebias.report import figures, formats, wording
from jaxdebias.report.formats import applies
from jaxdebias.report.method_names import method_name
from jaxdebias.results.records import GroupRate, RunResults

CARDS = ("accuracy", "bias_conflicting_accuracy", "bias_aligned_accuracy", "counterfactual_bias",
         "worst_group_accuracy", "group_mean_accuracy", "equalised_odds_difference",
         "demographic_parity_difference")  # fmt: skip
MOST_CARDS = 6
COMPARED = ("accuracy", "bias_conflicting_accuracy", "worst_group_accuracy", "counterfactual_bias",
            "equalised_odds_difference")  # fmt: skip
MOST_PANELS = 4


class Card(NamedTuple):
    """One metric before and after."""

    name: str
    unit: str
    explanation: str
    groups: list[str]
    before: str
    before_interval: str
    before_bar: str
    after: str
    after_interval: str
    after_bar: str
    change: str
    tone: str


class PanelRow(NamedTuple):
    """One model in a panel."""

    name: str
    value: str
    interval: str
    bar: str
    tone: str


class MetricPanel(NamedTuple):
    """One metric of all models."""

    name: str
    sense: str
    rows: list[PanelRow]


class BaselineRow(NamedTuple):
    """One baseline in the table."""

    name: str
    seconds: str
    needs: str
    change: str


def cards_of(record: RunResults) -> tuple[list[Card], list[Card]]:
    """The metrics that are shown first, and all others that apply."""
    first = _shown(record, CARDS, most=MOST_CARDS)
    rest = [metric for metric in wording.METRICS if metric not in first and applies(metric.of(record.before))]
    return [_card(record, metric) for metric in first], [_card(record, metric) for metric in rest]


def _shown(record: RunResults, keys: Sequence[str], *, most: int) -> list[wording.Metric]:
    known = [wording.METRIC[key] for key in keys if applies(wording.METRIC[key].of(record.before))]
    return known[:most]


def _card(record: RunResults, metric: wording.Metric) -> Card:
    metric = wording.metric_of(record, metric.key)
    before = metric.of(record.before)
    after = None if record.after is None else metric.of(record.after)
    difference = wording.metric_change(record, metric.key)
    tone = "same"
    if difference is not None and difference.separable:
        tone = "better" if (difference.value > 0) == metric.higher_is_better else "worse"
    named = [rate.group for rate in (before, after) if isinstance(rate, GroupRate) and applies(rate) and rate.group]
    return Card(
        name=metric.name,
        unit=metric.unit,
        explanation=metric.explanation.format(**wording.words(record)._asdict()),
        groups=list(dict.fromkeys(named)),
        before=_bare(metric.show(before)),
        before_interval=formats.interval(before),
        before_bar=figures.bar(before, "before"),
        after=_bare(metric.show(after)) if applies(after) else "",
        after_interval=formats.interval(after),
        after_bar=figures.bar(after, "after") if applies(after) else "",
        change=str(difference) if difference is not None else "",
        tone=tone,
    )


def _bare(text: str) -> str:
    """A number without its unit, where the unit stands elsewhere."""
    return text.rsplit(" ", 1)[0]


def panels_of(record: RunResults) -> list[MetricPanel]:
    """One panel per metric, one bar per model; empty without baselines."""
    if not record.baselines:
        return []
    models = [("before" if record.after else "the model", "before", record.before)]
    if record.after is not None:
        models.append((method_name(record.method), "after", record.after))
    models += [(method_name(name), "other", baseline.measurement) for name, baseline in record.baselines.items()]
    panels = []
    for shown in _shown(record, COMPARED, most=MOST_PANELS):
        metric = wording.metric_of(record, shown.key)
        rates = [(name, tone, metric.of(measured)) for name, tone, measured in models]
        rows = [
            PanelRow(name, _bare(metric.show(rate)), formats.interval(rate), figures.bar(rate, tone), tone)
            for name, tone, rate in rates
            if applies(rate)
        ]
        sense = f"{metric.unit}, {'higher' if metric.higher_is_better else 'lower'} is better"
        panels.append(MetricPanel(metric.name, sense, rows))
    return panels


def baseline_rows(record: RunResults) -> list[BaselineRow]:
    """What each baseline needs, and its accuracy beside that of the repair."""
    rows = []
    for name, baseline in record.baselines.items():
        difference = formats.Change.of(baseline.accuracy_change)
        said = str(difference) if difference is not None else formats.NONE
        rows.append(
            BaselineRow(
                method_name(name), formats.seconds(record.provenance.seconds_by_part.get(name)), baseline.needs, said
            )
        )
    return rows
