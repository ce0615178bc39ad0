"""The head that minimises its objective: where influence is exact to first order, and what retraining a head means."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdebias.contracts import check_finite, expect
from jaxdebias.explain.influence._conjugate_gradient import ConjugateGradient
from jaxdebias.explain.influence._dense import LARGEST
from jaxdebias.explain.influence._objective import AffineHead, HeadProblem, hessian, to_head, to_vector


class RefitInfo(NamedTuple):
    converged: bool
    steps: int
    gradient_norm: float
    """|grad F| of the SUM objective at the returned head, in float64."""
    loss: float


def refit(
    problem: HeadProblem, *, tolerance: float = 1e-8, max_steps: int = 100, start: AffineHead | None = None
) -> tuple[AffineHead, RefitInfo]:
    """The head that minimises the objective, by Newton's method from zero weights, with backtracking.

    Influence is exact to first order only at a stationary point; a trained head is none, this one is. Loss and gradient
    are taken in float64 on the host (cheap), the curvature in the dtype of the features on the device (dear, and its
    error costs only steps).

    A head of more parameters than `Dense` takes is fitted without its Hessian: each step is then solved by conjugate
    gradients, to a hundredth (an inexact Newton method).

    Args:
      problem: its head gives the shapes only; l2 must be positive, or separable data have no minimum.
      tolerance: on |grad F|, of the SUM of losses.
      max_steps: Newton steps; `info.converged` says whether they sufficed.
      start: another start than zero weights. A saturated head is a bad one: its curvature is all but flat.

    Returns:
      The head as float64 NumPy arrays, and the info.
    """
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
        here = problem._replace(head=to_head(theta.reshape(-1).astype(problem.features.dtype), like))
        step = _newton_step(here, gradient.reshape(-1)).reshape(theta.shape)
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


def _newton_step(problem: HeadProblem, gradient: Float[np.ndarray, "p"]) -> Float[np.ndarray, "p"]:
    """-H^-1 gradient, exact for a head of few parameters."""
    from scipy import linalg

    if problem.size > LARGEST:
        inverse = ConjugateGradient(tolerance=1e-2, max_steps=200).factor(problem, damping=0.0)
        return -np.asarray(inverse.solve(gradient[:, None]).value[:, 0], np.float64)
    curvature = hessian(problem)
    check_finite("hessian", curvature)
    matrix = np.array(curvature, np.float64)
    # The rounding error of the sum, as damping: it keeps the factor definite and costs a fraction of a step.
    matrix[np.diag_indices(len(matrix))] += 10 * float(jnp.finfo(curvature.dtype).eps) * np.diag(matrix).max()
    cholesky = linalg.cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
    return linalg.cho_solve(cholesky, -gradient, check_finite=False)
