"""Tables for the terminal and for a README. The README's are made from JSON, so they cannot drift from it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxdebias.report import (
    draw_view,
    formats,
    map_view,
    patch_view,
    verdict_phrases,
    verdict_words,
    wording,
)
from jaxdebias.report.formats import NONE, applies
from jaxdebias.report.method_names import method_name
from jaxdebias.results.records import FeatureResults, Interval, Metrics, RunResults, Verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_summary(record: RunResults, console: "Console | None" = None) -> None:
    """Prints the verdict, then each metric before, after and for every baseline, with intervals.

    Args:
      record: what was found.
      console: where to; standard output if None.
    """
    from rich.console import Console
    from rich.text import Text

    console, record = console or Console(), wording.as_shown(record)
    verdict = wording.verdict(record)
    console.print(Text(verdict.headline, style="bold"))
    if record.verdict is not None:
        _print_answers(record.verdict, console)
    # The advice stands among the answers.
    changed = verdict.repair if record.verdict is None else verdict.repair[1:]
    for paragraph in (verdict.diagnosis, changed):
        if paragraph:
            console.print(Text(" ".join(paragraph)))
    models = [("before", record.before)]
    if record.after is not None:
        models.append((f"after {method_name(record.method)}", record.after))
    console.print(_metric_table(record, models))
    if record.baselines:
        console.print(_baseline_table(record))
    if record.maps is not None:
        _print_maps(record, console)
    if record.patches is not None:
        patch_view.print_patches(record, console)
    if record.draws is not None:
        draw_view.print_draws(record, console)
    for text in [*wording.baseline_remarks(record), *record.findings]:
        console.print(Text(text))


def _print_answers(verdict: Verdict, console: "Console") -> None:
    """The three answers, the advice and the worst comparisons."""
    from rich.text import Text

    for section in verdict_words.sections(verdict):
        if section.sentences:
            console.print(Text(f"{section.title} {section.text}"))
    console.print(_comparison_table(verdict))


def _comparison_table(verdict: Verdict) -> "Table":
    """The worst comparisons, a row each."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
    for name in verdict_phrases.COLUMNS:
        table.add_column(name.lower())
    for row in verdict_phrases.rows(verdict)[: verdict_phrases.MOST_ROWS]:
        _add_row(table, *row)
    return table


def print_repair(record: FeatureResults, console: "Console | None" = None) -> None:
    """Prints what the repair of a last layer from files did: one sentence, then each metric before and after.

    Args:
      record: what was found.
      console: where to; standard output if None.
    """
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    edit, name = record.edit, method_name(record.method)
    verb = "accepted" if edit.accepted else "not accepted"
    if record.verdict is not None:
        console.print(Text(record.verdict.headline, style="bold"))
        _print_answers(record.verdict, console)
    console.print(Text(f"{name} on {record.features} features and {record.classes} classes: {verb}."))
    console.print(Text(f"{edit.reason} {formats.seconds(record.provenance.seconds)}."))
    models = [("before", record.before)] + ([(f"after {name}", record.after)] if edit.accepted else [])
    console.print(_metric_table(record, models))
    for text in record.findings:
        console.print(Text(text))


def _metric_table(record: RunResults | FeatureResults, models: Sequence[tuple[str, Metrics]]) -> "Table":
    """A row for each metric that applies to one of the models, and its change where there is one."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
    table.add_column("")
    for name, _ in models:
        table.add_column(Text(name), justify="right")
    repaired = len(models) > 1
    if repaired:
        table.add_column("change", justify="right")
    for metric in wording.metrics_of(record):
        if not any(applies(metric.of(measured)) for _, measured in models):
            continue
        cells = [_with_interval(metric, metric.of(measured)) for _, measured in models]
        if repaired:
            difference = wording.metric_change(record, metric.key)
            cells.append(NONE if difference is None else str(difference))
        _add_row(table, metric.name, *cells)
    return table


def _add_row(table: "Table", *cells: str) -> None:
    """Cells as they are: of plain strings Rich would read what looks like its markup, and stop at `[/b]`."""
    from rich.text import Text

    table.add_row(*map(Text, cells))


def _baseline_table(record: RunResults) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
    table.add_column("baseline")
    shown = [metric for metric in wording.metrics_of(record) if metric.key in
             ("accuracy", "bias_conflicting_accuracy", "counterfactual_bias")
             and any(applies(metric.of(one.measurement)) for one in record.baselines.values())]  # fmt: skip
    for metric in shown:
        table.add_column(metric.name.lower(), justify="right")
    table.add_column("time", justify="right")
    for name, baseline in record.baselines.items():
        cells = [_with_interval(metric, metric.of(baseline.measurement)) for metric in shown]
        _add_row(table, method_name(name), *cells, formats.seconds(record.provenance.seconds_by_part.get(name)))
    return table


def _print_maps(record: RunResults, console: "Console") -> None:
    """Where the model looks: a row for each region and set of images, never without its chance level."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    console.print(Text(" ".join([map_view.about(record), *map_view.remarks(record)])))
    if not record.maps.regions:
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
    for name, side in (
        ("Attention-IoU", "left"),
        ("", "left"),
        ("score", "right"),
        ("chance", "right"),
        ("n present", "right"),
    ):
        table.add_column(name, justify=side)
    rows = map_view.shown_rows(record)
    for i, region in enumerate(record.maps.regions):
        for row in rows:
            one = row.regions[i]
            if applies(one.score):
                _add_row(
                    table,
                    region if row is rows[0] else "",
                    map_view.set_name(row, record),
                    f"{map_view.score(one.score)} ({map_view.score_interval(one.score)})",
                    f"{one.chance:.2f}",
                    formats.count(one.n) + (" few" if one.flagged else ""),
                )
    console.print(table)
    for region in rows[0].regions:
        name = region.region
        console.print(Text(f"{name[:1].upper()}{name[1:]}: {map_view.reading_in_words(region, record)}."))


