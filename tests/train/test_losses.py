from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.train import (
    binary_cross_entropy,
    correct,
    cross_entropy,
    detached_generalised_cross_entropy,
    generalised_cross_entropy,
    weighted_mean,
)

LOGITS = np.array([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0], [-40.0, 90.0, 0.0]], np.float32)
LABEL = np.array([0, 1, 0], np.int32)


def test_cross_entropy_of_known_logits():
    # SiH's weights, classes 0, 1, 2 of the logits (2, 0, -1)
    values = cross_entropy(np.repeat(LOGITS[:1], 3, axis=0), np.arange(3))
    np.testing.assert_allclose(values, [0.16984602, 2.16984602, 3.16984602], rtol=1e-6)


def test_cross_entropy_equals_torch(torch):
    for smoothing in (0.0, 0.1):
        expected = torch.nn.functional.cross_entropy(
            torch.tensor(LOGITS), torch.tensor(LABEL).long(), reduction="none", label_smoothing=smoothing
        )
        values = cross_entropy(LOGITS, LABEL, label_smoothing=smoothing)
        np.testing.assert_allclose(values, expected.numpy(), rtol=1e-6)


def test_cross_entropy_of_a_label_outside_is_nan():
    assert np.isnan(cross_entropy(LOGITS[:1], np.array([3]))).all()
    assert np.isnan(cross_entropy(LOGITS[:1], np.array([-4]))).all()


def test_weighted_mean_divides_by_the_sum_of_weights():
    assert float(weighted_mean(np.array([1.0, 2.0, 7.0]), np.array([3.0, 1.0, 0.0]))) == 1.25
    assert float(weighted_mean(np.array([1.0, 2.0, 6.0]))) == 3.0


def test_weighted_mean_without_weight_is_zero_with_a_finite_gradient():
    value, gradient = jax.value_and_grad(weighted_mean)(jnp.array([1.0, 2.0]), jnp.zeros(2))
    assert float(value) == 0.0
    assert gradient.tolist() == [0.0, 0.0]


def test_correct():
    assert correct(LOGITS, np.array([0, 2, 0])).tolist() == [1.0, 1.0, 0.0]


def test_generalised_cross_entropy_of_known_logits():
    """Computed independently in float64, for the classes 0, 1, 2 of the logits (2, 0, -1)."""
    logits, label = np.repeat(LOGITS[:1], 3, axis=0), np.arange(3)
    true, detached = [0.16013786, 1.11577956, 1.27324358], [0.15080688, 0.47509713, 0.34465575]
    np.testing.assert_allclose(generalised_cross_entropy(logits, label, 0.7), true, rtol=1e-6)
    np.testing.assert_allclose(detached_generalised_cross_entropy(logits, label, 0.7), detached, rtol=1e-6)


def test_gradient_of_the_generalised_cross_entropy_and_of_its_detached_form():
    expected = np.array([-0.13869520, 0.10139432, 0.03730088])
    for loss in (generalised_cross_entropy, detached_generalised_cross_entropy):
        for scale in (1.0, 0.7):
            gradient = jax.grad(lambda z, of: of(z, LABEL[:1], 0.7).sum())(LOGITS[:1], partial(loss, scale=scale))
            np.testing.assert_allclose(gradient[0], scale * expected, rtol=0, atol=1e-6)


def test_generalised_cross_entropy_is_cross_entropy_at_0_and_1_minus_p_at_1():
    plain = cross_entropy(LOGITS, LABEL)
    q = jnp.array([0.0, 1e-7, 1.0])  # traced
    at_0, near_0, at_1 = jax.jit(jax.vmap(lambda q: generalised_cross_entropy(LOGITS, LABEL, q)))(q)
    np.testing.assert_array_equal(at_0, plain)
    np.testing.assert_allclose(near_0, plain, rtol=1e-4)
    np.testing.assert_allclose(at_1, 1 - np.exp(-plain), atol=1e-6)
    np.testing.assert_array_equal(detached_generalised_cross_entropy(LOGITS, LABEL, 0.0), plain)
    slope = jax.grad(lambda z: generalised_cross_entropy(z, LABEL, 0.0).sum())(LOGITS)
    np.testing.assert_allclose(slope, jax.grad(lambda z: cross_entropy(z, LABEL).sum())(LOGITS), atol=1e-7)


def test_generalised_cross_entropy_keeps_its_digits_where_p_is_near_1():
    sure = np.array([[12.0, 0.0]], np.float32)
    p = 1 / (1 + np.exp(-12.0))
    exact = -np.expm1(0.7 * np.log(p)) / 0.7
    np.testing.assert_allclose(generalised_cross_entropy(sure, np.array([0]), 0.7)[0], exact, rtol=0.01)
    assert np.isnan(generalised_cross_entropy(LOGITS[:1], np.array([3]))).all()


BINARY = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 0]], np.int32)
POS_WEIGHT = np.array([2.0, 0.5, 3.0], np.float32)


def test_binary_cross_entropy_and_its_gradient_equal_torch(torch):
    """Logits of -40 and 90, where a sigmoid has no digits left, are among them."""
    z = torch.tensor(LOGITS, requires_grad=True)
    expected = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(POS_WEIGHT))(z, torch.tensor(BINARY).float())
    expected.backward()
    value, gradient = jax.value_and_grad(lambda z: weighted_mean(binary_cross_entropy(z, BINARY, POS_WEIGHT)))(LOGITS)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, z.grad.numpy(), rtol=1e-6, atol=1e-7)


def test_unknown_targets_are_in_no_value_gradient_or_hessian():
    target = np.array([[1, -1, 0], [-1, -1, -1], [0, 1, 1]], np.int32)
    value = binary_cross_entropy(LOGITS, target)
    np.testing.assert_allclose(value[0], binary_cross_entropy(LOGITS[:1, [0, 2]], np.array([[1, 0]]))[0], rtol=1e-6)
    assert float(value[1]) == 0.0
    gradient = jax.grad(lambda z: binary_cross_entropy(z, target).sum())(LOGITS)
    assert (np.asarray(gradient)[target < 0] == 0).all()
    assert (np.asarray(gradient)[0, [0, 2]] != 0).all()
    hessian = jax.hessian(lambda z: binary_cross_entropy(z[None], target[:1])[0])(jnp.asarray(LOGITS[0]))
    assert (np.asarray(hessian)[1] == 0).all()
    assert np.isfinite(hessian).all()


def test_a_target_that_is_none_of_the_three_is_nan():
    for bad in (2, -2):
        assert np.isnan(binary_cross_entropy(LOGITS[:1], np.array([[1, bad, 0]], np.int32))).all()
