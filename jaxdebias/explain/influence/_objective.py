"""The objective whose curvature influence needs: a softmax head on frozen features, and the bias of that head.

The head is an `AffineHead`, the last layer, for which everything has a closed form; or a `BlockHead` (see `block`), any
other block of parameters of any model. `HeadProblem` and the functions below its definition take either.

Conventions, fixed here for all of influence:

    theta   the parameters of an affine head as one matrix [e k]: the rows of the kernel, then the bias as a last row
            (e = d + 1 with a bias, e = d without). As a vector [p], p = e * k, it is that matrix row by row.
    phi     the features with a column of ones appended where the head has a bias: logits = phi @ theta.
    F       sum over the rows of weight_i * cross-entropy_i + l2 / 2 |theta|^2: the SUM of losses, not their mean.
            l2 counts every entry of theta, the bias included. An optimiser that decays the mean loss by c has l2 = n c.
    H       the second derivative of F. Damping means "+ damping * I" on H.

Where a softmax is saturated, 1 - p_y is lost in float32. Both the gradient and the Hessian are therefore written with
the small probabilities only: 1 - p_y is summed from the other classes, and p_a (1 - p_a) from the products p_a p_b.

Source: FMD (Chen et al. 2023, sections 3 and 4) with the exact softmax curvature in place of one-versus-rest.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_finite, check_integers, check_numbers, describe, expect
from jaxdebias.core import Array
from jaxdebias.measure import _counterfactual as counterfactual

HIGHEST = jax.lax.Precision.HIGHEST  # a Gram matrix in TF32 loses three digits


class AffineHead(NamedTuple):
    """The last layer: logits = features @ kernel + bias."""

    kernel: Array
    """`[d k]`"""
    bias: Array | None
    """`[k]`, or None for a head without one."""

    @property
    def theta(self) -> "AffineHead":
        """What is edited: all of it."""
        return self

    def at(self, theta: "AffineHead") -> "AffineHead":
        """The head with other values."""
        return theta

    @property
    def layers(self) -> tuple[tuple[str, int], ...]:
        """(name, number of parameters), in the order of the vector."""
        parts = (("kernel", self.kernel.size),)
        return parts if self.bias is None else (*parts, ("bias", self.bias.size))

    def vector(self) -> Float[jax.Array, "p"]:
        return to_vector(self)

    def with_vector(self, vector: Float[Array, "p"]) -> "AffineHead":
        """The inverse of `vector`."""
        return to_head(vector, self)

    def logits(self, features: Float[Array, "n d"]) -> Float[jax.Array, "n k"]:
        return head_logits(self, features)

    def gradient(self, problem: "HeadProblem") -> Float[jax.Array, "p"]:
        return head_gradient(problem)

    def product(self, problem: "HeadProblem", vectors: Float[Array, "p m"], curvature: str) -> Float[jax.Array, "p m"]:
        del curvature  # logits are linear in theta: both are the same
        return hessian_product(problem, jnp.asarray(vectors))

    def slopes(self, problem: "HeadProblem", vectors: Float[Array, "p m"]) -> Float[jax.Array, "n m"]:
        k, m = self.kernel.shape[1], vectors.shape[1]
        matrix = jnp.asarray(vectors).astype(problem.features.dtype).reshape(-1, k, m)
        # At most 16 Mi numbers [b k m] at a time.
        return map_rows(
            _affine_slopes,
            (self, matrix),
            (problem.features, problem.label),
            batch_size=int(np.clip(2**24 // (k * m), 1, 16_384)),
        )


class HeadProblem(NamedTuple):
    """The training objective of a head, at one head. Build it with `head_problem`, which checks."""

    features: Any
    """What the head takes: `[n d]` for an affine head, else a tuple of arrays `[n ...]`; frozen, evaluation mode."""
    label: Array
    """`[n]` int, 0..k-1."""
    weight: Array | None
    """`[n]`, how often each row counts in the sum; None: once."""
    head: Any
    """The point at which value and derivatives are taken: an `AffineHead` or a `BlockHead`."""
    l2: float | Array
    """The regulariser is l2 / 2 |theta|^2, beside the SUM of losses."""

    @property
    def layers(self) -> tuple[tuple[str, int], ...]:
        """(name, number of parameters) of the parts of the vector [p], in its order."""
        return self.head.layers

    @property
    def size(self) -> int:
        """p"""
        return sum(size for _, size in self.layers)

    def gradient(self) -> Float[jax.Array, "p"]:
        """The gradient of F."""
        return self.head.gradient(self)

    def product(self, vectors: Float[Array, "p m"], curvature: str = "gauss_newton") -> Float[jax.Array, "p m"]:
        """Curvature @ vectors, the regulariser included. `hessian` or `gauss_newton`: equal for an affine head."""
        return self.head.product(self, vectors, curvature)

    def slopes(self, vectors: Float[Array, "p m"]) -> Float[jax.Array, "n m"]:
        """s . grad of each row's loss, for each column s: the change of its loss along s. Weights do not enter."""
        return self.head.slopes(self, vectors)


