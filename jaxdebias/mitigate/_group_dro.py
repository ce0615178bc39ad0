"""GroupDRO: minimises the loss of the worst group, by weights on groups that grow with the group's loss.

Labels: needs the attribute of every training sample. The paper also chooses the epoch and its settings by the
worst-group accuracy on group-labelled validation rows (a `Monitor` on such rows and keep="best" do that).

Source: Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020, algorithm 1. Strong weight
decay or early stopping matter: with neither, every group's training loss goes to 0 and the weights do nothing.
Deviations: the official code adjusts only if every group's adjustment is positive, and adds it to the reported loss
too; here it enters the weights alone, as in the paper. A group without training samples has weight 0 throughout.
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
from jaxdebias.core import Array, Batch, Classifier, Key, Learner, Params, group_of
from jaxdebias.mitigate._group_balanced import balanced_draws, check_groups
from jaxdebias.train._losses import correct, cross_entropy, weighted_mean
from jaxdebias.train._optimizer import Optimizer, trainable, update, with_trainable


@dataclass(frozen=True, kw_only=True)
class GroupDroConfig:
    """The defaults are those of the paper's code."""

    eta: float = 0.01
    """How fast the weights follow the losses."""
    adjustment: float = 0.0
    """C; a group's loss counts C / sqrt(n_g) more in the weights, against overfitted small groups."""
    balanced: bool = True
    """Draw every group equally often, as the paper does (data in memory only); else every row once an epoch."""

    def __post_init__(self):
        expect(self.eta >= 0, "config.eta", "at least 0", self.eta)
        expect(self.adjustment >= 0, "config.adjustment", "at least 0", self.adjustment)


class GroupDroHyper(NamedTuple):
    """Settings that a sweep may map over, by replacing `state.hyper`."""

    eta: Float[Array, ""]
    adjustment: Float[Array, "g"]
    """C / sqrt(n_g), 0 for empty groups."""


class GroupDroState(NamedTuple):
    variables: Params
    """What the classifier's `apply` takes."""
    opt_state: Any
    lr_scale: Float[Array, ""]
    hyper: GroupDroHyper
    group_weight: Float[Array, "g"]
    """The paper's q, of sum 1."""


class GroupDroInfo(NamedTuple):
    loss: Float[Array, ""]
    """Of the groups, by their weights: what is minimised."""
    accuracy: Float[Array, ""]
    largest_group_weight: Float[Array, ""]


def group_dro(
    network: Classifier,
    config: GroupDroConfig = GroupDroConfig(),
    optimizer: Optimizer = Optimizer(),
    *,
    augment: Callable[[Key, Array], Array] | None = None,
    rows: int | None = None,
    groups: Int[np.ndarray, "k a"] | None = None,
) -> Learner:
    """Minimise `sum_g q_g L_g`, where L_g is the batch's mean loss in group g and q rises by `exp(eta L_g)` a step.

    Equal arguments give the same learner.

    Args:
      network: the classifier to train.
      config: how fast the weights of the groups move, their adjustment, and how rows are drawn.
      optimizer: of all trainable variables.
      augment: `(key, x) -> x`, applied to each batch.
      rows: not used; every training method takes it.
      groups: `[k a]`, training samples of each (label, attribute) group, see `core.cell_counts`.

    Raises:
      ContractError: no groups, or groups without samples; a config or an optimizer of another type.
    """
    del rows
    check_type("config", config, GroupDroConfig)
    check_type("optimizer", optimizer, Optimizer)
    table = check_groups(groups)
    expect(bool(table.sum() > 0), "groups", "some sample whose attribute is known", "none")
    return _group_dro(network, config, optimizer, tuple(tuple(row) for row in table.tolist()), augment)


