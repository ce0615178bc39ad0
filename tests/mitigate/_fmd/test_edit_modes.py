"""Edits of other blocks, rows and data, and the parts of a step by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mitigate._fmd.edit_setting import (
    IDENTITY,
    PATH,
    TOY,
    Identity,
    batch,
    biased_network,
    repair,
    report,
    setting,
)
from oracles import softmax_head as oracle
from oracles.fmd_toy import flip, toy

from jaxdebias.contracts import ContractError
from jaxdebias.core import RepairSets
from jaxdebias.explain import influence
from jaxdebias.measure import _counterfactual as counterfactual
from jaxdebias.mitigate import FmdConfig, fmd
from jaxdebias.mitigate._fmd.edit import _rule
from jaxdebias.mitigate._fmd.line_search import Judged, near
from jaxdebias.mitigate._fmd.sources import External, Measured


def test_a_block_of_two_layers_is_edited(key):
    classifier, params, *sets = biased_network()
    block = influence.last_layers(classifier.apply, params, sets[0].x, 2)
    edited, info = fmd(key, classifier.apply, params, repair(*sets), FmdConfig(steps_per_octave=2), block=block)
    assert info.accepted
    assert info.bias_after < 0.5 * info.bias_before
    assert info.accuracy_after > info.accuracy_before
    assert all(0 < r.iterations <= 30 and r.smallest_pivot is None for r in info.rounds)
    last = float(
        counterfactual.pair_bias(
            *(
                counterfactual.true_class_probability(classifier.apply(edited, x), sets[3].label)
                for x in (sets[3].x, sets[3].twin)
            )
        )
    )
    assert info.bias_after == pytest.approx(last, abs=1e-5)


@pytest.mark.slow
@pytest.mark.unoptimised
def test_a_step_by_conjugate_gradients_is_that_of_a_dense_factor(key):
    classifier, params, *sets = biased_network()
    block = influence.last_layers(classifier.apply, params, sets[0].x, 2)
    once = FmdConfig(rounds=1, steps_per_octave=2, aligned_floor=None, significance=0.0)
    by_cg, _ = fmd(
        key,
        classifier.apply,
        params,
        repair(*sets),
        dataclasses.replace(once, solver=influence.ConjugateGradient(max_steps=500, tolerance=1e-6)),
        block=block,
    )
    dense, _ = fmd(
        key, classifier.apply, params, repair(*sets), dataclasses.replace(once, solver=influence.Dense()), block=block
    )
    for one, other in zip(jax.tree.leaves(by_cg), jax.tree.leaves(dense), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-3)


def test_only_the_row_of_a_column_is_edited(key):
    classifier, params, *sets = biased_network()
    row = {"params/layers_0/kernel": (0, (1,))}  # the colour enters here
    config = FmdConfig(direction="gradB", steps_per_octave=2)
    edited, info = fmd(key, classifier.apply, params, repair(*sets), config, block=row)
    assert info.accepted
    assert info.bias_after < 0.5 * info.bias_before
    before, after = (np.asarray(p["params"]["layers_0"]["kernel"]) for p in (params, edited))
    assert (before != after).any(axis=1).tolist() == [False, True] + [False] * 9
    assert edited["params"]["head"]["kernel"] is params["params"]["head"]["kernel"]


def test_a_saved_factor_replaces_the_training_set(key, tmp_path):
    params, train, *sets = setting(0)
    head, _ = influence.find_head(IDENTITY.head, params, PATH, 11)
    problem = influence.head_problem(train.x, train.label, head)
    influence.save(tmp_path / "factor.npz", influence.factor(problem, damping=1e-3 * 2000))
    config = FmdConfig(steps_per_octave=4, aligned_floor=None)
    edited, info = fmd(
        key, IDENTITY, params, repair(None, *sets), config, inverse=influence.load(tmp_path / "factor.npz")
    )
    assert info.accepted
    assert report(edited, 0)[2] < 0.15
    # One round is the same with and without the training set.
    one = dataclasses.replace(config, rounds=1)
    with_factor, without = (
        fmd(key, IDENTITY, params, repair(t, *sets), one, inverse=i)[0]["head"]["kernel"]
        for t, i in ((None, influence.load(tmp_path / "factor.npz")), (train, None))
    )
    np.testing.assert_allclose(with_factor, without, rtol=1e-5, atol=1e-6)
    with pytest.raises(ContractError, match=r"train.*inverse"):
        fmd(key, IDENTITY, params, repair(None, *sets))


@pytest.mark.parametrize("samples", ["replace", "remove"])
@pytest.mark.parametrize("ranking", ["none", "action", "removal"])
def test_training_samples_are_replaced_or_removed(key, samples, ranking):
    """One small step at t = 1 against the equation, in float64."""
    params, train, *sets = setting(0)
    train = train._replace(twin=flip(train.x))
    theta = np.asarray(params["head"]["kernel"], np.float64)
    config = FmdConfig(edit_with=samples, ranking=ranking, pairs=20, search=False)
    aligned = np.eye(2, dtype=bool)
    edited, info = fmd(key, IDENTITY, params, repair(train, *sets), config, aligned=aligned)
    got = np.asarray(edited["head"]["kernel"]) - theta

    inverse = np.linalg.inv(oracle.hessian(theta, train.x.astype(np.float64), 2.0))
    rows = np.flatnonzero(train.attribute == train.label)
    x, twin, y = train.x[rows].astype(np.float64), train.twin[rows].astype(np.float64), train.label[rows]
    each = oracle.example_gradients(theta, x, y)
    action = each - oracle.example_gradients(theta, twin, y) if samples == "replace" else each
    if ranking == "none":
        chosen = None
    else:
        pairs = sets[0]
        slope = inverse @ oracle.pair_bias_gradient(
            theta, pairs.x.astype(np.float64), pairs.twin.astype(np.float64), pairs.label
        )
        chosen = np.argsort((action if ranking == "action" else each) @ slope, kind="stable")[:20]
    if chosen is not None:
        expected = (inverse @ action[chosen].sum(0)).reshape(theta.shape)
        np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-4)
    else:
        # Some twenty aligned samples: the step is a sum of that many columns of H^-1 g.
        weights, *_ = np.linalg.lstsq((inverse @ action.T), got.reshape(-1), rcond=None)
        np.testing.assert_allclose(inverse @ action.T @ weights, got.reshape(-1), atol=1e-3)
    assert info.rounds[0].t == 1.0


@pytest.mark.parametrize("bias", ["demographic_parity", "equal_opportunity", "equalised_odds"])
def test_biases_of_groups(key, bias):
    params, train, _, accept, accept_pairs = setting(0)
    held_out = batch(toy(77, n=400, agreement=0.9))
    sets = RepairSets(train=train, edit=held_out, accept=accept, accept_pairs=accept_pairs)
    config = FmdConfig(direction="gradB", bias=bias, steps_per_octave=4, accuracy_tolerance=0.05)
    edited, info = fmd(key, IDENTITY, params, sets, config)
    assert info.accepted
    assert info.bias_drop_z > 3
    assert info.bias_after < 0.6 * info.bias_before
    probability = oracle.probabilities(np.asarray(edited["head"]["kernel"], np.float64), accept.x)[:, 1]

    def gap(member):
        return abs(np.subtract(*(probability[member & (accept.attribute == a)].mean() for a in (0, 1))))

    positive = accept.label == 1
    expected = {
        "demographic_parity": gap(positive | ~positive),
        "equal_opportunity": gap(positive),
        "equalised_odds": max(gap(positive), gap(~positive)),
    }[bias]
    assert info.bias_after == pytest.approx(expected, abs=1e-5)


def test_a_fixed_step_is_taken_in_every_round(key):
    params, *sets = setting(0)
    edited, info = fmd(key, IDENTITY, params, repair(*sets), FmdConfig(step=0.25, rounds=3))
    assert [r.u for r in info.rounds] == [0.25] * 3
    assert info.accepted
    assert edited is not params


def test_a_fixed_step_is_kept_whatever_it_does(key):
    params, train, pairs, *accept = setting(0)
    opposite = pairs._replace(x=pairs.twin, twin=pairs.x)
    kept, info = fmd(key, IDENTITY, params, repair(train, opposite, *accept), FmdConfig(step=0.25, rounds=1))
    assert info.bias_drop_z < 0
    assert info.accepted
    assert kept is not params


def test_a_drop_below_the_significance_asked_for_is_rolled_back(key):
    params, *sets = setting(0)
    config = dataclasses.replace(TOY, rounds=2, significance=1e6)
    same, info = fmd(key, IDENTITY, params, repair(*sets), config)
    assert 0 < info.bias_drop_z < 1e6
    assert same is params
    assert not info.accepted
    assert info.bias_after == info.bias_before


def test_renderings_of_few_units_are_few(key):
    """Four hundred pairs of eight units: the same edit is no longer separable from chance."""
    params, train, pairs, accept, accept_pairs = setting(0)
    unit = (np.arange(len(accept_pairs.label)) % 8).astype(np.int32)
    clustered = repair(train, pairs, accept, accept_pairs._replace(unit=unit))
    assert fmd(key, IDENTITY, params, repair(train, pairs, accept, accept_pairs), TOY)[1].accepted
    same, info = fmd(key, IDENTITY, params, clustered, TOY)
    assert (info.accepted, same) == (False, params)
    assert info.bias_drop_z < 3


def test_the_damping_is_that_of_the_weighted_mean(key):
    params, train, *sets = setting(0)
    weighted = train._replace(weight=np.full(2000, 2.0, np.float32))
    (one, plain), (two, double) = (
        fmd(key, IDENTITY, params, repair(data, *sets), FmdConfig(search=False)) for data in (train, weighted)
    )
    assert double.rounds[0].smallest_pivot == pytest.approx(2 * plain.rounds[0].smallest_pivot, rel=1e-5)
    step = [np.asarray(edited["head"]["kernel"] - params["head"]["kernel"]) for edited in (one, two)]
    np.testing.assert_allclose(2 * step[1], step[0], rtol=1e-3, atol=1e-5)


def test_directions_by_hand():
    params, _, pairs, *_ = setting(0)
    theta = np.asarray(params["head"]["kernel"], np.float64)
    cached = influence.HeadPairs(jnp.asarray(pairs.x), jnp.asarray(pairs.twin), jnp.asarray(pairs.label))
    head = influence.AffineHead(params["head"]["kernel"], None)
    measured = Measured(influence.pair_bias, cached)
    sides = [oracle.example_gradients(theta, np.asarray(x, float), pairs.label).sum(0) for x in (pairs.x, pairs.twin)]
    slope = oracle.pair_bias_gradient(theta, *(np.asarray(x, float) for x in (pairs.x, pairs.twin)), pairs.label)
    for direction, expected in (("ext", sides[0] - sides[1]), ("learn", -sides[1]), ("gradB", -slope)):
        got = External(direction, cached, measured).right_hand_side(head, Identity())
        np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-4)


def test_the_budget_is_whole_from_half_of_the_rounds_on():
    choose = _rule(FmdConfig(aligned_floor=0.10, rounds=8), 0.95)
    judged = Judged(bias=np.array([0.5, 0.1]), accuracy=np.array([0.8, 0.8]), aligned=np.array([0.95, 0.8501]))
    assert [choose(number, judged) for number in (1, 3, 4, 8)] == [0, 0, 1, 1]


def test_a_candidate_on_the_floor_is_allowed():
    assert near(np.ones(2), np.array([0.5, 0.1]), np.array([1.0, 0.875]), floor=0.875, tolerance=0.0) == 1


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (FmdConfig(edit_with="replace"), {}, "train.twin"),
        (FmdConfig(edit_with="remove"), {"train": None, "inverse": Identity()}, "train.*remove"),
        (FmdConfig(direction="gradB", bias="demographic_parity"), {"accept": "labels"}, "accept.*attributes"),
        (FmdConfig(bias="demographic_parity"), {}, "gradB for the bias"),
    ],
)
def test_what_the_further_modes_need(key, config, changes, message):
    params, train, pairs, accept, accept_pairs = setting(0)
    if changes.get("accept") == "labels":
        changes = {"accept": accept._replace(attribute=np.zeros_like(accept.attribute))}
    given = {"train": train, "pairs": pairs, "edit": accept, "accept": accept, "accept_pairs": accept_pairs} | changes
    inverse = given.pop("inverse", None)
    with pytest.raises(ContractError, match=message):
        fmd(key, IDENTITY, params, RepairSets(**given), config, inverse=inverse)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"edit_with": "replaced"}, "did you mean 'replace'"),
        ({"ranking": "action"}, "ranking"),
        ({"step": 0.0}, "step"),
        ({"edit_with": "remove", "direction": "gradB"}, "direction"),
        ({"twin_weight": -1.0}, "twin_weight"),
    ],
)
def test_bad_modes_are_one_line(wrong, message):
    with pytest.raises(ContractError, match=message):
        FmdConfig(**wrong)
