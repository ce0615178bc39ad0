"""All overlapping patches in one pass, beside every crop by itself: `python benchmarks/speed/patches.py`.

Two geometries of one float32 image: 128 x 128, patches of 32 every 2 pixels (the paper's), and 64 x 64, patches of 16
every pixel; 2,401 patches each. All sides are jitted, have the same parameters and give the same logits; they are asked
in turn, after one warm call each. The other side is the best of several chunk sizes, and chunks of 49 as the paper's
released code has them. What FLOPs alone would give is printed beside each ratio: the gain is the algorithm's. Nested
`vmap` of single crops is reported too; it is no fair baseline, as a batch of one is slow.

Then: the fold of confidences to a map, one after another, alone, and 64 at a time, beside a NumPy loop over patches
(error against the loop in float64); whether
the plan, which counts FLOPs before anything runs, chooses the faster way on a grid of image, patch and stride; and
images per second of the map of a whole data set, with nothing beside it. On an accelerator the table goes to a file of
its own.
"""

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from side_by_side import in_turn, row, write

from jaxdebias.explain import fold, general_map, patch_logits
from jaxdebias.explain._patches import plan
from jaxdebias.models import patch_net

RESULTS = Path(__file__).parents[1] / "results"
GEOMETRIES = ((128, 32, 2), (64, 16, 1))
"""(side of the image, patch, stride)."""
CHUNKS = (49, 128, 256, 343, 800, 2401)
GRID = [
    (size, patch, stride)
    for size in (32, 64, 96)
    for patch in (8, 16, 32)
    for stride in (1, 2, 4, 8, 16)
    if stride <= patch < size
]
AT_LEAST = {
    "best chunks / dense": 10.0,
    "chunks of 49 / dense": 20.0,
    "NumPy loop / fold": 50.0,
    "share of right plans": 0.95,
}
AT_MOST = {"largest difference, relative": 1e-5, "error of the fold": 1e-6}
RIGHT = 1.1
"""A plan is right if its way takes at most so many times what the faster way takes. All four set before this was first
run."""
of_bounds = functools.partial(row, at_most=AT_MOST, at_least=AT_LEAST)


def numbers(size: int, patch: int) -> tuple[Any, Any, jax.Array]:
    """Net, parameters and one image."""
    net = patch_net(patch=patch)
    image = np.random.default_rng(0).uniform(size=(1, size, size, 3)).astype(np.float32)
    return net, jax.jit(net.init)(jax.random.key(0)), jnp.asarray(image)


@functools.partial(jax.jit, static_argnames=("net", "stride"))
def nested_vmap(net: Any, params: Any, image: jax.Array, *, stride: int) -> jax.Array:
    starts = jnp.arange(0, image.shape[1] - net.patch + 1, stride)

    def one(y: jax.Array, x: jax.Array) -> jax.Array:
        crop = jax.lax.dynamic_slice(image, (0, y, x, 0), (1, net.patch, net.patch, 3))
        return net.apply(params, crop)[0]

    return jax.vmap(lambda y: jax.vmap(lambda x: one(y, x))(starts))(starts)[None]


def geometry(size: int, patch: int, stride: int, repeats: int, chunks: tuple[int, ...]) -> dict[str, Any]:
    net, params, image = numbers(size, patch)
    of = functools.partial(patch_logits, net, params, image, stride=stride)
    sides = {"dense": lambda: of(method="dense"), "phases": lambda: of(method="phases")}
    sides |= {f"chunks of {chunk}": functools.partial(of, method="crops", chunk=chunk) for chunk in chunks}
    results = [np.asarray(sides[name]()) for name in ("dense", "phases", f"chunks of {chunks[0]}")]
    measured = in_turn(repeats, **sides)
    measured |= in_turn(2, nested_vmap=lambda: nested_vmap(net, params, image, stride=stride))
    median = {name: side["median"] for name, side in measured.items()}
    best = min(median[name] for name in sides if name.startswith("chunks"))
    found = plan(net, (size, size), stride=stride)
    apart = max(np.abs(result - results[-1]).max() for result in results)
    patches = found.grid[0] * found.grid[1]
    return of_bounds(
        f"{size} x {size}, patch {patch}, stride {stride}, {patches} patches",
        measured,
        {
            "FLOPs of crops / dense": found.ratio,
            "best chunks / dense": best / median["dense"],
            "chunks of 49 / dense": median["chunks of 49"] / median["dense"],
            "nested vmap / dense": median["nested_vmap"] / median["dense"],
            "phases / dense": median["phases"] / median["dense"],
            "largest difference, relative": float(apart / max(1.0, np.abs(results[-1]).max())),
        },
        dense_gflops_per_second=found.dense_flops / median["dense"] / 1e9,
        crop_gflops_per_second=found.crop_flops / best / 1e9,
    )


def loop(confidences: np.ndarray, size: int, patch: int, stride: int) -> np.ndarray:
    """The fold as the released code has it: patch by patch, in the dtype of the confidences."""
    total, count = (np.zeros((size, size), confidences.dtype) for _ in range(2))
    for i, line in enumerate(confidences):
        for j, value in enumerate(line):
            total[i * stride : i * stride + patch, j * stride : j * stride + patch] += value
            count[i * stride : i * stride + patch, j * stride : j * stride + patch] += 1
    return total / count


