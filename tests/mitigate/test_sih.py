"""Signal is Harder: its numbers by hand, its gradients' stops, and its steps beside an independent PyTorch."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mitigate.sih_setting import SMALL, rows, started

from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, as_float
from jaxdebias.mitigate import SihConfig, signal_weight, sih, sih_monitor, sih_run_config
from jaxdebias.mitigate._sih import (
    Terms,
    kl_to_standard_normal,
    loss_terms,
    sample,
    train_terms,
    weights,
)
from jaxdebias.models import resnet_vae
from jaxdebias.models._resnet_cifar import CIFAR_MEAN, CIFAR_STD
from jaxdebias.models._vae import Code, Codes
from jaxdebias.train import Optimizer, cross_entropy

# The table of the specification, computed in float64: logits (2, 0, -1), q = 0.7.
LOGITS = np.array([[2.0, 0.0, -1.0]] * 3, np.float32)
LABEL = np.arange(3, dtype=np.int32)


def test_weights_by_hand():
    signal, bias = weights(LOGITS, LABEL)
    np.testing.assert_allclose(signal, [0.27263836, 0.91862153, 0.97040419], atol=1e-6)
    np.testing.assert_allclose(bias, [0.88790350, 0.21895431, 0.10872949], atol=1e-6)
    np.testing.assert_allclose(bias * cross_entropy(LOGITS, LABEL), [0.15080688, 0.47509713, 0.34465575], atol=1e-6)
    signal, bias = weights(np.zeros((1, 10), np.float32), LABEL[:1])
    np.testing.assert_allclose([signal[0], bias[0]], [0.92890170, 0.19952623], atol=1e-6)


@pytest.mark.parametrize(("logit", "rtol"), [(10.0, 1e-5), (60.0, 1e-4)])
def test_weight_of_a_sure_bias_branch_keeps_its_digits(logit, rtol):
    signal, _ = weights(np.array([[logit, 0.0, 0.0]], np.float32), LABEL[:1])
    failure = 2 * math.exp(-logit) / (1 + 2 * math.exp(-logit))
    np.testing.assert_allclose(signal[0], failure**0.7, rtol=rtol)
    if logit == 10.0:
        assert float(signal[0]) == pytest.approx(0.00148126, rel=1e-4)


def test_exponents_are_those_asked_for_and_zero_is_cross_entropy():
    p = np.array([0.84379473, 0.11419520, 0.04201007])
    signal, bias = weights(LOGITS, LABEL, q=0.3, gamma=2.0)
    np.testing.assert_allclose(signal, (1 - p) ** 2, atol=1e-6)
    np.testing.assert_allclose(bias, p**0.3, atol=1e-6)
    np.testing.assert_array_equal(weights(LOGITS, LABEL, q=0.0, gamma=0.0)[1], 1.0)


def test_gradient_of_the_bias_term_is_that_of_generalised_cross_entropy():
    def detached(logits):
        return (weights(logits, LABEL)[1] * cross_entropy(logits, LABEL)).sum()

    def exact(logits):
        return ((1 - jnp.exp(-0.7 * cross_entropy(logits, LABEL))) / 0.7).sum()

    ours = jax.grad(detached)(LOGITS)
    np.testing.assert_allclose(ours[0], [-0.13869520, 0.10139432, 0.03730088], atol=1e-6)
    np.testing.assert_allclose(ours, jax.grad(exact)(LOGITS), atol=1e-6)
    np.testing.assert_allclose(
        (1 - np.exp(-0.7 * cross_entropy(LOGITS, LABEL))) / 0.7, [0.16013786, 1.11577956, 1.27324358], atol=1e-6
    )


def test_gradients_stop_where_they_should():
    _, state, _ = started()
    batch = rows(8)

    def values(params):
        terms, *_ = train_terms(
            SMALL, SihConfig(), jax.random.key(3), {"params": params}, as_float(batch.x), batch.label, state.hyper
        )
        means = jnp.stack(terms).mean(axis=1)
        return means, means

    gradients = jax.jit(jax.jacrev(values, has_aux=True))
    params = state.variables["params"]
    gradient, means = gradients(params)
    touched = {
        term: {part for part, tree in gradient.items() if any(leaf[i].any() for leaf in jax.tree.leaves(tree))}
        for i, term in enumerate(Terms._fields)
    }
    assert touched == {
        "signal": {"signal", "signal_head"},
        "bias": {"bias", "bias_head"},
        "reconstruction": {"signal", "bias", "decoder"},
        "kl_signal": {"signal"},
        "kl_bias": {"bias"},
        "signal_weight": set(),
    }
    # The value of the signal term does depend on the bias branch.
    other = {**params, "bias_head": jax.tree.map(lambda leaf: 2 * leaf, params["bias_head"])}
    assert abs(gradients(other)[1][0] - means[0]) > 1e-4


def test_kl_by_hand():
    code = Code(np.array([[1.0, 0.0], [0.0, 0.0]], np.float32), np.array([[0.0, math.log(4)], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(kl_to_standard_normal(code), [1.30685282, 0.0], atol=1e-6)


def test_linear_gaussian_elbo_is_exact(key):
    """With a linear decoder and squared error the best loss is -log N(x; c, W W' + I / 200), up to scale."""
    w = np.array([[1, 0], [0, 0.5], [0, 0], [0.5, 0]])
    c, x = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.7, 0.1, 0.35, 0.9])
    variance, mean = np.array([0.00398406, 0.01960784]), np.array([0.67729084, -0.19607843])

    def loss(mean, variance):
        error = ((x - c - w @ mean) ** 2).sum() + (w**2 @ variance).sum()
        code = Code(np.float32(mean)[None], np.float32(np.log(variance))[None])
        zero = jnp.zeros(1)
        terms = Terms(zero, zero, jnp.array([error / 4]), kl_to_standard_normal(code) / 4, zero, zero)
        return float(terms.total(SihConfig(reconstruction="gaussian").hyper())[0]), error

    best, error = loss(mean, variance)
    assert error == pytest.approx(0.04439506, abs=1e-6)
    assert best == pytest.approx(2.10713150, abs=2e-6)
    covariance = w @ w.T + np.eye(4) / 200
    log_density = -0.5 * ((x - c) @ np.linalg.solve(covariance, x - c) + np.linalg.slogdet(2 * np.pi * covariance)[1])
    assert 4 * best + 2 * math.log(2 * math.pi / 200) == pytest.approx(-log_density, abs=1e-5)
    for change in np.random.default_rng(0).normal(scale=0.1, size=(20, 2, 2)):
        assert loss(mean + change[0], variance * np.exp(change[1]))[0] > best

    tile = lambda values: jnp.tile(jnp.float32(values)[None], (100_000, 1))  # noqa: E731
    code = Code(tile(mean), tile(np.log(variance)))
    drawn = [np.asarray(z) for z in sample(key, Codes(code, code))]
    assert abs(np.corrcoef(drawn[0][:, 0], drawn[1][:, 0])[0, 1]) < 0.02  # noise of its own for each branch
    for z in drawn:
        assert ((x[None] - c[None] - z @ w.T) ** 2).sum(1).mean() == pytest.approx(error, rel=0.01)


