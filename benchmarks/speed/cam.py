"""Maps of 40 classes from one forward pass, beside PyTorch: `python benchmarks/speed/cam.py`.

ResNet-18 with 40 logits, 8 images of 224 x 224, the map of |logit| at the last stage's output, for every class. All
sides have the same random weights and images, in float32 on the same cores, each library in a process of its own, the
two asked in turn after one warm call of each side. Beside our own jitted forward pass stand two PyTorch sides: maps as
the `grad-cam` package makes them, one forward and one whole backward pass per class (the package itself where it
imports, else the same steps by hand; JSON says which), and what a good programmer would write: one forward pass without
a graph, then all classes' gradients of pooling and head by one batched call. The ratio to the first is the algorithm's,
to the second what is left for the compiler.

A deeper layer, the third stage's output, has a pullback that is not free; there the other side is 40 separate
gradients of ours, each with its forward pass, compiled once. Memory is the compiler's own count for ResNet-50 and
batch 32: what maps need beyond the forward pass, for chunks of several sizes, by a cut and by a tap.
"""

import argparse
import functools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from side_by_side import in_turn, row, spread, write

from jaxdebias import models
from jaxdebias.explain import class_maps, linen_tap, maps

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from oracles.torch_resnet import random_resnet

PATH = Path(__file__).parents[1] / "results" / "cam.json"
GIB = 2**30
DEEPER = "layer3_1"
AT_MOST = {
    "native / forward": 1.3,
    "upsampled / forward": 1.6,
    "native / PyTorch by hand": 1.25,
    "all at once / one by one": 0.5,
    "extra GiB": 2.0,
}
"""Set before this was first run."""
AT_LEAST = {"grad-cam loop / native": 40.0}
of_bounds = functools.partial(row, at_most=AT_MOST, at_least=AT_LEAST)


def package_loop(net: Any, x: Any) -> tuple[str, Callable[[int], np.ndarray]]:
    """What was found, and the maps of one class `[n 224 224]`, as the package makes them."""
    try:
        import pytorch_grad_cam
    except ImportError:
        return "the package's steps by hand", lambda k: by_hooks(net, x, k)

    def one(k: int) -> np.ndarray:
        with pytorch_grad_cam.GradCAM(net, [net.layer4[-1]]) as explain:
            return explain(x, [lambda logits: logits[k].abs()] * len(x))

    return f"grad-cam {pytorch_grad_cam.__name__}", one


def by_hooks(net: Any, x: Any, k: int) -> np.ndarray:
    kept = []
    handle = net.layer4[-1].register_forward_hook(lambda module, inputs, out: kept.append(out) or out.retain_grad())
    net.zero_grad()
    net(x)[:, k].abs().sum().backward()
    handle.remove()
    a, g = kept[0].detach(), kept[0].grad
    cam = torch.relu((g.mean((2, 3), keepdim=True) * a).sum(1))
    cam = cam - cam.amin((1, 2), keepdim=True)
    cam = cam / (1e-7 + cam.amax((1, 2), keepdim=True))
    return torch.nn.functional.interpolate(cam[:, None], x.shape[2:], mode="bilinear")[:, 0].numpy()


def by_hand(net: Any, x: Any, *, upsampled: bool = False) -> torch.Tensor:
    """All classes' maps `[n k h w]` from one forward pass."""
    with torch.no_grad():
        z = net.maxpool(torch.relu(net.bn1(net.conv1(x))))
        z = net.layer4(net.layer3(net.layer2(net.layer1(z))))
    z.requires_grad_()
    logits = net.fc(z.mean((2, 3)))
    one_hot = torch.eye(logits.shape[1])[:, None, :] * logits.detach().sign()[None]
    (g,) = torch.autograd.grad(logits, z, one_hot, is_grads_batched=True)
    with torch.no_grad():
        cam = torch.relu(torch.einsum("knc,nchw->nkhw", g.mean((3, 4)), z))
        return torch.nn.functional.interpolate(cam, x.shape[2:], mode="bilinear") if upsampled else cam


