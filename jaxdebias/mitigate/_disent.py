"""DisEnt: one code for what is intrinsic and one for the bias, and training on codes of different samples put together.

Labels: needs none of the bias. (The paper chooses its settings on data sets whose bias is known.)

Source: Lee et al., "Learning Debiased Representation via Disentangled Feature Augmentation", NeurIPS 2021 (also LDD),
and its code: 50,000 steps, batches of 256, the rate halved every 10,000 steps from step 20,000 on. Colored MNIST:
`models.mlp_two_encoders()`, Adam of rate 1e-2, both weights of biased losses 10 (the defaults here). Corrupted
CIFAR-10: `models.resnet_two_encoders()`, rate 5e-4 at 0.5 % conflicting samples and 1e-3 beyond, weights 1, 5, 5, 1 for
0.5, 1, 2 and 5 %. Deviations: rows that only fill up a batch are not swapped with others; pixels are not divided by 255
twice; the code keeps its best accuracy on the TEST set, the training loop here does not look at it.
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
from jaxdebias.core import Array, Batch, Key, Learner, Params
from jaxdebias.mitigate._loss_history import LossHistory, difficulty, empty_history, remember
from jaxdebias.models._two_encoders import TwoEncoders
from jaxdebias.train._losses import correct, cross_entropy, detached_generalised_cross_entropy, weighted_mean
from jaxdebias.train._optimizer import Optimizer, trainable, update, with_trainable


@dataclass(frozen=True, kw_only=True)
class DisentConfig:
    """The defaults are those of Colored MNIST."""

    q: float = 0.7
    """Of the generalised cross-entropy of the biased head, which has the factor q of the codes of LfF and DisEnt."""
    decay: float = 0.7
    """Of the moving averages of the losses, what the past keeps."""
    biased_weight: float = 10.0
    """Of the biased head's loss, lambda_dis."""
    swap_weight: float = 1.0
    """Of the losses on swapped codes, lambda_swap."""
    swap_biased_weight: float = 10.0
    """Of the biased head's loss among those, lambda_swap_b."""
    swap_after: int = 10_000
    """The first step with swapped codes is the one after this, counted from 0."""
    rate_after: int = 10_000
    """Steps from here on count for the learning rate."""
    rate_steps: int = 10_000
    """After so many of them the learning rate is multiplied by `rate_factor`, again and again."""
    rate_factor: float = 0.5

    def __post_init__(self):
        expect(0 <= self.q <= 1, "config.q", "a number in [0, 1]", self.q)
        expect(0 <= self.decay < 1, "config.decay", "a number in [0, 1)", self.decay)
        for name in ("biased_weight", "swap_weight", "swap_biased_weight", "rate_after"):
            expect(getattr(self, name) >= 0, f"config.{name}", "at least 0", getattr(self, name))
        expect(self.rate_steps >= 1, "config.rate_steps", "at least 1", self.rate_steps)
        expect(0 < self.rate_factor <= 1, "config.rate_factor", "a number in (0, 1]", self.rate_factor)


class DisentHyper(NamedTuple):
    """Settings that a sweep may map over, by replacing `state.hyper`; see `DisentConfig`."""

    q: Float[Array, ""]
    decay: Float[Array, ""]
    biased_weight: Float[Array, ""]
    swap_weight: Float[Array, ""]
    swap_biased_weight: Float[Array, ""]


class DisentState(NamedTuple):
    variables: Params
    """Of both encoders and both heads."""
    opt_state: Any
    lr_scale: Float[Array, ""]
    hyper: DisentHyper
    history: LossHistory
    steps: Int[Array, ""]
    """Done so far."""


class DisentInfo(NamedTuple):
    loss: Float[Array, ""]
    """Total."""
    disentangling_loss: Float[Array, ""]
    swap_loss: Float[Array, ""]
    """Before its weight; also computed while it does not count yet."""
    accuracy: Float[Array, ""]
    """Of the debiased head."""
    biased_accuracy: Float[Array, ""]
    difficulty: Float[Array, ""]
    """Mean weight W of the batch."""


def disent(
    network: TwoEncoders,
    config: DisentConfig = DisentConfig(),
    optimizer: Optimizer = Optimizer(learning_rate=1e-2),
    *,
    augment: Callable[[Key, Array], Array] | None = None,
    rows: int | None = None,
    groups: Int[np.ndarray, "k a"] | None = None,
) -> Learner:
    """Train debiased and biased heads, each on both codes but with a gradient to its own encoder only.

    Equal arguments give the same learner. `network.classifier` takes `state.variables`. A plateau schedule multiplies
    the method's own learning rate.

    Args:
      network: `models.mlp_two_encoders` or `models.resnet_two_encoders`.
      config: weights of the losses, when swapping begins, and the learning rate's steps.
      optimizer: of all trainable variables.
      augment: `(key, x) -> x`, applied to each batch.
      rows: n, rows of the training set. With fewer than there are, the loss is NaN, at which the loop stops.
      groups: not used; every training method takes them.

    Raises:
      ContractError: no rows; a config or an optimizer of another type.
    """
    del groups
    check_type("config", config, DisentConfig)
    check_type("optimizer", optimizer, Optimizer)
    return _disent(network, config, optimizer, check_rows(rows), augment)


