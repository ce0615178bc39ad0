"""What a measured number must carry: device, versions and date of measurement."""

import importlib.metadata
import os
import platform
import time
from typing import Any

import jax


def device_name() -> str:
    """The devices that JAX computes on, for instance `cpu x1 (2 cores, x86_64)`."""
    devices = jax.devices()
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


def timing(clock: Clock) -> dict[str, Any]:
    return {"seconds": sum(clock.laps.values()), "seconds_by_step": clock.laps}
