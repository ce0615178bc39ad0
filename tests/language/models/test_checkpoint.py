"""Checkpoint folders: round trips, names of other writers, what is refused, and PyTorch's own reader."""

import json

import jax
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.language.models import (
    BertConfig,
    Gpt2Config,
    bert,
    gpt2,
    load_checkpoint,
    read_tokenizer,
    save_checkpoint,
    word_tokenizer,
)
from jaxdebias.language.models._checkpoint import write_safetensors
from jaxdebias.models._torchvision_weights import read_safetensors

SIZE = {"vocabulary": 17, "positions": 8, "width": 4, "depth": 2, "heads": 2}
MODELS = {"gpt2": gpt2(Gpt2Config(**SIZE, hidden=16)), "bert": bert(BertConfig(**SIZE, hidden=6))}
TOKENS = np.array([[2, 5, 7, 16, 3], [2, 9, 3, 0, 0]], np.int32)


@pytest.fixture(params=list(MODELS))
def saved(request, tmp_path):
    """(model, params, folder)"""
    model = MODELS[request.param]
    params = drawn(model)
    save_checkpoint(tmp_path, model, params)
    return model, params, tmp_path


def drawn(model):
    """Random params, without the compilations of `init`."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: (0.5 * rng.normal(size=leaf.shape)).astype(np.float32),
        jax.eval_shape(model.init, jax.random.key(0)),
    )


def equal(one, other):
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def rewrite(folder, change):
    arrays = dict(read_safetensors(folder / "model.safetensors"))
    change(arrays)
    write_safetensors(folder / "model.safetensors", arrays)


def test_what_is_saved_comes_back(saved):
    model, params, folder = saved
    loaded, again = load_checkpoint(folder)
    assert loaded is model
    assert equal(params, again)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_safetensors_library_reads_what_we_write(saved):
    load_file = pytest.importorskip("safetensors.numpy").load_file
    ours = read_safetensors(saved[2] / "model.safetensors")
    theirs = load_file(saved[2] / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_names_of_other_writers(saved):
    model, params, folder = saved

    def older(arrays):
        for name, value in list(arrays.items()):
            new = name.removeprefix("transformer.").replace("LayerNorm.weight", "LayerNorm.gamma")
            arrays[new.replace("LayerNorm.bias", "LayerNorm.beta")] = arrays.pop(name)
            if name.endswith(("wte.weight", "word_embeddings.weight")):
                arrays["lm_head.weight" if model.causal else "cls.predictions.decoder.weight"] = value
        if model.causal:
            arrays["h.0.attn.bias"] = np.ones((1, 1, 8, 8), np.float32)
            arrays["h.0.attn.masked_bias"] = np.float32(-1e4).reshape(())
        else:
            arrays["cls.predictions.decoder.bias"] = arrays["cls.predictions.bias"]
            arrays["bert.pooler.dense.weight"] = np.ones((4, 4), np.float32)
            arrays["cls.seq_relationship.bias"] = np.ones(2, np.float32)

    rewrite(folder, older)
    assert equal(load_checkpoint(folder)[1], params)


def test_wrong_entries_are_named(saved):
    model, _, folder = saved
    norm, word = (
        ("transformer.ln_f.bias", "transformer.wte.weight")
        if model.causal
        else ("bert.embeddings.LayerNorm.bias", "bert.embeddings.word_embeddings.weight")
    )
    kept = (folder / "model.safetensors").read_bytes()
    copy = "lm_head.weight" if model.causal else "cls.predictions.decoder.weight"
    for change, message in (
        (lambda arrays: arrays.pop(norm), "expected an entry .*none .1 of"),
        (lambda arrays: arrays.update(extra=np.zeros(2, np.float32)), r"1 more, \['extra'\]"),
        (lambda arrays: arrays.update({norm: np.zeros(5, np.float32)}), r"bias`: expected shape \[4\]"),
        (lambda arrays: arrays.update({norm: np.full(4, np.nan, np.float32)}), "finite values, got 4 of 4"),
        (lambda arrays: arrays.update({copy: arrays[word] + 1}), "the two are one parameter"),
    ):
        (folder / "model.safetensors").write_bytes(kept)
        rewrite(folder, change)
        with pytest.raises(ContractError, match=message):
            load_checkpoint(folder)


def test_settings_that_change_the_logits_are_refused(saved):
    model, _, folder = saved
    settings = json.loads((folder / "config.json").read_text())
    key, value = ("activation_function", "relu") if model.causal else ("position_embedding_type", "relative_key")
    for wrong, message in (
        ({key: value}, f"{key} in config.json"),
        ({"model_type": "gpt3"}, "did you mean 'gpt2'"),
        ({"tie_word_embeddings": False}, "expected True"),
    ):
        (folder / "config.json").write_text(json.dumps(settings | wrong))
        with pytest.raises(ContractError, match=message):
            load_checkpoint(folder)
    del settings["vocab_size"]
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ContractError, match=r"expected an entry \['vocab_size'\]"):
        load_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ContractError, match=r"model\.safetensors"):
        load_checkpoint(folder)


def test_head_bias_of_gpt2(tmp_path):
    plain = MODELS["gpt2"]
    params = drawn(plain)
    save_checkpoint(tmp_path, plain, params)
    model, wider = load_checkpoint(tmp_path, head_bias=True)
    np.testing.assert_array_equal(wider["params"]["output"]["bias"], np.zeros(17))
    wider["params"]["output"]["bias"] = np.arange(17, dtype=np.float32)
    save_checkpoint(tmp_path, model, wider)
    assert equal(load_checkpoint(tmp_path, head_bias=True)[1], wider)
    with pytest.raises(ContractError, match="head_bias=True reads it"):
        load_checkpoint(tmp_path)


def test_tokenizer_travels_with_the_model(saved):
    model, params, folder = saved
    tokenizer = word_tokenizer(["the nurse said that she was late."])
    save_checkpoint(folder, model, params, tokenizer)
    again = read_tokenizer(folder)
    assert again.encode("she was a nurse") == tokenizer.encode("she was a nurse")
    with pytest.raises(ContractError, match="at most vocabulary=17"):
        save_checkpoint(folder, model, params, word_tokenizer([" ".join(f"w{i}" for i in range(20))]))


@pytest.mark.slow
def test_logits_agree_with_transformers(saved, torch):
    """Both ways: their reader on our folder, our reader on theirs."""
    transformers = pytest.importorskip("transformers")
    model, params, folder = saved
    kind = transformers.AutoModelForCausalLM if model.causal else transformers.AutoModelForMaskedLM
    theirs = kind.from_pretrained(folder).eval()
    real = TOKENS != 0

    def logits():
        with torch.no_grad():
            return theirs(torch.tensor(TOKENS).long(), attention_mask=torch.tensor(real)).logits.numpy()

    ours = jax.jit(model.apply)(params, TOKENS)
    assert np.std(ours) > 0.3
    np.testing.assert_allclose(ours[real], logits()[real], atol=1e-4)

    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    theirs.save_pretrained(folder / "theirs", safe_serialization=True)
    loaded, again = load_checkpoint(folder / "theirs")
    assert loaded is model
    np.testing.assert_allclose(jax.jit(loaded.apply)(again, TOKENS)[real], logits()[real], atol=1e-4)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 665\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, r"`config.json`: expected a JSON file, got a Git LFS pointer \(run `git lfs pull`"),
        ("<html>", r"`config.json`: expected a JSON file, got Expecting value"),
        ("", r"`config.json`: expected a JSON file"),
        ("[]", r"`config.json`: expected a JSON object \{...\}, got list"),
        ("null", r"`config.json`: expected a JSON object \{...\}, got NoneType"),
        ('{"a": ' * 100000, r"`config.json`: expected a JSON file"),
    ],
)
def test_what_is_no_configuration_is_one_line(saved, content, message):
    folder = saved[2]
    (folder / "config.json").write_text(content)
    with pytest.raises(ContractError, match=message) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, "12", 1.5, True, 0, -3, [1], {}])
def test_sizes_that_are_no_numbers_are_named(saved, value):
    model, _, folder = saved
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    for key in (
        ("n_head", "n_layer", "n_embd", "vocab_size") if model.causal else ("num_attention_heads", "hidden_size")
    ):
        path.write_text(json.dumps({**settings, key: value}))
        with pytest.raises(ContractError, match=rf"`{key} in config.json`: expected a whole number of at least 1, got"):
            load_checkpoint(folder)


def test_a_byte_order_mark_is_no_letter(saved):
    _, params, folder = saved
    path = folder / "config.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert equal(load_checkpoint(folder)[1], params)