@functools.cache
def _group_dro(
    classifier: Classifier,
    config: GroupDroConfig,
    optimizer: Optimizer,
    counts: tuple[tuple[int, ...], ...],
    augment,
) -> Learner:
    classes, attributes = len(counts), len(counts[0])
    groups = classes * attributes
    count = np.asarray(counts, np.float32).reshape(-1)

    def init(key: Key, batch: Batch) -> GroupDroState:
        variables = classifier.init(key, batch.x)
        own = jax.eval_shape(classifier.apply, variables, batch.x).shape[-1]
        expect(own == classes, "groups", f"[k={own} a], a row per class of the model", f"{classes} rows")
        extra = np.where(count > 0, config.adjustment / np.sqrt(np.maximum(count, 1.0)), 0.0).astype(np.float32)
        return GroupDroState(
            variables=variables,
            opt_state=optimizer.build().init(trainable(variables)),
            lr_scale=jnp.ones((), jnp.float32),
            hyper=GroupDroHyper(jnp.float32(config.eta), jnp.asarray(extra)),
            group_weight=jnp.asarray((count > 0) / (count > 0).sum(), jnp.float32),
        )

    def step(key: Key, state: GroupDroState, batch: Batch) -> tuple[GroupDroState, GroupDroInfo]:
        key_augment, key_train = jax.random.split(key)
        x = batch.x if augment is None else augment(key_augment, batch.x)
        group = group_of(jnp.asarray(batch.label), jnp.asarray(batch.attribute), attributes)

        def loss_fn(params: Params) -> tuple[jax.Array, tuple[jax.Array, Params, jax.Array]]:
            logits, variables = classifier.train(key_train, with_trainable(state.variables, params), x)
            losses = group_losses(cross_entropy(logits, batch.label), group, groups, batch.weight)
            weight = raised_weights(state.group_weight, losses, state.hyper)
            return (weight * losses).sum(), (logits, variables, weight)

        params = trainable(state.variables)
        (loss, (logits, variables, weight)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        params, opt_state = update(optimizer.build(), gradient, state.opt_state, params, state.lr_scale)
        variables = with_trainable(variables, params)
        state = state._replace(variables=variables, opt_state=opt_state, group_weight=weight)
        accuracy = weighted_mean(correct(logits, batch.label), batch.weight)
        return state, GroupDroInfo(loss=loss, accuracy=accuracy, largest_group_weight=weight.max())

    def predict(state: GroupDroState, x: Array) -> jax.Array:
        return classifier.apply(state.variables, x)

    def weights(state: GroupDroState, data: Batch) -> jax.Array:
        del state
        return balanced_draws(data.label, data.attribute, classes, attributes)

    return Learner(init=init, step=step, predict=predict, weights=weights if config.balanced else None)


def group_losses(
    loss: Float[Array, "b"], group: Array, groups: int, weight: Float[Array, "b"] | None = None
) -> Float[jax.Array, "g"]:
    """Mean loss of each group by the rows' weights; 0 where a group is absent. Rows of group -1 are left out.

    >>> group_losses(jnp.array([1.0, 3.0, 5.0]), jnp.array([0, 0, -1]), 2).tolist()
    [2.0, 0.0]
    """
    weight = jnp.ones_like(loss) if weight is None else jnp.asarray(weight)
    total = jax.ops.segment_sum(weight, group, num_segments=groups)
    return jax.ops.segment_sum(weight * loss, group, num_segments=groups) / jnp.where(total > 0, total, 1.0)


def raised_weights(weight: Float[Array, "g"], losses: Float[Array, "g"], hyper: GroupDroHyper) -> Float[Array, "g"]:
    """Exponentiated gradient ascent: `q_g exp(eta (L_g + adjustment_g))`, of sum 1 again; no gradient passes.

    >>> hyper = GroupDroHyper(jnp.float32(0.01), jnp.zeros(2))
    >>> [round(float(q), 6) for q in raised_weights(jnp.array([0.5, 0.5]), jnp.array([1.0, 3.0]), hyper)]
    [0.495, 0.505]
    """
    raised = jax.lax.stop_gradient(hyper.eta * (losses + hyper.adjustment))
    weight = weight * jnp.exp(raised - raised.max())  # the largest exponent is 0: nothing overflows
    return weight / weight.sum()
