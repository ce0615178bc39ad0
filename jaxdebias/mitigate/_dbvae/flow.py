"""A density of latents that bends: affine couplings, told the block of each row, after histograms and mixtures.

Rows are standardised within their block; then each layer shifts and stretches every other latent by what a small
network makes of the rest and of the block. Without training it is a Gaussian of each block with independent latents.

Source: Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real NVP", ICLR 2017; to condition on the class is ours.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from jaxdebias.core import Array
from jaxdebias.mitigate._dbvae.blocks import block_sum

STRETCH = 2.0
"""Largest logarithm of what one layer multiplies by."""
JITTER = 0.05
"""Noise on the rows while training, in standard deviations: a density of few rows would else pile up on each."""


class Flow(NamedTuple):
    layers: Any
    """Weights of the networks, one leading axis for the layers."""
    centre: Float[Array, "j l"]
    spread: Float[Array, "j l"]
    """Of the rows of each block; 1 where they are all the same."""


@functools.partial(jax.jit, static_argnames=("blocks", "layers", "hidden", "steps", "batch"))
def flow_log_density(
    z: Float[Array, "n l"],
    block: Int[Array, "n"],
    *,
    blocks: int = 1,
    layers: int = 4,
    hidden: int = 32,
    steps: int = 200,
    batch: int = 512,
) -> Float[jax.Array, "n"]:
    """log of the density of each row in its block, fitted on the rows themselves; 0 for rows of no block."""
    z, block = jnp.asarray(z), jnp.asarray(block)
    flow = fit_flow(z, block, blocks=blocks, layers=layers, hidden=hidden, steps=steps, batch=batch)
    member = (block >= 0) & (block < blocks)
    return jnp.where(member, log_prob(flow, z, jnp.where(member, block, 0)), 0.0)


@functools.partial(jax.jit, static_argnames=("blocks", "layers", "hidden", "steps", "batch"))
def fit_flow(
    z: Float[Array, "n l"],
    block: Int[Array, "n"],
    *,
    blocks: int = 1,
    layers: int = 4,
    hidden: int = 32,
    steps: int = 200,
    batch: int = 512,
) -> Flow:
    """Maximum likelihood by Adam on random rows, every block counting the same. The same at every call.

    Args:
      z: `[n l]`, latents.
      block: `[n]` int, block of each row.
      blocks: j; rows of another number are left out.
      layers: couplings; each moves every other latent.
      hidden: units of each network.
      steps: of training, at a rate that falls to 0.
      batch: rows of a step.
    """
    z, block = jnp.asarray(z), jnp.asarray(block)
    n, latents = z.shape
    member = (block >= 0) & (block < blocks)
    number = jnp.where(member, block, 0)
    rows = jnp.maximum(block_sum(jnp.ones(n), block, blocks), 1.0)
    sums = functools.partial(jax.ops.segment_sum, segment_ids=jnp.where(member, block, blocks), num_segments=blocks + 1)
    centre = sums(z)[:blocks] / rows[:, None]
    spread = jnp.sqrt(sums((z - centre[number]) ** 2)[:blocks] / rows[:, None])
    spread = jnp.where(spread > 0, spread, 1.0)
    weight = jnp.where(member, 1.0 / rows[number], 0.0)
    scaled = (z - centre[number]) / spread[number]

    key_start, key_steps = jax.random.split(jax.random.key(0))
    into = jax.random.normal(key_start, (layers, latents + blocks, hidden)) / math.sqrt(latents + blocks)
    start = {
        "into": into,
        "bias": jnp.zeros((layers, hidden)),
        "out": jnp.zeros((layers, hidden, 2 * latents)),
        "shift": jnp.zeros((layers, 2 * latents)),
    }
    rule = optax.adam(optax.cosine_decay_schedule(1e-2, max(1, steps)))

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        params, state = carry
        key_rows, key_noise = jax.random.split(key)
        chosen = jax.random.randint(key_rows, (min(batch, n),), 0, n)
        seen = scaled[chosen] + JITTER * jax.random.normal(key_noise, (chosen.shape[0], latents))
        importance = weight[chosen] / jnp.maximum(weight[chosen].sum(), 1e-12)

        def loss(params: Any) -> jax.Array:
            return -(importance * _log_standard(params, seen, number[chosen], blocks)).sum()

        updates, state = rule.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (start, rule.init(start)), jax.random.split(key_steps, steps))
    return Flow(params, centre, spread)


def log_prob(flow: Flow, z: Float[Array, "n l"], block: Int[Array, "n"]) -> Float[jax.Array, "n"]:
    """log of the density at any points, each in the block `0..j-1` that it is said to be of."""
    z, block = jnp.asarray(z), jnp.asarray(block)
    scaled = (z - flow.centre[block]) / flow.spread[block]
    return _log_standard(flow.layers, scaled, block, flow.centre.shape[0]) - jnp.log(flow.spread).sum(1)[block]


def _log_standard(layers: Any, x: jax.Array, block: jax.Array, blocks: int) -> jax.Array:
    """log density of standardised rows: that of a standard normal where the layers take them, and their stretch."""
    latents = x.shape[1]
    told = jax.nn.one_hot(block, blocks, dtype=x.dtype)

    def couple(carry: tuple[jax.Array, jax.Array], layer: Any) -> tuple[tuple[jax.Array, jax.Array], None]:
        x, stretched = carry
        weights, number = layer
        moves = ((jnp.arange(latents) + number) % 2).astype(x.dtype)[None]
        known = jnp.concatenate([x * (1.0 - moves), told], axis=1)
        inner = jnp.tanh(_mm(known, weights["into"]) + weights["bias"][None])
        scale, shift = jnp.split(_mm(inner, weights["out"]) + weights["shift"][None], 2, axis=1)
        scale = STRETCH * jnp.tanh(scale / STRETCH) * moves
        return (x * jnp.exp(scale) + shift * moves, stretched + scale.sum(1)), None

    numbers = jnp.arange(layers["bias"].shape[0])
    (x, stretched), _ = jax.lax.scan(couple, (x, jnp.zeros(x.shape[0], x.dtype)), (layers, numbers))
    return stretched - 0.5 * (x**2).sum(1) - 0.5 * latents * math.log(2 * math.pi)


def _mm(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
