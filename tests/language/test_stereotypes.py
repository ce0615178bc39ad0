"""Stereotype scores by hand, by a loop over items as the authors count them, and on their published scores."""

import jax
import numpy as np
import pytest
from oracles import rates

from jaxdebias.contracts import ContractError
from jaxdebias.language import (
    crows_pairs_change,
    crows_pairs_score,
    icat,
    pair_differences,
    perplexity,
    perplexity_change,
    preference_rate,
    sentence_pair_bias,
    stereoset,
    stereoset_change,
    stereoset_scores,
)
from jaxdebias.language._datasets import language_file
from jaxdebias.language._sentence_scores import SentenceScores
from jaxdebias.measure import mcnemar_midp, mean_interval

rng = np.random.default_rng(0)
SCORES = rng.uniform(size=(60, 3))
TARGET = [f"word {i}" for i in rng.integers(0, 7, 60)]


def loop(scores, target):
    """(LMS, SS, ICAT): counts for each target, then the mean over targets."""
    lms, ss = [], []
    for word in set(target):
        rows = [row for row, of in zip(scores, target, strict=True) if of == word]
        ss.append(100 * sum(s > a for s, a, u in rows) / len(rows))
        lms.append(100 * sum(int(s > u) + int(a > u) for s, a, u in rows) / (2 * len(rows)))
    lms, ss = np.mean(lms), np.mean(ss)
    return lms, ss, lms * min(ss, 100 - ss) / 50


@pytest.mark.parametrize("resample", ["items", pytest.param("targets", marks=pytest.mark.slow)])
def test_stereoset_is_the_mean_over_targets(resample, key):
    found = stereoset_scores(key, SCORES, TARGET, resample=resample)
    for got, want in zip(found[:3], loop(SCORES, TARGET), strict=True):
        assert got.value == pytest.approx(want, rel=1e-5)
        assert got.low < got.value < got.high
        assert got.high - got.low > 4
    assert found.ss.n == (60 if resample == "items" else len(set(TARGET)))


def test_stereoset_of_constant_models(key):
    always = stereoset_scores(key, np.tile([3.0, 2.0, 1.0], (60, 1)), TARGET)
    assert [interval.value for interval in always[:3]] == pytest.approx([100, 100, 0], abs=1e-4)
    assert always.ties == 0
    equal = stereoset_scores(key, np.ones((60, 3)), TARGET)
    assert (equal.lms.value, equal.ss.value, equal.icat.value, equal.ties) == (0, 0, 0, 60)


@pytest.mark.slow
def test_stereoset_change_is_a_paired_difference(key):
    after = SCORES.copy()
    after[:10, 0], after[:10, 1] = 0.0, 1.0
    change = stereoset_change(key, SCORES, after, TARGET)
    for got, one, other in zip(change[:3], loop(SCORES, TARGET), loop(after, TARGET), strict=True):
        assert got.value == pytest.approx(other - one, abs=1e-3)
    none = stereoset_change(key, SCORES, SCORES, TARGET)
    assert [part.value for part in none] == [0, 0, 0]
    assert not any(part.separable for part in none)


def test_stereoset_intervals_are_those_of_sums_over_targets(key):
    found = stereoset_scores(key, SCORES, TARGET)
    words, group = np.unique(TARGET, return_inverse=True)
    x = [int((SCORES[group == g, 0] > SCORES[group == g, 1]).sum()) for g in range(len(words))]
    limits = rates.weighted(x, np.bincount(group), [1 / len(words)] * len(words))
    assert (found.ss.low, found.ss.high) == pytest.approx([100 * end for end in limits], abs=1e-6)
    # Both comparisons of an item are one unit.
    right = np.r_[SCORES[:, 0] > SCORES[:, 2], SCORES[:, 1] > SCORES[:, 2]].astype(int)
    w, unit = [1 / len(words)] * len(words), np.tile(np.arange(60), 2)
    deff, t = rates.design_effect(right.tolist(), np.tile(group, 2).tolist(), unit.tolist(), w)
    factor = deff * t * t
    counts = [np.bincount(np.tile(group, 2), some) / factor for some in (right, np.ones(120))]
    limits = rates.weighted(*counts, w)
    assert (found.lms.low, found.lms.high) == pytest.approx([100 * end for end in limits], abs=1e-6)


