"""The README and the pages of docs/: their examples run as they stand, and their links lead somewhere."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def example(page: str, what: str) -> str:
    """The first example of a page that contains `what`."""
    return next(block for block in examples(page) if what in block)


@pytest.mark.slow
def test_the_readme_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it writes a report
    names: dict = {}
    for block in examples("README.md"):
        assert len([line for line in block.splitlines() if line.strip()]) <= 20
        exec(compile(block, "README.md", "exec"), names)
    assert "What to do?" in capsys.readouterr().out
    assert (tmp_path / "audit" / "report.html").is_file()
    assert [part.epoch.tolist() for part in names["runs"]] == [[5], [5], [5]]


@pytest.mark.slow
def test_the_longer_examples_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(example("docs/your_model.md", "data.digits"), "your_model.md", "exec"), names)
    assert names["info"].accepted
    assert names["after"].counterfactual_bias.value < names["before"].counterfactual_bias.value
    assert "Harmful(" in capsys.readouterr().out
    exec(compile(example("docs/your_model.md", "fine_tune_block"), "your_model.md", "exec"), names)
    assert names["change"].shape == (1000,)
    exec(compile(example("docs/training.md", "find_cells"), "training.md", "exec"), names)
    assert names["cells"].guess.shape == (1000,)
    assert [part.epoch.tolist() for part in names["runs"]] == [[5], [5], [5]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_readme_is_short_enough_to_be_read():
    assert len(README.split()) <= 900
