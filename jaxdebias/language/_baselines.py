"""What an edit of a language model must be compared with: fine-tuning without the bias, and projecting it out.

    counterfactual_texts   fine-tuning on training texts joined by their gender-swapped twins: counterfactual data
                           augmentation (CDA; Zmigrod et al. 2019, Webster et al. 2020)
    with_dropout           fine-tuning on training texts with more dropout (Webster et al. 2020)
    both_sentences         fine-tuning on both sentences of the edit's own pairs, as often: the plain use of them
    language_projection    the directions in which the sentences of pairs differ, taken out of the representation
                           (SentenceDebias; Liang et al. 2020)

All choose by the rule of the edit (`language_fmd`): the least bias of held-out pairs among the candidates that raise
the perplexity of held-out texts by no more than a share; the model as it is is one of them.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdebias.contracts import expect
from jaxdebias.core import Array, Key, Params, Split
from jaxdebias.language._datasets import SentencePair
from jaxdebias.language._fmd import LanguageJudged, least_bias
from jaxdebias.language._gender_words import swap_gender
from jaxdebias.language._stereotypes import pair_differences
from jaxdebias.language._text_scores import Scorer, pair_scores, text_scores
from jaxdebias.language._training import language_erm, token_batch
from jaxdebias.language.models._bert import bert
from jaxdebias.language.models._gpt2 import gpt2
from jaxdebias.language.models._model import LanguageModel
from jaxdebias.language.models._tokenizer import Tokenizer
from jaxdebias.mitigate._erm import State
from jaxdebias.train._optimizer import Optimizer, trainable
from jaxdebias.train._plans import steps_per_epoch
from jaxdebias.train._run import FitConfig, fit


@dataclass(frozen=True, kw_only=True)
class LanguageTuningConfig:
    """AdamW at constant rates; looked at after every `steps`."""

    learning_rates: tuple[float, ...] = (1e-3, 3e-4)
    steps: int = 50
    looks: int = 3
    batch_size: int = 64
    weight_decay: float = 0.01
    clip: float | None = 1.0
    length: int = 24
    """Tokens of a row, start and end included."""
    share: float = 0.15
    """Of a masked model, how many tokens are hidden."""
    perplexity: float = 0.02
    """Share by which the held-out perplexity may rise."""


class LanguageTuningInfo(NamedTuple):
    """What was tried and what was kept, on what is held out for it."""

    chosen: str
    """Name of the candidate; `as it is`: none was better."""
    bias: dict[str, float]
    """Of each candidate, nats for each token."""
    perplexity: dict[str, float]


def counterfactual_texts(texts: Sequence[str]) -> list[str]:
    """The texts, and behind them the twin of every text that has gendered words.

    >>> counterfactual_texts(["she left.", "it rained."])
    ['she left.', 'it rained.', 'he left.']
    """
    return [*texts, *(twin for text in texts if (twin := swap_gender(text)) != text)]


def both_sentences(pairs: Sequence[SentencePair]) -> list[str]:
    """All sentences of the pairs."""
    return [text for pair in pairs for text in (pair.stereotype, pair.anti)]


def with_dropout(model: LanguageModel, rate: float, attention_rate: float | None = None) -> LanguageModel:
    """The same model with other dropout in training; it takes the same params.

    Webster et al. (2020) use .15 in attention and .2 elsewhere for BERT, .05 everywhere for ALBERT.
    """
    config = dataclasses.replace(
        model.config, dropout=rate, attention_dropout=rate if attention_rate is None else attention_rate
    )
    return gpt2(config) if model.causal else bert(config)


def language_tuning(
    key: Key,
    model: LanguageModel,
    tokenizer: Tokenizer,
    params: Params,
    texts: Sequence[str],
    accept_texts: Sequence[str],
    accept_pairs: Sequence[SentencePair],
    config: LanguageTuningConfig = LanguageTuningConfig(),
) -> tuple[Params, LanguageTuningInfo]:
    """Trains all of a language model further on texts; keeps the best of all rates and looks, or what came in.

    Args:
      key: for the order, dropout and what is hidden.
      model: the language model.
      tokenizer: its tokenizer.
      params: the model's parameters.
      texts: from `counterfactual_texts`, `both_sentences`, or training texts for a model `with_dropout`.
      accept_texts: held out, for perplexity and bias.
      accept_pairs: held out, for perplexity and bias.
      config: settings, see the class.

    Raises:
      FloatingPointError: a loss that is not finite.
    """
    data = token_batch(tokenizer, texts, length=min(config.length, model.config.positions))
    per_epoch = min(steps_per_epoch(len(texts), config.batch_size), config.steps)
    first = config.learning_rates[0]
    optimizer = Optimizer(name="adamw", learning_rate=first, weight_decay=config.weight_decay, clip=config.clip)
    learner = language_erm(model, tokenizer, optimizer, share=config.share)
    epochs = math.ceil(config.steps / per_epoch)
    portions = FitConfig(
        epochs=epochs, batch_size=config.batch_size, steps_per_epoch=per_epoch, epochs_per_chunk=epochs
    )
    candidates = {"as it is": params}
    for rate in config.learning_rates:
        variables = jax.tree.map(jnp.array, params)
        # One learner, scaled to each rate: the rates share one compiled program.
        state = State(variables, optimizer.build().init(trainable(variables)), jnp.asarray(rate / first, jnp.float32))
        for look in range(1, config.looks + 1):
            state = fit(jax.random.fold_in(key, look), learner, data, portions, state=state).state
            candidates[f"rate {rate:g}, {look * epochs * per_epoch} steps"] = jax.tree.map(np.asarray, state.variables)
    chosen, info = _best(model.split, candidates, model, tokenizer, accept_texts, accept_pairs, config.perplexity)
    return params if chosen is params else jax.tree.map(jnp.asarray, chosen), info


def language_projection(
    model: LanguageModel,
    tokenizer: Tokenizer,
    params: Params,
    pairs: Sequence[SentencePair],
    accept_texts: Sequence[str],
    accept_pairs: Sequence[SentencePair],
    *,
    counts: tuple[int, ...] = (1, 2, 4),
    perplexity: float = 0.02,
) -> tuple[Split, tuple[Params, Array], LanguageTuningInfo]:
    """Takes the first principal directions of the pairs' differences out of what the last perceptron reads.

    No parameter changes, so the result is a `Split` and what it takes for params: (params, directions `[c d]`).

    Args:
      model: the language model.
      tokenizer: its tokenizer.
      params: the model's parameters.
      pairs: whose sentences' mean representations are compared.
      accept_texts: held-out texts for the perplexity.
      accept_pairs: held-out sentence pairs for the bias.
      counts: how many directions to try.
      perplexity: largest relative rise of the held-out perplexity.
    """
    found = sentence_directions(model, tokenizer, params, pairs, max(counts))
    split = projected(model)
    none = jnp.zeros_like(found)
    candidates = {"as it is": (params, none)}
    candidates |= {f"{count} directions": (params, none.at[:count].set(found[:count])) for count in counts}
    chosen, info = _best(split, candidates, model, tokenizer, accept_texts, accept_pairs, perplexity)
    return split, chosen, info


def sentence_directions(
    model: LanguageModel, tokenizer: Tokenizer, params: Params, pairs: Sequence[SentencePair], count: int
) -> Float[jax.Array, "c d"]:
    """Orthonormal directions in which the two sentences of pairs differ most, the largest first.

    Of the mean over tokens of `split.features`; the differences are not centred: their mean is what matters.
    """
    texts = both_sentences(pairs)
    expect(1 <= count <= len(pairs), "count", f"1..{len(pairs)} directions", count)
    longest = max(len(tokenizer.encode(text)) for text in texts) + 2
    tokens = tokenizer.rows(texts, length=min(longest, model.config.positions))
    means = np.asarray(_means(model)(params, jnp.asarray(tokens), jnp.asarray(tokenizer.pad)), np.float64)
    _, _, directions = np.linalg.svd(means[0::2] - means[1::2], full_matrices=False)
    return jnp.asarray(directions[:count], jnp.float32)


@functools.cache
def projected(model: LanguageModel) -> Split:
    """The model without what its features hold along some directions; params are (params, directions `[c d]`)."""

    def features(both: tuple[Params, Array], tokens: Array) -> jax.Array:
        params, directions = both
        z = model.split.features(params, tokens)
        return z - jnp.einsum("...c,cd->...d", jnp.einsum("...d,cd->...c", z, directions), directions)

    def head(both: tuple[Params, Array], z: Array) -> jax.Array:
        return model.split.head(both[0], z)

    return Split(features, head)


def judge_language(scorer: Scorer, texts: Sequence[str], pairs: Sequence[SentencePair]) -> LanguageJudged:
    """Bias of pairs and mean negative log-probability of a token of texts."""
    scores = text_scores(scorer, texts)
    return LanguageJudged(
        np.abs(pair_differences(*pair_scores(scorer, pairs))).mean(), -scores.total.sum() / scores.count.sum()
    )


def _best(
    split: Split,
    candidates: dict[str, Params],
    model: LanguageModel,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[SentencePair],
    perplexity: float,
) -> tuple[Params, LanguageTuningInfo]:
    judged = [
        judge_language(Scorer(split, params, tokenizer, model.causal, model.config.positions), texts, pairs)
        for params in candidates.values()
    ]
    bias, nll = (np.array([float(one[i]) for one in judged]) for i in range(2))
    chosen = least_bias(bias, nll, float(nll[0] + np.log1p(perplexity)))
    names = list(candidates)
    return candidates[names[chosen]], LanguageTuningInfo(
        names[chosen], dict(zip(names, bias.tolist(), strict=True)), dict(zip(names, np.exp(nll).tolist(), strict=True))
    )


@functools.cache
def _means(model: LanguageModel):
    @jax.jit
    def means(params: Params, tokens: Array, pad: Array) -> jax.Array:
        z = model.split.features(params, tokens)
        seen = jnp.broadcast_to((tokens != pad)[:, :, None], z.shape)
        return jnp.where(seen, z, 0.0).sum(axis=1) / jnp.maximum(seen.sum(axis=1), 1)

    return means
