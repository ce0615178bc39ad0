"""A small convolutional network, for images of some ten to a hundred pixels a side."""

from collections.abc import Sequence

import flax.linen as nn
import jax

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
