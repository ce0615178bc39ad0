"""Layers of patch networks: what they are, what they do to an array, and where its pixels lie in the image.

Layers are frozen descriptions. Each is a finite window, so a net of them without padding gives on a whole image, at
each patch, what it gives on that patch alone; only strides need care. With strides t_1, t_2, ... and T_l their product
up to layer l, and patches every s pixels, all that patches need of layer l lies on a lattice of spacing g_l = gcd(s,
T_l) pixels, and in array units layer l is the same window with dilation T_(l-1) / g_(l-1) and stride g_l / g_(l-1).
By induction: index u of patch r is the pixel r s + u T_l, a multiple of g_l, and T_(l-1) divides T_l.
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Array, Params
from jaxdebias.models._conv import conv_general_dilated

MOMENTUM, EPSILON = 0.9, 1e-5
"""Of batch normalisation; Flax's momentum .9 is PyTorch's .1."""
GROUP = 8
"""Channels of a group in group normalisation, or a divisor of so many where that does not divide."""


@dataclass(frozen=True, kw_only=True)
class Conv:
    """A convolution, a normalisation, a ReLU."""

    width: int
    kernel: int = 3
    stride: int = 1
    padding: int = 0
    """Zeros on each side. Any but 0 ties the net to crops."""
    norm: str = "none"
    """`none`; `batch`: batch normalisation; `channel`: over the channels of each pixel; `group`: over the pixels of the
    patch and a group of channels, which ties the net to crops. The bias comes after it."""
    relu: bool = True

    def __post_init__(self):
        check_choice("norm", self.norm, ("none", "batch", "channel", "group"))
        for name, least in (("width", 1), ("kernel", 1), ("stride", 1), ("padding", 0)):
            expect(getattr(self, name) >= least, name, f"at least {least}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The maximum or the mean of a window."""

    kernel: int = 2
    stride: int = 2
    kind: str = "max"

    def __post_init__(self):
        check_choice("kind", self.kind, ("max", "avg"))
        for name in ("kernel", "stride"):
            expect(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Residual:
    """ReLU(body(x) + x). Of x every (stride of the body)-th pixel, cut at the bottom and right to the body's size.

    Where width or stride change, x goes through a 1x1 convolution with the normalisation of the body's last layer.
    """

    body: tuple[Conv, ...]

    def __post_init__(self):
        expect(len(self.body) > 0, "body", "at least one convolution", self.body)

    @property
    def stride(self) -> int:
        return math.prod(conv.stride for conv in self.body)

    def skip(self, channels: int) -> Conv | None:
        """The convolution on the skip path of a block with so many input channels, if it has one."""
        last = self.body[-1]
        if self.stride == 1 and channels == last.width:
            return None
        return Conv(width=last.width, kernel=1, stride=self.stride, norm=last.norm, relu=False)


Layer = Conv | Pool | Residual


class Lattice(NamedTuple):
    """Where an array's pixels lie in the image: every `spacing` pixels, while a patch's own are `total` apart."""

    stride: int | None
    """Of the patches, in pixels; None: the array is of one patch."""
    total: int = 1
    spacing: int = 1

    def step(self, stride: int) -> tuple[int, int, "Lattice"]:
        """(dilation, stride in array units, lattice of the output) of a layer that has this stride on a patch.

        >>> Lattice(stride=1, total=2, spacing=1).step(2)
        (2, 1, Lattice(stride=1, total=4, spacing=1))
        >>> Lattice(stride=None, total=2, spacing=2).step(2)
        (1, 2, Lattice(stride=None, total=4, spacing=4))
        """
        total = self.total * stride
        spacing = total if self.stride is None else math.gcd(self.stride, total)
        return self.total // self.spacing, spacing // self.spacing, Lattice(self.stride, total, spacing)

    @property
    def head(self) -> tuple[int, int]:
        """(dilation, stride in array units) of the window of the head."""
        return self.total // self.spacing, 1 if self.stride is None else self.stride // self.spacing


def windows_of(layer: Layer) -> Iterator[tuple[int, int, int]]:
    """(kernel, stride, padding) of what a layer does one after the other, the skip path left out."""
    for part in layer.body if isinstance(layer, Residual) else (layer,):
        yield part.kernel, part.stride, getattr(part, "padding", 0)


def normalise(
    layer: Conv, params: Params, stats: Params | None, y: jax.Array, train: bool
) -> tuple[jax.Array, Params | None]:
    """Normalisation, scale and bias; and the new batch statistics, None for a layer without."""

    def wide(values: jax.Array) -> jax.Array:
        return values[None, None, None, :]

    if layer.norm == "batch":
        if train:
            mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
            stats = {
                "mean": MOMENTUM * stats["mean"] + (1 - MOMENTUM) * mean,
                "var": MOMENTUM * stats["var"] + (1 - MOMENTUM) * var,
            }
        else:
            mean, var = stats["mean"], stats["var"]
        y = (y - wide(mean)) * wide(lax.rsqrt(var + EPSILON))
    elif layer.norm == "channel":
        y = (y - y.mean(-1, keepdims=True)) * lax.rsqrt(y.var(-1, keepdims=True) + EPSILON)
    elif layer.norm == "group":
        parts = y.reshape(*y.shape[:3], -1, math.gcd(GROUP, layer.width))
        own = {"axis": (1, 2, 4), "keepdims": True}
        y = ((parts - parts.mean(**own)) * lax.rsqrt(parts.var(**own) + EPSILON)).reshape(y.shape)
    if layer.norm != "none":
        y = y * wide(params["scale"])
    return y + wide(params["bias"]), stats


Windows = Callable[..., jax.Array]
"""(x [n h w c], size, dilation, stride) -> what a sliding window gives at every place."""


def windowed(
    op: Windows, x: Float[Array, "n h w c"], *, size: int, dilation: int, stride: int, phases: bool = False
) -> Float[jax.Array, "n h2 w2 d"]:
    """A window of `size` x `size` pixels that lie `dilation` apart, at every `stride`-th place of x.

    With `phases`, the outputs are computed in dilation^2 interleaved parts, each of which reads an interleaved part of
    x with an undilated window of the same stride: output `dilation * i + b` starts at pixel `(dilation * i + b) *
    stride`, which is place `i * stride` of the pixels `b * stride, b * stride + dilation, ...`.
    """
    if dilation == 1 or not phases:
        return op(x, size=size, dilation=dilation, stride=stride)
    n, places = len(x), [(length - (size - 1) * dilation - 1) // stride + 1 for length in x.shape[1:3]]
    for axis, count in zip((1, 2), places, strict=True):
        length = (-(-count // dilation) - 1) * stride + size
        needed = (dilation - 1) * stride + (length - 1) * dilation + 1
        more = max(0, needed - x.shape[axis])
        x = jnp.pad(x, [(0, more if place == axis else 0) for place in range(4)])
        parts = [
            lax.slice_in_dim(x, b * stride, b * stride + (length - 1) * dilation + 1, dilation, axis)
            for b in range(dilation)
        ]
        x = jnp.concatenate(parts)  # the rows of part (b of axis 2, b of axis 1), image by image
    y = op(x, size=size, dilation=1, stride=stride)
    _, h, w, d = y.shape
    y = y.reshape(dilation, dilation, n, h, w, d).transpose(2, 3, 1, 4, 0, 5)
    return y.reshape(n, h * dilation, w * dilation, d)[:, : places[0], : places[1]]


def convolve(x: jax.Array, *, kernel: jax.Array, padding: int, size: int, dilation: int, stride: int) -> jax.Array:
    del size  # the kernel's own
    return conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        rhs_dilation=(dilation,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def pool(x: jax.Array, *, kind: str, size: int, dilation: int, stride: int) -> jax.Array:
    """By shifted slices, one axis after the other: XLA's windowed maximum and its gradient are slow on a CPU."""
    merge = jnp.maximum if kind == "max" else jnp.add
    for axis in (2, 1):
        reach = x.shape[axis] - (size - 1) * dilation
        slices = [lax.slice_in_dim(x, v * dilation, v * dilation + reach, stride, axis) for v in range(size)]
        x = functools.reduce(merge, slices)
    return x if kind == "max" else x / size**2
