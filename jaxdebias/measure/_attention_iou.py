"""Attention-IoU: how far two maps agree, or a map with a region of the image (Serianni et al. 2025).

A map says how much each place counts, `[... h w]` and nowhere negative; a mask is the map of a region. Both are divided
by their sums, p = A / sum A and q = B / sum B, and compared on one grid:

    AIoU(A, B) = sum p q / sum ((p + q) / 2)^2 = 4 <p, q> / (|p|^2 + |q|^2 + 2 <p, q>)

It lies in 0..1, is 1 only for p = q and 0 only for disjoint maps, is symmetric, and does not change when a map is
scaled, when both are permuted, or when every pixel is repeated as a block. It does change under bilinear upsampling:
**scores from two grids are not on one scale**. It is not the ordinary IoU: equal-sized regions that share the fraction
o of their area score 2 o / (1 + o).

A uniform map already scores `chance_attention_iou(f)` with a region that fills the fraction f, which is 4/7 for a
quarter of the image and 0.8 for half of it. Never read a mask score without it.

All functions are pure, work under `jit`, `vmap` and `grad`, and compute in float32 or wider. What a map without any
mass scores is `zero`: "nan" (0/0, as in the official code), or 0.0, under which gradients stay finite: the choice for a
training penalty. Negative or non-finite values are an error: `ContractError` for arrays, NaN (whatever `zero` says)
inside `jit`, where values cannot be looked at.
"""

# What `jax.jit` returns has no known result, and `jnp.einsum` takes arguments of unknown type.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
import functools
from typing import Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Bool, Float, Shaped

from jaxdebias.contracts import check_numbers, describe, expect
from jaxdebias.core import Array

Zero = Literal["nan"] | float | int
"""What a score is where a map has no mass: "nan" or 0."""


def attention_iou(
    a: Shaped[Array, "*b h w"], b: Shaped[Array, "*b h w"], *, zero: Zero = "nan"
) -> Float[jax.Array, "*b"]:
    """Attention-IoU of maps, one pair at a time.

    Args:
      a: `[... h w]`, not negative, same shape.
      b: `[... h w]`, not negative, same shape.
      zero: the score where a or b is 0 everywhere, "nan" or 0.0.

    Raises:
      ContractError: shapes that differ, negative or non-finite values.

    >>> quarter = np.zeros((4, 4)); quarter[:2, :2] = 1
    >>> half = np.zeros((4, 4)); half[:2] = 1
    >>> round(float(attention_iou(quarter, half)), 4), round(float(attention_iou(np.ones((4, 4)), quarter)), 4)
    (0.8, 0.5714)
    """
    a, b = _two(a, b, "a", "b")
    return _attention_iou(a, b, zero=_checked_zero(zero))


def pairwise_attention_iou(maps: Shaped[Array, "n k h w"], *, zero: Zero = "nan") -> Float[jax.Array, "n k k"]:
    """Attention-IoU of every two maps of an image: all heatmap scores from one Gram matrix per image.

    Args:
      maps: `[n k h w]`, one map per class or attribute k; not negative.
      zero: the score of a map that is 0 everywhere, also with itself: "nan" or 0.0.

    Returns:
      `[n k k]`, symmetric, with 1 on the diagonal.

    Raises:
      ContractError: negative or non-finite values.

    >>> maps = np.eye(4).reshape(1, 4, 2, 2)
    >>> pairwise_attention_iou(np.concatenate([maps, maps[:, :1]], axis=1))[0, 0].tolist()
    [1.0, 0.0, 0.0, 0.0, 1.0]
    """
    check_numbers("maps", maps, "n k h w")
    return _pairwise(_checked("maps", maps), zero=_checked_zero(zero))


def mask_scores(
    maps: Shaped[Array, "n k h w"], masks: Shaped[Array, "n r h w"], *, zero: Zero = "nan"
) -> Float[jax.Array, "n k r"]:
    """Attention-IoU of every map of an image with every region of it: one matrix product per image.

    Args:
      maps: `[n k h w]`, not negative.
      masks: `[n r h w]`, not negative, on the grid of the maps; `region_masks.region_masks` brings label masks there.
      zero: the score of a map or region that is 0 everywhere, "nan" or 0.0. Keep "nan" for `map_scores`, which decides
        what an absent region counts.

    Raises:
      ContractError: different images or grids, negative or non-finite values.

    >>> left = np.array([[[[1, 0], [1, 0]]]], bool)
    >>> mask_scores(np.ones((1, 1, 2, 2)), np.concatenate([left, ~left], axis=1)).shape
    (1, 1, 2)
    """
    check_numbers("maps", maps, "n k h w")
    check_numbers("masks", masks, "n r h w")
    same = np.shape(maps)[0] == np.shape(masks)[0] and np.shape(maps)[2:] == np.shape(masks)[2:]
    expect(
        same,
        "masks",
        f"[n={np.shape(maps)[0]}, r, {np.shape(maps)[2]}, {np.shape(maps)[3]}], the images and grid of the maps",
        describe(masks),
    )
    maps, masks = _of_one_type(_checked("maps", maps), _checked("masks", masks))
    return _mask_scores(maps, masks, zero=_checked_zero(zero))


