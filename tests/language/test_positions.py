"""Positions of texts and pairs against plain loops, and that a sum over them is what `measure` computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.language import (
    Scorer,
    pair_differences,
    pair_positions,
    pair_scores,
    position_features,
    text_positions,
    text_scores,
    token_block,
)
from jaxdebias.language._datasets import SentencePair
from jaxdebias.language.models import small_language_model, word_tokenizer

TEXTS = ["the nurse said that she was late.", "a chef left."]
PAIRS = [
    SentencePair("the nurse said that she was late.", "the nurse said that he was late.", "nurse"),
    SentencePair("she left.", "the chef left.", "chef"),
    SentencePair("he was late.", "she was late.", "chef"),
]
TOKENIZER = word_tokenizer([*TEXTS, "he"])
MODELS = {
    kind: small_language_model(kind, TOKENIZER.size, positions=16, width=8, depth=2, heads=2)
    for kind in ("gpt2", "bert")
}


def drawn(model):
    """Random params, without the compilations of `init`."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray((0.5 * rng.normal(size=leaf.shape) + (leaf.ndim == 1)), jnp.float32),
        jax.eval_shape(model.init, jax.random.key(0)),
    )


PARAMS = {kind: drawn(model) for kind, model in MODELS.items()}


def log_p(kind, positions):
    """log p(token) at every position, by the whole model."""
    model, params = MODELS[kind], PARAMS[kind]
    logits = np.asarray(model.apply(params, jnp.asarray(positions.tokens)), np.float64)
    logits = logits[positions.row, positions.place]
    return logits[np.arange(len(logits)), positions.token] - np.log(np.exp(logits).sum(1))


def test_positions_of_a_causal_model_are_what_comes_next():
    positions = text_positions(MODELS["gpt2"], TOKENIZER, TEXTS)
    rows = [[2, *TOKENIZER.encode(text), 3] for text in TEXTS]
    want = [(i, place, row[place + 1]) for i, row in enumerate(rows) for place in range(len(row) - 1)]
    got = list(zip(positions.text.tolist(), positions.place.tolist(), positions.token.tolist(), strict=True))
    assert got == want
    assert positions.tokens[1, :5].tolist() == rows[1][:5]
    short = text_positions(MODELS["gpt2"], TOKENIZER, TEXTS, end=False)
    assert len(short.token) == len(positions.token) - 2
    assert 3 not in short.token


def test_positions_of_a_masked_model_hide_one_token_each():
    positions = text_positions(MODELS["bert"], TOKENIZER, TEXTS)
    tokens = [TOKENIZER.encode(text) for text in TEXTS]
    assert positions.token.tolist() == [*tokens[0], *tokens[1]]
    for m in range(len(positions.token)):
        shown = positions.tokens[positions.row[m]].copy()
        assert shown[positions.place[m]] == TOKENIZER.mask
        shown[positions.place[m]] = positions.token[m]
        framed = TOKENIZER.framed(TEXTS[positions.text[m]])
        assert shown[: len(framed)].tolist() == framed


@pytest.mark.parametrize("kind", MODELS)
def test_sums_over_positions_are_the_scores_of_measure(kind):
    scorer = Scorer(MODELS[kind].split, PARAMS[kind], TOKENIZER, MODELS[kind].causal, 16)
    pairs = pair_positions(MODELS[kind], TOKENIZER, PAIRS)
    got = np.bincount(pairs.pair, pairs.weight * log_p(kind, pairs.positions))
    want = pair_differences(*pair_scores(scorer, PAIRS))
    assert np.abs(want).min() > 1e-4
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert pairs.unit.tolist() == [1, 0, 0]
    texts = text_positions(MODELS[kind], TOKENIZER, TEXTS, end=False)
    np.testing.assert_allclose(np.bincount(texts.text, log_p(kind, texts)), text_scores(scorer, TEXTS).total, rtol=1e-4)


def test_what_both_sentences_begin_with_is_left_out():
    pairs = pair_positions(MODELS["gpt2"], TOKENIZER, PAIRS[:1])
    same = TOKENIZER.encode("the nurse said that")
    assert pairs.positions.place.min() == len(same)
    # Sentences of different lengths have different weights: there nothing cancels.
    assert pair_positions(MODELS["gpt2"], TOKENIZER, PAIRS[1:2]).positions.place.min() == 0


@pytest.mark.parametrize(("kind", "block"), [("gpt2", "top"), ("bert", "transform"), ("gpt2", "further down")])
def test_the_head_of_a_block_gives_the_logits_of_the_model(kind, block):
    model, params = MODELS[kind], PARAMS[kind]
    where = ["params/block_0/mlp_1/kernel"] if block == "further down" else block
    head, features, replace = token_block(model, params, where)
    positions = text_positions(model, TOKENIZER, TEXTS)
    want = np.asarray(model.apply(params, jnp.asarray(positions.tokens)))[positions.row, positions.place]
    np.testing.assert_allclose(head.logits(features(params, positions)), want, atol=2e-4)
    moved = replace(params, head.at({name: leaf + 0.1 for name, leaf in head.theta.items()}))
    names = {
        jax.tree_util.keystr(path, simple=True, separator="/"): one is not other
        for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(moved), strict=True)
    }
    assert {name for name, new in names.items() if new} == {name for name, _ in head.layers}
    want = np.asarray(model.apply(moved, jnp.asarray(positions.tokens)))[positions.row, positions.place]
    again = token_block(model, moved, where)
    np.testing.assert_allclose(again[0].logits(again[1](moved, positions)), want, atol=2e-4)


def test_features_do_not_depend_on_padding():
    model, params = MODELS["bert"], PARAMS["bert"]
    both = position_features(model, params, text_positions(model, TOKENIZER, TEXTS))
    alone = position_features(model, params, text_positions(model, TOKENIZER, TEXTS[1:]))
    np.testing.assert_allclose(both[-len(alone) :], alone, atol=1e-5)


def test_bad_pairs_are_named():
    model = MODELS["bert"]
    for pair, said in (
        (SentencePair("the nurse", "the nurse", "x"), "two sentences that differ"),
        (SentencePair("she", "he", "x"), "at least one token to score"),
        (SentencePair("the " * 20, "he", "x"), "at most 16 tokens, got 22"),
    ):
        with pytest.raises(ContractError, match=said):
            pair_positions(model, TOKENIZER, [pair])
    with pytest.raises(ContractError, match="at least one token each, got 1 empty"):
        text_positions(model, TOKENIZER, ["", "she"])
    with pytest.raises(ContractError, match="did you mean 'transform'"):
        token_block(model, PARAMS["bert"], "transfrom")
