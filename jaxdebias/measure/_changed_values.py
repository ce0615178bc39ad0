"""Interventions of an audit: samples shown with another value of the attribute, or with its region hidden.

A changed sample may merely be harder to recognise: an edit leaves traces, a value is dark, a hidden region covers part
of the object. Then predictions change, too, and a model that ignores the attribute must not be accused. So what is
measured is never how often the label is missed but a movement *toward the class associated with the value*, and it is
compared with a control in which the same difficulty would show and reliance would not.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int, Num

from jaxdebias.contracts import check_choice, check_integers, check_numbers, describe, expect, row_count
from jaxdebias.core import Array, Key
from jaxdebias.measure._intervals import Interval
from jaxdebias.measure._interventions import EVIDENCE, Intervention
from jaxdebias.measure._lean import ASSOCIATED, label_association
from jaxdebias.measure._reliance import MIN_GROUP
from jaxdebias.measure._row_intervals import paired_change
from jaxdebias.measure._significance import numpy_generator


class _Movement(NamedTuple):
    """Rows that moved, by group; a row of group -1 takes no part."""

    moved: np.ndarray
    """`[n]`, 1 where the prediction moved toward the class by the change, -1 where it moved away from it, else 0."""
    control: np.ndarray
    """`[n]`, the same of the control."""
    group: np.ndarray
    """`[n]` integers."""
    controlled: bool
    """Whether changed samples that are only harder move nothing on average."""


def associated_class(train_counts: Num[Array, "k a"]) -> Int[np.ndarray, "a"]:
    """The class most associated with each value in the training counts; -1 where none is.

    >>> associated_class(np.array([[90, 10, 50], [10, 90, 50]])).tolist()
    [0, 1, -1]
    """
    w = label_association(train_counts)
    return np.where(w.max(0) > ASSOCIATED, w.argmax(0), -1)


def changed_value_reliance(
    before: Any,
    after: Any,
    label: Any,
    value: Any,
    changed: Any,
    train_counts: Any,
    *,
    key: Key,
    evidence: str = "twins",
    unit: Any = None,
    weight: Any = None,
    level: float = 0.95,
) -> Intervention | None:
    """Measures how far predictions move toward the class associated with the value that a sample is given.

    Control, so that twins that are merely harder show nothing:

    * More than two classes: the movement toward another class, drawn for each row among those that are neither the
      label's nor associated with either value. Difficulty moves predictions there as often; classes weigh equally, so
      that a class predicted when in doubt cancels. Rows whose label is the class of the new value are left out.
    * Two classes, values changed in both directions (away from the label's and back to it): both directions weigh
      equally within each label. Difficulty takes as much from the second as it adds to the first.
    * Otherwise nothing cancels it, and the result is not `controlled`: `quote_interventions` then asks for a lean of
      the mistakes on unchanged rows, too.

    What cannot be told from reliance: an edit that shows traces of a class of its own.

    Args:
      before: `[n]` predicted classes of the samples as they are.
      after: `[n]` predicted classes of the changed samples.
      label: `[n]` true classes.
      value: `[n]` values of the attribute, -1 unknown.
      changed: `[n]` values after the change; -1 unknown, and the row takes no part.
      train_counts: `[k a]` training rows per class and value.
      key: randomness of control classes and sign flips.
      evidence: `twins` or `flipped_column`.
      unit: `[n]` integers; None: every row is its own unit.
      weight: `[n]` weights of rows; 0 is padding.
      level: confidence level of the interval.

    Returns:
      None where no row is changed to a value that is associated with another class.

    >>> label, value = np.arange(400) % 2, np.arange(400) // 2 % 2
    >>> counts = np.array([[90, 10], [10, 90]])
    >>> relies = changed_value_reliance(value, 1 - value, label, value, 1 - value, counts, key=jax.random.key(0))
    >>> relies.effect.value, relies.controlled, relies.shown(relies.p)
    (1.0, True, True)
    >>> harder = np.where(np.arange(400) % 8 < 2, 1 - label, label)
    >>> changed_value_reliance(label, harder, label, value, 1 - value, counts, key=jax.random.key(0)).effect.value
    0.0
    """
    n = _checked("after", before, after, label, value, train_counts, evidence, unit, weight)
    classes, of_value = np.shape(train_counts)[0], associated_class(train_counts)
    check_integers("changed", changed, n, -1, len(of_value))
    before, after, label, value, changed = (np.asarray(one) for one in (before, after, label, value, changed))
    toward = np.where(changed >= 0, of_value[changed], -1)
    origin = np.where(value >= 0, of_value[value], -1)
    usable = (toward >= 0) & (toward != origin)
    if weight is not None:
        usable &= np.asarray(weight) > 0
    key_control, key_signs = jax.random.split(key)
    if classes > 2:
        moved = _against_other_classes(key_control, before, after, label, origin, toward, usable, classes)
    else:
        moved = _both_ways(before, after, label, toward, usable)
    return _measured(key_signs, moved, evidence, unit, weight, level)


def hidden_region_reliance(
    before: Any,
    hidden: Any,
    label: Any,
    value: Any,
    train_counts: Any,
    *,
    key: Key,
    control: Any = None,
    unit: Any = None,
    weight: Any = None,
    level: float = 0.95,
) -> Intervention | None:
    """Measures how far predictions move away from the value's class where the region that shows it is hidden.

    Within a label, samples whose values are associated with different classes weigh equally: what hiding adds in
    difficulty moves as many toward the value's class as away from it. What hiding another region of the same size
    does, `control`, is subtracted.

    Args:
      before: `[n]` predicted classes of the samples as they are.
      hidden: `[n]` predicted classes with the region hidden.
      label: `[n]` true classes.
      value: `[n]` values of the attribute, -1 unknown.
      train_counts: `[k a]` training rows per class and value.
      key: randomness of the sign flips.
      control: `[n]` predicted classes with another region of the same size hidden; None: nothing is subtracted.
      unit: `[n]` integers; None: every row is its own unit.
      weight: `[n]` weights of rows; 0 is padding.
      level: confidence level of the interval.

    Returns:
      None where no label has samples of values associated with two classes.

    >>> label, value = np.arange(400) % 2, np.arange(400) // 2 % 2
    >>> counts = np.array([[90, 10], [10, 90]])
    >>> hidden_region_reliance(value, label, label, value, counts, key=jax.random.key(0)).effect.value
    0.5
    >>> hidden_region_reliance(label, 0 * label, label, value, counts, key=jax.random.key(0)).effect.value
    0.0
    """
    n = _checked("hidden", before, hidden, label, value, train_counts, "hidden_region", unit, weight)
    if control is not None:
        check_integers("control", control, n, 0, None)
    before, hidden, label, value = (np.asarray(one) for one in (before, hidden, label, value))
    of_value = associated_class(train_counts)
    origin = np.where(value >= 0, of_value[value], -1)
    usable = origin >= 0
    if weight is not None:
        usable &= np.asarray(weight) > 0
    kept = before if control is None else np.asarray(control)
    left, left_by_control = ((before == origin).astype(int) - (one == origin) for one in (hidden, kept))
    every = np.unique(of_value[of_value >= 0])
    group = _balanced(label, origin, usable, every)
    if not (group >= 0).any():
        return None
    controlled = control is not None or len(every) == np.shape(train_counts)[0]
    return _measured(key, _Movement(left, left_by_control, group, controlled), "hidden_region", unit, weight, level)


def _checked(
    name: str,
    before: Any,
    after: Any,
    label: Any,
    value: Any,
    train_counts: Any,
    evidence: str,
    unit: Any,
    weight: Any,
) -> int:
    """Number of rows, once they are of one kind; `name` is what the changed predictions are called."""
    n = row_count("before", before)
    check_choice("evidence", evidence, EVIDENCE)
    counts = np.asarray(train_counts)
    expect(counts.ndim == 2, "train_counts", "[k a]", describe(counts))
    check_integers("before", before, n, 0, None)
    check_integers(name, after, n, 0, None)
    check_integers("label", label, n, 0, counts.shape[0])
    check_integers("value", value, n, -1, counts.shape[1])
    if unit is not None:
        check_integers("unit", unit, n, 0, None)
    if weight is not None:
        check_numbers("weight", weight, "n")
        expect(np.shape(weight) == (n,), "weight", f"[n={n}]", describe(np.asarray(weight)))
    return n


def _against_other_classes(
    key: Key,
    before: np.ndarray,
    after: np.ndarray,
    label: np.ndarray,
    origin: np.ndarray,
    toward: np.ndarray,
    usable: np.ndarray,
    classes: int,
) -> _Movement:
    """More than two classes: movement toward the new value's class against that toward a class of neither value."""
    free = np.ones((len(label), classes), bool)
    rows = np.arange(len(label))
    for taken in (label, np.where(origin >= 0, origin, label), np.where(toward >= 0, toward, label)):
        free[rows, taken] = False
    usable = usable & (label != toward) & free.any(1)
    other = np.where(free, numpy_generator(key).random(free.shape), -1.0).argmax(1)

    def gained(target: np.ndarray) -> np.ndarray:
        return (after == target).astype(int) - (before == target)

    group = np.where(usable, toward, -1)
    return _Movement(gained(toward), gained(other), group, set(group[usable].tolist()) == set(range(classes)))


def _both_ways(
    before: np.ndarray, after: np.ndarray, label: np.ndarray, toward: np.ndarray, usable: np.ndarray
) -> _Movement:
    """Two classes: movement toward the new value's class, away from the label's and back to it weighing equally."""
    moved = (after == toward).astype(int) - (before == toward)
    back = (label == toward).astype(int)
    group = _balanced(label, back, usable, np.array([0, 1]))
    if (group >= 0).any():
        return _Movement(moved, np.zeros_like(moved), group, True)
    return _Movement(moved, np.zeros_like(moved), np.where(usable, label, -1), False)


def _balanced(label: np.ndarray, side: np.ndarray, usable: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """`[n]` number of the cell of label and side, of the labels that have enough rows on every side; else -1."""
    group = np.full(len(label), -1)
    for y in np.unique(label[usable]):
        of_side = [usable & (label == y) & (side == one) for one in sides]
        if len(of_side) > 1 and min(rows.sum() for rows in of_side) >= MIN_GROUP:
            for number, rows in enumerate(of_side):
                group[rows] = y * len(sides) + number
    return group


def _measured(key: Key, found: _Movement, evidence: Any, unit: Any, weight: Any, level: float) -> Intervention | None:
    """The mean movement beyond the control, over groups that weigh equally, with its interval and test."""
    present = np.unique(found.group[found.group >= 0])
    if not len(present):
        return None
    group = np.where(found.group >= 0, np.searchsorted(present, found.group), -1)
    share = np.full(len(present), 1.0 / len(present))
    # A row counts once, whichever way it went: its sign, whose mean is 0 where change and control move equally many.
    beyond = np.sign(found.moved - found.control)
    change = paired_change(
        (beyond < 0).astype(int), (beyond > 0).astype(int), group, share, key=key, unit=unit, weight=weight, level=level
    )
    effect = Interval(change.value, change.low, change.high, change.n)

    def mean(of: np.ndarray) -> float:
        counted = np.ones(len(of)) if weight is None else np.asarray(weight, np.float64)
        return float(np.mean([np.average(of[group == g], weights=counted[group == g]) for g in range(len(present))]))

    moved, control = mean(found.moved), mean(found.control)
    return Intervention(evidence, moved, control, effect, float(change.p), int(change.discordant), found.controlled)
