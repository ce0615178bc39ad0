"""What names of classes, attributes, files and findings could smuggle into the page or the terminal."""

import io

import numpy as np
import pytest
from report.fake_parts import changed
from report.fake_results import faces, fake
from report.test_draw_view import IMAGES as DRAWN
from report.test_draw_view import drawn
from report.test_map_view import looked
from report.test_page import written
from report.test_patch_view import IMAGES as PLACED
from report.test_patch_view import placed
from report.verdict_records import verdicts
from rich.console import Console

from jaxdebias.report import Pictures, print_summary, wording
from jaxdebias.results.codec import from_json, to_json
from jaxdebias.results.records import (
    Answer,
    Baseline,
    BiasCells,
    Discovered,
    ErrorGroup,
    Inputs,
    Rate,
)

EVIL = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "{{7*7}}{% raw %}",
        "</title></style><b>", "&lt;i&gt;", "[/b][link=x]")  # fmt: skip
CHOICES = {
    "command",
    "kind",
    "verdict",
    "split",
    "target",
    "pairing",
    "judges",
    "state",
    "measure",
    "drawn",
    "evidence",
}
"""Keys whose texts are not free."""


def audited(record):
    """With what only an audit writes."""
    rate = Rate(value=0.4, low=0.3, high=0.5, n=60)
    cells = BiasCells(name="cells", judges="sih", flagged_share=0.1, confidence=(0.9, 0.6), followed=rate, plain=True,
                      suspected=True, typical=(0, 1), typical_label=(0, 1))  # fmt: skip
    group = ErrorGroup(label=0, error=rate, others=rate, p_value=0.01, mistaken_for=1, typical=(0, 1))
    return changed(
        record,
        verdict=verdicts()["names"],
        answers=tuple(Answer(question=f"{i}?", said="yes", needs="" if i else "more") for i in range(5)),
        discovered=Discovered(cells=cells, groups=(group,)),
        inputs=Inputs(model="a function", pixels="images", samples="a head", repairs="labels"),
    )


def everything():
    """A record with every section of the page, and its pictures."""
    pictures = fake("faces")[1]
    record = changed(audited(looked(faces())), patches=placed().patches, draws=drawn().draws, findings=("one",))
    baseline = Baseline(measurement=record.before, needs="labels")
    shots = np.full((2, 16, 16, 3), 90, np.uint8)
    return changed(record, baselines={"theirs": baseline}), pictures._replace(
        worst=shots,
        worst_label=np.array([0, 1]),
        worst_before=np.array([1, 1]),
        worst_after=np.array([0, 1]),
        maps=shots,
        maps_shown=np.zeros((2, 3, 3)),
        train=shots,
        suspects=shots,
        mistaken=shots,
        **{name: value for images in (PLACED, DRAWN) for name, value in images._asdict().items() if value is not None},
    )


def poisoned(record, evil):
    """Every text that is free, and every key that is a name."""
    return from_json(_poisoned(to_json(record), evil))


def _poisoned(value, evil, key=""):
    """Every text that is free, and every key that is a name."""
    if isinstance(value, str):
        return value if key in CHOICES else f"{value} {evil}"
    if isinstance(value, list):
        return [_poisoned(one, evil, key) for one in value]
    if isinstance(value, dict):
        named = key in ("variant", "versions", "seconds_by_step", "seconds_by_part", "baselines")
        return {f"{name} {evil}" if named else name: _poisoned(one, evil, name) for name, one in value.items()}
    return value


@pytest.mark.parametrize("evil", EVIL)
def test_no_text_becomes_part_of_the_page(evil, tmp_path):
    record, pictures = everything()
    clean, plain, _ = written(record, pictures, tmp_path)
    html, outline, text = written(poisoned(record, evil), pictures, tmp_path)  # no script, every tag closed
    for tag in ("<b>", "<i>", "<img", "<svg", "<style", "<title", "<table"):
        assert html.count(tag) == clean.count(tag), tag
    assert outline.ids == plain.ids
    assert all(reference.startswith("data:image/png;base64,") for reference in outline.references)
    assert text.count(" ".join(evil.split())) > 40


@pytest.mark.parametrize("evil", EVIL)
def test_the_terminal_shows_names_as_they_are(evil):
    """Rich reads [/b] as the end of a style, and stops where none was begun."""
    console = Console(file=io.StringIO(), width=4000, color_system=None)
    record = poisoned(everything()[0], evil)
    print_summary(record, console)
    said = console.file.getvalue()
    assert wording.verdict(record).headline in said
    for name in (
        *record.baselines,
        *record.maps.regions,
        *record.findings,
        *(one.attribute for one in record.verdict.disparity),
    ):
        assert name in said, name


def test_pictures_of_nothing_are_fine(tmp_path):
    written(everything()[0], Pictures(), tmp_path)
