"""Where the data show the attribute, in words and pictures: what page and terminal say about the patches."""

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array
from jaxdebias.report import figures, formats, wording
from jaxdebias.results.records import RunResults

if TYPE_CHECKING:
    from rich.console import Console

SAME_PLACE = 0.5
"""From this overlap (IoU) on, two places are called the same."""
NEAR_CHANCE = 1.25
"""Up to this many times the overlap of chance, two places are not said to share anything."""

Answer = Literal["unseen", "spread", "shared", "partly", "apart", "alone"]


def answer(record: RunResults) -> Answer:
    """What the maps say about hiding pixels.

    `unseen`: patches do not tell the attribute. `spread`: it has no place. Otherwise it has one, and the label shows
    there (`shared`), partly there, elsewhere (`apart`), or nowhere in particular (`alone`).
    """
    patches = record.patches
    attribute, label = patches.attribute, patches.label
    if not attribute.found:
        return "unseen"
    if attribute.spread:
        return "spread"
    if not label.found:
        return "alone"
    if patches.overlap >= SAME_PLACE:
        return "shared"
    return "partly" if patches.overlap > NEAR_CHANCE * patches.chance else "apart"


def verdict(record: RunResults) -> str:
    """The answer in plain sentences."""
    patches, attribute = record.patches, wording.words(record).attribute
    held, area = patches.attribute.held, patches.attribute.area
    top = formats.percent(patches.top, 0)
    iou = f"overlap {patches.overlap:.2f}, where chance gives {patches.chance:.2f} and the same place 1"
    side = f"{patches.patch} × {patches.patch} pixels"
    place = (
        f"The {attribute} has a place: {top} of the pixels hold {formats.percent(held, 0)} of the information about it"
    )
    small = f", and {formats.percent(area, 0)} hold 90 %" if area < patches.top else ""
    remedy = "Training with that region hidden (mitigate.patch_noise, best with operation zero or swap)"
    return {
        "unseen": f"No place found: a patch of {side} does not tell the {attribute} better than chance. It may lie in "
        "shapes larger than a patch, or the images may be too few. There is no region to hide.",
        "spread": f"The {attribute} has no place: the top {top} of the pixels hold {formats.percent(held, 0)} of the "
        f"information about it, and 90 % of it takes {formats.percent(area, 0)} of the pixels; a map that "
        f"is the same everywhere has {top} and 90 %. It is spread out, "
        "like a colour cast or a background. Noise on a region leaves the rest readable and cannot help; "
        "a repair with held-out pairs (jaxdebias debias) does not need a place.",
        "shared": f"{place}, but the label shows in the same one ({iou}). What hides the {attribute} hides the label: "
        "training with noise there would cost accuracy, and a mask cannot tell the two apart.",
        "partly": f"{place}{small}. {remedy} may help. The label shows in a part of it ({iou}): hiding that part "
        "costs accuracy, and mitigate.patch_masks.protect spares it.",
        "apart": f"{place}{small}. {remedy} may help. The label shows elsewhere ({iou}), so, as far as patches tell, "
        "it should cost little.",
        "alone": f"{place}{small}. {remedy} may help. Where the label shows is not known, as patches do not tell it "
        "better than chance; so neither is what hiding costs.",
    }[answer(record)]


def about(record: RunResults) -> str:
    """What the maps are: for the head of the section."""
    patches, (attribute, items) = record.patches, wording.words(record)
    side = patches.patch
    where = "left out of its training" if patches.split == "train" else f"of the split {patches.split}"
    return (
        f"A small network was trained to tell the {attribute} from a patch of {side} × {side} pixels, another to "
        f"tell the label; the maps show what they say on {formats.count(patches.rows)} {items} {where}, every "
        f"group counting alike, in training, too. This is about the data, where the {attribute} can be read, and "
        "not about what this model uses."
    )


def remarks(record: RunResults) -> list[str]:
    """What a reader must know."""
    patches, (attribute, items) = record.patches, wording.words(record)
    said = []
    if missing := patches.missing:
        said.append(
            f"Careful: {formats.count(missing)} {'group has' if missing == 1 else 'groups have'} no "
            f"{items}, in training or held out. The map of the {attribute} may show the label, too."
        )
    for name, place, known in (
        ("values", patches.attribute, len(record.attribute_names)),
        ("labels", patches.label, len(record.label_names)),
    ):
        if (told := place.classes) < known:
            said.append(
                f"Of {known} {name}, {told} have training {items} enough to be told apart; the others are left out."
            )
    return said


