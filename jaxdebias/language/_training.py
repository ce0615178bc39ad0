"""Plain training of a language model, as a `Learner`: the model that a repair is compared with, and fine-tuning."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.contracts import expect
from jaxdebias.core import Array, Batch, Key, Learner, Params
from jaxdebias.language.models._model import LanguageModel
from jaxdebias.language.models._objectives import causal_loss, masked_loss
from jaxdebias.language.models._tokenizer import Tokenizer
from jaxdebias.mitigate._erm import State
from jaxdebias.train._optimizer import Optimizer, trainable, update, with_trainable
from jaxdebias.train._plans import steps_per_epoch
from jaxdebias.train._run import FitConfig, fit


@dataclass(frozen=True, kw_only=True)
class LanguageTraining:
    """AdamW with a cosine schedule. Defaults are for the small models that are trained from scratch."""

    steps: int = 900
    batch_size: int = 64
    learning_rate: float = 5e-3
    weight_decay: float = 0.01
    clip: float | None = 1.0
    length: int = 24
    """Tokens of a row, start and end included; of longer texts the beginning."""
    share: float = 0.15
    """Of a masked model, how many tokens are hidden."""

    def __post_init__(self):
        for name in ("steps", "batch_size"):
            expect(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        expect(self.length > 2, "length", "more than the start and the end", self.length)


def language_erm(
    model: LanguageModel, tokenizer: Tokenizer, optimizer: Optimizer = Optimizer(), *, share: float = 0.15
) -> Learner:
    """Minimises the mean loss of a token, over the tokens of a batch that count; with the model's own dropout.

    The same model, special tokens and optimiser give the same learner, so nothing compiles again. Its batches are those
    of `token_batch`.

    Args:
      model: the language model.
      tokenizer: its tokenizer.
      optimizer: settings of the optimiser.
      share: of a masked model, how many tokens are hidden.
    """
    return _language_erm(model, tokenizer.pad, tokenizer.mask, tokenizer.special, optimizer, float(share))


def token_batch(tokenizer: Tokenizer, texts: Sequence[str], *, length: int) -> Batch:
    """Texts for the training loop: x are tokens as floats, which are exact; there is no label or attribute."""
    expect(len(texts) > 0, "texts", "at least one", "none")
    expect(tokenizer.size < 2**24, "tokenizer", "fewer tokens than float32 counts, 2^24", tokenizer.size)
    n = len(texts)
    return Batch(
        x=tokenizer.rows(texts, length=length).astype(np.float32),
        label=np.zeros(n, np.int32),
        attribute=np.full(n, -1, np.int32),
    )


def train_language_model(
    key: Key,
    model: LanguageModel,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    config: LanguageTraining = LanguageTraining(),
    *,
    params: Params | None = None,
) -> Params:
    """Trains a language model on texts, from scratch or from `params`.

    Args:
      key: for the first parameters, the order, dropout and what is hidden.
      model: the language model.
      tokenizer: its tokenizer.
      texts: the training texts.
      config: settings, see the class.
      params: where training starts; they are copied. None: from scratch.

    Raises:
      FloatingPointError: a loss that is not finite.
    """
    data = token_batch(tokenizer, texts, length=min(config.length, model.config.positions))
    per_epoch = min(steps_per_epoch(len(texts), config.batch_size), config.steps)
    epochs = math.ceil(config.steps / per_epoch)
    optimizer = Optimizer(
        name="adamw",
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        schedule="cosine",
        steps=epochs * per_epoch,
        clip=config.clip,
    )
    learner = language_erm(model, tokenizer, optimizer, share=config.share)
    state = None
    if params is not None:
        variables = jax.tree.map(jnp.array, params)
        state = State(variables, optimizer.build().init(trainable(variables)), jnp.ones((), jnp.float32))
    portions = FitConfig(
        epochs=epochs, batch_size=config.batch_size, steps_per_epoch=per_epoch, epochs_per_chunk=epochs
    )
    return fit(key, learner, data, portions, state=state).state.variables


@functools.cache
def _language_erm(
    model: LanguageModel, pad: int, mask: int | None, special: frozenset[int], optimizer: Optimizer, share: float
) -> Learner:
    expect(model.causal or mask is not None, "tokenizer", "a mask token, for a masked model", None)

    def init(key: Key, batch: Batch) -> State:
        del batch  # the sizes are the model's
        variables = model.init(key)
        return State(variables, optimizer.build().init(trainable(variables)), jnp.ones((), jnp.float32))

    def step(key: Key, state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        tokens = batch.x.astype(jnp.int32)
        weight = jnp.ones(batch.label.shape, jnp.float32) if batch.weight is None else batch.weight

        def loss_fn(params: Params) -> jax.Array:
            variables = with_trainable(state.variables, params)
            if model.causal:
                loss = causal_loss(model, variables, tokens, pad=pad, key=key)
            else:
                loss = masked_loss(key, model, variables, tokens, mask=mask, special=special, share=share)
            # A small batch may hide nothing at all.
            return (weight * loss.total).sum() / jnp.maximum((weight * loss.count).sum(), 1.0)

        params = trainable(state.variables)
        loss, gradient = jax.value_and_grad(loss_fn)(params)
        params, opt_state = update(optimizer.build(), gradient, state.opt_state, params, state.lr_scale)
        return State(with_trainable(state.variables, params), opt_state, state.lr_scale), {"loss": loss}

    def predict(state: State, x: Array) -> Any:
        return model.apply(state.variables, x.astype(jnp.int32))

    return Learner(init=init, step=step, predict=predict)
