import numpy as np
import pytest
from scipy import stats

from jaxdebias.contracts import ContractError
from jaxdebias.mitigate import draw_report, weight_auc
from jaxdebias.mitigate._dbvae.diagnostics import RATIO_EDGES

WEIGHT = np.array([0.0, 1.0, 1.0, 2.0, 0.0005, 6.0])
GROUP = np.array([0, 0, 1, 1, -1, 1])


def test_numbers_by_hand():
    report = draw_report(WEIGHT, GROUP, groups=3, shown=2)
    total = WEIGHT.sum()
    ratio = 6 * WEIGHT / total
    assert report.ess == pytest.approx(total**2 / (6 * (WEIGHT**2).sum()))
    assert report.largest == pytest.approx(6 / total)
    assert report.never_drawn == pytest.approx(np.maximum(0, 1 - ratio).sum() / 6)
    assert report.rarest.tolist() == [5, 3]
    assert report.commonest.tolist() == [0, 4]
    np.testing.assert_allclose(report.group_share, [1 / total, 9 / total, 0])
    np.testing.assert_allclose(report.group_rows, [2 / 6, 3 / 6, 0])
    assert report.group_auc[1] == pytest.approx((2 * 3 - 0.5) / 6)
    assert report.group_auc[0] == pytest.approx(0.5 / 6)
    assert np.isnan(report.group_auc[2])
    assert report.histogram.sum() == 6
    assert report.histogram[0] == 2  # what lies below the first edge is counted in it
    at = np.searchsorted(RATIO_EDGES, ratio[5], side="right") - 1
    assert report.histogram[at] == 1


def test_auc_is_the_rank_test():
    rng = np.random.default_rng(0)
    weight, rare = rng.integers(0, 9, 200).astype(float), rng.random(200) < 0.2
    u = stats.mannwhitneyu(weight[rare], weight[~rare]).statistic
    assert weight_auc(weight, rare) == pytest.approx(u / (rare.sum() * (~rare).sum()))


def test_without_groups_and_bad_weights():
    report = draw_report(np.ones(4))
    assert (report.ess, report.group_share, report.never_drawn) == (1.0, None, 0.0)
    for bad in (np.zeros(3), np.array([1.0, np.nan]), np.array([1.0, -1.0])):
        with pytest.raises(ContractError, match="`weight`"):
            draw_report(bad)
