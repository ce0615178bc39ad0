"""The edit: on the toy of the specification, on coloured digits, and what must never change."""

import dataclasses
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mitigate._fmd.edit_setting import (
    IDENTITY,
    TOY,
    pair_batch,
    repair,
    report,
    setting,
)
from oracles import softmax_head as oracle
from oracles.fmd_toy import toy

from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, RepairSets, Split, as_float
from jaxdebias.explain import influence
from jaxdebias.mitigate import FmdConfig, fmd
from jaxdebias.mitigate._fmd.line_search import candidates, near


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("direction", ["ext", "gradB"])
def test_end_to_end_on_the_toy(key, seed, direction):
    params, *sets = setting(seed)
    edited, info = fmd(key, IDENTITY, params, repair(*sets), dataclasses.replace(TOY, direction=direction))
    before, after = report(params, seed), report(edited, seed)
    assert before[2] > 0.5
    assert info.accepted
    assert after[0] >= 0.78
    assert after[1] >= 0.75
    assert after[2] <= 0.10
    # What the info says of the accept sets is what the returned parameters do there.
    theta, accept, pairs = np.asarray(edited["head"]["kernel"], np.float64), sets[2], sets[3]
    right = oracle.probabilities(theta, accept.x).argmax(1) == accept.label
    assert info.accuracy_after == pytest.approx(right.mean(), abs=2.6e-3)
    assert info.bias_after == pytest.approx(oracle.pair_bias(theta, pairs.x, pairs.twin, pairs.label), abs=1e-4)
    changes = sum(r.achieved_change for r in info.rounds)
    assert info.bias_before + changes == pytest.approx(info.bias_after, abs=1e-5)


def test_the_first_step_is_the_equation(key):
    params, train, pairs, accept, accept_pairs = setting(0)
    theta = np.asarray(params["head"]["kernel"], np.float64)
    curvature = oracle.hessian(theta, train.x.astype(np.float64), 1e-3 * 2000)
    gradients = [
        oracle.example_gradients(theta, x.astype(np.float64), pairs.label).sum(0) for x in (pairs.x, pairs.twin)
    ]
    step = np.linalg.solve(curvature, gradients[0] - gradients[1]).reshape(theta.shape)
    once, info = fmd(key, IDENTITY, params, repair(train, pairs, accept, accept_pairs), FmdConfig(search=False))
    np.testing.assert_allclose(np.asarray(once["head"]["kernel"]) - theta, step, rtol=1e-3, atol=1e-4)
    assert info.rounds[0].t == 1.0

    one = FmdConfig(rounds=1, aligned_floor=None)
    searched, info = fmd(key, IDENTITY, params, repair(train, pairs, accept, accept_pairs), one)
    found = info.rounds[0]
    assert found.u in candidates(1)
    np.testing.assert_allclose(np.asarray(searched["head"]["kernel"]) - theta, found.t * step, rtol=1e-3, atol=1e-4)
    change = np.concatenate([accept_pairs.x, accept_pairs.twin]) @ (found.t * step)
    assert np.sqrt(((change - change.mean(1, keepdims=True)) ** 2).mean()) == pytest.approx(found.u, rel=1e-3)
    slope = oracle.pair_bias_gradient(
        theta, accept_pairs.x.astype(np.float64), accept_pairs.twin.astype(np.float64), accept_pairs.label
    ) @ (found.t * step).reshape(-1)
    assert found.predicted_change == pytest.approx(slope, rel=1e-3)
    assert found.residual < 1e-4
    # The damping is 1e-3 of the mean, so 2, and the sum of the two classes' columns has no curvature but that.
    assert found.smallest_pivot == pytest.approx(2.0, rel=1e-6)


def test_sign_the_papers_step_lowers_the_bias_and_its_opposite_raises_it(key):
    params, train, _, accept, accept_pairs = setting(0)
    pairs = pair_batch(toy(77, n=50))
    _, paper = fmd(key, IDENTITY, params, repair(train, pairs, accept, accept_pairs), FmdConfig(search=False))
    swapped = pairs._replace(x=pairs.twin, twin=pairs.x)
    _, opposite = fmd(key, IDENTITY, params, repair(train, swapped, accept, accept_pairs), FmdConfig(search=False))
    assert paper.bias_after < paper.bias_before - 0.05
    assert opposite.bias_after > paper.bias_before + 0.05


