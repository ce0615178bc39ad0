"""What every builder promises: shapes, both splits, uint8 pixels, explicit statistics, one object per arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.core import as_float
from jaxdebias.models import build, cnn, mlp, pooled_cnn, resnet

SMALL = {"classes": 3, "width": 4, "stem": "small"}
NETWORKS = {
    "mlp": (mlp, {"hidden": (8, 6), "classes": 3}),
    "cnn": (cnn, {"channels": (4, 6), "dense": 5, "classes": 3}),
    "pooled cnn": (pooled_cnn, {"channels": (4, 6), "kernels": (5, 3), "strides": (4, 1), "classes": 3}),
    "resnet18": (resnet, {"depth": 18, **SMALL}),
    "resnet18, group, bf16": (resnet, {"depth": 18, "norm": "group", "bf16": True, **SMALL}),
}
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)


def random_params(classifier, x, seed=0):
    """Parameters of the right shapes, drawn by NumPy: spares the tests dozens of compilations."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if path[-1].key == "kernel" else 100
        return (rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    shapes = jax.eval_shape(classifier.init, jax.random.key(0), x)
    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(params=NETWORKS)
def network(request):
    builder, options = NETWORKS[request.param]
    classifier = builder(**options)
    return classifier, random_params(classifier, PIXELS)


def test_both_cuts_give_the_logits_exactly(network):
    classifier, params = network
    logits = classifier.apply(params, PIXELS)
    assert logits.shape == (4, 3)
    assert logits.dtype == jnp.float32
    assert np.ptp(np.asarray(logits), axis=0).min() > 1e-4  # depends on the pixels

    vector = classifier.vector.features(params, PIXELS)
    assert vector.ndim == 2
    np.testing.assert_array_equal(classifier.vector.head(params, vector), logits)
    head = params
    for name in classifier.head_path:
        head = head[name]
    np.testing.assert_allclose(vector @ head["kernel"] + head["bias"][None], logits, rtol=1e-5, atol=1e-5)

    if classifier.spatial is not None:
        maps = classifier.spatial.features(params, PIXELS)
        assert maps.ndim == 4
        np.testing.assert_array_equal(classifier.spatial.head(params, maps), logits)


def test_uint8_and_float_pixels_mean_the_same(network):
    classifier, params = network
    np.testing.assert_array_equal(classifier.apply(params, PIXELS), classifier.apply(params, as_float(PIXELS)))


def test_training_mode_returns_new_statistics_and_old_parameters(network):
    classifier, params = network
    logits, after = classifier.train(jax.random.key(1), params, PIXELS)
    assert logits.shape == (4, 3)
    assert jax.tree.structure(after) == jax.tree.structure(params)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, params)
    jax.tree.map(np.testing.assert_array_equal, after["params"], params["params"])
    old, new = (jax.tree.leaves(tree.get("batch_stats", {})) for tree in (params, after))
    for before, now in zip(old, new, strict=True):
        assert not np.array_equal(before, now)


