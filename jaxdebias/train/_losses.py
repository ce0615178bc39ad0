"""Losses of classification: one value per example, and the one reduction that says what it divides by."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.contracts import check_labelled, check_numbers, describe, expect
from jaxdebias.core import Array


def cross_entropy(
    logits: Float[Array, "n k"], label: Int[Array, "n"], *, label_smoothing: float = 0.0
) -> Float[jax.Array, "n"]:
    """Softmax cross-entropy of integer labels, in nats.

    Args:
      logits: `[n k]`.
      label: 0..k-1. A label outside gives NaN, which stops the training loop; nothing is clipped.
      label_smoothing: share of the target that is spread evenly over all k classes (Szegedy et al. 2016, section 7).

    >>> round(float(cross_entropy(jnp.zeros((1, 2)), jnp.array([0]))[0]), 4)
    0.6931
    """
    check_labelled(logits, label)
    log_p = jax.nn.log_softmax(jnp.asarray(logits))
    loss = -jnp.take_along_axis(log_p, jnp.asarray(label)[:, None], axis=-1, mode="fill", fill_value=jnp.nan)[:, 0]
    if label_smoothing:
        loss = (1.0 - label_smoothing) * loss - label_smoothing * log_p.mean(axis=-1)
    return loss


def generalised_cross_entropy(
    logits: Float[Array, "n k"],
    label: Int[Array, "n"],
    q: float | Float[Array, ""] = 0.7,
    *,
    scale: float | Float[Array, ""] = 1.0,
) -> Float[jax.Array, "n"]:
    """`scale * (1 - p_y^q) / q`, a loss that loses interest in samples the model fails on (Zhang & Sabuncu 2018).

    Its gradient is p_y^q times that of the cross-entropy.

    Args:
      logits: `[n k]`.
      label: 0..k-1; a label outside gives NaN.
      q: 0 to 1, may be traced; 0 is the cross-entropy, 1 is 1 - p_y.
      scale: 1 for the loss itself; q for the convention of LfF's code (Nam et al. 2020), whose loss is q times it.

    >>> [round(float(generalised_cross_entropy(jnp.zeros((1, 2)), jnp.array([0]), q)[0]), 4) for q in (0.0, 0.7, 1.0)]
    [0.6931, 0.5492, 0.5]
    """
    log_p = -cross_entropy(logits, label)
    q = jnp.asarray(q, log_p.dtype)
    some = jnp.where(q > 0, q, 1.0)
    # 1 - p^q by expm1, which keeps its digits where p is near 1 or q near 0
    return scale * jnp.where(q > 0, -jnp.expm1(some * log_p) / some, -log_p)


def detached_generalised_cross_entropy(
    logits: Float[Array, "n k"],
    label: Int[Array, "n"],
    q: float | Float[Array, ""] = 0.7,
    *,
    scale: float | Float[Array, ""] = 1.0,
) -> Float[jax.Array, "n"]:
    """`scale * p_y^q * cross-entropy`, p_y^q held fixed: the gradient of `generalised_cross_entropy`, not its value.

    This is what the code of SiH (`scale` 1) and of LfF and DisEnt (`scale` q) minimises.
    """
    loss = cross_entropy(logits, label)
    return scale * jax.lax.stop_gradient(jnp.exp(-q * loss)) * loss


def binary_cross_entropy(
    logits: Float[Array, "n t"], target: Int[Array, "n t"], pos_weight: Float[Array, " t"] | None = None
) -> Float[jax.Array, "n"]:
    """Sigmoid cross-entropy of many yes-or-no outputs, in nats: the mean over the outputs of a row that are known.

    With all targets known, its mean over rows is that of PyTorch's `BCEWithLogitsLoss`.

    Args:
      logits: `[n t]`.
      target: 0 or 1; -1 where unknown: that entry is in no value, gradient or Hessian. A row without any known target
        is 0. Any other value gives NaN, which stops the training loop.
      pos_weight: `[t]`, by which the loss of ones is multiplied; None: 1.

    >>> loss = binary_cross_entropy(jnp.zeros((2, 2)), jnp.array([[1, 0], [1, -1]]), jnp.array([3.0, 1.0]))
    >>> [round(float(one), 4) for one in loss]
    [1.3863, 2.0794]
    """
    logits, target = jnp.asarray(logits), jnp.asarray(target)
    known = target >= 0
    scale = 1.0 if pos_weight is None else jnp.asarray(pos_weight, logits.dtype)[None]
    yes, no = -scale * jax.nn.log_sigmoid(logits), -jax.nn.log_sigmoid(-logits)
    loss = jnp.where(target == 1, yes, jnp.where(target == 0, no, jnp.nan))
    loss = jnp.where(target == -1, 0.0, loss)
    return loss.sum(-1) / jnp.maximum(known.sum(-1), 1)


def correct(logits: Float[Array, "n k"], label: Int[Array, "n"]) -> Float[jax.Array, "n"]:
    """1 where the largest logit is that of the label, else 0; ties go to the lower class."""
    check_labelled(logits, label)
    return (jnp.argmax(jnp.asarray(logits), axis=-1) == jnp.asarray(label)).astype(jnp.float32)


def weighted_mean(values: Float[Array, "n"], weight: Float[Array, "n"] | None = None) -> Float[jax.Array, ""]:
    """`sum(weight * values) / sum(weight)`: divides by the sum of the weights, and is 0 when that sum is 0.

    Args:
      values: `[n]`.
      weight: None counts every value once.

    >>> float(weighted_mean(jnp.array([1.0, 3.0, 9.0]), jnp.array([1.0, 1.0, 0.0])))
    2.0
    """
    check_numbers("values", values, "n")
    same = weight is None or np.shape(weight) == np.shape(values)
    expect(same, "weight", f"numbers [n={np.shape(values)[0]}]", describe(weight))
    if weight is not None:
        check_numbers("weight", weight, "n")
    values = jnp.asarray(values)
    weight = jnp.ones_like(values) if weight is None else jnp.asarray(weight)
    total = weight.sum()
    return (weight * values).sum() / jnp.where(total > 0, total, 1.0)
