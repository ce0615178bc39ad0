"""Group fairness: demographic parity, equal opportunity and equalised odds differences.

Hard forms, of decisions, are for reports and carry intervals (`fairness_report`). Soft forms, of probabilities, are
differentiable and are what an edit can lower (FMD, Chen et al. 2023, section 3: the bias function generalises).
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxdebias.contracts import (
    check_choice,
    check_counted,
    check_integers,
    check_key,
    check_numbers,
    describe,
    expect,
    row_count,
)
from jaxdebias.core import Array, Key
from jaxdebias.measure._design_effect import group_counts
from jaxdebias.measure._disparity import largest_difference_interval
from jaxdebias.measure._extreme_changes import UNKNOWN, largest_difference_change
from jaxdebias.measure._groups import SMALL_GROUP, group_confusion, predicted_class, units_in
from jaxdebias.measure._row_intervals import PairedChange
from jaxdebias.measure._significance import homogeneity_p

RATES = ("selection_rate", "true_positive_rate", "false_positive_rate")


class Disparity(NamedTuple):
    """The largest difference of a rate between two attribute values, among groups that are large enough."""

    value: float
    low: float
    high: float
    n: int
    """Rows of the two groups; effective ones where rows are clustered."""
    p: float
    """Of equal rates in all groups. A finding needs it as well as an interval without 0."""
    highest: int
    """Attribute value with the highest rate; -1 where there is no difference."""
    lowest: int
    """Attribute value with the lowest rate."""
    all_groups: float
    """The same difference with small groups; a group without any row to count is left out."""
    left_out: tuple[int, ...]
    """Attribute values in the data with fewer than `min_group` units to take the rate over."""


class FairnessReport(NamedTuple):
    """Differences between attribute values of what a classifier decides. 0 is fair, 1 the most unfair."""

    demographic_parity_difference: Disparity
    """Highest minus lowest selection rate, the share of rows given the positive class."""
    equal_opportunity_difference: Disparity
    """Highest minus lowest true positive rate."""
    equalised_odds_difference: Disparity
    """Larger of the differences of true and of false positive rates."""
    selection_rate: np.ndarray
    """`[a]`, or `[a k]` if the positive class is None; so are the next two. NaN where there is no row to count."""
    true_positive_rate: np.ndarray
    false_positive_rate: np.ndarray
    count: np.ndarray
    """Rows per attribute value, int `[a]`."""
    undefined: tuple[str, ...]
    """Which rates of attribute values present in the data do not exist, and why."""


class FairnessChanges(NamedTuple):
    """What a second model changes in the differences of a `FairnessReport`. NaN where one does not exist."""

    demographic_parity_difference: PairedChange
    equal_opportunity_difference: PairedChange
    equalised_odds_difference: PairedChange


def fairness_report(
    key: Key,
    predicted: Shaped[Array, "n *k"],
    label: Int[Array, " n"],
    attribute: Int[Array, " n"],
    *,
    unit: Int[Array, " n"] | None = None,
    classes: int = 2,
    attributes: int | None = None,
    positive: int | None = 1,
    min_group: int = SMALL_GROUP,
    level: float = 0.95,
) -> FairnessReport:
    """Fairness differences with any number of attribute values, each with its interval and test.

    The largest of many differences is above 0 by chance. The interval allows for that (`largest_difference_interval`),
    and the test is of equal rates in all groups (`homogeneity_p`). Equalised odds are families of groups: true and
    false positive rates. Groups that a rate is taken over fewer than `min_group` units of take no part; with them the
    values are those of fairlearn's `demographic_parity_difference`, `equal_opportunity_difference` and
    `equalized_odds_difference` (`Disparity.all_groups`).

    Args:
      key: randomness of the permutations.
      predicted: predicted classes `[n]` int, or logits `[n k]` float.
      label: `[n]` in 0..classes-1.
      attribute: `[n]` from 0; -1 (unknown) leaves the row out. Values that never occur are left out too.
      unit: `[n]` independent unit of each row; None: every row.
      classes: k.
      attributes: a; None: one more than the largest value in the data.
      positive: the class that counts as positive, against all others. None: the largest difference over all classes,
        each against the others.
      min_group: fewest units over which a rate is compared.
      level: confidence level.

    Raises:
      ContractError: on shapes or ranges that do not fit, or if fewer than two attribute values occur.
    """
    check_key("key", key)
    n = row_count("label", label)
    check_integers("label", label, n, 0, classes)
    check_integers("attribute", attribute, n, -1, attributes)
    if unit is not None:
        check_integers("unit", unit, n, 0, None)
    expect(min_group >= 1, "min_group", "at least 1", min_group)
    predicted = predicted_class("predicted", predicted, n, classes)
    expect(positive is None or 0 <= positive < classes, "positive", f"a class in 0..{classes - 1}, or None", positive)
    label, attribute = np.asarray(label), np.asarray(attribute)
    attributes = int(attribute.max()) + 1 if attributes is None else attributes
    check_counted("attribute", attributes)
    count = np.bincount(attribute[attribute >= 0], minlength=attributes)
    present = np.flatnonzero(count)
    expect(len(present) >= 2, "attribute", "at least two values that occur", f"{present.tolist()}")

    positives = list(range(classes)) if positive is None else [positive]
    confusion = np.asarray(group_confusion(predicted, label, attribute, classes=classes, attributes=attributes))
    chosen, size = _counts(confusion, positives)
    x, trials, units = chosen.astype(np.float64), size.astype(np.float64), size
    if unit is not None:
        x, trials, units = _clustered(predicted, label, attribute, np.asarray(unit), positives, attributes, level)
    taking_part = units >= min_group
    selection, true_positive, false_positive = range(len(RATES))
    families = ((selection,), (true_positive,), (true_positive, false_positive))
    keys = jax.random.split(key, len(families))
    differences = [
        _largest(
            one, *(field[list(rates)].reshape(-1, attributes) for field in (x, trials, taking_part)), present, level
        )
        for one, rates in zip(keys, families, strict=True)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = np.where(size > 0, chosen / size, np.nan)  # [rate class a]
    undefined = tuple(
        f"{RATES[rate]} of attribute {value}: no {'positive' if rate == 1 else 'negative'} of class {positives[c]}"
        for value in present.tolist()
        for rate, c in np.argwhere(size[..., value] == 0).tolist()
    )
    by_attribute = rates.transpose(0, 2, 1) if positive is None else rates[:, 0]  # [rate a class] or [rate a]
    return FairnessReport(*differences, *by_attribute, count, undefined)


def fairness_differences(
    key: Key,
    before: Shaped[Array, "n *k"],
    after: Shaped[Array, "n *k"],
    label: Int[Array, " n"],
    attribute: Int[Array, " n"],
    *,
    unit: Int[Array, " n"] | None = None,
    attributes: int | None = None,
    min_group: int = SMALL_GROUP,
    level: float = 0.95,
) -> FairnessChanges:
    """What a second model changes on the same rows, two classes: `after - before` of every difference.

    Each is `largest_difference_change`, between the groups of `fairness_report`. Arguments as there.
    """
    check_key("key", key)
    n = row_count("label", label)
    check_integers("label", label, n, 0, 2)
    check_integers("attribute", attribute, n, -1, attributes)
    if unit is not None:
        check_integers("unit", unit, n, 0, None)
    first, second = (predicted_class(name, one, n, 2) for name, one in (("before", before), ("after", after)))
    label, attribute = np.asarray(label), np.asarray(attribute)
    unit = None if unit is None else np.asarray(unit)
    attributes = int(attribute.max()) + 1 if attributes is None else attributes
    parts = (np.zeros_like(label), np.where(label == 1, 0, -1), label)  # families of each difference; -1: no part
    changes = []
    for one, family in zip(jax.random.split(key, len(parts)), parts, strict=True):
        families = int(family.max()) + 1
        cell = np.where((family < 0) | (attribute < 0), -1, family * attributes + attribute)
        units = units_in(cell, unit, max(families, 1) * attributes)
        group = np.where((cell >= 0) & (units[cell] >= min_group), attribute, -1)
        if not np.any(group >= 0):
            changes.append(UNKNOWN)
            continue
        changes.append(
            largest_difference_change(
                first, second, family, group, families=families, groups=attributes, key=one, unit=unit, level=level
            )
        )
    return FairnessChanges(*changes)


def soft_demographic_parity(probability: Float[Array, " n"], attribute: Int[Array, " n"]) -> Float[jax.Array, ""]:
    """`|E[p(1|x) | A=0] - E[p(1|x) | A=1]|` of the probabilities of the positive class `[n]`, for a binary attribute.

    Rows of attribute -1 do not count. NaN where an attribute value has no rows. The gradient at 0 is 0.

    >>> float(soft_demographic_parity(jnp.array([0.75, 0.5, 0.25]), jnp.array([0, 0, 1])))
    0.375
    """
    return _soft_gap(probability, attribute, None)


def soft_equal_opportunity(
    probability: Float[Array, " n"], label: Int[Array, " n"], attribute: Int[Array, " n"]
) -> Float[jax.Array, ""]:
    """Soft demographic parity among the rows of label 1."""
    check_numbers("label", label, "n")
    return _soft_gap(probability, attribute, label)


def soft_equalised_odds(
    probability: Float[Array, " n"],
    label: Int[Array, " n"],
    attribute: Int[Array, " n"],
    *,
    odds: Literal["worst_case", "sum"] = "worst_case",
) -> Float[jax.Array, ""]:
    """Soft demographic parity among the rows of label 1 and among the others: the larger of both, or their sum."""
    check_choice("odds", odds, ("worst_case", "sum"))
    check_numbers("label", label, "n")
    of_positives = _soft_gap(probability, attribute, label)
    of_negatives = _soft_gap(probability, attribute, label, positive=False)
    return jnp.maximum(of_positives, of_negatives) if odds == "worst_case" else of_positives + of_negatives


def _counts(confusion: Int[np.ndarray, "k a k"], positives: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are given the positive class, and rows in all, of each rate: `[rate class a]` each."""
    given, label_count = confusion.sum(axis=0).T, confusion.sum(axis=2)  # [k a] both
    right = np.einsum("yay->ya", confusion)
    given, label_count, right = given[positives], label_count[positives], right[positives]
    everyone = np.broadcast_to(confusion.sum(axis=(0, 2)), label_count.shape)
    return np.stack([given, right, given - right]), np.stack([everyone, label_count, everyone - label_count])


