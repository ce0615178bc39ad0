import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.train.losses import correct, cross_entropy, weighted_mean

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
