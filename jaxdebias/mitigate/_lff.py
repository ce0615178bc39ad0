"""LfF, "learning from failure": a network trained on what a deliberately biased one fails on.

Labels: needs none of the bias. (The papers choose the settings on data sets whose bias is known.)

Source: Nam et al., "Learning from Failure: De-biasing Classifier from Biased Classifier", NeurIPS 2020, and its code:
the loss tables, their class-wise maximum and the factor q in the biased loss are in the code. Settings of the code:
Adam of rate 1e-3, batches of 256, 100 epochs on Colored MNIST with `models.mlp()`, 200 on Corrupted CIFAR-10 with
`models.resnet20()`. Deviations: its multilayer perceptron divides pixels that are in [0, 1] by 255 again, ours does
not; two networks of one augmented view, as there.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.contracts import check_rows, check_type, expect
from jaxdebias.core import Array, Batch, Classifier, Key, Learner, Params
from jaxdebias.mitigate._loss_history import LossHistory, difficulty, empty_history, remember
from jaxdebias.train._losses import correct, cross_entropy, detached_generalised_cross_entropy, weighted_mean
from jaxdebias.train._optimizer import Optimizer, trainable, update, with_trainable


@dataclass(frozen=True, kw_only=True)
class LffConfig:
    """The defaults are those of the paper's code."""

    q: float = 0.7
    """Exponent of the biased network's generalised cross-entropy, 0 to 1."""
    decay: float = 0.7
    """What the moving averages of the losses keep of the past, in [0, 1)."""

    def __post_init__(self):
        expect(0 <= self.q <= 1, "config.q", "a number in [0, 1]", self.q)
        expect(0 <= self.decay < 1, "config.decay", "a number in [0, 1)", self.decay)


class LffHyper(NamedTuple):
    """Settings that a sweep may map over, by replacing `state.hyper`."""

    q: Float[Array, ""]
    decay: Float[Array, ""]


class LffState(NamedTuple):
    variables: Params
    """Of the debiased network, which predicts."""
    biased_variables: Params
    opt_state: tuple[Any, Any]
    """(debiased, biased)."""
    lr_scale: Float[Array, ""]
    hyper: LffHyper
    history: LossHistory


class LffInfo(NamedTuple):
    loss: Float[Array, ""]
    """Of both networks, added."""
    biased_loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    """Of the debiased network."""
    biased_accuracy: Float[Array, ""]
    difficulty: Float[Array, ""]
    """Mean weight W of the batch."""


def lff(
    network: Classifier,
    config: LffConfig = LffConfig(),
    optimizer: Optimizer = Optimizer(),
    *,
    augment: Callable[[Key, Array], Array] | None = None,
    rows: int | None = None,
    groups: Int[np.ndarray, "k a"] | None = None,
) -> Learner:
    """Minimise `mean(q sg(p_B^q) CE_B) + mean(W CE_D)`; W compares the running losses of B and D on each sample.

    Equal arguments give the same learner. Of each training sample three numbers are kept; `difficulty(state.history,
    rows, classes)` gives the weights of any rows.

    Args:
      network: the classifier of both networks, which share nothing.
      config: exponent of the biased loss, decay of the running losses.
      optimizer: of each network.
      augment: `(key, x) -> x`, applied to each batch.
      rows: n, rows of the training set. With fewer than there are, the loss is NaN, at which the loop stops.
      groups: not used; every training method takes them.

    Raises:
      ContractError: no rows; a config or an optimizer of another type.
    """
    del groups
    check_type("config", config, LffConfig)
    check_type("optimizer", optimizer, Optimizer)
    return _lff(network, config, optimizer, check_rows(rows), augment)


@functools.cache
def _lff(classifier: Classifier, config: LffConfig, optimizer: Optimizer, rows: int, augment) -> Learner:
    def init(key: Key, batch: Batch) -> LffState:
        variables = tuple(classifier.init(key_init, batch.x) for key_init in jax.random.split(key))
        return LffState(
            *variables,
            opt_state=tuple(optimizer.build().init(trainable(one)) for one in variables),
            lr_scale=jnp.ones((), jnp.float32),
            hyper=LffHyper(jnp.float32(config.q), jnp.float32(config.decay)),
            history=empty_history(rows),
        )

    def step(key: Key, state: LffState, batch: Batch) -> tuple[LffState, LffInfo]:
        key_augment, *keys_train = jax.random.split(key, 3)
        x = batch.x if augment is None else augment(key_augment, batch.x)
        before = state.variables, state.biased_variables
        hyper = state.hyper

        def loss_fn(params: tuple[Params, Params]) -> tuple[jax.Array, Any]:
            passes = [
                classifier.train(key_train, with_trainable(old, new), x)
                for key_train, old, new in zip(keys_train, before, params, strict=True)
            ]
            (logits, variables), (biased_logits, biased_variables) = passes
            loss = cross_entropy(logits, batch.label)
            history = remember(state.history, batch, cross_entropy(biased_logits, batch.label), loss, hyper.decay)
            weight = difficulty(history, batch.index, logits.shape[-1])
            biased = detached_generalised_cross_entropy(biased_logits, batch.label, hyper.q, scale=hyper.q)
            biased = weighted_mean(biased, batch.weight)
            total = weighted_mean(weight * loss, batch.weight) + biased
            info = LffInfo(
                total,
                biased,
                *(
                    weighted_mean(values, batch.weight)
                    for values in (correct(logits, batch.label), correct(biased_logits, batch.label), weight)
                ),
            )
            return total, ((variables, biased_variables), history, info)

        params = tuple(map(trainable, before))
        gradients, (after, history, info) = jax.grad(loss_fn, has_aux=True)(params)
        updated = [
            update(optimizer.build(), *parts, state.lr_scale)
            for parts in zip(gradients, state.opt_state, params, strict=True)
        ]
        variables = (with_trainable(one, new) for one, (new, _) in zip(after, updated, strict=True))
        opt_state = tuple(new for _, new in updated)
        return LffState(*variables, opt_state, state.lr_scale, hyper, history), info

    def predict(state: LffState, x: Array) -> jax.Array:
        return classifier.apply(state.variables, x)

    return Learner(init=init, step=step, predict=predict)