class HeadPairs(NamedTuple):
    """Counterfactual pairs as cached features: both members have the same label."""

    features: Any
    """`[n d]`, or what else the head takes, of the rendering with the aligned attribute."""
    twin: Any
    """The same of the rendering with the changed attribute."""
    label: Array
    """`[n]` int."""


def head_problem(
    features: Any, label: Int[Array, "n"], head: Any, *, weight: Float[Array, "n"] | None = None, l2: float = 0.0
) -> HeadProblem:
    """The checked objective of a head on frozen features.

    Args:
      features: of the training rows: `[n d]` from `split.features` for an affine head, or what the function that
        `find_block` returns gives for a block.
      label: `[n]`, 0..k-1.
      head: where derivatives are taken.
      weight: `[n]`, not negative. A random sample of r rows that stands for n has weight n / r.
      l2: of the regulariser l2 / 2 |theta|^2 beside the SUM of losses.

    Raises:
      ContractError: wrong shapes, labels out of range, values that are not finite, fewer than 2 classes.
    """
    leaves = jax.tree.leaves(features)
    expect(bool(leaves), "features", "an array [n ...], or several", describe(features))
    for leaf in leaves:
        check_numbers("features", leaf, "n ...")
    features = jax.tree.map(jnp.asarray, features)
    first = jax.tree.leaves(features)[0]
    n = first.shape[0]
    expect(n > 0, "features", "at least one row", describe(first))
    if isinstance(head, AffineHead):
        good = first.ndim == 2 and jnp.issubdtype(first.dtype, jnp.floating)
        expect(good, "features", "float [n d]", describe(first))
        d = first.shape[1]
        check_numbers("head.kernel", head.kernel, "d k")
        if head.bias is not None:
            check_numbers("head.bias", head.bias, "k")
        head = head._replace(kernel=_array(head.kernel), bias=None if head.bias is None else _array(head.bias))
        expect(head.kernel.shape[0] == d, "head.kernel", f"[d={d}, k]", describe(head.kernel))
        if head.bias is not None:
            wanted = head.kernel.shape[1:]
            expect(head.bias.shape == wanted, "head.bias", f"[k={wanted[0]}]", describe(head.bias))
    k = jax.eval_shape(head.logits, features).shape[1]
    expect(k >= 2, "head", "at least 2 classes (a binary head has one column per class)", f"{k} of them")
    check_integers("label", label, n, 0, k)
    for leaf in jax.tree.leaves(features):
        check_finite("features", leaf)
    check_finite("head", head.theta)
    if weight is not None:
        check_numbers("weight", weight, "n")
        expect(np.shape(weight) == (n,), "weight", f"float [n={n}]", describe(weight))
        check_finite("weight", weight)
        expect(bool(np.min(weight) >= 0), "weight", "no negative weight", np.min(weight))
    expect(l2 >= 0, "l2", "at least 0", l2)
    return HeadProblem(features, jnp.asarray(label), None if weight is None else jnp.asarray(weight), head, l2)


def _array(value: Any) -> Array:
    return value if hasattr(value, "shape") else np.asarray(value)


def to_vector(head: AffineHead) -> Float[Array, "p"]:
    """theta as a vector: the kernel row by row, then the bias.

    >>> to_vector(AffineHead(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([5.0, 6.0]))).tolist()
    [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    """
    kernel = head.kernel.reshape(-1)
    return kernel if head.bias is None else jnp.concatenate([kernel, head.bias])


def to_head(vector: Float[Array, "p"], like: AffineHead) -> AffineHead:
    """The inverse of `to_vector`, with the shapes of `like`."""
    d, k = like.kernel.shape
    return AffineHead(vector[: d * k].reshape(d, k), None if like.bias is None else vector[d * k :])


def head_logits(head: AffineHead, features: Float[Array, "n d"]) -> Float[Array, "n k"]:
    """features @ kernel + bias, at full precision."""
    logits = jnp.matmul(features, head.kernel, precision=HIGHEST)
    return logits if head.bias is None else logits + head.bias[None, :]


