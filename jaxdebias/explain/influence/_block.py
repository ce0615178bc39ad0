"""A block of any parameters of any model as the head of a `HeadProblem`: several top layers, or one row of the first.

Derivatives come from the program of the block (see `cut`), a chunk of rows at a time; nothing of size p^2 or n p is
formed. Products with the curvature are forward derivatives of gradients (Hessian) or J^T (diag(p) - p p^T) J products
(Gauss-Newton, positive semi-definite: off the last layer the Hessian is not). The change that a step theta + s makes to
every row's loss is one forward derivative, so that influence needs no gradient of a single row.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from jaxdebias.batching import map_rows
from jaxdebias.core import Array, Params
from jaxdebias.explain.influence._cut import ApplyFn, Cut, Where, cut
from jaxdebias.explain.influence.derivatives import sum_over_chunks

BATCH = 1024
"""Rows at a time, divided by the number of right-hand sides."""


@functools.partial(jax.tree_util.register_dataclass, data_fields=("theta", "params"), meta_fields=("cut",))
@dataclass(frozen=True)
class BlockHead:
    """The chosen parameters, and the program from the frozen features to the logits."""

    theta: dict[str, Array]
    """What is edited, by path; as a vector: leaf after leaf in the order of the paths."""
    params: Params
    """The whole model. What it holds at the chosen paths does not count: theta does."""
    cut: Cut = field(metadata={"static": True})

    @property
    def layers(self) -> tuple[tuple[str, int], ...]:
        """(path, number of parameters), in the order of the vector."""
        return tuple((name, self.theta[name].size) for name in sorted(self.theta))

    def at(self, theta: dict[str, Array]) -> "BlockHead":
        """The same block with other values."""
        return BlockHead(theta, self.params, self.cut)

    def vector(self) -> Float[jax.Array, "p"]:
        return ravel_pytree(self.theta)[0]

    def with_vector(self, vector: Float[Array, "p"]) -> "BlockHead":
        """The inverse of `vector`."""
        flat, unravel = ravel_pytree(self.theta)
        return self.at(unravel(jnp.asarray(vector).astype(flat.dtype)))

    def logits(self, features: Any) -> Float[jax.Array, "n k"]:
        """From frozen features."""
        with jax.default_matmul_precision("highest"):
            return self.cut.head(self.params, features, self.theta)

    def gradient(self, problem: Any) -> Float[jax.Array, "p"]:
        return _gradient(problem)

    def product(self, problem: Any, vectors: Float[Array, "p m"], curvature: str) -> Float[jax.Array, "p m"]:
        return _product(problem, vectors, curvature)

    def slopes(self, problem: Any, vectors: Float[Array, "p m"]) -> Float[jax.Array, "n m"]:
        rows = (problem.features, problem.label)
        batch_size = max(1, BATCH * 16 // (16 + vectors.shape[1]))
        return map_rows(_slopes, (problem.head, jnp.asarray(vectors)), rows, batch_size=batch_size)


def find_block(
    apply_fn: ApplyFn,
    params: Params,
    x: Array,
    where: Where,
) -> tuple[BlockHead, Callable[[Params, Array], Any], Callable[[Params, BlockHead], Params]]:
    """The block of parameters that `where` names, as a head.

    Args:
      apply_fn: (params, x) -> logits `[n k]`, evaluation mode; any library.
      params: any pytree of arrays.
      x: `[n ...]`, gives shape and dtype only.
      where: paths, a predicate on paths, or parts of parameters; see `cut.Where`.

    Returns:
      The head; `features(params, x)`, which gives its input; and `replace(params, head) -> params`, which changes the
      chosen leaves and passes every other one on as the same object.

    >>> def apply_fn(params, x):
    ...     return jax.nn.relu(x @ params["first"]) @ params["last"]
    >>> params = {"first": jnp.eye(3), "last": jnp.ones((3, 2))}
    >>> head, features, replace = find_block(apply_fn, params, jnp.ones((1, 3)), ["last"])
    >>> head.logits(features(params, jnp.ones((4, 3)))).shape
    (4, 2)
    """
    made = cut(apply_fn, params, x, where)

    def replace(params: Params, head: BlockHead) -> Params:
        return made.put(params, head.theta)

    return BlockHead(made.take(params), params, made), made.features, replace


def cross_entropy(logits: Float[Array, "n k"], label: Int[Array, "n"]) -> Float[jax.Array, "n"]:
    """Cross-entropy of each row whose derivatives stay accurate where 1 - p_y is lost in float32.

    As log(1 + sum over the other classes of exp(z_j - z_y)), in which the probability of the true class never appears.
    """
    own = jax.nn.one_hot(label, logits.shape[1], dtype=bool)
    z_own = jnp.take_along_axis(logits, label[:, None], axis=1)[:, 0]
    return jax.nn.softplus(jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), axis=1) - z_own)


def _losses(head: BlockHead, features: Any, label: Int[Array, "b"]) -> Float[jax.Array, "b"]:
    return cross_entropy(head.logits(features), label)


def _rows(problem: Any) -> tuple[Any, ...]:
    n, dtype = problem.label.shape[0], jnp.result_type(*jax.tree.leaves(problem.head.theta))
    weight = jnp.ones(n, dtype) if problem.weight is None else jnp.asarray(problem.weight, dtype)
    return problem.features, problem.label, weight


@jax.jit
def _gradient(problem: Any) -> Float[jax.Array, "p"]:
    head, theta = problem.head, problem.head.theta

    def of_chunk(chunk: Any, padding: Float[jax.Array, "b"]) -> Any:
        features, label, weight = chunk
        return jax.grad(lambda t: (weight * padding.astype(weight.dtype)) @ _losses(head.at(t), features, label))(theta)

    total = sum_over_chunks(of_chunk, theta, _rows(problem), BATCH)
    return ravel_pytree(total)[0] + problem.l2 * head.vector()


@functools.partial(jax.jit, static_argnames=("curvature",))
def _product(problem: Any, vectors: Float[Array, "p m"], curvature: str) -> Float[jax.Array, "p m"]:
    head, theta = problem.head, problem.head.theta
    flat, unravel = ravel_pytree(theta)
    columns = jax.vmap(unravel, in_axes=1)(jnp.asarray(vectors, flat.dtype))  # leaves [m ...]

    def of_chunk(chunk: Any, padding: Float[jax.Array, "b"]) -> Any:
        features, label, weight = chunk
        weight = weight * padding.astype(weight.dtype)
        if curvature == "hessian":
            gradient = jax.grad(lambda t: weight @ _losses(head.at(t), features, label))
            return jax.vmap(jax.linearize(gradient, theta)[1])(columns)
        logits, along = jax.linearize(lambda t: head.at(t).logits(features), theta)
        p = jax.nn.softmax(logits)
        change = jax.vmap(along)(columns)  # [m b k]
        # As a product of matrices: XLA for CPU in jaxlib 0.10 gets the same sum of products wrong once it has more than
        # 32,768 terms (jax-ml/jax issue 39103).
        centred = change - jnp.einsum("bk,mbk->mb", p, change)[:, :, None]
        curved = (weight[:, None] * p)[None] * centred
        back = jax.linear_transpose(along, theta)
        return jax.vmap(lambda c: back(c)[0])(curved)

    m = vectors.shape[1]
    total = sum_over_chunks(of_chunk, columns, _rows(problem), max(1, BATCH * 16 // (16 + m)))
    return jax.vmap(lambda t: ravel_pytree(t)[0], out_axes=1)(total) + problem.l2 * vectors


def _slopes(model: Any, rows: Any) -> Float[jax.Array, "b m"]:
    """s . grad loss of every row for every column s: the derivative of the losses along s."""
    (head, vectors), (features, label) = model, rows
    flat, unravel = ravel_pytree(head.theta)
    along = jax.linearize(lambda t: _losses(head.at(t), features, label), head.theta)[1]
    return jax.vmap(lambda v: along(unravel(v)), in_axes=1, out_axes=1)(vectors.astype(flat.dtype))
