"""Every number about a language model's bias in one call, and what changes from one model to another."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxdebias.contracts import expect
from jaxdebias.core import Key
from jaxdebias.language._datasets import SentencePair, StereoItem
from jaxdebias.language._sentence_scores import SentenceScores
from jaxdebias.language._stereoset import StereoSetChange, StereoSetScores, stereoset_change, stereoset_scores
from jaxdebias.language._stereotypes import (
    CrowsScores,
    PairBias,
    crows_pairs_change,
    crows_pairs_score,
    pair_bias_change,
    perplexity,
    perplexity_change,
    preference_rate,
    sentence_pair_bias,
)
from jaxdebias.language._text_scores import Scorer, pair_scores, stereoset_sentence_scores, text_scores
from jaxdebias.measure import Interval, PairedChange


class LanguageTests(NamedTuple):
    """What is measured; each part may be empty."""

    pairs: Mapping[str, Sequence[SentencePair]]
    """By name; pairs of one topic are resampled together."""
    texts: Sequence[str] = ()
    """For perplexity."""
    stereoset: Mapping[str, Sequence[StereoItem]] = {}
    """By type of bias."""
    crows: Mapping[str, Sequence[SentencePair]] = {}
    """CrowS-Pairs, by type of bias."""


class TestScores(NamedTuple):
    """Scores of all sentences of `LanguageTests`."""

    pairs: dict[str, tuple[SentenceScores, SentenceScores]]
    texts: SentenceScores | None
    stereoset: dict[str, np.ndarray]
    crows: dict[str, tuple[SentenceScores, SentenceScores]]


class LanguageReport(NamedTuple):
    """What was measured, and the scores that it came from."""

    pairs: dict[str, PairBias]
    preferred: dict[str, Interval]
    """How often the stereotype is the more probable sentence, a rate in 0..1."""
    perplexity: Interval | None
    """Of a masked model the pseudo-perplexity."""
    stereoset: dict[str, StereoSetScores]
    crows: dict[str, CrowsScores]
    scores: TestScores


class LanguageChanges(NamedTuple):
    """After minus before, on the same sentences."""

    pairs: dict[str, PairedChange]
    """Of the absolute pair bias."""
    perplexity: PairedChange | None
    stereoset: dict[str, StereoSetChange]
    crows: dict[str, PairedChange]


def language_report(key: Key, scorer: Scorer, tests: LanguageTests) -> LanguageReport:
    """Measures a language model.

    Args:
      key: of the intervals. The same key gives the same resamples, whatever the model.
      scorer: the model.
      tests: what is asked.
    """
    expect(
        len(tests.pairs) + len(tests.texts) + len(tests.stereoset) + len(tests.crows) > 0,
        "tests",
        "at least one pair, text or item",
        "none",
    )
    scores = TestScores(
        {name: pair_scores(scorer, pairs) for name, pairs in tests.pairs.items()},
        text_scores(scorer, tests.texts) if tests.texts else None,
        {name: stereoset_sentence_scores(scorer, items) for name, items in tests.stereoset.items()},
        {name: pair_scores(scorer, pairs) for name, pairs in tests.crows.items()},
    )
    pairs = {
        name: sentence_pair_bias(key, *both, unit=topics(tests.pairs[name])) for name, both in scores.pairs.items()
    }
    preferred = {name: preference_rate(*both, unit=topics(tests.pairs[name])) for name, both in scores.pairs.items()}
    stereoset = {
        name: stereoset_scores(key, three, [item.target for item in tests.stereoset[name]])
        for name, three in scores.stereoset.items()
    }
    # Their authors take the sum over the shared tokens.
    crows = {
        name: crows_pairs_score(more.total, less.total, np.array([pair.antistereo for pair in tests.crows[name]]))
        for name, (more, less) in scores.crows.items()
    }
    spread = None if scores.texts is None else perplexity(key, scores.texts)
    return LanguageReport(pairs, preferred, spread, stereoset, crows, scores)


def language_changes(key: Key, before: LanguageReport, after: LanguageReport, tests: LanguageTests) -> LanguageChanges:
    """What changes between two reports on the same tests, paired."""
    first, second = before.scores, after.scores
    pairs = {
        name: pair_bias_change(key, first.pairs[name], second.pairs[name], unit=topics(tests.pairs[name]))
        for name in first.pairs
    }
    spread = None if first.texts is None else perplexity_change(key, first.texts, second.texts)
    stereoset = {
        name: stereoset_change(
            key, first.stereoset[name], second.stereoset[name], [item.target for item in tests.stereoset[name]]
        )
        for name in first.stereoset
    }
    crows = {
        name: crows_pairs_change(key, *(tuple(one.total for one in scores.crows[name]) for scores in (first, second)))
        for name in first.crows
    }
    return LanguageChanges(pairs, spread, stereoset, crows)


def topics(pairs: Sequence[SentencePair]) -> np.ndarray:
    """A number for the topic of each pair: what belongs together."""
    return np.unique([pair.topic for pair in pairs], return_inverse=True)[1].astype(np.int32)
