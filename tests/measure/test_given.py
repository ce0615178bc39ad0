import numpy as np
import pytest
from statsmodels.api import GLM, families

from jaxdebias.contracts import ContractError
from jaxdebias.measure._given import FOLDS, ROWS_OF_BIN, _logistic, cross_fitted_score, given_strata


def test_few_combinations_are_the_strata():
    rng = np.random.default_rng(0)
    label, site, ward = rng.integers(0, 2, 600), rng.integers(0, 3, 600), rng.choice(["a", "b"], 600)
    stratum = given_strata(label, {"site": site, "ward": ward}, 2)
    for s in np.unique(stratum):
        own = stratum == s
        assert len(set(site[own])) == len(set(ward[own])) == 1
    assert len(np.unique(stratum)) == 6


def test_many_combinations_or_numbers_are_bins_of_a_score():
    rng = np.random.default_rng(1)
    label, x = rng.integers(0, 2, 500), rng.normal(size=500)
    x += label
    stratum = given_strata(label, {"x": x}, 2)
    for y in (0, 1):
        sizes = np.bincount(stratum[label == y])
        assert sizes.min() >= ROWS_OF_BIN
        means = [x[(label == y) & (stratum == s)].mean() for s in range(len(sizes))]
        assert abs(np.corrcoef(np.arange(len(sizes)), means)[0, 1]) > 0.95


def test_logistic_regression_is_that_of_statsmodels():
    rng = np.random.default_rng(2)
    design = np.concatenate([np.ones((2000, 1)), rng.normal(size=(2000, 3))], axis=1)
    target = (rng.random(2000) < 1 / (1 + np.exp(-(design @ [0.3, 1.0, -0.5, 0.0])))).astype(float)
    expected = GLM(target, design, family=families.Binomial()).fit_regularized(alpha=0.0)
    np.testing.assert_allclose(_logistic(design, target), expected.params, atol=0.005)
    separated = _logistic(np.stack([np.ones(100), np.arange(100) - 49.5], 1), (np.arange(100) > 49).astype(float))
    assert np.isfinite(separated).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_a_row_is_scored_by_models_without_it(classes):
    """By a loop: another label of one row changes no score of its own fold, but for that row's sign or class."""
    rng = np.random.default_rng(3)
    label, x = rng.integers(0, classes, 300), rng.normal(size=(300, 2))
    score = cross_fitted_score(label, x, classes)
    fold = np.zeros(300, int)
    for y in range(classes):
        own = np.flatnonzero(label == y)
        fold[own[np.lexsort(x[own].T)]] = np.arange(len(own)) % FOLDS
    design = np.concatenate([np.ones((300, 1)), x], axis=1)
    for row in (0, 7, 123):
        others = fold != fold[row]
        theta = _logistic(design[others], (label[others] == label[row]).astype(float))
        assert score[row] == pytest.approx(design[row] @ theta, abs=1e-6)
    order = rng.permutation(300)
    np.testing.assert_allclose(cross_fitted_score(label[order], x[order], classes), score[order], atol=1e-8)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (np.zeros(5), r"`given\['c'\]`: expected one value per row"),
        (np.full(60, np.nan), r"`given\['c'\]`: expected finite values"),
        (np.arange(60).astype(str), r"`given\['c'\]`: expected numbers, or at most 12 categories, got 60 values"),
    ],
)
def test_bad_columns_are_one_line(column, message):
    with pytest.raises(ContractError, match=message):
        given_strata(np.arange(60) % 2, {"c": column}, 2)
