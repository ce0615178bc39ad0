import re

import numpy as np
import pytest
from oracles import rates as oracle
from scipy import optimize, stats
from statsmodels.stats.proportion import proportion_confint

from jaxdebias.contracts import ContractError
from jaxdebias.measure import Interval, paired_interval, proportion_interval, weighted_interval
from jaxdebias.measure._score_limits import change_limits, rate_limits

THIRDS = [1 / 3] * 3


def limits(interval):
    return np.array([interval.low, interval.high])


# Values of an implementation of its own.
WEIGHTED = [
    ([6, 1], [8, 30], [0.2105263158, 0.7894736842], [0.0999924518, 0.2982808577]),
    ([79, 1, 397], [90, 30, 400], [0.5, -1.0, 0.5], [0.7655225904, 0.9517950616]),
    ([5, 0, 394], [90, 8, 400], THIRDS, [0.3340286348, 0.4561145472]),
    ([30, 88], [30, 90], [0.25, 0.75], [0.9419160498, 0.9970108752]),
    (
        [186, 3, 5, 193, 4, 0, 6, 0, 8, 396],
        [400, 8, 8, 400, 8, 8, 90, 30, 8, 400],
        [0.2, -0.2] * 5,
        [0.0366400313, 0.2752184593],
    ),
]
PAIRED = [
    ([0, 3], [0, 0], [8, 30], [0.5, 0.5], [-0.117778236, 0.2221464718]),
    ([10, 1, 27], [4, 1, 9], [90, 30, 400], [0.1730769231, 0.0576923077, 0.7692307692], [0.0196690804, 0.0748371677]),
    ([10, 1, 14], [2, 0, 11], [90, 8, 400], THIRDS, [-0.0499856597, 0.1923440616]),
    (
        [14, 1, 0, 23, 0, 0, 5, 2, 0, 23],
        [8, 1, 0, 9, 0, 0, 5, 0, 2, 9],
        [400, 8, 8, 400, 8, 8, 90, 30, 8, 400],
        [0.1] * 10,
        [-0.0652898474, 0.0440387092],
    ),
]


def random_groups(rng):
    """Counts of 1 to 8 groups of 1 to 2,000 rows, with rates at and near the ends, and weights of either sign."""
    groups = rng.integers(1, 9)
    n = rng.choice([1, 2, 3, 5, 8, 30, 90, 400, 2000], groups)
    w = [
        np.full(groups, 1 / groups),
        rng.dirichlet(np.ones(groups)),
        rng.normal(size=groups),
        np.where(rng.random(groups) < 0.5, -0.3, 0.7),
    ][rng.integers(4)]
    return n, w


def test_proportion_is_clopper_pearson():
    x, n = np.array([0, 1, 9, 14, 40, 8, 999]), np.array([3, 17, 17, 40, 40, 40, 1000])
    got = proportion_interval(x, n)
    expected = proportion_confint(x, n, method="beta")
    np.testing.assert_allclose((got.low, got.high), expected, atol=1e-10)
    np.testing.assert_allclose(got.value, x / n)
    slow = np.array([oracle.exact(a, b) for a, b in zip(x, n, strict=True)])
    np.testing.assert_allclose((got.low, got.high), slow.T, atol=1e-9)
    np.testing.assert_allclose(limits(proportion_interval(9, 17)), [0.2781183003, 0.7701673127], atol=1e-9)
    np.testing.assert_allclose(limits(proportion_interval(2, 5)), [0.0527449505, 0.8533672004], atol=1e-9)


def test_proportion_level_and_nothing_seen():
    got = proportion_interval([5, 0], [10, 0], level=0.8)
    np.testing.assert_allclose([got.low[0], got.high[0]], proportion_confint(5, 10, 0.2, method="beta"), atol=1e-10)
    assert np.isnan([got.value[1], got.low[1], got.high[1]]).all()
    assert got.n[1] == 0


@pytest.mark.parametrize(("x", "n", "w", "expected"), WEIGHTED)
def test_weighted_vectors(x, n, w, expected):
    np.testing.assert_allclose(limits(weighted_interval(x, n, w)), expected, atol=1e-9)


