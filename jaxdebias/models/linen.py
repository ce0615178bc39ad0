"""From a Flax linen module to a `Classifier`. Linen is known to this folder only."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdebias.core import Array, Classifier, Key, Params, Split, as_float
from jaxdebias.models._conv import conv_general_dilated


class Network(nn.Module):
    """What a network of ours consists of: logits = head(pool(trunk(x))). Pixels come in as floats in [0, 1]."""

    def trunk(self, x: jax.Array, train: bool) -> jax.Array:
        """The last spatial map `[n h w c]`, or the penultimate vector `[n d]` of a network without maps."""
        raise NotImplementedError

    def pool(self, z: jax.Array) -> jax.Array:
        """What `trunk` returns -> the penultimate vector `[n d]`."""
        raise NotImplementedError

    def logits(self, vector: jax.Array) -> jax.Array:
        """The last affine layer, whose parameters are called `head`."""
        raise NotImplementedError

    def vector(self, x: jax.Array) -> jax.Array:
        return self.pool(self.trunk(x, train=False))

    def spatial_head(self, z: jax.Array) -> jax.Array:
        return self.logits(self.pool(z))

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return self.logits(self.pool(self.trunk(x, train)))


@functools.cache
def classifier(network: Network, *, spatial: bool) -> Classifier:
    """The network as a `Classifier`, the same object for equal networks; `spatial`: its trunk returns maps."""

    def init(key: Key, x: Array) -> Params:
        return dict(network.lazy_init(key, jax.ShapeDtypeStruct((1, *x.shape[1:]), jnp.float32)))

    def apply(params: Params, x: Array) -> jax.Array:
        return network.apply(params, as_float(x))

    def train(key: Key, params: Params, x: Array) -> tuple[jax.Array, Params]:
        logits, changed = network.apply(params, as_float(x), train=True, mutable=["batch_stats"], rngs={"dropout": key})
        return logits, {**params, **changed}

    def vector(params: Params, x: Array) -> jax.Array:
        return network.apply(params, as_float(x), method="vector")

    def logits(params: Params, z: Array) -> jax.Array:
        return network.apply(params, z, method="logits")

    def trunk(params: Params, x: Array) -> jax.Array:
        return network.apply(params, as_float(x), train=False, method="trunk")

    def spatial_head(params: Params, z: Array) -> jax.Array:
        return network.apply(params, z, method="spatial_head")

    return Classifier(
        init=init,
        apply=apply,
        train=train,
        vector=Split(vector, logits),
        spatial=Split(trunk, spatial_head) if spatial else None,
    )


class Affine(nn.Module):
    """`nn.Dense` with the papers' initial values.

    "pytorch": weights and bias uniform in +-1/sqrt(fan_in), PyTorch's default. "he": normal weights of variance
    2/fan_in and no bias, under which a ReLU layer keeps the scale of its input (He et al. 2015).
    """

    features: int
    initial: str = "pytorch"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        bound = 1.0 / math.sqrt(x.shape[-1])

        def uniform(key: Key, shape: tuple[int, ...]) -> jax.Array:
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        he = self.initial == "he"
        kernel = self.param("kernel", nn.initializers.he_normal() if he else uniform, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros if he else uniform, (self.features,))
        return x @ kernel + bias[None, :]


# `nn.Conv` whose training step keeps its speed inside the training loop's scan.
Conv = functools.partial(nn.Conv, conv_general_dilated=conv_general_dilated)
