"""Histograms of latents, block by block, and how rare they say that each row is.

Dimension letters: l latents, j blocks, v bins. Source: see `latent_weights`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxdebias.contracts import check_numbers, describe, expect
from jaxdebias.core import Array
from jaxdebias.mitigate._dbvae.blocks import block_sum


class Histograms(NamedTuple):
    """One per block and latent."""

    low: Float[Array, "j l"]
    """Left end of the first bin; what lies below counts in it."""
    width: Float[Array, "j l"]
    """Of a bin."""
    mass: Float[Array, "j l v"]
    """Share of rows."""
    count: Float[Array, "j l v"]
    """The block's own rows, also where `mass` is that of all rows."""
    alive: Bool[Array, "j l"]
    """False: this latent is the same for all rows, and is left out."""


@functools.partial(jax.jit, static_argnames=("blocks", "bins", "quantile", "least_rows"))
def fit_histograms(
    z: Float[Array, "n l"],
    block: Int[Array, "n"],
    *,
    blocks: int = 1,
    bins: int = 10,
    quantile: float = 0.0,
    least_rows: int = 0,
) -> Histograms:
    """Histograms of equal bins, left-closed as NumPy's, of each latent in each block.

    Args:
      z: `[n l]`, latents.
      block: 0..blocks-1; rows of any other number do not count.
      blocks: number of blocks; every block has histograms of its own.
      bins: bins per latent.
      quantile: see `RarityConfig`.
      least_rows: a block with fewer rows gets the bins and the masses of all rows that count.

    >>> fit_histograms(jnp.array([[0.0], [0.0], [0.0], [1.0]]), jnp.zeros(4, jnp.int32), bins=2).mass.tolist()
    [[[0.75, 0.25]]]
    """
    z, block = _rows_of(z, block)
    member = (block >= 0) & (block < blocks)
    rows = block_sum(jnp.ones(block.shape, z.dtype), block, blocks)
    low, high = jax.lax.map(lambda one: _ends(z, block == one, quantile), jnp.arange(blocks))
    small = (rows < least_rows)[:, None]
    if least_rows:
        lowest, highest = _ends(z, member, quantile)
        low = jnp.where(small, lowest[None], low)
        high = jnp.where(small, highest[None], high)
    alive = high > low
    low, width = jnp.where(alive, low, 0.0), jnp.where(alive, (high - low) / bins, 1.0)
    count = _count(_bin(low, width, z, block, bins), jnp.where(member, block, blocks), blocks, bins, z.dtype)
    mass = count / jnp.maximum(rows, 1.0)[:, None, None]
    if least_rows:
        live = highest > lowest
        step = jnp.where(live, (highest - lowest) / bins, 1.0)
        everyone = jnp.where(member, 0, 1)
        at = _bin(jnp.where(live, lowest, 0.0)[None], step[None], z, everyone, bins)
        of_all = _count(at, everyone, 1, bins, z.dtype) / jnp.maximum(member.sum(), 1)
        mass = jnp.where(small[:, :, None], of_all, mass)
    return Histograms(low, width, mass, count, alive)


@jax.jit
def soft_mass(
    histograms: Histograms, mean: Float[Array, "n l"], log_variance: Float[Array, "n l"], block: Int[Array, "n"]
) -> Histograms:
    """The same bins with the mass of the rows' posteriors: the aggregate posterior, exactly, ends included.

    Here a block of few rows keeps its own masses.
    """
    mean, deviation = jnp.asarray(mean), jnp.exp(0.5 * jnp.asarray(log_variance))
    blocks, _, bins = histograms.mass.shape
    low, width = _of_rows(histograms.low, block), _of_rows(histograms.width, block)
    member = jax.nn.one_hot(block, blocks, axis=0, dtype=mean.dtype)
    member = member / jnp.maximum(member.sum(1, keepdims=True), 1.0)

    def below(edge: jax.Array) -> jax.Array:
        share = jax.scipy.special.ndtr((low + edge * width - mean) / deviation)
        return jnp.matmul(member, share, precision="highest")

    inner = jax.lax.map(below, jnp.arange(1, bins, dtype=mean.dtype))
    ends = jnp.zeros((1, *inner.shape[1:]), mean.dtype)
    return histograms._replace(mass=jnp.moveaxis(jnp.diff(jnp.concatenate([ends, inner, ends + 1.0]), axis=0), 0, 2))


