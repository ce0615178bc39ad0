import jax.numpy as jnp
import numpy as np

from jaxdebias.core import Batch
from jaxdebias.mitigate import LossHistory, difficulty
from jaxdebias.mitigate._loss_history import empty_history, remember


def batch(index, label, weight=None):
    index = np.array(index, np.int32)
    return Batch(
        x=np.zeros((len(index), 1), np.float32),
        label=np.array(label, np.int32),
        attribute=np.zeros(len(index), np.int32),
        index=index,
        weight=weight,
    )


def test_two_losses_of_one_sample():
    history = empty_history(3)
    for loss, expected in ((2.0, 2.0), (1.0, 1.7)):
        history = remember(history, batch([1], [0]), jnp.array([loss]), jnp.array([5.0]), 0.7)
        np.testing.assert_allclose(history.biased, [0.0, expected, 0.0], atol=1e-6)
        np.testing.assert_allclose(history.debiased, [0.0, 5.0, 0.0], atol=1e-6)
    np.testing.assert_array_equal(history.label, [-1, 0, -1])


def test_weight_of_known_losses():
    history = LossHistory(jnp.array([1.0, 2.0, 9.0]), jnp.array([1.0, 4.0, 9.0]), jnp.array([0, 0, 1]))
    weight = difficulty(history, jnp.array([0, 1, 2]), 2)
    np.testing.assert_allclose(weight, [0.66666666, 0.5, 0.5], atol=1e-6)


def test_samples_never_visited_raise_no_maximum():
    history = LossHistory(jnp.array([1.0, 7.0]), jnp.array([1.0, 7.0]), jnp.array([0, -1]))
    np.testing.assert_allclose(difficulty(history, jnp.array([0]), 2), [0.5], atol=1e-6)
    assert difficulty(empty_history(2), jnp.array([0]), 2).tolist() == [0.0]


def test_padding_is_left_out_even_where_it_repeats_a_sample():
    weight = np.array([1.0, 0.0, 0.0], np.float32)
    rows, losses = batch([0, 0, 1], [1, 1, 0], weight), jnp.array([2.0, 8.0, 8.0])
    history = remember(empty_history(2), rows, losses, losses, 0.7)
    np.testing.assert_array_equal(history.biased, [2.0, 0.0])
    np.testing.assert_array_equal(history.label, [1, -1])


def test_an_index_outside_is_nan():
    history = remember(empty_history(2), batch([0, 2], [0, 0]), jnp.ones(2), jnp.ones(2), 0.7)
    np.testing.assert_array_equal(np.isnan(difficulty(history, jnp.array([0, 2]), 1)), [False, True])
