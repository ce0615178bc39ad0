import functools
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import metrics as oracle
from oracles import rates
from scipy import stats

from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch
from jaxdebias.measure import AccuracyChanges, accuracy_differences, group_confusion, group_report

K, A, N = 3, 2, 400
ALIGNED = np.array([[True, False], [False, True], [True, False]])
TRAIN_COUNTS = np.array([[90, 5], [3, 60], [80, 9]])


def data(seed=0, n=N, unknown=True):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, K, n).astype(np.int32)
    attribute = rng.integers(-1 if unknown else 0, A, n).astype(np.int32)
    predicted = np.where(rng.random(n) < 0.7, label, rng.integers(0, K, n)).astype(np.int32)
    return predicted, Batch(np.zeros((n, 1), np.float32), label, attribute)


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_confusion_matches_loop(as_array):
    predicted, batch = data()
    got = group_confusion(
        as_array(predicted), as_array(batch.label), as_array(batch.attribute), classes=K, attributes=A
    )
    expected = oracle.confusion(predicted, batch.label, batch.attribute, K, A)
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == jnp.int32
    assert expected.sum() < N  # rows of unknown attribute are left out


def test_confusion_traces_once():
    predicted, batch = data()
    group_confusion(predicted, batch.label, batch.attribute, classes=K, attributes=A)
    before = group_confusion._cache_size() if hasattr(group_confusion, "_cache_size") else None
    predicted, batch = data(1)
    group_confusion(predicted, batch.label, batch.attribute, classes=K, attributes=A)
    assert before is None or group_confusion._cache_size() == before


def test_report_matches_loop():
    predicted, batch = data()
    report = group_report(predicted, batch, ALIGNED, train_counts=TRAIN_COUNTS)
    expected = oracle.accuracies(predicted, batch.label, batch.attribute, ALIGNED, TRAIN_COUNTS)
    expected = np.append(expected, expected[4] - expected[5])
    got = [getattr(report, name) for name in AccuracyChanges._fields]
    np.testing.assert_allclose([interval.value for interval in got], expected, atol=1e-6)
    assert all(interval.low < interval.value < interval.high for interval in got)
    confusion = oracle.confusion(predicted, batch.label, batch.attribute, K, A)
    np.testing.assert_array_equal(report.confusion, confusion)
    np.testing.assert_array_equal(report.count, confusion.sum(axis=2))
    np.testing.assert_array_equal(report.correct, [[confusion[y, s, y] for s in range(A)] for y in range(K)])
    np.testing.assert_allclose(report.groups.value, report.correct / report.count)
    for cell in np.ndindex(K, A):
        exact = rates.exact(report.correct[cell], report.count[cell])
        assert (report.groups.low[cell], report.groups.high[cell]) == pytest.approx(exact)
    assert report.accuracy[1:3] == pytest.approx(rates.exact(int((predicted == batch.label).sum()), N))
    x, n, along = report.correct.ravel(), report.count.ravel(), ALIGNED.ravel()
    weights = {
        "group_mean_accuracy": np.full(K * A, 1 / (K * A)),
        "reweighted_accuracy": TRAIN_COUNTS.ravel() / TRAIN_COUNTS.sum(),
        "bias_aligned_accuracy": n * along / (n * along).sum(),
        "bias_conflicting_accuracy": n * ~along / (n * ~along).sum(),
        "alignment_gap": n * along / (n * along).sum() - n * ~along / (n * ~along).sum(),
    }
    for name, w in weights.items():
        assert getattr(report, name)[1:3] == pytest.approx(rates.weighted(x, n, w), abs=1e-8), name
    assert report.worst_group_accuracy[1:3] == pytest.approx(rates.worst_group(x, n))
    assert 0 < report.indistinguishable < K * A
    np.testing.assert_array_equal(report.groups.n, report.count)
    assert report.groups.value[report.worst_group] == report.groups.value.min() == report.worst_group_accuracy.value
    assert report.worst_group_accuracy.n == report.count[report.worst_group]
    assert report.accuracy.n == N
    assert report.group_mean_accuracy.n == (batch.attribute >= 0).sum()
    assert all(type(x) in (float, int) for interval in got for x in interval)


