"""Random views of a batch of images, as pure functions `(key, x) -> x` that run inside the training step.

Images are NHWC, uint8 or float; the dtype is kept. Each image draws its own view. The same arguments give the same
function object, so a learner built with it is not compiled again.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Shaped

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
def random_affine(*, degrees: float = 20.0, scale: float = 0.15, shear: float = 0.15, shift: float = 3.0) -> Augment:
    """Turns, stretches, shears and shifts each image at random, bilinearly, with 0 where it comes from outside.

    It makes shapes harder to learn and leaves colours alone: the defaults are those with which AUG-CELL looks for a
    bias in 28x28 digits.

    Args:
      degrees: the angle is uniform in +-degrees.
      scale: each axis is stretched by e^s, s uniform in +-scale.
      shear: uniform in +-shear, pixels along one axis for each pixel along the other.
      shift: pixels, uniform in +-shift along each axis.
    """
    for name, value in (("degrees", degrees), ("scale", scale), ("shear", shear), ("shift", shift)):
        expect(value >= 0, name, "at least 0", value)

    def affine(key: Key, x: Shaped[Array, "n h w c"]) -> Shaped[jax.Array, "n h w c"]:
        x = jnp.asarray(x)
        n, height, width, _ = x.shape
        half = jnp.array([math.radians(degrees), scale, scale, shear, shift, shift], jnp.float32)
        turn, *log_scale, skew, down, right = half[:, None] * jax.random.uniform(key, (6, n), minval=-1.0, maxval=1.0)
        sine, cosine, (tall, wide) = jnp.sin(turn), jnp.cos(turn), map(jnp.exp, log_scale)
        # Where each output pixel comes from, both measured from the middle: rotation @ [[tall, skew], [0, wide]].
        y = (jnp.arange(height) - (height - 1) / 2)[None, :, None]
        z = (jnp.arange(width) - (width - 1) / 2)[None, None, :]
        each = (slice(None), None, None)
        rows = (cosine * tall)[each] * y + (cosine * skew - sine * wide)[each] * z + (down + (height - 1) / 2)[each]
        columns = (sine * tall)[each] * y + (sine * skew + cosine * wide)[each] * z + (right + (width - 1) / 2)[each]
        moved = _bilinear(x, rows, columns)
        return (jnp.round(moved) if jnp.issubdtype(x.dtype, jnp.integer) else moved).astype(x.dtype)

    return affine


def _bilinear(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Each image `[h w c]` at fractional places `[n h2 w2]`; 0 outside."""
    n, height, width, channels = x.shape
    flat = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(n, (height + 2) * (width + 2), channels)
    rows, columns = jnp.clip(rows, -1.0, height), jnp.clip(columns, -1.0, width)  # the border is 0
    top, left = jnp.floor(rows), jnp.floor(columns)
    below, beside = rows - top, columns - left
    first = ((top + 1) * (width + 2) + left + 1).astype(jnp.int32)
    total = jnp.zeros((*rows.shape, channels), jnp.float32)
    for step, share in (
        (0, (1 - below) * (1 - beside)),
        (1, (1 - below) * beside),
        (width + 2, below * (1 - beside)),
        (width + 3, below * beside),
    ):
        # At the far border the next pixel does not exist, and has no share.
        place = jnp.minimum(first + step, flat.shape[1] - 1).reshape(n, -1, 1)
        pixel = jnp.take_along_axis(flat, place, axis=1).reshape(total.shape)
        total = total + share[..., None] * pixel
    return total


@functools.cache
def chain(*augments: Augment) -> Augment:
    """One augmentation after the other, each with a key of its own."""

    def augment(key: Key, x: Array) -> jax.Array:
        for key_view, view in zip(jax.random.split(key, len(augments)), augments, strict=True):
            x = view(key_view, x)
        return x

    return augment


