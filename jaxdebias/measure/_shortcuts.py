"""Which attribute does a classifier use as a shortcut? From its predictions alone, whatever made them.

A classifier that is worse on one group than on another need not follow a shortcut: the group may be harder. What gives
a shortcut away is the direction of the mistakes: among samples of one label, predictions lean to the class that the
attribute goes with in training. `w[y, a] = log p(y, a) / (p(y) p(a))`, of the training counts, says how much attribute
a speaks for class y. The *pull* of a label is the mean, over pairs of its samples with different attribute values, of
how much higher `w[predicted, a]` is with a sample's own value than with the other's; that of a classifier is the mean
over labels. All labels count alike, so that a group that is merely harder, which makes as many mistakes against the
pull as with it, cancels out. Under the null, within each label the attribute has nothing to do with the prediction: it
can be exchanged between samples, and mean and variance of the pull are closed forms, as in the Cochran-Mantel-Haenszel
test with scores (Landis, Heyman and Koch 1978).

Attributes that go together are told apart by conditioning: only pairs that agree in label *and* in the other attribute
count. What an attribute says about another one's samples is then left out. One that follows another by chance would
pass one such test in twenty; all of them together are adjusted, as the plain ones are.
"""

import statistics
from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxdebias.contracts import (
    check_counted,
    check_finite,
    check_integers,
    check_numbers,
    describe,
    expect,
    row_count,
)
from jaxdebias.core import Array, Key, cell_counts
from jaxdebias.measure._groups import predicted_class
from jaxdebias.measure._intervals import Interval
from jaxdebias.measure._lean import label_association
from jaxdebias.measure._row_intervals import weighted_rate_interval

Name = TypeVar("Name", bound=Hashable)


class Pull(NamedTuple):
    """How far predictions lean to the class that an attribute goes with."""

    value: float
    """In nats, mean over labels; 0 is expected without a shortcut, negative: they lean away."""
    z: float
    """The same in standard errors under the null; NaN where nothing could be exchanged."""
    n: int
    """Samples that have one of another value to be compared with."""


class Shortcut(NamedTuple):
    """What the predictions say about one candidate attribute."""

    name: str
    pull: Pull
    p_value: float
    """One-sided, Holm-adjusted over the candidates; 1 where the test could not be made."""
    gap: Interval
    """Accuracy on bias-aligned minus that on bias-conflicting samples, mean over the labels that have both; NaN where
    none has."""
    explained_by: str | None
    """The candidate behind this one: given it, this one pulls no more, but not the other way round."""
    verdict: str
    """`shortcut`; `explained`, by another candidate; `none`: not separable from no shortcut; `unknown`: see reason."""
    reason: str
    """Why the verdict is `unknown`, else empty."""


