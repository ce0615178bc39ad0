"""Several sides of one measurement: timed in turn in one process, held to bounds, written with what they ran on."""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxdebias.results.provenance import device_name, versions


def in_turn(repeats: int, **sides: Callable[[], Any]) -> dict[str, dict[str, float]]:
    """Seconds of each side, one warm call before."""
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(repeats + 1):
        for name, fn in sides.items():
            start = time.perf_counter()
            jax.block_until_ready(fn())
            if i:
                measured[name].append(time.perf_counter() - start)
    return {name: spread(values) for name, values in measured.items()}


def spread(seconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds), "repeats": len(seconds)}


def row(
    what: str,
    measured: Mapping[str, Mapping[str, float]],
    figures: Mapping[str, float],
    *,
    at_most: Mapping[str, float],
    at_least: Mapping[str, float] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A row of the table, printed: times, figures made of them, and which figures miss their bound."""
    at_least = at_least or {}
    missed = [
        name
        for name, value in figures.items()
        if value > at_most.get(name, float("inf")) or value < at_least.get(name, -float("inf"))
    ]
    times = ", ".join(
        f"{name} {1e3 * side['median']:.2f} ms ({1e3 * side['min']:.2f}-{1e3 * side['max']:.2f})"
        for name, side in measured.items()
    )
    shown = ", ".join(f"{name} {value:.3g}{' MISSED' if name in missed else ''}" for name, value in figures.items())
    print(f"{what}: {times}; {shown}", flush=True)
    return {"what": what, "sides": measured, "figures": figures, "missed": missed, **more}


def write(path: Path, **table: Any) -> None:
    """The table with device, versions and date, whole or not at all."""
    table = {
        "device": device_name(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
        **table,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(table, indent=1) + "\n")
    os.replace(temporary, path)