def test_pairs_together_are_the_sum_of_pairs_alone():
    params, train, pairs, *_ = setting(0)
    head = influence.AffineHead(params["head"]["kernel"], None)
    inverse = influence.factor(influence.head_problem(train.x, train.label, head), damping=2.0)
    cached = influence.HeadPairs(jnp.asarray(pairs.x), jnp.asarray(pairs.twin), jnp.asarray(pairs.label))
    each = inverse.solve(influence.each_pair_gradient(head, cached)).value
    together = inverse.solve(influence.pair_gradient(head, cached)[:, None]).value[:, 0]
    np.testing.assert_allclose(each.sum(axis=1), together, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_harmful_pairs_are_rolled_back_to_the_same_bits(key, seed):
    # Every label wrong, or every twin swapped: the step strengthens the shortcut, and no candidate is better.
    params, train, pairs, accept, accept_pairs = setting(seed)
    for bad in (pairs._replace(label=1 - pairs.label), pairs._replace(x=pairs.twin, twin=pairs.x)):
        same, info = fmd(key, IDENTITY, params, repair(train, bad, accept, accept_pairs), TOY)
        assert not info.accepted
        assert same is params
        assert [r.u for r in info.rounds] == [0.0]
        assert info.bias_after == info.bias_before


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_labels_cannot_make_the_model_worse(key, seed):
    # On coloured digits such an edit is rolled back (below). With two classes it may truly help, as learning from
    # conflicting colours with any label weakens the colour; then what it keeps has to hold on data it has not seen.
    params, train, pairs, *accept = setting(seed)
    shuffled = pairs._replace(label=np.random.default_rng(seed).permutation(pairs.label))
    kept, info = fmd(key, IDENTITY, params, repair(train, shuffled, *accept), TOY)
    before, after = report(params, seed), report(kept, seed)
    assert info.accepted == (kept is not params)
    assert after[0] >= before[0] - 0.01
    assert after[2] <= before[2]


def test_no_pairs_are_the_identity(key):
    params, train, pairs, *accept = setting(0)
    none = Batch(pairs.x[:0], pairs.label[:0], pairs.attribute[:0], twin=pairs.twin[:0])
    same, info = fmd(key, IDENTITY, params, repair(train, none, *accept))
    assert same is params
    assert not info.accepted
    assert info.rounds == ()


def test_frozen_leaves_are_the_same_objects(key):
    params, *sets = setting(0)
    edited, info = fmd(key, IDENTITY, params, repair(*sets), TOY)
    assert info.accepted
    assert edited["scale"] is params["scale"]
    assert not np.array_equal(edited["head"]["kernel"], params["head"]["kernel"])


def test_equal_keys_give_equal_bits_and_limits_are_kept(key):
    params, *sets = setting(0)
    config = FmdConfig(aligned_floor=None, curvature_rows=300, pairs=40, rounds=2)
    first, again = (fmd(key, IDENTITY, params, repair(*sets), config)[0] for _ in range(2))
    np.testing.assert_array_equal(first["head"]["kernel"], again["head"]["kernel"])
    other, _ = fmd(jax.random.key(1), IDENTITY, params, repair(*sets), config)
    assert not np.array_equal(first["head"]["kernel"], other["head"]["kernel"])


def test_random_curvature_rows_stand_for_all(key):
    # 1,000 of 2,000 rows, scaled by 2: the same step to sampling error, not half or twice of it.
    params, *sets = setting(0)
    full, half = (
        np.asarray(
            fmd(key, IDENTITY, params, repair(*sets), FmdConfig(search=False, curvature_rows=rows))[0]["head"]["kernel"]
            - params["head"]["kernel"]
        )
        for rows in (2000, 1000)
    )
    assert 0.85 < np.linalg.norm(half) / np.linalg.norm(full) < 1.15


def test_a_second_call_compiles_nothing(key):
    params, *sets = setting(0)
    config = FmdConfig(aligned_floor=None, rounds=3, curvature_rows=500, pairs=100)
    fmd(key, IDENTITY, params, repair(*sets), config)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    other = setting(1)
    _, info = fmd(jax.random.key(5), IDENTITY, other[0], repair(*other[1:]), config)
    assert len(info.rounds) > 1
    assert compiled == []
    jax.jit(lambda x: x * 3 - 7)(jnp.ones(17))  # the listener does hear
    assert compiled


def test_near_and_the_floor():
    accuracy, bias = np.array([0.5, 0.795, 0.80, 0.78]), np.array([0.6, 0.2, 0.3, 0.1])
    aligned = np.array([0.99, 0.95, 0.95, 0.95])
    assert near(accuracy, bias, aligned, floor=0.9, tolerance=0.01) == 1
    assert near(accuracy, bias, aligned, floor=0.9, tolerance=0.02) == 3
    assert near(accuracy, bias, aligned, floor=0.97, tolerance=0.01) == 0
    assert near(accuracy, np.array([0.6, np.nan, 0.3, np.nan]), aligned, floor=0.9, tolerance=0.05) == 2


def test_the_budget_on_aligned_images_is_released_in_equal_parts(key):
    params, *sets = setting(0)
    config = FmdConfig(aligned_floor=0.10, rounds=8)
    _, info = fmd(key, IDENTITY, params, repair(*sets), config)
    assert any(r.u > 0 for r in info.rounds)
    for number, r in enumerate(info.rounds, 1):
        assert r.aligned_accuracy >= info.aligned_before - 0.10 * min(1, number / 4) - 1e-6


def test_the_floor_bounds_what_the_edit_costs_on_aligned_images(key):
    params, *sets = setting(0)
    for floor in (0.02, 0.10):
        _, info = fmd(key, IDENTITY, params, repair(*sets), FmdConfig(aligned_floor=floor))
        assert info.aligned_after >= info.aligned_before - floor - 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": setting(0)[2]._replace(twin=None)}, "pairs.twin"),
        ({"accept_pairs": setting(0)[4]._replace(twin=None)}, "accept_pairs.twin"),
        ({"params": {"scale": jnp.ones(()), "head": {"kernel": jnp.full((11, 2), jnp.nan)}}}, "head"),
        ({"model": IDENTITY._replace(head=lambda p, z: jnp.tanh(z @ p["head"]["kernel"]))}, "affine"),
        ({"model": IDENTITY._replace(head_path=("haed",))}, "head_path"),
    ],
)
def test_bad_input_is_one_line(key, change, message):
    params, train, pairs, accept, accept_pairs = setting(0)
    change = {"model": IDENTITY, "params": params} | change
    sets = {"train": train, "pairs": pairs, "accept": accept, "accept_pairs": accept_pairs}
    sets |= {name: change.pop(name) for name in sets if name in change}
    with pytest.raises(ContractError, match=message) as caught:
        fmd(key, sets=RepairSets(**sets), **change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"direction": "gradb"}, "did you mean 'gradB'"),
        ({"bias": "mean"}, "bias"),
        ({"damping": 0.0}, "damping"),
        ({"rounds": 0}, "rounds"),
        ({"pairs": 0}, "pairs"),
        ({"curvature_rows": 0}, "curvature_rows"),
        ({"steps_per_octave": 0}, "steps_per_octave"),
    ],
)
def test_bad_configurations_are_one_line(wrong, message):
    with pytest.raises(ContractError, match=message):
        FmdConfig(**wrong)


