"""Fast Model Debias: edit the last layer with counterfactual pairs, in seconds, and keep the edit only if it helps.

One round, at the present head theta:

    H      second derivative of the training objective, from at most `curvature_rows` training rows, damped
    step   ext:    H^-1 sum over pairs of (grad loss(x) - grad loss(twin)), FMD's update with external pairs (section
                   4): learn the conflicting renderings, unlearn the aligned ones
           gradB:  -H^-1 grad B, B the bias of the pairs
    theta  theta + t * step, t by line search on held-out examples, or nothing

The published method takes one such step at t = 1. That is a trap: a model that fits its training set is saturated,
its curvature is all but flat, and the step throws it anywhere (see the table in benchmarks/README.md). What
works is to search t in units of what it does to the logits and to linearise again, about ten times.

The line search. Candidates are u = 0 and 2^-5 .. 2^4, u being the root mean square change of the centred logits of the
accept pairs. Rule `near`: among the candidates whose accuracy on `accept` is within one point of the best, the least
bias. (Least bias at no loss of accuracy stops far too early; most accuracy minus bias picks a collapsed model.) Where
u = 0 is chosen the edit ends. At the end the edit is kept only if the bias has fallen by more than chance explains.

Part of a low bias is bought on aligned images; `aligned_floor` bounds that. Source: FMD (Chen et al. 2023).
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_batch, check_choice, check_finite, describe, expect
from jaxdebias.core import Array, Batch, Key, Params, Split, take
from jaxdebias.explain.influence.objective import (
    AffineHead,
    HeadPairs,
    HeadProblem,
    bias_gradient,
    find_head,
    head_logits,
    head_problem,
    pair_bias,
    pair_gap,
    pair_gradient,
    to_head,
)
from jaxdebias.explain.influence.solvers import factor, residual
from jaxdebias.measure.counterfactual import true_class_probability


@dataclass(frozen=True, kw_only=True)
class FmdConfig:
    """Defaults are those that hold on real models; they are ours, not the paper's (which takes one step)."""

    rounds: int = 10
    """Re-linearisations at most; a round that finds no better head ends the edit."""
    damping: float = 1e-3
    """Added to the curvature of the MEAN of the training losses; that of the sum is n times this."""
    curvature_rows: int = 10_000
    """Random training rows for the curvature, drawn once; all of them where there are fewer."""
    pairs: int | None = None
    """Random edit pairs to use at most; None: all. At least 500 for 10 classes do well."""
    direction: str = "ext"
    """`ext` or `gradB`. `ext` is the paper's; `gradB` ends at a lower bias with slightly less accuracy."""
    bias: str = "pair"
    """`pair` or `gap`: `pair` for true counterfactuals, `gap` for matched pairs of different examples."""
    near: float = 0.01
    """Accuracy on `accept` that may be given up against the best candidate of a round."""
    steps_per_octave: int = 1
    """Candidates u per factor of 2. A saturated model wants the coarse grid: a finer one lets the first rounds buy more
    bias with aligned accuracy than later ones can use. On a model that is not saturated the coarse grid oversteps the
    least bias, and `ext` cannot step back: there take 4."""
    aligned_floor: float | None = 0.10
    """Accuracy on the aligned renderings that the whole edit may cost, against the unedited model; None: no floor. The
    budget is released in equal parts over the first half of the rounds: greedy first rounds that could spend it all
    sometimes did, and no later step was then allowed (chosen on the accept sets of seeds that no table reports)."""
    significance: float = 3.0
    """Standard errors, paired over the accept pairs, by which the bias must fall for the whole edit to be kept; 0: any
    fall will do. A search over many candidates finds small falls in noise, also with pairs whose labels are wrong; 3
    was set after looking at the accept splits of coloured digits."""
    search: bool = True
    """False: one step of t = 1, kept whatever it does. For comparison with the paper; expect a destroyed model."""

    def __post_init__(self):
        check_choice("direction", self.direction, ("ext", "gradB"))
        check_choice("bias", self.bias, ("pair", "gap"))
        expect(self.rounds >= 1, "rounds", "at least 1", self.rounds)
        expect(self.damping > 0, "damping", "more than 0: the softmax Hessian is singular", self.damping)
        expect(self.curvature_rows >= 1, "curvature_rows", "at least 1", self.curvature_rows)
        expect(self.pairs is None or self.pairs >= 1, "pairs", "at least 1, or None for all", self.pairs)
        expect(self.steps_per_octave >= 1, "steps_per_octave", "at least 1", self.steps_per_octave)
        expect(self.near >= 0, "near", "at least 0", self.near)
        expect(self.significance >= 0, "significance", "at least 0", self.significance)


