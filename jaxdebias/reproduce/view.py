"""A reproduced table in the terminal and as Markdown: ours beside the published rows; and the list of all tables."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from jaxdebias.report import formats
from jaxdebias.report.formats import NONE
from jaxdebias.reproduce._experiment import Experiment, Rate, named
from jaxdebias.reproduce._fingerprint import current
from jaxdebias.reproduce._registry import EXPERIMENTS, Listed
from jaxdebias.reproduce._summary import counts, margins, paired, summary
from jaxdebias.reproduce.published import current_name, published
from jaxdebias.results.records import TableResults

if TYPE_CHECKING:
    from rich.console import Console


def print_reproduced(table: TableResults, console: "Console | None" = None) -> None:
    """Prints a reproduced table: ours beside the published row, for each method and level, a table per device.

    Args:
      table: what `reproduce_table` returns.
      console: where to; standard output if None.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, columns = console or Console(), heads(experiment_of(table))
    first, *others = (rate.name for rate in experiment_of(table).rates)
    # All in one table is wider than most terminals, and a value that is cut short is worse than two tables.
    parts = (("method", "level", "seeds", first, "published", "gain"), ("method", "level", *others, "seconds"))
    for device, rows in rows_by_device(table).items():
        console.print(f"Measured on {device}", markup=False)
        for names in parts:
            shown = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
            for name in names:
                shown.add_column(columns[name], justify="left" if name == "method" else "right", overflow="fold")
            for row in rows:
                said = {**row, "published": f"{row['published']} {row['verdict']}".strip()}
                shown.add_row(*(Text(said[name]) for name in names))
            console.print(shown)
    for line in remarks(table):
        console.print(line, markup=False)


def markdown(table: TableResults) -> str:
    """The same as a Markdown page."""
    experiment = experiment_of(table)
    lines = [f"# {experiment.name}", "", f"{experiment.title}. {experiment.paper}, {experiment.place}.", ""]
    columns = heads(experiment)
    for device, rows in rows_by_device(table).items():
        lines += [f"Measured on {device}.", "", "| " + " | ".join(columns.values()) + " |"]
        lines += ["| " + " | ".join("---" if name == "method" else "---:" for name in columns) + " |"]
        lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
        lines.append("")
    return "\n".join([*lines, *(f"{line}\n" for line in remarks(table))])


def print_experiments(listed: Iterable[Listed]) -> None:
    """Prints every experiment in one line: its name, whether it can run now, what it is, and its cost or its needs."""
    for experiment, ready, _ in listed:
        state = "ready" if ready else "missing"
        end = experiment.cost if ready or experiment.files is None else f"needs {experiment.files.needs}"
        print(f"{experiment.name:22} {state:8} {experiment.paper}, {experiment.place}: {experiment.title}; {end}")


def experiment_of(table: TableResults) -> Experiment:
    """The experiment that a table is of."""
    return EXPERIMENTS[current_name(table.data)]


def heads(experiment: Experiment) -> dict[str, str]:
    """The columns of a table, and their heads."""
    first, *others = experiment.rates
    return {
        "method": "method",
        "level": experiment.level,
        "seeds": "seeds",
        first.name: _head(first),
        "published": "published",
        "verdict": "",
        "gain": f"against {experiment.baseline}",
        **{rate.name: _head(rate) for rate in others},
        "seconds": "seconds",
    }


def _head(rate: Rate) -> str:
    return rate.head + (" %" if rate.percent else "")


def rows_by_device(table: TableResults) -> dict[str, list[dict[str, str]]]:
    """The rows of a table as text, by column, of each device: means over the seeds of what is there."""
    experiment, rows = experiment_of(table), _rows(table)
    gains = {
        (gain["device"], gain["method"], gain["level"]): gain
        for gain in paired(rows, experiment)
        if gain["against"] == experiment.baseline
    }
    found: dict[str, list[dict[str, str]]] = {}
    for row in summary(rows, experiment, compared=not _is_trial(table)):
        gain = gains.get((row["device"], row["method"], row["level"]))
        found.setdefault(row["device"], []).append(_texts(row, gain, experiment))
    return found


def reproduced_rows(table: TableResults) -> list[dict[str, str]]:
    """All of them, one device after the other."""
    return [row for rows in rows_by_device(table).values() for row in rows]


def remarks(table: TableResults) -> list[str]:
    """What stands under a table: the published source, how many rows match, margins that were fixed beforehand."""
    experiment, lines = experiment_of(table), []
    if _is_trial(table):
        return ["A trial: generated data, tiny networks, a few steps. Its numbers say nothing about the methods."]
    beside, means = published(experiment.name), summary(_rows(table), experiment)
    lines.append(f"{table.protocol} {'' if beside is None else beside.said}".strip())
    for device, of_device in counts(means).items():
        said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(of_device.items()))
        lines.append(f"Rows beside what was published, on {device}: {said}.")
    for one in margins(means, experiment):
        met = "met" if one["met"] else "MISSED"
        where = f"{one['method']}, {named(one['level'])}: {one['rate']}"
        lines.append(f"{met}: {where} {one['margin']}, got {one['median']:.3f}")
    return lines


def _rows(table: TableResults) -> list[Mapping[str, Any]]:
    return current(table.rows, experiment_of(table), trial=_is_trial(table))


def _is_trial(table: TableResults) -> bool:
    return bool(table.provenance.arguments.get("trial", False))


def _texts(row: Mapping[str, Any], gain: Mapping[str, Any] | None, experiment: Experiment) -> dict[str, str]:
    first, *others = experiment.rates
    beside = row["published"]
    return {
        "method": row["method"],
        "level": named(row["level"]),
        "seeds": str(row["seeds"]),
        first.name: _mean_and_interval(row.get(first.name), first),
        "published": NONE if beside is None else _published(beside),
        "verdict": "" if beside is None else beside["verdict"],
        "gain": NONE if gain is None else _gain(gain, first),
        **{rate.name: _mean(row.get(rate.name), rate) for rate in others},
        "seconds": f"{row['seconds']['mean']:.0f}",
    }


def _published(beside: Mapping[str, Any]) -> str:
    spread = "" if beside["deviation"] is None else f" ± {beside['deviation']:.1f}"
    return f"{beside['mean']:.1f}{spread}"


def _gain(gain: Mapping[str, Any], rate: Rate) -> str:
    value = formats.signed_points(gain["difference"]) if rate.percent else f"{gain['difference']:+.3g}"
    return value + (" (not separable)" if gain["verdict"] == "not separable" else "")


def _mean(cell: Mapping[str, Any] | None, rate: Rate) -> str:
    if cell is None:
        return NONE
    return f"{100 * cell['mean']:.1f}" if rate.percent else f"{cell['mean']:.3g}"


def _mean_and_interval(cell: Mapping[str, Any] | None, rate: Rate) -> str:
    if cell is None or cell["low"] is None:
        return _mean(cell, rate)
    if rate.percent:  # a t-interval of few seeds may leave the range of a share
        return f"{_mean(cell, rate)} ({100 * max(cell['low'], 0):.1f}–{100 * min(cell['high'], 1):.1f})"
    return f"{_mean(cell, rate)} ({cell['low']:.3g}–{cell['high']:.3g})"
