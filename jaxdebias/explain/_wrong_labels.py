"""Which of the samples that contradict the shortcut are wrongly labelled, rather than rare.

To whoever only knows a sample's label and what shortcut it shows, a wrong label and a conflicting sample look alike:
both say one thing and show another. A debiased model tells them apart: of a conflicting sample it says the label, of a
wrongly labelled one what the shortcut says, since shape and shortcut agree there. The model must not have been trained
on the sample, and wrong labels spoil it, so it is trained in folds, and again without the suspects.

It needs a model that is good at conflicting samples. One that is not (few of them, little training) calls these wrong:
use it where wrong labels are likely, not as a habit.

Source: ours, after confident learning (Northcutt et al. 2021), which does the same with plain models; those would call
every conflicting sample wrong.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdebias.contracts import expect
from jaxdebias.core import Batch, Key, Learner, cell_counts
from jaxdebias.train._cross_fit import cross_fit
from jaxdebias.train.feed import View


class WrongLabels(NamedTuple):
    """What a debiased model says of samples that it has not seen."""

    suspect: Bool[np.ndarray, "n"]
    """Flagged samples (attribute and label differ) whose attribute it finds likelier than the label."""
    probability: Float[np.ndarray, "n k"]
    """Of the last round."""


def find_wrong_labels(
    key: Key,
    learner: Learner,
    data: Batch,
    *,
    classes: int,
    hyper: Callable[[Int[np.ndarray, "k s"]], Any],
    steps: int = 1000,
    rounds: int = 2,
    folds: int = 2,
    batch_size: int = 256,
    shared: Any = None,
    view: View | None = None,
) -> WrongLabels:
    """Trains a debiased learner in folds and compares, for every flagged sample, its label with its attribute.

    Class c is taken to go with attribute c, as in `explain.cells`.

    Args:
      key: random key.
      learner: one that debiases by the attribute, such as `mitigate.cell_balanced` with an augmentation.
      data: `attribute` holds the guesses, 0..classes-1 like the labels.
      classes: number of classes k.
      hyper: from the counts of label and attribute, suspects left out, to the learner's `state.hyper`, for example
        `mitigate.cell_tables`.
      rounds: after the first one, the suspects of the round before are not trained on.
      steps: as in `train.cross_fit`.
      folds: as in `train.cross_fit`.
      batch_size: as in `train.cross_fit`.
      shared: as in `train.cross_fit`.
      view: as in `train.cross_fit`.
    """
    expect(rounds >= 1, "rounds", "at least 1", rounds)
    label, guess = np.asarray(data.label), np.asarray(data.attribute)
    rows, suspect = np.arange(len(label)), np.zeros(len(label), bool)
    weight = np.ones(len(label), np.float32) if data.weight is None else np.asarray(data.weight)
    for key_round in jax.random.split(key, rounds):
        counts = cell_counts(label[~suspect], guess[~suspect], classes, classes)
        kept = data._replace(weight=np.where(suspect, np.float32(0), weight))
        said = cross_fit(
            key_round,
            learner,
            kept,
            steps=steps,
            folds=folds,
            batch_size=batch_size,
            hyper=hyper(counts),
            shared=shared,
            view=view,
        )
        suspect = (guess != label) & (said.probability[rows, guess] > said.probability[rows, label])
    return WrongLabels(suspect, said.probability)
