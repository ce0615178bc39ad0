import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch
from jaxdebias.mitigate._dbvae.contrastive import code, contrastive, on_sphere, supervised_contrast
from jaxdebias.models import mlp
from jaxdebias.train import FitConfig, Optimizer, fit

RNG = np.random.default_rng(0)


def slow_contrast(z, label, there, temperature):
    out = np.zeros(len(z))
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i and there[a]]
        total = np.log(sum(np.exp(z[i] @ z[a] / temperature) for a in others)) if others else 0.0
        near = [z[i] @ z[p] / temperature - total for p in others if label[p] == label[i]]
        out[i] = -np.mean(near) if near else 0.0
    return out


def test_the_loss_is_that_of_the_paper():
    z = np.asarray(on_sphere(RNG.normal(size=(9, 3)).astype(np.float32)), np.float64)
    label = np.array([0, 0, 1, 1, 1, 0, 2, 0, 1], np.int32)  # one row is alone in its class
    weight = np.array([1, 1, 1, 0, 2, 1, 1, 0, 1], np.float32)
    found = supervised_contrast(z.astype(np.float32), label, weight, temperature=0.3)
    np.testing.assert_allclose(found, slow_contrast(z, label, weight > 0, 0.3), rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda z: supervised_contrast(z, label, weight).sum())(jnp.asarray(z, jnp.float32))
    assert np.isfinite(gradient).all()


def toy(n=96):
    label = (np.arange(n) % 2).astype(np.int32)
    x = RNG.normal(size=(n, 6)).astype(np.float32)
    x[:, 0] += 3 * label
    return Batch(x=x, label=label, attribute=np.zeros(n, np.int32))


@pytest.mark.slow
def test_codes_of_a_class_draw_together_and_the_head_learns():
    classifier, data = mlp(hidden=(16,), classes=2), toy()
    learner = contrastive(classifier, Optimizer(learning_rate=1e-2), latent=4)
    assert learner is contrastive(classifier, Optimizer(learning_rate=1e-2), latent=4)
    result = fit(jax.random.key(0), learner, data, FitConfig(epochs=100, batch_size=32, epochs_per_chunk=100))
    z = np.asarray(code(classifier, result.state, data.x))
    np.testing.assert_allclose((z**2).sum(1), 1.0, rtol=1e-5)
    likeness, same = z @ z.T, data.label[:, None] == data.label[None]
    assert likeness[same].mean() > likeness[~same].mean() + 0.2  # two logits, at this temperature
    right = np.asarray(learner.predict(result.state, data.x)).argmax(1) == data.label
    assert right.mean() > 0.85


@pytest.mark.slow
def test_the_head_sends_nothing_into_the_features():
    classifier, data = mlp(hidden=(16,), classes=2), toy(8)
    learner = contrastive(classifier, Optimizer(learning_rate=1e-2, name="sgd", momentum=0.0))
    one = learner.init(jax.random.key(0), data)
    params = one.variables["params"]
    other_head = {**params["head"], "kernel": 5 * params["head"]["kernel"]}
    other = one._replace(variables={"params": {**params, "head": other_head}})
    after, after_other = (learner.step(jax.random.key(1), state, data)[0].variables["params"] for state in (one, other))
    for name in params:
        moved = [
            jax.tree.leaves(new[name])[0] - jax.tree.leaves(old.variables["params"][name])[0]
            for new, old in ((after, one), (after_other, other))
        ]
        assert float(jnp.abs(moved[0]).max()) > 0
        assert (float(jnp.abs(moved[0] - moved[1]).max()) > 0) == (name == "head")


def test_refusals():
    with pytest.raises(ContractError, match="`latent`: expected at least 2"):
        contrastive(mlp(classes=2), latent=1)
    with pytest.raises(ContractError, match="`temperature`: expected a positive number"):
        contrastive(mlp(classes=2), temperature=0.0)
