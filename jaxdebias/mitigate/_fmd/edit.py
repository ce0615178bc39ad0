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
works is to search t in units of what it does to the logits and to linearise again, about ten times. With `twin_weight`
the curvature is that of the objective with the pairs in it, in which the pairs that the model gets wrong are not flat.

The line search. Candidates are u = 0 and 2^-5 .. 2^4, u being the root mean square change of the centred logits of the
accept pairs. Rule `near`: among the candidates whose accuracy on `accept` is within one point of the best, the least
bias. (Least bias at no loss of accuracy stops far too early; most accuracy minus bias picks a collapsed model.) Where
u = 0 is chosen the edit ends. At the end the edit is kept only if the bias has fallen by more than chance explains.

Part of a low bias is bought on aligned images; `aligned_floor` bounds that. Source: FMD (Chen et al. 2023).
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_finite, check_key, check_type, describe, expect
from jaxdebias.core import Array, Batch, Classifier, Key, Params, RepairSets, Split
from jaxdebias.explain.influence._block import find_block
from jaxdebias.explain.influence._conjugate_gradient import ConjugateGradient
from jaxdebias.explain.influence._cut import Where
from jaxdebias.explain.influence._functionals import GROUP_BIASES, HeadRows
from jaxdebias.explain.influence._inverse import InverseHessian
from jaxdebias.explain.influence._objective import HeadPairs
from jaxdebias.mitigate._fmd.acceptance import bias_drop_z
from jaxdebias.mitigate._fmd.config import BIASES, FmdConfig, FmdInfo, FmdRound
from jaxdebias.mitigate._fmd.line_search import AcceptView, Judged, candidates, judge, near
from jaxdebias.mitigate._fmd.rounds import EditRound, edit_in_rounds
from jaxdebias.mitigate._fmd.sources import (
    EditSource,
    External,
    Measured,
    at_most,
    edited_samples,
    ones_or,
    training_objective,
)
from jaxdebias.mitigate._last_layer import Model, as_function, as_split, frozen_features, last_layer, needed


