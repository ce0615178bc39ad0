import io
import json
import pathlib
import re

import numpy as np
import pytest
from rich.console import Console

from jaxdebias.reproduce import EXPERIMENTS, Cell, counts, published, summary
from jaxdebias.reproduce._fingerprint import fingerprint
from jaxdebias.reproduce.view import print_reproduced, reproduced_rows
from jaxdebias.results.provenance import provenance
from jaxdebias.results.records import TableResults

ROOT = pathlib.Path(__file__).parents[2]
CODE = [path for folder in ("benchmarks", "jaxdebias") for path in sorted((ROOT / folder).rglob("*.py"))
        if path.name != "published.py"]  # fmt: skip
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def rows(name, accuracy=0.72):
    """Two seeds of every published setting, as of today's experiment."""
    experiment = EXPERIMENTS[name]
    return tuple(
        {"method": row.method, "level": row.level, "seed": seed, "accuracy": accuracy, "bias_aligned_accuracy": 1.0,
         "bias_conflicting_accuracy": accuracy, "seconds": 1.0, "device": "d",
         "fingerprint": fingerprint(experiment, Cell(row.method, row.level, seed), trial=False)}
        for row in published.TABLES[name].rows for seed in (0, 1)
    )  # fmt: skip


@pytest.mark.parametrize("name", published.TABLES)
def test_every_entry_says_where_its_numbers_come_from(name):
    table = published.published(name)
    assert table.name == name
    assert name in EXPERIMENTS
    assert all((table.source, table.variant, table.protocol))
    assert isinstance(table.verified, bool)
    assert len({(row.method, row.level, row.quantity) for row in table.rows}) == len(table.rows)
    assert {row.method for row in table.rows} <= set(EXPERIMENTS[name].methods)
    assert all(row.runs and 0 <= min(row.runs) <= max(row.runs) <= 100 for row in table.rows if row.percent)


@pytest.mark.parametrize("name", [name for name, table in published.TABLES.items() if table.verified])
def test_what_is_not_verified_is_printed_as_such_and_judged_by_nothing(name, monkeypatch):
    """Also in a table that was written when it still counted as verified."""
    table = TableResults(
        command="reproduce", provenance=provenance({}, seed=0), data=name, protocol="p", rows=rows(name)
    )

    def said(table):
        console = Console(file=io.StringIO(), width=200, color_system=None)
        print_reproduced(table, console)
        return " ".join(console.file.getvalue().split())

    means = {f"{np.mean(row.runs):.1f}" for row in published.TABLES[name].rows}
    assert all(mean in said(table) for mean in means)
    assert f"Published: {published.TABLES[name].source}" in said(table)
    assert "unverified" not in said(table)
    monkeypatch.setitem(published.TABLES, name, published.TABLES[name]._replace(verified=False))
    assert {row["verdict"] for row in reproduced_rows(table)} == {"unverified"}
    assert "Published, unverified:" in said(table)
    verdicts = {row["published"]["verdict"] for row in summary(table.rows, EXPERIMENTS[name])}
    assert verdicts == {"unverified"}
    assert set(counts(summary(table.rows, EXPERIMENTS[name]))["d"]) == {"unverified"}


@pytest.mark.parametrize("name", published.TABLES)
def test_nothing_is_cut_short_on_80_columns(name):
    table = TableResults(
        command="reproduce", provenance=provenance({}, seed=0), data=name, protocol="p", rows=rows(name)
    )
    console = Console(file=io.StringIO(), width=80, color_system=None)
    print_reproduced(table, console)
    said = console.file.getvalue()
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= 80
    for row in published.TABLES[name].rows:
        assert row.method in said
        assert f"{np.mean(row.runs):.1f}" in said


def test_committed_tables_show_the_registrys_numbers():
    found = 0
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        table = json.loads(path.read_text())
        if not isinstance(table, dict):
            continue
        for row in table.get("summary") or ():
            if isinstance(row, dict) and row.get("published") is not None:
                runs = (
                    published.published(table["data"])
                    .find(row["method"], row.get("level", row.get("conflicting")))
                    .runs
                )
                assert row["published"]["mean"] == pytest.approx(np.mean(runs)), path.name
                assert row["published"]["deviation"] == pytest.approx(np.std(runs, ddof=1)), path.name
                found += 1
    assert found


def test_numbers_of_papers_stand_nowhere_else():
    """No script, notebook or page has one of its own: a table draws from the registry, prose quotes none."""
    values = {f"{value:.2f}" for table in published.TABLES.values() for row in table.rows for value in row.runs}
    spread = re.compile(r"\d+\.\d+ *(?:±|\+/-|\\pm) *\d")
    for path in CODE:
        text = path.read_text(encoding="utf-8")
        assert not values & set(re.findall(r"(?<![\w.])\d\d\.\d\d(?![\w.])", text)), path
        assert not spread.search(text), path
    for path in NOTEBOOKS:
        cells = ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
        assert not any(spread.search(cell) for cell in cells), path
    for path in PAGES:
        text = re.sub(r"<!-- table: .*?<!-- end -->", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not spread.search(text), path
