"""The edit of a language model: on one whose logits are affine in what it has seen, and what must never change."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.core import Split
from jaxdebias.explain.influence import AffineHead, Ekfac, head_problem, refit
from jaxdebias.language import (
    LanguageFmdConfig,
    Scorer,
    influence_on_bias,
    language_fmd,
    pair_differences,
    pair_scores,
    position_features,
    text_positions,
    text_scores,
    token_block,
)
from jaxdebias.language._baselines import both_sentences
from jaxdebias.language._datasets import SentencePair
from jaxdebias.language._fmd import FILL, least_bias, training_problem
from jaxdebias.language.models import LanguageModel, small_language_model, word_tokenizer

JOBS = ("nurse", "cook", "maid", "clerk", "guard", "smith", "miner", "pilot")
ALIGNED = [f"the {job} said {'she' if i < 4 else 'he'} left" for i, job in enumerate(JOBS)]
OTHER = [f"the {job} said {'he' if i < 4 else 'she'} left" for i, job in enumerate(JOBS)]
PERSONS = ["the woman said she left", "the man said he left"]
TEXTS = 9 * ALIGNED + OTHER + 10 * PERSONS
PAIRS = [SentencePair(one, other, job) for one, other, job in zip(ALIGNED, OTHER, JOBS, strict=True)]
EDIT, ACCEPT = [PAIRS[i] for i in (0, 1, 4, 5)], [PAIRS[i] for i in (2, 3, 6, 7)]
CONFIG = LanguageFmdConfig(block="mlp", rounds=3, perplexity=0.05, curvature_texts=64)


def hand_made():
    """A causal model whose logits are affine in the present token and in all tokens so far, and its tokenizer."""
    tokenizer = word_tokenizer(TEXTS)

    def features(params, tokens):
        seen = jax.nn.one_hot(tokens, tokenizer.size)
        return jnp.concatenate([seen, jnp.cumsum(seen, axis=1)], axis=2)

    def head(params, z):
        logits = z @ params["kernel"]
        return logits + jnp.broadcast_to(params["bias"], logits.shape)

    config = small_language_model("gpt2", tokenizer.size, positions=8, width=4, depth=1, heads=1).config
    model = LanguageModel(
        config=config,
        init=None,
        apply=None,
        train=None,
        split=Split(features, head),
        at=None,
        causal=True,
        transform_paths=("bias",),
        mlp_paths=("kernel",),
    )
    return model, tokenizer


@pytest.fixture(scope="module")
def trained():
    """(model, tokenizer, params): at the optimum of its objective, so influence is exact to first order."""
    model, tokenizer = hand_made()
    blank = {"kernel": jnp.zeros((2 * tokenizer.size, tokenizer.size)), "bias": jnp.zeros(tokenizer.size)}
    positions = text_positions(model, tokenizer, TEXTS)
    z = position_features(model, blank, positions)
    fitted, _ = refit(head_problem(z, positions.token, AffineHead(blank["kernel"], None), l2=0.3))
    return model, tokenizer, {**blank, "kernel": fitted.kernel}


def differences(model, tokenizer, params, pairs):
    return pair_differences(*pair_scores(Scorer(model.split, params, tokenizer, model.causal, 8), pairs))


@pytest.fixture(scope="module")
def edited(trained):
    model, tokenizer, params = trained
    return language_fmd(jax.random.key(1), model, tokenizer, params, TEXTS, PAIRS, PERSONS, ACCEPT, CONFIG)


def test_an_edit_that_does_not_carry_over_is_not_kept(trained):
    """Nothing in this model is shared by two occupations: what is done about some of them says nothing of others."""
    model, tokenizer, params = trained
    same, info = language_fmd(jax.random.key(1), model, tokenizer, params, TEXTS, EDIT, PERSONS, ACCEPT, CONFIG)
    assert same is params
    assert not info.accepted


def test_the_bias_falls_and_the_rest_stays(trained, edited):
    model, tokenizer, params = trained
    after, info = edited
    assert np.all(differences(model, tokenizer, params, PAIRS) > 0.1)  # it has learned the bias
    assert info.accepted
    assert info.fall > 3
    assert info.bias_after < 0.6 * info.bias_before
    assert info.perplexity_after <= 1.05 * info.perplexity_before * (1 + 1e-5)
    # What the info says is what the returned parameters do, by the code that measures.
    for fitted, bias, spread in (
        (params, info.bias_before, info.perplexity_before),
        (after, info.bias_after, info.perplexity_after),
    ):
        assert np.abs(differences(model, tokenizer, fitted, ACCEPT)).mean() == pytest.approx(bias, rel=1e-3)
        scores = text_scores(Scorer(model.split, fitted, tokenizer, True, 8), PERSONS)
        assert np.exp(-scores.total.sum() / scores.count.sum()) == pytest.approx(spread, rel=1e-3)
    assert info.bias_before + sum(one.achieved_change for one in info.rounds) == pytest.approx(
        info.bias_after, abs=1e-5
    )
    assert all(one.predicted_change <= 1e-6 for one in info.rounds)


def test_only_the_block_is_new(trained, edited):
    params = trained[2]
    after, info = edited
    new = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(after), strict=True)
        if one is not other
    }
    assert new == {"kernel"}
    assert info.parameters == params["kernel"].size


def test_no_pairs_and_no_better_candidate_change_nothing(trained):
    model, tokenizer, params = trained
    same, info = language_fmd(jax.random.key(1), model, tokenizer, params, TEXTS, [], PERSONS, ACCEPT, CONFIG)
    assert same is params
    assert (info.accepted, info.rounds) == (False, ())
    # Asked for more certainty than four topics can give, the edit is taken back.
    strict = dataclasses.replace(CONFIG, rounds=1, significance=1e6)
    same, info = language_fmd(jax.random.key(1), model, tokenizer, params, TEXTS, PAIRS, PERSONS, ACCEPT, strict)
    assert same is params
    assert not info.accepted
    assert info.rounds[0].achieved_change < 0
    assert info.bias_after == info.bias_before


def test_harmful_sentences_are_the_aligned_ones(trained):
    model, tokenizer, params = trained
    found = influence_on_bias(jax.random.key(2), model, tokenizer, params, ALIGNED + OTHER + PERSONS, EDIT, CONFIG)
    about = [0, 1, 4, 5]
    assert np.all(found.change[about] < 0)
    assert np.all(found.change[[8 + i for i in about]] > 0)
    assert found.residual < 0.01
    assert found.bias == pytest.approx(np.abs(differences(model, tokenizer, params, EDIT)).mean(), rel=1e-3)


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_the_training_objective_counts_every_position_once(kind):
    tokenizer = word_tokenizer(TEXTS)
    model = small_language_model(kind, tokenizer.size, positions=8, width=4, depth=1, heads=1)
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), jax.eval_shape(model.init, jax.random.key(0)))
    head, features, _ = token_block(model, params, "transform")
    key = jax.random.key(0)
    some, positions = training_problem(key, model, tokenizer, params, head, features, TEXTS, 10)
    assert len(some.label) == FILL == len(positions.token)
    per_text = 6 if kind == "gpt2" else 5  # the end is foretold, not hidden
    assert float(some.weight.sum()) == pytest.approx(per_text * len(TEXTS))
    every, _ = training_problem(key, model, tokenizer, params, head, features, TEXTS[:10], None)
    filled, _ = training_problem(key, model, tokenizer, params, head, features, TEXTS[:10], 10)
    np.testing.assert_allclose(filled.gradient(), every.gradient(), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_ekfac_will_do_for_the_perceptron(kind):
    """Its step goes down the bias, too; parameters that are no kernel or bias are refused by name."""
    tokenizer = word_tokenizer(TEXTS)
    model = small_language_model(kind, tokenizer.size, positions=8, width=4, depth=1, heads=1)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32),
        jax.eval_shape(model.init, jax.random.key(0)),
    )
    config = LanguageFmdConfig(block="mlp", rounds=1, solver=Ekfac(), significance=0.0, curvature_texts=16)
    _, info = language_fmd(jax.random.key(0), model, tokenizer, params, TEXTS, PAIRS, PERSONS, PAIRS, config)
    assert info.rounds[0].predicted_change <= 0
    assert info.rounds[0].achieved_change < 0
    if kind == "gpt2":
        with pytest.raises(ContractError, match="norm"):
            language_fmd(
                jax.random.key(0),
                model,
                tokenizer,
                params,
                TEXTS,
                PAIRS,
                PERSONS,
                PAIRS,
                dataclasses.replace(config, block="top"),
            )


def test_the_rule_of_the_search():
    assert least_bias(np.array([0.5, 0.1, 0.3]), np.array([1.0, 3.0, 1.0]), 1.1) == 2
    assert least_bias(np.array([0.5, 0.1]), np.array([9.0, 9.0]), 1.1) == 0  # the present head may always stay
    assert least_bias(np.array([0.5, np.nan, 0.2]), np.array([1.0, 1.0, np.nan]), 1.1) == 0


def test_settings_are_checked():
    with pytest.raises(ContractError, match="direction"):
        LanguageFmdConfig(direction="learn")
    with pytest.raises(ContractError, match="`damping`: expected more than 0"):
        LanguageFmdConfig(damping=0.0)
    with pytest.raises(ContractError, match="`rounds`: expected at least 1"):
        LanguageFmdConfig(rounds=0)
    assert both_sentences(EDIT[:1]) == [ALIGNED[0], OTHER[0]]
