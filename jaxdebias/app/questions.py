"""Options of every audit: what counts as a disparity, and what is known about the test set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxdebias.app.option_types import Bool, Names

Drawn = Literal["assigned", "as-they-come", "picked", "unknown"]


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """What counts as a disparity, and what is known about the test set."""

    tolerance: float = 0.05
    """Largest tolerated gap between groups, as a fraction."""
    min_group: int = 30
    """Fewest test rows of a group to compare."""
    slices: Literal[1, 2, 3] = 2
    """Most attributes that form groups together."""
    drawn: Drawn = "unknown"
    """How test rows came about: values assigned at random, a plain sample, or picked."""
    given: Names = None
    """Legitimate inputs: columns that may explain decisions."""
    wrong_labels: Bool = None
    """Whether labels of one value may be wrong one way."""

    def arguments(self) -> dict[str, Any]:
        """Arguments of `jaxdebias.audit`, without the columns of `given`."""
        return {
            "tolerance": self.tolerance,
            "min_group": self.min_group,
            "slices": self.slices,
            "drawn": self.drawn.replace("-", "_"),
            "wrong_labels": self.wrong_labels,
        }


DEFAULT = QuestionOptions()


def plain(options: QuestionOptions) -> Mapping[str, Any]:
    """The options as they are written into results."""
    return {**options.arguments(), "given": list(options.given or ())}