class FmdRound(NamedTuple):
    """One round. Bias and accuracies are those of the held-out sets at the head after the round."""

    u: float
    """The chosen step, as rms change of the centred logits of the accept pairs; 0: none was better."""
    t: float
    """The same, as a multiple of the step."""
    predicted_change: float
    """Of the bias of the accept pairs, to first order in the chosen step."""
    achieved_change: float
    bias: float
    accuracy: float
    aligned_accuracy: float
    residual: float
    """Of the solve that gave the step."""
    smallest_pivot: float
    gradient_norm: float
    """|grad| of the sum of training losses at the head before the round (estimated from the curvature rows)."""
    seconds: float


class FmdInfo(NamedTuple):
    """What the edit did, on the held-out accept sets. Report on a test set, not on these."""

    accepted: bool
    """False: the parameters that came back are the very ones that went in."""
    bias_before: float
    bias_after: float
    accuracy_before: float
    accuracy_after: float
    aligned_before: float
    """Accuracy on the aligned renderings of the accept pairs."""
    aligned_after: float
    fall: float
    """Of the bias of the accept pairs, by all rounds together, in standard errors; what `significance` is asked of."""
    rounds: tuple[FmdRound, ...]
    """All that were tried, also where the edit was not accepted."""
    seconds: float


def fmd(key: Key, split: Split, params: Params, train: Batch, pairs: Batch, accept: Batch, accept_pairs: Batch,
        config: FmdConfig = FmdConfig(), *, head_path: tuple[str | int, ...] = ("params", "head"),
        batch_size: int = 1024) -> tuple[Params, FmdInfo]:
    """Edits the last layer of a trained classifier so that it depends less on the attribute.

    Features are computed once, only the head changes, and every other leaf of params comes back as the same object.
    A second call with the same functions and shapes compiles nothing.

    Args:
      key: draws the curvature rows and, if `config.pairs` limits them, the pairs.
      split: the model cut before its last layer; the head must be affine.
      params: of the trained model.
      train: the training set, for the curvature of its objective. Only x, label and weight are used.
      pairs: the external counterfactual pairs: x with the aligned attribute, `twin` with the changed one, same label.
        None of them in the training set. No pairs at all: the edit is the identity.
      accept: held-out examples for the accuracy of the candidates, each in one random rendering of the attribute, so
        that plain accuracy does not reward the shortcut.
      accept_pairs: held-out pairs, as `pairs`, for bias and aligned accuracy of the candidates.
      config: see there.
      head_path: where the last layer lies in params, see `influence.find_head`; our classifiers say it themselves.
      batch_size: rows at a time through the network.

    Returns:
      (params, info). With `info.accepted` False, params is the object that was passed.

    Raises:
      ContractError: malformed batches, pairs without twins, a head that is not affine, values that are not finite, a
        damping too small for a definite Hessian.
    """
    began = time.perf_counter()
    _check(train, pairs, accept, accept_pairs)
    key_rows, key_pairs = jax.random.split(key)

    def features(x: Array) -> jax.Array:
        z = map_rows(split.features, params, jnp.asarray(x), batch_size=batch_size)
        expect(z.ndim == 2, "split.features", "vectors [n d] before the last layer", describe(z))
        return z

    def both(batch: Batch) -> HeadPairs:
        return HeadPairs(features(batch.x), features(batch.twin), jnp.asarray(batch.label))

    held_out = both(accept_pairs)
    head, replace = find_head(split.head, params, head_path, held_out.features.shape[1])
    view = _AcceptView(features(accept.x), jnp.asarray(accept.label), _ones_or(accept.weight, accept.label), held_out)
    bias_fn = pair_bias if config.bias == "pair" else pair_gap
    before = _measure_once(head, view, bias_fn)
    check_finite("the model's bias and accuracy on the accept sets", before)
    bias, accuracy, aligned = (float(v) for v in before)
    info = FmdInfo(False, bias, bias, accuracy, accuracy, aligned, aligned, 0.0, (), time.perf_counter() - began)
    if pairs.x.shape[0] == 0:
        return params, info

    edit = both(_at_most(key_pairs, pairs, config.pairs))
    problem = _training_objective(key_rows, train, config.curvature_rows, features, head)
    damping = config.damping * float(np.sum(_ones_or(train.weight, train.label)))
    unedited, budget, aligned_at_first = head, config.aligned_floor, aligned
    grid = candidates(config.steps_per_octave)
    rounds = []
    for number in range(1, 1 + (config.rounds if config.search else 1)):
        start = time.perf_counter()
        floor = -np.inf if budget is None else aligned_at_first - budget * min(1.0, 2 * number / config.rounds)
        problem = problem._replace(head=head)
        rhs = pair_gradient(head, edit) if config.direction == "ext" else -bias_gradient(bias_fn, head, edit)
        inverse = factor(problem, damping=damping)
        step = inverse.solve(np.asarray(rhs)[:, None])
        direction = to_head(jnp.asarray(step[:, 0].astype(rhs.dtype)), head)
        found = _line_search(head, direction, view, jnp.asarray(grid), bias_fn)
        found = jax.tree.map(np.asarray, found)
        if config.search:
            chosen = near(found.accuracy, found.bias, found.aligned, floor=floor, tolerance=config.near)
            t, u = found.t[chosen], grid[chosen]
            head_after = jax.tree.map(lambda leaf, change: leaf + t * change, head, direction)  # noqa: B023
            now = found.bias[chosen], found.accuracy[chosen], found.aligned[chosen]
        else:
            t, u = 1.0, float(found.unit)
            head_after = jax.tree.map(jnp.add, head, direction)
            now = jax.tree.map(np.asarray, _measure_once(head_after, view, bias_fn))
        check_finite("edited head", head_after)
        rounds.append(FmdRound(
            u=float(u), t=float(t), predicted_change=float(t * found.slope), achieved_change=float(now[0]) - bias,
            bias=float(now[0]), accuracy=float(now[1]), aligned_accuracy=float(now[2]),
            residual=residual(problem, step, np.asarray(rhs)[:, None], damping=damping),
            smallest_pivot=inverse.info.smallest_pivot, gradient_norm=inverse.info.gradient_norm,
            seconds=time.perf_counter() - start))
        if u == 0.0:
            break
        head, (bias, accuracy, aligned) = head_after, (float(v) for v in now)

    seconds, taken = time.perf_counter() - began, any(r.u != 0.0 for r in rounds)
    fall = float(_fall(unedited, head, held_out, config.bias)) if taken else 0.0
    info = info._replace(fall=fall, rounds=tuple(rounds), seconds=seconds)
    if not taken or (config.search and fall < config.significance):
        return params, info
    info = info._replace(accepted=True, bias_after=bias, accuracy_after=accuracy, aligned_after=aligned)
    return replace(params, head), info


