import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdebias.mitigate._dbvae.flow import Flow, fit_flow, flow_log_density, log_prob

RNG = np.random.default_rng(0)
N = 1200
BLOCK = np.repeat([0, 1, -1], [700, 400, 100]).astype(np.int32)
BEND = RNG.normal(size=N)
Z = np.stack([BEND, np.where(BLOCK == 1, -1, 1) * BEND**2 + 0.5 * RNG.normal(size=N)], 1).astype(np.float32)


def truth(z, sign):
    return stats.norm.logpdf(z[:, 0]) + stats.norm(sign * z[:, 0] ** 2, 0.5).logpdf(z[:, 1])


def test_untrained_it_is_a_gaussian_of_each_block():
    found = np.asarray(flow_log_density(Z, BLOCK, blocks=2, steps=0))
    for j in range(2):
        own = Z[j == BLOCK].astype(np.float64)
        wanted = stats.norm(own.mean(0), own.std(0)).logpdf(own).sum(1)
        np.testing.assert_allclose(found[j == BLOCK], wanted, atol=1e-3)
    np.testing.assert_array_equal(found[BLOCK == -1], 0)


def test_it_integrates_to_one_whatever_its_layers():
    rng = np.random.default_rng(1)
    layers = {
        name: jnp.asarray(rng.normal(size=shape) * size, jnp.float32)
        for name, shape, size in (
            ("into", (3, 4, 8), 0.5),
            ("bias", (3, 8), 0.5),
            ("out", (3, 8, 4), 0.3),
            ("shift", (3, 4), 0.2),
        )
    }
    flow = Flow(layers, jnp.array([[0.5, -1.0], [0.0, 2.0]]), jnp.array([[2.0, 0.5], [1.0, 1.0]]))
    side = np.linspace(-25, 25, 700, dtype=np.float32)
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    for j in range(2):
        density = np.exp(np.asarray(log_prob(flow, points, np.full(len(points), j, np.int32)), np.float64))
        assert density.sum() * (side[1] - side[0]) ** 2 == pytest.approx(1.0, abs=0.02)


@pytest.mark.slow
def test_it_follows_a_bend_that_differs_between_blocks():
    found = np.asarray(flow_log_density(Z, BLOCK, blocks=2, steps=600))
    gaussian = np.asarray(flow_log_density(Z, BLOCK, blocks=2, steps=0))
    for j, sign in ((0, 1), (1, -1)):
        own = j == BLOCK
        wanted = truth(Z[own].astype(np.float64), sign)
        assert np.corrcoef(found[own], wanted)[0, 1] > 0.93
        assert np.corrcoef(gaussian[own], wanted)[0, 1] < 0.85
        assert abs(found[own].mean() - wanted.mean()) < 0.15
    np.testing.assert_array_equal(found, flow_log_density(Z, BLOCK, blocks=2, steps=600))


@pytest.mark.slow
def test_constant_latents_and_empty_blocks_are_finite():
    z = np.insert(Z[:60], 1, 0.0, axis=1)
    flow = fit_flow(z, BLOCK[:60], blocks=3, steps=3, batch=32)
    assert np.isfinite(flow.spread).all()
    assert np.isfinite(flow_log_density(z, BLOCK[:60], blocks=3, steps=3, batch=32)).all()
