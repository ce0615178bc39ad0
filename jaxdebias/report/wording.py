"""What is said about a result: the name and meaning of each metric, and the verdict in plain words."""

import dataclasses
from typing import Literal, NamedTuple

from jaxdebias.mitigate._aug_cell.info import AugCellInfo
from jaxdebias.report import formats
from jaxdebias.report.formats import Change, Estimate, applies, percent, points
from jaxdebias.report.method_names import method_name
from jaxdebias.results.records import FeatureResults, Group, Measurement, Metrics, Rate, RunResults

JUDGES = {
    "aug-cell": "networks that see shapes badly",
    "sih": "the biased branch of SiH, which follows what is learned first",
}
"""Who says what a sample looks like, where no attribute is given."""


class Metric(NamedTuple):
    """How one metric is called and explained. The explanation may use {attribute} and {items}."""

    key: str
    name: str
    explanation: str
    higher_is_better: bool = True

    @property
    def unit(self) -> str:
        """A share is in percent, a difference in percentage points."""
        return "%" if self.higher_is_better else "points"

    def of(self, measurement: Metrics) -> Rate | None:
        """The rate in a measurement; None where it has none."""
        return getattr(measurement, self.key, None)

    def show(self, rate: Estimate | None) -> str:
        """The value with its unit."""
        value = rate.value if applies(rate) else None
        return percent(value) if self.higher_is_better else points(value)


METRICS = (
    Metric("accuracy", "Accuracy", "Share of the test {items} that the model gets right."),
    Metric("bias_aligned_accuracy", "Bias-aligned accuracy",
           "Accuracy on {items} whose {attribute} is associated with their label in training."),
    Metric("bias_conflicting_accuracy", "Bias-conflicting accuracy",
           "Accuracy on {items} whose {attribute} is associated with another label."),
    Metric("counterfactual_bias", "Counterfactual bias",
           "How far the probability of the true label moves, on average, when only the {attribute} changes.", False),
    Metric("worst_group_accuracy", "Worst-group accuracy",
           "Accuracy in the group where the model does worst; a group is one label with one {attribute}."),
    Metric("group_mean_accuracy", "Group-mean accuracy", "Mean of the accuracies of all groups: each counts the same."),
    Metric("reweighted_accuracy", "Re-weighted accuracy",
           "Group accuracies weighted by their share of the training data: what a test set as skewed would show."),
    Metric("demographic_parity_difference", "Demographic parity difference",
           "Largest difference between values of the {attribute} in how often a label is predicted.", False),
    Metric("equal_opportunity_difference", "Equal opportunity difference",
           "Largest difference between values of the {attribute} in the share of true positives found.", False),
    Metric("equalised_odds_difference", "Equalised odds difference",
           "Largest difference between values of the {attribute} in true or in false positive rates.", False),
)  # fmt: skip
GAP = Metric("alignment_gap", "Alignment gap", "Bias-aligned minus bias-conflicting accuracy.", False)
METRIC = {metric.key: metric for metric in (*METRICS, GAP)}
"""Every metric by its key. The gap is the difference of two rows of a table, and so has none of its own there."""
MATCHED_GAP = Metric("counterfactual_bias", "Matched-pair gap",
                     "Pairs of different {items} of one label, with the {attribute} associated with it and with "
                     "another: how far the mean probability of the true label differs between the two sides.",
                     False)  # fmt: skip
"""What `counterfactual_bias` is where a twin is not the same sample: nothing was changed in any picture."""


class Words(NamedTuple):
    """What the attribute and the samples are called in sentences."""

    attribute: str
    items: str


def matched(record: RunResults | FeatureResults) -> bool:
    """Whether the pairs are different samples of one label."""
    return record.bias == "gap" if isinstance(record, FeatureResults) else record.pairing == "matched"


def metrics_of(record: RunResults | FeatureResults) -> tuple[Metric, ...]:
    """`METRICS`, as they are called for the pairs of these results."""
    return tuple(metric_of(record, metric.key) for metric in METRICS)


def metric_of(record: RunResults | FeatureResults, key: str) -> Metric:
    return MATCHED_GAP if key == MATCHED_GAP.key and matched(record) else METRIC[key]


def words(record: RunResults) -> Words:
    return Words(record.attribute, record.items)


def group_name(group: Group) -> str:
    return f"{group.label_name} · {group.attribute_name}"


