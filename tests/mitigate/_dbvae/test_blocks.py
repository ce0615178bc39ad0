import jax.numpy as jnp
import numpy as np
import pytest
from oracles.latent_rules import ess

from jaxdebias.mitigate._dbvae.blocks import capped, log_ess, loss_weights, temper

RNG = np.random.default_rng(0)


def test_tempering_hits_the_target_or_leaves_things_alone():
    log_weight = jnp.asarray(RNG.normal(size=900) * 3, jnp.float32)
    block = jnp.asarray(np.repeat([0, 1, 2], [500, 300, 100]))
    scaled = jnp.where(block == 1, 0.01 * log_weight, log_weight)
    tempered, tau = temper(scaled, block, target=0.4, blocks=4)
    reached = np.exp(log_ess(tempered, block, blocks=4))
    np.testing.assert_allclose(reached[[0, 2]], 0.4, atol=1e-3)
    for i in (0, 2):
        assert ess(np.exp(np.asarray(tempered, np.float64))[block == i]) == pytest.approx(0.4, abs=1e-3)
    assert (tau[1], tau[3], reached[1] > 0.99) == (1, 1, True)
    np.testing.assert_array_equal(tempered[block == 1], scaled[block == 1])
    # Spread over hundreds of nats: powers near 0 are found too.
    _, tau = temper(100 * log_weight, block, target=0.2, blocks=4)
    assert 0 < tau[0] < 0.01


def test_caps_hold_and_sums_stay():
    weight = RNG.gamma(0.2, size=500).astype(np.float32)
    block = (np.arange(500) % 2).astype(np.int32)
    cut = np.asarray(capped(weight, block, ratio=3.0, blocks=2))
    for i in range(2):
        old, new = weight[block == i], cut[block == i]
        assert new.sum() == pytest.approx(old.sum(), rel=1e-4)
        assert new.max() <= 3 * old.mean() * (1 + 1e-6)
        free = new < 3 * old.mean() * (1 - 1e-4)
        np.testing.assert_allclose(new[free], old[free] * new[free].sum() / old[free].sum(), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(capped(weight, block, ratio=500.0, blocks=2), weight, rtol=1e-6)
    of_loss, share = loss_weights(weight / weight.sum(), most=4.0)
    assert float(of_loss.max()) == 4.0
    assert float(share) == pytest.approx(np.mean(weight > 4 * weight.mean()))


def test_expected_gradient_of_loss_weights_is_that_of_the_draws():
    weight, gradient = np.array([1, 1, 1, 2, 2, 4]) / np.float32(11), np.arange(6.0)
    of_loss, share = loss_weights(weight, most=10.0)
    assert (np.asarray(of_loss) * gradient).mean() == pytest.approx((weight * gradient).sum(), rel=1e-6)
    assert share == 0
