import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.language import OccupationText, occupation_text
from jaxdebias.language.models import BertConfig, Gpt2Config, bert, causal_loss, gpt2, masked_loss, word_tokenizer

TOKENS = np.array([[2, 5, 6, 7, 3, 0], [2, 7, 3, 0, 0, 0]], np.int32)
LOGITS = np.random.default_rng(0).normal(size=(2, 6, 9)).astype(np.float32)
SPECIAL = frozenset({0, 2, 3, 4})


def table(model):
    """The model with logits that do not depend on its parameters, but on what it is shown: 10 * one-hot of the token,
    plus the table."""

    def apply(params, tokens):
        return params[: tokens.shape[0], : tokens.shape[1]] + 10.0 * jax.nn.one_hot(tokens, 9)

    return model._replace(apply=apply, train=lambda key, params, tokens: apply(params, tokens))


def log_softmax(logits):
    return logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))


def test_causal_loss_by_hand():
    model = table(gpt2(Gpt2Config(vocabulary=9, positions=8, width=4, depth=1, heads=1, hidden=4)))
    loss = jax.jit(lambda params: causal_loss(model, params, TOKENS, pad=0))(LOGITS)
    log_p = log_softmax(LOGITS + 10.0 * np.eye(9)[TOKENS])
    want = [-sum(log_p[row, i, TOKENS[row, i + 1]] for i in range(last)) for row, last in ((0, 4), (1, 2))]
    np.testing.assert_allclose(loss.total, want, rtol=1e-5)
    np.testing.assert_array_equal(loss.count, [4, 2])


@pytest.mark.slow
def test_masked_loss_hides_the_share_and_nothing_special(key):
    model = table(bert(BertConfig(vocabulary=9, positions=8, width=4, depth=1, heads=1, hidden=4)))
    tokens = np.full((400, 6), 6, np.int32)
    tokens[:, 0], tokens[:, 5] = 2, 0
    blank = np.zeros((400, 6, 9), np.float32)
    loss = jax.jit(lambda params: masked_loss(key, model, params, tokens, mask=4, special=SPECIAL, share=0.5))(blank)
    assert abs(float(loss.count.mean()) - 2.0) < 0.15  # half of four
    # A token that is shown costs nothing, one that is hidden 10: 80 % masked, and 10 % * 8/9 replaced by another one.
    hidden = loss.total.sum() / 10 / loss.count.sum()
    assert abs(float(hidden) - (0.8 + 0.1 * 8 / 9)) < 0.03


def test_the_wrong_model_is_refused(key):
    causal = gpt2(Gpt2Config(vocabulary=9, positions=8, width=4, depth=1, heads=1, hidden=4))
    with pytest.raises(ContractError, match="a masked one"):
        masked_loss(key, causal, {}, TOKENS, mask=4, special=SPECIAL)
    with pytest.raises(ContractError, match="a causal one"):
        causal_loss(bert(BertConfig(vocabulary=9, positions=8, width=4, depth=1, heads=1, hidden=4)), {}, TOKENS, pad=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_small_model_learns_generated_text(kind, key):
    """On a CPU, from scratch: far better than guessing words by their frequency."""
    texts = [sentence.text for sentence in occupation_text(OccupationText(sentences=1024), seed=0)]
    tokenizer = word_tokenizer(texts)
    tokens = jnp.asarray(tokenizer.rows(texts, length=16))
    size = {
        "vocabulary": tokenizer.size,
        "positions": 16,
        "width": 32,
        "depth": 2,
        "heads": 2,
        "hidden": 64,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }
    model = gpt2(Gpt2Config(**size)) if kind == "gpt2" else bert(BertConfig(**size))
    optimizer = optax.adam(3e-3)

    def mean_loss(params, key, rows):
        loss = (
            causal_loss(model, params, rows, pad=tokenizer.pad)
            if model.causal
            else masked_loss(key, model, params, rows, mask=tokenizer.mask, special=tokenizer.special)
        )
        return loss.total.sum() / loss.count.sum()

    @jax.jit
    def fit(key):
        params = model.init(key)

        def step(carry, key_step):
            params, state = carry
            rows = tokens[jax.random.randint(key_step, (32,), 0, len(tokens))]
            loss, gradient = jax.value_and_grad(mean_loss)(params, key_step, rows)
            update, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, update), state), loss

        return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, 400))[1]

    losses = np.asarray(fit(key))
    words = np.asarray(tokens)[np.asarray(tokens) > 4]
    share = np.bincount(words) / len(words)
    unigram = -(share[share > 0] * np.log(share[share > 0])).sum()
    assert losses[-40:].mean() < 0.5 * unigram
