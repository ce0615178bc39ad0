import numpy as np
import pytest
from fairlearn import metrics
from oracles import rates as oracle
from scipy import stats

from jaxdebias.contracts import ContractError
from jaxdebias.measure import largest_difference_interval, worst_group_interval
from jaxdebias.measure._disparity import studentised_range_point

# Values of an implementation of its own.
LARGEST = [
    ([[82, 361]], [[90, 400]], [0.0, 0.0684187893]),
    ([[80, 244, 243]], [[90, 400, 400]], [0.1710738204, 0.3532342879]),
    ([[62, 75, 24], [18, 20, 250]], [[90, 90, 30], [30, 30, 400]], [0.0, 0.2995483769]),
    ([[81, 231], [17, 85]], [[90, 400], [30, 90]], [0.219607908, 0.5590595453]),
    (
        [[81, 234, 251, 80, 63, 240, 55, 359, 82, 58]],
        [[90, 400, 400, 90, 90, 400, 90, 400, 90, 90]],
        [0.2185827484, 0.4131781972],
    ),
]
WORST = [
    ([6, 1], [8, 30], [0.0008435709, 0.1945867208]),
    ([79, 1, 397], [90, 30, 400], [0.0008435709, 0.2072404916]),
    ([30, 88], [30, 90], [0.8842966918, 0.998134608]),
    ([186, 3, 5, 193, 4, 0, 6, 0, 8, 396], [400, 8, 8, 400, 8, 8, 90, 30, 8, 400], [0.0, 0.1749080968]),
]


@pytest.mark.parametrize(("x", "n", "expected"), LARGEST)
def test_largest_difference_vectors(x, n, expected):
    got = largest_difference_interval(x, n)
    assert (got.low, got.high) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("x", "n", "expected"), WORST)
def test_worst_group_vectors(x, n, expected):
    got = worst_group_interval(x, n)
    assert (got.low, got.high) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_agree_with_loops(seed):
    rng = np.random.default_rng(seed)
    families, groups = rng.integers(1, 4), rng.integers(2, 6)
    n = rng.choice([0, 1, 5, 30, 400], (families, groups))
    n[0, :2] = rng.integers(1, 90, 2)
    x = rng.binomial(n, rng.choice([0, 0.1, 0.5, 0.9, 1], (families, groups)))
    got = largest_difference_interval(x, n)
    assert (got.low, got.high) == pytest.approx(oracle.largest_difference(x, n), abs=1e-7)
    worst = worst_group_interval(x, n)
    for f in range(families):
        if n[f].sum():
            assert (worst.low[f], worst.high[f]) == pytest.approx(oracle.worst_group(x[f], n[f]), abs=1e-9)


def test_level():
    x, n = [[80, 244, 243], [9, 20, 13]], [[90, 400, 400], [30, 21, 40]]
    got = largest_difference_interval(x, n, level=0.8)
    assert (got.low, got.high) == pytest.approx(oracle.largest_difference(x, n, 0.8), abs=1e-7)
    worst = worst_group_interval(x[0], n[0], level=0.8)
    assert (worst.low, worst.high) == pytest.approx(oracle.worst_group(x[0], n[0], 0.2), abs=1e-9)


def test_values_and_names_of_groups():
    got = largest_difference_interval([[9, 1, 5], [2, 8, 9]], [[10, 10, 10], [10, 10, 10]])
    assert (got.value, got.family, got.highest, got.lowest, got.n) == (pytest.approx(0.8), 0, 0, 1, 20)
    got = largest_difference_interval([[9, 4, 5], [2, 8, 19]], [[10, 10, 10], [10, 10, 20]])
    assert (got.value, got.family, got.highest, got.lowest, got.n) == (pytest.approx(0.75), 1, 2, 0, 30)
    equal = largest_difference_interval([10, 40, 0, 20], [10, 40, 0, 20])  # two groups, although all rates are 1
    assert (equal.value, equal.highest, equal.lowest, equal.n) == (0.0, 0, 1, 50)
    worst = worst_group_interval([9, 4, 5], [10, 10, 10])
    assert (worst.value, worst.group, worst.n) == (0.4, 1, 10)


def test_each_limit_of_the_worst_group_is_the_lowest_of_all_groups():
    """The lowest rate has neither the lowest lower limit (a group of 2 rows has) nor the lowest upper one."""
    x, n = [1, 45, 480], [2, 100, 1000]
    got = worst_group_interval(x, n)
    assert (got.value, got.group) == (0.45, 1)
    assert got.low == pytest.approx(float(stats.beta.ppf(0.025, 1, 2)))
    assert got.high == pytest.approx(float(stats.beta.ppf(1 - 0.025 / 3, 481, 520)))


