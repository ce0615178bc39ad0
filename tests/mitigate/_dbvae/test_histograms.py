import jax.numpy as jnp
import numpy as np
import pytest
from oracles.latent_rules import ess, lab_weights, product_weights
from scipy.stats import norm

from jaxdebias.mitigate._dbvae.blocks import log_ess, within_blocks
from jaxdebias.mitigate._dbvae.histograms import fit_histograms, log_rarity, soft_mass

RNG = np.random.default_rng(0)
HAND = np.array([[0, 0], [0, 0], [0, 0], [0, 1], [1, 1], [1, 1]], np.float32)
# Few shapes and settings, so that few programs are compiled.
CLOUD = RNG.normal(size=(400, 3)).astype(np.float32)
LINE = 7
"""Bins of the data of one latent and 100 rows."""


def zeros(n):
    return jnp.zeros(n, jnp.int32)


def share_of(z, *, rule="product", alpha=0.0, kind="mass", bins=10, **more):
    """Weights of one block, summing to 1."""
    block = zeros(len(z))
    log_weight = log_rarity(
        fit_histograms(z, block, bins=bins), z, block, rule=rule, alpha=alpha, alpha_kind=kind, **more
    )
    return np.asarray(within_blocks(log_weight, block, jnp.ones(1)))


@pytest.mark.parametrize(
    ("rule", "alpha", "kind", "expected"),
    [
        ("product", 0.0, "mass", [1 / 8] * 4 + [1 / 4] * 2),
        ("product", 1 / 6, "mass", [3 / 22] * 4 + [5 / 22] * 2),
        ("max", 0.0, "mass", [1 / 7] * 4 + [3 / 14] * 2),
        ("max", 0.1, "density_renorm", [0.14495115] * 4 + [0.21009773] * 2),
    ],
)
def test_table_by_hand(rule, alpha, kind, expected):
    np.testing.assert_allclose(share_of(HAND, rule=rule, alpha=alpha, kind=kind, bins=2), expected, rtol=2e-6)


@pytest.mark.slow
def test_topm_is_the_product_of_the_largest():
    each = np.stack([share_of(CLOUD, alpha=0.01, active=np.arange(3) == i) for i in range(3)], axis=1)
    wanted = np.sort(each, axis=1)[:, -2:].prod(axis=1)
    np.testing.assert_allclose(share_of(CLOUD, rule="topm", alpha=0.01, top=2), wanted / wanted.sum(), rtol=1e-4)
    largest = each.max(axis=1)
    np.testing.assert_allclose(share_of(CLOUD, rule="max", alpha=0.01), largest / largest.sum(), rtol=1e-4)


def test_share_of_a_bin_and_of_a_rare_mode():
    z = np.repeat([0.0, 1.0, 2.5, 3.0], [70, 20, 1, 9]).astype(np.float32)[:, None]
    mass = np.array([0.7, 0.2, 0.01, 0.09])
    for alpha in (0.0, 0.05, 3.0):
        weight = share_of(z, alpha=alpha, bins=LINE)
        shares = [weight[z[:, 0] == value].sum() for value in np.unique(z)]
        wanted = mass / (mass + alpha)
        np.testing.assert_allclose(shares, wanted / wanted.sum(), rtol=2e-6)
    rare = np.repeat([0.0, 1.0], [90, 10]).astype(np.float32)[:, None]
    for alpha, share in ((0.0, 0.5), (0.1, 0.357143), (1.0, 0.161017), (1e6, 0.1000000720), (1e12, 0.1)):
        assert share_of(rare, alpha=alpha, bins=LINE)[90:].sum() == pytest.approx(share, rel=2e-6)


def test_full_bins_and_a_huge_alpha_are_uniform_and_alpha_is_monotone():
    even = np.stack([RNG.permutation(np.repeat(np.arange(10), 40)) for _ in range(3)], axis=1).astype(np.float32)
    np.testing.assert_allclose(share_of(even, alpha=0.01), 1 / 400, rtol=1e-5)
    for rule in ("product", "max"):
        np.testing.assert_allclose(share_of(CLOUD, rule=rule, alpha=1e12), 1 / 400, rtol=1e-5)
    rare = np.where(np.arange(400) < 20, 3.0, 0.0).astype(np.float32)
    lines = np.stack([rare + 0.1 * CLOUD[:, 0], 0 * rare, 0 * rare], axis=1)  # two of them are constant
    shares = [share_of(lines, alpha=alpha)[:20].sum() for alpha in np.logspace(-4, 2, 13)]
    assert (np.diff(shares) <= 1e-6).all()
    assert shares[0] > 3 * shares[-1]


def test_effective_sample_size_in_closed_form():
    count = np.array([50, 30, 15, 5])
    z = np.repeat(np.array([0.0, 2.0, 4.0, 6.0]), count).astype(np.float32)[:, None]
    p = count / 100
    for alpha in (0.0, 0.2):
        w = 1 / (p + alpha)
        weight = share_of(z, alpha=alpha, bins=LINE)
        wanted = (p * w).sum() ** 2 / (p * w**2).sum()
        assert ess(weight.astype(np.float64)) == pytest.approx(wanted, rel=1e-5)
        assert float(jnp.exp(log_ess(jnp.log(weight), zeros(100)))[0]) == pytest.approx(wanted, rel=1e-4)
        assert alpha or wanted == pytest.approx(16 / (1 / p).sum())


