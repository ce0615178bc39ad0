import jax
import numpy as np
import pytest

from jaxdebias.measure import cmh_test, label_association
from jaxdebias.measure._lean import Rows
from jaxdebias.measure._reversed import (
    information_bins,
    predicted_strata,
    reversed_p,
    reversed_sides_p,
    two_class_strata,
)

W = label_association(np.array([[90, 10], [10, 90]]))
BOTH = np.array([True, True])


def bins_by_loop(score, bins, low, high):
    """Each distinct score lies where half of its own information is below it."""
    information = {q: (score == q).sum() * q * (1 - q) for q in set(score)}
    total, below, out = sum(information.values()), 0.0, {}
    for q in sorted(information):
        middle = min((below + information[q] / 2) / total, 1.0)
        below += information[q]
        inside = low <= middle <= high
        out[q] = min(bins - 1, int((middle - low) / (high - low) * bins)) if inside else -1
    return np.array([out[q] for q in score])


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 1 / 3), (0.5, 1.0)])
def test_bins_hold_equal_information(low, high):
    rng = np.random.default_rng(0)
    score = np.round(rng.beta(0.5, 0.5, 400), 2)
    found = information_bins(score, 4, low, high)
    np.testing.assert_array_equal(found, bins_by_loop(score, 4, low, high))
    fine = rng.beta(0.5, 0.5, 4000)
    bins = information_bins(fine, 4, low, high)
    information = np.bincount(bins + 1, fine * (1 - fine), minlength=5)
    np.testing.assert_allclose(information[1:] / information.sum(), (high - low) / 4, atol=0.003)
    order = rng.permutation(400)
    np.testing.assert_array_equal(information_bins(score[order], 4, low, high), found[order])


def test_sure_scores_hold_no_information():
    np.testing.assert_array_equal(information_bins(np.array([0.0, 1.0, 1.0]), 5), [0, 0, 0])
    np.testing.assert_array_equal(information_bins(np.array([0.0, 1.0]), 4, 0.0, 0.5), [-1, -1])


def world(rng, n, extra, share=0.5):
    """x is log odds of the label beside what the value says; the model adds `extra` to what calibration allows."""
    label = rng.integers(0, 2, n)
    value = np.where(rng.random(n) < share, label, 1 - label)
    x = rng.normal(size=n) + 1.2 * (2 * label - 1)
    z = 2.4 * x + (np.log(share / (1 - share)) + extra) * (2 * value - 1)
    q = 1 / (1 + np.exp(-z))
    return Rows((q > 0.5).astype(int), label, value, np.stack([1 - q, q], 1), None, None)


def test_the_tail_is_the_low_one(key):
    rng = np.random.default_rng(1)
    over = world(rng, 6000, 1.0)
    tables = np.zeros((2, 2, 2))
    np.add.at(tables, (over.predicted, over.label, over.value), 1)
    z = cmh_test(tables, W).z
    assert z < -4
    assert reversed_p(over, W, over.predicted, key=key) < 1e-4
    under = world(rng, 6000, -1.2, share=0.75)
    assert reversed_p(under, W, under.predicted, key=key) > 0.999
    # -1 leaves rows out.
    half = np.where(np.arange(6000) < 3000, over.predicted, -1)
    part = over.among(np.arange(6000) < 3000)
    assert reversed_p(over, W, half, key=key) == reversed_p(part, W, part.predicted, key=key)


def test_strata_are_predictions_in_bins_of_their_scores():
    made = world(np.random.default_rng(2), 300, 0.0)
    np.testing.assert_array_equal(predicted_strata(made._replace(probabilities=None)), made.predicted)
    stratum = predicted_strata(made)
    for predicted in (0, 1):
        own = made.predicted == predicted
        expected = bins_by_loop(made.probabilities[own, predicted], 5, 0.0, 1.0)
        np.testing.assert_array_equal(stratum[own], 5 * predicted + expected)


def test_two_classes_have_halves_or_outer_thirds():
    made = world(np.random.default_rng(3), 300, 0.0)
    q = made.probabilities[:, 1]
    for fallback, edges in ((False, ((0, 0.5), (0.5, 1))), (True, ((0, 1 / 3), (2 / 3, 1)))):
        for stratum, edge in zip(two_class_strata(made, fallback), edges, strict=True):
            np.testing.assert_array_equal(stratum, bins_by_loop(q, 4, *edge))


@pytest.mark.parametrize("scores", [True, False])
def test_calibrated_use_is_not_called_and_more_than_that_is(key, scores):
    def p(made):
        made = made if scores else made._replace(probabilities=None)
        return reversed_sides_p(made, W, BOTH, fallback=False, key=key)

    called = [p(world(np.random.default_rng(seed), 1000, 0.0, share=0.75)) <= 0.05 for seed in range(100)]
    assert sum(called) <= 2
    found = [p(world(np.random.default_rng(seed), 3000, 1.2)) <= 0.05 for seed in range(20)]
    assert sum(found) >= 19


def test_the_largest_p_of_all_sides_counts(key):
    """A value of which only one side is in excess: the other side decides."""
    rng = np.random.default_rng(4)
    made = world(rng, 4000, 0.0)
    wrong = (made.predicted == 1) & (made.value == 1) & (rng.random(4000) < 0.3)
    one_sided = made._replace(label=np.where(wrong, 0, made.label), probabilities=None)
    each = [reversed_p(one_sided, W, np.where(one_sided.predicted == c, 0, -1), key=key) for c in (0, 1)]
    assert each[1] < 1e-6 < 0.01 < each[0]
    assert reversed_sides_p(one_sided, W, BOTH, fallback=False, key=key) == pytest.approx(each[0], rel=1e-9)


def test_three_classes_leave_out_predictions(key):
    rng = np.random.default_rng(5)
    w = label_association(np.array([[80, 10, 10], [10, 80, 10], [10, 10, 80]]))
    label, value = rng.integers(0, 3, 3000), rng.integers(0, 3, 3000)
    z = 2.0 * (rng.normal(size=(3000, 3)) + 2.0 * np.eye(3)[label]) + 1.5 * np.eye(3)[value]
    q = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    made = Rows(q.argmax(1), label, value, q, None, None)
    present, stratum = np.ones(3, bool), predicted_strata(made)
    by_hand = [reversed_p(made, w, np.where(made.predicted != left_out, stratum, -1), key=key) for left_out in range(3)]
    assert reversed_sides_p(made, w, present, fallback=False, key=key) == pytest.approx(max(by_hand), rel=1e-6)
    assert max(by_hand) < 0.05
    shuffled = made._replace(value=rng.permutation(value))
    assert reversed_sides_p(shuffled, w, present, fallback=False, key=jax.random.key(1)) > 0.05


def test_copies_of_rows_tell_nothing_new(key):
    rng = np.random.default_rng(9)
    label, value = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
    label = np.where(rng.random(400) < 0.08, 1 - value, label)
    stratum = np.zeros(400, np.int64)
    made = Rows(label, label, value, None, None, None)
    p = reversed_p(made, W, stratum, key=key)
    assert 1e-4 < p < 0.1
    many = Rows(*(None if leaf is None else np.repeat(leaf, 4) for leaf in made))
    units = many._replace(unit=np.repeat(np.arange(400), 4))
    assert reversed_p(units, W, np.repeat(stratum, 4), key=key) == pytest.approx(p, rel=0.2)
    assert reversed_p(many, W, np.repeat(stratum, 4), key=key) < p / 10
