import dataclasses

import numpy as np
import pytest
from report.fake_parts import changed
from report.fake_results import birds, digits
from report.test_page import written
from report.test_tables import printed

from jaxdebias.contracts import ContractError
from jaxdebias.report import Pictures, map_view
from jaxdebias.results.codec import from_json, to_json
from jaxdebias.results.records import MapExample, MapRegion, Maps, MapSet, Rate


def rate(value, half=0.02):
    return Rate(value=value, low=value - half, high=value + half, n=40)


NONE = Rate(value=None, low=None, high=None, n=0)


def region(name, score, chance, inside, area, **more):
    made = MapRegion(region=name, score=rate(score), chance=chance, inside=rate(inside), area=area, n=40, flagged=False)
    return dataclasses.replace(made, **more)


def looked(record, *, masks=True, agreement=1.0):
    """The record with maps of two regions (the second in no image of one group), or of none."""
    k, a = len(record.label_names), len(record.attribute_names)
    sets = [
        ("all", None, None),
        ("aligned", None, None),
        ("conflicting", None, None),
        *(("group", y, s) for y in range(k) for s in range(a)),
    ]
    rows = []
    for kind, label, attribute in sets:
        bird, ground = region("bird", 0.31, 0.42, 0.12, 0.2), region("background", 0.93, 0.98, 0.88, 0.8)
        if (label, attribute) == (0, 1):
            ground = dataclasses.replace(ground, score=NONE, inside=NONE, chance=None, area=None, n=0)
        rows.append(
            MapSet(
                kind=kind,
                label=label,
                attribute=attribute,
                n=1234 if kind == "all" else 100,
                without_map=7 if kind == "all" else 0,
                average=((1.9, 1.0, 1.0), (1.0, 1.0, 1.0)),
                regions=(bird, ground) * masks,
            )
        )
    example = MapExample(row=5, label=1, attribute=0, predicted=0)
    maps = Maps(
        method="gradcam",
        target="predicted",
        grid=(2, 3),
        regions=("bird", "background") * masks,
        agreement=agreement,
        rows=tuple(rows),
        examples=(example, dataclasses.replace(example, attribute=1, predicted=1)),
    )
    return changed(record, maps=maps)


IMAGES = Pictures(
    maps=np.full((2, 16, 16, 3), 120, np.uint8), maps_shown=np.eye(6, dtype=np.float32)[:2].reshape(2, 2, 3)
)


@pytest.mark.parametrize(
    ("score", "chance", "inside", "area", "expected"),
    [
        (0.3, 0.5, 0.1, 0.3, "elsewhere"),
        (0.9, 0.98, 0.9, 0.8, "part"),
        (0.3, 0.5, 0.31, 0.3, "below"),
        (0.8, 0.98, 0.7, 0.8, "less"),
        (0.5, 0.51, 0.3, 0.3, "unclear"),
        (0.7, 0.5, 0.6, 0.3, "there"),
        (0.7, 0.5, 0.3, 0.3, "above"),
    ],
)
def test_a_score_is_read_beside_chance(score, chance, inside, area, expected):
    assert map_view.reading(region("r", score, chance, inside, area)) == expected
    assert map_view.reading(dataclasses.replace(region("r", score, chance, inside, area), score=NONE)) == "absent"


def test_the_page_shows_no_score_without_chance(tmp_path):
    html, outline, text = written(looked(birds()), IMAGES, tmp_path)
    assert outline.ids.index("maps") == outline.ids.index("groups") + 1
    assert "for all 1,234 test birds, on the grid of its last spatial layer, 2 × 3." in text
    assert "The map of 7 of 1,234 birds is empty" in text
    section = text[text.index("Where the model looks") : text.index("What it predicts")]
    assert section.count("chance 0.42") == section.count("0.31 0.29–0.33") == 7
    assert section.count("chance 0.98") == section.count("0.93 0.91–0.95") == 6
    assert "bird below chance: the model looks elsewhere" in section
    assert "background below chance, yet more of the map lies there" in section
    assert "Over all birds, 12 % of the map lies in 20 % of the image." in section
    assert 'class="mark" x1="42.00%" x2="42.00%"' in html
    part = html[html.index('id="maps"') : html.index('id="confusion"')]
    assert part.count("<img") == 4 + 3 + 2 * 2
    assert "landbird ✗" in section
    assert "waterbird ✓" in section
    assert "it need not fall when the bias grows" in section


def test_maps_that_may_lie_elsewhere_than_the_evidence_say_so(tmp_path):
    for text in (
        written(looked(birds(), agreement=0.49), IMAGES, tmp_path)[2],
        " ".join(printed(looked(birds(), agreement=0.49)).split()),
    ):
        assert "Careful: these maps may lie elsewhere" in text
        assert "agreement 0.49" in text
        assert "below chance: the map lies elsewhere" in text
        assert "the map lies on a part of it" in text
        assert "the model looks" not in text.replace("Where the model looks", "")
    assert "Careful" not in written(looked(birds(), agreement=0.99), IMAGES, tmp_path)[2]


def test_maps_without_masks_and_without_pictures(tmp_path):
    html, _, text = written(looked(birds(), masks=False), None, tmp_path)
    assert "No scores: the data have no masks that say what is where." in text
    assert "Attention-IoU" not in text
    assert "chance" not in text[text.index("Where the model looks") : text.index("What it predicts")]
    assert html[html.index('id="maps"') : html.index('id="confusion"')].count("<img") == 7


def test_many_groups_are_left_to_the_file(tmp_path):
    _, _, text = written(looked(digits()), None, tmp_path)
    section = text[text.index("How the maps agree") : text.index("Average maps")]
    assert section.count("chance 0.42") == 3
    assert "The scores of every group are in results.json." in section


def test_the_terminal_shows_chance_beside_each_score():
    text = printed(looked(birds()))
    assert text.count("0.31 (0.29–0.33)") == 7
    lines = [line for line in text.splitlines() if "0.31 (0.29–0.33)" in line]
    assert all(line.split()[-2] == "0.42" for line in lines)
    assert "Bird: below chance: the model looks elsewhere." in text
    assert "Attention-IoU" not in printed(looked(birds(), masks=False))


def test_wrong_maps_are_named(tmp_path):
    plain = to_json(looked(birds()))
    plain["maps"]["rows"][0]["average"] = [[1.0]]
    with pytest.raises(ContractError, match=r"maps\.rows\[0\]\.average"):
        from_json(plain)
    plain = to_json(looked(birds()))
    del plain["maps"]["rows"][2]["regions"][1]["chance"]
    with pytest.raises(ContractError, match=r"regions\[1\]`: expected a key 'chance'"):
        from_json(plain)
    plain = to_json(looked(birds()))
    plain["maps"]["rows"][1]["regions"].reverse()
    with pytest.raises(ContractError, match=r"rows\[1\]\.regions`: expected bird, background, got background, bird"):
        from_json(plain)
    plain = to_json(looked(birds()))
    plain["maps"]["rows"][3]["label"] = None
    with pytest.raises(ContractError, match=r"maps\.rows\[3\]`: expected label and attribute of a group"):
        from_json(plain)
    with pytest.raises(ContractError, match=r"pictures\.maps_shown"):
        written(looked(birds()), IMAGES._replace(maps_shown=np.zeros((3, 2, 3))), tmp_path)
