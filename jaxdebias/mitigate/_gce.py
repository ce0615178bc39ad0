"""Training with the generalised cross-entropy: ERM that loses interest in the samples it fails on.

Labels: needs none of the bias. By itself this makes a model MORE biased (the easy samples are the aligned ones) or,
against wrong labels, more robust; it is the biased half of LfF, DisEnt and SiH.

Source: Zhang & Sabuncu 2018; q = 0.7 is theirs and that of LfF (Nam et al. 2020). Deviations: none from the loss; their
truncated variant is left out.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.contracts import check_type, expect
from jaxdebias.core import Array, Batch, Classifier, Key, Learner, Params
from jaxdebias.mitigate._erm import Info
from jaxdebias.train._losses import correct, generalised_cross_entropy, weighted_mean
from jaxdebias.train._optimizer import Optimizer, trainable, update, with_trainable


@dataclass(frozen=True, kw_only=True)
class GceConfig:
    """The loss."""

    q: float = 0.7
    """Exponent, 0 to 1; 0 is cross-entropy."""

    def __post_init__(self):
        expect(0 <= self.q <= 1, "config.q", "a number in [0, 1]", self.q)


class GceHyper(NamedTuple):
    """Settings that a sweep may map over, by replacing `state.hyper`."""

    q: Float[Array, ""]


class GceState(NamedTuple):
    variables: Params
    """What the classifier's `apply` takes."""
    opt_state: Any
    lr_scale: Float[Array, ""]
    hyper: GceHyper


def gce(
    network: Classifier,
    config: GceConfig = GceConfig(),
    optimizer: Optimizer = Optimizer(),
    *,
    augment: Callable[[Key, Array], Array] | None = None,
    rows: int | None = None,
    groups: Int[np.ndarray, "k a"] | None = None,
) -> Learner:
    """Minimise the weighted mean of `(1 - p_y^q) / q`. Equal arguments give the same learner.

    Args:
      network: the classifier to train.
      config: the exponent q.
      optimizer: of all trainable variables.
      augment: `(key, x) -> x`, applied to each batch.
      rows: not used; every training method takes them.
      groups: not used; every training method takes them.

    Raises:
      ContractError: a config or an optimizer of another type.
    """
    del rows, groups
    check_type("config", config, GceConfig)
    check_type("optimizer", optimizer, Optimizer)
    return _gce(network, float(config.q), optimizer, augment)


@functools.cache
def _gce(classifier: Classifier, q: float, optimizer: Optimizer, augment) -> Learner:
    def init(key: Key, batch: Batch) -> GceState:
        variables = classifier.init(key, batch.x)
        opt_state = optimizer.build().init(trainable(variables))
        return GceState(variables, opt_state, jnp.ones((), jnp.float32), GceHyper(jnp.float32(q)))

    def step(key: Key, state: GceState, batch: Batch) -> tuple[GceState, Info]:
        key_augment, key_train = jax.random.split(key)
        x = batch.x if augment is None else augment(key_augment, batch.x)

        def loss_fn(params: Params) -> tuple[jax.Array, tuple[jax.Array, Params]]:
            logits, variables = classifier.train(key_train, with_trainable(state.variables, params), x)
            loss = generalised_cross_entropy(logits, batch.label, state.hyper.q)
            return weighted_mean(loss, batch.weight), (logits, variables)

        params = trainable(state.variables)
        (loss, (logits, variables)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        params, opt_state = update(optimizer.build(), gradient, state.opt_state, params, state.lr_scale)
        state = state._replace(variables=with_trainable(variables, params), opt_state=opt_state)
        return state, Info(loss=loss, accuracy=weighted_mean(correct(logits, batch.label), batch.weight))

    def predict(state: GceState, x: Array) -> jax.Array:
        return classifier.apply(state.variables, x)

    return Learner(init=init, step=step, predict=predict)
