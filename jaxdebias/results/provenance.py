"""What a measured number must carry: device, versions, date, seed, arguments and data."""

import datetime
import hashlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping
from typing import Any, cast

import jax
import numpy as np

from jaxdebias.core import Dataset
from jaxdebias.results._plain import plain
from jaxdebias.results.records import Provenance

HASHED_ROWS = 1024
"""Rows of each split whose input is part of the fingerprint; labels and attributes of all rows are."""


def provenance(
    seconds_by_step: Mapping[str, float],
    *,
    seed: int,
    arguments: Any = None,
    data: str | None = None,
    seconds_by_part: Mapping[str, float] | None = None,
) -> Provenance:
    """Provenance of a command that ends now.

    Args:
      seconds_by_step: wall time of its steps, `Clock.laps`.
      seed: of all random draws.
      arguments: options of the command, a dict or a configuration.
      data: fingerprint of the data; None where none were read.
      seconds_by_part: wall time of parts of the steps, by name.
    """
    return Provenance(
        versions=versions(),
        device=device_name(),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds=float(sum(seconds_by_step.values())),
        seconds_by_step={name: float(seconds) for name, seconds in seconds_by_step.items()},
        seconds_by_part={name: float(seconds) for name, seconds in (seconds_by_part or {}).items()},
        seed=int(seed),
        arguments=plain(arguments or {}, "arguments"),
        data=data,
    )


def fingerprint(dataset: Dataset) -> str:
    """Sixteen hexadecimal digits that change with the data: names, labels and attributes of all rows, some inputs."""
    digest = hashlib.sha256(repr((dataset.label_names, dataset.attribute_names)).encode())
    for name, batch in sorted(dataset.splits.items()):
        n = len(batch.label)
        rows = np.unique(np.linspace(0, n - 1, min(n, HASHED_ROWS)).astype(int))
        digest.update(f"{name} {n} {batch.x.shape[1:]} {batch.x.dtype}".encode())
        for array in (batch.label, batch.attribute, batch.x[rows]):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def device_name() -> str:
    """The devices that JAX computes on, for instance `cpu x1 (2 cores, x86_64)`."""
    devices = cast(list[Any], jax.devices())  # pyright: ignore[reportUnknownMemberType]
    kind = devices[0].device_kind
    name = f"{kind} x{len(devices)}"
    if devices[0].platform == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        name += f" ({cores} core{'s' if cores != 1 else ''}, {platform.machine()})"
    return name


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a number."""
    found = {"python": platform.python_version()}
    for package in ("jaxdebias", "jax", "jaxlib", "flax", "optax", "numpy", "scipy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class Clock:
    """Wall time of the steps of a command, in order."""

    def __init__(self):
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now
