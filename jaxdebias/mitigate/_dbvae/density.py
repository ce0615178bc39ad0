"""Densities of latents that take the place of histograms: the logarithm of a density at every row, block by block.

Both are fitted on the rows they are asked about. Rows of no block (see `latent_weights`) get 0.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxdebias.core import Array
from jaxdebias.mitigate._dbvae.blocks import block_sum


@functools.partial(jax.jit, static_argnames=("blocks", "points"))
def kernel_log_density(
    z: Float[Array, "n l"], block: Int[Array, "n"], *, blocks: int = 1, points: int = 256
) -> Float[jax.Array, "n"]:
    """Sum over latents of the log of a Gaussian kernel density, on a grid of `points`, by Fourier transform.

    The bandwidth of each latent is Scott's: its standard deviation times rows^(-1/5). The grid reaches four of them
    beyond the rows on either side. A latent that is the same for all rows is left out.
    """
    z, block = jnp.asarray(z), jnp.asarray(block)
    latents = jnp.arange(z.shape[1])

    def one(number: jax.Array) -> jax.Array:
        member = (block == number)[:, None]
        rows = jnp.maximum(member.sum(), 1)
        mean = jnp.where(member, z, 0.0).sum(0) / rows
        deviation = jnp.sqrt(jnp.where(member, (z - mean[None]) ** 2, 0.0).sum(0) / rows)
        low, high = jnp.where(member, z, jnp.inf).min(0), jnp.where(member, z, -jnp.inf).max(0)
        alive = high > low
        bandwidth = jnp.where(alive, deviation, 1.0) * rows ** (-0.2)
        start = jnp.where(alive, low, 0.0) - 4 * bandwidth
        step = (jnp.where(alive, high - low, 1.0) + 8 * bandwidth) / (points - 1)
        place = jnp.clip((z - start[None]) / step[None], 0.0, points - 1.001)
        left = jnp.floor(place).astype(jnp.int32)
        part = place - left
        # Each row is shared between its two neighbours on the grid.
        grid = jnp.zeros((z.shape[1], points))
        grid = grid.at[latents[None], left].add(jnp.where(member, 1.0 - part, 0.0) / rows)
        grid = grid.at[latents[None], left + 1].add(jnp.where(member, part, 0.0) / rows)
        frequency = jnp.fft.rfftfreq(2 * points)[None]  # per point of the grid, padded against wrapping around
        smooth = jnp.exp(-0.5 * (2 * math.pi * frequency * (bandwidth / step)[:, None]) ** 2)
        density = jnp.fft.irfft(jnp.fft.rfft(grid, 2 * points) * smooth, 2 * points)[:, :points] / step[:, None]
        # The transform's rounding can leave a tiny negative number where nothing is near.
        log_density = jnp.log(jnp.maximum(density, 1e-7 * density.max(1, keepdims=True)))
        at = (1.0 - part) * log_density[latents[None], left] + part * log_density[latents[None], left + 1]
        return jnp.where(alive[None], at, 0.0).sum(1)

    return _of_own_block(jax.lax.map(one, jnp.arange(blocks)), block)


@functools.partial(jax.jit, static_argnames=("blocks", "components", "steps"))
def mixture_log_density(
    z: Float[Array, "n l"], block: Int[Array, "n"], *, blocks: int = 1, components: int = 8, steps: int = 40
) -> Float[jax.Array, "n"]:
    """log of a mixture of Gaussians with diagonal covariances, by expectation maximisation.

    It starts from equal slices along the first latent, so it is the same at every call. Variances are kept above a
    thousandth of the block's own, latent by latent.
    """
    z, block = jnp.asarray(z), jnp.asarray(block)
    latents = z.shape[1]

    def one(number: jax.Array) -> jax.Array:
        member = block == number
        rows = jnp.maximum(member.sum(), 1)
        centre = jnp.where(member[:, None], z, 0.0).sum(0) / rows
        spread = jnp.sqrt(jnp.where(member[:, None], (z - centre[None]) ** 2, 0.0).sum(0) / rows)
        spread = jnp.where(spread > 0, spread, 1.0)
        scaled = (z - centre[None]) / spread[None]
        order = jnp.argsort(jnp.where(member, scaled[:, 0], jnp.inf))
        rank = jnp.zeros_like(order).at[order].set(jnp.arange(order.shape[0]))
        slices = jax.nn.one_hot(rank * components // rows, components, dtype=z.dtype)

        def joint(responsibility: jax.Array) -> jax.Array:
            """log p(row, component) `[n c]` of the mixture that these responsibilities give."""
            responsibility = jnp.where(member[:, None], responsibility, 0.0)
            total = responsibility.sum(0)
            some = jnp.maximum(total, 1e-6)[:, None]
            mean = _mm(responsibility.T, scaled) / some
            variance = jnp.maximum(_mm(responsibility.T, scaled**2) / some - mean**2, 1e-3)
            squares = (
                _mm(scaled**2, (1 / variance).T)
                - 2 * _mm(scaled, (mean / variance).T)
                + (mean**2 / variance).sum(1)[None]
            )
            log_norm = 0.5 * (jnp.log(variance).sum(1) + latents * math.log(2 * math.pi))
            return jnp.log(jnp.maximum(total / rows, 1e-12))[None] - log_norm[None] - 0.5 * squares

        responsibility = jax.lax.fori_loop(0, steps, lambda _, given: jax.nn.softmax(joint(given), axis=1), slices)
        return jax.nn.logsumexp(joint(responsibility), axis=1) - jnp.log(spread).sum()

    return _of_own_block(jax.lax.map(one, jnp.arange(blocks)), block)


@functools.partial(jax.jit, static_argnames=("blocks",))
def rarity_of_density(
    log_density: Float[Array, "n"], block: Int[Array, "n"], *, alpha: float | Float[Array, ""] = 0.01, blocks: int = 1
) -> Float[jax.Array, "n"]:
    """log of 1 / (q / q' + alpha), with q' the geometric mean of the density q over the block: free of q's unit."""
    log_density, block = jnp.asarray(log_density), jnp.asarray(block)
    rows = block_sum(jnp.ones_like(log_density), block, blocks)
    middle = block_sum(log_density, block, blocks) / jnp.maximum(rows, 1.0)
    member = (block >= 0) & (block < blocks)
    scaled = log_density - middle[jnp.where(member, block, 0)]
    return jnp.where(member, -jnp.logaddexp(scaled, jnp.log(jnp.asarray(alpha, scaled.dtype))), 0.0)


def _mm(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")


def _of_own_block(of_blocks: jax.Array, block: jax.Array) -> jax.Array:
    """`[j n]` -> `[n]`: each row's value in its own block; 0 for rows of none."""
    member = (block >= 0) & (block < of_blocks.shape[0])
    own = jnp.take_along_axis(of_blocks, jnp.where(member, block, 0)[None], axis=0)[0]
    return jnp.where(member, own, 0.0)
