"""Patch networks on crops, and maps of patches, slowly and in float64, from the written definitions."""

import jax
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from jaxdebias.models.patch_layers import Conv, Residual


def drawn(net, seed=1):
    """Parameters of the net's shapes, none of which is at a special value; kernels keep the scale of their input."""
    rng = np.random.default_rng(seed)

    def values(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(size=leaf.shape, scale=np.prod(leaf.shape[:-1]) ** -0.5).astype(leaf.dtype)
        return rng.uniform(0.3, 1.5, leaf.shape).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(values, jax.eval_shape(net.init, jax.random.key(0)))


def crops(images, patch, tops, lefts):
    """`[n rows columns P P c]`."""
    return np.stack([[[image[y : y + patch, x : x + patch] for x in lefts] for y in tops] for image in images])


def starts(length, patch, stride, flush=False):
    found = [y for y in range(length) if y % stride == 0 and y + patch <= length]
    return [*found, length - patch] if flush and found[-1] != length - patch else found


def logits(net, variables, patches, position=None):
    """Of crops `[m P P c]` with pixels in [0, 1]; `position` `[m]`."""
    params = variables["params"]
    x = (np.asarray(patches, np.float64) - net.mean) / net.std
    known = None
    if net.position != "none":
        known = np.asarray(params["position"], np.float64)
        known = known.reshape(-1, *known.shape[2:])[position]
    if net.position == "early":
        x = np.concatenate([x, known[..., None]], axis=-1)
    for number, layer in enumerate(net.layers):
        name = f"layer{number}"
        if isinstance(layer, Conv):
            x = convolution(layer, variables, name, x)
        elif isinstance(layer, Residual):
            y = x
            for place, conv in enumerate(layer.body):
                y = convolution(conv, variables, f"{name}_{place}", y)
            stride = int(np.prod([conv.stride for conv in layer.body]))
            if f"{name}_skip" in params:
                last = layer.body[-1]
                skip = Conv(width=last.width, kernel=1, stride=stride, norm=last.norm, relu=False)
                x = convolution(skip, variables, f"{name}_skip", x)
            x = np.maximum(y + x[:, : y.shape[1], : y.shape[2]], 0)
        else:
            seen = windows(x, layer.kernel, layer.stride)
            x = seen.max((-2, -1)) if layer.kind == "max" else seen.mean((-2, -1))
    vector = x.reshape(len(x), -1) if net.head == "flatten" else x.mean((1, 2))
    for place, name in enumerate(("hidden", "head") if net.hidden else ("head",)):
        vector = vector @ np.asarray(params[name]["kernel"], np.float64) + np.asarray(params[name]["bias"])
        if place == 0 and net.position == "late":
            vector = vector + known
        if name == "hidden":
            vector = np.maximum(vector, 0)
    return vector


def windows(x, size, stride):
    """`[m h2 w2 c size size]`."""
    return sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]


def convolution(layer, variables, name, x):
    params = {key: np.asarray(value, np.float64) for key, value in variables["params"][name].items()}
    pad = (layer.padding, layer.padding)
    x = np.pad(x, ((0, 0), pad, pad, (0, 0)))
    x = np.einsum("mhwcij,ijco->mhwo", windows(x, layer.kernel, layer.stride), params["kernel"])
    if layer.norm == "batch":
        stats = variables["batch_stats"][name]
        x = (x - np.asarray(stats["mean"])) / np.sqrt(np.asarray(stats["var"]) + 1e-5)
    elif layer.norm == "channel":
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    elif layer.norm == "group":
        size = np.gcd(8, layer.width)
        for first in range(0, layer.width, size):
            part = x[..., first : first + size]
            mean, var = (fn(part, axis=(1, 2, 3), keepdims=True) for fn in (np.mean, np.var))
            x[..., first : first + size] = (part - mean) / np.sqrt(var + 1e-5)
    x = x * params.get("scale", 1.0) + params["bias"]
    return np.maximum(x, 0) if layer.relu else x


def patch_logits(net, variables, images, stride, flush=False):
    """`[n rows columns k]`, each crop by itself."""
    tops, lefts = (starts(length, net.patch, stride, flush) for length in images.shape[1:3])
    cut = crops(images, net.patch, tops, lefts)
    n, rows, columns = cut.shape[:3]
    position = np.tile(np.arange(rows * columns), n)
    return logits(net, variables, cut.reshape(-1, *cut.shape[3:]), position).reshape(n, rows, columns, -1)


def fold(confidences, size, patch, tops, lefts):
    """(map `[h w]`, counts): every patch adds its confidence to its pixels."""
    total, count = np.zeros(size), np.zeros(size)
    for i, y in enumerate(tops):
        for j, x in enumerate(lefts):
            total[y : y + patch, x : x + patch] += confidences[i, j]
            count[y : y + patch, x : x + patch] += 1
    return total / np.where(count > 0, count, np.nan), count
