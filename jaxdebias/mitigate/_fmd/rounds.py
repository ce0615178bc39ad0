"""The rounds of an edit: solve for a step, search how far to go along it, linearise again. FMD's, for any model.

Who calls says what a step is made of, what is held out, and which candidate is the best one (`fmd`, `language_fmd`).
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdebias.contracts import check_finite
from jaxdebias.core import Array
from jaxdebias.explain.influence._inverse import InverseHessian, Solver
from jaxdebias.explain.influence._objective import HeadProblem
from jaxdebias.explain.influence._solvers import factor
from jaxdebias.mitigate._fmd.line_search import judge, search


class EditRound(NamedTuple):
    """One round. What is judged is so on the held-out view, at the head after the round."""

    u: float
    """The chosen step in the view's unit; 0: none was better."""
    t: float
    """The same, as a multiple of the step."""
    predicted_change: float
    """Of the bias of the view, to first order in the chosen step."""
    achieved_change: float
    judged: Any
    """What the view says of the head, numbers."""
    residual: float
    """Of the solve that gave the step."""
    iterations: int
    """Of the solve; 0 for a direct one."""
    smallest_pivot: float | None
    """Of a dense factor."""
    gradient_norm: float
    """|grad| of the training objective at the head before the round."""
    seconds: float


def edit_in_rounds(
    head: Any,
    view: Any,
    bias_fn: Callable,
    bias: float,
    *,
    rounds: int,
    grid: Float[np.ndarray, "m"],
    right_hand_side: Callable[[Any, InverseHessian], Array],
    choose: Callable[[int, Any], int] | None,
    problem: HeadProblem | None = None,
    inverse: InverseHessian | None = None,
    solver: Solver | None = None,
    damping: float = 0.0,
) -> tuple[Any, tuple[EditRound, ...]]:
    """Edits a head until no candidate is better, or for so many rounds.

    Args:
      head: where it starts.
      view: what is held out, see `line_search`.
      bias_fn: (head, view.bias_data) -> the bias; static.
      bias: that of the view at `head`.
      rounds: at most.
      grid: candidates in the view's unit; the first is 0.
      right_hand_side: (head, inverse) -> `[p]`; the step is the inverse curvature times this.
      choose: (number of the round from 1, what is judged `[m]` each) -> the candidate; None: t = 1, whatever it does.
      problem: the training objective, whose curvature is taken at every round's head; None with `inverse`.
      inverse: a saved factor for all rounds.
      solver: for the factors of `problem`.
      damping: for the factors of `problem`.

    Returns:
      (the head after the last round that moved it, all rounds that were tried).
    """
    tried: list[EditRound] = []
    for number in range(1, rounds + 1):
        start = time.perf_counter()
        here = inverse
        if problem is not None:
            problem = problem._replace(head=head)
            here = factor(problem, solver, damping=damping)
        rhs = right_hand_side(head, here)
        solution = here.solve(np.asarray(rhs)[:, None])
        # Its length can lie outside what float32 resolves; the search is in units of the logits.
        direction = head.with_vector(jnp.asarray(np.asarray(solution.value[:, 0]).astype(rhs.dtype)))
        found = jax.tree.map(np.asarray, search(head, direction, view, jnp.asarray(grid), bias_fn))
        if choose is None:
            t, u, now = 1.0, float(found.unit), None
        else:
            chosen = choose(number, found.judged)
            t, u = found.t[chosen], grid[chosen]
            now = jax.tree.map(lambda leaf: leaf[chosen], found.judged)  # noqa: B023
        theta = jax.tree.map(lambda leaf, change: leaf + t * change, head.theta, direction.theta)  # noqa: B023
        head_after = head.at(theta)
        if now is None:
            now = jax.tree.map(np.asarray, judge(head_after, view, bias_fn))
        check_finite("edited head", theta)
        now = jax.tree.map(float, now)
        factored = getattr(here, "info", None)
        norm = np.nan if factored is None else factored.gradient_norm
        if factored is None and problem is not None:
            norm = np.linalg.norm(np.asarray(problem.gradient()))
        tried.append(
            EditRound(
                u=float(u),
                t=float(t),
                predicted_change=float(t * found.slope),
                achieved_change=now.bias - bias,
                judged=now,
                residual=solution.residual,
                iterations=solution.iterations,
                smallest_pivot=getattr(factored, "smallest_pivot", None),
                gradient_norm=float(norm),
                seconds=time.perf_counter() - start,
            )
        )
        if u == 0.0:
            break
        head, bias = head_after, now.bias
    return head, tuple(tried)
