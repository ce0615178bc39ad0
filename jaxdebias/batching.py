"""Apply a function to many rows in chunks of one fixed shape: bounded memory, one compilation."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdebias.core import Array, Params


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
