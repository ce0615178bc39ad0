import jax
import numpy as np
import pytest
from scipy import stats

from jaxdebias.measure import label_association
from jaxdebias.measure._lean import (
    Rows,
    detectable_lean,
    largest_share,
    lean_interval,
    lean_test,
    rank_test,
    sided_lean_p,
    sides,
)

W = label_association(np.array([[90, 10], [10, 90]]))
W3 = label_association(np.array([[80, 10, 10], [10, 80, 10], [10, 10, 80]]))


def rows(predicted, label, value, probabilities=None, unit=None, weight=None):
    return Rows(np.asarray(predicted), np.asarray(label), np.asarray(value), probabilities, unit, weight)


def leaning(rng, n, share, mistakes=0.1, classes=2):
    """A model that answers with the value in a share of the rows, and is right otherwise but for some mistakes."""
    label, value = rng.integers(0, classes, n), rng.integers(0, classes, n)
    other = (label + rng.integers(1, classes, n)) % classes
    predicted = np.where(rng.random(n) < mistakes, other, label)
    return rows(np.where(rng.random(n) < share, value, predicted), label, value)


def test_association_is_that_of_the_shares():
    counts = np.array([[30, 10, 0], [20, 40, 0]])
    w = label_association(counts)
    p = (counts + 0.5)[:, :2] / (counts + 0.5)[:, :2].sum()
    np.testing.assert_allclose(w[:, :2], np.log(p / p.sum(1, keepdims=True) / p.sum(0)), rtol=1e-12)
    assert (w[:, 2] == 0).all()


def test_lean_is_toward_the_associated_class(key):
    rng = np.random.default_rng(0)
    toward, away = leaning(rng, 2000, 0.2), leaning(rng, 2000, 0.2)
    assert lean_test(toward, W, key=key).p < 1e-6
    assert lean_test(away._replace(value=1 - away.value), W, key=key).p > 1 - 1e-6


def test_a_biased_test_set_is_no_lean(key):
    """Predictions of a perfect model go with the value as labels do; and so do symmetric mistakes."""
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, 3000)
    value = np.where(rng.random(3000) < 0.9, label, 1 - label)
    predicted = np.where(rng.random(3000) < 0.1, 1 - label, label)
    assert lean_test(rows(predicted, label, value), W, key=key).p > 0.01


def test_strata_take_out_what_they_explain(key):
    rng = np.random.default_rng(2)
    made = leaning(rng, 4000, 0.3)
    copy = np.where(rng.random(4000) < 0.85, made.value, 1 - made.value)
    proxy = made._replace(value=copy)
    assert lean_test(proxy, W, key=key).p < 1e-6
    assert lean_test(proxy, W, key=key, stratum=made.value).p > 0.01
    assert lean_test(made, W, key=key, stratum=copy).p < 1e-6


def van_elteren(values, label, group):
    """z of the stratified rank-sum test, written out for two groups."""
    score, variance = 0.0, 0.0
    for y in np.unique(label):
        own = label == y
        n, m = own.sum(), (own & (group == 1)).sum()
        ranks = stats.rankdata(values[own])
        score += (ranks[group[own] == 1].sum() - m * (n + 1) / 2) / (n + 1)
        variance += m * (n - m) / (n * (n - 1)) * ((ranks - (n + 1) / 2) ** 2).sum() / (n + 1) ** 2
    return score / variance**0.5


@pytest.mark.parametrize("decimals", [1, 8])
def test_ranks_of_two_classes_are_van_elterens(key, decimals):
    rng = np.random.default_rng(3)
    label, value = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
    q = np.round(1 / (1 + np.exp(-rng.normal(size=400) - 2 * label - 0.3 * value)), decimals)
    found = rank_test(rows(q > 0.5, label, value, np.stack([1 - q, q], 1)), W, key=key)
    assert found.z == pytest.approx(van_elteren(q, label, value), rel=1e-9)
    stratum = rng.integers(0, 3, 400)
    found = rank_test(rows(q > 0.5, label, value, np.stack([1 - q, q], 1)), W, key=key, stratum=stratum)
    assert found.z == pytest.approx(van_elteren(q, 3 * label + stratum, value), rel=1e-9)


