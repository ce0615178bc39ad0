"""Writes the measured tables into README.md and benchmarks/README.md from the JSON in benchmarks/results.

`python benchmarks/tables.py` rewrites what stands between `<!-- table: NAME -->` and `<!-- end -->`;
with `--check` it changes nothing and exits with 1 where a page has drifted from the JSON.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGES = (HERE.parent / "README.md", HERE / "README.md")
NAMES = {
    "erm": "trained (ERM), no repair", "fmd ext": "**FMD**, direction `ext`", "fmd gradB": "**FMD**, direction `gradB`",
    "fmd ext, one step at t = 1": "FMD, one step at t = 1 (the trap)", "dfr": "DFR (last layer refitted)",
    "fine_tune": "fine-tuning, all layers", "scratch": "from scratch on the held-out digits alone",
}


def read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "| --- |" + " ---: |" * (len(columns) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def percent(cell: dict[str, float]) -> str:
    """Mean over seeds with its 95 % t-interval, which is cut where a share ends."""
    return f"{100 * cell['value']:.1f} ({100 * max(cell['low'], 0):.1f}–{100 * min(cell['high'], 1):.1f})"


def fraction(cell: dict[str, float]) -> str:
    return f"{cell['value']:.3f} ({max(cell['low'], 0):.3f}–{cell['high']:.3f})"


def source(name: str) -> str:
    table = read(name)
    stack = ", ".join(f"{package} {table['versions'][package]}" for package in ("jax", "flax", "python"))
    return f"\n\n[{name}.json]({{root}}results/{name}.json); {table['device']}; {stack}; {table['date']}."


def repair(name: str, conflicting: float) -> str:
    rows = [row for row in read(name)["summary"] if row["conflicting"] == conflicting]
    rates = ("accuracy", "bias_conflicting_accuracy", "bias_aligned_accuracy")
    cells = [[NAMES.get(row["method"], row["method"]), *(percent(row[rate]) for rate in rates),
              fraction(row["counterfactual_bias"]), f"{row['seconds']['median']:.1f}"] for row in rows]
    head = ["method", "accuracy %", "conflicting %", "aligned %", "counterfactual bias", "seconds"]
    return markdown(head, cells)


def digits() -> str:
    return repair("fmd_digits", 0.02) + source("fmd_digits")


def colored_mnist() -> str:
    parts = []
    for ratio in (0.005, 0.01, 0.02):
        parts.append(f"**{ratio:.1%} conflicting**\n\n{repair('fmd_colored_mnist', ratio)}")
    return "\n\n".join(parts) + source("fmd_colored_mnist")


def vanilla() -> str:
    rows = [[f"{row['conflicting']:.1%}", f"{row['value']:.2f} ({row['low']:.2f}–{row['high']:.2f})",
             f"{row['published_mean']:.2f} ± {row['published_std']:.2f}", "yes" if row["met"] else "**no**"]
            for row in read("vanilla_colored_mnist")["summary"]]
    head = ["conflicting", "ours %", "published %", "within 2 deviations"]
    return markdown(head, rows) + source("vanilla_colored_mnist")


def speed() -> str:
    rows = [[row["what"], row["size"], f"{row['median']:.3g} s", f"{row['min']:.3g}–{row['max']:.3g} s",
             row.get("bound", ""), row.get("beside", "")] for row in read("speed")["rows"]]
    head = ["what", "size", "median, warm", "range", "asked", "beside it"]
    return markdown(head, rows) + source("speed")


TABLES: dict[str, Callable[[], str]] = {
    "digits": digits, "colored-mnist": colored_mnist, "vanilla": vanilla, "speed": speed}


def render(page: Path) -> str:
    root = "" if page.parent == HERE else "benchmarks/"

    def table(match: re.Match) -> str:
        return f"<!-- table: {match[1]} -->\n{TABLES[match[1]]().replace('{root}', root)}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w-]+) -->.*?<!-- end -->", table, page.read_text(), flags=re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 where a page has drifted")
    arguments = parser.parse_args()
    drifted = 0
    for page in PAGES:
        new = render(page)
        if new == page.read_text():
            continue
        drifted += 1
        if arguments.check:
            print(f"{page}: drifted from benchmarks/results, run `python benchmarks/tables.py`")
        else:
            page.write_text(new)
            print(f"{page}: rewritten")
    return int(arguments.check and drifted > 0)


if __name__ == "__main__":
    sys.exit(main())