def find_shortcuts(
    key: Key,
    predicted: Shaped[Array, "n *k"],
    label: Int[Array, " n"],
    attributes: Mapping[str, Int[Array, " n"]],
    *,
    classes: int | None = None,
    train_counts: Mapping[str, Int[Array, "k a"]] | None = None,
    unit: Int[Array, " n"] | None = None,
    level: float = 0.95,
) -> list[Shortcut]:
    """Tests every candidate attribute, the strongest pull first.

    The chance of calling any candidate a shortcut where none is one is at most `1 - level`.

    Args:
      key: of the gaps' intervals.
      predicted: predicted classes `[n]` int, or logits `[n k]` float, on samples that were not trained on.
      label: `[n]` in 0..k-1.
      attributes: name -> `[n]` from 0; -1 is unknown and leaves the sample out of this attribute's test.
      classes: k; by default from the logits, or one more than the largest label or prediction.
      train_counts: name -> training samples per label and attribute value. Without one, those of the given samples:
        right where they are biased as the training set is, `unknown` where they are balanced.
      unit: `[n]`, samples of one unit are not independent (renderings of one digit); then the variance is over units.
      level: one minus the chance of a false alarm; also of the gaps' intervals.

    Raises:
      ContractError: no candidates, wrong shapes or values, counts that do not fit the attribute.

    >>> label, colour = np.array([0, 1] * 100), np.array([0, 0, 1, 1] * 50)
    >>> counts = {"colour": np.array([[90, 10], [10, 90]])}
    >>> find_shortcuts(jax.random.key(0), colour, label, {"colour": colour}, train_counts=counts)[0].verdict
    'shortcut'
    >>> find_shortcuts(jax.random.key(0), label, label, {"colour": colour}, train_counts=counts)[0].verdict
    'none'
    """
    n = row_count("label", label)
    expect(len(attributes) > 0, "attributes", "at least one candidate", "none")
    expect(0 < level < 1, "level", "a number between 0 and 1", level)
    if np.ndim(predicted) == 2:
        classes = classes or np.shape(predicted)[1]
    elif classes is None:
        for name, value in (("predicted", predicted), ("label", label)):
            check_integers(name, value, n, 0, None)
        classes = 1 + int(max(np.max(predicted), np.max(label)))
        check_counted("label", classes)
    check_integers("label", label, n, 0, classes)
    predicted, label = predicted_class("predicted", predicted, n, classes), np.asarray(label)
    if unit is not None:
        check_integers("unit", unit, n, 0, None)
    unknown = set(train_counts or ()) - set(attributes)
    expect(not unknown, "train_counts", f"counts of {', '.join(attributes)}", ", ".join(map(str, unknown)))
    values, scores = {}, {}
    for name, value in attributes.items():
        check_integers(f"attributes[{name!r}]", value, n, -1, None)
        values[name] = np.asarray(value)
        counts = (train_counts or {}).get(name)
        most = int(values[name].max())
        check_counted(f"attributes[{name!r}]", most + 1)
        if counts is None:
            expect(most >= 0, "attributes", "at least one known value", "only -1")
            counts = cell_counts(label, values[name], classes, most + 1)
        check_numbers(f"train_counts[{name!r}]", counts, "k a")
        check_finite(f"train_counts[{name!r}]", counts)
        counts = np.asarray(counts)
        expect(
            counts.shape[0] == classes and counts.shape[1] > most,
            f"train_counts[{name!r}]",
            f"[k={classes}, more than {most}]",
            describe(counts),
        )
        expect(
            bool((counts >= 0).all() and counts.any()), f"train_counts[{name!r}]", "counts, not all 0", describe(counts)
        )
        scores[name] = label_association(counts)

    pulls = {name: mistake_pull(predicted, label, values[name], scores[name], unit=unit) for name in values}
    adjusted = holm({name: _p_value(one.z) for name, one in pulls.items()})
    flagged = [name for name in values if adjusted[name] < 1 - level and not silent(scores[name])]
    given_others = _conditional(flagged, predicted, label, values, scores, unit)
    found = []
    for name in values:
        reason = _reason(pulls[name], scores[name], name in (train_counts or {}))
        behind = _explained_by(name, given_others, 1 - level)
        verdict = (
            "unknown" if reason else "none" if name not in flagged else "shortcut" if behind is None else "explained"
        )
        gap = _gap(predicted == label, label, values[name], scores[name] > 0, unit, level)
        found.append(Shortcut(name, pulls[name], adjusted[name], gap, behind, verdict, reason))
    return sorted(found, key=lambda one: -np.nan_to_num(one.pull.z, nan=-np.inf))


