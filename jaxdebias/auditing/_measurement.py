"""From a trained model and a data set to numbers: how biased, in which groups, because of which samples.

The functions here only call what `measure` and `explain` offer; what they return is for `jaxdebias.app.train` and for
whoever wants the same answers about an own model:

    measurement = measure(key, apply_fn, params, dataset)
    measurement.groups.worst_group_accuracy, measurement.counterfactual_bias
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from jaxdebias.batching import map_rows, predict_rows
from jaxdebias.contracts import check_choice, check_logits, expect
from jaxdebias.core import Array, Batch, Dataset, Key, Params, Split, cell_counts
from jaxdebias.explain import influence
from jaxdebias.measure import _counterfactual as counterfactual
from jaxdebias.measure import _fairness as fairness
from jaxdebias.measure import _groups as groups
from jaxdebias.measure._intervals import Interval
from jaxdebias.measure._mean_intervals import mean_change
from jaxdebias.measure._row_intervals import PairedChange

ApplyFn = Callable[[Params, Array], jax.Array]


AVERAGES = {
    "plain": "accuracy",
    "all groups alike": "group_mean_accuracy",
    "groups as in training": "reweighted_accuracy",
}
AMBIGUOUS = 0.05
"""Averages of accuracy that are further apart than this are called ambiguous."""


UNKNOWN = Interval(float("nan"), float("nan"), float("nan"), 0)
OF_ALIGNMENT = ("bias_aligned_accuracy", "bias_conflicting_accuracy", "alignment_gap")
"""Metrics that exist only where the aligned cells are known."""


class Measurement(NamedTuple):
    """What a model does on one split. Rates are fractions; an `Interval` is None where it does not apply."""

    groups: groups.GroupReport
    counterfactual_bias: Interval | None
    """Over the split's pairs: mean |p_y(x) - p_y(twin)| where the twin is the same example, else the gap of means."""
    fairness: fairness.FairnessReport | None
    """For two classes; class 1 is the positive one."""
    logits: np.ndarray
    """`[n k]` on the split."""
    pair_probability: np.ndarray | None
    """`[m 2]`, the probability of the true class at x and at the twin of each pair."""


class Harmful(NamedTuple):
    """A training sample and what it did to the bias."""

    index: int
    """Its row in the training split."""
    label: int
    attribute: int
    score: float
    """Predicted fall of the counterfactual bias if the sample were removed; negative: it would rise."""


class Influential(NamedTuple):
    """The two ends of the training set, by influence on the counterfactual bias."""

    harmful: list[Harmful]
    """Removing them would lower the bias; the most harmful first."""
    helpful: list[Harmful]
    """Removing them would raise it; the most helpful first."""


def measure(key: Key, apply_fn: ApplyFn, params: Params, dataset: Dataset, *, split: str = "test") -> Measurement:
    """Measures any model on a split of a data set, every number with its 95 % interval.

    Args:
      key: randomness of intervals and tests.
      apply_fn: `(params, x) -> logits [n k]` in evaluation mode; x as stored (uint8 or float).
      params: its parameters.
      dataset: gives the split, its pairs, the aligned cells and the training counts.
      split: name of the split.

    Raises:
      ContractError: an unknown split, or logits of the wrong shape or not finite.
    """
    check_choice("split", split, dataset.splits)
    logits = np.asarray(predict_rows(apply_fn, params, dataset.splits[split].x))
    both = None
    if split in dataset.pairs:
        pairs = dataset.pairs[split]
        both = tuple(predict_rows(apply_fn, params, x) for x in (pairs.x, pairs.twin))
    return measure_predictions(key, logits, dataset, split=split, pair_logits=both)


def measure_predictions(
    key: Key,
    predicted: Shaped[Array, "n *k"],
    dataset: Dataset,
    *,
    split: str = "test",
    pair_logits: tuple[Array, Array] | None = None,
) -> Measurement:
    """The same from predictions that are there already, whatever made them.

    Args:
      key: random key.
      predicted: on the split, logits `[n k]` float or classes `[n]` int.
      dataset: the data set.
      split: name of the split that was predicted.
      pair_logits: logits `[m k]` at x and at the twin of the split's pairs; None: no counterfactual bias.
    """
    check_choice("split", split, dataset.splits)
    batch = dataset.splits[split]
    classes, attributes = dataset.aligned.shape
    key_pairs, key_fairness = jax.random.split(key)
    if np.ndim(predicted) == 1:
        predicted = np.eye(classes, dtype=np.float32)[
            groups.predicted_class("predicted", predicted, len(batch.label), classes)
        ]
    logits = np.asarray(predicted)
    check_logits(logits, len(batch.label), classes=classes)
    counts = train_counts(dataset)
    report = groups.group_report(logits, batch, dataset.aligned, train_counts=counts if counts.any() else None)
    if not dataset.aligned.any():  # unknown: no cell is conflicting either
        report = report._replace(**dict.fromkeys(OF_ALIGNMENT, UNKNOWN))
    bias = probability = None
    if pair_logits is not None:
        pairs = dataset.pairs[split]
        kind = "pair" if dataset.pairing == "counterfactual" else "gap"
        bias = counterfactual.counterfactual_bias_of_logits(
            *pair_logits, pairs.label, key=key_pairs, kind=kind, unit=pairs.unit, weight=pairs.weight
        )
        probability = np.stack(
            [np.asarray(counterfactual.true_class_probability(logits, pairs.label)) for logits in pair_logits], axis=1
        )
    fair = None
    attribute = known_attribute(batch)
    if _has_fairness(dataset, attribute):
        fair = fairness.fairness_report(
            key_fairness, logits, batch.label, attribute, unit=batch.unit, attributes=attributes
        )
    return Measurement(report, bias, fair, logits, probability)


