"""What names of classes, attributes, files and findings could smuggle into the page or the terminal."""

import io

import numpy as np
import pytest
from report.fake_results import faces, fake
from report.test_draw_view import IMAGES as DRAWN
from report.test_draw_view import drawn
from report.test_map_view import looked
from report.test_page import written
from report.test_patch_view import IMAGES as PLACED
from report.test_patch_view import placed
from rich.console import Console

from jaxdebias.report import Pictures, print_summary, wording
from jaxdebias.results.records import to_json

EVIL = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "{{7*7}}{% raw %}",
        "</title></style><b>", "&lt;i&gt;", "[/b][link=x]")  # fmt: skip
CHOICES = {"kind", "verdict", "split", "target", "pairing", "judges"}
"""Keys whose texts are not free."""


def audited():
    """What only an audit writes."""
    rate = {"value": 0.4, "low": 0.3, "high": 0.5, "n": 60}
    option = {
        "name": "dfr",
        "expected": {"group_mean_accuracy": rate},
        "gains": ["group_mean_accuracy"],
        "harm": [],
        "seconds": 1.0,
    }
    cells = {
        "name": "cells",
        "judges": "sih",
        "flagged_share": 0.1,
        "confidence": [0.9, 0.6],
        "followed": rate,
        "plain": True,
        "suspected": True,
        "typical": [0, 1],
        "typical_label": [0, 1],
    }
    group = {"label": 0, "error": rate, "others": rate, "p_value": 0.01, "mistaken_for": 1, "typical": [0, 1]}
    return {
        "answers": [{"question": f"{i}?", "said": "yes", "needs": "" if i else "more"} for i in range(5)],
        "advice": {
            "fix": "dfr",
            "reason": "no",
            "missing": "labels",
            "retrain": ["again"],
            "options": [option],
            "verified": {"held": True, "changes": {"group_mean_accuracy": rate}},
        },
        "discovered": {"cells": cells, "groups": [group]},
        "inputs": {"model": "a function", "pixels": "images", "samples": "a head"},
    }


def everything():
    """Results with every section of the page, and their pictures."""
    pictures = fake("faces")[1]
    results = looked(faces()) | {name: make()[name] for name, make in (("patches", placed), ("draws", drawn))}
    before = results["before"]
    candidate = {
        "name": "a",
        "verdict": "explained",
        "reason": "",
        "explained_by": "b",
        "pull": 0.1,
        "z": 1.0,
        "n": 9,
        "p_value": 0.5,
        "gap": None,
    }
    results |= {
        "findings": ["one"],
        "candidates": [candidate, candidate | {"verdict": "unknown", "reason": "why"}],
        "baselines": {"theirs": {"measurement": before, "seconds": 1.0, "needs": "labels"}},
    }
    results |= audited()
    shots = np.full((2, 16, 16, 3), 90, np.uint8)
    return to_json(results), pictures._replace(
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


def poisoned(value, evil, key=""):
    """Every text that is free, and every key that is a name."""
    if isinstance(value, str):
        return value if key in CHOICES else f"{value} {evil}"
    if isinstance(value, list):
        return [poisoned(one, evil, key) for one in value]
    if isinstance(value, dict):
        named = key in ("variant", "versions", "seconds_by_step", "baselines")
        return {f"{name} {evil}" if named else name: poisoned(one, evil, name) for name, one in value.items()}
    return value


@pytest.mark.parametrize("evil", EVIL)
def test_no_text_becomes_part_of_the_page(evil, tmp_path):
    results, pictures = everything()
    clean, plain, _ = written(results, pictures, tmp_path)
    html, outline, text = written(poisoned(results, evil), pictures, tmp_path)  # no script, every tag closed
    for tag in ("<b>", "<i>", "<img", "<svg", "<style", "<title", "<table"):
        assert html.count(tag) == clean.count(tag), tag
    assert outline.ids == plain.ids
    assert all(reference.startswith("data:image/png;base64,") for reference in outline.references)
    assert text.count(" ".join(evil.split())) > 40


@pytest.mark.parametrize("evil", EVIL)
def test_the_terminal_shows_names_as_they_are(evil):
    """Rich reads [/b] as the end of a style, and stops where none was begun."""
    console = Console(file=io.StringIO(), width=4000, color_system=None)
    results = poisoned(everything()[0], evil)
    print_summary(results, console)
    said = console.file.getvalue()
    assert wording.verdict(results).headline in said
    for name in (
        *results["baselines"],
        *results["maps"]["regions"],
        *results["findings"],
        *(one["name"] for one in results["candidates"]),
    ):
        assert name in said, name


def test_pictures_of_nothing_are_fine(tmp_path):
    written(everything()[0], Pictures(), tmp_path)
