"""What page and terminal say about where the data show the attribute."""

import numpy as np
import pytest
from report.fake_parts import changed
from report.fake_results import birds
from report.test_page import written
from report.test_tables import printed

from jaxdebias.contracts import ContractError
from jaxdebias.report import Pictures, patch_view
from jaxdebias.results.codec import from_json, to_json
from jaxdebias.results.records import Interval, Patches, PatchExample, Place


def place(value, held, *, found=True, classes=2):
    """It is spread where it holds less than half in its top pixels."""
    information = np.full((3, 4), -0.01)
    information[0, 1] = 0.4
    return Place(
        map=tuple(map(tuple, information.tolist())),
        information=Interval(value=value, low=value - 0.02, high=value + 0.02, n=400),
        held=held,
        spread=held < 0.5,
        found=found,
        area=0.2,
        classes=classes,
    )


def placed(*, attribute=(0.36, 0.81), label=(0.07, 0.9), overlap=0.0, **more):
    attribute, label = (one if isinstance(one, Place) else place(*one) for one in (attribute, label))
    patches = Patches(
        split="edit",
        rows=400,
        train_rows=1999,
        patch=8,
        stride=2,
        missing=0,
        top=0.3,
        attribute=attribute,
        label=label,
        overlap=overlap,
        chance=0.17,
        examples=(PatchExample(row=5, label=1, attribute=0), PatchExample(row=7, label=0, attribute=0)),
    )
    return changed(birds(), patches=changed(patches, **more))


UNSEEN = place(-0.001, 0.3, found=False)
MAPS = np.eye(6, dtype=np.float32)[:2].reshape(2, 2, 3)
IMAGES = Pictures(patch=np.full((2, 16, 16, 3), 120, np.uint8), patch_attribute=MAPS, patch_label=MAPS)


@pytest.mark.parametrize(
    ("changes", "answer", "says"),
    [
        ({"attribute": UNSEEN}, "unseen", "There is no region to hide."),
        ({"attribute": (0.5, 0.32)}, "spread", "the top 30 % of the pixels hold 32 % of the information about it"),
        ({"overlap": 0.6}, "shared", "hides the label: training with noise there would cost accuracy"),
        ({"overlap": 0.3}, "partly", "mitigate.patch_masks.protect spares it"),
        ({"overlap": 0.1}, "apart", "The label shows elsewhere (overlap 0.10, where chance gives 0.17"),
        ({"label": UNSEEN}, "alone", "Where the label shows is not known"),
    ],
)
def test_the_answer_is_on_page_and_terminal(changes, answer, says, tmp_path):
    results = placed(**changes)
    assert patch_view.answer(results) == answer
    text = written(results, None, tmp_path)[2]
    terminal = " ".join(printed(results).replace("\u202f", " ").replace("\u00a0", " ").split())
    for shown in (text, terminal):
        assert says in shown
        # Noise is only advised where the attribute has a place that is not the label's.
        assert ("mitigate.patch_noise" in shown) == (answer in ("partly", "apart", "alone"))
        assert "This is about the data" in shown
        assert "not about what this model uses" in shown


def test_the_section(tmp_path):
    html, outline, text = written(placed(), IMAGES, tmp_path)
    assert outline.ids.index("patches") == outline.ids.index("confusion") - 1
    section = text[text.index("Where the data show the") : text.index("What it predicts")]
    assert "on 400 birds of the split edit" in section
    assert (
        "The background has a place: 30 % of the pixels hold 81 % of the information about it, and 20 % hold 90 %"
        in section
    )
    assert "36.0 % (34.0 to 38.0)" in section
    assert "0.40 nats" in section
    assert "overlap by 0.00" in section
    assert "Careful" not in section
    part = html[html.index('id="patches"') : html.index('id="confusion"')]
    assert part.count("<img") == 2 + 3 * 2
    names = placed().label_names, placed().attribute_names
    assert f"{names[0][1]} · {names[1][0]}" in section
    html, _, text = written(placed(label=UNSEEN), None, tmp_path)
    assert html[html.index('id="patches"') : html.index('id="confusion"')].count("<img") == 2
    assert "−0.1 % (−2.1 to 1.9), none found" in text
    assert "overlap by" not in text


def test_what_is_missing_is_said(tmp_path):
    text = written(placed(missing=1, split="train"), None, tmp_path)[2]
    assert "Careful: 1 group has no birds, in training or held out." in text
    assert "left out of its training" in text
    record = placed(attribute=place(0.4, 0.8, classes=2), missing=2)
    record = changed(record, attribute_names=(*record.attribute_names, "other"))
    assert patch_view.remarks(record)[0].startswith("Careful: 2 groups have no birds")
    assert "Of 3 values, 2 have training birds enough" in patch_view.remarks(record)[1]


def test_wrong_patches_are_named(tmp_path):
    plain = to_json(placed())
    plain["patches"]["label"]["map"][1] = [0.0]
    with pytest.raises(ContractError, match=r"patches\.label\.map"):
        from_json(plain)
    plain = to_json(placed())
    del plain["patches"]["attribute"]["information"]["low"]
    with pytest.raises(ContractError, match=r"patches\.attribute\.information`: expected a key 'low'"):
        from_json(plain)
    plain = to_json(placed())
    del plain["patches"]["examples"][1]["row"]
    with pytest.raises(ContractError, match=r"patches\.examples\[1\]`: expected a key 'row'"):
        from_json(plain)
    with pytest.raises(ContractError, match=r"pictures\.patch_label"):
        written(placed(), IMAGES._replace(patch_label=MAPS[:1]), tmp_path)
    with pytest.raises(ContractError, match=r"pictures\.patch_attribute`: expected the images"):
        written(placed(), IMAGES._replace(patch=None), tmp_path)
