"""What a command found: one frozen record for each kind of command, as `results.json` holds it.

    record = read_results("run")            # RunResults, FeatureResults or LanguageResults
    record.before.accuracy.value            # a fraction in 0..1
    record.provenance.seconds_by_step

Fields are named as the keys of `results.json`. A field with a default is left out of the file where it has its default.
Rates and differences are fractions; rounding happens only when they are shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxdebias.results._audited import (
    Answer,
    BiasCells,
    Discovered,
    ErrorGroup,
    Inputs,
)
from jaxdebias.results._language import (
    CrowsPairs,
    LanguageBaseline,
    LanguageChanges,
    LanguageEdit,
    LanguageMeasurement,
    LanguageRound,
    PairScores,
    Sentence,
    StereoSet,
    StereoSetChanges,
)
from jaxdebias.results._located import (
    DrawnGroup,
    DrawnSample,
    DrawnSet,
    Draws,
    MapExample,
    MapRegion,
    Maps,
    MapSet,
    Patches,
    PatchExample,
    Place,
)
from jaxdebias.results._measured import (
    METRICS,
    AcceptanceScores,
    Baseline,
    Change,
    Count,
    Difference,
    Edit,
    Group,
    GroupRate,
    Interval,
    LargestDifference,
    Measurement,
    Metrics,
    RankedRows,
    Rate,
    Round,
    Sample,
    Share,
    Training,
)
from jaxdebias.results._verdict import (
    Association,
    Disparity,
    Estimate,
    NamedGroup,
    RatedGroup,
    Recommendation,
    Reliance,
    RepairEffect,
    Rival,
    Rivals,
    Verdict,
)

Options = Mapping[str, Any]
"""Names and values, as JSON: the options of a command or of a data set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """With what, when and from what a result was made: what every measured number must carry."""

    versions: Mapping[str, str]
    """Versions of Python and of the packages that decide a number."""
    device: str
    """Devices that JAX computed on."""
    date: str
    """When the command ended: UTC, as `2026-01-31T12:00:00Z`."""
    seconds: float
    """Wall time of the command, in seconds."""
    seconds_by_step: Mapping[str, float]
    """Wall time of its steps, in order, in seconds."""
    seconds_by_part: Mapping[str, float]
    """Wall time of parts of the steps, in seconds: a round of an edit (`round 1`), a baseline by its name."""
    seed: int
    """Seed of all random draws."""
    arguments: Options
    """Options that the command was called with, by name."""
    data: str | None
    """Fingerprint of the data that were read; null where none were."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResults:
    """What `train`, `debias`, `audit` and `audit-predictions` write: a classifier on a data set."""

    command: Literal["train", "debias", "audit", "audit-predictions"]
    """Command that wrote the file."""
    provenance: Provenance
    """With what, when and from what it was made."""
    dataset: str
    """Name of the data set."""
    variant: Options
    """What fixes the data besides the name, for instance the share of conflicting samples."""
    method: str
    """Name of the method that trained or repaired the model; `audit` for a model that was only audited."""
    model: str
    """Name of the model."""
    attribute: str
    """Name of the attribute in sentences, for instance colour."""
    items: str
    """What samples are called in sentences, for instance digits."""
    level: Share
    """Confidence level of all intervals."""
    pairing: Literal["counterfactual", "matched", "none"]
    """What pairs are: the same example with another attribute value, different examples of one label, or none."""
    label_names: tuple[str, ...]
    """Names of the k labels."""
    attribute_names: tuple[str, ...]
    """Names of the a attribute values."""
    train_counts: tuple[tuple[Count, ...], ...]
    """Training samples `[k][a]` of each group; 0 where unknown."""
    aligned: tuple[tuple[bool, ...], ...]
    """Groups `[k][a]` whose attribute value is associated with the label in training; all false where unknown."""
    before: Measurement
    """What the model does on the test set before any repair."""
    after: Measurement | None
    """What it does after the repair; null without a repair that was made and kept."""
    edit: Edit | None
    """What the repair changed; null without one."""
    baselines: Mapping[str, Baseline]
    """Other ways, by name; may be empty."""
    training: Training
    """How the model was trained."""
    harmful: tuple[Sample, ...]
    """Training samples whose removal would lower the bias, the most harmful first; may be empty."""
    harmful_rows: RankedRows | None
    """The first of them as rows of a table; null for images."""
    helpful: tuple[Sample, ...]
    """Training samples whose removal would raise the bias, the most helpful first; may be empty."""
    helpful_rows: RankedRows | None
    """The first of them as rows of a table; null for images."""
    findings: tuple[str, ...]
    """Remarks for people, as sentences; may be empty."""
    changes: Mapping[str, Change] | None = None
    """Change by metric, after minus before, paired over test samples; absent without a repair."""
    config: Options | None = None
    """How data set and model were made; absent where they came from outside."""
    edit_config: Options | None = None
    """How the model was repaired; absent without `debias`."""
    trained: str | None = None
    """Folder of the run that was repaired or audited; absent where there is none."""
    discovered: Discovered | None = None
    """What an audit found without an attribute; absent where it did not look."""
    inputs: Inputs | None = None
    """What an audit was given; absent without one."""
    answers: tuple[Answer, ...] | None = None
    """Answers of an audit to its five questions; absent without one."""
    verdict: Verdict | None = None
    """Disparity, reliance, association and advice with their evidence; absent where not judged."""
    maps: Maps | None = None
    """Where the model looks; absent where not looked at."""
    patches: Patches | None = None
    """Where the data show attribute and label; absent where not looked for."""
    draws: Draws | None = None
    """Which training samples were drawn more often; absent unless the method draws by rarity."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureResults:
    """What `debias-features` writes: the repair of a last layer that came as a file."""

    command: Literal["debias-features"]
    """Command that wrote the file."""
    provenance: Provenance
    """With what, when and from what it was made."""
    method: Literal["fmd", "dfr"]
    """Name of the repair."""
    bias: Literal["pair", "gap"]
    """What the bias of pairs is: the mean absolute difference within pairs, or the gap between the means of sides."""
    features: Count
    """Number of features."""
    classes: Count
    """Number of classes."""
    head: Mapping[str, tuple[int, ...]]
    """Shape of each array of the last layer, by name."""
    rows: Mapping[str, int | None]
    """Number of rows of each set as it was used; null for a set that was not given."""
    factor: bool
    """Whether the curvature came from a saved factor."""
    split: Literal["test", "accept"]
    """Set that was measured: `accept` where no test array was given."""
    before: Metrics
    """What the last layer does before the repair."""
    after: Metrics
    """What it does after the repair."""
    changes: Mapping[str, Change]
    """Change by metric, after minus before, paired over rows."""
    edit: Edit
    """What the repair changed."""
    findings: tuple[str, ...]
    """Remarks for people, as sentences; may be empty."""
    verdict: Verdict | None = None
    """Disparity, reliance, association and advice with their evidence; absent where not judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageResults:
    """What `debias-language` writes: the repair of a language model."""

    command: Literal["debias-language"]
    """Command that wrote the file."""
    provenance: Provenance
    """With what, when and from what it was made."""
    dataset: str
    """Name of the data: language."""
    variant: Options
    """Whether the bias was planted, and the numbers of texts and pairs."""
    method: str
    """Name of the repair: fmd."""
    model: str
    """Name of the model."""
    edit_config: Options
    """How the model was repaired."""
    before: LanguageMeasurement
    """What the model does before the repair."""
    after: LanguageMeasurement
    """What it does after the repair."""
    changes: LanguageChanges
    """After minus before, paired over pairs and texts."""
    baselines: Mapping[str, LanguageBaseline]
    """Other ways, by name; may be empty."""
    edit: LanguageEdit
    """What the edit changed."""
    harmful: tuple[Sentence, ...]
    """Training sentences whose removal would lower the bias, the most harmful first."""
    helpful: tuple[Sentence, ...]
    """Training sentences whose removal would raise it, the most helpful first."""
    findings: tuple[str, ...]
    """Remarks for people, as sentences; may be empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
    """What differs between two results in one quantity."""

    value: float
    """B minus A."""
    low: float
    """Lower end of the interval of the difference."""
    high: float
    """Upper end of the interval of the difference."""
    a: float
    """Value in A."""
    b: float
    """Value in B."""
    paired: bool
    """Whether the difference is paired over the same test samples; else it is that of two independent intervals."""
    separable: bool
    """Whether there is a difference: paired, by test and interval; else 0 lies outside the interval."""
    p: Share | None = None
    """P-value of the test of no difference; absent where it is not paired."""
    discordant: Count | None = None
    """Rows on which the two models differ; absent where it is not paired."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableResults:
    """What `reproduce` writes: a table or figure of a paper, ours beside published rows. Its file grows row by row."""

    command: Literal["reproduce"]
    """Command that wrote the file."""
    provenance: Provenance
    """With what, when and from what the last row was made; `seconds` are those of all rows."""
    data: str
    """Name of the table."""
    protocol: str
    """How the published numbers were measured, in words."""
    rows: tuple[Options, ...]
    """A row per run: method, level (a share, or the name of a setting; `conflicting` in former files), seed, what was
    measured (rates as fractions), seconds, the fingerprint of what decided it, and its own device, date and versions,
    since a table may be continued elsewhere."""
    summary: tuple[Options, ...] = ()
    """A row per device, method and level: means over seeds with intervals, and the published row; empty while rows are
    missing."""
    paired: tuple[Options, ...] = ()
    """Differences from the baseline, and between further pairs, on the same seeds and the same device, with intervals;
    empty while rows are missing."""
    counts: Options | None = None
    """Device -> how many rows match what was published, lie above or below it, or cannot be separated from it; null
    while rows are missing."""
    margins: tuple[Options, ...] = ()
    """Bounds that were fixed before the first run, what was found, and whether they are met."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareResults:
    """What `compare` writes: the difference of two results."""

    command: Literal["compare"]
    """Command that wrote the file."""
    provenance: Provenance
    """With what, when and from what it was made."""
    a: str
    """Folder of A."""
    b: str
    """Folder of B."""
    paired: bool
    """Whether both were measured on the same test samples."""
    quantities: Mapping[str, Quantity]
    """Every quantity that both results have, by its dotted name."""


