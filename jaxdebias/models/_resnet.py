"""Residual networks in torchvision's layout, with batch or group normalisation (He et al. 2016; Wu & He 2018)."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Classifier
from jaxdebias.models._conv import max_pool
from jaxdebias.models.linen import Affine, Conv, Network, classifier

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# torchvision's initialisation, and PyTorch's paddings: "SAME" would shift strided windows by a pixel.
_he = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _conv(features: int, size: int, stride: int, dtype: Any, name: str) -> nn.Conv:
    return Conv(
        features,
        (size, size),
        (stride, stride),
        padding=[(size // 2, size // 2)] * 2,
        use_bias=False,
        kernel_init=_he,
        dtype=dtype,
        name=name,
    )


def _norm(kind: str, channels: int, train: bool, dtype: Any, name: str) -> Callable[[jax.Array], jax.Array]:
    if kind == "batch":  # Flax's momentum .9 is PyTorch's .1
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name)
    return nn.GroupNorm(num_groups=math.gcd(32, channels), epsilon=1e-5, dtype=dtype, name=name)


class _Block(nn.Module):
    """Two 3x3 convolutions or, as bottleneck, 1x1, 3x3, 1x1 with four times as many channels out.

    The stride is on the (first) 3x3 convolution in both, which for the bottleneck is known as v1.5.
    """

    width: int
    stride: int
    bottleneck: bool
    norm: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv, norm = partial(_conv, dtype=self.dtype), partial(_norm, self.norm, train=train, dtype=self.dtype)
        wide = 4 * self.width if self.bottleneck else self.width
        layers = [(self.width, 3, self.stride), (wide, 3, 1)]
        if self.bottleneck:
            layers = [(self.width, 1, 1), (self.width, 3, self.stride), (wide, 1, 1)]

        y = x
        for i, (features, size, stride) in enumerate(layers, start=1):
            y = norm(features, name=f"bn{i}")(conv(features, size, stride, name=f"conv{i}")(y))
            y = nn.relu(y) if i < len(layers) else y
        if self.stride != 1 or x.shape[-1] != wide:
            x = norm(wide, name="downsample_bn")(conv(wide, 1, self.stride, name="downsample_conv")(x))
        return nn.relu(x + y)


class _Stem(nn.Module):
    width: int
    kind: str
    norm: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        size, stride = (7, 2) if self.kind == "imagenet" else (3, 1)
        x = _conv(self.width, size, stride, self.dtype, name="conv1")(x)
        x = nn.relu(_norm(self.norm, self.width, train, self.dtype, name="bn1")(x))
        return max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)]) if self.kind == "imagenet" else x


class _ResNet(Network):
    blocks: tuple[int, ...]
    bottleneck: bool
    classes: int
    norm: str
    stem_kind: str
    width: int
    input_mean: tuple[float, ...]
    input_std: tuple[float, ...]
    dtype: Any

    def setup(self):
        self.stem = _Stem(self.width, self.stem_kind, self.norm, self.dtype)
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                module = _Block(self.width * 2**stage, stride, self.bottleneck, self.norm, self.dtype)
                setattr(self, f"layer{stage + 1}_{block}", module)
        self.head = Affine(self.classes)

    def trunk(self, x: jax.Array, train: bool) -> jax.Array:
        expect(
            x.ndim == 4 and x.shape[-1] == len(self.input_mean),
            "x",
            f"images [n h w c={len(self.input_mean)}], as many channels as input_mean has",
            list(x.shape),
        )
        mean, std = (jnp.asarray(values, x.dtype)[None, None, None, :] for values in (self.input_mean, self.input_std))
        x = self.stem((x - mean) / std, train)
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                x = getattr(self, f"layer{stage + 1}_{block}")(x, train)
        return x

    def pool(self, z: jax.Array) -> jax.Array:
        return z.astype(jnp.float32).mean((1, 2))

    def logits(self, vector: jax.Array) -> jax.Array:
        return self.head(vector)


_BLOCKS = {18: ((2, 2, 2, 2), False), 50: ((3, 4, 6, 3), True)}


def resnet(
    *,
    depth: int = 18,
    classes: int = 10,
    norm: str = "batch",
    stem: str = "imagenet",
    width: int = 64,
    input_mean: Sequence[float] = IMAGENET_MEAN,
    input_std: Sequence[float] = IMAGENET_STD,
    bf16: bool = False,
) -> Classifier:
    """ResNet-18 or ResNet-50 (v1.5) in torchvision's layout; takes torchvision's weights, see `load_resnet`.

    Args:
      depth: 18 (two 3x3 convolutions a block) or 50 (bottleneck blocks).
      classes: width of the head.
      norm: `batch` keeps running statistics in `params["batch_stats"]`, momentum .9 and epsilon 1e-5; `group` has no
        statistics, hence no example of a batch influences another.
      stem: `imagenet` is a 7x7 convolution of stride 2 and a 3x3 max-pool; `small`, for images of about 32 pixels a
        side, one 3x3 convolution of stride 1.
      width: channels of the first stage.
      input_mean: per channel of the images in [0, 1]; subtracted inside the model, as `input_std` divides there.
      input_std: see input_mean.
      bf16: convolutions and normalisations compute in bfloat16; parameters, statistics and the head stay float32.

    The spatial features are the last stage's maps, `[n h/32 w/32 8 width]` (`imagenet`, depth 18; four times the
    channels for 50), whose mean over h and w is the vector features.
    """
    check_choice("depth", str(depth), map(str, _BLOCKS))
    check_choice("norm", norm, ["batch", "group"])
    check_choice("stem", stem, ["imagenet", "small"])
    expect(
        len(input_mean) == len(input_std),
        "input_std",
        f"as many values as input_mean, {len(input_mean)}",
        len(input_std),
    )
    blocks, bottleneck = _BLOCKS[depth]
    network = _ResNet(
        blocks=blocks,
        bottleneck=bottleneck,
        classes=classes,
        norm=norm,
        stem_kind=stem,
        width=width,
        input_mean=tuple(input_mean),
        input_std=tuple(input_std),
        dtype=jnp.bfloat16 if bf16 else jnp.float32,
    )
    return classifier(network, spatial=True)
