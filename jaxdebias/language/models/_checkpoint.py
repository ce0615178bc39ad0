"""Checkpoints of GPT-2 and BERT in the layout of Hugging Face: read and written, nothing skipped in silence.

A folder holds `config.json`, `model.safetensors` and the tokenizer's files (`tokenizer.py` reads those).
"""

import json
import pathlib
import re
import struct
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.contracts import check_choice, check_finite, describe, expect
from jaxdebias.core import Params
from jaxdebias.files import replacing, write_text
from jaxdebias.language.models._bert import BertConfig, bert
from jaxdebias.language.models._gpt2 import Gpt2Config, gpt2
from jaxdebias.language.models._json import count, read_object, share
from jaxdebias.language.models._model import LanguageModel
from jaxdebias.language.models._tokenizer import Tokenizer
from jaxdebias.models._torchvision_weights import read_safetensors

# What our modules are called there. GPT-2's blocks are h.0, h.1, ..., BERT's bert.encoder.layer.0, ...
_GPT2 = {"word": "wte", "position": "wpe", "norm": "ln_f", "output": "lm_head"}
_GPT2_BLOCK = {
    "norm_1": "ln_1",
    "qkv": "attn.c_attn",
    "out": "attn.c_proj",
    "norm_2": "ln_2",
    "mlp_1": "mlp.c_fc",
    "mlp_2": "mlp.c_proj",
}
_BERT = {
    "word": "bert.embeddings.word_embeddings",
    "position": "bert.embeddings.position_embeddings",
    "type": "bert.embeddings.token_type_embeddings",
    "norm": "bert.embeddings.LayerNorm",
    "transform": "cls.predictions.transform.dense",
    "transform_norm": "cls.predictions.transform.LayerNorm",
    "output": "cls.predictions",
}
_BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "norm_1": "attention.output.LayerNorm",
    "mlp_1": "intermediate.dense",
    "mlp_2": "output.dense",
    "norm_2": "output.LayerNorm",
}
# Masks and counters that PyTorch stores beside the weights, and heads for other tasks.
_UNUSED = re.compile(
    r"h\.\d+\.attn\.(masked_)?bias|bert\.embeddings\.(position|token_type)_ids|bert\.pooler\..*|"
    r"cls\.seq_relationship\..*"
)
# Whatever else a config may ask for changes the logits: (model type, key) -> the values that mean "as we compute it".
_ONLY = {
    ("gpt2", "activation_function"): ("gelu_new", "gelu_pytorch_tanh"),
    ("gpt2", "scale_attn_weights"): (True,),
    ("gpt2", "scale_attn_by_inverse_layer_idx"): (False,),
    ("gpt2", "add_cross_attention"): (False,),
    ("bert", "hidden_act"): ("gelu",),
    ("bert", "position_embedding_type"): ("absolute",),
    ("bert", "is_decoder"): (False,),
    ("gpt2", "tie_word_embeddings"): (True,),
    ("bert", "tie_word_embeddings"): (True,),
}


