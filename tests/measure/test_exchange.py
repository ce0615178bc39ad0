import itertools

import jax
import numpy as np
import pytest
from scipy import stats

from jaxdebias.measure import cmh_test
from jaxdebias.measure._exchange import LEAST_EVENTS, exchange_test

SCORE = np.array([[0.6, -1.2], [-0.9, 0.4]])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def rows_of(tables):
    """kind, value, stratum of every row of counts `[s kinds a]`."""
    tables = np.asarray(tables)
    stratum, kind, value = (index.repeat(tables.ravel()) for index in map(np.ravel, np.indices(tables.shape)))
    return kind, value, stratum


def total(score, kind, value):
    return sum(score[k, v] for k, v in zip(kind, value, strict=True))


def every_deal(score, kind, value, stratum):
    """T of all ways to deal the values of each stratum to its rows, one by one."""
    parts = []
    for s in np.unique(stratum):
        own = np.flatnonzero(stratum == s)
        parts.append([total(score, kind[own], deal) for deal in itertools.permutations(value[own])])
    return np.array([sum(part) for part in itertools.product(*parts)])


def test_z_is_that_of_all_deals(key):
    kind, value = np.array([0, 1, 1, 0, 0, 0, 1, 1, 2]), np.array([0, 1, 2, 0, 0, 2, 1, 1, 1])
    stratum, score = np.repeat([0, 1], [4, 5]), np.random.default_rng(1).normal(size=(3, 3))
    deals = every_deal(score, kind, value, stratum)
    found = exchange_test(kind, score, value, stratum, key=key)
    assert found.z == pytest.approx((total(score, kind, value) - deals.mean()) / deals.std(), rel=1e-9)
    assert found.events == 2 + 3


@pytest.mark.parametrize("seed", range(4))
def test_p_is_that_of_all_deals(key, seed):
    rng = np.random.default_rng(seed)
    kind, value, stratum = rng.integers(0, 2, 9), rng.integers(0, 2, 9), np.repeat([0, 1], [4, 5])
    deals, observed = every_deal(SCORE, kind, value, stratum), total(SCORE, kind, value)
    exact = np.mean(deals > observed + 1e-9) + 0.5 * np.mean(np.abs(deals - observed) <= 1e-9)
    found = exchange_test(kind, SCORE, value, stratum, key=key)
    if np.ptp(deals) < 1e-9:
        assert found.p == 1.0
    else:
        assert found.p == pytest.approx(exact, abs=0.03)


def test_few_mistakes_have_the_hypergeometric_mid_p(key):
    """4 of 200 rows are predicted 1, and all of them have value 1, as 100 of the 200 have."""
    found = exchange_test(*_with_score(rows_of([[[100, 96], [0, 4]]])), key=key)
    law = stats.hypergeom(200, 100, 4)
    exact = law.sf(4) + 0.5 * law.pmf(4)
    assert found.p == pytest.approx(exact, abs=0.006)
    assert found.events == 4


def _with_score(rows):
    kind, value, stratum = rows
    return kind, SCORE, value, stratum


def test_more_draws_where_p_is_near_the_level(key):
    """The mid-p is 0.0306: with 2,000 draws one could not tell it from 0.03."""
    rows = rows_of([[[100, 96], [0, 4]]])
    law = stats.hypergeom(200, 100, 4)
    exact = law.sf(4) + 0.5 * law.pmf(4)
    near = [exchange_test(*_with_score(rows), key=jax.random.key(seed), resolve=exact).p - exact for seed in range(12)]
    far = [exchange_test(*_with_score(rows), key=jax.random.key(seed), resolve=0.5).p - exact for seed in range(12)]
    assert np.std(near) < 0.6 * np.std(far)


def test_many_events_agree_with_cochran_mantel_haenszel(key, rng):
    tables = rng.integers(20, 60, (3, 4, 3))
    score = rng.normal(size=(4, 3))
    kind, value, stratum = rows_of(tables)
    found, cmh = exchange_test(kind, score, value, stratum, key=key), cmh_test(tables, score)
    assert found.z == pytest.approx(cmh.z, rel=1e-9)
    assert found.p == pytest.approx(stats.norm.sf(cmh.z), rel=1e-9)
    assert found.design_effect == 1.0


def test_normal_from_fifty_events_and_five_expected(key):
    def is_normal(table):
        found = exchange_test(*_with_score(rows_of([table])), key=key)
        return found.p == pytest.approx(stats.norm.sf(found.z), rel=1e-9)

    assert is_normal([[200, 200], [25, LEAST_EVENTS - 25]])
    assert not is_normal([[200, 200], [25, LEAST_EVENTS - 26]])
    assert not is_normal([[600, 10], [57, 3]])  # 600 * 13 / 670: one event is expected with value 1


