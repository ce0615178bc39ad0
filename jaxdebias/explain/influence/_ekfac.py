"""EK-FAC: the curvature of dense and convolutional layers as Kronecker products, for blocks of any size.

A layer with input a (bias: a 1 appended) and derivative g of the loss by its output has the gradient sum_t a_t g_t^T,
over the positions t of a convolution (one for a dense layer). Its Gauss-Newton matrix, which is also the Fisher matrix
under the model's own labels, is approximated layer by layer:

    basis     eigenvectors Q_A of the sum of a a^T, Q_G of the sum of g g^T        (K-FAC: Martens and Grosse 2015,
                                                                                    Grosse and Martens 2016)
    values    sum over examples and labels of (Q_A^T (sum_t a_t g_t^T) Q_G)^2      (EK-FAC: George et al. 2018)

so that C ~ (Q_A kron Q_G) diag(values) (Q_A kron Q_G)^T, whose inverse costs two small products. The values are the
exact diagonal of the layer's curvature in that basis; what is missed is what lies off it, and all between layers.
Scores correlate with exact ones, they do not equal them.

Labels are the model's own, not those of the data: for up to `EXACT` classes the expectation over them is taken exactly,
as the sum over classes c of p_c (e_c - p)(e_c - p)^T = diag(p) - p p^T; beyond, labels are drawn.

Layers are found in the program of the block: wherever a product or a convolution takes a parameter of the block as its
kernel, its other operand is a, and a perturbation of zero added to its result gives g. So any model of any library is
served as long as each parameter of the block is the kernel of one such operation, used once, or a bias added to it.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdebias.contracts import expect
from jaxdebias.core import Array
from jaxdebias.explain.influence._ekfac_layers import _find, _of_inputs, _of_outputs, _Tap
from jaxdebias.explain.influence._inverse import Solution, check_layers, check_rhs, relative_error, residual
from jaxdebias.explain.influence._objective import HIGHEST, AffineHead, HeadProblem, design
from jaxdebias.explain.influence._program import Operation, evaluate
from jaxdebias.explain.influence.derivatives import sum_over_chunks

EXACT = 16
"""Most classes for which the expectation over labels is exact."""
NUMBERS = 2**24
"""Most numbers in the largest array of a chunk."""


class EkfacInfo(NamedTuple):
    """What tells how good the approximation is."""

    damping: float
    residual: float
    """|(C + damping I) x - b| / |b| for b the gradient, with the whole Gauss-Newton matrix C. Far from 0 for several
    layers even where scores correlate well."""
    gradient_norm: float
    """|grad F| at the head."""


class EkfacLayer(NamedTuple):
    """One layer: i inputs (bias counted), o outputs."""

    name: str
    """Path of the kernel."""
    index: np.ndarray
    """`[i o]` int, where in the vector [p] each entry of the layer's matrix lies."""
    basis_in: np.ndarray
    """`[i i]` float64, Q_A."""
    basis_out: np.ndarray
    """`[o o]` float64, Q_G."""
    values: np.ndarray
    """`[i o]` float64, of the SUM of losses, without regulariser."""


class EkfacInverse(NamedTuple):
    """It needs no training set any more."""

    parts: tuple[EkfacLayer, ...]
    floor: float
    """l2 + damping"""
    info: EkfacInfo
    layers: tuple[tuple[str, int], ...]

    def solve(self, rhs: Float[Array, "p m"]) -> Solution:
        """In float64, on the host: 4 p (i + o) m operations."""
        check_rhs(rhs, sum(part.index.size for part in self.parts))
        rhs = np.asarray(rhs, np.float64)
        value, back = np.empty_like(rhs), np.empty_like(rhs)
        for part in self.parts:
            curved = (part.values + self.floor)[:, :, None]
            solved = _turned(
                _turned(rhs[part.index], part.basis_in.T, part.basis_out) / curved, part.basis_in, part.basis_out.T
            )
            value[part.index] = solved
            back[part.index] = _turned(
                _turned(solved, part.basis_in.T, part.basis_out) * curved, part.basis_in, part.basis_out.T
            )
        check_layers("solution", self.layers, value)
        return Solution(value, relative_error(back, rhs), 0, self.info.damping)


