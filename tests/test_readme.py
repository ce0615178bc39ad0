"""The README's example runs as it stands."""

import pathlib
import re

import pytest

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.slow
def test_the_example_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it writes a report
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    example, further, cells = (
        next(block for block in blocks if what in block) for what in ("data.digits", "fine_tune_block", "find_cells")
    )
    assert len([line for line in example.splitlines() if line.strip()]) <= 20
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["info"].accepted
    assert names["after"].counterfactual_bias.value < names["before"].counterfactual_bias.value
    assert "Harmful(" in capsys.readouterr().out
    exec(compile(further, "README.md", "exec"), names)
    assert names["change"].shape == (1000,)
    exec(compile(cells, "README.md", "exec"), names)
    assert names["cells"].guess.shape == (1000,)
    assert [part.epoch.tolist() for part in names["runs"]] == [[5], [5], [5]]


def test_its_links_lead_somewhere():
    root = pathlib.Path(__file__).parents[1]
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (root / target).exists(), target
