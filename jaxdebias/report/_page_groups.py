"""The groups on the page: accuracy of each, as bars or as a map, and which labels are taken for which."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdebias.report import figures, formats, wording
from jaxdebias.report.formats import applies
from jaxdebias.results.records import Group, Measurement, RunResults

MOST_COLUMNS = 24
"""A table of labels or attributes wider than this is left out: nobody could read it."""


class Bar(NamedTuple):
    """The accuracy of a group by one model."""

    tone: str
    bar: str
    value: str
    interval: str


class GroupRow(NamedTuple):
    """One group."""

    name: str
    aligned: bool
    flagged: bool
    n: int
    train: int
    bars: list[Bar]


class Cell(NamedTuple):
    """A cell of a matrix: class and style, text, and class of the text."""

    look: str
    text: str
    mark: str


class Matrix(NamedTuple):
    """A table of coloured cells; long column names are written upwards."""

    title: str
    rows: list[tuple[str, list[Cell]]]
    columns: Sequence[str]
    corner: str

    @property
    def tall(self) -> bool:
        return max(map(len, self.columns)) > 3

    @property
    def dense(self) -> bool:
        return len(self.columns) > 6


class ConfusionBlock(NamedTuple):
    """Confusion tables of all models, of one kind of samples."""

    title: str
    folded: bool
    tables: list[Matrix]


def worst_groups(groups: Sequence[Group], most: int) -> list[Group]:
    """Groups of lowest accuracy, at most `most`; of equal ones the largest first."""
    known = [group for group in groups if applies(group.accuracy)]
    return sorted(known, key=lambda group: (group.accuracy.value, -group.n))[:most]


def group_rows(record: RunResults, groups: Sequence[Group]) -> list[GroupRow]:
    """One row for each of these groups."""
    later = () if record.after is None else record.after.groups
    after = {(group.label, group.attribute): group.accuracy for group in later}
    rows = []
    for group in groups:
        rates = (("before", group.accuracy), ("after", after.get((group.label, group.attribute))))
        rows.append(
            GroupRow(
                name=wording.group_name(group),
                aligned=group.aligned,
                flagged=group.flagged,
                n=group.n,
                train=record.train_counts[group.label][group.attribute],
                bars=[
                    Bar(tone, figures.bar(rate, tone), formats.percent(rate.value), formats.interval(rate))
                    for tone, rate in rates
                    if applies(rate)
                ],
            )
        )
    return rows


def group_maps(record: RunResults, runs: Sequence[tuple[str, Measurement]]) -> list[Matrix]:
    """Accuracy of every group as a map of labels by attributes: the more errors, the stronger the colour."""
    if len(record.attribute_names) > MOST_COLUMNS:
        return []
    maps = []
    for title, measured in runs:
        empty = Cell(figures.heat(None, "hot"), "", "")
        cells = [[empty for _ in record.attribute_names] for _ in record.label_names]
        for group in measured.groups:
            if applies(group.accuracy):
                value = group.accuracy.value
                marks = "outlined" * group.aligned + " few" * group.flagged
                cell = Cell(figures.heat(1 - value, "hot"), f"{100 * value:.0f}", marks)
                cells[group.label][group.attribute] = cell
        rows = list(zip(record.label_names, cells, strict=True))
        maps.append(Matrix(title, rows, record.attribute_names, f"label \\ {wording.words(record).attribute}"))
    return maps


def train_matrix(record: RunResults) -> Matrix | None:
    """Training counts of every group; None where they are not known, or too many to be read."""
    counts = np.array(record.train_counts)
    if not counts.any() or len(record.attribute_names) > MOST_COLUMNS or len(record.label_names) > 2 * MOST_COLUMNS:
        return None
    most = max(int(counts.max()), 1)
    # The square root keeps the few conflicting samples visible beside the many aligned ones.
    cells = [
        [
            Cell(
                look=figures.heat((count / most) ** 0.5 if count else 0.0, "cool"),
                text=formats.count(count) if count else "·",
                mark="outlined" if aligned else "",
            )
            for count, aligned in zip(of_label, aligned_of_label, strict=True)
        ]
        for of_label, aligned_of_label in zip(record.train_counts, record.aligned, strict=True)
    ]
    rows = list(zip(record.label_names, cells, strict=True))
    return Matrix("", rows, record.attribute_names, f"label \\ {wording.words(record).attribute}")


def confusions(record: RunResults, runs: Sequence[tuple[str, Measurement]], *, by_group: bool) -> list[ConfusionBlock]:
    """Who is taken for whom, as blocks of one table per model.

    With few groups one row per group; with many the conflicting samples by label and by attribute, and the aligned.
    """
    labels, attributes = record.label_names, record.attribute_names
    if max(len(labels), len(attributes)) > MOST_COLUMNS:
        return []
    attribute, items = wording.words(record)
    aligned = np.array(record.aligned, bool)
    right = np.eye(len(labels), dtype=bool)
    counted = [(title, np.array(measured.confusion_by_group, np.int64)) for title, measured in runs]
    if by_group:
        groups = [group for group in record.before.groups if group.n > 0]
        names, true = [wording.group_name(group) for group in groups], [group.label for group in groups]
        cells = true, [group.attribute for group in groups]
        return [ConfusionBlock("", False, [
            _confusion(title, "true \\ predicted", names, labels, counts[cells], right[true], None)
            for title, counts in counted])]  # fmt: skip
    conflicting = ~aligned[:, :, None]
    corner = "true \\ predicted"
    by_label = [
        _confusion(title, corner, labels, labels, (counts * conflicting).sum(axis=1), right, ~right)
        for title, counts in counted
    ]
    if not aligned.any():
        return [ConfusionBlock("", False, by_label)]
    by_attribute = [_confusion(title, f"{attribute} \\ predicted", attributes, labels,
                               (counts * conflicting).sum(axis=0), None, aligned.T)
                    for title, counts in counted]  # fmt: skip
    others = [
        _confusion(title, corner, labels, labels, (counts * ~conflicting).sum(axis=1), right, ~right)
        for title, counts in counted
    ]
    same = f"The same {items}, by their {attribute}: outlined is the label that the {attribute} is associated with"
    return [
        ConfusionBlock(f"Bias-conflicting {items}, by their label", False, by_label),
        ConfusionBlock(same, False, by_attribute),
        ConfusionBlock(f"Bias-aligned {items}, by their label", True, others),
    ]


def _confusion(
    title: str,
    corner: str,
    rows: Sequence[str],
    columns: Sequence[str],
    counts: np.ndarray,
    cool: np.ndarray | None,
    hot: np.ndarray | None,
) -> Matrix:
    """Row shares; `cool` and `hot` say where a share is good or bad news, the rest stays grey."""
    cells = []
    for i, row in enumerate(counts):
        total = int(row.sum())
        line = []
        for j, c in enumerate(row.tolist()):
            share = c / total if total else None
            tone = "cool" if cool is not None and cool[i, j] else "hot" if hot is None or hot[i, j] else "grey"
            text = f"{100 * share:.0f}" if share is not None and share >= 0.005 else ""
            line.append(Cell(figures.heat(share, tone), text, "outlined" * (cool is None and tone == "hot")))
        cells.append(line)
    return Matrix(title, list(zip(rows, cells, strict=True)), columns, corner)