def test_logits_and_predictions_agree():
    predicted, batch = data()
    logits = np.eye(K, dtype=np.float32)[predicted]
    of_logits = group_report(jnp.asarray(logits), batch, ALIGNED)
    of_classes = group_report(predicted, batch, ALIGNED)
    jax.tree.map(np.testing.assert_array_equal, of_logits, of_classes)


def test_unknown_attributes_count_in_plain_accuracy_only():
    label, attribute = np.array([0, 0, 1, 1], np.int32), np.array([0, -1, -1, -1], np.int32)
    batch = Batch(np.zeros((4, 1), np.float32), label, attribute)
    report = group_report(np.array([0, 1, 0, 1]), batch, np.eye(2, dtype=bool))
    assert report.accuracy.value == 0.5
    assert report.accuracy.n == 4
    assert report.count.tolist() == [[1, 0], [0, 0]]
    assert report.group_mean_accuracy.value == report.bias_aligned_accuracy.value == 1
    assert report.worst_group == (0, 0)


def test_nothing_known_is_nan_not_zero():
    batch = Batch(np.zeros((4, 1), np.float32), np.array([0, 0, 1, 1], np.int32), np.full(4, -1, np.int32))
    report = group_report(np.array([0, 1, 0, 1]), batch, np.eye(2, dtype=bool))
    assert report.accuracy.value == 0.5
    for name in AccuracyChanges._fields[1:]:
        interval = getattr(report, name)
        assert np.isnan(interval[:3]).all(), name
        assert interval.n == 0, name
    assert report.worst_group == (-1, -1)
    assert not report.worst_group_is_small
    assert np.isnan(report.groups.value).all()
    assert not report.small.any()


def test_empty_groups():
    """k = a = 2 with one group missing: it is NaN with n = 0, and no average sees it."""
    label, attribute = np.repeat([0, 0, 1], 10).astype(np.int32), np.repeat([0, 1, 1], 10).astype(np.int32)
    predicted = np.where(np.arange(30) < 25, label, 1 - label)
    batch = Batch(np.zeros((30, 1), np.float32), label, attribute)
    report = group_report(predicted, batch, np.eye(2, dtype=bool), train_counts=np.array([[1, 2], [50, 3]]))
    assert np.isnan(report.groups.value[1, 0])
    assert report.groups.n[1, 0] == 0
    assert report.worst_group == (1, 1)
    assert report.worst_group_accuracy.value == 0.5
    assert report.group_mean_accuracy.value == pytest.approx((1 + 1 + 0.5) / 3, abs=1e-6)
    assert report.reweighted_accuracy.value == pytest.approx((1 + 2 + 0.5 * 3) / 6, abs=1e-6)
    assert report.bias_conflicting_accuracy.value == 1


def test_reweighted_without_training_counts_is_nan():
    predicted, batch = data()
    report = group_report(predicted, batch, ALIGNED)
    assert np.isnan(report.reweighted_accuracy.value)
    assert report.reweighted_accuracy.n == 0


