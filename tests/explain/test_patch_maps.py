"""Confidences against their definitions, maps against a loop over patches and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import patches as oracle

from jaxdebias.contracts import ContractError
from jaxdebias.explain import fold, general_map, image_maps, localise, patch_confidence
from jaxdebias.explain._patch_maps import CONFIDENCES, cover_counts

RNG = np.random.default_rng(0)
PRIOR = np.array([0.6, 0.3, 0.1])
LOGITS = RNG.normal(size=(4, 2, 3, 3), scale=2.0).astype(np.float32)
LABELS = np.array([2, 0, 1, 1], np.int32)


def softmax(logits):
    q = np.exp(logits - logits.max(-1, keepdims=True))
    return q / q.sum(-1, keepdims=True)


def test_confidences_are_their_definitions():
    q = softmax(LOGITS.astype(np.float64) / 1.7)
    top = np.sort(q, -1)
    own = np.stack([q[i, ..., label] / PRIOR[label] for i, label in enumerate(LABELS)])
    wanted = {
        "info_gain": (q * np.log(q / PRIOR)).sum(-1),
        "neg_entropy": (q * np.log(q)).sum(-1),
        "margin": top[..., -1] - top[..., -2],
        "top_softmax": top[..., -1],
        "pointwise": np.log(own),
    }
    assert set(wanted) == set(CONFIDENCES)
    for kind, values in wanted.items():
        found = patch_confidence(LOGITS, kind=kind, prior=PRIOR, labels=LABELS, temperature=1.7)
        np.testing.assert_allclose(found, values, atol=2e-6, err_msg=kind)


def test_the_prior_says_nothing():
    logits = np.broadcast_to(np.log(PRIOR) + 5.0, (2, 3, 3, 3)).astype(np.float32)
    np.testing.assert_allclose(patch_confidence(logits, prior=PRIOR), 0.0, atol=1e-6)
    np.testing.assert_allclose(patch_confidence(logits, kind="pointwise", prior=PRIOR, labels=LABELS[:2]), 0, atol=1e-6)


@pytest.mark.parametrize("kind", CONFIDENCES)
def test_confidences_of_extreme_logits_are_finite(kind):
    logits = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]], np.float32)
    found = np.asarray(patch_confidence(logits, kind=kind, prior=PRIOR, labels=LABELS[:3]))
    assert np.isfinite(found).all()
    if kind == "info_gain":
        np.testing.assert_allclose(found[0], -np.log(0.6), rtol=1e-5)


def test_counts_equal_a_loop():
    for length, patch, stride in ((20, 6, 1), (21, 6, 2), (20, 5, 3), (32, 4, 4), (19, 7, 5), (9, 9, 2), (15, 3, 5)):
        covered = np.zeros(length, int)
        for y in oracle.starts(length, patch, stride):
            covered[y : y + patch] += 1
        np.testing.assert_array_equal(cover_counts(length, patch, stride), covered, err_msg=f"{length, patch, stride}")


@pytest.mark.parametrize(
    ("patch", "stride", "size"),
    [
        (6, 1, (14, 11)),
        (6, 2, (14, 12)),
        (6, 3, (15, 12)),
        (6, 4, (14, 18)),
        (5, 5, (20, 15)),  # s divides h - P
        (6, 4, (13, 18)),
        (6, 3, (14, 13)),
        (6, 5, (12, 20)),  # it does not
    ],
)
def test_fold_equals_a_loop(patch, stride, size):
    tops, lefts = (oracle.starts(length, patch, stride, flush=True) for length in size)
    values = RNG.normal(size=(2, len(tops), len(lefts))).astype(np.float32)
    even = all((length - patch) % stride == 0 for length in size)
    found = fold(values, size, patch=patch, stride=stride, edge="error" if even else "flush")
    wanted = np.stack([oracle.fold(one.astype(np.float64), size, patch, tops, lefts)[0] for one in values])
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    constant = fold(np.full((len(tops), len(lefts)), 0.3, np.float32), size, patch=patch, stride=stride, edge="flush")
    np.testing.assert_allclose(constant, 0.3, atol=1e-6)


def test_nearest_repeats_the_last_covered_pixel():
    values = RNG.normal(size=(3, 3)).astype(np.float32)
    found = np.asarray(fold(values, (12, 10), patch=4, stride=3, edge="nearest"))
    covered, _ = oracle.fold(values.astype(np.float64), (12, 10), 4, *[oracle.starts(n, 4, 3) for n in (12, 10)])
    np.testing.assert_allclose(found[:10], covered[:10], atol=1e-6)
    np.testing.assert_array_equal(found[10:], np.broadcast_to(found[9:10], (2, 10)))


def test_one_informative_pixel_gives_a_triangle():
    """Every patch that covers it says c1, every other c0: c0 + (c1 - c0) L(dy) L(dx), L(d) = max(0, 1 - |d| / P)."""
    patch, size, c0, c1 = 6, (31, 30), 0.1, 0.8
    y0, x0 = 15, 14
    tops, lefts = np.arange(size[0] - patch + 1), np.arange(size[1] - patch + 1)
    sees = ((tops <= y0) & (y0 < tops + patch))[:, None] & ((lefts <= x0) & (x0 < lefts + patch))[None]
    found = fold(np.where(sees, c1, c0).astype(np.float32), size, patch=patch, stride=1)
    dy, dx = (
        np.maximum(0, 1 - np.abs(np.arange(length) - centre) / patch)
        for length, centre in zip(size, (y0, x0), strict=True)
    )
    np.testing.assert_allclose(found, c0 + (c1 - c0) * dy[:, None] * dx[None], atol=1e-6)


def brightness(params, crops):
    """Logits of a crop: more for class 1 the brighter its corner is."""
    corner = crops[:, :2, :2].astype(jnp.float32).mean((1, 2, 3)) / 255
    return params * jnp.stack([1 - corner, corner], axis=1)


@pytest.mark.parametrize("confidence", ["info_gain", "pointwise"])
def test_maps_of_images_and_of_the_data_set(confidence):
    """By batches of 2 of 5 rows; the data set's map is the mean of those of its images."""
    images = RNG.integers(0, 256, (5, 10, 9, 3)).astype(np.uint8)
    labels, prior = np.array([0, 1, 1, 0, 1], np.int32), np.array([0.4, 0.6])
    options = {
        "stride": 2,
        "patch": 4,
        "prior": prior,
        "labels": labels,
        "confidence": confidence,
        "temperature": 0.5,
        "edge": "flush",
        "batch_size": 2,
    }
    maps = image_maps(brightness, np.float32(3.0), images, **options)
    tops, lefts = oracle.starts(10, 4, 2, True), oracle.starts(9, 4, 2, True)
    for image, label, found in zip(images, labels, maps, strict=True):
        cut = oracle.crops(image[None], 4, tops, lefts)[0]
        bright = cut[:, :, :2, :2].mean((2, 3, 4)) / 255
        q = softmax(np.stack([1 - bright, bright], -1) * 6.0)
        values = (q * np.log(q / prior)).sum(-1) if confidence == "info_gain" else np.log(q[..., label] / prior[label])
        np.testing.assert_allclose(found, oracle.fold(values, (10, 9), 4, tops, lefts)[0], atol=1e-5)
    np.testing.assert_allclose(general_map(brightness, np.float32(3.0), images, **options), maps.mean(0), atol=1e-6)


