"""Strata of rows that agree in legitimate inputs: what leans within them is not explained by these inputs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdebias.contracts import check_finite, describe, expect

FEW_VALUES = 12
"""Distinct values up to which a column is taken as categories."""
ROWS_OF_COMBINATION = 30
"""Rows per combination of categories, on average, from which on combinations themselves are the strata."""
ROWS_OF_BIN = 10
"""Rows of one label per bin of the score. Small, because what is left of a confounder falls with the width of a bin."""
FOLDS = 5
RIDGE = 1.0
"""Penalty on the squared coefficients of standardised columns, in rows."""
NEWTON_STEPS = 25


def given_strata(label: np.ndarray, answer: np.ndarray, columns: Mapping[str, Any]) -> np.ndarray:
    """Strata `[n]` of rows that agree in legitimate columns, to be used within labels.

    Few combinations of categories are strata themselves (Cochran, Mantel and Haenszel); otherwise narrow bins of a
    cross-fitted score: what a logistic regression on the columns expects the model to answer. A score of the *label*
    would leave out columns that the model uses beyond the label; a model that reads one that differs between the
    values of the attribute would then be accused.

    Args:
      label: `[n]` in 0..k-1.
      answer: `[n k]` what the model answers: probabilities, or 1 for the predicted class.
      columns: name -> `[n]` numbers, or anything with few distinct values.
    """
    coded = [_codes(name, values, len(label)) for name, values in columns.items()]
    categories = [codes for _, codes in coded if codes is not None]
    if len(categories) == len(coded):
        rows = np.stack(categories, axis=1)
        combinations, stratum = np.unique(rows, axis=0, return_inverse=True)
        if len(combinations) * ROWS_OF_COMBINATION <= len(label):
            return stratum.ravel()
    score = cross_fitted_score(label, answer, np.concatenate([_design(*one) for one in coded], axis=1))
    stratum = np.zeros(len(label), np.int64)
    for y in np.unique(label):
        own = np.flatnonzero(label == y)
        bins = max(1, len(own) // ROWS_OF_BIN)
        place = np.empty(len(own), np.int64)
        place[np.argsort(score[own], kind="stable")] = np.arange(len(own)) * bins // len(own)
        stratum[own] = place
    return stratum


def cross_fitted_score(label: np.ndarray, answer: np.ndarray, design: np.ndarray) -> np.ndarray:
    """Log odds `[n]` that the answer is the row's own label, from regressions that were fitted without the row.

    One logistic regression per class against the rest. Folds are every fifth row of a label, in order of the columns,
    so that the order of the rows does not matter.

    Args:
      label: `[n]` in 0..k-1.
      answer: `[n k]` shares of the classes.
      design: `[n d]` columns.
    """
    fold = np.zeros(len(label), np.int64)
    for y in np.unique(label):
        own = np.flatnonzero(label == y)
        fold[own[np.lexsort(design[own].T)]] = np.arange(len(own)) % FOLDS
    with_constant = np.concatenate([np.ones((len(label), 1)), design], axis=1)
    score = np.zeros(len(label))
    for number in range(FOLDS):
        fitted = fold != number
        for y in np.unique(label):
            held_out = (fold == number) & (label == y)
            score[held_out] = with_constant[held_out] @ _logistic(with_constant[fitted], answer[fitted, y])
    return score


def _logistic(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Coefficients `[d]` for shares in 0..1 by Newton's method; the first one, of the constant, has no penalty."""
    penalty = np.full(design.shape[1], RIDGE)
    penalty[0] = 1e-6
    theta = np.zeros(design.shape[1])
    for _ in range(NEWTON_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ theta, -30.0, 30.0)))
        gradient = design.T @ (target - p) - penalty * theta
        curvature = (design * (p * (1.0 - p))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        theta = theta + step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return theta


def _codes(name: str, values: Any, n: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(numbers, codes): one of them may be None. Numbers with few values have both."""
    values = np.asarray(values)
    expect(values.shape == (n,), f"given[{name!r}]", f"one value per row, [n={n}]", describe(values))
    numeric = np.issubdtype(values.dtype, np.number) or values.dtype == bool
    if numeric:
        check_finite(f"given[{name!r}]", values)
        values = values.astype(np.float64)
    else:
        values = values.astype(str)
    distinct, codes = np.unique(values, return_inverse=True)
    few = len(distinct) <= FEW_VALUES
    expect(
        numeric or few, f"given[{name!r}]", f"numbers, or at most {FEW_VALUES} categories", f"{len(distinct)} values"
    )
    return (values if numeric else None), (codes if few else None)


def _design(numbers: np.ndarray | None, codes: np.ndarray | None) -> np.ndarray:
    """Columns `[n d]`: one per category; of numbers the value and its square, standardised."""
    if codes is not None:
        return (codes[:, None] == np.arange(1, int(codes.max()) + 1)).astype(np.float64)
    assert numbers is not None
    centred = (numbers - numbers.mean()) / max(float(numbers.std()), 1e-300)
    square = centred**2
    return np.stack([centred, (square - square.mean()) / max(float(square.std()), 1e-300)], axis=1)
