"""Random views of a batch of images, as pure functions `(key, x) -> x` that run inside the training step.

Images are NHWC, uint8 or float; the dtype is kept. Each image draws its own view. The same arguments give the same
function object, so a learner built with it is not compiled again.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Shaped

from jaxdebias.contracts import expect
from jaxdebias.core import Array, Key

Augment = Callable[[Key, Array], jax.Array]


def random_flip(key: Key, x: Shaped[Array, "n h w c"]) -> Shaped[jax.Array, "n h w c"]:
    """Mirrors each image left to right with probability 1/2."""
    flipped = jax.random.bernoulli(key, 0.5, (x.shape[0], 1, 1, 1))
    return jnp.where(flipped, x[:, :, ::-1, :], x)


@functools.cache
def random_shift(pad: int) -> Augment:
    """Shifts each image by -pad..pad pixels along each axis and fills with 0: the padded random crop of CIFAR."""
    expect(pad >= 1, "pad", "at least 1 pixel", pad)

    def shift(key: Key, x: Shaped[Array, "n h w c"]) -> Shaped[jax.Array, "n h w c"]:
        n, height, width, channels = x.shape
        padded = jnp.pad(jnp.asarray(x), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        corner = jax.random.randint(key, (n, 2), 0, 2 * pad + 1)

        def crop(image, start):
            return jax.lax.dynamic_slice(image, (start[0], start[1], 0), (height, width, channels))

        return jax.vmap(crop)(padded, corner)

    return shift


@functools.cache
def chain(*augments: Augment) -> Augment:
    """One augmentation after the other, each with a key of its own."""

    def augment(key: Key, x: Array) -> jax.Array:
        for key_view, view in zip(jax.random.split(key, len(augments)), augments, strict=True):
            x = view(key_view, x)
        return x

    return augment
