"""Records of an audit: what was found without an attribute, the five answers, and what was given."""

from dataclasses import dataclass
from typing import Literal

from jaxdebias.results._measured import Count, Rate, Share


@dataclass(frozen=True, kw_only=True, slots=True)
class BiasCells:
    """Guesses at the class that a sample looks like, by judges who have not been trained on it."""

    name: str
    """Name of the candidate that the guesses make."""
    judges: Literal["aug-cell", "sih"]
    """Who guesses: networks that see shapes badly, or the biased branch of SiH."""
    flagged_share: Share
    """Share of the training samples whose guess is not their label."""
    confidence: tuple[float | None, float | None]
    """Mean confidence of the judges in flagged samples and in the others; null where there are none."""
    followed: Rate
    """Share of the test samples with a guess other than their label that the model takes for the guess."""
    plain: bool
    """Whether the judges are about as sure of flagged samples as of the others: what they go by is plain to see."""
    suspected: bool
    """Whether a shortcut is suspected that no attribute names."""
    typical: tuple[int, ...]
    """Rows of the training split: the flagged samples of which the judges are surest."""
    typical_label: tuple[int, ...]
    """Labels of these rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorGroup:
    """Test samples with the same label that are close in the features of the model and often misclassified."""

    label: Count
    """Index into `label_names`."""
    error: Rate
    """Share of mistakes in the group, on the half of the test samples that did not find it."""
    others: Rate
    """Share of mistakes among all other samples with the label, on the same half."""
    p_value: Share
    """P-value of the difference, one-sided, adjusted over all groups (Holm)."""
    mistaken_for: Count
    """Label that the wrong ones are most often taken for."""
    typical: tuple[int, ...]
    """Rows of the test split: mistakes nearest to the middle of the group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Discovered:
    """What was found without any attribute."""

    cells: BiasCells | None
    """Guesses of small networks; null where none were trained."""
    groups: tuple[ErrorGroup, ...]
    """Groups of test samples with many mistakes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The answer to one of the five questions, for people."""

    question: str
    """The question."""
    said: str
    """The answer; empty where there is none."""
    needs: str
    """What would be needed for an answer, or for a better one; empty if nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What an audit was given, and what its missing answers would need."""

    model: str
    """What was given: predictions, apply_fn, or features and head."""
    pixels: str
    """What the answer about pixels would need."""
    samples: str
    """What the answer about training samples would need."""
    repairs: str
    """What trying more repairs would need; empty if nothing."""
