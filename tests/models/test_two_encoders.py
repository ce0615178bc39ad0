import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.core import as_float
from jaxdebias.models import mlp_two_encoders, resnet_two_encoders

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_the_perceptrons_by_hand(key):
    networks = mlp_two_encoders(hidden=(6, 4), classes=3)
    variables = networks.init(key, PIXELS)
    params = variables["params"]
    codes = []
    for name in ("intrinsic", "biased"):
        z = PIXELS.reshape(4, -1) / 255
        for layer in ("layers_0", "layers_1"):
            kernel, bias = (np.asarray(params[name][layer][leaf]) for leaf in ("kernel", "bias"))
            z = np.maximum(z @ kernel + bias, 0)  # after the last layer too
        codes.append(z)
    for mine, theirs in zip(networks.encode(variables, PIXELS), codes, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    assert not np.allclose(*codes)
    both = np.concatenate(codes, axis=1).astype(np.float32)
    for head, name in ((networks.intrinsic, "intrinsic_head"), (networks.biased, "biased_head")):
        expected = both @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])
        np.testing.assert_allclose(head(variables, both), expected, rtol=1e-5, atol=1e-6)
        if head is networks.intrinsic:
            np.testing.assert_allclose(networks.classifier.apply(variables, PIXELS), expected, rtol=1e-5, atol=1e-6)
    (trained, same), _ = networks.train(key, variables, PIXELS)
    np.testing.assert_allclose(trained, codes[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(same, codes[1], rtol=1e-5, atol=1e-6)


def test_pixels_divided_twice(key):
    """As the published code has it: the scale is of the input alone, in training and evaluation."""
    plain, scaled = (mlp_two_encoders(hidden=(6, 4), classes=3, input_scale=scale) for scale in (1.0, 1 / 255))
    variables = plain.init(key, PIXELS)
    expected = plain.encode(variables, as_float(PIXELS) / 255)
    jax.tree.map(np.testing.assert_array_equal, variables, scaled.init(key, PIXELS))
    for codes in (scaled.encode(variables, PIXELS), scaled.train(key, variables, PIXELS)[0]):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), codes, expected)


def test_sizes_of_the_papers():
    mlp = mlp_two_encoders()
    shapes = jax.eval_shape(mlp.init, jax.random.key(0), jnp.zeros((1, 28, 28, 3)))
    encoder = 2352 * 100 + 100 + 100 * 100 + 100 + 100 * 16 + 16
    assert count(shapes) == 2 * (encoder + 32 * 10 + 10)
    resnet = resnet_two_encoders()
    shapes = jax.eval_shape(resnet.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert shapes["params"]["intrinsic_head"]["kernel"].shape == (1024, 10)
    assert count(shapes["params"]["biased"]) == 11_689_512 - 513_000  # torchvision's ResNet-18 without its `fc`
    assert "head" not in shapes["params"]["biased"]
    codes = jax.eval_shape(resnet.encode, shapes, jnp.zeros((2, 32, 32, 3)))
    assert [code.shape for code in codes] == [(2, 512), (2, 512)]


@pytest.mark.slow
@pytest.mark.unoptimised
def test_statistics_of_both_residual_networks_move_in_training_only(key):
    networks = resnet_two_encoders(stem="small", width=2, classes=3)
    shapes = jax.eval_shape(networks.init, key, PIXELS)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.0, leaf.shape).astype(np.float32), shapes)
    codes, after = jax.eval_shape(networks.train, key, variables, PIXELS)
    assert jax.tree.structure(after) == jax.tree.structure(variables)
    _, after = jax.jit(networks.train)(key, variables, PIXELS)
    for name in ("intrinsic", "biased"):
        before, now = (jax.tree.leaves(tree["batch_stats"][name]) for tree in (variables, after))
        assert all((old != new).any() for old, new in zip(before, now, strict=True))
    jax.tree.map(np.testing.assert_array_equal, after["params"], variables["params"])
    assert codes[0].shape == (4, 16)


def test_bytes_and_floats_mean_the_same_and_equal_arguments_give_the_same_object(key):
    networks = mlp_two_encoders(hidden=(6, 4), classes=3)
    variables = networks.init(key, PIXELS)
    for a, b in zip(networks.encode(variables, PIXELS), networks.encode(variables, as_float(PIXELS)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert networks is mlp_two_encoders(hidden=[6, 4], classes=3)
    assert resnet_two_encoders() is resnet_two_encoders(depth=18)
    with pytest.raises(ContractError, match="`hidden`"):
        mlp_two_encoders(hidden=())
    with pytest.raises(ContractError, match="`input_scale`"):
        mlp_two_encoders(input_scale=0.0)
    with pytest.raises(ContractError, match="`stem`"):
        resnet_two_encoders(stem="tiny")
