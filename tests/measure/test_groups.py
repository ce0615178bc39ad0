import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import metrics as oracle

from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch
from jaxdebias.measure import Accuracies, accuracy_differences, excludes_zero, group_confusion, group_report, wilson
from jaxdebias.measure import _groups as groups

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


def test_confusion_traces_once(key):
    predicted, batch = data()
    group_confusion(predicted, batch.label, batch.attribute, classes=K, attributes=A)
    before = group_confusion._cache_size() if hasattr(group_confusion, "_cache_size") else None
    predicted, batch = data(1)
    group_confusion(predicted, batch.label, batch.attribute, classes=K, attributes=A)
    assert before is None or group_confusion._cache_size() == before


def test_report_matches_loop(key):
    predicted, batch = data()
    report = group_report(key, predicted, batch, ALIGNED, train_counts=TRAIN_COUNTS)
    expected = oracle.accuracies(predicted, batch.label, batch.attribute, ALIGNED, TRAIN_COUNTS)
    got = [getattr(report, name) for name in Accuracies._fields]
    np.testing.assert_allclose([interval.value for interval in got], expected, atol=1e-6)
    assert all(interval.low < interval.value < interval.high for interval in got)
    confusion = oracle.confusion(predicted, batch.label, batch.attribute, K, A)
    np.testing.assert_array_equal(report.confusion, confusion)
    np.testing.assert_array_equal(report.count, confusion.sum(axis=2))
    np.testing.assert_array_equal(report.correct, [[confusion[y, s, y] for s in range(A)] for y in range(K)])
    np.testing.assert_allclose(report.groups.value, report.correct / report.count)
    np.testing.assert_allclose(report.groups.low, wilson(report.correct, report.count).low)
    np.testing.assert_array_equal(report.groups.n, report.count)
    assert report.groups.value[report.worst_group] == report.groups.value.min() == report.worst_group_accuracy.value
    assert report.worst_group_accuracy.n == report.count[report.worst_group]
    assert report.accuracy.n == N
    assert report.group_mean_accuracy.n == (batch.attribute >= 0).sum()
    assert all(type(x) in (float, int) for interval in got for x in interval)


def test_resampled_averages_match_loop():
    """Each average under weights that differ from row to row, as in a resample."""
    predicted, batch = data(3)
    weight = np.random.default_rng(4).exponential(size=N)
    group = np.where(batch.attribute < 0, K * A, batch.label * A + batch.attribute)
    sums = np.zeros((K * A + 1, 2), np.float32)
    np.add.at(sums, group, np.stack([weight, weight * (predicted == batch.label)], axis=1))
    got = groups._averages(jnp.asarray(sums), ALIGNED, (TRAIN_COUNTS / TRAIN_COUNTS.sum()).astype(np.float32))
    expected = oracle.accuracies(predicted, batch.label, batch.attribute, ALIGNED, TRAIN_COUNTS, weight)
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_logits_and_predictions_agree(key):
    predicted, batch = data()
    logits = np.eye(K, dtype=np.float32)[predicted]
    of_logits = group_report(key, jnp.asarray(logits), batch, ALIGNED)
    of_classes = group_report(key, predicted, batch, ALIGNED)
    jax.tree.map(np.testing.assert_array_equal, of_logits, of_classes)


def test_unknown_attributes_count_in_plain_accuracy_only(key):
    label, attribute = np.array([0, 0, 1, 1], np.int32), np.array([0, -1, -1, -1], np.int32)
    batch = Batch(np.zeros((4, 1), np.float32), label, attribute)
    report = group_report(key, np.array([0, 1, 0, 1]), batch, np.eye(2, dtype=bool))
    assert report.accuracy.value == 0.5
    assert report.accuracy.n == 4
    assert report.count.tolist() == [[1, 0], [0, 0]]
    assert report.group_mean_accuracy.value == report.bias_aligned_accuracy.value == 1
    assert report.worst_group == (0, 0)


def test_nothing_known_is_nan_not_zero(key):
    batch = Batch(np.zeros((4, 1), np.float32), np.array([0, 0, 1, 1], np.int32), np.full(4, -1, np.int32))
    report = group_report(key, np.array([0, 1, 0, 1]), batch, np.eye(2, dtype=bool))
    assert report.accuracy.value == 0.5
    for name in Accuracies._fields[1:]:
        interval = getattr(report, name)
        assert np.isnan(interval[:3]).all(), name
        assert interval.n == 0, name
    assert report.worst_group == (-1, -1)
    assert not report.worst_group_is_small
    assert np.isnan(report.groups.value).all()
    assert not report.small.any()


def test_empty_groups(key):
    """k = a = 2 with one group missing: it is NaN with n = 0, and no average sees it."""
    label, attribute = np.repeat([0, 0, 1], 10).astype(np.int32), np.repeat([0, 1, 1], 10).astype(np.int32)
    predicted = np.where(np.arange(30) < 25, label, 1 - label)
    batch = Batch(np.zeros((30, 1), np.float32), label, attribute)
    report = group_report(key, predicted, batch, np.eye(2, dtype=bool), train_counts=np.array([[1, 2], [50, 3]]))
    assert np.isnan(report.groups.value[1, 0])
    assert report.groups.n[1, 0] == 0
    assert report.worst_group == (1, 1)
    assert report.worst_group_accuracy.value == 0.5
    assert report.group_mean_accuracy.value == pytest.approx((1 + 1 + 0.5) / 3, abs=1e-6)
    assert report.reweighted_accuracy.value == pytest.approx((1 + 2 + 0.5 * 3) / 6, abs=1e-6)
    assert report.bias_conflicting_accuracy.value == 1


