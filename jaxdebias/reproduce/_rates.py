"""What a table says of one trained classifier on the test split."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxdebias import auditing
from jaxdebias.core import Array, Dataset, Params

ACCURACIES = (
    "accuracy",
    "group_mean_accuracy",
    "worst_group_accuracy",
    "bias_aligned_accuracy",
    "bias_conflicting_accuracy",
)


def measured(key: Any, apply: Any, params: Params, dataset: Dataset) -> dict[str, float | None]:
    """Accuracies by group, counterfactual bias where there are pairs, and the gap between the groups.

    Args:
      key: of intervals.
      apply: `(params, x) -> logits [n k]`.
      params: of the classifier.
      dataset: split and pairs `test` are used.
    """
    said = auditing.measure(key, apply, params, dataset)
    rates: dict[str, float | None] = {name: getattr(said.groups, name).value for name in ACCURACIES}
    rates["counterfactual_bias"] = None if said.counterfactual_bias is None else said.counterfactual_bias.value
    rates["group_gap"] = group_gap(said.logits, dataset)
    return {name: None if value is None or not np.isfinite(value) else float(value) for name, value in rates.items()}


def group_gap(logits: Array, dataset: Dataset) -> float:
    """Mean probability of the true class over the aligned groups of the test split, less that over the conflicting.

    Signed; every group has the same weight.
    """
    test = dataset.splits["test"]
    label, attribute = np.asarray(test.label), np.asarray(test.attribute)
    probability = np.asarray(jax.nn.softmax(logits, axis=1))[np.arange(len(label)), label]
    means = np.full(dataset.aligned.shape, np.nan)
    for y, a in np.ndindex(*means.shape):
        member = (label == y) & (attribute == a)
        if member.any():
            means[y, a] = probability[member].mean()
    sides = [means[side][~np.isnan(means[side])] for side in (dataset.aligned, ~dataset.aligned)]
    return float(sides[0].mean() - sides[1].mean()) if all(map(len, sides)) else float("nan")


def changed(before: Params, after: Params) -> dict[str, float | int]:
    """How many numbers of the parameters differ, and which share of them."""
    leaves = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    count = sum(int(np.count_nonzero(np.asarray(a) != np.asarray(b))) for a, b in leaves)
    return {"changed": count, "changed_share": count / sum(int(np.size(a)) for a, _ in leaves)}


def said(info: Any) -> dict[str, Any]:
    """The numbers of an info that fit a table; FMD's rounds as their steps."""
    found = info if isinstance(info, Mapping) else info._asdict()
    plain = {name: value for name, value in found.items() if isinstance(value, bool | int | float | str)}
    plain |= {name: found[name].tolist() for name in ("per_class",) if isinstance(found.get(name), np.ndarray)}
    if "rounds" in found and isinstance(found["rounds"], tuple):
        plain["steps"] = [one.u for one in found["rounds"]]
    plain.pop("seconds", None)
    return plain