def load_checkpoint(folder: str | pathlib.Path, *, head_bias: bool = False) -> tuple[LanguageModel, Params]:
    """A GPT-2 or a BERT with its masked-token head from a local folder.

    Args:
      folder: with `config.json` and `model.safetensors`, as `save_pretrained` writes them or a download brings them:
        names with and without `transformer.`, normalisations as weight and bias or as gamma and beta. Floats of any
        width; the parameters are float32.
      head_bias: gives a GPT-2 a bias on its logits, 0 unless the file has one; see `Gpt2Config.head_bias`.

    Returns:
      The model and its params: the same tokens give the same logits as in PyTorch, to float rounding.

    Raises:
      ContractError: naming a missing file, a setting that would change the logits, or a missing, unexpected,
        mis-shaped or non-finite entry.
    """
    folder = pathlib.Path(folder)
    path = folder / "model.safetensors"
    expect((folder / "config.json").is_file(), "folder", "a folder with config.json", folder)
    expect(
        path.is_file(),
        "folder",
        "a folder with model.safetensors (in PyTorch: model.save_pretrained(folder, safe_serialization=True))",
        f"no file at {path}",
    )
    stored = read_safetensors(path)
    model = _built(read_object("config.json", (folder / "config.json").read_bytes()), head_bias, len(stored))
    arrays = _tidied(stored, model)

    template = jax.eval_shape(model.init, jax.random.key(0))
    leaves, tree = jax.tree_util.tree_flatten_with_path(template)
    names = [_name(path, model.causal) for path, _ in leaves]
    if head_bias:
        arrays.setdefault("lm_head.bias", np.zeros(model.config.vocabulary, np.float32))
    missing, unexpected = sorted(set(names) - set(arrays)), sorted(set(arrays) - set(names))
    expect(not missing, "weights", f"an entry {missing[:1]}", f"none ({len(missing)} of {len(names)} are missing)")
    hint = "; head_bias=True reads it" if unexpected == ["lm_head.bias"] else ""
    expect(
        not unexpected,
        "weights",
        "only entries of this network",
        f"{len(unexpected)} more, {unexpected[:1]} first{hint}",
    )
    filled = []
    for name, (path, leaf) in zip(names, leaves, strict=True):
        value = arrays[name].T if _transposed(path) else arrays[name]
        expect(value.shape == leaf.shape, name, f"shape {list(leaf.shape)} (layout of Flax)", describe(value))
        value = value.astype(np.float32)
        check_finite(name, value)
        filled.append(jnp.asarray(value))
    return model, jax.tree.unflatten(tree, filled)


