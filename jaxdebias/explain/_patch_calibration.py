"""The temperature and the prior with which a patch net's confidence is read."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.core import Array

BETA = (1e-3, 1e3)
"""Where the inverse temperature is looked for."""


class Calibration(NamedTuple):
    """How far the probabilities of patches can be believed."""

    brier: float
    """Mean squared distance of the probabilities from the true class, 0..2."""
    expected_error: float
    """Mean distance of confidence and accuracy, over bins of the confidence (ECE)."""
    confident_accuracy: float
    """Of the patches of each image of which the network is surest."""


def calibration_of(
    probability: Float[np.ndarray, "n gh gw k"], label: Int[Array, "n"], *, bins: int = 15, confident: int = 20
) -> Calibration:
    """How far probabilities of patches can be believed (Guo et al. 2017); what the paper's code monitors.

    Args:
      probability: `[n ... k]`.
      label: of the images, and so of their patches.
      bins: of equal width, over the probability of the predicted class.
      confident: so many patches of each image, by that probability.

    >>> said = calibration_of(np.array([[[[0.75, 0.25]]], [[[0.75, 0.25]]]], np.float32), np.array([0, 1]))
    >>> said  # right in half of the patches, at a confidence of three quarters
    Calibration(brier=0.625, expected_error=0.25, confident_accuracy=0.5)
    """
    n, k = len(probability), probability.shape[-1]
    flat = np.asarray(probability, np.float64).reshape(n, -1, k)
    own = np.eye(k)[np.asarray(label)][:, None, :]
    sure, right = flat.max(-1), flat.argmax(-1) == np.asarray(label)[:, None]
    place = np.minimum((sure * bins).astype(int), bins - 1).reshape(-1)
    gaps = [np.bincount(place, value.reshape(-1).astype(float), bins) for value in (sure, right)]
    most = np.argsort(-sure, axis=1, kind="stable")[:, :confident]
    return Calibration(
        float(((flat - own) ** 2).sum(-1).mean()),
        float(np.abs(gaps[0] - gaps[1]).sum() / sure.size),
        float(np.take_along_axis(right, most, 1).mean()),
    )


def fit_temperature(logits: Float[Array, "n gh gw k"], labels: Int[Array, "n"]) -> float:
    """The temperature that minimises the mean cross-entropy of patches: a convex problem in its inverse, bisected.

    Where the minimum is at no finite temperature (logits that separate the classes, or say less than nothing), the end
    of the range is returned, 1e-3 or 1e3.

    >>> logits = jnp.log(jnp.array([0.9, 0.1]))[None, None, None, :].repeat(4, 0)
    >>> round(fit_temperature(logits, np.array([0, 0, 0, 1], np.int32)), 2)  # odds of 9 that should be 3
    2.0
    """
    return float(_temperature(jnp.asarray(logits), jnp.asarray(labels)))


@jax.jit
def _temperature(logits: jax.Array, labels: jax.Array) -> jax.Array:
    logits = logits - logits.max(-1, keepdims=True)
    label = jnp.broadcast_to(labels[:, None, None, None], (*logits.shape[:3], 1))
    reached = jnp.take_along_axis(logits, label, axis=-1)[..., 0].mean()

    def narrow(_: Any, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        slope = (jax.nn.softmax(jnp.exp(middle) * logits) * logits).sum(-1).mean() - reached
        return jnp.where(slope < 0, middle, low), jnp.where(slope < 0, high, middle)

    low, high = jax.lax.fori_loop(0, 40, narrow, tuple(jnp.log(jnp.asarray(beta, jnp.float32)) for beta in BETA))
    return jnp.exp(-0.5 * (low + high))
