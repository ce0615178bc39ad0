"""Moving a bias code: cases by hand, codes that the ReLU hides, and pictures of a trained model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.test_networks import random_params

from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch
from jaxdebias.data import digits
from jaxdebias.explain import ShiftConfig, both_right, draw_targets, latent_shift, shift_images
from jaxdebias.mitigate import sih
from jaxdebias.models import mlp_vae
from jaxdebias.train import FitConfig, fit

OFFICIAL = ShiftConfig(official=True)
SMALL = mlp_vae(image=(4, 5, 3), hidden=(12, 12), latent=6, decoder=(16, 20), classes=3)


def identity(params, u):
    del params
    return u


def affine(params, u):
    return u @ params["kernel"] + params["bias"][None]


def shifted(z, target, config=ShiftConfig(), **options):
    return latent_shift(identity, None, np.array([z], np.float32), np.array([target], np.int32), config, **options)


@pytest.mark.parametrize("config", [ShiftConfig(), OFFICIAL])
@pytest.mark.parametrize(("z", "target", "end"), [
    ([2, 1], 1, [1.49, 1.51]),
    ([3, 2, 1], 2, [1.98, 2, 2.02]),
])  # fmt: skip
def test_by_hand(config, z, target, end):
    shift = shifted(z, target, config)
    np.testing.assert_allclose(shift.z[0], end, atol=1e-6)
    assert (bool(shift.success[0]), int(shift.steps[0]), int(shift.target[0])) == (True, 1, target)


def test_codes_that_the_relu_hides():
    """What the paper's code does with them, and that ours get there."""
    stuck = shifted([2, -1], 1, OFFICIAL)
    np.testing.assert_allclose(stuck.z[0], [-0.04, -1], atol=1e-6)
    assert not stuck.success[0]
    lost = shifted([-1, -1], 1, OFFICIAL)
    np.testing.assert_array_equal(lost.z[0], [-1, -1])
    assert (bool(lost.success[0]), int(lost.steps[0])) == (False, 20)
    for z in ([2, -1], [-1, -1], [0, 0], [1, 1], [5, -5]):
        shift = shifted(z, 1)
        assert shift.success[0], z
        assert shift.steps[0] <= 3


def test_a_class_that_no_code_reaches_is_reported():
    params = {"kernel": np.array([[1.0, 0.0], [1.0, 0.0]], np.float32), "bias": np.array([1.0, 0.0], np.float32)}
    shift = latent_shift(affine, params, np.array([[1.0, 2.0]], np.float32), np.array([1], np.int32))
    assert (bool(shift.success[0]), int(shift.steps[0])) == (False, 20)
    assert np.isfinite(shift.z).all()


def test_rows_that_are_there_stay_and_rows_do_not_influence_each_other():
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(8, 5)).astype(np.float32), "bias": rng.normal(size=5).astype(np.float32)}
    z, target = rng.normal(size=(40, 8)).astype(np.float32), rng.integers(0, 5, 40).astype(np.int32)
    shift = latent_shift(affine, params, z, target)
    there = np.maximum(z, 0) @ params["kernel"] + params["bias"]
    there = there.argmax(1) == target
    assert 0 < there.sum() < 40
    np.testing.assert_array_equal(shift.z[there], z[there])
    np.testing.assert_array_equal(shift.steps == 0, there)
    assert shift.success.all()
    one = jax.vmap(lambda z, t: latent_shift(affine, params, z[None], t[None]))(z, target)
    np.testing.assert_allclose(one.z[:, 0], shift.z, rtol=1e-4, atol=1e-4)


