import importlib
import os
import pickle

import jax
import numpy as np
import pytest
from oracles.cifar import pictures, python2_pickle, write_batches, write_packed
from oracles.colored_mnist import attribute_by_walking

from jaxdebias.contracts import ContractError
from jaxdebias.data import corrupted_cifar10, milestone_attribute
from jaxdebias.data._sets.corrupted_cifar10 import cifar10_folder, read_cifar10
from jaxdebias.data._sets.corruptions import CORRUPTIONS, corrupt

# Published counts on CIFAR-10's 5,000 training pictures of each class: conflicting share -> conflicting pictures.
CONFLICTING = {0.005: 250, 0.01: 500, 0.02: 1000, 0.05: 2500, 0.1: 5000, 0.2: 10000}
TRAIN, TEST = 150, 50

module = importlib.import_module("jaxdebias.data._sets.corrupted_cifar10")  # the package gives the function this name


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    return write_batches(tmp_path_factory.mktemp("files") / "cifar-10-batches-py", train=TRAIN, test=TEST)


@pytest.fixture(scope="module")
def every():
    """part -> `[10 n 32 32 3]`, all pictures of `batches` in all corruptions."""

    def rendered(n, seed, first):
        x, _ = pictures(n, seed)
        return np.stack([corrupt(x, corruption, index=first + np.arange(n)) for corruption in CORRUPTIONS])

    return {"train": rendered(TRAIN, 0, 0), "test": rendered(TEST, 1, 50_000)}


def found(images, rendered):
    """The number and the corruption of each of `images` among `rendered`; each must be there once."""
    places = {image.tobytes(): (i, b) for b, row in enumerate(rendered) for i, image in enumerate(row)}
    assert len(places) == rendered.shape[0] * rendered.shape[1]
    number, corruption = zip(*(places[image.tobytes()] for image in images), strict=True)
    return np.array(number), np.array(corruption)


