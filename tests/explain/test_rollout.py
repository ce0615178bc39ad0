"""Attention rollout against whole matrix products."""

import jax
import numpy as np
import pytest
from oracles import cams

from jaxdebias.contracts import ContractError
from jaxdebias.explain import rollout
from jaxdebias.models import attention_weights, vit

RNG = np.random.default_rng(0)
WEIGHTS = RNG.dirichlet(np.full(7, 0.3), size=(3, 2, 4, 7)).astype(np.float32)  # 3 layers, 2 images, 4 heads


@pytest.mark.parametrize(("heads", "fuse"), [("mean", np.mean), ("max", np.max), ("min", np.min)])
def test_rollout_is_the_product_over_layers(heads, fuse):
    got = rollout(WEIGHTS, heads=heads, grid=(2, 3))
    np.testing.assert_allclose(got.reshape(2, 6), cams.rollout(WEIGHTS, fuse), rtol=1e-5, atol=1e-7)


def test_rollout_of_our_own_transformer():
    network, x = vit(patch=4, width=8, depth=2, heads=2, hidden=8), RNG.uniform(size=(2, 8, 8, 3)).astype(np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32), shapes)

    @jax.jit
    def both(params, x):
        weights = attention_weights(network, params, x)
        return weights, rollout(weights)

    weights, got = both(params, x)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    assert got.shape == (2, 2, 2)
    np.testing.assert_allclose(got.reshape(2, 4), cams.rollout(np.asarray(weights), np.mean), rtol=1e-5, atol=1e-7)


def test_bad_arguments_are_named():
    with pytest.raises(ContractError, match="`grid`: expected 6 patches, t - 1, got 2 x 2"):
        rollout(WEIGHTS)
    with pytest.raises(ContractError, match="`heads`: expected one of mean, max, min"):
        rollout(WEIGHTS, heads="median", grid=(2, 3))
