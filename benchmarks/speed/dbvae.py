"""What DB-VAE's resampling costs: `python benchmarks/speed/dbvae.py`.

Three measurements on random numbers; the values of pixels and latents do not matter for time. (1) Weights of 50,000
rows from 100 latents with 10 bins, by the course notebook's rule, beside the notebook's steps in NumPy: the same
weights, so the ratio is the program's. Our own default rule is beside them. (2) All draws of an epoch of 200,000 rows,
beside NumPy's `choice` without replacement once per batch of 64, as in the notebook; that one pass over the rows takes
the place of a pass per batch is the algorithm's gain. The systematic draws come in order and are shuffled like any
epoch; with that shuffle, which a plain epoch pays too, is a side of its own. (3) The share of an epoch that the
resampling takes in a real run: faces of 48 x 48, whole epochs as the training loop runs them, with and without
resampling, in turn; with codes of the steps (stale) too.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from side_by_side import in_turn, row, write

from jaxdebias.core import Batch
from jaxdebias.mitigate import DbVaeConfig, RarityConfig, dbvae, latent_weights
from jaxdebias.mitigate._dbvae.blocks import within_blocks
from jaxdebias.mitigate._dbvae.histograms import fit_histograms, log_rarity
from jaxdebias.models import vae_classifier
from jaxdebias.train import FitConfig, Optimizer, fit
from jaxdebias.train.draws import distinct_rows, independent_rows, systematic_rows

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from oracles.latent_rules import lab_weights

PATH = Path(__file__).parents[1] / "results" / "dbvae_speed.json"
AT_MOST = {"weights / NumPy": 0.5, "draws / NumPy": 0.01, "share of an epoch": 0.25, "share of an epoch, stale": 0.02}
"""Set before this was first run."""
of_bounds = functools.partial(row, at_most=AT_MOST)


@jax.jit
def notebook_rule(mean: jax.Array) -> jax.Array:
    block = jnp.zeros(mean.shape[0], jnp.int32)
    histograms = fit_histograms(mean, block, bins=10)
    log_weight = log_rarity(histograms, mean, block, alpha=0.001, rule="max", alpha_kind="density_renorm")
    return within_blocks(log_weight, block, jnp.ones(1))


def weights(repeats: int, *, n: int, latents: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(n, latents)).astype(np.float32)
    on_device, label = jnp.asarray(mean), jnp.asarray(rng.integers(0, 2, n), jnp.int32)
    log_variance = jnp.zeros_like(on_device)
    config = RarityConfig()
    measured = in_turn(
        repeats,
        ours=lambda: notebook_rule(on_device),
        numpy=lambda: lab_weights(mean),
        default_rule=lambda: latent_weights(on_device, log_variance, label, config, classes=2),
    )
    wanted = lab_weights(mean.astype(np.float64))
    off = float(np.max(np.abs(np.asarray(notebook_rule(on_device)) / wanted - 1)))
    return of_bounds(
        f"weights, {n} rows, {latents} latents, 10 bins",
        measured,
        {
            "weights / NumPy": measured["ours"]["median"] / measured["numpy"]["median"],
            "default rule / NumPy": measured["default_rule"]["median"] / measured["numpy"]["median"],
        },
        largest_relative_difference=off,
    )


def draws(repeats: int, *, n: int, batch: int, numpy_batches: int) -> dict[str, Any]:
    """NumPy's side is timed for some batches and scaled up to an epoch: every batch costs the same."""
    rng, key = np.random.default_rng(0), jax.random.key(0)
    weight = rng.gamma(0.5, size=n)
    weight /= weight.sum()
    on_device, steps = jnp.asarray(weight, jnp.float32), n // batch

    def numpy() -> None:
        for _ in range(numpy_batches):
            rng.choice(n, size=batch, replace=False, p=weight)

    @jax.jit
    def shuffled(weight: jax.Array) -> jax.Array:
        return jax.random.permutation(key, systematic_rows(key, weight, count=n))

    measured = in_turn(
        repeats,
        systematic=lambda: systematic_rows(key, on_device, count=n),
        shuffled=lambda: shuffled(on_device),
        independent=lambda: independent_rows(key, on_device, count=n),
        distinct_batch=lambda: distinct_rows(key, on_device, count=batch),
        numpy_part=numpy,
    )
    for name, factor in (("numpy_part", steps / numpy_batches), ("distinct_batch", steps)):
        side = measured.pop(name)
        measured[name.split("_")[0] + "_epoch"] = {
            stat: value if stat == "repeats" else value * factor for stat, value in side.items()
        }
    base = measured["numpy_epoch"]["median"]
    return of_bounds(
        f"draws of an epoch, {n} rows, batches of {batch}",
        measured,
        {
            "draws / NumPy": measured["systematic"]["median"] / base,
            "draws and shuffle / NumPy": measured["shuffled"]["median"] / base,
            "independent / NumPy": measured["independent"]["median"] / base,
            "distinct per batch / NumPy": measured["distinct_epoch"]["median"] / base,
        },
    )


