"""GPT-2: a causal transformer with normalisation before each part and the embedding as head (Radford et al. 2019)."""

import functools
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdebias.language.models._model import (
    LanguageModel,
    LanguageNetwork,
    attention,
    check_length,
    check_sizes,
    language_model,
)


@dataclass(frozen=True, kw_only=True)
class Gpt2Config:
    """Sizes; the defaults are those of the checkpoint `gpt2`."""

    vocabulary: int = 50257
    positions: int = 1024
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    dropout: float = 0.1
    """Of embeddings and of what each part adds."""
    attention_dropout: float = 0.1
    epsilon: float = 1e-5
    head_bias: bool = False
    """A bias on the logits, 0 at first: not in GPT-2, but a place for a small edit that no other word feels."""


class _Block(nn.Module):
    config: Gpt2Config

    def setup(self):
        c = self.config
        norm = functools.partial(nn.LayerNorm, epsilon=c.epsilon, use_fast_variance=False)
        dense = functools.partial(nn.Dense, kernel_init=nn.initializers.normal(0.02))
        # What is added to the stream starts smaller the more parts add to it: Radford et al. 2019, section 2.3.
        added = functools.partial(nn.Dense, kernel_init=nn.initializers.normal(0.02 / (2 * c.depth) ** 0.5))
        self.norm_1, self.qkv, self.out = norm(), dense(3 * c.width), added(c.width)
        self.norm_2, self.mlp_1, self.mlp_2 = norm(), dense(c.hidden), added(c.width)
        self.drop, self.drop_weights = nn.Dropout(c.dropout), nn.Dropout(c.attention_dropout)

    def attend(self, x: jax.Array, allowed: jax.Array, train: bool) -> jax.Array:
        query, key, value = jnp.split(self.qkv(self.norm_1(x)), 3, axis=-1)
        drop = functools.partial(self.drop_weights, deterministic=not train)
        mixed = attention(query, key, value, allowed, self.config.heads, drop)
        return x + self.drop(self.out(mixed), deterministic=not train)

    def feed(self, x: jax.Array, train: bool) -> jax.Array:
        hidden = nn.gelu(self.mlp_1(self.norm_2(x)), approximate=True)
        return x + self.drop(self.mlp_2(hidden), deterministic=not train)


class HeadBias(nn.Module):
    """Adds one number to each logit."""

    size: int

    @nn.compact
    def __call__(self, logits: jax.Array) -> jax.Array:
        bias = self.param("bias", nn.initializers.zeros, (self.size,))
        return logits + jnp.broadcast_to(bias, logits.shape)


class _Gpt2(LanguageNetwork):
    config: Gpt2Config

    def setup(self):
        c = self.config
        self.word = nn.Embed(c.vocabulary, c.width, embedding_init=nn.initializers.normal(0.02))
        self.position = nn.Embed(c.positions, c.width, embedding_init=nn.initializers.normal(0.01))
        self.drop = nn.Dropout(c.dropout)
        self.block = [_Block(c) for _ in range(c.depth)]
        self.norm = nn.LayerNorm(epsilon=c.epsilon, use_fast_variance=False)
        if c.head_bias:
            self.output = HeadBias(c.vocabulary)

    def features(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        check_length(tokens, self.config.positions)
        t = tokens.shape[1]
        x = self.word(tokens)
        x = self.drop(x + jnp.broadcast_to(self.position(jnp.arange(t))[None], x.shape), deterministic=not train)
        # Padding on the right needs no mask: no real position sees it.
        allowed = jnp.tril(jnp.ones((1, t, t), bool))
        for block in self.block[:-1]:
            x = block.feed(block.attend(x, allowed, train), train)
        return self.block[-1].attend(x, allowed, train)

    def head(self, z: jax.Array, train: bool = False) -> jax.Array:
        logits = self.norm(self.block[-1].feed(z, train)) @ self.word.embedding.T
        return self.output(logits) if self.config.head_bias else logits


@functools.cache
def gpt2(config: Gpt2Config = Gpt2Config()) -> LanguageModel:
    """GPT-2 of any size. Rows are padded on the right, with any token.

    The final transform, `transform_paths`, is the last normalisation and the logits' bias where `head_bias` asks
    for one.

    >>> model = gpt2(Gpt2Config(vocabulary=11, positions=8, width=4, depth=2, heads=2, hidden=8))
    >>> params = jax.eval_shape(model.init, jax.random.key(0))
    >>> jax.eval_shape(model.apply, params, jnp.zeros((3, 5), int)).shape
    (3, 5, 11)
    >>> model.transform_paths
    ('params/norm/bias', 'params/norm/scale')
    """
    check_sizes(
        "Gpt2Config",
        vocabulary=config.vocabulary,
        positions=config.positions,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        hidden=config.hidden,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
    )
    last = f"block_{config.depth - 1}"
    return language_model(
        _Gpt2(config), config, causal=True, transform=("norm", "output"), mlp=(f"{last}/mlp_1", f"{last}/mlp_2")
    )
