"""Cutting models of every library before a block: the two parts are the model, and only the block moves the second."""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from precision import enable_x64

from jaxdebias import models
from jaxdebias.contracts import ContractError
from jaxdebias.explain.influence import Mix, last_layers, layers_in_order, paths
from jaxdebias.explain.influence._cut import cut

X = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3)).astype(np.uint8)


def ours(name, **options):
    classifier = models.build(name, classes=3, **options)
    return classifier.apply, classifier.init(jax.random.key(0), X), X


def equinox():
    model = eqx.nn.MLP(6, 3, 8, 2, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_array)

    def apply_fn(params, x):
        return jax.vmap(eqx.combine(params, static))(x)

    return apply_fn, params, X.reshape(5, -1)[:, :6].astype(np.float32)


def haiku():
    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([8, 8, 3])(x)))
    x = X.reshape(5, -1)[:, :6].astype(np.float32)
    return net.apply, net.init(jax.random.key(0), x), x


def flax_nnx():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first, self.second = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 8, rngs=rngs)
            self.last = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.relu(self.second(nnx.relu(self.first(x)))))

    graph, params = nnx.split(Net(nnx.Rngs(0)))
    return lambda p, x: nnx.merge(graph, p)(x), params, X.reshape(5, -1)[:, :6].astype(np.float32)


