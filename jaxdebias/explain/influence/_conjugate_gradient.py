"""Conjugate gradients through curvature products, for blocks too large for a dense factor.

All right-hand sides go through the same passes over the rows; a column that has converged stands still. Iterations grow
with the square root of the condition number, which damping and a preconditioner lower:

    Jacobi     the diagonal, exact for an affine head, else estimated with random signs (Bekas, Kokiopoulou, Saad 2007)
    Nystroem   the largest curvatures from a random sketch (Frangella, Tropp, Udell 2023): `rank` products first
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Array
from jaxdebias.explain.influence._inverse import Solution, check_layers, check_rhs, residual
from jaxdebias.explain.influence._objective import HIGHEST, AffineHead, HeadProblem, design


@dataclass(frozen=True, kw_only=True)
class Jacobi:
    """Divide by the diagonal."""

    probes: int = 32
    """Random sign vectors for the estimate of a block's diagonal."""


@dataclass(frozen=True, kw_only=True)
class Nystroem:
    """Divide by the largest curvatures, as a random sketch sees them."""

    rank: int = 64


@dataclass(frozen=True, kw_only=True)
class ConjugateGradient:
    """Exact to a tolerance; nothing is kept but the problem, so it cannot be saved."""

    tolerance: float = 1e-5
    """On |residual| / |rhs| of every column. In float32 about 1e-6 is the least that can be had."""
    max_steps: int = 500
    """Iterations at most. What remains is said in the solution's residual."""
    curvature: str = "gauss_newton"
    """`gauss_newton`, or `hessian`: off the last layer the latter needs enough damping to be definite."""
    preconditioner: Jacobi | Nystroem | None = None
    seed: int = 0
    """Of the random vectors of the preconditioner."""

    def __post_init__(self):
        check_choice("curvature", self.curvature, ("gauss_newton", "hessian"))
        expect(0 < self.tolerance < 1, "tolerance", "between 0 and 1", self.tolerance)
        expect(self.max_steps >= 1, "max_steps", "at least 1", self.max_steps)

    def factor(self, problem: HeadProblem, *, damping: float) -> "ConjugateGradientInverse":
        """Prepares the preconditioner; see `solvers.factor`."""
        key, p = jax.random.key(self.seed), problem.size
        scaling = None
        if isinstance(self.preconditioner, Jacobi):
            diagonal = np.asarray(_diagonal(key, problem, self.preconditioner.probes, self.curvature), np.float64)
            check_layers("curvature", problem.layers, diagonal)
            # An estimate may come out negative; nothing with curvature is under the damping.
            scaling = _Scaling(1.0 / (np.maximum(diagonal, 0.0) + max(damping, 1e-8 * float(np.abs(diagonal).max()))))
        elif isinstance(self.preconditioner, Nystroem):
            expect(1 <= self.preconditioner.rank <= p, "rank", f"1..{p}", self.preconditioner.rank)
            scaling = _sketch(key, problem, self.preconditioner.rank, self.curvature, damping)
        return ConjugateGradientInverse(problem, self, float(damping), scaling)


class ConjugateGradientInverse(NamedTuple):
    """Solves by going back to the problem each time."""

    problem: HeadProblem
    config: ConjugateGradient
    damping: float
    scaling: "_Scaling | _LowRankScaling | None"

    def solve(self, rhs: Float[Array, "p m"]) -> Solution:
        """All columns together; see `solvers.InverseHessian`.

        Raises:
          ContractError: curvature that is not positive, or not finite, along a direction (its largest layer is named).
        """
        problem, config = self.problem, self.config
        check_rhs(rhs, problem.size)
        check_layers("rhs", problem.layers, rhs)
        dtype = jax.tree.leaves(problem.head.theta)[0].dtype
        # Columns of length 1, so that float32 neither overflows nor drowns.
        size = np.linalg.norm(np.asarray(rhs, np.float64), axis=0)
        size = np.where(size > 0, size, 1.0)
        scaling = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), self.scaling)
        x, steps, bad = _solve(
            problem,
            jnp.asarray(np.asarray(rhs) / size[None, :], dtype),
            jnp.asarray(self.damping, dtype),
            scaling,
            config.tolerance,
            config.max_steps,
            config.curvature,
        )
        if bool(np.asarray(bad).any()):
            worst = np.abs(np.asarray(x)[:, np.asarray(bad)]).max(axis=1)
            names = np.repeat([name for name, _ in problem.layers], [size for _, size in problem.layers])
            expect(
                False,
                f"{config.curvature} around layer {names[int(np.argmax(np.nan_to_num(worst)))]}",
                "positive curvature (more damping, or curvature='gauss_newton')",
                "a direction that has none",
            )
        value = np.asarray(x, np.float64) * size[None, :]
        check_layers("solution", problem.layers, value)
        error = residual(problem, value, rhs, damping=self.damping, curvature=config.curvature)
        return Solution(value, error, int(np.asarray(steps).max(initial=0)), self.damping)


