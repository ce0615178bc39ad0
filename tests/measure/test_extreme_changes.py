import itertools

import jax
import numpy as np
import pytest
from oracles import rates as oracle
from scipy import stats

from jaxdebias.contracts import ContractError
from jaxdebias.measure import largest_difference_change, worst_group_change


def draw(rng, before, after, n, same):
    """(before, after, group) of rows that are right at these rates; a share `same` is as hard for both models."""
    group = np.repeat(np.arange(len(before)), n)
    one = rng.random(len(group))
    other = np.where(rng.random(len(group)) < same, one, rng.random(len(group)))
    return one < np.asarray(before)[group], other < np.asarray(after)[group], group


def slow(before, after, group, level=0.95):
    """Limits by loops over all pairs of groups."""
    groups, alpha = range(int(group.max()) + 1), 1 - level
    right = [[int(side[group == g].sum()) for g in groups] for side in (before, after)]
    n = [int((group == g).sum()) for g in groups]

    def may_be_worst(side):
        limits = [oracle.exact(side[g], n[g], 0.1 * alpha / len(n)) for g in groups]
        return [g for g in groups if limits[g][0] <= min(high for _, high in limits)]

    def limits(h, g, z):
        if h == g:
            gains = int((after & ~before)[group == g].sum())
            losses = int((before & ~after)[group == g].sum())
            return oracle.paired([gains], [losses], [n[g]], [1.0], z=z)
        ends = [
            [oracle.score_limit([(float(side[i]), float(n[i]))], [1.0], sign, skew=True, z=z) for sign in (1, -1)]
            for side, i in ((right[1], h), (right[0], g))
        ]
        a, b = right[1][h] / n[h], right[0][g] / n[g]
        low = a - b - np.hypot(a - ends[0][0], ends[1][1] - b)
        return low, a - b + np.hypot(ends[0][1] - a, b - ends[1][0])

    first, second = may_be_worst(right[0]), may_be_worst(right[1])
    z = [stats.norm.ppf(1 - 0.9 * alpha / 2 / len(some)) for some in (first, second)]
    low = min(max(limits(h, g, z[0])[0] for g in first) for h in groups)
    high = max(min(limits(h, g, z[1])[1] for h in second) for g in groups)
    rates = [min(x / size for x, size in zip(side, n, strict=True)) for side in right]
    return rates[1] - rates[0], low, high


@pytest.mark.parametrize("case", [([0.5, 0.9, 0.85], [0.7, 0.8, 0.85]), ([0.8] * 4, [0.8] * 4)])
def test_limits_are_those_of_loops(key, case):
    before, after, group = draw(np.random.default_rng(1), *case, 60, 0.6)
    got = worst_group_change(before, after, group, groups=len(case[0]), key=key)
    assert got[:3] == pytest.approx(slow(before, after, group), abs=1e-7)


def test_p_of_all_exchanges(key):
    group = np.repeat([0, 1], 12)
    before, after = np.arange(24) % 12 < np.array([3, 9])[group], np.arange(24) % 12 < np.array([8, 7])[group]
    changed = np.flatnonzero(before != after)
    observed = abs(worst_group_change(before, after, group, groups=2, key=key).value)
    above = 0.0
    for signs in itertools.product([False, True], repeat=len(changed)):
        one, other = before.copy(), after.copy()
        some = changed[np.array(signs)]
        one[some], other[some] = after[some], before[some]
        lowest = [min(side[group == g].mean() for g in (0, 1)) for side in (one, other)]
        distance = abs(lowest[1] - lowest[0])
        above += distance > observed + 1e-9 or 0.5 * (abs(distance - observed) <= 1e-9)
    got = worst_group_change(before, after, group, groups=2, key=key)
    assert got.p == pytest.approx(above / 2 ** len(changed), abs=0.03)
    units = worst_group_change(before, after, group, groups=2, key=key, unit=np.arange(24))
    assert units.p == pytest.approx(above / 2 ** len(changed))  # few enough for all to be tried


def test_units_widen_and_count_once(key):
    before, after, group = draw(np.random.default_rng(2), [0.5, 0.9], [0.75, 0.9], 60, 0.8)
    once = worst_group_change(before, after, group, groups=2, key=key)
    copies = [np.repeat(side, 5) for side in (before, after, group)]
    tied = worst_group_change(*copies, groups=2, key=key, unit=np.repeat(np.arange(120), 5))
    assert (tied.value, tied.discordant) == (once.value, once.discordant)
    assert tied.high - tied.low == pytest.approx(once.high - once.low, rel=0.1)
    assert tied.n == pytest.approx(once.n, rel=0.1)


@pytest.mark.parametrize(
    ("before", "after", "n", "same", "sets"),
    [
        ([0.6, 0.8], [0.8, 0.6], 150, 0.5, 40),
        pytest.param([0.6, 0.8], [0.8, 0.6], 300, 0.5, 150, marks=pytest.mark.slow),
        pytest.param([0.8] * 10, [0.8] * 10, 60, 0.0, 80, marks=pytest.mark.slow),
        pytest.param([0.95] * 3, [0.95] * 3, [20, 60, 300], 0.5, 80, marks=pytest.mark.slow),
    ],
)
def test_no_change_is_seldom_separable(before, after, n, same, sets):
    """At most 5 %, and three standard errors of the simulation: also where the groups change places."""
    rng = np.random.default_rng(3)
    found = covered = 0
    for number in range(sets):
        got = worst_group_change(*draw(rng, before, after, n, same), groups=len(before), key=jax.random.key(number))
        found += got.separable
        covered += got.low <= 0 <= got.high
    assert found / sets <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / sets)
    assert covered / sets >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / sets)


