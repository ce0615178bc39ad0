import dataclasses
import io
import json
import pathlib
import re

import numpy as np
import pytest
from rich.console import Console

from jaxdebias.reproduce import published, summary
from jaxdebias.reproduce.view import print_reproduced, reproduced_rows
from jaxdebias.results.provenance import provenance
from jaxdebias.results.records import TableResults

ROOT = pathlib.Path(__file__).parents[2]
CODE = [path for folder in ("benchmarks", "jaxdebias") for path in sorted((ROOT / folder).rglob("*.py"))
        if path.name != "published.py"]  # fmt: skip
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def rows(data, accuracy=0.72):
    return [{"method": row.method, "conflicting": row.conflicting, "seed": seed, "accuracy": accuracy,
             "bias_aligned_accuracy": 1.0, "bias_conflicting_accuracy": accuracy, "seconds": 1.0}
            for row in published.TABLES[data].rows for seed in (0, 1)]  # fmt: skip


@pytest.mark.parametrize("data", published.TABLES)
def test_every_entry_says_where_its_numbers_come_from(data):
    table = published.published(data)
    assert table.data == data
    assert all((table.source, table.variant, table.protocol))
    assert isinstance(table.verified, bool)
    assert len({(row.method, row.conflicting) for row in table.rows}) == len(table.rows)
    assert all(0 < row.conflicting < 1 and row.runs and 0 <= min(row.runs) <= max(row.runs) <= 100
               for row in table.rows)  # fmt: skip


@pytest.mark.parametrize("data", published.TABLES)
def test_what_is_not_verified_is_never_printed(data, monkeypatch):
    """Not by a table that is made now, and not by one that was written when it still counted as verified."""
    old = TableResults(
        command="reproduce",
        provenance=provenance({}, seed=0),
        data=data,
        protocol="p",
        rows=(),
        summary=tuple(summary(rows(data), data)),
    )
    means = {f"{np.mean(row.runs):.1f}" for row in published.TABLES[data].rows}

    def said(table):
        console = Console(file=io.StringIO(), width=200, color_system=None)
        print_reproduced(table, console)
        return console.file.getvalue()

    assert all(mean in said(old) for mean in means)
    assert published.TABLES[data].source in said(old)
    monkeypatch.setitem(published.TABLES, data, published.TABLES[data]._replace(verified=False))
    new = dataclasses.replace(old, summary=tuple(summary(rows(data), data)))
    assert all(row["published"] is None for row in new.summary)
    for table in (old, new):
        assert {row["published"] for row in reproduced_rows(table)} == {"–"}
        assert {row["verdict"] for row in reproduced_rows(table)} == {""}
        assert not any(re.search(rf"\b{re.escape(mean)} ±", said(table)) for mean in means)
        assert "Published rows could not be checked" in " ".join(said(table).split())


def test_a_table_fits_into_a_terminal_of_80_columns():
    made = tuple(summary(rows("colored_mnist"), "colored_mnist"))
    table = TableResults(
        command="reproduce",
        provenance=provenance({}, seed=0),
        data="colored_mnist",
        protocol="p",
        rows=(),
        summary=made,
    )
    console = Console(file=io.StringIO(), width=80, color_system=None)
    print_reproduced(table, console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    for row in reproduced_rows(table):
        assert any(all(row[key] in line for key in ("method", "share", "accuracy")) for line in lines)
        assert any(all(row[key] in line for key in ("method", "share", "conflicting", "aligned")) for line in lines)


def test_committed_tables_show_the_registrys_numbers():
    found = 0
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        table = json.loads(path.read_text())
        if not isinstance(table, dict):
            continue
        for row in table.get("summary") or ():
            if isinstance(row, dict) and row.get("published") is not None:
                runs = published.published(table["data"]).find(row["method"], row["conflicting"]).runs
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