def test_ranks_of_three_classes_by_loops(key):
    rng = np.random.default_rng(4)
    n = 90
    label, value, probabilities = rng.integers(0, 3, n), rng.integers(0, 3, n), rng.dirichlet([1, 1, 1], n)
    observed, mean, variance = 0.0, 0.0, 0.0
    for y in range(3):
        own = np.flatnonzero(label == y)
        rank = stats.rankdata(probabilities[own], axis=0) / (len(own) + 1)
        score = np.array([[sum(rank[i, c] * W3[c, value[j]] for c in range(3)) for j in own] for i in range(len(own))])
        observed += np.trace(score)
        mean += score.mean() * len(own)
        centred = score - score.mean(0) - score.mean(1)[:, None] + score.mean()
        variance += (centred**2).sum() / (len(own) - 1)
    found = rank_test(rows(probabilities.argmax(1), label, value, probabilities), W3, key=key)
    assert found.z == pytest.approx((observed - mean) / variance**0.5, rel=1e-9)


def test_sides_leave_out_what_a_value_is_associated_with():
    kept = {tuple(map(bool, side)) for side in sides(W3, np.array([True, True, True]))}
    assert kept == {(False, True, True), (True, False, True), (True, True, False)}
    assert [tuple(side) for side in sides(W3, np.array([False, True, False]))] == [(True, False, True)]
    nothing = np.array([[0.5, 0.0], [-0.5, 0.0]])
    assert {tuple(map(bool, side)) for side in sides(nothing, np.array([True, True]))} == {(False, True), (True, True)}


def test_a_group_with_noisy_labels_leans_on_one_side_only(key):
    """Class 1 is rare in group 0, so the noise of group 1 makes all mistakes together lean, but not on both sides."""
    rng = np.random.default_rng(5)
    truth = (rng.random(6000) < 0.3).astype(int)
    value = np.where(rng.random(6000) < 0.5, 1, 0)
    label = np.where(rng.random(6000) < np.where(value == 1, 0.2, 0.02), 1 - truth, truth)
    made = rows(truth, label, value)
    every = np.array([True, True])
    by_side = [lean_test(made.among(side[label]), W, key=key).p for side in sides(W, every)]
    assert min(by_side) < 1e-6
    assert max(by_side) > 0.9
    assert sided_lean_p(made, W, every, key=key) == pytest.approx(max(by_side), rel=1e-6)
    relying = leaning(rng, 6000, 0.2)
    assert sided_lean_p(relying, W, every, key=key) < 1e-6


def test_the_lean_is_the_mean_over_labels_of_the_gap():
    rng = np.random.default_rng(6)
    made = leaning(rng, 500, 0.3, classes=3)
    right = made.predicted == made.label
    gaps = [
        right[(made.label == y) & (made.value == y)].mean() - right[(made.label == y) & (made.value != y)].mean()
        for y in range(3)
    ]
    found = lean_interval(made, W3, level=0.95)
    assert found.value == pytest.approx(np.mean(gaps))
    assert found.low < found.value < found.high
    clustered = lean_interval(made._replace(unit=np.arange(500) // 5), W3, level=0.95)
    assert clustered.value == pytest.approx(found.value)
    weight = rng.integers(1, 3, 500).astype(float)
    repeated = made.among(np.repeat(np.arange(500), weight.astype(int)))
    assert lean_interval(made._replace(weight=weight), W3, level=0.95).value == pytest.approx(
        lean_interval(repeated, W3, level=0.95).value
    )


def test_labels_with_one_side_take_no_part():
    label, value = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 1, 1, 1])
    found = lean_interval(rows([0, 0, 1, 1, 0], label, value), W, level=0.95)
    assert found.value == pytest.approx(0.5)
    assert lean_interval(rows(label, label, label), W, level=0.95) is None


def test_largest_share_is_in_units_of_an_even_one():
    assert largest_share(np.array([[30, 30], [20, 20]])) == pytest.approx(1.2)
    assert largest_share(np.ones((4, 3))) == pytest.approx(1.0)


