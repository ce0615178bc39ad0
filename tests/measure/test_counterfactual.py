import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import metrics as oracle
from oracles import rates
from scipy import stats

from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch
from jaxdebias.measure import (
    counterfactual_bias,
    counterfactual_bias_of_logits,
    excludes_zero,
    flip_rate,
    mean_interval,
    pair_bias,
    pair_gap,
    true_class_probability,
)

N, K = 80, 3


def colours(n=N):
    """x is a one-hot colour and a one-hot shape; at x the colour is the label's, at the twin the next class's."""
    label = (np.arange(n) % K).astype(np.int32)
    shape, eye = np.eye(K, dtype=np.float32)[label], np.eye(K, dtype=np.float32)
    return Batch(
        np.concatenate([eye[label], shape], axis=1),
        label,
        label,
        twin=np.concatenate([eye[(label + 1) % K], shape], axis=1),
    )


def constant(params, x):
    return jnp.tile(params, (x.shape[0], 1))


def colour_only(params, x):
    return params * x[:, :K]


def shape_only(params, x):
    return params * x[:, K:]


def linear(params, x):
    return x @ params


def noisy(seed=0):
    rng = np.random.default_rng(seed)
    pairs = colours()._replace(
        x=rng.normal(size=(N, 6)).astype(np.float32), twin=rng.normal(size=(N, 6)).astype(np.float32)
    )
    return pairs, rng.normal(size=(6, K)).astype(np.float32)


@pytest.mark.parametrize("kind", ["pair", "gap", "flip"])
def test_bias_of_a_constant_model_is_zero(key, kind):
    got = counterfactual_bias(constant, jnp.arange(K, dtype=jnp.float32), colours(), key=key, kind=kind)
    assert got.value == got.low == 0
    assert got.n == N
    assert not excludes_zero(got)


@pytest.mark.parametrize("kind", ["pair", "gap", "flip"])
def test_bias_of_a_pure_colour_model_is_one(key, kind):
    got = counterfactual_bias(colour_only, 50.0, colours(), key=key, kind=kind)
    assert got.value == pytest.approx(1, abs=1e-6)
    assert excludes_zero(got)


@pytest.mark.parametrize("kind", ["pair", "gap", "flip"])
def test_bias_of_a_pure_shape_model_is_zero(key, kind):
    assert counterfactual_bias(shape_only, 50.0, colours(), key=key, kind=kind).value == 0


def test_values_match_loops(key):
    pairs, params = noisy()
    p, q = oracle.softmax(pairs.x @ params), oracle.softmax(pairs.twin @ params)
    change = [p[i, y] - q[i, y] for i, y in enumerate(pairs.label)]
    expected = {
        "pair": sum(map(abs, change)) / N,
        "gap": abs(sum(change)) / N,
        "flip": sum(a.argmax() != b.argmax() for a, b in zip(p, q, strict=True)) / N,
    }
    for kind, value in expected.items():
        got = counterfactual_bias(linear, params, pairs, key=key, kind=kind)
        assert got.value == pytest.approx(value, abs=1e-6), kind
        assert got.low <= got.value <= got.high
    p_true, q_true = (true_class_probability(x @ params, pairs.label) for x in (pairs.x, pairs.twin))
    assert float(pair_bias(p_true, q_true)) == pytest.approx(expected["pair"], abs=1e-6)
    assert float(pair_gap(p_true, q_true)) == pytest.approx(expected["gap"], abs=1e-6)
    assert float(flip_rate(pairs.x @ params, pairs.twin @ params)) == pytest.approx(expected["flip"], abs=1e-6)


def test_chunks_and_uint8_images_change_nothing(key):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (2, N, 4, 4, 1), dtype=np.uint8)
    pairs = Batch(images[0], np.zeros(N, np.int32), np.zeros(N, np.int32), twin=images[1])

    def apply_fn(params, x):
        return (x.astype(jnp.float32) / 255).reshape(x.shape[0], -1) @ params

    params = rng.normal(size=(16, 2)).astype(np.float32)
    whole = counterfactual_bias(apply_fn, params, pairs, key=key)
    chunked = counterfactual_bias(apply_fn, params, pairs, key=key, batch_size=7)
    np.testing.assert_allclose(chunked, whole, atol=1e-6)


def test_model_is_traced_once_for_both_sides_and_every_call(key):
    traces = []

    def apply_fn(params, x):
        traces.append(x.shape)
        return x @ params

    for seed in range(3):
        pairs, params = noisy(seed)
        counterfactual_bias(apply_fn, params, pairs, key=key)
    assert traces == [(N, 6)]


def test_padding_does_not_count(key):
    pairs, params = noisy()
    padded = pairs._replace(weight=(np.arange(N) < 50).astype(np.float32))
    p, q = (true_class_probability(x[:50] @ params, pairs.label[:50]) for x in (pairs.x, pairs.twin))
    expected = {
        "pair": pair_bias(p, q),
        "gap": pair_gap(p, q),
        "flip": flip_rate(pairs.x[:50] @ params, pairs.twin[:50] @ params),
    }
    for kind, value in expected.items():
        got = counterfactual_bias(linear, params, padded, key=key, kind=kind)
        assert got.value == pytest.approx(float(value), abs=1e-6)
        assert got.n == 50