def has_mass(maps: Shaped[Array, "*b h w"]) -> Bool[jax.Array, "*b"]:
    """Whether a map is positive anywhere: the images whose region is present, the maps that look somewhere.

    With `zero="nan"` a score is a number exactly where both of its maps have mass.
    """
    return jnp.sum(_checked("maps", maps), axis=(-2, -1)) > 0


def area_fraction(masks: Shaped[Array, "*b h w"]) -> Float[jax.Array, "*b"]:
    """The fraction of the grid that a region fills: (sum m)^2 / (cells * sum m^2), 0 for an absent one.

    For a binary mask that is its area. A mask with soft edges counts as the binary one that is as hard to hit:
    `chance` of this fraction is exactly the Attention-IoU of a uniform map.

    >>> area_fraction(np.array([[1.0, 0.0], [0.0, 0.0]])).item()
    0.25
    """
    masks = _checked("masks", masks)
    total, square = jnp.sum(masks, axis=(-2, -1)), jnp.sum(masks**2, axis=(-2, -1))
    cells = masks.shape[-2] * masks.shape[-1]
    return jnp.where(square > 0, total**2 / (cells * jnp.where(square > 0, square, 1.0)), 0.0)


def chance_attention_iou(fraction: Array | float) -> Float[jax.Array, "..."]:
    """What a map that looks everywhere alike scores with a region of this area fraction: 4 / (3 + 1 / f).

    It grows fast with the region: above a small one a low score can be much, below a large one a high score little.

    >>> [round(float(chance_attention_iou(f)), 3) for f in (0.03, 0.05, 0.25, 0.5, 1.0)]
    [0.11, 0.174, 0.571, 0.8, 1.0]
    """
    fraction = jnp.asarray(fraction)
    return 4.0 * fraction / (3.0 * fraction + 1.0)


def histogram_overlap(
    a: Shaped[Array, "*b h w"], b: Shaped[Array, "*b h w"], *, zero: Zero = "nan"
) -> Float[jax.Array, "*b"]:
    """The overlap of two maps as histograms, 1 - sum |p - q| / 2: a comparison score. Arguments as `attention_iou`."""
    a, b = _two(a, b, "a", "b")
    return _overlap(a, b, zero=_checked_zero(zero))


def top_pixel_iou(
    a: Shaped[Array, "*b h w"], mask: Shaped[Array, "*b h w"], *, zero: Zero = "nan"
) -> Float[jax.Array, "*b"]:
    """Ordinary IoU of a region with as many of the map's highest pixels as the region has: a comparison score.

    A pixel belongs to the region where the mask is above 0.5; of equally high pixels the first in reading order is
    taken. Piecewise constant, so without a useful gradient. Arguments as in `attention_iou`; `zero` also stands where
    no pixel of the mask is above 0.5.
    """
    a, mask = _two(a, mask, "a", "mask")
    return _top_pixel_iou(a, mask, zero=_checked_zero(zero))


def pointing_game(
    a: Shaped[Array, "*b h w"], mask: Shaped[Array, "*b h w"], *, zero: Zero = "nan"
) -> Float[jax.Array, "*b"]:
    """The value of q = mask / sum mask where the map is highest: a comparison score.

    For a binary mask of s cells that is 1/s for a hit and 0 for a miss. (The official code reads the mask of the first
    image of a batch for all of them, so its published numbers are others.) Arguments as in `attention_iou`; of equally
    high pixels the first in reading order counts.
    """
    a, mask = _two(a, mask, "a", "mask")
    return _pointing_game(a, mask, zero=_checked_zero(zero))


@functools.partial(jax.jit, static_argnames="zero")
def _attention_iou(a: jax.Array, b: jax.Array, *, zero: Zero) -> jax.Array:
    (p, some_p, good_p), (q, some_q, good_q) = _shares(a), _shares(b)
    square_p, square_q, inner = (jnp.sum(x * y, axis=-1) for x, y in ((p, p), (q, q), (p, q)))
    some, good = some_p & some_q, good_p & good_q
    return _settle(4 * inner / jnp.where(some, square_p + square_q + 2 * inner, 1.0), some, good, zero)


@functools.partial(jax.jit, static_argnames="zero")
def _pairwise(maps: jax.Array, *, zero: Zero) -> jax.Array:
    p, some, good = _shares(maps)
    gram = jnp.einsum("nkp,njp->nkj", p, p, precision=jax.lax.Precision.HIGHEST)
    # Of the same products, so that a map scores exactly 1 with itself.
    square = cast(jax.Array, jnp.diagonal(gram, axis1=1, axis2=2))
    some, good = some[:, :, None] & some[:, None, :], good[:, :, None] & good[:, None, :]
    return _settle(
        4 * gram / jnp.where(some, square[:, :, None] + square[:, None, :] + 2 * gram, 1.0), some, good, zero
    )