def test_reweighted_without_training_counts_is_nan(key):
    predicted, batch = data()
    report = group_report(key, predicted, batch, ALIGNED)
    assert np.isnan(report.reweighted_accuracy.value)
    assert report.reweighted_accuracy.n == 0


def test_small_groups_are_flagged_by_units(key):
    label = np.repeat([0, 1], [40, 290]).astype(np.int32)
    batch = Batch(np.zeros((330, 1), np.float32), label, np.zeros(330, np.int32))
    report = group_report(key, label, batch, np.ones((2, 1), bool))
    assert not report.small.any()
    ten_rows_a_unit = batch._replace(unit=np.repeat([0, 1], [40, 290]) * 100 + np.arange(330) // 10)
    report = group_report(key, label, ten_rows_a_unit, np.ones((2, 1), bool))
    assert report.groups.n.tolist() == [[4], [29]]
    assert report.small.all()
    assert report.worst_group_is_small
    assert report.count.tolist() == [[40], [290]]


def test_worst_group_of_which_no_row_is_right_has_an_interval(key):
    label = np.repeat([0, 1], [12, 318]).astype(np.int32)
    batch = Batch(np.zeros((330, 1), np.float32), label, np.zeros(330, np.int32))
    report = group_report(key, np.ones(330, np.int32), batch, np.ones((2, 1), bool))
    assert report.worst_group_accuracy.value == report.worst_group_accuracy.low == 0
    assert report.worst_group_accuracy.high == pytest.approx(wilson(0, 12, level=0.975).high)


def test_worst_of_many_equal_groups_reaches_up_to_their_rate(key):
    """30 groups of one true rate: the worst is so by chance, and its interval has to reach the truth."""
    rng = np.random.default_rng(5)
    missed = 0
    for draw in range(20):
        label = np.repeat(np.arange(30), 50).astype(np.int32)
        predicted = np.where(rng.random(1500) < 0.8, label, (label + 1) % 30)
        batch = Batch(np.zeros((1500, 1), np.float32), label, np.zeros(1500, np.int32))
        report = group_report(jax.random.key(draw), predicted, batch, np.ones((30, 1), bool))
        missed += not report.worst_group_accuracy.low <= 0.8 <= report.worst_group_accuracy.high
    assert missed <= 4  # 1 in 20 expected; the percentiles alone miss 12 in 20


def test_units_widen_every_interval(key):
    """Ten copies of each row, known to be copies, give the intervals of the rows."""
    predicted, batch = data(unknown=False)
    tenfold = jax.tree.map(lambda x: np.repeat(x, 10, axis=0), batch)
    tied = group_report(key, np.repeat(predicted, 10), tenfold._replace(unit=np.repeat(np.arange(N), 10)), ALIGNED)
    once = group_report(key, predicted, batch, ALIGNED)
    for name in (
        "accuracy",
        "group_mean_accuracy",
        "worst_group_accuracy",
        "bias_aligned_accuracy",
        "bias_conflicting_accuracy",
    ):
        width = {
            tag: getattr(report, name).high - getattr(report, name).low
            for tag, report in (("tied", tied), ("once", once))
        }
        assert width["tied"] == pytest.approx(width["once"], rel=0.1), name
        assert getattr(tied, name).n == getattr(once, name).n, name


def test_padding_rows_do_not_count(key):
    predicted, batch = data()
    padded = jax.tree.map(lambda x: np.concatenate([x, x[:7]]), batch)
    padded = padded._replace(weight=np.r_[np.ones(N), np.zeros(7)].astype(np.float32))
    with_padding = group_report(key, np.r_[predicted, (predicted[:7] + 1) % K], padded, ALIGNED)
    without = group_report(key, predicted, batch, ALIGNED)
    jax.tree.map(np.testing.assert_array_equal, with_padding, without)


def test_differences_are_paired(key):
    predicted, batch = data(unknown=False)
    worse = np.where(np.arange(N) % 10 == 0, (batch.label + 1) % K, predicted)
    got = accuracy_differences(key, worse, predicted, batch, ALIGNED, train_counts=TRAIN_COUNTS)
    expected = oracle.accuracies(predicted, batch.label, batch.attribute, ALIGNED, TRAIN_COUNTS) - oracle.accuracies(
        worse, batch.label, batch.attribute, ALIGNED, TRAIN_COUNTS
    )
    np.testing.assert_allclose([interval.value for interval in got], expected, atol=1e-6)
    assert excludes_zero(got.accuracy)
    single = group_report(key, predicted, batch, ALIGNED).accuracy
    assert got.accuracy.high - got.accuracy.low < 0.75 * (single.high - single.low)
    same = accuracy_differences(key, predicted, predicted, batch, ALIGNED)
    assert same.accuracy[:3] == same.worst_group_accuracy[:3] == (0, 0, 0)
    assert not excludes_zero(same.accuracy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": np.zeros(3, np.int32)}, "`predicted`: expected int [n=4], got int32 [3]"),
        ({"predicted": np.full(4, 2)}, "`predicted`: expected values in 0..1, got 2..2"),
        ({"predicted": np.zeros(4)}, "`predicted`: expected int [n=4], got float64 [4]"),
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
            key,
            change.get("predicted", np.zeros(4, np.int32)),
            batch,
            np.eye(2, dtype=bool),
            train_counts=change.get("train_counts"),
        )
