import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from oracles.latent_rules import ess, lab_weights, product_weights

from jaxdebias.contracts import ContractError
from jaxdebias.mitigate import EQUATION_4, MIT_LAB, RarityConfig, latent_weights
from jaxdebias.mitigate._dbvae.blocks import class_prior
from jaxdebias.mitigate._dbvae.rarity import _latent_weights, active_latents

RNG = np.random.default_rng(0)
HAND = np.array([[0, 0], [0, 0], [0, 0], [0, 1], [1, 1], [1, 1]], np.float32)
CLOUD = RNG.normal(size=(400, 3)).astype(np.float32)


def zeros(n):
    return jnp.zeros(n, jnp.int32)


def by_config(z, config, label=None, classes=1, **more):
    label = zeros(len(z)) if label is None else label
    return latent_weights(z, jnp.zeros_like(z), label, config, classes=classes, **more)


@pytest.mark.slow
def test_the_printed_equation_and_the_notebook_as_configurations():
    exact = dataclasses.replace(EQUATION_4, bins=2, alpha=1 / 6)
    np.testing.assert_allclose(by_config(HAND, exact).weight, [3 / 22] * 4 + [5 / 22] * 2, rtol=2e-6)
    lab = dataclasses.replace(MIT_LAB, bins=2, alpha=0.1)
    np.testing.assert_allclose(by_config(HAND, lab).weight, [0.14495115] * 4 + [0.21009773] * 2, rtol=2e-6)
    mean = RNG.normal(size=(3000, 12)).astype(np.float32)
    np.testing.assert_allclose(by_config(mean, MIT_LAB).weight, lab_weights(mean.astype(np.float64)), rtol=1e-5)


@pytest.mark.slow
def test_latents_are_chosen_by_their_kl():
    chosen, active = active_latents(jnp.array([0.2, 0.0, 3.0, 0.005]), most=3, least_kl=0.01)
    assert (chosen.tolist(), active.tolist()) == ([2, 0, 3], [True, True, False])
    mean = CLOUD * np.array([1e-3, 2.0, 1e-3], np.float32)
    log_variance = np.tile(np.array([0.0, -3.0, 0.0], np.float32), (400, 1))
    config = RarityConfig(ess_target=None, quantile=0.0, latents=2)
    found = latent_weights(mean, log_variance, zeros(400), config, classes=1)
    assert found.used.tolist() == [False, True, False]
    np.testing.assert_allclose(found.kl[1], np.mean(0.5 * (np.exp(-3) + mean[:, 1] ** 2 - 1 + 3)), rtol=1e-5)
    wanted = product_weights(mean[:, 1:2], 10, 0.01, mean.min(0)[1:2], mean.max(0)[1:2])
    np.testing.assert_allclose(found.weight, wanted, rtol=1e-4)
    before = _latent_weights._cache_size()
    collapsed = latent_weights(1e-3 * mean, 0 * log_variance, zeros(400), config, classes=1)
    np.testing.assert_allclose(collapsed.weight, 1 / 400, rtol=1e-5)
    assert _latent_weights._cache_size() == before  # other values, the same program


@pytest.mark.slow
def test_two_classes_of_which_one_is_debiased_are_the_binary_method():
    label = (np.arange(400) % 4 == 0).astype(np.int32)
    config = RarityConfig(least_kl=0.0, ess_target=None, rows_per_bin=0, quantile=0.0)
    found = np.asarray(by_config(CLOUD, config, label, classes=2, debiased=(1,)).weight)
    np.testing.assert_allclose(found[label == 0], 1 / 400, rtol=1e-5)
    ours = CLOUD[label == 1]
    np.testing.assert_allclose(
        found[label == 1], product_weights(ours, 10, 0.01, ours.min(0), ours.max(0)) / 4, rtol=1e-4
    )


