"""The table of methods: every method follows the signature of its kind, and the guide shows the table."""

import inspect
from pathlib import Path

import pytest

from jaxdebias import mitigate
from jaxdebias.mitigate._methods import METHODS, NEEDS, REPAIRS, TRAINING, choices, help_text, markdown_table

GUIDE = Path(__file__).parents[2] / "docs" / "which_method.md"
SIGNATURES = {
    "training": (["network", "config", "optimizer"], ["augment", "rows", "groups"]),
    "trainings": (["key", "network", "data", "config", "optimizer"], ["augment"]),
    "wrapper": (["learner"], []),
    "repair": (["key", "model", "params", "sets", "config"], ["batch_size"]),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_signature_of_its_kind(name):
    method = METHODS[name]
    parameters = inspect.signature(method.build).parameters.values()
    positional = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    keywords = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    first, named = SIGNATURES[method.kind]
    assert positional[: len(first)] == first
    assert method.kind == "wrapper" or positional == first
    assert set(named) <= set(keywords)
    assert all(one.default is not one.empty for one in parameters if one.kind is one.KEYWORD_ONLY)


@pytest.mark.parametrize("name", METHODS)
def test_a_row_names_a_public_function_and_known_needs(name):
    method = METHODS[name]
    assert getattr(mitigate, method.build.__name__) is method.build
    assert set(method.needs) <= set(NEEDS)
    assert method.help
    assert method.help == method.help.strip()
    assert not method.help.endswith(".")


def test_training_and_repairs_are_all_methods_and_help_names_those_that_are_offered():
    assert {**TRAINING, **REPAIRS} == METHODS
    for table in (TRAINING, REPAIRS):
        assert [line.partition(":")[0] for line in help_text(table).split("; ")] == list(choices(table))


def test_the_guide_shows_the_table():
    begin, end = "<!-- methods -->\n", "<!-- /methods -->"
    text = GUIDE.read_text()
    assert text.partition(begin)[2].partition(end)[0] == markdown_table(), "docs/which_method.md is not current"
