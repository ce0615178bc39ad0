"""LiSSA, the recursion with which influence is often published; here for comparison, and made honest.

    x_0 = 0,     x_{j+1} = x_j + (b - (C + damping I) x_j) / scale

converges to (C + damping I)^-1 b if scale is more than half the largest eigenvalue of C + damping I. C may be that of
a new random batch at every step (Agarwal et al. 2017; Koh and Liang 2017); then x wanders about the solution.

The recursion of published code, h <- v + (1 - damp) h - C h / scale, is the same one with h = scale x and
damping = scale * damp: what is called damping there is multiplied by the scale, with the usual settings (0.01, 25) it
solves for C + 0.25 I. Code that returns h instead of h / scale, as the released code of FMD does, is off by that factor
as well. Here damping is damping, the scale is found by power iterations, and the residual is measured against the whole
curvature: a run that did not converge says so, one that diverges raises.

About scale / damping * log(1 / tolerance) steps are needed: conjugate gradients need the square root of that.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdebias.contracts import expect
from jaxdebias.core import Array, Key
from jaxdebias.explain.influence._inverse import Solution, check_layers, check_rhs, residual
from jaxdebias.explain.influence._objective import HeadProblem

CHECK = 50
"""Steps between two looks at the residual."""


@dataclass(frozen=True, kw_only=True)
class Lissa:
    """The recursion's settings; the defaults find a scale that converges and use all rows at every step."""

    depth: int = 5000
    """Most steps (the published default)."""
    tolerance: float = 1e-3
    """Stops when the residual is below; 0 takes every step. A solution whose residual is above did not converge."""
    scale: float | None = None
    """None: 1.1 times the largest eigenvalue by power iterations. They err on the low side, which is harmless up to a
    factor of two."""
    power_steps: int = 20
    batch_size: int | None = None
    """Rows of each step, drawn with replacement; None: all. The solution is then only as good as the noise."""
    repeats: int = 1
    """Runs over which the solution is averaged; only of use with `batch_size`."""
    curvature: str = "gauss_newton"
    """`gauss_newton` or `hessian`; an indefinite one diverges."""
    seed: int = 0

    def factor(self, problem: HeadProblem, *, damping: float) -> "LissaInverse":
        """See `solvers.factor`. Nothing is factored: the scale is found, and the problem is kept."""
        expect(
            self.depth >= 1 and self.repeats >= 1,
            "depth",
            "at least one step and one repeat",
            f"{self.depth}, {self.repeats}",
        )
        n = problem.label.shape[0]
        expect(self.batch_size is None or 1 <= self.batch_size <= n, "batch_size", f"1..{n}, or None", self.batch_size)
        scale = None if self.scale is None else float(self.scale)
        expect(scale is None or scale > 0, "scale", "above 0", scale)
        if scale is None:
            # Of several batches, since a small one can curve more than all rows do.
            draws = 1 if self.batch_size is None else 4
            largest = [
                _largest(problem, jax.random.key(self.seed + draw), self.curvature, self.power_steps, self.batch_size)
                for draw in range(draws)
            ]
            scale = 1.1 * (max(float(value) for value in largest) + damping)
        expect(bool(np.isfinite(scale)) and scale > 0, "curvature", "a finite largest eigenvalue above 0", scale)
        return LissaInverse(problem, float(damping), scale, self)


@dataclass(frozen=True)
class LissaInverse:
    """Goes back to the training set at every solve, so it cannot be saved."""

    problem: HeadProblem
    damping: float
    scale: float
    """The step is 1 / scale."""
    config: Lissa

    def solve(self, rhs: Float[Array, "p m"]) -> Solution:
        """All columns together, until the worst of them is below the tolerance.

        Raises:
          ContractError: the recursion diverges.
        """
        check_rhs(rhs, self.problem.size)
        rhs = np.asarray(rhs, np.float64)
        runs = [self._run(rhs, jax.random.key(self.config.seed + 1 + repeat)) for repeat in range(self.config.repeats)]
        value = np.mean([run for run, _ in runs], axis=0)
        return Solution(value, self._residual(value, rhs), max(steps for _, steps in runs), self.damping)

    def _residual(self, value: np.ndarray, rhs: np.ndarray) -> float:
        return residual(self.problem, value, rhs, damping=self.damping, curvature=self.config.curvature)

    def _run(self, rhs: np.ndarray, key: Key) -> tuple[np.ndarray, int]:
        config, done = self.config, 0
        # Columns of unit length: float32 need not hold their scale as well.
        size = np.linalg.norm(rhs, axis=0)
        size = np.where(size > 0, size, 1.0)[None, :]
        b = jnp.asarray(rhs / size, jax.tree.leaves(self.problem.head.theta)[0].dtype)
        x = jnp.zeros_like(b)
        while done < config.depth:
            count = min(CHECK, config.depth - done)
            x = _steps(
                self.problem,
                b,
                x,
                jax.random.fold_in(key, done),
                self.damping,
                self.scale,
                config.curvature,
                count,
                config.batch_size,
            )
            done += count
            value = np.asarray(x, np.float64)
            wrong = self._residual(value, rhs / size) if np.isfinite(value).all() else np.inf
            expect(
                wrong < 10.0,
                "scale",
                "a recursion that converges: scale of at least half the largest eigenvalue "
                "of curvature plus damping, and no negative curvature",
                f"{self.scale:.4g}, residual {wrong:.3g}",
            )
            if wrong <= config.tolerance:
                break
        check_layers("solution", self.problem.layers, value)
        return value * size, done


def _drawn(problem: HeadProblem, key: Key, batch_size: int | None) -> HeadProblem:
    """Random rows, weighted to stand for all."""
    if batch_size is None:
        return problem
    n = problem.label.shape[0]
    rows = jax.random.randint(key, (batch_size,), 0, n)
    features = jax.tree.map(lambda leaf: leaf[rows], problem.features)
    dtype = jax.tree.leaves(problem.head.theta)[0].dtype
    weight = jnp.ones(batch_size, dtype) if problem.weight is None else jnp.asarray(problem.weight, dtype)[rows]
    return problem._replace(features=features, label=problem.label[rows], weight=weight * (n / batch_size))


@functools.partial(jax.jit, static_argnames=("curvature", "count", "batch_size"))
def _steps(
    problem: HeadProblem,
    b: Float[Array, "p m"],
    x: Float[Array, "p m"],
    key: Key,
    damping: float | Array,
    scale: float | Array,
    curvature: str,
    count: int,
    batch_size: int | None,
) -> Float[jax.Array, "p m"]:
    def step(j: jax.Array, x: jax.Array) -> jax.Array:
        here = _drawn(problem, jax.random.fold_in(key, j), batch_size)
        return x + ((b - damping * x - here.product(x, curvature)) / scale).astype(x.dtype)

    return jax.lax.fori_loop(0, count, step, x)


@functools.partial(jax.jit, static_argnames=("curvature", "steps", "batch_size"))
def _largest(problem: HeadProblem, key: Key, curvature: str, steps: int, batch_size: int | None) -> jax.Array:
    """The largest eigenvalue, from below: the Rayleigh quotient after power iterations from a random vector."""
    problem = _drawn(problem, jax.random.fold_in(key, 1), batch_size)
    start = jax.random.normal(key, (problem.size, 1), jax.tree.leaves(problem.head.theta)[0].dtype)

    def step(_: jax.Array, v: jax.Array) -> jax.Array:
        return problem.product(v / jnp.sqrt(jnp.vdot(v, v)), curvature).astype(v.dtype)

    last = jax.lax.fori_loop(0, steps, step, start)
    return jnp.sqrt(jnp.vdot(last, last))
