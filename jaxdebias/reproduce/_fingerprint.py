"""What a row is known by: a fingerprint of everything that decides it."""

import hashlib
import json
from collections.abc import Sequence

from jaxdebias.reproduce._experiment import Cell, Experiment
from jaxdebias.reproduce._summary import Row, level_of
from jaxdebias.results.build import plain


def fingerprint(experiment: Experiment, cell: Cell, *, trial: bool) -> str:
    """Sixteen hexadecimal digits that change with whatever decides the run."""
    settings = plain(experiment.settings(cell.method))
    decides = {"experiment": experiment.name, "settings": settings, "trial": trial, **cell._asdict()}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def mark_of(row: Row, experiment: Experiment) -> str:
    """The fingerprint of a row; one that was written before rows had any is taken as of these settings."""
    cell = Cell(row["method"], level_of(row), row["seed"])
    return row["fingerprint"] if "fingerprint" in row else fingerprint(experiment, cell, trial=False)


def current(rows: Sequence[Row], experiment: Experiment, *, trial: bool = False) -> list[Row]:
    """The rows that were made by the experiment as it is now: those of other settings, or of a trial, are left out."""
    return [
        row
        for row in rows
        if mark_of(row, experiment)
        == fingerprint(experiment, Cell(row["method"], level_of(row), row["seed"]), trial=trial)
    ]
