"""What the tests of SiH share: small branches, rows and a state."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.core import Batch
from jaxdebias.mitigate import SihConfig, sih
from jaxdebias.mitigate._sih import (
    SihState,
)
from jaxdebias.models import mlp_vae
from jaxdebias.train import Optimizer

SIZES = {"hidden": (12, 12), "latent": 6, "decoder": (16, 20), "classes": 3}
SMALL = mlp_vae(image=(4, 5, 3), **SIZES)


def rows(n, seed=0):
    rng = np.random.default_rng(seed)
    return Batch(
        x=rng.integers(0, 256, (n, 4, 5, 3)).astype(np.uint8),
        label=rng.integers(0, 3, n).astype(np.int32),
        attribute=np.full(n, -1, np.int32),
    )


@functools.cache
def started():
    """A learner, a state whose parameters NumPy drew (compiling `init` takes longer than a test), and its step."""
    learner, draw = sih(SMALL), np.random.default_rng(0)
    shapes = jax.eval_shape(learner.init, jax.random.key(0), rows(8))

    def uniform(leaf):
        return jnp.asarray(draw.uniform(-0.3, 0.3, leaf.shape), jnp.float32)

    params = jax.tree.map(uniform, shapes.variables)
    state = SihState(params, Optimizer().build().init(params["params"]), jnp.float32(1), SihConfig(gamma=1.3).hyper())
    return learner, state, jax.jit(learner.step)
