import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.models import build, resnet20

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def network():
    """A narrow one, and random variables."""
    classifier = resnet20(classes=3, width=4)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return (rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)

    shapes = jax.eval_shape(classifier.init, jax.random.key(0), PIXELS)
    return classifier, jax.tree_util.tree_map_with_path(draw, shapes)


def test_size_of_the_paper():
    shapes = jax.eval_shape(resnet20().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 269_722
    maps = jax.eval_shape(resnet20().spatial.features, shapes, jnp.zeros((2, 32, 32, 3)))
    assert maps.shape == (2, 8, 8, 64)


@pytest.mark.slow
def test_logits_equal_torch(network, torch):
    classifier, variables = network
    params, stats = (variables[kind] for kind in ("params", "batch_stats"))
    functional = torch.nn.functional

    def tensor(leaf, *order):
        return torch.tensor(np.asarray(leaf).transpose(*order) if order else np.asarray(leaf))

    def normed(x, name, stride=1):
        x = functional.conv2d(x, tensor(params[name]["conv"]["kernel"], 3, 2, 0, 1), stride=stride, padding=1)
        own, seen = params[name]["norm"], stats[name]["norm"]
        return functional.batch_norm(x, *map(tensor, (seen["mean"], seen["var"], own["scale"], own["bias"])), eps=1e-5)

    mean, std = (
        torch.tensor(values)[None, :, None, None] for values in ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    )
    x = functional.relu(normed((tensor(PIXELS.astype(np.float32) / 255, 0, 3, 1, 2) - mean) / std, "stem"))
    for stage in (1, 2, 3):
        for block in (0, 1, 2):
            shrinks = stage > 1 and block == 0
            y = functional.relu(normed(x, f"stage{stage}_{block}_1", 2 if shrinks else 1))
            y = normed(y, f"stage{stage}_{block}_2")
            if shrinks:
                more = x.shape[1] // 2
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more, more))
            x = functional.relu(x + y)
    expected = x.mean((2, 3)) @ tensor(params["head"]["kernel"]) + tensor(params["head"]["bias"])
    np.testing.assert_allclose(jax.jit(classifier.apply)(variables, PIXELS), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_cuts_and_statistics(network):
    classifier, variables = network
    logits, maps, after = jax.jit(
        lambda v, x: (
            classifier.apply(v, x),
            classifier.spatial.features(v, x),
            classifier.train(jax.random.key(0), v, x)[1],
        )
    )(variables, PIXELS)
    assert maps.shape == (2, 4, 4, 16)
    head = variables["params"]["head"]
    np.testing.assert_allclose(maps.mean((1, 2)) @ head["kernel"] + head["bias"][None], logits, rtol=1e-4, atol=1e-5)
    old, new = (jax.tree.leaves(tree["batch_stats"]) for tree in (variables, after))
    assert all((before != now).any() for before, now in zip(old, new, strict=True))
    jax.tree.map(np.testing.assert_array_equal, after["params"], variables["params"])


def test_one_object_by_name_too_and_bad_arguments_are_named():
    assert build("resnet20", classes=3) is resnet20(classes=3)
    with pytest.raises(ContractError, match="`input_std`"):
        resnet20(input_mean=(0.5,))
    with pytest.raises(ContractError, match="`x`: expected images"):
        jax.eval_shape(resnet20().init, jax.random.key(0), np.zeros((1, 32, 32, 1)))