def test_weighted_mean_of_pairs(key):
    pairs, params = noisy()
    weight = np.random.default_rng(2).random(N).astype(np.float32)
    got = counterfactual_bias(linear, params, pairs._replace(weight=weight), key=key)
    p, q = (true_class_probability(x @ params, pairs.label) for x in (pairs.x, pairs.twin))
    assert got.value == pytest.approx(float(np.sum(weight * np.abs(p - q)) / weight.sum()), abs=1e-6)
    assert float(pair_bias(p, q, weight=weight)) == pytest.approx(got.value, abs=1e-6)
    gap = abs(float(np.sum(weight * (p - q)) / weight.sum()))
    assert float(pair_gap(p, q, weight=weight)) == pytest.approx(gap, abs=1e-6)


@pytest.mark.parametrize("kind", ["pair", "gap", "flip"])
def test_units_widen_the_interval(key, kind):
    pairs, params = noisy()
    tenfold = jax.tree.map(lambda leaf: np.repeat(leaf, 10, axis=0), pairs)
    once = counterfactual_bias(linear, params, pairs, key=key, kind=kind)
    tied = counterfactual_bias(linear, params, tenfold._replace(unit=np.repeat(np.arange(N), 10)), key=key, kind=kind)
    assert tied.n == once.n == N
    # A proportion counts copies by their design effect and with degrees of freedom, a mean by their sums.
    assert tied.high - tied.low == pytest.approx(once.high - once.low, rel=0.1 if kind == "flip" else 1e-6)


def test_flips_have_exact_intervals(key):
    logits = np.eye(2, dtype=np.float32)[np.zeros(10, int)]
    twin = np.eye(2, dtype=np.float32)[(np.arange(10) < 3).astype(int)]
    got = counterfactual_bias_of_logits(logits, twin, np.zeros(10, np.int32), key=key, kind="flip")
    assert got.value == pytest.approx(0.3)
    assert (got.low, got.high) == pytest.approx(rates.exact(3, 10))
    assert got.n == 10


def test_flips_of_units_that_agree_count_once(key):
    flips = np.repeat(np.arange(10) < 3, 4)
    logits, twin = np.eye(2, dtype=np.float32)[0 * flips], np.eye(2, dtype=np.float32)[flips.astype(int)]
    unit = np.repeat(np.arange(10), 4)
    got = counterfactual_bias_of_logits(logits, twin, np.zeros(40, np.int32), key=key, kind="flip", unit=unit)
    deff, t = rates.design_effect(flips.astype(int).tolist(), [0] * 40, unit.tolist(), [1.0])
    n = 40 / (deff * t * t)
    limits = stats.beta.ppf(0.025, 0.3 * n, 0.7 * n + 1), stats.beta.ppf(0.975, 0.3 * n + 1, 0.7 * n)
    assert (got.low, got.high, got.n) == pytest.approx((*limits, 10))


def test_interval_of_pairs_is_that_of_a_mean(key):
    pairs, params = noisy()
    p, q = (true_class_probability(x @ params, pairs.label) for x in (pairs.x, pairs.twin))
    for kind, values in (("pair", np.abs(p - q)), ("gap", (p - q) * np.sign(np.mean(p - q)))):
        got = counterfactual_bias(linear, params, pairs, key=key, kind=kind)
        expected = mean_interval(np.asarray(values, np.float64), key=key, bounds=(-1.0, 1.0))
        assert got == pytest.approx(expected._replace(low=max(expected.low, 0.0)), abs=1e-6)


def test_gap_is_separable_only_with_a_clear_sign(key):
    rng = np.random.default_rng(3)
    label = np.zeros(N, np.int32)

    def logits(shift):
        return np.stack([rng.normal(size=N) + shift, np.zeros(N)], axis=1).astype(np.float32)

    same = counterfactual_bias_of_logits(logits(0), logits(0), label, key=key, kind="gap")
    assert same.low == 0
    assert not excludes_zero(same)
    for shift in (2, -2):  # whichever side has the higher mean
        apart = counterfactual_bias_of_logits(logits(shift), logits(0), label, key=key, kind="gap")
        assert excludes_zero(apart)
        assert apart.low > 0.1
    individuals = counterfactual_bias_of_logits(logits(0), logits(0), label, key=key, kind="pair")
    assert excludes_zero(individuals)  # different individuals: |p - q| of pairs is no bias