def test_one_changed_item_is_not_separable(key):
    after = SCORES.copy()
    after[0] = after[0][[1, 0, 2]]
    change = stereoset_change(key, SCORES, after, TARGET)
    assert change.ss.discordant == 1
    assert change.icat.discordant == 1
    assert not any(part.separable for part in change)


@pytest.mark.slow
def test_icat_that_does_not_change_is_seldom_separable():
    draw, found, sets = np.random.default_rng(2), 0, 40
    for number in range(sets):
        before = np.add(draw.uniform(size=(60, 3)), (0.3, 0.1, 0.0))
        after = np.where(draw.random((60, 1)) < 0.5, before, np.add(draw.uniform(size=(60, 3)), (0.3, 0.1, 0.0)))
        found += stereoset_change(jax.random.key(number), before, after, TARGET).icat.separable
    assert found / sets <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / sets)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("model", "want"), [("gpt2", (93.28, 63.12, 68.81)), ("bert_base_cased", (82.41, 62.03, 62.59))]
)
def test_published_scores_give_the_published_figures(model, want, key, data_dir):
    items = stereoset(language_file(data_dir, "stereoset_gender.json"))
    scores = np.array([item.published[model] for item in items])
    found = stereoset_scores(key, scores, [item.target for item in items])
    assert found.items == 253
    np.testing.assert_allclose([interval.value for interval in found[:3]], want, atol=0.005)
    assert all(interval.low < interval.value < interval.high for interval in found[:3])


def test_icat_of_extremes():
    assert icat(100.0, 50.0) == 100.0
    assert icat(100.0, 0.0) == icat(100.0, 100.0) == 0.0


def test_crows_pairs_by_hand():
    more = np.array([-1.0, -2.0, -3.0, -4.0, -5.0])
    less = np.array([-2.0, -1.0, -3.0002, -5.0, -4.0])
    against = np.array([False, False, False, True, True])
    found = crows_pairs_score(more, less, against)
    assert (found.score.value, found.stereo.value, found.antistereo.value) == pytest.approx((40, 100 / 3, 50))
    assert (found.neutral, found.score.n, found.antistereo.n) == (1, 5, 2)
    assert found.score.low < 40 < found.score.high
    exact = crows_pairs_score(more, less, decimals=None)
    assert exact.score.value == pytest.approx(60)
    assert exact.neutral == 0
    assert exact.antistereo.n == 0
    assert np.isnan(exact.antistereo.value)


@pytest.mark.slow
def test_crows_pairs_change(key):
    more, less = rng.normal(size=(2, 80)) - 20
    change = crows_pairs_change(key, (more, less), (less, more))
    assert change.value == pytest.approx(100 * (np.mean(less > more) - np.mean(more > less)), abs=1e-3)
    gains, losses = int(np.sum(less > more)), int(np.sum(more > less))
    assert (change.low, change.high) == pytest.approx(
        [100 * end for end in rates.paired([gains], [losses], [80], [1.0])], abs=1e-6
    )
    assert (change.discordant, change.p) == (80, pytest.approx(mcnemar_midp(gains, losses)))
    same = crows_pairs_change(key, (more, less), (more, less))
    assert (same.value, same.separable) == (0, False)


