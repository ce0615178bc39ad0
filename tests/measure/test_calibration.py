import numpy as np
import pytest
from scipy import stats

from jaxdebias.contracts import ContractError
from jaxdebias.measure import calibration_error, calibration_gap


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_gap_is_a_t_interval(rng):
    q = rng.random(150)
    event = rng.random(150) < 0.5 * q + 0.4
    difference = event - q
    got = calibration_gap(event, q, level=0.9)
    error = max(stats.sem(difference), np.sqrt((q * (1 - q)).sum()) / 150)
    assert error == stats.sem(difference)
    assert (got.low, got.high) == pytest.approx(stats.t.interval(0.9, 149, difference.mean(), error))
    assert got.value > 0  # the probabilities are too low
    assert got.n == 150


def test_gap_allows_for_events_that_were_not_seen():
    """No event in 200 rows at 1 %: no spread beside that of the probabilities."""
    got = calibration_gap(np.zeros(200), np.full(200, 0.01))
    half = stats.t.ppf(0.975, 199) * np.sqrt(200 * 0.01 * 0.99) / 200
    assert (got.value, got.low, got.high) == pytest.approx((-0.01, -0.01 - half, -0.01 + half))


@pytest.mark.parametrize(("rows", "known"), [(99, False), (100, True)])
def test_gap_from_100_rows_on(rows, known, rng):
    got = calibration_gap(rng.random(rows) < 0.5, np.full(rows, 0.5))
    assert np.isfinite([got.low, got.high]).all() == known
    assert np.isfinite(got.value)


def test_gap_counts_units(rng):
    q, event = np.repeat(rng.choice([0.1, 0.9], 120), 5), np.repeat(rng.integers(0, 2, 120), 5)
    got = calibration_gap(event, q, unit=np.repeat(np.arange(120), 5))
    assert got[:3] == pytest.approx(calibration_gap(event[::5], q[::5])[:3])
    assert got.n == 120
    assert np.isnan(calibration_gap(event[:450], q[:450], unit=np.repeat(np.arange(90), 5)).low)


def test_gap_of_classes_and_padding(rng):
    q = rng.dirichlet(np.ones(3), 200).T
    label = rng.integers(0, 3, 200)
    event = label == np.arange(3)[:, None]
    got = calibration_gap(event, q)
    assert got.value == pytest.approx([np.mean(label == c) - q[c].mean() for c in range(3)])
    weight = np.append(np.ones(200), np.zeros(5))
    padded = calibration_gap(np.append(event[0], np.ones(5)), np.append(q[0], np.zeros(5)), weight=weight)
    assert padded[:3] == pytest.approx([got.value[0], got.low[0], got.high[0]])


def slow_error(event, q, weight):
    total = 0.0
    for b in range(10):
        inside = [i for i in range(len(q)) if b / 10 <= q[i] < (b + 1) / 10 or (b == 9 and q[i] == 1)]
        total += abs(sum(weight[i] * (event[i] - q[i]) for i in inside))
    return total / sum(weight)


def test_error_is_that_of_the_bins(key, rng):
    q = np.append(rng.random(60), [0.0, 1.0])
    event, weight = rng.random(62) < q, rng.integers(0, 3, 62).astype(float)
    got = calibration_error(event, q, key=key)
    assert got.value == pytest.approx(slow_error(event, q, np.ones(62)))
    assert got.n == 62
    assert calibration_error(event, q, weight=weight, key=key).value == pytest.approx(slow_error(event, q, weight))


def test_a_perfect_model_has_an_error_and_no_finding(key, rng):
    q = rng.random((40, 30))
    events = rng.random(q.shape) < q
    found = [calibration_error(e, row, key=key, draws=500) for e, row in zip(events, q, strict=True)]
    assert 0.05 < np.mean([one.value for one in found]) < 0.2
    assert np.mean([one.value for one in found]) == pytest.approx(np.mean([one.chance for one in found]), abs=0.02)
    p = np.sort([one.p for one in found])
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_a_wrong_model_is_found(key, rng):
    q = rng.random(300)
    got = calibration_error(rng.random(300) < q**3, q, key=key)
    assert got.p == pytest.approx(1 / 2001)
    assert got.value > 2 * got.chance


def test_units_are_redrawn_together(key):
    """Twelve copies of 10 rows: as many labels as 10 rows have."""
    q, event = np.linspace(0.2, 0.8, 10), np.tile([0, 1], 5)
    copied = calibration_error(np.repeat(event, 12), np.repeat(q, 12), unit=np.repeat(np.arange(10), 12), key=key)
    alone = calibration_error(event, q, key=key)
    assert copied.p == pytest.approx(alone.p, abs=0.05)
    assert copied.chance == pytest.approx(alone.chance, abs=0.02)
    assert calibration_error(np.repeat(event, 12), np.repeat(q, 12), key=key).p < 0.01


def test_refusals(key):
    with pytest.raises(ContractError, match="`probability`: expected numbers in"):
        calibration_gap([0, 1], [0.2, 1.2])
    with pytest.raises(ContractError, match="`event`: expected 0 or 1"):
        calibration_gap([0, 2], [0.2, 0.2])
    with pytest.raises(ContractError, match="`probability`: expected the shape of event"):
        calibration_error([0, 1], [0.2, 0.2, 0.1], key=key)


def test_the_implied_variance_is_that_of_a_weighted_mean():
    """No event at all: the spread is that of the probabilities, sqrt(sum v^2 q (1 - q)) / sum v."""
    weight = np.tile([1.0, 9.0], 100)
    gap = calibration_gap(np.zeros(200), np.full(200, 0.02), weight=weight)
    effective = weight.sum() ** 2 / (weight**2).sum()
    error = np.sqrt((weight**2).sum() * 0.02 * 0.98) / weight.sum()
    assert gap.high - gap.value == pytest.approx(stats.t.ppf(0.975, effective - 1) * error, rel=1e-6)
