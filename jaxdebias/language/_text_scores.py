"""Scores of texts under a language model and its tokenizer: what `sentence_scores` computes, from strings."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdebias.contracts import expect
from jaxdebias.core import Params, Split
from jaxdebias.language._datasets import SentencePair, StereoItem
from jaxdebias.language._sentence_scores import (
    BUCKETS,
    SentenceScores,
    blank_scores,
    causal_scores,
    masked_scores,
    shared_positions,
)


class Scorer(NamedTuple):
    """A language model that can be asked about texts."""

    split: Split
    params: Params
    tokenizer: Any
    """A `models.language.Tokenizer`."""
    causal: bool
    longest: int
    """Tokens that the model can see, at least the least of `BUCKETS`."""


def text_scores(scorer: Scorer, texts: Sequence[str]) -> SentenceScores:
    """Log-probability of each text: of its tokens given those before (causal), or each hidden in turn (masked).

    Of texts that are longer than the model can see, the beginning.
    """
    tokenizer = scorer.tokenizer
    room = max((size for size in BUCKETS if size <= scorer.longest), default=scorer.longest) - 2
    tokens = [tokenizer.encode(text)[:room] for text in texts]
    if scorer.causal:
        return causal_scores(scorer.split, scorer.params, tokens, start=tokenizer.start)
    framed = [[tokenizer.start, *some, tokenizer.end] for some in tokens]
    return masked_scores(
        scorer.split,
        scorer.params,
        framed,
        mask=tokenizer.mask,
        pad=tokenizer.pad,
        special=(tokenizer.start, tokenizer.end),
    )


def pair_scores(scorer: Scorer, pairs: Sequence[SentencePair]) -> tuple[SentenceScores, SentenceScores]:
    """(of the stereotypes, of the other sentences): all tokens of a causal model, the shared ones of a masked model."""
    expect(len(pairs) > 0, "pairs", "at least one", "none")
    texts = [pair.stereotype for pair in pairs] + [pair.anti for pair in pairs]
    if scorer.causal:
        return _halves(text_scores(scorer, texts))
    tokenizer = scorer.tokenizer
    framed = [tokenizer.framed(text) for text in texts]
    first, second = [], []
    for one, other in zip(framed[: len(pairs)], framed[len(pairs) :], strict=True):
        for places, shared, tokens in zip((first, second), shared_positions(one, other), (one, other), strict=True):
            places.append([i for i in shared if 0 < i < len(tokens) - 1])
    return _halves(
        masked_scores(
            scorer.split, scorer.params, framed, mask=tokenizer.mask, pad=tokenizer.pad, scored=first + second
        )
    )


def stereoset_sentence_scores(scorer: Scorer, items: Sequence[StereoItem]) -> Float[np.ndarray, "n 3"]:
    """StereoSet's scores of its three sentences, higher is preferred, as its authors compute them.

    Causal: exp of the mean log-probability of a token, the start seen by the first alone. Masked: the mean probability
    of the blank's tokens, filled in from left to right.
    """
    expect(len(items) > 0, "items", "at least one", "none")
    tokenizer = scorer.tokenizer
    if scorer.causal:
        tokens = [tokenizer.encode(text) for item in items for text in item.sentences]
        scores = np.exp(
            causal_scores(scorer.split, scorer.params, tokens, start=tokenizer.start, start_alone=True).mean
        )
    else:
        blanks = [
            (
                [tokenizer.start, *tokenizer.encode(before)],
                tokenizer.encode(word),
                [*tokenizer.encode(after), tokenizer.end],
            )
            for item in items
            for before, word, after in item.blanks()
        ]
        scores = blank_scores(scorer.split, scorer.params, blanks, mask=tokenizer.mask, pad=tokenizer.pad)
    return scores.reshape(len(items), 3)


def _halves(scores: SentenceScores) -> tuple[SentenceScores, SentenceScores]:
    half = len(scores.total) // 2
    return (
        SentenceScores(scores.total[:half], scores.count[:half]),
        SentenceScores(scores.total[half:], scores.count[half:]),
    )
