"""A layer by name is the layer that a cut shows: Linen, nnx, tokens, and what cannot be tapped."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import cams

from jaxdebias.contracts import ContractError
from jaxdebias.core import Split
from jaxdebias.explain import class_maps, linen_paths, linen_tap, nnx_tap
from jaxdebias.models import cnn, vit

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(2, 8, 8, 3)).astype(np.float32)


def random_params(network, x=X):
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: (RNG.normal(size=leaf.shape) / 3).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def network():
    """Our own small network, its parameters, and the tap of its last convolution."""
    small = cnn(channels=(4, 6), dense=5, classes=3)
    return small, random_params(small), linen_tap(small.apply, "convs_1")


@pytest.mark.slow
def test_linen_tap_and_cut_agree(network):
    small, params, tap = network
    # The cut is behind the ReLU that the tap is in front of.
    behind = Split(lambda p, x: tap(p, x, None)[1], lambda p, z: small.spatial.head(p, jax.nn.relu(z)))
    got, want, logits = jax.jit(
        lambda params, x: (
            class_maps(tap, params, x, relu=False),
            class_maps(behind, params, x, relu=False),
            small.apply(params, x),
        )
    )(params, X)
    np.testing.assert_allclose(got.logits, logits, rtol=1e-5, atol=1e-6)
    assert np.abs(want.maps).max() > 1e-3
    np.testing.assert_allclose(got.maps, want.maps, rtol=1e-5, atol=1e-6)


def test_a_change_of_the_layer_reaches_the_logits(network):
    small, params, tap = network
    eps = RNG.normal(size=(2, 2, 2, 6)).astype(np.float32)
    (plain, z), (logits, same), want = jax.jit(
        lambda params, x, eps: (
            tap(params, x, None),
            tap(params, x, eps),
            small.spatial.head(params, jax.nn.relu(tap(params, x, None)[1] + eps)),
        )
    )(params, X, eps)
    np.testing.assert_allclose(z, same, rtol=1e-6)
    np.testing.assert_allclose(logits, want, rtol=1e-5, atol=1e-6)
    assert np.abs(logits - plain).max() > 1e-2


def test_equal_arguments_give_the_same_tap(network):
    small, _, tap = network
    assert linen_tap(small.apply, "convs_1") is tap
    assert linen_tap(small.apply, "convs_0") is not tap


def test_paths_are_listed_in_order():
    transformer = vit(patch=4, width=8, depth=1, heads=2, hidden=8, classes=3)
    shapes = linen_paths(transformer.apply, random_params(transformer), X)
    assert shapes["blocks_0/ln_1"] == (2, 5, 8)
    assert shapes["embedding/patches"] == (2, 4, 8)
    assert list(shapes).index("embedding") < list(shapes).index("blocks_0/ln_1") < list(shapes).index("norm")
    assert "head" not in shapes


def test_tokens_are_maps_without_the_class_token():
    transformer = vit(patch=4, width=8, depth=1, heads=2, hidden=8, classes=3)
    params = random_params(transformer)
    tap = linen_tap(transformer.apply, "blocks_0/ln_1", prefix=1)

    @jax.jit
    def both(params, x):
        z = tap(params, x, None)[1]
        jacobian = jax.jacfwd(lambda eps: tap(params, x, eps)[0])(jnp.zeros_like(z))
        return class_maps(tap, params, x, method="hirescam", target="logit", relu=False).maps, z, jacobian

    got, z, jacobian = both(params, X)
    assert z.shape == (2, 2, 2, 8)
    want = np.stack([[cams.cam("hirescam", z[i], jacobian[i, k, i]) for k in range(3)] for i in range(2)])
    assert np.abs(want).max() > 1e-3
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    # Images do not mix: none has a derivative by another's tokens.
    assert not np.any(jacobian[0, :, 1])


def test_one_forward_pass_is_enough(network):
    _, params, _ = network
    text = str(jax.make_jaxpr(lambda p, x: class_maps(linen_tap(network[0].apply, "convs_0"), p, x))(params, X))
    # Two forward, one back through the second, for all three classes at once.
    assert text.count("scan_fast_conv[") == 3


class Net(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.blocks = nnx.List([nnx.Conv(4, 4, (3, 3), rngs=rngs) for _ in range(2)])
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def features(self, x):
        return self.blocks[0](nnx.relu(self.first(x)))

    def top(self, z):
        return self.head(self.blocks[1](nnx.tanh(z)).mean((1, 2)))

    def __call__(self, x):
        return self.top(self.features(x))


def test_nnx_tap_and_cut_agree():
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: Net(nnx.Rngs(0))))
    params = jax.tree.map(lambda leaf: (RNG.normal(size=leaf.shape) / 3).astype(np.float32), shapes)
    split = Split(lambda p, x: nnx.merge(graphdef, p).features(x), lambda p, z: nnx.merge(graphdef, p).top(z))
    tap = nnx_tap(graphdef, "blocks/0")
    got, want, first, z = jax.jit(
        lambda params, x: (
            class_maps(tap, params, x, relu=False),
            class_maps(split, params, x, relu=False),
            nnx_tap(graphdef, "first")(params, x, None)[1],
            nnx.merge(graphdef, params).first(x),
        )
    )(params, X)
    np.testing.assert_allclose(got.logits, want.logits, rtol=1e-5, atol=1e-6)
    assert np.abs(want.maps).max() > 1e-4
    np.testing.assert_allclose(got.maps, want.maps, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(first, z, rtol=1e-5, atol=1e-6)
    assert nnx_tap(graphdef, "blocks/0") is tap
    with pytest.raises(ContractError, match="did you mean 'first'"):
        nnx_tap(graphdef, "frist")(params, X, None)


class Perturbed(nn.Module):
    """As its author prepared it for derivatives by an inner layer."""

    def setup(self):
        self.first, self.second, self.head = nn.Conv(4, (3, 3)), nn.Conv(4, (3, 3)), nn.Dense(3)

    def features(self, x):
        return self.second(nn.relu(self.first(x)))

    def top(self, z):
        return self.head(jnp.tanh(z).mean((1, 2)))

    def __call__(self, x):
        z = self.perturb("z", self.features(x))
        self.sow("intermediates", "z", z)
        return self.top(z)


def test_all_routes_of_linen_agree():
    model = Perturbed()
    params = {"params": random_params(model)["params"]}

    def prepared(params, x, eps):
        variables = params if eps is None else {**params, "perturbations": {"z": eps}}
        logits, kept = model.apply(variables, x, mutable=["intermediates"])
        return logits, kept["intermediates"]["z"][0]

    split = Split(lambda p, x: model.apply(p, x, method="features"), lambda p, z: model.apply(p, z, method="top"))
    layers = (split, linen_tap(model.apply, "second"), prepared)
    want, *others = jax.jit(lambda params, x: [class_maps(layer, params, x, relu=False) for layer in layers])(params, X)
    assert np.abs(want.maps).max() > 1e-3
    for got in others:
        np.testing.assert_allclose(got.logits, want.logits, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got.maps, want.maps, rtol=1e-5, atol=1e-6)


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        conv = nn.Conv(3, (1, 1), name="conv")
        return nn.Dense(2, name="head")(conv(conv(x)).mean((1, 2)))


def test_layers_that_cannot_be_tapped_are_named(network):
    small, params, _ = network
    transformer = vit(patch=4, width=8, depth=1, heads=2, hidden=8, classes=3)
    for apply_fn, variables, path, message in (
        (small.apply, params, "convs_2", r"one of convs_0, convs_1, got 'convs_2'"),
        (small.apply, params, "head", r"`head`: expected an output of maps"),
        (Twice().apply, random_params(Twice()), "conv", "a layer that runs once, 'conv', got 2 runs"),
        (transformer.apply, random_params(transformer), "blocks_0", "a square of tokens after the first 0"),
    ):
        with pytest.raises(ContractError, match=message):
            jax.eval_shape(lambda p, tap=linen_tap(apply_fn, path): tap(p, X, None), variables)