def design(features: Float[Array, "n d"], head: AffineHead) -> Float[Array, "n e"]:
    """phi: the features, with a column of ones where the head has a bias."""
    if head.bias is None:
        return jnp.asarray(features)
    return jnp.concatenate([features, jnp.ones((features.shape[0], 1), features.dtype)], axis=1)


def error(head: AffineHead, features: Float[Array, "n d"], label: Int[Array, "n"]) -> Float[Array, "n k"]:
    """p - onehot(y), the derivative of each row's loss by its logits, accurate even where p_y rounds to 1."""
    p = jax.nn.softmax(head_logits(head, features))
    own = jax.nn.one_hot(label, p.shape[1], dtype=bool)
    others = jnp.where(own, 0.0, p)
    return jnp.where(own, -others.sum(axis=1, keepdims=True), others)


def _weights(problem: HeadProblem) -> Float[Array, "n"]:
    n, dtype = problem.features.shape[0], problem.features.dtype
    return jnp.ones(n, dtype) if problem.weight is None else jnp.asarray(problem.weight, dtype)


@jax.jit
def head_loss(problem: HeadProblem) -> Float[Array, ""]:
    """F, the weighted sum of cross-entropies plus l2 / 2 |theta|^2."""
    log_p = jax.nn.log_softmax(head_logits(problem.head, problem.features))
    loss = -jnp.take_along_axis(log_p, problem.label[:, None], axis=1)[:, 0]
    return (_weights(problem) * loss).sum() + 0.5 * problem.l2 * (to_vector(problem.head) ** 2).sum()


@jax.jit
def head_gradient(problem: HeadProblem) -> Float[Array, "p"]:
    """The gradient of F in closed form: phi^T diag(weight) (P - Y) + l2 theta."""
    weighted = _weights(problem)[:, None] * error(problem.head, problem.features, problem.label)
    phi = design(problem.features, problem.head)
    return jnp.matmul(phi.T, weighted, precision=HIGHEST).reshape(-1) + problem.l2 * to_vector(problem.head)


@jax.jit
def hessian_product(problem: HeadProblem, vectors: Float[Array, "p m"]) -> Float[Array, "p m"]:
    """H @ vectors without forming H: phi^T diag(weight) (diag(p) - p p^T) phi V + l2 V. Peak memory 2 n k m."""
    phi = design(problem.features, problem.head)
    p = jax.nn.softmax(head_logits(problem.head, problem.features))
    matrix = vectors.reshape(phi.shape[1], p.shape[1], -1)
    change = jnp.einsum("ne,ekm->nkm", phi, matrix, precision=HIGHEST)
    centred = change - jnp.einsum("nk,nkm->nm", p, change, precision=HIGHEST)[:, None, :]
    curved = (_weights(problem)[:, None] * p)[:, :, None] * centred
    return jnp.einsum("ne,nkm->ekm", phi, curved, precision=HIGHEST).reshape(vectors.shape) + problem.l2 * vectors


