import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias import models
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch
from jaxdebias.mitigate import (
    DbVaeConfig,
    RarityConfig,
    dbvae,
    draw_report,
    encode_all,
    latent_weights,
    reconstructions,
)
from jaxdebias.mitigate._dbvae.learner import is_in, loss_sampling_weights, loss_terms
from jaxdebias.models import Encoding, vae_classifier
from jaxdebias.train import FitConfig, Optimizer, fit, random_shift

N = 60
RNG = np.random.default_rng(0)
DATA = Batch(
    x=RNG.integers(0, 256, (N, 4, 4, 1)).astype(np.uint8),
    label=(np.arange(N) % 3).astype(np.int32),
    attribute=np.zeros(N, np.int32),
)
MODEL = vae_classifier(image=(4, 4, 1), classes=3, latent=4, encoder=models.mlp(hidden=(6,), classes=3), decoder=(4,))
PLAIN = Optimizer(name="sgd", learning_rate=0.5, momentum=0.0)
RARITY = RarityConfig(least_kl=0.0, rows_per_bin=0, latents=None, quantile=0.0, ess_target=0.5)
ENCODING = Encoding(*(RNG.normal(size=(4, size)).astype(np.float32) for size in (3, 2, 2)))
IMAGES = [RNG.random((4, 3, 3, 1)).astype(np.float32) for _ in range(2)]


def test_terms_by_hand():
    label = np.array([0, 2, 1, 2], np.int32)
    x, decoded = IMAGES
    for kind, error in (("absolute", np.abs(x - decoded)), ("squared", (x - decoded) ** 2)):
        terms = loss_terms(ENCODING, decoded, x, label, debiased=(2, 0), kind=kind)
        ours = np.array([1, 1, 0, 1])
        log_p = ENCODING.logits - np.log(np.exp(ENCODING.logits).sum(1, keepdims=True))
        np.testing.assert_allclose(terms.cross_entropy, -log_p[np.arange(4), label], rtol=1e-5)
        np.testing.assert_allclose(terms.reconstruction, ours * error.mean((1, 2, 3)), rtol=1e-5)
        _, mean, log_variance = ENCODING
        kl = 0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance).sum(1)
        np.testing.assert_allclose(terms.kl, ours * kl, rtol=1e-5)


def test_a_column_of_labels_is_refused():
    """Beside terms of shape [n] it would broadcast to [n n], and the mask would remove nothing."""
    label = np.array([0, 1, 1, 0], np.int32)
    for bad in (label[:, None], label[:1], label[None]):
        with pytest.raises(ContractError, match=r"`label`: expected int \[n=4\], got int32"):
            loss_terms(ENCODING, *IMAGES, bad, debiased=(1,))


def test_rows_of_other_classes_send_nothing_to_decoder_and_code(key):
    learner = dbvae(MODEL, DbVaeConfig(debiased=(1,), sampling="uniform"), PLAIN)
    step = jax.jit(learner.step)
    start = jax.jit(learner.init)(key, DATA)

    def moves(weight):
        state, info = step(key, start, DATA._replace(weight=weight.astype(np.float32)))
        change = jax.tree.map(lambda new, old: np.asarray(new - old), state.variables, start.variables)["params"]
        return change, info

    others, info = moves(DATA.label != 1)
    assert all((leaf == 0).all() for part in ("code", "decoder") for leaf in jax.tree.leaves(others[part]))
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(others["encoder"]["params"]["head"]))
    assert (info.reconstruction, info.kl) == (0, 0)
    every, _ = moves(np.ones(N))
    ours, info = moves(DATA.label == 1)
    assert info.kl > 0
    assert info.reconstruction > 0
    # A third of the rows are of class 1, and they alone move decoder and code.
    for part in ("code", "decoder"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b / 3, rtol=1e-3, atol=1e-6), every[part], ours[part])
    jax.tree.map(
        lambda a, b, c: np.testing.assert_allclose(a, b / 3 + c * 2 / 3, rtol=1e-3, atol=1e-6),
        every["encoder"],
        ours["encoder"],
        others["encoder"],
    )


