"""What AUG-CELL reports: how far it is, and what a person needs to judge its result."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxdebias.core import Params
from jaxdebias.explain._cells import Cells
from jaxdebias.mitigate._aug_cell.comparison import CandidateScore

SUSPICIOUS = 0.1
"""Share of wrong labels among the flagged samples from which on they are reported."""
COSTLY = 0.1
"""Loss of held-out accuracy from which on it is reported."""


class Stage(NamedTuple):
    """How far a call of `aug_cell` is; printed, it is a line."""

    name: str
    """A candidate's, or a sentence."""
    epoch: int = 0
    epochs: int = 0
    """Of this candidate; 0 where nothing is counted."""
    loss: float = float("nan")

    def __str__(self) -> str:
        return f"{self.name}: epoch {self.epoch} of {self.epochs}, loss {self.loss:.4g}" if self.epochs else self.name


class AugCellInfo(NamedTuple):
    """What a person needs to judge the result."""

    chosen: str
    """Name of the candidate that is returned."""
    scores: dict[str, CandidateScore]
    """Empty without held-out samples."""
    cells: Cells
    directed: float
    """Of plain training's errors on flagged held-out samples, the share that goes to the guess; by chance it would be
    1 / (k - 1). Near chance there is no shortcut that the guesses describe: they are merely hard or wrongly labelled
    samples. NaN where plain training makes no such error."""
    held_out: Int[np.ndarray, "m"]
    """Rows of the data on which the candidates were compared."""
    suspect: Bool[np.ndarray, "n"]
    """Samples that were left out as wrongly labelled; plain training has them all."""
    cleared: int
    """Samples that had looked wrongly labelled and were kept, since their labels are `predictable`."""
    trained: dict[str, Params]
    """Parameters of every candidate."""
    confidence: tuple[float, float]
    """See `Cells.confidence`."""
    hesitant: bool
    """Whether the judges hesitate over what they flag. They are nearly as sure of flagged samples as of others where
    there is a shortcut that the views leave (coloured digits), and in doubt where there is none or where it is a place
    in the picture."""

    @property
    def findings(self) -> list[str]:
        """What is unusual about the result, a sentence each; empty if nothing is."""
        flagged, suspect = round(self.cells.flagged_share * len(self.suspect)), int(self.suspect.sum())
        found = []
        if self.hesitant:
            found.append(
                f"No structured bias found: the judges are sure to {self.confidence[0]:.2f} where guess and "
                f"label differ, to {self.confidence[1]:.2f} elsewhere, so most of these samples are merely "
                "hard. Not found in this way: a shortcut that the augmentation itself changes (with geometric "
                "views: position, size, orientation), or one of which there are too few samples to learn it."
            )
        if suspect > SUSPICIOUS * flagged:
            found.append(f"{suspect} of {flagged} flagged samples look wrongly labelled and were left out.")
        if self.cleared:
            found.append(
                f"{self.cleared} of {flagged} flagged samples looked wrongly labelled and were kept: the "
                "labels of those that were held out could be predicted, which wrong labels cannot."
            )
        refused = [name for name, one in self.scores.items() if one.refused]
        if refused:
            found.append(
                f"Refused: {', '.join(refused)}; far worse than plain training on held-out samples as they "
                "come, a sign of wrong labels among the flagged ones."
            )
        loss = self.scores["erm"].accuracy - self.scores[self.chosen].accuracy if self.scores else 0.0
        if loss > COSTLY:
            found.append(
                "On held-out samples as they come, most of which go with the shortcut, it is "
                f"{100 * loss:.0f} points below plain training."
            )
        if self.chosen == "erm":
            found.append(
                "Plain training is returned."
                if self.hesitant
                else "No candidate is clearly better than plain training, which is returned."
            )
        return found
