import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import metrics as oracle
from scipy import stats

from jaxdebias.contracts import ContractError
from jaxdebias.measure import (
    Interval,
    bootstrap,
    excludes_zero,
    over_seeds,
    paired_difference,
    paired_over_seeds,
    rate_intervals,
    wilson,
)
from jaxdebias.measure import _bootstrap as intervals


def mean(sums):
    return jnp.sum(sums[:, 1]) / jnp.sum(sums[:, 0])


def group_means(sums):
    return sums[:, 1] / sums[:, 0]


def columns(x):
    return np.stack([np.ones(len(x)), x], axis=1).astype(np.float32)


def test_wilson_solves_its_equation():
    correct, n = np.array([0, 1, 7, 50, 999, 1000, 12]), np.array([1, 10, 10, 50, 1000, 1000, 13])
    got = wilson(correct, n)
    expected = np.array([oracle.wilson(c, m) for c, m in zip(correct, n, strict=True)])
    np.testing.assert_allclose(got.low, expected[:, 0], atol=1e-7)
    np.testing.assert_allclose(got.high, expected[:, 1], atol=1e-7)
    np.testing.assert_array_equal(got.value, correct / n)


def test_wilson_of_an_empty_group_is_nan():
    got = wilson(np.array([0, 3]), np.array([0, 4]))
    assert np.isnan([got.value[0], got.low[0], got.high[0]]).all()
    assert got.n.tolist() == [0, 4]
    assert got.value[1] == 0.75


def test_wilson_contains_its_value_at_the_ends():
    n = np.arange(1, 400)
    none, every = wilson(np.zeros_like(n), n), wilson(n, n)
    assert (none.low == 0).all()
    assert (none.high > 0).all()
    assert (every.high == 1).all()
    assert (every.low < 1).all()


