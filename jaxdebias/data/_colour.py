"""Grey digits in class-correlated colours: the palette of Colored MNIST, its noise, and every rendering of a digit."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array, Batch
from jaxdebias.data._aligned import other_attribute

COLOUR_NAMES = ("red", "yellow", "mauve", "khaki", "sky", "green", "blue", "violet", "olive", "crimson")

# Mean colours in [0, 1], to six digits, from the resource file of LfF (Nam et al. 2020), which SiH uses too.
PALETTE = np.array(
    [
        [0.983682, 0.312519, 0.168575],
        [0.990530, 0.915605, 0.351512],
        [0.672964, 0.461070, 0.579808],
        [0.783252, 0.831556, 0.601329],
        [0.088016, 0.777963, 0.981808],
        [0.321393, 0.961055, 0.446450],
        [0.024616, 0.235650, 0.758666],
        [0.555247, 0.101580, 0.761763],
        [0.207723, 0.392949, 0.018702],
        [0.833658, 0.202409, 0.266943],
    ],
    np.float32,
)
PALETTE.flags.writeable = False

SEVERITY_4 = 0.005
"""Standard deviation of the colour noise in the published protocol (severity 4 of 1..5)."""


class Tint(NamedTuple):
    """A coloured picture before it is drawn: which grey one, in which colour. Runs that share pictures differ in it."""

    picture: Int[Array, "n"]
    """int32, the row of the grey pictures."""
    colour: Float[Array, "n 3"]
    """float32 in [0, 1]."""


def draw_tints(gray: UInt8[Array, "m h w"], batch: Batch) -> Batch:
    """A batch whose `x` is a `Tint` -> the batch of its pictures `[n h w 3]` uint8; a `View` of the training loop.

    To the bit what `colourise` stores.
    """
    pictures = jnp.asarray(gray)[batch.x.picture]  # pyright: ignore[reportAttributeAccessIssue]
    return batch._replace(x=(pictures[..., None] * batch.x.colour[:, None, None, :]).astype(jnp.uint8))  # pyright: ignore[reportAttributeAccessIssue]


def noisy_colours(
    rng: np.random.Generator, attribute: Int[Array, "n"], *, sigma: float = SEVERITY_4
) -> Float[np.ndarray, "n 3"]:
    """clip(PALETTE[attribute] + sigma * noise, 0, 1), one standard normal draw per image and channel."""
    expect(bool(np.isfinite(sigma) and sigma >= 0), "sigma", "at least 0", describe(sigma))
    noise = rng.standard_normal((len(attribute), 3), dtype=np.float32)
    return np.clip(PALETTE[attribute] + np.float32(sigma) * noise, 0.0, 1.0)


def colourise(
    rng: np.random.Generator, gray: UInt8[Array, "n h w"], attribute: Int[Array, "n"], *, sigma: float = SEVERITY_4
) -> UInt8[np.ndarray, "n h w 3"]:
    """Each grey image times its colour; the background stays black.

    x = trunc(gray * colour), with the colours of `noisy_colours` (SiH, Vandenhirtz et al. 2023, official code).

    >>> image = np.full((1, 1, 1), 255, np.uint8)
    >>> colourise(np.random.default_rng(0), image, np.array([6]), sigma=0.0).ravel().tolist()
    [6, 60, 193]
    """
    colour = noisy_colours(rng, attribute, sigma=sigma)
    out = np.empty((*gray.shape, 3), np.uint8)
    for start in range(0, len(gray), 1024):  # keeps the float intermediate small
        part = slice(start, start + 1024)
        out[part] = gray[part, :, :, None] * colour[part, None, None, :]
    return out


def every_colour(
    rng: np.random.Generator, gray: UInt8[Array, "n h w"], label: Int[Array, "n"], *, sigma: float = SEVERITY_4
) -> Batch:
    """Every digit in all ten colours: 10 n rows, row 10 i + b shows digit i in colour b; `unit` is i."""
    digit, colour = np.divmod(np.arange(10 * len(gray), dtype=np.int32), 10)
    x = colourise(rng, gray[digit], colour, sigma=sigma)
    return Batch(x=x, label=_int32(label)[digit], attribute=colour, unit=digit)


def one_colour(
    rng: np.random.Generator,
    gray: UInt8[Array, "n h w"],
    label: Int[Array, "n"],
    attribute: Int[Array, "n"],
    *,
    sigma: float = SEVERITY_4,
) -> Batch:
    """Every digit once, in the given colour; `unit` is its number within this batch."""
    x = colourise(rng, gray, attribute, sigma=sigma)
    return Batch(x=x, label=_int32(label), attribute=_int32(attribute), unit=np.arange(len(gray), dtype=np.int32))


def coloured_pairs(
    rng: np.random.Generator, gray: UInt8[Array, "n h w"], label: Int[Array, "n"], *, sigma: float = SEVERITY_4
) -> Batch:
    """Every digit twice: x in its own class's colour, twin in one other colour, uniform over the nine."""
    aligned = one_colour(rng, gray, label, label, sigma=sigma)
    other = other_attribute(rng, label, 10)
    return aligned._replace(twin=colourise(rng, gray, other, sigma=sigma), twin_attribute=_int32(other))


def _int32(value: Array) -> np.ndarray:
    return np.asarray(value, np.int32)
