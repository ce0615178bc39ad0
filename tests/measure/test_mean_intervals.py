import numpy as np
import pytest
from scipy import stats

from jaxdebias.contracts import ContractError
from jaxdebias.measure import _mean_intervals as means
from jaxdebias.measure import mean_change, mean_interval, unit_flip_p


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_few_units_have_students_t(key, rng):
    values = rng.normal(size=(2, 12))
    got = mean_interval(values, key=key, level=0.9)
    for i in range(2):
        expected = stats.t.interval(0.9, 11, values[i].mean(), stats.sem(values[i]))
        assert (got.low[i], got.high[i]) == pytest.approx(expected)
    assert got.n == 12


def test_units_of_unequal_size(key, rng):
    """A ratio of sums: the jackknife's standard error is close to the linearised one; sizes cost degrees of freedom."""
    unit = np.repeat(np.arange(8), [1, 2, 3, 4, 5, 6, 7, 8])
    values = rng.normal(size=36) + rng.normal(size=8)[unit]
    got = mean_interval(values, unit=unit, key=key)
    assert got.value == pytest.approx(values.mean())
    size, residual = np.bincount(unit), np.bincount(unit, values - values.mean())
    error = np.sqrt(8 / 7 * (residual**2).sum()) / 36
    freedom = 36**2 / (size**2).sum() - 1
    assert freedom < 7
    assert (got.high - got.low) / 2 == pytest.approx(stats.t.ppf(0.975, freedom) * error)


def slow_bootstrap_t(values, draws=6000, seed=1):
    """Bootstrap-t of a plain mean, a resample at a time."""
    rng, n = np.random.default_rng(seed), len(values)
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(n)
    t = []
    for _ in range(draws):
        again = rng.choice(values, n)
        t.append((again.mean() - mean) / np.sqrt(again.var(ddof=1) / n + error**2 / n))
    low, high = np.quantile(t, [0.025, 0.975])
    return mean - high * error, mean - low * error


def test_many_units_have_bootstrap_t(key, rng):
    values = rng.exponential(size=40)
    got = mean_interval(values, key=key, resamples=20_000)
    error = values.std(ddof=1) / np.sqrt(40)
    assert (got.low, got.high) == pytest.approx(slow_bootstrap_t(values), abs=0.12 * error)
    assert got.high - got.value > 1.2 * (got.value - got.low)  # the long tail is where the mean may hide
    mirrored = mean_interval(-values, key=key, resamples=20_000)
    assert (mirrored.low, mirrored.high) == pytest.approx((-got.high, -got.low))


def test_units_are_resampled_not_rows(key, rng):
    values = rng.normal(size=50)
    copied = mean_interval(np.repeat(values, 4), unit=np.repeat(np.arange(50), 4) + 7, key=key)
    assert copied == pytest.approx(mean_interval(values, key=key))
    assert mean_interval(np.repeat(values, 4), key=key).high - copied.value < 0.6 * (copied.high - copied.value)


def test_batch_padding_and_keys(key, rng):
    values = rng.normal(size=(3, 30))
    got = mean_interval(values, key=key)
    for i in range(3):
        alone = mean_interval(values[i], key=key)
        assert (got.value[i], got.low[i], got.high[i]) == pytest.approx(alone[:3])
    padded = mean_interval(np.append(values[0], [9.0, 4.0]), key=key, weight=np.append(np.ones(30), [0, 0]))
    assert padded == pytest.approx(mean_interval(values[0], key=key))
    weighted = mean_interval(values[0], weight=np.arange(30.0), key=key)
    assert weighted.value == pytest.approx(np.average(values[0], weights=np.arange(30)))
    assert weighted.n == 29


@pytest.mark.parametrize("units", [10, 40])
def test_no_spread_is_not_certainty(units, key):
    got = mean_interval(np.full(units, 0.25), key=key)
    assert got.value == 0.25
    assert np.isnan([got.low, got.high]).all()
    got = mean_interval(np.full(units, 0.25), key=key, bounds=(-1.0, 1.0))
    hidden = 1 - 0.025 ** (1 / units)  # Clopper-Pearson of 0 units that differ
    assert (got.low, got.high) == pytest.approx((0.25 - hidden * 1.25, 0.25 + hidden * 0.75))