def epochs(repeats: int, *, n: int, side: int, batch: int) -> dict[str, Any]:
    """Each call is a run of one epoch from a state whose warm-up is over; the runs differ in the learner alone."""
    rng = np.random.default_rng(0)
    data = Batch(
        rng.integers(0, 256, (n, side, side, 1)).astype(np.uint8),
        rng.integers(0, 2, n).astype(np.int32),
        np.zeros(n, np.int32),
    )
    model, optimizer = vae_classifier(image=(side, side, 1), classes=2, latent=16), Optimizer(learning_rate=1e-3)
    key, config = jax.random.key(0), FitConfig(epochs=1, batch_size=batch, draws="systematic")

    def epoch(settings: DbVaeConfig) -> Callable[[], Any]:
        learner = dbvae(model, settings, optimizer, rows=n)
        state = learner.init(key, data)
        state = state._replace(seen=jnp.int32(100 * n))
        if state.remembered is not None:
            codes = jnp.asarray(rng.normal(size=(n, 16)), jnp.float32)
            state = state._replace(remembered=state.remembered._replace(mean=codes, kl=jnp.ones(16)))
        return functools.partial(fit, key, learner, data, config, state=state)

    def timed(settings: DbVaeConfig) -> Callable[[], Any]:
        once = epoch(settings)
        return lambda: once().state

    measured = in_turn(
        repeats,
        uniform=timed(DbVaeConfig(sampling="uniform")),
        resampled=timed(DbVaeConfig()),
        stale=timed(DbVaeConfig(stale=True)),
    )
    # What an epoch with resampling has on top; rows drawn twice cost no more than others.
    median = {name: one["median"] for name, one in measured.items()}
    return of_bounds(
        f"an epoch, {n} images of {side} x {side}, batch {batch}",
        measured,
        {
            "share of an epoch": 1 - median["uniform"] / median["resampled"],
            "share of an epoch, stale": 1 - median["uniform"] / median["stale"],
        },
    )


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--trial", action="store_true", help="few rows, two repeats, nothing written")
    parser.add_argument("--only", choices=("weights", "draws", "epochs"), help="one measurement, nothing written")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[], dict[str, Any]]] = {}
    if arguments.trial:
        parts["weights"] = functools.partial(weights, 2, n=5_000, latents=20)
        parts["draws"] = functools.partial(draws, 2, n=20_000, batch=64, numpy_batches=4)
        parts["epochs"] = functools.partial(epochs, 2, n=256, side=16, batch=64)
    else:
        repeats = max(5, arguments.repeats)
        parts["weights"] = functools.partial(weights, repeats, n=50_000, latents=100)
        parts["draws"] = functools.partial(draws, repeats, n=200_000, batch=64, numpy_batches=16)
        parts["epochs"] = functools.partial(epochs, repeats, n=4_000, side=48, batch=64)
    rows = [part() for name, part in parts.items() if arguments.only in (None, name)]
    if not (arguments.trial or arguments.only):
        write(PATH, at_most=AT_MOST, rows=rows)
    return arguments.trial or not any(one["missed"] for one in rows)  # times of tiny shapes say nothing


if __name__ == "__main__":
    raise SystemExit(not main())
