"""Bias cells without bias labels: which easy feature a sample shows, guessed by a model that has seen little else.

A net that is trained briefly, with a loss that gives up on hard samples, follows whatever is easiest. If that is a
shortcut, its predictions say what value of the shortcut a sample shows. Two things make the guess clean. The pictures
are augmented so that the true feature gets harder and the shortcut does not (turning and stretching makes a digit's
shape harder and leaves its colour): the order of difficulty is enforced, not hoped for. And each sample is judged by
nets that have not been trained on it, so no time to stop has to be found.

What the guess is about is decided by the augmentation. With geometric views, a shortcut that is itself geometric
(position, orientation, size) is destroyed, and the cells are of no use; the guesses have as many values as there are
classes; and where the labels are wrong, a wrong label looks like a conflicting sample.

Source: ours, after the held-out twins of XRM (Pezeshki et al. 2024) and GCE (Zhang & Sabuncu 2018); weights of Kamiran
& Calders (2012).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdebias.contracts import check_finite, check_numbers, describe, expect
from jaxdebias.core import Array, Batch, Key, Learner, cell_counts
from jaxdebias.train._cross_fit import cross_fit
from jaxdebias.train._optimizer import Optimizer
from jaxdebias.train.feed import View

PLAIN = 0.8
"""Confidence above chance over flagged samples, as a share of that over the others, from which a feature counts as
plain to see; see `plain_from`. Chosen on generated sets and digits."""


@dataclass(frozen=True, kw_only=True)
class CellsConfig:
    """How the judges are trained. They are meant to be short of time."""

    folds: int = 2
    repeats: int = 1
    """Splits into folds; with several, the probabilities of a sample's judges are averaged."""
    steps: int = 300
    """Without an augmentation that breaks shapes: 1,000."""
    batch_size: int = 256

    def __post_init__(self):
        expect(self.folds >= 2, "config.folds", "at least 2", self.folds)
        for name in ("repeats", "steps", "batch_size"):
            expect(getattr(self, name) >= 1, f"config.{name}", "at least 1", getattr(self, name))

    @property
    def optimizer(self) -> Optimizer:
        """Adam at 1e-3, falling to 0 over the steps: what the judges' learner should be built with."""
        return Optimizer(learning_rate=1e-3, schedule="cosine", steps=self.steps)


class Cells(NamedTuple):
    """What the judges say of each sample."""

    guess: Int[np.ndarray, "n"]
    """int32, 0..k-1: the class that a sample looks like to judges who have not seen it."""
    probability: Float[np.ndarray, "n k"]
    """float32, the judges' probabilities, averaged over the repeats."""
    fold: Int[np.ndarray, "repeats n"]
    """Which fold a sample was in, 0..folds-1."""
    counts: Int[np.ndarray, "k s"]
    """Samples of label y (row) and guess s (column)."""

    @property
    def flagged_share(self) -> float:
        """Share of samples whose guess is not their label."""
        return 1.0 - float(np.trace(self.counts) / self.counts.sum())

    def confidence(self, label: Int[Array, "n"]) -> tuple[float, float]:
        """The judges' mean confidence in their guess, over the flagged samples and over the others; NaN over none.

        Where there is a shortcut they are nearly as sure of the flagged ones: what they go by is plain to see there
        too. Where there is none, or the views hide it, flagged samples are merely hard and the judges hesitate.
        """
        sure, flagged = self.probability.max(axis=1), self.guess != np.asarray(label)
        return tuple(float(sure[rows].mean()) if rows.any() else float("nan") for rows in (flagged, ~flagged))


def plain_from(others: float, classes: int, share: float = PLAIN) -> float:
    """The confidence in flagged samples from which what the judges go by is plain, given that in the others.

    Below, the samples are merely hard. Counted above chance, which is half of all confidence where there are two
    classes:

    >>> round(plain_from(0.95, classes=10), 2), round(plain_from(0.95, classes=2), 2)
    (0.78, 0.86)
    """
    chance = 1 / classes
    return chance + share * (others - chance)


def find_cells(
    key: Key,
    learner: Learner,
    data: Batch,
    config: CellsConfig = CellsConfig(),
    *,
    shared: Any = None,
    view: View | None = None,
) -> Cells:
    """Trains `folds * repeats` judges as one sweep and lets each judge the fold that it has not seen.

    Reads `data.x` and `data.label`, never `data.attribute`. The label of a sample does not enter its own guess.

    Args:
      key: random key.
      learner: of the judges. Recommended: `mitigate.gce(classifier,
        optimizer=config.optimizer, augment=random_affine())`.
      data: n samples; folds are drawn without regard to the labels.
      config: settings, see the class.
      shared: as in `train.sweep`.
      view: as in `train.sweep`.

    Returns:
      The guesses; by how much they can be trusted, see `reweighing` and the share that is flagged.

    Raises:
      ContractError: labels that are no integers from 0, fewer samples than folds.
    """
    unknown = np.full(data.label.shape, -1, np.int32)
    unlabelled = Batch(x=data.x, label=data.label, attribute=unknown, weight=data.weight)
    said = cross_fit(
        key,
        learner,
        unlabelled,
        steps=config.steps,
        folds=config.folds,
        repeats=config.repeats,
        batch_size=config.batch_size,
        shared=shared,
        view=view,
    )
    guess = said.probability.argmax(axis=1).astype(np.int32)
    classes = said.probability.shape[1]
    return Cells(guess, said.probability, said.fold, cell_counts(data.label, guess, classes, classes))


def reweighing(counts: Float[Array, "k s"] | Int[Array, "k s"], *, cap: float = 1000.0) -> Float[np.ndarray, "k s"]:
    """Weights of the cells that make guess and label independent and keep both marginals; 0 for empty cells.

    r[y, s] = n[y, .] n[., s] / (N n[y, s]), Kamiran & Calders (2012), at most `cap`.

    >>> reweighing(np.array([[90, 10], [20, 80]])).round(4).tolist()
    [[0.6111, 4.5], [2.75, 0.5625]]
    """
    check_numbers("counts", counts, "k s")
    check_finite("counts", counts)
    counts = np.asarray(counts, np.float64)
    expect(bool((counts >= 0).all() and counts.any()), "counts", "counts, not all 0", describe(counts))
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
    weights = np.divide(expected, counts, out=np.zeros_like(counts), where=counts > 0)
    return np.minimum(weights, cap)
