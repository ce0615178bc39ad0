import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.mitigate import budget_mask, mask_iou, protect, quantile_mask, soft_strength
from jaxdebias.mitigate._patch_noise.masks import pack, random_pixels, unpack, weakest_pixels

RNG = np.random.default_rng(0)
MAPS = RNG.random((5, 9, 13)).astype(np.float32)


@pytest.mark.parametrize("q", [0.0, 0.3, 0.7, 0.95])
def test_a_quantile_mask_is_strictly_above_each_map_s_own_quantile(q):
    masks = quantile_mask(MAPS, q)
    for mask, one in zip(masks, MAPS, strict=True):
        np.testing.assert_array_equal(mask, quantile_mask(one, q))
        assert one[mask].min() > one[~mask].max()
        assert mask.sum() == pytest.approx((1 - q) * one.size, abs=1)
    assert not quantile_mask(np.full((4, 4), 0.1, np.float32), q).any()


def fewest(values, share):
    """Sizes one by one until the sum suffices."""
    order = np.argsort(-values)
    for count in range(1, len(values) + 1):
        if values[order[:count]].sum() >= share * values.sum():
            return order[:count]
    raise AssertionError


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_budget_takes_the_fewest_pixels(share):
    maps = MAPS.astype(np.float64) ** 4
    for floor in (None, 0.2):
        per_image = budget_mask(maps, share, per_image=True, floor=floor)
        for mask, one in zip(per_image, maps, strict=True):
            above = np.maximum(one - (one.min() if floor is None else floor), 0).ravel()
            np.testing.assert_array_equal(np.flatnonzero(mask), np.sort(fewest(above, share)))
        together = budget_mask(maps, share, floor=floor)
        above = np.maximum(maps - (maps.min() if floor is None else floor), 0).ravel()
        np.testing.assert_array_equal(np.flatnonzero(together), np.sort(fewest(above, share)))
    # A common threshold costs an image with more information more pixels.
    counts = budget_mask(np.stack([maps[0], 0.1 * maps[1]]), 0.5, floor=0.0).sum((1, 2))
    assert counts[0] > 3 * counts[1]


def test_a_budget_is_small_for_a_marker_and_large_for_a_spread_out_bias():
    marker = np.full((20, 20), 0.02)
    marker[2:6, 2:6] = 1.0
    assert budget_mask(marker, 0.9).sum() == 16
    assert budget_mask(1 + RNG.random((20, 20)), 0.9).mean() > 0.5
    assert not budget_mask(np.ones((4, 4)), 0.9).any()


def test_strengths():
    strength = soft_strength(MAPS, 2.0)
    assert strength.dtype == np.float32
    for one, map_ in zip(strength, MAPS, strict=True):
        np.testing.assert_allclose(one, ((map_ - map_.min()) / (map_.max() - map_.min())) ** 2, rtol=1e-5)
    assert (soft_strength(MAPS, 0.0) == 1).all()
    # A large power leaves the maximum alone.
    np.testing.assert_array_equal(soft_strength(MAPS, 1e6)[0] > 0, MAPS[0] == MAPS[0].max())
    assert not soft_strength(np.ones((3, 3), np.float32)).any()


def test_protect_spares_the_target_and_says_how_much_they_overlap():
    mask = np.zeros((6, 10), bool)
    mask[:, :5] = True
    target = np.zeros((6, 10), np.float32)
    target[:, 4:7] = 1 + RNG.random((6, 3))
    saved = protect(mask, target, q=0.7)
    assert saved.target.sum() == 18
    np.testing.assert_array_equal(saved.mask, mask & ~(target > 0))
    assert saved.overlap == pytest.approx(6 / 42)
    assert saved.spared == pytest.approx(6 / 30)
    each = protect(np.stack([mask, ~mask]), target, q=0.7)
    assert each.mask.sum(axis=(1, 2)).tolist() == [24, 18]
    same = protect(mask, mask.astype(np.float32), q=0.4)
    assert (same.overlap, same.spared, same.mask.any()) == (1.0, 1.0, False)
    with pytest.raises(ContractError, match=r"`target_map`: expected a map \[6, 10\], or one per mask"):
        protect(mask, np.zeros((5, 6, 10), np.float32))


def test_controls_have_the_same_area():
    masks = quantile_mask(MAPS, 0.7)
    random = random_pixels(masks, seed=3)
    np.testing.assert_array_equal(random.sum((1, 2)), masks.sum((1, 2)))
    np.testing.assert_array_equal(random, random_pixels(masks, seed=3))
    assert mask_iou(random, masks) < 0.4
    weakest = weakest_pixels(MAPS, masks.sum((1, 2)))
    np.testing.assert_array_equal(weakest.sum((1, 2)), masks.sum((1, 2)))
    assert mask_iou(weakest, masks) == 0
    for mask, one in zip(weakest, MAPS, strict=True):
        assert one[mask].max() < one[~mask].min()
    assert weakest_pixels(MAPS[0], masks[0].sum()).sum() == masks[0].sum()


@pytest.mark.parametrize("width", [1, 7, 8, 9, 64])
def test_bits_are_the_masks_again(width):
    masks = RNG.random((3, 5, width)) < 0.4
    bits = jax.jit(pack)(masks)
    assert bits.shape == (3, 5, -(-width // 8))
    assert bits.dtype == jnp.uint8
    again = jax.jit(unpack, static_argnums=1)(bits, width)
    np.testing.assert_array_equal(again, masks)
    np.testing.assert_array_equal(unpack(pack(masks[0]), width), masks[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quantile_mask(MAPS, 1.0), r"`q`: expected a quantile in \[0, 1\), got 1.0"),
        (lambda: quantile_mask(np.full((2, 2), np.nan, np.float32)), "`maps`: expected finite values, got 4 of 4"),
        (lambda: budget_mask(MAPS, 0.0), "`share`: expected a share above 0 and at most 1, got 0.0"),
        (lambda: soft_strength(MAPS, -1.0), "`gamma`: expected at least 0, got -1.0"),
        (lambda: weakest_pixels(MAPS[0], 118), r"`area`: expected 0..117 pixels"),
        (lambda: unpack(pack(np.ones((2, 8), bool)), 9), "`width`: expected 1..8 pixels, got 9"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ContractError, match=message):
        call()
