import numpy as np
import pytest
from statsmodels.api import GLM, families

from jaxdebias.contracts import ContractError
from jaxdebias.measure import assess_reliance
from jaxdebias.measure._given import FOLDS, ROWS_OF_BIN, _logistic, cross_fitted_score, given_strata


def test_few_combinations_are_the_strata():
    rng = np.random.default_rng(0)
    label, site, ward = rng.integers(0, 2, 600), rng.integers(0, 3, 600), rng.choice(["a", "b"], 600)
    stratum = given_strata(label, np.eye(2)[label], {"site": site, "ward": ward})
    for s in np.unique(stratum):
        own = stratum == s
        assert len(set(site[own])) == len(set(ward[own])) == 1
    assert len(np.unique(stratum)) == 6


def test_many_combinations_or_numbers_are_bins_of_a_score():
    rng = np.random.default_rng(1)
    label, x = rng.integers(0, 2, 500), rng.normal(size=500)
    x += label
    stratum = given_strata(label, np.eye(2)[label], {"x": x})
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
    rng = np.random.default_rng(3)
    label, x, answer = rng.integers(0, classes, 300), rng.normal(size=(300, 2)), rng.dirichlet(np.ones(classes), 300)
    score = cross_fitted_score(label, answer, x)
    fold = np.zeros(300, int)
    for y in range(classes):
        own = np.flatnonzero(label == y)
        fold[own[np.lexsort(x[own].T)]] = np.arange(len(own)) % FOLDS
    design = np.concatenate([np.ones((300, 1)), x], axis=1)
    for row in (0, 7, 123):
        others = fold != fold[row]
        theta = _logistic(design[others], answer[others, label[row]])
        assert score[row] == pytest.approx(design[row] @ theta, abs=1e-6)
    order = rng.permutation(300)
    np.testing.assert_allclose(cross_fitted_score(label[order], answer[order], x[order]), score[order], atol=1e-8)


@pytest.mark.parametrize("scores", [True, False])
def test_a_model_that_uses_another_column_given_does_not_lean_beyond_them(key, scores):
    """The label depends on x alone; the model reads z, too, which differs between the values. A score of the label
    would leave z out."""
    called = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        value = rng.integers(0, 2, 1500)
        x, z = rng.normal(size=(2, 1500)) + 0.5 * value - 0.25
        label = (rng.random(1500) < 1 / (1 + np.exp(-2 * x))).astype(int)
        q = 1 / (1 + np.exp(-2 * x - z))
        predicted, q = (q > 0.5).astype(int), np.stack([1 - q, q], 1) if scores else None
        counts = np.array([[90, 10], [10, 90]])
        found = assess_reliance(predicted, label, value, counts, q, given={"x": x, "z": z}, key=key)
        assert found.p < 0.05
        called += found.state == "shown_given"
    assert called <= 1


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
        given_strata(np.arange(60) % 2, np.eye(2)[np.arange(60) % 2], {"c": column})


def test_a_column_that_says_nothing_leaves_the_share_of_the_answers():
    rng = np.random.default_rng(5)
    answer = np.tile([0.9, 0.1], (500, 1))
    score = cross_fitted_score(np.zeros(500, np.int64), answer, rng.normal(size=(500, 1)))
    np.testing.assert_allclose(score, np.log(9.0), atol=1e-3)
