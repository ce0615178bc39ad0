"""What language models are trained on: the next token, or tokens that are hidden. Pure; any loop can take them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxdebias.contracts import expect
from jaxdebias.core import Array, Key, Params
from jaxdebias.language.models._model import LanguageModel


class TokenLoss(NamedTuple):
    """Negative log-probabilities, nats. The mean over tokens is `total.sum() / count.sum()`."""

    total: Float[jax.Array, " n"]
    """Sum over the tokens of each row that count."""
    count: Float[jax.Array, " n"]
    """How many they are."""


def causal_loss(
    model: LanguageModel, params: Params, tokens: Int[Array, "n t"], *, pad: int, key: Key | None = None
) -> TokenLoss:
    """Cross-entropy of each token given those before it; rows begin with a start and are padded on the right.

    Where the padding is the same token as the end (GPT-2's), the end is not learned.

    Args:
      model: the language model.
      params: the model's parameters.
      tokens: `[n t]` int.
      pad: token of padding.
      key: of dropout; None: evaluation mode.
    """
    expect(model.causal, "model", "a causal one, as gpt2 builds", "one that sees both sides")
    tokens = jnp.asarray(tokens)
    inputs, target = tokens[:, :-1], tokens[:, 1:]
    logits = model.apply(params, inputs) if key is None else model.train(key, params, inputs)
    return _loss(logits, target, target != pad)


def masked_loss(
    key: Key,
    model: LanguageModel,
    params: Params,
    tokens: Int[Array, "n t"],
    *,
    mask: int,
    special: frozenset[int],
    share: float = 0.15,
    dropout: bool = True,
) -> TokenLoss:
    """Cross-entropy of tokens that are hidden at random (Devlin et al. 2019, section 3.1).

    Of the chosen tokens 80 % are masked, 10 % replaced by any token and 10 % left as they are. A row may have none.

    Args:
      key: of what is chosen, what replaces it, and of dropout.
      model: the language model.
      params: the model's parameters.
      tokens: `[n t]` int.
      mask: the token that hides another.
      special: tokens that are never chosen: `Tokenizer.special`.
      share: of the other tokens, how many are chosen.
      dropout: whether dropout is on.
    """
    expect(not model.causal, "model", "a masked one, as bert builds", "a causal one")
    expect(0 < share <= 1, "share", "a share in 0..1, without 0", share)
    key_choice, key_way, key_token, key_dropout = jax.random.split(key, 4)
    tokens = jnp.asarray(tokens)
    chosen = jax.random.uniform(key_choice, tokens.shape) < share
    for token in sorted(special):
        chosen = chosen & (tokens != token)
    way = jax.random.uniform(key_way, tokens.shape)
    other = jax.random.randint(key_token, tokens.shape, 0, model.config.vocabulary, tokens.dtype)
    hidden = jnp.where(way < 0.8, mask, jnp.where(way < 0.9, other, tokens))
    shown = jnp.where(chosen, hidden, tokens)
    logits = model.train(key_dropout, params, shown) if dropout else model.apply(params, shown)
    return _loss(logits, tokens, chosen)


def _loss(logits: Float[Array, "n t v"], target: Int[Array, "n t"], counts: Array) -> TokenLoss:
    own = jnp.take_along_axis(logits, target[:, :, None], axis=-1)[:, :, 0]
    loss = jax.nn.logsumexp(logits, axis=-1) - own
    return TokenLoss(jnp.where(counts, loss, 0.0).sum(axis=1), counts.sum(axis=1).astype(loss.dtype))
