"""What page and terminal say about who was drawn."""

import numpy as np
import pytest
from report.fake_parts import changed
from report.fake_results import birds
from report.test_page import written
from report.test_tables import printed

from jaxdebias.contracts import ContractError
from jaxdebias.report import Pictures, draw_view
from jaxdebias.results.codec import from_json, to_json
from jaxdebias.results.records import DrawnGroup, DrawnSample, DrawnSet, Draws


def drawn(*, aucs=(0.45, 0.93, 0.5, 0.6), conflicting=0.81, **more):
    cells = [(y, a) for y in range(2) for a in range(2)]
    groups = [
        DrawnGroup(label=y, attribute=a, rows=100, row_share=0.05, draw_share=0.31, auc=auc)
        for (y, a), auc in zip(cells, aucs, strict=True)
    ]
    sample = DrawnSample(index=3, label=0, attribute=1, ratio=4.26)
    together = DrawnSet(rows=240, row_share=0.05, draw_share=0.3, auc=conflicting)
    draws = Draws(
        rows=2000,
        ess=0.2,
        largest=0.004,
        never_drawn=0.41,
        edges=(0.1, 0.5, 1.0, 5.0, 10.0),
        histogram=(0, 1500, 500, 0),
        kl=(0.4, 1.2, 0.0),
        carrying=2,
        epochs=(1, 2, 3),
        ess_by_epoch=(1.0, 0.21, 0.2),
        never_by_epoch=(0.0, 0.4, 0.41),
        groups=tuple(groups),
        conflicting=None if conflicting is None else together,
        rarest=(sample, changed(sample, attribute=-1)),
        commonest=(changed(sample, ratio=0.034),),
    )
    return changed(birds(), draws=changed(draws, **more))


IMAGES = Pictures(
    rare=np.full((2, 16, 16, 3), 90, np.uint8),
    rare_decoded=np.full((2, 16, 16, 3), 80, np.uint8),
    common=np.full((1, 16, 16, 3), 70, np.uint8),
    common_decoded=np.full((1, 16, 16, 3), 60, np.uint8),
)


@pytest.mark.parametrize(
    ("changes", "answer", "says"),
    [
        ({}, "follows", "follow a known group, landbird · on water: 5.0 % of the birds, 31.0 % of the draws."),
        (
            {"aucs": (0.4, 0.6, 0.6, 0.6), "conflicting": 0.69},
            "blind",
            "no known group (AUC at most 0.69; 0.50 is blind)",
        ),
        ({"aucs": (None,) * 4, "conflicting": None}, "unknown", "The data know no groups"),
        ({"ess": 1.0}, "even", "the resampling had not begun"),
        ({"ess": 1.0, "carrying": 0}, "even", "no latent carried anything"),
    ],
)
def test_the_answer_is_on_page_and_terminal(changes, answer, says, tmp_path):
    results = drawn(**changes)
    assert draw_view.answer(results) == answer
    text = written(results, None, tmp_path)[2]
    terminal = " ".join(printed(results).replace("\u202f", " ").replace("\u00a0", " ").split())
    for shown in (text, terminal):
        assert says in shown
        assert "no weight depends on a group" in shown
        assert "2 of 3 latents carry" in shown or changes.get("carrying") == 0


def test_the_section(tmp_path):
    html, outline, text = written(drawn(), IMAGES, tmp_path)
    assert outline.ids.index("draws") == outline.ids.index("confusion") - 1
    section = text[text.index("What the model finds rare") : text.index("What it predicts")]
    part = html[html.index('id="draws"') : html.index('id="confusion"')]
    assert part.count("<img") == 2 * (2 + 1)
    for said in (
        "4.3 ×",
        "0.034 ×",
        "landbird · on water",
        "all bias-conflicting",
        "0.81",
        "worth 20 % of the 2,000 birds",
        "41 % of them are left out",
    ):
        assert said in section
    # Only the bins from the first to the last that has samples.
    assert "0.5–1 ×" in section
    assert "5–10 ×" not in section
    assert "careful" not in part
    html = written(
        drawn(aucs=(0.5,) * 4, conflicting=0.5, epochs=(3,), ess_by_epoch=(0.2,), never_by_epoch=(0.4,)), None, tmp_path
    )[0]
    part = html[html.index('id="draws"') : html.index('id="confusion"')]
    assert "<img" not in part
    assert "Over the epochs" not in part
    assert "note careful" in part


def test_many_groups_are_shown_as_one():
    record = drawn()
    record = changed(record, draws__groups=record.draws.groups * 10)
    assert [row.name for row in draw_view.rows_of(record)] == ["all bias-conflicting"]


def test_wrong_draws_are_named(tmp_path):
    plain = to_json(drawn())
    plain["draws"]["histogram"] = [1, 2]
    with pytest.raises(ContractError, match=r"draws\.histogram"):
        from_json(plain)
    plain = to_json(drawn())
    del plain["draws"]["rarest"][1]["ratio"]
    with pytest.raises(ContractError, match=r"draws\.rarest\[1\]`: expected a key 'ratio'"):
        from_json(plain)
    with pytest.raises(ContractError, match=r"rarest`: expected 2 images and reconstructions"):
        written(
            drawn(),
            IMAGES._replace(rare=np.zeros((3, 4, 4, 3), np.uint8), rare_decoded=np.zeros((3, 4, 4, 3), np.uint8)),
            tmp_path,
        )