def test_pair_bias_by_hand(key):
    one = SentenceScores(np.array([-10.0, -8.0, -9.0]), np.array([5, 4, 3]))
    other = SentenceScores(np.array([-5.0, -12.0, -9.0]), np.array([5, 4, 3]))
    np.testing.assert_allclose(pair_differences(one, other), [-1.0, 1.0, 0.0])
    bias = sentence_pair_bias(key, one, other, unit=np.array([0, 1, 1]))
    assert bias.absolute.value == pytest.approx(2 / 3)
    assert bias.signed.value == pytest.approx(0, abs=1e-6)
    assert bias.absolute.n == 2
    assert bias.signed.low < 0 < bias.signed.high


def test_perplexity_is_over_tokens_not_over_lines(key):
    scores = SentenceScores(np.log(0.5) * np.array([2.0, 30.0]) - np.array([1.0, 0.0]), np.array([2, 30]))
    want = np.exp(-scores.total.sum() / 32)
    found = perplexity(key, scores)
    assert found.value == pytest.approx(want, rel=1e-5)


def test_perplexity_is_that_of_a_mean_over_tokens(key):
    count = rng.integers(1, 30, 40)
    scores = SentenceScores(-count * rng.exponential(2.0, 40), count)
    mean = mean_interval(scores.total / count, key=key, weight=count)
    found = perplexity(key, scores)
    assert (found.value, found.low, found.high) == pytest.approx(np.exp([-mean.value, -mean.high, -mean.low]))


def test_preferences_of_one_topic_are_one_unit(key):
    total = np.where(np.arange(40) < 24, -1.0, -3.0)
    one, other = SentenceScores(total, np.ones(40, int)), SentenceScores(np.full(40, -2.0), np.ones(40, int))
    alone, tied = preference_rate(one, other), preference_rate(one, other, unit=np.arange(40) // 4)
    assert (alone.value, alone.n, tied.n) == (0.6, 40, 10)
    assert (alone.low, alone.high) == pytest.approx(rates.exact(24, 40))
    assert tied.high - tied.low > 1.8 * (alone.high - alone.low)


def test_perplexity_change(key):
    scores = SentenceScores(np.log(0.5) * np.array([2.0, 30.0]), np.array([2, 30]))
    worse = scores._replace(total=scores.total - scores.count * np.log(3.0))
    assert perplexity_change(key, scores, worse).value == pytest.approx(4.0, rel=1e-4)
    count = rng.integers(5, 30, 60)
    before = SentenceScores(-count * rng.uniform(1.0, 3.0, 60), count)
    after = before._replace(total=before.total - count * rng.uniform(0.0, 0.2, 60))
    change = perplexity_change(key, before, after)
    first, second = (perplexity(key, scores).value for scores in (before, after))
    assert change.value == pytest.approx(second - first)
    assert 0 < change.low < change.value < change.high
    assert (change.separable, change.discordant) == (True, 60)
    with pytest.raises(ContractError, match="scores of the tokens of before"):
        perplexity_change(key, before, after._replace(count=count + 1))


def test_bad_scores_are_named(key):
    with pytest.raises(ContractError, match=r"`scores`: expected float \[n 3\]"):
        stereoset_scores(key, SCORES[:, :2], TARGET)
    with pytest.raises(ContractError, match="a word for each of 60 items, got 59"):
        stereoset_scores(key, SCORES, TARGET[:-1])
    with pytest.raises(ContractError, match="1 of 180 not finite"):
        stereoset_scores(key, np.where(SCORES[0, 0] == SCORES, np.nan, SCORES), TARGET)
    with pytest.raises(ContractError, match="did you mean 'items'"):
        stereoset_scores(key, SCORES, TARGET, resample="item")
    empty = SentenceScores(np.zeros(2), np.array([1, 0]))
    with pytest.raises(ContractError, match="1 sentences without"):
        pair_differences(empty, empty)
    with pytest.raises(ContractError, match="`less`: expected finite values, got 1 of 3"):
        crows_pairs_score(np.zeros(3), np.array([0.0, np.nan, 0.0]))


def test_equal_keys_give_equal_intervals():
    one, same = (stereoset_scores(jax.random.key(3), SCORES, TARGET) for _ in range(2))
    assert one == same
