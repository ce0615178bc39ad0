"""Fine-tuning and training from scratch: what they start from, choose and leave alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias import models
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch
from jaxdebias.mitigate.fine_tune import FineTuneConfig, both_sides, fine_tune, train_from_scratch

CONFIG = FineTuneConfig(epochs=5, batch_size=32, learning_rates=(1e-2, 1e-7))


def data(seed, n=200):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n, dtype=np.int32)
    x = rng.normal(size=(n, 6)).astype(np.float32) + 3.0 * (2 * label[:, None] - 1) * (np.arange(6) == 0)[None, :]
    return Batch(x=x.astype(np.float32), label=label, attribute=np.zeros(n, np.int32))


@pytest.fixture(scope="module")
def classifier():
    return models.mlp(hidden=(8,), classes=2)


def test_the_better_rate_is_kept_and_the_parameters_stay(key, classifier):
    params = classifier.init(key, data(0).x)
    kept = jax.tree.map(np.array, params)
    tuned, info = fine_tune(key, classifier, params, data(0), data(1), CONFIG)
    assert info.learning_rate == 1e-2
    assert set(info.accept_accuracy) == {1e-2, 1e-7}
    assert info.accept_accuracy[1e-2] > 0.95
    jax.tree.map(np.testing.assert_array_equal, params, kept)
    right = np.asarray(classifier.apply(tuned, jnp.asarray(data(1).x))).argmax(-1) == data(1).label
    assert right.mean() == pytest.approx(info.accept_accuracy[1e-2])


def test_a_tiny_rate_stays_where_it_started(key, classifier):
    params = classifier.init(key, data(0).x)
    tuned, _ = fine_tune(key, classifier, params, data(0), data(1), FineTuneConfig(epochs=1, learning_rates=(1e-9,)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), tuned, params)


def test_from_scratch_learns(key, classifier):
    _, info = train_from_scratch(key, classifier, data(0), data(1), CONFIG)
    assert info.accept_accuracy[info.learning_rate] > 0.95


def test_both_sides_needs_twins():
    with pytest.raises(ContractError, match=r"`pairs.twin`: expected the other rendering of x"):
        both_sides(data(0))