def test_bounds_cut(key):
    got = mean_interval([0.9, 1.0, 1.0, 0.2], key=key, bounds=(0.0, 1.0))
    assert got.high == 1.0
    assert mean_interval([0.9, 1.0, 1.0, 0.2], key=key).high > 1.0
    got = mean_interval([0.1, 0.0, 0.0, 0.8], key=key, bounds=(0.0, 1.0))
    assert got.low == 0.0


def test_one_unit_has_no_interval(key):
    got = mean_interval([1.0, 2.0, 4.0], unit=[5, 5, 5], key=key)
    assert got.value == pytest.approx(7 / 3)
    assert np.isnan([got.low, got.high]).all()


def test_rare_values_do_not_make_infinite_limits(key):
    values = np.zeros(25)
    values[3] = 1.0
    got = mean_interval(values, key=key)
    assert np.isfinite([got.low, got.high]).all()
    assert 0.15 < got.high < 0.5
    assert got.low < got.value


def test_refusals(key):
    with pytest.raises(ContractError, match="`values`: expected finite values"):
        mean_interval([1.0, np.nan], key=key)
    with pytest.raises(ContractError, match="`weight`: expected at least one row that counts"):
        mean_interval([1.0, 2.0], weight=[0, 0], key=key)
    with pytest.raises(ContractError, match="`unit`: expected int"):
        mean_interval([1.0, 2.0], unit=[0, 1, 2], key=key)


def test_many_thousand_units_have_the_limits_that_resamples_tend_to(key, rng, monkeypatch):
    values = rng.gamma(0.3, size=6000)
    unit = np.r_[np.arange(5500), np.arange(500)]
    expanded = mean_interval(values, unit=unit, key=key)
    monkeypatch.setattr(means, "MOST_UNITS", 10_000)
    drawn = mean_interval(values, unit=unit, key=key, resamples=8000)
    half = (drawn.high - drawn.low) / 2
    assert expanded.value == drawn.value
    assert (expanded.low, expanded.high) == pytest.approx((drawn.low, drawn.high), abs=0.03 * half)
    skewed = (expanded.high - expanded.value) - (expanded.value - expanded.low)
    residual = np.bincount(unit, values) - values.mean() * np.bincount(unit)
    assert skewed == pytest.approx(
        half * 2 * stats.skew(residual) * (2 * 1.96**2 + 1) / (6 * 1.96 * np.sqrt(5500)), rel=0.1
    )


def test_change_of_a_mean(key, rng):
    before = rng.random(60)
    after = before - rng.random(60) / 4
    unit = np.arange(60) // 2
    got = mean_change(before, after, key=key, unit=unit, bounds=(-1.0, 1.0))
    assert got[:4] == mean_interval(after - before, key=key, unit=unit, bounds=(-1.0, 1.0))
    assert got.p == unit_flip_p(np.bincount(unit, after - before), key=key) < 0.01
    assert (got.discordant, got.separable) == (30, True)
    same = mean_change(before, before, key=key, bounds=(-1.0, 1.0))
    assert (same.value, same.p, same.discordant, same.separable) == (0, 1, 0, False)
    assert same.low < 0 < same.high
    five = mean_change(np.zeros(60), np.where(np.arange(60) < 5, 1.0, 0.0), key=key)
    assert (five.discordant, five.separable) == (5, False)
    with pytest.raises(ContractError, match="the rows of before"):
        mean_change(before, after[:5], key=key)


def test_change_of_nothing_is_seldom_separable(key):
    rng, sets = np.random.default_rng(1), 300
    found = 0
    for _ in range(sets):
        before, change = rng.random(40) / 2, rng.exponential(size=40) - 1.0
        found += mean_change(before, before + change, key=key).separable
    assert found / sets <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / sets)
