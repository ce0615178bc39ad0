"""Fast Model Debias: edit few parameters with counterfactual pairs, in seconds, and keep the edit only if it helps.

One round, at the present parameters theta of the edited block (the last layer if nothing else is said):

    H      curvature of the training objective, from at most `curvature_rows` training rows, damped
    step   ext:    H^-1 sum over pairs of (grad loss(x) - grad loss(twin)), FMD's update with external pairs (section
                   4): learn the conflicting renderings, unlearn the aligned ones
           learn:  H^-1 sum over pairs of -grad loss(twin): the first half of it
           gradB:  -H^-1 grad B, B the bias of the pairs, or of groups
    theta  theta + t * step, t by line search on held-out examples, or nothing

The published method takes one such step at t = 1. That is a trap: a model that fits its training set is saturated,
its curvature is all but flat, and the step throws it anywhere (see the table in benchmarks/README.md). What
works is to search t in units of what it does to the logits and to linearise again, about ten times. With `edited` the
curvature is that of the objective with the pairs in it, in which the pairs that the model gets wrong are not flat.

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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_batch, check_choice, check_finite, describe, expect
from jaxdebias.core import Array, Batch, Key, Params, Split, take
from jaxdebias.explain.influence._block import find_block
from jaxdebias.explain.influence._conjugate_gradient import ConjugateGradient
from jaxdebias.explain.influence._cut import ApplyFn, Where
from jaxdebias.explain.influence._find_head import find_head
from jaxdebias.explain.influence._functionals import GROUP_BIASES, HeadRows
from jaxdebias.explain.influence._inverse import InverseHessian, Solver
from jaxdebias.explain.influence._objective import (
    HeadPairs,
    HeadProblem,
    bias_gradient,
    head_problem,
    pair_bias,
    pair_gap,
    pair_gradient,
)
from jaxdebias.explain.influence._scores import change_if_removed, change_if_replaced, top_harmful
from jaxdebias.mitigate._fmd.line_search import AcceptView, Judged, candidates, fall, judge, near
from jaxdebias.mitigate._fmd.rounds import EditRound, edit_in_rounds

BIASES = {"pair": pair_bias, "gap": pair_gap, **GROUP_BIASES}


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
    """Edit pairs, or training samples, to use at most; None: all. At least 500 for 10 classes do well."""
    direction: str = "ext"
    """`ext`, `learn` or `gradB`. `ext` is the paper's; `gradB` ends at a lower bias with slightly less accuracy."""
    bias: str = "pair"
    """`pair` for true counterfactuals, `gap` for matched pairs of different examples; with two classes and attributes
    also `demographic_parity`, `equal_opportunity` and `equalised_odds` (soft), over the edit and accept examples."""
    samples: str = "external"
    """What the step is made of. `external`: held-out pairs; needs no training sample but for the curvature. `replace`:
    training samples are replaced by their counterfactual twins (`train.twin`). `remove`: they are removed."""
    ranking: str = "none"
    """For `replace` and `remove`, which samples. `none`: random ones, aligned if `aligned` is given. `action`: by the
    score of what is done. `removal`: by the paper's score, whatever is done. Ranked samples did worse than random ones
    wherever it was measured (3 seeds, benchmarks/results/fmd_samples.json): scores are not additive and pick one kind
    of sample."""
    edited: float = 0.0
    """How often each pair's twin counts in the curvature, beside the training rows; 0 is the paper's."""
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
    step: float | None = None
    """Take this step u in every round instead of searching, for a curve over steps; the edit is always kept."""
    solver: Solver | None = None
    """None: a dense factor for a last layer, 30 conjugate gradients on the Gauss-Newton matrix for any other block."""
    search: bool = True
    """False: one step of t = 1, kept whatever it does. For comparison with the paper; expect a destroyed model."""

    def __post_init__(self):
        check_choice("direction", self.direction, ("ext", "learn", "gradB"))
        check_choice("bias", self.bias, BIASES)
        check_choice("samples", self.samples, ("external", "replace", "remove"))
        check_choice("ranking", self.ranking, ("none", "action", "removal"))
        expect(self.ranking == "none" or self.samples != "external", "ranking", "none for external pairs", self.ranking)
        expect(
            self.samples == "external" or self.direction == "ext",
            "direction",
            "ext for training samples",
            self.direction,
        )
        expect(self.edited >= 0, "edited", "at least 0", self.edited)
        expect(self.step is None or self.step > 0, "step", "more than 0, or None to search", self.step)
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
    iterations: int
    """Of the solve; 0 for a direct one."""
    smallest_pivot: float | None
    """Of a dense factor."""
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


