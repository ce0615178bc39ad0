"""Inverse-Hessian products: factor once, then every score, bias and edit is a solve.

The protocol is `factor(problem) -> inverse`, `inverse.solve(rhs [p m]) -> [p m]`; whatever has such a `solve` can take
the place of the dense factor here. The dense factor is the right one for a last layer: exact, and cheaper than
conjugate gradients from about four right-hand sides on.

The Hessian is summed in float32 on the device and factored in float64 on the host: the curvature of a model that fits
its training set spans many orders of magnitude, and a float32 Cholesky fails where the smallest eigenvalue, which is
the damping, falls under about 1e-6 of the largest. A host copy of 8 p^2 bytes costs less than the sum it follows.
"""

import os
import pathlib
import tempfile
from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdebias.contracts import check_finite, expect
from jaxdebias.core import Array
from jaxdebias.explain.influence.objective import (
    AffineHead,
    HeadProblem,
    head_gradient,
    hessian,
    hessian_product,
    to_head,
    to_vector,
)

LARGEST = 16_384
"""Most parameters of a dense factor: 2 GiB in float64."""


@runtime_checkable
class InverseHessian(Protocol):
    """What a solver returns: products with (H + damping I)^-1, all right-hand sides at once."""

    def solve(self, rhs: Float[Array, "p m"]) -> Float[Array, "p m"]: ...


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

    def solve(self, rhs: Float[Array, "p m"]) -> Float[Array, "p m"]:
        """(H + damping I)^-1 rhs in float64, on the host."""
        from scipy import linalg  # half of what importing the library would cost

        p = self.cholesky.shape[0]
        expect(rhs.shape[0] == p, "rhs", f"[p={p}, m]", list(rhs.shape))
        solution = linalg.cho_solve((self.cholesky, True), np.asarray(rhs, np.float64), check_finite=False)
        check_finite("solution", solution)
        return solution


def factor(problem: HeadProblem, *, damping: float = 0.0) -> Factor:
    """Factor of the exact softmax Hessian of a head, plus damping.

    Args:
      problem: the training objective at the head.
      damping: added to the diagonal of H of the SUM of losses: n times the damping of a mean. H itself is singular
        (the same vector added to all classes changes nothing), so l2 + damping must be positive.

    Raises:
      ContractError: a Hessian that is not finite, too large to be dense, or not positive definite.
    """
    from scipy import linalg

    p = problem.head.kernel.size + (0 if problem.head.bias is None else problem.head.bias.size)
    expect(p <= LARGEST, "head", f"at most {LARGEST} parameters for a dense factor", p)
    expect(damping >= 0, "damping", "at least 0", damping)
    matrix = np.array(hessian(problem), np.float64)
    check_finite("hessian", matrix)
    matrix[np.diag_indices(p)] += damping
    try:
        cholesky = linalg.cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        expect(False, "damping", "l2 + damping large enough for a positive definite Hessian", damping + problem.l2)
    gradient = np.asarray(head_gradient(problem), np.float64)
    unchecked = Factor(cholesky, FactorInfo(float(damping), float(np.diag(cholesky).min() ** 2), np.nan, np.nan))
    solution = unchecked.solve(gradient[:, None])
    info = unchecked.info._replace(residual=residual(problem, solution, gradient[:, None], damping=damping),
                                   gradient_norm=float(np.linalg.norm(gradient)))
    return unchecked._replace(info=info)


def residual(problem: HeadProblem, solution: Float[Array, "p m"], rhs: Float[Array, "p m"], *,
             damping: float = 0.0) -> float:
    """|(H + damping I) solution - rhs| / |rhs|, the largest over the columns, by a product that never forms H.

    The product runs in the dtype of the features, so in float32 it resolves about 1e-7 times the condition number.
    """
    solution, rhs = np.asarray(solution, np.float64), np.asarray(rhs, np.float64)
    # Scaled to 1 first: the entries of H^-1 g can lie far outside what float32 resolves.
    scale = np.maximum(np.abs(solution).max(axis=0), np.finfo(np.float64).tiny)
    unit = (solution / scale[None, :]).astype(np.asarray(problem.features).dtype)
    product = np.asarray(hessian_product(problem, unit), np.float64) * scale[None, :] + damping * solution
    size = np.linalg.norm(rhs, axis=0)
    return float((np.linalg.norm(product - rhs, axis=0) / np.where(size > 0, size, 1.0)).max())


