"""A table of methods x levels x seeds: measured row by row, resumed where it stopped, on whatever device is there.

A row is written as soon as it is measured, with its own device, date and versions, and is known by the fingerprint of
everything that decides it. A table that was stopped carries on where it stopped and ends the same; on another device it
keeps the rows that are there under theirs.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxdebias.contracts import check_choice, expect
from jaxdebias.files import write_text
from jaxdebias.reproduce._experiment import Cell, Experiment, Level, Work, named, shown
from jaxdebias.reproduce._figure import draw_rates
from jaxdebias.reproduce._fingerprint import current, fingerprint, mark_of
from jaxdebias.reproduce._registry import EXPERIMENTS, locate
from jaxdebias.reproduce._summary import Row, counts, margins, paired, summary
from jaxdebias.reproduce.published import current_name, published
from jaxdebias.reproduce.view import markdown
from jaxdebias.results.build import plain
from jaxdebias.results.codec import read_results, write_results
from jaxdebias.results.provenance import device_name, provenance, versions
from jaxdebias.results.records import TableResults


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """Which part of which table."""

    experiment: str
    """A name in `EXPERIMENTS`."""
    data_dir: Path | None = None
    """Folder of its files; None takes the environment variable JAXDEBIAS_DATA. A trial writes its own."""
    seeds: int | None = None
    """Seeds 0 to `seeds` - 1; None: as many as the experiment has, in a trial one."""
    methods: tuple[str, ...] | None = None
    """None: the usual ones of the experiment, in a trial those of its miniature."""
    levels: tuple[Level, ...] | None = None
    """The same of levels."""
    trial: bool = False
    """A miniature, to see that every line runs: generated files, tiny networks, a few steps."""

    def __post_init__(self):
        check_choice("experiment", self.experiment, EXPERIMENTS)
        expect(self.seeds is None or self.seeds >= 1, "seeds", "at least 1", self.seeds)
        experiment = EXPERIMENTS[self.experiment]
        experiment.check_methods(self.methods or ())
        experiment.read_levels(self.levels or ())

    def cells(self) -> tuple[Cell, ...]:
        """The runs that are asked for: methods first, then seeds, then levels."""
        experiment = EXPERIMENTS[self.experiment]
        methods = self.methods or (experiment.trial.methods if self.trial else experiment.usual)
        levels = self.levels or (experiment.trial.levels if self.trial else experiment.levels)
        seeds = self.seeds or (1 if self.trial else experiment.seeds)
        read = experiment.read_levels(levels)
        return tuple(Cell(method, level, seed) for method in methods for seed in range(seeds) for level in read)


def reproduce_table(
    config: TableConfig, out: Path, *, observe: Callable[[str], None] = lambda line: None
) -> TableResults:
    """Measures what is missing of the table, writes it after every row, and returns it with its summary.

    Args:
      config: settings, see the class.
      out: a JSON file, or a folder that gets `results.json`; made if missing. Rows that it has are kept, under the
        device that made them. The table as Markdown and the figure are written beside it.
      observe: called with a line of text now and then.

    Raises:
      ContractError: missing files, an `out` of something else.
    """
    experiment = EXPERIMENTS[config.experiment]
    path = results_path(out)
    rows = _rows_of(path, experiment)
    wanted = config.cells()
    there = {mark_of(row, experiment) for row in current(rows, experiment, trial=config.trial)}
    missing = tuple(cell for cell in wanted if fingerprint(experiment, cell, trial=config.trial) not in there)
    have = len(set(wanted)) - len(missing)
    with tempfile.TemporaryDirectory() as folder:
        if missing:
            where = locate(experiment, config.data_dir, Path(folder) if config.trial else None)
            for cell, measured in experiment.measure(Work(missing, where, config.trial, observe)):
                rows.append(_row(experiment, cell, measured, trial=config.trial))
                _write(path, experiment, config, rows)
                have += 1
                observe(f"{_line(experiment, rows[-1])} ({have} of {len(wanted)} rows)")
    table = _write(path, experiment, config, rows, whole=True)
    write_text(path.with_suffix(".md"), markdown(table))
    (experiment.figure or draw_rates)(table, path.with_suffix(".png"))
    return table


def results_path(out: Path) -> Path:
    """The JSON file of a table: `out` itself, or `results.json` in the folder `out`."""
    out = Path(out)
    return out if out.suffix == ".json" else out / "results.json"


def _row(experiment: Experiment, cell: Cell, measured: Mapping[str, Any], *, trial: bool) -> dict[str, Any]:
    return plain(
        {
            **cell._asdict(),
            **measured,
            "fingerprint": fingerprint(experiment, cell, trial=trial),
            "device": device_name(),
            "date": time.strftime("%Y-%m-%d"),
            "versions": versions(),
        }
    )


def _write(
    path: Path, experiment: Experiment, config: TableConfig, rows: Sequence[Row], *, whole: bool = False
) -> TableResults:
    """Writes what is there; with `whole` also what it says."""
    beside, of_config = published(experiment.name), current(rows, experiment, trial=config.trial)
    said: dict[str, Any] = {}
    if whole:
        means = summary(of_config, experiment, compared=not config.trial)
        said = {
            "summary": tuple(means),
            "paired": tuple(paired(of_config, experiment)),
            "counts": counts(means),
            "margins": () if config.trial else tuple(margins(means, experiment)),
        }
    seconds = {"rows": sum(row["seconds"] for row in rows)}
    arguments = {name: value for name, value in dataclasses.asdict(config).items() if name != "data_dir"}
    table = TableResults(
        command="reproduce",
        provenance=provenance(seconds, seed=0, arguments=arguments),
        data=experiment.name,
        protocol=experiment.title if beside is None else f"{beside.variant}; {beside.protocol}",
        rows=tuple(rows),
        **said,
    )
    write_results(path, table)
    return table


def _line(experiment: Experiment, row: Row) -> str:
    """One line about a finished run."""
    said = [f"{rate.head} {shown(row[rate.name], rate)}" for rate in experiment.rates if row.get(rate.name) is not None]
    return f"{row['method']}, {named(row['level'])}, seed {row['seed']}: {', '.join(said)}, {row['seconds']:.0f} s"


def _rows_of(path: Path, experiment: Experiment) -> list[Row]:
    if not path.exists():
        return []
    table = read_results(path)
    kind = f"a table of {experiment.name}"
    good = isinstance(table, TableResults) and current_name(table.data) == experiment.name
    expect(good, str(path), kind, f"{table.data}" if isinstance(table, TableResults) else f"results of {table.command}")
    assert isinstance(table, TableResults)
    return list(table.rows)
