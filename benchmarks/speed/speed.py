"""Speed of what a user waits for: `python benchmarks/speed/speed.py` (no files needed, about 3 minutes on 2 cores).

Every figure is warm (one call before), blocks until the result is there, and is a median with its range. Where a
figure has something beside it, both are measured in the same process, in turn. Sizes are those of Colored MNIST:
53,000 training rows, 100 features, 10 classes, 500 or 5,000 pairs. The bounds were set before this was first run.
"""

import functools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias import models
from jaxdebias.core import Batch, RepairSets, Split
from jaxdebias.explain import influence
from jaxdebias.measure import group_report
from jaxdebias.mitigate import FmdConfig, erm, fmd
from jaxdebias.results.provenance import device_name, versions
from jaxdebias.train import FitConfig, fit

PATH = Path(__file__).parents[1] / "results" / "speed.json"
N, D, K = 53_000, 100, 10


def seconds(fn: Callable[[], Any], repeats: int) -> list[float]:
    jax.block_until_ready(fn())
    measured = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(fn())
        measured.append(time.perf_counter() - start)
    return measured


def row(what: str, size: str, measured: list[float], *, bound: float | None = None, beside: str = "") -> dict:
    median = statistics.median(measured)
    met = bound is None or median <= bound
    print(
        f"{what} ({size}): {median:.3g} s{'' if bound is None else f', bound {bound} s' + ('' if met else ' MISSED')}"
        f"{', ' + beside if beside else ''}",
        flush=True,
    )
    return {
        "what": what,
        "size": size,
        "median": median,
        "min": min(measured),
        "max": max(measured),
        "repeats": len(measured),
        "bound": "" if bound is None else f"{bound:g} s{'' if met else ', **missed**'}",
        "met": met,
        "beside": beside,
    }


