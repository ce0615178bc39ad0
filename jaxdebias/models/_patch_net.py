"""Networks that see one patch of an image at a time, and what that patch says of the whole image.

A `PatchNet` is its own description: a tuple of layers, frozen and hashable, and pure functions of its parameters. It
takes crops `[m P P c]`. Where every layer is a finite window without padding ("BagNet-lite", after Brendel & Bethge
2019), the same parameters can be run over a whole image, and give at each patch what they give on the crop;
`explain.patches` does it. The paper's own network (De Coninck et al. 2024, by its released code), a ResNet-18 with zero
padding and a learned plane per position as a fourth channel, can only be run on crops.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float, Int

from jaxdebias.contracts import check_choice, describe, expect
from jaxdebias.core import Array, Key, Params, as_float
from jaxdebias.models._resnet import IMAGENET_MEAN, IMAGENET_STD
from jaxdebias.models.patch_layers import (
    Conv,
    Lattice,
    Layer,
    Pool,
    Residual,
    convolve,
    normalise,
    pool,
    windowed,
    windows_of,
)


@dataclass(frozen=True, kw_only=True)
class PatchNet:
    """A patch network: static description and pure functions. Equal descriptions compile nothing a second time.

    Build one with `patch_net`. Parameters are Linen's form, `{"params": ..., "batch_stats": ...}`. Without `position`
    the net does not know where a patch lies. `late`: the first affine layer after the layers gets a learned vector per
    position. `early`: a learned P x P plane per position is one more channel of the crop, as in the paper's code.
    """

    patch: int
    classes: int
    channels: int
    layers: tuple[Layer, ...]
    head: str
    """`flatten` or `mean`."""
    hidden: int
    """Units of the hidden layer after the trunk; 0: none."""
    position: str
    grid: tuple[int, int] | None
    """Rows and columns of patches, where position is known. Position r is row * columns + column."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str = "float32"
    """Of the trunk's convolutions and maps, or `bfloat16`. Parameters, normalisation and logits are float32."""

    @property
    def side(self) -> int:
        """Height and width of the last maps on a patch."""
        size = self.patch
        for layer in self.layers:
            for kernel, stride, padding in windows_of(layer):
                size = (size + 2 * padding - kernel) // stride + 1
        return size

    @property
    def width(self) -> int:
        """Channels of the last maps."""
        return self._widths[-1]

    @property
    def total_stride(self) -> int:
        return math.prod(stride for layer in self.layers for _, stride, _ in windows_of(layer))

    @property
    def _widths(self) -> tuple[int, ...]:
        widths = [self.channels + (self.position == "early")]
        for layer in self.layers:
            conv = layer.body[-1] if isinstance(layer, Residual) else layer
            widths.append(conv.width if isinstance(conv, Conv) else widths[-1])
        return tuple(widths)

    def convolutions(self) -> Iterator[tuple[str, Conv, int]]:
        """(name, layer, input channels) of every convolution; parameters are stored under that name."""
        for number, (layer, channels) in enumerate(zip(self.layers, self._widths, strict=False)):
            if isinstance(layer, Conv):
                yield f"layer{number}", layer, channels
            elif isinstance(layer, Residual):
                if (skip := layer.skip(channels)) is not None:
                    yield f"layer{number}_skip", skip, channels
                for place, conv in enumerate(layer.body):
                    yield f"layer{number}_{place}", conv, channels
                    channels = conv.width

    def init(self, key: Key) -> Params:
        """Random parameters: uniform, with He's variance for convolutions and PyTorch's default for affine layers."""
        key_uniform, key_position = jax.random.split(key)
        shapes, params, stats = {}, {}, {}
        for name, conv, channels in self.convolutions():
            shape = (conv.kernel, conv.kernel, channels, conv.width)
            shapes[name, "kernel"] = shape, math.sqrt(6.0 / math.prod(shape[:3]))
            params[name] = {"bias": jnp.zeros(conv.width)}
            if conv.norm != "none":
                params[name]["scale"] = jnp.ones(conv.width)
            if conv.norm == "batch":
                stats[name] = {"mean": jnp.zeros(conv.width), "var": jnp.ones(conv.width)}
        size = self.width * (self.side**2 if self.head == "flatten" else 1)
        for name, width in (("hidden", self.hidden), ("head", self.classes)):
            if width:
                shapes[name, "kernel"] = (size, width), 1.0 / math.sqrt(size)
                shapes[name, "bias"] = (width,), 1.0 / math.sqrt(size)
                size = width
        # One draw for all: compiling one takes seconds on a CPU.
        sizes = [math.prod(shape) for shape, _ in shapes.values()]
        drawn = jax.random.uniform(key_uniform, (sum(sizes),), minval=-1.0)
        parts = jnp.split(drawn, list(itertools.accumulate(sizes))[:-1])
        for part, ((name, leaf), (shape, bound)) in zip(parts, shapes.items(), strict=True):
            params.setdefault(name, {})[leaf] = bound * part.reshape(shape)
        if self.position == "late":
            params["position"] = jnp.zeros((*self.grid, self.hidden or self.classes))
        elif self.position == "early":
            params["position"] = jax.random.normal(key_position, (*self.grid, self.patch, self.patch))
        return {"params": params, "batch_stats": stats}

    def apply(self, params: Params, crops: Array, position: Array | None = None) -> Float[jax.Array, "m k"]:
        """Logits of crops `[m P P c]`, uint8 or float in [0, 1]; `position` `[m]` int, where the net knows it."""
        return self._crops(params, crops, position, train=False)[0]

    def train(self, params: Params, crops: Array, position: Array | None = None) -> tuple[jax.Array, Params]:
        """Logits `[m k]` in training mode, and the parameters with new batch statistics."""
        return self._crops(params, crops, position, train=True)

    def _crops(self, params: Params, crops: Array, position: Array | None, *, train: bool) -> tuple[jax.Array, Params]:
        shape = (self.patch, self.patch, self.channels)
        expect(
            crops.ndim == 4 and crops.shape[1:] == shape,
            "crops",
            f"[m {shape[0]} {shape[1]} {shape[2]}]",
            describe(crops),
        )
        expect((position is not None) or self.position == "none", "position", f"int [m={len(crops)}]", position)
        x = self.normalised(crops)
        known = None
        if self.position != "none":
            table = params["params"]["position"]
            known = table.reshape(-1, *table.shape[2:])[jnp.asarray(position)]
        if self.position == "early":
            x = jnp.concatenate([x, known[..., None]], axis=-1)
        z, stats, _ = self.trunk(params, x, Lattice(stride=None), train=train)
        vector = z.reshape(len(z), -1) if self.head == "flatten" else z.mean((1, 2))
        first = params["params"]["hidden" if self.hidden else "head"]
        out = vector @ first["kernel"] + first["bias"][None, :]
        out = self.after_first(params, out if self.position != "late" else out + known)
        return out, {**params, "batch_stats": stats}

    def normalised(self, x: Array) -> Float[jax.Array, "n h w c"]:
        """Pixels as the first layer takes them."""
        mean, std = (jnp.asarray(values, jnp.float32)[None, None, None, :] for values in (self.mean, self.std))
        return (as_float(x) - mean) / std

    def first_layer(
        self, params: Params, z: Float[Array, "n h w c"], lattice: Lattice, *, phases: bool = False
    ) -> Float[jax.Array, "n gh gw d"]:
        """What the first affine layer gives for every patch of images, from their last maps, without any position."""
        dilation, stride = lattice.head
        first = params["params"]["hidden" if self.hidden else "head"]
        window = {"size": self.side, "dilation": dilation, "stride": stride, "phases": phases}
        if self.head == "mean":
            out = windowed(functools.partial(pool, kind="avg"), z, **window) @ first["kernel"]
        else:
            kernel = first["kernel"].reshape(self.side, self.side, self.width, -1)
            out = windowed(functools.partial(convolve, kernel=kernel, padding=0), z, **window)
        return out + first["bias"][None, None, None, :]

    def after_first(self, params: Params, out: Float[Array, "... d"]) -> Float[jax.Array, "... k"]:
        """Logits, from what the first affine layer returns (its bias and the late position included)."""
        if not self.hidden:
            return out
        head = params["params"]["head"]
        bias = head["bias"].reshape((1,) * (out.ndim - 1) + (-1,))
        return jax.nn.relu(out) @ head["kernel"] + bias

    def trunk(
        self, params: Params, x: Float[Array, "n h w c"], lattice: Lattice, *, train: bool = False, phases: bool = False
    ) -> tuple[jax.Array, Params, Lattice]:
        """(the last maps, batch statistics, their lattice) of normalised pixels.

        Args:
          params: the model's parameters.
          x: `[n ...]`.
          lattice: of the pixels. `Lattice(stride=None)`: x is one patch per row; `Lattice(stride=s)`: whole images.
          train: training mode.
          phases: dilated windows as undilated ones over interleaved parts of the array, which some backends do faster.
        """
        stats = dict(params["batch_stats"])
        params = params["params"]

        def conv(name: str, layer: Conv, x: jax.Array, lattice: Lattice) -> tuple[jax.Array, Lattice]:
            dilation, stride, after = lattice.step(layer.stride)
            kernel = params[name]["kernel"].astype(x.dtype)
            y = windowed(
                functools.partial(convolve, kernel=kernel, padding=layer.padding),
                x,
                size=layer.kernel,
                dilation=dilation,
                stride=stride,
                phases=phases,
            )
            y, stats[name] = normalise(layer, params[name], stats.get(name), y.astype(jnp.float32), train)
            if stats[name] is None:
                del stats[name]
            return (jax.nn.relu(y) if layer.relu else y).astype(x.dtype), after

        x = x.astype(self.dtype)
        for number, layer in enumerate(self.layers):
            if isinstance(layer, Conv):
                x, lattice = conv(f"layer{number}", layer, x, lattice)
            elif isinstance(layer, Pool):
                dilation, stride, lattice = lattice.step(layer.stride)
                x = windowed(
                    functools.partial(pool, kind=layer.kind),
                    x,
                    size=layer.kernel,
                    dilation=dilation,
                    stride=stride,
                    phases=phases,
                )
            else:
                y, after = x, lattice
                for place, part in enumerate(layer.body):
                    y, after = conv(f"layer{number}_{place}", part, y, after)
                if (skip := layer.skip(x.shape[-1])) is not None:
                    x, _ = conv(f"layer{number}_skip", skip, x, lattice)
                x, lattice = jax.nn.relu(y + x[:, : y.shape[1], : y.shape[2]]), after
        return x.astype(jnp.float32), stats, lattice


