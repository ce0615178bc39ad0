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

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_batch, check_integers, describe, expect
from jaxdebias.core import Array, Batch, Params, Split, take
from jaxdebias.explain.influence._find_head import find_head
from jaxdebias.explain.influence._objective import AffineHead, head_problem
from jaxdebias.explain.influence._refit import refit


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
    split: Split,
    params: Params,
    train: Batch,
    counterfactual: Batch,
    config: RefitHeadConfig = RefitHeadConfig(),
    *,
    replaced: Int[Array, "m"] | None = None,
    head_path: tuple[str | int, ...] = ("params", "head"),
    batch_size: int = 1024,
) -> tuple[Params, RefitHeadInfo]:
    """Replaces the last layer by the minimum of the training objective on edited data.

    Args:
      split: the model cut before its last layer; the head must be affine.
      params: of the trained model.
      train: the training set, or random rows of it. x, label and weight are used.
      counterfactual: rows with the attribute changed, `m` of them.
      config: see there.
      replaced: the rows of `train` in whose place the counterfactual rows stand, in their order and with their weight;
        None: all counterfactual rows join the training rows.
      head_path: where the last layer lies in params, see `influence.find_head`.
      batch_size: rows at a time through the network.

    Returns:
      (params, info): only the leaves of the head are new.

    Raises:
      ContractError: malformed batches, rows to replace that are no rows of `train` or appear twice, a head that is not
        affine.
    """
    began = time.perf_counter()
    check_batch(train, what="train")
    check_batch(counterfactual, what="counterfactual")
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
        z = map_rows(split.features, params, jnp.asarray(x), batch_size=batch_size)
        expect(z.ndim == 2, "split.features", "vectors [n d] before the last layer", describe(z))
        return z

    z = features(counterfactual.x)
    label = np.asarray(counterfactual.label)
    if len(kept.label) > 0:
        z = jnp.concatenate([features(kept.x), z])
        label, weight = np.concatenate([kept.label, label]), np.concatenate([_weight(kept), weight])
    head, replace = find_head(split.head, params, head_path, z.shape[1])
    problem = head_problem(z, label, head, weight=weight, l2=config.damping * float(weight.sum()))
    fitted, info = refit(problem, tolerance=config.tolerance, max_steps=config.max_steps)
    fitted = AffineHead(*(None if leaf is None else jnp.asarray(leaf, z.dtype) for leaf in fitted))
    return replace(params, fitted), RefitHeadInfo(
        len(label), info.converged, info.steps, info.gradient_norm, time.perf_counter() - began
    )


def _weight(batch: Batch) -> np.ndarray:
    return np.ones(len(batch.label), np.float32) if batch.weight is None else np.asarray(batch.weight, np.float32)
