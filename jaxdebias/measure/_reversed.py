"""Does a model lean further than its own scores allow? The reversed test, for test sets that come as they do.

Where base rates differ between the values of an attribute, the mistakes of a model that uses only legitimate causes
lean: the value carries information about the label that the model need not have used. But at the same score (or the
same prediction) such a model's labels are the value's class *at least* as often as elsewhere. A model that relies on
the value predicts its class too often: at the same score the label is that class *less* often. Hence the low tail.
"""

import numpy as np

from jaxdebias.contracts import expect
from jaxdebias.core import Key
from jaxdebias.measure._exchange import exchange_test
from jaxdebias.measure._lean import Rows, sides

SCORE_BINS = 5
"""Bins of the score within a predicted class."""
BINS_OF_SIDE = 4
"""Bins of the score on each side of two classes."""


def information_bins(score: np.ndarray, bins: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Bins `[n]` of a probability with equal sums of q (1 - q), which is what labels can tell at a score; -1: outside.

    Args:
      score: `[n]` probabilities q. Equal ones are in one bin.
      bins: number of bins.
      low: where the first bin begins, as a share of all information.
      high: where the last one ends.
    """
    _, place = np.unique(score, return_inverse=True)
    information = np.bincount(place, score * (1.0 - score))
    total = information.sum()
    if total <= 0:
        return np.zeros(len(score), np.int64) if (low, high) == (0.0, 1.0) else np.full(len(score), -1, np.int64)
    middle = np.clip((np.cumsum(information) - 0.5 * information) / total, 0.0, 1.0)
    bin_of = np.clip(np.floor((middle - low) / (high - low) * bins), 0, bins - 1).astype(np.int64)
    return np.where((middle >= low) & (middle <= high), bin_of, -1)[place]


def reversed_p(rows: Rows, w: np.ndarray, stratum: np.ndarray, *, key: Key) -> float:
    """Low-tail p of T' = sum of w[label, value], values dealt within strata of equal predictions or scores.

    Args:
      rows: the rows.
      w: `[k a]` log association in training.
      stratum: `[n]` integers; -1 leaves the row out.
      key: randomness of permutations.
    """
    inside = stratum >= 0
    kept = rows.among(inside)
    return exchange_test(kept.label, -w, kept.value, stratum[inside], key=key, unit=kept.unit).p


def predicted_strata(rows: Rows) -> np.ndarray:
    """Strata `[n]` of one prediction, in bins of its probability where there are probabilities."""
    if rows.probabilities is None:
        return rows.predicted.astype(np.int64)
    stratum = np.zeros(len(rows.label), np.int64)
    for predicted in np.unique(rows.predicted):
        own = rows.predicted == predicted
        stratum[own] = predicted * SCORE_BINS + information_bins(rows.probabilities[own, predicted], SCORE_BINS)
    return stratum


def two_class_strata(rows: Rows, fallback: bool) -> list[np.ndarray]:
    """Two stratifications `[n]` by bins of q of the second class: both halves of the information, or outer thirds.

    With a class to fall back on, a blurred group's scores crowd between the base rate and the threshold; the outer
    thirds leave them out.
    """
    if rows.probabilities is None:
        expect(False, "probabilities", "[n 2], for ranges of the score", None)
    score = rows.probabilities[:, 1]
    edges = ((0.0, 1.0 / 3.0), (2.0 / 3.0, 1.0)) if fallback else ((0.0, 0.5), (0.5, 1.0))
    return [information_bins(score, BINS_OF_SIDE, *edge) for edge in edges]


def reversed_sides_p(rows: Rows, w: np.ndarray, present: np.ndarray, *, fallback: bool, key: Key) -> float:
    """The largest p of the reversed test on all sides: it has to hold on each.

    With two classes and scores, sides are ranges of the score; otherwise predictions that a value is associated with
    are left out in turn.

    Args:
      rows: the rows.
      w: `[k a]` log association in training.
      present: `[a]` bool, values that occur.
      fallback: whether there is a class to fall back on.
      key: randomness of permutations.
    """
    if rows.probabilities is not None and len(w) == 2:
        return max(reversed_p(rows, w, stratum, key=key) for stratum in two_class_strata(rows, fallback))
    stratum = predicted_strata(rows)
    return max(reversed_p(rows, w, np.where(kept[rows.predicted], stratum, -1), key=key) for kept in sides(w, present))