def found_and_lean(n, classes, mistakes, alpha, sets):
    """Share of sets in which a lean of the detectable size is found, its mean, and the size put in."""
    w = (W, W3)[classes - 2]
    made = [leaning(np.random.default_rng(seed), n, 0.0, mistakes, classes) for seed in range(20)]
    size = np.mean([detectable_lean(of, w, alpha=alpha) for of in made])
    made = [leaning(np.random.default_rng(1000 + seed), n, size, mistakes, classes) for seed in range(sets)]
    found = [lean_test(of, w, key=jax.random.key(0), resolve=alpha).p <= alpha for of in made]
    return np.mean(found), np.mean([lean_interval(of, w, level=0.95).value for of in made]), size


def test_a_detectable_lean_is_found_in_four_of_five_sets():
    found, lean, size = found_and_lean(500, 2, 0.1, 0.05, sets=100)
    assert lean == pytest.approx(size, rel=0.1)
    assert found == pytest.approx(0.8, abs=0.13)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "classes", "mistakes", "alpha"), [(500, 2, 0.1, 0.005), (300, 3, 0.05, 0.05), (1000, 2, 0.0, 0.05)]
)
def test_so_it_is_with_few_mistakes_many_attributes_and_three_classes(n, classes, mistakes, alpha):
    found, lean, size = found_and_lean(n, classes, mistakes, alpha, sets=300)
    assert lean == pytest.approx(size, rel=0.1)
    assert found == pytest.approx(0.8, abs=0.08)


def test_what_is_detectable_falls_with_the_rows_and_grows_with_the_design_effect():
    made = leaning(np.random.default_rng(7), 400, 0.0)
    more = made.among(np.tile(np.arange(400), 4))
    small, large = detectable_lean(more, W, alpha=0.05), detectable_lean(made, W, alpha=0.05)
    assert small == pytest.approx(large / 2, rel=0.15)
    assert detectable_lean(more, W, alpha=0.05, design_effect=4.0) == pytest.approx(large, rel=0.02)
    assert detectable_lean(made, W, alpha=0.001) > large
    assert detectable_lean(made.among(np.arange(400) < 4), W, alpha=0.05) > 0.9
    wide = np.zeros((50_000, 3))  # classes and values that do not occur cost and change nothing
    wide[np.ix_([7, 49_000], [0, 2])] = W
    at = np.array([7, 49_000])
    apart = made._replace(label=at[made.label], predicted=at[made.predicted], value=2 * made.value)
    assert detectable_lean(apart, wide, alpha=0.05) == pytest.approx(large, rel=1e-9)
    only = made.among(made.label == made.value)
    assert detectable_lean(only, W, alpha=0.05) == 1.0


def copied(made, times=4):
    """Every row several times, as one unit."""
    repeated = (None if leaf is None else np.repeat(leaf, times, axis=0) for leaf in made)
    return Rows(*repeated)._replace(unit=np.repeat(np.arange(len(made.label)), times))


def test_copies_of_rows_tell_nothing_new(key):
    made = leaning(np.random.default_rng(7), 400, 0.07)
    many = copied(made)
    p = lean_test(made, W, key=key).p
    assert 1e-5 < p < 0.1
    assert lean_test(many, W, key=key).p == pytest.approx(p, rel=0.2)
    assert lean_test(many._replace(unit=None), W, key=key).p < p / 10
    one, units, rows_ = (lean_interval(of, W, level=0.95) for of in (made, many, many._replace(unit=None)))
    assert units.high - units.low == pytest.approx(one.high - one.low, rel=0.1)
    assert rows_.high - rows_.low < 0.6 * (one.high - one.low)


def test_ranks_of_copies_tell_nothing_new(key):
    rng = np.random.default_rng(8)
    made = leaning(rng, 400, 0.0)
    score = np.clip(0.5 + 0.2 * rng.normal(size=400) + 0.03 * (made.value - 0.5), 0.01, 0.99)
    made = made._replace(probabilities=np.stack([1 - score, score], 1))
    many, p = copied(made), rank_test(made, W, key=key).p
    assert rank_test(many, W, key=key).p == pytest.approx(p, rel=0.25)
    assert rank_test(many._replace(unit=None), W, key=key).p < p / 2


def test_what_is_hardly_associated_has_no_side():
    slight = np.array([[0.04, -0.04], [-0.04, 0.04]])
    np.testing.assert_array_equal(sides(slight, np.array([True, True])), [[True, True]])
    np.testing.assert_array_equal(sides(slight * 2, np.array([True, True])), [[False, True], [True, False]])
