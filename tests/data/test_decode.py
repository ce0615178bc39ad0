import io

import numpy as np
import pytest
from PIL import Image

from jaxdebias.contracts import ContractError
from jaxdebias.data.decode import as_rgb, decode_all


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("shape", [(22, 18), (18, 22), (16, 16)])
def test_the_central_square_is_kept(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    side = min(shape)
    top, left = ((length - side) // 2 for length in shape)
    square = image[top : top + side, left : left + side]
    np.testing.assert_array_equal(decode_all(1, side, lambda i: png(image), str)[0], square)


def test_smaller_pictures_are_means_of_their_pixels():
    # Antialiased: half the size of a picture made of 2x2 blocks keeps what lies inside a block of blocks.
    image = np.repeat(np.repeat(np.array([[0, 255], [255, 0]], np.uint8), 8, 0), 8, 1)
    small = decode_all(1, 8, lambda i: png(np.stack([image] * 3, -1)), str)[0]
    np.testing.assert_array_equal(small[1, [1, 6], 0], [0, 255])
    assert abs(float(small.mean()) - 127.5) < 1


def test_grey_and_files_are_rgb_in_order(tmp_path):
    for i in range(20):
        (tmp_path / f"{i}.png").write_bytes(png(np.full((4, 4), 10 * i, np.uint8)))
    images = decode_all(20, 4, lambda i: tmp_path / f"{i}.png", str)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, np.broadcast_to(10 * np.arange(20)[:, None, None, None], (20, 4, 4, 3)))


def test_the_first_bad_picture_is_named(tmp_path):
    good = png(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ContractError, match=r"^`picture 3`: expected a readable image, got"):
        decode_all(9, 4, lambda i: b"nonsense" if i in (3, 7) else good, lambda i: f"picture {i}")
    with pytest.raises(ContractError, match=r"^`picture 0`: expected a readable image, got"):
        decode_all(1, 4, lambda i: good[:45], lambda i: f"picture {i}")
    with pytest.raises(ContractError, match=r"^`picture 0`: expected an image file, got none"):
        decode_all(1, 4, lambda i: tmp_path / "nowhere.png", lambda i: f"picture {i}")
    with pytest.raises(ContractError, match=r"`image_size`: expected at least 1 pixel, got 0"):
        decode_all(1, 0, lambda i: good, str)


RAMP = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))


def stored(image, format, **options):
    """The picture as it is read from a file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return Image.open(io.BytesIO(file.getvalue()))


PLAIN = {
    "grey": lambda: stored(Image.fromarray(RAMP), "PNG"),
    "16 bit PNG": lambda: stored(Image.fromarray(RAMP.astype(np.uint16) * 257), "PNG"),
    "16 bit TIFF": lambda: stored(Image.fromarray(RAMP.astype(np.uint16) * 257), "TIFF"),
    "16 bit, big endian": lambda: Image.frombytes(
        "I;16B", (32, 32), (RAMP.astype(">u2") * 257).astype(">u2").tobytes()
    ),
    "palette": lambda: stored(Image.fromarray(RAMP).convert("P"), "PNG"),
    "grey with alpha": lambda: stored(Image.merge("LA", [Image.fromarray(RAMP), Image.new("L", (32, 32), 255)]), "PNG"),
    "RGBA": lambda: stored(Image.fromarray(RAMP).convert("RGBA"), "PNG"),
    "CMYK": lambda: stored(Image.fromarray(RAMP).convert("RGB").convert("CMYK"), "TIFF"),
}


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
def test_every_mode_shows_the_same_picture(make):
    np.testing.assert_array_equal(np.asarray(as_rgb(make())), np.repeat(RAMP[..., None], 3, 2))


def test_sixteen_bits_keep_the_range_of_the_mode():
    values = np.array([[0, 256, 257, 65534, 65535]], np.uint16)
    assert np.asarray(as_rgb(stored(Image.fromarray(values), "PNG")))[0, :, 0].tolist() == [0, 0, 1, 254, 255]
    assert stored(Image.new("1", (4, 4), 1), "PNG").mode == "1"
    assert np.asarray(as_rgb(stored(Image.new("1", (4, 4), 1), "PNG"))).min() == 255


@pytest.mark.parametrize(("dtype", "mode"), [(np.int32, "I"), (np.float32, "F")])
def test_pixels_of_unknown_range_are_refused_by_name(tmp_path, dtype, mode):
    Image.fromarray(RAMP.astype(dtype) * 257).save(tmp_path / "a.tif")
    message = f"^`a`: expected a readable image, got 32-bit pixels .mode {mode}., whose range is not known"
    with pytest.raises(ContractError, match=message):
        decode_all(1, 32, lambda i: tmp_path / "a.tif", lambda i: "a")


def test_transparent_pixels_are_white():
    image = np.zeros((2, 2, 4), np.uint8)
    image[0, 0] = 10, 20, 30, 255  # the colour under transparent pixels is not shown
    image[0, 1] = 0, 0, 0, 128
    shown = np.asarray(as_rgb(stored(Image.fromarray(image), "PNG")))
    assert shown[0, 0].tolist() == [10, 20, 30]
    assert shown[0, 1].tolist() == [127, 127, 127]
    assert (shown[1] == 255).all()
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.putdata([0, 1])
    assert np.asarray(as_rgb(stored(palette, "PNG", transparency=0))).tolist() == [[[255, 255, 255], [200, 0, 0]]]


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_pictures_are_upright(tag, format):
    """What a camera stores for each orientation, undone."""
    upright = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    store = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: np.rot90(x, 1),
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
        8: lambda x: np.rot90(x, -1),
    }[tag]
    exif = Image.Exif()
    exif[0x0112] = tag
    image = stored(Image.fromarray(np.ascontiguousarray(store(upright))), format, exif=exif)
    np.testing.assert_array_equal(np.asarray(as_rgb(image)), upright)


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b""])
def test_a_damaged_tag_leaves_the_picture_as_it_is(exif):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(as_rgb(stored(Image.fromarray(pixels), "PNG", exif=exif))), pixels)


def test_the_central_square_is_that_of_the_upright_picture():
    image = np.zeros((12, 6, 3), np.uint8)
    image[3:9] = np.arange(36, dtype=np.uint8).reshape(6, 6, 1)
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(image, 1))).save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(decode_all(1, 6, lambda i: file.getvalue(), str)[0], image[3:9])
