"""Where the model looks, in words and pictures: what the page and the terminal say about `results["maps"]`."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array
from jaxdebias.report import figures, formats, wording
from jaxdebias.report.formats import applies

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


def reading(region: Mapping[str, Any]) -> Reading:
    """How one score of `maps.rows[i].regions` is to be read.

    A large region has a chance level near 1, which a map within it misses as soon as it does not fill it. So whether a
    low score means elsewhere is asked of the share of the map that lies inside.
    """
    score, inside = region["score"], region["inside"]
    if not applies(score):
        return "absent"
    more = inside["low"] > region["area"]
    less = inside["high"] < region["area"]
    if score["high"] < region["chance"]:
        if less:
            return "elsewhere" if inside["value"] < 0.5 else "less"
        return "part" if more else "below"
    if score["low"] > region["chance"]:
        return "there" if more else "above"
    return "unclear"


def reading_in_words(region: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """The sentence; where the maps may lie elsewhere than the evidence, it is about them and not about the model."""
    it, at = ("the model looks", "at") if _faithful(results) else ("the map lies", "on")
    return READINGS[reading(region)].format(it=it, at=at)


def _faithful(results: Mapping[str, Any]) -> bool:
    agreement = results["maps"]["agreement"]
    return agreement is not None and agreement >= SAME


def set_name(row: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """What the images of one of `maps.rows` are called."""
    items = wording.words(results).items
    if row["kind"] == "group":
        return f"{results['label_names'][row['label']]} · {results['attribute_names'][row['attribute']]}"
    return {"all": f"all {items}", "aligned": "bias-aligned", "conflicting": "bias-conflicting"}[row["kind"]]


def about(results: Mapping[str, Any]) -> str:
    """What the maps are: for the head of the section."""
    maps, items = results["maps"], wording.words(results).items
    h, w = maps["grid"]
    count = formats.count(maps["rows"][0]["n"])
    when = "" if results["edit"] is None else " after the repair"
    return (
        f"Grad-CAM of the class that the model answers{when}, for all {count} test {items}, on the grid of its "
        f"last spatial layer, {h} × {w}. A map shows which places speak for the answer, right or wrong; it is as "
        "coarse as its grid."
    )


def remarks(results: Mapping[str, Any]) -> list[str]:
    """What a reader of the maps must know, in plain sentences."""
    maps, items = results["maps"], wording.words(results).items
    empty, n = maps["rows"][0]["without_map"], maps["rows"][0]["n"]
    h, w = maps["grid"]
    said = []
    if min(h, w) < 4:
        said.append(
            f"The grid has only {h} × {w} cells: a map says little more than which part of the picture. "
            "Larger pictures, or a network that shrinks them less, give finer ones."
        )
    agreement = maps["agreement"]
    if agreement is not None and not _faithful(results):
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
    if not maps["regions"]:
        said.append("No scores: the data have no masks that say what is where.")
    return said


def score(rate: Mapping[str, Any]) -> str:
    """A score, which is no share of anything.

    >>> score({"value": 0.4261, "low": 0.41, "high": 0.44})
    '0.43'
    """
    return f"{rate['value']:.2f}" if applies(rate) else formats.NONE


def score_interval(rate: Mapping[str, Any]) -> str:
    """
    >>> score_interval({"value": 0.4261, "low": 0.41, "high": 0.44})
    '0.41–0.44'
    """
    return f"{rate['low']:.2f}–{rate['high']:.2f}" if applies(rate) else ""


def shown_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sets whose scores are shown: all of them, or without the groups where there are too many."""
    rows = [row for row in results["maps"]["rows"] if row["n"] > 0]
    many = sum(row["kind"] == "group" for row in rows) > MANY_GROUPS
    return [row for row in rows if not (many and row["kind"] == "group")]


