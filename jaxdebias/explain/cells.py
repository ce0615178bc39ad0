"""Bias cells without bias labels: which easy feature a sample shows, guessed by a model that has seen little else.

A net that is trained briefly, with a loss that gives up on hard samples, follows whatever is easiest. If that is a
shortcut, its predictions say what value of the shortcut a sample shows. Two things make the guess clean. The pictures
are augmented so that the true feature gets harder and the shortcut does not (turning and stretching makes a digit's
shape harder and leaves its colour): the order of difficulty is enforced, not hoped for. And each sample is judged by
nets that have not been trained on it, so no time to stop has to be found.

What the guess is about is decided by the augmentation. With geometric views, a shortcut that is itself geometric
(position, orientation, size) is destroyed, and the cells are of no use; the guesses have as many values as there are
classes; and where the labels are wrong, a wrong label looks like a conflicting sample.

Source: ours, after the held-out twins of XRM (Pezeshki et al. 2024) and GCE (Zhang & Sabuncu 2018); weights of Kamiran
& Calders (2012).
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_integers, expect
from jaxdebias.core import Array, Batch, Key, Learner, take
from jaxdebias.data.aligned import cell_counts
from jaxdebias.data.plans import steps_per_epoch
from jaxdebias.train.feed import View
from jaxdebias.train.optimizer import Optimizer
from jaxdebias.train.run import RunConfig
from jaxdebias.train.sweep import sweep


@dataclass(frozen=True, kw_only=True)
class CellsConfig:
    """How the judges are trained. They are meant to be short of time."""

    folds: int = 2
    repeats: int = 1
    """Splits into folds; with several, the probabilities of a sample's judges are averaged."""
    steps: int = 300
    """Without an augmentation that breaks shapes: 1,000."""
    batch_size: int = 256

    def __post_init__(self):
        expect(self.folds >= 2, "config.folds", "at least 2", self.folds)
        for name in ("repeats", "steps", "batch_size"):
            expect(getattr(self, name) >= 1, f"config.{name}", "at least 1", getattr(self, name))

    @property
    def optimizer(self) -> Optimizer:
        """Adam at 1e-3, falling to 0 over the steps: what the judges' learner should be built with."""
        return Optimizer(learning_rate=1e-3, schedule="cosine", steps=self.steps)


class Cells(NamedTuple):
    """What the judges say of each sample."""

    guess: Int[np.ndarray, "n"]
    """int32, 0..k-1: the class that a sample looks like to judges who have not seen it."""
    probability: Float[np.ndarray, "n k"]
    """float32, the judges' probabilities, averaged over the repeats."""
    fold: Int[np.ndarray, "repeats n"]
    """Which fold a sample was in, 0..folds-1."""
    counts: Int[np.ndarray, "k s"]
    """Samples of label y (row) and guess s (column)."""

    @property
    def flagged_share(self) -> float:
        """Share of samples whose guess is not their label."""
        return 1.0 - float(np.trace(self.counts) / self.counts.sum())