def fmd(
    key: Key,
    model: Split | ApplyFn,
    params: Params,
    train: Batch | None,
    pairs: Batch,
    accept: Batch,
    accept_pairs: Batch,
    config: FmdConfig = FmdConfig(),
    *,
    block: Where | None = None,
    head_path: tuple[str | int, ...] = ("params", "head"),
    inverse: InverseHessian | None = None,
    aligned: Bool[np.ndarray, "k a"] | None = None,
    batch_size: int = 1024,
) -> tuple[Params, FmdInfo]:
    """Edits a trained classifier so that it depends less on the attribute.

    Features are computed once, only the block changes, and every other leaf of params comes back as the same object.
    A second call with the same functions and shapes compiles nothing.

    Args:
      key: draws the curvature rows and, if `config.pairs` limits them, the pairs.
      model: the model cut before its last layer, whose head is then edited; or, with `block`, any
        `(params, x) -> logits`.
      params: of the trained model.
      train: the training set, for the curvature of its objective. Only x, label and weight are used, unless training
        samples are replaced (twin) or removed. None with `inverse`: no access to training data.
      pairs: the external counterfactual pairs: x with the aligned attribute, `twin` with the changed one, same label.
        None of them in the training set. No pairs at all: the edit is the identity. For a bias of groups: any
        held-out examples with labels and attributes.
      accept: held-out examples for the accuracy of the candidates, each in one random rendering of the attribute, so
        that plain accuracy does not reward the shortcut.
      accept_pairs: held-out pairs, as `pairs`, for bias and aligned accuracy of the candidates.
      config: see there.
      block: what is edited instead of the last layer: paths, a predicate on paths, or parts of parameters (see
        `influence.Where`); `influence.last_layers` names the top of a model.
      head_path: where the last layer lies in params, see `influence.find_head`; our classifiers say it themselves.
      inverse: a saved factor of the training objective (`influence.save`), used in every round.
      aligned: `[k a]`, which cells are aligned; then only such training samples are replaced or removed.
      batch_size: rows at a time through the network.

    Returns:
      (params, info). With `info.accepted` False, params is the object that was passed.

    Raises:
      ContractError: malformed batches, pairs without twins, a head that is not affine, values that are not finite, a
        damping too small for a definite Hessian.
    """
    began = time.perf_counter()
    _check(train, pairs, accept, accept_pairs, config, inverse)
    key_rows, key_pairs = jax.random.split(key)
    head, features, replace = _target(model, params, accept.x, block, head_path, batch_size)

    def both(batch: Batch) -> HeadPairs:
        return HeadPairs(features(batch.x), features(batch.twin), jnp.asarray(batch.label))

    held_out = both(accept_pairs)
    z_accept, label = features(accept.x), jnp.asarray(accept.label)
    bias_fn, of_groups = BIASES[config.bias], config.bias in GROUP_BIASES
    bias_data = HeadRows(z_accept, label, jnp.asarray(accept.attribute)) if of_groups else held_out
    view = AcceptView(z_accept, label, jnp.asarray(_ones_or(accept.weight, accept.label)), held_out, bias_data)
    before = judge(head, view, bias_fn)
    check_finite("the model's bias and accuracy on the accept sets", before)
    bias, accuracy, aligned_accuracy = (float(v) for v in before)
    info = FmdInfo(
        False, bias, bias, accuracy, accuracy, aligned_accuracy, aligned_accuracy, 0.0, (), time.perf_counter() - began
    )
    if pairs.x.shape[0] == 0:
        return params, info

    samples = problem = None
    if of_groups:
        edit = None
        edit_data = HeadRows(features(pairs.x), jnp.asarray(pairs.label), jnp.asarray(pairs.attribute))
    else:
        limit = config.pairs if config.samples == "external" else None  # else it counts training samples
        edit = edit_data = both(_at_most(key_pairs, pairs, limit))
    if config.samples != "external":
        samples = _samples(key_pairs, train, config, aligned, features, head)
    if inverse is None:
        problem = _training_objective(key_rows, train, config, features, head, edit)
    damping = config.damping * (float(np.sum(_ones_or(train.weight, train.label))) if train is not None else 1.0)
    solver = config.solver
    if solver is None and block is not None:
        solver = ConjugateGradient(max_steps=30, tolerance=1e-3)
    unedited, budget, aligned_at_first = head, config.aligned_floor, aligned_accuracy
    grid = candidates(config.steps_per_octave) if config.step is None else np.array([0.0, config.step], np.float32)

    def right_hand_side(head: Any, inverse: InverseHessian) -> jax.Array:
        if samples is None:
            return _direction(config, head, edit, bias_fn, edit_data)
        return samples.right_hand_side(head, inverse, bias_fn, edit_data, config.ranking)

    def choose(number: int, judged: Judged) -> int:
        if config.step is not None:
            return 1
        floor = -np.inf if budget is None else aligned_at_first - budget * min(1.0, 2 * number / config.rounds)
        return near(judged.accuracy, judged.bias, judged.aligned, floor=floor, tolerance=config.near)

    head, tried = edit_in_rounds(
        head,
        view,
        bias_fn,
        bias,
        rounds=config.rounds if config.search else 1,
        grid=grid,
        right_hand_side=right_hand_side,
        choose=choose if config.search else None,
        problem=problem,
        inverse=inverse,
        solver=solver,
        damping=damping,
    )
    rounds = [_round(one) for one in tried]
    if (last := next((one for one in reversed(tried) if one.u != 0.0), None)) is not None:
        bias, accuracy, aligned_accuracy = last.judged

    seconds, taken = time.perf_counter() - began, any(r.u != 0.0 for r in rounds)
    fallen = float(fall(unedited, head, bias_data, config.bias)) if taken else 0.0
    info = info._replace(fall=fallen, rounds=tuple(rounds), seconds=seconds)
    asked = config.search and config.step is None
    if not taken or (asked and fallen < config.significance):
        return params, info
    info = info._replace(accepted=True, bias_after=bias, accuracy_after=accuracy, aligned_after=aligned_accuracy)
    return replace(params, head), info


