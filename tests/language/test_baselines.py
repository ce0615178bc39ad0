"""Fine-tuning and projection of language models: what they train on, what they choose, what they take out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.language import (
    LanguageTuningConfig,
    counterfactual_texts,
    language_erm,
    language_projection,
    language_tuning,
)
from jaxdebias.language._baselines import projected, sentence_directions, with_dropout
from jaxdebias.language._datasets import SentencePair
from jaxdebias.language._training import token_batch
from jaxdebias.language.models import small_language_model, word_tokenizer
from jaxdebias.train import Optimizer

TEXTS = ["the nurse said she left", "the smith said he left", "it rained"]
PAIRS = [
    SentencePair("the nurse said she left", "the nurse said he left", "nurse"),
    SentencePair("the smith said he left", "the smith said she left", "smith"),
]
TOKENIZER = word_tokenizer(TEXTS)


def drawn(model):
    """Random params, without the compilations of `init`."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape) + (leaf.ndim == 1), jnp.float32),
        jax.eval_shape(model.init, jax.random.key(0)),
    )


def small(kind):
    return small_language_model(kind, TOKENIZER.size, positions=8, width=8, depth=1, heads=2)


def test_texts_are_swapped_and_joined():
    assert counterfactual_texts(TEXTS) == [*TEXTS, "the nurse said he left", "the smith said she left"]


def test_more_dropout_takes_the_same_params():
    model = small("bert")
    wild = with_dropout(model, 0.9, 0.5)
    assert (wild.config.dropout, wild.config.attention_dropout) == (0.9, 0.5)
    assert with_dropout(model, 0.0, 0.0) is model
    params, tokens = drawn(model), jnp.asarray(TOKENIZER.rows(TEXTS, length=8))
    np.testing.assert_allclose(wild.apply(params, tokens), model.apply(params, tokens), atol=1e-6)
    assert not np.allclose(wild.train(jax.random.key(0), params, tokens), model.apply(params, tokens), atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_step_of_training_lowers_the_loss_of_its_batch(kind):
    model, batch = small(kind), token_batch(TOKENIZER, TEXTS, length=8)
    learner = language_erm(model, TOKENIZER, Optimizer(learning_rate=1e-2), share=0.5)
    assert learner is language_erm(model, TOKENIZER, Optimizer(learning_rate=1e-2), share=0.5)
    assert batch.x.dtype == np.float32
    state = learner.init(jax.random.key(0), batch)
    step = jax.jit(lambda state: learner.step(jax.random.key(1), state, batch))  # the same tokens hidden each time
    losses = []
    for _ in range(4):
        state, info = step(state)
        losses.append(float(info["loss"]))
    assert losses[-1] < losses[0]
    # A row of weight 0 does not count.
    some = batch._replace(weight=np.array([1.0, 1.0, 0.0], np.float32))
    other = some._replace(x=np.concatenate([some.x[:2], some.x[:1]]))
    with jax.disable_jit(False):
        gained = [float(learner.step(jax.random.key(1), state, one)[1]["loss"]) for one in (some, other)]
    if kind == "gpt2":
        assert gained[0] == pytest.approx(gained[1], rel=1e-6)


def test_tuning_keeps_the_best_that_it_may(monkeypatch):
    model = small("gpt2")
    params = drawn(model)
    config = LanguageTuningConfig(learning_rates=(1e-2, 1e-3), steps=2, looks=2, batch_size=4, length=8, perplexity=1e6)
    _, info = language_tuning(jax.random.key(0), model, TOKENIZER, params, TEXTS, TEXTS, PAIRS, config)
    assert list(info.bias) == [
        "as it is",
        "rate 0.01, 2 steps",
        "rate 0.01, 4 steps",
        "rate 0.001, 2 steps",
        "rate 0.001, 4 steps",
    ]
    assert info.bias[info.chosen] == min(info.bias.values())
    assert len({round(value, 7) for value in info.perplexity.values()}) == 5
    # With nothing to spend, and perplexity on a text that the tuning makes worse, the model stays as it is.
    config = LanguageTuningConfig(learning_rates=(1e-2,), steps=2, looks=1, batch_size=4, length=8, perplexity=0.0)
    monkeypatch.setattr("jaxdebias.language._baselines.least_bias", lambda bias, nll, ceiling: 0)
    same, info = language_tuning(jax.random.key(0), model, TOKENIZER, params, TEXTS, TEXTS, PAIRS, config)
    assert same is params
    assert info.chosen == "as it is"


def test_what_is_projected_out_is_gone():
    model = small("gpt2")
    params = drawn(model)
    found = sentence_directions(model, TOKENIZER, params, PAIRS, 2)
    np.testing.assert_allclose(found @ found.T, np.eye(2), atol=1e-5)
    tokens = jnp.asarray(TOKENIZER.rows(TEXTS, length=8))
    split = projected(model)
    z = split.features((params, found), tokens)
    np.testing.assert_allclose(jnp.einsum("ntd,cd->ntc", z, found), np.zeros((3, 8, 2)), atol=1e-4)
    np.testing.assert_allclose(
        split.head((params, jnp.zeros_like(found)), model.split.features(params, tokens)),
        model.apply(params, tokens),
        atol=1e-5,
    )
    # Two directions hold the mean differences of two pairs: nothing of them is left.
    mean = [
        np.asarray(model.split.features(params, jnp.asarray(TOKENIZER.rows([one, two], length=7)))).mean(1)
        for one, two, *_ in PAIRS
    ]
    rest = np.stack([one[0] - one[1] for one in mean])
    np.testing.assert_allclose(rest - rest @ np.asarray(found).T @ np.asarray(found), np.zeros_like(rest), atol=1e-4)
    with pytest.raises(ContractError, match="`count`"):
        sentence_directions(model, TOKENIZER, params, PAIRS, 3)


def test_projection_chooses_by_the_rule():
    model = small("gpt2")
    params = drawn(model)
    _, (same, directions), info = language_projection(
        model, TOKENIZER, params, PAIRS, TEXTS, PAIRS, counts=(1, 2), perplexity=1e6
    )
    assert same is params
    assert list(info.bias) == ["as it is", "1 directions", "2 directions"]
    assert info.bias[info.chosen] == min(info.bias.values())
    assert int((np.abs(np.asarray(directions)).sum(1) > 0).sum()) == list(info.bias).index(info.chosen)
