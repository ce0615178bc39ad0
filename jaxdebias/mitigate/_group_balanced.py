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

from jaxdebias.contracts import check_batch, expect
from jaxdebias.core import Array, Batch, Classifier, Key, Learner, group_of
from jaxdebias.mitigate._dfr import balanced_weights
from jaxdebias.mitigate._erm import State, erm
from jaxdebias.train._optimizer import Optimizer


def group_balanced(
    classifier: Classifier,
    optimizer: Optimizer = Optimizer(),
    *,
    classes: int,
    attributes: int,
    augment: Callable[[Key, Array], Array] | None = None,
) -> Learner:
    """ERM on batches in which every group present is equally likely. Equal arguments give the same learner.

    An epoch is as many draws, with replacement, as there are rows. Data in memory only.

    Args:
      classes: k.
      attributes: a, values of the bias attribute.
      augment: `(key, x) -> x`, applied to each batch.
    """
    expect(classes >= 1 and attributes >= 1, "classes, attributes", "at least 1", (classes, attributes))
    return _group_balanced(classifier, optimizer, int(classes), int(attributes), augment)


@functools.cache
def _group_balanced(classifier: Classifier, optimizer: Optimizer, classes: int, attributes: int, augment) -> Learner:
    def weights(state: State, data: Batch) -> jax.Array:
        del state
        return balanced_draws(data.label, data.attribute, classes, attributes)

    return erm(classifier, optimizer, augment=augment)._replace(weights=weights)


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
