"""Empirical risk minimisation: plain training, the model that every debiasing method is compared with."""

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
from jaxdebias.train._losses import correct, cross_entropy, weighted_mean
from jaxdebias.train._optimizer import Optimizer, trainable, update, with_trainable


@dataclass(frozen=True, kw_only=True)
class ErmConfig:
    """The loss."""

    class_weights: tuple[float, ...] | None = None
    """One positive number per class, k of them; None: all 1."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes, 0 to below 1."""

    def __post_init__(self):
        good = 0 <= self.label_smoothing < 1
        expect(good, "config.label_smoothing", "a share in [0, 1)", self.label_smoothing)
        if self.class_weights is not None:
            weights = tuple(float(weight) for weight in self.class_weights)
            expect(all(weight > 0 for weight in weights), "config.class_weights", "positive numbers", weights)
            object.__setattr__(self, "class_weights", weights)


class State(NamedTuple):
    """What the next step needs."""

    variables: Params
    """What the classifier's `apply` takes."""
    opt_state: Any
    lr_scale: Float[Array, ""]
    """Multiplies every update; a plateau schedule lowers it."""


class Info(NamedTuple):
    """What a person needs to judge the step: means over the batch, by the weights of the loss and of the rows."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]


def erm(
    network: Classifier,
    config: ErmConfig = ErmConfig(),
    optimizer: Optimizer = Optimizer(),
    *,
    augment: Callable[[Key, Array], Array] | None = None,
    rows: int | None = None,
    groups: Int[np.ndarray, "k a"] | None = None,
) -> Learner:
    """Minimise the weighted mean cross-entropy. Equal arguments give the same learner, so nothing compiles again.

    The loss of a step is `sum_i w_i c_{y_i} l_i / sum_i w_i c_{y_i}` with w the rows' weights and c the class weights.
    Which part of the variables is trained: see `jaxdebias.train.trainable`. In a model with batch normalisation, rows
    of weight 0 still enter the batch statistics; train such a model with `drop_last=True`.

    To start from trained variables: `learner.init(key, batch)._replace(variables=...)`, given to `fit(state=...)`.

    Args:
      network: the classifier to train.
      config: weights of the classes, label smoothing.
      optimizer: of all trainable variables.
      augment: `(key, x) -> x`, applied to each batch (see `jaxdebias.train.random_flip`, `random_shift`).
      rows: not used; every training method takes them.
      groups: not used; every training method takes them.

    Raises:
      ContractError: a config or an optimizer of another type.
    """
    del rows, groups
    check_type("config", config, ErmConfig)
    check_type("optimizer", optimizer, Optimizer)
    return _erm(network, config, optimizer, augment)


@functools.cache
def _erm(classifier: Classifier, config: ErmConfig, optimizer: Optimizer, augment) -> Learner:
    class_weights, label_smoothing = config.class_weights, float(config.label_smoothing)

    def init(key: Key, batch: Batch) -> State:
        variables = classifier.init(key, batch.x)
        opt_state = optimizer.build().init(trainable(variables))
        return State(variables=variables, opt_state=opt_state, lr_scale=jnp.ones((), jnp.float32))

    def step(key: Key, state: State, batch: Batch) -> tuple[State, Info]:
        key_augment, key_train = jax.random.split(key)
        x = batch.x if augment is None else augment(key_augment, batch.x)
        weight = jnp.ones(batch.label.shape, jnp.float32) if batch.weight is None else batch.weight

        def loss_fn(params: Params) -> tuple[jax.Array, tuple[jax.Array, Params]]:
            logits, variables = classifier.train(key_train, with_trainable(state.variables, params), x)
            loss = cross_entropy(logits, batch.label, label_smoothing=label_smoothing)
            return weighted_mean(loss, weight * _importance(class_weights, logits, batch.label)), (logits, variables)

        params = trainable(state.variables)
        (loss, (logits, variables)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        params, opt_state = update(optimizer.build(), gradient, state.opt_state, params, state.lr_scale)
        state = State(with_trainable(variables, params), opt_state, state.lr_scale)
        return state, Info(loss=loss, accuracy=weighted_mean(correct(logits, batch.label), weight))

    def predict(state: State, x: Array) -> jax.Array:
        return classifier.apply(state.variables, x)

    return Learner(init=init, step=step, predict=predict)


def _importance(class_weights: tuple[float, ...] | None, logits: jax.Array, label: Array) -> jax.Array:
    """The class weight of each row `[n]`."""
    if class_weights is None:
        return jnp.ones(label.shape, jnp.float32)
    classes = logits.shape[-1]
    expect(len(class_weights) == classes, "class_weights", f"{classes} numbers, one per class", len(class_weights))
    return jnp.asarray(class_weights, jnp.float32)[label]
