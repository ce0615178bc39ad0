"""How probable a language model finds sentences: log-probabilities of their tokens, in nats.

A model is a pair `Split(features, head)`: features(params, tokens [n t]) -> z [n t d], head(params, z [... d]) ->
logits [... v]. `models.language` builds such pairs; of a plain `apply_fn(params, tokens) -> logits [n t v]` make
`Split(apply_fn, lambda params, z: z)`. Sentences are lists of tokens, as a tokenizer gives them.

Rows are padded on the right to the next length of `BUCKETS` and computed in batches of one shape for each length: two
calls with the same `Split` object compile once for each length that occurs, whatever the sentences.
"""

import difflib
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.contracts import expect
from jaxdebias.core import Array, Params, Split

BUCKETS = (8, 16, 32, 64, 128, 256, 512, 1024)
BATCH_TOKENS = 4096
"""Tokens of a batch: `BATCH_TOKENS // length` rows. The peak beside the network's own is one row of logits for each
token of a causal model, `BATCH_TOKENS * v * 4` bytes, and one for each row of a masked one."""

Sentence = Sequence[int]


class SentenceScores(NamedTuple):
    """Log-probabilities of n sentences."""

    total: Float[np.ndarray, " n"]
    """Sum over the scored tokens, nats."""
    count: Int[np.ndarray, " n"]
    """Scored tokens."""

    @property
    def mean(self) -> Float[np.ndarray, " n"]:
        """Mean log-probability of a token; NaN where none was scored."""
        with np.errstate(invalid="ignore"):
            return np.where(self.count > 0, self.total / np.maximum(self.count, 1), np.nan)


class MaskedRow(NamedTuple):
    """A sentence with masks in it, and one place whose token is known."""

    tokens: Sequence[int]
    """With the start and the end, with the mask at `position`."""
    position: int
    token: int
    """What stands at `position` in truth."""


def causal_scores(
    model: Split,
    params: Params,
    sentences: Sequence[Sentence],
    *,
    start: int,
    scored: Sequence[Sequence[int]] | None = None,
    start_alone: bool = False,
    batch_tokens: int = BATCH_TOKENS,
) -> SentenceScores:
    """Log-probability of each token given those before it, for models like GPT-2.

    Args:
      model: the pair; its logits at a position are of the next token.
      params: of the model.
      sentences: tokens without a start; at least one each.
      start: the token that is put before each sentence (GPT-2: `<|endoftext|>`), so that its first token has a
        probability too.
      scored: for each sentence the positions that count, from 0; None: all.
      start_alone: False: all tokens see the start. True: only the first one does, as in the scripts of StereoSet's
        authors (Nadeem et al. 2021), which the published scores come from.
      batch_tokens: see `BATCH_TOKENS`.

    Returns:
      Sums and counts, in the order of the sentences. `exp(mean)` is StereoSet's score of a sentence.
    """
    _check_sentences(sentences)
    weights = [np.ones(len(sentence), np.float32) for sentence in sentences]
    if scored is not None:
        expect(len(scored) == len(sentences), "scored", f"positions of {len(sentences)} sentences", len(scored))
        weights = [_marked(len(sentence), places) for sentence, places in zip(sentences, scored, strict=True)]
    count = np.array([int(weight.sum()) for weight in weights])
    if not start_alone:
        rows = [(start, *sentence[:-1]) for sentence in sentences]
        return SentenceScores(_causal(model, params, rows, sentences, weights, batch_tokens), count)
    alone = np.asarray(_next(model, params, jnp.array([[start]])))
    first = np.array([alone[sentence[0]] * weight[0] for sentence, weight in zip(sentences, weights, strict=True)])
    longer = [i for i, sentence in enumerate(sentences) if len(sentence) > 1]
    total = first.astype(np.float64)
    if longer:
        total[longer] += _causal(
            model,
            params,
            [sentences[i][:-1] for i in longer],
            [sentences[i][1:] for i in longer],
            [weights[i][1:] for i in longer],
            batch_tokens,
        )
    return SentenceScores(total, count)