def sides(*, classes: int, batch: int, size: int, width: int) -> tuple[Any, Any, Any, Any, Any]:
    """Our network, parameters and images, and PyTorch's network and images, of the same numbers."""
    net, ours = random_resnet(18, classes, width), models.resnet(depth=18, classes=classes, width=width)
    images = np.random.default_rng(0).uniform(size=(batch, size, size, 3)).astype(np.float32)
    shapes = jax.eval_shape(ours.init, jax.random.key(0), images)
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    params = models.load_resnet({name: value.numpy() for name, value in net.state_dict().items()}, blank)
    normalised = (images - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    x = torch.tensor(normalised.transpose(0, 3, 1, 2).astype(np.float32)).contiguous()
    return ours, jax.tree.map(jnp.asarray, params), jnp.asarray(images), net, x


def our_sides(**size: int) -> dict[str, Callable[[], Any]]:
    ours, params, images, *_ = sides(**size)
    upsample = jax.jit(lambda params, images: maps.resize(class_maps(ours.spatial, params, images).maps, size["size"]))
    forward = jax.jit(ours.apply)
    return {
        "forward": lambda: forward(params, images),
        "native": lambda: class_maps(ours.spatial, params, images).maps,
        "upsampled": lambda: upsample(params, images),
    }


def torch_sides(**size: int) -> dict[str, Callable[[], Any]]:
    *_, net, x = sides(**size)
    # One class a call; every class costs the same, and 40 of them a repeat would take minutes.
    _, one = package_loop(net, x)
    return {
        "torch_forward": lambda: by_no_grad(net, x),
        "by_hand": lambda: by_hand(net, x),
        "by_hand_upsampled": lambda: by_hand(net, x, upsampled=True),
        "one_class": lambda: one(0),
    }


def serve(connection: Any, library: str, cores: int, size: dict[str, int]) -> None:
    """One library's process: runs the side that it is asked for, and answers with seconds and the result."""
    torch.set_num_threads(cores)
    known = {"ours": our_sides, "PyTorch": torch_sides}[library](**size)
    connection.send(list(known))
    while (name := connection.recv()) is not None:
        start = time.perf_counter()
        result = jax.block_until_ready(known[name]())
        connection.send((time.perf_counter() - start, np.asarray(result)))


def last_stage(repeats: int, cores: int, **size: int) -> dict[str, Any]:
    measured: dict[str, list[float]] = {}
    results: dict[str, np.ndarray] = {}
    context = multiprocessing.get_context("spawn")
    asked, processes = {}, []
    for library in ("ours", "PyTorch"):
        here, there = context.Pipe()
        processes.append(context.Process(target=serve, args=(there, library, cores, size), daemon=True))
        processes[-1].start()
        asked |= dict.fromkeys(here.recv(), here)
    for i in range(repeats + 1):
        for name, library in asked.items():
            library.send(name)
            seconds, results[name] = library.recv()
            if i:
                measured.setdefault(name, []).append(seconds)
    for library in set(asked.values()):
        library.send(None)
    for process in processes:
        process.join()
    measured["grad_cam_loop"] = [seconds * size["classes"] for seconds in measured.pop("one_class")]
    times = {name: spread(values) for name, values in measured.items()}
    median = {name: side["median"] for name, side in times.items()}
    return of_bounds(
        f"last stage, {said(**size)}",
        times,
        {
            "native / forward": median["native"] / median["forward"],
            "upsampled / forward": median["upsampled"] / median["forward"],
            "native / PyTorch by hand": median["native"] / median["by_hand"],
            "upsampled / PyTorch by hand, upsampled": median["upsampled"] / median["by_hand_upsampled"],
            "forward / PyTorch's forward": median["forward"] / median["torch_forward"],
            "grad-cam loop / native": median["grad_cam_loop"] / median["native"],
            "grad-cam loop / upsampled": median["grad_cam_loop"] / median["upsampled"],
        },
        loop=f"{package_loop(None, None)[0]}; one class measured, times {size['classes']}",
        largest_difference=float(np.abs(results["native"] - results["by_hand"]).max()),
    )


def by_no_grad(net: Any, x: Any) -> torch.Tensor:
    with torch.no_grad():
        return net(x)


def deeper_stage(repeats: int, **size: int) -> dict[str, Any]:
    ours, params, images, *_ = sides(**size)
    tap = linen_tap(ours.apply, DEEPER)

    @jax.jit
    def single(params: Any, images: jax.Array, k: jax.Array) -> jax.Array:
        """The map of one class, as a program that knows of no other."""
        shape = jax.eval_shape(lambda: tap(params, images, None)[1])

        def score(eps: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits, z = tap(params, images, eps)
            return jnp.abs(jnp.take(logits, k, axis=1)).sum(), z

        g, z = jax.grad(score, has_aux=True)(jnp.zeros(shape.shape))
        return jax.nn.relu(jnp.einsum("nc,nhwc->nhw", g.mean((1, 2)), z))

    every = [jnp.int32(k) for k in range(size["classes"])]
    measured = in_turn(
        repeats,
        all_at_once=lambda: class_maps(tap, params, images).maps,
        one_by_one=lambda: [single(params, images, k) for k in every],
    )
    median = {name: side["median"] for name, side in measured.items()}
    return of_bounds(
        f"deeper stage {DEEPER}, {said(**size)}",
        measured,
        {"all at once / one by one": median["all_at_once"] / median["one_by_one"]},
    )


def memory(*, classes: int, batch: int, size: int, width: int, depth: int) -> dict[str, Any]:
    ours = models.resnet(depth=depth, classes=classes, width=width)
    x = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    params = jax.eval_shape(ours.init, jax.random.key(0), x)

    def needs(fn: Callable[..., Any]) -> float:
        return jax.jit(fn).lower(params, x).compile().memory_analysis().temp_size_in_bytes / GIB

    forward = needs(ours.apply)
    last = f"layer4_{2 if depth == 50 else 1}"
    extra = {"cut": needs(lambda p, x: class_maps(ours.spatial, p, x)) - forward}
    for chunk in sorted({1, 8, classes}):
        tap = linen_tap(ours.apply, last)
        extra[f"tap, chunk {chunk}"] = needs(lambda p, x, t=tap, c=chunk: class_maps(t, p, x, chunk=c)) - forward
    return of_bounds(
        f"memory, {said(classes=classes, batch=batch, size=size, width=width, depth=depth)}",
        {},
        {"extra GiB": max(extra.values())},
        extra_gib=extra,
        forward_gib=forward,
    )


def said(*, classes: int, batch: int, size: int, width: int, depth: int = 18) -> str:
    return f"ResNet-{depth} of width {width}, {classes} classes, batch {batch}, {size} x {size}"


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--trial", action="store_true", help="a tiny network and images, nothing written")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    size = {"classes": 40, "batch": 8, "size": 224, "width": 64}
    large = {"classes": 40, "batch": 32, "size": 224, "width": 64, "depth": 50}
    repeats = max(5, arguments.repeats)
    if arguments.trial:
        size, repeats = {"classes": 5, "batch": 2, "size": 64, "width": 8}, 2
        large = {**size, "depth": 18}
    rows = [last_stage(repeats, cores, **size), deeper_stage(repeats, **size), memory(**large)]
    if not arguments.trial:
        write(PATH, torch=torch.__version__, at_most=AT_MOST, at_least=AT_LEAST, rows=rows)
    return arguments.trial or not any(row["missed"] for row in rows)  # times of tiny shapes say nothing


if __name__ == "__main__":
    raise SystemExit(not main())
