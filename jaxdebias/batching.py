"""Rows of batches: mapped in chunks of one fixed shape (bounded memory, one compilation), joined, unpaired."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array, Batch, Params


@functools.partial(jax.jit, static_argnames=("fn", "batch_size"))
def map_rows(fn: Callable[[Params, Any], Any], params: Params, rows: Any, *, batch_size: int = 1024) -> Any:
    """`fn(params, rows)` computed `batch_size` rows at a time on the device.

    Args:
      fn: maps (params, pytree of arrays [b ...]) to a pytree of arrays [b ...], row by row: no row may influence
        another's result. It is a static argument, so pass the same function object again to reuse the compilation.
      params: the model's parameters.
      rows: array or pytree of arrays that share the first axis n.
      batch_size: rows at a time. Peak memory is what `fn` needs for so many.

    Returns:
      What `fn(params, rows)` returns, to float rounding.

    >>> map_rows(lambda p, x: p * x, 2.0, jnp.arange(5.0), batch_size=2).tolist()
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    if n <= batch_size:
        return fn(params, rows)
    # Even chunks: the last one is padded with its own last row by at most (chunks - 1) rows, and cut off again.
    chunks = -(-n // batch_size)
    size = -(-n // chunks)
    index = jnp.minimum(jnp.arange(chunks * size), n - 1).reshape(chunks, size)
    out = jax.lax.map(lambda i: fn(params, jax.tree.map(lambda leaf: leaf[i], rows)), index)
    return jax.tree.map(lambda leaf: leaf.reshape(chunks * size, *leaf.shape[2:])[:n], out)


def predict_rows(
    apply_fn: Callable[[Params, Array], jax.Array], params: Params, x: Array, *, batch_size: int = 1024
) -> jax.Array:
    """Logits `[n k]` of an `apply_fn(params, x)` for many rows: `map_rows` over x."""
    return map_rows(apply_fn, params, jnp.asarray(x), batch_size=batch_size)


def concatenate(*batches: Batch) -> Batch:
    """The rows of several batches: x, label, attribute, and weight if any batch has one (1 for the others).

    Raises:
      ContractError: rows of different dtypes or shapes.

    >>> one = Batch(x=np.zeros((1, 2)), label=np.array([3]), attribute=np.array([0]))
    >>> concatenate(one, one._replace(weight=np.array([0.5]))).weight.tolist()
    [1.0, 0.5]
    """
    kinds = {(np.asarray(batch.x).dtype, batch.x.shape[1:]) for batch in batches}
    got = ", ".join(describe(batch.x) for batch in batches)
    expect(len(kinds) == 1, "x of the batches", "one dtype and shape of a row", got)
    weight = None
    if any(batch.weight is not None for batch in batches):
        weight = np.concatenate(
            [np.ones(len(batch.label), np.float32) if batch.weight is None else batch.weight for batch in batches]
        )
    return Batch(
        *(np.concatenate([getattr(batch, name) for batch in batches]) for name in ("x", "label", "attribute")),
        weight=weight,
    )


def unpair(pairs: Batch) -> Batch:
    """x and twin of every pair as one batch of twice the rows; the twins' attribute is unknown (-1).

    Raises:
      ContractError: a batch without twins.

    >>> pair = Batch(x=np.zeros((1, 2)), label=np.array([3]), attribute=np.array([0]), twin=np.ones((1, 2)))
    >>> unpair(pair).x.tolist(), unpair(pair).label.tolist()
    ([[0.0, 0.0], [1.0, 1.0]], [3, 3])
    """
    expect(pairs.twin is not None, "pairs.twin", "the other rendering of x", None)
    return Batch(
        x=np.concatenate([pairs.x, pairs.twin]),
        label=np.concatenate([pairs.label, pairs.label]),
        attribute=np.concatenate([pairs.attribute, np.full_like(pairs.attribute, -1)]),
        weight=None if pairs.weight is None else np.concatenate([pairs.weight, pairs.weight]),
        unit=None if pairs.unit is None else np.concatenate([pairs.unit, pairs.unit]),
    )
