"""Rows drawn in proportion to weights, on the device: systematically, independently, or without replacement.

Shares are turned into integer tickets, 2^31 in all, so that sums of a million small weights lose nothing: a cumulative
sum in float32 resolves no more than 6e-8 of the whole. Weights are always an argument: a program that has captured them
as a constant makes XLA fold their cumulative sum when it compiles.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, UInt

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array, Key


def usable_weights(weights: Float[Array, "n"]) -> Bool[jax.Array, ""]:
    """Whether rows can be drawn by these weights: finite, none negative, not all 0.

    >>> [bool(usable_weights(jnp.array(w))) for w in ([0.0, 2.0], [0.0, 0.0], [1.0, jnp.nan], [-1.0, 2.0])]
    [True, False, False, False]
    """
    total = jnp.sum(weights)
    return jnp.isfinite(total) & (total > 0) & jnp.all(weights >= 0)


@functools.partial(jax.jit, static_argnames=("count",))
def systematic_rows(key: Key, weights: Float[Array, "n"], *, count: int) -> Int[jax.Array, "m"]:
    """`count` rows, in ascending order, of which row i is there `floor` or `ceil` of `count * W_i` times.

    One random number shifts a comb of `count` equal teeth over the cumulative sum, so the expected number is exactly
    `count * W_i` with less spread than in any other way of drawing. Equal weights give every row once. Shuffle the rows
    before they are cut into batches.

    Args:
      key: random key.
      weights: `[n]` finite, none negative, not all 0; W is their share of the sum. A row of weight 0 is never drawn.
        The resolution is count / 2^31 of the mean weight. Unusable weights draw as if all were equal, see
        `usable_weights`.
      count: rows to draw, m.

    >>> systematic_rows(jax.random.key(0), jnp.array([1.0, 0.0, 2.0, 1.0]), count=4).tolist()
    [0, 2, 2, 3]
    """
    _check(weights, count)
    tickets = _tickets(weights)
    # The comb's teeth are a whole number of tickets apart: some rows get a few more, at most `count` in all.
    missing = (count - jnp.sum(tickets) % count) % count
    some = (tickets > 0).astype(jnp.uint32)
    place, of = jnp.cumsum(some), jnp.sum(some)
    tickets = tickets + some * (missing // of + (place <= missing % of).astype(jnp.uint32))
    last = jnp.cumsum(tickets)
    apart = last[-1] // jnp.uint32(count)
    shift = jax.random.randint(key, (), 0, apart, dtype=jnp.uint32)
    # Teeth that fall on row i or before; the next tooth belongs to a later row.
    until = jnp.where(last > shift, (last - shift + apart - 1) // apart, 0).astype(jnp.int32)
    ended = jnp.zeros(count, jnp.int32).at[until[:-1]].add(1, mode="drop", indices_are_sorted=True)
    return jnp.cumsum(ended)  # how many rows have ended before each draw


@functools.partial(jax.jit, static_argnames=("count",))
def independent_rows(key: Key, weights: Float[Array, "n"], *, count: int) -> Int[jax.Array, "m"]:
    """`count` rows drawn independently of each other, with replacement (multinomial); arguments as above.

    >>> independent_rows(jax.random.key(0), jnp.array([0.0, 1.0]), count=3).tolist()
    [1, 1, 1]
    """
    _check(weights, count)
    last = jnp.cumsum(_tickets(weights))
    ticket = jax.random.randint(key, (count,), 0, last[-1], dtype=jnp.uint32)
    rows = jnp.searchsorted(last, ticket, side="right").astype(jnp.int32)
    return jnp.minimum(rows, weights.shape[0] - 1)


@functools.partial(jax.jit, static_argnames=("count",))
def distinct_rows(key: Key, weights: Float[Array, "n"], *, count: int) -> Int[jax.Array, "m"]:
    """`count` different rows, drawn one after the other from those left, in the order of drawing (Gumbel top-k).

    What NumPy's `choice(replace=False, p=weights)` does. Where weights are very unequal, the shares that rows get are
    not W: a heavy row is drawn once at most. Where fewer than `count` rows have a weight, rows of weight 0 fill up.

    >>> sorted(distinct_rows(jax.random.key(0), jnp.array([1.0, 0.0, 5.0]), count=2).tolist())
    [0, 2]
    """
    _check(weights, count)
    n = weights.shape[0]
    expect(count <= n, "count", f"at most n={n} different rows", count)
    weights = jnp.asarray(weights)
    noise = jax.random.gumbel(key, (n,))
    return jax.lax.top_k(jnp.where(weights > 0, jnp.log(weights) + noise, -jnp.inf), count)[1].astype(jnp.int32)


def draw_summary(weights: Float[Array, "n"]) -> dict[str, Float[jax.Array, ""]]:
    """What a training log says of an epoch's weights.

    `draw_ess`: effective sample size over n, 1 for equal weights. `draw_largest`: share of the draws that the heaviest
    row gets. `draw_never`: share of the rows that n systematic draws leave out, expected.

    >>> {name: float(value) for name, value in draw_summary(jnp.array([1.0, 1.0, 2.0, 0.0])).items()}
    {'draw_ess': 0.6666..., 'draw_largest': 0.5, 'draw_never': 0.25}
    """
    weights = jnp.asarray(weights)
    ratio = weights * (weights.shape[0] / jnp.sum(weights))
    return {
        "draw_ess": 1.0 / jnp.mean(ratio**2),
        "draw_largest": jnp.max(ratio) / weights.shape[0],
        "draw_never": jnp.mean(jnp.maximum(1.0 - ratio, 0.0)),
    }


def _check(weights: Array, count: int) -> None:
    expect(weights.ndim == 1 and weights.shape[0] >= 1, "weights", "float [n]", describe(weights))
    expect(count >= 1, "count", "at least 1", count)


def _tickets(weights: Float[Array, "n"]) -> UInt[jax.Array, "n"]:
    """uint32 whole shares of 2^31, at least 1 where the weight is not 0."""
    weights = jnp.asarray(weights, jnp.float32)
    usable = usable_weights(weights)
    share = jnp.where(usable, weights / jnp.where(usable, jnp.sum(weights), 1.0), 1.0 / weights.size)
    return jnp.where(share > 0, jnp.maximum(jnp.round(share * 2.0**31), 1.0), 0.0).astype(jnp.uint32)