def fmd(
    key: Key,
    model: Model,
    params: Params,
    sets: RepairSets,
    config: FmdConfig = FmdConfig(),
    *,
    block: Where | None = None,
    inverse: InverseHessian | None = None,
    aligned: Bool[np.ndarray, "k a"] | None = None,
    batch_size: int = 256,
) -> tuple[Params, FmdInfo]:
    """Edit a trained classifier so that it depends less on the attribute.

    Features are computed once, only the block changes, and every other leaf of params comes back as the same object.
    A second call with the same functions and shapes compiles nothing.

    Args:
      key: draws the curvature rows and, if `config.pairs` limits them, the pairs.
      model: a classifier, or a model cut before its last layer, whose head is then edited; or, with `block`, any
        `(params, x) -> logits`.
      params: of the trained model.
      sets: held-out sets, none of them in the training set:
        `train`, for the curvature of its objective: only x, label and weight are used, unless training samples are
        replaced (twin) or removed. None with `inverse`: no access to training data.
        `pairs`, counterfactual pairs: x with the aligned attribute, `twin` with the changed one, same label. No rows at
        all: the edit is the identity. For a bias of groups `edit` instead, samples with labels and attributes.
        `accept`, for the accuracy of the candidates, each sample in one random rendering of the attribute, so that
        plain accuracy does not reward the shortcut.
        `accept_pairs`, for bias and aligned accuracy of the candidates; their `unit` says which are independent.
      config: what the step is made of, how far it is searched, and what keeps the edit.
      block: what is edited instead of the last layer: paths, a predicate on paths, or parts of parameters (see
        `influence.Where`); `influence.last_layers` names the top of a model.
      inverse: a saved factor of the training objective (`influence.save`), used in every round.
      aligned: `[k a]`, which cells are aligned; then only such training samples are replaced or removed.
      batch_size: rows at a time through the network.

    Returns:
      (params, info). With `info.accepted` False, params is the object that was passed.

    Raises:
      ContractError: sets that are missing or malformed, pairs without twins or with fractional weights, a head that is
        not affine, values that are not finite, a damping too small for a definite Hessian.
    """
    began = time.perf_counter()
    check_key("key", key)
    sets = _checked(sets, config, inverse)
    key_rows, key_pairs = jax.random.split(key)
    head, features, replace = _target(model, params, sets.accept.x, block, batch_size)
    view, unit = _held_out(sets, config, features)
    bias_fn = BIASES[config.bias]
    before = judge(head, view, bias_fn)
    check_finite("the model's bias and accuracy on the accept sets", before)
    before = jax.tree.map(float, before)
    info = _info(before, before, accepted=False, bias_drop_z=0.0, rounds=(), seconds=time.perf_counter() - began)
    if len(_edit_rows(sets, config).label) == 0:
        return params, info

    source, pairs = _source(key_pairs, sets, config, aligned, features, head)
    problem = None if inverse is not None else training_objective(key_rows, sets.train, config, features, head, pairs)
    total = 1.0 if sets.train is None else float(np.sum(ones_or(sets.train.weight, sets.train.label)))
    solver = config.solver
    if solver is None and block is not None:
        solver = ConjugateGradient(max_steps=30, tolerance=1e-3)
    edited, tried = edit_in_rounds(
        head,
        view,
        bias_fn,
        before.bias,
        rounds=config.rounds if config.search else 1,
        grid=candidates(config.steps_per_octave) if config.step is None else np.array([0, config.step], np.float32),
        right_hand_side=source.right_hand_side,
        choose=_rule(config, before.aligned) if config.search else None,
        problem=problem,
        inverse=inverse,
        solver=solver,
        damping=config.damping * total,
    )

    moved = [one for one in tried if one.u != 0.0]
    drop = bias_drop_z(head, edited, view.bias_data, config.bias, unit) if moved else 0.0
    asked = config.search and config.step is None
    accepted = bool(moved) and not (asked and drop < config.significance)
    info = _info(
        before,
        moved[-1].judged if accepted else before,
        accepted=accepted,
        bias_drop_z=drop,
        rounds=tuple(_round(one) for one in tried),
        seconds=time.perf_counter() - began,
    )
    return (replace(params, edited) if accepted else params), info


def _checked(sets: RepairSets, config: FmdConfig, inverse: InverseHessian | None) -> RepairSets:
    """The sets that the configuration needs, without padding."""
    check_type("config", config, FmdConfig)
    check_type("sets", sets, RepairSets)
    of_groups, name = config.bias in GROUP_BIASES, "edit" if config.bias in GROUP_BIASES else "pairs"
    expected = "the training set, or `inverse`, a factor saved from it"
    expect(sets.train is not None or inverse is not None, "sets.train", expected, None)
    names = ["accept", "accept_pairs"] + ["train"] * (sets.train is not None)
    rows = getattr(sets, name)
    expect(rows is not None, f"sets.{name}", "held-out pairs to edit with" if name == "pairs" else "rows to edit", None)
    good = np.ndim(rows.x) in (2, 4) and hasattr(rows.x, "shape")
    expect(good, f"sets.{name}.x", "images [n h w c] or a table [n d]", describe(rows.x))
    found = needed(sets, *names, *([name] if rows.x.shape[0] > 0 else []))
    for side in ("accept_pairs",) if of_groups else ("accept_pairs", "pairs"):
        weight = getattr(found, side).weight
        good = weight is None or bool(np.isin(np.asarray(weight), (0, 1)).all())
        expect(good, f"sets.{side}.weight", "0 or 1: pairs count equally", describe(weight))
    if config.edit_with != "external":
        expect(sets.train is not None, "sets.train", f"the training set, to {config.edit_with} samples of it", None)
    if config.edit_with == "replace":
        expect(sets.train.twin is not None, "sets.train.twin", "counterfactual twins of the training samples", None)
    if of_groups:
        known, accept = set(np.unique(sets.accept.attribute).tolist()), sets.accept
        good = known == {0, 1} and int(np.max(accept.label)) == 1
        expected = f"labels and attributes 0 and 1, for the bias {config.bias}"
        expect(good, "sets.accept", expected, f"attributes {sorted(known)}")
        expect(config.direction == "gradB", "direction", f"gradB for the bias {config.bias}", config.direction)
    return found