@pytest.mark.slow
def test_steps_equal_pytorch(torch):
    """Same weights, same noise: the terms of the first step, and all parameters after ten."""
    from oracles.torch_sih import Sih

    _, state, step = started()
    theirs = Sih((3, 4, 5), 12, 6, (16, 20), 3)
    theirs.load(state.variables["params"])
    adam = torch.optim.Adam(theirs.parameters(), lr=1e-3)
    for i in range(10):
        batch, key = rows(8, seed=i), jax.random.key(100 + i)
        keys = jax.random.split(jax.random.split(key)[1])
        noise = [torch.tensor(np.array(jax.random.normal(one, (8, 6)))) for one in keys]
        x = torch.tensor(np.ascontiguousarray(batch.x.transpose(0, 3, 1, 2))).float() / 255
        args = x, torch.tensor(batch.label).long(), *noise
        terms = theirs.terms(*args, gamma=1.3)
        state, info = step(key, state, batch)
        if i == 0:
            ours = info.signal, info.bias, info.reconstruction, info.kl_signal + info.kl_bias
            np.testing.assert_allclose(ours, [float(term.mean().detach()) for term in terms], atol=1e-5)
        loss = theirs.loss(*args, gamma=1.3)
        assert float(info.loss) == pytest.approx(float(loss.detach()), abs=1e-4)
        adam.zero_grad()
        loss.backward()
        adam.step()
    differences = theirs.differences(state.variables["params"])
    assert max(differences.values()) < 1e-4, differences