def candidates(steps_per_octave: int) -> Float[np.ndarray, "m"]:
    """The candidates u: 0 and 2^-5 .. 2^4, in units of the rms change of the centred logits of the accept pairs.

    >>> candidates(1)[:4].tolist(), candidates(1)[-1].item(), len(candidates(4))
    ([0.0, 0.03125, 0.0625, 0.125], 16.0, 38)
    """
    exponents = np.arange(-5 * steps_per_octave, 4 * steps_per_octave + 1) / steps_per_octave
    return np.concatenate([[0.0], 2.0**exponents]).astype(np.float32)


def near(accuracy: Float[Array, "m"], bias: Float[Array, "m"], aligned: Float[Array, "m"], *, floor: float,
         tolerance: float) -> int:
    """The candidate of least bias among those within `tolerance` of the best accuracy; the first of equals.

    Candidate 0 is the present head. Others under the floor of aligned accuracy, or not finite, are not candidates.

    >>> near(np.array([0.5, 0.7, 0.795, 0.80]), np.array([0.6, 0.1, 0.2, 0.3]), np.ones(4), floor=0.9, tolerance=0.01)
    2
    """
    allowed = (np.asarray(aligned) >= floor) & np.isfinite(np.asarray(bias))
    allowed[0] = True
    accuracy = np.where(allowed, accuracy, -np.inf)
    enough = accuracy.max() - tolerance - 1e-6  # one point of 2,000 float32 examples is one point
    return int(np.argmin(np.where(accuracy >= enough, bias, np.inf)))


