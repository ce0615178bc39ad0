"""Which training samples a model finds rare: the weights of its last epoch, who carries them, and what it sees.

    draws = audit_draws(learner, state, model, dataset)
    draws.report.rarest, draws.groups

For learners that draw by rarity (`mitigate.dbvae`). The groups of the data are read here alone, to say whether what is
drawn goes with one of them; no weight depends on them.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdebias.contracts import expect
from jaxdebias.core import Dataset, Learner
from jaxdebias.mitigate._dbvae.diagnostics import DrawReport, draw_report, weight_auc
from jaxdebias.mitigate._dbvae.learner import encode_all, reconstructions
from jaxdebias.mitigate._dbvae.rarity import kl_of_latents
from jaxdebias.models._vae_classifier import VaeClassifier


class GroupDraws(NamedTuple):
    """What a set of training rows gets of the draws."""

    rows: int
    row_share: float
    """Of all rows whose group is known; so is the share of the draws."""
    draw_share: float
    auc: float
    """Chance that one of its rows outweighs another row of the same label; 0.5: the weights do not know the set. NaN
    where no label has rows on both sides."""


class DrawAudit(NamedTuple):
    """Who is drawn after the last epoch, and how the model rebuilds those at both ends."""

    weight: Float[np.ndarray, "n"]
    """Of every training row; sums to 1."""
    report: DrawReport
    groups: dict[tuple[int, int], GroupDraws]
    """(label, attribute) -> its share, for groups with training rows; empty where no attribute is known."""
    conflicting: GroupDraws | None
    """Of all rows whose attribute does not go with the label; None where there are none."""
    kl: Float[np.ndarray, "l"]
    """Mean KL of each latent over the training rows, in nats: what it carries."""
    rarest_decoded: np.ndarray
    """`[m h w c]` uint8, the rows of `report.rarest` as the decoder rebuilds them from their mean codes."""
    commonest_decoded: np.ndarray


def audit_draws(learner: Learner, state: Any, model: VaeClassifier, dataset: Dataset, *, shown: int = 16) -> DrawAudit:
    """Reads the weights that the next epoch would be drawn with, and says which rows they favour.

    Args:
      learner: of the run; has to have `weights`.
      state: after the last epoch.
      model: the network, of `state.variables`.
      dataset: its train split is what was drawn from.
      shown: how many of the rarest and of the commonest rows.

    Raises:
      ContractError: a learner that draws every row once.
    """
    expect(learner.weights is not None, "learner", "one with weights, which draws some rows more often", "none")
    data = dataset.splits["train"]._replace(twin=None, mask=None, unit=None)
    weight = np.asarray(jax.jit(learner.weights)(state, data), np.float64)
    weight = weight / weight.sum()
    report = draw_report(weight, shown=shown)
    encoding = encode_all(model, state.variables, data.x)
    kl = np.asarray(kl_of_latents(encoding.mean, encoding.log_variance).mean(0))
    decoded = [
        _pixels(reconstructions(model, state.variables, data.x[rows])) for rows in (report.rarest, report.commonest)
    ]
    label, attribute = np.asarray(data.label), np.asarray(data.attribute)
    groups = {
        (y, a): group_draws(weight, label, attribute, (label == y) & (attribute == a))
        for y in range(dataset.aligned.shape[0])
        for a in range(dataset.aligned.shape[1])
        if ((label == y) & (attribute == a)).any()
    }
    against = (attribute >= 0) & ~dataset.aligned[label, attribute]
    return DrawAudit(
        weight, report, groups, group_draws(weight, label, attribute, against) if against.any() else None, kl, *decoded
    )


def group_draws(
    weight: Float[np.ndarray, "n"],
    label: Int[np.ndarray, "n"],
    attribute: Int[np.ndarray, "n"],
    members: Bool[np.ndarray, "n"],
) -> GroupDraws:
    """The share of the draws of some rows; the AUC of several labels is that of each, weighed by their members.

    >>> group_draws(np.array([1.0, 3.0, 2.0, 2.0]), np.array([0, 0, 1, 1]), np.array([0, 1, 0, -1]),
    ...             np.array([False, True, False, False]))
    GroupDraws(rows=1, row_share=0.333..., draw_share=0.5, auc=1.0)
    """
    known = attribute >= 0
    aucs = [
        (float(members[label == y].sum()), weight_auc(weight[known & (label == y)], members[known & (label == y)]))
        for y in np.unique(label)
    ]
    aucs = [(rows, auc) for rows, auc in aucs if not np.isnan(auc)]
    auc = sum(rows * auc for rows, auc in aucs) / sum(rows for rows, _ in aucs) if aucs else float("nan")
    return GroupDraws(
        int(members.sum()), float(members.sum() / known.sum()), float(weight[members].sum() / weight[known].sum()), auc
    )


def _pixels(images: Any) -> np.ndarray:
    return (255 * np.clip(np.asarray(images), 0, 1)).round().astype(np.uint8)
