"""Every notebook of the folder runs from top to bottom, without a download, and is small."""

import json
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells_of(path, kind="code"):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def python_of(cell):
    """The cell's text without the commands that only a notebook knows (`%pip ...`, `!ls`)."""
    return "".join("\n" if line.lstrip().startswith(("%", "!")) else line for line in cell["source"])


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_installs_first_and_is_small(path):
    cells = cells_of(path)
    assert "pip install" in "".join(cells[0]["source"])
    for cell in cells:
        compile(python_of(cell), path.name, "exec")
        assert not any(output["output_type"] == "error" for output in cell["outputs"])
    assert len(cells_of(path, "markdown")) >= 3
    assert path.stat().st_size < 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: plt.close("all"))
    names = {"__name__": "__main__"}
    for number, cell in enumerate(cells_of(path), 1):
        exec(compile(python_of(cell), f"{path.name}, code cell {number}", "exec"), names)
