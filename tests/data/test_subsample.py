import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.data import matthews_correlation, one_sided, subsample_by_correlation

# Blond hair (label) and being male: about CelebA's shares, 21,000 faces.
COUNTS = np.array([[9800, 7650], [3330, 220]])


def rows_of(counts):
    label, attribute = (np.repeat(values, counts.reshape(-1)) for values in ([0, 0, 1, 1], [0, 1, 0, 1]))
    order = np.random.default_rng(0).permutation(len(label))
    return label[order], attribute[order]


def correlation(label, attribute):
    return np.corrcoef(label, attribute)[0, 1]


def test_the_correlation_is_that_of_the_rows():
    label, attribute = rows_of(COUNTS // 100)
    assert matthews_correlation(COUNTS // 100) == pytest.approx(correlation(label, attribute), abs=1e-12)
    assert np.isnan(matthews_correlation(np.array([[3, 4], [0, 0]])))


def test_forty_one_targets_in_one_call():
    label, attribute = rows_of(COUNTS)
    base = matthews_correlation(COUNTS)
    targets = np.round(base, 2) + np.arange(-20, 21) / 100
    found = subsample_by_correlation(label, attribute, targets)
    total = found.indices.shape[1]
    assert 0.3 * len(label) < total < len(label)
    np.testing.assert_allclose(found.achieved, targets, atol=0.002)
    assert (found.sizes.sum((1, 2)) == total).all()
    assert (found.sizes <= COUNTS).all()
    assert (found.sizes > 0).all()
    for sizes, achieved, rows in zip(found.sizes, found.achieved, found.indices, strict=True):
        assert len(np.unique(rows)) == total
        assert np.array_equal(np.bincount(2 * label[rows] + attribute[rows], minlength=4), sizes.reshape(-1))
        assert correlation(label[rows], attribute[rows]) == pytest.approx(achieved, abs=1e-9)
    # A free walk to a range end needs no fewer rows than this total allows: some target uses a group up.
    assert (found.sizes == COUNTS).any()
    # Near targets keep nearly the same rows, and groups change one way as the target moves.
    assert len(np.intersect1d(found.indices[20], found.indices[21])) > 0.97 * total
    assert (np.diff(found.sizes[:, 1, 1]) >= -1).all()
    again = subsample_by_correlation(label, attribute, targets)
    np.testing.assert_array_equal(again.indices, found.indices)
    other = subsample_by_correlation(label, attribute, targets[:3], total=total, seed=1)
    np.testing.assert_array_equal(other.sizes, found.sizes[:3])
    assert (other.indices != found.indices[:3]).any()


def test_the_base_correlation_keeps_the_proportions():
    label, attribute = rows_of(COUNTS)
    found = subsample_by_correlation(label, attribute, [matthews_correlation(COUNTS)], total=7000)
    assert abs(found.sizes[0] - COUNTS / 3).max() < 1


def test_a_step_is_the_least_change():
    """Against a search over all tables near the proportional one."""
    counts = np.array([[600, 400], [300, 700]])
    label, attribute = rows_of(counts)
    target, total = matthews_correlation(counts) + 0.01, 1500
    found = subsample_by_correlation(label, attribute, [target], total=total).sizes[0].reshape(-1)
    before = counts.reshape(-1) * total / counts.sum()
    a, b, c = (grid.ravel() for grid in np.meshgrid(*(np.arange(round(g) - 25, round(g) + 26) for g in before[:3])))
    d = total - a - b - c
    mcc = (a * d - b * c) / np.sqrt(1.0 * (a + b) * (c + d) * (a + c) * (b + d))

    def cost(*sizes):
        return sum(((g - g0) / g) ** 2 for g, g0 in zip(sizes, before, strict=True))

    best = cost(a, b, c, d)[abs(mcc - target) < 2e-4].min()
    assert best > 1e-4
    assert cost(*found) < 1.1 * best
    assert abs(matthews_correlation(found.reshape(2, 2)) - target) < 1e-3


def test_small_counts_and_strong_correlations():
    label, attribute = rows_of(np.array([[40, 30], [30, 40]]))
    found = subsample_by_correlation(label, attribute, [-0.5, 0.0, 0.6, 0.0], total=60)
    np.testing.assert_allclose(found.achieved, [-0.5, 0, 0.6, 0], atol=0.01)
    np.testing.assert_array_equal(found.indices[1], found.indices[3])


def test_unknown_attributes_are_left_out():
    label, attribute = rows_of(np.array([[40, 30], [30, 40]]))
    attribute[::3] = -1
    found = subsample_by_correlation(label, attribute, [0.2])
    assert (attribute[found.indices] >= 0).all()


def test_one_sided():
    attribute = np.array([1, 0, -1, 1, 0])
    assert one_sided(attribute, 1).tolist() == [0, 3]
    assert one_sided(attribute, 0).tolist() == [1, 4]
    with pytest.raises(ContractError, match="`value`: expected one of -1, 0, 1, got 2"):
        one_sided(attribute, 2)


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        ([0.99], {"total": 130}, "`targets`: expected correlations that 130 of the rows can have, got 0.99, nearest"),
        ([1.0], {}, "`targets`: expected correlations above -1 and below 1"),
        ([], {}, "`targets`: expected correlations above -1 and below 1"),
        ([0.1], {"total": 200}, "`total`: expected 4..140 rows, got 200"),
    ],
)
def test_what_cannot_be_is_refused(targets, options, message):
    label, attribute = rows_of(np.array([[40, 30], [30, 40]]))
    with pytest.raises(ContractError, match=message):
        subsample_by_correlation(label, attribute, targets, **options)
    with pytest.raises(ContractError, match="`label, attribute`: expected rows in each of the four groups, got"):
        subsample_by_correlation(label, label, [0.1])
