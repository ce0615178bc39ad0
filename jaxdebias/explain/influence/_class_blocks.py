"""The softmax Hessian of a last layer without the terms between classes: one `[e e]` block per class.

H couples classes a and b by -p_a p_b; dropped, what is left are k independent Hessians of one-against-all curvature
p_a (1 - p_a). Factors of k e^3 / 3 operations and 8 k e^2 bytes take the place of k^3 e^3 / 3 and 8 k^2 e^2: the way
out where there are hundreds of classes. It is an approximation; `info` says by products with H itself how much of H
is left out, commonly tens of per cent.

H is flat along the same vector added to all classes, the blocks are not; no softmax gradient has a part there.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdebias.contracts import expect
from jaxdebias.core import Array
from jaxdebias.explain.influence._inverse import Solution, check_layers, check_rhs, relative_error, residual
from jaxdebias.explain.influence._objective import HIGHEST, AffineHead, HeadProblem, design

LARGEST = 2**28
"""Most entries k e^2 of the blocks: 2 GiB in float64."""
PROBES = 8


class ClassBlocksInfo(NamedTuple):
    """What tells how much was left out."""

    damping: float
    smallest_pivot: float
    """The least squared diagonal entry of the factors."""
    curvature_error: float
    """Estimate of |H - blocks| / |H| (Frobenius) from products of both with random vectors, regulariser left out."""
    residual: float
    """|(H + damping I) x - b| / |b| for b the gradient, with the whole H."""
    gradient_norm: float
    """|grad F| at the head."""


class ClassBlocksInverse(NamedTuple):
    """The Cholesky factors of all classes' blocks."""

    cholesky: np.ndarray
    """`[k e e]` float64, lower triangles."""
    info: ClassBlocksInfo
    layers: tuple[tuple[str, int], ...]

    def solve(self, rhs: Float[Array, "p m"]) -> Solution:
        """In float64, on the host: 2 k e^2 m operations."""
        from scipy import linalg

        k, e, _ = self.cholesky.shape
        check_rhs(rhs, k * e)
        columns = np.asarray(rhs, np.float64).reshape(e, k, -1)
        value, back = np.empty_like(columns), np.empty_like(columns)
        for c, factor in enumerate(self.cholesky):
            value[:, c] = linalg.cho_solve((factor, True), columns[:, c], check_finite=False)
            back[:, c] = factor @ (factor.T @ value[:, c])
        value, flat = value.reshape(k * e, -1), columns.reshape(k * e, -1)
        check_layers("solution", self.layers, value)
        return Solution(value, relative_error(back.reshape(k * e, -1), flat), 0, self.info.damping)


@dataclass(frozen=True, kw_only=True)
class ClassBlocks:
    """One factor per class; for a last layer of many classes."""

    def factor(self, problem: HeadProblem, *, damping: float) -> ClassBlocksInverse:
        """See `solvers.factor`."""
        from scipy import linalg

        expect(
            isinstance(problem.head, AffineHead),
            "head",
            "an affine last layer, which has a column for every class",
            type(problem.head).__name__,
        )
        k = problem.head.kernel.shape[1]
        e, l2 = problem.size // k, float(problem.l2)
        expect(k * e * e <= LARGEST, "head", f"at most {LARGEST} entries in k blocks [e e]", f"{k} blocks [{e} {e}]")
        blocks = np.array(_blocks(problem), np.float64)
        check_layers("curvature", problem.layers, blocks.transpose(1, 0, 2).reshape(k * e, e))

        # E |A z|^2 = |A|^2 (Frobenius) for normal z.
        probe = np.random.default_rng(0).normal(size=(k * e, PROBES)).astype(problem.head.kernel.dtype)
        exact = np.asarray(problem.product(probe), np.float64) - l2 * probe
        own = np.einsum("cij,jcm->icm", blocks, probe.reshape(e, k, PROBES)).reshape(k * e, PROBES)
        error = float(np.linalg.norm(own - exact) / max(np.linalg.norm(exact), np.finfo(np.float64).tiny))

        for c in range(k):
            blocks[c][np.diag_indices(e)] += l2 + damping
            try:
                blocks[c] = linalg.cholesky(blocks[c], lower=True, check_finite=False)
            except np.linalg.LinAlgError:
                expect(False, "damping", "l2 + damping large enough for positive definite blocks", l2 + damping)
        gradient = np.asarray(problem.gradient(), np.float64)[:, None]
        pivot = float(np.diagonal(blocks, axis1=1, axis2=2).min() ** 2)
        info = ClassBlocksInfo(float(damping), pivot, error, np.nan, float(np.linalg.norm(gradient)))
        made = ClassBlocksInverse(blocks, info, problem.layers)
        wrong = residual(problem, made.solve(gradient).value, gradient, damping=damping)
        return made._replace(info=info._replace(residual=wrong))


@jax.jit
def _blocks(problem: HeadProblem) -> Float[jax.Array, "k e e"]:
    """phi^T diag(weight p_c (1 - p_c)) phi, class after class: one copy of the features at a time."""
    phi = design(problem.features, problem.head)
    p = jax.nn.softmax(problem.head.logits(problem.features))
    weight = jnp.ones(len(phi), phi.dtype) if problem.weight is None else jnp.asarray(problem.weight, phi.dtype)
    columns = jnp.arange(p.shape[1])

    def block(c: jax.Array) -> jax.Array:
        others = jnp.where(columns[None, :] == c, 0.0, p).sum(axis=1)  # 1 - p_c, accurate where p_c rounds to 1
        half = jnp.sqrt(weight * p[:, c] * others)[:, None] * phi
        return jnp.matmul(half.T, half, precision=HIGHEST)

    return jax.lax.map(block, columns)