@functools.partial(jax.jit, static_argnames=("rule", "alpha_kind", "top"))
def log_rarity(
    histograms: Histograms,
    z: Float[Array, "n l"],
    block: Int[Array, "n"],
    *,
    alpha: float | Float[Array, ""] = 0.01,
    rule: str = "product",
    alpha_kind: str = "mass",
    top: int = 5,
    active: Bool[Array, "l"] | None = None,
) -> Float[jax.Array, "n"]:
    """The logarithm of each row's weight, up to a constant of its block; 0 for rows of no block.

    Of each latent, weights 1 / (mass + alpha) are scaled to sum 1 over the rows that the histograms count; then `rule`
    puts the latents together (see `RarityConfig`). A z beyond the bins counts in the end bins; one in a bin without a
    row has weight 1/alpha, infinite for alpha 0, which is therefore for the rows of the fit only.

    Args:
      histograms: of the latents.
      z: `[n l]`, latents.
      block: `[n]` int, block of each row.
      alpha: added to each mass, see `RarityConfig`.
      rule: how latents are put together, see `RarityConfig`.
      alpha_kind: what alpha is added to, see `RarityConfig`.
      top: latents that the rules about the rarest ones take.
      active: latents that take part; None: all. Latents that are the same for all rows never do.
    """
    z, block = _rows_of(z, block)
    blocks, latents, bins = histograms.mass.shape
    use = histograms.alive if active is None else histograms.alive & jnp.asarray(active)[None]
    table = _log_table(histograms, alpha, alpha_kind)
    table = jnp.where(use[:, :, None], table, 0.0 if rule == "product" else -jnp.inf)
    member = (block >= 0) & (block < blocks)
    own = jnp.where(member, block, 0)
    at = _bin(histograms.low, histograms.width, z, block, bins)
    of_latent = table.ravel()[(own[:, None] * latents + jnp.arange(latents)[None]) * bins + at]
    if rule == "product":
        log_weight = of_latent.sum(1)
    elif rule == "max":
        log_weight = of_latent.max(1)
    else:
        largest = jax.lax.top_k(of_latent, min(top, latents))[0]
        log_weight = jnp.where(largest > -jnp.inf, largest, 0.0).sum(1)
    return jnp.where(member & use.any(1)[own], log_weight, 0.0)


def _rows_of(z: Array, block: Array) -> tuple[jax.Array, jax.Array]:
    """The arrays, where their shapes and dtypes fit each other."""
    check_numbers("z", z, "n l")
    expect(z.shape[0] > 0 and jnp.issubdtype(z.dtype, jnp.floating), "z", "float [n l], at least one row", describe(z))
    good = block.shape == z.shape[:1] and jnp.issubdtype(block.dtype, jnp.integer)
    expect(good, "block", f"int [n={z.shape[0]}]", describe(block))
    return jnp.asarray(z), jnp.asarray(block)


def _log_table(histograms: Histograms, alpha: float | Array, alpha_kind: str) -> Float[jax.Array, "j l v"]:
    """log of 1 / (mass or density + alpha), scaled so that the block's rows sum to 1."""
    q = histograms.mass if alpha_kind == "mass" else histograms.mass / histograms.width[:, :, None]
    # log(q + alpha) - log(alpha), where alpha is so large that the sum would swallow q.
    small = jnp.minimum(alpha, 1.0)
    log_weight = -jnp.where(alpha > 1.0, jnp.log1p(q / jnp.maximum(alpha, 1.0)), jnp.log(q + small))
    count = histograms.count
    total = jax.nn.logsumexp(jnp.where(count > 0, log_weight + jnp.log(jnp.maximum(count, 1.0)), -jnp.inf), axis=2)
    return log_weight - jnp.where(jnp.isfinite(total), total, 0.0)[:, :, None]


def _ends(z: jax.Array, member: jax.Array, quantile: float) -> tuple[jax.Array, jax.Array]:
    """(low, high) `[l]` of the members: smallest and largest, or quantiles with linear interpolation."""
    below = jnp.where(member[:, None], z, jnp.inf)
    above = jnp.where(member[:, None], z, -jnp.inf)
    if quantile == 0:
        return below.min(0), above.max(0)
    # The few largest of either side instead of a sort of all.
    kept = min(int(quantile * (z.shape[0] - 1)) + 2, z.shape[0])
    place = jnp.maximum(quantile * (member.sum() - 1), 0.0)
    first = jnp.floor(place).astype(jnp.int32)
    part = (place - first).astype(z.dtype)

    def at(largest: jax.Array) -> jax.Array:
        one, two = largest[:, first], largest[:, jnp.minimum(first + 1, kept - 1)]
        return jnp.where(part > 0, one + part * (two - one), one)

    return -at(jax.lax.top_k(-below.T, kept)[0]), at(jax.lax.top_k(above.T, kept)[0])


def _of_rows(table: jax.Array, block: jax.Array) -> jax.Array:
    """Each row's entries `[n l]` of a table `[j l]`."""
    return (
        jnp.broadcast_to(table, (block.shape[0], table.shape[1]))
        if table.shape[0] == 1
        else table[jnp.clip(block, 0, table.shape[0] - 1)]
    )


def _bin(low: jax.Array, width: jax.Array, z: jax.Array, block: jax.Array, bins: int) -> jax.Array:
    return jnp.clip(jnp.floor((z - _of_rows(low, block)) / _of_rows(width, block)), 0, bins - 1).astype(jnp.int32)


def _count(at: jax.Array, block: jax.Array, blocks: int, bins: int, dtype: jnp.dtype) -> jax.Array:
    """Rows per (block, latent, bin); a block of number `blocks` is dropped."""
    latents = at.shape[1]
    place = (block[:, None] * latents + jnp.arange(latents)[None]) * bins + at
    count = jnp.zeros(blocks * latents * bins, dtype).at[place.ravel()].add(1.0, mode="drop")
    return count.reshape(blocks, latents, bins)
