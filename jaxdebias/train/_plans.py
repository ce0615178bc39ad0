"""Which rows each training step sees: index plans of fixed shape, so that one compiled step serves every epoch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array, Key
from jaxdebias.train.draws import independent_rows, usable_weights


class Plan(NamedTuple):
    """The rows of every step of one epoch."""

    index: Int[Array, "s b"]
    """int32 rows of the training set."""
    weight: Float[Array, "s b"]
    """float32: 1, or 0 for rows that only fill up the last batch (batch norm sees real rows, the loss does not)."""


def steps_per_epoch(n: int, batch_size: int, *, drop_last: bool = False) -> int:
    """How many batches an epoch of n rows has.

    >>> steps_per_epoch(10, 4), steps_per_epoch(10, 4, drop_last=True)
    (3, 2)
    """
    expect(n >= 1, "n", "at least one row", n)
    expect(batch_size >= 1, "batch_size", "at least 1", batch_size)
    steps = n // batch_size if drop_last else -(-n // batch_size)
    expect(steps >= 1, "batch_size", f"at most n={n} with drop_last", batch_size)
    return steps


def epoch_plan(
    key: Key, n: int, batch_size: int, *, draw_weights: Float[Array, "n"] | None = None, drop_last: bool = False
) -> Plan:
    """An epoch over n rows: a random permutation, or n weighted draws with replacement, cut into batches.

    Pure and jit-able with `n`, `batch_size` and `drop_last` static; the shape depends on nothing else.

    Args:
      key: for the order, or for the draws.
      n: rows of the training set.
      batch_size: rows per step; it may exceed n.
      draw_weights: `[n]` finite, non-negative, not all zero: rows are drawn independently in proportion to them (to
        2^-31 of their sum); a row of weight zero is never drawn. None: every row exactly once.
      drop_last: leave out the last, incomplete batch; otherwise it is filled from the epoch's beginning at weight 0.

    Returns:
      A plan `[s b]`, s = `steps_per_epoch(n, batch_size, drop_last=drop_last)`. Its weights are NaN where
      `draw_weights` was unusable, so that the training loop, which stops at a loss that is not finite, stops at once.

    Raises:
      ContractError: n or batch_size below 1, an epoch without a batch, draw_weights of another length.

    >>> plan = epoch_plan(jax.random.key(0), 5, 2)
    >>> sorted(plan.index.ravel()[:5].tolist()), plan.weight.tolist()
    ([0, 1, 2, 3, 4], [[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    """
    steps = steps_per_epoch(n, batch_size, drop_last=drop_last)
    place = jnp.arange(steps * batch_size)
    weight = (place < n).astype(jnp.float32)
    if draw_weights is None:
        order = jax.random.permutation(key, n)
    else:
        expect(draw_weights.shape == (n,), "draw_weights", f"float [n={n}]", describe(draw_weights))
        order = independent_rows(key, draw_weights, count=n)
        weight = jnp.where(usable_weights(draw_weights), weight, jnp.nan)
    shape = (steps, batch_size)
    return Plan(index=order[place % n].astype(jnp.int32).reshape(shape), weight=weight.reshape(shape))