@pytest.mark.slow
@pytest.mark.unoptimised
def test_resnet_steps_equal_pytorch(torch):
    """As above, by gradient descent: Adam's first steps are signs, and of what normalisation cancels they are noise."""
    from oracles.torch_resnet_vae import ResNetSih

    branches = resnet_vae(latent=16, width=4, classes=3)
    learner = sih(
        branches,
        SihConfig(gamma=1.3, reconstruction="gaussian"),
        Optimizer(name="sgd", learning_rate=5e-5, momentum=0.9),
    )

    def batch(seed):
        rng = np.random.default_rng(seed)
        return Batch(
            x=rng.integers(0, 256, (32, 32, 32, 3), dtype=np.uint8),
            label=rng.integers(0, 3, 32).astype(np.int32),
            attribute=np.full(32, -1, np.int32),
        )

    state, step = learner.init(jax.random.key(1), batch(0)), jax.jit(learner.step)
    theirs, first = (ResNetSih(16, 4, 3, CIFAR_MEAN, CIFAR_STD) for _ in range(2))
    for one in (theirs, first):
        one.load(state.variables["params"])
    descent = torch.optim.SGD(theirs.parameters(), lr=5e-5, momentum=0.9)
    for i in range(10):
        part, key = batch(i), jax.random.key(100 + i)
        keys = jax.random.split(jax.random.split(key)[1])
        noise = [torch.tensor(np.array(jax.random.normal(one, (32, 16)))) for one in keys]
        x = torch.tensor(np.ascontiguousarray(part.x.transpose(0, 3, 1, 2))).float() / 255
        terms = theirs.terms(x, torch.tensor(part.label).long(), *noise, gamma=1.3, kind="gaussian")
        state, info = step(key, state, part)
        if i == 0:
            ours = info.signal, info.bias, info.reconstruction, info.kl_signal + info.kl_bias
            np.testing.assert_allclose(ours, [float(term.mean().detach()) for term in terms], atol=1e-5)
        signal, bias, reconstruction, kl = terms
        descent.zero_grad()
        (signal + bias + 100 * reconstruction + kl).mean().backward()
        descent.step()
    differences = theirs.differences(state.variables["params"])
    assert max(differences.values()) < 1e-4, differences
    assert max(first.differences(state.variables["params"]).values()) > 1e-3


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
def test_loss_terms_by_hand(kind):
    rng = np.random.default_rng(0)
    label = np.array([2, 0])
    s, b, pixels = rng.normal(size=(2, 3)), rng.normal(size=(2, 3)), rng.normal(size=(2, 4, 5, 3))
    x, codes = rng.random((2, 4, 5, 3)), rng.normal(size=(2, 2, 2, 6))
    p_s, p_b = ((np.exp(one) / np.exp(one).sum(1, keepdims=True))[[0, 1], label] for one in (s, b))
    image = 1 / (1 + np.exp(-pixels))
    loss = (image - x) ** 2 if kind == "gaussian" else -x * np.log(image) - (1 - x) * np.log(1 - image)
    kl = [-0.5 * (1 + v - m**2 - np.exp(v)).sum(1) / 60 for m, v in codes]
    expected = ((1 - p_b) ** 2 * -np.log(p_s), p_b**0.5 * -np.log(p_b), loss.mean((1, 2, 3)), *kl, (1 - p_b) ** 2)
    single = jax.tree.map(np.float32, (s, b, Codes(*(Code(*one) for one in codes)), pixels, x))
    hyper = SihConfig(q=0.5, gamma=2.0, reconstruction_weight=7.0, kl_weight=3.0).hyper()
    terms = loss_terms(*single, label, hyper, kind)
    for ours, by_hand in zip(terms, expected, strict=True):
        np.testing.assert_allclose(ours, by_hand, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        terms.total(hyper), expected[0] + expected[1] + 7 * expected[2] + 3 * (kl[0] + kl[1]), rtol=1e-5
    )


def test_equal_arguments_give_one_learner():
    assert sih(SMALL) is sih(SMALL, SihConfig(), Optimizer())
    assert sih(SMALL) is not sih(SMALL, SihConfig(q=0.5))


def test_refuses(key):
    with pytest.raises(ContractError, match="q`"):
        SihConfig(q=-0.1)
    with pytest.raises(ContractError, match="patience"):
        sih_run_config(patience=1)
    official = sih_monitor(SMALL, protocol="official")
    with pytest.raises(ContractError, match="256"):
        official.rows(key, rows(8))


@functools.cache
def weight_of(branches):
    return lambda state, batch: signal_weight(branches, state, batch)
