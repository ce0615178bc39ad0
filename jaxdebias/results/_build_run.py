"""From measurements, repairs and ranked samples to the record of a classifier on a data set."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import jax

from jaxdebias import auditing
from jaxdebias.core import Batch, Dataset, Params
from jaxdebias.measure import _groups as groups
from jaxdebias.mitigate._fmd.config import FmdConfig, FmdInfo
from jaxdebias.results import records
from jaxdebias.results._intervals import difference, largest_difference, rate, rate_at
from jaxdebias.results._plain import finite, nested, plain


def run_results(
    command: Literal["train", "debias", "audit", "audit-predictions"],
    provenance: records.Provenance,
    dataset: Dataset,
    *,
    method: str,
    model: str,
    attribute: str,
    items: str,
    before: records.Measurement,
    after: records.Measurement | None = None,
    edit: records.Edit | None = None,
    baselines: Mapping[str, records.Baseline] | None = None,
    training: records.Training | None = None,
    harmful: Sequence[auditing.Harmful | records.Sample] = (),
    helpful: Sequence[auditing.Harmful | records.Sample] = (),
    findings: Sequence[str] = (),
) -> records.RunResults:
    """The record of a classifier on a data set, without what only some commands have: `dataclasses.replace` adds it.

    Args:
      command: which command found it.
      provenance: with what, when and from what it was made.
      dataset: the data set that was measured.
      method: name of the method, as on the command line.
      model: name of the model.
      attribute: name of the attribute in sentences, unless the data set gives one.
      items: what samples are called in sentences.
      before: on the test set, before any repair.
      after: after the repair, if one was made and kept.
      edit: what the repair changed.
      baselines: other ways, by name.
      training: how the model was trained; None: it came from outside.
      harmful: training samples whose removal would lower the bias.
      helpful: training samples whose removal would raise it.
      findings: remarks for people.
    """
    return records.RunResults(
        command=command,
        provenance=provenance,
        dataset=dataset.name,
        variant=plain(dict(dataset.variant)),
        method=method,
        model=model,
        attribute=str(dataset.variant.get("attribute", attribute)),
        items=items,
        level=0.95,
        pairing=dataset.pairing,
        label_names=tuple(map(str, dataset.label_names)),
        attribute_names=tuple(map(str, dataset.attribute_names)),
        train_counts=nested(auditing.train_counts(dataset)),
        aligned=nested(dataset.aligned),
        before=before,
        after=after,
        edit=edit,
        baselines={} if baselines is None else dict(baselines),
        training=records.Training(epochs=0, loss=()) if training is None else training,
        harmful=samples(harmful),
        harmful_rows=table_rows(dataset, harmful),
        helpful=samples(helpful),
        helpful_rows=table_rows(dataset, helpful),
        findings=tuple(findings),
    )


def measurement(measured: auditing.Measurement, dataset: Dataset) -> records.Measurement:
    """What a model does on the test set."""
    report, fairness, names = measured.groups, measured.fairness, tuple(map(str, dataset.attribute_names))
    cells = itertools.product(range(len(dataset.label_names)), range(len(dataset.attribute_names)))
    return records.Measurement(
        accuracy=rate(report.accuracy),
        group_mean_accuracy=rate(report.group_mean_accuracy),
        reweighted_accuracy=rate(report.reweighted_accuracy),
        worst_group_accuracy=_worst_group(report, dataset),
        bias_aligned_accuracy=rate(report.bias_aligned_accuracy),
        bias_conflicting_accuracy=rate(report.bias_conflicting_accuracy),
        counterfactual_bias=rate(measured.counterfactual_bias),
        alignment_gap=difference(report.alignment_gap),
        demographic_parity_difference=fairness and largest_difference(fairness.demographic_parity_difference, names),
        equal_opportunity_difference=fairness and largest_difference(fairness.equal_opportunity_difference, names),
        equalised_odds_difference=fairness and largest_difference(fairness.equalised_odds_difference, names),
        groups=tuple(_group(report, label, attribute, dataset) for label, attribute in cells),
        confusion_by_group=nested(report.confusion),
    )


def _worst_group(report: groups.GroupReport, dataset: Dataset) -> records.GroupRate | None:
    worst = rate(report.worst_group_accuracy)
    if worst is None:
        return None
    label, attribute = report.worst_group
    name = f"{dataset.label_names[label]} · {dataset.attribute_names[attribute]}"
    return records.GroupRate(
        value=worst.value,
        low=worst.low,
        high=worst.high,
        n=worst.n,
        group=name,
        indistinguishable=report.indistinguishable,
    )


def _group(report: groups.GroupReport, label: int, attribute: int, dataset: Dataset) -> records.Group:
    n = int(report.count[label, attribute])
    return records.Group(
        label=label,
        attribute=attribute,
        label_name=str(dataset.label_names[label]),
        attribute_name=str(dataset.attribute_names[attribute]),
        aligned=bool(dataset.aligned[label, attribute]),
        n=n,
        accuracy=rate_at(report.groups, label, attribute),
        flagged=bool(report.small[label, attribute] or n == 0),
    )


def edit(info: FmdInfo, params: Params, edited: Params, config: FmdConfig) -> records.Edit:
    """What an edit of Fast Model Debias changed and why it ended, round by round.

    Args:
      info: of the edit.
      params: the parameters that went in.
      edited: those that came out.
      config: of the edit.
    """
    rounds = tuple(
        records.Round(
            round=number,
            u=finite(one.u),
            t=finite(one.t),
            predicted_change=finite(one.predicted_change),
            achieved_change=finite(one.achieved_change),
            accept_accuracy=finite(one.accuracy),
            accept_bias=finite(one.bias),
            aligned_accuracy=finite(one.aligned_accuracy),
            residual=finite(one.residual),
            smallest_pivot=finite(one.smallest_pivot),
            gradient_norm=finite(one.gradient_norm),
        )
        for number, one in enumerate(info.rounds, 1)
    )
    return records.Edit(
        accepted=bool(info.accepted),
        reason=_reason(info, config),
        **parameter_counts(params, edited),
        rounds=rounds,
        accept_before=records.AcceptanceScores(
            accuracy=finite(info.accuracy_before),
            bias=finite(info.bias_before),
            aligned_accuracy=finite(info.aligned_before),
        ),
        accept_after=records.AcceptanceScores(
            accuracy=finite(info.accuracy_after),
            bias=finite(info.bias_after),
            aligned_accuracy=finite(info.aligned_after),
        ),
    )


def round_seconds(rounds: Sequence[Any]) -> dict[str, float]:
    """Wall time of each round of an edit, as `Provenance.seconds_by_part` has it.

    Args:
      rounds: with `seconds`, in order.
    """
    return {f"round {number}": float(one.seconds) for number, one in enumerate(rounds, 1)}


def _reason(info: FmdInfo, config: FmdConfig) -> str:
    taken = sum(one.u != 0.0 for one in info.rounds)
    if not info.accepted and taken:
        return (
            f"The bias of the acceptance pairs fell by {info.bias_drop_z:.1f} standard errors, less than the "
            f"{config.significance:g} asked for: rolled back."
        )
    if not info.accepted:
        return "No step lowered the bias on the acceptance split at no more than a point of accuracy: rolled back."
    if not config.search:
        return "One step at t = 1, taken without a line search."
    if taken < len(info.rounds):
        return f"Ended after {taken} rounds: no further step helped on the acceptance split."
    return f"All {taken} rounds were taken, each by a line search on the acceptance split."


def refit(reason: str, params: Params, edited: Params) -> records.Edit:
    """What a repair without rounds changed, which is always kept."""
    return records.Edit(accepted=True, reason=reason, **parameter_counts(params, edited), rounds=())


def samples(found: Sequence[auditing.Harmful | records.Sample]) -> tuple[records.Sample, ...]:
    """Training samples at one end of the influence ranking."""
    return tuple(
        records.Sample(index=int(one.index), label=int(one.label), attribute=int(one.attribute), score=float(one.score))
        for one in found
    )


def table_rows(dataset: Dataset, found: Sequence[auditing.Harmful | records.Sample]) -> records.RankedRows | None:
    """Categories and standardised numbers of ranked training samples; None unless the columns have names."""
    if not dataset.feature_names:
        return None
    return tuple(_row(dataset.splits["train"], one.index, dataset.feature_names) for one in found)


def _row(batch: Batch, index: int, names: tuple[str, ...]) -> dict[str, str]:
    shown: dict[str, str] = {}
    for name, value in zip(names, batch.x[index].tolist(), strict=True):
        column, _, category = name.partition("=")
        if not category:
            shown[column] = f"{value:+.1f}"
        elif value > 0.5:
            shown[column] = category
    return shown


class ParameterCounts(TypedDict):
    """Two fields of `records.Edit`."""

    parameters: int
    parameters_changed: int


def parameter_counts(params: Params, edited: Params) -> ParameterCounts:
    """How many parameters there are, and how many lie in leaves that are not the same object any more."""
    old, new = jax.tree.leaves(params), jax.tree.leaves(edited)
    changed = sum(a.size for a, b in zip(old, new, strict=True) if a is not b)
    return {"parameters_changed": int(changed), "parameters": int(sum(leaf.size for leaf in old))}
