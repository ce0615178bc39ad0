"""Two small convolutional networks, for images of some ten to a hundred pixels a side."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdebias.contracts import expect
from jaxdebias.core import Classifier
from jaxdebias.models.linen import Affine, Conv, Network, classifier


class _CNN(Network):
    channels: tuple[int, ...]
    dense: int
    classes: int

    def setup(self):
        he = nn.initializers.he_normal()
        self.convs = [Conv(width, (3, 3), strides=(2, 2), padding="SAME", kernel_init=he) for width in self.channels]
        self.hidden = Affine(self.dense)
        self.head = Affine(self.classes)

    def trunk(self, x: jax.Array, train: bool) -> jax.Array:
        del train  # nothing here differs between training and evaluation
        for conv in self.convs:
            x = nn.relu(conv(x))
        return x

    def pool(self, z: jax.Array) -> jax.Array:
        # Flattened, not averaged: a small network has to be able to tell where something is.
        return nn.relu(self.hidden(z.reshape(z.shape[0], -1)))

    def logits(self, vector: jax.Array) -> jax.Array:
        return self.head(vector)


def cnn(*, channels: Sequence[int] = (32, 64, 64), dense: int = 64, classes: int = 10) -> Classifier:
    """3x3 convolutions of stride 2 with ReLU, one hidden affine layer of `dense` units, and the head.

    Parameters fit one image size, the one that `init` is shown. The spatial features are the last convolution's maps,
    `[n h/8 w/8 channels[-1]]` for three layers; the vector features are the hidden layer, `[n dense]`.
    """
    expect(len(channels) > 0, "channels", "at least one convolution", channels)
    return classifier(_CNN(channels=tuple(channels), dense=dense, classes=classes), spatial=True)


class _PooledCNN(Network):
    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    classes: int

    def setup(self):
        he = nn.initializers.he_normal()
        self.convs = [
            Conv(width, (kernel, kernel), strides=(stride, stride), padding="SAME", kernel_init=he)
            for width, kernel, stride in zip(self.channels, self.kernels, self.strides, strict=True)
        ]
        self.norms = [nn.LayerNorm() for _ in self.channels]
        self.head = Affine(self.classes)

    def trunk(self, x: jax.Array, train: bool) -> jax.Array:
        del train  # nothing here differs between training and evaluation
        x = (x - 0.5) * 4  # to -2..2
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nn.relu(norm(conv(x)))
        return x

    def pool(self, z: jax.Array) -> jax.Array:
        return jnp.mean(z, axis=(1, 2))

    def logits(self, vector: jax.Array) -> jax.Array:
        return self.head(vector)


def pooled_cnn(
    *,
    channels: Sequence[int] = (32, 64, 64),
    kernels: Sequence[int] = (5, 3, 3),
    strides: Sequence[int] = (4, 2, 1),
    classes: int = 2,
) -> Classifier:
    """Convolutions with layer normalisation over the channels of each pixel and ReLU, their mean, and the head.

    Made for maps: what is where does not get lost before the mean, so the last convolution's output, `[n h/8 w/8
    channels[-1]]` by default, times the head's weights is the logit, spread over the image. Any image size fits.

    Args:
      channels: width, side and stride of each convolution; padding "SAME".
      kernels: width, side and stride of each convolution; padding "SAME".
      strides: width, side and stride of each convolution; padding "SAME".
      classes: of the head.
    """
    expect(len(channels) > 0, "channels", "at least one convolution", channels)
    for name, values in (("kernels", kernels), ("strides", strides)):
        expect(len(values) == len(channels), name, f"{len(channels)}, one per convolution", values)
    return classifier(
        _PooledCNN(channels=tuple(channels), kernels=tuple(kernels), strides=tuple(strides), classes=classes),
        spatial=True,
    )