def head_data() -> dict[str, Any]:
    """Features that show the attribute more than the label, and a last layer fitted to them: a biased one."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, K, N, dtype=np.int32)
    attribute = np.where(rng.random(N) < 0.995, label, rng.integers(0, K, N)).astype(np.int32)
    of_label, of_attribute = rng.normal(size=(2, K, D))

    def features(label: np.ndarray, attribute: np.ndarray) -> np.ndarray:
        z = 0.35 * of_label[label] + 1.5 * of_attribute[attribute] + rng.normal(size=(len(label), D))
        return np.maximum(z, 0).astype(np.float32)

    z = features(label, attribute)
    zeros = influence.AffineHead(jnp.zeros((D, K)), jnp.zeros(K))
    fitted, _ = influence.refit(
        influence.head_problem(jnp.asarray(z[:10_000]), label[:10_000], zeros, l2=0.1), tolerance=1e-2
    )
    of_pairs = label[:5_000]
    changed = (of_pairs + rng.integers(1, K, 5_000, dtype=np.int32)) % K
    head = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), fitted)
    return {
        "z": jnp.asarray(z),
        "label": label,
        "head": head,
        "pairs": np.stack([features(of_pairs, of_pairs), features(of_pairs, changed)]),
        "pairs_label": of_pairs,
    }


def influence_rows(data: dict[str, Any]) -> list[dict]:
    problem = influence.head_problem(data["z"], data["label"], data["head"])
    pairs = influence.HeadPairs(*jnp.asarray(data["pairs"][:, :500]), jnp.asarray(data["pairs_label"][:500]))

    def whole() -> Any:
        inverse = influence.factor(problem, damping=1e-3 * N)
        gradient = influence.bias_gradient(influence.pair_bias, data["head"], pairs)
        change = influence.change_if_removed(problem, inverse, gradient)
        return change, inverse.solve(np.asarray(influence.each_pair_gradient(data["head"], pairs))).value

    inverse = influence.factor(problem, damping=1e-3 * N)
    gradient = influence.bias_gradient(influence.pair_bias, data["head"], pairs)
    size = f"n {N:,}, d {D}, k {K}"
    return [
        row("factor, all training scores and 500 pair solves", size, seconds(whole, 5), bound=4.0),
        row(
            "factor of the softmax Hessian",
            size,
            seconds(lambda: influence.factor(problem, damping=1e-3 * N).cholesky, 5),
        ),
        row(
            "scores of all training samples, factor given",
            size,
            seconds(lambda: influence.change_if_removed(problem, inverse, gradient), 5),
            bound=0.2,
        ),
    ]


def edit_row(data: dict[str, Any]) -> dict:
    params = {"params": {"head": {"kernel": data["head"].kernel, "bias": data["head"].bias}}}
    z, pairs, label = np.asarray(data["z"]), data["pairs"], data["pairs_label"]
    attribute = np.zeros(N, np.int32)
    train = Batch(x=z, label=data["label"], attribute=attribute)
    edit = Batch(x=pairs[0], label=label, attribute=attribute[:5_000], twin=pairs[1])
    accept_pairs = jax.tree.map(lambda leaf: leaf[:2_000], edit)
    accept = accept_pairs._replace(x=accept_pairs.twin, twin=None)

    sets = RepairSets(train=train, pairs=edit, accept=accept, accept_pairs=accept_pairs)
    config = FmdConfig(aligned_floor=None)  # without a floor all ten rounds are taken here

    def whole() -> Any:
        edited, info = fmd(jax.random.key(0), SPLIT, params, sets, config)
        return edited, len(info.rounds)

    size = "10,000 curvature rows, 5,000 pairs, 2,000 to accept"
    return row(f"FMD edit, {whole()[1]} rounds", size, seconds(whole, 5), bound=4.0)


SPLIT = Split(
    features=lambda params, x: x,
    head=lambda params, z: z @ params["params"]["head"]["kernel"] + params["params"]["head"]["bias"],
)


def group_row() -> dict:
    rng = np.random.default_rng(0)
    n, k, a = 10_000, 10, 10
    batch = Batch(
        x=np.zeros((n, 1), np.float32),
        label=rng.integers(0, k, n, dtype=np.int32),
        attribute=rng.integers(0, a, n, dtype=np.int32),
    )
    logits = rng.normal(size=(n, k)).astype(np.float32)
    report = functools.partial(group_report, logits, batch, np.eye(k, a, dtype=bool))
    return row(
        "group report",
        "n 10,000, 100 groups",
        seconds(lambda: report().accuracy.value, 5),
        bound=1.0,
    )


def loop_row() -> dict:
    """The training loop against the strongest plain one: a jitted, donated step called from Python, data on device."""
    rng = np.random.default_rng(0)
    n, batch_size, epochs = 20_000, 64, 2
    data = Batch(
        x=rng.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8),
        label=rng.integers(0, 10, n, dtype=np.int32),
        attribute=np.zeros(n, np.int32),
    )
    learner = erm(models.mlp(hidden=(64, 64), classes=10))
    key = jax.random.key(0)
    step = jax.jit(learner.step, donate_argnums=1)
    x, label = jnp.asarray(data.x), jnp.asarray(data.label)
    gather = jax.jit(lambda x, label, index: (x[index], label[index]))

    def plain() -> Any:
        state = learner.init(key, jax.tree.map(lambda leaf: leaf[:1], data))
        for _ in range(epochs):
            order = rng.permutation(n)
            for start in range(0, n - batch_size + 1, batch_size):
                rows = gather(x, label, order[start : start + batch_size])
                state, info = step(key, state, Batch(x=rows[0], label=rows[1], attribute=rows[1]))
        return state, info

    ours = functools.partial(
        fit,
        key,
        learner,
        data,
        FitConfig(epochs=epochs, batch_size=batch_size, drop_last=True, epochs_per_chunk=epochs),
    )
    measured, beside = [], []
    jax.block_until_ready(plain())
    jax.block_until_ready(ours().state)
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(ours().state)
        measured.append(time.perf_counter() - start)
        start = time.perf_counter()
        jax.block_until_ready(plain())
        beside.append(time.perf_counter() - start)
    ratio = statistics.median(beside) / statistics.median(measured)
    beside = f"jitted step called from Python: {statistics.median(beside):.3g} s, {ratio:.1f}x (the compiler's gain)"
    return row(
        "training loop, MLP 768-64-64-10",
        f"{epochs * (n // batch_size)} steps of {batch_size}",
        measured,
        beside=beside,
    )


if __name__ == "__main__":
    data = head_data()
    rows = [*influence_rows(data), edit_row(data), group_row(), loop_row()]
    table = {"device": device_name(), "versions": versions(), "date": time.strftime("%Y-%m-%d"), "rows": rows}
    PATH.parent.mkdir(parents=True, exist_ok=True)
    temporary = PATH.with_suffix(".tmp")
    temporary.write_text(json.dumps(table, indent=1) + "\n")
    os.replace(temporary, PATH)
    raise SystemExit(not all(row["met"] for row in rows))
