"""One table: a trained model, its repair by Fast Model Debias, and the honest alternatives, over ratios and seeds.

Each cell runs what the command line runs (`jaxdebias train`, then `jaxdebias debias`). A row is written as soon as
it is measured; a killed table carries on where it stopped, and cells that are there are not run again.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdebias.app.debias import DebiasConfig, debias
from jaxdebias.app.recipes import TrainConfig
from jaxdebias.app.train import train
from jaxdebias.measure import over_seeds
from jaxdebias.results.provenance import device_name, versions

RESULTS = Path(__file__).parents[1] / "results"
RATES = (
    "accuracy",
    "group_mean_accuracy",
    "worst_group_accuracy",
    "bias_aligned_accuracy",
    "bias_conflicting_accuracy",
    "counterfactual_bias",
)


def fill(
    path: Path, cells: Iterable[tuple[float, int]], *, data: str, data_dir: Path | None = None, trap: bool = False
) -> dict[str, Any]:
    """Runs what is missing of `cells` (conflicting share, seed), writing `path` after each; returns the table."""
    table = json.loads(path.read_text()) if path.exists() else {"data": data, "rows": []}
    done = {(row["conflicting"], row["seed"]) for row in table["rows"]}
    missing = [cell for cell in cells if cell not in done]
    for number, (conflicting, seed) in enumerate(missing, 1):
        print(f"{data}: {conflicting:.1%} conflicting, seed {seed} ({number} of {len(missing)})", flush=True)
        table["rows"] += _cell(data, data_dir, conflicting, seed, trap=trap)
        table["device"], table["versions"] = device_name(), versions()
        table["date"] = time.strftime("%Y-%m-%d")
        _write(path, table)
    return table


def _cell(data: str, data_dir: Path | None, conflicting: float, seed: int, *, trap: bool) -> list[dict[str, Any]]:
    rows = []

    def add(method: str, measurement: Mapping[str, Any], seconds: float) -> None:
        rates = {name: None if measurement[name] is None else measurement[name]["value"] for name in RATES}
        rows.append({"method": method, "conflicting": conflicting, "seed": seed, **rates, "seconds": seconds})

    with tempfile.TemporaryDirectory() as folder:
        trained = Path(folder) / "trained"
        said = train(
            TrainConfig(data=data, data_dir=data_dir, options={"conflicting": conflicting}, seed=seed), trained
        )
        add("erm", said["before"], said["seconds_by_step"]["train"])
        said = debias(trained, DebiasConfig(direction="ext", seed=seed), Path(folder) / "ext")
        add("fmd ext", said["after"], said["seconds_by_step"]["edit"])
        for name, baseline in said["baselines"].items():
            add(name, baseline["measurement"], baseline["seconds"])
        said = debias(trained, DebiasConfig(direction="gradB", baselines=False, seed=seed), Path(folder) / "gradB")
        add("fmd gradB", said["after"], said["seconds_by_step"]["edit"])
        if trap:
            config = DebiasConfig(direction="ext", rounds=1, search=False, baselines=False, seed=seed)
            said = debias(trained, config, Path(folder) / "trap")
            add("fmd ext, one step at t = 1", said["after"], said["seconds_by_step"]["edit"])
    return rows


def summary(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per (conflicting share, method): mean and 95 % t-interval over seeds, median and range."""
    rows = []
    keys = dict.fromkeys((row["conflicting"], row["method"]) for row in table["rows"])
    for conflicting, method in keys:
        of_cell = [row for row in table["rows"] if (row["conflicting"], row["method"]) == (conflicting, method)]
        row = {"conflicting": conflicting, "method": method, "seeds": len(of_cell)}
        for name in (*RATES, "seconds"):
            values = np.array([cell[name] for cell in of_cell], float)
            row[name] = {
                "median": float(np.median(values)),
                "min": float(values.min()),
                "max": float(values.max()),
                **over_seeds(values)._asdict(),
            }
        rows.append(row)
    return rows


def verdicts(table: Mapping[str, Any], margins: Iterable[tuple[str, float, str, str, float]]) -> list[dict[str, Any]]:
    """Checks pre-registered margins `(method, conflicting, rate, "<=" or ">=", bound)` on the median over seeds."""
    cells = {(row["method"], row["conflicting"]): row for row in summary(table)}
    said = []
    for method, conflicting, rate, sign, bound in margins:
        if (method, conflicting) not in cells:
            continue
        got = cells[method, conflicting][rate]["median"]
        met = got <= bound if sign == "<=" else got >= bound
        said.append(
            {
                "method": method,
                "conflicting": conflicting,
                "rate": rate,
                "margin": f"{sign} {bound}",
                "median": got,
                "met": bool(met),
            }
        )
    return said


def finish(path: Path, table: dict[str, Any], margins: Iterable[tuple[str, float, str, str, float]]) -> int:
    """Writes summary and verdicts beside the rows, prints the verdicts, returns the number of margins missed."""
    table["summary"], table["margins"] = summary(table), verdicts(table, margins)
    _write(path, table)
    for verdict in table["margins"]:
        print(
            f"{'met   ' if verdict['met'] else 'MISSED'} {verdict['conflicting']:.1%} {verdict['method']}: "
            f"{verdict['rate']} {verdict['margin']}, got {verdict['median']:.3f}"
        )
    return sum(not verdict["met"] for verdict in table["margins"])


def _write(path: Path, table: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(table, indent=1) + "\n")
    os.replace(temporary, path)
