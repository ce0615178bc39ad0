"""Which attribute goes with which label: rules that assign it, and the table that reads it off biased data."""

import numpy as np
from jaxtyping import Bool, Int

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array, cell_counts


def milestone_attribute(label: Int[Array, "n"], aligned: float, attributes: int) -> Int[np.ndarray, "n"]:
    """The attribute `[n]` int32 of each example by the deterministic rule of Colored MNIST and Corrupted CIFAR-10.

    Class y gives the share `aligned` of its images to attribute y and equal shares of the rest to every other one, in
    contiguous blocks of the given order: cumulative shares times the class size are rounded (half to even) to
    milestones, and the i-th image of the class takes the first attribute whose milestone exceeds i. Nothing is
    random.

    Args:
      label: `[n]`, 0..attributes-1.
      aligned: share of attribute y in class y, 0..1; the test sets use 1 / attributes.
      attributes: number of attribute values, at least 2 and at least the number of classes.

    Source: SiH, Vandenhirtz et al. 2023 (official code), after LfF, Nam et al. 2020.

    >>> milestone_attribute(np.zeros(8, np.int32), 0.75, 3).tolist()
    [0, 0, 0, 0, 0, 0, 1, 2]
    """
    expect(attributes >= 2, "attributes", "at least 2", attributes)
    check_share("aligned", aligned)
    attribute = np.empty(len(label), np.int32)
    for y in np.unique(label):
        expect(bool(0 <= y < attributes), "label", f"values in 0..{attributes - 1}", int(y))
        rows = np.flatnonzero(label == y)
        share = np.full(attributes, (1.0 - aligned) / (attributes - 1))
        share[y] = aligned
        milestone = np.round(np.cumsum(share) * len(rows))
        milestone[-1] = len(rows)  # the shares sum to 1 only up to rounding
        attribute[rows] = np.searchsorted(milestone, np.arange(len(rows)), side="right")
    return attribute


def biased_attribute(
    rng: np.random.Generator, label: Int[Array, "n"], conflicting: float, attributes: int
) -> Int[np.ndarray, "n"]:
    """As many conflicting examples per class as `milestone_attribute` gives; which ones and their attribute at random.

    For small sets: there the milestones would give the few conflicting examples of all classes the same few
    attributes.
    """
    check_share("conflicting", conflicting)
    shuffled = rng.permutation(len(label))
    attribute = np.empty(len(label), np.int32)
    attribute[shuffled] = milestone_attribute(label[shuffled], 1.0 - conflicting, attributes)
    return np.where(attribute == label, attribute, other_attribute(rng, label, attributes)).astype(np.int32)


def other_attribute(rng: np.random.Generator, label: Int[Array, "n"], attributes: int) -> Int[np.ndarray, "n"]:
    """A conflicting attribute for every label, uniform over the attributes that differ from it."""
    return ((label + rng.integers(1, attributes, len(label))) % attributes).astype(np.int32)


def aligned_cells(
    label: Int[Array, "n"], attribute: Int[Array, "n"], classes: int, attributes: int
) -> Bool[np.ndarray, "k a"]:
    """The cells that hold more training examples than independence would put there: p(y, a) > p(y) p(a), lift above 1.

    Args:
      label: `[n]` of the training set; rows with an unknown attribute (-1) are left out.
      attribute: as `label`.
      classes: number of classes k.
      attributes: number of attribute values a.

    >>> aligned_cells(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 1]), 2, 2).tolist()
    [[True, False], [False, True]]
    """
    cells = cell_counts(label, attribute, classes, attributes)
    independent = cells.sum(1, keepdims=True) * cells.sum(0, keepdims=True)
    return cells * cells.sum() > independent  # integers: an exactly independent cell is not aligned


def check_share(what: str, value: float) -> None:
    """A share between 0 and 1."""
    number = isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool)
    expect(bool(number and 0.0 <= value <= 1.0), what, "a share in 0..1", describe(value))
