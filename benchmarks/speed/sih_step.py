"""A step and an epoch of Signal is Harder on Colored MNIST, beside PyTorch: `python benchmarks/speed/sih_step.py`.

Both sides compute the same thing from the same arrays: the MLP-VAE of 3.6 million weights, batch 256, Adam, in float32
on the same cores, in one process, in turn. PyTorch is the reimplementation of `tests/oracles/torch_sih.py` with its
fastest Adam on a CPU (for one step, with its default one too). An epoch is 210 shuffled steps of 54,000 digits, loading
included, and the loss of 6,000 held-out digits. Two loaders stand beside ours: PyTorch's `DataLoader` over a data set
of uint8 images, which is how such code is written, and rows gathered from one tensor, which is the fastest there is.
The ratio of one bare matrix product of the decoder's last layer says how much of a step is the libraries' arithmetic.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from jaxdebias import models
from jaxdebias.core import Batch, take
from jaxdebias.data import colored_mnist
from jaxdebias.mitigate import sih, sih_monitor, sih_run_config
from jaxdebias.results.provenance import device_name, versions
from jaxdebias.train import fit

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from oracles.torch_sih import Sih

PATH = Path(__file__).parents[1] / "results" / "sih_step.json"
BATCH, LATENT = 256, 100
BOUNDS = {"step": 2.3, "epoch": 3.0}
"""Least ratios, set before this was first run: of a step, and of an epoch with the DataLoader."""


def in_turn(repeats: int, **sides: Callable[[], float]) -> dict[str, dict[str, float]]:
    """Each side returns its seconds; one warm call before."""
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(repeats + 1):
        for name, fn in sides.items():
            seconds = fn()
            if i:
                measured[name].append(seconds)
    return {
        name: {"median": statistics.median(values), "min": min(values), "max": max(values), "repeats": repeats}
        for name, values in measured.items()
    }


def clock(fn: Callable[[], Any], times: int = 1) -> Callable[[], float]:
    """Seconds of one of `times` calls."""

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(times):
            out = fn()
        jax.block_until_ready(out)
        return (time.perf_counter() - start) / times

    return measure


class Digits(torch.utils.data.Dataset):
    """uint8 images `[n c h w]`, turned to floats one by one."""

    def __init__(self, x: torch.Tensor, label: torch.Tensor):
        self.x, self.label = x, label

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[i].float() / 255, self.label[i]


class Theirs:
    """The PyTorch side."""

    def __init__(self, train: Batch, held_out: Batch, params: Any):
        self.model = Sih()
        self.model.load(params)
        self.adam = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.default_adam = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        (self.x, self.label), self.held_out = self.tensors(train), self.tensors(held_out)
        self.loader = torch.utils.data.DataLoader(Digits(self.x, self.label), BATCH, shuffle=True, drop_last=True)

    @staticmethod
    def tensors(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        x = np.ascontiguousarray(np.asarray(batch.x).transpose(0, 3, 1, 2))
        return torch.tensor(x), torch.tensor(np.asarray(batch.label)).long()

    def step(self, x: torch.Tensor, y: torch.Tensor, adam: torch.optim.Optimizer | None = None) -> torch.Tensor:
        adam = adam or self.adam
        loss = self.model.loss(x, y, torch.randn(len(y), LATENT), torch.randn(len(y), LATENT))
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss.detach()

    def monitored(self) -> float:
        with torch.no_grad():
            zero, total = torch.zeros(1, LATENT), 0.0
            for x, y in zip(*(part.split(1024) for part in self.held_out), strict=True):
                # Mean codes: noise 0.
                total += float(self.model.loss(x.float() / 255, y, zero, zero)) * len(y)
        return total / len(self.held_out[1])

    def epoch(self, *, loader: bool) -> float:
        if loader:
            for x, y in self.loader:
                self.step(x, y)
        else:
            order = torch.randperm(len(self.label))
            for start in range(0, len(order) - BATCH + 1, BATCH):
                rows = order[start : start + BATCH]
                self.step(self.x[rows].float() / 255, self.label[rows])
        return self.monitored()


def measure(data_dir: str | None, *, rows: int, steps: int, repeats: int) -> list[dict[str, Any]]:
    data = colored_mnist(data_dir, conflicting=0.005, held_out=0).splits["train"]._replace(unit=None)
    order = np.random.default_rng(0).permutation(len(data.label))[:rows]
    held_out, train = (take(data, np.sort(part)) for part in np.split(order, [rows // 10]))
    branches = models.mlp_vae()
    learner, monitor, config = sih(branches), sih_monitor(branches), sih_run_config(epochs=1)
    key = jax.random.key(0)
    state = jax.jit(learner.init)(key, train)
    theirs = Theirs(train, held_out, state.variables["params"])

    batch = jax.tree.map(jnp.asarray, take(train, np.arange(BATCH)))
    step, box = jax.jit(learner.step, donate_argnums=1), [jax.tree.map(jnp.copy, state)]
    x, y = theirs.x[:BATCH].float() / 255, theirs.label[:BATCH]

    def ours_step() -> Any:
        box[0], info = step(key, box[0], batch)
        return box[0], info

    def ours_epoch() -> float:
        return fit(key, learner, train, config, state=state, held_out=held_out, monitor=monitor).history[0].seconds

    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=size).astype(np.float32) for size in ((BATCH, 1024), (1024, 2352)))
    product, (a, b), (c, d) = jax.jit(jnp.matmul), map(jnp.asarray, (left, right)), map(torch.tensor, (left, right))
    return [
        row(
            "bare matrix product, 256 x 1024 x 2352",
            in_turn(repeats, ours=clock(lambda: product(a, b), 20), pytorch=clock(lambda: c @ d, 20)),
        ),
        row(
            "one step, batch on the device",
            in_turn(
                repeats,
                ours=clock(ours_step, steps),
                pytorch=clock(lambda: theirs.step(x, y), steps),
                pytorch_default_adam=clock(lambda: theirs.step(x, y, theirs.default_adam), steps),
            ),
            BOUNDS["step"],
        ),
        row(
            f"one epoch, {len(train.label) // BATCH} steps and {len(held_out.label)} held-out rows",
            in_turn(
                max(1, repeats // 2),
                ours=ours_epoch,
                pytorch=clock(lambda: theirs.epoch(loader=True)),
                pytorch_gathered=clock(lambda: theirs.epoch(loader=False)),
            ),
            BOUNDS["epoch"],
        ),
    ]


def row(what: str, measured: dict[str, dict[str, float]], bound: float | None = None) -> dict[str, Any]:
    ratios = {name: side["median"] / measured["ours"]["median"] for name, side in measured.items() if name != "ours"}
    met = bound is None or ratios["pytorch"] >= bound
    times = ", ".join(
        f"{name} {1e3 * side['median']:.1f} ms ({1e3 * side['min']:.1f}-{1e3 * side['max']:.1f})"
        for name, side in measured.items()
    )
    shown = ", ".join(f"{name} / ours {ratio:.2f}" for name, ratio in ratios.items())
    print(f"{what}: {times}; {shown}{'' if met else f', bound {bound} MISSED'}", flush=True)
    return {"what": what, "sides": measured, "ratios": ratios, "bound": bound, "met": met}


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("JAXDEBIAS_DATA"), help="folder with MNIST's four files")
    parser.add_argument("--trial", action="store_true", help="a tenth of the rows, few repeats, nothing written")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    size = {"rows": 6_000, "steps": 5, "repeats": 2} if arguments.trial else {"rows": 60_000, "steps": 20, "repeats": 7}
    rows = measure(arguments.data_dir, **size)
    if not arguments.trial:
        table = {
            "device": device_name(),
            "cores": cores,
            "versions": versions(),
            "torch": torch.__version__,
            "date": time.strftime("%Y-%m-%d"),
            "rows": rows,
        }
        PATH.parent.mkdir(parents=True, exist_ok=True)
        temporary = PATH.with_suffix(".tmp")
        temporary.write_text(json.dumps(table, indent=1) + "\n")
        os.replace(temporary, PATH)
    return arguments.trial or all(row["met"] for row in rows)  # times of tiny shapes say nothing


if __name__ == "__main__":
    raise SystemExit(not main())