@functools.cache
def _disent(networks: TwoEncoders, config: DisentConfig, optimizer: Optimizer, rows: int, augment) -> Learner:
    def init(key: Key, batch: Batch) -> DisentState:
        variables = networks.init(key, batch.x)
        return DisentState(
            variables=variables,
            opt_state=optimizer.build().init(trainable(variables)),
            lr_scale=jnp.ones((), jnp.float32),
            hyper=DisentHyper(*(jnp.float32(getattr(config, name)) for name in DisentHyper._fields)),
            history=empty_history(rows),
            steps=jnp.zeros((), jnp.int32),
        )

    def step(key: Key, state: DisentState, batch: Batch) -> tuple[DisentState, DisentInfo]:
        key_augment, key_train, key_swap = jax.random.split(key, 3)
        x = batch.x if augment is None else augment(key_augment, batch.x)
        weight = jnp.ones(batch.label.shape, jnp.float32) if batch.weight is None else jnp.asarray(batch.weight)
        partner, hyper = swap_partners(key_swap, weight), state.hyper

        def loss_fn(params: Params) -> tuple[jax.Array, Any]:
            codes, variables = networks.train(key_train, with_trainable(state.variables, params), x)
            label, partner_label = jnp.asarray(batch.label), jnp.asarray(batch.label)[partner]
            logits, biased_logits = head_logits(networks, variables, *codes)
            loss, biased_loss = cross_entropy(logits, label), cross_entropy(biased_logits, label)
            history = remember(state.history, batch, biased_loss, loss, hyper.decay)
            hard = difficulty(history, batch.index, logits.shape[-1])
            swapped, swapped_biased = head_logits(networks, variables, codes[0], codes[1][partner])

            def both(debiased, biased, biased_label, biased_weight):
                biased = detached_generalised_cross_entropy(biased, biased_label, hyper.q, scale=hyper.q)
                debiased = hard * cross_entropy(debiased, label)
                return weighted_mean(debiased, weight) + biased_weight * weighted_mean(biased, weight)

            plain = both(logits, biased_logits, label, hyper.biased_weight)
            swap = both(swapped, swapped_biased, partner_label, hyper.swap_biased_weight)
            total = plain + jnp.where(state.steps > config.swap_after, hyper.swap_weight, 0.0) * swap
            info = DisentInfo(
                total,
                plain,
                swap,
                *(
                    weighted_mean(values, weight)
                    for values in (correct(logits, label), correct(biased_logits, label), hard)
                ),
            )
            return total, (variables, history, info)

        params = trainable(state.variables)
        gradient, (variables, history, info) = jax.grad(loss_fn, has_aux=True)(params)
        rate = state.lr_scale * rate_at(state.steps, config)
        params, opt_state = update(optimizer.build(), gradient, state.opt_state, params, rate)
        variables = with_trainable(variables, params)
        return DisentState(variables, opt_state, state.lr_scale, hyper, history, state.steps + 1), info

    def predict(state: DisentState, x: Array) -> jax.Array:
        return networks.classifier.apply(state.variables, x)

    return Learner(init=init, step=step, predict=predict)


def head_logits(
    networks: TwoEncoders, variables: Params, intrinsic: Float[Array, "b d"], biased: Float[Array, "b d"]
) -> tuple[Float[jax.Array, "b k"], Float[jax.Array, "b k"]]:
    """(debiased, biased) logits on both codes; each head sends a gradient through its own code only."""
    fixed = jax.lax.stop_gradient
    return (
        networks.intrinsic(variables, jnp.concatenate([intrinsic, fixed(biased)], axis=-1)),
        networks.biased(variables, jnp.concatenate([fixed(intrinsic), biased], axis=-1)),
    )


def swap_partners(key: Key, weight: Float[Array, "b"]) -> Int[jax.Array, "b"]:
    """A random permutation of the rows of positive weight, and one of the others.

    >>> swap_partners(jax.random.key(0), jnp.array([0.0, 1.0, 0.0]))[1].tolist()
    1
    """
    padding = jnp.asarray(weight) <= 0
    draw = jax.random.uniform(key, padding.shape)
    rows = jnp.argsort(padding, stable=True)  # those of positive weight first, in order
    return jnp.zeros_like(rows).at[rows].set(jnp.lexsort((draw, padding)))


def rate_at(step: Int[Array, ""], config: DisentConfig) -> Float[jax.Array, ""]:
    """What the learning rate is multiplied by in step `step`, counted from 0.

    >>> [float(rate_at(jnp.int32(t), DisentConfig())) for t in (0, 19_999, 20_000, 30_000)]
    [1.0, 1.0, 0.5, 0.25]
    """
    halvings = jnp.maximum(step - config.rate_after, 0) // config.rate_steps
    return jnp.float32(config.rate_factor) ** halvings.astype(jnp.float32)
