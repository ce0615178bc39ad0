import jax
import numpy as np
import pytest
from oracles import rates as oracle
from scipy import stats
from statsmodels.stats.contingency_tables import StratifiedTable, mcnemar
from statsmodels.stats.multitest import multipletests

from jaxdebias.contracts import ContractError
from jaxdebias.measure import (
    adjust_holm,
    cmh_test,
    homogeneity_p,
    mcnemar_midp,
    paired_interval,
    separable,
    sign_flip_p,
    unit_flip_p,
)
from jaxdebias.measure._significance import numpy_generator


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("gains", "losses", "p"),
    [
        (2, 0, 0.25),
        (5, 4, 0.75390625),
        (7, 3, 0.2265625),
        (4, 2, 0.453125),
        (14, 8, 0.21003961563110352),
        (11, 1, 0.00341796875),
        (0, 0, 1.0),
        (4, 4, 1.0),
    ],
)
def test_mcnemar_vectors(gains, losses, p):
    assert mcnemar_midp(gains, losses) == pytest.approx(p, abs=1e-12)
    assert mcnemar_midp(losses, gains) == pytest.approx(p, abs=1e-12)


def test_mcnemar_is_exact_less_half_of_the_point():
    gains, losses = np.array([[3, 40], [100, 7]]), np.array([[9, 55], [40, 0]])
    got = mcnemar_midp(gains, losses)
    for i in np.ndindex(2, 2):
        exact = mcnemar([[0, gains[i]], [losses[i], 0]], exact=True).pvalue
        point = stats.binom.pmf(gains[i], gains[i] + losses[i], 0.5)
        assert got[i] == pytest.approx(exact - point, rel=1e-9)


def test_sign_flips_agree_with_all_signs(key):
    for gains, losses, n, w in (
        ([3, 1], [0, 2], [10, 40], [0.5, 0.5]),
        ([5, 0, 2], [1, 1, 0], [30, 8, 9], [0.2, -0.5, 1]),
        ([0, 4], [2, 3], [20, 30], [0.5, -0.5]),
    ):
        got = sign_flip_p(gains, losses, n, w, key=key, draws=40_000)
        assert got == pytest.approx(oracle.sign_flips(gains, losses, n, w), abs=0.01)


def test_equal_steps_need_no_draws(key):
    """Plain accuracy: w in proportion to n. Opposite signs, groups that did not change or have no weight."""
    assert sign_flip_p([6, 5], [1, 1], [10, 40], [0.2, 0.8], key=key) == pytest.approx(mcnemar_midp(11, 2))
    assert sign_flip_p([6, 1], [1, 5], [10, 40], [0.2, -0.8], key=key) == pytest.approx(mcnemar_midp(11, 2))
    assert sign_flip_p([6, 0], [1, 0], [10, 17], [0.5, 0.5], key=key) == pytest.approx(mcnemar_midp(6, 1))
    assert sign_flip_p([6, 9], [1, 0], [10, 17], [0.5, 0.0], key=key) == pytest.approx(mcnemar_midp(6, 1))
    assert sign_flip_p([3, 4], [3, 4], [10, 40], [0.2, 0.8], key=key) == 1
    assert sign_flip_p([0, 0], [0, 0], [10, 40], [0.5, 0.5], key=key) == 1
    many = sign_flip_p([[6, 5], [3, 1]], [[1, 1], [0, 2]], [10, 40], [[0.2, 0.8], [0.5, 0.5]], key=key)
    assert many[0] == mcnemar_midp(11, 2)
    assert many[1] == pytest.approx(oracle.sign_flips([3, 1], [0, 2], [10, 40], [0.5, 0.5]), abs=0.04)


def test_sign_flips_never_give_zero(key):
    assert 0 < sign_flip_p([200, 100], [0, 0], [300, 900], [0.5, 0.5], key=key) < 0.001


def test_unit_flips(key, rng):
    assert unit_flip_p([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0], key=key) == 1 / 64
    assert unit_flip_p([0.5, -0.2], key=key) == 0.5 + 0.25
    assert unit_flip_p([0.0, 0.0], key=key) == 1
    totals = rng.normal(size=11) + 0.3
    signs = (np.arange(2048)[:, None] >> np.arange(11) & 1) * 2 - 1
    beyond = np.abs(signs @ totals) - abs(totals.sum())
    expected = (np.sum(beyond > 1e-12) + np.sum(np.abs(beyond) <= 1e-12) / 2) / 2048
    assert unit_flip_p(totals, key=key) == pytest.approx(expected)
    assert unit_flip_p(np.append(totals, [1e-9, -1e-9]), key=key, draws=20_000) == pytest.approx(expected, abs=0.01)
    both = unit_flip_p(np.stack([totals, np.zeros(11)]), key=key)
    np.testing.assert_allclose(both, [expected, 1])


