import io

import numpy as np
import pytest
from PIL import Image

from jaxdebias.contracts import ContractError
from jaxdebias.data.decode import decode_all


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
