"""What an audit found without any attribute, for the page, with its pictures."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxdebias.core import Array
from jaxdebias.report import figures, formats, wording
from jaxdebias.results.records import ErrorGroup, RunResults

MOST_GROUPS = 6


class Suspect(NamedTuple):
    """A training sample that looks like another class."""

    image: str
    label: str


class MistakenGroup(NamedTuple):
    """A group of test samples with many mistakes."""

    title: str
    note: str
    images: list[str]


class DiscoverySection(NamedTuple):
    """What was found without an attribute, drawn and worded."""

    suspects: list[Suspect]
    about: str
    groups: list[MistakenGroup]


def discovery_section(record: RunResults, suspects: Array | None, mistaken: Array | None) -> DiscoverySection | None:
    """What the page shows of it; None where nothing was found.

    Args:
      record: of an audit.
      suspects: images of the typical samples of the bias cells.
      mistaken: images of the typical samples of the first `MOST_GROUPS` groups, one group after the other.
    """
    found = record.discovered
    if found is None:
        return None
    cells, items = found.cells, wording.words(record).items
    shown = []
    if cells is not None and cells.suspected and suspects is not None:
        names = [record.label_names[label] for label in cells.typical_label]
        shown = [
            Suspect(figures.picture(image, f"a training sample of label {name}"), name)
            for image, name in zip(suspects, names, strict=True)
        ]
    groups = _groups(record, found.groups[:MOST_GROUPS], mistaken, items)
    if not shown and not groups:
        return None
    about = (
        ""
        if cells is None
        else (
            f"{formats.percent(cells.flagged_share)} of the training {items} look like another class to "
            f"{wording.JUDGES[cells.judges]}. Nobody judged what it was trained on; these are the surest of each "
            "label."
        )
    )
    return DiscoverySection(shown, about, groups)


def _groups(
    record: RunResults, groups: Sequence[ErrorGroup], mistaken: Array | None, items: str
) -> list[MistakenGroup]:
    names, said, start = record.label_names, [], 0
    for group in groups:
        stop = start + len(group.typical)
        images = [] if mistaken is None else [figures.picture(image, "a mistake") for image in mistaken[start:stop]]
        start = stop
        said.append(
            MistakenGroup(
                title=f"{names[group.label]}, taken for {names[group.mistaken_for]}",
                note=f"Of {formats.count(group.error.n)} such {items}, "
                f"{formats.percent(group.error.value)} "
                f"are wrong ({formats.interval(group.error)}); of the other {names[group.label]} "
                f"{formats.percent(group.others.value)} ({formats.interval(group.others)}); p "
                f"{formats.p_value(group.p_value)}, over all groups. Mistakes nearest to the middle:",
                images=images,
            )
        )
    return said
