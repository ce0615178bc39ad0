"""What is watched while training and what follows from it: the plateau's learning rate, early stopping, the best epoch.

Pure bookkeeping on the host, on one number per chunk of epochs; the device never sees it.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Batch, group_of
from jaxdebias.train._losses import correct, cross_entropy, weighted_mean


def mean_cross_entropy(logits: Any, batch: Batch) -> Any:
    """Mean cross-entropy over the rows, by their weights."""
    return weighted_mean(cross_entropy(logits, batch.label), batch.weight)


def accuracy(logits: Any, batch: Batch) -> Any:
    """Share of the rows predicted correctly, by their weights."""
    return weighted_mean(correct(logits, batch.label), batch.weight)


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """A quantity of the held-out rows. Use one object again, or `fn` of the same identity: it is compiled once."""

    name: str
    fn: Callable[[Any, Batch], Any]
    """(outputs, held_out) -> scalar; pure and jit-able. The outputs are logits [n k], or what `outputs` returns."""
    mode: Literal["min", "max"] = "min"
    outputs: Callable[[Any, Batch], Any] | None = None
    """(state, batch) -> one row of outputs per row of the batch, evaluated in chunks of fixed shape; for quantities
    that need more than logits. None: `learner.predict(state, batch.x)`."""
    rows: Callable[[Any, Batch], Batch] | None = None
    """(key, held_out) -> the held-out rows, of equal shapes, with the weights that this epoch's value sees, for
    protocols that watch a random part. None: as they are."""

    def __post_init__(self):
        check_choice("monitor.mode", self.mode, ("min", "max"))


HELD_OUT_LOSS = Monitor(name="held_out_loss", fn=mean_cross_entropy, mode="min")
HELD_OUT_ACCURACY = Monitor(name="held_out_accuracy", fn=accuracy, mode="max")


@functools.cache
def worst_class_accuracy(classes: int) -> Monitor:
    """Accuracy of the class that is predicted worst: chooses weights without labels of the bias.

    Where a class has no held-out row it is left out.
    """

    def worst(logits: Any, batch: Batch) -> Any:
        return _worst(logits, batch, batch.label, classes)

    return Monitor(name="held_out_worst_class_accuracy", fn=worst, mode="max")


@functools.cache
def worst_group_accuracy(classes: int, attributes: int) -> Monitor:
    """Accuracy of the worst group of held-out rows: an oracle's choice, which needs their labels of the bias.

    Groups without a held-out row, and rows of unknown attribute, are left out.
    """

    def worst(logits: Any, batch: Batch) -> Any:
        return _worst(logits, batch, group_of(batch.label, batch.attribute, attributes), classes * attributes)

    return Monitor(name="held_out_worst_group_accuracy", fn=worst, mode="max")


def _worst(logits: Any, batch: Batch, group: Any, groups: int) -> Any:
    weight = jnp.ones(len(group)) if batch.weight is None else batch.weight
    total = jax.ops.segment_sum(weight, group, groups)  # drops group -1
    right = jax.ops.segment_sum(weight * correct(logits, batch.label), group, groups)
    return jnp.where(total > 0, right / jnp.maximum(total, 1e-9), jnp.inf).min()


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """Multiplies the learning rate by `factor` when the monitor stalls, as PyTorch's ReduceLROnPlateau does."""

    factor: float = 0.1
    patience: int = 0
    """Bad chunks tolerated; one more lowers the rate, and counting starts again."""
    threshold: float = 1e-5
    """A chunk is good if it is better than the best one by more than this."""
    relative: bool = True
    """The threshold is a share of the best value, else absolute."""

    def __post_init__(self):
        expect(0 < self.factor < 1, "plateau.factor", "a number in (0, 1)", self.factor)
        expect(self.patience >= 0, "plateau.patience", "at least 0", self.patience)
        expect(self.threshold >= 0, "plateau.threshold", "at least 0", self.threshold)


@dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """Stops after `patience` chunks in a row without improvement; the run then returns the best state."""

    patience: int
    threshold: float = 1e-5
    """A chunk is an improvement if it is better than the best one by at least this; absolute."""

    def __post_init__(self):
        expect(self.patience >= 1, "early_stop.patience", "at least 1", self.patience)
        expect(self.threshold >= 0, "early_stop.threshold", "at least 0", self.threshold)


class Bookkeeping(NamedTuple):
    """What the host remembers between chunks. Values are turned so that smaller is better."""

    best: float = math.inf
    best_epoch: int | None = None
    """Epochs done when the best value was reached."""
    since_best: int = 0
    plateau_best: float = math.inf
    since_plateau: int = 0
    stopped: bool = False


class Verdict(NamedTuple):
    """What the loop has to do after a chunk."""

    improved: bool
    """Keep this state as the best."""
    lr_factor: float
    """Multiply the learning rate by this; 1 for no change."""


def judge(
    books: Bookkeeping,
    value: float,
    epoch: int,
    *,
    mode: str = "min",
    plateau: Plateau | None = None,
    early_stop: EarlyStop | None = None,
) -> tuple[Bookkeeping, Verdict]:
    """Enters one value of the monitor, reached after `epoch` epochs.

    Semantics of "Signal is Harder" (SiH) and its code: improvement is absolute for early stopping and relative for the
    plateau, and the learning rate is never raised again.

    >>> books = Bookkeeping()
    >>> for epoch, value in enumerate([5.0, 4.0, 4.0, 4.0], 1):
    ...     books, verdict = judge(books, value, epoch, plateau=Plateau(), early_stop=EarlyStop(patience=2))
    ...     print(verdict.improved, verdict.lr_factor, books.stopped)
    True 1.0 False
    True 1.0 False
    False 0.1 False
    False 0.1 True
    >>> books.best_epoch
    2
    """
    value = -value if mode == "max" else value
    margin = early_stop.threshold if early_stop else 0.0
    # `value < best` decides alone when the threshold is 0: an equal value is not an improvement.
    improved = value <= books.best - margin and value < books.best
    since_best = 0 if improved else books.since_best + 1
    books = books._replace(
        best=value if improved else books.best,
        best_epoch=epoch if improved else books.best_epoch,
        since_best=since_best,
        stopped=early_stop is not None and since_best >= early_stop.patience,
    )
    if plateau is None:
        return books, Verdict(improved, 1.0)
    share = abs(books.plateau_best) if plateau.relative else 1.0
    first = math.isinf(books.plateau_best)
    good = first or value < books.plateau_best - plateau.threshold * share
    since_plateau = 0 if good else books.since_plateau + 1
    lower = since_plateau > plateau.patience
    books = books._replace(
        plateau_best=value if good else books.plateau_best, since_plateau=0 if lower else since_plateau
    )
    return books, Verdict(improved, plateau.factor if lower else 1.0)
