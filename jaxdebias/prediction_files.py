"""Audit of predictions in a CSV file, of a model made with whatever library: which column is a shortcut, how strongly.

The file has a header and a row per sample:

    label          the true class (or y)
    predicted      what the model answers (or prediction), on samples that it was not trained on
    split          optional: train or test. Rows of train need no prediction: how label and columns go together in
                   training is counted from them; without them from the test rows
    any other      a candidate: sex, hospital, background ... Numbers with more than `MOST_VALUES` values are cut at
                   their quartiles; an empty cell is unknown

What predictions alone cannot answer (on which pixels, because of which training samples, what a repair would give) is
said among the findings.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdebias import auditing
from jaxdebias.auditing.candidates import Column, column, entry, in_order, remarks
from jaxdebias.contracts import expect
from jaxdebias.core import Array, Batch, Dataset
from jaxdebias.data.aligned import cell_counts
from jaxdebias.measure.fairness import fairness_report
from jaxdebias.measure.groups import group_report
from jaxdebias.measure.shortcuts import Shortcut, association, find_shortcuts
from jaxdebias.report import content
from jaxdebias.report.page import write_page
from jaxdebias.report.results import to_json, write_results
from jaxdebias.run_folder import Clock, claim, timing

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
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        header, rows = list(reader.fieldnames or []), list(reader)
    expect(len(set(header)) == len(header), path.name, "columns with different names", ", ".join(header))
    of = {name: next((alias for alias in aliases if alias in header), None) for name, aliases in NAMES.items()}
    for name in ("label", "predicted"):
        expect(of[name] is not None, path.name, f"a column {' or '.join(NAMES[name])}", ", ".join(header) or "nothing")
    expect(bool(rows), path.name, "at least one row", "none")
    cells = {name: [(row[name] or "").strip() for row in rows] for name in header}
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


def audit_predictions(path: Path, out: Path, *, seed: int = 0, overwrite: bool = False) -> dict[str, Any]:
    """Audits a file of predictions, writes results.json and report.html to `out` and returns the results.

    The strongest candidate is the attribute of the results' groups and of the page; all of them are in `candidates`.

    Raises:
      ContractError: a file that is not as described above, or results already in `out`.
    """
    path, out, clock = Path(path), Path(out), Clock()
    read = read_predictions(path)
    claim(out, "audit", overwrite=overwrite)
    clock.lap("read")
    key_candidates, key_groups, key_fairness = jax.random.split(jax.random.key(seed), 3)
    test = np.flatnonzero(~read.train)
    counted = np.flatnonzero(read.train) if read.train.any() else test
    counts = {name: cell_counts(read.label[counted], one.value[counted], len(read.classes), len(one.names))
              for name, one in read.columns.items()}
    known = {name: one for name, one in read.columns.items() if counts[name].any() and (one.value[test] >= 0).any()}
    expect(bool(known), path.name, "a candidate with known values in both splits", "none")
    found = find_shortcuts(key_candidates, read.predicted[test], read.label[test],
                           {name: one.value[test] for name, one in known.items()}, classes=len(read.classes),
                           train_counts={name: counts[name] for name in known})
    order = ("shortcut", "explained", "none", "unknown")
    found = sorted(found, key=lambda one: order.index(one.verdict))  # stable: by pull within a verdict
    name = found[0].name
    clock.lap("candidates")

    dataset = _dataset(path, read, name, counted, test, counts[name])
    batch = dataset.splits["test"]
    predicted = np.eye(len(read.classes), dtype=np.float32)[read.predicted[test]]
    report = group_report(key_groups, predicted, batch, dataset.aligned, train_counts=counts[name])
    fair = None
    if len(read.classes) == 2 and len(np.unique(batch.attribute[batch.attribute >= 0])) > 1:
        fair = fairness_report(key_fairness, predicted, batch.label, batch.attribute,
                               attributes=len(dataset.attribute_names))
    before = auditing.Measurement(report, None, fair, predicted, None)
    clock.lap("measure")
    results = to_json({
        **content.identity(dataset, name, "samples", "predictions", seed, "predictions from a file"),
        **timing(clock),
        "before": content.measurement(before, dataset), "after": None, "baselines": {}, "edit": None, "harmful": [],
        "training": {"epochs": 0, "loss": []},
        "candidates": [entry(one) for one in found],
        "findings": [*findings(found, read), *(text for text in auditing.findings(dataset, before)
                                               if not text.startswith("No counterfactual bias"))],
    })
    write_results(results, out / "results.json")
    write_page(results, None, out / "report.html")
    return results


def findings(found: Sequence[Shortcut], read: Predictions) -> list[str]:
    """What a reader of the candidates must know, in plain sentences."""
    said = []
    if not read.train.any():
        said.append("How label and candidates go together was counted on the test rows: rows of split train are better "
                    "where the two sets differ.")
    said += remarks(found)
    said.append("Predictions alone do not say on which pixels, because of which training samples, or what a repair "
                "would give. That takes the model and its training data: jaxdebias train, or in Python any apply_fn.")
    return said


def _dataset(path: Path, read: Predictions, name: str, train: np.ndarray, test: np.ndarray,
             counts: np.ndarray) -> Dataset:
    """The rows as a data set without inputs."""
    value, names = read.columns[name]

    def batch(rows: np.ndarray) -> Batch:
        return Batch(np.zeros((len(rows), 1), np.float32), read.label[rows], value[rows])

    return Dataset(name=path.stem, variant={"attribute": name, "rows": len(test)},
                   splits={"train": batch(train), "test": batch(test)}, pairs={}, label_names=read.classes,
                   attribute_names=names, aligned=association(counts) > 0, pairing="none")