def test_rare_values_that_hardly_matter_leave_it_normal(key, rng):
    score = np.array([[0.5, -0.5, 0.0], [-0.5, 0.5, 0.01]])
    kind, value, stratum = rows_of([[[300, 300, 2], [60, 70, 0]]])
    found = exchange_test(kind, score, value, stratum, key=key)
    assert found.p == pytest.approx(stats.norm.sf(found.z), rel=1e-9)
    score[1, 2] = 50.0
    found = exchange_test(kind, score, value, stratum, key=key)
    assert found.p != pytest.approx(stats.norm.sf(found.z), rel=1e-3)


def test_nothing_to_exchange(key):
    rows = np.zeros(10, int)
    for kind, value in ((rows, np.arange(10) % 2), (np.arange(10) % 2, rows)):
        found = exchange_test(kind, SCORE, value, rows, key=key)
        assert (found.z, found.p) == (0.0, 1.0)
    none = np.zeros(0, int)
    assert exchange_test(none, SCORE, none, none, key=key).p == 1.0
    # Values differ between strata only.
    assert exchange_test(np.array([0, 1, 0, 1]), SCORE, np.repeat([0, 1], 2), np.repeat([0, 1], 2), key=key).p == 1.0


@pytest.mark.parametrize("clustered", [False, True])
def test_order_and_names_do_not_matter(key, rng, clustered):
    n = 600
    kind, value, stratum = rng.integers(0, 3, n), rng.integers(0, 3, n), rng.integers(0, 2, n)
    score, unit = rng.normal(size=(3, 3)), rng.integers(0, 200, n) if clustered else None
    found = exchange_test(kind, score, value, stratum, key=key, unit=unit)
    order, kinds, values = rng.permutation(n), rng.permutation(3), rng.permutation(3)
    renamed = np.empty_like(score)
    renamed[np.ix_(kinds, values)] = score
    again = exchange_test(
        kinds[kind][order],
        renamed,
        values[value][order],
        1 - stratum[order],
        key=key,
        unit=None if unit is None else 7 * unit[order] + 3,
    )
    np.testing.assert_allclose(again, found, rtol=1e-9)


def test_rows_of_a_unit_count_together(key, rng):
    """Ten copies of each row are no more evidence than one; independent rows as units are as without."""
    n = 300
    kind, value, stratum = rng.integers(0, 2, n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    once = exchange_test(kind, SCORE, value, stratum, key=key, unit=np.arange(n))
    ten = [np.repeat(of, 10) for of in (kind, value, stratum, np.arange(n))]
    copies = exchange_test(ten[0], SCORE, ten[1], ten[2], key=key, unit=ten[3])
    assert (copies.z, copies.p) == (pytest.approx(once.z), pytest.approx(once.p))
    assert copies.design_effect == pytest.approx(10.0, rel=0.1)
    plain = exchange_test(kind, SCORE, value, stratum, key=key)
    assert once.z == pytest.approx(plain.z, rel=0.1, abs=0.05)


def test_few_units_are_flipped(key):
    """Six units that all lean: no other signs reach T, so p is half of 1/64."""
    kind, value = np.tile([1, 0], 30), np.tile([1, 0], 30)
    found = exchange_test(kind, SCORE, value, np.zeros(60, int), key=key, unit=np.repeat(np.arange(6), 10))
    assert found.p == pytest.approx(0.5 / 64)
    against = exchange_test(kind, -SCORE, value, np.zeros(60, int), key=key, unit=np.repeat(np.arange(6), 10))
    assert against.p == pytest.approx(1 - 0.5 / 64)


@pytest.mark.parametrize(
    ("n", "share", "mistakes", "units"), [(60, 0.5, 0.2, 0), (400, 0.05, 0.05, 0), (300, 0.5, 0.2, 60)]
)
def test_the_level_is_held(n, share, mistakes, units):
    """p is at most 5 % in at most 5 % of the sets without a lean, whatever is rare."""
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        unit = rng.integers(0, units, n) if units else None
        label, value = rng.integers(0, 2, n), (rng.random(n) < share).astype(int)
        if units:  # people differ in how often they are wrong, and have one value
            value = (rng.random(units) < share).astype(int)[unit]
            mistakes = rng.beta(0.5, 2.0, units)[unit]
        kind = np.where(rng.random(n) < mistakes, 1 - label, label)
        found.append(exchange_test(kind, SCORE, value, label, key=jax.random.key(seed), unit=unit).p)
    assert np.mean(np.array(found) <= 0.05) <= 0.09  # 99.9 % of a binomial of 300 at 5 %
    assert np.mean(np.array(found) <= 0.5) == pytest.approx(0.5, abs=0.1)
