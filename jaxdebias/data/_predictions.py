"""Predictions of any model in a CSV file, one row per sample.

| column | what it holds |
| --- | --- |
| `label` (or `y`) | the true class |
| `predicted` (or `prediction`) | the class that the model answers; with two classes, or the probability of the second |
| `probability`, or a named one | optional, with two classes: the probability of the second, or of the predicted one |
| `p_<class>` | optional: the probability of each class |
| `split` | optional: train or test. Rows of train need no prediction |
| any other | a candidate attribute |

Classes are compared by value (`data._values`), so `0`, `0.0` and `False` are one class.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdebias.contracts import expect
from jaxdebias.core import Array
from jaxdebias.data._values import (
    MOST_GROUPS,
    MOST_VALUES,
    Column,
    Value,
    canonical,
    canonical_all,
    column,
    different_values,
    in_order,
    is_number,
    legitimate_input,
    listed,
)
from jaxdebias.data.csv_files import read_csv

NAMES = {
    "label": ("label", "y"),
    "predicted": ("predicted", "prediction"),
    "probability": ("probability",),
    "split": ("split",),
}
PREFIX = "p_"
"""Of the columns that hold the probability of one class each."""
TOLERANCE = 1e-3
"""Probabilities of one row may miss 1 by so much in sum; they are divided by it."""
SCORES = re.compile(r"(p|prob|proba|probability|logits?|scores?|confidence|margin|entropy|loss)(_.*|[0-9]*)")
"""Names of what models put out, in lower case."""
MOST_CLASSES = 12
"""Labels that are not whole numbers and have more values than this are measurements, not classes."""


class Predictions(NamedTuple):
    """A file of predictions: all rows, those of training and of the test set."""

    label: Array
    """`[n]` int32."""
    predicted: Array
    """`[n]` int32; -1 in training rows without one."""
    train: Array
    """`[n]` bool."""
    classes: tuple[str, ...]
    """Canonical name of each class."""
    columns: dict[str, Column]
    """Candidate attributes. One that training rows do not know, or spell otherwise, is unknown (-1) in them."""
    probability: Array | None = None
    """`[n k]` float64, rows sum to 1; NaN in training rows without one. None: the file holds none."""
    given: Mapping[str, Array] = {}
    """Name -> `[n]` legitimate inputs: float64 if all values are numbers, else int32 categories. No candidates."""
    remarks: tuple[str, ...] = ()
    """How the file was understood, where it could be understood otherwise: full sentences."""


def read_predictions(path: Path, given: Sequence[str] = (), probability: str | None = None) -> Predictions:
    """Reads and checks the file.

    Args:
      path: a CSV file with a header.
      given: columns of legitimate inputs, which are no candidates.
      probability: column of the probabilities of two classes; None: the one of that name, if there is one.

    Raises:
      ContractError: no file, a missing column or value, a split of another name, no test row, no candidate; predicted
        values that are mostly no labels, or probabilities that do not sum to 1.
    """
    path = Path(path)
    expect(path.is_file(), "predictions", "a CSV file", path)
    header, rows = read_csv(path)
    of = {role: next((name for name in names if name in header), None) for role, names in NAMES.items()}
    expect(of["label"] is not None, path.name, "a column label or y", ", ".join(header) or "nothing")
    if probability is not None:
        expect(probability in header, "probability", f"a column of {path.name}", repr(probability))
        of["probability"] = probability
    expect(bool(rows), path.name, "at least one row", "none")
    cells = {name: [row.cells[name] for row in rows] for name in header}
    split = cells[of["split"]] if of["split"] else ["test"] * len(rows)
    for number, text in enumerate(split, 2):
        expect(text in ("train", "test"), f"{path.name} row {number}", "split train or test", repr(text))
    train = np.array([text == "train" for text in split])
    expect(not bool(train.all()), path.name, "at least one row of split test", "none")

    label = _complete(path, of["label"], cells[of["label"]], np.ones(len(rows), bool))
    labels = list(in_order(label))
    parts = any(isinstance(value, float) for value in labels)
    few = not parts or len(labels) <= MOST_CLASSES
    expect(few, path.name, f"classes in {of['label']}", f"{len(labels)} different numbers: are these measurements?")
    remarks: list[str] = []
    of_class = _class_columns(header, labels)
    some = of["predicted"] or of["probability"] or of_class
    expect(bool(some), path.name, "a column predicted or prediction", ", ".join(header) or "nothing")
    predicted, scores = None, None
    if of_class:
        scores = _rows_of_probabilities(path, of_class, cells, labels, train)
        remarks.append(f"{listed(of_class.values())} were read as the probabilities of the classes.")
    if of["predicted"] is not None:
        predicted = _complete(path, of["predicted"], cells[of["predicted"]], ~train)
        if _are_probabilities(predicted, labels):
            second = in_order(labels)[labels[1]]
            remarks.append(f"{of['predicted']} holds probabilities: they were read as those of class {second!r}.")
            scores, predicted = _of_second(predicted), None
        else:
            _check_predicted(path, of["predicted"], predicted, labels)
    if of["probability"] is not None and scores is None:
        scores = _own_column(path, of["probability"], cells[of["probability"]], predicted, labels, train, remarks)
    if predicted is None:
        expect(scores is not None, path.name, "a column predicted or prediction", ", ".join(header))
        known = ~np.isnan(scores).any(1)
        best = np.where(known, np.argmax(np.where(known[:, None], scores, 0), 1), -1)
        predicted = [None if i < 0 else labels[i] for i in best]

    names = in_order([*label, *(value for value in predicted if value is not None)])
    expect(len(names) >= 2, path.name, "at least two classes", ", ".join(names.values()) or "none")
    number_of = {value: i for i, value in enumerate(names)}
    new = [name for value, name in names.items() if value not in set(labels)]
    if new:
        remarks.append(f"Predicted, but the label of no row: {listed(map(repr, new))}.")
    if scores is not None and len(names) > len(labels):
        wide = np.zeros((len(rows), len(names)))
        wide[:, [number_of[value] for value in labels]] = scores
        scores = wide
    found = Predictions(
        label=np.array([number_of[value] for value in label], np.int32),
        predicted=np.array([-1 if value is None else number_of[value] for value in predicted], np.int32),
        train=train,
        classes=tuple(names.values()),
        columns={},
        probability=scores,
    )
    of_model = {*of.values(), *of_class.values()} - {None}
    for name in given:
        expect(name in header and name not in of_model, "given", f"another column of {path.name}", repr(name))
    used = {*of_model, *given}
    columns = _candidates(found, {name: cells[name] for name in header if name not in used}, remarks)
    only = "none" if not remarks else " ".join(["none.", *remarks])
    expect(bool(columns), path.name, "at least one more column, with two values or more, as a candidate", only)
    inputs = {name: legitimate_input(name, cells[name]) for name in given}
    return found._replace(columns=columns, given=inputs, remarks=tuple(remarks))


def _complete(path: Path, name: str, cells: Sequence[str], needed: np.ndarray) -> list[Value | None]:
    """Canonical values of a column that has one in every row that needs it."""
    values = canonical_all(cells)
    for i in np.flatnonzero(needed):
        got = repr(cells[i]) if cells[i] else "nothing"
        expect(values[i] is not None, f"{path.name} row {i + 2}", f"a value for {name}", got)
    return values


def _check_predicted(path: Path, name: str, predicted: Sequence[Value | None], labels: Sequence[Value]) -> None:
    """Most predicted values must occur among the labels: otherwise both are spelled differently."""
    known = [value for value in predicted if value is not None]
    shared = sum(value in set(labels) for value in known)
    got = f"{listed(repr(text) for text in in_order(known).values())} ({shared} of {len(known)} rows agree)"
    expect(
        2 * shared >= len(known),
        path.name,
        f"{name} among the labels {listed(map(repr, in_order(labels).values()))}",
        got,
    )


def _are_probabilities(predicted: Sequence[Value | None], labels: Sequence[Value]) -> bool:
    """Whether numbers beside two classes are the probability of the second: in 0..1, and some in between."""
    known = [value for value in predicted if value is not None]
    if len(labels) != 2 or not all(map(is_number, known)):
        return False
    return all(0 <= value <= 1 for value in known) and any(0 < value < 1 and value not in labels for value in known)


def _of_second(values: Sequence[Value | None]) -> np.ndarray:
    second = np.array([np.nan if value is None else float(value) for value in values])
    return np.stack([1 - second, second], axis=1)


def _own_column(
    path: Path,
    name: str,
    cells: Sequence[str],
    predicted: Sequence[Value | None] | None,
    labels: Sequence[Value],
    train: np.ndarray,
    remarks: list[str],
) -> np.ndarray | None:
    """`[n 2]` from a column `probability`; None with more than two classes, where it says too little."""
    values = _numbers(path, name, cells, ~train)
    if len(labels) != 2:
        remarks.append(f"{name} was left out: with {len(labels)} classes it is not known whose probability it is.")
        return None
    first, second = in_order(labels).values()
    if predicted is not None and np.nanmin(values) >= 0.5 and labels[0] in predicted:
        remarks.append(f"{name} is never below 0.5: it was read as the probability of the predicted class.")
        values = np.where([value == labels[0] for value in predicted], 1 - values, values)
    else:
        remarks.append(f"{name} was read as the probability of class {second!r}, that of {first!r} is the rest.")
    return np.stack([1 - values, values], axis=1)


def _class_columns(header: Sequence[str], labels: Sequence[Value]) -> dict[Value, str]:
    """Class -> its column of probabilities, if there is one for each class; else none."""
    named = {canonical(name.removeprefix(PREFIX)): name for name in header if name.startswith(PREFIX)}
    found = {value: named[value] for value in labels if value in named}
    return found if len(found) == len(labels) >= 2 else {}


def _rows_of_probabilities(
    path: Path,
    of_class: Mapping[Value, str],
    cells: Mapping[str, Sequence[str]],
    labels: Sequence[Value],
    train: np.ndarray,
) -> np.ndarray:
    """`[n k]`, each row divided by its sum."""
    found = np.stack([_numbers(path, of_class[value], cells[of_class[value]], ~train) for value in labels], axis=1)
    total = found.sum(1)
    for i in np.flatnonzero(~train | ~np.isnan(total)):
        near = bool(abs(total[i] - 1) <= TOLERANCE)
        expect(near, f"{path.name} row {i + 2}", "probabilities that sum to 1 (within 0.001)", f"{total[i]:.4g}")
    return found / total[:, None]


def _numbers(path: Path, name: str, cells: Sequence[str], needed: np.ndarray) -> np.ndarray:
    """`[n]` probabilities, NaN where there is none and none is needed."""
    values = _complete(path, name, cells, needed)
    for i, value in enumerate(values):
        good = value is None or (is_number(value) and 0 <= value <= 1)
        expect(good, f"{path.name} row {i + 2}", f"a probability for {name}", repr(cells[i]))
    return np.array([np.nan if value is None else float(value) for value in values])


def _candidates(found: Predictions, cells: Mapping[str, Sequence[str]], remarks: list[str]) -> dict[str, Column]:
    """The columns that may be attributes; why another was left out, and what is special about one, is added."""
    columns = {}
    for name, texts in cells.items():
        read = column(texts)
        groups = len(found.classes) * len(read.names)
        if len(read.names) < 2:
            continue
        problem = read.problem or _of_the_model(name, texts, found)
        if groups > MOST_GROUPS:
            problem = problem or f"{len(read.names):,} values, too many groups"
        if problem:
            named = name or "A column without a name"  # pandas writes its index as one
            remarks.append(f"{named} was left out of the candidates: it is {problem}.")
            continue
        rows = {"train": read.value[found.train], "test": read.value[~found.train]}
        if found.train.any() and (difference := different_values(rows, read.names)):
            remarks.append(
                f"{name} has other values in training than in the test rows ({difference}). Its association with "
                "the label in training is not known; spell the values the same way if they are the same."
            )
            read = read._replace(value=np.where(found.train, -1, read.value).astype(np.int32))
        if read.remark:
            remarks.append(f"{name}: {read.remark}.")
        columns[name] = read
    return columns


def _of_the_model(name: str, texts: Sequence[str], found: Predictions) -> str:
    """What of the model a column is instead of an attribute; empty if nothing is known."""
    values = canonical_all(texts)
    test = [i for i in np.flatnonzero(~found.train) if values[i] is not None]
    of_test = [values[i] for i in test]
    answer, right = found.predicted[test], found.label[test] == found.predicted[test]
    if set(of_test) == {0, 1} and (np.array(of_test, bool) == right).all():
        return "whether the prediction is right"
    measured = len(set(of_test)) > MOST_VALUES and all(map(is_number, of_test))
    if not (measured and any(isinstance(value, float) for value in of_test)):
        return ""
    if SCORES.fullmatch(name.lower()):
        return "by its name a score of the model"
    score = np.array(of_test, float)
    ends = sorted((score[answer == k].min(), score[answer == k].max()) for k in np.unique(answer))
    apart = len(ends) == 2 and ends[0][1] < ends[1][0]
    return "the model's own score (a threshold on it gives every prediction)" if apart else ""