def test_fairlearn_has_the_same_values():
    rng = np.random.default_rng(0)
    label, predicted, attribute = rng.integers(0, 2, 300), rng.integers(0, 2, 300), rng.integers(0, 4, 300)

    def counts(rows, event):
        return [
            [np.sum(event & rows & (attribute == a)) for a in range(4)],
            [np.sum(rows & (attribute == a)) for a in range(4)],
        ]

    everything = np.ones(300, bool)
    x, n = counts(everything, predicted == 1)
    expected = metrics.demographic_parity_difference(label, predicted, sensitive_features=attribute)
    assert largest_difference_interval([x], [n]).value == pytest.approx(expected, abs=1e-12)
    families = [counts(label == y, predicted == 1) for y in (0, 1)]
    expected = metrics.equalized_odds_difference(label, predicted, sensitive_features=attribute)
    got = largest_difference_interval(*zip(*families, strict=True))
    assert got.value == pytest.approx(expected, abs=1e-12)
    expected = metrics.equal_opportunity_difference(label, predicted, sensitive_features=attribute)
    assert largest_difference_interval(*families[1]).value == pytest.approx(expected, abs=1e-12)
    x, n = counts(everything, predicted == label)
    frame = metrics.MetricFrame(
        metrics=lambda y, p: np.mean(y == p), y_true=label, y_pred=predicted, sensitive_features=attribute
    )
    assert worst_group_interval(x, n).value == pytest.approx(frame.group_min(), abs=1e-12)
    assert largest_difference_interval(x, n).value == pytest.approx(frame.difference(), abs=1e-12)


def test_indistinguishable():
    """Groups whose difference from the worst may be 0: here all but the one at 90 of 100."""
    assert worst_group_interval([50, 52, 90, 1], [100, 100, 100, 2]).indistinguishable == 2
    assert worst_group_interval([50, 52, 90, 0], [100, 100, 100, 0]).indistinguishable == 1
    assert worst_group_interval([5], [10]).indistinguishable == 0
    apart = worst_group_interval([10, 500, 900], [1000, 1000, 1000])
    assert (apart.group, apart.indistinguishable) == (0, 0)


def test_groups_without_rows():
    padded, alone = (
        largest_difference_interval([[80, 0, 243]], [[90, 0, 400]]),
        largest_difference_interval([[80, 243]], [[90, 400]]),
    )
    assert padded[:4] == pytest.approx(alone[:4])
    assert (padded.highest, padded.lowest) == (0, 2)
    more = largest_difference_interval([[80, 243], [3, 0], [0, 0]], [[90, 400], [3, 0], [0, 0]])
    assert more[:4] == pytest.approx(alone[:4])  # a family of one group is none
    nothing = largest_difference_interval([[3, 0]], [[4, 0]])
    assert np.isnan(nothing[:3]).all()
    assert nothing[3:] == (0, -1, -1, -1)
    worst = worst_group_interval([0, 0], [0, 0])
    assert np.isnan(worst[:3]).all()
    assert worst.group == -1
    assert worst_group_interval([0, 4], [0, 5])[:4] == pytest.approx(worst_group_interval([4], [5])[:4])


def test_leading_axes():
    rng = np.random.default_rng(1)
    n = rng.integers(1, 60, (2, 3, 2, 4))
    x = rng.binomial(n, 0.8)
    got, worst = largest_difference_interval(x, n), worst_group_interval(x, n)
    assert got.low.shape == got.family.shape == (2, 3)
    assert worst.low.shape == worst.group.shape == (2, 3, 2)
    for i, j in np.ndindex(2, 3):
        assert [value[i, j] for value in got] == pytest.approx(list(largest_difference_interval(x[i, j], n[i, j])))
        assert [value[i, j, 1] for value in worst] == pytest.approx(list(worst_group_interval(x[i, j, 1], n[i, j, 1])))
    assert largest_difference_interval([4, 9], [20, 20]) == largest_difference_interval([[4, 9]], [[20, 20]])


@pytest.mark.parametrize(("groups", "tail"), [(2, 0.05), (3, 0.0253), (10, 0.01), (20, 0.2), (5, 1e-5)])
def test_studentised_range(groups, tail):
    assert studentised_range_point(groups, tail) == pytest.approx(
        stats.studentized_range.ppf(1 - tail, groups, np.inf), rel=1e-9
    )
    assert studentised_range_point(2, tail) / np.sqrt(2) == pytest.approx(stats.norm.isf(tail / 2), rel=1e-9)


def test_refusals():
    with pytest.raises(ContractError, match=r"`x`: expected values in 0\.\.n"):
        largest_difference_interval([[3, 4]], [[2, 5]])
    with pytest.raises(ContractError, match="`groups`: expected at least 2"):
        studentised_range_point(1, 0.05)