def view(results: Mapping[str, Any], images: Array | None, maps: Array | None) -> dict[str, Any] | None:
    """Everything the template shows of the maps; None without them.

    Args:
      results: of a run.
      images: `[m h w c]` the first m examples of `results["maps"]`.
      maps: `[m u v]` their maps, in 0..1.
    """
    if results.get("maps") is None:
        return None
    rows = shown_rows(results)
    return {
        "about": about(results),
        "remarks": remarks(results),
        "panels": [_panel(results, rows, i) for i in range(len(results["maps"]["regions"]))],
        "hidden_groups": len(rows) < sum(row["n"] > 0 for row in results["maps"]["rows"]),
        "averages": _averages(results),
        "examples": _examples(results, images, maps),
    }


def _panel(results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], i: int) -> dict[str, Any]:
    """One region: a bar for each set of images, on which chance is marked."""
    lines = []
    for row in rows:
        region = row["regions"][i]
        if applies(region["score"]):
            lines.append({
                "name": set_name(row, results), "tone": "other" if row["kind"] == "group" else "before",
                "bar": figures.bar(region["score"], "other" if row["kind"] == "group" else "before",
                                   mark=region["chance"]),
                "value": score(region["score"]), "interval": score_interval(region["score"]),
                "chance": f"{region['chance']:.2f}", "n": region["n"], "flagged": region["flagged"],
                "inside": f"{formats.percent(region['inside']['value'], 0)} of the map lies in "
                          f"{formats.percent(region['area'], 0)} of the image",
            })  # fmt: skip
    whole = rows[0]["regions"][i]
    return {"name": whole["region"], "reading": reading_in_words(whole, results), "rows": lines,
            "inside": lines[0]["inside"] if lines else ""}  # fmt: skip


def _averages(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Average maps on one scale: of all sets, and as a table of labels by attributes."""
    rows = [row for row in results["maps"]["rows"] if row["average"] is not None]
    labels, attributes = results["label_names"], results["attribute_names"]
    if not rows:
        return None
    top = max(np.max(row["average"]) for row in rows)

    def drawn(row: Mapping[str, Any]) -> str:
        return figures.heat_map(np.array(row["average"]) / top, f"average map of {set_name(row, results)}")

    groups = {(row["label"], row["attribute"]): row for row in rows if row["kind"] == "group"}
    cells = []
    if max(len(labels), len(attributes)) <= MOST_COLUMNS:
        cells = [(name, [{"image": drawn(groups[i, j]), "aligned": bool(results["aligned"][i][j]),
                          "n": groups[i, j]["n"]} if (i, j) in groups else None for j in range(len(attributes))])
                 for i, name in enumerate(labels)]  # fmt: skip
    sets = [{"name": set_name(row, results), "image": drawn(row), "n": row["n"]} for row in rows
            if row["kind"] != "group"]  # fmt: skip
    alike = {1.0 / top: "1: everywhere alike"} if top > 1.3 else {}
    return {
        "sets": sets, "rows": cells, "columns": attributes,
        "legend": figures.heat_legend({0.0: "0", **alike, 1.0: f"{top:.1f}"}),
        "corner": f"label \\ {wording.words(results).attribute}", "count": len(attributes),
        "widest": "6.5rem" if len(attributes) <= 6 else "4rem",
    }  # fmt: skip


def _examples(results: Mapping[str, Any], images: Array | None, maps: Array | None) -> list[dict[str, Any]]:
    if images is None or maps is None:
        return []
    labels, attributes = results["label_names"], results["attribute_names"]
    shown = results["maps"]["examples"][: len(images)]
    expect(
        len(maps) == len(images) == len(shown),
        "pictures.maps_shown",
        f"the maps of {len(shown)} examples",
        describe(maps),
    )
    out = []
    for image, one_map, example in zip(images, maps, shown, strict=True):
        label, attribute = labels[example["label"]], example["attribute"]
        name = f"{label} · {attributes[attribute]}" if 0 <= attribute < len(attributes) else label
        aligned = 0 <= attribute < len(attributes) and results["aligned"][example["label"]][attribute]
        out.append({
            "images": [figures.picture(image, name), figures.overlay(image, one_map, f"{name}, with its map")],
            "name": name, "aligned": bool(aligned), "right": example["predicted"] == example["label"],
            "predicted": labels[example["predicted"]],
        })  # fmt: skip
    return out
