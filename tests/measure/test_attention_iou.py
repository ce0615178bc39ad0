import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import attention as oracle
from precision import enable_x64

from jaxdebias.contracts import ContractError
from jaxdebias.measure import (
    area_fraction,
    attention_iou,
    chance_attention_iou,
    has_mass,
    histogram_overlap,
    mask_scores,
    pairwise_attention_iou,
    pointing_game,
    top_pixel_iou,
)

module = sys.modules[attention_iou.__module__]  # the room exports a function of the same name


def box(top, bottom, left, right, side=8):
    mask = np.zeros((side, side), np.float32)
    mask[top:bottom, left:right] = 1
    return mask


def some_maps(*shape, seed=0, dtype=np.float32):
    """Half of the pixels 0, as a ReLU leaves them."""
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=shape), 0).astype(dtype)


CASES = {
    "a map with itself": (some_maps(8, 8), some_maps(8, 8), 1.0),
    "disjoint": (box(0, 4, 0, 8), box(4, 8, 0, 8), 0.0),
    "uniform and a quarter": (np.ones((8, 8), np.float32), box(0, 4, 0, 4), 4 / 7),
    "a quarter in a half": (box(0, 4, 0, 4), box(0, 4, 0, 8), 0.8),
    "equal boxes that share half": (box(0, 4, 0, 4), box(0, 4, 2, 6), 2 / 3),
    "areas 4 and 12 that share 2": (box(0, 2, 0, 2), box(0, 2, 1, 7), 4 * 2 / (4 + 12 + 2 * 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_known_values(name):
    a, b, expected = CASES[name]
    assert float(attention_iou(a, b)) == pytest.approx(expected, abs=1e-6)
    assert float(attention_iou(b, a)) == pytest.approx(expected, abs=1e-6)


def test_exact_in_double_precision():
    with enable_x64(True):
        a, b = some_maps(6, 7, 5, dtype=np.float64), some_maps(6, 7, 5, seed=1, dtype=np.float64)
        expected = np.array([oracle.attention_iou(x, y) for x, y in zip(a, b, strict=True)])
        np.testing.assert_allclose(attention_iou(a, b), expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(attention_iou(a, a), 1.0, rtol=0, atol=1e-12)
        for scale in (1e-12, 1e6):
            np.testing.assert_allclose(attention_iou(scale * a, b), expected, rtol=0, atol=1e-12)
        maps, masks = a[None], b[None, :3] > 0.5
        pairs = [[oracle.attention_iou(x, y) for y in a] for x in a]
        np.testing.assert_allclose(pairwise_attention_iou(maps)[0], pairs, rtol=0, atol=1e-12)
        regions = [[oracle.attention_iou(x, y) for y in masks[0]] for x in a]
        np.testing.assert_allclose(mask_scores(maps, masks)[0], regions, rtol=0, atol=1e-12)
        # Tanimoto's J of the normalised maps, J -> 4J / (1 + 3J).
        p, q = (x.reshape(6, -1) / x.sum((1, 2))[:, None] for x in (a, b))
        inner = (p * q).sum(1)
        tanimoto = inner / ((p**2).sum(1) + (q**2).sum(1) - inner)
        np.testing.assert_allclose(expected, 4 * tanimoto / (1 + 3 * tanimoto), rtol=0, atol=1e-12)


def test_range_and_precision_over_many_pairs():
    a, b = some_maps(10_000, 4, 4) ** 3, some_maps(10_000, 4, 4, seed=1) ** 3
    # Some maps of 16 pixels have no mass at all: 2^-16 each.
    score = np.asarray(attention_iou(a, b, zero=0.0))
    assert 0 <= score.min() < 0.01
    assert 0.5 < score.max() <= 1 + 1e-6
    with enable_x64(True):
        np.testing.assert_allclose(score, attention_iou(a.astype(np.float64), b, zero=0.0), atol=1e-5)
    for scale in (1e-12, 1e6):
        np.testing.assert_allclose(attention_iou(np.float32(scale) * a[:50], b[:50], zero=0.0), score[:50], atol=1e-5)


def test_what_changes_a_score_and_what_does_not():
    a, b = some_maps(3, 7, 7), some_maps(3, 7, 7, seed=1)
    score = attention_iou(a, b)
    order = np.random.default_rng(2).permutation(49)
    shuffled = [x.reshape(3, 49)[:, order].reshape(3, 7, 7) for x in (a, b)]
    np.testing.assert_allclose(attention_iou(*shuffled), score, atol=1e-6)
    repeated = [np.kron(x, np.ones((1, 3, 2), np.float32)) for x in (a, b)]
    np.testing.assert_allclose(attention_iou(*repeated), score, atol=1e-6)
    smooth = [jax.image.resize(x, (3, 28, 28), "linear") for x in (a, b)]
    assert (abs(attention_iou(*smooth) - score) > 0.05).all()  # the grid is part of the score


def test_maps_without_mass():
    maps = some_maps(2, 3, 4, 4)
    maps[0, 1] = 0
    masks = np.stack([np.stack([box(0, 2, 0, 2, 4), np.zeros((4, 4), np.float32)])] * 2)
    assert has_mass(maps).tolist() == [[True, False, True], [True, True, True]]
    for zero, expected in (("nan", np.nan), (0.0, 0.0)):
        pairs = np.asarray(pairwise_attention_iou(maps, zero=zero))
        np.testing.assert_array_equal(pairs[0, 1], [expected] * 3)
        np.testing.assert_array_equal(pairs[0, :, 1], [expected] * 3)
        np.testing.assert_array_equal(np.diagonal(pairs[1]), np.ones(3, np.float32))
        scores = np.asarray(mask_scores(maps, masks, zero=zero))
        np.testing.assert_array_equal(scores[:, :, 1], np.full((2, 3), expected))
        np.testing.assert_array_equal(scores[0, 1], [expected] * 2)
        assert (scores[1, :, 0] > 0).all()
        for other in (histogram_overlap, top_pixel_iou, pointing_game):
            np.testing.assert_array_equal(other(maps[0, 0], masks[0, 1], zero=zero), expected)
            np.testing.assert_array_equal(other(maps[0, 1], masks[0, 0], zero=zero), expected)
    present = has_mass(maps)[:, :, None] & has_mass(masks)[:, None, :]
    np.testing.assert_array_equal(np.isfinite(mask_scores(maps, masks)), present)


def test_gradients_are_true_and_finite_without_mass():
    with enable_x64(True):
        maps, masks = some_maps(1, 2, 3, 3, dtype=np.float64) + 0.1, some_maps(1, 2, 3, 3, seed=1, dtype=np.float64)

        def penalty(maps):
            return jnp.sum(mask_scores(maps, masks, zero=0.0)) + jnp.sum(pairwise_attention_iou(maps, zero=0.0)[:, 0])

        gradient, value = jax.jit(jax.grad(penalty)), jax.jit(penalty)
        slope = np.asarray(gradient(maps)).ravel()
        for i, step in enumerate(1e-6 * np.eye(maps.size)):
            up, down = (float(value(maps + sign * step.reshape(maps.shape))) for sign in (1, -1))
            assert slope[i] == pytest.approx((up - down) / 2e-6, abs=1e-7)
        maps[0, 1] = 0
        slope = np.asarray(gradient(maps))
        assert np.isfinite(slope).all()
        assert abs(slope[0, 0]).max() > 1e-3
        np.testing.assert_array_equal(slope[0, 1], 0)
        of_two = jax.grad(lambda a: jnp.sum(attention_iou(a, masks[0], zero=0.0)))(maps[0])
        assert np.isfinite(of_two).all()


def test_jit_vmap_and_loops_agree():
    maps, masks = some_maps(4, 3, 5, 5), some_maps(4, 2, 5, 5, seed=1)
    pairs, regions = pairwise_attention_iou(maps), mask_scores(maps, masks)
    np.testing.assert_allclose(jax.jit(pairwise_attention_iou)(maps), pairs, atol=1e-6)
    by_vmap = jax.vmap(lambda m, r: mask_scores(m[None], r[None])[0])(maps, masks)
    np.testing.assert_allclose(by_vmap, regions, atol=1e-6)
    for i in range(3):
        for j in range(3):
            np.testing.assert_allclose(attention_iou(maps[:, i], maps[:, j]), pairs[:, i, j], atol=1e-6)
        for r in range(2):
            np.testing.assert_allclose(attention_iou(maps[:, i], masks[:, r]), regions[:, i, r], atol=1e-6)
    np.testing.assert_allclose(jax.vmap(attention_iou)(maps[:, 0], maps[:, 1]), pairs[:, 0, 1], atol=1e-6)


def test_a_second_call_compiles_nothing(monkeypatch):
    traced, shares = [], module._shares
    monkeypatch.setattr(module, "_shares", lambda maps: traced.append(1) or shares(maps))
    maps = some_maps(2, 3, 4, 6)
    for call in (attention_iou, mask_scores):
        for zero in ("nan", 0.0):
            call(maps, maps, zero=zero)
            first = len(traced)
            assert first > 0
            call(maps, maps, zero=zero)
            assert len(traced) == first


def test_chance_is_what_a_uniform_map_scores():
    masks = np.stack([box(0, 2, 0, 4), box(0, 8, 0, 7), some_maps(8, 8), np.zeros((8, 8), np.float32)])
    fraction = area_fraction(masks)
    np.testing.assert_allclose(fraction[:2], [8 / 64, 56 / 64], rtol=1e-6)
    uniform = mask_scores(np.full((1, 1, 8, 8), 3.0, np.float32), masks[None], zero=0.0)[0, 0]
    np.testing.assert_allclose(chance_attention_iou(fraction), uniform, atol=1e-6)
    np.testing.assert_allclose(
        chance_attention_iou(np.array([0.25, 0.05, 0.03])), [4 / 7, 4 / 23, 4 / (3 + 1 / 0.03)], rtol=1e-6
    )


def test_comparison_scores():
    a, b = some_maps(5, 6, 4), some_maps(5, 6, 4, seed=1)
    a[0, :2] = a[0].max() + 1  # ties
    masks = (b > 0.4).astype(np.float32)
    for function, slow in (
        (histogram_overlap, oracle.overlap),
        (top_pixel_iou, oracle.top_pixel_iou),
        (pointing_game, oracle.pointing_game),
    ):
        expected = [slow(x, m) for x, m in zip(a, masks, strict=True)]
        np.testing.assert_allclose(function(a, masks), expected, atol=1e-6)
    assert len({round(float(value), 4) for value in pointing_game(masks, masks)}) > 2  # each image has its own mask
    np.testing.assert_allclose(histogram_overlap(a, a), 1.0, atol=1e-6)
    np.testing.assert_allclose(top_pixel_iou(masks, masks), 1.0)


def test_what_is_no_map_is_refused(unchecked):
    good = np.ones((2, 3, 4, 4), np.float32)
    bad = good.copy()
    bad[0, 1, 2, 2] = -0.5
    for value, said in ((-0.5, "-0.5..1"), (np.nan, "nan"), (np.inf, "1..inf")):
        bad[0, 1, 2, 2] = value
        with pytest.raises(ContractError, match=f"`maps`: expected finite values of at least 0, got {said}"):
            pairwise_attention_iou(bad)
        # Inside jit values cannot be refused: no number comes out, whatever `zero` says.
        scores = np.asarray(jax.jit(lambda m: pairwise_attention_iou(m, zero=0.0))(bad))
        assert np.isnan(scores[0, 1]).all()
        assert np.isnan(scores[0, :, 1]).all()
        assert np.isfinite(scores[1]).all()
    with pytest.raises(ContractError, match=r"`b`: expected the shape of a, .4, 4., got float32 .3, 4."):
        attention_iou(good[0, 0], good[0, 0, :3])
    with pytest.raises(ContractError, match=r"`masks`: expected .n=2, r, 4, 4., the images and grid of the maps, got"):
        mask_scores(good, good[:, :, :2])
    with pytest.raises(ContractError, match=r"`zero`: expected .nan. or 0.0, got float 1.0"):
        attention_iou(good, good, zero=1.0)
    with pytest.raises(ContractError, match=r"`a`: expected maps .... h w., got float32 .4."):
        attention_iou(good[0, 0, 0], good[0, 0, 0])


@pytest.mark.alone
@pytest.mark.slow
def test_all_pairs_of_forty_maps_of_4500_images_in_a_second():
    maps = jax.block_until_ready(jnp.asarray(some_maps(4500, 40, 7, 7)))
    took = []
    for _ in range(6):
        start = time.perf_counter()
        jax.block_until_ready(pairwise_attention_iou(maps))
        took.append(time.perf_counter() - start)
    assert statistics.median(took[1:]) < 1.0, took


def test_as_many_top_pixels_count_as_the_region_has():
    """The third pixel of the map lies in the region of two: it must not count."""
    map, region = np.array([[4.0, 3.0], [2.0, 1.0]], np.float32), np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    assert float(top_pixel_iou(map, region)) == pytest.approx(1 / 3)
