"""Deep Feature Reweighting: fit the last layer again, on held-out data in which the shortcut does not hold.

Features stay frozen, are standardised, and an L2 multinomial logistic regression is fitted on them by Newton's method.
Of several penalties, the one that does best on `accept` is kept. Source: DFR (Kirichenko et al., ICLR 2023), which
balances groups by subsampling and penalises with L1; here groups are balanced by weights, which is the same objective
in expectation without throwing examples away, and the penalty is L2.

It is the baseline that every edit of a last layer has to be compared with: it needs the same held-out examples.
"""

import time
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_batch, check_choice, describe, expect
from jaxdebias.core import Array, Batch, Params, Split, group_of
from jaxdebias.explain.influence.objective import AffineHead, find_head, head_logits, head_problem
from jaxdebias.explain.influence.solvers import refit


@dataclass(frozen=True, kw_only=True)
class DfrConfig:
    penalties: tuple[float, ...] = (100.0, 10.0, 1.0)
    """Candidates for l2, the regulariser being l2 / 2 |theta|^2 beside the SUM of losses on standardised features."""
    balance: bool = True
    """Give every (label, attribute) group of the edit set the same total weight, where attributes are known."""
    select: str = "accuracy"
    """`accuracy` or `worst_group`: what chooses the penalty on `accept`. The latter needs groups of some size."""
    tolerance: float = 1e-3
    """Of the fit: on the gradient norm of the SUM objective."""

    def __post_init__(self):
        check_choice("select", self.select, ("accuracy", "worst_group"))
        good = len(self.penalties) > 0 and min(self.penalties) > 0
        expect(good, "penalties", "one or more, all positive", self.penalties)


class DfrInfo(NamedTuple):
    penalty: float
    """The chosen l2."""
    scores: tuple[float, ...]
    """Of each penalty on `accept`, by `config.select`."""
    gradient_norms: tuple[float, ...]
    """Of each fit, at its end, for the SUM objective."""
    accuracy_before: float
    """On `accept`."""
    accuracy_after: float
    seconds: float


def dfr(split: Split, params: Params, edit: Batch, accept: Batch, config: DfrConfig = DfrConfig(), *,
        head_path: tuple[str | int, ...] = ("params", "head"), batch_size: int = 1024) -> tuple[Params, DfrInfo]:
    """Replaces the last layer by one that is fitted on held-out examples.

    Args:
      split: the model cut before its last layer; the head must be affine.
      params: of the trained model.
      edit: held-out examples in which the attribute does not go with the label, or whose groups are known and
        all present. `weight`, if there, multiplies.
      accept: other held-out examples, for the choice of the penalty.
      config: see there.
      head_path: where the last layer lies in params, see `influence.find_head`.
      batch_size: rows at a time through the network.

    Returns:
      (params, info): only the leaves of the head are new.

    Raises:
      ContractError: malformed batches, a head that is not affine, penalties that are not positive.
    """
    began = time.perf_counter()
    check_batch(edit, what="edit")
    check_batch(accept, what="accept")

    def features(x: Array) -> jax.Array:
        z = map_rows(split.features, params, jnp.asarray(x), batch_size=batch_size)
        expect(z.ndim == 2, "split.features", "vectors [n d] before the last layer", describe(z))
        return z

    z, z_accept = features(edit.x), features(accept.x)
    head, replace = find_head(split.head, params, head_path, z.shape[1])
    weight = balanced_weights(edit.label, edit.attribute) if config.balance else np.ones(len(z), np.float32)
    if edit.weight is not None:
        weight = weight * np.asarray(edit.weight, np.float32)
    mean, scale = _standardisation(z, centred=head.bias is not None)
    problem = head_problem((z - mean[None, :]) / scale[None, :], np.asarray(edit.label), head, weight=weight)

    # From the largest penalty down: each fit starts where the one before it ended, near its own minimum.
    fits, start = {}, None
    for penalty in sorted(set(config.penalties), reverse=True):
        start, fit = refit(problem._replace(l2=float(penalty)), tolerance=config.tolerance, start=start)
        fitted = _on_raw_features(start, mean, scale)
        fits[penalty] = fitted, _score(fitted, z_accept, accept, config.select), fit.gradient_norm
    scores = tuple(fits[penalty][1] for penalty in config.penalties)
    penalty = config.penalties[int(np.argmax(scores))]
    chosen = fits[penalty][0]
    info = DfrInfo(penalty, scores, tuple(fits[penalty][2] for penalty in config.penalties),
                   _score(head, z_accept, accept, "accuracy"), _score(chosen, z_accept, accept, "accuracy"),
                   time.perf_counter() - began)
    return replace(params, chosen), info


def balanced_weights(label: Int[Array, "n"], attribute: Int[Array, "n"]) -> Float[np.ndarray, "n"]:
    """Weights of mean 1 that give every group present the same total; all 1 where an attribute is unknown (-1).

    >>> balanced_weights(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])).tolist()
    [0.666..., 0.666..., 0.666..., 2.0]
    """
    label, attribute = np.asarray(label), np.asarray(attribute)
    if (attribute < 0).any():
        return np.ones(len(label), np.float32)
    _, group, count = np.unique(group_of(label, attribute, int(attribute.max()) + 1), return_inverse=True,
                                return_counts=True)
    return (len(label) / (len(count) * count[group])).astype(np.float32)


def _standardisation(z: Float[Array, "n d"], *, centred: bool) -> tuple[jax.Array, jax.Array]:
    # Without a bias the head cannot take up a shift, so such features are only scaled. Dead units stay as they are.
    mean, scale = z.mean(axis=0), z.std(axis=0)
    return mean if centred else jnp.zeros_like(mean), jnp.where(scale > 0, scale, 1.0)


def _on_raw_features(head: AffineHead, mean: Float[Array, "d"], scale: Float[Array, "d"]) -> AffineHead:
    """The same logits from features that are not standardised."""
    kernel = head.kernel / np.asarray(scale, np.float64)[:, None]
    bias = None if head.bias is None else jnp.asarray(head.bias - np.asarray(mean, np.float64) @ kernel, mean.dtype)
    return AffineHead(jnp.asarray(kernel, mean.dtype), bias)


def _score(head: AffineHead, z: Float[Array, "n d"], batch: Batch, select: str) -> float:
    right = np.asarray(head_logits(head, z).argmax(axis=1)) == np.asarray(batch.label)
    weight = np.ones(len(right)) if batch.weight is None else np.asarray(batch.weight, np.float64)
    if select == "accuracy":
        return float(np.average(right, weights=weight))
    group = group_of(np.asarray(batch.label), np.asarray(batch.attribute), int(np.max(batch.attribute)) + 1)
    return min(float(np.average(right[group == g], weights=weight[group == g])) for g in np.unique(group)
               if weight[group == g].sum() > 0)
