"""From label masks to the regions that maps are scored against, on the maps' grid."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_numbers, describe, expect
from jaxdebias.core import Array


def region_masks(
    mask: Int[Array, "n h w"],
    regions: Sequence[Sequence[int]],
    *,
    grid: tuple[int, int] | None = None,
    batch_size: int = 32,
) -> Float[jax.Array, "n r u v"]:
    """The regions of each image, shrunk to a grid by the share of each cell that they cover.

    Shrinking is antialiased and bilinear with half-pixel centres, as in torchvision's second resize; cells at a
    border between regions are therefore soft. A region that no pixel belongs to is 0 everywhere.

    Args:
      mask: `[n h w]` label masks, as in `Batch.mask`.
      regions: for each region the labels that it unites: `((1,), (0,))` is object and background.
      grid: (height, width) of the maps; None: that of the mask. The score depends on it.
      batch_size: images at a time; peak memory beside the result is `4 * batch_size * r * h * w` bytes, a few times.

    Raises:
      ContractError: no mask, an empty region, a grid without cells.

    >>> mask = np.zeros((1, 4, 4), np.int32); mask[0, :2, :2] = 1
    >>> region_masks(mask, ((1,), (0,)), grid=(1, 1)).shape
    (1, 2, 1, 1)
    """
    expect(np.ndim(mask) == 3 and np.size(mask) > 0, "mask", "int [n h w]", describe(mask))
    check_numbers("mask", mask, "n h w")
    expect(jnp.asarray(mask).dtype.kind in "biu", "mask", "int [n h w]", describe(mask))  # may be traced
    regions = tuple(tuple(int(label) for label in labels) for labels in regions)
    expect(len(regions) > 0 and all(regions), "regions", "at least one label per region", regions)
    sides = tuple(np.shape(mask)[1:] if grid is None else grid)
    expect(len(sides) == 2 and min(sides) >= 1, "grid", "height and width of at least 1", sides)
    on_grid = _on_grid(regions, (sides[0], sides[1]))
    return cast(jax.Array, map_rows(on_grid, None, jnp.asarray(mask), batch_size=batch_size))


@functools.cache  # the same function object for the same regions and grid: compiled once per shape
def _on_grid(regions: tuple[tuple[int, ...], ...], grid: tuple[int, int]) -> Callable[[Any, jax.Array], jax.Array]:
    def on_grid(_: None, mask: Int[Array, "b h w"]) -> Float[jax.Array, "b r u v"]:
        united = [functools.reduce(jnp.logical_or, [mask == label for label in labels]) for labels in regions]
        full = jnp.stack(united, axis=1).astype(jnp.float32)
        shape = (*full.shape[:2], *grid)
        resize = cast(Callable[..., jax.Array], jax.image.resize)  # pyright: ignore[reportUnknownMemberType]
        return resize(full, shape, "linear", antialias=True)

    return on_grid
