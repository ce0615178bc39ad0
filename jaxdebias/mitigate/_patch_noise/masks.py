"""Which pixels to hide: from maps of where a bias lies to masks, to strengths, and to the bits in which masks are kept.

Maps are plain arrays, `[h w]` for a data set or `[n h w]` for images, larger where more information about the bias
attribute lies; `explain.patches` makes them. Masks are made once, on the host; only `pack` and `unpack` are traced.

Source: section "From attributions to noise" of De Coninck et al. 2024 as released (the quantile); budgets, strengths
and protection are ours.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from jaxdebias.contracts import check_finite, describe, expect
from jaxdebias.core import Array
from jaxdebias.data.streams import named_rng


def quantile_mask(maps: Float[Array, "*n h w"], q: float = 0.7) -> Bool[np.ndarray, "*n h w"]:
    """The pixels above the quantile `q` of their own map: with the default about 30 % of them.

    Strictly above, so the mask of a constant map, of a bias without a place, is empty.

    >>> quantile_mask(np.array([[0.0, 1.0], [2.0, 3.0]]), 0.5).tolist()
    [[False, False], [True, True]]
    """
    expect(0 <= q < 1, "q", "a quantile in [0, 1)", q)
    maps = _maps(maps)
    return maps > np.quantile(maps, q, axis=(-2, -1), keepdims=True)


def budget_mask(
    maps: Float[Array, "*n h w"], share: float = 0.9, *, per_image: bool = False, floor: float | None = None
) -> Bool[np.ndarray, "*n h w"]:
    """The fewest pixels that hold the share of the information: small for a small marker, large for a spread-out bias.

    Information is what a map has above its floor. Pixels as strong as the weakest one that is needed are taken too.

    Args:
      maps: `[h w]` or `[n h w]`.
      share: of the summed information that is to lie in the mask, above 0 and at most 1.
      per_image: each image keeps its own share; otherwise one threshold for all pixels of the data set, so images
        with a strong bias lose more pixels than images without one.
      floor: the value that stands for no information, 0 for `info_gain` of a well calibrated net. None: the minimum of
        each map, or of all of them without `per_image`.

    >>> budget_mask(np.array([[0.1, 0.1], [0.2, 1.1]]), 0.9).tolist()
    [[False, False], [False, True]]
    """
    expect(0 < share <= 1, "share", "a share above 0 and at most 1", share)
    maps = _maps(maps).astype(np.float64)
    rows = maps.reshape(-1, maps.shape[-2] * maps.shape[-1]) if per_image else maps.reshape(1, -1)
    above = np.maximum(rows - (rows.min(axis=1, keepdims=True) if floor is None else floor), 0.0)
    strongest = -np.sort(-above, axis=1)
    held = np.cumsum(strongest, axis=1)
    # A rounding of the sum must not ask for one pixel more.
    needed = (held < share * held[:, -1:] * (1 - 1e-12)).sum(axis=1)
    least = np.take_along_axis(strongest, needed[:, None], axis=1)
    return ((above >= least) & (above > 0)).reshape(maps.shape)


def soft_strength(maps: Float[Array, "*n h w"], gamma: float = 1.0) -> Float[np.ndarray, "*n h w"]:
    """How strongly to hide each pixel, 0 to 1: the map between its minimum and maximum, to the power `gamma`.

    gamma 0 hides every pixel alike; a large gamma only those at the maximum. A constant map gives 0 everywhere.
    """
    expect(gamma >= 0, "gamma", "at least 0", gamma)
    maps = _maps(maps)
    low, high = maps.min(axis=(-2, -1), keepdims=True), maps.max(axis=(-2, -1), keepdims=True)
    scaled = (maps - low) / np.where(high > low, high - low, 1.0)
    return np.where(high > low, scaled**gamma, 0.0).astype(np.float32)


class Protected(NamedTuple):
    """A mask that spares the target, and how much the two were in each other's way. Read `overlap` first."""

    overlap: float
    """IoU of the mask and the target's region. Near 1 the method cannot tell bias and target apart by place."""
    spared: float
    """Share of the mask's pixels that were taken out of it."""
    mask: Bool[np.ndarray, "*n h w"]
    target: Bool[np.ndarray, "*m h w"]
    """The region that was spared."""


