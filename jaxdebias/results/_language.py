"""Records of the repair of a language model."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxdebias.results._measured import Change, Count, Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class PairScores:
    """How differently a language model scores the two sentences of pairs."""

    absolute: Interval
    """Mean absolute difference of the log-probabilities, in nats per token."""
    signed: Interval
    """Mean difference, stereotype minus anti-stereotype, in nats per token."""
    preferred: Interval
    """Share of the pairs whose stereotype is more probable, in 0..1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StereoSetChanges:
    """Changes of StereoSet's scores, after minus before, in percentage points."""

    ss: Change
    """Stereotype score."""
    lms: Change
    """Language modelling score."""
    icat: Change
    """Idealised score of both."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StereoSet:
    """StereoSet's scores, in percent: `ss` is ideal at 50, `lms` and `icat` at 100."""

    ss: Interval
    """Stereotype score."""
    lms: Interval
    """Language modelling score."""
    icat: Interval
    """Idealised score of both."""
    items: Count
    """Number of items."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrowsPairs:
    """CrowS-Pairs' scores, in percent; ideal 50."""

    score: Interval
    """Share of the pairs whose more stereotyping sentence is more probable."""
    stereo: Interval
    """The same among pairs that show a stereotype of a disadvantaged group."""
    antistereo: Interval
    """The same among pairs that contradict one; null value if there are none."""
    neutral: Count
    """Number of pairs with equal scores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageMeasurement:
    """What a language model does on test pairs and texts."""

    pairs: Mapping[str, PairScores]
    """Scores by set of pairs."""
    perplexity: Interval | None
    """Perplexity of held-out texts; null without texts."""
    stereoset: Mapping[str, StereoSet]
    """StereoSet by type of bias; empty without its file."""
    crows: Mapping[str, CrowsPairs]
    """CrowS-Pairs by set of pairs; empty without its file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageChanges:
    """Changes on the same pairs and texts, after minus before."""

    pairs: Mapping[str, Change]
    """Change of the absolute difference by set of pairs, in nats per token."""
    perplexity: Change | None
    """Change of the perplexity; null without texts."""
    stereoset: Mapping[str, StereoSetChanges]
    """Changes of StereoSet's scores by type of bias."""
    crows: Mapping[str, Change]
    """Changes of CrowS-Pairs' score by set of pairs, in percentage points."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageRound:
    """One round of the edit. Bias and perplexity are those on the held-out acceptance set."""

    round: int
    """Number of the round, from 1."""
    u: float | None
    """Chosen step, as root-mean-square change of the log-probabilities."""
    t: float | None
    """The same step as a multiple of the influence step."""
    predicted_change: float | None
    """Change of the bias that the step predicts to first order, in nats."""
    achieved_change: float | None
    """Change of the bias that was measured, in nats."""
    bias: float | None
    """Mean absolute difference of the pairs, in nats per token."""
    perplexity: float | None
    """Perplexity of the acceptance texts."""
    residual: float | None
    """Relative residual of the linear solve."""
    iterations: int
    """Number of iterations of the linear solve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageEdit:
    """What the edit changed in the model, and its scores on the held-out acceptance set."""

    accepted: bool
    """Whether the edited parameters were kept."""
    bias_before: float | None
    """Mean absolute difference of the pairs before, in nats per token."""
    bias_after: float | None
    """The same after the edit."""
    perplexity_before: float | None
    """Perplexity of the acceptance texts before."""
    perplexity_after: float | None
    """The same after the edit."""
    fall: float | None
    """Fall of the bias by all rounds together, in standard errors."""
    parameters: Count
    """Number of parameters that were edited."""
    parameters_changed: Count
    """Number of parameters that changed: 0 if not accepted."""
    parameters_of_model: Count
    """Number of parameters of the model."""
    rounds: tuple[LanguageRound, ...]
    """Rounds of the edit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageBaseline:
    """Another way to get a less biased language model, measured on the same tests."""

    measurement: LanguageMeasurement
    """What its model does on the tests."""
    needs: str
    """Data that it needs, as text."""
    chosen: str
    """Which of its variants was chosen on the acceptance set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """A training sentence and its influence on the bias."""

    index: Count
    """Row of the training texts."""
    text: str
    """The sentence."""
    score: float
    """Predicted fall of the bias if the sentence were removed, in nats; negative: the bias would rise."""
