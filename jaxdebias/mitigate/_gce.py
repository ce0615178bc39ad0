"""Training with the generalised cross-entropy: ERM that loses interest in the samples it fails on.

Labels: needs none of the bias. By itself this makes a model MORE biased (the easy samples are the aligned ones) or,
against wrong labels, more robust; it is the biased half of LfF, DisEnt and SiH.

Source: Zhang & Sabuncu 2018; q = 0.7 is theirs and that of LfF (Nam et al. 2020). Deviations: none from the loss; their
truncated variant is left out.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxdebias.contracts import expect
from jaxdebias.core import Array, Batch, Classifier, Key, Learner, Params
from jaxdebias.mitigate._erm import Info
from jaxdebias.train._losses import correct, generalised_cross_entropy, weighted_mean
from jaxdebias.train._optimizer import Optimizer, trainable, update, with_trainable


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
    classifier: Classifier,
    optimizer: Optimizer = Optimizer(),
    *,
    q: float = 0.7,
    augment: Callable[[Key, Array], Array] | None = None,
) -> Learner:
    """Minimises the weighted mean of `(1 - p_y^q) / q`. Equal arguments give the same learner.

    Args:
      q: 0 to 1; 0 is cross-entropy.
      augment: `(key, x) -> x`, applied to each batch.
    """
    expect(0 <= q <= 1, "q", "a number in [0, 1]", q)
    return _gce(classifier, optimizer, float(q), augment)


@functools.cache
def _gce(classifier: Classifier, optimizer: Optimizer, q: float, augment) -> Learner:
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