def test_batch_statistics_follow_the_running_mean():
    classifier = resnet(depth=18, **SMALL)
    params = random_params(classifier, PIXELS)
    _, after = classifier.train(jax.random.key(1), params, PIXELS)
    kernel = params["params"]["stem"]["conv1"]["kernel"]
    x = (PIXELS / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    maps = jax.lax.conv_general_dilated(
        x.astype(np.float32), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    old, new = (p["batch_stats"]["stem"]["bn1"] for p in (params, after))
    np.testing.assert_allclose(new["mean"], 0.9 * old["mean"] + 0.1 * np.mean(maps, (0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(new["var"], 0.9 * old["var"] + 0.1 * np.var(maps, (0, 1, 2)), rtol=1e-4, atol=1e-5)


def test_group_norm_rows_do_not_influence_each_other():
    classifier = resnet(depth=18, norm="group", **SMALL)
    params = random_params(classifier, PIXELS)
    alone, _ = classifier.train(jax.random.key(1), params, PIXELS[:1])
    among, _ = classifier.train(jax.random.key(1), params, PIXELS)
    np.testing.assert_allclose(alone, among[:1], rtol=1e-5, atol=1e-5)
    assert set(params) == {"params"}


def test_equal_arguments_give_the_same_object():
    assert mlp() is mlp(hidden=[100, 100, 100], classes=10)
    assert cnn(classes=2) is cnn(classes=2, channels=(32, 64, 64))
    assert resnet() is resnet(depth=18, norm="batch")
    assert resnet(depth=50) is build("resnet50")
    assert resnet(classes=2) is not resnet(classes=3)


def test_same_key_same_bits_and_initial_scale():
    classifier = mlp(hidden=(50,), classes=2)
    x = np.zeros((3, 400), np.float32)
    params, again, other = (classifier.init(jax.random.key(seed), x)["params"] for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, params, again)
    assert not np.array_equal(params["head"]["kernel"], other["head"]["kernel"])
    kernel = np.asarray(params["layers_0"]["kernel"])  # uniform in +-1/sqrt(400)
    assert kernel.shape == (400, 50)
    assert 0.0499 < np.abs(kernel).max() <= 0.05
    assert np.abs(kernel.std() - 0.05 / np.sqrt(3)) < 5e-4


def test_tables_go_through_the_mlp():
    classifier = mlp(hidden=(4,), classes=2)
    x = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    params = random_params(classifier, x)
    hidden = np.maximum(x @ params["params"]["layers_0"]["kernel"] + params["params"]["layers_0"]["bias"][None], 0)
    np.testing.assert_allclose(classifier.vector.features(params, x), hidden, rtol=1e-5, atol=1e-6)


def test_map_sizes():
    x = np.zeros((1, 64, 64, 3), np.uint8)
    for classifier, size in ((resnet(), 2), (resnet(stem="small"), 8), (cnn(), 8)):
        params = jax.eval_shape(classifier.init, jax.random.key(0), x)
        maps = jax.eval_shape(classifier.spatial.features, params, x)
        assert maps.shape[1:3] == (size, size)


def test_cnn_learns_where_something_is():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 64).astype(np.int32)
    x = np.zeros((64, 8, 8, 1), np.float32)
    x[np.arange(64), rng.integers(0, 8, 64), 6 * label + 1, 0] = 1.0  # the same dot, left or right
    classifier = cnn(channels=(8,), dense=16, classes=2)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def fit(params):
        def step(carry, _):
            def loss(params):
                logits, _ = classifier.train(jax.random.key(0), params, x)
                return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), None, length=200)[0][0]

    params = fit(random_params(classifier, x))
    assert (np.argmax(classifier.apply(params, x), -1) == label).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mlp(hidden=()), "`hidden`: expected at least one"),
        (lambda: cnn(channels=()), "`channels`: expected at least one"),
        (lambda: resnet(depth=34), "`depth`: expected one of 18, 50"),
        (lambda: resnet(norm="layer"), "`norm`: expected one of batch, group"),
        (lambda: resnet(stem="tiny"), "`stem`: expected one of imagenet, small"),
        (lambda: resnet(input_mean=(0.5,)), "`input_std`: expected as many values"),
        (lambda: jax.eval_shape(resnet().init, jax.random.key(0), np.zeros((1, 32, 32, 1))), "`x`: expected images"),
        (lambda: build("mpl"), "did you mean 'mlp'"),
        (lambda: build("mlp", layers=3), "`option of mlp`: expected one of hidden, classes"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ContractError, match=message):
        make()


@pytest.mark.parametrize(("initial", "variance", "bias"), [("pytorch", 1 / 3, True), ("he", 2.0, False)])
def test_initial_values_of_the_mlp(key, initial, variance, bias):
    network = mlp(hidden=(200, 200), classes=3, initial=initial)
    layers = network.init(key, np.zeros((1, 300), np.float32))["params"]
    for name, fan_in in (("layers_0", 300), ("layers_1", 200)):
        np.testing.assert_allclose(np.var(layers[name]["kernel"]) * fan_in, variance, rtol=0.05)
        assert np.any(layers[name]["bias"]) == bias
    np.testing.assert_allclose(np.var(layers["head"]["kernel"]) * 200, 1 / 3, rtol=0.15)
