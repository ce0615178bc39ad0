"""Logits of GPT-2 and BERT in PyTorch, step by step from the papers, on a state dict of Hugging Face's names.

PyTorch is imported inside: it need not be there when tests are collected.
"""


def gpt2_logits(state, tokens, depth, heads, epsilon=1e-5):
    """[n t v]; Radford et al. 2019: normalise, attend to what came before, add; normalise, perceptron, add."""
    import torch
    from torch.nn import functional as f

    width = state["wte.weight"].shape[1]
    x = state["wte.weight"][tokens] + state["wpe.weight"][torch.arange(tokens.shape[1])]

    def norm(x, name):
        return f.layer_norm(x, (width,), state[f"{name}.weight"], state[f"{name}.bias"], epsilon)

    def linear(x, name):
        return x @ state[f"{name}.weight"] + state[f"{name}.bias"]

    for i in range(depth):
        q, k, v = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn").split(width, dim=-1)
        )
        mixed = f.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)
        x = x + linear(mixed, f"h.{i}.attn.c_proj")
        hidden = f.gelu(linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"), approximate="tanh")
        x = x + linear(hidden, f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f") @ state["wte.weight"].T


def bert_logits(state, tokens, depth, heads, pad=0, epsilon=1e-12):
    """[n t v]; Devlin et al. 2019: attend, add, normalise; perceptron, add, normalise; padding is never looked at."""
    import torch
    from torch.nn import functional as f

    words = state["bert.embeddings.word_embeddings.weight"]

    def norm(x, name):
        return f.layer_norm(x, (words.shape[1],), state[f"{name}.weight"], state[f"{name}.bias"], epsilon)

    def linear(x, name):
        return f.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x = words[tokens] + state["bert.embeddings.position_embeddings.weight"][torch.arange(tokens.shape[1])]
    x = norm(x + state["bert.embeddings.token_type_embeddings.weight"][0], "bert.embeddings.LayerNorm")
    seen = (tokens != pad)[:, None, None, :]
    for i in range(depth):
        name = f"bert.encoder.layer.{i}"
        q, k, v = (
            linear(x, f"{name}.attention.self.{part}").unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        mixed = f.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(-2)
        x = norm(x + linear(mixed, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        hidden = f.gelu(linear(x, f"{name}.intermediate.dense"))
        x = norm(x + linear(hidden, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    x = f.gelu(linear(x, "cls.predictions.transform.dense"))
    return norm(x, "cls.predictions.transform.LayerNorm") @ words.T + state["cls.predictions.bias"]


def random_gpt2(seed, *, vocabulary, positions, width, depth):
    """A state dict of float32 NumPy arrays, every array far from its usual initial value."""
    shapes = {
        "wte.weight": (vocabulary, width),
        "wpe.weight": (positions, width),
        "ln_f.weight": (width,),
        "ln_f.bias": (width,),
    }
    for i in range(depth):
        for name, inputs, outputs in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, 4 * width),
            ("mlp.c_proj", 4 * width, width),
        ):
            shapes |= {f"h.{i}.{name}.weight": (inputs, outputs), f"h.{i}.{name}.bias": (outputs,)}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"h.{i}.{name}.weight": (width,), f"h.{i}.{name}.bias": (width,)}
    return _drawn(seed, shapes)


def random_bert(seed, *, vocabulary, positions, width, depth, hidden):
    shapes = {
        "bert.embeddings.word_embeddings.weight": (vocabulary, width),
        "cls.predictions.bias": (vocabulary,),
        "bert.embeddings.position_embeddings.weight": (positions, width),
        "bert.embeddings.token_type_embeddings.weight": (2, width),
    }
    layers = [("cls.predictions.transform.dense", width, width)]
    norms = ["bert.embeddings.LayerNorm", "cls.predictions.transform.LayerNorm"]
    for i in range(depth):
        name = f"bert.encoder.layer.{i}"
        layers += [(f"{name}.attention.self.{part}", width, width) for part in ("query", "key", "value")]
        layers += [
            (f"{name}.attention.output.dense", width, width),
            (f"{name}.intermediate.dense", width, hidden),
            (f"{name}.output.dense", hidden, width),
        ]
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
    for name, inputs, outputs in layers:
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    for name in norms:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return _drawn(seed, shapes)


def _drawn(seed, shapes):
    import numpy as np

    rng = np.random.default_rng(seed)
    is_norm = {name for name in shapes if "ln_" in name or "LayerNorm" in name}
    return {
        name: (rng.normal(size=shape) * 0.3 + (name in is_norm and name.endswith("weight"))).astype(np.float32)
        for name, shape in shapes.items()
    }
