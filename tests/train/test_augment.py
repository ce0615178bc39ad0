import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.train import chain, random_flip, random_resized_crop, random_shift
from jaxdebias.train._augment import random_parts

X = np.random.default_rng(0).integers(1, 256, (64, 6, 5, 3)).astype(np.uint8)


def test_flip_gives_each_image_or_its_mirror(key):
    flipped = np.asarray(random_flip(key, X))
    same, mirrored = (flipped == X).all((1, 2, 3)), (flipped == X[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 16 < mirrored.sum() < 48
    assert flipped.dtype == np.uint8


def test_shift_gives_a_window_of_the_padded_image(key):
    pad = 2
    shifted = np.asarray(random_shift(pad)(key, X))
    assert shifted.dtype == np.uint8
    seen = set()
    for image, source in zip(shifted, X, strict=True):
        padded = np.pad(source, ((pad, pad), (pad, pad), (0, 0)))
        windows = {(i, j): padded[i : i + 6, j : j + 5] for i in range(5) for j in range(5)}
        (place,) = [place for place, window in windows.items() if (window == image).all()]
        seen.add(place)
    assert {i for i, _ in seen} == {j for _, j in seen} == set(range(5))


@pytest.mark.parametrize("augment", [random_flip, random_shift(1), chain(random_flip, random_shift(1))])
def test_jit_and_equal_keys_give_equal_bits(augment, key):
    eager, jitted = augment(key, X), jax.jit(augment)(key, jnp.asarray(X))
    np.testing.assert_array_equal(eager, jitted)
    assert not np.array_equal(eager, augment(jax.random.key(1), X))


def test_equal_arguments_give_one_function():
    assert random_shift(2) is random_shift(2)
    assert chain(random_flip, random_shift(2)) is chain(random_flip, random_shift(2))


drawn_parts = jax.jit(random_parts, static_argnums=(1, 2, 3, 4, 5))


def stretched(image, top, left, height, width):
    """Bilinear interpolation of a part of an image to the whole image's size, pixel by pixel."""
    size = image.shape[:2]
    out = np.zeros(image.shape)
    for row in range(size[0]):
        for column in range(size[1]):
            y = min(max((row + 0.5) * height / size[0] - 0.5, 0), height - 1)
            x = min(max((column + 0.5) * width / size[1] - 0.5, 0), width - 1)
            i, j = int(y), int(x)
            for i2, weight_y in ((i, 1 - (y - i)), (min(i + 1, height - 1), y - i)):
                for j2, weight_x in ((j, 1 - (x - j)), (min(j + 1, width - 1), x - j)):
                    out[row, column] += weight_y * weight_x * image[top + i2, left + j2]
    return out


def test_resized_crop_equals_a_slow_loop(key):
    x = (X[:8] / 255).astype(np.float32)
    parts = np.asarray(drawn_parts(key, 8, 6, 5, (0.2, 1.0), (0.5, 2.0))).T
    assert len({tuple(part) for part in parts}) > 4
    cropped = jax.jit(random_resized_crop((0.2, 1.0), (0.5, 2.0)))(key, x)
    assert cropped.dtype == np.float32
    for image, source, part in zip(cropped, x, parts, strict=True):
        np.testing.assert_allclose(image, stretched(source, *part), atol=1e-6)


def test_resized_crop_of_bytes_equals_pillow(key):
    pillow = pytest.importorskip("PIL.Image")
    parts = np.asarray(drawn_parts(key, 8, 6, 5, (0.5, 1.0), (3 / 4, 4 / 3))).T
    cropped = np.asarray(jax.jit(random_resized_crop())(key, X[:8]))
    assert cropped.dtype == np.uint8
    for image, source, (top, left, height, width) in zip(cropped, X[:8], parts, strict=True):
        part = pillow.fromarray(source[top : top + height, left : left + width])
        expected = np.asarray(part.resize((5, 6), pillow.Resampling.BILINEAR))
        assert np.abs(image.astype(int) - expected).max() <= 1  # Pillow rounds twice


def test_parts_lie_inside_and_are_as_large_and_wide_as_asked(key):
    top, left, height, width = np.asarray(drawn_parts(key, 4000, 64, 64, (0.5, 1.0), (3 / 4, 4 / 3)))
    assert min(top.min(), left.min()) == 0
    assert (top + height).max() == (left + width).max() == 64
    area, ratio = height * width / 64**2, width / height
    assert 0.48 < area.min() < 0.52
    assert 0.98 < area.max() <= 1.0
    assert 0.73 < ratio.min() < 0.77
    assert 1.30 < ratio.max() < 1.37
    assert abs(np.log(ratio).mean()) < 0.02  # wide and high alike
    room = 64 - height > 8
    np.testing.assert_allclose((top / np.maximum(64 - height, 1))[room].mean(), 0.5, atol=0.02)


def test_parts_that_never_fit_are_the_largest_central_ones(key):
    # ratio 1 in a flat image: a square of 90 % of its area is higher than the image
    parts = np.asarray(drawn_parts(key, 3, 10, 40, (0.9, 1.0), (1.0, 1.0)))
    np.testing.assert_array_equal(parts, np.array([[0], [15], [10], [10]]).repeat(3, axis=1))


def test_the_whole_image_as_the_part_changes_nothing(key):
    x = X[:, :5]
    np.testing.assert_array_equal(jax.jit(random_resized_crop((1.0, 1.0), (1.0, 1.0)))(key, x), x)


def test_resized_crop_refuses(key):
    with pytest.raises(ContractError, match="`scale`"):
        random_resized_crop((0.0, 1.0))
    with pytest.raises(ContractError, match="`ratio`"):
        random_resized_crop(ratio=(2.0, 1.0))
    assert random_resized_crop() is random_resized_crop()