def _with_interval(metric: wording.Metric, rate: formats.Estimate | None) -> str:
    ends = formats.interval(rate)
    return metric.show(rate) + (f" ({ends})" if ends else "")


def print_rows(rows: Sequence[Any], columns: Mapping[str, str], console: "Console | None" = None) -> None:
    """Prints rows of NamedTuples as a table.

    Args:
      rows: what is shown, one line or more each.
      columns: header -> field name. A bool is shown as yes or no.
      console: where to; standard output if None.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header in columns:
        table.add_column(header, overflow="fold")
    for row in rows:
        values = [getattr(row, name) for name in columns.values()]
        _add_row(
            table,
            *(
                {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
                for value in values
            ),
        )
    (console or Console()).print(table, markup=False)


def markdown_table(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str] | Sequence[str]) -> str:
    """A Markdown table of rows that come from JSON.

    Args:
      rows: one dict per line; they may be nested.
      columns: header -> key, or only keys. A dotted key looks inside: `after.accuracy`. Rates `{value, low, high}` are
        shown with their interval, the differences among them in points; a name that ends in `seconds` as a duration.

    Returns:
      The table, with numbers to the right, ending in a newline.

    >>> rate = {"value": 0.5, "low": 0.45, "high": 0.55, "n": 400}
    >>> print(markdown_table([{"name": "ERM", "test": {"accuracy": rate}}],
    ...                      {"method": "name", "accuracy": "test.accuracy"}), end="")
    | method |           accuracy |
    | :----- | -----------------: |
    | ERM    | 50.0 % (45.0–55.0) |
    """
    columns = columns if isinstance(columns, Mapping) else {key: key for key in columns}
    values = [[_look_up(row, key) for key in columns.values()] for row in rows]
    cells = [[_cell(key, value) for key, value in zip(columns.values(), line, strict=True)] for line in values]
    right = [bool(values) and all(not isinstance(line[j], str) for line in values) for j in range(len(columns))]
    widths = [max([3, len(head), *(len(line[j]) for line in cells)]) for j, head in enumerate(columns)]

    def line_of(texts: Sequence[str]) -> str:
        padded = [t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, right, strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = " | ".join("-" * (w - 1) + ":" if r else ":" + "-" * (w - 1) for w, r in zip(widths, right, strict=True))
    return "\n".join([line_of(list(columns)), f"| {rule} |", *map(line_of, cells)]) + "\n"


def _look_up(row: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(row, Mapping):
            return None
        row = row.get(part)
    return row


def _cell(key: str, value: Any) -> str:
    name = key.rsplit(".", 1)[-1]
    if value is None:
        return NONE
    if isinstance(value, Mapping):
        metric = wording.METRIC.get(name, wording.METRIC["accuracy"])
        if "value" in value:
            return _with_interval(metric, _interval(value))
        return "; ".join(f"{key} {held}" for key, held in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return formats.count(value)
    if isinstance(value, float):
        return formats.seconds(value) if name.endswith("seconds") else f"{value:.3g}"
    return " ".join(str(value).split()).replace("|", "\\|")


def _interval(rate: Mapping[str, Any]) -> Interval:
    """A rate of JSON that need not be of a record."""
    value, low, high = (None if rate.get(end) is None else float(rate[end]) for end in ("value", "low", "high"))
    return Interval(value=value, low=low, high=high, n=None)
