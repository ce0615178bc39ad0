import colorsys
import io
import sys

import numpy as np
import pytest
from oracles import corruptions as oracle
from oracles.cifar import pictures
from PIL import Image

from jaxdebias.contracts import ContractError
from jaxdebias.data._sets.corruptions import CHUNK, CORRUPTIONS, corrupt, frost_textures, plasma
from jaxdebias.data.streams import named_rng

RANDOM = {"snow", "frost", "fog", "spatter", "elastic"}
NOISY = np.random.default_rng(3).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
SMOOTH = pictures(6)[0]


def one(x, corruption, number=0):
    return corrupt(x[None], corruption, index=np.array([number]))[0]


def test_the_order_is_that_of_the_classes():
    assert CORRUPTIONS == (
        "snow",
        "frost",
        "fog",
        "brightness",
        "contrast",
        "spatter",
        "elastic",
        "jpeg",
        "pixelate",
        "saturate",
    )


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_picture_comes_out_the_same_in_any_company(corruption):
    before = NOISY.copy()
    index = np.array([5, 0, 70_000, 3, 2, 1])
    out = corrupt(NOISY, corruption, index=index)
    assert out.dtype == np.uint8
    assert out.shape == NOISY.shape
    np.testing.assert_array_equal(NOISY, before)
    assert (out != NOISY).any((1, 2, 3)).all()
    order = [4, 2, 0]
    np.testing.assert_array_equal(corrupt(NOISY[order], corruption, index=index[order]), out[order])
    for other in (corrupt(NOISY, corruption, index=index, seed=1), corrupt(NOISY, corruption, index=index + 1)):
        assert (other != out).any((1, 2, 3)).all() == (corruption in RANDOM)
    assert corrupt(NOISY[:0], corruption, index=index[:0]).shape == (0, 32, 32, 3)


def test_more_pictures_than_are_worked_on_at_a_time():
    n = CHUNK + 3
    many = np.broadcast_to(SMOOTH[0], (n, 32, 32, 3))
    out = corrupt(many, "spatter", index=np.arange(n))
    np.testing.assert_array_equal(out[-1], one(SMOOTH[0], "spatter", n - 1))
    np.testing.assert_array_equal(out[0], one(SMOOTH[0], "spatter", 0))


def by_hsv(x, change):
    """Pixel by pixel through the standard library; values in 0..255, not rounded."""
    out = np.empty((len(x), 3))
    for i, pixel in enumerate(x):
        out[i] = 255 * np.array(colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*(pixel / 255)))))
    return out


@pytest.mark.parametrize(
    ("corruption", "change"),
    [
        ("brightness", lambda h, s, v: (h, s, min(1, v + 0.3))),
        ("saturate", lambda h, s, v: (h, min(1, 2.5 * s + 0.2), v)),
    ],
)
def test_brightness_and_saturate_are_changes_of_hsv(corruption, change):
    x = NOISY[0].copy()
    x[0, :4] = [[0, 0, 0], [255, 255, 255], [90, 90, 90], [0, 200, 0]]
    expected = by_hsv(x.reshape(-1, 3), change)
    got = one(x, corruption).reshape(-1, 3)
    assert (got <= expected + 1e-3).all()  # truncated
    assert (got > expected - 1 - 1e-3).all()


def test_brightness_keeps_the_hue_where_nothing_is_clipped():
    np.testing.assert_array_equal(one(np.full((32, 32, 3), (50, 100, 25), np.uint8), "brightness")[0, 0], [88, 176, 44])


def test_saturate_turns_grey_reddish():
    np.testing.assert_array_equal(one(np.full((32, 32, 3), 100, np.uint8), "saturate")[0, 0], [100, 80, 80])


def test_contrast_is_about_the_mean_of_each_channel():
    x = NOISY[1]
    for c in range(3):
        mean = sum(int(v) for v in x[..., c].ravel()) / 1024
        expected = [[int(mean + 0.15 * (int(v) - mean) + 1e-6) for v in row] for row in x[..., c]]
        np.testing.assert_array_equal(one(x, "contrast")[..., c], expected)


def test_pixelate_is_pillows_box_filter():
    for x in (NOISY[2], SMOOTH[0]):
        out = one(x, "pixelate")
        small = Image.fromarray(x).resize((20, 20), Image.Resampling.BOX)
        np.testing.assert_array_equal(out, np.asarray(small.resize((32, 32), Image.Resampling.BOX)))
        assert len(np.unique(out, axis=0)) <= 20
        assert len(np.unique(out, axis=1).reshape(-1)) <= 20 * 32 * 3


def test_jpeg_is_pillows_at_quality_40():
    buffer = io.BytesIO()
    Image.fromarray(SMOOTH[1]).save(buffer, "JPEG", quality=40)
    np.testing.assert_array_equal(one(SMOOTH[1], "jpeg"), np.asarray(Image.open(buffer)))


def test_jpeg_without_pillow_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ContractError, match=r"`pillow`: expected to be installed .pip install 'jaxdebias\[data\]'"):
        one(SMOOTH[0], "jpeg")
    one(SMOOTH[0], "pixelate")  # needs none


def near(got, expected):
    """Equal to the truncated oracle; an oracle that lies on a whole number may be off by the rounding error."""
    assert ((got <= expected + 1e-6) & (got > expected - 1 - 1e-6)).all()


@pytest.mark.parametrize("number", [0, 1])
def test_snow_against_the_loops(number):
    rng = named_rng(0, f"snow {number}")
    noise, angle = rng.normal(0.3, 0.3, (32, 32)), rng.uniform(-135, -45)
    near(one(SMOOTH[2], "snow", number), oracle.snow(SMOOTH[2], noise, angle))


