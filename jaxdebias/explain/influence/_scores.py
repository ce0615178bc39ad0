"""Influence of training samples on the bias of a model, for all samples in one pass over the features.

Two signs are in use in the literature; here they have two names.

    change   the predicted bias after removing (or replacing) the sample minus the bias now. Negative: it falls.
    score    minus the change. Positive: the sample is harmful, removing it lowers the bias.

With s = H^-1 grad B, removing sample i moves theta by H^-1 grad l_i and so the bias by s . grad l_i. One solve gives
all n changes, and grad l_i is never formed: for an affine head grad l_i = phi_i (p_i - y_i)^T and the change is the sum
over classes of (phi_i S) * (p_i - y_i), S being s as a matrix [e k], 2 n e k operations; for a block it is the forward
derivative of the losses along s. Source: FMD (Chen et al. 2023, section 3).

These are first-order predictions, exact for one small change. They are not additive over many samples, and at a
saturated model they rank by leverage: use them to explain, and judge them by leave-one-out.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.contracts import check_finite, check_numbers, expect
from jaxdebias.core import Array
from jaxdebias.explain.influence._inverse import InverseHessian
from jaxdebias.explain.influence._objective import HeadProblem


def change_if_removed(
    problem: HeadProblem,
    inverse: InverseHessian,
    bias_gradient: Float[Array, "p *m"],
) -> Float[Array, "n *m"]:
    """Predicted change of the bias if a sample were removed and the head trained again. Negative: harmful sample.

    Args:
      problem: the rows to be scored; a row of weight w is removed with all of its weight.
      inverse: the factor of the training objective, usually of this problem.
      bias_gradient: grad B `[p]`, or of m biases `[p m]`; see `objective.bias_gradient`.

    Returns:
      `[n]`, or `[n m]`.
    """
    return _change(problem, inverse, bias_gradient, None)


def change_if_replaced(
    problem: HeadProblem, inverse: InverseHessian, bias_gradient: Float[Array, "p *m"], twin_features: Any
) -> Float[Array, "n *m"]:
    """Predicted change of the bias if a sample were replaced by its counterfactual twin (same label).

    Rank with this one if replacing is what will be done: samples ranked by removal and then replaced do not lower
    the bias, they destroy the model.

    Args:
      problem: the training objective at the head.
      inverse: its factored curvature.
      bias_gradient: `[p]`, gradient of the bias.
      twin_features: the features of the twins, shaped as those of the problem.
    """
    shapes = [[list(leaf.shape) for leaf in jax.tree.leaves(z)] for z in (problem.features, twin_features)]
    expect(shapes[0] == shapes[1], "twin_features", f"shapes {shapes[0]}", shapes[1])
    return _change(problem, inverse, bias_gradient, twin_features)


def top_harmful(change: Float[Array, "n"], k: int) -> tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """The k most harmful samples, first the one whose removal (or replacement) lowers the bias most.

    Args:
      change: `[n]`, from `change_if_removed` or `change_if_replaced`.
      k: how many; at most n.

    Returns:
      (index, score): rows of the problem, and minus their change: positive means harmful. Equal scores keep the
      order of the rows.

    >>> index, score = top_harmful(jnp.array([0.5, -2.0, -1.0]), 2)
    >>> index.tolist(), score.tolist()
    ([1, 2], [2.0, 1.0])
    """
    check_numbers("change", change, "n")
    check_finite("change", change)
    expect(0 <= k <= len(change), "k", f"0..{len(change)}", k)
    change = np.asarray(change)
    change = change if change.dtype.kind == "f" else change.astype(np.float64)
    index = np.argsort(change, kind="stable")[:k]
    return index, -change[index]


def top_helpful(change: Float[Array, "n"], k: int) -> tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """The k most helpful samples, first the one whose removal would raise the bias most; scores are negative.

    Arguments and order as in `top_harmful`.

    >>> index, score = top_helpful(jnp.array([0.5, -2.0, 1.0]), 2)
    >>> index.tolist(), score.tolist()
    ([2, 0], [-1.0, -0.5])
    """
    check_numbers("change", change, "n")
    index, score = top_harmful(-np.asarray(change, np.promote_types(np.asarray(change).dtype, np.float32)), k)
    return index, -score


def _change(problem, inverse, bias_gradient, twin_features):
    check_numbers("bias_gradient", bias_gradient, "p ...")
    one = np.ndim(bias_gradient) == 1
    gradient = np.asarray(bias_gradient, np.float64)
    solution = inverse.solve(gradient[:, None] if one else gradient).value
    change = problem.slopes(solution)
    if twin_features is not None:
        change = change - problem._replace(features=twin_features).slopes(solution)
    if problem.weight is not None:
        change = jnp.asarray(problem.weight, change.dtype)[:, None] * change
    return change[:, 0] if one else change