def _round(one: EditRound) -> FmdRound:
    judged = one.judged
    return FmdRound(
        u=one.u,
        t=one.t,
        predicted_change=one.predicted_change,
        achieved_change=one.achieved_change,
        bias=judged.bias,
        accuracy=judged.accuracy,
        aligned_accuracy=judged.aligned,
        residual=one.residual,
        iterations=one.iterations,
        smallest_pivot=one.smallest_pivot,
        gradient_norm=one.gradient_norm,
        seconds=one.seconds,
    )


def _target(
    model: Split | ApplyFn,
    params: Params,
    x: Array,
    block: Where | None,
    head_path: tuple[str | int, ...],
    batch_size: int,
) -> tuple[Any, Callable[[Array], Any], Callable[[Params, Any], Params]]:
    """(the head that is edited, x -> its features, (params, head) -> params)."""
    if block is None:
        expect(isinstance(model, Split), "model", "a Split, or any apply_fn together with `block`", describe(model))

        def features(x: Array) -> jax.Array:
            z = map_rows(model.features, params, jnp.asarray(x), batch_size=batch_size)
            expect(z.ndim == 2, "split.features", "vectors [n d] before the last layer", describe(z))
            return z

        width = jax.eval_shape(model.features, params, jnp.asarray(x[:1])).shape[-1]
        head, replace = find_head(model.head, params, head_path, width)
        return head, features, replace
    apply_fn = _whole(model) if isinstance(model, Split) else model
    head, block_features, replace = find_block(apply_fn, params, jnp.asarray(x[:2]), block)
    return head, lambda x: map_rows(block_features, params, jnp.asarray(x), batch_size=batch_size), replace


@functools.cache
def _whole(split: Split) -> ApplyFn:
    return lambda params, x: split.head(params, split.features(params, x))


class _Samples(NamedTuple):
    """The training samples that may be replaced or removed, as a problem of their own."""

    problem: HeadProblem
    twin: Any
    """Features of their twins; None: samples are removed."""
    random: np.ndarray
    """`[m]`, the rows that are chosen where none are ranked."""

    def right_hand_side(
        self, head: Any, inverse: InverseHessian, bias_fn: Callable, bias_data: Any, ranking: str
    ) -> jax.Array:
        """Sum over the chosen of grad loss, less that of their twins."""
        problem = self.problem._replace(head=head)
        rows = self.random
        if ranking != "none":
            gradient = bias_gradient(bias_fn, head, bias_data)
            if ranking == "removal" or self.twin is None:
                change = change_if_removed(problem, inverse, gradient)
            else:
                change = change_if_replaced(problem, inverse, gradient, self.twin)
            rows = top_harmful(change, len(rows))[0]
        chosen = jax.tree.map(lambda leaf: leaf[rows], problem.features), problem.label[rows]
        weight = None if problem.weight is None else problem.weight[rows]
        gradient = HeadProblem(*chosen, weight, head, 0.0).gradient()
        if self.twin is None:
            return gradient
        twin = jax.tree.map(lambda leaf: leaf[rows], self.twin)
        return gradient - HeadProblem(twin, chosen[1], weight, head, 0.0).gradient()


