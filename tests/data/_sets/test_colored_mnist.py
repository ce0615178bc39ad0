import gzip

import jax
import numpy as np
import pytest
from oracles.colored_mnist import CLASS_SIZES, CONFLICTING, attribute_by_walking, paint
from oracles.files import write_mnist

from jaxdebias.contracts import ContractError
from jaxdebias.data import colored_mnist, milestone_attribute
from jaxdebias.data._colour import PALETTE
from jaxdebias.data._sets.colored_mnist import read_mnist


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_mnist(tmp_path_factory.mktemp("files") / "mnist")


def test_published_protocol_colours_all_training_digits_in_file_order(small):
    data = colored_mnist(small, conflicting=0.2, held_out=0, sigma=0.0)
    assert set(data.splits) == {"train", "test"}
    assert set(data.pairs) == {"test"}
    gray, label = read_mnist(small, "train")
    train = data.splits["train"]
    np.testing.assert_array_equal(train.label, label)
    np.testing.assert_array_equal(train.attribute, attribute_by_walking(label, 0.8, 10))
    for i in range(0, 120, 17):
        np.testing.assert_array_equal(train.x[i], paint(gray[i], PALETTE[train.attribute[i]]))
    test = data.splits["test"]
    np.testing.assert_array_equal(test.attribute, attribute_by_walking(test.label, 0.1, 10))


def test_held_out_digits_are_disjoint_and_train_keeps_file_order(small):
    data = colored_mnist(small, held_out=28, conflicting=0.1, sigma=0.0)
    assert {name: len(batch.label) for name, batch in data.splits.items()} == {
        "train": 92,
        "test": 40,
        "edit": 20,
        "accept": 8,
    }
    gray, _ = read_mnist(small, "train")

    def numbers(batch):
        """Which digit of the file each image is: random images have channels of their own."""
        profile = gray.reshape(120, -1).astype(float)
        profile /= np.linalg.norm(profile, axis=1, keepdims=True)
        shown = batch.x.astype(float).sum(-1).reshape(len(batch.x), -1)
        return (shown @ profile.T).argmax(1)

    found = {name: numbers(data.splits[name]) for name in ("train", "edit", "accept")}
    np.testing.assert_array_equal(np.sort(np.concatenate(list(found.values()))), np.arange(120))
    assert (np.diff(found["train"]) > 0).all()
    for name in ("edit", "accept"):
        np.testing.assert_array_equal(numbers(data.pairs[name]), found[name])
    np.testing.assert_array_equal(
        data.splits["train"].attribute, attribute_by_walking(data.splits["train"].label, 0.9, 10)
    )


def test_every_colour_of_edit_only_on_request(small):
    assert "edit_every_colour" not in colored_mnist(small, held_out=14).splits
    extra = colored_mnist(small, held_out=14, every_colour_of_edit=True).splits["edit_every_colour"]
    assert extra.x.shape == (100, 28, 28, 3)
    np.testing.assert_array_equal(np.bincount(extra.unit), np.full(10, 10))


def test_the_parent_folder_will_do_and_seeds_fix_the_bits(small):
    one, same = colored_mnist(small, held_out=14, seed=1), colored_mnist(small.parent, held_out=14, seed=1)
    for a, b in zip(jax.tree.leaves(dict(one.splits)), jax.tree.leaves(dict(same.splits)), strict=True):
        np.testing.assert_array_equal(a, b)
    other = colored_mnist(small, held_out=14, seed=2)
    assert (one.splits["edit"].x != other.splits["edit"].x).any()


def damage(folder, how):
    path = folder / "t10k-labels-idx1-ubyte.gz"
    if how == "missing":
        path.unlink()
    elif how == "no gzip":
        path.write_bytes(b"hello")
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:20])
    elif how == "no idx":
        path.write_bytes(gzip.compress(b"\0\0\x0d\x01" + bytes(20)))
    elif how == "short":
        path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 40]) + bytes(10)))
    return path.name


@pytest.mark.parametrize("how", ["missing", "no gzip", "cut", "no idx", "short"])
def test_a_damaged_file_is_named_in_one_line(tmp_path, how):
    name = damage(write_mnist(tmp_path), how)
    with pytest.raises(ContractError, match=name) as caught:
        colored_mnist(tmp_path, held_out=14)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": 120}, "`held_out`: expected 0, or 7..119 digits, got 120"),
        ({"held_out": 3}, "`held_out`: expected 0, or 7..119 digits, got 3"),
        ({"held_out": 14, "conflicting": 7.0}, "`conflicting`: expected a share in 0..1"),
        ({"held_out": 0, "every_colour_of_edit": True}, "`held_out`: expected more than 0 with every_colour_of_edit"),
    ],
)
def test_bad_options_are_refused(small, options, message):
    with pytest.raises(ContractError, match=message):
        colored_mnist(small, **options)


@pytest.mark.realdata
@pytest.mark.parametrize("conflicting", CONFLICTING)
def test_counts_on_the_real_files_are_the_published_ones(data_dir, conflicting):
    _, label = read_mnist(data_dir, "train")
    np.testing.assert_array_equal(np.bincount(label), CLASS_SIZES)
    attribute = milestone_attribute(label, 1.0 - conflicting, 10)
    np.testing.assert_array_equal(np.bincount(label[attribute != label]), CONFLICTING[conflicting])


@pytest.mark.realdata
def test_the_published_protocol_on_the_real_files(data_dir):
    data = colored_mnist(data_dir, conflicting=0.005, held_out=0)
    train, test = data.splits["train"], data.splits["test"]
    np.testing.assert_array_equal(np.bincount(train.label[train.attribute != train.label]), CONFLICTING[0.005])
    cells = np.bincount(test.label * 10 + test.attribute, minlength=100)
    assert (cells.min(), cells.max(), (test.label == test.attribute).sum()) == (89, 114, 1000)
    gray, x = read_mnist(data_dir, "train")[0][:5000], train.x[:5000]
    assert x[gray == 0].max() == 0  # black background
    for b in range(10):  # the brightest pixel of each digit is its colour
        rows = (train.attribute[:5000] == b) & (gray.max((1, 2)) == 255)
        brightest = x[rows].max((1, 2)).mean(0) / 255
        np.testing.assert_allclose(brightest + 0.5 / 255, PALETTE[b], atol=0.003)


@pytest.mark.realdata
def test_held_out_sizes_on_the_real_files(data_dir):
    data = colored_mnist(data_dir, conflicting=0.02)
    assert [len(data.splits[name].label) for name in ("train", "edit", "accept", "test")] == [53000, 5000, 2000, 10000]
    train = data.splits["train"]
    assert 1055 <= (train.label != train.attribute).sum() <= 1063
