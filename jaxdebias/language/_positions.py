"""The rows of an influence problem of a language model: positions whose token is known.

A causal model says at each position which token comes next; a masked one says of a hidden token what it is, so every
scored token is a row of its own, in a sentence of which it alone is hidden. From then on a language model is a
classifier of v classes: `token_block` gives the head that an influence problem or an edit needs.

Letters beside those of `core`: t tokens of a text, v entries of the vocabulary; here m positions.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Array, Params
from jaxdebias.explain.influence._block import BlockHead, find_block
from jaxdebias.explain.influence._cut import Where, paths
from jaxdebias.language._datasets import SentencePair
from jaxdebias.language._sentence_scores import BUCKETS, shared_positions
from jaxdebias.language.models._model import LanguageModel, take_position
from jaxdebias.language.models._tokenizer import Tokenizer

BLOCKS = ("transform", "mlp", "top")
"""Blocks by name: the final transform with the bias of the logits; the perceptron of the last block; both."""
BATCH_TOKENS = 4096
"""Tokens at a time through the network."""


class Positions(NamedTuple):
    """m positions of texts, as NumPy arrays."""

    tokens: Int[np.ndarray, "n t"]
    """What the model sees, padded on the right; of a masked model one row for each position."""
    row: Int[np.ndarray, " m"]
    """In which row of `tokens`."""
    place: Int[np.ndarray, " m"]
    """At which place of the row the logits are taken."""
    token: Int[np.ndarray, " m"]
    """What comes next, or is hidden there."""
    text: Int[np.ndarray, " m"]
    """Which of the texts a position belongs to."""


class PairPositions(NamedTuple):
    """Positions of both sentences of n pairs, so that a pair's difference is a sum over its positions.

    difference = sum of weight * log p(token): the mean log-probability of the stereotype's tokens minus that of the
    other sentence's. Positions that both sentences have in common, before they begin to differ, cancel in a causal
    model, and are left out.
    """

    positions: Positions
    weight: Float[np.ndarray, " m"]
    """1 / scored tokens in the stereotype, -1 / scored tokens in the other."""
    pair: Int[np.ndarray, " m"]
    """Which of the n pairs."""
    unit: Int[np.ndarray, " n"]
    """Pairs of one topic belong together."""


def text_positions(model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[str], *, end: bool = True) -> Positions:
    """All scored positions of texts: what a language model is trained on.

    Of a masked model every token but the start and the end is hidden once, alone, whereas training hides several.

    Args:
      model: the language model.
      tokenizer: its tokenizer.
      texts: longer ones than the model has positions are cut.
      end: of a causal model, whether the end is to be foretold, as in training; `causal_scores` leaves it out. A model
        whose end is its padding (GPT-2) has not learned it, and it never counts.

    Raises:
      ContractError: no text, or one without a token.
    """
    expect(len(texts) > 0, "texts", "at least one", "none")
    cut = [tokenizer.encode(text)[: model.config.positions - 2] for text in texts]
    short = [i for i, tokens in enumerate(cut) if len(tokens) == 0]
    expect(not short, "texts", "at least one token each", f"{len(short)} empty, number {short[:1]} first")
    ends = end and tokenizer.end != tokenizer.pad
    scored = [list(range(len(tokens) + ends)) if model.causal else list(range(1, len(tokens) + 1)) for tokens in cut]
    return _positions(model, tokenizer, cut, scored)


def pair_positions(model: LanguageModel, tokenizer: Tokenizer, pairs: Sequence[SentencePair]) -> PairPositions:
    """Positions of sentence pairs: all tokens of a causal model, the shared ones of a masked model (CrowS-Pairs).

    Raises:
      ContractError: no pair, one too long for the model, or one whose sentences share no token or are the same.
    """
    expect(len(pairs) > 0, "pairs", "at least one", "none")
    texts, scored, weights = [], [], []
    for number, pair in enumerate(pairs):
        both = [tokenizer.encode(text) for text in (pair.stereotype, pair.anti)]
        longest = max(len(tokens) for tokens in both) + 2
        expect(longest <= model.config.positions, f"pair {number}", f"at most {model.config.positions} tokens", longest)
        expect(
            both[0] != both[1],
            f"pair {number}",
            "two sentences that differ in tokens that the model knows",
            repr(pair.stereotype),
        )
        if model.causal:
            places = [list(range(len(tokens))) for tokens in both]
        else:
            framed = [[tokenizer.start, *tokens, tokenizer.end] for tokens in both]
            places = [
                [i for i in shared if 0 < i < len(tokens) - 1]
                for shared, tokens in zip(shared_positions(*framed), framed, strict=True)
            ]
        expect(
            min(len(part) for part in places) > 0,
            f"pair {number}",
            "at least one token to score in each sentence",
            repr(pair.stereotype),
        )
        counts = [len(part) for part in places]
        if model.causal and counts[0] == counts[1]:
            same = next(i for i, (a, b) in enumerate(zip(*both, strict=True)) if a != b)
            places = [part[same:] for part in places]
        texts += both
        scored += places
        weights += [np.full(len(part), sign / count) for sign, part, count in zip((1, -1), places, counts, strict=True)]
    positions = _positions(model, tokenizer, texts, scored)
    topics = sorted({pair.topic for pair in pairs})
    unit = np.array([topics.index(pair.topic) for pair in pairs], np.int32)
    return PairPositions(positions, np.concatenate(weights).astype(np.float32), positions.text // 2, unit)


def token_block(
    model: LanguageModel,
    params: Params,
    block: str | Where,
) -> tuple[BlockHead, Callable[[Params, Positions], Any], Callable[[Params, BlockHead], Params]]:
    """`find_block` for a language model: the head, `features(params, positions)`, and `replace(params, head)`.

    Args:
      model: the language model.
      params: the model's parameters.
      block: `transform`, `mlp`, `top`, or any block (see `cut.Where`). What lies behind the last attention is computed
        for each position alone; a block further down takes every position with its whole sentence, and the time and
        memory of that.

    >>> from jaxdebias.language.models import Gpt2Config, gpt2
    >>> model = gpt2(Gpt2Config(vocabulary=11, positions=8, width=4, depth=2, heads=2, hidden=8))
    >>> head, features, replace = token_block(model, model.init(jax.random.key(0)), "transform")
    >>> head.layers
    (('params/norm/bias', 4), ('params/norm/scale', 4))
    """
    if isinstance(block, str):
        check_choice("block", block, BLOCKS)
        block = {
            "transform": model.transform_paths,
            "mlp": model.mlp_paths,
            "top": (*model.mlp_paths, *model.transform_paths),
        }[block]
    names = [name for name in paths(params) if block(name)] if callable(block) else list(block)
    tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    if set(names) <= {*model.transform_paths, *model.mlp_paths}:
        width = jax.eval_shape(model.split.features, params, tokens).shape[-1]
        head, inside, replace = find_block(model.split.head, params, jnp.zeros((2, width)), block)

        def features(params: Params, positions: Positions) -> Any:
            return map_rows(inside, params, position_features(model, params, positions))

        return head, features, replace

    # The length of a row is part of the program: that of the first positions seen would be another one for the next.
    length, pad = model.config.positions, 0 if model.causal else model.config.pad
    head, inside, replace = find_block(model.at, params, jnp.zeros((2, 1 + length), jnp.int32), block)

    def whole(params: Params, positions: Positions) -> Any:
        tokens = np.pad(positions.tokens, ((0, 0), (0, length - positions.tokens.shape[1])), constant_values=pad)
        rows = np.concatenate([positions.place[:, None], tokens[positions.row]], axis=1).astype(np.int32)
        return map_rows(inside, params, jnp.asarray(rows), batch_size=max(1, BATCH_TOKENS // length))

    return head, whole, replace


def position_features(model: LanguageModel, params: Params, positions: Positions) -> Float[jax.Array, "m d"]:
    """`split.features` at the positions: what the model's head takes."""
    tokens, batch = positions.tokens, max(1, BATCH_TOKENS // positions.tokens.shape[1])
    if not model.causal:  # one position in each row
        return map_rows(_at_place(model), params, (jnp.asarray(tokens), jnp.asarray(positions.place)), batch_size=batch)
    z = map_rows(model.split.features, params, jnp.asarray(tokens), batch_size=batch)
    return z[positions.row, positions.place]


@functools.cache
def _at_place(model: LanguageModel) -> Callable[[Params, tuple[Array, Array]], jax.Array]:
    def features(params: Params, rows: tuple[Array, Array]) -> jax.Array:
        tokens, place = rows
        return take_position(model.split.features(params, tokens), place)

    return features


def _positions(
    model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]
) -> Positions:
    """`scored`: for a causal model indices of the token that is foretold, the end after the last one; for a masked one
    places between the start and the end."""
    text = np.repeat(np.arange(len(texts)), [len(places) for places in scored])
    place = np.concatenate([np.asarray(places, int) for places in scored])
    if model.causal:
        expect(tokenizer.start is not None, "tokenizer", "a start token", None)
        shown = [[tokenizer.start, *tokens] for tokens in texts]
        target = [[*tokens, tokenizer.end] for tokens in texts]
        row = text
    else:
        expect(tokenizer.mask is not None, "tokenizer", "a mask token, for a masked model", None)
        target = [[tokenizer.start, *tokens, tokenizer.end] for tokens in texts]
        shown = [[*target[i][:p], tokenizer.mask, *target[i][p + 1 :]] for i, p in zip(text, place, strict=True)]
        row = np.arange(len(place))
    longest = max(len(tokens) for tokens in shown)
    length = min(next((size for size in BUCKETS if size >= longest), longest), model.config.positions)
    pad = tokenizer.pad if model.causal else model.config.pad
    table = np.full((len(shown), length), pad, np.int32)
    for line, tokens in zip(table, shown, strict=True):
        line[: len(tokens)] = tokens
    token = np.array([target[i][p] for i, p in zip(text, place, strict=True)], np.int32)
    return Positions(table, row.astype(np.int32), place.astype(np.int32), token, text.astype(np.int32))
