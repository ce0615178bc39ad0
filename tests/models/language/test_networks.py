"""GPT-2 and BERT against PyTorch, and what padding and dropout may and may not change."""

import jax
import numpy as np
import pytest
from oracles.torch_language import bert_logits, gpt2_logits, random_bert, random_gpt2

from jaxdebias.contracts import ContractError
from jaxdebias.language.models import BertConfig, Gpt2Config, bert, gpt2, load_checkpoint, save_checkpoint
from jaxdebias.language.models._checkpoint import write_safetensors

SIZE = {"vocabulary": 23, "positions": 9, "width": 8, "depth": 2}
GPT2 = Gpt2Config(**SIZE, heads=2, hidden=32)
BERT = BertConfig(**SIZE, heads=2, hidden=12)
MODELS = {"gpt2": gpt2(GPT2), "bert": bert(BERT)}
STATES = {"gpt2": random_gpt2(0, **SIZE), "bert": random_bert(0, **SIZE, hidden=12)}
APPLY = {name: jax.jit(model.apply) for name, model in MODELS.items()}
TOKENS = np.random.default_rng(0).integers(1, 23, (3, 7)).astype(np.int32)
TOKENS[1, 5:] = 0
REAL = TOKENS != 0


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    """What `load_checkpoint` makes of the random state dicts."""
    loaded = {}
    for kind, model in MODELS.items():
        folder = tmp_path_factory.mktemp(kind)
        blank = jax.tree.map(
            lambda leaf: np.zeros(leaf.shape, np.float32), jax.eval_shape(model.init, jax.random.key(0))
        )
        save_checkpoint(folder, model, blank)  # for config.json
        write_safetensors(folder / "model.safetensors", STATES[kind])
        found, loaded[kind] = load_checkpoint(folder)
        assert found is model
    return loaded


@pytest.mark.parametrize("kind", MODELS)
def test_logits_agree_with_pytorch(kind, params, torch):
    state = {name: torch.tensor(value) for name, value in STATES[kind].items()}
    want = {"gpt2": gpt2_logits, "bert": bert_logits}[kind](state, torch.tensor(TOKENS).long(), 2, 2).numpy()
    assert want.std() > 0.5
    np.testing.assert_allclose(APPLY[kind](params[kind], TOKENS)[REAL], want[REAL], atol=1e-4)


def test_padding_reaches_no_other_position(params):
    """What padding looks like to BERT does not reach the other positions; only the logit of padding itself changes."""
    other = jax.tree.map(np.array, params["bert"])
    other["params"]["word"]["embedding"][0] += np.arange(8)
    change = np.abs(APPLY["bert"](other, TOKENS) - APPLY["bert"](params["bert"], TOKENS))
    assert change[REAL][:, 1:].max() < 1e-6
    assert change[REAL][:, 0].min() > 1e-4
    assert change[~REAL].max(axis=0)[1:].max() > 1e-2  # there it is seen


def test_gpt2_sees_what_came_before_and_bert_both_sides(params):
    other = TOKENS.copy()
    other[:, 3] = 1 + other[:, 3] % 22
    for kind, first in (("gpt2", 3), ("bert", 0)):
        change = np.abs(APPLY[kind](params[kind], other) - APPLY[kind](params[kind], TOKENS)).max(axis=(0, 2))
        assert (change[:first] == 0).all()
        assert (change[first:5] > 1e-6).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_dropout_is_in_training_only(kind, params, key):
    train = jax.jit(MODELS[kind].train)
    one, same = (train(key, params[kind], TOKENS) for _ in range(2))
    other = train(jax.random.key(5), params[kind], TOKENS)
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
    assert np.abs(one - APPLY[kind](params[kind], TOKENS)).max() > 1e-3


@pytest.mark.slow
def test_initial_values():
    """Small and random, so that a new model knows nothing: every token is nearly as probable as any other."""
    model = MODELS["gpt2"]
    logits = jax.jit(lambda key: model.apply(model.init(key), TOKENS))(jax.random.key(0))
    assert 1e-3 < float(np.std(logits)) < 0.3


def test_builders_return_the_same_object_for_equal_configs():
    assert gpt2(Gpt2Config(**SIZE, heads=2, hidden=32)) is MODELS["gpt2"]
    assert bert(BertConfig(**SIZE, heads=4, hidden=12)) is not MODELS["bert"]


def test_bad_input_is_named(params):
    with pytest.raises(ContractError, match=r"`tokens`: expected rows of at most 9 tokens, got int32 \[1, 10\]"):
        MODELS["bert"].apply(params["bert"], np.zeros((1, 10), np.int32))
    with pytest.raises(ContractError, match=r"`tokens`: expected int \[n t\], got float32 \[1, 3\]"):
        MODELS["gpt2"].apply(params["gpt2"], np.zeros((1, 3), np.float32))
    with pytest.raises(ContractError, match="a multiple of heads=3"):
        gpt2(Gpt2Config(width=8, heads=3))
    with pytest.raises(ContractError, match="`dropout`"):
        bert(BertConfig(dropout=1.0))