@dataclass(frozen=True, kw_only=True)
class Ekfac:
    """Kronecker-factored curvature with corrected eigenvalues; two passes over the rows and two small eigenvalue
    problems for each layer. Memory: 8 (i^2 + o^2 + 2 i o) bytes for each layer."""

    samples: int = 4
    """Labels drawn for each example where there are more than `EXACT` classes."""
    seed: int = 0
    """Of the drawn labels."""

    def factor(self, problem: HeadProblem, *, damping: float) -> EkfacInverse:
        """See `solvers.factor`.

        Raises:
          ContractError: a parameter that is neither the kernel of one product or convolution nor its bias, such as
            the scale of a normalisation: leave it out of the block.
        """
        from scipy import linalg

        expect(self.samples >= 1, "samples", "at least 1", self.samples)
        floor = float(problem.l2) + damping
        expect(floor > 0, "damping", "l2 + damping above 0", floor)
        taps, indices = _find(problem)
        n, exact = problem.label.shape[0], _classes(problem) <= EXACT
        draws = _classes(problem) if exact else self.samples
        # Uniform numbers instead of labels, so that what is drawn for a row does not depend on the chunks.
        uniform = None if exact else jax.random.uniform(jax.random.key(self.seed), (n, self.samples))
        rows = _rows_at_a_time(problem, taps, indices, draws)

        grams = jax.device_get(_grams(problem, uniform, taps, rows))
        bases = []
        for tap, index, gram in zip(taps, indices, grams, strict=True):
            for matrix in gram:
                check_layers("curvature", ((tap.kernel, len(matrix)),), matrix)
            bases.append(tuple(linalg.eigh(np.asarray(matrix, np.float64))[1] for matrix in gram))
            expect(
                tuple(len(basis) for basis in bases[-1]) == index.shape,
                tap.kernel,
                f"inputs and outputs that match the kernel {list(index.shape)}",
                [len(basis) for basis in bases[-1]],
            )
        dtype = jax.tree.leaves(problem.head.theta)[0].dtype
        values = jax.device_get(
            _values(problem, uniform, jax.tree.map(lambda q: jnp.asarray(q, dtype), bases), taps, rows)
        )
        parts = tuple(
            EkfacLayer(tap.kernel, index, *basis, np.asarray(value, np.float64))
            for tap, index, basis, value in zip(taps, indices, bases, values, strict=True)
        )

        gradient = np.asarray(problem.gradient(), np.float64)[:, None]
        info = EkfacInfo(float(damping), np.nan, float(np.linalg.norm(gradient)))
        made = EkfacInverse(parts, floor, info, problem.layers)
        error = residual(problem, made.solve(gradient).value, gradient, damping=damping)
        return made._replace(info=info._replace(residual=error))