def patch_net(
    *,
    patch: int = 16,
    classes: int = 2,
    channels: int = 3,
    layers: tuple[Layer, ...] | None = None,
    head: str | None = None,
    hidden: int | None = None,
    position: str = "none",
    grid: tuple[int, int] | None = None,
    dtype: str = "float32",
) -> PatchNet:
    """A patch network. With `position="early"` the defaults are the paper's, a ResNet-18 for small images; else ours.

    Ours, by the side of the patch, C3-16 a 3x3 convolution to 16 channels and P2 a 2x2 maximum: below 12 C3-32 C3-32
    P2, 64 hidden; below 24 C3-16 C3-32 P2 C3-64, 64 hidden; from 24 on C3-32 C3-32 P2 C3-64 C3-64 P2, 128 hidden.

    Args:
      patch: side P of a patch, in pixels.
      classes: number of classes k.
      channels: c of the images.
      layers: `Conv`, `Pool` and `Residual` in their order; None: by the rule above.
      head: `flatten`: the last maps as one vector; `mean`: their mean over the patch.
      hidden: units of the hidden layer, 0 for none.
      position: see `PatchNet`.
      grid: (rows, columns) of patches in an image, where the position is known: (h - P) // s + 1, and so for w.
      dtype: of the trunk, `float32` or `bfloat16`, which accelerators compute faster; logits differ in the third digit.

    Raises:
      ContractError: layers that a patch is too small for, a position without its grid.

    >>> net = patch_net(patch=16)
    >>> net == patch_net(patch=16), net.side, net.width, net.total_stride
    (True, 4, 64, 2)
    """
    check_choice("position", position, ("none", "late", "early"))
    expect(
        (grid is not None) == (position != "none"),
        "grid",
        f"{'None' if position == 'none' else '(rows, columns)'} with position={position!r}",
        grid,
    )
    default_layers, default_head, default_hidden = RESNET_18 if position == "early" else _by_patch(patch)
    net = PatchNet(
        patch=patch,
        classes=classes,
        channels=channels,
        layers=default_layers if layers is None else tuple(layers),
        head=head or default_head,
        hidden=default_hidden if hidden is None else hidden,
        position=position,
        grid=None if grid is None else tuple(grid),
        mean=IMAGENET_MEAN if channels == 3 else (0.5,) * channels,
        std=IMAGENET_STD if channels == 3 else (0.25,) * channels,
        dtype=dtype,
    )
    check_choice("dtype", dtype, ("float32", "bfloat16"))
    check_choice("head", net.head, ("flatten", "mean"))
    for name, least in (("patch", 1), ("classes", 2), ("channels", 1), ("hidden", 0)):
        expect(getattr(net, name) >= least, name, f"at least {least}", getattr(net, name))
    size = patch
    for layer in net.layers:
        for kernel, stride, padding in windows_of(layer):
            expect(size + 2 * padding >= kernel, "patch", f"maps of at least {kernel} pixels before {layer}", size)
            size = (size + 2 * padding - kernel) // stride + 1
    return net


