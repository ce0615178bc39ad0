"""Candidates compared with plain training on held-out samples whose cells are reweighed."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdebias.core import Array

PREDICTABLE = 0.01
"""Chance of keeping samples that are wrongly labelled."""


class CandidateScore(NamedTuple):
    """A candidate on the held-out samples."""

    accuracy: float
    """Plain. On biased data it prefers a biased model."""
    cell_accuracy: float
    """With the cells reweighed so that guess and label are independent: what candidates are ranked by. It is too
    optimistic where most conflicting cells have no held-out sample; use it to rank, not to report."""
    standard_error: float
    """Of cell_accuracy."""
    lead: float
    """Over plain training: difference of the cell accuracies."""
    lead_error: float
    """Standard error of the lead, both models on the same samples."""
    refused: bool
    """For its plain accuracy."""


def predictable(
    predicted: Int[np.ndarray, "m"],
    label: Int[np.ndarray, "m"],
    guess: Int[np.ndarray, "m"],
    suspect: Bool[np.ndarray, "m"],
    classes: int,
) -> bool:
    """Whether the labels of suspects can be learned from other suspects: then they are not wrong.

    A sample with a wrong label looks like one with the right label of the class that is guessed. A model that learned
    from such labels therefore says the label of another such sample no more often than it takes any sample that goes
    with its guess for that class, by chance one of the k - 1 others. One-sided binomial test at `PREDICTABLE`.

    Args:
      predicted: by a model that was trained with the suspects, of held-out samples.
      label: `[n]` int, 0..k-1.
      guess: `[n]` int, guessed values.
      suspect: which of the held-out samples look wrongly labelled; their label is not their guess.
      classes: number of classes k.

    >>> label, guess = np.array([0] * 90 + [1] * 10), np.zeros(100, int)
    >>> said = np.array([0] * 45 + [1] * 45 + [1] * 5 + [0] * 5)  # half of both: the label makes no difference
    >>> predictable(said, label, guess, label != guess, 2)
    False
    """
    from scipy.stats import binom

    strays = (predicted != guess)[guess == label].mean() / (classes - 1) if (guess == label).any() else 1.0
    right = int((predicted == label)[suspect].sum())
    return bool(binom.sf(right - 1, int(suspect.sum()), strays) < PREDICTABLE)


def score(
    right: Float[Array, "m"], erm_right: Float[Array, "m"], weights: Float[Array, "m"], *, floor: float
) -> CandidateScore:
    """A candidate against plain training: 0/1 for each held-out sample, and the samples' weights."""
    share = weights / weights.sum()

    def mean_and_error(values: np.ndarray) -> tuple[float, float]:
        mean = float((share * values).sum())
        return mean, float(np.sqrt((share**2 * (values - mean) ** 2).sum()))

    accuracy, error = mean_and_error(right)
    lead, lead_error = mean_and_error(right - erm_right)
    return CandidateScore(
        float(right.mean()), accuracy, error, lead, lead_error, bool(right.mean() < erm_right.mean() - floor)
    )


def choose(scores: Mapping[str, CandidateScore], *, margin: float) -> str:
    """The candidate of the highest cell accuracy that is not refused, or `erm` where it does not lead clearly."""
    best = max((name for name in scores if not scores[name].refused), key=lambda name: scores[name].cell_accuracy)
    return best if scores[best].lead > margin * scores[best].lead_error else "erm"
