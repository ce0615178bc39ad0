import numpy as np
import pytest
from oracles import attention as oracle

from jaxdebias.contracts import ContractError
from jaxdebias.measure import region_masks

REGIONS = ((1,), (0,), (2, 4))


@pytest.mark.parametrize(("side", "cells"), [(28, 7), (56, 7), (42, 14), (31, 7)])
def test_shrinking_is_antialiased_and_bilinear(side, cells):
    mask = np.random.default_rng(0).integers(0, 5, (2, side, side))
    mask[0, : side // 2] = 1
    got = np.asarray(region_masks(mask, REGIONS, grid=(cells, cells)))
    for i in range(2):
        for r, labels in enumerate(REGIONS):
            full = np.isin(mask[i], labels).astype(float)
            np.testing.assert_allclose(got[i, r], oracle.shrink(full, cells, cells), atol=2e-6)


@pytest.mark.slow
def test_the_oracle_shrinks_as_pytorch_does(torch):
    image = np.random.default_rng(0).random((31, 40)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None], size=(7, 9), mode="bilinear", antialias=True, align_corners=False
    )
    np.testing.assert_allclose(oracle.shrink(image, 7, 9), theirs[0, 0].numpy(), atol=2e-6)


def test_regions_are_unions_and_may_be_absent():
    mask = np.array([[[0, 1], [2, 4]], [[0, 0], [0, 3]]], np.int32)
    got = np.asarray(region_masks(mask, REGIONS))
    np.testing.assert_array_equal(got[0], [[[0, 1], [0, 0]], [[1, 0], [0, 0]], [[0, 0], [1, 1]]])
    np.testing.assert_array_equal(got[1], [[[0, 0], [0, 0]], [[1, 1], [1, 0]], [[0, 0], [0, 0]]])
    chunked = region_masks(np.repeat(mask, 5, axis=0), REGIONS, grid=(1, 2), batch_size=4)
    np.testing.assert_array_equal(chunked, np.repeat(region_masks(mask, REGIONS, grid=(1, 2)), 5, axis=0))


@pytest.mark.parametrize(
    ("mask", "regions", "grid", "message"),
    [
        (np.zeros((4, 4), int), REGIONS, None, r"`mask`: expected int .n h w., got int64 .4, 4."),
        (np.zeros((1, 4, 4), int), ((1,), ()), None, "`regions`: expected at least one label per region"),
        (np.zeros((1, 4, 4), int), REGIONS, (0, 4), "`grid`: expected height and width of at least 1, got .0, 4."),
    ],
)
def test_bad_arguments_are_refused(unchecked, mask, regions, grid, message):
    with pytest.raises(ContractError, match=message):
        region_masks(mask, regions, grid=grid)