def as_shown(record: RunResults) -> RunResults:
    """Results without the measurement after an edit that was rolled back: it is the one before, to the bit."""
    rolled_back = record.edit is not None and not record.edit.accepted
    return dataclasses.replace(record, after=None) if rolled_back else record


class Verdict(NamedTuple):
    """The top of a page, in words."""

    level: Literal["strong", "slight", "none", "unknown"]
    """How loud the page is."""
    headline: str
    """The headline of the verdict."""
    diagnosis: list[str]
    """Sentences: what was measured, where nothing was judged."""
    repair: list[str]
    """Sentences: what to do, and what the edit or the other method changed."""


LEVELS = {
    "reliance_retrain": "strong",
    "reliance_repaired": "strong",
    "disparity_cause_not_shown": "strong",
    "disparity_repaired": "strong",
    "no_problem_found": "none",
    "not_enough_data": "unknown",
}
"""How loud the page is, by advice."""
NOT_JUDGED = "Measured, not judged: this result holds no verdict."


def verdict(record: RunResults) -> Verdict:
    """The words at the top of a page: those of the record's verdict, and what was changed.

    Nothing is judged here. A record without a verdict, of an earlier version, says so and shows what was measured.
    """
    found = record.verdict
    if found is None:
        return Verdict("unknown", NOT_JUDGED, _diagnosis(record, gap_of(record.before)), _repair(record))
    changed = _repair(record) if record.command == "debias" else []
    return Verdict(LEVELS[found.advice.state], found.headline, [], [found.advice.sentence, *changed])


def gap_of(measurement: Measurement) -> Change | None:
    """Bias-aligned minus bias-conflicting accuracy, with its interval."""
    return Change.of(measurement.alignment_gap)


def errors_of_the_attribute(record: RunResults, measurement: Measurement) -> float | None:
    """Share of the errors on bias-conflicting samples that name a label which the attribute is associated with.

    None with two labels, where every error does, and where there are fewer than 30 errors to speak of.
    """
    aligned, confusion = record.aligned, measurement.confusion_by_group
    k, a = len(record.label_names), len(record.attribute_names)
    if k < 3:
        return None
    errors = named = 0
    for label in range(k):
        for attribute in range(a):
            if aligned[label][attribute]:
                continue
            for predicted in range(k):
                if predicted != label:
                    errors += confusion[label][attribute][predicted]
                    named += confusion[label][attribute][predicted] * bool(aligned[predicted][attribute])
    return named / errors if errors >= 30 else None


def _diagnosis(record: RunResults, gap: Change | None) -> list[str]:
    attribute, items = words(record)
    before, out = record.before, []
    if gap:
        aligned, conflicting = before.bias_aligned_accuracy, before.bias_conflicting_accuracy
        if gap.separable:
            verb = "falls" if gap.value > 0 else "rises"
            out.append(f"Accuracy {verb} from {percent(aligned.value)} on bias-aligned to "
                       f"{percent(conflicting.value)} on bias-conflicting {items}.")  # fmt: skip
        else:
            out.append(f"Accuracy on bias-aligned ({percent(aligned.value)}) and bias-conflicting {items} "
                       f"({percent(conflicting.value)}) is not separable.")  # fmt: skip
        share = errors_of_the_attribute(record, before)
        if share is not None and gap.separable and gap.value > 0:
            out.append(f"Of its errors on the latter, {percent(share, 0)} name the label that the {attribute} "
                       f"is associated with.")  # fmt: skip
    if applies(before.counterfactual_bias) and matched(record):
        out.append(f"Between different {items} of one label, with the {attribute} associated with it and with another, "
                   f"the mean probability of the true label differs by "
                   f"{points(before.counterfactual_bias.value)}.")  # fmt: skip
    elif applies(before.counterfactual_bias):
        out.append(f"Changing nothing but the {attribute} moves the probability of the true label by "
                   f"{points(before.counterfactual_bias.value)} on average.")  # fmt: skip
    if gap is None:
        for key, what in (("demographic_parity_difference", "How often a label is predicted differs"),
                          ("equalised_odds_difference", "True or false positive rates differ")):  # fmt: skip
            rate = METRIC[key].of(before)
            if applies(rate):
                out.append(f"{what} by up to {points(rate.value)} between values of the {attribute}.")
    return out


