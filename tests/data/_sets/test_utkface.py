import numpy as np
import pytest
from oracles.faces import colour_of, jpeg, utkface_rows, write_original_utkface, write_packed_utkface

from jaxdebias.contracts import ContractError
from jaxdebias.data import utkface
from jaxdebias.data._sets.utkface import AGE_EDGES, read_faces, read_images

FEW = {"edit": 12, "accept": 8, "test": 8, "image_size": 8}
ROWS = utkface_rows()


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return write_packed_utkface(tmp_path_factory.mktemp("packed") / "utkface", ROWS)


def whose(images):
    """The number of each picture, from its colour."""
    colours = np.array([colour_of(i) for i in range(len(ROWS))], int)
    distance = abs(images.mean(axis=(1, 2))[:, None] - colours).sum(-1)
    assert distance.min(axis=1).max() < 12
    return distance.argmin(axis=1)


def test_pictures_keep_their_annotations(packed):
    data = utkface(packed, **FEW)
    for batch in data.splits.values():
        assert batch.x.shape[1:] == (8, 8, 3)
        assert batch.x.dtype == np.uint8
        for i, label, attribute in zip(whose(batch.x), batch.label, batch.attribute, strict=True):
            age, gender, _ = ROWS[i]
            assert label == gender
            assert attribute == (age <= 12)
            assert not 12 < age < 20
    assert data.label_names == ("male", "female")
    assert data.attribute_names == ("20 or older", "12 or younger")
    np.testing.assert_array_equal(data.aligned, np.eye(2, dtype=bool))


def test_race_is_white_or_not_and_keeps_every_age(packed):
    data = utkface(packed, attribute="race", edit=40, accept=24, test=24, image_size=8, conflicting=0.5)
    assert data.attribute_names == ("other than White", "White")
    ages = []
    for batch in data.splits.values():
        rows = whose(batch.x)
        np.testing.assert_array_equal(batch.attribute, [ROWS[i][2] == 0 for i in rows])
        ages += [ROWS[i][0] for i in rows]
    assert 15 in ages


