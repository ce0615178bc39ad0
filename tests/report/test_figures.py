import base64
import io
import re

import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.report import figures
from jaxdebias.results.records import Interval


def test_bar_is_as_long_as_its_value_and_interval():
    svg = figures.bar(Interval(value=0.25, low=0.2, high=0.31, n=9), "before")
    assert '<rect class="before" width="25.00%"' in svg
    assert 'x1="20.00%" x2="31.00%"' in svg
    assert 'width="50.00%"' in figures.length(2, "other", full=4.0)


def test_bar_marks_a_level():
    rate = Interval(value=0.25, low=None, high=None, n=None)
    assert 'class="mark" x1="40.00%" x2="40.00%"' in figures.bar(rate, "before", mark=0.4)
    assert "mark" not in figures.bar(rate, "before")


def pixels_of(tag):
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", tag)[1]))))


def test_heat_map_gets_lighter_with_its_values():
    drawn = pixels_of(figures.heat_map(np.linspace(0, 1, 12).reshape(2, 6), "map"))
    assert drawn.shape == (2, 6, 3)
    assert (np.diff(drawn.reshape(12, 3) @ (0.3, 0.59, 0.11)) > 0).all()
    legend = figures.heat_legend({0.0: "0", 0.25: "a<b"})
    assert '<span style="left:25%">a&lt;b</span>' in legend


@pytest.mark.parametrize("image", [np.zeros((10, 20, 3), np.uint8), np.zeros((10, 20, 1), np.float32)])
def test_overlay_lies_where_the_map_is_high(image):
    drawn = pixels_of(figures.overlay(image, np.array([[1.0, 0.0]]), "map")).astype(float)
    assert drawn.shape == (64, 128, 3)
    assert drawn[:, :20].mean() > 2 * drawn[:, -20:].mean()


def test_lines_put_values_where_they_belong():
    html = figures.lines([figures.Series("a<b", "after", [0.0, None, 1.0])], [1, 2, 3], step_name="round")
    assert 'd="M0.00 100.00 L100.00 0.00"' in html
    assert "a&lt;b <b>100 %</b>" in html
    assert figures.lines([figures.Series("x", "after", [None])], [1]).count("<span") == 6  # five ticks, one mark


def test_spread_keeps_order_and_distance():
    tops = np.sort(figures._spread([1.0, 3.0, 2.0, 99.0], 9.0))
    assert (np.diff(tops) >= 9.0 - 1e-6).all()
    assert tops.min() >= -1e-6
    assert tops.max() <= 100


@pytest.mark.parametrize("channels", [1, 3])
def test_picture_keeps_every_pixel(channels):
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (9, 7, channels)).astype(np.uint8)
    tag = figures.picture(image, 'a "quoted" name')
    data = base64.b64decode(re.search(r"base64,([^\"]+)", tag)[1])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))).reshape(image.shape), image)
    assert 'class="pixels"' in tag
    assert figures.picture(image / 255.0, 'a "quoted" name') == tag
    assert "&quot;quoted&quot;" in tag


def test_large_pictures_are_made_smaller():
    from PIL import Image

    tag = figures.picture(np.zeros((300, 200, 3), np.uint8), "")
    size = Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", tag)[1]))).size
    assert max(size) == 128
    assert "pixels" not in tag


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3), int), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 2), np.uint8)])
def test_other_pictures_are_refused(bad):
    with pytest.raises(ContractError, match="expected images"):
        figures.picture(bad, "")


def test_shifted_pictures_shows_every_row_and_rate():
    images = np.random.default_rng(0).random((3, 6, 6, 3))
    rates = {"bias <moved>": Interval(value=0.955, low=0.9, high=0.98, n=1200)}
    html = figures.shifted_pictures({"original": images, "bias moved": images[::-1]}, rates)
    assert html.count("<img") == 6
    assert html.index("original") < html.index("bias moved, example 1")
    assert "repeat(3," in html
    assert "bias &lt;moved&gt; <b>95.5 %</b> <small>90.0–98.0, n 1,200</small>" in html
    assert 'width="95.50%"' in html
    with pytest.raises(ContractError, match="rows"):
        figures.shifted_pictures({"original": images, "moved": images[:2]}, rates)