CASES = {
    "mlp": lambda: ours("mlp", hidden=(8, 8)),
    "cnn": lambda: ours("cnn"),
    "equinox": equinox,
    "haiku": haiku,
    "nnx": flax_nnx,
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count", [1, 2])
def test_the_parts_are_the_model(name, count):
    apply_fn, params, x = CASES[name]()
    where = last_layers(apply_fn, params, x, count)
    made = cut(apply_fn, params, x, where)
    assert made is cut(apply_fn, params, x, where)
    apply_fn, features, logits = jax.jit(apply_fn), jax.jit(made.features), jax.jit(made.head)
    z = features(params, x)
    np.testing.assert_allclose(logits(params, z), apply_fn(params, x), rtol=1e-6, atol=1e-6)
    # Another number of rows.
    assert logits(params, features(params, x[:2])).shape == (2, 3)

    # What moves the block does not move the features, and moves the logits as it does in the whole model.
    theta = {name: value + 0.5 for name, value in made.take(params).items()}
    moved = made.put(params, theta)
    for before, after in zip(z, features(moved, x), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_allclose(logits(moved, z), apply_fn(moved, x), rtol=1e-5, atol=1e-5)
    assert np.abs(apply_fn(moved, x) - apply_fn(params, x)).max() > 1e-3
    untouched = [leaf for path, leaf in paths(moved).items() if path not in where]
    assert all(any(leaf is old for old in jax.tree.leaves(params)) for leaf in untouched)


def test_a_layer_is_found_whole_in_an_nnx_state():
    apply_fn, params, x = flax_nnx()
    assert layers_in_order(apply_fn, params, x) == ["first", "second", "last"]
    assert last_layers(apply_fn, params, x, 1) == ["last/bias/value", "last/kernel/value"]


def test_a_layer_is_found_whole_in_a_bare_dict():
    shapes = {"w": (6, 4), "b": (4,), "v": (4, 5), "u": (5, 3), "a": (3,)}
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}

    def apply_fn(p, x):
        return jnp.tanh(jnp.tanh(x @ p["w"] + p["b"][None]) @ p["v"]) @ p["u"] + p["a"][None]

    assert layers_in_order(apply_fn, params, jnp.ones((2, 6))) == ["w", "v", "u"]
    assert last_layers(apply_fn, params, jnp.ones((2, 6)), 1) == ["a", "u"]
    assert last_layers(apply_fn, params, jnp.ones((2, 6)), 3) == ["a", "b", "u", "v", "w"]


def test_running_statistics_are_no_layer():
    params = {
        "params": {"first": {"kernel": jnp.ones((6, 4))}, "head": {"kernel": jnp.ones((4, 3))}},
        "batch_stats": {"norm": {"mean": jnp.ones(4)}},
    }

    def apply_fn(p, x):
        z = x @ p["params"]["first"]["kernel"] - p["batch_stats"]["norm"]["mean"][None]
        return z @ p["params"]["head"]["kernel"]

    assert layers_in_order(apply_fn, params, jnp.ones((2, 6))) == ["params/first", "params/head"]


@pytest.mark.slow
def test_a_residual_network_with_batch_statistics():
    apply_fn, params, x = ours("resnet18")
    order = layers_in_order(apply_fn, params, x)
    assert order[0] == "params/stem/conv1"
    assert order[-1] == "params/head"
    made = cut(apply_fn, params, x, last_layers(apply_fn, params, x, 3))
    assert [name for name, _ in made.chosen] == [
        "params/head/bias",
        "params/head/kernel",
        "params/layer4_1/bn2/bias",
        "params/layer4_1/bn2/scale",
        "params/layer4_1/conv2/kernel",
    ]
    z = made.features(params, x)
    assert len(z) == 2  # the block's input, and what is added past it
    np.testing.assert_allclose(made.head(params, z), apply_fn(params, x), rtol=1e-4, atol=1e-5)


def test_a_model_under_jit_is_opened():
    apply_fn, params, x = ours("mlp", hidden=(8, 8))
    made = cut(jax.jit(apply_fn), params, x, lambda path: path.endswith("head/bias"))
    (z,) = made.features(params, x)
    assert z.shape == (5, 3)  # the logits without their bias


def test_a_row_of_a_kernel():
    params = {"kernel": jnp.arange(12.0).reshape(4, 3), "head": jnp.ones((3, 2))}

    def apply_fn(params, x):
        return jnp.tanh(x @ params["kernel"]) @ params["head"]

    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    made = cut(apply_fn, params, x, {"kernel": (0, (2,))})
    theta = made.take(params)
    assert theta["kernel"].tolist() == [[6.0, 7.0, 8.0]]
    moved = made.put(params, {"kernel": theta["kernel"] + 1.0})
    assert (moved["kernel"] - params["kernel"]).tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert moved["head"] is params["head"]
    np.testing.assert_allclose(made.head(moved, made.features(params, x)), apply_fn(moved, x), rtol=1e-6)
    column = cut(apply_fn, params, x, {"kernel": (1, (0, 2))})
    assert column.take(params)["kernel"].shape == (4, 2)
    back = column.put(params, column.take(params))
    np.testing.assert_array_equal(back["kernel"], params["kernel"])


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_mixed_channels(name):
    """theta mixes the channels of the first layer's kernel, and the images are needed only once."""
    apply_fn, params, x = ours(name)
    first = layers_in_order(apply_fn, params, x)[0] + "/kernel"
    made = cut(apply_fn, params, x, {first: Mix(3), "params/head/bias": None})
    theta = made.take(params)
    kernel = np.asarray(paths(params)[first])
    units = kernel.shape[-1]
    assert theta[first].shape == (3, 3, units)
    np.testing.assert_allclose(paths(made.put(params, theta))[first], kernel, rtol=1e-6)
    (z,) = made.features(params, x)
    assert z.shape == (5, *([] if name == "mlp" else [6, 6]), 9, units)
    np.testing.assert_allclose(made.head(params, z=(z,)), apply_fn(params, x), rtol=1e-5, atol=1e-5)

    theta = {**theta, first: theta[first] + np.random.default_rng(1).normal(size=(3, 3, units)).astype(np.float32)}
    moved = made.put(params, theta)
    split = kernel.reshape(-1, 3, units)
    mixing = np.asarray(theta[first])
    slow = np.stack([sum(mixing[d, c] * split[:, c] for c in range(3)) for d in range(3)], axis=1)
    np.testing.assert_allclose(paths(moved)[first], slow.reshape(kernel.shape), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(made.head(params, (z,), theta), apply_fn(moved, x), rtol=1e-4, atol=1e-4)


def test_mixed_channels_of_a_kernel_that_is_turned_first():
    """No shortcut there: the layer is computed anew, and is the same."""
    kernel = np.random.default_rng(0).normal(size=(4, 12)).astype(np.float32)
    params, x = {"w": kernel.T}, np.random.default_rng(1).normal(size=(5, 12)).astype(np.float32)

    def apply_fn(params, x):
        return x @ (2.0 * params["w"])

    made = cut(apply_fn, params, x, {"w": Mix(3)})
    theta = {"w": made.take(params)["w"] + 0.3}
    z = made.features(params, x)
    np.testing.assert_allclose(made.head(params, z, theta), apply_fn(made.put(params, theta), x), rtol=1e-5)


def test_two_precisions_do_not_share_a_program():
    params = {"w": np.ones((4, 2))}

    def apply_fn(params, x):
        return (x * 0.1) @ params["w"]

    with enable_x64(True):
        x = np.ones((3, 4))
        made = cut(apply_fn, params, x, ["w"])
        assert made.features(params, x)[0].dtype == np.float64
    x = np.ones((3, 4), np.float32)
    made = cut(apply_fn, {"w": np.ones((4, 2), np.float32)}, x, ["w"])
    assert made.features(params, x)[0].dtype == np.float32


def test_errors_name_what_is_wrong():
    apply_fn, params, x = ours("mlp", hidden=(8,))
    with pytest.raises(ContractError, match=r"where.*params/head/bias.*got none"):
        cut(apply_fn, params, x, lambda path: False)
    with pytest.raises(ContractError, match=r"where.*a parameter.*params/heat"):
        cut(apply_fn, params, x, ["params/heat"])
    with pytest.raises(ContractError, match=r"inside \[8, 3\]"):
        cut(apply_fn, params, x, {"params/head/kernel": (0, (8,))})
    with pytest.raises(ContractError, match=r"multiple of 5 channels.*\[8, 3\]"):
        cut(apply_fn, params, x, {"params/head/kernel": Mix(5)})
    with pytest.raises(ContractError, match=r"on which the logits depend.*unused"):
        cut(
            lambda p, x: x @ p["w"],
            {"w": jnp.ones((4, 2)), "unused": jnp.ones(3)},
            np.ones((2, 4), np.float32),
            ["unused"],
        )
    with pytest.raises(ContractError, match="every example on the first axis"):
        cut(
            lambda p, x: (x.sum(axis=0) * p["w"])[None, :] * jnp.ones((x.shape[0], 1)),
            {"w": jnp.ones(4)},
            np.ones((2, 4), np.float32),
            ["w"],
        )
    with pytest.raises(ContractError, match=r"1..2 layers"):
        last_layers(apply_fn, params, x, 3)
