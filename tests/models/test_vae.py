"""The networks of Signal is Harder: sizes, both modes, and that a branch is an ordinary classifier."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.test_networks import random_params

from jaxdebias.contracts import ContractError
from jaxdebias.models import mlp_vae, resnet_vae
from jaxdebias.models._vae import _conv, _double, _MlpEncoder

MLP = mlp_vae(image=(4, 5, 3), latent=6, hidden=(8, 7), decoder=(9, 10), classes=3)
RESNET = resnet_vae(latent=16, width=4, classes=3)
NETWORKS = {"mlp": (MLP, (4, 5, 3)), "resnet": (RESNET, (32, 32, 3))}


@functools.cache
def compiled(name):
    """Everything that the functions of one network give, in one program: (variables, x) -> dict."""
    branches = NETWORKS[name][0]

    @jax.jit
    def everything(variables, x):
        codes = branches.encode(variables, x)
        latents = codes.signal.mean, codes.bias.mean
        codes_train, after_encoders = branches.encode_train(variables, x)
        pixels_train, after = branches.decode_train(after_encoders, *latents)
        trained, after_signal = branches.signal.train(jax.random.key(0), variables, x)
        vectors = {one: getattr(branches, one).vector.features(variables, x) for one in ("signal", "bias")}
        return {
            "codes": codes,
            "codes_train": codes_train,
            "pixels": branches.decode(variables, *latents),
            "pixels_swapped": branches.decode(variables, *latents[::-1]),
            "pixels_train": pixels_train,
            "after_encoders": after_encoders,
            "after": after,
            "trained": trained,
            "after_signal": after_signal,
            "vectors": vectors,
            "heads": {one: getattr(branches, one).vector.head(variables, vectors[one]) for one in vectors},
            "logits": {one: getattr(branches, one).apply(variables, x) for one in vectors},
        }

    return everything


@pytest.fixture(params=NETWORKS)
def network(request):
    branches, image = NETWORKS[request.param]
    x = np.random.default_rng(0).integers(0, 256, (4, *image), np.uint8)
    return branches, random_params(branches, x), x, compiled(request.param)


def sizes(branches, image):
    variables = jax.eval_shape(branches.init, jax.random.key(0), np.zeros((1, *image), np.uint8))
    return {
        name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for name, tree in variables["params"].items()
    }


def test_parameters_of_the_published_networks():
    mlp, resnet = sizes(mlp_vae(), (28, 28, 3)), sizes(resnet_vae(), (32, 32, 3))
    assert mlp == {"signal": 265_600, "bias": 265_600, "signal_head": 1_010, "bias_head": 1_010, "decoder": 3_039_024}
    assert sum(mlp.values()) == 3_572_244
    assert resnet == {
        "signal": 13_268_352,
        "bias": 13_268_352,
        "signal_head": 5_130,
        "bias_head": 5_130,
        "decoder": 50_154_051,
    }


def test_equal_arguments_give_one_object():
    assert mlp_vae(hidden=[100, 100]) is mlp_vae()
    assert resnet_vae(width=4) is resnet_vae(width=4)
    assert mlp_vae(latent=3) is not mlp_vae()


@pytest.mark.slow
def test_initial_values_are_those_of_pytorch(key):
    encoder = _MlpEncoder(hidden=(50,), latent=2).init(key, jnp.zeros((1, 4, 5, 3)), False)["params"]
    kernel = np.asarray(encoder["Affine_0"]["kernel"])
    assert np.abs(kernel).max() <= 1 / math.sqrt(60)
    assert kernel.std() == pytest.approx(1 / math.sqrt(3 * 60), rel=0.05)
    conv = _conv(64, 3, 128, bias=True).init(key, np.zeros((1, 3, 3, 128)))["params"]
    for leaf in conv.values():
        assert 0.9 / math.sqrt(9 * 128) < np.abs(leaf).max() <= 1 / math.sqrt(9 * 128)


@pytest.mark.slow
@pytest.mark.unoptimised
def test_shapes_and_modes(network):
    _, variables, x, everything = network
    out = everything(variables, x)
    assert out["pixels"].shape == out["pixels_train"].shape == x.shape
    assert out["trained"].shape == (4, 3)
    assert len({leaf.shape for leaf in jax.tree.leaves([out["codes"], out["codes_train"]])}) == 1
    same = np.allclose(out["codes"].signal.mean, out["codes_train"].signal.mean, atol=1e-4)
    assert same == ("batch_stats" not in variables)
    # evaluation looks at each row alone
    alone = everything(variables, np.stack([x[0], x[2], x[3], x[1]]))
    np.testing.assert_allclose(alone["pixels"][0], out["pixels"][0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.unoptimised
def test_the_two_encoders_share_nothing_and_the_decoder_uses_both(network):
    _, variables, x, everything = network
    params = variables["params"]
    other = {**variables, "params": {**params, "bias": jax.tree.map(lambda leaf: 1.1 * leaf, params["bias"])}}
    one, two = everything(variables, x), everything(other, x)
    np.testing.assert_array_equal(one["codes"].signal.mean, two["codes"].signal.mean)
    assert np.abs(one["codes"].bias.mean - two["codes"].bias.mean).max() > 1e-4
    assert np.abs(one["pixels"] - two["pixels"]).max() > 1e-6
    assert np.abs(one["pixels"] - one["pixels_swapped"]).max() > 1e-6


@pytest.mark.slow
@pytest.mark.unoptimised
def test_each_branch_is_a_classifier(network):
    branches, variables, x, everything = network
    out = everything(variables, x)
    for name, classifier in (("signal", branches.signal), ("bias", branches.bias)):
        code, vector, logits = getattr(out["codes"], name), out["vectors"][name], out["logits"][name]
        assert logits.shape == (4, 3)
        np.testing.assert_allclose(vector, np.maximum(code.mean, 0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(out["heads"][name], logits, rtol=1e-5, atol=1e-6)
        head = variables
        for step in classifier.head_path:
            head = head[step]
        np.testing.assert_allclose(vector @ head["kernel"] + head["bias"][None], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.unoptimised
def test_batch_statistics_are_explicit(network):
    _, variables, x, everything = network
    out = everything(variables, x)

    def changed(new):
        pairs = {
            name: (jax.tree.leaves(tree), jax.tree.leaves(new["batch_stats"][name]))
            for name, tree in variables.get("batch_stats", {}).items()
        }
        return {name for name, (a, b) in pairs.items() if any((x != y).any() for x, y in zip(a, b, strict=True))}

    normed = "batch_stats" in variables
    assert changed(out["after_encoders"]) == ({"signal", "bias"} if normed else set())
    assert changed(out["after"]) == ({"signal", "bias", "decoder"} if normed else set())
    assert changed(out["after_signal"]) == ({"signal"} if normed else set())
    for name in ("after", "after_encoders", "after_signal"):
        assert jax.tree.structure(out[name]) == jax.tree.structure(variables)
        jax.tree.map(np.testing.assert_array_equal, variables["params"], out[name]["params"])


@pytest.mark.slow
@pytest.mark.unoptimised
def test_log_variance_of_the_resnet_is_cut():
    x = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    variables = random_params(RESNET, x)
    signal = variables["params"]["signal"]
    # the second of the two heads, which come after the first convolution, is the log-variance
    high = {**signal, "Conv_2": {**signal["Conv_2"], "bias": signal["Conv_2"]["bias"] + 100}}
    cut = {**variables, "params": {**variables["params"], "signal": high}}
    before, after = (compiled("resnet")(values, x)["codes"].signal for values in (variables, cut))
    np.testing.assert_array_equal(after.log_variance, 5.0)
    np.testing.assert_array_equal(after.mean, before.mean)


def test_double_repeats_every_pixel():
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 4)).astype(np.float32)
    np.testing.assert_array_equal(_double(jnp.asarray(x)), x.repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize(("builder", "wrong", "message"), [
    (mlp_vae, {"image": (28, 0, 3)}, "image"),
    (mlp_vae, {"hidden": ()}, "hidden"),
    (resnet_vae, {"latent": 12}, "latent"),
    (resnet_vae, {"input_std": (1.0,)}, "input_std"),
])  # fmt: skip
def test_refuses(builder, wrong, message):
    with pytest.raises(ContractError, match=message):
        builder(**wrong)
