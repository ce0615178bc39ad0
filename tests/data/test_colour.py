import numpy as np
import pytest
from oracles.colored_mnist import paint

from jaxdebias.contracts import ContractError
from jaxdebias.data import every_colour
from jaxdebias.data._colour import PALETTE, SEVERITY_4, coloured_pairs, colourise, one_colour

GRAY = np.random.default_rng(0).integers(0, 256, (30, 5, 4), dtype=np.uint8)
LABEL = np.arange(30) % 10


def test_without_noise_it_is_the_palette_times_the_image():
    x = colourise(np.random.default_rng(0), GRAY, LABEL, sigma=0.0)
    np.testing.assert_array_equal(x, np.stack([paint(g, PALETTE[b]) for g, b in zip(GRAY, LABEL, strict=True)]))


def test_noise_is_one_draw_per_image_and_channel_around_the_palette():
    n = 4000
    white = np.full((n, 2, 2), 255, np.uint8)
    for b in (2, 7):  # colours away from 0 and 1, where nothing is clipped
        x = colourise(np.random.default_rng(b), white, np.full(n, b), sigma=0.05) / 255
        assert (x == x[:, :1, :1]).all()
        mean, deviation = x[:, 0, 0].mean(0), x[:, 0, 0].std(0)
        np.testing.assert_allclose(mean + 0.5 / 255, PALETTE[b], atol=5 * 0.05 / np.sqrt(n))  # trunc takes half a step
        np.testing.assert_allclose(deviation, 0.05, rtol=0.06)


def test_the_background_stays_black():
    assert colourise(np.random.default_rng(0), np.zeros((3, 4, 4), np.uint8), LABEL[:3], sigma=0.5).max() == 0


def test_every_colour_shows_each_digit_in_all_ten():
    batch = every_colour(np.random.default_rng(0), GRAY, LABEL, sigma=0.0)
    assert batch.x.shape == (300, 5, 4, 3)
    for i in (0, 17):
        rows = np.flatnonzero(batch.unit == i)
        np.testing.assert_array_equal(batch.attribute[rows], np.arange(10))
        assert set(batch.label[rows]) == {LABEL[i]}
        for row in rows:
            np.testing.assert_array_equal(batch.x[row], paint(GRAY[i], PALETTE[batch.attribute[row]]))


def test_pairs_show_the_aligned_colour_and_another_one():
    pairs = coloured_pairs(np.random.default_rng(0), GRAY, LABEL, sigma=0.0)
    np.testing.assert_array_equal(pairs.attribute, LABEL)
    np.testing.assert_array_equal(pairs.x, one_colour(np.random.default_rng(1), GRAY, LABEL, LABEL, sigma=0.0).x)
    for i, gray in enumerate(GRAY):
        matches = [b for b in range(10) if (pairs.twin[i] == paint(gray, PALETTE[b])).all()]
        assert len(matches) == 1
        assert matches[0] != LABEL[i]


def test_severity_four_is_published_and_negative_noise_refused():
    assert SEVERITY_4 == 0.005
    with pytest.raises(ContractError, match=r"`sigma`: expected at least 0, got float -1.0"):
        colourise(np.random.default_rng(0), GRAY, LABEL, sigma=-1.0)
