import jax
import numpy as np
import pytest
from oracles import rates as oracle

from jaxdebias.contracts import ContractError
from jaxdebias.measure import (
    group_counts,
    mcnemar_midp,
    paired_change,
    paired_interval,
    separable,
    unit_design_effect,
    unit_flip_p,
    weighted_interval,
    weighted_rate_interval,
)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    unit = rng.integers(0, 25, 200)
    mood = rng.random(25)[unit]
    before, after = (rng.random(200) < 0.4 + 0.3 * mood).astype(int), (rng.random(200) < 0.6 + 0.3 * mood).astype(int)
    return before, after, rng.integers(0, 3, 200), unit


W = np.array([[1 / 3, 1 / 3, 1 / 3], [0.8, -0.5, 0.1]])


def test_rates_without_units_are_those_of_counts(rows):
    _, after, group, _ = rows
    x, n = group_counts(after, group, groups=3)
    assert weighted_rate_interval(after, group, W[1]) == pytest.approx(weighted_interval(x, n, W[1]))


def test_rates_of_units_have_one_effect_per_quantity(rows):
    _, after, group, unit = rows
    x, n = group_counts(after, group, groups=3)
    got = weighted_rate_interval(after, group, W, unit=unit)
    for i, w in enumerate(W):
        deff, t = oracle.design_effect(after.tolist(), group.tolist(), unit.tolist(), w.tolist())
        factor = deff * t * t
        assert (got.low[i], got.high[i]) == pytest.approx(oracle.weighted(x / factor, n / factor, list(w)), abs=1e-8)
        assert got.n[i] == pytest.approx(200 / factor)


def test_change_without_units(rows, key):
    before, after, group, _ = rows
    gains, n = group_counts(after > before, group, groups=3)
    losses, _ = group_counts(after < before, group, groups=3)
    got = paired_change(before, after, group, W, key=key)
    for i, w in enumerate(W):
        expected = paired_interval(gains, losses, n, w)
        assert [value[i] for value in got[:4]] == pytest.approx(list(expected))
        assert got.value[i] == pytest.approx(w @ [np.mean((after - before)[group == g]) for g in range(3)])
        assert got.separable[i] == separable(gains, losses, n, w, key=key)
        assert got.discordant[i] == np.sum(before != after)
    plain = paired_change(before, after, np.zeros(200, int), [1.0], key=key)
    assert plain.p == pytest.approx(mcnemar_midp(gains.sum(), losses.sum()))


def test_change_of_units(rows, key):
    before, after, group, unit = rows
    change = after - before
    gains, n = group_counts(change > 0, group, groups=3)
    losses, _ = group_counts(change < 0, group, groups=3)
    got = paired_change(before, after, group, W, unit=unit, key=key)
    for i, w in enumerate(W):
        deff, t = oracle.design_effect(change.tolist(), group.tolist(), unit.tolist(), w.tolist())
        expected = oracle.paired(*(counts / (deff * t * t) for counts in (gains, losses, n)), list(w))
        assert (got.low[i], got.high[i]) == pytest.approx(expected, abs=1e-8)
        totals = [sum(w[group[r]] / n[group[r]] * change[r] for r in range(200) if unit[r] == u) for u in range(25)]
        assert got.p[i] == pytest.approx(unit_flip_p(totals, key=key, draws=40_000), abs=0.01)
        assert got.discordant[i] == len(set(unit[change != 0]))


def test_rows_of_one_unit_change_once(key):
    """Ten renderings of one picture turn right: one unit, not ten rows."""
    before, after = np.repeat([0, 1], [10, 190]), np.ones(200, int)
    unit = np.arange(200) // 10
    assert paired_change(before, after, np.zeros(200, int), [1.0], key=key).separable is True
    got = paired_change(before, after, np.zeros(200, int), [1.0], unit=unit, key=key)
    assert got.separable is False
    assert (got.discordant, got.p) == (1, 0.5)
    every = paired_change(np.tile([0, 1], 100), after, np.zeros(200, int), [1.0], unit=unit, key=key)
    assert every.separable is True
    assert every.discordant == 20


def test_each_condition_of_separable_in_units(key):
    """Five units are too few, six of them enough; gains and losses of units that cancel are no change."""

    def change(units_up, units_down, units=60):
        before = np.repeat(np.where(np.arange(units) < units_up, 0, 1), 2)
        after = np.repeat(np.where(np.arange(units) >= units - units_down, 0, 1), 2)
        return paired_change(
            before, after, np.zeros(2 * units, int), [1.0], unit=np.repeat(np.arange(units), 2), key=key
        )

    assert change(5, 0).separable is False
    assert change(6, 0).separable is True
    assert change(0, 6).separable is True
    assert change(6, 6).separable is False


def test_padding_and_rows_left_out(rows, key):
    before, after, group, unit = rows
    more = {"unit": np.append(unit, [3, 99]), "weight": np.append(np.ones(200), [0, 1])}
    longer = np.append(before, [1, 0]), np.append(after, [0, 1]), np.append(group, [0, -1])
    got = paired_change(*longer, W, key=key, **more)
    expected = paired_change(before, after, group, W, unit=unit, key=key)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other)
    got = paired_change(*longer, W, key=key, weight=more["weight"])
    for one, other in zip(got, paired_change(before, after, group, W, key=key), strict=True):
        np.testing.assert_allclose(one, other)
    rate = weighted_rate_interval(longer[1], longer[2], W, **more)
    for one, other in zip(rate, weighted_rate_interval(after, group, W, unit=unit), strict=True):
        np.testing.assert_allclose(one, other)


