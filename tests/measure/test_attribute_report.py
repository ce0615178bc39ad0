"""Reports of many outputs against scikit-learn, hand cases and simulation."""

import jax
import numpy as np
import pytest
from sklearn import metrics

from jaxdebias.contracts import ContractError
from jaxdebias.measure import attribute_report, average_precision, prediction_correlation

KEY = jax.random.key(0)


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_average_precision_is_scikit_learns_with_and_without_ties(digits):
    rng = np.random.default_rng(digits)
    label = rng.integers(0, 2, 200)
    scores = (rng.normal(size=200) + label).round(digits)
    found = average_precision(scores, label)
    assert found.value == pytest.approx(metrics.average_precision_score(label, scores), abs=1e-9)
    assert found.n == label.sum()
    assert found.low < found.value < found.high


def test_normalised_precision_by_hand():
    """Scores 3 2 1 0, labels 1 0 1 0, as if a tenth of four rows were positive: at recall 1/2 and 1, .2 and .4 of .4
    positives, after 0 and 1 false ones: precision 1 and .4 / 1.4."""
    found = average_precision(np.array([3.0, 2, 1, 0]), np.array([1, 0, 1, 0]), rate=0.1)
    assert found.value == pytest.approx((1 + 0.4 / 1.4) / 2)
    same = average_precision(np.array([3.0, 2, 1, 0]), np.array([1, 0, 1, 0]), rate=0.5)
    assert same.value == average_precision(np.array([3.0, 2, 1, 0]), np.array([1, 0, 1, 0])).value


def test_without_positives_and_where_all_are_first():
    assert np.isnan(average_precision(np.arange(3.0), np.zeros(3, int)).value)
    found = average_precision(np.arange(20.0), (np.arange(20) >= 10).astype(int))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 10))


@pytest.mark.parametrize(("share", "shift"), [(0.1, 1.0), (0.3, 2.0), (0.5, 0.5)])
def test_limits_of_average_precision_cover(share, shift):
    rng = np.random.default_rng(1)

    def drawn(n):
        label = (rng.random(n) < share).astype(int)
        return rng.normal(size=n) + shift * label, label

    truth = average_precision(*drawn(400_000)).value
    inside = [found.low <= truth <= found.high for found in (average_precision(*drawn(400)) for _ in range(300))]
    assert np.mean(inside) >= 0.92


def test_correlation_is_scikit_learns_and_covers():
    rng = np.random.default_rng(2)
    a = rng.random((400, 300)) < 0.3
    b = np.where(rng.random(a.shape) < 0.25, rng.random(a.shape) < 0.3, a)
    found = [prediction_correlation(x.astype(int), y.astype(int)) for x, y in zip(a, b, strict=True)]
    for i in range(5):
        assert found[i].value == pytest.approx(metrics.matthews_corrcoef(a[i], b[i]), abs=1e-9)
    truth = 0.75  # the share of rows that are copied
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.92


def test_correlation_of_units_that_repeat_their_rows_is_that_of_the_units():
    one, other = np.tile([0, 0, 1, 1], 10), np.tile([0, 0, 1, 0], 10)
    units = prediction_correlation(np.repeat(one, 5), np.repeat(other, 5), unit=np.repeat(np.arange(40), 5))
    rows = prediction_correlation(one, other)
    assert (units.n, rows.n) == (40, 40)
    np.testing.assert_allclose(units, rows, rtol=1e-9)


def test_columns_that_agree_everywhere_leave_room_for_those_that_were_not_seen():
    found = prediction_correlation(np.tile([0, 1], 50), np.tile([0, 1], 50))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(1 - 2 * (1 - 0.025 ** (1 / 100)))
    opposite = prediction_correlation(np.tile([0, 1], 50), np.tile([1, 0], 50))
    assert (opposite.value, opposite.low) == (-1.0, -1.0)
    assert opposite.high == -found.low
    assert np.isnan(prediction_correlation(np.zeros(4, int), np.array([0, 1, 0, 1])).value)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, (500, 3)).astype(np.int32)
    attribute = np.where(rng.random(500) < 0.9, label[:, 0], 1 - label[:, 0]).astype(np.int32)
    return rng.normal(size=(500, 3)) + 2 * label - 1, label, attribute


def test_every_output_is_reported_by_itself(rows):
    logits, label, attribute = rows
    report = attribute_report(KEY, logits, label, attribute)
    said = (logits > 0).astype(int)
    for t in range(3):
        assert report.accuracy.value[t] == metrics.accuracy_score(label[:, t], said[:, t])
        precision = metrics.average_precision_score(label[:, t], logits[:, t])
        assert report.average_precision.value[t] == pytest.approx(precision, abs=1e-9)
        assert report.correlation.value[t] == pytest.approx(metrics.matthews_corrcoef(said[:, t], attribute))
        cells = {(y, a): (said[:, t] == y)[(label[:, t] == y) & (attribute == a)] for y in (0, 1) for a in (0, 1)}
        worst = min(cells, key=lambda cell: cells[cell].mean())
        assert report.worst_group_accuracy.value[t] == pytest.approx(cells[worst].mean())
        assert report.worst_group_accuracy.group[t] == 2 * worst[0] + worst[1]
        assert report.calibration_error[t] > report.calibration_chance[t] > 0
    assert report.positives.tolist() == label.sum(0).tolist()


def test_a_group_under_one_percent_is_not_the_worst(rows):
    logits, label, attribute = (np.copy(one) for one in rows)
    attribute[:] = 0
    attribute[np.flatnonzero(label[:, 1] == 1)[:4]] = 1  # 4 of 500 rows
    logits[attribute == 1, 1] = -1.0  # all wrong
    report = attribute_report(KEY, logits, label, attribute)
    assert report.worst_group_accuracy.value[1] > 0
    attribute[np.flatnonzero(label[:, 1] == 1)[4:6]] = 1
    logits[attribute == 1, 1] = -1.0
    assert attribute_report(KEY, logits, label, attribute).worst_group_accuracy.value[1] == 0


def test_unknown_labels_and_padding_change_nothing_else(rows):
    logits, label, attribute = (np.copy(one) for one in rows)
    label[:100, 0] = -1
    found = attribute_report(KEY, logits, label, attribute)
    weight = np.ones(520)
    weight[500:] = 0
    more = [np.concatenate([one, one[:20]]) for one in (logits, label, attribute)]
    padded = attribute_report(KEY, *more, weight=weight)
    jax.tree.map(np.testing.assert_array_equal, found, padded)
    assert found.n.tolist() == [400, 500, 500]
    alone = attribute_report(KEY, logits[100:], label[100:], attribute[100:])
    assert found.accuracy.value[0] == alone.accuracy.value[0]
    assert found.average_precision.value[0] == alone.average_precision.value[0]


def test_what_is_refused(rows):
    logits, label, attribute = rows
    for bad in (label.astype(float), label[:, :2], label + 1):
        with pytest.raises(ContractError, match="`label`: expected 0, 1 or -1"):
            attribute_report(KEY, logits, bad, attribute)
    with pytest.raises(ContractError, match="known label for every output, got none for 1 of 3"):
        attribute_report(KEY, logits, np.where(np.arange(3) == 1, -1, label).astype(np.int32), attribute)
    with pytest.raises(ContractError, match="weight"):
        attribute_report(KEY, logits, label, attribute, weight=np.full(500, 0.5))
    with pytest.raises(ContractError, match="rate"):
        average_precision(logits[:, 0], label[:, 0], rate=1.5)
