"""What the tables share: reading the JSON, cells, sources."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


RESULTS = HERE / "results"


def read(name: str) -> dict[str, Any]:
    table = json.loads((RESULTS / f"{name}.json").read_text())
    made = table.get("provenance", {})  # of `jaxdebias reproduce`; the scripts have these at the top level
    return {**made, "date": made["date"][:10], **table} if made else table


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


# What the tables of repairs measure: their rows in the order of the pages.
METHODS = {
    "erm": "trained (ERM), no repair",
    "fmd ext": "**FMD**, head, `ext`",
    "fmd gradB": "**FMD**, head, `gradB`",
    "fmd ext, no floor": "**FMD**, head, `ext`, no aligned floor",
    "fmd gradB, no floor": "**FMD**, head, `gradB`, no aligned floor",
    "fmd 2 layers ext": "**FMD**, last 2 layers, `ext`, no aligned floor",
    "fmd 2 layers gradB": "**FMD**, last 2 layers, `gradB`, no aligned floor",
    "fmd 3 layers ext": "**FMD**, last 3 layers, `ext`, no aligned floor",
    "fmd 3 layers gradB": "**FMD**, last 3 layers, `gradB`, no aligned floor",
    "dfr l2": "DFR, L2",
    "dfr l1": "DFR, L1, 5 balanced subsamples averaged",
    "refit head": "head refitted, training set joined by the pairs' twins",
    "fine-tune head": "fine-tuning, head",
    "fine-tune 2 layers": "fine-tuning, last 2 layers",
    "fine-tune 3 layers": "fine-tuning, last 3 layers",
    "fine-tune mixing and head": "fine-tuning, channel mixing of layer 1 and head",
    "fine-tune mixing and 2 layers": "fine-tuning, channel mixing of layer 1 and last 2 layers",
    "fine-tune all": "fine-tuning, all layers",
    "self-influence": "self-influence fine-tuning, no attribute",
    "scratch": "from scratch on the held-out samples alone",
    "retrain, counterfactuals": "full retraining, training set joined by its counterfactuals",
    "retrain, recoloured": "full retraining, training set in random colours (ceiling)",
}


def has_summary(name: str) -> bool:
    """A table is shown when its script has come to its end, not while it runs."""
    return (RESULTS / f"{name}.json").exists() and "summary" in read(name)


def parts(name: str, make: Callable[[str], str]) -> str:
    """One table per cell of the results (a share, a data set's option), under its name, and where they come from."""
    if not has_summary(name):
        return "Not measured yet."
    cells = dict.fromkeys(row["cell"] for row in read(name)["summary"])
    return "\n\n".join(f"**{cell} conflicting**\n\n{make(cell)}" for cell in cells) + source(name)


def of_cell(name: str, cell: str) -> list[dict[str, Any]]:
    rows = {row["method"]: row for row in read(name)["summary"] if row["cell"] == cell}
    return [rows[method] for method in (*METHODS, *(m for m in rows if m not in METHODS)) if method in rows]


def mean(cell: dict[str, float]) -> str:
    return f"{100 * cell['value']:.1f}"


def signed(cell: dict[str, float]) -> str:
    return f"{cell['value']:+.2f} ({cell['low']:+.2f} to {cell['high']:+.2f})"


def processor(row: dict[str, Any]) -> str:
    """Median processor time of the first call, all threads together; of training, which has none, wall time."""
    return f"{row['cpu_seconds']['median']:.1f}" if "cpu_seconds" in row else f"{row['seconds']['median']:.1f} wall"


def cost(row: dict[str, Any]) -> list[str]:
    count = row["changed"]["median"]
    changed = f"{count:,.0f}" if count else "none"
    if row.get("free") and row["free"]["median"] < count:
        changed = f"{row['free']['median']:,.0f} free, in {changed}"
    return [changed, f"{row['samples']:,}", row["needs"] or "nothing", processor(row)]


COSTS = ["numbers changed", "held-out samples", "what it needs", "processor seconds"]


def milliseconds(side: dict[str, float]) -> str:
    median, low, high = (
        f"{value:.2f}" if value < 10 else f"{value:.0f}"
        for value in (1e3 * side[name] for name in ("median", "min", "max"))
    )
    return f"{median} ({low}-{high})"
