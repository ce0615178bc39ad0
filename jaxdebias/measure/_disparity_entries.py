"""What a comparison between groups of rows is made of: the groups, and one entry per attribute and measure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxdebias.measure._intervals import Interval

DECIDING = ("accuracy", "true_positive_rate", "false_positive_rate", "recall_of_class")
"""Measures that decide whether there is a disparity; the others are reported only."""
JOINED = " x "
"""Between the names of attributes that form groups together."""


class RatedGroup(NamedTuple):
    """The rows with one value, or one combination of values."""

    name: str
    n: int
    """Rows; effective ones where rows are clustered or weighted."""
    value: float
    low: float
    high: float


class SmallGroup(NamedTuple):
    """Rows with one value that are too few to take part."""

    name: str
    n: int


class AttributeDisparity(NamedTuple):
    """How differently one measure serves the values of one attribute, or of a combination of attributes."""

    attribute: str
    """Name, or names joined by ` x `."""
    measure: str
    """accuracy, positive_rate, true_positive_rate, false_positive_rate, recall_of_class or calibration_error."""
    class_: int | None
    """Class that the measure is of: where there are several, the one with the largest difference. None: of none."""
    state: str
    """exceeds, within or cannot_tell, against the tolerance."""
    gap: Interval
    """Highest minus lowest value."""
    p: float
    """Of no difference, adjusted over all entries; 1 where no test could be made."""
    highest: RatedGroup
    lowest: RatedGroup
    left_out: tuple[SmallGroup, ...]
    """Groups with fewer than `min_group` units."""
    indistinguishable: int
    """How many other groups cannot be told from the lowest."""

    @property
    def decides(self) -> bool:
        """Whether the measure decides that there is a disparity."""
        return self.measure in DECIDING


class Slices(NamedTuple):
    """Groups formed by one or more attributes."""

    attribute: str
    group: np.ndarray
    """`[n]` in 0..g-1, -1 where a value is unknown."""
    names: tuple[str, ...]


def join_values(chosen: Sequence[tuple[str, np.ndarray]], names: Mapping[str, Sequence[str]]) -> Slices:
    """The groups that the values of one or more attributes form together, without combinations that never occur."""
    values = np.stack([value for _, value in chosen])
    known = (values >= 0).all(0)
    combinations, group = np.unique(values[:, known], axis=1, return_inverse=True)
    whole = np.full(values.shape[1], -1, np.int64)
    whole[known] = np.reshape(group, -1)
    texts = [
        ", ".join(
            str(names[name][value]) if name in names else str(value)
            for (name, _), value in zip(chosen, row, strict=True)
        )
        for row in combinations.T.tolist()
    ]
    return Slices(JOINED.join(name for name, _ in chosen), whole, tuple(texts))


def group_sizes(group: np.ndarray, groups: int, unit: np.ndarray | None) -> np.ndarray:
    """`[f g]` rows, or units, of each group."""
    if unit is None:
        return np.stack([np.bincount(of_family[of_family >= 0], minlength=groups) for of_family in group])
    _, unit = np.unique(np.asarray(unit), return_inverse=True)
    sizes = np.zeros((len(group), groups), np.int64)
    for family, of_family in enumerate(group):
        pairs = np.unique(np.stack([of_family, unit])[:, of_family >= 0], axis=1)
        sizes[family] = np.bincount(pairs[0], minlength=groups)
    return sizes
