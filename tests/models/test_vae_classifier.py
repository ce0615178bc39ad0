import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias import models
from jaxdebias.contracts import ContractError
from jaxdebias.explain.influence import find_head
from jaxdebias.models import vae_classifier

MLP = models.mlp(hidden=(6,), classes=3)
SMALL = vae_classifier(image=(6, 5, 2), classes=3, latent=4, encoder=MLP, decoder=(4, 3))
INIT = jax.jit(SMALL.init)
X = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 2)).astype(np.uint8)


def test_shapes_and_what_predicts(key):
    variables = INIT(key, X)
    encoding = SMALL.encode(variables, X)
    assert (encoding.logits.shape, encoding.mean.shape, encoding.log_variance.shape) == ((7, 3), (7, 4), (7, 4))
    np.testing.assert_array_equal(SMALL.classifier.apply(variables, X), encoding.logits)
    np.testing.assert_array_equal(MLP.apply(variables["params"]["encoder"], X), encoding.logits)
    np.testing.assert_allclose(SMALL.encode(variables, X / np.float32(255)).mean, encoding.mean, atol=1e-6)
    # Any size: what the doublings make too large is cut off.
    decoded = SMALL.decode(variables, encoding.mean)
    assert decoded.shape == X.shape
    assert float(decoded.min()) >= 0
    assert float(decoded.max()) <= 1
    assert len(np.unique(np.asarray(decoded).round(6))) > 100


def test_the_code_is_affine_in_the_features_and_the_head_is_found(key):
    variables = INIT(key, X)
    z = SMALL.classifier.vector.features(variables, X)
    code = variables["params"]["code"]
    for name, found in zip(("mean", "log_variance"), SMALL.encode(variables, X)[1:], strict=True):
        np.testing.assert_allclose(found, z @ code[name]["kernel"] + code[name]["bias"][None], rtol=1e-5, atol=1e-6)
    head, _ = find_head(SMALL.classifier.vector.head, variables, SMALL.classifier.head_path, z.shape[1])
    assert head.kernel.shape == (6, 3)


def test_the_default_encoder_has_four_convolutions(key):
    model = vae_classifier(image=(16, 16, 1), latent=2)
    shapes = jax.eval_shape(model.init, key, jnp.zeros((1, 16, 16, 1)))["params"]
    encoder = shapes["encoder"]["params"]
    assert [encoder[f"convs_{i}"]["kernel"].shape for i in range(4)] == [
        (3, 3, 1, 16),
        (3, 3, 16, 32),
        (3, 3, 32, 48),
        (3, 3, 48, 64),
    ]
    assert encoder["hidden"]["kernel"].shape == (64, 128)
    decoder = [shapes["decoder"][f"Conv_{i}"]["kernel"].shape for i in range(4)]
    assert decoder == [(3, 3, 64, 192), (3, 3, 48, 128), (3, 3, 32, 64), (3, 3, 16, 4)]


def test_training_moves_the_encoder_only(key):
    variables = INIT(key, X)
    logits, same = SMALL.classifier.train(key, variables, X)
    np.testing.assert_array_equal(logits, SMALL.classifier.apply(variables, X))
    assert jax.tree.structure(same) == jax.tree.structure(variables)


@pytest.mark.parametrize(
    ("bad", "x", "message"),
    [
        ({"encoder": models.resnet20(classes=3)}, X[..., :1].repeat(3, -1), "batch_stats"),
        ({"encoder": models.mlp(hidden=(6,), classes=4)}, X, "3 logits"),
        ({"encoder": MLP}, X[:, :5], "images of shape"),
    ],
)
def test_networks_that_do_not_fit_are_refused(bad, x, message, key):
    model = vae_classifier(image=(6, 5, x.shape[3]), classes=3, **bad)
    with pytest.raises(ContractError, match=message):
        jax.eval_shape(model.init, key, x)