def save_checkpoint(
    folder: str | pathlib.Path, model: LanguageModel, params: Params, tokenizer: Tokenizer | None = None
) -> None:
    """Writes `config.json`, `model.safetensors` and the tokenizer's files, in the layout that `load_checkpoint` reads.

    PyTorch's `from_pretrained(folder)` reads it too; the logits' bias of a GPT-2 with `head_bias` is an entry
    `lm_head.bias`, which it ignores with a warning.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = _name(path, model.causal)
        in_file = f"transformer.{name}" if model.causal and not name.startswith("lm_head") else name
        arrays[in_file] = np.asarray(leaf, np.float32).T if _transposed(path) else np.asarray(leaf, np.float32)
    write_safetensors(folder / "model.safetensors", arrays)
    ids = {}
    if tokenizer is not None:
        expect(
            tokenizer.size <= model.config.vocabulary,
            "tokenizer",
            f"at most vocabulary={model.config.vocabulary} entries",
            tokenizer.size,
        )
        for name, content in tokenizer.files.items():
            with replacing(folder / name) as file:
                file.write(content)
        ids = {"bos_token_id": tokenizer.start, "eos_token_id": tokenizer.end}
    write_text(folder / "config.json", json.dumps(_settings(model) | ids, indent=2))


def write_safetensors(path: str | pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A safetensors file of float32 arrays: the inverse of `read_safetensors`."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, value in arrays.items():
        expect(value.dtype == np.float32, name, "float32", describe(value))
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [start, start + value.nbytes]}
        start += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8 bytes
    data = b"".join(np.ascontiguousarray(value).tobytes() for value in arrays.values())
    with replacing(path) as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def _built(settings: dict[str, Any], head_bias: bool, entries: int) -> LanguageModel:
    """The network of a configuration, whose depth the number of `entries` of its weights bounds."""
    kind = str(settings.get("model_type"))
    check_choice("model_type in config.json", kind, ["gpt2", "bert"])
    for (of, key), values in _ONLY.items():
        if of == kind and key in settings:
            wanted = " or ".join(map(repr, values))
            expect(settings[key] in values, f"{key} in config.json", wanted, repr(settings[key])[:60])
    absent = [key for key in _KEYS[kind].values() if key not in settings]
    expect(not absent, "config.json", f"an entry {absent[:1]}", "none")
    read = {name: share if name in _SHARES else count for name in _KEYS[kind]}
    sizes = {ours: read[ours]("config.json", settings, key) for ours, key in _KEYS[kind].items()}
    depth = f"at most {entries}, the entries of model.safetensors"
    expect(sizes["depth"] <= entries, f"{_KEYS[kind]['depth']} in config.json", depth, sizes["depth"])
    whole = sizes["width"] % sizes["heads"] == 0
    got = f"{sizes['heads']} heads for width {sizes['width']}"
    expect(whole, "config.json", "a number of heads that divides the width", got)
    if kind == "bert":
        expect(not head_bias, "head_bias", "False: BERT's logits have a bias anyway", head_bias)
        rest = {
            "hidden": count("config.json", settings, "intermediate_size"),
            "types": count("config.json", settings, "type_vocab_size", 2),
            "pad": count("config.json", settings, "pad_token_id", 0, least=0),
        }
        return bert(BertConfig(**sizes, **rest))
    hidden = count("config.json", settings, "n_inner", 4 * sizes["width"])
    return gpt2(Gpt2Config(**sizes, hidden=hidden, head_bias=head_bias))


_SHARES = ("dropout", "attention_dropout", "epsilon")
_KEYS = {
    "gpt2": {
        "vocabulary": "vocab_size",
        "positions": "n_positions",
        "width": "n_embd",
        "depth": "n_layer",
        "heads": "n_head",
        "dropout": "resid_pdrop",
        "attention_dropout": "attn_pdrop",
        "epsilon": "layer_norm_epsilon",
    },
    "bert": {
        "vocabulary": "vocab_size",
        "positions": "max_position_embeddings",
        "width": "hidden_size",
        "depth": "num_hidden_layers",
        "heads": "num_attention_heads",
        "dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "epsilon": "layer_norm_eps",
    },
}


def _settings(model: LanguageModel) -> dict[str, Any]:
    """The `config.json` of a model."""
    c, kind = model.config, "gpt2" if model.causal else "bert"
    sizes = {key: getattr(c, ours) for ours, key in _KEYS[kind].items()}
    if kind == "gpt2":
        return {
            "model_type": kind,
            "architectures": ["GPT2LMHeadModel"],
            **sizes,
            "n_inner": c.hidden,
            "embd_pdrop": c.dropout,
            "activation_function": "gelu_new",
        }
    return {
        "model_type": kind,
        "architectures": ["BertForMaskedLM"],
        **sizes,
        "intermediate_size": c.hidden,
        "type_vocab_size": c.types,
        "pad_token_id": c.pad,
        "hidden_act": "gelu",
    }


def _keys(path: Any) -> list[str]:
    return [entry.key for entry in path][1:]  # the first is the collection, params


def _name(path: Any, causal: bool) -> str:
    """Where the file keeps a leaf of ours, without the prefix `transformer.` that some files of GPT-2 have."""
    *modules, leaf = _keys(path)
    top, inside, blocks = (_GPT2, _GPT2_BLOCK, "h") if causal else (_BERT, _BERT_LAYER, "bert.encoder.layer")
    where = top[modules[0]] if len(modules) == 1 else f"{blocks}.{modules[0].partition('_')[2]}.{inside[modules[1]]}"
    return f"{where}.{'bias' if leaf == 'bias' else 'weight'}"


def _transposed(path: Any) -> bool:
    """PyTorch's linear layers are [out in]; GPT-2's are [in out] as ours."""
    modules = _keys(path)
    return modules[-1] == "kernel" and not modules[0].startswith("block_")


def _tidied(arrays: Mapping[str, np.ndarray], model: LanguageModel) -> dict[str, np.ndarray]:
    """One name for each weight, without what is not a weight; what is stored twice must be the same both times."""
    tidy = {}
    for name, value in arrays.items():
        name = name.removeprefix("transformer.") if model.causal else name
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
        if not _UNUSED.fullmatch(name):
            tidy[name] = value
    twice = (
        {"lm_head.weight": "wte.weight"}
        if model.causal
        else {
            "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        }
    )
    for copy, first in twice.items():
        if copy in tidy:
            value = tidy.pop(copy)
            same = np.array_equal(value, tidy.setdefault(first, value))
            expect(same, copy, f"the same numbers as {first}: the two are one parameter", "others")
    return tidy