# Coloured digits: an MLP that fits its training set. What the edit achieves there is tested in test_runs.py.


def trained_on(classifier, data, key, epochs=150, rows=125):
    """Adam at 1e-3; the test's own loop, so that it depends on no other part of the library than the network."""
    optimizer, x, label = optax.adam(1e-3), as_float(data.x), jnp.asarray(data.label)

    @jax.jit
    def train(params):
        def step(carry, index):
            params, state = carry
            gradient = jax.grad(
                lambda p: optax.softmax_cross_entropy_with_integer_labels(
                    classifier.apply(p, x[index]), label[index]
                ).mean()
            )(params)
            change, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, change), state), None

        keys = jax.random.split(key, epochs)
        index = jax.vmap(lambda k: jax.random.permutation(k, len(label)))(keys).reshape(-1, rows)
        return jax.lax.scan(step, (params, optimizer.init(params)), index)[0][0]

    return train(classifier.init(key, data.x[:2]))


@pytest.mark.slow
@pytest.mark.unoptimised
@pytest.mark.parametrize("seed", range(3))
def test_wrong_labels_are_rolled_back_on_coloured_digits(key, seed):
    from jaxdebias.data import digits
    from jaxdebias.models import mlp

    classifier, data = mlp(hidden=(64, 64)), digits(conflicting=0.02, seed=seed)
    params, pairs = trained_on(classifier, data.splits["train"], jax.random.key(100 + seed)), data.pairs["edit"]
    others = data.splits["accept"], data.pairs["accept"]
    rng = np.random.default_rng(seed)
    for label in (rng.permutation(pairs.label), rng.permutation(pairs.label), (pairs.label + 1) % 10):
        wrong = pairs._replace(label=label.astype(np.int32))
        same, info = fmd(key, classifier, params, repair(data.splits["train"], wrong, *others))
        assert not info.accepted
        assert same is params
        assert info.accuracy_after == info.accuracy_before
    edited, info = fmd(key, classifier, params, repair(data.splits["train"], pairs, *others))
    assert info.accepted
    assert info.bias_drop_z > 3
    assert edited is not params