def mistake_pull(
    predicted: Int[Array, " n"],
    label: Int[Array, " n"],
    attribute: Int[Array, " n"],
    score: Float[Array, "k a"],
    *,
    given: Int[Array, " n"] | None = None,
    unit: Int[Array, " n"] | None = None,
) -> Pull:
    """How much higher the score of predictions is with their own attribute value than with others of their label.

    Args:
      predicted: `[n]` in 0..k-1.
      label: `[n]` in 0..k-1.
      attribute: `[n]`, -1 leaves the sample out.
      score: `[k a]`, how much an attribute value speaks for a class, see `association`.
      given: `[n]`, compare only samples that also agree in this one; -1 leaves the sample out.
      unit: `[n]`, see `find_shortcuts`. None: the variance is that of the exchange, exactly; else the sum over units of
        the squares of their parts, for which there should be some dozens of them.
    """
    check_numbers("score", score, "k a")
    check_finite("score", score)
    n, (classes, values) = row_count("label", label), np.shape(score)
    check_integers("label", label, n, 0, classes)
    check_integers("predicted", predicted, n, 0, classes)
    check_integers("attribute", attribute, n, -1, values)
    if given is not None:
        check_integers("given", given, n, -1, None)
    if unit is not None:
        check_integers("unit", unit, n, 0, None)
        _, unit = np.unique(np.asarray(unit), return_inverse=True)
    predicted, label, attribute = map(np.asarray, (predicted, label, attribute))
    score, known = np.asarray(score, np.float64), attribute >= 0
    given = np.zeros_like(label) if given is None else np.asarray(given)
    part, variance, samples = np.zeros(len(label)), 0.0, 0
    labels = []
    for y in np.unique(label[known & (given >= 0)]):
        pairs, exchanged, rows_of_label = 0.0, 0.0, []
        for other in np.unique(given[known & (given >= 0) & (label == y)]):
            rows = np.flatnonzero(known & (label == y) & (given == other))
            p, a, n = predicted[rows], attribute[rows], len(rows)
            of_p, of_a = (np.bincount(x, minlength=length) / n for x, length in zip((p, a), score.shape, strict=True))
            if of_a.max() == 1:
                continue
            # Centred over what the stratum predicts and over its attribute values: its mean under exchange is 0.
            cell = score - (score @ of_a)[:, None] - (of_p @ score)[None, :] + of_p @ score @ of_a
            part[rows] = cell[p, a]
            exchanged += n**2 / (n - 1) * (of_p @ cell**2 @ of_a)
            pairs += n * (1 - of_a @ of_a)
            rows_of_label.append(rows)
        if rows_of_label:
            rows = np.concatenate(rows_of_label)
            part[rows] /= pairs
            variance += exchanged / pairs**2
            samples += len(rows)
            labels.append(y)
    if not labels:
        return Pull(float("nan"), float("nan"), 0)
    total = part.sum()
    if unit is not None:
        variance = float((np.bincount(unit, part) ** 2).sum())
    # No variance: all predictions of a label alike, or scores that say nothing.
    z = total / variance**0.5 if variance > 1e-20 else 0.0
    return Pull(float(total / len(labels)), float(z), samples)


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """P-values that bound the chance of any false alarm over all of them (Holm 1979).

    >>> holm({"a": 0.01, "b": 0.03, "c": 0.04})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    adjusted, least = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in p_values}


def _p_value(z: float) -> float:
    return 1.0 if np.isnan(z) else statistics.NormalDist().cdf(-z)


def silent(score: Float[np.ndarray, "k a"]) -> bool:
    """Whether an attribute says next to nothing about the label: no cell is 5 % fuller or emptier than by chance."""
    return bool(np.abs(score).max() < 0.05)


def _reason(found: Pull, score: Float[np.ndarray, "k a"], counted: bool) -> str:
    """Why there can be no verdict."""
    if silent(score) and not counted:
        return "it says nothing about the label in these samples; give the counts of the training set"
    if not found.n:
        return "no label has samples of two values of the attribute"
    return ""


def _conditional(
    flagged: list[str],
    predicted: np.ndarray,
    label: np.ndarray,
    values: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    unit: Array | None,
) -> dict[tuple[str, str], tuple[float, float]]:
    """(candidate, given another) -> z of its pull and the p-value, Holm-adjusted over all of these."""
    z = {
        (name, given): mistake_pull(predicted, label, values[name], scores[name], given=values[given], unit=unit).z
        for name in flagged
        for given in flagged
        if name != given
    }
    adjusted = holm({pair: _p_value(one) for pair, one in z.items()})
    return {pair: (z[pair], adjusted[pair]) for pair in z}


def _explained_by(name: str, given_others: Mapping[tuple[str, str], tuple[float, float]], alpha: float) -> str | None:
    """The flagged candidate that leaves this one nothing, and that this one leaves something; the strongest of them."""
    behind = []
    for (one, other), (_, p_value) in given_others.items():
        if one == name and p_value >= alpha > given_others[other, one][1]:
            behind.append((given_others[other, one][0], other))
    return max(behind)[1] if behind else None


def _gap(
    right: Bool[np.ndarray, " n"],
    label: np.ndarray,
    attribute: np.ndarray,
    aligned: Bool[np.ndarray, "k a"],
    unit: Array | None,
    level: float,
) -> Interval:
    """Accuracy on aligned minus on conflicting samples, mean over the labels that have both."""
    label = label.astype(np.int32)  # int8 would overflow below
    side = np.where(aligned[label, np.maximum(attribute, 0)], 0, 1)
    group = np.where(attribute >= 0, 2 * label + side, -1).astype(np.int32)
    count = np.bincount(group[group >= 0], minlength=2 * len(aligned)).reshape(-1, 2)
    both = (count > 0).all(1)
    if not both.any():
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    group = np.where(both[label], group, -1).astype(np.int32)
    # Of each label: the aligned rate counts +1, the conflicting one -1, divided by the labels that have both.
    w = (both[:, None] * np.array([1.0, -1.0]) / both.sum()).ravel()
    gap = weighted_rate_interval(right, group, w, unit=unit, level=level)
    return gap._replace(n=round(float(gap.n)))
