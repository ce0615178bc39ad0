import numpy as np
import pytest
from scipy import stats

from jaxdebias.mitigate._dbvae.density import kernel_log_density, mixture_log_density

RNG = np.random.default_rng(0)
BLOCK = np.repeat([0, 1, -1], [400, 250, 50]).astype(np.int32)
Z = (RNG.normal(size=(700, 2)) * [1.0, 20.0] + np.where(BLOCK == 1, 3.0, 0.0)[:, None]).astype(np.float32)


def test_kernel_density_is_that_of_scipy():
    found = np.asarray(kernel_log_density(Z, BLOCK, blocks=2))
    for j in range(2):
        own = Z[j == BLOCK].astype(np.float64)
        # SciPy's bandwidth has the factor of the unbiased deviation.
        wanted = sum(
            np.log(stats.gaussian_kde(column, bw_method=len(own) ** -0.2 * np.sqrt((len(own) - 1) / len(own)))(column))
            for column in own.T
        )
        np.testing.assert_allclose(found[j == BLOCK], wanted, atol=0.02)
    np.testing.assert_array_equal(found[BLOCK == -1], 0)


@pytest.mark.slow
def test_a_constant_latent_is_left_out_of_the_kernel_density():
    constant = np.insert(Z, 1, 0.3, axis=1)
    np.testing.assert_allclose(
        kernel_log_density(constant, BLOCK, blocks=2), kernel_log_density(Z, BLOCK, blocks=2), atol=1e-4
    )


@pytest.mark.slow
def test_mixture_finds_two_gaussians():
    n = 1500
    z = np.where(
        (np.arange(n) % 3 == 0)[:, None], RNG.normal((4, 0), 0.5, size=(n, 2)), RNG.normal((-2, 1), 1.0, size=(n, 2))
    ).astype(np.float32)
    found = np.asarray(mixture_log_density(z, np.zeros(n, np.int32), components=2))
    truth = np.log(
        1 / 3 * stats.multivariate_normal([4, 0], 0.25).pdf(z) + 2 / 3 * stats.multivariate_normal([-2, 1], 1.0).pdf(z)
    )
    np.testing.assert_allclose(found, truth, atol=0.5)
    assert np.mean(np.abs(found - truth)) < 0.06


def test_mixture_of_one_component_is_a_gaussian_of_each_block():
    found = np.asarray(mixture_log_density(Z, BLOCK, blocks=2, components=1, steps=2))
    for j in range(2):
        own = Z[j == BLOCK].astype(np.float64)
        wanted = stats.norm(own.mean(0), own.std(0)).logpdf(own).sum(1)
        np.testing.assert_allclose(found[j == BLOCK], wanted, atol=1e-3)
    np.testing.assert_array_equal(found[BLOCK == -1], 0)


@pytest.mark.slow
@pytest.mark.parametrize("density", [kernel_log_density, mixture_log_density])
def test_a_block_without_rows_is_finite(density):
    assert np.isfinite(density(Z, np.where(BLOCK == 1, 2, BLOCK), blocks=3)).all()