@pytest.mark.alone
@pytest.mark.slow
def test_budget_of_a_factor_scores_pairs_and_an_edit(key, monkeypatch):
    # Warm: factor, all scores and 500 pairs at n = 53,000, d = 100, k = 10 in 4 s, a ten-round edit in 4 s. The best
    # of three, and still a test for a quiet machine: beside other work the threads of BLAS wait for each other.
    n, d, k = 53_000, 100, 10
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(d, k)).astype(np.float32)
    z = np.maximum(rng.normal(size=(n, d)), 0).astype(np.float32)
    label = (z @ truth + rng.gumbel(size=(n, k))).argmax(1).astype(np.int32)
    head = influence.AffineHead(jnp.asarray(truth), jnp.zeros(k))
    problem = influence.head_problem(z, label, head)
    pairs = influence.HeadPairs(problem.features[:500], problem.features[500:1000], problem.label[:500])

    def seconds(work):
        work()
        took = []
        for _ in range(3):
            start = time.perf_counter()
            work()
            took.append(time.perf_counter() - start)
        return min(took)

    inverse = influence.factor(problem, damping=1e-3 * n)
    gradient = influence.bias_gradient(influence.pair_bias, head, pairs)
    cost = {
        "factor": seconds(lambda: influence.factor(problem, damping=1e-3 * n)),
        "scores": seconds(lambda: jax.block_until_ready(influence.change_if_removed(problem, inverse, gradient))),
        "pairs": seconds(lambda: inverse.solve(influence.each_pair_gradient(head, pairs)).value),
    }
    assert cost["factor"] <= 5.0
    assert cost["scores"] <= 0.2, cost
    assert cost["pairs"] <= 0.5, cost
    assert sum(cost.values()) <= 4.0, cost

    split = Split(features=lambda p, x: x, head=lambda p, z: z @ p["head"]["kernel"] + p["head"]["bias"][None, :])
    rows = [Batch(z[s], label[s], label[s]) for s in (slice(0, n), slice(0, 5000), slice(5000, 7000))]
    twin = z.copy()
    twin[:, :10] = twin[::-1, :10]
    edit, accept_pairs = (
        b._replace(twin=twin[s]) for b, s in zip(rows[1:], (slice(0, 5000), slice(5000, 7000)), strict=True)
    )
    params = {"head": {"kernel": head.kernel, "bias": head.bias}}
    monkeypatch.setattr(sys.modules[fmd.__module__], "near", lambda *_, **__: 1)  # so that all ten rounds are run
    infos = []
    cost["edit"] = seconds(
        lambda: infos.append(fmd(key, split, params, repair(rows[0], edit, rows[2], accept_pairs))[1])
    )
    assert len(infos[1].rounds) == 10
    assert cost["edit"] <= 4.0, cost