@pytest.mark.slow
def test_pooled_and_notebook_rules_of_one_debiased_class():
    label = (np.arange(400) % 4 == 0).astype(np.int32)
    config = RarityConfig(least_kl=0.0, ess_target=None, rows_per_bin=0, quantile=0.0)
    found, pooled = (
        by_config(CLOUD, dataclasses.replace(config, per_class=each), label, classes=2, debiased=(1,))
        for each in (True, False)
    )
    np.testing.assert_allclose(pooled.weight, found.weight, rtol=1e-5)
    lab = np.asarray(by_config(CLOUD, MIT_LAB, label, classes=2, debiased=(1,)).weight)
    np.testing.assert_allclose(lab[label == 0], 0.5 / 300, rtol=1e-5)
    np.testing.assert_allclose(lab[label == 1], 0.5 * lab_weights(CLOUD[label == 1].astype(np.float64)), rtol=1e-4)


@pytest.mark.parametrize("kind", ["data", pytest.param("uniform", marks=pytest.mark.slow)])
def test_classes_get_their_shares_and_are_compared_within_themselves(kind):
    label = np.repeat([0, 1, 3, 1], [200, 50, 100, 50]).astype(np.int32)
    counted = np.arange(400) < 350  # the last fifty rows are left out
    z = np.where(counted[:, None], CLOUD, 50.0).astype(np.float32)
    config = RarityConfig(least_kl=0.0, class_prior=kind, rows_per_bin=0, ess_target=0.5, quantile=0.0, max_ratio=50.0)
    found = by_config(z, config, label, classes=4, counted=counted)
    prior = {"data": [4 / 7, 1 / 7, 0, 2 / 7], "uniform": [1 / 3, 1 / 3, 0, 1 / 3]}[kind]
    of_rows = class_prior(np.where(counted, label, -1), classes=4, kind=kind)
    np.testing.assert_allclose(of_rows, prior, rtol=1e-6)
    np.testing.assert_array_equal(found.weight[350:], 0)
    for c in (0, 1, 3):
        own = counted & (label == c)
        assert found.weight[own].sum() == pytest.approx(prior[c], rel=1e-4)
        wanted = product_weights(z[own], 10, 0.01, z[own].min(0), z[own].max(0)) ** float(found.power[c])
        np.testing.assert_allclose(found.weight[own] / prior[c], wanted / wanted.sum(), rtol=1e-3)
        assert ess(np.asarray(found.weight[own], np.float64)) >= 0.499


@pytest.mark.slow
def test_pooled_and_per_class_differ_where_a_factor_goes_with_the_class():
    """95 % of class 0 lie left and 95 % of class 1 right: rare within the class, common over all."""
    label = np.repeat([0, 1], 1000).astype(np.int32)
    rare = np.tile(np.arange(1000) < 50, 2)
    side = np.where(rare, 1 - label, label) * 4.0
    z = (side + 0.3 * RNG.normal(size=2000)).astype(np.float32)[:, None]
    config = RarityConfig(least_kl=0.0, ess_target=0.5)
    within = np.asarray(by_config(z, config, label, classes=2).weight)
    pooled = np.asarray(by_config(z, dataclasses.replace(config, per_class=False), label, classes=2).weight)
    assert within[rare].sum() > 0.2
    assert pooled[rare].sum() < 0.07
    assert within[rare].sum() <= 0.05 + np.sqrt(0.05 * 0.95 * (1 / 0.5 - 1)) + 1e-3  # the most at this ESS


@pytest.mark.slow
@pytest.mark.parametrize("density", ["kernel", "mixture"])
def test_other_densities_find_the_rare_mode_too(density):
    rare = np.arange(1000) < 50
    z = (np.where(rare, 4.0, 0.0)[:, None] + 0.3 * RNG.normal(size=(1000, 2))).astype(np.float32)
    weight = np.asarray(by_config(z, RarityConfig(density=density, least_kl=0.0, ess_target=0.5)).weight)
    assert weight.sum() == pytest.approx(1, rel=1e-5)
    assert ess(weight.astype(np.float64)) > 0.499
    assert np.median(weight[rare]) > 2 * np.median(weight[~rare])


def test_bad_settings_are_refused():
    for bad in (
        {"alpha": -1.0},
        {"quantile": 0.5},
        {"ess_target": 0.0},
        {"max_ratio": 0.5},
        {"latents": 0},
        {"soft": True, "density": "kernel"},
    ):
        with pytest.raises(ContractError, match=r"`rarity\."):
            RarityConfig(**bad)
    with pytest.raises(ContractError, match="log_variance"):
        latent_weights(HAND, None, zeros(6), classes=1)