def folding(size: int, patch: int, stride: int, repeats: int) -> dict[str, Any]:
    places = (size - patch) // stride + 1
    values = np.random.default_rng(0).uniform(size=(64, places, places)).astype(np.float32)
    one, many = jnp.asarray(values[0]), jnp.asarray(values)
    of = functools.partial(fold, size=(size, size), patch=patch, stride=stride)
    # A call of some 50 microseconds: alone, right after the loop, it mostly waits for the runtime's threads to wake.
    measured = in_turn(
        repeats,
        fold=lambda: of(one),
        fold_x20=lambda: [jax.block_until_ready(of(one)) for _ in range(20)],
        fold_of_64=lambda: of(many),
        loop=lambda: loop(values[0], size, patch, stride),
    )
    exact = loop(values[0].astype(np.float64), size, patch, stride)
    median = {name: side["median"] for name, side in measured.items()}
    return of_bounds(
        f"fold, {size} x {size}, patch {patch}, stride {stride}",
        measured,
        {
            "NumPy loop / fold": 20 * median["loop"] / median["fold_x20"],
            "NumPy loop / fold, first after a pause": median["loop"] / median["fold"],
            "NumPy loop / fold, by 64": 64 * median["loop"] / median["fold_of_64"],
            "error of the fold": float(np.abs(np.asarray(of(one)) - exact).max()),
        },
    )


def plans(grid: list[tuple[int, int, int]], repeats: int) -> dict[str, Any]:
    """Of every point the seconds of both ways and what was planned."""
    points = []
    for size, patch, stride in grid:
        net, params, image = numbers(size, patch)
        of = functools.partial(patch_logits, net, params, image, stride=stride)
        sides = {"dense": functools.partial(of, method="dense")}
        sides |= {f"chunks of {chunk}": functools.partial(of, method="crops", chunk=chunk) for chunk in (64, 256)}
        median = {name: side["median"] for name, side in in_turn(repeats, **sides).items()}
        dense, crops = median.pop("dense"), min(median.values())
        found = plan(net, (size, size), stride=stride)
        planned = dense if found.method == "dense" else crops
        points.append(
            {
                "size": size,
                "patch": patch,
                "stride": stride,
                "planned": found.method,
                "ratio": found.ratio,
                "dense": dense,
                "crops": crops,
                "right": planned <= RIGHT * min(dense, crops),
            }
        )
        print(
            f"  {size} {patch} {stride}: FLOPs {found.ratio:.2f}, seconds {crops / dense:.2f}, {found.method}"
            f"{'' if points[-1]['right'] else ' WRONG'}",
            flush=True,
        )
    right = sum(point["right"] for point in points)
    return of_bounds(f"plan, {len(points)} points", {}, {"share of right plans": right / len(points)}, points=points)


def data_set(size: int, patch: int, stride: int, images: int, repeats: int) -> dict[str, Any]:
    """The map of so many images in host memory, uint8, from the call to the map as a NumPy array."""
    net, params, _ = numbers(size, patch)
    x = np.random.default_rng(0).integers(0, 256, (images, size, size, 3)).astype(np.uint8)
    prior = np.array([0.5, 0.5], np.float32)
    measured = in_turn(repeats, map=lambda: general_map(net, params, x, stride=stride, prior=prior))
    found = plan(net, (size, size), stride=stride)
    return of_bounds(
        f"data set of {images}, {size} x {size}, patch {patch}, stride {stride}",
        measured,
        {
            "images per second": images / measured["map"]["median"],
            "patches per second": images * found.grid[0] * found.grid[1] / measured["map"]["median"],
        },
    )


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--fold", action="store_true", help="only the fold, into the file that is there")
    parser.add_argument("--trial", action="store_true", help="a few small images, nothing written")
    arguments = parser.parse_args()
    repeats = max(5, arguments.repeats)
    if arguments.trial:
        geometry(32, 16, 2, 2, (49,))
        folding(64, 16, 2, 3)
        plans([(32, 8, 4), (32, 16, 8), (32, 16, 16)], 2)
        data_set(32, 16, 4, 8, 2)
        return True  # times of tiny shapes say nothing
    path = RESULTS / ("patches.json" if jax.default_backend() == "cpu" else f"patches_{jax.default_backend()}.json")
    if arguments.fold:
        rows = [folding(*one, max(15, repeats)) for one in GEOMETRIES]
        kept = {row["what"]: row for row in json.loads(path.read_text())["rows"]}
        rows = list((kept | {row["what"]: row for row in rows}).values())
        write(path, at_most=AT_MOST, at_least=AT_LEAST, right=RIGHT, rows=rows)
        return not any(row["missed"] for row in rows)
    rows = [
        *(geometry(*one, repeats, CHUNKS) for one in GEOMETRIES),
        *(folding(*one, repeats) for one in GEOMETRIES),
        plans(GRID, max(3, repeats // 2)),
        *(data_set(*one, 256, 3) for one in (*GEOMETRIES, (64, 16, 4))),
    ]
    write(path, at_most=AT_MOST, at_least=AT_LEAST, right=RIGHT, rows=rows)
    return not any(row["missed"] for row in rows)


if __name__ == "__main__":
    raise SystemExit(not main())
