"""Do language models prefer stereotypes? CrowS-Pairs, the bias of sentence pairs, and perplexity.

All from scores of sentences, wherever they come from (`sentence_scores` computes them): nothing here sees a model.
Rates are in percent, as the field prints them. Differences between two models are paired over sentences.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdebias.contracts import check_finite, check_numbers, describe, expect
from jaxdebias.core import Key
from jaxdebias.language._sentence_scores import SentenceScores
from jaxdebias.measure import (
    Interval,
    PairedChange,
    excludes_zero,
    group_counts,
    mean_change,
    mean_interval,
    paired_change,
    proportion_interval,
)
from jaxdebias.measure._significance import LEAST_DISCORDANT


class CrowsScores(NamedTuple):
    """Percent of all pairs, neutral ones included, as the authors of CrowS-Pairs do."""

    score: Interval
    """How often the more stereotyping sentence is the more probable one. Ideal 50."""
    stereo: Interval
    """The same among pairs that show a stereotype of a disadvantaged group."""
    antistereo: Interval
    """The same among pairs that go against one. NaN, n = 0, if there are none."""
    neutral: int
    """Pairs whose two scores are equal after rounding."""


class PairBias(NamedTuple):
    """How differently the two sentences of a pair are scored, in nats for each token."""

    absolute: Interval
    """Mean of |log p(stereotype) - log p(anti-stereotype)|: the counterfactual bias of FMD for language models."""
    signed: Interval
    """Mean of the difference without its absolute value: 0 where preferences cancel."""


def crows_pairs_score(
    more: Float[np.ndarray, " n"],
    less: Float[np.ndarray, " n"],
    antistereo: Bool[np.ndarray, " n"] | None = None,
    *,
    decimals: int | None = 3,
    level: float = 0.95,
) -> CrowsScores:
    """The score of CrowS-Pairs (Nangia et al. 2020), with exact intervals. A noisy benchmark, its authors warn.

    Args:
      more: score of the more stereotyping sentence of each pair; higher is preferred. The authors take the sum over the
        shared tokens: `SentenceScores.total` of `masked_scores`.
      less: of the less stereotyping one.
      antistereo: which pairs go against a stereotype; None: none does.
      decimals: scores are rounded before they are compared, as in the authors' script; None: not.
      level: confidence level of the interval.
    """
    more, less = np.asarray(more, np.float64), np.asarray(less, np.float64)
    expect(
        more.ndim == 1 and more.shape == less.shape and len(more) > 0,
        "less",
        f"the shape of more, {[*more.shape]}",
        describe(less),
    )
    check_finite("more", more)
    check_finite("less", less)
    if decimals is not None:
        more, less = more.round(decimals), less.round(decimals)
    against = np.zeros(len(more), bool) if antistereo is None else np.asarray(antistereo)
    expect(against.shape == more.shape, "antistereo", f"bool {[*more.shape]}", describe(against))
    hit = more > less
    rows = np.array([np.ones_like(hit), ~against, against])
    return CrowsScores(*(_percent(_rate(hit[some], level)) for some in rows), int((more == less).sum()))


def crows_pairs_change(
    key: Key,
    before: tuple[np.ndarray, np.ndarray],
    after: tuple[np.ndarray, np.ndarray],
    *,
    decimals: int | None = 3,
    level: float = 0.95,
) -> PairedChange:
    """Score after minus score before, in percent, of two models on the same pairs; each is (more, less)."""
    hits = []
    for name, pair in (("before", before), ("after", after)):
        two = isinstance(pair, tuple | list) and len(pair) == 2
        expect(two, name, "two arrays [n] of scores: (more, less)", describe(pair))
        for side in pair:
            check_numbers(name, side, "n")
        more, less = pair
        more, less = np.asarray(more, np.float64), np.asarray(less, np.float64)
        expect(more.ndim == 1 and more.shape == less.shape, name, "two arrays [n] of scores", describe(less))
        check_finite(name, (more, less))
        if decimals is not None:
            more, less = more.round(decimals), less.round(decimals)
        hits.append(more > less)
    expect(len(hits[0]) == len(hits[1]) > 0, "after", f"scores of the same {len(hits[0])} pairs", f"{len(hits[1])}")
    change = paired_change(*hits, np.zeros(len(hits[0]), np.int32), [1.0], key=key, level=level)
    return _percent(change)


def sentence_pair_bias(
    key: Key,
    stereotype: SentenceScores,
    anti: SentenceScores,
    *,
    unit: Int[np.ndarray, " n"] | None = None,
    level: float = 0.95,
) -> PairBias:
    """The bias of sentence pairs: difference of the two mean log-probabilities of a token.

    Over shared tokens both sentences have as many, and this is the difference of sums divided by their number; where
    words of a causal model's pair differ in their number of tokens, each sentence is divided by its own.

    Args:
      key: randomness of the resamples.
      stereotype: scores of the two sentences of each pair.
      anti: scores of the two sentences of each pair.
      unit: which pairs belong together, for instance those of one occupation; None: each is its own unit.
      level: confidence level of the interval.
    """
    difference = pair_differences(stereotype, anti)
    shared = {"key": key, "unit": unit, "level": level}
    return PairBias(mean_interval(np.abs(difference), **shared), mean_interval(difference, **shared))


def pair_bias_change(
    key: Key,
    before: tuple[SentenceScores, SentenceScores],
    after: tuple[SentenceScores, SentenceScores],
    *,
    unit: Int[np.ndarray, " n"] | None = None,
    level: float = 0.95,
) -> PairedChange:
    """Absolute pair bias after minus before, of two models on the same pairs; each is (stereotype, anti-stereotype)."""
    first, second = (np.abs(pair_differences(*scores)) for scores in (before, after))
    return mean_change(first, second, key=key, unit=unit, level=level)


def preference_rate(
    stereotype: SentenceScores,
    anti: SentenceScores,
    *,
    unit: Int[np.ndarray, " n"] | None = None,
    level: float = 0.95,
) -> Interval:
    """How often the stereotype is the more probable sentence of a pair, in 0..1; arguments as `sentence_pair_bias`."""
    return _rate(pair_differences(stereotype, anti) > 0, level, unit)


def pair_differences(stereotype: SentenceScores, anti: SentenceScores) -> Float[np.ndarray, " n"]:
    """Mean log-probability of a token in the first sentence minus that in the second, of each pair."""
    same = stereotype.total.shape == anti.total.shape
    expect(same, "anti", f"scores of {stereotype.total.size} sentences", anti.total.size)
    for name, scores in (("stereotype", stereotype), ("anti", anti)):
        expect(
            bool((scores.count > 0).all()),
            name,
            "at least one scored token in each sentence",
            f"{int((scores.count == 0).sum())} sentences without",
        )
        check_finite(name, scores.total)
    return stereotype.mean - anti.mean


def perplexity(
    key: Key,
    scores: SentenceScores,
    *,
    unit: Int[np.ndarray, " n"] | None = None,
    level: float = 0.95,
) -> Interval:
    """exp of the mean negative log-probability of a token over all texts; of a masked model the pseudo-perplexity.

    Args:
      key: random key.
      scores: of lines or chunks of text.
      unit: which of them belong together (lines of one article); None: each is its own unit.
      level: confidence level of the interval.

    >>> import jax
    >>> two = SentenceScores(np.log([0.25, 0.25**3]), np.array([1, 3]))
    >>> round(perplexity(jax.random.key(0), two).value, 4)
    4.0
    """
    expect(
        scores.total.size > 0 and bool((scores.count >= 0).all() and scores.count.sum() > 0),
        "scores",
        "at least one scored token",
        "none",
    )
    mean = mean_interval(_per_token(scores), key=key, unit=unit, weight=scores.count, level=level)
    return Interval(*(math.exp(-bound) for bound in (mean.value, mean.high, mean.low)), mean.n)


def perplexity_change(
    key: Key,
    before: SentenceScores,
    after: SentenceScores,
    *,
    unit: Int[np.ndarray, " n"] | None = None,
    level: float = 0.95,
) -> PairedChange:
    """Perplexity after minus perplexity before, on the same texts.

    The interval is that of the linearised difference, the test that of the mean log-probability of a token.
    """
    same = before.count.shape == after.count.shape and bool(np.all(before.count == after.count))
    expect(same, "after", "scores of the tokens of before", describe(after.count))
    shared = {"key": key, "unit": unit, "weight": before.count, "level": level}
    test = mean_change(*map(_per_token, (before, after)), **shared)
    first, second = (math.exp(-scores.total.sum() / scores.count.sum()) for scores in (before, after))
    linear = mean_interval(first * _per_token(before) - second * _per_token(after), **shared)
    value = second - first
    low, high = (value + (bound - linear.value) for bound in (linear.low, linear.high))
    interval = Interval(value, low, high, linear.n)
    enough = test.p <= 1.0 - level + 1e-12 and test.discordant >= LEAST_DISCORDANT
    return PairedChange(*interval, test.p, test.discordant, enough and bool(excludes_zero(interval)))


def _per_token(scores: SentenceScores) -> Float[np.ndarray, " n"]:
    """Mean log-probability of a token of each text, 0 where it has none."""
    total = np.asarray(scores.total, np.float64)
    return np.divide(total, scores.count, out=np.zeros_like(total), where=np.asarray(scores.count) > 0)


def _rate(hit: np.ndarray, level: float, unit: np.ndarray | None = None) -> Interval:
    if unit is None:
        return proportion_interval(int(hit.sum()), len(hit), level=level)
    x, n = group_counts(hit, np.zeros(len(hit), np.int32), groups=1, unit=unit, level=level)
    return proportion_interval(x.item(), n.item(), level=level)._replace(n=len(np.unique(unit)))


def _percent(found: Interval | PairedChange) -> Interval | PairedChange:
    return found._replace(value=100 * found.value, low=100 * found.low, high=100 * found.high)
