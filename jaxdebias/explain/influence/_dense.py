"""The dense factor: the exact curvature of a last layer, or of any block small enough, as one Cholesky factor.

The Hessian is summed in float32 on the device and factored in float64 on the host: the curvature of a model that fits
its training set spans many orders of magnitude, and a float32 Cholesky fails where the smallest eigenvalue, which is
the damping, falls under about 1e-6 of the largest. A host copy of 8 p^2 bytes costs less than the sum it follows.

With two classes the two columns of a softmax head carry the same curvature twice, with opposite signs: theta is turned
into the sum and the difference of its columns, of which the sum is flat and the difference has curvature 2 A,
A = phi^T diag(weight p_0 p_1) phi. One factor of a quarter of the entries is left, exact still.
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
from jaxdebias.explain.influence._objective import HIGHEST, AffineHead, HeadProblem, design, hessian

LARGEST = 16_384
"""Most parameters of a dense factor: 2 GiB in float64."""


class FactorInfo(NamedTuple):
    """What tells whether a factor can be trusted."""

    damping: float
    """What was added to the diagonal of H (of the SUM of losses)."""
    smallest_pivot: float
    """The least squared diagonal entry of the Cholesky factor: near `damping` or above in a sound factor."""
    residual: float
    """|(H + damping I) x - b| / |b| for b the gradient, with H applied without the matrix: it sees errors of the
    float32 sum as well as those of the solve."""
    gradient_norm: float
    """|grad F| at the head. First-order influence is exact at 0 (see `refit`)."""


class Factor(NamedTuple):
    """A Cholesky factor of H + damping I. It is all that remains needed of the training set: `save` it."""

    cholesky: np.ndarray
    """`[p p]` float64, lower triangle."""
    info: FactorInfo
    layers: tuple[tuple[str, int], ...]

    def solve(self, rhs: Float[Array, "p m"]) -> Solution:
        """(H + damping I)^-1 rhs in float64, on the host."""
        check_rhs(rhs, len(self.cholesky))
        value, error = _cholesky_solve(self.cholesky, np.asarray(rhs, np.float64))
        check_layers("solution", self.layers, value)
        return Solution(value, error, 0, self.info.damping)


class BinaryFactor(NamedTuple):
    """The same for an affine head with two classes: a factor of 2 A + (l2 + damping) I, `[e e]` instead of [2e 2e]."""

    cholesky: np.ndarray
    """`[e e]` float64, lower triangle."""
    flat: float
    """l2 + damping, the curvature of the sum of both columns."""
    info: FactorInfo
    layers: tuple[tuple[str, int], ...]

    def solve(self, rhs: Float[Array, "p m"]) -> Solution:
        """(H + damping I)^-1 rhs in float64, on the host."""
        e = len(self.cholesky)
        check_rhs(rhs, 2 * e)
        columns = np.asarray(rhs, np.float64).reshape(e, 2, -1)
        total, difference = columns[:, 0] + columns[:, 1], columns[:, 0] - columns[:, 1]
        moved, error = _cholesky_solve(self.cholesky, difference)
        value = 0.5 * np.stack([total / self.flat + moved, total / self.flat - moved], axis=1).reshape(2 * e, -1)
        check_layers("solution", self.layers, value)
        return Solution(value, error, 0, self.info.damping)


@dataclass(frozen=True, kw_only=True)
class Dense:
    """Exact. For an affine head the softmax Hessian in closed form; for a block, curvature by p products."""

    curvature: str = "gauss_newton"
    """For a block: `gauss_newton` or `hessian`; the latter may be indefinite, and is then refused."""

    def factor(self, problem: HeadProblem, *, damping: float) -> Factor | BinaryFactor:
        """See `solvers.factor`. Memory: 8 p^2 bytes on the host beside what the sum needs."""
        p, affine = problem.size, isinstance(problem.head, AffineHead)
        expect(p <= LARGEST, "head", f"at most {LARGEST} parameters for a dense factor", p)
        binary = affine and problem.head.kernel.shape[1] == 2
        if binary:
            matrix = np.array(_binary_curvature(problem), np.float64)
        elif affine:
            matrix = np.array(hessian(problem), np.float64)
        else:
            matrix = self._by_products(problem)
        check_layers("curvature", problem.layers, np.repeat(matrix, 2, axis=0) if binary else matrix)
        flat = float(damping + problem.l2)
        matrix[np.diag_indices(len(matrix))] += flat if binary else damping
        cholesky = _cholesky(matrix, flat)
        gradient = np.asarray(problem.gradient(), np.float64)
        pivot = min(float(np.diag(cholesky).min() ** 2), flat if binary else np.inf)
        info = FactorInfo(float(damping), pivot, np.nan, float(np.linalg.norm(gradient)))
        made = BinaryFactor(cholesky, flat, info, problem.layers) if binary else Factor(cholesky, info, problem.layers)
        error = residual(
            problem, made.solve(gradient[:, None]).value, gradient[:, None], damping=damping, curvature=self.curvature
        )
        return made._replace(info=info._replace(residual=error))

    def _by_products(self, problem: HeadProblem) -> np.ndarray:
        p, dtype = problem.size, jax.tree.leaves(problem.head.theta)[0].dtype
        width = min(p, 256)
        columns = [
            np.asarray(problem.product(jnp.eye(p, width, -start, dtype=dtype), self.curvature), np.float64)
            for start in range(0, p, width)
        ]
        matrix = np.concatenate(columns, axis=1)[:, :p]
        return 0.5 * (matrix + matrix.T)


@jax.jit
def _binary_curvature(problem: HeadProblem) -> Float[jax.Array, "e e"]:
    """2 A, without regulariser."""
    phi = design(problem.features, problem.head)
    logits = problem.head.logits(problem.features)
    slope = jax.nn.sigmoid(logits[:, 1] - logits[:, 0])
    weight = slope * jax.nn.sigmoid(logits[:, 0] - logits[:, 1])
    if problem.weight is not None:
        weight = weight * jnp.asarray(problem.weight, weight.dtype)
    half = jnp.sqrt(2.0 * weight)[:, None] * phi  # a product of a matrix with itself is symmetric to the last bit
    return jnp.matmul(half.T, half, precision=HIGHEST)


def _cholesky(matrix: np.ndarray, damping: float) -> np.ndarray:
    from scipy import linalg  # half of what importing the library would cost

    try:
        return linalg.cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        expect(False, "damping", "l2 + damping large enough for a positive definite Hessian", damping)


def _cholesky_solve(cholesky: np.ndarray, rhs: np.ndarray) -> tuple[np.ndarray, float]:
    """The solution, and the residual of the solve."""
    from scipy import linalg

    value = linalg.cho_solve((cholesky, True), rhs, check_finite=False)
    multiply = linalg.blas.dtrmm  # pyright: ignore[reportAttributeAccessIssue]
    back = multiply(1.0, cholesky, multiply(1.0, cholesky, value, lower=1, trans_a=1), lower=1)
    return value, relative_error(back, rhs)