@functools.partial(jax.jit, static_argnames="zero")
def _mask_scores(maps: jax.Array, masks: jax.Array, *, zero: Zero) -> jax.Array:
    (p, some_p, good_p), (q, some_q, good_q) = _shares(maps), _shares(masks)
    inner = jnp.einsum("nkp,nrp->nkr", p, q, precision=jax.lax.Precision.HIGHEST)
    square = jnp.sum(p**2, axis=-1)[:, :, None] + jnp.sum(q**2, axis=-1)[:, None, :]
    some, good = some_p[:, :, None] & some_q[:, None, :], good_p[:, :, None] & good_q[:, None, :]
    return _settle(4 * inner / jnp.where(some, square + 2 * inner, 1.0), some, good, zero)


@functools.partial(jax.jit, static_argnames="zero")
def _overlap(a: jax.Array, b: jax.Array, *, zero: Zero) -> jax.Array:
    (p, some_p, good_p), (q, some_q, good_q) = _shares(a), _shares(b)
    return _settle(1 - jnp.sum(jnp.abs(p - q), axis=-1) / 2, some_p & some_q, good_p & good_q, zero)


@functools.partial(jax.jit, static_argnames="zero")
def _top_pixel_iou(a: jax.Array, mask: jax.Array, *, zero: Zero) -> jax.Array:
    (p, some_p, good_p), (_, _, good_q) = _shares(a), _shares(mask)
    region = mask.reshape(p.shape) > 0.5
    size = jnp.sum(region, axis=-1)
    rank = jnp.argsort(jnp.argsort(-p, axis=-1, stable=True), axis=-1)
    both = jnp.sum(region & (rank < size[..., None]), axis=-1)
    return _settle(both / jnp.maximum(2 * size - both, 1).astype(p.dtype), some_p & (size > 0), good_p & good_q, zero)


@functools.partial(jax.jit, static_argnames="zero")
def _pointing_game(a: jax.Array, mask: jax.Array, *, zero: Zero) -> jax.Array:
    (p, some_p, good_p), (q, some_q, good_q) = _shares(a), _shares(mask)
    peak = jnp.argmax(p, axis=-1)[..., None]
    return _settle(jnp.take_along_axis(q, peak, axis=-1)[..., 0], some_p & some_q, good_p & good_q, zero)


def _shares(maps: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """p `[... hw]` of sum 1, whether there is any mass, and whether no value is negative or NaN, both `[...]`."""
    flat = maps.reshape(*maps.shape[:-2], -1)
    total = jnp.sum(flat, axis=-1)
    some = total > 0
    # Dividing by 1 where there is nothing keeps the gradient of the branch that is not taken finite.
    good = (jnp.min(flat, axis=-1, initial=0) >= 0) & (total < jnp.inf)  # both comparisons are False for NaN
    return flat / jnp.where(some, total, 1.0)[..., None], some, good


def _settle(score: jax.Array, some: jax.Array, good: jax.Array, zero: Zero) -> jax.Array:
    """The score where both maps have mass, what `zero` says where one has none, NaN where one is no map."""
    return jnp.where(good, jnp.where(some, score, jnp.nan if zero == "nan" else 0.0), jnp.nan)


def _checked_zero(zero: Zero) -> Zero:
    """A static argument that is equal to itself, which NaN is not: every call would compile again."""
    expect(zero == "nan" or zero == 0, "zero", '"nan" or 0.0', describe(zero))
    return "nan" if zero == "nan" else 0.0


def _two(a: Array, b: Array, name_a: str, name_b: str) -> tuple[jax.Array, jax.Array]:
    expect(np.shape(a) == np.shape(b), name_b, f"the shape of {name_a}, {list(np.shape(a))}", describe(b))
    return _of_one_type(_checked(name_a, a), _checked(name_b, b))


def _of_one_type(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The wider one: a binary mask must not be divided in float32 beside maps in float64."""
    wide = jnp.promote_types(a.dtype, b.dtype)
    return a.astype(wide), b.astype(wide)


def _checked(what: str, maps: Array) -> jax.Array:
    """As floats of at least 32 bits. Values are looked at where there are any, that is outside of `jit`."""
    expect(np.ndim(maps) >= 2 and np.size(maps) > 0, what, "maps [... h w]", describe(maps))
    check_numbers(what, maps, "... h w")
    maps = jnp.asarray(maps)
    maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
    if not isinstance(maps, Tracer):
        least, most = float(jnp.min(maps)), float(jnp.max(maps))
        expect(least >= 0 and most < np.inf, what, "finite values of at least 0", f"{least:.4g}..{most:.4g}")
    return maps
