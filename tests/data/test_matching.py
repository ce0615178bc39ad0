import itertools

import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch
from jaxdebias.data import matched_pairs, nearest_partners
from jaxdebias.data._matching import one_hot, ordered


def slow_distance(bits, label, attribute, i, j):
    """Bits that differ, or None where j may not be i's partner."""
    if label[i] != label[j] or attribute[i] == attribute[j] or min(attribute[i], attribute[j]) < 0:
        return None
    return sum(bool(a) != bool(b) for a, b in zip(bits[i], bits[j], strict=True))


def slow_nearest(bits, label, attribute, rows, partners):
    found = []
    for i in rows:
        near = [(d, j) for j in partners if (d := slow_distance(bits, label, attribute, i, j)) is not None]
        if near:
            d, j = min(near)
            found.append((i, j, d))
    return found


def slow_once(bits, label, attribute, rows, partners):
    """All possible pairs, the nearest first; each is formed if both sides are still free."""
    every = sorted(
        (d, i, j)
        for i, j in itertools.product(rows, partners)
        if (d := slow_distance(bits, label, attribute, i, j)) is not None
    )
    row_taken, partner_taken, found = set(), set(), []
    for d, i, j in every:
        if i not in row_taken and j not in partner_taken:
            row_taken.add(i)
            partner_taken.add(j)
            found.append((i, j, d))
    return sorted(found)


def triples(found):
    return [tuple(map(int, pair)) for pair in zip(*found, strict=True)]


def random_case(seed, *, n=60, columns=5, attributes=3):
    """Few columns, so that ties are the rule; some attributes unknown."""
    rng = np.random.default_rng(seed)
    bits, label = rng.random((n, columns)) < 0.4, rng.integers(0, 3, n)
    attribute = rng.integers(-1 if seed % 2 else 0, attributes, n)
    return bits, label, attribute, rng


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("once", "oracle"), [(False, slow_nearest), (True, slow_once)])
@pytest.mark.parametrize("block", [1, 50, 2**24])
def test_matches_the_oracle_whatever_the_block(seed, once, oracle, block):
    bits, label, attribute, rng = random_case(seed, columns=(0, 3, 5, 12)[seed % 4])
    rows, partners = np.sort(rng.permutation(60)[:40]), np.sort(rng.permutation(60)[:50])
    found = nearest_partners(
        bits, label, attribute, rows=rng.permutation(rows), partners=partners, once=once, block=block
    )
    assert triples(found) == oracle(bits, label, attribute, rows, partners)


def test_without_rows_everybody_seeks_among_all():
    bits, label, attribute, _ = random_case(0)
    every = range(60)
    found = nearest_partners(bits, label, attribute)
    assert triples(found) == slow_nearest(bits, label, attribute, every, every)


def test_many_columns_are_exact():
    rng = np.random.default_rng(0)
    bits = rng.random((40, 3000)) < 0.5
    label, attribute = np.zeros(40, int), np.arange(40) % 2
    found = nearest_partners(bits, label, attribute, block=100)
    assert triples(found) == slow_nearest(bits, label, attribute, range(40), range(40))


def test_no_rows_no_pairs():
    found = nearest_partners(np.ones((3, 2), bool), np.zeros(3, int), np.full(3, -1))
    assert [len(field) for field in found] == [0, 0, 0]


@pytest.mark.parametrize("once", [False, True])
def test_a_row_without_any_partner_is_an_error(once):
    bits, label, attribute = np.ones((4, 2), bool), np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    with pytest.raises(
        ContractError,
        match=r"^`partners`: expected a sample of label 1 with another attribute than 1, "
        r"got none$",
    ):
        nearest_partners(bits, label, attribute, once=once)


