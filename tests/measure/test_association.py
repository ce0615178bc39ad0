import numpy as np
import pytest
from scipy import stats

from jaxdebias.contracts import ContractError
from jaxdebias.measure import assess_association, cramers_v

COUNTS = np.array([[60, 20, 10], [15, 40, 25]])


def test_limits_are_the_noncentralities_that_put_the_statistic_at_the_tails():
    found = cramers_v(COUNTS)
    statistic = stats.chi2_contingency(COUNTS, correction=False).statistic
    n = COUNTS.sum()
    assert found.value == pytest.approx(np.sqrt((statistic - 2) / n))
    for limit, below in ((found.low, 0.975), (found.high, 0.025)):
        assert stats.ncx2.cdf(statistic, 2, limit**2 * n) == pytest.approx(below, abs=1e-6)
    assert found.n == n


def test_scipys_v_lies_inside_and_orientation_does_not_matter():
    found = cramers_v(COUNTS)
    assert found.low < stats.contingency.association(COUNTS, method="cramer") < found.high
    assert cramers_v(COUNTS.T) == pytest.approx(found)


def test_rows_and_columns_without_counts_are_left_out():
    wide = np.insert(np.insert(COUNTS, 1, 0, axis=0), 2, 0, axis=1)
    assert cramers_v(wide) == pytest.approx(cramers_v(COUNTS))


@pytest.mark.parametrize("share", [0.5, 0.6, 0.9])
def test_coverage(share):
    rng = np.random.default_rng(1)
    joint = np.array([[share, 1 - share], [1 - share, share]]) / 2
    truth = abs(2 * share - 1)
    inside = [
        (found := cramers_v(rng.multinomial(200, joint.ravel()).reshape(2, 2))).low <= truth <= found.high
        for _ in range(400)
    ]
    assert np.mean(inside) >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / 400)


def test_unknown_counts_give_no_number():
    assert assess_association("sex", None) == ("sex", None, 0)
    assert assess_association("sex", np.zeros((2, 2), int)) == ("sex", None, 0)
    assert assess_association("sex", np.array([[5, 3], [0, 0]])) == ("sex", None, 8)


def test_negative_counts_are_refused():
    with pytest.raises(ContractError, match="no negative count"):
        cramers_v([[1, 2], [-1, 4]])