Results = RunResults | FeatureResults | LanguageResults | CompareResults | TableResults

__all__ = [
    "METRICS",
    "AcceptanceScores",
    "Answer",
    "Association",
    "Baseline",
    "BiasCells",
    "Change",
    "CompareResults",
    "CrowsPairs",
    "Difference",
    "Discovered",
    "Disparity",
    "DrawnGroup",
    "DrawnSample",
    "DrawnSet",
    "Draws",
    "Edit",
    "ErrorGroup",
    "Estimate",
    "FeatureResults",
    "Group",
    "GroupRate",
    "Inputs",
    "Interval",
    "LanguageBaseline",
    "LanguageChanges",
    "LanguageEdit",
    "LanguageMeasurement",
    "LanguageResults",
    "LanguageRound",
    "LargestDifference",
    "MapExample",
    "MapRegion",
    "MapSet",
    "Maps",
    "Measurement",
    "Metrics",
    "NamedGroup",
    "Options",
    "PairScores",
    "PatchExample",
    "Patches",
    "Place",
    "Provenance",
    "Quantity",
    "RankedRows",
    "Rate",
    "RatedGroup",
    "Recommendation",
    "Reliance",
    "RepairEffect",
    "Results",
    "Rival",
    "Rivals",
    "Round",
    "RunResults",
    "Sample",
    "Sentence",
    "StereoSet",
    "StereoSetChanges",
    "TableResults",
    "Training",
    "Verdict",
]
