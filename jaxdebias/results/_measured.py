"""Records of what a model does on a test set, of a repair and of training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

Share = Annotated[float, Meta(ge=0, le=1)]
"""A fraction. Reading refuses what lies outside 0..1, a percentage above all."""
Count = Annotated[int, Meta(ge=0)]

METRICS = (
    "accuracy",
    "group_mean_accuracy",
    "reweighted_accuracy",
    "worst_group_accuracy",
    "bias_aligned_accuracy",
    "bias_conflicting_accuracy",
    "counterfactual_bias",
    "demographic_parity_difference",
    "equal_opportunity_difference",
    "equalised_odds_difference",
)
"""Fields of a `Measurement` that are rates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """An estimate with its interval at the confidence level of the results."""

    value: float | None
    """Estimate; null where it does not exist, for instance for an empty set."""
    low: float | None
    """Lower end of the interval; null where there is none."""
    high: float | None
    """Upper end of the interval; null where there is none."""
    n: Count | None
    """Number of independent units behind the estimate; null where not counted."""

    @property
    def known(self) -> bool:
        """Whether there is an estimate."""
        return self.value is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate(Interval):
    """A fraction in 0..1 with its interval."""

    value: Share | None
    """Estimate, a fraction in 0..1; null where it does not exist, for instance for an empty set."""
    low: Share | None
    """Lower end of the interval, in 0..1; null where there is none."""
    high: Share | None
    """Upper end of the interval, in 0..1; null where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupRate(Rate):
    """The rate of one group, and which group that is."""

    group: str | None = None
    """Name of the group, `LABEL · ATTRIBUTE`; absent where groups have no names."""
    indistinguishable: Count | None = None
    """How many other groups the test set cannot tell from it; absent where not counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference(Interval):
    """A difference of two rates on different rows."""

    separable: bool | None = None
    """Whether it can be told from none; absent where that was not tested."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change(Difference):
    """A difference of two models on the same rows, after minus before."""

    p: Share | None = None
    """P-value of the test of no difference; absent where no test was made."""
    discordant: Count | None = None
    """Rows (units, where rows are clustered) on which the two models differ; absent where not counted."""
    separable: bool | None = None
    """Whether test, interval and discordant rows agree that there is a difference; absent where no test was made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LargestDifference(Rate):
    """The largest difference of a rate between two attribute values that are large enough to compare."""

    p: Share | None
    """P-value of equal rates in all groups; null where there is no difference."""
    highest: str | None
    """Attribute value with the highest rate; null where there is no difference."""
    lowest: str | None
    """Attribute value with the lowest rate; null where there is no difference."""
    all_groups: Share | None
    """The same difference with the groups that were left out; null without two groups."""
    left_out: tuple[str, ...]
    """Attribute values with fewer than 30 test samples to take the rate over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The test samples of one label and one attribute value."""

    label: Count
    """Index into `label_names`."""
    attribute: Count
    """Index into `attribute_names`."""
    label_name: str
    """Name of the label."""
    attribute_name: str
    """Name of the attribute value."""
    aligned: bool
    """Whether the attribute value is associated with the label in training."""
    n: Count
    """Number of test samples."""
    accuracy: Rate
    """Accuracy in the group; its value is null where n is 0."""
    flagged: bool
    """Whether the group has fewer than 30 test samples, so that its accuracy is hardly known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """The rates that need predictions on a test set and pairs only. Each is null where it does not apply."""

    accuracy: Rate | None
    """Share of the test samples that are classified correctly."""
    worst_group_accuracy: GroupRate | None
    """Lowest accuracy among the groups, with the name of the group."""
    group_mean_accuracy: Rate | None
    """Mean of the accuracies of all groups, each counted equally."""
    bias_aligned_accuracy: Rate | None
    """Accuracy on samples whose attribute is associated with their label in training."""
    bias_conflicting_accuracy: Rate | None
    """Accuracy on all other samples of known attribute."""
    counterfactual_bias: Rate | None
    """Mean change of the probability of the true class when only the attribute changes; with matched pairs the gap
    between the means of both sides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement(Metrics):
    """What a model does on the test set."""

    reweighted_accuracy: Rate | None
    """Mean of the accuracies of all groups, weighted by their training counts."""
    alignment_gap: Difference | None
    """Bias-aligned minus bias-conflicting accuracy."""
    demographic_parity_difference: LargestDifference | None
    """Largest difference of the rates of class 1 between attribute values; two classes only."""
    equal_opportunity_difference: LargestDifference | None
    """Largest difference of the true positive rates between attribute values; two classes only."""
    equalised_odds_difference: LargestDifference | None
    """Largest difference of true or false positive rates between attribute values; two classes only."""
    groups: tuple[Group, ...]
    """All groups, label by label."""
    confusion_by_group: tuple[tuple[tuple[Count, ...], ...], ...]
    """Counts `[k][a][k]`: true label, attribute, predicted label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """Another way to get a less biased model, measured on the same test set."""

    measurement: Measurement
    """What its model does on the test set."""
    needs: str
    """Data and labels that it needs, as text."""
    accuracy_change: Change | None = None
    """Its accuracy minus that of the repaired model, on the same test rows; absent where not compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One round of an edit. Rates are those on the held-out acceptance set after the round."""

    round: int
    """Number of the round, from 1."""
    u: float | None
    """Chosen step, as root-mean-square change of the logits; 0: no step was better."""
    t: float | None
    """The same step as a multiple of the influence step."""
    predicted_change: float | None
    """Change of the bias that the step predicts to first order."""
    achieved_change: float | None
    """Change of the bias that was measured."""
    accept_accuracy: float | None
    """Accuracy, in 0..1."""
    accept_bias: float | None
    """Counterfactual bias, in 0..1."""
    aligned_accuracy: float | None
    """Accuracy on the aligned side of the pairs, in 0..1."""
    residual: float | None
    """Relative residual of the linear solve."""
    smallest_pivot: float | None
    """Smallest pivot of a dense factor; null without one."""
    gradient_norm: float | None
    """Norm of the gradient of the summed training loss before the round."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceptanceScores:
    """Scores on the held-out acceptance set, on which an edit is judged."""

    accuracy: float | None
    """Accuracy, in 0..1."""
    bias: float | None
    """Counterfactual bias, in 0..1."""
    aligned_accuracy: float | None
    """Accuracy on the aligned side of the pairs, in 0..1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """What a repair changed in the model, and why it ended."""

    accepted: bool
    """Whether the repaired parameters were kept; if not, the model is as it was."""
    reason: str
    """Why it ended, was kept or was rolled back, as a sentence."""
    parameters_changed: Count
    """Number of parameters in arrays that changed."""
    parameters: Count
    """Number of parameters of the model."""
    rounds: tuple[Round, ...]
    """Rounds of Fast Model Debias; empty for other repairs."""
    accept_before: AcceptanceScores | None = None
    """Scores before the first round; absent for repairs without rounds."""
    accept_after: AcceptanceScores | None = None
    """Scores of the model that was kept; absent for repairs without rounds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A training sample and its influence on the counterfactual bias."""

    index: Count
    """Row of the training split."""
    label: Count
    """Index into `label_names`."""
    attribute: int
    """Index into `attribute_names`; -1 unknown."""
    score: float
    """Predicted fall of the bias if the sample were removed; negative: the bias would rise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How the model was trained."""

    epochs: Count
    """Number of epochs; 0 where the model came from outside."""
    loss: tuple[float | None, ...]
    """Mean training loss of each epoch or chunk of epochs; null where it was not finite."""


RankedRows = tuple[Mapping[str, str], ...]
"""Rows of a table as text, by column."""
