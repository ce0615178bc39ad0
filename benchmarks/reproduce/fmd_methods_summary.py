"""What the rows of an FMD table say: means over seeds and margins."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from fmd_table import RATES as ACCURACIES
from fmd_table import _write

from jaxdebias.core import Dataset, Params
from jaxdebias.measure import over_seeds

REPEATED = 10.0
"""Seconds: quicker methods are called a second time, for the time without compilation."""
RATES = (*ACCURACIES, "group_gap")
GAINS = {"accuracy_gain": "accuracy", "conflicting_gain": "bias_conflicting_accuracy"}
"""Against the trained model of the same seed."""
Margin = tuple[str, str, str, str, float]
"""(cell, method, rate, "<=" or ">=", bound), asked of the median over seeds."""


def group_gap(logits: np.ndarray, dataset: Dataset) -> float:
    """Mean probability of the true class over the aligned groups of the test split, less that over the conflicting.

    Signed; every group has the same weight.
    """
    test = dataset.splits["test"]
    label, attribute = np.asarray(test.label), np.asarray(test.attribute)
    probability = np.asarray(jax.nn.softmax(logits, axis=1))[np.arange(len(label)), label]
    means = np.full(dataset.aligned.shape, np.nan)
    for y, a in np.ndindex(*means.shape):
        member = (label == y) & (attribute == a)
        if member.any():
            means[y, a] = probability[member].mean()
    return float(np.nanmean(means[dataset.aligned]) - np.nanmean(means[~dataset.aligned]))


def changed(before: Params, after: Params) -> dict[str, float]:
    """How many numbers of the parameters differ, and which share of them."""
    leaves = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    count = sum(int(np.count_nonzero(np.asarray(a) != np.asarray(b))) for a, b in leaves)
    return {"changed": count, "changed_share": count / sum(int(np.size(a)) for a, _ in leaves)}


def summary(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per (cell, method): mean and 95 % t-interval over seeds, median and range."""
    erm = {(row["cell"], row["seed"]): row for row in table["rows"] if row["method"] == "erm"}
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in table["rows"]:
        before = erm[row["cell"], row["seed"]]
        gains = {name: row[rate] - before[rate] for name, rate in GAINS.items()}
        cells.setdefault((row["cell"], row["method"]), []).append({**row, **gains})
    rows = []
    for (cell, method), of_cell in cells.items():
        first = of_cell[0]
        row = {
            "cell": cell,
            "method": method,
            "seeds": len(of_cell),
            "needs": first["needs"],
            "samples": first["samples"],
        }
        for name in (
            *RATES,
            *GAINS,
            "changed",
            "changed_share",
            "free",
            "seconds",
            "seconds_warm",
            "cpu_seconds",
            "aligned_share",
        ):
            every = [one.get(name, one["info"].get(name)) for one in of_cell]
            values = np.array([value for value in every if value is not None], float)
            if len(values) == len(of_cell):
                row[name] = {
                    "median": float(np.median(values)),
                    "min": float(values.min()),
                    "max": float(values.max()),
                    **over_seeds(values)._asdict(),
                }
        rows.append(row)
    return rows


def verdicts(rows: Sequence[Mapping[str, Any]], margins: Iterable[Margin]) -> list[dict[str, Any]]:
    """Checks margins that were fixed beforehand on the medians over seeds."""
    cells, found = {(row["cell"], row["method"]): row for row in rows}, []
    for cell, method, rate, sign, bound in margins:
        if (cell, method) in cells:
            got = cells[cell, method][rate]["median"]
            met = got <= bound if sign == "<=" else got >= bound
            found.append(
                {
                    "cell": cell,
                    "method": method,
                    "rate": rate,
                    "margin": f"{sign} {bound}",
                    "median": got,
                    "met": bool(met),
                }
            )
    return found


def finish(path: Path, margins: Iterable[Margin]) -> int:
    """Writes summary, verdicts and device beside the rows, prints the verdicts, returns how many margins were missed.

    Tables are made of the summary: a run in progress does not change them.
    """
    table = json.loads(path.read_text())
    table["summary"] = summary(table)
    table["margins"] = verdicts(table["summary"], margins)
    table.update(table["measured_on"])
    _write(path, table)
    for verdict in table["margins"]:
        print(
            f"{'met   ' if verdict['met'] else 'MISSED'} {verdict['cell']} {verdict['method']}: {verdict['rate']} "
            f"{verdict['margin']}, got {verdict['median']:.3f}"
        )
    return sum(not verdict["met"] for verdict in table["margins"])
