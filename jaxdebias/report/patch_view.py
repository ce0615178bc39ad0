"""Where the data show the attribute, in words and pictures: what page and terminal say about `results["patches"]`."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array
from jaxdebias.report import figures, formats, wording

SAME_PLACE = 0.5
"""From this overlap (IoU) on, two places are called the same."""
NEAR_CHANCE = 1.25
"""Up to this many times the overlap of chance, two places are not said to share anything."""

Answer = Literal["unseen", "spread", "shared", "partly", "apart", "alone"]


def answer(results: Mapping[str, Any]) -> Answer:
    """What the maps say about hiding pixels.

    `unseen`: patches do not tell the attribute. `spread`: it has no place. Otherwise it has one, and the label shows
    there (`shared`), partly there, elsewhere (`apart`), or nowhere in particular (`alone`).
    """
    patches = results["patches"]
    attribute, label = patches["attribute"], patches["label"]
    if not attribute["found"]:
        return "unseen"
    if attribute["spread"]:
        return "spread"
    if not label["found"]:
        return "alone"
    if patches["overlap"] >= SAME_PLACE:
        return "shared"
    return "partly" if patches["overlap"] > NEAR_CHANCE * patches["chance"] else "apart"


def verdict(results: Mapping[str, Any]) -> str:
    """The answer in plain sentences."""
    patches, attribute = results["patches"], wording.words(results).attribute
    held, area = patches["attribute"]["held"], patches["attribute"]["area"]
    top = formats.percent(patches["top"], 0)
    iou = f"overlap {patches['overlap']:.2f}, where chance gives {patches['chance']:.2f} and the same place 1"
    side = f"{patches['patch']} × {patches['patch']} pixels"
    place = (
        f"The {attribute} has a place: {top} of the pixels hold {formats.percent(held, 0)} of the information about it"
    )
    small = f", and {formats.percent(area, 0)} hold 90 %" if area < patches["top"] else ""
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
    }[answer(results)]


def about(results: Mapping[str, Any]) -> str:
    """What the maps are: for the head of the section."""
    patches, (attribute, items) = results["patches"], wording.words(results)
    side = patches["patch"]
    where = "left out of its training" if patches["split"] == "train" else f"of the split {patches['split']}"
    return (
        f"A small network was trained to tell the {attribute} from a patch of {side} × {side} pixels, another to "
        f"tell the label; the maps show what they say on {formats.count(patches['rows'])} {items} {where}, every "
        f"group counting alike, in training, too. This is about the data, where the {attribute} can be read, and "
        "not about what this model uses."
    )


def remarks(results: Mapping[str, Any]) -> list[str]:
    """What a reader must know."""
    patches, (attribute, items) = results["patches"], wording.words(results)
    said = []
    if missing := patches["missing"]:
        said.append(
            f"Careful: {formats.count(missing)} {'group has' if missing == 1 else 'groups have'} no "
            f"{items}, in training or held out. The map of the {attribute} may show the label, too."
        )
    for name, known in (("attribute", len(results["attribute_names"])), ("label", len(results["label_names"]))):
        if (told := patches[name]["classes"]) < known:
            said.append(
                f"Of {known} {'labels' if name == 'label' else 'values'}, {told} have training {items} enough "
                "to be told apart; the others are left out."
            )
    return said


def rows(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The numbers of both maps as text: `name`, `information`, `held`, `area`."""
    patches = results["patches"]
    out = []
    for key, name in (("attribute", wording.words(results).attribute), ("label", "label")):
        one = patches[key]
        said, found = one["information"], one["found"]
        ends = f"{_signed(said['low'])} to {_signed(said['high'])}"
        out.append({
            "name": name, "information": f"{_signed(said['value'])} % ({ends})" + ("" if found else ", none found"),
            "held": formats.percent(one["held"], 0) if found else formats.NONE,
            "area": formats.percent(one["area"], 0) if found else formats.NONE,
        })  # fmt: skip
    return out


def _signed(share: float | None) -> str:
    """
    >>> _signed(0.4261), _signed(-0.013), _signed(-0.001)
    ('42.6', '−1.3', '−0.1')
    """
    return formats.NONE if share is None else f"{100 * share:.1f}".replace("-", "−")


def columns(results: Mapping[str, Any]) -> dict[str, str]:
    """Key of `rows` -> its header."""
    top = formats.percent(results["patches"]["top"], 0)
    return {"information": f"what a patch in the top {top} tells", "held": f"held by the top {top} (chance {top})",
            "area": "pixels that hold 90 %"}  # fmt: skip


def view(
    results: Mapping[str, Any], images: Array | None, attribute_maps: Array | None, label_maps: Array | None
) -> dict[str, Any] | None:
    """Everything the template shows of the patches; None without them.

    Args:
      results: of a run.
      images: `[m h w c]` the first m examples of `results["patches"]`.
      attribute_maps, label_maps: `[m u v]` their maps, in 0..1.
    """
    if results.get("patches") is None:
        return None
    patches = results["patches"]
    general = [np.maximum(np.array(patches[name]["map"], float), 0.0) for name in ("attribute", "label")]
    names = (wording.words(results).attribute, "label")
    drawn = []
    for name, one in zip(names, general, strict=True):
        top = one.max()
        drawn.append(
            {
                "name": name,
                "image": figures.heat_map(one / top if top > 0 else one, f"map of the {name}"),
                "legend": figures.heat_legend({0.0: "0", 1.0: f"{top:.2f} nats"}),
            }
        )
    return {
        "about": about(results), "verdict": verdict(results), "remarks": remarks(results), "rows": rows(results),
        "columns": columns(results), "maps": drawn,
        "overlap": f"{patches['overlap']:.2f}", "chance": f"{patches['chance']:.2f}",
        "top": formats.percent(patches["top"], 0),
        "both": patches["attribute"]["found"] and patches["label"]["found"],
        "examples": _examples(results, images, attribute_maps, label_maps),
    }  # fmt: skip


def _examples(
    results: Mapping[str, Any], images: Array | None, attribute_maps: Array | None, label_maps: Array | None
) -> list[dict[str, Any]]:
    if images is None or attribute_maps is None or label_maps is None:
        return []
    labels, attributes = results["label_names"], results["attribute_names"]
    shown = results["patches"]["examples"][: len(images)]
    for name, maps in (("patch_attribute", attribute_maps), ("patch_label", label_maps)):
        expect(
            len(maps) == len(images) == len(shown),
            f"pictures.{name}",
            f"the maps of {len(shown)} examples",
            describe(maps),
        )
    out = []
    for image, one, two, example in zip(images, attribute_maps, label_maps, shown, strict=True):
        name = f"{labels[example['label']]} · {attributes[example['attribute']]}"
        out.append({
            "images": [figures.picture(image, name), figures.overlay(image, one, f"{name}, map of the attribute"),
                       figures.overlay(image, two, f"{name}, map of the label")],
            "name": name,
        })  # fmt: skip
    return out


def print_patches(results: Mapping[str, Any], console: Any) -> None:
    """The verdict and the numbers, for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    console.print(Text(" ".join([about(results), *remarks(results)])))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
    table.add_column("patch maps")
    for header in columns(results).values():
        table.add_column(Text(header), justify="right")
    for row in rows(results):
        table.add_row(*map(Text, row.values()))
    console.print(table)
    console.print(Text(verdict(results)))
