"""Cells of label and attribute made independent, half by drawing and half by an offset of the logits.

Source: the offset is that of Menon et al. 2021 given the attribute, as in uLA (Tsirigotis et al. 2023).
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.contracts import check_type, expect
from jaxdebias.core import Array, Batch, Classifier, Key, Learner, Params, as_float
from jaxdebias.explain._cells import reweighing
from jaxdebias.mitigate._group_balanced import check_groups
from jaxdebias.train._augment import Augment
from jaxdebias.train._losses import correct, cross_entropy, weighted_mean
from jaxdebias.train._optimizer import Optimizer, trainable, update, with_trainable


class CellTables(NamedTuple):
    """What training uses of the cells; `state.hyper` of `cell_balanced`, so a sweep may map over it."""

    draw: Float[Array, "k a"]
    """How often a sample of the cell is drawn, relative to others."""
    offset: Float[Array, "k a"]
    """Added to logit k of a sample with attribute a, in training only."""


class CellState(NamedTuple):
    variables: Params
    opt_state: Any
    lr_scale: Float[Array, ""]
    hyper: CellTables


class CellInfo(NamedTuple):
    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    """Of the logits without offset, over what was drawn."""


def cell_tables(counts: Int[Array, "k a"] | Float[Array, "k a"], tau: float = 0.5) -> CellTables:
    """Draw weights and offsets that together make attribute and label independent.

    With weights r (see `reweighing`) a sample is drawn in proportion to r^tau. Let m be the mass of the cells so drawn;
    the offset is log m[y, a] - log m[., a], the log-odds that the drawing leaves.

    Args:
      counts: samples of label y and attribute a, guessed or known.
      tau: 1 balances by drawing alone (the offset is then log p(y)), 0 by the offset alone.

    >>> print(cell_tables(np.array([[90, 10], [20, 80]])).offset.round(3))
    [[-0.386 -1.342]
     [-1.138 -0.303]]
    """
    expect(0 <= tau <= 1, "tau", "a number in [0, 1]", tau)
    counts = np.asarray(counts, np.float64)
    draw = reweighing(counts) ** tau if tau else np.ones_like(counts)
    mass = counts * draw
    mass = mass + 1e-6 * mass.sum()
    offset = np.log(mass / mass.sum(axis=0, keepdims=True))
    return CellTables(draw.astype(np.float32), offset.astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class CellBalancedConfig:
    """What is done to the input."""

    input_dropout: float = 0.0
    """Share of the input's numbers that are set to 0 in a step; the others are scaled up."""

    def __post_init__(self):
        good = 0 <= self.input_dropout < 1
        expect(good, "config.input_dropout", "a share in [0, 1)", self.input_dropout)


def cell_balanced(
    network: Classifier,
    config: CellBalancedConfig = CellBalancedConfig(),
    optimizer: Optimizer = Optimizer(),
    *,
    augment: Augment | None = None,
    rows: int | None = None,
    groups: Int[np.ndarray, "k a"] | None = None,
) -> Learner:
    """Draw by cell and learn with offset logits; what step 3 of AUG-CELL trains, on any attribute.

    The tables come in from outside: `state._replace(hyper=cell_tables(counts))`, or `hyper=` of a sweep; those of a new
    state draw uniformly and offset nothing. The attribute is `batch.attribute`: put the guesses there, or, if it is
    known, keep it.

    Args:
      network: the classifier to train.
      config: dropout of the input.
      optimizer: of all trainable variables.
      augment: `(key, x) -> x`, applied to each batch.
      rows: not used; every training method takes it.
      groups: `[k a]`, of which only the shape is used, that of the tables.

    Raises:
      ContractError: no groups; a config or an optimizer of another type.
    """
    del rows
    check_type("config", config, CellBalancedConfig)
    check_type("optimizer", optimizer, Optimizer)
    return _cell_balanced(network, float(config.input_dropout), optimizer, *check_groups(groups).shape, augment)


@functools.cache
def _cell_balanced(
    classifier: Classifier,
    input_dropout: float,
    optimizer: Optimizer,
    classes: int,
    attributes: int,
    augment: Augment | None,
) -> Learner:
    def init(key: Key, batch: Batch) -> CellState:
        variables = classifier.init(key, batch.x)
        neutral = CellTables(jnp.ones((classes, attributes)), jnp.zeros((classes, attributes)))
        return CellState(variables, optimizer.build().init(trainable(variables)), jnp.ones((), jnp.float32), neutral)

    def step(key: Key, state: CellState, batch: Batch) -> tuple[CellState, CellInfo]:
        key_augment, key_dropout, key_train = jax.random.split(key, 3)
        x = batch.x if augment is None else augment(key_augment, batch.x)
        if input_dropout:
            x = as_float(x)
            x = jnp.where(jax.random.bernoulli(key_dropout, input_dropout, x.shape), 0.0, x / (1.0 - input_dropout))
        offset = state.hyper.offset.T[batch.attribute]

        def loss_fn(params: Params) -> tuple[jax.Array, tuple[jax.Array, Params]]:
            logits, variables = classifier.train(key_train, with_trainable(state.variables, params), x)
            return weighted_mean(cross_entropy(logits + offset, batch.label), batch.weight), (logits, variables)

        params = trainable(state.variables)
        (loss, (logits, variables)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        params, opt_state = update(optimizer.build(), gradient, state.opt_state, params, state.lr_scale)
        state = state._replace(variables=with_trainable(variables, params), opt_state=opt_state)
        return state, CellInfo(loss, weighted_mean(correct(logits, batch.label), batch.weight))

    def predict(state: CellState, x: Array) -> jax.Array:
        return classifier.apply(state.variables, x)

    def weights(state: CellState, data: Batch) -> jax.Array:
        drawn = state.hyper.draw[data.label, data.attribute]
        return drawn if data.weight is None else drawn * data.weight

    return Learner(init=init, step=step, predict=predict, weights=weights)
