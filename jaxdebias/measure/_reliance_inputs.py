"""The inputs of `assess_reliance`: checked rows and, for each attribute, its direction or why it has none."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxdebias.contracts import (
    ROUNDING,
    check_counted,
    check_finite,
    check_integers,
    check_numbers,
    describe,
    expect,
    row_count,
)
from jaxdebias.core import Key, cell_counts
from jaxdebias.measure._groups import predicted_class
from jaxdebias.measure._lean import ASSOCIATED, Rows, label_association


class Candidate(NamedTuple):
    """One attribute, ready to be tested."""

    name: str
    """Name of the attribute."""
    value: np.ndarray
    """`[n]` values of all rows; -1 where the row does not count."""
    rows: Rows
    """The rows that count."""
    counts: np.ndarray
    """`[k a]` training counts; those of the rows where training counts are not known."""
    w: np.ndarray | None
    """`[k a]` log association; None: there is no direction to test."""
    state: Literal["no_sign", "cannot_tell"]
    """The answer without a direction."""
    key: Key
    """Randomness of this attribute's tests."""

    @property
    def direction(self) -> np.ndarray:
        """`w`, of an attribute that has one."""
        assert self.w is not None
        return self.w

    @property
    def present(self) -> np.ndarray:
        """`[a]` bool, values that occur in the rows."""
        return np.bincount(self.rows.value, minlength=self.counts.shape[1]) > 0


def checked_rows(
    predicted: Any, label: Any, probabilities: Any, unit: Any, weight: Any, classes: int | None
) -> tuple[Rows, int]:
    """The rows as arrays on the host, without an attribute yet, and the number of classes."""
    n = row_count("label", label)
    wide = [np.shape(table)[1] for table in (probabilities, predicted) if np.ndim(table) == 2]
    classes = wide[0] if classes is None and wide else classes
    if classes is None:
        for name, value in (("predicted", predicted), ("label", label)):
            check_integers(name, value, n, 0, None)
        classes = 1 + int(max(np.max(predicted), np.max(label)))
        check_counted("label", classes)
    check_integers("label", label, n, 0, classes)
    predicted, label = predicted_class("predicted", predicted, n, classes), np.asarray(label)
    if probabilities is not None:
        probabilities = _checked_probabilities(probabilities, n, classes)
    if unit is not None:
        check_integers("unit", unit, n, 0, None)
        unit = np.asarray(unit)
    if weight is not None:
        check_numbers("weight", weight, "n")
        check_finite("weight", weight)
        weight = np.asarray(weight, np.float64)
        expect(weight.shape == (n,) and bool((weight >= 0).all()), "weight", f"[n={n}], at least 0", describe(weight))
    unknown = np.full(n, -1, np.int64)
    return Rows(predicted.astype(np.int64), label.astype(np.int64), unknown, probabilities, unit, weight), classes


def _checked_probabilities(probabilities: Any, n: int, classes: int) -> np.ndarray:
    """Probabilities `[n k]`, renormalised where they were rounded."""
    check_numbers("probabilities", probabilities, "n k")
    check_finite("probabilities", probabilities)
    probabilities = np.asarray(probabilities, np.float64)
    expect(probabilities.shape == (n, classes), "probabilities", f"[n={n}, k={classes}]", describe(probabilities))
    total = probabilities.sum(1, keepdims=True)
    good = (probabilities >= 0).all() and np.abs(total - 1.0).max() <= ROUNDING
    expect(bool(good), "probabilities", "rows that are at least 0 with the sum 1", f"sums up to {total.max():.4g}")
    return probabilities / total


def checked_counts(counts: Mapping[str, Any], values: Mapping[str, Any], classes: int | None) -> int | None:
    """Looks at the names and shapes of training counts; the number of classes, which they may tell."""
    expect(len(values) > 0, "values", "at least one attribute", "none")
    strays = set(counts) - set(values)
    expect(not strays, "train_counts", f"counts of {', '.join(map(str, values))}", ", ".join(map(str, strays)))
    for name, table in counts.items():
        check_numbers(f"train_counts[{name!r}]", table, "k a")
        check_finite(f"train_counts[{name!r}]", table)
        good = bool((np.asarray(table) >= 0).all() and np.any(table))
        expect(good, f"train_counts[{name!r}]", "counts, not all 0", describe(np.asarray(table)))
        classes = np.shape(table)[0] if classes is None else classes
    return classes


def make_candidate(
    name: str, value: Any, rows: Rows, classes: int, counts: Any, min_group: int, alpha: float, key: Key
) -> Candidate:
    """An attribute with its rows and its direction: the association in training, or else that of the rows.

    Args:
      name: name of the attribute.
      value: `[n]` integers from 0, -1 unknown.
      rows: all rows.
      classes: number of classes.
      counts: `[k a]` training counts, or None.
      min_group: units that a value needs; with fewer than two such values there is nothing to compare.
      alpha: level at which the rows' own association must be significant to give a direction.
      key: randomness of this attribute's tests.
    """
    check_integers(f"values[{name!r}]", value, len(rows.label), -1, None)
    value = np.asarray(value).astype(np.int64)
    if rows.weight is not None:
        value = np.where(rows.weight > 0, value, -1)
    most = int(value.max()) + 1
    check_counted(f"values[{name!r}]", most)
    known = rows._replace(value=value).among(value >= 0)
    unit = np.arange(len(known.value)) if known.unit is None else np.unique(known.unit, return_inverse=True)[1]
    units = int(unit.max(initial=-1)) + 1
    of_value = np.bincount(np.unique(known.value * max(units, 1) + unit) // max(units, 1))
    own = cell_counts(known.label, known.value, classes, max(most, 1))
    if counts is not None:
        counts = np.asarray(counts)
        fits = counts.shape[0] == classes and counts.shape[1] >= most
        expect(fits, f"train_counts[{name!r}]", f"[k={classes}, at least a={most}]", describe(counts))
    told = counts is not None or _associated(own, units, alpha)
    counts = own if counts is None else counts
    w = label_association(counts)
    if not told or (of_value >= min_group).sum() < 2:
        return Candidate(name, value, known, counts, None, "cannot_tell", key)
    if w.max() <= ASSOCIATED:  # there is nothing to learn from the attribute
        return Candidate(name, value, known, counts, None, "no_sign", key)
    return Candidate(name, value, known, counts, w, "cannot_tell", key)


def _associated(counts: np.ndarray, units: int, alpha: float) -> bool:
    """Whether rows show an association of label and value that gives a direction (chi-square; units count once)."""
    from scipy import special  # slow to import

    table = counts[counts.any(1)][:, counts.any(0)].astype(np.float64)
    if min(table.shape) < 2:
        return False
    table *= units / table.sum()
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    statistic = ((table - expected) ** 2 / expected).sum()
    return bool(special.chdtrc((table.shape[0] - 1) * (table.shape[1] - 1), statistic) <= alpha)
