"""What every patch of an image says of it: the logits of a patch network at all overlapping positions.

A patch network whose layers are windows without padding is run once over the whole image (`models.patch_layers` says
why this is exact): the work that overlapping crops share is done once. Any other network, and any function of crops,
is run on crops, a chunk at a time; never are all crops in memory. Which way is cheaper is counted before anything runs.

The dense way needs of a network, after De Coninck et al. 2024 and Brendel & Bethge 2019:

    1  windows inside the patch: zero padding shows a net where the patch ends, and the image goes on there
    2  no statistics over the pixels of a patch (group, layer or instance normalisation; squeeze-excite; attention);
       batch normalisation in evaluation mode and normalisation over the channels of a pixel are fine
    3  a head that is a window too: flattened maps or their mean
    4  skip paths cut at the bottom and right to what the windows leave
    5  the position enters after the trunk, not as a channel of the crop

Results of all ways are equal to the rounding of sums, at the same matmul precision: on an accelerator that shortens
float32 products, compare under `jax.default_matmul_precision("highest")`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_choice, check_numbers, describe, expect
from jaxdebias.core import Array, Params
from jaxdebias.models._patch_net import PatchNet, crops_at
from jaxdebias.models.patch_layers import Conv, Lattice, Residual

CropFn = Callable[[Params, Array], jax.Array]
"""(params, crops [m P P c]) -> logits [m k]."""

METHODS = ("auto", "dense", "phases", "tiled", "crops")
CHUNK = 256
"""Crops at a time."""
DENSE_VALUES = 2**22
"""As many images at a time as have so many numbers in their largest array, 16 MiB of float32; one image at least."""
TILE_VALUES = 2**26
"""An image whose largest array has more numbers than that, 256 MiB of float32, is cut into bands."""


class Plan(NamedTuple):
    """How patches of an image will be evaluated, and what each way would cost, known from shapes alone."""

    method: str
    """`dense`, `tiled` or `crops`."""
    grid: tuple[int, int]
    """Rows and columns of patches."""
    obstacle: str | None
    """Why there is no dense way; None where there is one."""
    crop_flops: int | None
    """Per image, of convolutions and affine layers; a multiplication and an addition are two. None: not known."""
    dense_flops: int | None
    """None where there is no dense way."""
    values: int | None
    """Numbers in the largest array of a dense pass over one image."""
    tile: int | None
    """Rows of patches in a band."""

    @property
    def ratio(self) -> float:
        """FLOPs of the crops over those of the dense way; NaN where one is not known."""
        return float("nan") if None in (self.crop_flops, self.dense_flops) else self.crop_flops / self.dense_flops


def grid_of(size: tuple[int, int], patch: int, stride: int, *, flush: bool = False) -> tuple[int, int]:
    """Rows and columns of patches in an image; `flush`: and one more where the last would leave pixels uncovered.

    >>> grid_of((128, 128), 32, 2), grid_of((10, 9), 4, 3), grid_of((10, 9), 4, 3, flush=True)
    ((49, 49), (3, 2), (3, 3))
    """
    return tuple(len(starts_of(length, patch, stride, flush=flush)) for length in size)


def starts_of(length: int, patch: int, stride: int, *, flush: bool = False) -> np.ndarray:
    """First pixel of every patch along an axis."""
    expect(patch >= 1 and stride >= 1, "stride", "a patch and a stride of at least 1", (patch, stride))
    expect(length >= patch, "images", f"at least the patch's {patch} pixels a side", length)
    starts = np.arange(0, length - patch + 1, stride)
    return np.append(starts, length - patch) if flush and starts[-1] != length - patch else starts


def obstacle(net: PatchNet | CropFn) -> str | None:
    """The first condition of the dense way that a network breaks, in words; None if it breaks none."""
    if not isinstance(net, PatchNet):
        return "the layers of a function are not known (bring a PatchNet)"
    if net.position == "early":
        return "the position enters the first layer (condition 5)"
    for name, conv, _ in net.convolutions():
        if conv.padding:
            return f"{name} pads with zeros (condition 1)"
        if conv.norm == "group":
            return f"{name} normalises over the pixels of the patch (condition 2)"
    return None


def plan(
    net: PatchNet | CropFn, size: tuple[int, int], *, stride: int, patch: int | None = None, flush: bool = False
) -> Plan:
    """What `method="auto"` will do with images of `size` (h, w): the way with fewer FLOPs.

    >>> from jaxdebias.models import patch_net
    >>> found = plan(patch_net(patch=32), (128, 128), stride=2)
    >>> found.method, found.grid, round(found.ratio, 1)
    ('dense', (49, 49), 41.7)
    >>> plan(patch_net(patch=8), (32, 32), stride=8).method
    'crops'
    """
    patch = _patch(net, patch)
    rows, columns = grid_of(size, patch, stride, flush=flush)
    reason = obstacle(net)
    crop_flops = rows * columns * costs(net, (patch, patch), None)[0] if isinstance(net, PatchNet) else None
    if reason is not None:
        return Plan("crops", (rows, columns), reason, crop_flops, None, None, None)
    flops, values = costs(net, size, stride)
    tile = None
    if values > TILE_VALUES:
        per_row = -(-values // size[0])
        tile = int(np.clip((TILE_VALUES // per_row - patch) // stride + 1, 1, rows))
        flops = -(-rows // tile) * costs(net, ((tile - 1) * stride + patch, size[1]), stride)[0]
    method = "crops" if flops > crop_flops else "dense" if tile is None else "tiled"
    return Plan(method, (rows, columns), None, crop_flops, flops, values, tile)


def costs(net: PatchNet, size: tuple[int, int], stride: int | None) -> tuple[int, int]:
    """(FLOPs of convolutions and affine layers, numbers in the largest array) of a pass over one image of `size`.

    Args:
      net: the patch net.
      size: (height, width) of an image.
      stride: of the patches; None: the image is one patch.
    """
    lattice, total, largest = Lattice(stride=stride), 0, size[0] * size[1] * net.channels

    def window(size: tuple[int, int], kernel: int, padding: int, dilation: int, step: int) -> tuple[int, int]:
        return tuple((length + 2 * padding - (kernel - 1) * dilation - 1) // step + 1 for length in size)

    channels = net.channels + (net.position == "early")
    for layer in net.layers:
        before = channels
        for part in layer.body if isinstance(layer, Residual) else (layer,):
            dilation, step, lattice = lattice.step(part.stride)
            size = window(size, part.kernel, getattr(part, "padding", 0), dilation, step)
            if isinstance(part, Conv):
                total += size[0] * size[1] * part.kernel**2 * channels * part.width
                channels = part.width
            largest = max(largest, size[0] * size[1] * channels)
        if isinstance(layer, Residual) and layer.skip(before) is not None:
            total += size[0] * size[1] * before * channels
    dilation, step = lattice.head
    places = int(np.prod(window(size, net.side, 0, dilation, step)))
    inputs = net.width * (net.side**2 if net.head == "flatten" else 1)
    total += places * (inputs * (net.hidden or net.classes) + net.hidden * net.classes)
    return 2 * total, max(largest, places * (net.hidden or net.classes))


def patch_logits(
    net: PatchNet | CropFn,
    params: Params,
    images: Array,
    *,
    stride: int,
    method: str = "auto",
    chunk: int | None = None,
    tile: int | None = None,
    patch: int | None = None,
    flush: bool = False,
) -> Float[jax.Array, "n gh gw k"]:
    """Logits of every patch of every image: patch (i, j) starts at pixel (i stride, j stride).

    Pure; works under `jit` and `grad`. Compiled once for the same net, shapes and options.

    Args:
      net: a `PatchNet`, or any function (params, crops `[m P P c]`) -> logits `[m k]`, the same object each time, with
        the side of its crops as `patch`; a function is evaluated on crops.
      params: of the net.
      images: `[n h w c]`, uint8 or float in [0, 1]. A function gets crops of this dtype.
      stride: pixels from one patch to the next.
      method: `auto`: what `plan` says. `dense`: one pass, with dilated windows. `phases`: the same with interleaved
        parts of the array instead of dilation. `tiled`: dense in equal bands of `tile` rows of patches, one after the
        other, for large images. `crops`: each patch by itself.
      chunk: crops at a time; it bounds memory, and some hundreds are fastest on a CPU. None: `CHUNK`.
      tile: rows of patches of a band with `tiled`. None: as `plan` says, or a quarter of them.
      patch: side of a patch, pixels.
      flush: where the stride does not divide what is left beside the patch, one more patch at the image's end.

    Returns:
      Logits on the grid of patches, `grid_of((h, w), P, stride, flush=flush)`.

    Raises:
      ContractError: images smaller than a patch or of other channels, a net that knows another grid of positions, a
        dense method for a net that has no dense form (the condition is named).
    """
    check_choice("method", method, METHODS)
    patch = _patch(net, patch)
    check_numbers("images", images, "n h w c")
    expect(hasattr(images, "shape") and len(images) > 0, "images", "an array [n h w c], at least one", describe(images))
    grid = grid_of(images.shape[1:3], patch, stride, flush=flush)
    for name, value in (("chunk", chunk), ("tile", tile)):
        expect(value is None or value >= 1, name, "at least 1", value)
    if isinstance(net, PatchNet):
        expect(images.shape[3] == net.channels, "images", f"[n h w c={net.channels}]", describe(images))
        expect(net.grid in (None, grid), "net", f"positions of the grid {grid} of these images and stride", net.grid)
    reason = obstacle(net)
    expect(reason is None or method in ("auto", "crops"), "method", "crops for this net", f"{method!r}, but {reason}")
    if method in ("auto", "tiled"):
        found = plan(net, images.shape[1:3], stride=stride, patch=patch, flush=flush)
        tile = tile or found.tile or -(-found.grid[0] // 4)
        method = found.method if method == "auto" else method
    return _patch_logits(
        net,
        params,
        images,
        stride=stride,
        method=method,
        chunk=chunk or CHUNK,
        tile=tile if method == "tiled" else None,
        patch=patch,
        flush=flush,
    )


def _patch(net: PatchNet | CropFn, patch: int | None) -> int:
    if isinstance(net, PatchNet):
        expect(patch in (None, net.patch), "patch", f"None, or the net's own {net.patch}", patch)
        return net.patch
    expect(patch is not None, "patch", "the side of the crops that the function takes", None)
    return patch


@functools.partial(jax.jit, static_argnames=("net", "stride", "method", "chunk", "tile", "patch", "flush"))
def _patch_logits(
    net: PatchNet | CropFn,
    params: Params,
    images: Array,
    *,
    stride: int,
    method: str,
    chunk: int,
    tile: int | None,
    patch: int,
    flush: bool,
) -> Float[jax.Array, "n gh gw k"]:
    if method == "crops":
        return _crop_logits(net, params, images, stride=stride, chunk=chunk, patch=patch, flush=flush)
    size = images.shape[1:3]
    if tile is not None:
        _, values = costs(net, (min(size[0], (tile - 1) * stride + patch), size[1]), stride)
    else:
        _, values = costs(net, size, stride)
    of = functools.partial(dense_logits, net, stride=stride, tile=tile, phases=method == "phases", flush=flush)
    return map_rows(of, params, images, batch_size=max(1, DENSE_VALUES // values))


def dense_logits(
    net: PatchNet,
    params: Params,
    images: Array,
    *,
    stride: int,
    tile: int | None = None,
    phases: bool = False,
    flush: bool = False,
) -> Float[jax.Array, "n gh gw k"]:
    """`patch_logits` in one pass over all images at once, unchecked: what a training step differentiates."""
    h, w = images.shape[1:3]
    table = params["params"]["position"] if net.position == "late" else None
    whole = functools.partial(_block, net, params, stride=stride, phases=phases)
    rows, columns = grid_of((h, w), net.patch, stride)
    below, beside = (flush and (length - net.patch) % stride != 0 for length in (h, w))

    def place(top: slice, left: slice) -> Array | None:
        return None if table is None else table[top, left]

    regular = slice(0, rows), slice(0, columns)
    if tile is None:
        out = whole(images, place(*regular))
    else:
        out = _bands(whole, images, place(*regular), rows=rows, tile=min(tile, rows), stride=stride, patch=net.patch)
    # The patches at the very end are those of strips of the image that are one patch high or wide.
    if beside:
        strip = whole(images[:, :, w - net.patch :], place(regular[0], slice(columns, None)))
        out = jnp.concatenate([out, strip], axis=2)
    if below:
        strip = whole(images[:, h - net.patch :], place(slice(rows, None), regular[1]))
        if beside:
            corner = images[:, h - net.patch :, w - net.patch :]
            corner = whole(corner, place(slice(rows, None), slice(columns, None)))
            strip = jnp.concatenate([strip, corner], axis=2)
        out = jnp.concatenate([out, strip], axis=1)
    return out


def _block(
    net: PatchNet, params: Params, images: Array, known: Array | None, *, stride: int, phases: bool
) -> Float[jax.Array, "n gh gw k"]:
    """All patches of images; `known` `[gh gw d]` is what the net knows of their positions."""
    z, _, lattice = net.trunk(params, net.normalised(images), Lattice(stride=stride), phases=phases)
    out = net.first_layer(params, z, lattice, phases=phases)
    rows, columns = grid_of(images.shape[1:3], net.patch, stride)
    # A net that drops the last pixels of a patch fits in once more at the end, where there is no whole patch.
    out = out[:, :rows, :columns]
    return net.after_first(params, out if known is None else out + known[None])


def _bands(
    whole: Callable[[Array, Array | None], jax.Array],
    images: Array,
    known: Array | None,
    *,
    rows: int,
    tile: int,
    stride: int,
    patch: int,
) -> jax.Array:
    """Bands of `tile` rows of patches, of equal size: the last one starts early and repeats some rows."""
    count = -(-rows // tile)
    first = jnp.minimum(jnp.arange(count) * tile, rows - tile)
    images = jnp.asarray(images)

    def band(row: jax.Array) -> jax.Array:
        part = lax.dynamic_slice_in_dim(images, row * stride, (tile - 1) * stride + patch, 1)
        return whole(part, None if known is None else lax.dynamic_slice_in_dim(known, row, tile, 0))

    out = jnp.moveaxis(lax.map(band, first), 0, 1)  # [n bands tile gw k]
    n, _, _, columns, k = out.shape
    full = out[:, :-1].reshape(n, (count - 1) * tile, columns, k)
    return jnp.concatenate([full, out[:, -1, count * tile - rows :]], axis=1)


def _crop_logits(
    net: PatchNet | CropFn, params: Params, images: Array, *, stride: int, chunk: int, patch: int, flush: bool
) -> Float[jax.Array, "n gh gw k"]:
    tops, lefts = (starts_of(length, patch, stride, flush=flush) for length in images.shape[1:3])
    tops, lefts = jnp.asarray(tops), jnp.asarray(lefts)
    rows, columns = len(tops), len(lefts)

    def logits(both: tuple[Params, Array], number: jax.Array) -> jax.Array:
        params, images = both
        position = number % (rows * columns)
        crops = crops_at(
            images, number // (rows * columns), tops[position // columns], lefts[position % columns], patch
        )
        return net.apply(params, crops, position) if isinstance(net, PatchNet) else net(params, crops)

    out = map_rows(logits, (params, images), jnp.arange(len(images) * rows * columns), batch_size=chunk)
    return out.reshape(len(images), rows, columns, -1)