def test_held_out_splits_are_balanced_and_nobody_is_in_two(packed):
    data = utkface(packed, **FEW)
    for name in ("edit", "accept", "test"):
        cells = np.bincount(2 * data.splits[name].label + data.splits[name].attribute, minlength=4)
        np.testing.assert_array_equal(cells, FEW[name] // 4)
    everybody = np.concatenate([whose(batch.x) for batch in data.splits.values()])
    assert len(set(everybody)) == len(everybody)


@pytest.mark.parametrize("conflicting", [0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
def test_train_is_as_large_as_the_share_allows(packed, conflicting):
    data = utkface(packed, conflicting=conflicting, **FEW)
    train = data.splits["train"]
    for y in (0, 1):
        attributes = [int(age <= 12) for age, gender, _ in ROWS if gender == y and not 12 < age < 20]
        there = [attributes.count(a) - sum(FEW[name] for name in ("edit", "accept", "test")) // 4 for a in (0, 1)]
        possible = [
            n
            for n in range(1, len(ROWS))
            if n - round(conflicting * n) <= there[y] and round(conflicting * n) <= there[1 - y]
        ]
        of_label = train.attribute[train.label == y]
        assert len(of_label) == max(possible)
        assert (of_label != y).sum() == round(conflicting * len(of_label))
    assert data.variant["train"] == len(train.label)


@pytest.mark.parametrize("attribute", ["age", "race"])
def test_pairs_are_equal_in_the_other_annotation(packed, attribute):
    sizes = FEW if attribute == "age" else {"edit": 40, "accept": 24, "test": 24, "image_size": 8}
    data = utkface(packed, attribute=attribute, conflicting=0.5, **sizes)
    assert data.pairing == "matched"
    for name in ("edit", "accept", "test"):
        pairs, split = data.pairs[name], data.splits[name]
        x, twin = whose(pairs.x), whose(pairs.twin)
        assert len(x) == data.variant[f"{name}_pairs"] > 0
        assert len({*x, *twin}) == 2 * len(x)
        assert {*x, *twin} <= set(whose(split.x))
        for i, j, label, value in zip(x, twin, pairs.label, pairs.attribute, strict=True):
            assert ROWS[i][1] == ROWS[j][1] == label == value
            if attribute == "age":
                assert ROWS[i][2] == ROWS[j][2]
                assert (ROWS[i][0] <= 12) != (ROWS[j][0] <= 12)
            else:
                assert np.digitize(ROWS[i][0], AGE_EDGES) == np.digitize(ROWS[j][0], AGE_EDGES)
                assert (ROWS[i][2] == 0) != (ROWS[j][2] == 0)


def test_seeds_divide_differently_and_reproducibly(packed):
    one, same, other = (whose(utkface(packed, seed=seed, **FEW).splits["edit"].x) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert set(one) != set(other)


def test_original_files_give_the_same_faces(packed, tmp_path):
    folder = write_original_utkface(tmp_path / "UTKFace", ROWS)
    files = sorted(folder.glob("*.jpg"))
    numbers = [int(path.stem.split("_")[3][4:]) for path in files]
    for name in (
        "61_1_20170109142408075.jpg",
        "44_1_5_20170109142408075.jpg",
        "44_3_1_20170109142408075.jpg",
        "1_2_3_4.txt",
    ):
        (folder / name).write_bytes(b"no such face")
    (folder / "99_0_0_20180101.jpg").write_bytes(files[0].read_bytes())  # the same picture again
    faces, images = read_faces(folder), read_images(folder, 8)
    np.testing.assert_array_equal(whose(images), numbers)
    np.testing.assert_array_equal(np.stack(faces, 1), [ROWS[i] for i in numbers])
    data = utkface(tmp_path, **FEW)
    assert [len(batch.label) for batch in data.splits.values()] == [
        len(batch.label) for batch in utkface(packed, **FEW).splits.values()
    ]


def test_decoded_once_and_anew_when_the_file_changes(tmp_path):
    folder = write_packed_utkface(tmp_path, ROWS)
    one = read_images(folder, 8)
    assert read_images(folder, 8) is one
    assert read_images(folder, 9).shape == (len(ROWS), 9, 9, 3)
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 0
    write_packed_utkface(tmp_path, ROWS[:-8])
    assert len(read_images(folder, 8)) == len(ROWS) - 8


def test_bad_files_are_named(tmp_path):
    with pytest.raises(ContractError, match=r"`data_dir`: expected utkface_96.npz or UTKFace's own .jpg files, got"):
        utkface(tmp_path)
    path = tmp_path / "utkface_96.npz"
    path.write_bytes(b"no zip")
    with pytest.raises(ContractError, match=r"_96.npz`: expected arrays jpeg, offset, age, gender and race, got"):
        utkface(tmp_path)
    write_packed_utkface(tmp_path, [(5, 0, 7)] * 4)
    with pytest.raises(ContractError, match=r"`utkface_96.npz race`: expected 4 integers of at least 0, at most 4"):
        utkface(tmp_path)
    write_packed_utkface(tmp_path, ROWS)
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["jpeg"][arrays["offset"][5] : arrays["offset"][6]] = 0
    np.savez(path, **arrays)
    with pytest.raises(ContractError, match=r"`utkface_96.npz picture 5`: expected a readable image"):
        utkface(tmp_path, **FEW)
    path.unlink()
    (tmp_path / "44_1_5_20170109142408075.jpg").write_bytes(jpeg(0))
    with pytest.raises(ContractError, match=r"`data_dir`: expected files named age_gender_race_date.jpg"):
        utkface(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attribute": "ages"}, r"`attribute`: expected one of age, race, got 'ages' .did you mean 'age'"),
        ({"conflicting": 1.5}, r"`conflicting`: expected a share in 0..1"),
        ({"edit": 10}, r"`edit`: expected a multiple of 4 of at least 4, got 10"),
        ({"test": 124}, r"`edit . accept . test`: expected fewer than 144 faces, 4 times the smallest cell, got 144"),
    ],
)
def test_bad_arguments_are_refused(packed, options, message):
    with pytest.raises(ContractError, match=message):
        utkface(packed, **FEW | options)


@pytest.mark.slow
@pytest.mark.realdata
def test_counts_of_the_real_faces(data_dir):
    faces = read_faces(data_dir / "utkface")
    assert np.bincount(faces.gender).tolist() == [2167, 2671]
    assert np.bincount(faces.race).tolist() == [2596, 202, 777, 721, 542]
    assert (int((faces.age < 10).sum()), int((faces.age >= 60).sum())) == (1458, 711)
    data = utkface(data_dir, conflicting=0.02)
    sizes = {name: len(batch.label) for name, batch in data.splits.items()}
    # Rest of the aligned cells: 916 men of 20 or older, 559 girls of 12 or younger.
    assert sizes == {"train": round(916 / 0.98) + round(559 / 0.98), "edit": 400, "accept": 400, "test": 400}
    train = data.splits["train"]
    assert np.bincount(2 * train.label + train.attribute).tolist() == [916, 19, 11, 559]
    assert all(100 < data.variant[f"{name}_pairs"] <= 200 for name in ("edit", "accept", "test"))


@pytest.mark.realdata
def test_the_real_faces_look_like_faces(data_dir):
    images = read_images(data_dir / "utkface", 48).astype(float) / 255
    spread = images.std(axis=(1, 2, 3))
    assert spread.min() > 0.02  # none is flat
    # Aligned crops: their mean is a face, left and right alike, its skin redder than blue.
    mean = images.mean(axis=0)
    assert np.corrcoef(mean[..., 1].ravel(), mean[:, ::-1, 1].ravel())[0, 1] > 0.95
    assert (mean[16:32, 16:32, 0] > mean[16:32, 16:32, 2] + 0.1).all()
