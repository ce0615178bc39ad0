"""The edit: on the toy of the specification, on coloured digits, and what must never change."""

import dataclasses
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import softmax_head as oracle
from oracles.fmd_toy import flip, l2, toy

from jaxdebias import models
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, RepairSets, Split, as_float
from jaxdebias.explain import influence
from jaxdebias.measure import _counterfactual as counterfactual
from jaxdebias.mitigate import FineTuneConfig, FmdConfig, fmd, train_from_scratch
from jaxdebias.mitigate._fmd.edit import _rule
from jaxdebias.mitigate._fmd.line_search import Judged, candidates, near
from jaxdebias.mitigate._fmd.sources import External, Measured

IDENTITY = Split(
    features=lambda params, x: x * params["scale"],
    head=lambda params, z: z @ params["head"]["kernel"],
    head_path=("head",),
)
PATH = ("head",)


def batch(data):
    return Batch(data.x.astype(np.float32), data.y.astype(np.int32), data.a.astype(np.int32))


def pair_batch(data):
    """x aligned, twin conflicting; both of the row's label."""
    aligned = np.where((data.a == data.y)[:, None], data.x, flip(data.x)).astype(np.float32)
    return Batch(aligned, data.y.astype(np.int32), data.y.astype(np.int32), twin=flip(aligned))


def setting(seed):
    """(params, train, pairs, accept, accept_pairs): a head at its optimum and held-out sets."""
    train = toy(seed)
    theta = oracle.fit(train.x, train.y, 2, l2(2000), tolerance=1e-8)
    params = {"scale": jnp.ones(()), "head": {"kernel": jnp.asarray(theta, jnp.float32)}}
    accept = toy(300 + seed, n=400, agreement=0.5)
    return params, batch(train), pair_batch(toy(100 + seed, n=125)), batch(accept), pair_batch(accept)


def repair(train, pairs, accept, accept_pairs):
    return RepairSets(train=train, pairs=pairs, accept=accept, accept_pairs=accept_pairs)


def report(params, seed):
    """(accuracy, conflicting accuracy, bias) on a large set on which colour says nothing."""
    test, theta = toy(900 + seed, n=5000, agreement=0.5), np.asarray(params["head"]["kernel"], np.float64)
    right = oracle.probabilities(theta, test.x).argmax(1) == test.y
    return right.mean(), right[test.a != test.y].mean(), oracle.pair_bias(theta, test.x, flip(test.x), test.y)


# The toy's head does not interpolate: its aligned accuracy is bought by the colour alone, and there is no floor on it.
# Nor is it saturated, so the search needs a fine grid.
TOY = FmdConfig(aligned_floor=None, steps_per_octave=4)


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


def biased_network(seed=0):
    """A two-layer network on the toy that follows the colour, as (apply_fn, params, train, pairs, accept, pairs)."""
    _, train, pairs, accept, accept_pairs = setting(seed)
    classifier = models.mlp(hidden=(6,), classes=2)
    params, _ = train_from_scratch(
        jax.random.key(seed),
        classifier,
        None,
        RepairSets(edit=train, accept=train),
        FineTuneConfig(epochs=5, learning_rates=(1e-2,)),
    )
    return classifier, params, train, pairs, accept, accept_pairs


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


class Identity:
    def solve(self, rhs):
        return influence.Solution(rhs, 0.0, 0, 1.0)


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
