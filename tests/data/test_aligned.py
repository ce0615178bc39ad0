import numpy as np
import pytest
from oracles.colored_mnist import CLASS_SIZES, CONFLICTING, attribute_by_walking

from jaxdebias.contracts import ContractError
from jaxdebias.data import aligned_cells, milestone_attribute
from jaxdebias.data._aligned import biased_attribute, other_attribute


@pytest.mark.parametrize("aligned", [0.1, 0.5, 0.9, 0.95, 0.98, 0.995, 1.0, 0.0])
def test_milestones_equal_a_walk_through_the_images(aligned):
    label = np.random.default_rng(3).integers(0, 10, 700)
    np.testing.assert_array_equal(milestone_attribute(label, aligned, 10), attribute_by_walking(label, aligned, 10))


@pytest.mark.parametrize("conflicting", CONFLICTING)
def test_milestones_give_the_published_counts(conflicting):
    label = np.repeat(np.arange(10), CLASS_SIZES)
    attribute = milestone_attribute(label, 1.0 - conflicting, 10)
    counts = np.bincount(label[attribute != label], minlength=10)
    np.testing.assert_array_equal(counts, CONFLICTING[conflicting])


def test_milestones_round_half_to_even():
    # 5 images, aligned 0.5: milestones round(2.5) = 2, round(3.75) = 4, 5.
    assert milestone_attribute(np.zeros(5, int), 0.5, 3).tolist() == [0, 0, 1, 1, 2]


def test_biased_attribute_keeps_the_counts_and_moves_the_examples():
    label = np.random.default_rng(0).integers(0, 10, 1000)
    rule = milestone_attribute(label, 0.95, 10)
    one = biased_attribute(np.random.default_rng(1), label, 0.05, 10)
    other = biased_attribute(np.random.default_rng(2), label, 0.05, 10)
    for drawn in (one, other):
        np.testing.assert_array_equal(np.bincount(label[drawn != label]), np.bincount(label[rule != label]))
    assert ((one != label) != (other != label)).any()


def test_other_attribute_is_uniform_over_the_others():
    label = np.full(9000, 3)
    counts = np.bincount(other_attribute(np.random.default_rng(0), label, 10), minlength=10)
    assert counts[3] == 0
    assert np.abs(np.delete(counts, 3) - 1000).max() < 5 * np.sqrt(1000)


def test_aligned_cells_are_those_above_independence():
    # Waterbirds' shape: the majority place of both classes may be the same, the association still tells.
    label = np.repeat([0, 0, 1, 1], [80, 20, 30, 20])
    attribute = np.repeat([0, 1, 0, 1], [80, 20, 30, 20])
    np.testing.assert_array_equal(aligned_cells(label, attribute, 2, 2), [[True, False], [False, True]])
    independent = np.repeat([0, 1, 0, 1], [10, 20, 20, 40]), np.repeat([0, 0, 1, 1], [10, 20, 20, 40])
    assert not aligned_cells(*independent, 2, 2).any()
    unknown = np.where(np.arange(150) < 10, -1, attribute)
    assert aligned_cells(label, unknown, 2, 2)[1, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: milestone_attribute(np.zeros(3, int), 1.5, 2), "`aligned`: expected a share in 0..1, got float 1.5"),
        (lambda: milestone_attribute(np.full(3, 2), 0.5, 2), "`label`: expected values in 0..1, got 2"),
        (lambda: milestone_attribute(np.zeros(3, int), 0.5, 1), "`attributes`: expected at least 2, got 1"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ContractError, match=message):
        call()