def test_small_groups_are_flagged_by_units():
    label = np.repeat([0, 1], [40, 290]).astype(np.int32)
    batch = Batch(np.zeros((330, 1), np.float32), label, np.zeros(330, np.int32))
    report = group_report(label, batch, np.ones((2, 1), bool))
    assert not report.small.any()
    ten_rows_a_unit = batch._replace(unit=np.repeat([0, 1], [40, 290]) * 100 + np.arange(330) // 10)
    report = group_report(label, ten_rows_a_unit, np.ones((2, 1), bool))
    assert report.groups.n.tolist() == [[4], [29]]
    assert report.small.all()
    assert report.worst_group_is_small
    assert report.count.tolist() == [[40], [290]]


def test_worst_group_of_which_no_row_is_right_has_an_interval():
    label = np.repeat([0, 1], [12, 318]).astype(np.int32)
    batch = Batch(np.zeros((330, 1), np.float32), label, np.zeros(330, np.int32))
    report = group_report(np.ones(330, np.int32), batch, np.ones((2, 1), bool))
    assert report.worst_group_accuracy.value == report.worst_group_accuracy.low == 0
    assert report.worst_group_accuracy.high == pytest.approx(rates.exact(0, 12, alpha=0.025)[1])


def test_worst_of_many_equal_groups_reaches_up_to_their_rate():
    """30 groups of one true rate: the worst is so by chance, and its interval has to reach the truth."""
    rng = np.random.default_rng(5)
    missed = 0
    for _ in range(20):
        label = np.repeat(np.arange(30), 50).astype(np.int32)
        predicted = np.where(rng.random(1500) < 0.8, label, (label + 1) % 30)
        batch = Batch(np.zeros((1500, 1), np.float32), label, np.zeros(1500, np.int32))
        report = group_report(predicted, batch, np.ones((30, 1), bool))
        missed += not report.worst_group_accuracy.low <= 0.8 <= report.worst_group_accuracy.high
    assert missed <= 4  # 1 in 20 expected; the percentiles alone miss 12 in 20


def test_units_widen_every_interval():
    """Every number has the design effect of its own weights, by loops over units."""
    predicted, batch = data(unknown=False)
    unit = np.random.default_rng(6).integers(0, 30, N)
    predicted = np.where(unit < 6, batch.label, predicted)  # some units are right throughout
    report = group_report(predicted, batch._replace(unit=unit), ALIGNED)
    hit, group = (predicted == batch.label).astype(int), batch.label * A + batch.attribute

    def clustered(group, w, limits):
        x, n = (np.array([np.sum(some[group == g]) for g in range(len(w))]) for some in (hit, np.ones(N)))
        deff, t = rates.design_effect(hit.tolist(), group.tolist(), unit.tolist(), list(w))
        return limits(x / (deff * t * t), n / (deff * t * t), list(w))

    assert report.accuracy[1:3] == pytest.approx(
        exact_fractional(*clustered(0 * group, [1.0], lambda x, n, w: (x[0], n[0])))
    )
    w = np.full(K * A, 1 / (K * A))
    assert report.group_mean_accuracy[1:3] == pytest.approx(clustered(group, w, rates.weighted), abs=1e-8)
    w = np.bincount(group, ALIGNED.ravel()[group])
    assert report.bias_aligned_accuracy[1:3] == pytest.approx(clustered(group, w / w.sum(), rates.weighted), abs=1e-8)
    assert report.accuracy.n == report.group_mean_accuracy.n == 30
    assert report.groups.n[0, 0] == len(np.unique(unit[group == 0]))


def exact_fractional(x, n):
    return stats.beta.ppf(0.025, x, n - x + 1), stats.beta.ppf(0.975, x + 1, n - x)


@pytest.mark.alone
def test_a_million_rows_take_under_a_second():
    rng = np.random.default_rng(0)
    n = 1_000_000
    label, attribute = rng.integers(0, 2, n).astype(np.int32), rng.integers(0, 2, n).astype(np.int32)
    batch, predicted = Batch(np.zeros((n, 1), np.int8), label, attribute), rng.integers(0, 2, n).astype(np.int32)
    group_report(predicted, batch, np.eye(2, dtype=bool))
    began = time.perf_counter()
    group_report(predicted, batch, np.eye(2, dtype=bool))
    assert time.perf_counter() - began < 1.0


def test_padding_rows_do_not_count():
    predicted, batch = data()
    padded = jax.tree.map(lambda x: np.concatenate([x, x[:7]]), batch)
    padded = padded._replace(weight=np.r_[np.ones(N), np.zeros(7)].astype(np.float32))
    with_padding = group_report(np.r_[predicted, (predicted[:7] + 1) % K], padded, ALIGNED)
    without = group_report(predicted, batch, ALIGNED)
    jax.tree.map(np.testing.assert_array_equal, with_padding, without)


def test_differences_are_paired(key):
    predicted, batch = data(unknown=False)
    worse = np.where(np.arange(N) % 10 == 0, (batch.label + 1) % K, predicted)
    got = accuracy_differences(key, worse, predicted, batch, ALIGNED, train_counts=TRAIN_COUNTS)
    expected = oracle.accuracies(predicted, batch.label, batch.attribute, ALIGNED, TRAIN_COUNTS) - oracle.accuracies(
        worse, batch.label, batch.attribute, ALIGNED, TRAIN_COUNTS
    )
    expected = np.append(expected, expected[4] - expected[5])
    np.testing.assert_allclose([change.value for change in got], expected, atol=1e-6)
    assert got.accuracy.separable
    right, was = predicted == batch.label, worse == batch.label
    gains, losses = int(np.sum(right & ~was)), int(np.sum(was & ~right))
    assert got.accuracy[1:3] == pytest.approx(rates.paired([gains], [losses], [N], [1.0]), abs=1e-8)
    assert (got.accuracy.discordant, got.accuracy.n) == (gains + losses, N)
    group = batch.label * A + batch.attribute
    counted = [[int(np.sum(some[group == g])) for g in range(K * A)] for some in (right & ~was, was & ~right)]
    size = np.bincount(group, minlength=K * A)
    limits = rates.paired(*counted, size, [1 / (K * A)] * (K * A))
    assert got.group_mean_accuracy[1:3] == pytest.approx(limits, abs=1e-8)
    assert all(type(field) in (float, int, bool) for change in got for field in change)
    same = accuracy_differences(key, predicted, predicted, batch, ALIGNED)
    assert same.accuracy.value == same.worst_group_accuracy.value == 0
    assert same.accuracy.low < 0 < same.accuracy.high
    assert not any(change.separable for change in same)
    assert np.isnan(same.reweighted_accuracy.value)


@pytest.mark.parametrize("n", [60, 1000, 10_000])
def test_one_changed_row_is_not_separable(key, n):
    label = np.arange(n, dtype=np.int32) % 2
    batch = Batch(np.zeros((n, 1), np.float32), label, (np.arange(n, dtype=np.int32) // 2) % 2)
    before = label.copy()
    before[0] = 1 - label[0]
    got = accuracy_differences(key, before, label, batch, np.eye(2, dtype=bool), train_counts=np.ones((2, 2), int))
    assert got.accuracy.value == pytest.approx(1 / n)
    assert not any(change.separable for change in got)
    assert all(change.low < 0 for change in got)


def test_changes_without_a_known_attribute(key):
    batch = Batch(np.zeros((60, 1), np.float32), np.zeros(60, np.int32), np.full(60, -1, np.int32))
    got = accuracy_differences(key, np.ones(60, np.int32), np.zeros(60, np.int32), batch, np.eye(2, dtype=bool))
    assert got.accuracy.separable
    assert got.accuracy.value == 1
    for name in AccuracyChanges._fields[1:]:
        assert np.isnan(getattr(got, name).value)
        assert not getattr(got, name).separable


def test_values_out_of_range_never_count(key, unchecked):
    label, attribute, predicted = np.array([0, 1, 0]), np.array([0, 1, -1]), np.array([0, 1, 1])
    counts = group_confusion(predicted, label, attribute, classes=2, attributes=2)
    assert np.asarray(counts).tolist() == [[[1, 0], [0, 0]], [[0, 0], [0, 1]]]
    with pytest.raises(ContractError, match=r"`predicted`: expected values in 0\.\.0, got 0\.\.1"):
        group_confusion(predicted, 0 * label, attribute, classes=1, attributes=2)
    with pytest.raises(ContractError, match=r"`label`: expected values in 0\.\.1, got 0\.\.2"):
        group_confusion(predicted, 2 * label, attribute, classes=2, attributes=2)
    with pytest.raises(ContractError, match=r"`attribute`: expected values in -1\.\.0, got -1\.\.1"):
        group_confusion(predicted, label, attribute, classes=2, attributes=1)
    traced = jax.jit(functools.partial(group_confusion, classes=1, attributes=2))(predicted, label, attribute)
    assert np.asarray(traced).tolist() == [[[1], [0]]]  # the second row has a label and a prediction out of range
    tiny = jax.jit(functools.partial(group_confusion, classes=20, attributes=20))(*np.full((3, 5), 19, np.int8))
    assert np.asarray(tiny)[19, 19, 19] == 5  # the number of the cell does not fit int8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": np.zeros(3, np.int32)}, "`predicted`: expected int [n=4], got int32 [3]"),
        ({"predicted": np.full(4, 2)}, "`predicted`: expected values in 0..1, got 2..2"),
        (
            {"predicted": np.zeros(4)},
            "or logits, float [n=4, k=2], got float64 [4] (a single logit z is",
        ),
        ({"predicted": np.zeros((4, 3))}, "`predicted`: expected float [n=4, k=2], got float64 [4, 3]"),
        ({"predicted": np.full((4, 2), np.nan)}, "`predicted`: expected finite values, got 8 of 8 not finite"),
        ({"label": np.array([0, 1, 2, 0])}, "`label`: expected values in 0..1, got 0..2"),
        ({"attribute": np.array([0, 1, 5, 0])}, "`attribute`: expected values in -1..1, got 0..5"),
        ({"weight": np.array([1, 1, 0.5, 1])}, "`weight`: expected 0 (padding) or 1 in a test set, got float64 [4]"),
        ({"weight": np.ones(3)}, "`weight`: expected float [n=4], got float64 [3]"),
        ({"weight": np.zeros(4)}, "`batch`: expected at least one row, got 0 of 4 with weight"),
        ({"train_counts": np.ones((2, 3), int)}, "`train_counts`: expected int [k=2, a=2], got int64 [2, 3]"),
        ({"train_counts": np.zeros((2, 2), int)}, "`train_counts`: expected counts, not all 0, got int64 [2, 2]"),
    ],
)
def test_refuses(key, unchecked, change, message):
    batch = Batch(np.zeros((4, 1)), np.array([0, 1, 0, 1]), np.array([0, 1, 1, 0]))
    batch = batch._replace(**{name: value for name, value in change.items() if name in Batch._fields})
    with pytest.raises(ContractError, match=re.escape(message)):
        group_report(
            change.get("predicted", np.zeros(4, np.int32)),
            batch,
            np.eye(2, dtype=bool),
            train_counts=change.get("train_counts"),
        )


@pytest.mark.parametrize("seed", range(20))
def test_rounding_takes_no_average_out_of_its_range(seed):
    """Weights such as 1/60 + 39/60 + ... sum to a little more than 1; a record refuses such a rate."""
    rng = np.random.default_rng(seed)
    label, attribute = rng.integers(0, 3, (2, 90)).astype(np.int32)
    batch = Batch(np.zeros((90, 1), np.float32), label, attribute)
    report = group_report(label, batch, np.eye(3, dtype=bool), train_counts=rng.integers(1, 99, (3, 3)))
    for name in ("group_mean_accuracy", "reweighted_accuracy", "bias_aligned_accuracy", "bias_conflicting_accuracy"):
        rate = getattr(report, name)
        assert 0.0 <= rate.low <= rate.value <= rate.high <= 1.0
        assert rate.value == pytest.approx(1.0)
