import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.train import epoch_plan, steps_per_epoch

N = 20_000  # rows wherever weights are drawn, so that they share a compilation
planned = jax.jit(epoch_plan, static_argnames=("n", "batch_size", "drop_last"))  # one program instead of thirty


@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (1, 4), (10, 1), (10, 4), (10, 5), (10, 37)])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_row_exactly_once_with_weight_one(n, batch_size, seed):
    plan = planned(jax.random.key(seed), n, batch_size)
    index, weight = np.asarray(plan.index), np.asarray(plan.weight)
    assert index.shape == weight.shape == (-(-n // batch_size), batch_size)
    assert index.dtype == np.int32
    assert weight.dtype == np.float32
    assert set(weight.ravel()) <= {0.0, 1.0}
    np.testing.assert_array_equal(np.sort(index[weight == 1]), np.arange(n))
    assert index.min() >= 0
    assert index.max() < n


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (3, 8), (7, 7)])
def test_filler_comes_from_the_beginning_of_the_permutation(key, n, batch_size):
    flat = np.asarray(planned(key, n, batch_size).index).ravel()
    np.testing.assert_array_equal(flat[n:], flat[np.arange(n, len(flat)) % n])


def test_drop_last_cuts_the_same_permutation(key):
    whole, cut = planned(key, 10, 4), planned(key, 10, 4, drop_last=True)
    np.testing.assert_array_equal(cut.index, whole.index[:2])
    assert cut.weight.shape == (2, 4)
    assert float(cut.weight.min()) == 1.0


def test_epochs_differ_and_equal_keys_agree(key):
    one, same = planned(key, 10, 4), planned(key, 10, 4)
    other = planned(jax.random.fold_in(key, 1), 10, 4)
    np.testing.assert_array_equal(one.index, same.index)
    assert (np.asarray(one.index) != np.asarray(other.index)).any()


def test_draws_follow_the_weights(key):
    weights = np.array([0.0, 1.0, 2.0, 0.0, 5.0], np.float32)
    padded = np.zeros(N, np.float32)
    padded[:5] = weights
    index = np.asarray(planned(key, N, 100, draw_weights=padded).index).ravel()
    share, wanted = np.bincount(index, minlength=N)[:5] / N, weights / weights.sum()
    assert set(index) == {1, 2, 4}
    np.testing.assert_array_less(np.abs(share - wanted), 4 * np.sqrt(wanted * (1 - wanted) / N) + 1e-9)


def test_draws_are_independent_of_the_scale_of_the_weights(key):
    weights = np.random.default_rng(0).random(N, np.float32)
    one = planned(key, N, 100, draw_weights=weights)
    other = planned(key, N, 100, draw_weights=weights * np.float32(2.0**20))
    np.testing.assert_array_equal(one.index, other.index)


def test_draws_resolve_small_weights(key):
    """A hundredth of the mass spread over the second half of a million rows: float32 sums would lose single rows."""
    n = 1_000_000
    weights = jnp.where(jnp.arange(n) < n // 2, 0.99, 0.01)
    index = np.asarray(planned(key, n, n, draw_weights=weights).index).ravel()
    late = index[index >= n // 2]
    assert abs(len(late) / n - 0.01) < 4 * np.sqrt(0.01 * 0.99 / n)
    # 10,000 draws from 500,000 equally likely rows: 9,900.7 distinct ones are expected, with deviation below 10.
    assert abs(len(set(late.tolist())) - 500_000 * (1 - (1 - 1 / 500_000) ** len(late))) < 50


@pytest.mark.parametrize("bad", [[0.0, 0.0], [np.nan, 1.0], [-1.0, 2.0], [np.inf, 1.0]])
def test_unusable_weights_make_the_plan_not_finite(key, bad):
    weights = np.zeros(N, np.float32)
    weights[:2] = bad
    plan = planned(key, N, 100, draw_weights=weights)
    assert np.isnan(np.asarray(plan.weight)).all()
    index = np.asarray(plan.index)
    assert index.min() >= 0
    assert index.max() < N


def test_one_trace_and_jit_equals_no_jit(key):
    @functools.partial(jax.jit, static_argnums=(1, 2))
    @chex.assert_max_traces(n=1)
    def jitted(key, n, batch_size, draw_weights):
        return epoch_plan(key, n, batch_size, draw_weights=draw_weights)

    for i in range(2):
        weights = jnp.arange(30.0) + i
        here = jitted(jax.random.fold_in(key, i), 30, 7, weights)
        chex.assert_trees_all_equal(here, epoch_plan(jax.random.fold_in(key, i), 30, 7, draw_weights=weights))


def test_vmaps_over_keys(key):
    plans = jax.jit(jax.vmap(lambda key: epoch_plan(key, 10, 4)))(jax.random.split(key, 3))
    rows = np.sort(np.asarray(plans.index).reshape(3, -1)[:, :10])
    np.testing.assert_array_equal(rows, np.tile(np.arange(10), (3, 1)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: steps_per_epoch(0, 4), "`n`: expected at least one row, got 0"),
        (lambda: steps_per_epoch(5, 0), "`batch_size`: expected at least 1, got 0"),
        (lambda: steps_per_epoch(5, 8, drop_last=True), "`batch_size`: expected at most n=5 with drop_last, got 8"),
        (
            lambda: epoch_plan(jax.random.key(0), 5, 2, draw_weights=np.ones(4, np.float32)),
            r"`draw_weights`: expected float \[n=5\]",
        ),
    ],
)
def test_bad_sizes_are_refused(call, message):
    with pytest.raises(ContractError, match=message):
        call()