def test_official_routine_by_hand():
    """The loop of the specification in NumPy, on random affine classifiers."""
    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    z = rng.normal(size=(30, 6)).astype(np.float32)
    target = rng.integers(0, 4, 30).astype(np.int32)
    expected, success = z.astype(np.float64), []
    for i, t in enumerate(target):
        for _ in range(3):
            f = np.maximum(expected[i], 0) @ kernel + bias
            k = f.argmax()
            if k == t:
                break
            g = (kernel[:, t] - kernel[:, k]) * (expected[i] > 0)
            expected[i] += 1.02 * abs(f[t] - f[k]) / ((g**2).sum() + 1e-8) * g
        success.append((np.maximum(expected[i], 0) @ kernel + bias).argmax() == t)
    shift = latent_shift(affine, {"kernel": kernel, "bias": bias}, z, target, ShiftConfig(steps=3, official=True))
    np.testing.assert_allclose(shift.z, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(shift.success, success)
    assert 0 < np.sum(success) < 30
    ours = latent_shift(affine, {"kernel": kernel, "bias": bias}, z, target)
    assert ours.success.sum() > np.sum(success)


def test_margin_is_a_lead_of_the_target():
    rng = np.random.default_rng(2)
    params = {"kernel": rng.normal(size=(8, 5)).astype(np.float32), "bias": rng.normal(size=5).astype(np.float32)}
    z, target = rng.normal(size=(40, 8)).astype(np.float32), rng.integers(0, 5, 40).astype(np.int32)
    shift = latent_shift(affine, params, z, target, ShiftConfig(margin=2.0))
    f = np.maximum(shift.z, 0) @ params["kernel"] + params["bias"]
    of_target = f[np.arange(40), target]
    f[np.arange(40), target] = -np.inf
    assert shift.success.all()
    assert (of_target - f.max(axis=1)).min() >= 2 - 1e-4
    np.testing.assert_allclose(shifted([2, 1], 1, ShiftConfig(margin=1.0)).z[0], [0.98, 2.02], atol=1e-5)


def test_any_smooth_classifier():
    def curved(params, z):
        return jnp.stack([jnp.tanh(z[:, 0]), params * z[:, 1] ** 3, -z[:, 0]], axis=1)

    z, target = np.array([[1.0, 0.5], [-1.0, 0.5]], np.float32), np.array([1, 1], np.int32)
    assert latent_shift(curved, jnp.float32(2), z, target, relu=False).success.all()


def test_targets_differ_from_labels_and_are_uniform(key):
    label = np.repeat(np.arange(4, dtype=np.int32), 3000)
    target = np.asarray(draw_targets(key, label, 4))
    counts = np.zeros((4, 4), int)
    np.add.at(counts, (label, target), 1)
    assert (counts.diagonal() == 0).all()
    np.testing.assert_allclose(counts[~np.eye(4, dtype=bool)], 1000, atol=120)


@pytest.mark.slow
def test_pictures_keep_the_signal_code():
    x = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), np.uint8)
    variables = random_params(SMALL, x)
    target = np.array([0, 1, 2, 0, 1, 2, 0], np.int32)
    out = shift_images(SMALL, variables, x, target, batch_size=4)
    codes = SMALL.encode(variables, x)
    head = SMALL.bias.vector.head
    np.testing.assert_allclose(out.original, x / 255.0, rtol=1e-6)
    shift = latent_shift(head, variables, codes.bias.mean, target)
    np.testing.assert_allclose(out.shift.z, shift.z, rtol=1e-4, atol=1e-5)
    moved = jax.nn.sigmoid(SMALL.decode(variables, codes.signal.mean, shift.z))
    np.testing.assert_allclose(out.moved, moved, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        out.reconstruction,
        jax.nn.sigmoid(SMALL.decode(variables, codes.signal.mean, codes.bias.mean)),
        rtol=1e-4,
        atol=1e-5,
    )
    for branch, before, after in (
        (SMALL.signal, out.signal_before, out.signal_after),
        (SMALL.bias, out.bias_before, out.bias_after),
    ):
        np.testing.assert_array_equal(before, branch.apply(variables, x).argmax(1))
        np.testing.assert_array_equal(after, branch.apply(variables, np.asarray(out.moved)).argmax(1))
    outcomes = out.outcomes()
    np.testing.assert_array_equal(outcomes["bias branch sees the target"], out.bias_after == target)
    np.testing.assert_array_equal(outcomes["signal branch sees what it saw"], out.signal_after == out.signal_before)
    batch = Batch(x=x, label=np.asarray(out.signal_before, np.int32), attribute=np.zeros(7, np.int32))
    np.testing.assert_array_equal(both_right(SMALL, variables, batch), out.bias_before == out.signal_before)


@pytest.mark.slow
def test_a_trained_model_moves_and_comes_back(key):
    """Bounds of the specification (check 6) on held-out digits that are biased like the training ones."""
    dataset = digits(conflicting=0.02)
    train = jax.tree.map(lambda leaf: leaf[:900], dataset.splits["train"])
    held_out = jax.tree.map(lambda leaf: leaf[900:], dataset.splits["train"])
    branches = mlp_vae(image=(16, 16, 3), decoder=(128, 256))
    config = FitConfig(epochs=150, batch_size=50, epochs_per_chunk=150, drop_last=True)
    state = fit(jax.random.key(0), sih(branches), train, config).state
    target = np.asarray(draw_targets(key, held_out.label, 10))
    signal = np.asarray(branches.signal.apply(state.variables, held_out.x).argmax(1))

    def rates(config):
        out = shift_images(branches, state.variables, held_out.x, target, config)
        np.testing.assert_array_equal(out.signal_before, signal)  # the signal code is not touched
        return {name: float(np.mean(hit)) for name, hit in out.outcomes().items()}

    near, far = rates(ShiftConfig()), rates(ShiftConfig(margin=15.0))
    print(near, far)
    assert near["bias code moved to the target"] >= 0.95, near
    assert near["signal branch sees what it saw"] >= 0.80, near
    # A picture of a code just beyond the boundary falls back; one with a clear lead does not.
    assert near["bias branch sees the target"] < 0.5, near
    assert far["bias code moved to the target"] >= 0.95, far
    assert far["bias branch sees the target"] >= 0.80, far
    assert far["signal branch sees what it saw"] >= 0.75, far


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"overshoot": -0.1}, {"margin": -1.0},
                                   {"margin": 1.0, "official": True}])  # fmt: skip
def test_refuses_settings(wrong):
    with pytest.raises(ContractError, match=next(iter(wrong))):
        ShiftConfig(**wrong)


def test_refuses_targets(key):
    x = np.zeros((2, 4, 5, 3), np.uint8)
    variables = random_params(SMALL, x)
    with pytest.raises(ContractError, match="target"):
        shift_images(SMALL, variables, x, np.array([0, 3], np.int32))
    with pytest.raises(ContractError, match="classes"):
        draw_targets(key, np.zeros(2, np.int32), 1)