def test_a_large_change_is_found():
    rng = np.random.default_rng(4)
    found = sum(
        worst_group_change(*draw(rng, [0.5, 0.9], [0.7, 0.85], 80, 0.7), groups=2, key=jax.random.key(i)).separable
        for i in range(20)
    )
    assert found >= 13


def test_without_known_groups_there_is_no_change(key):
    got = worst_group_change(np.ones(5), np.zeros(5), np.full(5, -1), groups=2, key=key)
    assert np.isnan(got.value)
    assert not got.separable


def test_refuses(key):
    with pytest.raises(ContractError, match="`after`: expected 0 or 1 for each row of group"):
        worst_group_change(np.ones(5), np.full(5, 2), np.zeros(5, int), groups=1, key=key)
    with pytest.raises(ContractError, match="`group`: expected values in"):
        worst_group_change(np.ones(5), np.ones(5), np.full(5, 3), groups=2, key=key)


def largest(right, family, group):
    """The largest difference of rates within a family, by a loop."""
    gaps = []
    for f in np.unique(family):
        rates = [right[(family == f) & (group == g)].mean() for g in np.unique(group[(family == f) & (group >= 0)])]
        gaps.append(max(rates) - min(rates))
    return max(gaps)


def two_models(rng, n=120, same=0.7, rates=(0.6, 0.8), others=None):
    group, family = rng.integers(-1, 3, n), rng.integers(0, 2, n)
    one = rng.random(n)
    other = np.where(rng.random(n) < same, one, rng.random(n))
    lows = np.asarray(rates)[family]
    return one < lows, other < (lows if others is None else np.asarray(others)[np.maximum(group, 0)]), family, group


def test_change_of_the_largest_difference_by_hand(key):
    before, after, family, group = two_models(np.random.default_rng(7), others=(0.5, 0.7, 0.8))
    got = largest_difference_change(before, after, family, group, families=2, groups=3, key=key)
    sides = []
    for right in (before, after):
        counts = [[[int(some[(family == f) & (group == g)].sum()) for g in range(3)] for f in (0, 1)]
                  for some in (right, np.ones_like(right))]  # fmt: skip
        sides.append((largest(right, family, group), *oracle.largest_difference(*counts)))
    (first, low, high), (second, least, most) = sides
    expected = second - first
    assert got.value == pytest.approx(expected)
    assert got.low == pytest.approx(expected - np.hypot(second - least, high - first), abs=1e-7)
    assert got.high == pytest.approx(expected + np.hypot(most - second, first - low), abs=1e-7)
    known = group >= 0
    assert got.discordant == int(np.sum((before != after)[known]))
    above, rng, draws = 0.0, np.random.default_rng(0), 2000
    for _ in range(draws):
        swap = rng.random(len(before)) < 0.5
        one, other = np.where(swap, after, before), np.where(swap, before, after)
        distance = abs(largest(other, family, group) - largest(one, family, group))
        above += distance > abs(expected) + 1e-9 or 0.5 * (abs(distance - abs(expected)) <= 1e-9)
    assert got.p == pytest.approx(above / draws, abs=0.04)
    tied = largest_difference_change(
        before, after, family, group, families=2, groups=3, key=key, unit=np.arange(len(before)) // 3
    )
    assert tied.value == pytest.approx(got.value)
    assert tied.discordant <= got.discordant


@pytest.mark.slow
def test_a_largest_difference_that_stays_is_seldom_separable_and_one_that_goes_is_found():
    rng, sets = np.random.default_rng(6), 60
    found = sum(
        largest_difference_change(*two_models(rng, n=400), families=2, groups=3, key=jax.random.key(i)).separable
        for i in range(sets)
    )
    assert found / sets <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / sets)
    power = sum(
        largest_difference_change(
            *two_models(rng, n=1500, others=(0.3, 0.7, 0.7)), families=2, groups=3, key=jax.random.key(i)
        ).separable
        for i in range(20)
    )
    assert power >= 18


def test_one_group_has_no_difference(key):
    got = largest_difference_change(
        np.ones(5), np.zeros(5), np.zeros(5, int), np.zeros(5, int), families=1, groups=2, key=key
    )
    assert np.isnan(got.value)


def test_a_tenth_of_alpha_chooses_the_groups_and_the_rest_is_for_the_limits(key):
    """Exact limits of 20 and 41 of 60 overlap at a tenth of alpha, and would not at alpha."""
    row, group = np.tile(np.arange(60), 2), np.repeat([0, 1], 60)
    before, after = row < np.array([20, 41])[group], row < np.array([30, 41])[group]
    change = worst_group_change(before, after, group, groups=2, key=key)
    assert change[:3] == pytest.approx(slow(before, after, group), abs=1e-7)
    assert change.low < worst_group_change(before, after, np.where(group == 0, 0, -1), groups=1, key=key).low
