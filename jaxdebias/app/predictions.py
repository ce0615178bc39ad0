"""Audit of predictions in a CSV file, of a model made with any library: are groups served differently, do decisions
depend on a column?

The file has a header and a row per sample: its label, what the model predicts on samples that it was not trained on,
and candidate attributes; `data._predictions` describes the columns. Rows of split train need no prediction: how label
and candidates are associated in training is counted from them, or from a file of counts (`data._train_counts`); without
either it is unknown. Numbers with more than `data._values.MOST_VALUES` values are cut at their quartiles. How the file
was understood is among the findings.

What predictions alone cannot answer (on which pixels, because of which training samples, what a repair would give) is
said there, with what would be needed.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
from tyro.conf import Positional, arg

from jaxdebias._audit import audit
from jaxdebias.app.audit import keep_report, write_report
from jaxdebias.app.ending import print_ending
from jaxdebias.app.option_types import Str
from jaxdebias.app.predicted import write_predictions
from jaxdebias.app.questions import DEFAULT, QuestionOptions, plain
from jaxdebias.app.result_set import ResultSet, claim, file_digest, is_complete
from jaxdebias.auditing import measure_predictions
from jaxdebias.auditing.candidates import Candidate
from jaxdebias.contracts import expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._predictions import Predictions, read_predictions
from jaxdebias.data._train_counts import read_train_counts
from jaxdebias.results.codec import read_run
from jaxdebias.results.records import RunResults
from jaxdebias.train._checkpoint import fingerprint


@dataclass(frozen=True, kw_only=True)
class AuditPredictions:
    """Are groups served differently, and do decisions depend on a column, from a file of predictions of any model.

    The CSV file has the columns label and predicted, one for each candidate attribute, and, if there are training
    rows for the counts, split (train or test). Writes results.json, report.html, report.md and model_card.md to OUT.
    """

    predictions: Annotated[Path, Positional, arg(metavar="FILE")]
    """CSV file of predictions."""
    out: Path
    """Folder of the report."""
    overwrite: bool = False
    """Replace a report in OUT, once the new one is complete."""
    train_counts: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """CSV file of training counts (columns attribute, value, label, count), where there are no training rows."""
    probability: Str = None
    """Column of the probabilities of two classes; by default one called probability."""
    seed: int = 0
    """Seed of the intervals."""
    questions: QuestionOptions = DEFAULT
    """What counts as a disparity, and what is known about the test set."""

    def execute(self) -> int:
        from jaxdebias.report import answers

        done_before = is_complete(self.out) and not self.overwrite
        results = audit_predictions(
            self.predictions,
            self.out,
            self.questions,
            train_counts=self.train_counts,
            probability=self.probability,
            seed=self.seed,
            overwrite=self.overwrite,
        )
        print(answers.text(results))
        gate = f"jaxdebias check {self.out}   for continuous integration"
        print_ending("audit-predictions", self.out, done_before=done_before, next_steps=(gate,))
        return 0


def audit_predictions(
    path: Path,
    out: Path,
    questions: QuestionOptions = DEFAULT,
    *,
    train_counts: Path | None = None,
    probability: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> RunResults:
    """Audits a file of predictions, writes results.json, report.html, report.md and model_card.md to `out` and returns
    the results.

    The attribute that the finding is about is that of the results' groups and of the page; all of them are in the
    verdict.

    Args:
      path: CSV file of predictions.
      out: folder of the report.
      questions: what counts as a disparity, and what is known about the test set.
      train_counts: CSV file of training counts.
      probability: column of the probabilities of two classes; None: the one of that name, if there is one.
      seed: of the intervals.
      overwrite: replace what is there, once the new report is complete.

    Raises:
      ContractError: a file that is not as described above, or results already in `out`.
    """
    path, out = Path(path), Path(out)
    expect(path.is_file(), "predictions", "a CSV file", path)
    arguments = {"predictions": str(path.resolve()), "rows": file_digest(path), "seed": seed, **plain(questions)}
    if probability is not None:
        arguments["probability"] = probability
    if train_counts is not None:
        expect(Path(train_counts).is_file(), "train_counts", "a CSV file", train_counts)
        arguments["train_counts"] = file_digest(Path(train_counts))
    with claim(out, "audit-predictions", arguments, overwrite=overwrite) as run:
        if run.complete:
            return read_run(run.folder)
        if "results" not in run.measured:
            _audit(read_predictions(path, questions.given or (), probability), path, run, questions, train_counts, seed)
        return write_report(run)


def _audit(
    read: Predictions, path: Path, run: ResultSet, questions: QuestionOptions, train_counts: Path | None, seed: int
) -> None:
    rows = {"train": np.flatnonzero(read.train), "test": np.flatnonzero(~read.train)}
    rows = {name: of_split for name, of_split in rows.items() if len(of_split)}
    known = {name: one for name, one in read.columns.items() if (one.value[rows["test"]] >= 0).any()}
    expect(bool(known), path.name, "a candidate with known values in the test rows", "none")
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
        name: Candidate(
            {split: one.value[of_split] for split, of_split in rows.items() if (one.value[of_split] >= 0).any()},
            one.names,
        )
        for name, one in known.items()
    }
    predicted = outputs(read, rows["test"])
    counts = {} if train_counts is None else read_train_counts(Path(train_counts), read.classes, known)
    report = audit(
        None,
        None,
        dataset,
        predicted=predicted,
        probabilities=None if read.probability is None else read.probability[rows["test"]],
        candidates=listed,
        given={name: values[rows["test"]] for name, values in read.given.items()} or None,
        train_counts=counts or None,
        seed=seed,
        **questions.arguments(),
    )
    record = report.record
    report = dataclasses.replace(report, record=dataclasses.replace(record, findings=(*read.remarks, *record.findings)))
    inputs = fingerprint({name: one.value for name, one in read.columns.items()} | {"label": read.label})
    measured = measure_predictions(jax.random.key(seed), predicted, dataset)
    write_predictions(run.folder, dataset, measured, rows=inputs)
    keep_report(run, report, inputs)


def outputs(read: Predictions, rows: np.ndarray) -> np.ndarray:
    """Logits `[n k]` of rows, the logarithms of their probabilities, if these agree with the classes; else classes."""
    predicted = read.predicted[rows]
    if read.probability is None or (np.argmax(read.probability[rows], axis=1) != predicted).any():
        return predicted
    return np.log(np.maximum(read.probability[rows], 1e-12)).astype(np.float32)
