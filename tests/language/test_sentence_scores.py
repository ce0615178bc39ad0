"""Scores of sentences against slow loops over a model that is a table: logits depend on all tokens it may see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.core import Split
from jaxdebias.language import blank_scores, causal_scores, masked_scores, shared_positions
from jaxdebias.language._sentence_scores import SentenceScores, masked_log_probabilities

V, PAD, MASK, START, END = 13, 0, 4, 2, 3
TABLE = np.random.default_rng(0).normal(size=(V, V)).astype(np.float32)
traced = []


def _causal_features(params, tokens):
    traced.append(tokens.shape)
    return jnp.cumsum(params[tokens], axis=1)  # what came before, and the token itself


def _both_sides(params, tokens):
    traced.append(tokens.shape)
    seen = jnp.where((tokens != PAD)[:, :, None], params[tokens], 0.0)
    place = jnp.arange(tokens.shape[1])[None, :, None].astype(jnp.float32)
    return jnp.broadcast_to(seen.sum(axis=1, keepdims=True), seen.shape) * jnp.cos(jnp.broadcast_to(place, seen.shape))


CAUSAL = Split(_causal_features, lambda params, z: jnp.tanh(z))
MASKED = Split(_both_sides, lambda params, z: jnp.tanh(z))
rng = np.random.default_rng(1)
SENTENCES = [rng.integers(5, V, length).tolist() for length in (3, 9, 1, 12, 5, 8, 7)]
FRAMED = [[START, *sentence, END] for sentence in SENTENCES]


def log_p(logits, token):
    logits = logits.astype(np.float64)
    return logits[token] - np.log(np.exp(logits).sum())


def slow_causal(before, token):
    return log_p(np.tanh(sum(TABLE[t].astype(np.float64) for t in before)), token)


def slow_masked(tokens, position, token):
    return log_p(np.tanh(np.cos(position) * sum(TABLE[t].astype(np.float64) for t in tokens)), token)


def test_causal_scores_are_those_of_a_loop():
    got = causal_scores(CAUSAL, TABLE, SENTENCES, start=START, batch_tokens=32)
    want = [sum(slow_causal([START, *s[:i]], s[i]) for i in range(len(s))) for s in SENTENCES]
    np.testing.assert_allclose(got.total, want, rtol=1e-5)
    np.testing.assert_array_equal(got.count, [len(s) for s in SENTENCES])
    np.testing.assert_allclose(got.mean, np.array(want) / [len(s) for s in SENTENCES], rtol=1e-5)


def test_start_alone_is_seen_by_the_first_token_only():
    got = causal_scores(CAUSAL, TABLE, SENTENCES, start=START, start_alone=True, batch_tokens=32)
    want = [slow_causal([START], s[0]) + sum(slow_causal(s[:i], s[i]) for i in range(1, len(s))) for s in SENTENCES]
    np.testing.assert_allclose(got.total, want, rtol=1e-5)


@pytest.mark.parametrize("start_alone", [False, True])
def test_only_scored_tokens_count(start_alone):
    scored = [[0, len(s) - 1] if len(s) > 1 else [] for s in SENTENCES]
    got = causal_scores(CAUSAL, TABLE, SENTENCES, start=START, scored=scored, start_alone=start_alone, batch_tokens=32)
    head = [] if start_alone else [START]
    want = [slow_causal([START], s[0]) + slow_causal([*head, *s[:-1]], s[-1]) if len(s) > 1 else 0.0 for s in SENTENCES]
    np.testing.assert_allclose(got.total, want, rtol=1e-5)
    assert np.isnan(got.mean[2])


def test_masked_scores_are_those_of_a_loop():
    got = masked_scores(MASKED, TABLE, FRAMED, mask=MASK, pad=PAD, special=[START, END], batch_tokens=64)
    want = [sum(slow_masked([*s[:i], MASK, *s[i + 1 :]], i, s[i]) for i in range(1, len(s) - 1)) for s in FRAMED]
    np.testing.assert_allclose(got.total, want, rtol=1e-4)
    np.testing.assert_array_equal(got.count, [len(s) for s in SENTENCES])
    some = masked_scores(MASKED, TABLE, FRAMED, mask=MASK, pad=PAD, scored=[[1]] * 7, batch_tokens=64)
    np.testing.assert_allclose(some.total, [slow_masked([START, MASK, *s[2:]], 1, s[1]) for s in FRAMED], rtol=1e-4)


def test_blank_scores_put_the_word_in_from_left_to_right():
    blanks = [([START, 6], [7, 8, 9], [10, END]), ([START], [11], [5, 6, END])]
    got = blank_scores(MASKED, TABLE, blanks, mask=MASK, pad=PAD, batch_tokens=64)
    first = [
        slow_masked([START, 6, MASK, 10, END], 2, 7),
        slow_masked([START, 6, 7, MASK, 10, END], 3, 8),
        slow_masked([START, 6, 7, 8, MASK, 10, END], 4, 9),
    ]
    np.testing.assert_allclose(
        got, [np.exp(first).mean(), np.exp(slow_masked([START, MASK, 5, 6, END], 1, 11))], rtol=1e-4
    )


def test_one_compilation_for_each_length():
    fresh = Split(lambda params, tokens: _causal_features(params, tokens), CAUSAL.head)
    traced.clear()
    causal_scores(fresh, TABLE, SENTENCES, start=START, batch_tokens=32)
    causal_scores(fresh, TABLE, SENTENCES[:4], start=START, batch_tokens=32)
    causal_scores(fresh, TABLE, [[5] * 8] * 30, start=START, batch_tokens=32)
    assert sorted(traced) == [(2, 16), (4, 8)]


def test_results_do_not_depend_on_company_or_batches():
    rows = causal_scores(CAUSAL, TABLE, SENTENCES, start=START, batch_tokens=32).total
    alone = [causal_scores(CAUSAL, TABLE, [s], start=START, batch_tokens=32).total[0] for s in SENTENCES]
    np.testing.assert_array_equal(rows, alone)


def test_shared_positions():
    one, other = [2, 5, 6, 7, 8, 3], [2, 5, 9, 9, 7, 8, 3]
    first, second = shared_positions(one, other)
    assert [one[i] for i in first] == [other[i] for i in second] == [2, 5, 7, 8, 3]
    assert (first, second) == ([0, 1, 3, 4, 5], [0, 1, 4, 5, 6])
    assert shared_positions([5], [6]) == ([], [])


def test_bad_input_is_named():
    with pytest.raises(ContractError, match=r"at least one token each, got 1 empty, number \[1\] first"):
        causal_scores(CAUSAL, TABLE, [[5], []], start=START)
    with pytest.raises(ContractError, match=r"`scored`: expected positions in 0..2, got \[3\]"):
        masked_scores(MASKED, TABLE, [[2, 5, 3]], mask=MASK, pad=PAD, scored=[[3]])
    with pytest.raises(ContractError, match="at most 1024 tokens each"):
        causal_scores(CAUSAL, TABLE, [[5] * 2000], start=START)
    with pytest.raises(ContractError, match="positions of 1 sentences"):
        causal_scores(CAUSAL, TABLE, [[5]], start=START, scored=[])


def test_no_rows_are_no_scores():
    assert masked_log_probabilities(MASKED, TABLE, [], pad=PAD).shape == (0,)
    assert isinstance(
        masked_scores(MASKED, TABLE, [[START, END]], mask=MASK, pad=PAD, special=[START, END]), SentenceScores
    )


def test_a_plain_apply_function_will_do():
    def apply_fn(params, tokens):
        return jnp.tanh(jnp.cumsum(params[tokens], axis=1))

    plain = Split(apply_fn, lambda params, z: z)
    want = causal_scores(CAUSAL, TABLE, SENTENCES[:1], start=START, batch_tokens=32).total
    got = causal_scores(plain, jax.tree.map(jnp.asarray, TABLE), SENTENCES[:1], start=START, batch_tokens=32).total
    np.testing.assert_allclose(got, want, rtol=1e-6)