def _by_patch(patch: int) -> tuple[tuple[Layer, ...], str, int]:
    """(layers, head, hidden)."""
    if patch < 12:
        return (Conv(width=32), Conv(width=32), Pool()), "flatten", 64
    if patch < 24:
        return (Conv(width=16), Conv(width=32), Pool(), Conv(width=64)), "flatten", 64
    return (Conv(width=32), Conv(width=32), Pool(), Conv(width=64), Conv(width=64), Pool()), "flatten", 128


def _basic_block(width: int, stride: int) -> Residual:
    return Residual(
        body=(
            Conv(width=width, stride=stride, padding=1, norm="batch"),
            Conv(width=width, padding=1, norm="batch", relu=False),
        )
    )


def resnet_layers(width: int = 64) -> tuple[Layer, ...]:
    """ResNet-18 without its stem's strides: four stages of two blocks, `width` channels and doubling."""
    blocks = [
        _basic_block(width * 2**stage, 2 if stage and not block else 1) for stage in range(4) for block in range(2)
    ]
    return (Conv(width=width, padding=1, norm="batch"), *blocks)


RESNET_18 = (resnet_layers(), "mean", 0)


def crops_at(
    images: Array, image: Int[Array, "m"], top: Int[Array, "m"], left: Int[Array, "m"], patch: int
) -> jax.Array:
    """Crops `[m P P c]`, of the dtype of the images `[n h w c]`."""
    images = jnp.asarray(images)

    def one(i: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
        return lax.dynamic_slice(images, (i, y, x, 0), (1, patch, patch, images.shape[-1]))[0]

    return jax.vmap(one)(image, top, left)
