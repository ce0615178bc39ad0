"""Scores of strings are those of the token lists that `sentence_scores` takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.core import Split
from jaxdebias.language import (
    LanguageTests,
    Scorer,
    blank_scores,
    causal_scores,
    language_changes,
    language_report,
    masked_scores,
    pair_scores,
    stereoset_sentence_scores,
    text_scores,
)
from jaxdebias.language._datasets import SentencePair, StereoItem
from jaxdebias.language._evaluation import topics
from jaxdebias.language.models import word_tokenizer

TEXTS = ["she was late.", "the cook left"]
PAIRS = [
    SentencePair("she was late", "he was late", "x"),
    SentencePair("the cook left", "he left", "y"),
    SentencePair("she left", "he left", "x"),
]
TOKENIZER = word_tokenizer([*TEXTS, "he", "bad good fish"])
TABLE = jnp.asarray(np.random.default_rng(0).normal(size=(TOKENIZER.size, TOKENIZER.size)), jnp.float32)
CAUSAL = Split(lambda params, tokens: jnp.cumsum(params[tokens], axis=1), lambda params, z: jnp.tanh(z))


def _both_sides(params, tokens):
    seen = jnp.where((tokens != 0)[:, :, None], params[tokens], 0.0)
    place = jnp.arange(tokens.shape[1])[None, :, None].astype(jnp.float32)
    return jnp.broadcast_to(seen.sum(axis=1, keepdims=True), seen.shape) * jnp.cos(jnp.broadcast_to(place, seen.shape))


MASKED = Split(_both_sides, lambda params, z: jnp.tanh(z))
ITEM = StereoItem(
    "cook", "profession", "The cook was BLANK.", ("The cook was bad.", "The cook was good.", "The cook was fish."), {}
)


def scorer(causal, params=TABLE):
    return Scorer(CAUSAL if causal else MASKED, params, TOKENIZER, causal, 8)


def test_texts():
    tokens = [TOKENIZER.encode(text) for text in TEXTS]
    np.testing.assert_allclose(
        text_scores(scorer(True), TEXTS).total, causal_scores(CAUSAL, TABLE, tokens, start=2).total
    )
    framed = [TOKENIZER.framed(text) for text in TEXTS]
    got = text_scores(scorer(False), TEXTS)
    np.testing.assert_allclose(got.total, masked_scores(MASKED, TABLE, framed, mask=4, pad=0, special=[2, 3]).total)
    assert got.count.tolist() == [4, 3]
    # Of longer texts the beginning.
    long = text_scores(scorer(True), ["she was late late late late late late late"])
    assert long.count.tolist() == [6]


def test_pairs_of_a_masked_model_count_what_they_share():
    more, less = pair_scores(scorer(False), PAIRS)
    assert more.count.tolist() == less.count.tolist() == [2, 1, 1]
    framed = [TOKENIZER.framed("she was late"), TOKENIZER.framed("he was late")]
    want = masked_scores(MASKED, TABLE, framed, mask=4, pad=0, scored=[[2, 3], [2, 3]])
    assert (more.total[0], less.total[0]) == pytest.approx(tuple(want.total))
    assert pair_scores(scorer(True), PAIRS)[0].count.tolist() == [3, 3, 2]


def test_stereoset():
    causal = causal_scores(
        CAUSAL, TABLE, [TOKENIZER.encode(text) for text in ITEM.sentences], start=2, start_alone=True
    )
    np.testing.assert_allclose(stereoset_sentence_scores(scorer(True), [ITEM])[0], np.exp(causal.mean))
    before, after = [2, *TOKENIZER.encode("the cook was")], [*TOKENIZER.encode("."), 3]
    blanks = [(before, TOKENIZER.encode(word), after) for word in ("bad", "good", "fish")]
    np.testing.assert_allclose(
        stereoset_sentence_scores(scorer(False), [ITEM])[0], blank_scores(MASKED, TABLE, blanks, mask=4, pad=0)
    )


def test_a_report_and_what_changes(key):
    tests = LanguageTests({"some": PAIRS}, TEXTS, {"profession": [ITEM, ITEM]}, {"all": PAIRS})
    before, after = (language_report(key, scorer(True, params), tests) for params in (TABLE, 0.5 * TABLE))
    more, less = pair_scores(scorer(True), PAIRS)
    difference = more.mean - less.mean
    assert before.pairs["some"].absolute.value == pytest.approx(np.abs(difference).mean(), rel=1e-5)
    assert before.preferred["some"].value == pytest.approx((difference > 0).mean())
    assert before.crows["all"].score.value == pytest.approx(100 * (more.total.round(3) > less.total.round(3)).mean())
    scores = text_scores(scorer(True), TEXTS)
    assert before.perplexity.value == pytest.approx(np.exp(-scores.total.sum() / scores.count.sum()), rel=1e-5)
    change = language_changes(key, before, after, tests)
    for got, one, other in (
        (change.pairs["some"], before.pairs["some"].absolute, after.pairs["some"].absolute),
        (change.perplexity, before.perplexity, after.perplexity),
        (change.crows["all"], before.crows["all"].score, after.crows["all"].score),
        (change.stereoset["profession"].lms, before.stereoset["profession"].lms, after.stereoset["profession"].lms),
    ):
        assert got.value == pytest.approx(other.value - one.value, abs=1e-4)
        assert got.low <= got.value <= got.high
    same = language_changes(jax.random.key(1), before, before, tests)
    assert same.pairs["some"].value == 0.0
    assert np.isnan([same.pairs["some"].low, same.pairs["some"].high]).all()  # no change has no spread, and no interval
    assert not same.pairs["some"].separable
    assert topics(PAIRS).tolist() == [0, 1, 0]
