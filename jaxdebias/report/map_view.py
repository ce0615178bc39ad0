"""Where the model looks, in words and pictures: what the page and the terminal say about the maps of a record."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array
from jaxdebias.report import figures, formats, wording
from jaxdebias.report.formats import Estimate, applies
from jaxdebias.results.records import MapRegion, MapSet, RunResults

MANY_GROUPS = 24
"""With more groups than this, scores are only shown for all, aligned and conflicting images."""
MOST_COLUMNS = 12
"""Average maps of more labels or attributes than this are left out: nobody could see anything in them."""
SAME = 0.95
"""Above this agreement Grad-CAM's maps are taken to be those of a method that keeps places apart."""
READINGS = {
    "absent": "in no test image",
    "elsewhere": "below chance: {it} elsewhere",
    "less": "below chance: less of the map lies there than chance would give, but most of it does",
    "part": "below chance, yet more of the map lies there than chance would give: {it} {at} a part of it",
    "below": "below chance; its share of the map is what chance would give",
    "unclear": "not separable from chance",
    "above": "above chance",
    "there": "above chance: {it} there",
}
"""What a score beside its chance level means."""

Reading = Literal["absent", "elsewhere", "less", "part", "below", "unclear", "above", "there"]


def reading(region: MapRegion) -> Reading:
    """How one score of `maps.rows[i].regions` is to be read.

    A large region has a chance level near 1, which a map within it misses as soon as it does not fill it. So whether a
    low score means elsewhere is asked of the share of the map that lies inside.
    """
    score, inside = region.score, region.inside
    if not applies(score):
        return "absent"
    more = inside.low > region.area
    less = inside.high < region.area
    if score.high < region.chance:
        if less:
            return "elsewhere" if inside.value < 0.5 else "less"
        return "part" if more else "below"
    if score.low > region.chance:
        return "there" if more else "above"
    return "unclear"


def reading_in_words(region: MapRegion, record: RunResults) -> str:
    """The sentence; where the maps may lie elsewhere than the evidence, it is about them and not about the model."""
    it, at = ("the model looks", "at") if _faithful(record) else ("the map lies", "on")
    return READINGS[reading(region)].format(it=it, at=at)


def _faithful(record: RunResults) -> bool:
    agreement = record.maps.agreement
    return agreement is not None and agreement >= SAME


def set_name(row: MapSet, record: RunResults) -> str:
    """What the images of one of `maps.rows` are called."""
    items = wording.words(record).items
    if row.kind == "group":
        return f"{record.label_names[row.label]} · {record.attribute_names[row.attribute]}"
    return {"all": f"all {items}", "aligned": "bias-aligned", "conflicting": "bias-conflicting"}[row.kind]


def about(record: RunResults) -> str:
    """What the maps are: for the head of the section."""
    maps, items = record.maps, wording.words(record).items
    h, w = maps.grid
    count = formats.count(maps.rows[0].n)
    when = "" if record.edit is None else " after the repair"
    return (
        f"Grad-CAM of the class that the model answers{when}, for all {count} test {items}, on the grid of its "
        f"last spatial layer, {h} × {w}. A map shows which places speak for the answer, right or wrong; it is as "
        "coarse as its grid."
    )


def remarks(record: RunResults) -> list[str]:
    """What a reader of the maps must know, in plain sentences."""
    maps, items = record.maps, wording.words(record).items
    empty, n = maps.rows[0].without_map, maps.rows[0].n
    h, w = maps.grid
    said = []
    if min(h, w) < 4:
        said.append(
            f"The grid has only {h} × {w} cells: a map says little more than which part of the picture. "
            "Larger pictures, or a network that shrinks them less, give finer ones."
        )
    agreement = maps.agreement
    if agreement is not None and not _faithful(record):
        said.append(
            "Careful: these maps may lie elsewhere than the evidence. Grad-CAM weighs a channel alike in the "
            "whole picture, and the upper layers of this model do not: HiResCAM, which keeps places apart, "
            f"gives other maps (agreement {agreement:.2f}; 1 is the same map). A model that averages over "
            "places before its last layer, such as a ResNet, has no such gap."
        )
    if empty:
        said.append(
            f"The map of {formats.count(empty)} of {formats.count(n)} {items} is empty: no place speaks for "
            "the answer more than another. They count nowhere here."
        )
    if not maps.regions:
        said.append("No scores: the data have no masks that say what is where.")
    return said


def score(rate: Estimate) -> str:
    """A score, which is no share of anything.

    >>> score(formats.Change(0.4261, 0.41, 0.44))
    '0.43'
    """
    return f"{rate.value:.2f}" if applies(rate) else formats.NONE


def score_interval(rate: Estimate) -> str:
    """
    >>> score_interval(formats.Change(0.4261, 0.41, 0.44))
    '0.41–0.44'
    """
    return f"{rate.low:.2f}–{rate.high:.2f}" if applies(rate) else ""


def shown_rows(record: RunResults) -> list[MapSet]:
    """The sets whose scores are shown: all of them, or without the groups where there are too many."""
    rows = [row for row in record.maps.rows if row.n > 0]
    many = sum(row.kind == "group" for row in rows) > MANY_GROUPS
    return [row for row in rows if not (many and row.kind == "group")]


