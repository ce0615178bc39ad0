"""BERT with its head for masked tokens: normalisation after each part, looks both ways (Devlin et al. 2019)."""

import functools
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdebias.language.models._gpt2 import HeadBias
from jaxdebias.language.models._model import (
    LanguageModel,
    LanguageNetwork,
    attention,
    check_length,
    check_sizes,
    language_model,
)


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """Sizes; the defaults are those of the checkpoint `bert-base-uncased`."""

    vocabulary: int = 30522
    positions: int = 512
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    dropout: float = 0.1
    """Of embeddings and of what each part adds."""
    attention_dropout: float = 0.1
    epsilon: float = 1e-12
    types: int = 2
    """Kinds of sentences in the table of token types; a text here is one sentence of type 0."""
    pad: int = 0
    """The token that no position looks at."""


class _Layer(nn.Module):
    config: BertConfig

    def setup(self):
        c = self.config
        norm = functools.partial(nn.LayerNorm, epsilon=c.epsilon, use_fast_variance=False)
        dense = functools.partial(nn.Dense, kernel_init=nn.initializers.normal(0.02))
        self.query, self.key, self.value = dense(c.width), dense(c.width), dense(c.width)
        self.out, self.norm_1 = dense(c.width), norm()
        self.mlp_1, self.mlp_2, self.norm_2 = dense(c.hidden), dense(c.width), norm()
        self.drop, self.drop_weights = nn.Dropout(c.dropout), nn.Dropout(c.attention_dropout)

    def attend(self, x: jax.Array, allowed: jax.Array, train: bool) -> jax.Array:
        drop = functools.partial(self.drop_weights, deterministic=not train)
        mixed = attention(self.query(x), self.key(x), self.value(x), allowed, self.config.heads, drop)
        return self.norm_1(x + self.drop(self.out(mixed), deterministic=not train))

    def feed(self, x: jax.Array, train: bool) -> jax.Array:
        hidden = nn.gelu(self.mlp_1(x), approximate=False)
        return self.norm_2(x + self.drop(self.mlp_2(hidden), deterministic=not train))


class _Bert(LanguageNetwork):
    config: BertConfig

    def setup(self):
        c = self.config
        norm = functools.partial(nn.LayerNorm, epsilon=c.epsilon, use_fast_variance=False)
        embed = functools.partial(nn.Embed, features=c.width, embedding_init=nn.initializers.normal(0.02))
        self.word, self.position, self.type = embed(c.vocabulary), embed(c.positions), embed(c.types)
        self.norm, self.drop = norm(), nn.Dropout(c.dropout)
        self.layer = [_Layer(c) for _ in range(c.depth)]
        self.transform = nn.Dense(c.width, kernel_init=nn.initializers.normal(0.02))
        self.transform_norm = norm()
        self.output = HeadBias(c.vocabulary)

    def features(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        check_length(tokens, self.config.positions)
        x = self.word(tokens)
        same = self.position(jnp.arange(tokens.shape[1])) + jnp.broadcast_to(self.type(jnp.zeros(1, int)), x.shape[1:])
        x = self.drop(self.norm(x + jnp.broadcast_to(same[None], x.shape)), deterministic=not train)
        allowed = (tokens != self.config.pad)[:, None]
        for layer in self.layer[:-1]:
            x = layer.feed(layer.attend(x, allowed, train), train)
        return self.layer[-1].attend(x, allowed, train)

    def head(self, z: jax.Array, train: bool = False) -> jax.Array:
        x = self.transform(self.layer[-1].feed(z, train))
        return self.output(self.transform_norm(nn.gelu(x, approximate=False)) @ self.word.embedding.T)


@functools.cache
def bert(config: BertConfig = BertConfig()) -> LanguageModel:
    """BERT of any size, for masked tokens. Rows are padded on the right with `config.pad`.

    The final transform, `transform_paths`, is the dense layer and the normalisation before the logits, and their bias.

    >>> model = bert(BertConfig(vocabulary=11, positions=8, width=4, depth=2, heads=2, hidden=8))
    >>> params = jax.eval_shape(model.init, jax.random.key(0))
    >>> jax.eval_shape(model.at, params, jnp.zeros((3, 1 + 5), int)).shape
    (3, 11)
    >>> model.mlp_paths[0]
    'params/layer_1/mlp_1/bias'
    """
    check_sizes(
        "BertConfig",
        vocabulary=config.vocabulary,
        positions=config.positions,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        hidden=config.hidden,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
    )
    last = f"layer_{config.depth - 1}"
    return language_model(
        _Bert(config),
        config,
        causal=False,
        transform=("transform", "transform_norm", "output"),
        mlp=(f"{last}/mlp_1", f"{last}/mlp_2"),
    )
