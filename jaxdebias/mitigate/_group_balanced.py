"""Every (label, attribute) group counts the same: by how often its rows are drawn, or by how much they weigh.

Labels: needs the attribute of every training sample. Rows of unknown attribute (-1) are never drawn.

Source: resampling and reweighting are folklore; as strong baselines for shortcuts: Idrissi et al., "Simple data
balancing achieves competitive worst-group-accuracy", CLeaR 2022. Deviation: that paper, too, cuts groups to the
smallest (for a last layer see `DfrConfig.balance_by`); here nothing is thrown away.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.contracts import check_batch, check_type, describe, expect
from jaxdebias.core import Array, Batch, Classifier, Key, Learner, group_of
from jaxdebias.mitigate._dfr import balanced_weights
from jaxdebias.mitigate._erm import ErmConfig, State, erm
from jaxdebias.train._optimizer import Optimizer


def group_balanced(
    network: Classifier,
    config: ErmConfig = ErmConfig(),
    optimizer: Optimizer = Optimizer(),
    *,
    augment: Callable[[Key, Array], Array] | None = None,
    rows: int | None = None,
    groups: Int[np.ndarray, "k a"] | None = None,
) -> Learner:
    """ERM on batches in which every group present is equally likely. Equal arguments give the same learner.

    An epoch is as many draws, with replacement, as there are rows. Data in memory only.

    Args:
      network: the classifier to train.
      config: as in `erm`.
      optimizer: of all trainable variables.
      augment: `(key, x) -> x`, applied to each batch.
      rows: not used; every training method takes it.
      groups: `[k a]`, training samples of each (label, attribute) group, see `core.cell_counts`. Only its shape is
        used: what a group's rows weigh is counted from the data.

    Raises:
      ContractError: no groups; a config or an optimizer of another type.
    """
    del rows
    check_type("config", config, ErmConfig)
    check_type("optimizer", optimizer, Optimizer)
    return _group_balanced(network, config, optimizer, *check_groups(groups).shape, augment)


def check_groups(groups: Int[np.ndarray, "k a"] | None) -> Int[np.ndarray, "k a"]:
    """The counts of the groups, or one line that says that the method needs the attribute."""
    expected = "training samples of each (label, attribute) group, int [k a]: this method needs the attribute"
    expect(groups is not None, "groups", expected, None)
    table = np.asarray(groups)
    good = table.ndim == 2 and table.size > 0 and np.issubdtype(table.dtype, np.integer) and int(table.min()) >= 0
    expect(bool(good), "groups", expected, describe(groups))
    return table


@functools.cache
def _group_balanced(
    classifier: Classifier, config: ErmConfig, optimizer: Optimizer, classes: int, attributes: int, augment
) -> Learner:
    def weights(state: State, data: Batch) -> jax.Array:
        del state
        return balanced_draws(data.label, data.attribute, classes, attributes)

    return erm(classifier, config, optimizer, augment=augment)._replace(weights=weights)


def balanced_draws(
    label: Int[Array, "n"], attribute: Int[Array, "n"], classes: int, attributes: int
) -> Float[jax.Array, "n"]:
    """1 over the size of each row's group, jit-able: with these chances every group present is drawn equally often.

    >>> balanced_draws(np.array([0, 0, 1, 1]), np.array([0, 0, 0, -1]), 2, 2).tolist()
    [0.5, 0.5, 1.0, 0.0]
    """
    group = group_of(jnp.asarray(label), jnp.asarray(attribute), attributes)
    known = group >= 0
    count = jax.ops.segment_sum(known.astype(jnp.float32), group, num_segments=classes * attributes)
    return jnp.where(known, 1.0 / jnp.maximum(count[jnp.maximum(group, 0)], 1.0), 0.0)


def group_weighted(data: Batch) -> Batch:
    """The data with row weights under which every group present has the same total; then any learner will do.

    Weights have mean 1 and multiply those that are there. `weighted_mean` divides each batch by its own sum of
    weights, so a batch of common groups only counts as much as one with rare rows: draws balance better.

    Raises:
      ContractError: a malformed batch, an unknown attribute.
    """
    check_batch(data)
    label, attribute = np.asarray(data.label), np.asarray(data.attribute)
    unknown = int((attribute < 0).sum())
    expect(unknown == 0, "data.attribute", "known attributes, to weigh groups", f"{unknown} unknown (-1)")
    weight = balanced_weights(label, attribute)
    return data._replace(weight=weight if data.weight is None else weight * np.asarray(data.weight, np.float32))
