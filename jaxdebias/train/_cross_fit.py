"""Every sample judged by a model that has not seen it: folds, one short training for each, predictions on the rest."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_integers, expect
from jaxdebias.core import Batch, Key, Learner, take
from jaxdebias.train._plans import steps_per_epoch
from jaxdebias.train._run import FitConfig
from jaxdebias.train._sweep import sweep
from jaxdebias.train.feed import View


class CrossFit(NamedTuple):
    """What models that have not been trained on a sample say of it."""

    probability: Float[np.ndarray, "n k"]
    """float32, averaged over the repeats."""
    fold: Int[np.ndarray, "repeats n"]
    """Which fold a sample was in, 0..folds-1."""


def cross_fit(
    key: Key,
    learner: Learner,
    data: Batch,
    *,
    steps: int,
    folds: int = 2,
    repeats: int = 1,
    batch_size: int = 256,
    hyper: Any = None,
    shared: Any = None,
    view: View | None = None,
) -> CrossFit:
    """Trains `folds * repeats` models as one sweep, each on all folds but one, and lets it predict that one.

    The label of a sample, and its attribute, do not enter what is said of it.

    Args:
      key: random key.
      learner: the training method.
      data: n samples; folds are drawn without regard to the labels. Rows of weight 0 are not learned from.
      steps: of each model.
      folds: number of folds.
      repeats: splits into folds; with several, the probabilities of a sample's models are averaged.
      batch_size: rows at a time.
      hyper: what `state.hyper` of every model is to be; None: what the learner starts with.
      shared: as in `train.sweep`.
      view: as in `train.sweep`.

    Raises:
      ContractError: labels that are no integers from 0, fewer than two samples for each fold.
      FloatingPointError: see `train.sweep`.
    """
    n = data.label.shape[0]
    expect(n >= 2 * folds, "data", f"at least {2 * folds} rows for {folds} folds", n)
    key_folds, key_models = jax.random.split(key)
    key_folds = jax.random.split(key_folds, repeats)
    places = np.stack([np.asarray(jax.random.permutation(one, n)) for one in key_folds])
    fold = (places % folds).astype(np.int32)

    # A model's own rows are numbers of rows of `data`, whose pixels are on the device once.
    everything = jax.device_put((shared, data.x))
    size = n - n // folds
    models = [(repeat, held) for repeat in range(repeats) for held in range(folds)]
    rows = [_rows(data, np.flatnonzero(fold[repeat] != held), size) for repeat, held in models]
    epochs = -(-steps // steps_per_epoch(size, batch_size))
    config = FitConfig(epochs=epochs, steps_per_epoch=-(-steps // epochs), batch_size=batch_size)
    fetch = _fetch(view)
    classes = jax.eval_shape(lambda: _untrained(learner, fetch(everything, take(rows[0], slice(2))))).shape[1]
    check_integers("data.label", data.label, n, 0, classes)

    said = np.zeros((repeats, n, classes), np.float32)
    for part in sweep(
        jax.random.split(key_models, len(models)),
        learner,
        rows,
        config,
        shared=everything,
        view=fetch,
        hyper=None if hyper is None else [hyper] * len(models),
    ):
        for place, number in enumerate(part.runs):
            repeat, held = models[number]
            mine = np.flatnonzero(fold[repeat] == held)
            state = jax.tree.map(lambda leaf, place=place: leaf[place], part.state)
            found = _probabilities(state, everything, _rows(data, mine, -(-n // folds)), learner=learner, fetch=fetch)
            said[repeat, mine] = np.asarray(found)[: len(mine)]
    return CrossFit(said.mean(axis=0), fold)


def _rows(data: Batch, index: Int[np.ndarray, "m"], size: int) -> Batch:
    """Rows of the data, their pixels by number, filled up to `size` with rows of weight 0."""
    filled = np.concatenate([index, np.zeros(size - len(index), index.dtype)]).astype(np.int32)
    weight = (np.arange(size) < len(index)).astype(np.float32)
    if data.weight is not None:
        weight = weight * np.asarray(data.weight)[filled]
    return Batch(
        x=filled, label=np.asarray(data.label)[filled], attribute=np.asarray(data.attribute)[filled], weight=weight
    )


def _untrained(learner: Learner, batch: Batch) -> jax.Array:
    """Logits of an untrained learner; for their shape."""
    return learner.predict(learner.init(jax.random.key(0), batch), batch.x)


@functools.cache
def _fetch(view: View | None) -> View:
    """Rows by number -> the batch; the same object for the same view."""

    def fetch(everything: Any, rows: Batch) -> Batch:
        shared, x = everything
        batch = rows._replace(x=jax.tree.map(lambda leaf: leaf[rows.x], x))
        return batch if view is None else view(shared, batch)

    return fetch


@functools.partial(jax.jit, static_argnames=("learner", "fetch"))
def _probabilities(
    state: Any, everything: Any, rows: Batch, *, learner: Learner, fetch: View
) -> Float[jax.Array, "n k"]:
    def of(both: Any, part: Batch) -> jax.Array:
        return jax.nn.softmax(learner.predict(both[0], fetch(both[1], part).x))

    return map_rows(of, (state, everything), rows)
