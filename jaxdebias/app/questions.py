"""Options of every audit: what counts as a disparity, and what is known about the test set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxdebias.app.option_types import Names

Drawn = Literal["assigned", "as-they-come", "picked", "unknown"]


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """What counts as a disparity, and what is known about the test set."""

    tolerance: float = 0.05
    """Largest gap of accuracy or error rates between groups that is tolerated, as a fraction."""
    min_group: int = 30
    """Fewest independent test rows of a group that takes part."""
    slices: Literal[1, 2, 3] = 2
    """How many attributes form groups together, at most."""
    drawn: Drawn = "unknown"
    """How the test set came about: attribute values were assigned to rows independently of their content, rows are a
    plain sample (as-they-come), or they were picked by label and value (balanced, for instance)."""
    given: Names = None
    """Columns of legitimate inputs: do decisions depend on an attribute beyond them?"""

    def arguments(self) -> dict[str, Any]:
        """Arguments of `jaxdebias.audit`, without the columns of `given`."""
        return {
            "tolerance": self.tolerance,
            "min_group": self.min_group,
            "slices": self.slices,
            "drawn": self.drawn.replace("-", "_"),
        }


DEFAULT = QuestionOptions()


def plain(options: QuestionOptions) -> Mapping[str, Any]:
    """The options as they are written into results."""
    return {**options.arguments(), "given": list(options.given or ())}