@functools.partial(jax.jit, static_argnames=("chunk",))
def hessian(problem: HeadProblem, *, chunk: int = 2048) -> Float[Array, "p p"]:
    """H as a dense matrix, exactly symmetric, in the dtype of the features.

    The block of classes a and b is -phi^T diag(weight p_a p_b) phi. Only the k (k - 1) / 2 blocks with a < b are
    computed, and of each of them, being symmetric, little more than the lower triangle: `chunk` rows and 32 columns of
    all blocks at a time in one product, about n e^2 k (k - 1) / 2 operations for large e. A diagonal block is minus
    the sum of its row of blocks, because p_a (1 - p_a) is the sum of p_a p_b over b != a; so the null space of the
    softmax (the same vector added to all classes) is kept to rounding, and no 1 - p is ever formed.

    Peak memory: about 3 p^2 numbers, and chunk * 32 * k (k - 1) / 2 numbers, beside the features.
    """
    phi = design(problem.features, problem.head)
    p = jax.nn.softmax(head_logits(problem.head, problem.features))
    (n, e), k = phi.shape, p.shape[1]
    first, second = np.triu_indices(k, 1)
    product = _weights(problem)[:, None] * p[:, first] * p[:, second]

    chunks = max(-(-n // chunk), 1)
    rows = -(-n // chunks)
    padding = ((0, chunks * rows - n), (0, 0))  # rows of zeros add nothing
    pieces = (jnp.pad(phi, padding).reshape(chunks, rows, e), jnp.pad(product, padding).reshape(chunks, rows, -1))

    columns = [slice(start, min(start + 32, e)) for start in range(0, e, 32)]

    def add(grams, piece):
        z, q = piece
        scaled = [(q[:, :, None] * z[:, None, c]).reshape(rows, -1) for c in columns]
        return [
            gram + jnp.matmul(z[:, c.start :].T, s, precision=HIGHEST)
            for gram, c, s in zip(grams, columns, scaled, strict=True)
        ], None

    empty = [jnp.zeros((e - c.start, len(first) * (c.stop - c.start)), phi.dtype) for c in columns]
    grams, _ = jax.lax.scan(add, empty, pieces)
    below = [
        jnp.pad(gram.reshape(e - c.start, len(first), -1), ((c.start, 0), (0, 0), (0, 0)))
        for gram, c in zip(grams, columns, strict=True)
    ]
    gram = jnp.tril(jnp.concatenate(below, axis=2).transpose(1, 0, 2))
    gram = gram + jnp.tril(gram, -1).transpose(0, 2, 1)
    blocks = jnp.zeros((k, k, e, e), phi.dtype).at[first, second].set(-gram).at[second, first].set(-gram)
    blocks = blocks.at[jnp.arange(k), jnp.arange(k)].set(-blocks.sum(axis=1))
    return blocks.transpose(2, 0, 3, 1).reshape(e * k, e * k) + problem.l2 * jnp.eye(e * k, dtype=phi.dtype)


def pair_bias(head: Any, pairs: HeadPairs) -> Float[Array, ""]:
    """`measure.pair_bias` of a head: for true counterfactuals. At equal probabilities its derivative is 0."""
    return counterfactual.pair_bias(*_own_probabilities(head, pairs))


def pair_gap(head: Any, pairs: HeadPairs) -> Float[Array, ""]:
    """`measure.pair_gap` of a head: for pairs that are different examples of one class."""
    return counterfactual.pair_gap(*_own_probabilities(head, pairs))


def _own_probabilities(head: Any, pairs: HeadPairs) -> tuple[jax.Array, jax.Array]:
    """Probability of the true class `[n]`, of both sides."""
    p, p_twin = (
        counterfactual.true_class_probability(head.logits(z), pairs.label) for z in (pairs.features, pairs.twin)
    )
    return p, p_twin


@functools.partial(jax.jit, static_argnames=("bias",))
def bias_gradient(bias: Callable[..., Any], head: Any, *data: Any) -> Float[jax.Array, "p"]:
    """The gradient of any scalar `bias(head, *data)` by theta, for instance of `pair_bias(head, pairs)`.

    Args:
      bias: differentiable in the head. Static: pass the same function object again to reuse the compilation.
      head: the head at which it is taken.
      data: its further arguments, pytrees of arrays.
    """
    gradient = jax.grad(lambda theta: bias(head.at(theta), *data))(head.theta)
    return head.at(gradient).vector()


@jax.jit
def pair_gradient(head: Any, pairs: HeadPairs) -> Float[jax.Array, "p"]:
    """Sum over the pairs of grad loss(x) - grad loss(twin): what FMD's edit with external pairs multiplies by H^-1."""
    x, twin = (HeadProblem(z, pairs.label, None, head, 0.0) for z in (pairs.features, pairs.twin))
    return x.gradient() - twin.gradient()


@jax.jit
def each_pair_gradient(head: AffineHead, pairs: HeadPairs) -> Float[jax.Array, "p m"]:
    """`pair_gradient` of every pair by itself, as columns: right-hand sides that are solved together."""

    def columns(features):
        return jnp.einsum("me,mk->ekm", design(features, head), error(head, features, pairs.label), precision=HIGHEST)

    return (columns(pairs.features) - columns(pairs.twin)).reshape(-1, pairs.label.shape[0])


def _affine_slopes(model: tuple[AffineHead, jax.Array], rows: tuple[jax.Array, jax.Array]) -> Float[jax.Array, "b m"]:
    """S phi_i . (p_i - y_i) for every row and every right-hand side; the gradient of a row is never formed."""
    (head, matrix), (features, label) = model, rows
    moved = jnp.einsum("be,ekm->bkm", design(features, head), matrix, precision=HIGHEST)
    return jnp.einsum("bkm,bk->bm", moved, error(head, features, label), precision=HIGHEST)