def test_wilson_level():
    narrow, wide = wilson(30, 100, level=0.8), wilson(30, 100, level=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    low, _ = oracle.wilson(30, 100, z=stats.norm.ppf(0.995))
    assert wide.low == pytest.approx(low, abs=1e-12)


@pytest.mark.parametrize(("correct", "n"), [(5, 4), (-1, 4)])
def test_wilson_refuses_impossible_counts(correct, n):
    with pytest.raises(ContractError, match=r"`correct`: expected values in 0\.\.n"):
        wilson(correct, n)


def test_wilson_refuses_a_level_that_is_no_probability():
    with pytest.raises(ContractError, match=r"`level`: expected a number between 0 and 1, got 95\.0"):
        wilson(1, 2, level=95.0)


def test_rates_of_single_rows_are_wilson():
    rng = np.random.default_rng(0)
    hit, pool = rng.random(200) < 0.7, rng.integers(-1, 4, 200)
    got = rate_intervals(hit, pool, pools=5)
    same = rate_intervals(hit, pool, np.arange(200), pools=5)
    for j in range(4):
        expected = wilson(hit[pool == j].sum(), (pool == j).sum())
        for field in ("value", "low", "high"):
            assert getattr(got, field)[j] == pytest.approx(getattr(expected, field), abs=1e-12)
            assert getattr(same, field)[j] == pytest.approx(getattr(expected, field), abs=1e-9)
        assert got.n[j] == same.n[j] == expected.n
    assert got.n[4] == 0
    assert np.isnan(got.value[4])
    assert np.isnan(got.high[4])


def test_rates_of_clustered_rows_use_the_design_effect():
    rng = np.random.default_rng(1)
    unit = np.repeat(np.arange(60), rng.integers(1, 6, 60))
    hit = rng.random(len(unit)) < rng.beta(1, 1, 60)[unit]
    pool = (unit % 2).astype(np.int32)
    got = rate_intervals(hit, pool, unit, pools=2)
    for j in range(2):
        rows = pool == j
        size = oracle.design_effect_size(hit[rows].astype(float), unit[rows])
        assert size < rows.sum()
        low, high = oracle.wilson(hit[rows].mean() * size, size)
        np.testing.assert_allclose([got.low[j], got.high[j]], [low, high], atol=1e-7)
    assert got.n.tolist() == [30, 30]


def test_a_unit_repeated_is_one_unit():
    """Ten copies of every row add nothing but certainty about the copies."""
    rng = np.random.default_rng(2)
    hit = rng.random(50) < 0.8
    once = rate_intervals(hit, np.zeros(50, np.int32), pools=1)
    copied = rate_intervals(np.repeat(hit, 10), np.zeros(500, np.int32), np.repeat(np.arange(50), 10), pools=1)
    assert copied.n.tolist() == [50]
    # The variance between 50 units is estimated with 49 degrees of freedom, that of 500 rows with 499.
    assert (copied.high - copied.low)[0] == pytest.approx((once.high - once.low)[0], rel=0.02)


def test_units_that_all_agree_count_once_each():
    got = rate_intervals(np.ones(40), np.zeros(40, np.int32), np.repeat(np.arange(10), 4), pools=1)
    assert got.low[0] == pytest.approx(wilson(10, 10).low)


def test_bootstrap_of_rates_is_their_beta_posterior(key):
    """Of Bernoulli rows the Bayesian bootstrap is Beta(hits, misses) exactly, and groups are strata."""
    hit = np.concatenate([np.repeat([1.0, 0.0], [20, 5]), np.repeat([1.0, 0.0], [300, 200])])
    group = np.repeat([0, 1], [25, 500])
    got = bootstrap(key, group_means, columns(hit), group=group, groups=3, resamples=8000)
    for j, (hits, misses) in enumerate([(20, 5), (300, 200)]):
        low, high = stats.beta(hits, misses).ppf([0.025, 0.975])
        np.testing.assert_allclose([got.low[j], got.high[j]], [low, high], atol=0.01)  # 3 Monte-Carlo errors
    np.testing.assert_allclose(got.value[:2], [0.8, 0.6], rtol=1e-6)
    assert np.isnan([got.value[2], got.low[2], got.high[2]]).all()  # nothing in it: NaN stays NaN
    assert got.n == 525


def test_bootstrap_resamples_units_against_loops(key):
    """The weights, the unit's share of them and the sums, recomputed row by row."""
    rng = np.random.default_rng(3)
    unit, group = rng.choice([4, 7, 9, 30], 25), rng.integers(-1, 3, 25)
    values = rng.normal(size=(25, 2)).astype(np.float32)
    names = sorted(set(unit.tolist()))
    seen = []
    for key_weight in jax.random.split(key, 5):
        weight = np.asarray(jax.random.exponential(key_weight, (len(names),)))
        weight = weight / weight.sum() * len(names)
        sums = np.zeros((3, 2))
        for i in range(25):
            if group[i] >= 0:
                sums[group[i]] += weight[names.index(unit[i])] * values[i]
        seen.append(sums)
    _, draws, n = intervals._point_and_draws(key, jnp.asarray, values, group, 3, unit, (), 5)
    np.testing.assert_allclose(draws, np.stack(seen), rtol=1e-4, atol=1e-5)
    assert n == len(set(unit[group >= 0].tolist()))


def test_bootstrap_of_copied_rows_equals_that_of_the_rows(key):
    x = np.random.default_rng(4).normal(size=40)
    once = bootstrap(key, mean, columns(x))
    copied = bootstrap(key, mean, columns(np.repeat(x, 10)), unit=np.repeat(np.arange(40), 10))
    np.testing.assert_allclose(copied, once, rtol=1e-4, atol=1e-5)


def test_bootstrap_same_key_same_bits_and_no_dependence_on_chunks(key, monkeypatch):
    values = columns(np.random.default_rng(5).normal(size=40))
    first = bootstrap(key, mean, values)
    assert bootstrap(key, mean, values) == first
    assert bootstrap(jax.random.key(1), mean, values) != first
    monkeypatch.setattr(intervals, "CHUNK_ELEMENTS", 300)  # 7 resamples at a time, in 143 chunks
    chunked = bootstrap(key, lambda sums: mean(sums), values)  # another object: traced anew, with the new constant
    np.testing.assert_allclose(chunked, first, rtol=1e-5)


def test_bootstrap_one_trace_for_equal_shapes(key):
    traces = []

    def statistic(sums, shift):
        traces.append(sums.shape)
        return mean(sums) + shift

    for seed in range(3):
        values = columns(np.random.default_rng(seed).normal(size=20))
        bootstrap(jax.random.key(seed), statistic, values, args=(np.float32(seed),))
    once = len(traces)
    for _ in range(3):
        paired_difference(key, statistic, values, values, args=(np.float32(0),))
    assert traces[:once] == [(1, 2)] * once
    assert once == 2  # the data themselves and the resamples
    assert len(traces) == once + 4  # the paired statistic: before and after in each


def test_bootstrap_interval_contains_the_value(key):
    """All percentiles of a minimum over many equal groups lie below the minimum itself."""
    hit, group = np.tile([1.0, 0.0], 400), np.repeat(np.arange(40), 20)
    got = bootstrap(key, lambda sums: jnp.min(group_means(sums)), columns(hit), group=group, groups=40)
    assert got.value == got.high == 0.5
    assert got.low < 0.45


def test_bootstrap_leaves_rows_out(key):
    x, group = np.r_[np.ones(15), np.full(15, 2.0), np.full(10, 99.0)], np.repeat([0, 0, -1], [15, 15, 10])
    got = bootstrap(key, mean, columns(x), group=group)
    assert got.value == 1.5
    assert got.n == 30
    assert 1 < got.low < got.high < 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": np.array([0, 0, 2])}, r"`group`: expected values in -1..0, got 0..2"),
        ({"unit": np.array([0.0, 1.0, 2.0])}, "`unit`: expected int [n=3], got float64 [3]"),
        ({"unit": np.array([0, 1])}, "`unit`: expected int [n=3], got int64 [2]"),
        ({"resamples": 0}, "`resamples`: expected at least 1, got 0"),
        ({"level": 1.5}, "`level`: expected a number between 0 and 1, got 1.5"),
        ({"values": columns(np.array([1.0, np.nan, 0.0]))}, "`values`: expected finite values, got 1 of 6 not finite"),
        ({"values": np.zeros((0, 2), np.float32)}, "`values`: expected at least one row, got float32 [0, 2]"),
    ],
)
def test_bootstrap_refuses(key, unchecked, change, message):
    arguments = {"values": columns(np.arange(3.0)), "statistic": mean} | change
    with pytest.raises(ContractError, match=re.escape(message)):
        bootstrap(key, **arguments)