def _turned(matrices: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left @ matrix @ right for every matrix `[i o]` of `[i o m]`."""
    return np.tensordot(np.tensordot(left, matrices, (1, 0)), right, (1, 0)).transpose(0, 2, 1)


def _classes(problem: HeadProblem) -> int:
    return jax.eval_shape(problem.head.logits, problem.features).shape[1]


# --- the two passes -----------------------------------------------------------------------------------------------


def _forward(
    head: Any,
    features: Any,
    taps: tuple[_Tap, ...],
) -> tuple[jax.Array, list[jax.Array], Callable[[jax.Array], list[jax.Array]]]:
    """(logits [b k], a [b t i] of each layer, function from derivatives by the logits [b k] to g [b t o])."""
    if isinstance(head, AffineHead):
        return head.logits(features), [design(features, head)[:, None]], lambda by_logits: [by_logits[:, None]]
    params = head.cut.put(head.params, head.theta)
    at = {tap.slot: j for j, tap in enumerate(taps)}
    operations: dict[int, Operation] = {}

    def perturbed(added: list[Any] | None) -> tuple[jax.Array, list[Any], list[Any]]:
        inputs, results = [None] * len(taps), [None] * len(taps)

        def bind(operation: Operation, operands: list[Any]) -> list[Any]:
            out = evaluate(operation, operands)
            j = at.get(operation.outputs[0])
            if j is not None:
                operations[j] = operation
                inputs[j], results[j] = _of_inputs(operation, taps[j].side, operands[taps[j].side]), out[0]
                out = out if added is None else [out[0] + added[j]]
            return out

        with jax.default_matmul_precision("highest"):
            return head.cut.replay(params, features, bind), inputs, results

    zeros = [jnp.zeros(result.shape, result.dtype) for result in jax.eval_shape(lambda: perturbed(None))[2]]
    logits, back, inputs = jax.vjp(lambda added: perturbed(added)[:2], zeros, has_aux=True)
    inputs = [
        a if tap.bias is None else jnp.concatenate([a, jnp.ones((*a.shape[:2], 1), a.dtype)], axis=2)
        for tap, a in zip(taps, inputs, strict=True)
    ]

    def outputs(by_logits: jax.Array) -> list[jax.Array]:
        (derivatives,) = back(by_logits.astype(logits.dtype))
        return [
            _of_outputs(operations[j], tap.side, g) for (j, tap), g in zip(enumerate(taps), derivatives, strict=True)
        ]

    return logits, inputs, outputs


def _by_logits(
    logits: Float[Array, "b k"],
    weight: Float[Array, "b"],
    uniform: Float[Array, "b s"] | None,
) -> Float[jax.Array, "c b k"]:
    """Derivatives of the losses by the logits, one set for each class (or drawn label), whose outer products add up to
    weight (diag(p) - p p^T), exactly or in expectation."""
    p, k = jax.nn.softmax(logits), logits.shape[1]
    if uniform is None:
        away = jnp.eye(k, dtype=p.dtype)[:, None] - p[None]
        return jnp.sqrt(weight[None, :, None] * p.T[:, :, None]) * away
    label = (jnp.cumsum(p, axis=1)[:, :-1, None] < uniform[:, None]).sum(axis=1)  # [b s]
    away = jax.nn.one_hot(label.T, k, dtype=p.dtype) - p[None]
    return jnp.sqrt(weight / uniform.shape[1])[None, :, None] * away


def _rows(problem: HeadProblem, uniform: Float[Array, "n s"] | None) -> tuple[Any, ...]:
    dtype = jax.tree.leaves(problem.head.theta)[0].dtype
    n = problem.label.shape[0]
    weight = jnp.ones(n, dtype) if problem.weight is None else jnp.asarray(problem.weight, dtype)
    return problem.features, weight, uniform


def _layers_of(problem: HeadProblem, chunk: Any, padding: jax.Array, taps: tuple[_Tap, ...]) -> list[Any]:
    """(a [b t i], g [c b t o]) of every layer."""
    features, weight, uniform = chunk
    logits, inputs, outputs = _forward(problem.head, features, taps)
    cotangents = _by_logits(logits, weight * padding.astype(weight.dtype), uniform)
    return list(zip(inputs, jax.vmap(outputs)(cotangents), strict=True))


@functools.partial(jax.jit, static_argnames=("taps", "batch_size"))
def _grams(problem: HeadProblem, uniform: Float[Array, "n s"] | None, taps: tuple[_Tap, ...], batch_size: int) -> Any:
    """Sums of a a^T `[i i]` and g g^T `[o o]` of every layer."""

    def of_chunk(chunk: Any, padding: jax.Array) -> Any:
        weight = chunk[1] * padding.astype(chunk[1].dtype)
        return [
            (
                jnp.einsum("bti,btj,b->ij", a, a, weight, precision=HIGHEST),
                jnp.einsum("cbto,cbtq->oq", g, g, precision=HIGHEST),
            )
            for a, g in _layers_of(problem, chunk, padding, taps)
        ]

    return _summed(of_chunk, problem, uniform, batch_size)


@functools.partial(jax.jit, static_argnames=("taps", "batch_size"))
def _values(
    problem: HeadProblem, uniform: Float[Array, "n s"] | None, bases: Any, taps: tuple[_Tap, ...], batch_size: int
) -> Any:
    """Sums of the squared gradients of every layer in its basis, `[i o]`."""

    # Sums of squared products are written as products: jaxlib 0.10.2 can fuse the former into wrong numbers on CPU
    # (jax-ml/jax issue 39103).
    def squares(a: jax.Array, g: jax.Array) -> jax.Array:
        if a.shape[1] == 1:  # one position: the square of an outer product is that of the squares
            return jnp.einsum("bi,cbo->io", a[:, 0] ** 2, g[:, :, 0] ** 2, precision=HIGHEST)
        d = jnp.einsum("bti,cbto->cbio", a, g, precision=HIGHEST)
        flat = d.reshape(d.shape[0] * d.shape[1], -1)
        return jnp.matmul(jnp.ones(len(flat), d.dtype), flat**2, precision=HIGHEST).reshape(d.shape[2:])

    def of_chunk(chunk: Any, padding: jax.Array) -> Any:
        return [
            squares(jnp.matmul(a, q_in, precision=HIGHEST), jnp.matmul(g, q_out, precision=HIGHEST))
            for (a, g), (q_in, q_out) in zip(_layers_of(problem, chunk, padding, taps), bases, strict=True)
        ]

    return _summed(of_chunk, problem, uniform, batch_size)


def _summed(of_chunk: Callable[..., Any], problem: HeadProblem, uniform: Any, batch_size: int) -> Any:
    rows = _rows(problem, uniform)
    few = jax.tree.map(lambda leaf: leaf[:1], rows)
    like = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(of_chunk, few, jnp.ones(1)))
    return sum_over_chunks(of_chunk, like, rows, batch_size)


def _rows_at_a_time(problem: HeadProblem, taps: tuple[_Tap, ...], indices: tuple[np.ndarray, ...], draws: int) -> int:
    """As many as keep the largest array, gradients or patches, at `NUMBERS` numbers."""
    few = jax.tree.map(lambda leaf: leaf[:1], problem.features)
    inputs = jax.eval_shape(lambda z: _forward(problem.head, z, taps)[1], few)
    largest = 1
    for a, (i, o) in zip(inputs, (index.shape for index in indices), strict=True):
        t = a.shape[1]
        largest = max(largest, t * i, draws * t * o, draws * i * o if t > 1 else 0)
    return int(np.clip(NUMBERS // largest, 1, 1024))
