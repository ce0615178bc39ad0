"""The last layer fitted again on training data edited with counterfactuals: what an edit of the head approximates.

FMD's replacement update is the first step of this fit; carried to the minimum it is retraining, but only of the head,
and must be called that. Features stay frozen. Source: FMD (Chen et al. 2023, section 4) for the edited objective.
"""

import time
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxdebias.contracts import check_batch, check_integers, check_key, check_type, expect
from jaxdebias.core import Array, Batch, Classifier, Key, Params, RepairSets, Split, counted, take
from jaxdebias.explain.influence._objective import AffineHead, head_problem
from jaxdebias.explain.influence._refit import refit
from jaxdebias.mitigate._last_layer import as_split, frozen_features, last_layer, needed


@dataclass(frozen=True, kw_only=True)
class RefitHeadConfig:
    """The objective is `sum of losses + l2 / 2 |theta|^2` on features as they are; its minimum is unique."""

    damping: float = 1e-3
    """l2 per unit of weight, as FMD's damping: the regulariser of the MEAN loss; l2 is this times the total weight."""
    tolerance: float = 1e-4
    """On the gradient norm of the SUM of losses."""
    max_steps: int = 100
    """Of Newton's method, which starts at zero weights: a saturated head is a bad start."""

    def __post_init__(self):
        expect(self.damping > 0, "damping", "more than 0: separable data have no finite minimum", self.damping)


class RefitHeadInfo(NamedTuple):
    rows: int
    """Of the edited data."""
    converged: bool
    steps: int
    gradient_norm: float
    """Of the SUM objective at the returned head."""
    seconds: float


def refit_head(
    key: Key,
    model: Classifier | Split,
    params: Params,
    sets: RepairSets,
    config: RefitHeadConfig = RefitHeadConfig(),
    *,
    counterfactual: Batch | None = None,
    replaced: Int[Array, "m"] | None = None,
    batch_size: int = 256,
) -> tuple[Params, RefitHeadInfo]:
    """Replace the last layer by the minimum of the training objective on edited data.

    Args:
      key: not used; every repair takes it.
      model: a classifier, or a model cut before its last layer; the head must be affine.
      params: of the trained model.
      sets: `train`, the training set or random rows of it, of which x, label and weight are used; `pairs`, whose twins
        join them, unless `counterfactual` is given.
      config: damping, and when the fit ends.
      counterfactual: rows with the attribute changed, `m` of them, instead of the twins of the pairs.
      replaced: the rows of `sets.train` in whose place the counterfactual rows stand, in their order and with their
        weight; None: all counterfactual rows join the training rows.
      batch_size: rows at a time through the network.

    Returns:
      (params, info): only the leaves of the head are new.

    Raises:
      ContractError: sets that are missing or malformed, rows to replace that are no rows of the training set or appear
        twice, a head that is not affine.
    """
    check_key("key", key)
    del key
    began = time.perf_counter()
    check_type("config", config, RefitHeadConfig)
    split = as_split(model)
    if counterfactual is None:
        expect(replaced is None, "counterfactual", "the rows that stand in place of `replaced`", None)
        sets = needed(sets, "train", "pairs")
        pairs = sets.pairs
        counterfactual = pairs._replace(x=pairs.twin, twin=None)
    elif replaced is None:
        check_batch(counterfactual, what="counterfactual")
        sets, counterfactual = needed(sets, "train"), counted(counterfactual)
    else:
        # Rows are named by their number: padding stays, and weighs nothing.
        check_batch(counterfactual, what="counterfactual")
        needed(sets, "train")
    train = sets.train
    n, m = len(train.label), len(counterfactual.label)
    kept, weight = train, _weight(counterfactual)
    if replaced is not None:
        check_integers("replaced", replaced, m, 0, n)
        replaced = np.asarray(replaced)
        expect(
            len(np.unique(replaced)) == m,
            "replaced",
            "every row once",
            f"{m - len(np.unique(replaced))} rows more than once",
        )
        weight = _weight(train)[replaced]
        kept = take(train, np.setdiff1d(np.arange(n), replaced))

    def features(x: Array) -> jax.Array:
        return frozen_features(split, params, x, batch_size=batch_size)

    z = features(counterfactual.x)
    label = np.asarray(counterfactual.label)
    if len(kept.label) > 0:
        z = jnp.concatenate([features(kept.x), z])
        label, weight = np.concatenate([kept.label, label]), np.concatenate([_weight(kept), weight])
    head, replace = last_layer(split, params, z.shape[1])
    problem = head_problem(z, label, head, weight=weight, l2=config.damping * float(weight.sum()))
    fitted, info = refit(problem, tolerance=config.tolerance, max_steps=config.max_steps)
    fitted = AffineHead(*(None if leaf is None else jnp.asarray(leaf, z.dtype) for leaf in fitted))
    return replace(params, fitted), RefitHeadInfo(
        len(label), info.converged, info.steps, info.gradient_norm, time.perf_counter() - began
    )


def _weight(batch: Batch) -> np.ndarray:
    return np.ones(len(batch.label), np.float32) if batch.weight is None else np.asarray(batch.weight, np.float32)
