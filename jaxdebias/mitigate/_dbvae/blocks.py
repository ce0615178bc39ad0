"""Weights of rows that are compared within blocks (their class, or all rows): effective sample size, powers, caps.

A block is a number 0..j-1 of each row; rows of any other number are in none. The effective sample size (ESS) is
`(sum W)^2 / sum W^2`, here over the number of rows. Dimension letter: j blocks.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxdebias.core import Array


@functools.partial(jax.jit, static_argnames=("blocks",))
def log_ess(log_weight: Float[Array, "n"], block: Int[Array, "n"], *, blocks: int = 1) -> Float[jax.Array, "j"]:
    """log(ESS / rows) of each block, 0 for equal weights; 0 for a block without rows."""
    log_weight, block = jnp.asarray(log_weight), jnp.asarray(block)
    return _log_ess(_below_largest(log_weight, block, blocks), block, jnp.ones(blocks, log_weight.dtype), blocks)


@functools.partial(jax.jit, static_argnames=("blocks",))
def temper(
    log_weight: Float[Array, "n"], block: Int[Array, "n"], *, target: float | Float[Array, ""], blocks: int = 1
) -> tuple[Float[jax.Array, "n"], Float[jax.Array, "j"]]:
    """(tau * log_weight, tau): the largest power tau <= 1 of each block at which ESS / rows is at least `target`.

    The ESS never rises with tau, so halving an interval finds the only solution, to 2^-24. Rows of no block stay as
    they are.

    >>> tau = temper(jnp.array([0.0, 0.0, 0.0, 5.0]), jnp.zeros(4, jnp.int32), target=0.5)[1]
    >>> round(float(jnp.exp(log_ess(tau * jnp.array([0.0, 0.0, 0.0, 5.0]), jnp.zeros(4, jnp.int32)))[0]), 3)
    0.5
    """
    log_weight, block = jnp.asarray(log_weight), jnp.asarray(block)
    lowered, wanted = _below_largest(log_weight, block, blocks), jnp.log(jnp.asarray(target, log_weight.dtype))
    one = jnp.ones(blocks, log_weight.dtype)

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        enough = _log_ess(lowered, block, middle, blocks) >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low, _ = jax.lax.fori_loop(0, 24, halve, (0.0 * one, one))
    tau = jnp.where(_log_ess(lowered, block, one, blocks) >= wanted, 1.0, low)
    member = (block >= 0) & (block < blocks)
    return jnp.where(member, tau[jnp.where(member, block, 0)], 1.0) * log_weight, tau


def class_prior(label: Int[Array, "n"], *, classes: int, kind: str = "data") -> Float[jax.Array, "k"]:
    """Share of each class: as in the data, or equal over the classes that are there. Labels outside do not count.

    >>> class_prior(jnp.array([0, 0, 0, 2]), classes=3, kind="uniform").tolist()
    [0.5, 0.0, 0.5]
    """
    rows = block_sum(jnp.ones(label.shape), label, classes)
    rows = rows if kind == "data" else (rows > 0).astype(rows.dtype)
    return rows / jnp.maximum(rows.sum(), 1.0)


@jax.jit
def within_blocks(
    log_weight: Float[Array, "n"], block: Int[Array, "n"], share: Float[Array, "j"]
) -> Float[jax.Array, "n"]:
    """Weights in proportion to exp(log_weight) that sum to `share` in each block; 0 for rows of no block."""
    log_weight, block, blocks = jnp.asarray(log_weight), jnp.asarray(block), share.shape[0]
    member = (block >= 0) & (block < blocks)
    raw = jnp.where(member, jnp.exp(_below_largest(log_weight, block, blocks)), 0.0)
    factor = jnp.asarray(share) / jnp.maximum(block_sum(raw, block, blocks), jnp.finfo(raw.dtype).tiny)
    return raw * factor[jnp.where(member, block, 0)]


@functools.partial(jax.jit, static_argnames=("blocks",))
def capped(
    weight: Float[Array, "n"], block: Int[Array, "n"], *, ratio: float | Float[Array, ""], blocks: int = 1
) -> Float[jax.Array, "n"]:
    """Weights of which none exceeds `ratio` times the mean of its block, with the same sums.

    `min(c W, cap)` with c such that the sum stays; c is found by halving an interval.

    >>> [round(float(w), 3) for w in capped(jnp.array([0.7, 0.1, 0.1, 0.1]), jnp.zeros(4, jnp.int32), ratio=2.0)]
    [0.5, 0.167, 0.167, 0.167]
    """
    weight, block = jnp.asarray(weight), jnp.asarray(block)
    own = jnp.clip(block, 0, blocks - 1)
    total = block_sum(weight, block, blocks)
    cap = ratio * total / jnp.maximum(block_sum(jnp.ones_like(weight), block, blocks), 1.0)

    def cut(log_factor: jax.Array) -> jax.Array:
        return jnp.minimum(weight * jnp.exp(log_factor)[own], cap[own])

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        less = block_sum(cut(middle), block, blocks) < total
        return jnp.where(less, middle, low), jnp.where(less, high, middle)

    low, _ = jax.lax.fori_loop(0, 40, halve, (jnp.zeros_like(total), jnp.full_like(total, 60.0)))
    member = (block >= 0) & (block < blocks)
    return jnp.where(member, cut(low), weight)


def loss_weights(weight: Float[Array, "n"], *, most: float) -> tuple[Float[jax.Array, "n"], Float[jax.Array, ""]]:
    """(n W, at most `most`, and the share of rows that were cut): weights in the loss instead of in the draws.

    The expected gradient is that of drawing by W, as long as nothing is cut.

    >>> [value.tolist() for value in loss_weights(jnp.array([0.75, 0.25, 0.0, 0.0]), most=2.0)]
    [[2.0, 1.0, 0.0, 0.0], 0.25]
    """
    weight = weight.shape[0] * jnp.asarray(weight)
    return jnp.minimum(weight, most), (weight > most).mean()


def block_sum(values: Float[Array, "n"], block: Int[Array, "n"], blocks: int) -> Float[jax.Array, "j"]:
    """Sums of values by block; rows of other numbers are left out."""
    block = jnp.asarray(block)
    if blocks == 1:
        return jnp.where(block == 0, values, 0.0).sum()[None]
    return jax.ops.segment_sum(values, jnp.where(block < 0, blocks, block), num_segments=blocks)


def _below_largest(log_weight: jax.Array, block: jax.Array, blocks: int) -> jax.Array:
    """log_weight minus the largest of its block: at most 0; 0 for rows of no block."""
    member = (block >= 0) & (block < blocks)
    top = jax.ops.segment_max(log_weight, jnp.where(member, block, blocks), num_segments=blocks)
    return jnp.where(member, log_weight - top[jnp.where(member, block, 0)], 0.0)


def _log_ess(lowered: jax.Array, block: jax.Array, tau: jax.Array, blocks: int) -> jax.Array:
    weight = jnp.exp(tau[jnp.clip(block, 0, blocks - 1)] * lowered)
    rows = block_sum(jnp.ones_like(weight), block, blocks)
    one, two = block_sum(weight, block, blocks), block_sum(weight**2, block, blocks)
    there = rows > 0
    return jnp.where(there, 2 * jnp.log(jnp.where(there, one, 1.0)) - jnp.log(jnp.where(there, two * rows, 1.0)), 0.0)