@pytest.mark.parametrize("n", [60, 1_000, 100_000])
def test_one_changed_row_is_not_separable(n, key):
    assert separable([1], [0], [n], [1.0], key=key) is False
    assert separable([5], [0], [n], [1.0], key=key) is False
    assert separable([0], [6], [n], [1.0], key=key) is True


def test_separable_needs_all_three(key):
    assert not separable([40], [38], [200], [1.0], key=key)
    # The interval alone would do; p = 0.0525.
    assert paired_interval([15], [6], [200], [1.0]).low > 0
    assert not separable([15], [6], [200], [1.0], key=key)
    # Both would do, but 4 or 5 rows changed.
    assert paired_interval([5], [0], [60], [1.0]).low > 0
    assert mcnemar_midp(5, 0) < 0.05
    assert not separable([5], [0], [60], [1.0], key=key)


def test_separable_interval_decides_where_flips_agree(key):
    """A weighted gain whose flips are significant while the interval includes 0: the small group is not known."""
    rng = np.random.default_rng(5)
    n, w = np.array([400, 8]), np.array([0.9, 0.1])
    gains, losses = rng.binomial(n, [0.05, 0.02], (500, 2)), rng.binomial(n, [0.02, 0.02], (500, 2))
    gains = np.minimum(gains, n - losses)
    interval = paired_interval(gains, losses, n, w)
    p = sign_flip_p(gains, losses, n, w, key=key)
    excludes, flips = (interval.low > 0) | (interval.high < 0), p <= 0.05
    assert (flips & ~excludes).any()
    enough = (gains + losses).sum(-1) >= 6
    got = separable(gains, losses, n, w, key=key)
    clear = np.abs(p - 0.05) > 0.02  # other draws
    np.testing.assert_array_equal(got[clear], (excludes & flips & enough)[clear])


def test_separable_counts_only_groups_with_weight(key):
    assert not separable([5, 9], [0, 0], [40, 40], [1.0, 0.0], key=key)
    assert separable([6, 9], [0, 0], [40, 40], [1.0, 0.0], key=key)
    got = separable([[6, 0], [5, 0]], [[0, 0], [0, 0]], [40, 40], [1.0, 0.0], key=key)
    np.testing.assert_array_equal(got, [True, False])


def test_separable_level(key):
    assert separable([9], [2], [60], [1.0], key=key)
    assert mcnemar_midp(9, 2) == pytest.approx(0.0386, abs=1e-4)
    assert not separable([9], [2], [60], [1.0], key=key, level=0.97)


@pytest.mark.parametrize(
    ("x", "n"),
    [
        ([[4, 1, 0]], [[5, 5, 7]]),
        ([[3, 0], [2, 6]], [[4, 5], [9, 7]]),
        ([[1, 1, 3]], [[9, 8, 4]]),
        ([[5, 5], [1, 3]], [[5, 5], [4, 4]]),
    ],
)
def test_homogeneity_agrees_with_all_tables(x, n, key):
    got = homogeneity_p(x, n, key=key, resolve=oracle.homogeneity(x, n), most_draws=30_000)
    assert got == pytest.approx(oracle.homogeneity(x, n), abs=0.01)


def test_homogeneity_of_large_counts_is_chi_square(key):
    x, n = np.array([40, 18, 17]), np.array([50, 25, 27])
    expected = stats.chi2_contingency([x, n - x], correction=False)
    assert homogeneity_p(x, n, key=key) == pytest.approx(expected.pvalue, rel=1e-9)
    other = np.array([10, 10, 9]), np.array([20, 20, 20])
    got = homogeneity_p([x, other[0]], [n, other[1]], key=key)
    assert got == pytest.approx(1 - (1 - expected.pvalue) ** 2, rel=1e-9)  # neither exceeds the larger of the two
    two = homogeneity_p([[40, 12, 0], x], [[50, 22, 0], n], key=key)
    largest = max(stats.chi2_contingency([[40, 12], [10, 10]], correction=False).statistic, expected.statistic)
    assert two == pytest.approx(1 - stats.chi2.cdf(largest, 1) * stats.chi2.cdf(largest, 2), rel=1e-9)


def test_homogeneity_asks_five_expected_in_every_cell(key):
    x, n = [30, 28], [40, 33]
    assert homogeneity_p(x, n, key=key) == pytest.approx(
        stats.chi2_contingency([x, np.subtract(n, x)], correction=False).pvalue
    )
    x, n = [38, 35], [40, 43]  # 4.8 failures expected
    chi = stats.chi2_contingency([x, np.subtract(n, x)], correction=False).pvalue
    got = homogeneity_p(x, n, key=key, most_draws=40_000)
    assert abs(got - chi) > 0.005
    assert got == pytest.approx(stats.fisher_exact([x, np.subtract(n, x)]).pvalue, abs=0.015)


