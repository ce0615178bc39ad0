"""Group fairness: demographic parity, equal opportunity and equalised odds differences.

Hard forms, of decisions, are for reports and carry intervals (`fairness_report`). Soft forms, of probabilities, are
differentiable and are what an edit can lower (FMD, Chen et al. 2023, section 3: the bias function generalises).
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from jaxdebias.contracts import check_choice, check_counted, check_integers, check_numbers, describe, expect, row_count
from jaxdebias.core import Array, Key
from jaxdebias.measure._bootstrap import Interval, bootstrap
from jaxdebias.measure._groups import predicted_class

RATES = ("selection_rate", "true_positive_rate", "false_positive_rate")


class FairnessReport(NamedTuple):
    """Differences between attribute values of what a classifier decides. 0 is fair, 1 the most unfair."""

    demographic_parity_difference: Interval
    """Highest minus lowest selection rate, the share of rows given the positive class."""
    equal_opportunity_difference: Interval
    """Highest minus lowest true positive rate."""
    equalised_odds_difference: Interval
    """Larger (or mean) of the differences of true and of false positive rates."""
    selection_rate: np.ndarray
    """`[a]`, or `[a k]` if the positive class is None; so are the next two. NaN where there is no row to count."""
    true_positive_rate: np.ndarray
    false_positive_rate: np.ndarray
    count: np.ndarray
    """Rows per attribute value, int `[a]`."""
    undefined: tuple[str, ...]
    """Which rates of attribute values present in the data do not exist, and why; their differences are NaN."""


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
    odds: Literal["worst_case", "mean"] = "worst_case",
    resamples: int = 1000,
    level: float = 0.95,
) -> FairnessReport:
    """Fairness differences with any number of attribute values, each with its interval.

    The values are those of fairlearn's `demographic_parity_difference`, `equal_opportunity_difference` and
    `equalized_odds_difference`. A difference of extremes cannot be negative, so its own resamples never show that
    it may be 0. The interval is therefore that of the signed difference between the two attribute values (and, for
    the worst case, the class and rate) that are furthest apart in the data, cut at 0: it reaches 0 when the
    difference is not separable from none.

    Args:
      key: randomness of the bootstrap.
      predicted: predicted classes `[n]` int, or logits `[n k]` float.
      label: `[n]` in 0..classes-1.
      attribute: `[n]` from 0; -1 (unknown) leaves the row out. Values that never occur are left out too.
      unit: `[n]` independent unit of each row; None: every row.
      classes: k.
      attributes: a; None: one more than the largest value in the data.
      positive: the class that counts as positive, against all others. None: the largest difference over all classes,
        each against the others.
      odds: equalised odds as the larger of the two differences, or their mean.
      resamples: bootstrap resamples.
      level: confidence level.

    Raises:
      ContractError: on shapes or ranges that do not fit, or if fewer than two attribute values occur.
    """
    n = row_count("label", label)
    check_integers("label", label, n, 0, classes)
    check_integers("attribute", attribute, n, -1, attributes)
    check_choice("odds", odds, ("worst_case", "mean"))
    predicted = predicted_class("predicted", predicted, n, classes)
    expect(positive is None or 0 <= positive < classes, "positive", f"a class in 0..{classes - 1}, or None", positive)
    label, attribute = np.asarray(label), np.asarray(attribute)
    attributes = int(attribute.max()) + 1 if attributes is None else attributes
    check_counted("attribute", attributes)
    count = np.bincount(attribute[attribute >= 0], minlength=attributes)
    present = np.flatnonzero(count)
    expect(len(present) >= 2, "attribute", "at least two values that occur", f"{present.tolist()}")

    positives = np.arange(classes) if positive is None else np.array([positive])
    selected, true = predicted[:, None] == positives, label[:, None] == positives
    member = np.stack([np.ones_like(true), true, ~true], axis=1)  # [n rate class]: whom a rate is taken over
    values = np.concatenate([member, member & selected[:, None]], axis=1).reshape(n, -1).astype(np.float32)

    size = np.stack([member[attribute == value].sum(axis=0) for value in range(attributes)])  # [a rate class]
    chosen = np.stack([(member & selected[:, None])[attribute == value].sum(axis=0) for value in range(attributes)])
    rates = np.where(size > 0, chosen / np.maximum(size, 1), np.nan)
    contrasts = _contrasts(rates[present], odds)
    everywhere = np.zeros((3, *rates.shape), np.float32)
    everywhere[:, present] = contrasts
    intervals = bootstrap(
        key,
        _contrasted_rates,
        values,
        group=attribute.astype(np.int32),
        groups=attributes,
        unit=unit,
        args=(everywhere,),
        resamples=resamples,
        level=level,
    )
    differences = [
        Interval(value, max(low, 0.0), high, intervals.n) if value == value else Interval(np.nan, np.nan, np.nan, 0)
        for value, low, high in zip(*(field.tolist() for field in intervals[:3]), strict=True)  # pyright: ignore[reportAttributeAccessIssue]
    ]
    undefined = tuple(
        f"{RATES[r]} of attribute {value}: no {'positive' if r == 1 else 'negative'} of class {positives[c]}"
        for value, r, c in np.argwhere(size == 0).tolist()
        if value in present
    )
    by_attribute = np.moveaxis(rates if positive is None else rates[..., 0], 1, 0)  # [rate a] or [rate a class]
    return FairnessReport(*differences, *by_attribute, count, undefined)


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


def _contrasts(rates: Float[np.ndarray, "a 3 k"], odds: str) -> Float[np.ndarray, "metric a 3 k"]:
    """Coefficients of the rates whose sum is each of the three differences: +1 at the highest rate, -1 at the lowest.

    Which rates these are is read off the data once; NaN rates get NaN coefficients, so the difference is NaN.
    """
    highest = np.argmax(rates, axis=0)  # NumPy's argmax returns a NaN if there is one
    lowest = np.argmin(rates, axis=0)
    values = np.arange(len(rates))[:, None, None]
    spread = (values == highest).astype(np.float64) - (values == lowest)  # [a rate class]
    spread = np.where(np.isnan(rates).any(axis=0), np.nan, spread)
    difference = np.sum(np.where(spread == 0, 0.0, spread * rates), axis=0)  # [rate class]

    def at(rate: int, label: int) -> np.ndarray:
        contrast = np.zeros_like(spread)
        contrast[:, rate, label] = spread[:, rate, label]
        return contrast

    selection, opportunity = (at(rate, int(np.argmax(difference[rate]))) for rate in (0, 1))
    if odds == "mean":
        worst = int(np.argmax(difference[1:].mean(axis=0)))
        return np.stack([selection, opportunity, (at(1, worst) + at(2, worst)) / 2])
    rate, worst = np.unravel_index(np.argmax(difference[1:]), difference[1:].shape)
    return np.stack([selection, opportunity, at(1 + int(rate), int(worst))])


def _contrasted_rates(sums: Float[Array, "a c"], contrasts: Float[Array, "metric a 3 k"]) -> Float[Array, " metric"]:
    size, chosen = jnp.split(sums.reshape(sums.shape[0], 6, -1), 2, axis=1)
    rates = chosen / jnp.where(size > 0, size, 1.0)
    return jnp.sum(contrasts * rates[None], axis=(1, 2, 3))


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