def masked_scores(
    model: Split,
    params: Params,
    sentences: Sequence[Sentence],
    *,
    mask: int,
    pad: int,
    special: Sequence[int] = (),
    scored: Sequence[Sequence[int]] | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> SentenceScores:
    """Pseudo-log-likelihood, for models like BERT: each scored token is masked in turn (Salazar et al. 2020).

    Args:
      model: the pair; its logits at a position are of the token at that position.
      params: of the model.
      sentences: tokens with start and end, as the model was trained to see them.
      mask: the token that hides another.
      pad: the token that the model does not look at.
      special: tokens that are not scored: start and end.
      scored: for each sentence the positions that count; None: all but `special`. With `shared_positions`, the score of
        Nangia et al. 2020, CrowS-Pairs.
      batch_tokens: see `BATCH_TOKENS`.
    """
    _check_sentences(sentences)
    if scored is None:
        scored = [[i for i, token in enumerate(sentence) if token not in special] for sentence in sentences]
    expect(len(scored) == len(sentences), "scored", f"positions of {len(sentences)} sentences", len(scored))
    for sentence, places in zip(sentences, scored, strict=True):
        _marked(len(sentence), places)  # complains of a place that is none
    rows = [
        MaskedRow((*sentence[:i], mask, *sentence[i + 1 :]), int(i), sentence[i])
        for sentence, places in zip(sentences, scored, strict=True)
        for i in places
    ]
    owner = np.repeat(np.arange(len(sentences)), [len(places) for places in scored])
    log_p = masked_log_probabilities(model, params, rows, pad=pad, batch_tokens=batch_tokens)
    return SentenceScores(
        np.bincount(owner, log_p, minlength=len(sentences)), np.bincount(owner, minlength=len(sentences))
    )


def blank_scores(
    model: Split,
    params: Params,
    blanks: Sequence[tuple[Sentence, Sentence, Sentence]],
    *,
    mask: int,
    pad: int,
    batch_tokens: int = BATCH_TOKENS,
) -> Float[np.ndarray, " n"]:
    """How well a word fits a blank, for models like BERT: StereoSet's score (Nadeem et al. 2021).

    The word's tokens are guessed from left to right, with one mask after those already put in, and their
    probabilities averaged.

    Args:
      model: the language model.
      params: the model's parameters.
      blanks: (tokens before, tokens of the word, tokens after), with start and end.
      mask: token that stands for a blank.
      pad: token of padding.
      batch_tokens: tokens at a time.
    """
    rows = []
    for before, word, after in blanks:
        expect(len(word) > 0, "blanks", "words of at least one token", "an empty word")
        rows += [MaskedRow((*before, *word[:i], mask, *after), len(before) + i, token) for i, token in enumerate(word)]
    size = np.array([len(word) for _, word, _ in blanks])
    p = np.exp(masked_log_probabilities(model, params, rows, pad=pad, batch_tokens=batch_tokens))
    return np.bincount(np.repeat(np.arange(len(blanks)), size), p, minlength=len(blanks)) / size


def masked_log_probabilities(
    model: Split, params: Params, rows: Sequence[MaskedRow], *, pad: int, batch_tokens: int = BATCH_TOKENS
) -> Float[np.ndarray, " m"]:
    """log p(token at the position | the rest of the row), for each of m rows. The head sees one position of a row."""
    position, token = [row.position for row in rows], [row.token for row in rows]

    def batch(tokens: np.ndarray, some: np.ndarray) -> jax.Array:
        return _masked_batch(model, params, tokens, np.take(position, some), np.take(token, some))

    return _in_buckets([row.tokens for row in rows], pad, batch_tokens, batch)


def shared_positions(one: Sentence, other: Sentence) -> tuple[list[int], list[int]]:
    """Positions of the tokens that two sentences share, in each: the longest matching runs, as in CrowS-Pairs.

    >>> shared_positions([2, 7, 8, 9, 3], [2, 7, 5, 6, 9, 3])
    ([0, 1, 3, 4], [0, 1, 4, 5])
    """
    runs = difflib.SequenceMatcher(None, list(one), list(other), autojunk=False).get_matching_blocks()
    return ([run.a + i for run in runs for i in range(run.size)], [run.b + i for run in runs for i in range(run.size)])


def _causal(
    model: Split,
    params: Params,
    rows: Sequence[Sentence],
    targets: Sequence[Sentence],
    weights: Sequence[np.ndarray],
    batch_tokens: int,
) -> Float[np.ndarray, " n"]:
    def batch(tokens: np.ndarray, some: np.ndarray) -> jax.Array:
        target, weight = np.zeros(tokens.shape, np.int32), np.zeros(tokens.shape, np.float32)
        for row, i in enumerate(some):
            target[row, : len(targets[i])], weight[row, : len(weights[i])] = targets[i], weights[i]
        return _causal_batch(model, params, tokens, target, weight)

    return _in_buckets(rows, 0, batch_tokens, batch)


def _in_buckets(
    rows: Sequence[Sentence], pad: int, batch_tokens: int, batch: Callable[[np.ndarray, np.ndarray], jax.Array]
) -> Float[np.ndarray, " m"]:
    """`batch(tokens [b t], indices [b])` for all rows, in batches of one shape for each length; float64 `[m]`."""
    length = np.array([len(row) for row in rows], int)
    longest = int(length.max(initial=0))
    expect(longest <= BUCKETS[-1], "sentences", f"at most {BUCKETS[-1]} tokens each", longest)
    bucket = np.searchsorted(BUCKETS, length)
    results = np.zeros(len(rows))
    for which in np.unique(bucket):
        of_bucket = np.flatnonzero(bucket == which)
        size = max(1, batch_tokens // BUCKETS[which])
        for first in range(0, len(of_bucket), size):
            some = of_bucket[first : first + size]
            filled = np.resize(some, size)  # a last batch of the same shape repeats its rows
            tokens = np.full((size, BUCKETS[which]), pad, np.int32)
            for row, i in enumerate(filled):
                tokens[row, : length[i]] = rows[i]
            results[some] = np.asarray(batch(tokens, filled))[: len(some)]
    return results


@functools.partial(jax.jit, static_argnames=("model",))
def _causal_batch(
    model: Split, params: Params, tokens: Int[Array, "b t"], target: Int[Array, "b t"], weight: Float[Array, "b t"]
) -> Float[jax.Array, " b"]:
    logits = model.head(params, model.features(params, tokens))
    return (_log_probability(logits, target) * weight).sum(axis=1)


@functools.partial(jax.jit, static_argnames=("model",))
def _masked_batch(
    model: Split, params: Params, tokens: Int[Array, "b t"], position: Int[Array, " b"], token: Int[Array, " b"]
) -> Float[jax.Array, " b"]:
    z = model.features(params, tokens)
    return _log_probability(model.head(params, jnp.take_along_axis(z, position[:, None, None], axis=1)[:, 0]), token)


@functools.partial(jax.jit, static_argnames=("model",))
def _next(model: Split, params: Params, tokens: Int[Array, "1 1"]) -> Float[jax.Array, " v"]:
    """Log-probabilities of what comes first."""
    return jax.nn.log_softmax(model.head(params, model.features(params, tokens)))[0, 0]


def _log_probability(logits: Float[Array, "... v"], token: Int[Array, "..."]) -> Float[jax.Array, "..."]:
    own = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
    return own - jax.nn.logsumexp(logits, axis=-1)


def _marked(length: int, places: Sequence[int]) -> np.ndarray:
    """1 at the places, 0 elsewhere."""
    expect(all(0 <= i < length for i in places), "scored", f"positions in 0..{length - 1}", list(places)[:8])
    marks = np.zeros(length, np.float32)
    marks[list(places)] = 1.0
    return marks


def _check_sentences(sentences: Sequence[Sentence]) -> None:
    expect(len(sentences) > 0, "sentences", "at least one", "none")
    empty = [i for i, sentence in enumerate(sentences) if len(sentence) == 0]
    expect(not empty, "sentences", "at least one token each", f"{len(empty)} empty, number {empty[:1]} first")
