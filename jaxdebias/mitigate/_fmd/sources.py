"""What an edit is made of: held-out pairs, or training samples that are replaced by their twins or removed."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdebias.contracts import expect
from jaxdebias.core import Array, Batch, Key, take
from jaxdebias.explain.influence._inverse import InverseHessian
from jaxdebias.explain.influence._objective import HeadPairs, HeadProblem, bias_gradient, head_problem, pair_gradient
from jaxdebias.explain.influence._scores import change_if_removed, change_if_replaced, top_harmful
from jaxdebias.mitigate._fmd.config import FmdConfig


class Measured(NamedTuple):
    """The bias that an edit is to lower, on the samples that the edit is made of."""

    bias_fn: Callable
    """(head, data) -> the bias."""
    data: Any
    """`HeadPairs`, or `HeadRows` for a bias of groups."""

    def gradient(self, head: Any) -> Float[jax.Array, "p"]:
        return bias_gradient(self.bias_fn, head, self.data)


@runtime_checkable
class EditSource(Protocol):
    """What a step is made of."""

    def right_hand_side(self, head: Any, inverse: InverseHessian) -> Float[jax.Array, "p"]:
        """What the inverse curvature is applied to, at the present head."""
        ...


class External(NamedTuple):
    """Held-out pairs, which needs no training sample but for the curvature."""

    direction: str
    pairs: HeadPairs | None
    """None for a bias of groups, whose direction is `gradB`."""
    measured: Measured

    def right_hand_side(self, head: Any, inverse: InverseHessian) -> Float[jax.Array, "p"]:
        del inverse
        if self.direction == "ext":
            return pair_gradient(head, self.pairs)
        if self.direction == "learn":
            return -HeadProblem(self.pairs.twin, self.pairs.label, None, head, 0.0).gradient()
        return -self.measured.gradient(head)


class TrainingSamples(NamedTuple):
    """The training samples that may be edited, as a problem of their own, and which of them are."""

    problem: HeadProblem
    random: Int[np.ndarray, "m"]
    """The rows that are chosen where none are ranked."""
    ranking: str

    def gradient(self, head: Any, features: Any, rows: Array) -> Float[jax.Array, "p"]:
        """Sum over the rows of grad loss at these features, with the labels and weights of the rows."""
        problem = self.problem
        chosen = jax.tree.map(lambda leaf: leaf[rows], features)
        weight = None if problem.weight is None else problem.weight[rows]
        return HeadProblem(chosen, problem.label[rows], weight, head, 0.0).gradient()


class Removed(NamedTuple):
    """Training samples are removed."""

    samples: TrainingSamples
    measured: Measured

    def right_hand_side(self, head: Any, inverse: InverseHessian) -> Float[jax.Array, "p"]:
        samples = self.samples
        rows = samples.random
        if samples.ranking != "none":
            change = change_if_removed(samples.problem._replace(head=head), inverse, self.measured.gradient(head))
            rows = top_harmful(change, len(rows))[0]
        return samples.gradient(head, samples.problem.features, rows)


class Replaced(NamedTuple):
    """Training samples are replaced by their counterfactual twins."""

    samples: TrainingSamples
    twin: Any
    """Features of the twins, in the order of the samples."""
    measured: Measured

    def right_hand_side(self, head: Any, inverse: InverseHessian) -> Float[jax.Array, "p"]:
        samples = self.samples
        rows, problem = samples.random, samples.problem._replace(head=head)
        if samples.ranking == "removal":
            rows = top_harmful(change_if_removed(problem, inverse, self.measured.gradient(head)), len(rows))[0]
        elif samples.ranking == "action":
            change = change_if_replaced(problem, inverse, self.measured.gradient(head), self.twin)
            rows = top_harmful(change, len(rows))[0]
        return samples.gradient(head, problem.features, rows) - samples.gradient(head, self.twin, rows)


def edited_samples(
    key: Key,
    train: Batch,
    config: FmdConfig,
    aligned: Bool[np.ndarray, "k a"] | None,
    features: Callable[[Array], Any],
    head: Any,
    measured: Measured,
) -> EditSource:
    """The source of an edit that replaces or removes training samples, all of them or the aligned ones."""
    if aligned is not None:
        known = np.asarray(train.attribute) >= 0
        cell = np.asarray(aligned)[np.asarray(train.label), np.maximum(np.asarray(train.attribute), 0)]
        rows = np.flatnonzero(known & cell)
        expect(len(rows) > 0, "sets.train", "aligned samples", "none")
        train = take(train._replace(mask=None, index=None, unit=None), rows)
    problem = head_problem(features(train.x), np.asarray(train.label), head, weight=train.weight)
    n = len(problem.label)
    count = n if config.pairs is None else min(config.pairs, n)
    random = np.asarray(jax.random.permutation(key, n)[:count])
    samples = TrainingSamples(problem, random, config.ranking)
    if config.edit_with == "remove":
        return Removed(samples, measured)
    return Replaced(samples, features(train.twin), measured)


def at_most(key: Key, batch: Batch, rows: int | None) -> Batch:
    """Random rows without repetition, or the batch itself where it has no more."""
    n = batch.x.shape[0]
    return batch if rows is None or rows >= n else take(batch, np.asarray(jax.random.permutation(key, n)[:rows]))


def training_objective(
    key: Key, train: Batch, config: FmdConfig, features: Callable[[Array], Any], head: Any, pairs: HeadPairs | None
) -> HeadProblem:
    """The sum of training losses, estimated from random rows; the optimiser's weight decay is left to the damping.

    With `config.twin_weight`, that of the pairs' twins beside it.
    """
    n = train.x.shape[0]
    chosen = at_most(key, train, config.curvature_rows)
    weight = ones_or(chosen.weight, chosen.label) * np.float32(n / chosen.x.shape[0])
    z, label = features(chosen.x), jnp.asarray(chosen.label)
    if config.twin_weight > 0 and pairs is not None:
        z = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), z, pairs.twin)
        label = jnp.concatenate([label, pairs.label])
        weight = np.concatenate([weight, np.full(pairs.label.shape[0], config.twin_weight, np.float32)])
    return head_problem(z, label, head, weight=weight)


def ones_or(weight: Array | None, label: Array) -> Float[np.ndarray, "n"]:
    """The weights of rows, 1 where none are given."""
    return np.ones(len(label), np.float32) if weight is None else np.asarray(weight, np.float32)