@pytest.mark.slow
def test_draws_are_uniform_in_the_warm_up_and_then_follow_the_codes(key):
    learner = dbvae(MODEL, DbVaeConfig(rarity=RARITY, warmup_epochs=2), PLAIN)
    state = jax.jit(learner.init)(key, DATA)
    weights = jax.jit(learner.weights)
    for seen in (0, 60, 89):
        np.testing.assert_allclose(weights(state._replace(seen=jnp.int32(seen)), DATA), 1 / N, rtol=1e-6)
    encoding = encode_all(MODEL, state.variables, DATA.x, rows=7)
    np.testing.assert_allclose(encoding.mean, MODEL.encode(state.variables, DATA.x).mean, rtol=1e-5, atol=1e-6)
    wanted = latent_weights(encoding.mean, encoding.log_variance, DATA.label, RARITY, classes=3).weight
    for seen in (110, 120, 2**30):
        found = weights(state._replace(seen=jnp.int32(seen)), DATA)
        np.testing.assert_allclose(found, wanted, rtol=1e-3)
    assert found.max() > 1.5 / N


@pytest.mark.slow
def test_stale_codes_are_those_of_the_steps(key):
    """At a learning rate of nearly nothing, they are those of the encoder."""
    still = Optimizer(name="sgd", learning_rate=1e-12, momentum=0.0)
    stale = dbvae(MODEL, DbVaeConfig(rarity=RARITY, warmup_epochs=1, stale=True), still, rows=N)
    state = fit(key, stale, DATA, FitConfig(epochs=1, batch_size=16, draws="systematic")).state
    assert int(state.seen) == N
    encoding = encode_all(MODEL, state.variables, DATA.x)
    np.testing.assert_allclose(state.remembered.mean, encoding.mean, rtol=1e-4, atol=1e-5)
    wanted = latent_weights(encoding.mean, encoding.log_variance, DATA.label, RARITY, classes=3)
    np.testing.assert_allclose(stale.weights(state, DATA), wanted.weight, rtol=1e-3)
    # The KL is averaged over steps, four of them here, and starts from 0.
    np.testing.assert_allclose(state.remembered.kl / (1 - 0.9**4), wanted.kl, rtol=0.2)


def test_arms(key):
    uniform = dbvae(MODEL, config=DbVaeConfig(sampling="uniform"))
    assert uniform.weights is None
    label = np.repeat([0, 1], [50, 10]).astype(np.int32)
    data = DATA._replace(label=label, weight=(np.arange(N) < 55).astype(np.float32))
    by_class = dbvae(MODEL, config=DbVaeConfig(sampling="class", warmup_epochs=0))
    state = jax.eval_shape(by_class.init, key, DATA)._replace(seen=jnp.int32(0))
    np.testing.assert_allclose(by_class.weights(state, data), [0.01] * 50 + [0.1] * 5 + [0] * 5, rtol=1e-5)
    loss = jnp.asarray(RNG.gamma(0.2, size=N), jnp.float32)
    found = np.asarray(
        loss_sampling_weights(loss, label, jnp.ones(N, bool), RarityConfig(ess_target=None, alpha=0.1), classes=3)
    )
    wanted = np.asarray(loss, np.float64) + 0.1
    for c in (0, 1):
        np.testing.assert_allclose(
            found[label == c], wanted[label == c] / wanted[label == c].sum() * (label == c).mean(), rtol=1e-4
        )


@pytest.mark.slow
def test_the_loss_arm_draws_what_is_predicted_badly(key):
    learner = dbvae(MODEL, config=DbVaeConfig(sampling="loss", warmup_epochs=0, rarity=RarityConfig(ess_target=0.3)))
    state = jax.jit(learner.init)(key, DATA)
    weight = np.asarray(learner.weights(state, DATA))
    logits = np.asarray(learner.predict(state, DATA.x), np.float64)
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(N), DATA.label]
    for c in range(3):
        own = DATA.label == c
        assert (np.argsort(weight[own]) == np.argsort(loss[own])).all()
        assert weight[own].sum() == pytest.approx(1 / 3, rel=1e-4)


