import importlib.resources

import jax
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.data import digits
from jaxdebias.data._sets.digits import gray_digits

TRUE_SPLITS = ("train", "edit", "accept", "test")


@pytest.fixture(scope="module")
def data():
    return digits(seed=3)


def shape_of(x):
    """An image without its colour: each channel divided by its largest value, the first that shows anything."""
    channel = x.reshape(len(x), -1, 3).astype(float)
    brightest = channel.max(1).argmax(1)
    one = np.take_along_axis(channel, brightest[:, None, None], 2)[..., 0]
    return one / one.max(1, keepdims=True)


def test_sizes_and_renderings(data):
    sizes = {name: len(batch.label) for name, batch in data.splits.items()}
    assert sizes == {"train": 1000, "edit": 300, "accept": 150, "test": 3470, "edit_every_colour": 3000}
    assert all(batch.x.dtype == np.uint8 and batch.x.shape[1:] == (16, 16, 3) for batch in data.splits.values())
    test = data.splits["test"]
    cells = np.zeros((347, 10), int)
    np.add.at(cells, (test.unit, test.attribute), 1)
    assert (cells == 1).all()  # every digit in every colour, so every cell holds distinct digits
    assert set(data.pairs) == {"edit", "accept", "test"}


def test_splits_are_disjoint_digits_that_cover_all(data):
    gray, label = gray_digits()
    rendered = []
    for name in TRUE_SPLITS:
        batch = data.splits[name]
        first = np.unique(batch.unit, return_index=True)[1]
        rendered.append((shape_of(batch.x[first]), batch.label[first]))
    shapes, labels = np.concatenate([s for s, _ in rendered]), np.concatenate([y for _, y in rendered])
    assert len(labels) == len(gray) == 1797
    original = gray.reshape(len(gray), -1) / gray.reshape(len(gray), -1).max(1, keepdims=True)
    nearest = np.array([((original - shape) ** 2).sum(1).argmin() for shape in shapes])
    assert len(set(nearest.tolist())) >= 1796  # two digits of the set are nearly the same
    np.testing.assert_array_equal(label[nearest], labels)


@pytest.mark.parametrize("conflicting", [0.0, 0.02, 0.1, 1.0])
def test_each_class_has_its_share_of_conflicting_digits(conflicting):
    train = digits(conflicting=conflicting).splits["train"]
    size = np.bincount(train.label)
    aligned = np.bincount(train.label[train.label == train.attribute], minlength=10)
    # The milestone of the aligned attribute is where rounding happens, at both of its ends.
    assert (np.abs(size * (1 - conflicting) - aligned) <= 1).all()


def test_held_out_colours_are_uniform(data):
    for name in ("edit", "accept"):
        share = (data.splits[name].label == data.splits[name].attribute).mean()
        assert share < 0.2


def test_pairs_are_the_digits_of_their_split(data):
    for name, pairs in data.pairs.items():
        split = data.splits[name]
        first = np.unique(split.unit, return_index=True)[1]
        np.testing.assert_array_equal(pairs.label, split.label[first])
        np.testing.assert_array_equal(pairs.label, pairs.attribute)
        shapes = shape_of(split.x[first])
        for rendering in (pairs.x, pairs.twin):
            np.testing.assert_allclose(shape_of(rendering), shapes, atol=0.05)
        assert (pairs.x != pairs.twin).any((1, 2, 3)).all()


def test_equal_seeds_give_equal_bits_and_others_do_not():
    one, same, other = digits(seed=1), digits(seed=1), digits(seed=2)
    for a, b in zip(jax.tree.leaves(dict(one.splits)), jax.tree.leaves(dict(same.splits)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one.splits["train"].x != other.splits["train"].x).any()


def test_the_embedded_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    folder, source = importlib.resources.files("jaxdebias.data._sets"), load_digits()
    assert (folder / "digits.txt").is_file()  # authors and licence travel with the images
    path = folder / "digits.npz"
    assert len(path.read_bytes()) < 150_000
    with path.open("rb") as file, np.load(file) as found:
        np.testing.assert_array_equal(found["image"], source.images)
        np.testing.assert_array_equal(found["label"], source.target)


def test_upsampling_keeps_means_and_constants():
    gray, label = gray_digits()
    from sklearn.datasets import load_digits

    source = load_digits()
    assert gray.shape == (1797, 16, 16)
    np.testing.assert_array_equal(label, source.target)
    coarse = gray.reshape(-1, 8, 2, 8, 2).mean((2, 4)) * 16 / 255
    inner = np.abs(coarse - source.images)[:, 1:-1, 1:-1].mean()
    assert inner < 0.12 * source.images.std() * 2.5
    # Where a 3x3 neighbourhood is constant, so is the result.
    flat = np.abs(source.images[:, :3, :3] - source.images[:, 1:2, 1:2]).max((1, 2)) == 0
    constant = np.round(source.images[flat, 1, 1] * 255 / 16).astype(np.uint8)
    np.testing.assert_array_equal(gray[flat, 2:4, 2:4], np.broadcast_to(constant[:, None, None], (len(constant), 2, 2)))


def test_a_bad_share_is_refused():
    with pytest.raises(ContractError, match=r"`conflicting`: expected a share in 0..1, got float 2.0"):
        digits(conflicting=2.0)