def test_weights_of_rows(rows, key):
    before, after, group, _ = rows
    weight = 1.0 + np.arange(200) % 3
    got = paired_change(before, after, group, W[0], weight=weight, key=key)
    expected = np.mean([np.average((after - before)[group == g], weights=weight[group == g]) for g in range(3)])
    assert got.value == pytest.approx(expected)
    assert got.n == pytest.approx(
        sum(weight[group == g].sum() ** 2 / (weight[group == g] ** 2).sum() for g in range(3))
    )
    rate = weighted_rate_interval(after, group, W[0], weight=weight)
    assert rate.value == pytest.approx(
        np.mean([np.average(after[group == g], weights=weight[group == g]) for g in range(3)])
    )


def test_groups_without_weight_do_not_count(rows, key):
    before, after, group, unit = rows
    w = [1.0, 0.0, 0.0]
    alone = group == 0
    for units in (None, unit):
        got = paired_change(before, after, group, w, unit=units, key=key)
        expected = paired_change(
            before[alone], after[alone], group[alone], [1.0], key=key, unit=None if units is None else units[alone]
        )
        assert got[:4] == pytest.approx(expected[:4])
        assert got.discordant == expected.discordant
        assert got.p == pytest.approx(expected.p, abs=0.02)
    factor = unit_design_effect(after, group, unit, w).factor
    assert weighted_rate_interval(after, group, w, unit=unit).n == pytest.approx(alone.sum() / factor)


def test_refusals(key):
    with pytest.raises(ContractError, match="`before`: expected 0 or 1 for every row"):
        paired_change([2, 1], [1, 1], [0, 0], [1.0], key=key)
    with pytest.raises(ContractError, match="`after`: expected the rows of before"):
        paired_change([0, 1], [1, 1, 0], [0, 0], [1.0], key=key)


def test_groups_of_a_few_rows_are_one(key):
    """Of one row no variance can be seen; thirty such groups of equal weight are as good as thirty rows."""
    before, after = np.repeat([0, 1, 1], [12, 2, 16]), np.repeat([1, 0, 1], [12, 2, 16])
    got = paired_change(before, after, np.arange(30), np.full(30, 1 / 30), key=key)
    expected = paired_interval([12], [2], [30], [1.0])
    assert got.value == pytest.approx(expected.value)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    assert got.separable
    rate = weighted_rate_interval(after, np.arange(30), np.full((2, 30), 1 / 30))
    alone = weighted_interval([28], [30], [1.0])
    assert rate.value == pytest.approx([alone.value] * 2)
    assert rate.low == pytest.approx([alone.low] * 2, abs=0.02)
    large = np.repeat([0, 1], [20, 10])  # groups of five rows and more are left as they are
    x, n = group_counts(after, large, groups=2)
    assert weighted_rate_interval(after, large, [0.5, 0.5]) == pytest.approx(weighted_interval(x, n, [0.5, 0.5]))


@pytest.mark.slow
@pytest.mark.parametrize("unit", [False, True])
def test_sums_over_many_tiny_groups_are_covered(unit):
    rng, covered, sets = np.random.default_rng(0), np.zeros(2), 60
    for number in range(sets):
        n = rng.poisson(1.2, 60)
        group, rate = np.repeat(np.arange(60), n), np.where(n == 1, 0.5, 0.95)  # single rows vary most
        w = (n > 0) / np.count_nonzero(n)
        before, after = rng.random(len(group)) < 0.4, rng.random(len(group)) < rate[group]
        units = np.arange(len(group)) // 2 if unit else None
        change = paired_change(1 * before, 1 * after, group, w, key=jax.random.key(number), unit=units)
        mean = weighted_rate_interval(after, group, w, unit=units)
        covered += [change.low <= w @ rate - 0.4 <= change.high, mean.low <= w @ rate <= mean.high]
        assert change.high - change.low < 0.6
    assert (covered / sets >= 0.93 - 3 * np.sqrt(0.05 * 0.95 / sets)).all()


def test_a_weight_is_as_many_rows_of_one_unit(key):
    rng = np.random.default_rng(3)
    before, after, group = (rng.integers(0, 2, 80) for _ in range(3))
    weight = rng.integers(1, 4, 80)
    weighted = paired_change(before, after, group, [1.0, -1.0], key=key, weight=weight.astype(float))
    times = np.repeat(np.arange(80), weight)
    repeated = paired_change(before[times], after[times], group[times], [1.0, -1.0], key=key, unit=times)
    assert weighted.value == pytest.approx(repeated.value)
    assert weighted.p == pytest.approx(repeated.p)
    assert weighted.discordant == repeated.discordant
    assert weighted.p != pytest.approx(paired_change(before, after, group, [1.0, -1.0], key=key, unit=np.arange(80)).p)


def test_joined_groups_keep_what_each_of_them_counts():
    right, group, w = np.array([1, 0, 1, 1, 0, 1]), np.array([0, 0, 1, 2, 2, 2]), np.array([0.7, 0.2, 0.1])
    assert weighted_rate_interval(right, group, w).value == pytest.approx(0.7 / 2 + 0.2 + 0.1 * 2 / 3)
