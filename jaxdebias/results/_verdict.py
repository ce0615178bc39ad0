"""Records of the verdict: disparity, reliance and association, each with its evidence, and one piece of advice."""

from dataclasses import dataclass
from typing import Literal

from jaxdebias.results._measured import Count, Share


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """An estimate with its interval."""

    value: float
    """Estimate."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedGroup:
    """A group of rows, by the name of its attribute value."""

    name: str
    """Name of the attribute value."""
    n: Count
    """Number of rows, or of independent units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RatedGroup(NamedGroup):
    """A group of rows and its rate."""

    value: float
    """Rate of the group, in 0..1; of calibration_error, mean label minus mean probability, in -1..1."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Disparity:
    """Whether the model serves the values of an attribute differently, by one measure."""

    attribute: str
    """Name of the attribute; of several together, as `sex x age`."""
    measure: Literal[
        "accuracy",
        "positive_rate",
        "true_positive_rate",
        "false_positive_rate",
        "recall_of_class",
        "calibration_error",
    ]
    """What is compared between the values; positive_rate and calibration_error are reported and decide nothing."""
    class_: str | None
    """Name of the class that the measure is of, the key `class` in JSON; null where it is of none."""
    state: Literal["exceeds", "within", "cannot_tell"]
    """The gap against the tolerance."""
    gap: Estimate
    """Highest minus lowest value, in 0..1."""
    p: Share
    """P-value of no difference, adjusted over all attributes, pairs and measures (Holm)."""
    highest: RatedGroup
    """Group with the highest value."""
    lowest: RatedGroup
    """Group with the lowest value."""
    left_out: tuple[NamedGroup, ...]
    """Groups with fewer than `min_group` units, which take no part."""
    indistinguishable: Count
    """Number of groups that cannot be told from the lowest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rival:
    """Another explanation of mistakes that lean with an attribute."""

    state: Literal["excluded", "open", "not_checked"]
    """Whether the data exclude it."""
    figure: float | None
    """The number that decided; null where not checked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rivals:
    """The three rivals of reliance."""

    base_rates: Rival
    """Differing shares of the labels, used as a calibrated model would use them."""
    label_noise: Rival
    """Wrong labels of one attribute value."""
    fallback: Rival
    """A class that the model predicts when it does not know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliance:
    """Whether decisions depend on an attribute, and on which evidence."""

    attribute: str
    """Name of the attribute."""
    state: Literal["shown", "shown_given", "consistent", "no_sign", "cannot_tell"]
    """Grade of the evidence, the strongest available."""
    drawn: Literal["assigned", "as_they_come", "picked", "unknown"]
    """How the test set came about."""
    evidence: str
    """`twins`, `flipped_column`, `hidden_region`, `pixel_edit`, `given:COLUMNS` or `mistakes`."""
    lean: Estimate | None
    """Accuracy where the attribute is associated with the label minus accuracy elsewhere; null where not defined."""
    p: Share | None
    """P-value, adjusted over the attributes (Holm); null where no test was made."""
    mistakes: Count
    """Number of mistakes behind the test."""
    detectable: Share | None
    """Smallest lean that 80 % of such test sets would have shown; null where not computed."""
    copies: tuple[str, ...]
    """Attributes that agree with this one on at least 90 % of the rows; where the state is no_sign, the one that
    explains it."""
    rivals: Rivals
    """Other explanations, and whether they are excluded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Association:
    """Whether label and attribute are associated in the training data."""

    attribute: str
    """Name of the attribute."""
    cramers_v: Estimate | None
    """Cramer's V, in 0..1; null where training counts are unknown."""
    n: Count
    """Number of training rows counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairEffect:
    """What a repair does, paired over rows."""

    gain: float
    """Estimated gain, in -1..1."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    p: Share
    """P-value of no difference."""
    discordant: Count
    """Rows on which exactly one of the two models is right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """What to do, exactly one."""

    state: Literal[
        "no_problem_found",
        "not_enough_data",
        "disparity_repaired",
        "disparity_cause_not_shown",
        "reliance_repaired",
        "reliance_retrain",
    ]
    """Code of the advice."""
    sentence: str
    """The advice as a sentence that names the attribute."""
    repair: str | None
    """Name of the repair that was verified, or of the best one tried; null where none was tried."""
    held_out: RepairEffect | None
    """Effect on held-out rows; null where none was tried."""
    test: RepairEffect | None
    """Effect on the test set; null where not applied."""
    rows_needed: Count | None
    """Number of rows that would be enough; null where that is not the answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The answers to three questions and what follows from them; words are made from these codes."""

    tolerance: Share
    """Largest gap that is tolerated, in 0..1."""
    level: Share
    """Confidence level of the intervals."""
    min_group: Count
    """Smallest number of units with which a group takes part in headlines."""
    alpha: Share
    """Level of the tests."""
    headline: str
    """One sentence, made from the rest."""
    disparity: tuple[Disparity, ...]
    """Does the model serve attribute values differently? Worst first."""
    reliance: tuple[Reliance, ...]
    """Do decisions depend on the attribute? One entry per attribute."""
    association: tuple[Association, ...]
    """Are label and attribute associated in training? One entry per attribute."""
    advice: Recommendation
    """What to do."""