def protect(mask: Bool[Array, "*n h w"], target_map: Float[Array, "*m h w"], q: float = 0.7) -> Protected:
    """The mask without the pixels in which the target itself shows.

    Args:
      mask: `[h w]` or `[n h w]`, where the bias lies.
      target_map: `[h w]`, or one per mask. It has to be of the confidence `pointwise`, on held-out images in which the
        target does not go with the bias: on biased images a net trained for the target reads the bias, and a
        confidence that looks at no label gives the map of the bias again.
      q: the target's region is above this quantile of its map.
    """
    mask = _mask("mask", mask)
    fits = np.shape(target_map) in (mask.shape, mask.shape[-2:])
    expect(fits, "target_map", f"a map {list(mask.shape[-2:])}, or one per mask", describe(target_map))
    target = quantile_mask(target_map, q)
    left = mask & ~target
    return Protected(mask_iou(mask, target), 1.0 - float(left.sum() / max(mask.sum(), 1)), left, target)


def mask_iou(a: Bool[Array, "*n h w"], b: Bool[Array, "*m h w"]) -> float:
    """Pixels in both over pixels in one of the two, over all images; 0 for two empty masks. One mask may serve all.

    >>> mask_iou(np.array([[True, True, False]]), np.array([[False, True, True]]))
    0.3333333333333333
    """
    a, b = _mask("a", a), _mask("b", b)
    same = a.shape == b.shape or (a.shape[-2:] == b.shape[-2:] and 2 in (a.ndim, b.ndim))
    same = same or (a.ndim == b.ndim == 3 and a.shape[1:] == b.shape[1:] and 1 in (len(a), len(b)))
    expect(same, "b", f"the masks {list(a.shape)} of a, or one for all", describe(b))
    a, b = np.broadcast_arrays(a, b)
    return float((a & b).sum() / max((a | b).sum(), 1))


def random_pixels(mask: Bool[Array, "*n h w"], *, seed: int = 0) -> Bool[np.ndarray, "*n h w"]:
    """As many pixels as the mask has, anywhere: a control. By chance it hits its share of the bias, too."""
    mask = _mask("mask", mask)
    flat = mask.reshape(-1, mask.shape[-2] * mask.shape[-1])
    return named_rng(seed, "random pixels").permuted(flat, axis=1).reshape(mask.shape)


def weakest_pixels(
    maps: Float[Array, "*n h w"], area: Int[Array, "*n"] | int | np.integer
) -> Bool[np.ndarray, "*n h w"]:
    """The `area` pixels of each map with the least information: a control that misses the bias."""
    maps = _maps(maps)
    flat = maps.reshape(-1, maps.shape[-2] * maps.shape[-1])
    whole = np.asarray(area).dtype.kind in "iu" and np.size(area) in (1, len(flat))
    expect(whole, "area", f"an integer, or one for each of {len(flat)} maps", describe(area))
    area = np.broadcast_to(np.reshape(area, (-1, 1)), (len(flat), 1))
    expect(
        bool((area >= 0).all() and (area <= flat.shape[1]).all()), "area", f"0..{flat.shape[1]} pixels", describe(area)
    )
    rank = np.argsort(np.argsort(flat, axis=1, kind="stable"), axis=1)
    return (rank < area).reshape(maps.shape)


def pack(mask: Bool[Array, "*n h w"]) -> UInt8[jax.Array, "*n h v"]:
    """Eight pixels of a row in one byte: an image of 64 x 64 needs 512 bytes. Can be traced."""
    return jnp.packbits(jnp.asarray(mask), axis=-1)


def unpack(bits: UInt8[Array, "*n h v"], width: int) -> Bool[jax.Array, "*n h w"]:
    """The masks again, `width` pixels wide: the inverse of `pack`. Can be traced.

    >>> unpack(pack(np.array([[True, False, True]])), 3).tolist()
    [[True, False, True]]
    """
    expect(0 < width <= 8 * bits.shape[-1], "width", f"1..{8 * bits.shape[-1]} pixels", width)
    return jnp.unpackbits(jnp.asarray(bits), axis=-1, count=width).astype(bool)


def _maps(maps: Shaped[Array, "..."]) -> np.ndarray:
    maps = np.asarray(maps)
    good = maps.ndim in (2, 3) and maps.size > 0 and maps.dtype.kind in "iuf"
    expect(good, "maps", "a map [h w] or maps [n h w]", describe(maps))
    check_finite("maps", maps)
    return maps


def _mask(what: str, mask: Shaped[Array, "..."]) -> np.ndarray:
    mask = np.asarray(mask)
    good = bool(mask.dtype == bool) and mask.ndim in (2, 3)
    expect(good, what, "bool [h w] or [n h w]", describe(mask))
    return mask
