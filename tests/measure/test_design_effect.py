import re

import numpy as np
import pytest
from oracles import rates as oracle
from scipy import stats

from jaxdebias.contracts import ContractError
from jaxdebias.measure import group_counts, unit_design_effect, weighted_interval


def digits(text):
    return np.array([int(digit) for digit in text])


# A set with the values of an implementation of its own.
RIGHT = digits("111111110111011011111111101111111111100110111111111111111111")
GROUP = digits("100110002102202221200211201220222021200211220122111001222002")
UNIT = digits("122072761561130335431436554223421001321252741776165654277524")


def clustered(seed, rows=80, units=9, groups=3, values=(0, 1)):
    """Rows whose units agree more than chance, of unequal sizes, over groups."""
    rng = np.random.default_rng(seed)
    unit = rng.choice(units, rows, p=rng.dirichlet(np.ones(units)))
    mood = rng.choice(values, units)
    right = np.where(rng.random(rows) < 0.5, mood[unit], rng.choice(values, rows))
    return right, rng.integers(0, groups, rows), unit, rng.normal(size=groups)


def test_vector():
    effect = unit_design_effect(RIGHT, GROUP, UNIT, [1 / 3] * 3)
    assert effect == pytest.approx((1.0, 1.228190078257802), abs=1e-12)
    x, n = group_counts(RIGHT, GROUP, groups=3)
    got = weighted_interval(x / effect.factor, n / effect.factor, [1 / 3] * 3)
    assert (got.low, got.high) == pytest.approx((0.7461969651, 0.9596950022), abs=1e-8)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("values", [(0, 1), (-1, 0, 1)])
def test_agrees_with_loops(seed, values):
    right, group, unit, w = clustered(seed, values=values, units=(2, 5, 9, 30)[seed % 4])
    w[seed % 3] *= seed % 2  # in some, a group without weight, with units of its own
    unit = np.where(group == seed % 3, unit + 100, unit) if seed % 4 == 0 else unit
    got = unit_design_effect(right, group, unit, w)
    expected = oracle.design_effect(right.tolist(), group.tolist(), unit.tolist(), w.tolist())
    assert tuple(got) == pytest.approx(expected, rel=1e-9)
    assert got.factor == pytest.approx(expected[0] * expected[1] ** 2)


def test_level():
    right, group, unit, w = clustered(1)
    expected = oracle.design_effect(right.tolist(), group.tolist(), unit.tolist(), w.tolist(), level=0.8)
    assert tuple(unit_design_effect(right, group, unit, w, level=0.8)) == pytest.approx(expected, rel=1e-9)


def test_rows_of_their_own_are_hardly_clustered():
    rng = np.random.default_rng(0)
    effect = unit_design_effect(rng.integers(0, 2, 400), np.zeros(400, int), np.arange(400), [1.0])
    assert effect.design_effect == pytest.approx(1, abs=0.01)
    assert effect.t_over_z == pytest.approx(1, abs=0.01)


def test_copies_count_once():
    rng = np.random.default_rng(0)
    right = rng.integers(0, 2, 100)
    effect = unit_design_effect(np.repeat(right, 10), np.zeros(1000, int), np.repeat(np.arange(100), 10), [1.0])
    assert effect.design_effect == pytest.approx(10, rel=0.03)


def test_units_that_spread_over_groups_cancel_in_a_difference():
    mood = np.tile([0, 1], 20)
    right, unit, group = np.repeat(mood, 4), np.repeat(np.arange(40), 4), np.tile([0, 0, 1, 1], 40)
    assert unit_design_effect(right, group, unit, [0.5, 0.5]).design_effect > 3.9
    assert unit_design_effect(right, group, unit, [1.0, -1.0]).design_effect == 1.0


@pytest.mark.parametrize("right", [np.ones(12), np.zeros(12), -np.ones(12)])
def test_units_that_all_agree_count_by_kish(right):
    """No variance can be seen: sizes 6, 3, 3 of 12 rows count as 144 / 54 rows."""
    effect = unit_design_effect(right, np.zeros(12, int), np.repeat([0, 1, 2], [6, 3, 3]), [0.7])
    assert effect.design_effect == pytest.approx(12 * 54 / 144)


def test_one_unit_is_one_row():
    effect = unit_design_effect(np.tile([0, 1], 50), np.zeros(100, int), np.zeros(100, int), [1.0])
    assert effect.design_effect == pytest.approx(100)
    assert effect.t_over_z == pytest.approx(12.7062047 / 1.95996398)


