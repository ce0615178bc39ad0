"""What is done to maps, against slow loops: resizing with the written-out triangle, the published chain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import cams

from jaxdebias.contracts import ContractError
from jaxdebias.explain import maps

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("size", "new"), [(28, 7), (56, 7), (42, 14), (31, 7), (7, 28), (5, 5)])
def test_resizing_of_masks_and_maps(size, new):
    mask = (RNG.uniform(size=(2, 3, size, size)) < 0.4).astype(np.float32)
    got = maps.resize(mask, new)
    want = np.stack([[cams.resized(one, new, new) for one in row] for row in mask])
    assert got.shape == (2, 3, new, new)
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_resizing_to_a_rectangle():
    one = RNG.uniform(size=(6, 9)).astype(np.float32)
    np.testing.assert_allclose(maps.resize(one, (4, 3)), cams.resized(one, 4, 3), atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "new"), [(28, 7), (31, 7), (7, 224)])
def test_resizing_is_pytorchs(torch, size, new):
    image = RNG.uniform(size=(1, 2, size, size)).astype(np.float32)
    want = torch.nn.functional.interpolate(
        torch.tensor(image), (new, new), mode="bilinear", antialias=True, align_corners=False
    )
    np.testing.assert_allclose(maps.resize(image, new), want.numpy(), atol=2e-6)
    if new > size:
        plain = torch.nn.functional.interpolate(torch.tensor(image), (new, new), mode="bilinear", align_corners=False)
        np.testing.assert_allclose(maps.resize(image, new), plain.numpy(), atol=2e-6)


@pytest.mark.parametrize("grid", [None, 28, (14, 21)])
def test_the_published_chain(grid):
    raw = RNG.normal(size=(2, 3, 7, 7)).astype(np.float32)
    raw[0, 0] = np.abs(raw[0, 0]) + 0.5  # positive everywhere: it loses its floor
    raw[1, 2] = -1.0  # nothing speaks for the class: zeros, not NaN
    raw[1, 1] *= 1e4
    h, w = (None, None) if grid is None else (grid, grid) if isinstance(grid, int) else grid
    got = np.asarray(jax.jit(maps.as_published, static_argnums=1)(raw, grid))
    want = np.stack([[cams.published(one, h, w) for one in row] for row in raw])
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert not got[1, 2].any()
    assert got[0, 0].min() == 0
    assert got.max() <= 1


def test_each_step_by_itself():
    m = jnp.array([[[1.0, 2.0], [3.0, 5.0]], [[0.0, 0.0], [0.0, 0.0]]])
    np.testing.assert_allclose(maps.subtract_min(m)[0], [[0, 1], [2, 4]])
    np.testing.assert_allclose(maps.divide_by_max(m), [[[0.2, 0.4], [0.6, 1.0]], np.zeros((2, 2))], rtol=1e-6)
    np.testing.assert_allclose(maps.clamp(m - 1.5), [[[0, 0.5], [1, 1]], np.zeros((2, 2))])
    np.testing.assert_allclose(maps.unit_sum(m, epsilon=1e-7)[0].sum(), 1.0, rtol=1e-6)
    assert not maps.unit_sum(m, epsilon=1e-7)[1].any()
    assert np.isnan(maps.unit_sum(m)[1]).all()


def test_bad_grids_are_named():
    with pytest.raises(ContractError, match="`grid`: expected at least 1 x 1, got 0"):
        maps.resize(np.zeros((2, 2), np.float32), 0)