class _Scaling(NamedTuple):
    inverse_diagonal: Array  # [p]

    def apply(self, r: jax.Array) -> jax.Array:
        return self.inverse_diagonal[:, None] * r


class _LowRankScaling(NamedTuple):
    vectors: Array  # [p r], orthonormal
    gain: Array  # [r], what the inverse is along them, less 1

    def apply(self, r: jax.Array) -> jax.Array:
        along = jnp.matmul(self.vectors.T, r, precision=HIGHEST)
        return r + jnp.matmul(self.vectors, self.gain[:, None] * along, precision=HIGHEST)


@functools.partial(jax.jit, static_argnames=("tolerance", "max_steps", "curvature"))
def _solve(
    problem: HeadProblem,
    rhs: Float[jax.Array, "p m"],
    damping: jax.Array,
    scaling: Any,
    tolerance: float,
    max_steps: int,
    curvature: str,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(x [p m], iterations [m], whether a column met curvature that is not positive [m])."""

    def product(v: jax.Array) -> jax.Array:
        return problem.product(v, curvature) + damping * v

    def scaled(r: jax.Array) -> jax.Array:
        return r if scaling is None else scaling.apply(r)

    def going(state: tuple[Any, ...]) -> jax.Array:
        _, _, _, _, active, steps, _ = state
        return active.any() & (steps.max() < max_steps)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        x, r, d, rho, active, steps, bad = state
        along = product(d)
        curved = (d * along).sum(axis=0)
        worse = active & ~(curved > 0)  # also where it is not a number
        active = active & ~worse
        alpha = jnp.where(active, rho / jnp.where(active, curved, 1.0), 0.0)
        x, r = x + alpha[None, :] * d, r - alpha[None, :] * jnp.where(active[None, :], along, 0.0)
        z = scaled(r)
        rho_next = (r * z).sum(axis=0)
        steps = steps + active
        going_on = active & (jnp.linalg.norm(r, axis=0) > tolerance)
        beta = jnp.where(going_on, rho_next / jnp.where(rho != 0, rho, 1.0), 0.0)
        d = jnp.where(going_on[None, :], z + beta[None, :] * d, d)
        return x, r, d, rho_next, going_on, steps, bad | worse

    z = scaled(rhs)
    m = rhs.shape[1]
    start = (
        jnp.zeros_like(rhs),
        rhs,
        z,
        (rhs * z).sum(axis=0),
        jnp.linalg.norm(rhs, axis=0) > tolerance,
        jnp.zeros(m, jnp.int32),
        jnp.zeros(m, bool),
    )
    x, *_, steps, bad = jax.lax.while_loop(going, step, start)
    return x, steps, bad


@functools.partial(jax.jit, static_argnames=("probes", "curvature"))
def _diagonal(key: jax.Array, problem: HeadProblem, probes: int, curvature: str) -> Float[jax.Array, "p"]:
    if isinstance(problem.head, AffineHead):
        phi = design(problem.features, problem.head)
        p = jax.nn.softmax(problem.head.logits(problem.features))
        weight = p * (1.0 - p)
        if problem.weight is not None:
            weight = weight * jnp.asarray(problem.weight, weight.dtype)[:, None]
        return jnp.matmul((phi**2).T, weight, precision=HIGHEST).reshape(-1) + problem.l2
    signs = jax.random.rademacher(key, (problem.size, probes), jax.tree.leaves(problem.head.theta)[0].dtype)
    return (signs * problem.product(signs, curvature)).mean(axis=1)


def _sketch(key: jax.Array, problem: HeadProblem, rank: int, curvature: str, damping: float) -> _LowRankScaling:
    """The preconditioner of Frangella, Tropp and Udell (2023, algorithm 2.1 and equation 5.3), in float64."""
    dtype = jax.tree.leaves(problem.head.theta)[0].dtype
    test = np.linalg.qr(np.asarray(jax.random.normal(key, (problem.size, rank)), np.float64))[0]
    image = np.asarray(problem.product(test.astype(dtype), curvature), np.float64)
    check_layers("curvature", problem.layers, image)
    # The shift keeps the small Cholesky definite under float32 products.
    shift = float(np.finfo(dtype).eps) * np.linalg.norm(image)
    image = image + shift * test
    small = test.T @ image
    values, basis = np.linalg.eigh(0.5 * (small + small.T))
    root = image @ (basis / np.sqrt(np.maximum(values, shift))[None, :])
    vectors, singular, _ = np.linalg.svd(root, full_matrices=False)
    curvatures = np.maximum(singular**2 - shift, 0.0)
    floor = curvatures[-1] + damping
    expect(bool(floor > 0), "damping", "more than 0 for a Nystroem preconditioner", damping)
    return _LowRankScaling(vectors, floor / (curvatures + damping) - 1.0)