def test_a_group_in_one_unit_costs_degrees_of_freedom():
    """Its e - 1 is 0, and counts as 0.1: with weight 0.1 beside 1 for 30 units, 1.8 degrees are left of 27."""
    group, unit = np.repeat([0, 1], [20, 60]), np.append(np.zeros(20, int), np.arange(60) % 30)
    right, w = np.random.default_rng(0).integers(0, 2, 80), [0.1, 1.0]
    part = np.array([0.01, 1 / 30])
    freedom = part.sum() ** 2 / (part[0] ** 2 / 0.1 + part[1] ** 2 / 29)
    assert 1.5 < freedom < 2
    got = unit_design_effect(right, group, unit, w)
    assert got.t_over_z == pytest.approx(stats.t.ppf(0.975, freedom) / oracle.Z, rel=1e-9)


def test_batch_padding_and_names():
    right, group, unit, w = clustered(2)
    other = clustered(3)[0]
    both = unit_design_effect(np.stack([right, other])[:, None], group, unit, np.stack([w, -2 * w, [1.0, 0, 0]]))
    assert both.design_effect.shape == both.t_over_z.shape == both.factor.shape == (2, 3)
    for i, y in enumerate((right, other)):
        for j, weights in enumerate((w, w, [1.0, 0, 0])):
            alone = unit_design_effect(y, group, unit, weights)
            assert (both.design_effect[i, j], both.t_over_z[i, j]) == pytest.approx(tuple(alone))
    alone = unit_design_effect(right, group, unit, w)
    padded = unit_design_effect(
        np.append(right, [1, 0]),
        np.append(group, [0, -1]),
        np.append(unit, [7, 900]) * 10 - 5,
        w,
        weight=np.append(np.ones(len(right)), [0, 1]),
    )
    assert tuple(padded) == pytest.approx(tuple(alone))
    batched = unit_design_effect(
        np.stack([right, right]), np.stack([group, group[::-1]]), np.stack([unit, unit[::-1]]), w
    )
    assert batched.design_effect[0] == pytest.approx(alone.design_effect)
    turned = unit_design_effect(right, group[::-1], unit[::-1], w)
    assert batched.design_effect[1] == pytest.approx(turned.design_effect)


def test_weights_of_rows():
    """A weight of 2 everywhere changes nothing; unequal weights cost Kish's share of the rows."""
    right, group, unit, w = clustered(4)
    twice = unit_design_effect(right, group, unit, w, weight=np.full(len(right), 2.0))
    assert tuple(twice) == pytest.approx(tuple(unit_design_effect(right, group, unit, w)))
    x, n = group_counts([1, 0, 1], [0, 0, 0], groups=1, weight=[3.0, 1.0, 0.0])
    assert n[0] == pytest.approx(16 / 10)
    assert x[0] / n[0] == pytest.approx(3 / 4)
    alone = unit_design_effect(right, group, np.arange(len(right)), w, weight=1 + np.arange(len(right)) % 3)
    assert 1 <= alone.design_effect < 1.15


def test_counts():
    x, n = group_counts([[1, 0, 1, 1], [0, 0, 1, 0]], [0, 0, 2, -1], groups=3)
    np.testing.assert_array_equal(x, [[1, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(n, [[2, 0, 1], [2, 0, 1]])


def test_counts_of_units_have_each_group_its_own_effect():
    right, group, unit, _ = clustered(5)
    x, n = group_counts(right, group, groups=4, unit=unit)
    raw_x, raw_n = group_counts(right, group, groups=4)
    for g in range(3):
        factor = unit_design_effect(right, group, unit, np.eye(4)[g]).factor
        assert (x[g], n[g]) == pytest.approx((raw_x[g] / factor, raw_n[g] / factor))
    assert (x[3], n[3]) == (0, 0)
    two = group_counts(np.stack([right, 1 - right]), group, groups=4, unit=unit)
    np.testing.assert_allclose(two[1], np.stack([n, n]))
    np.testing.assert_allclose(two[0][1], n - x, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [0, 0], [0, 1], [1.0]), "`right`: expected values of 0 or 1"),
        (([1, 0], [0, 3], [0, 1], [1.0]), "`group`: expected integers in -1..0"),
        (([1, 0], [0, 0, 0], [0, 1], [1.0]), "`right`: expected the rows of group, [3]"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ContractError, match=re.escape(message)):
        unit_design_effect(*arguments)
