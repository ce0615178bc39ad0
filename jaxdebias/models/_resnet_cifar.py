"""ResNet-20 for images of 32x32: 16, 32 and 64 channels, and shortcuts without parameters (He et al. 2016, 4.2)."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdebias.contracts import expect
from jaxdebias.core import Classifier
from jaxdebias.models.linen import Affine, Conv, Network, classifier

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)


class _Normed(nn.Module):
    """A 3x3 convolution without bias, and batch normalisation."""

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = Conv(
            self.features,
            (3, 3),
            (self.stride, self.stride),
            padding=[(1, 1), (1, 1)],
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            name="conv",
        )(x)
        # Flax's momentum .9 is PyTorch's .1
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name="norm")(x)


class _ResNetCifar(Network):
    blocks: int
    widths: tuple[int, ...]
    classes: int
    input_mean: tuple[float, ...]
    input_std: tuple[float, ...]

    def setup(self):
        self.stem = _Normed(self.widths[0])
        for stage, width in enumerate(self.widths):
            for block in range(self.blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                setattr(self, f"stage{stage + 1}_{block}_1", _Normed(width, stride))
                setattr(self, f"stage{stage + 1}_{block}_2", _Normed(width))
        self.head = Affine(self.classes, initial="he")

    def trunk(self, x: jax.Array, train: bool) -> jax.Array:
        expect(
            x.ndim == 4 and x.shape[-1] == len(self.input_mean),
            "x",
            f"images [n h w c={len(self.input_mean)}], as many channels as input_mean has",
            list(x.shape),
        )
        mean, std = (jnp.asarray(values, x.dtype)[None, None, None, :] for values in (self.input_mean, self.input_std))
        x = nn.relu(self.stem((x - mean) / std, train))
        for stage, width in enumerate(self.widths):
            for block in range(self.blocks):
                first, second = (getattr(self, f"stage{stage + 1}_{block}_{i}") for i in (1, 2))
                y = second(nn.relu(first(x, train)), train)
                x = nn.relu(_shortcut(x, width) + y)
        return x

    def pool(self, z: jax.Array) -> jax.Array:
        return z.mean((1, 2))

    def logits(self, vector: jax.Array) -> jax.Array:
        return self.head(vector)


def _shortcut(x: jax.Array, width: int) -> jax.Array:
    """Option A: every second pixel, and as many channels of zeros before as behind."""
    more = width - x.shape[-1]
    if more == 0:
        return x
    return jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))


def resnet20(
    *,
    classes: int = 10,
    width: int = 16,
    input_mean: Sequence[float] = CIFAR_MEAN,
    input_std: Sequence[float] = CIFAR_STD,
) -> Classifier:
    """Three stages of three blocks, 269,722 parameters; the network of LfF (Nam et al. 2020) on Corrupted CIFAR-10.

    Initial values are He's normal ones, of the last layer too, whose bias starts at 0. Batch statistics are in
    `params["batch_stats"]`.

    Args:
      classes: k.
      width: channels of the first stage; the others have two and four times as many.
      input_mean: per channel of the images in [0, 1]; subtracted inside the model, as `input_std` divides there.
      input_std: see input_mean.

    The spatial features are the last maps, `[n h/4 w/4 4 width]`, whose mean over h and w is the vector features.
    """
    expect(width >= 1, "width", "at least 1 channel", width)
    expect(
        len(input_mean) == len(input_std),
        "input_std",
        f"as many values as input_mean, {len(input_mean)}",
        len(input_std),
    )
    network = _ResNetCifar(
        blocks=3,
        widths=(width, 2 * width, 4 * width),
        classes=classes,
        input_mean=tuple(input_mean),
        input_std=tuple(input_std),
    )
    return classifier(network, spatial=True)