def test_localised():
    spot = np.full((20, 20), 0.01)
    spot[2:6, 2:6] = 1.0
    found = localise(spot)
    # The top 30 % are 120 pixels: the 16 bright ones and 104 of the others, of 16 + 3.84 in all.
    assert found.raw_share == pytest.approx((16 + 1.04) / (16 + 3.84))
    assert found.top_share == pytest.approx(1.0)
    assert not found.spread
    assert found.warning is None
    ramp = localise(np.broadcast_to(np.linspace(0.35, 0.5, 100)[:, None], (100, 7)))
    assert ramp.raw_share == pytest.approx(0.337, abs=1e-3)
    assert ramp.spread
    assert "30 % of the pixels hold 34 %" in ramp.warning
    flat = localise(np.zeros((7, 9)))
    assert flat.spread
    assert (flat.raw_share, flat.gini) == (0.3, 0.0)
    assert localise(np.full((7, 9), 2.0)).raw_share == pytest.approx(0.3)
    assert localise(np.full((7, 9), -0.6), nothing=-np.log(2)).raw_share == pytest.approx(0.3)
    values = RNG.uniform(size=(5, 6))
    pairs = np.abs(values.ravel()[:, None] - values.ravel()[None]).mean()
    assert localise(values).gini == pytest.approx(pairs / (2 * values.mean()))


def test_refuses():
    with pytest.raises(ContractError, match="prior"):
        patch_confidence(LOGITS)
    with pytest.raises(ContractError, match=r"prior.*sum to 1"):
        patch_confidence(LOGITS, prior=np.array([0.5, 0.5, 0.5]))
    with pytest.raises(ContractError, match="labels"):
        patch_confidence(LOGITS, kind="pointwise", prior=PRIOR)
    with pytest.raises(ContractError, match=r"labels.*0\.\.2"):
        patch_confidence(LOGITS, kind="pointwise", prior=PRIOR, labels=LABELS + 2)
    with pytest.raises(ContractError, match="did you mean 'margin'"):
        patch_confidence(LOGITS, kind="margins")
    values = np.zeros((3, 3), np.float32)
    with pytest.raises(ContractError, match=r"edge.*left over"):
        fold(values, (12, 10), patch=4, stride=3)
    with pytest.raises(ContractError, match=r"confidences.*\[\.\.\. 4 3\]"):
        fold(values, (12, 10), patch=4, stride=3, edge="flush")
    with pytest.raises(ContractError, match="stride"):
        fold(values, (14, 14), patch=4, stride=5)
    with pytest.raises(ContractError, match="map"):
        localise(np.full((3, 3), np.nan))


def test_fold_can_be_differentiated():
    slope = jax.grad(lambda values: fold(values, (6, 6), patch=4, stride=2)[0, 0])(jnp.zeros((2, 2)))
    np.testing.assert_array_equal(slope, [[1, 0], [0, 0]])