def test_homogeneity_draws_until_resolved(key):
    """A p of about 1e-4: with 2,000 draws the least is 5e-4."""
    x, n = [[8, 0]], [[8, 8]]
    assert oracle.homogeneity(x, n) == pytest.approx(2 / 12870)
    assert homogeneity_p(x, n, key=key) == pytest.approx(1 / 2001, abs=2e-3)
    got = homogeneity_p(x, n, key=key, resolve=5e-4)
    assert got == pytest.approx(2 / 12870, abs=1.5e-4)
    assert got < 5e-4


def test_homogeneity_without_difference(key):
    assert homogeneity_p([[0, 0, 0]], [[4, 5, 6]], key=key) == 1
    assert homogeneity_p([[4, 5], [0, 3]], [[4, 5], [0, 5]], key=key) == 1
    batch = homogeneity_p(
        [[[4, 1, 0]], [[0, 0, 0]], [[20, 30, 26]]], [[[5, 5, 7]], [[4, 5, 6]], [[50, 50, 40]]], key=key
    )
    assert batch.shape == (3,)
    assert batch[1] == 1
    assert batch[0] == pytest.approx(oracle.homogeneity([[4, 1, 0]], [[5, 5, 7]]), abs=0.01)
    fractional = homogeneity_p([[2.6, 0.2]], [[4.4, 5.1]], key=key, resolve=0.3, most_draws=20_000)
    assert fractional == pytest.approx(oracle.homogeneity([[3, 0]], [[4, 5]]), abs=0.01)


def test_cmh_is_statsmodels(rng):
    tables = rng.integers(0, 15, (3, 5, 2, 2))
    tables[0, 0] = [[4, 0], [3, 0]]
    got = cmh_test(tables)
    for i in range(3):
        expected = StratifiedTable(list(tables[i].astype(float))).test_null_odds(correction=False)
        assert got.p[i] == pytest.approx(expected.pvalue, rel=1e-9)
        assert got.z[i] ** 2 == pytest.approx(expected.statistic, rel=1e-9)
    assert cmh_test([[[9, 1], [1, 9]]]).z > 3
    assert cmh_test([[[1, 9], [9, 1]]]).z < -3
    assert cmh_test([[[4, 0], [3, 0]]]) == (0, 1)


def test_cmh_scores_agree_with_permutations(rng):
    """Mean and variance of the sum of scores, when one margin's labels are shuffled within strata."""
    scores = rng.normal(size=(3, 4))
    rows, columns, strata = rng.integers(0, 3, 60), rng.integers(0, 4, 60), rng.integers(0, 2, 60)
    tables = np.zeros((2, 3, 4))
    np.add.at(tables, (strata, rows, columns), 1)
    sums = []
    for _ in range(20_000):
        total = 0.0
        for s in range(2):
            total += scores[rows[strata == s], rng.permutation(columns[strata == s])].sum()
        sums.append(total)
    expected = (scores[rows, columns].sum() - np.mean(sums)) / np.std(sums)
    assert cmh_test(tables, scores).z == pytest.approx(expected, abs=0.04)


def test_holm(rng):
    p = rng.random((4, 7)) ** 3
    for row, adjusted in zip(p, adjust_holm(p), strict=True):
        np.testing.assert_allclose(adjusted, multipletests(row, method="holm")[1])
        np.testing.assert_allclose(adjusted, oracle.holm(row))
    np.testing.assert_allclose(adjust_holm([0.01, np.nan, 0.04, 0.03, np.nan]), [0.03, np.nan, 0.06, 0.06, np.nan])
    np.testing.assert_allclose(adjust_holm([0.9, 0.8, np.nan]), [1, 1, np.nan])
    np.testing.assert_allclose(adjust_holm([np.nan]), [np.nan])


def test_equal_keys_give_equal_draws():
    arguments = [3, 1], [0, 2], [10, 40], [0.5, 0.5]
    first, again, other = (sign_flip_p(*arguments, key=jax.random.key(seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_refusals(key):
    with pytest.raises(ContractError, match="`gains`: expected no negative count"):
        mcnemar_midp(-1, 2)
    with pytest.raises(ContractError, match="`scores`: expected one per cell"):
        cmh_test(np.ones((2, 3, 3)), np.ones((2, 2)))
    with pytest.raises(ContractError, match=r"`x`: expected values in 0\.\.n"):
        homogeneity_p([3, 4], [2, 5], key=key)


def test_draws_are_not_those_of_numpys_seed():
    """A caller's `default_rng(0)` must not share a stream with `jax.random.key(0)`: [0, 0] and 0 seed NumPy equally."""
    assert numpy_generator(jax.random.key(0)).random() != np.random.default_rng(0).random()