@pytest.mark.parametrize("conflicting", CONFLICTING)
def test_counts_are_the_published_ones(conflicting):
    label = np.random.default_rng(0).permutation(np.arange(50_000) % 10)
    attribute = milestone_attribute(label, 1.0 - conflicting, 10)
    np.testing.assert_array_equal(np.bincount(label[attribute != label]), CONFLICTING[conflicting] // 10)
    test = np.random.default_rng(1).permutation(np.arange(10_000) % 10)
    cells = np.bincount(test * 10 + milestone_attribute(test, 0.1, 10), minlength=100)
    np.testing.assert_array_equal(cells, np.full(100, 100))


def test_the_pickles_are_read_as_python_2_wrote_them(batches):
    raw = (batches / "data_batch_1").read_bytes()
    assert b"numpy.core.multiarray" in raw
    assert b"_codecs" not in raw
    assert set(pickle.loads(raw, encoding="bytes")) == {b"batch_label", b"labels", b"data", b"filenames"}
    for part, n, seed in (("train", TRAIN, 0), ("test", TEST, 1)):
        x, y = pictures(n, seed)
        read = read_cifar10(batches, part)
        np.testing.assert_array_equal(read.x, x)
        np.testing.assert_array_equal(read.label, y)
    np.testing.assert_array_equal(read_cifar10(batches, "train", 45).x, pictures(TRAIN)[0][:45])


def test_published_protocol_corrupts_all_training_pictures_in_file_order(batches, every):
    data = corrupted_cifar10(batches, conflicting=0.2, held_out=0)
    assert set(data.splits) == {"train", "test"}
    assert set(data.pairs) == {"test"}
    for name, n, aligned in (("train", TRAIN, 0.8), ("test", TEST, 0.1)):
        split = data.splits[name]
        np.testing.assert_array_equal(split.label, np.arange(n) % 10)
        number, attribute = found(split.x, every[name])
        np.testing.assert_array_equal(number, np.arange(n))
        np.testing.assert_array_equal(split.attribute, attribute)
        np.testing.assert_array_equal(attribute, attribute_by_walking(split.label, aligned, 10))
    assert data.variant["source"] == "original"


def test_held_out_pictures_are_disjoint_and_pairs_show_each_twice(batches, every):
    data = corrupted_cifar10(batches, held_out=70, conflicting=0.1)
    sizes = {"train": TRAIN - 70, "test": TEST, "edit": 50, "accept": 20}
    assert {name: len(batch.label) for name, batch in data.splits.items()} == sizes
    numbers = {}
    for name, split in data.splits.items():
        rendered = every["test" if name == "test" else "train"]
        numbers[name], attribute = found(split.x, rendered)
        np.testing.assert_array_equal(split.label, numbers[name] % 10)
        np.testing.assert_array_equal(split.attribute, attribute)
        if name in data.pairs:
            pair = data.pairs[name]
            for images in (pair.x, pair.twin):
                np.testing.assert_array_equal(found(images, rendered)[0], numbers[name])
            np.testing.assert_array_equal(found(pair.x, rendered)[1], pair.label)
            np.testing.assert_array_equal(pair.attribute, pair.label)
            np.testing.assert_array_equal(pair.label, split.label)
            away = (found(pair.twin, rendered)[1] - pair.label) % 10
            assert 0 not in away
            assert len(set(away.tolist())) > 5
    held = [numbers[name] for name in ("train", "edit", "accept")]
    np.testing.assert_array_equal(np.sort(np.concatenate(held)), np.arange(TRAIN))
    assert (np.diff(numbers["train"]) > 0).all()
    train = data.splits["train"]
    np.testing.assert_array_equal(train.attribute, attribute_by_walking(train.label, 0.9, 10))
    assert len(set(data.splits["edit"].attribute.tolist())) == 10  # uniform, not by class


def leaves(data):
    return jax.tree.leaves((dict(data.splits), dict(data.pairs)))


def test_limit_takes_the_first_and_seeds_fix_the_bits(batches):
    one = corrupted_cifar10(batches, held_out=14, limit=60, seed=1)
    for a, b in zip(leaves(one), leaves(corrupted_cifar10(batches.parent, held_out=14, limit=60, seed=1)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert {name: len(batch.label) for name, batch in one.splits.items()} == {
        "train": 46,
        "test": TEST,
        "edit": 10,
        "accept": 4,
    }
    other = corrupted_cifar10(batches, held_out=14, limit=60, seed=2)
    assert (one.splits["edit"].x != other.splits["edit"].x).any()


def test_packed_copies_are_nearly_the_same_and_said_to_be_copies(batches, tmp_path):
    folder = write_packed(tmp_path / "cifar10", train=50, test=20)
    data = corrupted_cifar10(tmp_path, held_out=0, limit=40, conflicting=0.2)
    assert data.variant["source"] == "JPEG copies"
    read, (x, y) = read_cifar10(folder, "train", 40), pictures(40)
    np.testing.assert_array_equal(read.label, y)
    assert np.abs(read.x.astype(int) - x).mean() < 4
    rendered = np.stack([corrupt(read.x, corruption, index=np.arange(40)) for corruption in CORRUPTIONS])
    train = data.splits["train"]
    np.testing.assert_array_equal(found(train.x, rendered)[0], np.arange(40))
    np.testing.assert_array_equal(found(train.x, rendered)[1], train.attribute)
    write_batches(tmp_path / "cifar10" / "cifar-10-batches-py", train=50, test=20)  # originals go before copies
    assert cifar10_folder(tmp_path) == tmp_path / "cifar10" / "cifar-10-batches-py"


def test_cache_gives_the_same_bits_and_is_keyed_by_all_that_matters(batches, tmp_path, monkeypatch):
    def build(**options):
        return corrupted_cifar10(batches, **{"held_out": 14, "limit": 60, "cache_dir": tmp_path / "new"} | options)

    first = build()
    assert len(list((tmp_path / "new").iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(module, "_build", None)  # whoever builds now fails
        again = build()
        for options in ({"seed": 1}, {"conflicting": 0.1}, {"held_out": 21}, {"limit": 50}):
            with pytest.raises(TypeError):
                build(**options)
        patch.setattr(module, "VERSION", -1)
        with pytest.raises(TypeError):
            build()
    assert first.variant == again.variant
    assert jax.tree.structure(dict(first.splits)) == jax.tree.structure(dict(again.splits))
    for a, b in zip(leaves(first), leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    (path,) = (tmp_path / "new").iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ContractError, match=r"`cache_dir`: expected .* as it was written .delete it"):
        build()


def test_nothing_half_written_is_left(batches, tmp_path, monkeypatch):
    def fails(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fails)
    with pytest.raises(ContractError, match="disk full"):
        corrupted_cifar10(batches, held_out=0, limit=20, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_cannot_run_anything(batches, tmp_path):
    folder = write_batches(tmp_path / "files", train=50, test=20)
    for raw in (pickle.dumps(Harmful(tmp_path / "made")), pickle.dumps({b"data": Harmful(tmp_path / "made")})):
        (folder / "data_batch_2").write_bytes(raw)
        with pytest.raises(ContractError, match=r"data_batch_2`: expected a pickle of numbers.*[.]mkdir in it"):
            corrupted_cifar10(folder, held_out=0)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("how", ["missing", "no pickle", "cut", "no data", "wrong size", "wrong labels", "few labels"])
def test_a_damaged_file_is_named_in_one_line(tmp_path, how):
    path = write_batches(tmp_path, train=50, test=20) / "data_batch_3"
    data = np.zeros((2, 3072), np.uint8)
    contents = {
        "no pickle": b"hello",
        "cut": path.read_bytes()[:5000],
        "no data": python2_pickle([1]),
        "wrong size": python2_pickle({"data": data[:, :100], "labels": [0, 1]}),
        "wrong labels": python2_pickle({"data": data, "labels": [0, 10]}),
        "few labels": python2_pickle({"data": data, "labels": [0]}),
    }
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(contents[how])
    with pytest.raises(ContractError, match="data_batch_3") as caught:
        corrupted_cifar10(tmp_path, held_out=0)
    assert "\n" not in str(caught.value)


def test_a_damaged_packed_file_is_named(tmp_path):
    path = write_packed(tmp_path, train=20, test=20) / "cifar10_test_jpeg.npz"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ContractError, match=r"cifar10_test_jpeg.npz`: expected arrays jpeg, offset and label"):
        corrupted_cifar10(tmp_path, held_out=0)
    path.unlink()
    with pytest.raises(ContractError, match=r"`data_dir`: expected CIFAR-10's files, also cifar10_test_jpeg.npz"):
        corrupted_cifar10(tmp_path, held_out=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": 150}, "`held_out`: expected 0, or 7..149 pictures, got 150"),
        ({"held_out": 70, "limit": 60}, "`held_out`: expected 0, or 7..59 pictures, got 70"),
        ({"limit": 0}, "`limit`: expected at least 1"),
        ({"held_out": 0, "conflicting": 7.0}, "`conflicting`: expected a share in 0..1"),
        ({"held_out": 0, "seed": -1}, "`seed`: expected an integer of at least 0"),
    ],
)
def test_bad_options_are_refused(batches, options, message):
    with pytest.raises(ContractError, match=message):
        corrupted_cifar10(batches, **options)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ContractError, match="`data_dir`: expected data_batch_1 and its fellows or cifar10_train_jpeg"):
        corrupted_cifar10(tmp_path)


@pytest.mark.realdata
def test_the_packed_real_files(data_dir, monkeypatch):
    folder = cifar10_folder(data_dir)
    train, test = read_cifar10(folder, "train", 300), read_cifar10(folder, "test", 100)
    monkeypatch.setattr(module, "read_cifar10", lambda folder, part, limit=None: test if part == "test" else train)
    data = corrupted_cifar10(data_dir, held_out=70, limit=300, conflicting=0.05)
    assert len(data.splits["train"].label) == 230
    assert np.abs(np.bincount(train.label) - 30).max() == 0
    plain, corrupted = train.x.astype(float), data.splits["train"].x.astype(float)
    assert 100 < plain.mean() < 140
    # Under their corruption, pictures of a class show its trace: contrast takes away, brightness adds.
    label, attribute = data.splits["train"].label, data.splits["train"].attribute
    spread = corrupted.std((1, 2)).mean(-1)
    assert spread[attribute == CORRUPTIONS.index("contrast")].mean() < 0.3 * plain[train.label == 4].std((1, 2)).mean()
    assert corrupted[attribute == CORRUPTIONS.index("brightness")].mean() > plain[train.label == 3].mean() + 30
    assert (label != attribute).mean() == pytest.approx(0.05, abs=0.03)
