"""JTT, "just train twice": what a briefly trained model gets wrong counts more for the second one.

Labels: needs none of the bias for training. The paper chooses the length of stage 1 and the upweighting by worst-group
accuracy on group-labelled validation rows; without such a choice nothing tells when the error set is the right one.

Source: Liu et al., "Just Train Twice", ICML 2021. Its settings: Waterbirds, stage 1 of 60 (stage 2 of 300) epochs,
upweight 100, SGD of rate 1e-5 and weight decay 1; CelebA, 1 of 50 epochs, 50, 1e-5 and 0.1.
Deviations: the paper puts `upweight` further copies of the error set into the training set. Here an epoch stays as long
as the training set, and the error set either weighs 1 + upweight times as much in the loss (`by="weights"`) or is drawn
so much more often, with replacement (`by="draws"`).

Two trainings with a prediction between them are no `Learner`, which is one step of one training: `jtt` runs both.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdebias.batching import predict_rows
from jaxdebias.contracts import check_batch, check_choice, check_logits, check_type, expect
from jaxdebias.core import Array, Batch, Classifier, Key, Learner, Params
from jaxdebias.mitigate._erm import erm
from jaxdebias.train._optimizer import Optimizer
from jaxdebias.train._run import FitConfig, FitResult, fit
from jaxdebias.train._schedule import HELD_OUT_LOSS, Monitor


@dataclass(frozen=True, kw_only=True)
class JttConfig:
    """The defaults are those of CelebA."""

    first: FitConfig = field(default_factory=lambda: FitConfig(epochs=1, batch_size=64))
    """Of the model whose errors are taken: so short that it has learned the shortcut and not yet the exceptions."""
    second: FitConfig = field(default_factory=lambda: FitConfig(epochs=50, batch_size=64))
    first_optimizer: Optimizer | None = None
    """Of the first training; None: that of the second."""
    upweight: float = 50.0
    """lambda, what a sample of the error set counts beyond 1; 0 is plain training."""
    by: str = "weights"
    """`weights`: in the loss; `draws`: in how often a row is drawn."""

    def __post_init__(self):
        expect(self.upweight >= 0, "config.upweight", "at least 0", self.upweight)
        check_choice("config.by", self.by, ("weights", "draws"))


class JttInfo(NamedTuple):
    errors: np.ndarray
    """`[n]` bool, the training samples that the first model gets wrong."""
    first: FitResult
    """The run of the first model."""
    second: FitResult
    """The run of the second model, whose variables are returned."""
    seconds: float


def jtt(
    key: Key,
    network: Classifier,
    data: Batch,
    config: JttConfig = JttConfig(),
    optimizer: Optimizer = Optimizer(),
    *,
    augment: Callable[[Key, Array], Array] | None = None,
    held_out: Batch | None = None,
    monitor: Monitor = HELD_OUT_LOSS,
    batch_size: int = 256,
) -> tuple[Params, JttInfo]:
    """Train twice, the second time with what the first model gets wrong counting more.

    With upweight 0 and by="weights" this is `fit(jax.random.split(key)[1], erm(network, optimizer=optimizer), ...)`.

    Args:
      key: of both trainings.
      network: the classifier to train.
      data: training rows in memory; x, label and weight are used.
      config: length of both trainings, and how much the error set counts.
      optimizer: of all trainable variables.
      augment: `(key, x) -> x`, applied to each batch of both stages.
      held_out: rows for `monitor` in stage 2; stage 1 does not see them.
      monitor: what is measured on held-out rows, see `train.Monitor`.
      batch_size: rows at a time when the first model predicts.

    Returns:
      (variables of the second model, info).

    Raises:
      ContractError: a malformed batch, a config or an optimizer of another type.
    """
    began = time.perf_counter()
    check_type("config", config, JttConfig)
    check_type("optimizer", optimizer, Optimizer)
    check_batch(data)
    key_first, key_second = jax.random.split(key)
    brief = erm(network, optimizer=config.first_optimizer or optimizer, augment=augment)
    first = fit(key_first, brief, data, config.first)
    logits = predict_rows(network.apply, first.state.variables, data.x, batch_size=batch_size)
    errors = error_set(logits, data.label)
    weighted = data._replace(weight=jtt_weights(errors, config.upweight, data.weight))
    learner = erm(network, optimizer=optimizer, augment=augment)
    learner = learner if config.by == "weights" else drawn_by_weight(learner)
    result = fit(key_second, learner, weighted, config.second, held_out=held_out, monitor=monitor)
    return result.state.variables, JttInfo(errors, first, result, time.perf_counter() - began)


def error_set(logits: Float[Array, "n k"], label: Int[Array, "n"]) -> Bool[np.ndarray, "n"]:
    """The samples whose largest logit is not that of their label.

    >>> error_set(np.array([[2.0, 1.0], [2.0, 1.0]]), np.array([0, 1])).tolist()
    [False, True]
    """
    check_logits(logits, len(label))
    return np.asarray(logits).argmax(axis=-1) != np.asarray(label)


def jtt_weights(
    errors: Bool[Array, "n"], upweight: float, weight: Float[Array, "n"] | None = None
) -> Float[np.ndarray, "n"]:
    """`1 + upweight` for the error set and 1 for the rest, times `weight`, scaled to mean 1.

    >>> jtt_weights(np.array([True, False]), 2.0).tolist()
    [1.5, 0.5]
    """
    raw = 1.0 + upweight * np.asarray(errors, np.float64)
    raw = raw if weight is None else raw * np.asarray(weight, np.float64)
    expect(bool(raw.sum() > 0), "weight", "some row of positive weight", "none")
    return (raw / raw.mean()).astype(np.float32)


@functools.cache
def drawn_by_weight(learner: Learner) -> Learner:
    """The learner, with `data.weight` read as the chance of a row to be drawn instead of its weight in the loss."""

    @functools.wraps(learner.step)
    def step(key: Key, state: Any, batch: Batch) -> tuple[Any, Any]:
        # A drawn row counts once; what fills up the last batch has weight 0, and NaN stays NaN.
        weight = None if batch.weight is None else jnp.sign(batch.weight)
        return learner.step(key, state, batch._replace(weight=weight))

    def weights(state: Any, data: Batch) -> jax.Array:
        del state
        return jnp.ones(data.label.shape, jnp.float32) if data.weight is None else jnp.asarray(data.weight)

    return learner._replace(step=step, weights=weights)