class _AcceptView(NamedTuple):
    """The accept sets as cached features."""

    features: jax.Array  # [n d]
    label: jax.Array  # [n]
    weight: jax.Array  # [n]
    pairs: HeadPairs


class _Search(NamedTuple):
    t: jax.Array  # [m], the candidates as multiples of the step
    bias: jax.Array  # [m]
    accuracy: jax.Array  # [m]
    aligned: jax.Array  # [m]
    slope: jax.Array  # derivative of the bias by t at 0
    unit: jax.Array  # rms change of the centred logits at t = 1


def _measure(head: AffineHead, view: _AcceptView, bias_fn: Callable) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(bias, accuracy, aligned accuracy) of a head on the accept sets."""
    right = head_logits(head, view.features).argmax(axis=1) == view.label
    aligned = head_logits(head, view.pairs.features).argmax(axis=1) == view.pairs.label
    return bias_fn(head, view.pairs), (view.weight * right).sum() / view.weight.sum(), aligned.mean()


_measure_once = jax.jit(_measure, static_argnames=("bias_fn",))


@functools.partial(jax.jit, static_argnames=("bias",))
def _fall(before: AffineHead, after: AffineHead, pairs: HeadPairs, bias: str) -> jax.Array:
    """By how many of its standard errors the bias of the pairs falls; the pairs are the same for both heads."""
    def terms(head: AffineHead) -> jax.Array:
        p, p_twin = (true_class_probability(head_logits(head, z), pairs.label) for z in (pairs.features, pairs.twin))
        change = p - p_twin
        return jnp.abs(change) if bias == "pair" else change * jnp.sign(change.mean())

    fall = terms(before) - terms(after)
    error = fall.std(ddof=1) / jnp.sqrt(fall.size)
    return fall.mean() / jnp.maximum(error, 1e-12)


@functools.partial(jax.jit, static_argnames=("bias_fn",))
def _line_search(head: AffineHead, direction: AffineHead, view: _AcceptView, grid: Float[Array, "m"],
                 bias_fn: Callable) -> _Search:
    """All candidates of one round in one program."""
    def moved(t):
        return jax.tree.map(lambda leaf, change: leaf + t * change, head, direction)

    change = jnp.concatenate([head_logits(direction, view.pairs.features), head_logits(direction, view.pairs.twin)])
    unit = jnp.sqrt(((change - change.mean(axis=1, keepdims=True)) ** 2).mean())
    t = jnp.where(unit > 0, grid / jnp.where(unit > 0, unit, 1.0), 0.0)
    bias, accuracy, aligned = jax.vmap(lambda t: _measure(moved(t), view, bias_fn))(t)
    _, slope = jax.jvp(lambda t: bias_fn(moved(t), view.pairs), (0.0,), (1.0,))
    return _Search(t, bias, accuracy, aligned, slope, unit)


def _training_objective(key: Key, train: Batch, rows: int, features: Callable, head: AffineHead) -> HeadProblem:
    """The sum of training losses, estimated from random rows; the optimiser's weight decay is left to the damping."""
    n = train.x.shape[0]
    chosen = _at_most(key, train, rows)
    used = chosen.x.shape[0]
    return head_problem(features(chosen.x), np.asarray(chosen.label), head,
                        weight=_ones_or(chosen.weight, chosen.label) * np.float32(n / used))


def _at_most(key: Key, batch: Batch, rows: int | None) -> Batch:
    """Random rows without repetition, or the batch itself where it has no more."""
    n = batch.x.shape[0]
    return batch if rows is None or rows >= n else take(batch, np.asarray(jax.random.permutation(key, n)[:rows]))


def _ones_or(weight: Array | None, label: Array) -> np.ndarray:
    return np.ones(label.shape[0], np.float32) if weight is None else np.asarray(weight, np.float32)


def _check(train: Batch, pairs: Batch, accept: Batch, accept_pairs: Batch) -> None:
    check_batch(train, what="train")
    check_batch(accept, what="accept")
    check_batch(accept_pairs, what="accept_pairs")
    expect(accept_pairs.twin is not None, "accept_pairs.twin", "the conflicting rendering of x", None)
    if pairs.x.shape[0] > 0:
        check_batch(pairs, what="pairs")
        expect(pairs.twin is not None, "pairs.twin", "the conflicting rendering of x", None)