def changes(
    key: Key, before: Measurement, after: Measurement, dataset: Dataset, *, split: str = "test"
) -> dict[str, PairedChange]:
    """`after - before` of each accuracy, fairness difference and the counterfactual bias, paired over test samples."""
    key_groups, key_pairs, key_fairness = jax.random.split(key, 3)
    counts = train_counts(dataset)
    differences = groups.accuracy_differences(
        key_groups,
        before.logits,
        after.logits,
        dataset.splits[split],
        dataset.aligned,
        train_counts=counts if counts.any() else None,
    )._asdict()
    batch = dataset.splits[split]
    attribute = known_attribute(batch)
    if _has_fairness(dataset, attribute):
        differences |= fairness.fairness_differences(
            key_fairness,
            before.logits,
            after.logits,
            batch.label,
            attribute,
            unit=batch.unit,
            attributes=dataset.aligned.shape[1],
        )._asdict()
    if not dataset.aligned.any():
        differences = {name: change for name, change in differences.items() if name not in OF_ALIGNMENT}
    if before.pair_probability is not None:
        sides = [_bias_terms(measured.pair_probability, dataset.pairing) for measured in (before, after)]
        pairs = dataset.pairs[split]
        differences["counterfactual_bias"] = mean_change(
            *sides, key=key_pairs, unit=pairs.unit, weight=pairs.weight, bounds=(-1.0, 1.0)
        )
    return differences


def _has_fairness(dataset: Dataset, attribute: np.ndarray) -> bool:
    """Whether fairness differences are measured: for two classes, between the attribute values that occur."""
    return len(dataset.label_names) == 2 and len(np.unique(attribute[attribute >= 0])) > 1


def most_harmful(
    split: Split,
    params: Params,
    dataset: Dataset,
    *,
    count: int = 12,
    damping: float = 1e-3,
    head_path: tuple[str | int, ...] | None = None,
) -> list[Harmful]:
    """The training samples whose removal would lower the counterfactual bias most; arguments as in `influential`."""
    return influential(split, params, dataset, count=count, damping=damping, head_path=head_path).harmful


def influential(
    split: Split,
    params: Params,
    dataset: Dataset,
    *,
    count: int = 12,
    damping: float = 1e-3,
    head_path: tuple[str | int, ...] | None = None,
) -> Influential:
    """The training samples that do most for and most against the counterfactual bias, by influence on the last layer.

    The bias is that of the `edit` pairs, never of the test set. The scores are first-order: an explanation of what
    the model leans on, not a list of samples to delete (see `explain.influence.scores`).

    Args:
      split: the model cut before its last layer.
      params: of the trained model.
      dataset: its train split and edit pairs are used; without edit pairs both lists are empty.
      count: how many of each.
      damping: on the curvature of the mean loss.
      head_path: where the last layer lies in params; None: as the split says.
    """
    if "edit" not in dataset.pairs:
        return Influential([], [])
    train, pairs = dataset.splits["train"], dataset.pairs["edit"]
    z, z_pairs, z_twins = (map_rows(split.features, params, jnp.asarray(x)) for x in (train.x, pairs.x, pairs.twin))
    head, _ = influence.find_head(split.head, params, head_path or split.head_path, z.shape[1])
    problem = influence.head_problem(z, train.label, head)
    inverse = influence.factor(problem, damping=damping * len(train.label))
    bias_fn = influence.pair_bias if dataset.pairing == "counterfactual" else influence.pair_gap
    gradient = influence.bias_gradient(bias_fn, head, influence.HeadPairs(z_pairs, z_twins, jnp.asarray(pairs.label)))
    change = influence.change_if_removed(problem, inverse, gradient)
    return Influential(
        *(
            [
                Harmful(int(i), int(train.label[i]), int(train.attribute[i]), float(s))
                for i, s in zip(*top(change, min(count, len(train.label))), strict=True)
            ]
            for top in (influence.top_harmful, influence.top_helpful)
        )
    )


