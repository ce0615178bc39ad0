"""Any model: the one-liner that turns a network of each library into `apply_fn(params, x)`, and what it is good for."""

from typing import NamedTuple

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from jaxdebias.core import Split
from jaxdebias.explain.influence.derivatives import per_example_gradients, sum_hvp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4)).astype(np.float32)
LABEL = RNG.integers(0, 3, 5).astype(np.int32)


class Case(NamedTuple):
    apply_fn: object
    params: object
    logits: np.ndarray  # as the library itself computes them
    split: Split | None = None


def linen():
    class Net(nn.Module):
        def setup(self):
            self.hidden, self.head = nn.Dense(6), nn.Dense(3)

        def features(self, x):
            return nn.tanh(self.hidden(x))

        def logits(self, z):
            return self.head(z)

        def __call__(self, x):
            return self.logits(self.features(x))

    model = Net()
    variables = model.init(jax.random.key(0), X)
    # README: apply_fn, params = model.apply, model.init(key, x)
    split = Split(lambda p, x: model.apply(p, x, method="features"), lambda p, z: model.apply(p, z, method="logits"))
    return Case(model.apply, variables, model.bind(variables)(X), split)


def flax_nnx():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.hidden, self.head = nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 3, rngs=rngs)

        def features(self, x):
            return nnx.tanh(self.hidden(x))

        def __call__(self, x):
            return self.head(self.features(x))

    model = Net(nnx.Rngs(0))
    graphdef, params = nnx.split(model)
    apply_fn = lambda params, x: nnx.merge(graphdef, params)(x)  # noqa: E731
    split = Split(lambda p, x: nnx.merge(graphdef, p).features(x), lambda p, z: nnx.merge(graphdef, p).head(z))
    return Case(apply_fn, params, model(X), split)


def equinox():
    model = eqx.nn.MLP(4, 3, 6, depth=1, activation=jnp.tanh, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    apply_fn = lambda params, x: jax.vmap(eqx.combine(params, static))(x)  # noqa: E731
    split = Split(
        lambda p, x: jax.vmap(lambda row: jnp.tanh(p.layers[0](row)))(x), lambda p, z: jax.vmap(p.layers[1])(z)
    )
    return Case(apply_fn, params, np.stack([model(row) for row in X]), split)


def haiku():
    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([6, 3], activation=jnp.tanh)(x)))
    params = net.init(jax.random.key(0), X)
    # README: apply_fn, params = net.apply, net.init(key, x)
    return Case(net.apply, params, net.apply(params, X))


def bare_function():
    params = {"w": RNG.normal(size=(4, 6)).astype(np.float32), "v": RNG.normal(size=(6, 3)).astype(np.float32)}
    split = Split(lambda p, x: jnp.tanh(x @ p["w"]), lambda p, z: z @ p["v"])
    apply_fn = lambda params, x: jnp.tanh(x @ params["w"]) @ params["v"]  # noqa: E731
    return Case(apply_fn, params, np.tanh(X @ params["w"]) @ params["v"], split)


@pytest.fixture(scope="module", params=[linen, flax_nnx, equinox, haiku, bare_function], ids=lambda make: make.__name__)
def case(request):
    return request.param()


def losses_of(apply_fn):
    def loss_fn(params, x, label):
        return optax.softmax_cross_entropy_with_integer_labels(apply_fn(params, x), label)

    return loss_fn


def test_predictions_are_the_libraries_own(case):
    np.testing.assert_allclose(jax.jit(case.apply_fn)(case.params, X), case.logits, rtol=1e-5, atol=1e-6)
    if case.split is not None:
        z = case.split.features(case.params, X)
        assert z.shape == (5, 6)
        np.testing.assert_allclose(case.split.head(case.params, z), case.logits, rtol=1e-5, atol=1e-6)


def test_per_example_gradients(case):
    loss_fn = losses_of(case.apply_fn)
    gradients = per_example_gradients(loss_fn, case.params, (X, LABEL), batch_size=2)
    jacobian = jax.jit(jax.jacrev(lambda p: loss_fn(p, X, LABEL)))(case.params)
    jax.tree.map(lambda g, j: np.testing.assert_allclose(g, j, rtol=1e-5, atol=1e-6), gradients, jacobian)


def test_hessian_vector_products(case):
    loss_fn = losses_of(case.apply_fn)
    flat, unflatten = ravel_pytree(case.params)
    v = RNG.normal(size=flat.shape).astype(np.float32)
    hessian = jax.jit(jax.hessian(lambda flat: loss_fn(unflatten(flat), X, LABEL).sum()))(flat)
    product = sum_hvp(loss_fn, case.params, (X, LABEL), unflatten(v), batch_size=2)
    np.testing.assert_allclose(ravel_pytree(product)[0], hessian @ v, rtol=1e-4, atol=1e-5)
