"""What is done to a map before it is shown or scored: pure functions on `[... h w]`, each map by itself.

Every step is separate because the order and the grid decide a score: Attention-IoU of bilinearly enlarged maps is
another number than that of the maps themselves. `as_published` is the chain of Attention-IoU's code (Serianni et al.
2025).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array

EPSILON = 1e-7
"""Added to the maximum by which a map is divided, as in the `grad-cam` package: a map of zeros stays one."""


def subtract_min(maps: Float[Array, "... h w"]) -> Float[jax.Array, "... h w"]:
    """Each map less its minimum: a map that is positive everywhere loses its floor."""
    return jnp.asarray(maps) - maps.min(axis=(-2, -1), keepdims=True)


def divide_by_max(maps: Float[Array, "... h w"]) -> Float[jax.Array, "... h w"]:
    """Each map over its maximum plus `EPSILON`; for maps without negative values."""
    return jnp.asarray(maps) / (EPSILON + maps.max(axis=(-2, -1), keepdims=True))


def clamp(maps: Float[Array, "... h w"]) -> Float[jax.Array, "... h w"]:
    """Values in [0, 1]."""
    return jnp.clip(maps, 0.0, 1.0)


def unit_sum(maps: Float[Array, "... h w"], *, epsilon: float = 0.0) -> Float[jax.Array, "... h w"]:
    """Each map over its sum plus epsilon, for maps without negative values; a map of zeros gives NaN without epsilon.

    The paper's average maps are means of maps with epsilon 1e-7; its scores have none.

    >>> unit_sum(jnp.array([[1.0, 3.0]])).tolist()
    [[0.25, 0.75]]
    """
    return jnp.asarray(maps) / (epsilon + maps.sum(axis=(-2, -1), keepdims=True))


def resize(maps: Float[Array, "... h w"], grid: int | tuple[int, int]) -> Float[jax.Array, "... h2 w2"]:
    """Maps, or region masks as floats, on another grid `(h, w)`; an int is both.

    Linear with half-pixel centres, and antialiased where it shrinks: what torchvision's `resize` does to masks by
    default, and OpenCV's to maps that are enlarged.

    >>> resize(jnp.array([[0.0, 1.0]]), (1, 4)).tolist()
    [[0.0, 0.25, 0.75, 1.0]]
    """
    h, w = (grid, grid) if isinstance(grid, int) else grid
    expect(h >= 1 and w >= 1, "grid", "at least 1 x 1", grid)
    expect(maps.ndim >= 2, "maps", "maps [... h w]", describe(maps))
    return jax.image.resize(jnp.asarray(maps), (*maps.shape[:-2], h, w), "linear")


def as_published(
    maps: Float[Array, "... h w"], grid: int | tuple[int, int] | None = None
) -> Float[jax.Array, "... h2 w2"]:
    """The maps that Attention-IoU's code scores, in [0, 1].

    The package's part: ReLU, minimum to 0, maximum to 1, resized, and the same again; then once more minimum and
    maximum, and [0, 1].

    Args:
      maps: of any sign, as `class_maps` gives them.
      grid: the image's size, 224, for the paper's scores between two maps; None, the maps' own, for its scores of
        masks.
    """
    maps = divide_by_max(subtract_min(jax.nn.relu(maps)))
    if grid is not None:
        maps = resize(maps, grid)
    maps = divide_by_max(subtract_min(jax.nn.relu(maps)))
    return clamp(divide_by_max(subtract_min(maps)))
