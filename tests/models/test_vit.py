"""The vision transformer, against its equations in NumPy."""

import jax
import numpy as np
import pytest
from scipy.special import erf

from jaxdebias.contracts import ContractError
from jaxdebias.models import attention_weights, build, cnn, vit

RNG = np.random.default_rng(0)
SMALL = {"patch": 4, "width": 8, "depth": 2, "heads": 2, "hidden": 12, "classes": 3}
X = RNG.integers(0, 256, (2, 8, 12, 3), np.uint8)


def random_params(network):
    shapes = jax.eval_shape(network.init, jax.random.key(0), X)
    return jax.tree.map(lambda leaf: (RNG.normal(size=leaf.shape) / 2).astype(np.float32), shapes)


def affine(x, layer):
    return x @ np.asarray(layer["kernel"], np.float64) + layer["bias"]


def normalised(x, layer):
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)
    return x * layer["scale"] + layer["bias"]


def oracle(params, image):
    """Of one image: the tokens after the last normalisation, and the attention `[layers heads t t]`."""
    p = params["params"]
    patches = [image[i : i + 4, j : j + 4].reshape(-1) for i in range(0, 8, 4) for j in range(0, 12, 4)]
    tokens = affine(2.0 * np.stack(patches) / 255 - 1, p["embedding"]["patches"])
    tokens = np.concatenate([p["embedding"]["class_token"][0], tokens]) + p["embedding"]["positions"][0]
    layers = []
    for i in range(2):
        block = p[f"blocks_{i}"]
        q, k, v = np.split(affine(normalised(tokens, block["ln_1"]), block["attention"]["qkv"]), 3, axis=1)
        heads, mixed = [], []
        for part in (slice(0, 4), slice(4, 8)):
            e = np.exp(q[:, part] @ k[:, part].T / 2)
            heads.append(e / e.sum(axis=1, keepdims=True))
            mixed.append(heads[-1] @ v[:, part])
        layers.append(heads)
        tokens = tokens + affine(np.concatenate(mixed, axis=1), block["attention"]["out"])
        hidden = affine(normalised(tokens, block["ln_2"]), block["mlp_1"])
        tokens = tokens + affine(hidden * (1 + erf(hidden / np.sqrt(2))) / 2, block["mlp_2"])
    return normalised(tokens, p["norm"]), np.array(layers)


@pytest.mark.parametrize("read", ["token", "mean"])
def test_logits_features_and_attention(read):
    network = vit(**SMALL, read=read)
    params = random_params(network)
    tokens, attention = (np.stack(part) for part in zip(*(oracle(params, image) for image in X), strict=True))
    vector = tokens[:, 0] if read == "token" else tokens[:, 1:].mean(axis=1)
    want = affine(vector, params["params"]["head"])
    assert np.ptp(want, axis=0).min() > 1e-2

    @jax.jit
    def run(params, x):
        features = network.vector.features(params, x)
        z = None if network.spatial is None else network.spatial.features(params, x)
        return {
            "logits": network.apply(params, x),
            "features": features,
            "z": z,
            "head": network.vector.head(params, features),
            "attention": attention_weights(network, params, x),
            "spatial head": None if z is None else network.spatial.head(params, z),
        }

    got = run(params, X)
    np.testing.assert_allclose(got["logits"], want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got["features"], vector, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got["head"], want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.moveaxis(got["attention"], 1, 0), attention, atol=1e-5)
    if read == "mean":
        np.testing.assert_allclose(got["z"], tokens[:, 1:].reshape(2, 2, 3, 8), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(got["spatial head"], want, rtol=1e-4, atol=1e-4)
    else:
        assert network.spatial is None


def test_it_is_built_once_and_for_one_size_of_images():
    network = build("vit", **SMALL)
    assert network is vit(**SMALL)
    shapes = jax.eval_shape(network.init, jax.random.key(0), X)["params"]
    assert shapes["embedding"]["positions"].shape == (1, 7, 8)


@pytest.mark.slow
def test_initial_values():
    params = jax.jit(vit(width=200, depth=1, heads=1).init)(jax.random.key(0), np.zeros((1, 64, 64, 3), np.uint8))
    params = params["params"]
    assert not np.any(params["embedding"]["class_token"])
    assert np.std(params["embedding"]["positions"]) == pytest.approx(0.02, rel=0.05)
    for kernel in (params["embedding"]["patches"]["kernel"], params["blocks_0"]["attention"]["qkv"]["kernel"]):
        assert np.var(kernel) == pytest.approx(2 / sum(kernel.shape), rel=0.05)  # Glorot's
    np.testing.assert_array_equal(params["blocks_0"]["ln_1"]["scale"], 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vit(read="cls"), "`read`: expected one of token, mean"),
        (lambda: vit(width=10, heads=4), "`width`: expected a multiple of heads=4"),
        (lambda: vit(depth=0), "`vit`: expected patch, width, depth"),
        (lambda: jax.eval_shape(vit(patch=5).init, jax.random.key(0), X), "`x`: expected images .* whole patches of 5"),
        (
            lambda: jax.eval_shape(lambda x: attention_weights(cnn(), cnn().init(jax.random.key(0), x), x), X),
            "`network`: expected a classifier that",
        ),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ContractError, match=message):
        make()