def test_two_hundred_latents_stay_finite_where_the_naive_product_does_not():
    z = RNG.normal(size=(400, 200)).astype(np.float32)
    weight = share_of(z, alpha=1e-6)
    assert np.isfinite(weight).all()
    assert weight.sum() == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(weight, product_weights(z, 10, 1e-6, z.min(0), z.max(0)), rtol=2e-2, atol=1e-6)
    naive = np.ones(400, np.float32)
    with np.errstate(over="ignore"):
        for column in z.T:
            counts, edges = np.histogram(column, bins=10)
            naive *= (1 / (counts / 400 + 1e-6)).astype(np.float32)[np.clip(np.digitize(column, edges) - 1, 0, 9)]
    assert not np.isfinite(naive).all()
    assert ess(weight.astype(np.float64)) < 0.02  # finite, but a lottery


def test_notebook_rule_equals_the_notebook_and_a_constant_latent_changes_nothing():
    rule = {"rule": "max", "kind": "density_renorm", "alpha": 0.001}
    found = share_of(CLOUD, **rule)
    np.testing.assert_allclose(found, lab_weights(CLOUD.astype(np.float64)), rtol=1e-5)
    dead = np.stack([CLOUD[:, 0], np.full(400, 0.7, np.float32), CLOUD[:, 2]], axis=1)
    np.testing.assert_allclose(share_of(dead, **rule), lab_weights(dead.astype(np.float64)), rtol=1e-5)


def test_quantile_edges_are_numpys_per_block_and_outliers_do_not_move_them():
    z, block = CLOUD.copy(), RNG.integers(0, 3, 400).astype(np.int32)
    z[7] = 1e4
    block[0] = -1
    found = fit_histograms(z, block, blocks=3, bins=5, quantile=0.03)
    for i in range(3):
        low, high = np.quantile(z[block == i].astype(np.float64), [0.03, 0.97], axis=0)
        np.testing.assert_allclose(found.low[i], low, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.low[i] + 5 * found.width[i], high, rtol=1e-4, atol=1e-5)
        assert found.count[i].sum() == 3 * (block == i).sum()
        np.testing.assert_allclose(found.mass[i].sum(1), 1, rtol=1e-5)
    log_weight = log_rarity(found, z, block, alpha=0.01)
    assert log_weight[0] == 0
    weight, one = np.exp(log_weight), block == block[7]
    wanted = product_weights(z[one], 5, 0.01, *np.quantile(z[one], [0.03, 0.97], axis=0))
    np.testing.assert_allclose(weight[one] / weight[one].sum(), wanted, rtol=1e-3)
    # Rows that were not fitted count in the end bins.
    far = np.where(np.arange(400)[:, None] % 2, z + 1e6, z - 1e6).astype(np.float32)
    beyond = np.asarray(log_rarity(found, far, zeros(400), alpha=0.01))
    assert len(set(beyond.round(5).tolist())) == 2
    ends = found.mass[0][:, [0, -1]] + 0.01
    assert beyond[1] - beyond[0] == pytest.approx(float(jnp.log(ends[:, 0] / ends[:, 1]).sum()), abs=1e-4)


@pytest.mark.slow
def test_a_small_block_takes_the_histogram_of_all_rows():
    block = np.repeat([0, 1, -1], [380, 10, 10]).astype(np.int32)
    found = fit_histograms(CLOUD, block, blocks=2, bins=4, least_rows=50)
    for i, rows in ((0, slice(380)), (1, slice(390))):
        for latent in range(3):
            counts, edges = np.histogram(CLOUD[rows, latent], bins=4)
            np.testing.assert_allclose(found.mass[i, latent], counts / counts.sum(), rtol=1e-5)
            np.testing.assert_allclose(found.low[i, latent], edges[0], rtol=1e-5)
    assert found.count[1].sum() == 30
    own = block == 1
    each = np.exp([log_rarity(found, CLOUD, block, alpha=0.01, active=np.arange(3) == i)[own] for i in range(3)])
    np.testing.assert_allclose(each.sum(1), 1, rtol=1e-5)  # scaled over its own ten rows


@pytest.mark.slow
def test_soft_histograms_are_the_mass_of_the_posteriors():
    mean, log_variance = CLOUD[:60], CLOUD[60:120]
    block = np.repeat([0, 1], 30).astype(np.int32)
    hard = fit_histograms(mean, block, blocks=2, bins=4)
    soft = soft_mass(hard, mean, log_variance, block)
    for j in range(2):
        for i in range(3):
            edges = np.asarray(hard.low[j, i] + hard.width[j, i] * np.arange(5), np.float64)
            edges[[0, -1]] = -np.inf, np.inf
            own = slice(30 * j, 30 * j + 30)
            mass = np.mean(
                [
                    np.diff(norm.cdf(edges, m, s))
                    for m, s in zip(mean[own, i], np.exp(log_variance[own, i] / 2), strict=True)
                ],
                axis=0,
            )
            np.testing.assert_allclose(soft.mass[j, i], mass, atol=2e-6)
    sharp = soft_mass(hard, mean, np.full_like(mean, -30.0), block)
    np.testing.assert_allclose(sharp.mass, hard.mass, atol=0.04)  # a row on an edge may be cut in two
