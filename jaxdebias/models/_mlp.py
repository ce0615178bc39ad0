"""The multilayer perceptron of the Colored MNIST experiments; for tables too."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Classifier
from jaxdebias.models.linen import Affine, Network, classifier


class _MLP(Network):
    hidden: tuple[int, ...]
    classes: int
    initial: str

    def setup(self):
        self.layers = [Affine(width, initial=self.initial) for width in self.hidden]
        self.head = Affine(self.classes)

    def trunk(self, x: jax.Array, train: bool) -> jax.Array:
        del train  # nothing here differs between training and evaluation
        x = x.reshape(x.shape[0], -1)
        for layer in self.layers:
            x = nn.relu(layer(x))
        return x

    def pool(self, z: jax.Array) -> jax.Array:
        return z

    def logits(self, vector: jax.Array) -> jax.Array:
        return self.head(vector)


def mlp(*, hidden: Sequence[int] = (100, 100, 100), classes: int = 10, initial: str = "pytorch") -> Classifier:
    """Affine layers with ReLU between them, on images (flattened) or tables.

    The default is the network of the Colored MNIST tables (LfF, Nam et al. 2020; Signal is Harder, Vandenhirtz et al.
    2023). The vector split's features are the last hidden layer, `[n hidden[-1]]`; there are no maps.

    Args:
      hidden: widths of the hidden layers.
      classes: k.
      initial: initial values of the hidden layers, "pytorch" as in the papers, or "he"; see `Affine`. The last layer
        starts as in PyTorch.

    >>> mlp(classes=2) is mlp(hidden=[100, 100, 100], classes=2)
    True
    """
    expect(len(hidden) > 0, "hidden", "at least one hidden layer", hidden)
    check_choice("initial", initial, ("pytorch", "he"))
    return classifier(_MLP(hidden=tuple(hidden), classes=classes, initial=initial), spatial=False)