def _samples(
    key: Key, train: Batch, config: FmdConfig, aligned: np.ndarray | None, features: Callable[[Array], Any], head: Any
) -> _Samples:
    if aligned is not None:
        known = np.asarray(train.attribute) >= 0
        rows = np.flatnonzero(known & np.asarray(aligned)[np.asarray(train.label), np.maximum(train.attribute, 0)])
        expect(len(rows) > 0, "train", "aligned samples", "none")
        train = take(train._replace(mask=None, index=None, unit=None), rows)
    problem = head_problem(features(train.x), np.asarray(train.label), head, weight=train.weight)
    n = len(problem.label)
    count = n if config.pairs is None else min(config.pairs, n)
    return _Samples(
        problem,
        features(train.twin) if config.samples == "replace" else None,
        np.asarray(jax.random.permutation(key, n)[:count]),
    )


def _direction(config: FmdConfig, head: Any, edit: HeadPairs | None, bias_fn: Callable, bias_data: Any) -> jax.Array:
    """What the inverse curvature is applied to, for external pairs."""
    if config.direction == "ext":
        return pair_gradient(head, edit)
    if config.direction == "learn":
        return -HeadProblem(edit.twin, edit.label, None, head, 0.0).gradient()
    return -bias_gradient(bias_fn, head, bias_data)


def _training_objective(
    key: Key, train: Batch, config: FmdConfig, features: Callable[[Array], Any], head: Any, edit: HeadPairs | None
) -> HeadProblem:
    """The sum of training losses, estimated from random rows; the optimiser's weight decay is left to the damping.

    With `config.edited`, that of the pairs' twins beside it.
    """
    n = train.x.shape[0]
    chosen = _at_most(key, train, config.curvature_rows)
    weight = _ones_or(chosen.weight, chosen.label) * np.float32(n / chosen.x.shape[0])
    z, label = features(chosen.x), jnp.asarray(chosen.label)
    if config.edited > 0 and edit is not None:
        z = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), z, edit.twin)
        label = jnp.concatenate([label, edit.label])
        weight = np.concatenate([weight, np.full(edit.label.shape[0], config.edited, np.float32)])
    return head_problem(z, label, head, weight=weight)


def _at_most(key: Key, batch: Batch, rows: int | None) -> Batch:
    """Random rows without repetition, or the batch itself where it has no more."""
    n = batch.x.shape[0]
    return batch if rows is None or rows >= n else take(batch, np.asarray(jax.random.permutation(key, n)[:rows]))


def _ones_or(weight: Array | None, label: Array) -> np.ndarray:
    return np.ones(len(label), np.float32) if weight is None else np.asarray(weight, np.float32)


def _check(
    train: Batch | None,
    pairs: Batch,
    accept: Batch,
    accept_pairs: Batch,
    config: FmdConfig,
    inverse: InverseHessian | None,
) -> None:
    expect(
        train is not None or inverse is not None,
        "train",
        "the training set, or `inverse`, a factor saved from it",
        None,
    )
    if train is not None:
        check_batch(train, what="train")
    check_batch(accept, what="accept")
    check_batch(accept_pairs, what="accept_pairs")
    expect(accept_pairs.twin is not None, "accept_pairs.twin", "the conflicting rendering of x", None)
    expect(
        np.ndim(pairs.x) in (2, 4) and hasattr(pairs.x, "shape"),
        "pairs.x",
        "images [n h w c] or a table [n d]",
        describe(pairs.x),
    )
    if pairs.x.shape[0] > 0:
        check_batch(pairs, what="pairs")
        paired = pairs.twin is not None or config.bias in GROUP_BIASES
        expect(paired, "pairs.twin", "the conflicting rendering of x", None)
    if config.samples != "external":
        expect(train is not None, "train", f"the training set, to {config.samples} samples of it", None)
    if config.samples == "replace":
        expect(train.twin is not None, "train.twin", "counterfactual twins of the training samples", None)
    if config.bias in GROUP_BIASES:
        known = set(np.unique(accept.attribute).tolist())
        expect(
            known == {0, 1} and int(np.max(accept.label)) == 1,
            "accept",
            f"labels and attributes 0 and 1, for the bias {config.bias}",
            f"attributes {sorted(known)}",
        )
        expect(config.direction == "gradB", "direction", f"gradB for the bias {config.bias}", config.direction)
