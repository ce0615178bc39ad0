"""`jaxdebias reproduce [TABLE]`: a table or figure of a paper beside what was published; without a name, the list."""

import contextlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
from tyro.conf import Positional, arg

from jaxdebias.app import progress
from jaxdebias.app.option_types import Folder, Int, Names
from jaxdebias.contracts import check_choice, expect
from jaxdebias.files import locked

ALL = "all"
"""In place of a table: the miniature of every one."""


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Reproduce a table or figure of a paper beside what was published; without TABLE, list them and what can run now.

    Every row is written to OUT as soon as it is measured, with its device; stopped early, the same command resumes. The
    table as Markdown and the figure are written beside it.
    """

    table: Annotated[str | None, Positional, arg(metavar="[TABLE]", help_behavior_hint="")] = None
    """Name of the table, see the list; `all` with --trial."""
    out: Folder = None
    """JSON file of the rows, or a folder; made if missing, and added to if not. A trial needs none."""
    data_dir: Folder = None
    """Folder with the data set's files; by default $JAXDEBIAS_DATA."""
    seeds: Int = None
    """Seeds 0 to SEEDS - 1; by default as many as the paper has."""
    methods: Names = None
    """By default the usual ones. On the tables of sih, a name with @plain, @worst-class or @worst-group (an oracle)
    chooses the epoch on held-out rows, not by the protocol."""
    levels: Names = None
    """Shares of conflicting training samples, or names of settings; by default all."""
    trial: bool = False
    """A miniature in seconds, on generated files in the data set's own layout."""

    def execute(self) -> int:
        from jaxdebias import reproduce
        from jaxdebias.reproduce.view import print_experiments, print_reproduced

        if self.trial:  # a miniature mostly compiles
            jax.config.update("jax_disable_most_optimizations", True)
        if self.table is None:
            print_experiments(reproduce.list_experiments(self.data_dir))
            print("Next:\n  jaxdebias reproduce TABLE --trial    any of them in miniature, in seconds")
            return 0
        if self.table == ALL:
            expect(self.trial, "table", "one table, or all with --trial", ALL)
            return _try_all()
        check_choice("table", self.table, reproduce.EXPERIMENTS)
        expect(self.out is not None or self.trial, "out", "a JSON file or a folder, or --trial", "nothing")
        out = self.out or Path(tempfile.mkdtemp()) / f"{self.table}.json"
        experiment = reproduce.EXPERIMENTS[self.table]
        config = reproduce.TableConfig(
            experiment=self.table,
            data_dir=self.data_dir,
            seeds=self.seeds,
            methods=self.methods,
            levels=None if self.levels is None else experiment.read_levels(self.levels),
            trial=self.trial,
        )
        path = reproduce.results_path(out)
        with contextlib.ExitStack() as opened:
            for suffix in (path.suffix, ".md", ".png"):  # what is written, and what a kill left of it half written
                opened.enter_context(locked(path.with_suffix(suffix)))
            table = reproduce.reproduce_table(config, out, observe=progress.print_line)
        print_reproduced(table)
        print(f"Wrote to {out}: all rows and their summary; the table and the figure are beside it.")
        print("Next:\n  the same command with more --seeds, --methods or --levels adds their rows")
        return 0


def _try_all() -> int:
    """Every experiment in miniature, one after the other in one process."""
    from jaxdebias import reproduce

    folder = Path(tempfile.mkdtemp())
    for name in reproduce.EXPERIMENTS:
        began = time.perf_counter()
        table = reproduce.reproduce_table(
            reproduce.TableConfig(experiment=name, trial=True), folder / f"{name}.json", observe=lambda line: None
        )
        print(f"{name}: {len(table.rows)} rows in {time.perf_counter() - began:.0f} s", flush=True)
    print(f"Wrote to {folder}: {len(reproduce.EXPERIMENTS)} tables in miniature")
    return 0