def metric_change(record: RunResults | FeatureResults, key: str) -> Change | None:
    """after - before of one metric: the paired interval where the results have one."""
    if record.after is None:
        return None
    paired = (record.changes or {}).get(key)
    if paired is not None and paired.value is not None:
        return Change.of(paired)
    return formats.change(METRIC[key].of(record.before), METRIC[key].of(record.after))


def _repair_noun(record: RunResults) -> str:
    name = method_name(record.method)
    return f"The {name} edit" if record.edit is not None else name


def _repair(record: RunResults) -> list[str]:
    edit, after = record.edit, record.after
    _, items = words(record)
    if edit is not None and not edit.accepted:
        reason = edit.reason.rstrip(". ")
        return [f"{_repair_noun(record)} was not accepted: {reason}. The model is as it was, to the bit."]
    if after is None:
        return []
    out = []
    if edit is not None:
        taken = record.provenance.seconds_by_step.get("edit")
        time = f" in {formats.seconds(taken)}" if taken else ""
        out.append(f"{_repair_noun(record)} changed {formats.count(edit.parameters_changed)} of "
                   f"{formats.count(edit.parameters)} parameters{time}.")  # fmt: skip
    moves = [
        _move(record, key, where)
        for key, where in (
            ("bias_conflicting_accuracy", f"Accuracy on bias-conflicting {items}"),
            ("bias_aligned_accuracy", "on bias-aligned ones it"),
            ("counterfactual_bias", "The gap between matched pairs" if matched(record) else "Counterfactual bias"),
        )
    ]
    if moves[0] and moves[1]:
        out.append(f"{moves[0]}; {moves[1]}.")
    else:
        out += [f"{move}." for move in moves[:1] if move]
    if moves[2]:
        out.append(f"{moves[2]}.")
    if not any(moves) and (move := _move(record, "accuracy", "Accuracy")):
        out.append(f"{move}.")
    rest = gap_of(after)
    if rest and rest.separable and rest.value > 0:
        out.append(f"A gap of {points(rest.value)} between aligned and conflicting {items} remains.")
    return out


def _move(record: RunResults, key: str, subject: str) -> str:
    difference = metric_change(record, key)
    if difference is None:
        return ""
    metric = METRIC[key]
    old, new = metric.show(metric.of(record.before)), metric.show(metric.of(record.after))
    if difference.separable is False:
        return f"{subject} stays, within the error, at {new}"
    if metric.unit == "points":
        old = old.removesuffix(" points")
    return f"{subject} {'rises' if difference.value > 0 else 'falls'} from {old} to {new}"


def baseline_remarks(record: RunResults) -> list[str]:
    """Which baselines are more or less accurate than the repair, beyond the error. Honest either way."""
    if record.after is None or not record.baselines:
        return []
    noun = "the edit" if record.edit is not None else method_name(record.method)
    sides: dict[str, list[str]] = {"more accurate than": [], "less accurate than": [],
                                   "not separable in accuracy from": []}  # fmt: skip
    for name, baseline in record.baselines.items():
        difference = Change.of(baseline.accuracy_change)
        if difference is not None:
            side = "not separable in accuracy from" if not difference.separable else (
                "more accurate than" if difference.value > 0 else "less accurate than")  # fmt: skip
            sides[side].append(method_name(name))
    return [f"{_capital(_listing(names))} {'is' if len(names) == 1 else 'are'} {side} {noun}."
            for side, names in sides.items() if names]  # fmt: skip


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _listing(names: list[str]) -> str:
    """
    >>> _listing(["DFR", "fine-tuning", "scratch"])
    'DFR, fine-tuning and scratch'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def aug_cell(info: AugCellInfo, items: str) -> list[str]:
    """What AUG-CELL guessed, chose and noticed, in sentences.

    Args:
      info: of the training.
      items: what samples are called.
    """
    said = [
        f"AUG-CELL read no attribute: {percent(info.cells.flagged_share)} of the training {items} look like "
        "another class to judges that have not seen them."
    ]
    if info.chosen != "erm":
        chosen, plain = info.scores[info.chosen], info.scores["erm"]
        said.append(
            f"Returned is the candidate {info.chosen!r}. Of held-out {items}, weighted so that guess and label "
            f"are independent, it gets {percent(chosen.cell_accuracy)} right and plain training "
            f"{percent(plain.cell_accuracy)}: {points(chosen.lead)} more, standard error "
            f"{points(chosen.lead_error)}."
        )
    return said + info.findings
