"""A row of the registry: one table or figure of a paper, what it needs, and how its runs are measured."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxdebias.contracts import check_choice, expect

Level = float | str
"""What the runs of a table differ in besides method and seed: a share of conflicting samples, or a name."""


class Cell(NamedTuple):
    """One run of a table."""

    method: str
    level: Level
    seed: int


class Work(NamedTuple):
    """The runs that are missing of a table."""

    cells: tuple[Cell, ...]
    """Methods first, then seeds, then levels: a table that is stopped early has every level."""
    data_dir: Path | None
    """Folder of the data set's files; None where the experiment needs none."""
    trial: bool
    """Whether to do everything in miniature: tiny networks, a few steps."""
    observe: Callable[[str], None]
    """Called with a line of text now and then."""


Measured = tuple[Cell, Mapping[str, Any]]
"""A run and what was measured: the rates of its experiment, `seconds`, and whatever else a reader may want."""


class Margin(NamedTuple):
    """A bound that was fixed before the first run."""

    method: str
    level: Level
    rate: str
    sign: str
    """`<=` or `>=`."""
    bound: float


class Rate(NamedTuple):
    """A column of the table."""

    name: str
    """Key of a row."""
    head: str
    percent: bool = True
    """Whether it is a fraction that is shown as a percentage; else it is shown as it is."""


ACCURACIES = (
    Rate("accuracy", "accuracy"),
    Rate("bias_conflicting_accuracy", "conflicting acc."),
    Rate("bias_aligned_accuracy", "aligned acc."),
)


class Files(NamedTuple):
    """What an experiment reads."""

    needs: str
    """Which files, in words."""
    find: Callable[[Path], Path]
    """data_dir -> the folder of the files, or ContractError naming what is missing."""


class Trial(NamedTuple):
    """The miniature of an experiment."""

    levels: tuple[Level, ...]
    methods: tuple[str, ...]
    write: Callable[[Path], Path] | None = None
    """Writes a miniature of the data set's files into a folder, in their own layout, and returns the folder; None where
    none are needed."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table or figure of a paper."""

    name: str
    """As a user types it."""
    title: str
    """What it shows, in one line."""
    paper: str
    """Short name of the paper, or `ours`."""
    place: str
    """Where in the paper, as far as it is known."""
    measure: Callable[[Work], Iterator[Measured]]
    """Measures the missing runs, each yielded as soon as it is there, in any order."""
    rates: tuple[Rate, ...]
    """What the table shows of a run; the first is what methods are compared by."""
    methods: tuple[str, ...]
    """In the order of the table."""
    usual: tuple[str, ...]
    """Methods that are run where none are named."""
    levels: tuple[Level, ...]
    level: str
    """What a level is, in words: the head of its column."""
    seeds: int
    """How many the paper uses, or were planned."""
    cost: str
    """Estimate of the time of the whole table, on two CPU cores and on one GPU."""
    trial: Trial
    files: Files | None = None
    """What it reads; None: needs no files."""
    settings: Callable[[str], Any] = lambda method: None
    """Method -> everything that decides its rows besides method, level and seed: part of their fingerprint."""
    baseline: str = "erm"
    against: tuple[tuple[str, str], ...] = ()
    """Further pairs (method, other) that are compared on the same seeds."""
    margins: tuple[Margin, ...] = ()
    check: Callable[[str], None] | None = None
    """Refuses an unknown method; by default names outside `methods`."""
    figure: Callable[[Any, Path], None] | None = None
    """(table, path of a PNG) draws the figure; None: the rates against the level."""
    open_levels: bool = False
    """Whether other shares than those of `levels` may be asked for."""

    def check_methods(self, methods: Iterable[str]) -> None:
        """Refuse, in one line, a method that the table does not know."""
        for name in methods:
            if self.check is not None:
                self.check(name)
            else:
                check_choice("methods", name, self.methods)

    def read_levels(self, levels: Iterable[str | float]) -> tuple[Level, ...]:
        """Levels as a user typed them: numbers where the table's are numbers, names where they are names."""
        named = {str(level): level for level in self.levels}
        return tuple(self._read_level(level, named) for level in levels)

    def _read_level(self, level: str | float, named: Mapping[str, Level]) -> Level:
        if not self.open_levels:
            check_choice("levels", str(level), named)
            return named[str(level)]
        try:
            share = float(level)
        except ValueError:
            share = -1.0
        expect(0 < share < 1, "levels", "shares between 0 and 1", level)
        return share


def named(level: Level) -> str:
    """A level as people read it.

    >>> named(0.02), named("age")
    ('2 %', 'age')
    """
    return level if isinstance(level, str) else f"{100 * level:g} %"


def shown(value: float, rate: Rate) -> str:
    """A value of a rate as people read it.

    >>> shown(0.7113, Rate("accuracy", "accuracy")), shown(1234.5, Rate("perplexity", "perplexity", percent=False))
    ('71.1 %', '1.23e+03')
    """
    return f"{100 * value:.1f} %" if rate.percent else f"{value:.3g}"


def by_case(
    work: Work,
    prepare: Callable[[Level, int], Any],
    measure: Callable[[str, Any], Mapping[str, Any]],
) -> Iterator[Measured]:
    """Every (level, seed) prepared once, and each of its methods measured on that.

    Args:
      work: the missing runs.
      prepare: (level, seed) -> what all methods of that cell start from.
      measure: (method, that) -> what was measured.
    """
    cases = dict.fromkeys((cell.seed, cell.level) for cell in work.cells)
    for seed, level in cases:
        case = prepare(level, seed)
        for cell in work.cells:
            if (cell.seed, cell.level) == (seed, level):
                yield cell, measure(cell.method, case)
