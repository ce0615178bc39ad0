import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.train.augment import chain, random_flip, random_shift

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