@pytest.mark.parametrize("bias", [pair_bias, pair_gap])
@pytest.mark.parametrize("smooth", [0.0, 0.05])
def test_gradients_are_numerical(bias, smooth):
    rng = np.random.default_rng(4)
    p, q = (jnp.asarray(rng.random(9), jnp.float32) for _ in range(2))
    weight = jnp.asarray(rng.random(9), jnp.float32)
    chex.assert_numerical_grads(lambda p, q: bias(p, q, weight=weight, smooth=smooth), (p, q), order=1)
    np.testing.assert_allclose(jax.jit(bias)(p, q), bias(p, q), rtol=1e-6)


@pytest.mark.parametrize("bias", [pair_bias, pair_gap])
@pytest.mark.parametrize("smooth", [0.0, 1e-6])
def test_gradient_is_zero_where_nothing_changes(bias, smooth):
    grad = jax.grad(lambda p: bias(p, jnp.full(5, 0.5), smooth=smooth))(jnp.full(5, 0.5))
    np.testing.assert_array_equal(grad, 0)


def test_smooth_absolute_value_tends_to_the_absolute_value():
    p, q = jnp.array([0.1, 0.9, 0.4]), jnp.array([0.3, 0.2, 0.4])
    assert float(pair_bias(p, q, smooth=1e-6)) == pytest.approx(float(pair_bias(p, q)), abs=1e-6)
    assert float(pair_bias(p, q, smooth=0.1)) == pytest.approx(np.mean(np.sqrt((p - q) ** 2 + 0.01)), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"twin": None}, "`pairs.twin`: expected the counterfactual of x, got None"),
        ({"twin": np.zeros((3, 6), np.float32)}, "`pairs.twin`: expected float32 [80, 6], got float32 [3, 6]"),
        ({"label": np.full(N, 3)}, "`label`: expected values in 0..2, got 3..3"),
        ({"x": np.full((N, 6), np.nan, np.float32)}, "`logits`: expected finite values, got 240 of 240 not finite"),
        ({"twin": np.full((N, 6), np.inf, np.float32)}, "`logits_twin`: expected finite values, got"),
        ({"weight": np.zeros(N)}, "`weight`: expected no negative weight, not all 0, got float32 [80]"),
        ({"weight": np.ones(3)}, "`weight`: expected float [n=80], got float32 [3]"),
        ({"unit": np.zeros(3, int)}, "`unit`: expected int [n=80], got int64 [3]"),
    ],
)
def test_refuses(key, unchecked, change, message):
    pairs, params = noisy()
    with pytest.raises(ContractError, match=re.escape(message)):
        counterfactual_bias(linear, params, pairs._replace(**change), key=key)


def test_refuses_an_empty_pair_set(key):
    empty = jax.tree.map(lambda leaf: leaf[:0], colours())
    with pytest.raises(ContractError, match=re.escape("`pairs`: expected at least one pair, got int32 [0]")):
        counterfactual_bias(linear, np.zeros((6, K), np.float32), empty, key=key)


def test_refuses_an_unknown_kind(key, unchecked):
    with pytest.raises(ContractError, match=re.escape("`kind`: expected one of pair, gap, flip, got 'pairs' (did you")):
        counterfactual_bias(linear, np.zeros((6, K), np.float32), colours(), key=key, kind="pairs")


def test_refuses_fractional_weights_for_a_flip_rate(key):
    pairs, params = noisy()
    with pytest.raises(ContractError, match="`weight`: expected 0 or 1 for a flip rate"):
        counterfactual_bias(linear, params, pairs._replace(weight=np.full(N, 0.5, np.float32)), key=key, kind="flip")


@pytest.mark.parametrize("bias", [pair_bias, pair_gap])
def test_a_column_beside_a_row_is_refused(bias, unchecked):
    """It would broadcast to [n n], a wrong number without a word."""
    p, q, w = np.array([0.9, 0.2, 0.6]), np.array([0.1, 0.3, 0.6]), np.array([1.0, 0.0, 0.0])
    assert float(bias(p, q, weight=w)) == pytest.approx(0.8)
    bad = [((p, q[:, None]), None, "p_twin"), ((p, q), w[:, None], "weight"), ((p[:1], q), None, "p_twin")]
    for arguments, weight, name in [*bad, ((p[:, None], q[:, None]), None, "p")]:
        with pytest.raises(ContractError, match=f"`{name}`: expected an array"):
            bias(*arguments, weight=weight)


def test_one_logit_is_refused_with_what_to_do(key):
    z, twin = np.array([[3.0], [-2.0]], np.float32), np.array([[-3.0], [2.0]], np.float32)
    pairs = Batch(x=z, label=np.zeros(2, np.int32), attribute=np.zeros(2, np.int32), twin=twin)
    with pytest.raises(ContractError, match="a single logit z is the two classes 0 and z"):
        flip_rate(z, twin)
    with pytest.raises(ContractError, match="a single logit z is the two classes 0 and z"):
        counterfactual_bias(lambda params, x: x, None, pairs, key=key)
    two = lambda x: np.concatenate([0 * x, x], 1)  # noqa: E731
    assert float(flip_rate(two(z), two(twin))) == 1.0