def _clustered(
    predicted: np.ndarray,
    label: np.ndarray,
    attribute: np.ndarray,
    unit: np.ndarray,
    positives: list[int],
    attributes: int,
    level: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(effective successes, effective trials, units), `[rate class a]` each, where rows share units."""
    x, n, units = (np.zeros((len(RATES), len(positives), attributes)) for _ in range(3))
    for c, positive in enumerate(positives):
        true = label == positive
        for rate, member in enumerate((np.ones_like(true), true, ~true)):
            group = np.where(member, attribute, -1)
            x[rate, c], n[rate, c] = group_counts(
                predicted == positive, group, groups=attributes, unit=unit, level=level
            )
            units[rate, c] = units_in(group, unit, attributes)
    return x, n, units


def _largest(
    key: Key,
    x: Float[np.ndarray, "f a"],
    n: Float[np.ndarray, "f a"],
    taking_part: Bool[np.ndarray, "f a"],
    present: np.ndarray,
    level: float,
) -> Disparity:
    """The largest difference over families of groups, among those that take part and among all."""
    all_groups = largest_difference_interval(x, n, level=level).value
    left_out = tuple(value for value in present.tolist() if not taking_part[:, value].all())
    x, n = np.where(taking_part, x, 0.0), np.where(taking_part, n, 0.0)
    found = largest_difference_interval(x, n, level=level)
    p = float(homogeneity_p(x, n, key=key)) if found.family >= 0 else float("nan")
    return Disparity(
        float(found.value), float(found.low), float(found.high), round(float(found.n)), p,
        int(found.highest), int(found.lowest), float(all_groups), left_out,
    )  # fmt: skip


def _soft_gap(probability: Array, attribute: Array, label: Array | None, *, positive: bool = True) -> jax.Array:
    """Absolute difference between the mean probabilities of the members with attribute 0 and with attribute 1.

    Members are the rows of label 1, or all others; all rows without labels.
    """
    check_numbers("probability", probability, "n")
    for name, value in (("attribute", attribute), *(() if label is None else (("label", label),))):
        check_numbers(name, value, "n")
        expect(np.shape(value) == np.shape(probability), name, f"int [n={len(probability)}]", describe(value))
    probability = jnp.asarray(probability)
    member = 1.0 if label is None else (jnp.asarray(label) == 1) == positive
    first, second = (member * (jnp.asarray(attribute) == value) for value in (0, 1))
    gap = jnp.sum(probability * first) / jnp.sum(first) - jnp.sum(probability * second) / jnp.sum(second)
    return gap * jnp.sign(gap)  # not jnp.abs: its gradient at 0 is 1 in current JAX