def findings(dataset: Dataset, measured: Measurement, *, split: str = "test") -> list[str]:
    """Lists what a reader of the numbers must know, in plain sentences: guard rails, not results.

    Args:
      dataset: the data that were measured.
      measured: the measurement.
      split: name of the split that was measured.
    """
    remarks = []
    report, k = measured.groups, len(dataset.label_names)
    predicted = np.bincount(measured.logits.argmax(axis=-1), minlength=k)
    if np.count_nonzero(predicted) == 1:
        name = dataset.label_names[int(predicted.argmax())]
        remarks.append(f"The model is constant: it answers {name!r} to everything. A bias of 0 then means nothing.")
    if report.small.any():
        present = int(np.count_nonzero(report.count))
        remarks.append(
            f"{int(report.small.sum())} of {present} groups have fewer than {groups.SMALL_GROUP} test "
            "samples; they are flagged, and their rates say little."
        )
    if report.worst_group_is_small:
        remarks.append("The worst group is one of these small groups, so which group is worst may be chance.")
    averages = {name: getattr(report, field).value for name, field in AVERAGES.items()}
    known = [value for value in averages.values() if np.isfinite(value)]
    if known and max(known) - min(known) > AMBIGUOUS:
        values = ", ".join(f"{name} {100 * value:.1f} %" for name, value in averages.items() if np.isfinite(value))
        remarks.append(f"The average is ambiguous: {values}. Say which one is meant.")
    counts, aligned = train_counts(dataset), dataset.aligned
    declared = aligned.any() and not aligned.all()
    if not report.count.sum():
        remarks.append("No test sample has a known attribute: groups cannot be compared.")
    elif not counts.any() and not declared:
        name = str(dataset.variant.get("attribute", "attribute"))
        remarks.append(
            f"How {name} and the label are associated in training is unknown: no training sample with a known value "
            "was given."
        )
    elif not report.count[aligned].sum() or not report.count[~aligned].sum():
        remarks.append(
            "The test set has only bias-aligned or only bias-conflicting samples: the shortcut cannot "
            "be measured by accuracies alone."
        )
    if dataset.aligned.any() and counts.sum() and counts[~dataset.aligned].sum() == 0:
        remarks.append(
            "No training sample is bias-conflicting: the attribute and the label are the same thing in "
            "training, and nothing in the training set tells them apart."
        )
    if split not in dataset.pairs:
        remarks.append(
            "No counterfactual bias: the data hold no pairs that differ in the attribute. What would be "
            "needed: held-out samples of one label with different attributes."
        )
    elif dataset.pairing == "matched":
        remarks.append(
            "Pairs are different samples of one label, not the same sample with its attribute changed: "
            "what differs within one pair is no bias, the gap between the means of both sides is."
        )
    return remarks


def collapsed(name: str, measured: Measurement, label: Array) -> str:
    """A remark about a model that others are compared with and that has learned nothing; empty if it has.

    It answers one class to everything, or is no better than whoever answers the most frequent one.
    """
    label = np.asarray(label)
    guessing = np.bincount(label).max() / len(label)
    constant = len(np.unique(measured.logits.argmax(axis=-1))) == 1
    if constant and len(np.unique(label)) > 1:
        return f"{name} has collapsed: it answers one class to everything. Being better than it means nothing."
    if measured.groups.accuracy.high <= guessing:
        return (
            f"{name} has collapsed: it is worse than answering the most frequent class. Being better than it means "
            "nothing."
        )
    return ""


def train_counts(dataset: Dataset) -> np.ndarray:
    """`[k a]` training samples per group, 0 without a train split; samples of unknown attribute are left out."""
    if "train" not in dataset.splits:
        return np.zeros(dataset.aligned.shape, np.int64)
    train = dataset.splits["train"]
    return cell_counts(train.label, known_attribute(train), *dataset.aligned.shape)


def known_attribute(batch: Batch) -> np.ndarray:
    """`[n]`, the attribute; -1 where it is unknown, and in padding rows, so that they count in no table."""
    attribute = np.asarray(batch.attribute)
    return attribute if batch.weight is None else np.where(np.asarray(batch.weight) > 0, attribute, -1)


def worst_rows(batch: Batch, measured: Measurement, *, count: int = 12) -> np.ndarray:
    """Rows of the worst group, wrongly classified ones first; `[m]`, m at most `count`."""
    label, attribute = measured.groups.worst_group
    rows = np.flatnonzero((np.asarray(batch.label) == label) & (np.asarray(batch.attribute) == attribute))
    wrong = measured.logits[rows].argmax(axis=-1) != label
    return rows[np.argsort(~wrong, kind="stable")][:count]


def check_repairable(dataset: Dataset) -> None:
    """Refuses a data set without what a repair needs: held-out edit and accept samples, and pairs in both."""
    for name in ("edit", "accept"):
        got = f"pairs for {', '.join(dataset.pairs) or 'nothing'} in {dataset.name}"
        expect(
            name in dataset.splits and name in dataset.pairs,
            f"pairs[{name!r}]",
            "held-out samples of one label with different attributes",
            got,
        )


def _bias_terms(probability: np.ndarray, pairing: str) -> np.ndarray:
    """`[m]`, what the counterfactual bias is the mean of."""
    change = probability[:, 0] - probability[:, 1]
    # The sign of a gap is fixed by the data, as in `counterfactual_bias_of_logits`.
    return np.abs(change) if pairing == "counterfactual" else change * (1.0 if change.sum() >= 0 else -1.0)