def test_snow_falls_from_above():
    """The flakes of one draw on black, without the second layer: what is lit has a flake above it, not below."""
    black = corrupt(np.zeros((40, 32, 32, 3), np.uint8), "snow", index=np.arange(40))[..., 0].astype(float)
    assert black.min() >= 255 * 0.2 * 0.5 - 1  # whitened
    assert np.array_equal(black, black[:, ::-1, ::-1])  # two layers, one turned
    down = np.corrcoef(black[:, 1:].ravel(), black[:, :-1].ravel())[0, 1]
    across = np.corrcoef(black[:, :, 1:].ravel(), black[:, :, :-1].ravel())[0, 1]
    assert down > across


def test_plasma_against_the_loops():
    uniform = np.random.default_rng(0).uniform(-1, 1, (3, 1023))
    got = plasma(uniform, decay=1.75)
    for i in range(3):
        np.testing.assert_allclose(got[i], oracle.plasma(uniform[i], 1.75), atol=1e-12)


def test_fog_keeps_the_brightest_value_and_lies_smoothly():
    white = np.full((20, 32, 32, 3), 255, np.uint8)
    fog = corrupt(white, "fog", index=np.arange(20))[..., 0].astype(float)
    assert fog.min() == 102  # 255 / 2.5
    assert fog.max() == 255
    step, spread = np.abs(np.diff(fog, axis=1)).mean(), fog.std((1, 2)).mean()
    assert step < 0.5 * spread  # independent values would differ by 1.13 standard deviations
    assert corrupt(np.zeros_like(white), "fog", index=np.arange(20)).max() == 0
    haze = plasma(named_rng(0, "fog 4").uniform(-1, 1, (1, 1023)), decay=1.75)[0]
    x, top = SMOOTH[3].astype(float), int(SMOOTH[3].max())
    near(one(SMOOTH[3], "fog", 4), (x + 382.5 * haze[..., None]) * top / (top + 382.5))


def test_spatter_covers_spots_with_mud_and_leaves_the_rest():
    white = np.full((50, 32, 32, 3), 255, np.uint8)
    out = corrupt(white, "spatter", index=np.arange(50))
    muddy = (out < 255).any(-1)
    assert (out[~muddy] == 255).all()
    assert (out[muddy] <= np.array([255, 255, 255]) - 0.8 * np.array([192, 213, 235]) + 1e-6).all()
    assert (out[muddy] >= [63, 42, 20]).all()
    assert 0.03 < muddy.mean() < 0.15
    seen = one(SMOOTH[4], "spatter", 7)
    np.testing.assert_array_equal(seen[~muddy[7]], SMOOTH[4][~muddy[7]])
    alone = muddy & ~(np.roll(muddy, 1, 1) | np.roll(muddy, -1, 1) | np.roll(muddy, 1, 2) | np.roll(muddy, -1, 2))
    assert alone.sum() < 0.5 * muddy.sum()  # spots, not single pixels


def test_elastic_against_scipy():
    rng = named_rng(0, "elastic 9")
    jitter, field = rng.uniform(-0.96, 0.96, (3, 2)), rng.uniform(-1, 1, (2, 32, 32))
    near(one(NOISY[3], "elastic", 9), oracle.elastic(NOISY[3], jitter, field))


def test_elastic_keeps_a_constant_picture():
    flat = np.full((5, 32, 32, 3), (10, 130, 253), np.uint8)
    np.testing.assert_array_equal(corrupt(flat, "elastic", index=np.arange(5)), flat)


def test_frost_is_a_crop_of_the_generated_ice():
    ice = frost_textures()
    assert [len(np.unique(sheet)) > 150 for sheet in ice] == [True] * 5
    assert all(30 < sheet.std() < 100 and 90 < sheet.mean() < 200 for sheet in ice)
    for i, j in ((0, 1), (2, 4)):
        assert (ice[i] != ice[j]).mean() > 0.5
    out = corrupt(NOISY, "frost", index=np.arange(6))
    rest = out - 0.75 * NOISY
    assert rest.min() > -1
    for i in range(6):
        if out[i].max() < 255:
            continue
        assert rest[i][out[i] < 255].max() <= 0.45 * 255
    black = one(np.zeros((32, 32, 3), np.uint8), "frost", 2)
    windows = np.lib.stride_tricks.sliding_window_view(ice, (32, 32), (1, 2))
    at = (windows[:, :, :, :, 0, 0] * 0.45 + 1e-6).astype(np.uint8) == black[0, 0]
    found = [
        place
        for place in np.argwhere(at.all(-1))
        if ((windows[tuple(place)] * 0.45 + 1e-6).astype(np.uint8) == black.transpose(2, 0, 1)).all()
    ]
    assert len(found) == 1


@pytest.mark.parametrize(
    ("images", "corruption", "index", "message"),
    [
        (NOISY[:1], "snw", [0], "`corruption`: expected one of snow, .* .did you mean 'snow'"),
        (NOISY[:1, 4:], "snow", [0], r"`images`: expected uint8 \[n, 32, 32, 3\], got uint8 \[1, 28, 32, 3\]"),
        (NOISY[:1], "snow", [-1], "`index`: expected values of at least 0"),
    ],
)
def test_bad_requests_are_refused(images, corruption, index, message):
    with pytest.raises(ContractError, match=message):
        corrupt(images, corruption, index=np.array(index))
