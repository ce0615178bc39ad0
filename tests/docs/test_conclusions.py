"""The page "What can be concluded" is written by its script, and its answers are those that the simulations allow."""

import importlib.util
import pathlib

import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"
EXPECTED = {
    "No problem found": ("no_problem_found", "no_sign"),
    "Not enough data": ("not_enough_data", "no_sign"),
    "A disparity, and no shortcut": ("disparity_cause_not_shown", "cannot_tell"),
    "A lean with open rivals": ("disparity_cause_not_shown", "consistent"),
    "The same, as a plain sample": ("disparity_cause_not_shown", "consistent"),
    "Reliance, values assigned": ("reliance_retrain", "shown_given"),
    "Reliance, a plain sample": ("reliance_retrain", "shown_given"),
    "The same reliance, missed": ("disparity_cause_not_shown", "consistent"),
    "Reliance, rows picked": ("disparity_cause_not_shown", "consistent"),
    "Reliance, shown by twins": ("reliance_retrain", "shown"),
    "Training unknown": ("not_enough_data", "cannot_tell"),
    "A score in ten steps": ("disparity_cause_not_shown", "consistent"),
    "A score beyond its inputs": ("reliance_retrain", "shown_given"),
}
"""Title -> state of the advice, and of the reliance that comes first."""


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("conclusions", DOCS / "conclusions.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_every_state_has_an_example(script):
    assert [example.title for example in script.EXAMPLES] == list(EXPECTED)
    advised, relied = zip(*EXPECTED.values(), strict=True)
    assert set(relied) == {"shown", "shown_given", "consistent", "no_sign", "cannot_tell"}
    assert set(advised) == {"no_problem_found", "not_enough_data", "disparity_cause_not_shown", "reliance_retrain"}
    page = script.PAGE.read_text(encoding="utf-8")
    for example in script.EXAMPLES:
        assert f"## {example.title}" in page
        assert script.source(example.make) in page


@pytest.mark.slow
@pytest.mark.parametrize("title", EXPECTED)
def test_the_answer_is_what_the_simulation_allows(script, title):
    example = next(one for one in script.EXAMPLES if one.title == title)
    verdict = example.make().verdict
    assert (verdict.advice.state, verdict.reliance[0].state) == EXPECTED[title]
    assert verdict.headline in script.PAGE.read_text(encoding="utf-8")
