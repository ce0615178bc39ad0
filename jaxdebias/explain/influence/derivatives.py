"""First and second derivatives of any model's losses, in bounded memory.

Everything takes plain functions and pytrees, so the model may come from any library. `rows` is a tuple of arrays that
share the first axis n, handed to the function after the parameters; chunks of it are sliced inside the compiled
program. Functions are static arguments: pass the same object again to reuse the compilation.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxdebias.contracts import expect
from jaxdebias.core import Array, Params

Rows = tuple[Any, ...]
LossFn = Callable[..., jax.Array]


def _check(params: Params, rows: Rows, vector: Params | None = None) -> None:
    """Refuses, before anything is traced, what would fail deep inside."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = jnp.result_type(leaf)
        expect(
            jnp.issubdtype(dtype, jnp.floating),
            f"params{jax.tree_util.keystr(path)}",
            "float (close the function over what is not a parameter)",
            dtype,
        )
    sizes = sorted({leaf.shape[0] for leaf in jax.tree.leaves(rows)})
    expect(len(sizes) == 1, "rows", "arrays that share the first axis", f"lengths {sizes}")
    if vector is not None:
        same = jax.tree.map(jnp.shape, vector) == jax.tree.map(jnp.shape, params)
        expect(same, "vector", "the structure and shapes of params", jax.tree.map(jnp.shape, vector))


def sum_over_chunks(
    fn: Callable[[Rows, Float[jax.Array, "b"]], Params], params: Params, rows: Rows, batch_size: int
) -> Params:
    """The sum of `fn(chunk of rows, weight [b])` over even chunks; a weight of 0 marks the padding of the last one."""
    n = jax.tree.leaves(rows)[0].shape[0]
    chunks = -(-n // batch_size)
    size = -(-n // chunks)
    position = jnp.arange(chunks * size).reshape(chunks, size)

    def add(total: Params, here: jax.Array) -> tuple[Params, None]:
        chunk = jax.tree.map(lambda leaf: leaf[jnp.minimum(here, n - 1)], rows)
        part = fn(chunk, (here < n).astype(jnp.float32))
        return jax.tree.map(jnp.add, total, part), None

    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), position)[0]


def per_example_gradients(loss_fn: LossFn, params: Params, rows: Rows, *, batch_size: int = 128) -> Params:
    """The gradient of each example's loss: a pytree like `params` whose leaves have a leading axis n.

    Args:
      loss_fn: (params, *rows) -> losses `[n]`, one value per example; called with one row at a time.
      params: pytree of float arrays.
      rows: arrays that share the first axis n, for example `(x, label)`.
      batch_size: rows that are differentiated together. The result alone takes n times the memory of `params`.

    >>> square = lambda w, x: (x @ w) ** 2
    >>> per_example_gradients(square, jnp.ones(2), (jnp.eye(2),)).tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    _check(params, rows)
    return _per_example_gradients(loss_fn, params, rows, batch_size)


@functools.partial(jax.jit, static_argnames=("loss_fn", "batch_size"))
def _per_example_gradients(loss_fn: LossFn, params: Params, rows: Rows, batch_size: int) -> Params:
    def one(row: Rows) -> Params:
        single = jax.tree.map(lambda leaf: leaf[None], row)
        return jax.grad(lambda p: loss_fn(p, *single)[0])(params)

    return jax.lax.map(one, rows, batch_size=batch_size)


def hessian_vector_product(scalar_loss: Callable[[Params], jax.Array], params: Params, vector: Params) -> Params:
    """H v of a scalar function of the parameters: the forward derivative of its gradient along v.

    >>> hessian_vector_product(lambda w: (w**3).sum(), jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])).tolist()
    [6.0, 12.0]
    """
    return jax.jvp(jax.grad(scalar_loss), (params,), (vector,))[1]


def sum_hvp(loss_fn: LossFn, params: Params, rows: Rows, vector: Params, *, batch_size: int = 1024) -> Params:
    """H v for the **sum** of the examples' losses, `batch_size` rows at a time.

    Args:
      loss_fn: (params, *rows) -> losses `[n]`. Rows may hold a weight by which it multiplies.
      params: pytree of float arrays.
      rows: arrays that share the first axis n.
      vector: pytree like `params`; `jax.vmap` over it does several right-hand sides in one pass.
      batch_size: rows at a time. Peak memory is about twice what a gradient needs for so many.
    """
    _check(params, rows, vector)
    return _sum_hvp(loss_fn, params, rows, vector, batch_size)


@functools.partial(jax.jit, static_argnames=("loss_fn", "batch_size"))
def _sum_hvp(loss_fn: LossFn, params: Params, rows: Rows, vector: Params, batch_size: int) -> Params:
    def product(chunk: Rows, weight: jax.Array) -> Params:
        return hessian_vector_product(lambda p: weight @ loss_fn(p, *chunk), params, vector)

    return sum_over_chunks(product, params, rows, batch_size)


def gauss_newton_vector_product(
    apply_fn: Callable[[Params, Array], jax.Array], params: Params, x: Array, vector: Params, *, batch_size: int = 1024
) -> Params:
    """G v for the **sum** of the softmax cross-entropies: G = sum of J^T (diag(p) - p p^T) J, J = d logits / d params.

    Equal to the Hessian where logits are linear in the parameters, positive semi-definite everywhere, and independent
    of the labels (Schraudolph 2002; Martens 2014, section 8).

    Args:
      apply_fn: (params, x) -> logits `[n k]`. It needs a forward derivative (`jax.jvp`).
      params: pytree of float arrays.
      x: `[n ...]`.
      vector: pytree like `params`; `jax.vmap` over it does several at once.
      batch_size: rows at a time.
    """
    _check(params, (x,), vector)
    return _gauss_newton_vector_product(apply_fn, params, x, vector, batch_size)


@functools.partial(jax.jit, static_argnames=("apply_fn", "batch_size"))
def _gauss_newton_vector_product(
    apply_fn: Callable[[Params, Array], jax.Array], params: Params, x: Array, vector: Params, batch_size: int
) -> Params:
    def product(chunk: Rows, weight: jax.Array) -> Params:
        def logits_of(p: Params) -> jax.Array:
            return apply_fn(p, *chunk)

        logits, change = jax.jvp(logits_of, (params,), (vector,))
        p = jax.nn.softmax(logits)
        # As a product of matrices: see `block`, where the same sum under `vmap` would be wrong on some CPUs.
        curved = weight[:, None] * p * (change - jnp.einsum("bk,bk->b", p, change)[:, None])
        return jax.vjp(logits_of, params)[1](curved)[0]

    return sum_over_chunks(product, params, (x,), batch_size)