@pytest.mark.slow
def test_the_log_tells_how_unequal_the_draws_are(key):
    config = DbVaeConfig(rarity=RARITY, warmup_epochs=1)
    result = fit(key, dbvae(MODEL, config, PLAIN), DATA, FitConfig(epochs=3, batch_size=16, draws="systematic"))
    said = [progress.info for progress in result.history]
    assert said[0]["draw_ess"] == pytest.approx(1, rel=1e-4)
    assert said[0]["draw_never"] == pytest.approx(0, abs=1e-5)
    assert 0.5 - 1e-3 < said[2]["draw_ess"] < 0.99
    assert said[2]["draw_largest"] > 1.2 / N
    assert {"reconstruction", "kl", "cross_entropy", "accuracy"} <= set(said[0])
    assert reconstructions(MODEL, result.state.variables, DATA.x[:2]).shape == (2, 4, 4, 1)


def test_equal_arguments_give_one_learner_and_bad_ones_are_refused():
    assert dbvae(MODEL) is dbvae(MODEL, DbVaeConfig(rarity=RarityConfig()), Optimizer(), rows=5)
    for bad in (
        {"kl_weight": -1.0},
        {"debiased": (1, 1)},
        {"stale": True, "warmup_epochs": 0},
        {"stale": True, "rarity": RarityConfig(soft=True)},
    ):
        with pytest.raises(ContractError, match=r"`config\."):
            DbVaeConfig(**bad)
    with pytest.raises(ContractError, match=r"`config.debiased`: expected classes in 0..2"):
        dbvae(MODEL, config=DbVaeConfig(debiased=(3,)))
    with pytest.raises(ContractError, match="`rows`"):
        dbvae(MODEL, config=DbVaeConfig(stale=True))
    assert is_in(jnp.array([0, 1, 2]), (2, 0), 3).tolist() == [1, 0, 1]


def blobs(n: int, rare: float, seed: int = 0) -> Batch:
    """A disc (class 1) or a ring somewhere on a grey ground, bright; for the rare rows dark on light."""
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % 2).astype(np.int32)
    attribute = (rng.random(n) < rare).astype(np.int32)
    centre, size = rng.uniform(6, 10, (n, 2)), rng.uniform(3, 5, n)
    at = np.stack(np.mgrid[:16, :16], axis=-1)
    distance = np.linalg.norm(at[None] - centre[:, None, None], axis=-1) / size[:, None, None]
    shape = np.where(label[:, None, None] == 1, distance < 1, np.abs(distance - 0.9) < 0.25)
    x = 0.2 + 0.5 * shape + rng.uniform(-0.1, 0.1, n)[:, None, None] + 0.05 * rng.normal(size=shape.shape)
    x = np.where(attribute[:, None, None] == 1, 1 - np.clip(x, 0, 1), np.clip(x, 0, 1))
    return Batch((255 * x).astype(np.uint8)[..., None], label, attribute)


@pytest.mark.slow
def test_a_rare_appearance_is_drawn_more_often(key):
    """With the codes of the steps, which cost least; that they are those of a pass over the data is tested above."""
    data = blobs(600, 0.05)
    model = vae_classifier(
        image=(16, 16, 1), latent=8, decoder=(16, 8), encoder=models.cnn(channels=(8, 16), dense=32, classes=2)
    )
    config = DbVaeConfig(rarity=RarityConfig(ess_target=0.5), stale=True)
    learner = dbvae(model, config, Optimizer(learning_rate=2e-3), rows=600, augment=random_shift(2))
    result = fit(key, learner, data, FitConfig(epochs=14, batch_size=64, epochs_per_chunk=14, draws="systematic"))
    report = draw_report(learner.weights(result.state, data), data.attribute, groups=2)
    assert report.ess == pytest.approx(0.5, abs=0.01)
    assert report.group_auc[1] > 0.9
    assert report.group_share[1] > 0.13
    control = dbvae(model, dataclasses.replace(config, sampling="uniform"), Optimizer(learning_rate=2e-3))
    assert control.weights is None
