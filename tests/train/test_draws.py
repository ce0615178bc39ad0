import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdebias.contracts import ContractError
from jaxdebias.train.draws import distinct_rows, draw_summary, independent_rows, systematic_rows, usable_weights

WEIGHTS = np.random.default_rng(0).gamma(0.3, size=300).astype(np.float32)
SHARE = WEIGHTS / WEIGHTS.sum(dtype=np.float64)


def times(rows, n=300):
    rows = np.asarray(rows)
    assert rows.dtype == np.int32
    assert rows.min() >= 0
    assert rows.max() < n
    return np.bincount(rows, minlength=n)


def test_systematic_counts_are_floor_or_ceil_of_the_expected_number():
    for i in range(5):
        rows = systematic_rows(jax.random.key(i), WEIGHTS, count=300)
        assert (np.diff(rows) >= 0).all()
        drawn = times(rows)
        assert drawn.sum() == 300
        assert (drawn >= np.floor(300 * SHARE - 1e-3)).all()
        assert (drawn <= np.ceil(300 * SHARE + 1e-3)).all()


@pytest.mark.slow
def test_systematic_draws_follow_the_weights_on_average(key):
    drawn = jax.vmap(lambda one: systematic_rows(one, WEIGHTS, count=300))(jax.random.split(key, 2000))
    mean = times(drawn.ravel()) / 2000
    part = 300 * SHARE % 1
    np.testing.assert_array_less(np.abs(mean - 300 * SHARE), 5 * np.sqrt(part * (1 - part) / 2000) + 2e-3)


@pytest.mark.slow
def test_systematic_draws_of_equal_weights_are_every_row_once(key):
    for n in (7, 99_991):
        rows = systematic_rows(key, jnp.full(n, 0.3), count=n)
        np.testing.assert_array_equal(rows, np.arange(n))


def test_systematic_draws_at_the_extremes(key):
    one = np.zeros(300, np.float32)
    one[[3, 299]] = 1e-30, 1.0
    drawn = times(systematic_rows(key, one, count=300))
    assert drawn[299] >= 299
    assert drawn[3] + drawn[299] == 300
    np.testing.assert_array_equal(times(systematic_rows(key, np.ones(300, np.float32), count=300)), 1)
    for bad in ([np.nan], [-1.0], [np.inf], [0.0] * 300):  # told by `usable_weights`; nothing goes out of bounds
        weights = np.ones(300, np.float32)
        weights[: len(bad)] = bad
        assert not usable_weights(weights)
        np.testing.assert_array_equal(times(systematic_rows(key, weights, count=300)), 1)


@pytest.mark.slow
def test_fewer_and_more_draws_than_rows(key):
    few = systematic_rows(key, np.ones(5, np.float32), count=2)
    many = systematic_rows(key, np.ones(5, np.float32), count=15)
    assert (len(set(few.tolist())), times(many, 5).tolist()) == (2, [3] * 5)


@pytest.mark.slow
def test_systematic_draws_resolve_small_weights(key):
    """A hundredth of the mass spread over the second half of a million rows."""
    n = 1_000_000
    rows = np.asarray(systematic_rows(key, jnp.where(jnp.arange(n) < n // 2, 0.99, 0.01), count=n))
    late = rows[rows >= n // 2]
    assert abs(len(late) - n // 100) < 0.01 * n // 100
    assert len(set(late.tolist())) == len(late)
    assert np.abs(np.histogram(late, bins=10)[0] / 1000 - 1).max() < 0.05


def test_independent_draws_pass_a_chi_square_test(key):
    drawn = times(independent_rows(key, WEIGHTS, count=60_000))
    common = 60_000 * SHARE >= 5
    observed = [*drawn[common], drawn[~common].sum()]
    wanted = 60_000 * np.array([*SHARE[common], SHARE[~common].sum()])
    assert stats.chisquare(observed, wanted * np.sum(observed) / wanted.sum()).pvalue > 1e-3


@pytest.mark.slow
def test_distinct_draws_are_distinct_and_the_first_one_follows_the_weights(key):
    weights = jnp.array([1.0, 2.0, 0.0, 5.0])
    drawn = np.asarray(jax.vmap(lambda one: distinct_rows(one, weights, count=3))(jax.random.split(key, 4000)))
    assert (np.sort(drawn, axis=1) == [0, 1, 3]).all()
    first = np.bincount(drawn[:, 0], minlength=4) / 4000
    np.testing.assert_allclose(first, [1 / 8, 2 / 8, 0, 5 / 8], atol=0.03)
    second = np.mean(drawn[drawn[:, 0] == 3, 1] == 1)  # of those left, 1 and 2
    assert abs(second - 2 / 3) < 0.04


@pytest.mark.parametrize(
    ("draw", "count"),
    [(systematic_rows, 300), (independent_rows, 60_000), pytest.param(distinct_rows, 300, marks=pytest.mark.slow)],
)
def test_one_key_one_draw_and_one_program(draw, count, key):
    rows, before = draw(key, WEIGHTS, count=count), draw._cache_size()
    np.testing.assert_array_equal(rows, draw(key, WEIGHTS, count=count))
    assert (rows != draw(jax.random.key(1), WEIGHTS, count=count)).any()
    assert (rows != draw(key, WEIGHTS[::-1], count=count)).any()
    assert draw._cache_size() == before


def test_summary_by_hand():
    said = draw_summary(jnp.array([0.5, 0.25, 0.25, 0.0]))
    assert {name: float(value) for name, value in said.items()} == pytest.approx(
        {"draw_ess": 1 / (4 * (0.25 + 2 / 16)), "draw_largest": 0.5, "draw_never": 0.25}
    )


def test_bad_arguments_are_refused(key):
    for draw in (systematic_rows, independent_rows, distinct_rows):
        with pytest.raises(ContractError, match="`count`"):
            draw(key, jnp.ones(3), count=0)
    with pytest.raises(ContractError, match="at most n=3 different rows, got 4"):
        functools.partial(distinct_rows, count=4)(key, jnp.ones(3))
