"""The largest curvatures only: a low-rank inverse for many right-hand sides on a block too large for a dense factor.

Lanczos' recursion needs `steps` products with the curvature and gives an orthonormal basis V of a Krylov space and the
curvature within it. With its Ritz values theta_i and vectors v_i

    (C + damping I)^-1 b  =  b / f  +  sum_i (1 / (theta_i + f) - 1 / f) v_i (v_i . b),      f = l2 + damping:

outside the basis the losses are taken to be flat, and only regulariser and damping remain. That is exact for
`steps` = p, good where what is left out curves less than f, and overrates small edits where it curves more: `info`
says how much curvature a random direction outside the basis has, and how far the gradient's solution is off.

The basis is orthogonalised against all of itself at every step, twice: without that, Lanczos finds its largest values
again and again (Parlett 1998, chapter 13). Arnoldi's method, as published for influence (Schioppa et al. 2022), is the
same thing for a symmetric matrix, with more arithmetic.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from jaxdebias.contracts import expect
from jaxdebias.core import Array
from jaxdebias.explain.influence._inverse import Solution, check_layers, check_rhs, relative_error, residual
from jaxdebias.explain.influence._objective import HeadProblem

PROBES = 4


class LanczosInfo(NamedTuple):
    """What tells whether the basis is large enough."""

    damping: float
    residual: float
    """|(C + damping I) x - b| / |b| for b the gradient, with the whole curvature C: what leaving the rest out costs."""
    ignored: float
    """Mean curvature of the losses along random directions outside the basis: harmless far below l2 + damping."""
    gradient_norm: float
    """|grad F| at the head."""


class LanczosInverse(NamedTuple):
    """Low-rank curvature and its inverse; it needs no training set any more."""

    vectors: np.ndarray
    """`[p r]` float64, orthonormal Ritz vectors."""
    values: np.ndarray
    """`[r]` float64, Ritz values of the losses' curvature, without regulariser, increasing."""
    floor: float
    """l2 + damping, the curvature of everything outside the basis."""
    info: LanczosInfo
    layers: tuple[tuple[str, int], ...]

    def solve(self, rhs: Float[Array, "p m"]) -> Solution:
        """In float64, on the host: 4 p r m operations."""
        check_rhs(rhs, len(self.vectors))
        rhs = np.asarray(rhs, np.float64)
        share = 1.0 / (self.values + self.floor) - 1.0 / self.floor
        value = rhs / self.floor + self.vectors @ (share[:, None] * (self.vectors.T @ rhs))
        back = self.floor * value + self.vectors @ (self.values[:, None] * (self.vectors.T @ value))
        check_layers("solution", self.layers, value)
        return Solution(value, relative_error(back, rhs), 0, self.info.damping)


@dataclass(frozen=True, kw_only=True)
class Lanczos:
    """Low rank; `steps` products with the curvature, 8 p steps bytes on the host."""

    steps: int = 100
    """Size of the basis; p at most."""
    curvature: str = "gauss_newton"
    """`gauss_newton` or `hessian`; the latter may be indefinite off the last layer, and is then refused unless the
    damping outweighs it."""
    seed: int = 0
    """Of the random start."""

    def factor(self, problem: HeadProblem, *, damping: float) -> LanczosInverse:
        """See `solvers.factor`."""
        from scipy import linalg

        expect(self.steps >= 1, "steps", "at least 1", self.steps)
        l2, floor = float(problem.l2), float(problem.l2) + damping
        expect(floor > 0, "damping", "l2 + damping above 0: it is all the curvature outside the basis", floor)
        rng, p = np.random.default_rng(self.seed), problem.size
        dtype, layers = jax.tree.leaves(problem.head.theta)[0].dtype, problem.layers

        def product(vectors: np.ndarray) -> np.ndarray:
            out = np.asarray(problem.product(vectors.astype(dtype), self.curvature), np.float64) - l2 * vectors
            check_layers("curvature", layers, out)
            return out

        basis = np.zeros((min(self.steps, p), p))
        diagonal, beside = np.zeros(len(basis)), np.zeros(len(basis))
        vector, norm = _outside(rng.normal(size=p), basis[:0])
        for step in range(len(basis)):
            basis[step] = vector
            moved = product(vector[:, None])[:, 0]
            diagonal[step] = moved @ vector
            vector, norm = _outside(moved, basis[: step + 1])
            if norm <= 1e-10 * np.abs(diagonal).max(initial=0.0):  # an invariant space: go on outside it
                vector, norm = _outside(rng.normal(size=p), basis[: step + 1])[0], 0.0
            beside[step] = norm
        values, rotation = linalg.eigh_tridiagonal(diagonal, beside[:-1])
        if self.curvature == "gauss_newton":
            values = np.maximum(values, 0.0)  # below 0 by rounding only
        least = float(values[0])
        expect(least + floor > 0, "damping", "more than the most negative curvature", f"{floor} with {least}")

        vectors, ignored = basis.T @ rotation, 0.0
        if len(basis) < p:
            probes = np.stack([_outside(probe, basis)[0] for probe in rng.normal(size=(PROBES, p))], axis=1)
            ignored = float((probes * product(probes)).sum(axis=0).mean())
        gradient = np.asarray(problem.gradient(), np.float64)[:, None]
        info = LanczosInfo(float(damping), np.nan, ignored, float(np.linalg.norm(gradient)))
        made = LanczosInverse(vectors, values, floor, info, layers)
        error = residual(problem, made.solve(gradient).value, gradient, damping=damping, curvature=self.curvature)
        return made._replace(info=info._replace(residual=error))


def _outside(vector: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, float]:
    """The part of a vector outside the rows of an orthonormal basis, as a unit vector, and its length."""
    for _ in range(2):  # once leaves rounding errors of the size of what was taken away
        vector = vector - (basis @ vector) @ basis
    norm = float(np.linalg.norm(vector))
    return (vector / norm if norm > 0 else vector), norm
