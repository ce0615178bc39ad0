"""What an audit found without any attribute, for the page: `results["discovered"]` and its pictures."""

from collections.abc import Mapping
from typing import Any

from jaxdebias.core import Array
from jaxdebias.report import candidate_view, figures, formats, wording

MOST_GROUPS = 6


def view(results: Mapping[str, Any], suspects: Array | None, mistaken: Array | None) -> dict[str, Any] | None:
    """Everything the template shows of it; None where nothing was found.

    Args:
      suspects: images of the typical samples of the bias cells.
      mistaken: images of the typical samples of the first `MOST_GROUPS` groups, one group after the other.
    """
    found = results.get("discovered")
    if found is None:
        return None
    cells, items = found["cells"], wording.words(results).items
    shown = []
    if cells is not None and cells["suspected"] and suspects is not None:
        names = [results["label_names"][label] for label in cells["typical_label"]]
        shown = [
            {"image": figures.picture(image, f"a training sample of label {name}"), "label": name}
            for image, name in zip(suspects, names, strict=True)
        ]
    groups = _groups(results, found["groups"][:MOST_GROUPS], mistaken, items)
    if not shown and not groups:
        return None
    about = (
        ""
        if cells is None
        else (
            f"{formats.percent(cells['flagged_share'])} of the training {items} look like another class to "
            f"{wording.JUDGES[cells['judges']]}. Nobody judged what it was trained on; these are the surest of each "
            "label."
        )
    )
    return {"suspects": shown, "about": about, "groups": groups}


def _groups(
    results: Mapping[str, Any], groups: list[Mapping[str, Any]], mistaken: Array | None, items: str
) -> list[dict[str, Any]]:
    names, said, start = results["label_names"], [], 0
    for group in groups:
        stop = start + len(group["typical"])
        images = [] if mistaken is None else [figures.picture(image, "a mistake") for image in mistaken[start:stop]]
        start = stop
        said.append(
            {
                "title": f"{names[group['label']]}, taken for {names[group['mistaken_for']]}",
                "note": f"Of {formats.count(group['error']['n'])} such {items}, "
                f"{formats.percent(group['error']['value'])} "
                f"are wrong ({formats.interval(group['error'])}); of the other {names[group['label']]} "
                f"{formats.percent(group['others']['value'])} ({formats.interval(group['others'])}); p "
                f"{candidate_view.p_value(group['p_value'])}, over all groups. Mistakes nearest to the middle:",
                "images": images,
            }
        )
    return said