def _edit_rows(sets: RepairSets, config: FmdConfig) -> Batch:
    """What the edit is fitted on: pairs, or rows for a bias of groups."""
    return sets.edit if config.bias in GROUP_BIASES else sets.pairs


def _target(
    model: Model, params: Params, x: Array, block: Where | None, batch_size: int
) -> tuple[Any, Callable[[Array], Any], Callable[[Params, Any], Params]]:
    """(the head that is edited, x -> its features, (params, head) -> params)."""
    if block is None:
        expected = "a Classifier, a Split, or any function together with `block`"
        expect(isinstance(model, Classifier | Split), "model", expected, describe(model))
        split = as_split(model)
        width = jax.eval_shape(split.features, params, jnp.asarray(x[:1])).shape[-1]
        head, replace = last_layer(split, params, width)
        return head, lambda x: frozen_features(split, params, x, batch_size=batch_size), replace
    head, block_features, replace = find_block(as_function(model), params, jnp.asarray(x[:2]), block)
    return head, lambda x: map_rows(block_features, params, jnp.asarray(x), batch_size=batch_size), replace


def _cached(pairs: Batch, features: Callable[[Array], Any]) -> HeadPairs:
    return HeadPairs(features(pairs.x), features(pairs.twin), jnp.asarray(pairs.label))


def _held_out(sets: RepairSets, config: FmdConfig, features: Callable[[Array], Any]) -> tuple[AcceptView, Array | None]:
    """The accept sets as features, and the independent units of the rows over which their bias is a mean."""
    accept, pairs = sets.accept, _cached(sets.accept_pairs, features)
    z, label = features(accept.x), jnp.asarray(accept.label)
    of_groups = config.bias in GROUP_BIASES
    bias_data = HeadRows(z, label, jnp.asarray(accept.attribute)) if of_groups else pairs
    view = AcceptView(z, label, jnp.asarray(ones_or(accept.weight, accept.label)), pairs, bias_data)
    return view, (accept if of_groups else sets.accept_pairs).unit


def _source(
    key: Key,
    sets: RepairSets,
    config: FmdConfig,
    aligned: Bool[np.ndarray, "k a"] | None,
    features: Callable[[Array], Any],
    head: Any,
) -> tuple[EditSource, HeadPairs | None]:
    """(what the steps are made of, the pairs among it)."""
    if config.bias in GROUP_BIASES:
        rows, pairs = sets.edit, None
        data = HeadRows(features(rows.x), jnp.asarray(rows.label), jnp.asarray(rows.attribute))
    else:
        # `config.pairs` counts training samples where these are edited.
        limit = config.pairs if config.edit_with == "external" else None
        pairs = data = _cached(at_most(key, sets.pairs, limit), features)
    measured = Measured(BIASES[config.bias], data)
    if config.edit_with == "external":
        return External(config.direction, pairs, measured), pairs
    return edited_samples(key, sets.train, config, aligned, features, head, measured), pairs


def _rule(config: FmdConfig, aligned_before: float) -> Callable[[int, Judged], int]:
    """(number of the round from 1, what is judged) -> the candidate that is taken."""
    if config.step is not None:
        return lambda number, judged: 1

    def choose(number: int, judged: Judged) -> int:
        floor = -np.inf
        if config.aligned_floor is not None:
            floor = aligned_before - config.aligned_floor * min(1.0, 2 * number / config.rounds)
        tolerance = config.accuracy_tolerance
        return near(judged.accuracy, judged.bias, judged.aligned, floor=floor, tolerance=tolerance)

    return choose


def _info(before: Judged, after: Judged, **more: Any) -> FmdInfo:
    return FmdInfo(
        bias_before=before.bias,
        bias_after=after.bias,
        accuracy_before=before.accuracy,
        accuracy_after=after.accuracy,
        aligned_before=before.aligned,
        aligned_after=after.aligned,
        **more,
    )


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