@pytest.mark.parametrize(("gains", "losses", "n", "w", "expected"), PAIRED)
def test_paired_vectors(gains, losses, n, w, expected):
    np.testing.assert_allclose(limits(paired_interval(gains, losses, n, w)), expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_weighted_agrees_with_scan(seed):
    rng = np.random.default_rng(seed)
    n, w = random_groups(rng)
    x = rng.binomial(n, rng.choice([0, 0.02, 0.1, 0.5, 0.9, 0.98, 1], len(n)))
    if seed % 4 == 3:  # effective counts
        factor = rng.uniform(1, 20)
        x, n = x / factor, n / factor
    np.testing.assert_allclose(limits(weighted_interval(x, n, w)), oracle.weighted(x, n, list(w)), atol=1e-8)


@pytest.mark.parametrize("seed", range(12))
def test_paired_agrees_with_scan(seed):
    rng = np.random.default_rng(100 + seed)
    n, w = random_groups(rng)
    changed = rng.binomial(n, rng.choice([0, 0.05, 0.3, 1]))
    gains = rng.binomial(changed, rng.choice([0, 0.1, 0.5, 0.9, 1]))
    got = paired_interval(gains, changed - gains, n, w)
    np.testing.assert_allclose(limits(got), oracle.paired(gains, changed - gains, n, list(w)), atol=1e-8)


def test_one_group_without_skewness_is_wilson():
    x, n = np.array([0, 1, 7, 50, 999, 1000]), np.array([1, 10, 10, 50, 1000, 1000])
    got = rate_limits(x[:, None] * 1.0, n[:, None] * 1.0, np.ones(1), oracle.Z, skewness=False)
    np.testing.assert_allclose(got, proportion_confint(x, n, method="wilson"), atol=1e-10)


@pytest.mark.parametrize(("gains", "losses", "n"), [(3, 0, 20), (9, 4, 40), (0, 7, 30), (1, 0, 1000), (12, 12, 30)])
def test_one_group_of_changes_is_tango(gains, losses, n):
    got = change_limits(*(np.array([float(v)]) for v in (gains, losses, n)), np.ones(1), oracle.Z)
    np.testing.assert_allclose(got, oracle.tango(gains, losses, n), atol=1e-8)


def test_tilted_rates_are_the_likeliest():
    """Without the corrections of variance and skewness, a limit is that of the score test with fitted rates."""
    x, n, w = np.array([6.0, 20.0, 1.0]), np.array([8.0, 30.0, 40.0]), np.array([0.5, -0.3, 0.8])
    low, _ = rate_limits(x, n, w, oracle.Z, skewness=False)

    def loss(p):
        return -np.sum(x * np.log(p) + (n - x) * np.log1p(-p))

    fit = optimize.minimize(
        loss,
        x / n,
        bounds=[(1e-6, 1 - 1e-6)] * 3,
        method="SLSQP",
        tol=1e-14,
        constraints={"type": "eq", "fun": lambda p: w @ p - low},
    )
    part = w**2 * fit.x * (1 - fit.x) / n
    wider = w**2 * fit.x * (1 - fit.x) / (n - 1 + part / part.sum())
    assert (w @ (x / n) - low) / np.sqrt(wider.sum()) == pytest.approx(oracle.Z, abs=1e-4)


def test_likeliest_changes_given_the_sum():
    gains, losses, n, w = np.array([4.0, 0.0]), np.array([1.0, 2.0]), np.array([20.0, 30.0]), np.array([0.6, 0.4])
    _, high = change_limits(gains, losses, n, w, oracle.Z)

    def loss(p):
        rest = 1 - p[:2] - p[2:]
        return -np.sum(gains * np.log(p[:2]) + losses * np.log(p[2:]) + (n - gains - losses) * np.log(rest))

    start = np.array([0.2, 0.01, 0.05, 0.06])
    fit = optimize.minimize(
        loss,
        start,
        bounds=[(1e-9, 0.6)] * 4,
        method="SLSQP",
        tol=1e-15,
        constraints={"type": "eq", "fun": lambda p: w @ (p[:2] - p[2:]) - high},
    )
    d = fit.x[:2] - fit.x[2:]
    v = fit.x[:2] + fit.x[2:] - d**2
    part = w**2 * v / n
    wider = w**2 * v / (n - 1 + part / part.sum())
    assert (high - w @ ((gains - losses) / n)) / np.sqrt(wider.sum()) == pytest.approx(oracle.Z, abs=1e-3)


def test_mirrored_counts_mirror_the_limits():
    x, n, w = np.array([3, 17, 30]), np.array([30, 20, 31]), np.array([0.2, 0.5, 0.3])
    got, failures = weighted_interval(x, n, w), weighted_interval(n - x, n, w)
    np.testing.assert_allclose(1 - limits(got)[::-1], limits(failures), atol=1e-9)
    np.testing.assert_allclose(-limits(got)[::-1], limits(weighted_interval(x, n, -w)), atol=1e-9)
    np.testing.assert_allclose(5 * limits(got), limits(weighted_interval(x, n, 5 * w)), atol=1e-9)
    change, back = paired_interval([3, 1, 0], [1, 5, 2], n, w), paired_interval([1, 5, 2], [3, 1, 0], n, w)
    np.testing.assert_allclose(-limits(change)[::-1], limits(back), atol=1e-9)
    np.testing.assert_allclose(
        -7 * limits(change)[::-1], limits(paired_interval([3, 1, 0], [1, 5, 2], n, -7 * w)), atol=1e-9
    )


def test_extremes_have_width():
    """All right or all wrong: one limit is the end of the range, the other is inside it."""
    all_right, all_wrong = weighted_interval([5, 3], [5, 3], [0.5, 0.5]), weighted_interval([0, 0], [5, 3], [0.5, 0.5])
    assert all_right.high == all_right.value == 1.0
    assert 0 < all_right.low < 0.9
    assert all_wrong.low == all_wrong.value == 0.0
    assert 0.1 < all_wrong.high < 1
    difference = weighted_interval([5, 0], [5, 3], [1.0, -1.0])
    assert difference.high == 1.0
    assert difference.low < 0.7
    nothing = paired_interval([0, 0], [0, 0], [5, 3], [0.5, 0.5])
    assert nothing.value == 0
    assert -0.9 < nothing.low < -0.2
    assert 0.2 < nothing.high < 0.9
    everything = paired_interval([5], [0], [5], [2.0])
    assert everything.high == 2.0
    assert everything.low < 1.8


def test_leading_axes_and_padding():
    rng = np.random.default_rng(3)
    n = rng.integers(1, 50, (2, 3, 4))
    x = rng.binomial(n, 0.7)
    w = rng.normal(size=(3, 4))
    got = weighted_interval(x, n, w)
    assert got.low.shape == got.value.shape == got.n.shape == (2, 3)
    gains, losses = x // 3, (n - x) // 2
    change = paired_interval(gains, losses, n, w)
    for i, j in np.ndindex(2, 3):
        alone = weighted_interval(x[i, j], n[i, j], w[j])
        np.testing.assert_allclose([value[i, j] for value in got], alone, atol=1e-10)
        padded = weighted_interval([*x[i, j], 0], [*n[i, j], 0], [*w[j], 0])
        np.testing.assert_allclose(padded, alone, atol=1e-10)
        alone = paired_interval(gains[i, j], losses[i, j], n[i, j], w[j])
        np.testing.assert_allclose([value[i, j] for value in change], alone, atol=1e-10)
        unused = paired_interval([*gains[i, j], 3], [*losses[i, j], 1], [*n[i, j], 9], [*w[j], 0])
        np.testing.assert_allclose(unused, alone, atol=1e-10)
    assert isinstance(alone, Interval)
    assert isinstance(alone.low, float)


def test_unknown_groups_make_the_sum_unknown():
    assert np.isnan(weighted_interval([3, 0], [4, 0], [0.5, 0.5])[:3]).all()
    assert np.isnan(paired_interval([1, 0], [1, 0], [4, 0], [0.5, 0.5])[:3]).all()
    assert np.isnan(weighted_interval([3], [4], [0.0])[:3]).all()


def test_outer_of_two_limits():
    """With and without the correction for skewness, the wider limit on each side."""
    x, n, w = np.array([2.0, 27.0]), np.array([30.0, 30.0]), np.array([0.5, 0.5])
    plain, skewed = (rate_limits(x, n, w * [1, 0], oracle.Z, skewness=s) for s in (False, True))
    got = weighted_interval(x, n, w * [1, 0])
    assert skewed[0] < plain[0]
    assert plain[1] != skewed[1]
    np.testing.assert_allclose(limits(got), [min(plain[0], skewed[0]), max(plain[1], skewed[1])], atol=1e-12)


@pytest.mark.parametrize("level", [0.8, 0.99])
def test_level(level):
    z = stats.norm.ppf((1 + level) / 2)
    np.testing.assert_allclose(
        limits(weighted_interval([6, 1], [8, 30], [0.5, 0.5], level=level)),
        oracle.weighted([6, 1], [8, 30], [0.5, 0.5], z),
        atol=1e-8,
    )
    np.testing.assert_allclose(
        limits(paired_interval([6, 1], [1, 3], [8, 30], [0.5, 0.5], level=level)),
        oracle.paired([6, 1], [1, 3], [8, 30], [0.5, 0.5], z),
        atol=1e-8,
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: proportion_interval(3, 2), "`x`: expected values in 0..n"),
        (lambda: weighted_interval([1, 2], [3, 3], [1.0]), "`w`: expected one weight per group, [... 2]"),
        (lambda: weighted_interval([1, 2], [3, 3, 3], [1.0, 1.0, 1.0]), "`x`: expected a shape that fits"),
        (lambda: weighted_interval([np.nan], [3], [1.0]), "`x`: expected finite values"),
        (lambda: paired_interval([2], [2], [3], [1.0]), "`gains + losses`: expected values in 0..n"),
        (lambda: paired_interval([-1], [2], [3], [1.0]), "`gains + losses`: expected values in 0..n"),
        (lambda: proportion_interval(1, 2, level=95.0), "`level`: expected a number between 0 and 1"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ContractError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("x", "n"), [(0, 8), (8, 8), (1, 8), (7, 8), (60, 60), (0.3, 5), (4.7, 5), (0.05, 0.4), (400, 401)]
)
@pytest.mark.parametrize("w", [1.0, -2.0])
def test_limits_with_skewness(x, n, w):
    """One group at and near the ends; with 0.3 of 5 effective rows no tilt is far enough, and the end is the limit."""
    got = rate_limits(np.array([float(x)]), np.array([float(n)]), np.array([w]), oracle.Z, skewness=True)
    expected = [oracle.score_limit([(x, n)], [w], sign, skew=True) for sign in (1, -1)]
    np.testing.assert_allclose(got, expected, atol=1e-8)
    if (x, n) == (0.3, 5):
        assert 0.0 in got
    if (x, n) == (4.7, 5):
        assert w in got


def test_ends_of_the_range():
    """All rows lost in groups of positive weight and gained in the others: no tilt lowers the sum further."""
    low, high = change_limits(
        np.array([0.0, 5.0]), np.array([8.0, 0.0]), np.array([8.0, 5.0]), np.array([2.0, -0.5]), 2.0
    )
    assert low == -2.5
    assert high > -2.0
    low, high = change_limits(
        np.array([8.0, 0.0]), np.array([0.0, 5.0]), np.array([8.0, 5.0]), np.array([2.0, -0.5]), 2.0
    )
    assert high == 2.5
    assert low < 2.0
    assert (
        rate_limits(np.array([0.0, 5.0]), np.array([8.0, 5.0]), np.array([2.0, -0.5]), 2.0, skewness=False)[0] == -0.5
    )
    assert rate_limits(np.array([8.0, 0.0]), np.array([8.0, 5.0]), np.array([2.0, -0.5]), 2.0, skewness=False)[1] == 2.0


def test_outermost_root():
    """With less than one effective row the distance may rise, fall and rise again: the interval holds all roots."""
    x, n = (
        np.array([0, 5.730607730918419, 0.06367341923, 0.191020257729]),
        np.array([0.509387353859415, 5.730607730918419, 1.9102025769728064, 0.19102025773]),
    )
    w = np.array([0.09325003684139528, 0.3970716938816571, 0.13402391201283653, 0.3756543572641112])
    low, _ = rate_limits(x, n, w, oracle.Z, skewness=False)
    assert low == pytest.approx(oracle.score_limit(list(zip(x, n, strict=True)), list(w), 1), abs=1e-8)
    assert low < 0.3
