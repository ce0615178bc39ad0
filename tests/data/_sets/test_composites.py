import time

import numpy as np
import pytest
from oracles.masked_files import write_objects_on_scenes

from jaxdebias.contracts import ContractError
from jaxdebias.data import composites

FEW = {"train": 60, "edit": 16, "accept": 12, "test": 24, "image_size": 32, "selection_share": 0.4}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_objects_on_scenes(tmp_path_factory.mktemp("files") / "objects_on_scenes")


@pytest.fixture(scope="module")
def data(files):
    return composites(files.parent, conflicting=0.2, **FEW)


def place_of(images, mask):
    """0 green forest, 1 white sea, from the pixels that are not the object; and the shade, which names the scene."""
    ground = np.where(mask[..., None] == 0, images, np.nan)
    red, _, shade = np.nanmedian(ground, axis=(1, 2)).T
    return (red > 125).astype(int), np.round((shade - 40) / 2).astype(int)


def test_pixels_are_the_object_and_the_scene(data):
    for batch in (*data.splits.values(), *data.pairs.values()):
        inside = batch.mask == 1
        assert inside.any(axis=(1, 2)).all()
        colour = np.where(batch.label[:, None] == 1, (250, 0, 0), (0, 0, 250))[:, None, None]
        for images, expected in ((batch.x, batch.attribute), (batch.twin, 1 - batch.attribute)):
            # Colours of the outline are not darkened by the black around a cut-out.
            assert (abs(images.astype(int) - colour).max(-1) <= 3)[inside].all()
            place, _ = place_of(images, batch.mask)
            np.testing.assert_array_equal(place, expected)
        np.testing.assert_array_equal(batch.x[inside], batch.twin[inside])
        assert batch.mask.dtype == np.int32


def test_cells_of_each_split(data):
    cells = {
        name: np.bincount(2 * batch.label + batch.attribute, minlength=4).tolist()
        for name, batch in data.splits.items()
    }
    assert cells == {"train": [24, 6, 6, 24], "edit": [4] * 4, "accept": [3] * 4, "test": [6] * 4}
    for pairs in data.pairs.values():
        np.testing.assert_array_equal(pairs.attribute, pairs.label)
    assert (data.label_names, data.attribute_names) == (("other object", "motorbike"), ("forest", "sea"))


def test_splits_share_neither_objects_nor_scenes(data):
    objects = {name: set(batch.unit.tolist()) for name, batch in data.splits.items()}
    scenes = {
        name: {number for images in (batch.x, batch.twin) for number in place_of(images, batch.mask)[1]}
        for name, batch in data.splits.items()
    }
    for used in (objects, scenes):
        assert sum(map(len, used.values())) == len(set.union(*used.values()))
    for name, batch in data.splits.items():
        np.testing.assert_array_equal(batch.unit % 3 == 1, batch.label == 1)
        # Every object of a split is in it as often as any other of its kind, up to once.
        for y in (0, 1):
            counts = np.unique(batch.unit[batch.label == y], return_counts=True)[1]
            assert counts.max() - counts.min() <= 1, name
    # Of 40 and 20: 12 and 6 for test, of the rest 40 % for edit and accept.
    assert {name: len(used) for name, used in objects.items()} == {
        "train": 17 + 8,
        "edit": 6 + 3,
        "accept": 5 + 3,
        "test": 12 + 6,
    }


def test_objects_vary_in_size_and_place_and_stay_whole(data):
    batch = data.splits["train"]
    boxes = []
    for mask in batch.mask:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append((rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1))
    top, left, height, width = np.array(boxes).T
    assert np.ptp(top) >= 5
    assert np.ptp(left) >= 8
    # 24 to 18 of 32 pixels high, pasted at sides 20, 22 and 24.
    assert 11 <= height.min() < height.max() <= 18
    assert width.max() <= 18


def test_equal_seeds_give_equal_bits_and_bias_changes_only_places(files, data):
    same, other = composites(files, conflicting=0.2, **FEW), composites(files, conflicting=0.2, seed=1, **FEW)
    np.testing.assert_array_equal(same.splits["train"].x, data.splits["train"].x)
    assert set(other.splits["test"].unit.tolist()) != set(data.splits["test"].unit.tolist())
    fair = composites(files, conflicting=0.5, **FEW)
    assert np.bincount(2 * fair.splits["train"].label + fair.splits["train"].attribute).tolist() == [15] * 4
    for name in ("edit", "accept", "test"):
        np.testing.assert_array_equal(fair.splits[name].x, data.splits[name].x)
    whole = composites(files, conflicting=0.0, **FEW).splits["train"]
    np.testing.assert_array_equal(whole.attribute, whole.label)


def test_bad_files_are_named(tmp_path):
    files = write_objects_on_scenes(tmp_path)
    with np.load(files / "scenes.npz") as stored:
        scenes = dict(stored)
    np.savez(files / "scenes.npz", **scenes | {"place": scenes["place"] + 1})
    with pytest.raises(ContractError, match=r"`scenes.npz`: expected one place, 0 or 1, for each picture, got 80"):
        composites(files, **FEW)
    scenes["jpeg"][scenes["offset"][3] : scenes["offset"][4]] = 0
    np.savez(files / "scenes.npz", **scenes)
    with pytest.raises(ContractError, match=r"`scenes.npz picture 3`: expected a readable image"):
        composites(files, **FEW)
    (files / "cutouts.npz").write_bytes(b"no zip")
    with pytest.raises(ContractError, match=r"cutouts.npz`: expected arrays rgb, mask, superclass, got"):
        composites(files, **FEW)
    (files / "cutouts.npz").unlink()
    with pytest.raises(ContractError, match=r"`data_dir`: expected cutouts.npz and scenes.npz, also cutouts.npz, got"):
        composites(tmp_path)
    few = write_objects_on_scenes(tmp_path / "few", cutouts=6)
    with pytest.raises(ContractError, match="`data_dir`: expected enough pictures of other object for four splits"):
        composites(few, **FEW)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conflicting": 1.5}, "`conflicting`: expected a share in 0..1"),
        ({"edit": 10}, "`edit`: expected a multiple of 4 of at least 4, got 10"),
        ({"train": 7}, "`train`: expected a multiple of 2 of at least 2, got 7"),
        ({"image_size": 8}, "`image_size`: expected at least 16, got 8"),
        ({"selection_share": 0.0}, "`selection_share`: expected a share above 0 and below 1, got 0.0"),
    ],
)
def test_bad_arguments_are_refused(files, options, message):
    with pytest.raises(ContractError, match=message):
        composites(files, **FEW | options)


@pytest.mark.slow
@pytest.mark.realdata
def test_the_real_composites(data_dir):
    start = time.process_time()
    data = composites(data_dir)
    assert time.process_time() - start < 20
    train, test = data.splits["train"], data.splits["test"]
    assert train.x.shape == (3000, 64, 64, 3)
    assert np.bincount(2 * train.label + train.attribute).tolist() == [1425, 75, 75, 1425]
    assert np.bincount(2 * test.label + test.attribute).tolist() == [200] * 4
    assert len(set(test.unit.tolist())) == round(0.3 * 172) + round(0.3 * 432)
    assert 0.8 < 1 - test.mask.mean() < 0.95
    assert test.mask[:, 32, 32].mean() > 0.5 > 0.05 > test.mask[:, 0].mean()
