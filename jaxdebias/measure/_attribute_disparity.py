"""Does a classifier serve the values of an attribute differently? One entry per attribute, or combination, and measure.

    entries = assess_disparity(predicted, label, {"sex": sex, "age": age}, key=key)
    overall_disparity(entries)         # exceeds, within or cannot_tell

No training counts are needed. Accuracy and the error rates given the label decide; positive rates and calibration are
reported: a perfect model of data with unequal base rates has unequal positive rates.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped

from jaxdebias.contracts import check_counted, check_integers, check_key, check_numbers, describe, expect, row_count
from jaxdebias.core import Array, Key
from jaxdebias.measure._calibration_disparity import compare_calibration
from jaxdebias.measure._design_effect import group_counts
from jaxdebias.measure._disparity import largest_difference_interval, worst_group_interval
from jaxdebias.measure._disparity_entries import (
    DECIDING,
    JOINED,
    AttributeDisparity,
    RatedGroup,
    Slices,
    SmallGroup,
    group_sizes,
    join_values,
)
from jaxdebias.measure._groups import predicted_class
from jaxdebias.measure._intervals import Interval, proportion_interval
from jaxdebias.measure._significance import adjust_holm, homogeneity_p
from jaxdebias.measure._slice_test import slice_p

STATES = ("exceeds", "cannot_tell", "within")


class _Rate(NamedTuple):
    """A rate to compare between groups, in one or more families of rows."""

    measure: str
    event: np.ndarray
    """`[f n]` 0 or 1."""
    family: np.ndarray
    """`[f n]` bool, the rows that count."""
    classes: tuple[int | None, ...]
    """`[f]` class of each family."""


def assess_disparity(
    predicted: Shaped[Array, "n *k"],
    label: Int[Array, " n"],
    attributes: Mapping[str, Int[Array, " n"]],
    *,
    key: Key,
    names: Mapping[str, Sequence[str]] | None = None,
    classes: int | None = None,
    probabilities: Float[Array, "n k"] | None = None,
    unit: Int[Array, " n"] | None = None,
    weight: Shaped[Array, " n"] | None = None,
    tolerance: float = 0.05,
    min_group: int = 30,
    slices: int = 2,
    level: float = 0.95,
) -> tuple[AttributeDisparity, ...]:
    """Compares accuracy, error rates, positive rates and calibration between values of attributes, the worst first.

    An entry exceeds the tolerance where the lower limit of its gap does and the test of no difference, adjusted over
    all entries (Holm 1979), agrees; it is within where the upper limit is. With three attributes at a time the entries
    are many and overlap: then the test is of the largest deviation of any slice by permutation (`slice_p`).

    Args:
      predicted: predicted classes `[n]` int, or logits `[n k]` float.
      label: `[n]` in 0..k-1.
      attributes: name -> `[n]` from 0; -1 is unknown and leaves the row out of this attribute's groups.
      key: randomness of the permutations.
      names: name -> names of the values; None: their numbers.
      classes: k; by default from the logits, or one more than the largest label or prediction, at least 2.
      probabilities: `[n k]` probabilities of the classes; None: no calibration.
      unit: `[n]`, rows of one unit are not independent; None: every row is its own unit.
      weight: `[n]` weights of rows; 0 is padding.
      tolerance: largest gap that is tolerated, as a fraction.
      min_group: fewest units of a group that takes part.
      slices: how many attributes form groups together, at most: 1, 2 or 3.
      level: confidence level; tests are at 1 - level.

    Raises:
      ContractError: no attribute, wrong shapes or values.

    >>> label = np.tile([0, 1], 400)
    >>> group = np.repeat([0, 1], 400)
    >>> predicted = np.where(np.arange(800) % 20 < 8 * group, 1 - label, label)
    >>> names = {"age": ("old", "young")}
    >>> worst = assess_disparity(predicted, label, {"age": group}, key=jax.random.key(0), names=names)[0]
    >>> worst.state, worst.measure, worst.lowest.name, worst.lowest.n, round(worst.gap.value, 2)
    ('exceeds', 'accuracy', 'young', 400, 0.4)
    """
    n = row_count("label", label)
    expect(len(attributes) > 0, "attributes", "at least one", "none")
    expect(0 <= tolerance < 1, "tolerance", "a fraction in 0..1", tolerance)
    expect(min_group >= 1, "min_group", "at least 1", min_group)
    expect(slices in (1, 2, 3), "slices", "1, 2 or 3", slices)
    if np.ndim(predicted) == 2:
        classes = classes or np.shape(predicted)[1]
    elif classes is None:
        for name, value in (("predicted", predicted), ("label", label)):
            check_integers(name, value, n, 0, None)
        classes = 1 + int(max(np.max(predicted), np.max(label), 1))
        check_counted("label", classes)
    check_integers("label", label, n, 0, classes)
    predicted, label = predicted_class("predicted", predicted, n, classes), np.asarray(label)
    counted = np.ones(n, bool) if weight is None else np.asarray(weight) > 0
    for name, value in attributes.items():
        check_integers(f"attributes[{name!r}]", value, n, -1, None)
    single = {name: np.where(counted, np.asarray(value), -1) for name, value in attributes.items()}
    grouped = [join_values(chosen, names or {}) for size in range(1, slices + 1)
               for chosen in itertools.combinations(single.items(), size)]  # fmt: skip
    compared = _rates(predicted, label, classes)
    entries, counts = [], []
    for number, slice_ in enumerate(grouped):
        for rate in compared:
            found = _compare(slice_, rate, unit, weight, min_group, level, alone=number < len(single))
            if found is not None:
                entries.append(found[0])
                counts.append((rate.measure, slice_, *found[1:]))
    check_key("key", key)
    key_rates, key_slices = jax.random.split(key)
    p = _p_of_rates(key_rates, counts, 1.0 - level)
    if probabilities is not None:
        check_numbers("probabilities", probabilities, "n k")
        expect(
            np.shape(probabilities) == (n, classes), "probabilities", f"[n={n}, k={classes}]", describe(probabilities)
        )
        for slice_ in grouped:
            found = compare_calibration(
                slice_, predicted, label, np.asarray(probabilities, np.float64), unit, weight, level
            )
            if found is not None:
                entries.append(found[0])
                p.append(found[1])
    adjusted = np.asarray(adjust_holm(np.array(p))) if p else np.zeros(0)
    if slices == 3 and counts:
        adjusted = _p_of_slices(key_slices, counts, compared, adjusted, weight)
    judged = [
        entry._replace(p=1.0 if np.isnan(q) else float(q), state=_state(entry, float(q), tolerance, 1.0 - level))
        for entry, q in zip(entries, adjusted, strict=True)
    ]
    return tuple(sorted(judged, key=_worst_first))


def overall_disparity(entries: Iterable[Any]) -> str:
    """`exceeds` if any deciding entry does; else `cannot_tell` if one cannot be told or none exists; else `within`.

    Args:
      entries: with `measure` and `state`, as `AttributeDisparity` or its record.
    """
    states = {entry.state for entry in entries if entry.measure in DECIDING}
    if "exceeds" in states:
        return "exceeds"
    return "cannot_tell" if "cannot_tell" in states or not states else "within"


def _rates(predicted: np.ndarray, label: np.ndarray, classes: int) -> list[_Rate]:
    """What is compared: for two classes the rates of class 1, for more the recall and positive rate of each class."""
    every = np.ones((1, len(label)), bool)
    right = (predicted == label)[None]
    if classes == 2:
        positive, of_label = (predicted == 1)[None], (label == 1)[None]
        return [
            _Rate("accuracy", right, every, (None,)),
            _Rate("true_positive_rate", positive, of_label, (1,)),
            _Rate("false_positive_rate", positive, ~of_label, (1,)),
            _Rate("positive_rate", positive, every, (1,)),
        ]
    each = tuple(range(classes))
    of_label = label == np.arange(classes)[:, None]
    positive = predicted == np.arange(classes)[:, None]
    return [
        _Rate("accuracy", right, every, (None,)),
        _Rate("recall_of_class", np.repeat(right, classes, 0), of_label, each),
        _Rate("positive_rate", positive, np.repeat(every, classes, 0), each),
    ]


def _compare(
    slices: Slices,
    rate: _Rate,
    unit: np.ndarray | None,
    weight: np.ndarray | None,
    min_group: int,
    level: float,
    *,
    alone: bool,
) -> tuple[AttributeDisparity, np.ndarray, np.ndarray, bool] | None:
    """(entry without its p, successes `[f g]`, trials `[f g]`, whether enough groups take part).

    None where there is nothing to compare. For an attribute `alone` groups that are too small are compared for want of
    larger ones, so that the reader sees why nothing can be told.
    """
    g = len(slices.names)
    if g < 2:
        return None
    group = np.where(rate.family, slices.group, -1)
    x, n = group_counts(rate.event, group, groups=g, unit=unit, weight=weight, level=level)
    size = group_sizes(group, g, unit)
    large = size >= min_group
    enough = bool(((large & (n > 0)).sum(-1) > 1).any())
    if not enough and not (alone and bool(((n > 0).sum(-1) > 1).any())):
        return None
    taking_part = large if enough else size > 0
    x, n = np.where(taking_part, x, 0.0), np.where(taking_part, n, 0.0)
    gap = largest_difference_interval(x, n, level=level)
    worst = worst_group_interval(x[gap.family], n[gap.family], level=level)
    each = proportion_interval(x[gap.family], n[gap.family], level=level)

    def rated(index: int) -> RatedGroup:
        ends = (float(np.asarray(end)[index]) for end in each[:3])
        return RatedGroup(slices.names[index], int(size[gap.family, index]), *ends)

    entry = AttributeDisparity(
        attribute=slices.attribute,
        measure=rate.measure,
        class_=rate.classes[gap.family],
        state="cannot_tell",
        gap=Interval(gap.value, gap.low, gap.high, gap.n),
        p=1.0,
        highest=rated(gap.highest),
        lowest=rated(gap.lowest),
        left_out=tuple(
            SmallGroup(slices.names[i], int(size[gap.family, i]))
            for i in np.flatnonzero((size[gap.family] > 0) & ~large[gap.family])
        ),
        indistinguishable=int(worst.indistinguishable),
    )
    return entry, x, n, enough


def _p_of_rates(key: Key, counts: Sequence[tuple[Any, ...]], alpha: float) -> list[float]:
    """p of equal rates, NaN where too few groups take part; resolved at alpha over the number of tests."""
    tests = max(1, sum(enough for *_, enough in counts))
    return [
        float(homogeneity_p(x, n, key=jax.random.fold_in(key, number), resolve=alpha / tests)) if enough else np.nan
        for number, (_, _, x, n, enough) in enumerate(counts)
    ]


def _p_of_slices(
    key: Key,
    counts: Sequence[tuple[Any, ...]],
    compared: Sequence[_Rate],
    adjusted: np.ndarray,
    weight: np.ndarray | None,
) -> np.ndarray:
    """The adjusted p of the rates by the largest deviation of any slice, times the number of measures."""
    adjusted = adjusted.copy()
    for number, rate in enumerate(compared):
        chosen = [i for i, (measure, *_, enough) in enumerate(counts) if measure == rate.measure and enough]
        if chosen:
            p = slice_p(
                jax.random.fold_in(key, number), rate.event, rate.family,
                [counts[i][1].group for i in chosen], [counts[i][2] for i in chosen], [counts[i][3] for i in chosen],
                weight=weight,
            )  # fmt: skip
            adjusted[chosen] = np.minimum(p * len(compared), 1.0)
    return adjusted


def _state(entry: AttributeDisparity, p: float, tolerance: float, alpha: float) -> str:
    if np.isnan(p):
        return "cannot_tell"
    if entry.gap.low > tolerance and p <= alpha + 1e-12:
        return "exceeds"
    return "within" if entry.gap.high <= tolerance else "cannot_tell"


def _worst_first(entry: AttributeDisparity) -> tuple[int, bool, int, float, float]:
    """By state, deciding measures first; of those, single attributes first: combinations of a bad one are bad, too."""
    size = entry.attribute.count(JOINED)
    return STATES.index(entry.state), not entry.decides, size, -entry.gap.low, -entry.gap.value
