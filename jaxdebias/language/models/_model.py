"""From a Linen module over tokens to pure functions, and the attention that both language models share.

Letters beside those of `core`: t tokens of a row, v entries of the vocabulary.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array, Key, Params, Split


class LanguageModel(NamedTuple):
    """A language model as pure functions of its parameters. Builders return the same object for equal configs.

    Tokens are int `[n t]`, padded on the right. Logits at a position are those of the *next* token where `causal`,
    else those of the token at the position itself.

    The model is cut before the perceptron of its last block: `split.features` is the last thing that mixes positions,
    and `split.head` maps each position alone. So the rows of an influence problem are positions: flatten the features
    to `[m d]`, and the head is a classifier of v classes whose parameters at `transform_paths` or `mlp_paths` can be
    given to `find_block(split.head, params, z, paths)` as they are. Blocks further down are cut out of `at`.
    """

    config: Any
    """What it was built from: a `Gpt2Config` or a `BertConfig`."""
    init: Callable[[Key], Params]
    """key -> params."""
    apply: Callable[[Params, Array], jax.Array]
    """(params, tokens [n t]) -> logits [n t v], evaluation mode."""
    train: Callable[[Key, Params, Array], jax.Array]
    """(key, params, tokens [n t]) -> logits [n t v], with dropout."""
    split: Split
    """features(params, tokens [n t]) -> z [n t d]; head(params, z [... d]) -> logits [... v]."""
    at: Callable[[Params, Array], jax.Array]
    """(params, rows [n 1+t]) -> logits [n v] at the position that the first column of a row names; tokens follow."""
    causal: bool
    transform_paths: tuple[str, ...]
    """Paths in params of the final transform and, if there is one, of the bias of the logits."""
    mlp_paths: tuple[str, ...]
    """Paths of the last block's perceptron."""


class LanguageNetwork(nn.Module):
    """What a language model consists of: logits = head(features(tokens)), cut where positions mix for the last time."""

    def features(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        raise NotImplementedError

    def head(self, z: jax.Array, train: bool = False) -> jax.Array:
        raise NotImplementedError

    def __call__(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        return self.head(self.features(tokens, train), train)


@functools.cache
def language_model(
    network: LanguageNetwork, config: Any, *, causal: bool, transform: tuple[str, ...], mlp: tuple[str, ...]
) -> LanguageModel:
    """The network as a `LanguageModel`, the same object for equal networks.

    Args:
      network: the Flax module.
      config: its sizes.
      causal: whether a position sees only what is left of it.
      transform: nodes of the parameter tree, below `params`, that are the final transform.
      mlp: nodes that are the last perceptron.
    """

    def init(key: Key) -> Params:
        return dict(network.lazy_init(key, jax.ShapeDtypeStruct((1, 2), jnp.int32)))

    def apply(params: Params, tokens: Array) -> jax.Array:
        return network.apply(params, _checked(tokens))

    def train(key: Key, params: Params, tokens: Array) -> jax.Array:
        return network.apply(params, _checked(tokens), train=True, rngs={"dropout": key})

    def features(params: Params, tokens: Array) -> jax.Array:
        return network.apply(params, _checked(tokens), method="features")

    def head(params: Params, z: Array) -> jax.Array:
        return network.apply(params, z, method="head")

    def at(params: Params, rows: Array) -> jax.Array:
        rows = _checked(rows)
        return head(params, take_position(features(params, rows[:, 1:]), rows[:, 0]))

    def _checked(tokens: Array) -> jax.Array:
        tokens = jnp.asarray(tokens)
        good = tokens.ndim == 2 and jnp.issubdtype(tokens.dtype, jnp.integer)
        expect(good, "tokens", "int [n t]", describe(tokens))
        return tokens

    shapes = jax.tree_util.tree_leaves_with_path(jax.eval_shape(init, jax.random.key(0)))
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in shapes]

    def below(nodes: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if any(name.startswith(f"params/{node}/") for node in nodes))

    return LanguageModel(
        config=config,
        init=init,
        apply=apply,
        train=train,
        split=Split(features, head),
        at=at,
        causal=causal,
        transform_paths=below(transform),
        mlp_paths=below(mlp),
    )


def take_position(z: Float[Array, "n t d"], position: Array) -> Float[jax.Array, "n d"]:
    """Of every row its vector at one position, `position` int `[n]`."""
    return jnp.take_along_axis(z, position[:, None, None].astype(jnp.int32), axis=1)[:, 0]


def attention(
    query: Float[Array, "n t d"],
    key: Float[Array, "n t d"],
    value: Float[Array, "n t d"],
    allowed: Bool[Array, "_ _ t"],
    heads: int,
    drop: Callable[[jax.Array], jax.Array],
) -> Float[jax.Array, "n t d"]:
    """Softmax attention in `heads` heads (Vaswani et al. 2017); `allowed` has 1 or n rows, 1 or t rows of t columns.

    Where a row may look nowhere (padding alone), it looks everywhere alike: finite, and nobody reads it.
    """
    n, t, width = query.shape
    split = (n, t, heads, width // heads)
    scores = jnp.einsum("nqad,nkad->naqk", query.reshape(split), key.reshape(split)) / math.sqrt(width // heads)
    allowed = jnp.broadcast_to(allowed[:, None], scores.shape)
    weights = drop(jax.nn.softmax(jnp.where(allowed, scores, jnp.finfo(scores.dtype).min), axis=-1))
    return jnp.einsum("naqk,nkad->nqad", weights, value.reshape(split)).reshape(n, t, width)


def check_sizes(
    what: str,
    *,
    vocabulary: int,
    positions: int,
    width: int,
    depth: int,
    heads: int,
    hidden: int,
    dropout: float,
    attention_dropout: float,
) -> None:
    """Sizes of a transformer, before anything is built."""
    sizes = (vocabulary, positions, width, depth, heads, hidden)
    expect(min(sizes) >= 1, what, "vocabulary, positions, width, depth, heads, hidden of at least 1", sizes)
    expect(width % heads == 0, "width", f"a multiple of heads={heads}", width)
    for name, rate in (("dropout", dropout), ("attention_dropout", attention_dropout)):
        expect(0 <= rate < 1, name, "a rate in 0..1, without 1", rate)


def check_length(tokens: jax.Array, positions: int) -> None:
    """No row longer than the table of positions."""
    expect(tokens.shape[1] <= positions, "tokens", f"rows of at most {positions} tokens", describe(tokens))
