"""The protocol of inverse-curvature products, and the checks that every solver shares.

    solver                                a frozen configuration: `Dense()`, `ConjugateGradient()`, `Ekfac()`, ...
    factor(problem, solver, damping=...)  -> inverse, what is computed once
    inverse.solve(rhs [p m])              -> Solution: (C + damping I)^-1 rhs, all right-hand sides together

C is the curvature of the SUM of losses plus regulariser; damping is added to that.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float

from jaxdebias.contracts import expect
from jaxdebias.core import Array
from jaxdebias.explain.influence._objective import HeadProblem


class Solution(NamedTuple):
    """What a solve gives, and what tells whether it can be trusted."""

    value: Array
    """`[p m]`"""
    residual: float
    """|(C + damping I) value - rhs| / |rhs|, the largest over the columns, C being the curvature that the solver
    inverts: for an approximation (EK-FAC, Lanczos, class blocks) it says nothing about the approximation."""
    iterations: int
    """0 for a direct solve; the most over the columns otherwise."""
    damping: float


@runtime_checkable
class InverseHessian(Protocol):
    """Products with (C + damping I)^-1."""

    def solve(self, rhs: Float[Array, "p m"]) -> Solution: ...


@runtime_checkable
class Solver(Protocol):
    """A frozen configuration that knows how to factor a problem."""

    def factor(self, problem: HeadProblem, *, damping: float) -> InverseHessian: ...


def residual(
    problem: HeadProblem,
    solution: Float[Array, "p m"],
    rhs: Float[Array, "p m"],
    *,
    damping: float = 0.0,
    curvature: str = "gauss_newton",
) -> float:
    """|(C + damping I) solution - rhs| / |rhs|, the largest over the columns, by products that never form C.

    The product runs in the dtype of the features, so in float32 it resolves about 1e-7 times the condition number.
    """
    solution, rhs = np.asarray(solution, np.float64), np.asarray(rhs, np.float64)
    # Scaled to 1 first: the entries of H^-1 g can lie far outside what float32 resolves.
    scale = np.maximum(np.abs(solution).max(axis=0), np.finfo(np.float64).tiny)
    unit = (solution / scale[None, :]).astype(jax.tree.leaves(problem.head.theta)[0].dtype)
    product = np.asarray(problem.product(unit, curvature), np.float64) * scale[None, :] + damping * solution
    return relative_error(product, rhs)


def relative_error(product: Float[Array, "p m"], rhs: Float[Array, "p m"]) -> float:
    """|product - rhs| / |rhs|, the largest over the columns; a column of zeros counts by |product|."""
    size = np.linalg.norm(rhs, axis=0)
    return float((np.linalg.norm(product - rhs, axis=0) / np.where(size > 0, size, 1.0)).max(initial=0.0))


def check_layers(what: str, layers: tuple[tuple[str, int], ...], values: Float[Array, "p ..."]) -> None:
    """Refuses values `[p ...]` that are not finite, naming the layer in which the first of them lies."""
    good = np.isfinite(np.asarray(values)).reshape(len(values), -1).all(axis=1)
    if good.all():
        return
    start = 0
    for name, size in layers:
        bad = int((~good[start : start + size]).sum())
        expect(bad == 0, f"{what} of layer {name}", "finite values", f"{bad} of {size} rows that are not")
        start += size


def check_rhs(rhs: Float[Array, "p m"], p: int) -> None:
    """Refuses right-hand sides of the wrong shape."""
    expect(np.ndim(rhs) == 2 and rhs.shape[0] == p, "rhs", f"[p={p}, m]", list(np.shape(rhs)))
