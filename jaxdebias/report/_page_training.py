"""The training data on the page: influential samples, the rounds of an edit, counts and loss, and where time went."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxdebias.core import Array
from jaxdebias.report import figures, formats
from jaxdebias.report._page_groups import Matrix, train_matrix
from jaxdebias.report.figures import Series
from jaxdebias.report.pictures import Pictures
from jaxdebias.results.records import RunResults, Sample

MOST_LISTED = 12
"""Ranked samples that are listed without pictures."""


class SampleView(NamedTuple):
    """One ranked training sample."""

    name: str
    score: str
    train_row: int
    image: str | None
    aligned: bool
    row: list[str]


class RankedView(NamedTuple):
    """Training samples as pictures, or as rows of a table, or at least as a list."""

    samples: list[SampleView]
    columns: list[str]
    aligned: int


class InfluenceSection(NamedTuple):
    """The most harmful and the most helpful training samples, with scores in one unit."""

    harmful: RankedView | None
    helpful: RankedView | None
    power: int
    train_share: str


class RoundsSection(NamedTuple):
    """The rounds of an edit, as a chart and as a table."""

    chart: str
    table: list[list[str]]
    columns: list[str]


class TrainingSection(NamedTuple):
    """Counts, samples and loss of the training data."""

    matrix: Matrix | None
    images: list[str]
    total: int
    aligned: str
    conflicting: int
    loss: list[str]
    spark: str


class Step(NamedTuple):
    """A step of the command, and its time on the scale of the longest one."""

    name: str
    seconds: str
    bar: str


def influence_section(record: RunResults, pictures: Pictures) -> InfluenceSection | None:
    """Both ends of the influence ranking; None without it."""
    harmful = _top(record.harmful, record.harmful_rows, pictures.harmful)
    helpful = _top(record.helpful, record.helpful_rows, pictures.helpful)
    if not harmful and not helpful:
        return None
    power = formats.common_power([sample.score for sample in (*harmful, *helpful)])
    total, among = _aligned_share(record)
    return InfluenceSection(
        harmful=_ranked(record, harmful, record.harmful_rows, pictures.harmful, power),
        helpful=_ranked(record, helpful, record.helpful_rows, pictures.helpful, power),
        power=power,
        train_share=formats.percent(among / total) if total else "",
    )


def _top(samples: Sequence[Sample], rows: Sequence[Mapping[str, str]] | None, images: Array | None) -> Sequence[Sample]:
    """The samples that are shown: those with pictures, else those with rows, else the first."""
    return samples[: (len(rows or ()) or MOST_LISTED) if images is None else len(images)]


def _ranked(
    record: RunResults,
    samples: Sequence[Sample],
    rows: Sequence[Mapping[str, str]] | None,
    images: Array | None,
    power: int,
) -> RankedView | None:
    if not samples:
        return None
    rows, views = rows or (), []
    for i, sample in enumerate(samples):
        known = sample.attribute >= 0
        name = record.label_names[sample.label] + (f" · {record.attribute_names[sample.attribute]}" if known else "")
        views.append(
            SampleView(
                name=name,
                score=f"{sample.score / 10.0**power:.2f}".replace("-", "−"),
                train_row=sample.index,
                image=None if images is None else figures.picture(images[i], name),
                aligned=known and record.aligned[sample.label][sample.attribute],
                row=[str(value) for value in rows[i].values()] if i < len(rows) else [],
            )
        )
    return RankedView(views, list(rows[0]) if rows else [], sum(view.aligned for view in views))


def _aligned_share(record: RunResults) -> tuple[int, int]:
    counts, aligned = np.array(record.train_counts), np.array(record.aligned, bool)
    return int(counts.sum()), int(counts[aligned].sum())


def rounds_section(record: RunResults) -> RoundsSection | None:
    """The rounds of Fast Model Debias; None for other repairs."""
    if record.edit is None or not record.edit.rounds:
        return None
    rounds, start, taken = record.edit.rounds, record.edit.accept_before, record.provenance.seconds_by_part
    drawn = [(one.round, one.aligned_accuracy, one.accept_accuracy, one.accept_bias) for one in rounds]
    if start is not None:
        drawn.insert(0, (0, start.aligned_accuracy, start.accuracy, start.bias))
    steps, aligned, accuracy, bias = zip(*drawn, strict=True)
    chart = figures.lines(
        [Series("aligned accuracy", "muted", aligned), Series("accuracy", "after", accuracy),
         Series("bias", "before", bias)], steps, step_name="round") if len(drawn) > 1 else ""  # fmt: skip

    def number(value: float | int | None, form: str) -> str:
        return formats.NONE if value is None else format(value, form).replace("-", "−")

    def hundredfold(value: float | int | None, sign: str = "") -> str:
        return number(None if value is None else 100 * value, f"{sign}.1f")

    table = [
        [
            number(one.round, "g"),
            number(one.u, ".3g"),
            hundredfold(one.predicted_change, "+"),
            hundredfold(one.achieved_change, "+"),
            hundredfold(one.accept_accuracy),
            hundredfold(one.aligned_accuracy),
            hundredfold(one.accept_bias),
            number(one.residual, ".0e"),
            number(taken.get(f"round {one.round}"), ".2f"),
        ]
        for one in rounds
    ]
    columns = ["round", "step", "bias change predicted", "achieved", "accuracy", "aligned accuracy", "bias",
               "residual", "seconds"]  # fmt: skip
    return RoundsSection(chart, table, columns)


def training_section(record: RunResults, pictures: Pictures) -> TrainingSection:
    """Counts, samples and loss."""
    total, among = _aligned_share(record)
    images = [] if pictures.train is None else [figures.picture(i, "a training sample") for i in pictures.train]
    loss = [value for value in record.training.loss if value is not None]
    return TrainingSection(
        matrix=train_matrix(record),
        images=images,
        total=total,
        aligned=formats.percent(among / total) if total else "",
        conflicting=total - among,
        loss=[f"{loss[0]:.2g}", f"{loss[-1]:.2g}"] if loss else [],
        spark=figures.spark(loss),
    )


def steps_of(record: RunResults) -> list[Step]:
    """Where the time went."""
    seconds = record.provenance.seconds_by_step
    longest = max(seconds.values(), default=0.0) or 1.0
    return [
        Step(name.replace("_", " "), formats.seconds(value), figures.length(value, "other", full=longest))
        for name, value in seconds.items()
    ]
