"""Do mistakes lean to the class that an attribute is associated with? The test, the size, and what could be seen.

`w[c, a]` is the log association of class c and attribute value a in the training counts. A group that is only harder
makes as many mistakes against its association as with it; a model that relies on the attribute makes more with it.
A lean alone does not prove reliance: `_reversed` and the sides below exclude what else makes mistakes lean.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Num

from jaxdebias.contracts import check_finite, check_numbers, describe, expect
from jaxdebias.core import Array, Key
from jaxdebias.measure._exchange import ExchangeTest, exchange_test
from jaxdebias.measure._intervals import Interval
from jaxdebias.measure._row_intervals import weighted_rate_interval
from jaxdebias.measure._significance import ALPHA

ASSOCIATED = 0.05
"""Log association above which a class and a value are associated: 5 % more frequent together than by chance."""
EVEN = 1.1
"""Largest training share, in units of 1/k, up to which no class is one to fall back on."""
POWER = 0.8
"""Share of test sets that would show a lean of the detectable size."""


class Rows(NamedTuple):
    """The rows behind every statement about one attribute: its value is known and the row is no padding."""

    predicted: np.ndarray
    """`[n]` predicted classes."""
    label: np.ndarray
    """`[n]` true classes."""
    value: np.ndarray
    """`[n]` values of the attribute."""
    probabilities: np.ndarray | None
    """`[n k]`, or None."""
    unit: np.ndarray | None
    """`[n]`, or None: every row is its own unit."""
    weight: np.ndarray | None
    """`[n]` positive weights, for the size of the lean; tests count every row once."""

    def among(self, kept: np.ndarray) -> "Rows":
        """The rows that a mask `[n]` keeps."""
        chosen: list[Any] = [None if leaf is None else leaf[kept] for leaf in self]
        return Rows(*chosen)


def label_association(counts: Num[Array, "k a"]) -> Float[np.ndarray, "k a"]:
    """`log p(y, a) / (p(y) p(a))` in nats: how strongly class y and value a are associated; 0 if they are not.

    Half a sample is added to every cell, so that an empty one counts strongly, not infinitely, against its class.
    Values that never occur have no association.

    Args:
      counts: `[k a]` training samples per class and value.

    >>> label_association(np.array([[90, 10], [10, 90]])).round(2).tolist()
    [[0.58, -1.57], [-1.57, 0.58]]
    """
    check_numbers("counts", counts, "k a")
    check_finite("counts", counts)
    counts = np.asarray(counts, np.float64)
    expect(bool((counts >= 0).all()), "counts", "at least 0", describe(counts))
    seen = counts.sum(0) > 0
    joint = (counts + 0.5) * seen
    expected = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True) / max(joint.sum(), 0.5)
    return np.log(np.where(seen, joint, 1.0) / np.where(seen, expected, 1.0))


def lean_test(
    rows: Rows, w: np.ndarray, *, key: Key, stratum: np.ndarray | None = None, resolve: float = ALPHA
) -> ExchangeTest:
    """Tests T = sum of w[predicted, value] against values dealt anew within each label (and stratum).

    Within a label, because labels and values may be associated in the test set as they are in training; then even a
    perfect model's predictions are associated with the attribute.

    Args:
      rows: the rows.
      w: `[k a]` log association in training.
      key: randomness of permutations.
      stratum: `[n]` integers from 0: deal only among rows that agree in this one, too.
      resolve: the level that p will be compared with.
    """
    if stratum is None:
        stratum = np.zeros(len(rows.label), np.int64)
    within = stratum * len(w) + rows.label
    return exchange_test(rows.predicted, w, rows.value, within, key=key, unit=rows.unit, resolve=resolve)


def rank_test(rows: Rows, w: np.ndarray, *, key: Key, stratum: np.ndarray | None = None) -> ExchangeTest:
    """Tests whether scores lean: ranks of the probability of each class c on w[c, value], within labels (van Elteren).

    Ranks within a label are divided by its rows plus one, the weights that are most powerful for a shift. Scores show
    a lean before it makes mistakes, and a fall-back class does not look like one: a model that does not know moves its
    scores to the middle on all labels.

    Args:
      rows: the rows, with probabilities.
      w: `[k a]` log association in training.
      key: randomness of permutations.
      stratum: `[n]` integers from 0: rank and deal only among rows that agree in this one, too.
    """
    if rows.probabilities is None:
        expect(False, "probabilities", "[n k], for a test of ranks", None)
    within = rows.label if stratum is None else stratum * len(w) + rows.label
    _, within = np.unique(within, return_inverse=True)
    rank = _mid_ranks(rows.probabilities, within) / (np.bincount(within)[within] + 1.0)[:, None]
    # Rows with equal ranks are of one kind, which is what makes ties exchangeable.
    kinds, kind = np.unique(rank, axis=0, return_inverse=True)
    return exchange_test(kind.ravel(), kinds @ w, rows.value, within, key=key, unit=rows.unit)


def _mid_ranks(values: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """Ranks from 1 within strata of each column of `[n k]`, the mean rank where values are equal."""
    ranks = np.empty(values.shape)
    for column, of in enumerate(values.T):
        order = np.lexsort((of, stratum))
        ordered, group = of[order], stratum[order]
        new = np.r_[True, (np.diff(ordered) != 0) | (np.diff(group) != 0)]
        first, place = np.flatnonzero(new), np.cumsum(new) - 1
        last = np.r_[first[1:], len(order)]
        begins = np.searchsorted(group, group[first])  # where the stratum begins
        ranks[order, column] = (0.5 * (first + 1 + last) - begins)[place]
    return ranks


def sides(w: np.ndarray, present: np.ndarray) -> list[np.ndarray]:
    """Masks of classes `[k]`, one for each value: all classes but those that the value is associated with.

    A wrong or noisy group makes mistakes lean on one side only: a group whose labels are noisy looks as if it leaned to
    its class where it is wrong, and away from it elsewhere. What leans on every remainder has no such cause.

    Args:
      w: `[k a]` log association in training.
      present: `[a]` bool, values that occur.
    """
    kept = ~(w > ASSOCIATED).T[present]
    return list(np.unique(kept, axis=0))


def sided_lean_p(
    rows: Rows, w: np.ndarray, present: np.ndarray, *, key: Key, stratum: np.ndarray | None = None
) -> float:
    """The largest p of the lean on all sides: of the scores where there are any, otherwise of the mistakes.

    Args:
      rows: the rows.
      w: `[k a]` log association in training.
      present: `[a]` bool, values that occur.
      key: randomness of permutations.
      stratum: `[n]` integers from 0: deal only among rows that agree in this one, too.
    """
    test, largest = lean_test if rows.probabilities is None else rank_test, 0.0
    for number, kept in enumerate(sides(w, present)):
        among = kept[rows.label]
        within = None if stratum is None else stratum[among]
        found = test(rows.among(among), w, key=jax.random.fold_in(key, number), stratum=within)
        largest = max(largest, found.p)
    return largest


def largest_share(counts: np.ndarray) -> float:
    """Share of the most frequent class in counts `[k a]`, in units of 1/k: above `EVEN`, one to fall back on."""
    of_class = np.asarray(counts, np.float64).sum(1)
    return float(of_class.max() / of_class.sum() * len(of_class))


def lean_interval(rows: Rows, w: np.ndarray, *, level: float) -> Interval | None:
    """Accuracy where w[label, value] > 0.05 minus accuracy elsewhere, labels counted equally; None if undefined.

    Args:
      rows: the rows. Labels that have rows on one side only take no part.
      w: `[k a]` log association in training.
      level: confidence level.
    """
    associated = w[rows.label, rows.value] > ASSOCIATED
    group = 2 * rows.label.astype(np.int64) + associated
    both = np.asarray((np.bincount(group, minlength=2 * len(w)).reshape(-1, 2) > 0).all(1))
    if not both.any():
        return None
    weights = (both[:, None] * np.array([-1.0, 1.0]) / both.sum()).ravel()
    right = (rows.predicted == rows.label).astype(np.float64)
    return weighted_rate_interval(right, group, weights, unit=rows.unit, weight=rows.weight, level=level)


def detectable_lean(rows: Rows, w: np.ndarray, *, alpha: float, design_effect: float = 1.0) -> float:
    """Smallest lean that the lean test would find in 80 % of such test sets; 1 where it would find none.

    The alternative is a model that makes mistakes as this one does, but within a label without regard to the attribute,
    and that in a share s of the rows predicts the class most associated with the value. Its lean is proportional to s,
    and so is the mean D of T; with the standard deviations of T under exchange, S0, and under the alternative, S1, s
    solves D = z(1 - alpha) S0 + z(.8) S1.

    Args:
      rows: the rows.
      w: `[k a]` log association in training.
      alpha: one-sided level of the test.
      design_effect: what clustered rows multiply variances by.
    """
    from scipy import special

    # Only classes and values that occur, or that a value would be answered with, enter.
    values, value = np.unique(rows.value, return_inverse=True)
    used, place = np.unique(np.r_[rows.label, rows.predicted, w[:, values].argmax(0)], return_inverse=True)
    rows = rows._replace(label=place[: len(value)], predicted=place[len(value) : 2 * len(value)], value=value)
    w = w[np.ix_(used, values)]
    classes, values = w.shape
    size = np.bincount(rows.label * values + rows.value, minlength=classes * values).reshape(classes, values)
    confusion = np.bincount(rows.label * classes + rows.predicted, minlength=classes**2).reshape(classes, classes)
    of_label = np.maximum(size.sum(1), 1.0)
    base, share = confusion / of_label[:, None], size / of_label[:, None]
    top, pulled = w.argmax(0), w.max(0) > ASSOCIATED
    # The shift of P(class | label, value) for s = 1, [y c a]; and the score centred over the values of the label.
    shift = np.where(pulled, np.eye(classes)[:, top][None] - base[:, :, None], 0.0)
    centred = w[None] - np.einsum("ya,ca->yc", share, w)[:, :, None]
    drift = float((size[:, None] * shift * centred).sum())

    right = shift[np.arange(classes), np.arange(classes)]  # [y a], change of the accuracy
    inside = size * (w > ASSOCIATED), size * (w <= ASSOCIATED)
    both = (inside[0].sum(1) > 0) & (inside[1].sum(1) > 0)
    if drift <= 0 or not both.any():
        return 1.0
    means = [(of * right).sum(1) / np.maximum(of.sum(1), 1.0) for of in inside]
    slope = float((means[0] - means[1])[both].mean())

    def variances(s: float) -> tuple[float, float]:
        """Of T under exchange, and under the alternative."""
        p = base[:, :, None] + s * shift
        mean = (share[:, None] * p).sum(2)  # [y c], under exchange
        over_both = centred - np.einsum("yc,yca->ya", mean, centred)[:, None]
        exchanged = np.einsum("ya,yc,yca->", size, mean, over_both**2)
        actual = (size * ((p * centred**2).sum(1) - (p * centred).sum(1) ** 2)).sum()
        return float(exchanged), float(actual)

    # Both are polynomials in s, of degree 3 and 2: four points give them exactly.
    points = np.linspace(0.0, 1.0, 4)
    cubics = np.linalg.solve(np.vander(points), np.array([variances(s) for s in points]))
    quantiles = np.array([special.ndtri(1.0 - alpha), special.ndtri(POWER)]) * design_effect**0.5

    def missing(s: float) -> float:
        """By how much the mean of T falls short of being found."""
        return float(quantiles @ np.maximum(np.vander([s], 4)[0] @ cubics, 0.0) ** 0.5 - s * drift)

    if slope <= 0 or missing(1.0) > 0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if missing(middle) > 0 else (low, middle)
    return min(1.0, high * slope)