def save(path: str | os.PathLike, factor: Factor) -> None:
    """Writes the factor as one `.npz` file, first under a temporary name: what stands at `path` is always whole."""
    path = pathlib.Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, cholesky=factor.cholesky, **factor.info._asdict())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load(path: str | os.PathLike) -> Factor:
    """What `save` wrote."""
    with np.load(path) as file:
        expect(set(file.files) == {"cholesky", *FactorInfo._fields}, str(path), "a saved factor", ", ".join(file.files))
        return Factor(file["cholesky"], FactorInfo(*(float(file[name]) for name in FactorInfo._fields)))


class RefitInfo(NamedTuple):
    converged: bool
    steps: int
    gradient_norm: float
    """|grad F| of the SUM objective at the returned head, in float64."""
    loss: float


def refit(problem: HeadProblem, *, tolerance: float = 1e-8, max_steps: int = 100,
          start: AffineHead | None = None) -> tuple[AffineHead, RefitInfo]:
    """The head that minimises the objective, by Newton's method from zero weights, with backtracking.

    Influence is exact to first order only at a stationary point; a trained head is none, this one is. Loss and gradient
    are taken in float64 on the host (cheap), the curvature in the dtype of the features on the device (dear, and its
    error costs only steps).

    Args:
      problem: its head gives the shapes only; l2 must be positive, or separable data have no minimum.
      tolerance: on |grad F|, of the SUM of losses.
      max_steps: Newton steps; `info.converged` says whether they sufficed.
      start: another start than zero weights. A saturated head is a bad one: its curvature is all but flat.

    Returns:
      The head as float64 NumPy arrays, and the info.
    """
    from scipy import linalg

    expect(problem.l2 > 0, "l2", "more than 0: separable data have no finite minimum without it", problem.l2)
    like, k = problem.head, problem.head.kernel.shape[1]
    phi = np.asarray(problem.features, np.float64)
    if like.bias is not None:
        phi = np.concatenate([phi, np.ones((len(phi), 1))], axis=1)
    label, rows, l2 = np.asarray(problem.label), np.arange(len(phi)), float(problem.l2)
    weight = np.ones(len(phi)) if problem.weight is None else np.asarray(problem.weight, np.float64)

    def value(theta):
        logits = phi @ theta
        logits = logits - logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return -weight @ log_p[rows, label] + 0.5 * l2 * (theta**2).sum(), log_p

    def gradient_at(theta, log_p):
        error = np.exp(log_p)
        error[rows, label] -= 1.0
        return phi.T @ (weight[:, None] * error) + l2 * theta

    theta = np.zeros((phi.shape[1], k)) if start is None else np.asarray(to_vector(start), np.float64).reshape(-1, k)
    loss, log_p = value(theta)
    gradient = gradient_at(theta, log_p)
    steps = 0
    while np.linalg.norm(gradient) > tolerance and steps < max_steps:
        curvature = hessian(problem._replace(head=to_head(theta.reshape(-1).astype(problem.features.dtype), like)))
        check_finite("hessian", curvature)
        matrix = np.array(curvature, np.float64)
        # The rounding error of the sum, as damping: it keeps the factor definite and costs a fraction of a step.
        matrix[np.diag_indices(len(matrix))] += 10 * float(jnp.finfo(curvature.dtype).eps) * np.diag(matrix).max()
        cholesky = linalg.cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        step = linalg.cho_solve(cholesky, -gradient.reshape(-1), check_finite=False).reshape(theta.shape)
        slope, size = (gradient * step).sum(), 1.0
        while (trial := value(theta + size * step))[0] > loss + 1e-4 * size * slope and size > 1e-10:
            size *= 0.5
        after = gradient_at(theta + size * step, trial[1])
        # Near the minimum the loss no longer tells two points apart in float64, but the gradient does.
        if trial[0] > loss and np.linalg.norm(after) >= np.linalg.norm(gradient):
            break
        theta, loss, gradient, steps = theta + size * step, trial[0], after, steps + 1
    norm = float(np.linalg.norm(gradient))
    check_finite("refitted head", theta)
    return to_head(theta.reshape(-1), like), RefitInfo(norm <= tolerance, steps, norm, float(loss))