def find_cells(key: Key, learner: Learner, data: Batch, config: CellsConfig = CellsConfig(), *, shared: Any = None,
               view: View | None = None) -> Cells:
    """Trains `folds * repeats` judges as one sweep and lets each judge the fold that it has not seen.

    Reads `data.x` and `data.label`, never `data.attribute`. The label of a sample does not enter its own guess.

    Args:
      learner: of the judges. Recommended: `mitigate.gce(classifier, config.optimizer, augment=random_affine())`.
      data: n samples; folds are drawn without regard to the labels.
      shared, view: as in `train.sweep`.

    Returns:
      The guesses; by how much they can be trusted, see `reweighing` and the share that is flagged.

    Raises:
      ContractError: labels that are no integers from 0, fewer samples than folds.
    """
    n = data.label.shape[0]
    expect(n >= 2 * config.folds, "data", f"at least {2 * config.folds} rows for {config.folds} folds", n)
    key_folds, key_judges = jax.random.split(key)
    key_folds = jax.random.split(key_folds, config.repeats)
    places = np.stack([np.asarray(jax.random.permutation(one, n)) for one in key_folds])
    fold = (places % config.folds).astype(np.int32)

    # A judge's own rows are numbers of rows of `data`, which is on the device once.
    everything = jax.device_put((shared, data._replace(attribute=None, twin=None, mask=None, unit=None, index=None)))
    size = n - n // config.folds
    judges = [(repeat, held) for repeat in range(config.repeats) for held in range(config.folds)]
    rows = [_rows(np.flatnonzero(fold[repeat] != held), size) for repeat, held in judges]
    per_pass = steps_per_epoch(size, config.batch_size)
    epochs = -(-config.steps // per_pass)
    portions = RunConfig(epochs=epochs, steps_per_epoch=-(-config.steps // epochs), batch_size=config.batch_size)
    fetch = _fetch(view)
    classes = jax.eval_shape(lambda: _untrained(learner, fetch(everything, take(rows[0], slice(2))))).shape[1]
    check_integers("data.label", data.label, n, 0, classes)

    found = np.zeros((config.repeats, n, classes), np.float32)
    for part in sweep(jax.random.split(key_judges, len(judges)), learner, rows, portions, shared=everything,
                      view=fetch):
        for place, number in enumerate(part.runs):
            repeat, held = judges[number]
            mine = np.flatnonzero(fold[repeat] == held)
            state = jax.tree.map(lambda leaf, place=place: leaf[place], part.state)
            said = _judge(state, everything, _rows(mine, -(-n // config.folds)), learner=learner, fetch=fetch)
            found[repeat, mine] = np.asarray(said)[: len(mine)]
    mean = found.mean(axis=0)
    guess = mean.argmax(axis=1).astype(np.int32)
    return Cells(guess, mean, fold, cell_counts(data.label, guess, classes, classes))


def reweighing(counts: Float[Array, "k s"] | Int[Array, "k s"], *, cap: float = 1000.0) -> Float[np.ndarray, "k s"]:
    """Weights of the cells that make guess and label independent and keep both marginals; 0 for empty cells.

    r[y, s] = n[y, .] n[., s] / (N n[y, s]), Kamiran & Calders (2012), at most `cap`.

    >>> reweighing(np.array([[90, 10], [20, 80]])).round(4).tolist()
    [[0.6111, 4.5], [2.75, 0.5625]]
    """
    counts = np.asarray(counts, np.float64)
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
    weights = np.divide(expected, counts, out=np.zeros_like(counts), where=counts > 0)
    return np.minimum(weights, cap)


def _rows(index: np.ndarray, size: int) -> Batch:
    """Rows of the data by number, filled up to `size` with rows of weight 0."""
    filled = np.concatenate([index, np.zeros(size - len(index), index.dtype)]).astype(np.int32)
    # Labels are fetched with the pixels; the loop wants to see a field of the right length.
    return Batch(x=filled, label=filled, attribute=None, weight=(np.arange(size) < len(index)).astype(np.float32))


def _untrained(learner: Learner, batch: Batch) -> jax.Array:
    """Logits of an untrained learner; for their shape."""
    return learner.predict(learner.init(jax.random.key(0), batch), batch.x)


@functools.cache
def _fetch(view: View | None) -> View:
    """Rows by number -> the batch; the same object for the same view."""

    def fetch(everything: Any, rows: Batch) -> Batch:
        shared, data = everything
        at = rows.x
        weight = rows.weight if data.weight is None else rows.weight * data.weight[at]
        batch = Batch(x=jax.tree.map(lambda leaf: leaf[at], data.x), label=data.label[at],
                      attribute=jnp.full(at.shape, -1, jnp.int32), weight=weight, index=rows.index)
        return batch if view is None else view(shared, batch)

    return fetch


@functools.partial(jax.jit, static_argnames=("learner", "fetch"))
def _judge(state: Any, everything: Any, rows: Batch, *, learner: Learner, fetch: View) -> Float[jax.Array, "n k"]:
    def probabilities(both: Any, part: Batch) -> jax.Array:
        return jax.nn.softmax(learner.predict(both[0], fetch(both[1], part).x))

    return map_rows(probabilities, (state, everything), rows)