class PlaceRow(NamedTuple):
    """The numbers of one map as text, or the headers of these columns."""

    name: str
    information: str
    held: str
    area: str


class PatchMap(NamedTuple):
    """The map of the attribute or of the label."""

    name: str
    image: str
    legend: str


class PatchExampleView(NamedTuple):
    """One image and its two maps."""

    images: list[str]
    name: str


class PatchesSection(NamedTuple):
    """The patch maps, drawn and worded."""

    about: str
    verdict: str
    remarks: list[str]
    columns: PlaceRow
    rows: list[PlaceRow]
    maps: list[PatchMap]
    overlap: str
    chance: str
    top: str
    both: bool
    examples: list[PatchExampleView]


def rows(record: RunResults) -> list[PlaceRow]:
    """The numbers of both maps as text."""
    patches, lines = record.patches, []
    for name, place in ((wording.words(record).attribute, patches.attribute), ("label", patches.label)):
        told, found = place.information, place.found
        ends = f"{_signed(told.low)} to {_signed(told.high)}"
        lines.append(
            PlaceRow(
                name=name,
                information=f"{_signed(told.value)} % ({ends})" + ("" if found else ", none found"),
                held=formats.percent(place.held, 0) if found else formats.NONE,
                area=formats.percent(place.area, 0) if found else formats.NONE,
            )
        )
    return lines


def _signed(share: float | None) -> str:
    """
    >>> _signed(0.4261), _signed(-0.013), _signed(-0.001)
    ('42.6', '−1.3', '−0.1')
    """
    return formats.NONE if share is None else f"{100 * share:.1f}".replace("-", "−")


def columns(record: RunResults) -> PlaceRow:
    """Headers of `rows`."""
    top = formats.percent(record.patches.top, 0)
    return PlaceRow("", f"what a patch in the top {top} tells", f"held by the top {top} (chance {top})",
                    "pixels that hold 90 %")  # fmt: skip


def patches_section(
    record: RunResults, images: Array | None, attribute_maps: Array | None, label_maps: Array | None
) -> PatchesSection | None:
    """What the page shows of the patches; None without them.

    Args:
      record: of a run.
      images: `[m h w c]` the first m examples of the record's patches.
      attribute_maps: `[m u v]` their maps of the attribute, in 0..1.
      label_maps: `[m u v]` their maps of the label.
    """
    patches = record.patches
    if patches is None:
        return None
    drawn = []
    for name, place in ((wording.words(record).attribute, patches.attribute), ("label", patches.label)):
        values = np.maximum(np.array(place.map, float), 0.0)
        top = values.max()
        image = figures.heat_map(values / top if top > 0 else values, f"map of the {name}")
        drawn.append(PatchMap(name, image, figures.heat_legend({0.0: "0", 1.0: f"{top:.2f} nats"})))
    return PatchesSection(
        about=about(record),
        verdict=verdict(record),
        remarks=remarks(record),
        columns=columns(record),
        rows=rows(record),
        maps=drawn,
        overlap=f"{patches.overlap:.2f}",
        chance=f"{patches.chance:.2f}",
        top=formats.percent(patches.top, 0),
        both=patches.attribute.found and patches.label.found,
        examples=_examples(record, images, attribute_maps, label_maps),
    )


def _examples(
    record: RunResults, images: Array | None, attribute_maps: Array | None, label_maps: Array | None
) -> list[PatchExampleView]:
    if images is None or attribute_maps is None or label_maps is None:
        return []
    shown = record.patches.examples[: len(images)]
    for name, maps in (("patch_attribute", attribute_maps), ("patch_label", label_maps)):
        expect(
            len(maps) == len(images) == len(shown),
            f"pictures.{name}",
            f"the maps of {len(shown)} examples",
            describe(maps),
        )
    views = []
    for image, one, two, example in zip(images, attribute_maps, label_maps, shown, strict=True):
        name = f"{record.label_names[example.label]} · {record.attribute_names[example.attribute]}"
        shots = [
            figures.picture(image, name),
            figures.overlay(image, one, f"{name}, map of the attribute"),
            figures.overlay(image, two, f"{name}, map of the label"),
        ]
        views.append(PatchExampleView(shots, name))
    return views


def print_patches(record: RunResults, console: "Console") -> None:
    """The verdict and the numbers, for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    console.print(Text(" ".join([about(record), *remarks(record)])))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
    table.add_column("patch maps")
    for header in columns(record)[1:]:
        table.add_column(Text(header), justify="right")
    for row in rows(record):
        table.add_row(*map(Text, row))
    console.print(table)
    console.print(Text(verdict(record)))
