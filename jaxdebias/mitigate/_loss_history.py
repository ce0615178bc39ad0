"""What LfF and DisEnt remember of every training sample: the running losses of two networks, and the weight they give.

Sources: LfF (Nam et al. 2020) and its code; DisEnt (Lee et al. 2021) uses the same tables.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxdebias.contracts import expect
from jaxdebias.core import Array, Batch


class LossHistory(NamedTuple):
    """One entry per row of the training set."""

    biased: Float[Array, "n"]
    """Exponential moving average of the biased network's cross-entropy; 0 before the first visit."""
    debiased: Float[Array, "n"]
    """Of the other network's."""
    label: Int[Array, "n"]
    """int32, filled in at the first visit; -1 before."""


def empty_history(samples: int) -> LossHistory:
    """Of a training set of which no sample has been visited."""
    zeros = jnp.zeros(samples, jnp.float32)
    return LossHistory(zeros, jnp.zeros_like(zeros), jnp.full(samples, -1, jnp.int32))


def remember(
    history: LossHistory,
    batch: Batch,
    biased: Float[Array, "b"],
    debiased: Float[Array, "b"],
    decay: float | Float[Array, ""],
) -> LossHistory:
    """Enters the losses of a batch: the first one as it is, each later one as `decay * old + (1 - decay) * loss`.

    Rows of weight 0 are left out. The losses enter without gradient.
    """
    expect(batch.index is not None, "batch.index", "the row of each sample, which the training loop fills in", None)
    index = jnp.asarray(batch.index)
    seen = history.label[index] >= 0
    old = jnp.stack([history.biased[index], history.debiased[index]])
    new = jax.lax.stop_gradient(jnp.stack([biased, debiased]))
    new = jnp.where(seen[None], decay * old + (1.0 - decay) * new, new)
    where = index if batch.weight is None else jnp.where(batch.weight > 0, index, history.label.shape[0])
    return LossHistory(
        biased=history.biased.at[where].set(new[0], mode="drop"),  # pyright: ignore[reportAttributeAccessIssue]
        debiased=history.debiased.at[where].set(new[1], mode="drop"),  # pyright: ignore[reportAttributeAccessIssue]
        label=history.label.at[where].set(jnp.asarray(batch.label, jnp.int32), mode="drop"),  # pyright: ignore[reportAttributeAccessIssue]
    )


def difficulty(history: LossHistory, index: Int[Array, "b"], classes: int) -> Float[jax.Array, "b"]:
    """`B / (B + D + 1e-8)`, where B and D are a sample's running losses over the largest of its class.

    Near 1 for samples that the biased network fails on and the other one does not. The largest is over all samples of
    the class that were visited. A sample never visited gets 0; an index outside the history NaN, at which the training
    loop stops.
    """
    label = history.label
    shares = []
    for loss in (history.biased, history.debiased):
        most = jnp.maximum(jax.ops.segment_max(loss, label, num_segments=classes), 0.0)
        own = most[jnp.maximum(label.at[index].get(mode="fill", fill_value=0), 0)]  # pyright: ignore[reportAttributeAccessIssue]
        loss = loss.at[index].get(mode="fill", fill_value=jnp.nan)  # pyright: ignore[reportAttributeAccessIssue]
        shares.append(loss / jnp.where(own > 0, own, 1.0))
    biased, debiased = shares
    return biased / (biased + debiased + 1e-8)