@functools.cache
def random_resized_crop(
    scale: tuple[float, float] = (0.5, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Augment:
    """A random part of each image, resized to the whole image's size by bilinear interpolation (Szegedy et al. 2015).

    The part's area is uniform in `scale` times the image's, the logarithm of its width / height uniform in that of
    `ratio`; sizes are rounded to pixels. Of ten such draws the first that fits into the image is taken; if none does,
    the largest central part whose ratio is allowed. The rule is torchvision's, and so are the defaults' ratios; the
    interpolation never makes an image smaller, so no anti-aliasing enters. The defaults are those of the Corrupted
    CIFAR-10 protocol (Vandenhirtz et al. 2023).
    """
    expect(0 < scale[0] <= scale[1] <= 1, "scale", "shares of the area, 0 < smallest <= largest <= 1", scale)
    expect(0 < ratio[0] <= ratio[1], "ratio", "width / height, 0 < smallest <= largest", ratio)

    def crop(key: Key, x: Shaped[Array, "n h w c"]) -> Shaped[jax.Array, "n h w c"]:
        x = jnp.asarray(x)
        top, left, height, width = random_parts(key, *x.shape[:3], scale, ratio)
        rows, columns = _interpolation(top, height, x.shape[1]), _interpolation(left, width, x.shape[2])
        precise = {"precision": jax.lax.Precision.HIGHEST}
        resized = jnp.einsum("nah,nhwc->nawc", rows, x.astype(jnp.float32), **precise)
        resized = jnp.einsum("nbw,nawc->nabc", columns, resized, **precise)
        if jnp.issubdtype(x.dtype, jnp.integer):
            resized = jnp.round(resized)  # between pixels of the image, so never outside its range
        return resized.astype(x.dtype)

    return crop


def random_parts(
    key: Key, n: int, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Int[jax.Array, "4 n"]:
    """The (top, left, height, width) in pixels of each image's part; see `random_resized_crop`."""
    key_area, key_ratio, key_place = jax.random.split(key, 3)
    area = height * width * jax.random.uniform(key_area, (10, n), minval=scale[0], maxval=scale[1])
    log_ratio = jax.random.uniform(key_ratio, (10, n), minval=math.log(ratio[0]), maxval=math.log(ratio[1]))
    widths, heights = (jnp.round(jnp.sqrt(area * jnp.exp(sign * log_ratio))).astype(jnp.int32) for sign in (1, -1))
    fits = (widths > 0) & (heights > 0) & (widths <= width) & (heights <= height)
    first, images = jnp.argmax(fits, axis=0), jnp.arange(n)
    nearest = min(max(width / height, ratio[0]), ratio[1])
    central = min(height, round(width / nearest)), min(width, round(height * nearest))
    some = fits.any(axis=0)
    h = jnp.where(some, heights[first, images], central[0])
    w = jnp.where(some, widths[first, images], central[1])
    place = jnp.where(some[None], jax.random.uniform(key_place, (2, n)), 0.5)
    # floor, over one place more than fits beside the part; the central part's margins are halved
    top = jnp.minimum((place[0] * (height - h + some)).astype(jnp.int32), height - h)
    left = jnp.minimum((place[1] * (width - w + some)).astype(jnp.int32), width - w)
    return jnp.stack([top, left, h, w])


def _interpolation(start: Int[jax.Array, "n"], length: Int[jax.Array, "n"], size: int) -> Float[jax.Array, "n m m"]:
    """Per image the matrix that stretches pixels start..start + length - 1 of an axis over all `size` pixels."""
    ratio = length.astype(jnp.float32) / size
    position = (jnp.arange(size) + 0.5)[None] * ratio[:, None] - 0.5  # pixel centres on pixel centres
    position = start[:, None] + jnp.clip(position, 0.0, (length - 1)[:, None].astype(jnp.float32))
    distance = jnp.abs(position[:, :, None] - jnp.arange(size, dtype=jnp.float32)[None, None])
    return jnp.maximum(1.0 - distance, 0.0)