class ScoreRow(NamedTuple):
    """The score of one set of images with one region, drawn beside its chance level."""

    name: str
    tone: str
    bar: str
    value: str
    interval: str
    chance: str
    n: int
    flagged: bool
    inside: str


class Panel(NamedTuple):
    """The scores with one region."""

    name: str
    reading: str
    rows: list[ScoreRow]
    inside: str


class AverageMap(NamedTuple):
    """The average map of one set of images."""

    name: str
    image: str
    n: int
    aligned: bool


class AverageMaps(NamedTuple):
    """Average maps on one scale: of all sets, and as a table of labels by attributes."""

    sets: list[AverageMap]
    rows: list[tuple[str, list[AverageMap | None]]]
    columns: Sequence[str]
    legend: str
    corner: str
    across: int
    widest: str


class MapExampleView(NamedTuple):
    """One image and its map."""

    images: list[str]
    name: str
    aligned: bool
    right: bool
    predicted: str


class MapsSection(NamedTuple):
    """The maps, drawn and worded."""

    about: str
    remarks: list[str]
    panels: list[Panel]
    hidden_groups: bool
    averages: AverageMaps | None
    examples: list[MapExampleView]


def maps_section(record: RunResults, images: Array | None, maps: Array | None) -> MapsSection | None:
    """What the page shows of the maps; None without them.

    Args:
      record: of a run.
      images: `[m h w c]` the first m examples of the record's maps.
      maps: `[m u v]` their maps, in 0..1.
    """
    if record.maps is None:
        return None
    rows = shown_rows(record)
    return MapsSection(
        about=about(record),
        remarks=remarks(record),
        panels=[_panel(record, rows, i) for i in range(len(record.maps.regions))],
        hidden_groups=len(rows) < sum(row.n > 0 for row in record.maps.rows),
        averages=_averages(record),
        examples=_examples(record, images, maps),
    )


def _panel(record: RunResults, rows: Sequence[MapSet], i: int) -> Panel:
    """One region: a bar for each set of images, on which chance is marked."""
    lines = []
    for row in rows:
        region, tone = row.regions[i], "other" if row.kind == "group" else "before"
        if applies(region.score):
            lines.append(
                ScoreRow(
                    name=set_name(row, record),
                    tone=tone,
                    bar=figures.bar(region.score, tone, mark=region.chance),
                    value=score(region.score),
                    interval=score_interval(region.score),
                    chance=f"{region.chance:.2f}",
                    n=region.n,
                    flagged=region.flagged,
                    inside=f"{formats.percent(region.inside.value, 0)} of the map lies in "
                    f"{formats.percent(region.area, 0)} of the image",
                )
            )
    whole = rows[0].regions[i]
    return Panel(whole.region, reading_in_words(whole, record), lines, lines[0].inside if lines else "")


def _averages(record: RunResults) -> AverageMaps | None:
    rows = [row for row in record.maps.rows if row.average is not None]
    labels, attributes = record.label_names, record.attribute_names
    if not rows:
        return None
    top = max(np.max(row.average) for row in rows)

    def drawn(row: MapSet) -> AverageMap:
        name = set_name(row, record)
        aligned = row.kind == "group" and record.aligned[row.label][row.attribute]
        image = figures.heat_map(np.array(row.average) / top, f"average map of {name}")
        return AverageMap(name, image, row.n, aligned)

    groups = {(row.label, row.attribute): drawn(row) for row in rows if row.kind == "group"}
    cells = []
    if max(len(labels), len(attributes)) <= MOST_COLUMNS:
        cells = [(name, [groups.get((i, j)) for j in range(len(attributes))]) for i, name in enumerate(labels)]
    uniform = {1.0 / top: "1: everywhere alike"} if top > 1.3 else {}
    return AverageMaps(
        sets=[drawn(row) for row in rows if row.kind != "group"],
        rows=cells,
        columns=attributes,
        legend=figures.heat_legend({0.0: "0", **uniform, 1.0: f"{top:.1f}"}),
        corner=f"label \\ {wording.words(record).attribute}",
        across=len(attributes),
        widest="6.5rem" if len(attributes) <= 6 else "4rem",
    )


def _examples(record: RunResults, images: Array | None, maps: Array | None) -> list[MapExampleView]:
    if images is None or maps is None:
        return []
    labels, attributes = record.label_names, record.attribute_names
    shown = record.maps.examples[: len(images)]
    expect(
        len(maps) == len(images) == len(shown),
        "pictures.maps_shown",
        f"the maps of {len(shown)} examples",
        describe(maps),
    )
    views = []
    for image, one_map, example in zip(images, maps, shown, strict=True):
        known = example.attribute >= 0
        label = labels[example.label]
        name = f"{label} · {attributes[example.attribute]}" if known else label
        views.append(
            MapExampleView(
                images=[figures.picture(image, name), figures.overlay(image, one_map, f"{name}, with its map")],
                name=name,
                aligned=known and record.aligned[example.label][example.attribute],
                right=example.predicted == example.label,
                predicted=labels[example.predicted],
            )
        )
    return views