def test_bad_arguments_are_one_line():
    bits, zeros = np.ones((4, 2), bool), np.zeros(4, int)
    for changes, message in (
        ({"label": zeros - 1}, r"`label`: expected values of at least 0, got -1..-1"),
        ({"attribute": zeros - 2}, r"`attribute`: expected values of at least -1, got -2..-2"),
        ({"rows": np.array([4])}, r"`rows`: expected values in 0..3, got 4..4"),
        ({"partners": np.array([-1])}, r"`partners`: expected values in 0..3, got -1..-1"),
        ({"block": 0}, r"`block`: expected at least 1, got 0"),
    ):
        with pytest.raises(ContractError, match=message):
            nearest_partners(**{"bits": bits, "label": zeros, "attribute": zeros} | changes)


@pytest.fixture
def split():
    """Label 0: 6 aligned, 4 conflicting; label 1: 3 aligned, 5 conflicting; two unknown. x is the row number."""
    label = np.array([0] * 10 + [1] * 8 + [0, 1], np.int32)
    attribute = np.array([0] * 6 + [1] * 4 + [1] * 3 + [0] * 5 + [-1, -1], np.int32)
    return Batch(x=np.arange(20, dtype=np.float32)[:, None], label=label, attribute=attribute)


def test_pairs_go_from_aligned_to_conflicting_and_use_nobody_twice(split):
    bits = np.random.default_rng(0).random((20, 4)) < 0.5
    pairs = matched_pairs(split, bits, np.eye(2, dtype=bool))
    x, twin = pairs.x[:, 0].astype(int), pairs.twin[:, 0].astype(int)
    wanted = slow_once(bits, split.label, split.attribute, [*range(6), *range(10, 13)], [*range(6, 10), *range(13, 18)])
    assert list(zip(x.tolist(), twin.tolist(), strict=True)) == [pair[:2] for pair in wanted]
    assert len(x) == 4 + 3
    np.testing.assert_array_equal(pairs.attribute, pairs.label)
    np.testing.assert_array_equal(pairs.label, split.label[x])
    np.testing.assert_array_equal(split.label[twin], split.label[x])
    np.testing.assert_array_equal(split.attribute[twin], 1 - split.attribute[x])


def test_farthest_balanced_and_per_label_keep_the_closest(split):
    bits = np.random.default_rng(1).random((20, 6)) < 0.5
    aligned = np.eye(2, dtype=bool)
    every = slow_once(bits, split.label, split.attribute, [*range(6), *range(10, 13)], [*range(6, 10), *range(13, 18)])

    def rows(**options):
        return matched_pairs(split, bits, aligned, **options).x[:, 0].astype(int).tolist()

    def closest(most):
        of_label = [sorted((d, i) for i, _, d in every if split.label[i] == y)[:most] for y in (0, 1)]
        return sorted(i for chosen in of_label for _, i in chosen)

    middle = sorted(d for _, _, d in every)[3]
    assert rows(farthest=middle) == [i for i, _, d in every if d <= middle]
    assert len(rows(farthest=middle)) < len(every)
    assert rows(balanced=True) == closest(3)
    assert rows(per_label=2) == closest(2)
    assert rows(balanced=True, per_label=1) == closest(1)
    with pytest.raises(ContractError, match="`per_label`: expected at least 1, got 0"):
        rows(per_label=0)
    with pytest.raises(ContractError, match="`split`: expected samples in an aligned cell, got none"):
        matched_pairs(split, bits, np.zeros((2, 2), bool))
    with pytest.raises(ContractError, match="`farthest`: expected pairs that differ in at most -1 bits, got none"):
        rows(farthest=-1)


def test_one_hot_and_ordered_bits_mean_distances():
    values = np.array(["b", "a", "c", "a"])
    distance = (one_hot(values)[:, None] != one_hot(values)).sum(-1)
    np.testing.assert_array_equal(distance, 2 * (values[:, None] != values))
    ages, edges = np.array([0, 13, 19, 20, 64]), (13, 20, 60)
    bins = np.array([sum(age >= edge for edge in edges) for age in ages])
    distance = (ordered(ages, edges)[:, None] != ordered(ages, edges)).sum(-1)
    np.testing.assert_array_equal(distance, abs(bins[:, None] - bins))
