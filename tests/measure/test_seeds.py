import numpy as np
import pytest
from scipy import stats

from jaxdebias.contracts import ContractError
from jaxdebias.measure import excludes_zero, over_seeds, paired_over_seeds


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
