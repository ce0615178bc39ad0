"""Audit of predictions in a CSV file, of a model made with whatever library: which column is a shortcut, how strongly.

The file has a header and a row per sample:

    label          the true class (or y)
    predicted      what the model answers (or prediction), on samples that it was not trained on
    split          optional: train or test. Rows of train need no prediction: how label and columns go together in
                   training is counted from them; without them from the test rows
    any other      a candidate: sex, hospital, background ... Numbers with more than `MOST_VALUES` values are cut at
                   their quartiles; an empty cell is unknown

What predictions alone cannot answer (on which pixels, because of which training samples, what a repair would give) is
said there, with what would be needed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
from tyro.conf import Positional, arg

from jaxdebias._audit import audit
from jaxdebias.app.audit import keep_report, write_report
from jaxdebias.app.ending import print_ending
from jaxdebias.app.predicted import write_predictions
from jaxdebias.app.result_set import ResultSet, claim, file_digest, is_complete
from jaxdebias.auditing import measure_predictions
from jaxdebias.auditing.candidates import Candidate, Column, column, in_order
from jaxdebias.contracts import expect
from jaxdebias.core import Array, Batch, Dataset
from jaxdebias.data.csv_files import read_csv
from jaxdebias.results.records import read_results
from jaxdebias.train._checkpoint import fingerprint

NAMES = {"label": ("label", "y"), "predicted": ("predicted", "prediction"), "split": ("split",)}


class Predictions(NamedTuple):
    """A file of predictions: all rows, those of training and of the test set."""

    label: Array
    """`[n]` int32."""
    predicted: Array
    """`[n]` int32; -1 in training rows without one."""
    train: Array
    """`[n]` bool."""
    classes: tuple[str, ...]
    columns: dict[str, Column]


def read_predictions(path: Path) -> Predictions:
    """Reads and checks the file.

    Raises:
      ContractError: no file, a missing column or value, a split of another name, no test row, no candidate.
    """
    path = Path(path)
    expect(path.is_file(), "predictions", "a CSV file", path)
    header, rows = read_csv(path)
    of = {name: next((alias for alias in aliases if alias in header), None) for name, aliases in NAMES.items()}
    for name in ("label", "predicted"):
        expect(of[name] is not None, path.name, f"a column {' or '.join(NAMES[name])}", ", ".join(header) or "nothing")
    expect(bool(rows), path.name, "at least one row", "none")
    cells = {name: [row.cells[name] for row in rows] for name in header}
    split = cells[of["split"]] if of["split"] else ["test"] * len(rows)
    for number, text in enumerate(split, 2):
        expect(text in ("train", "test"), f"{path.name} row {number}", "split train or test", repr(text))
    train = np.array([text == "train" for text in split])
    expect(not bool(train.all()), path.name, "at least one row of split test", "none")
    classes = tuple(in_order({text for name in ("label", "predicted") for text in cells[of[name]] if text}))
    expect(len(classes) >= 2, path.name, "at least two classes", ", ".join(classes) or "none")
    number_of = {name: i for i, name in enumerate(classes)}
    found = {}
    for name in ("label", "predicted"):
        for number, text in enumerate(cells[of[name]], 2):
            missing = not text and not (name == "predicted" and train[number - 2])
            expect(not missing, f"{path.name} row {number}", f"a value for {of[name]}", "nothing")
        found[name] = np.array([number_of.get(text, -1) for text in cells[of[name]]], np.int32)
    columns = {name: column(cells[name]) for name in header if name not in of.values()}
    columns = {name: one for name, one in columns.items() if len(one.names) > 1}
    expect(bool(columns), path.name, "at least one more column, with two values or more, as a candidate", "none")
    return Predictions(found["label"], found["predicted"], train, classes, columns)


@dataclass(frozen=True, kw_only=True)
class AuditPredictions:
    """Which column is a shortcut, and how strongly, from a file of predictions of any model.

    The CSV file has the columns label and predicted, one for each candidate attribute, and, if there are training
    rows for the counts, split (train or test). Writes results.json, report.html, report.md and model_card.md to OUT.
    """

    predictions: Annotated[Path, Positional, arg(metavar="FILE")]
    """CSV file of predictions."""
    out: Path
    """Folder of the report."""
    overwrite: bool = False
    """Replace a report in OUT, once the new one is complete."""
    seed: int = 0
    """Seed of the intervals."""

    def execute(self) -> int:
        from jaxdebias.report import answers

        done_before = is_complete(self.out) and not self.overwrite
        print(answers.text(audit_predictions(self.predictions, self.out, seed=self.seed, overwrite=self.overwrite)))
        gate = f"jaxdebias check {self.out} --min-worst-group 0.8   for continuous integration"
        print_ending("audit-predictions", self.out, done_before=done_before, next_steps=(gate,))
        return 0


def audit_predictions(path: Path, out: Path, *, seed: int = 0, overwrite: bool = False) -> dict[str, Any]:
    """Audits a file of predictions, writes results.json, report.html, report.md and model_card.md to `out` and returns
    the results.

    The strongest candidate is the attribute of the results' groups and of the page; all of them are in `candidates`.

    Raises:
      ContractError: a file that is not as described above, or results already in `out`.
    """
    path, out = Path(path), Path(out)
    expect(path.is_file(), "predictions", "a CSV file", path)
    arguments = {"predictions": str(path.resolve()), "rows": file_digest(path), "seed": seed}
    with claim(out, "audit-predictions", arguments, overwrite=overwrite) as run:
        if run.complete:
            return read_results(run.folder)
        if "results" not in run.measured:
            _audit(path, run, seed)
        return write_report(run)


def _audit(path: Path, run: ResultSet, seed: int) -> None:
    read = read_predictions(path)
    rows = {"train": np.flatnonzero(read.train), "test": np.flatnonzero(~read.train)}
    rows = {name: of_split for name, of_split in rows.items() if len(of_split)}
    known = {
        name: one
        for name, one in read.columns.items()
        if all((one.value[of_split] >= 0).any() for of_split in rows.values())
    }
    expect(bool(known), path.name, "a candidate with known values in both splits", "none")
    nothing = np.full(len(read.label), -1, np.int32)
    dataset = Dataset(
        name=path.stem,
        variant={"rows": len(rows["test"])},
        pairs={},
        label_names=read.classes,
        splits={
            name: Batch(np.zeros((len(of_split), 1), np.float32), read.label[of_split], nothing[of_split])
            for name, of_split in rows.items()
        },
        attribute_names=("unknown",),
        aligned=np.zeros((len(read.classes), 1), bool),
        pairing="none",
    )
    listed = {
        name: Candidate({split: one.value[of_split] for split, of_split in rows.items()}, one.names)
        for name, one in known.items()
    }
    report = audit(None, None, dataset, predicted=read.predicted[rows["test"]], candidates=listed, seed=seed)
    if "train" not in rows:
        report.results["findings"].append(
            "How label and candidates go together was counted on the test rows: rows of split train are better where "
            "the two sets differ."
        )
    inputs = fingerprint({name: one.value for name, one in read.columns.items()} | {"label": read.label})
    measured = measure_predictions(jax.random.key(seed), read.predicted[rows["test"]], dataset)
    write_predictions(run.folder, dataset, measured, rows=inputs)
    keep_report(run, report, inputs)