def test_paired_difference_is_the_interval_of_the_differences_for_a_mean(key):
    rng = np.random.default_rng(6)
    before, after = rng.normal(size=40), rng.normal(size=40) + 0.3
    got = paired_difference(key, mean, columns(before), columns(after))
    direct = bootstrap(key, mean, columns(after - before))
    np.testing.assert_allclose(got, direct, atol=1e-5)


def test_pairing_cancels_what_rows_share(key):
    shared = np.random.default_rng(7).normal(size=40) * 10
    got = paired_difference(key, mean, columns(shared), columns(shared + 0.5))
    assert got.value == pytest.approx(0.5, abs=1e-4)
    assert got.high - got.low < 1e-4
    assert excludes_zero(got)


def test_paired_difference_refuses_other_rows(key, unchecked):
    with pytest.raises(ContractError, match=r"`after`: expected the rows of before, \[3, 2\], got float32 \[4, 2\]"):
        paired_difference(key, mean, columns(np.ones(3)), columns(np.ones(4)))


def test_over_seeds_is_the_t_interval():
    values = np.array([0.71, 0.74, 0.69, 0.73, 0.70])
    got = over_seeds(values)
    low, high = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose(got[:3], [values.mean(), low, high], rtol=1e-10)
    assert got.n == 5


def test_over_seeds_of_one_seed_has_no_interval():
    got = over_seeds([0.7])
    assert got.value == 0.7
    assert np.isnan(got.low)
    assert np.isnan(got.high)
    assert not excludes_zero(got)


def test_over_seeds_keeps_further_axes():
    values = np.random.default_rng(8).normal(size=(4, 3))
    got = over_seeds(values)
    assert got.low.shape == (3,)
    np.testing.assert_allclose([field[1] for field in got[:3]], over_seeds(values[:, 1])[:3])


def test_paired_over_seeds():
    before, after = np.array([0.5, 0.6, 0.7]), np.array([0.6, 0.71, 0.79])
    assert paired_over_seeds(before, after) == over_seeds(after - before)
    assert excludes_zero(paired_over_seeds(before, after))
    with pytest.raises(ContractError, match="the seeds of before"):
        paired_over_seeds(before, after[:2])


def test_separable():
    assert not excludes_zero(Interval(0.1, 0.0, 0.2, 9))  # 0 on the edge is inside
    assert excludes_zero(Interval(-0.1, -0.2, -0.01, 9))
    assert not excludes_zero(Interval(np.nan, np.nan, np.nan, 0))
    got = excludes_zero(Interval(np.array([0.1, 0.1]), np.array([0.05, -0.1]), np.array([0.2, 0.3]), 9))
    assert got.tolist() == [True, False]


def test_bootstrap_memory_is_what_the_docstring_says():
    n, c, unit = 1_500_000, 2, jnp.zeros(1_500_000, jnp.int32)  # more rows than CHUNK_ELEMENTS: one resample at a time
    compiled = intervals._resample.lower(
        jax.random.key(0),
        group_means,
        jnp.ones((n, c)),
        jnp.zeros(n, jnp.int32),
        unit,
        (),
        groups=100,
        units=n,
        resamples=1000,
    ).compile()
    promised, results = max(n, intervals.CHUNK_ELEMENTS) * (5 + c) * 4, 1000 * 100 * 4
    assert compiled.memory_analysis().temp_size_in_bytes <= promised + results


@pytest.mark.slow
@pytest.mark.alone
def test_a_thousand_resamples_of_ten_thousand_rows_take_under_a_second(key):
    """Measured: 0.22 s warm on 2 busy cores. The promise is 1 s; twice that here, for busier machines."""
    rng = np.random.default_rng(9)
    values, group = columns(rng.random(10_000) < 0.7), rng.integers(0, 100, 10_000)
    bootstrap(key, group_means, values, group=group, groups=100)
    start = time.perf_counter()
    bootstrap(key, group_means, values, group=group, groups=100)
    assert time.perf_counter() - start < 2.0
