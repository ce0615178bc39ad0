"""Influence of every training sample beside other libraries: `python benchmarks/speed/influence_peers.py`.

One problem for all: a softmax head (d = 100, k = 10, with bias, p = 1,010) on fixed features of n samples, and
m right-hand sides, the loss gradients of m held-out samples. Asked is the matrix [n m] of

    g_i . (H + damping I)^-1 g_j,     H the Hessian of the SUM of losses, damping = 1e-3 n.

Whoever takes the mean of the losses is given damping / n, and the scores are divided by n; `convention` in the JSON
says so for each. `exact` is false for a method that does not solve this problem but a cheaper one near it; its
agreement is then its error. Agreement is with the same formula in float64 NumPy, written independently.

Beside the libraries stand two that a good programmer would write: the same closed form in chunked PyTorch (what is left
of the ratio there is the compiler), and PyTorch's `torch.func.hessian` with `vmap(grad)` (the ratio of those two is the
algorithm: one Gram matrix and no gradient per sample). All run in one process, in turn, the order reversed every other
time, two threads each on two cores, after one warm call. A method whose warm call takes longer than `--patience` is
measured by that call alone (`repeats` 1). Libraries that do not import are listed as not installed.

    pip install jaxdebias pydvl dattri kronfluence torch     # each is optional; PyTorch is needed for all but ours
    python benchmarks/speed/influence_peers.py --sizes 5300 53000
"""

import argparse
import contextlib
import functools
import importlib
import importlib.metadata
import io
import json
import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from influence_peer_methods import (
    METHODS,
    RIGHT_HAND_SIDES,
    D,
    K,
    TooLargeError,
    array,
    reference,
    setting,
)
from scipy import stats

from jaxdebias.results.provenance import device_name, versions

PATH = Path(__file__).parents[1] / "results" / "influence_peers.json"


def agreement(got: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Pearson and Spearman are the least over the columns (Spearman over the first ten, it sorts)."""
    pearson = [np.corrcoef(got[:, j], wanted[:, j])[0, 1] for j in range(wanted.shape[1])]
    spearman = [stats.spearmanr(got[:, j], wanted[:, j])[0] for j in range(min(10, wanted.shape[1]))]
    return {
        "pearson": float(np.min(pearson)),
        "spearman": float(np.min(spearman)),
        "max_relative_difference": float(np.abs(got - wanted).max() / np.abs(wanted).max()),
    }


def quietly(call: Callable[[], Any]) -> tuple[Any, float]:
    """Result and seconds; what a library prints meanwhile is dropped."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        start = time.perf_counter()
        result = call()
        return result, time.perf_counter() - start


def spread(measured: list[float]) -> dict[str, float]:
    return {"median": statistics.median(measured), "min": min(measured), "max": max(measured)}


def measure(n: int, names: list[str], repeats: int, patience: float) -> tuple[list[dict], list[str]]:
    s = setting(n)
    wanted, methods, skipped = reference(s), {}, []
    for name in names:
        build, module = METHODS[name]
        if module is not None:
            try:
                importlib.import_module(module)
            except ImportError as error:
                skipped.append(f"{name}: not installed ({error})")
                continue
        try:
            methods[name] = build(s)
        except TooLargeError as error:
            skipped.append(f"{name}, n {n:,}: {error}")

    seconds: dict[Any, dict[str, list[float]]] = {what: {} for what in ("factor", *RIGHT_HAND_SIDES)}
    agreed: dict[tuple[str, int], dict[str, float]] = {}

    def call(name: str, check: bool = False) -> dict[Any, float]:
        method, took = methods[name], {}
        state, took["factor"] = quietly(method.factor)
        for m in RIGHT_HAND_SIDES:
            scores, took[m] = quietly(functools.partial(lambda m: array(method.scores(state, m)), m))
            if check:
                agreed[name, m] = agreement(scores, wanted[:, :m])
        return took

    def keep(name: str, took: dict[Any, float]) -> None:
        for what, value in took.items():
            seconds[what].setdefault(name, []).append(value)

    repeated = []
    for name in methods:
        took = call(name, check=True)
        print(f"n {n:,}: {methods[name].name}: warm call {sum(took.values()):.2f} s, {agreed[name, 10]}", flush=True)
        if sum(took.values()) > patience and name != "jaxdebias":
            keep(name, took)
        else:
            repeated.append(name)
    for turn in range(repeats):
        for name in repeated if turn % 2 == 0 else repeated[::-1]:
            keep(name, call(name))

    rows = []
    for name, method in methods.items():
        for m in RIGHT_HAND_SIDES:
            totals = [a + b for a, b in zip(seconds["factor"][name], seconds[m][name], strict=True)]
            base = [a + b for a, b in zip(seconds["factor"]["jaxdebias"], seconds[m]["jaxdebias"], strict=True)]
            rows.append(
                {
                    "method": method.name,
                    "n": n,
                    "d": D,
                    "k": K,
                    "m": m,
                    "exact": method.exact,
                    "convention": method.convention,
                    "note": method.note,
                    "repeats": len(totals),
                    "factor": spread(seconds["factor"][name]),
                    "scores": spread(seconds[m][name]),
                    "total": spread(totals),
                    "ratio": statistics.median(totals) / statistics.median(base),
                    "agreement": agreed[name, m],
                }
            )
    return rows, skipped


def shares(rows: list[dict]) -> list[dict]:
    """How much of the gain over `torch.func` is the algorithm and how much the compiler, at each n and m."""
    at = {(row["method"], row["n"], row["m"]): row["total"]["median"] for row in rows}
    out = []
    for n, m in sorted({(row["n"], row["m"]) for row in rows}):
        functional, by_hand = at.get(("PyTorch torch.func", n, m)), at.get(("PyTorch by hand, same closed form", n, m))
        if functional and by_hand:
            out.append({"n": n, "m": m, "algorithm": functional / by_hand, "compiler": by_hand / at["jaxdebias", n, m]})
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_300, 53_000])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--patience", type=float, default=20.0, help="seconds beyond which the warm call counts")
    parser.add_argument("--out", type=Path, default=PATH)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
    names = ["jaxdebias", *(name for name in arguments.methods if name != "jaxdebias")]  # the ratios need ours
    rows, skipped, load = [], [], [os.getloadavg()[0]]
    for n in arguments.sizes:
        of_size, missing = measure(n, names, arguments.repeats, arguments.patience)
        rows, skipped = rows + of_size, skipped + missing
        load.append(os.getloadavg()[0])
    packages = dict(versions())
    for package in ("torch", "pyDVL", "dattri", "kronfluence"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[package] = importlib.metadata.version(package)
    table = {
        "device": device_name(),
        "versions": packages,
        "date": time.strftime("%Y-%m-%d"),
        "load": load,
        "rows": rows,
        "shares": shares(rows),
        "skipped": skipped,
    }
    temporary = arguments.out.with_suffix(".tmp")
    temporary.write_text(json.dumps(table, indent=1) + "\n")
    os.replace(temporary, arguments.out)
    for row in rows:
        print(
            f"n {row['n']:>6,} m {row['m']:>3}  {row['method']:<36} {row['total']['median']:8.3f} s "
            f"{row['ratio']:7.2f}x  Pearson {row['agreement']['pearson']:.6f}"
        )
    print(
        "\n".join(
            [
                *(
                    f"n {row['n']:,}, m {row['m']}: algorithm {row['algorithm']:.1f}x, compiler {row['compiler']:.1f}x"
                    for row in table["shares"]
                ),
                *skipped,
            ]
        )
    )


if __name__ == "__main__":
    main()
