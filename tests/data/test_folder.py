import os

import jax
import numpy as np
import pytest
from oracles.files import folder_rows, write_folder
from PIL import Image

from jaxdebias.contracts import ContractError
from jaxdebias.data import aligned_cells
from jaxdebias.data import folder as builder


def test_splits_and_pixels(tmp_path):
    rows = folder_rows()
    data = builder(write_folder(tmp_path, rows), image_size=16)
    assert {name: len(batch.label) for name, batch in data.splits.items()} == {
        "train": 30,
        "edit": 10,
        "accept": 5,
        "test": 15,
    }
    train, rows_train = data.splits["train"], [row for row in rows if row[1] == 0]
    np.testing.assert_array_equal(train.label, [row[2] for row in rows_train])
    np.testing.assert_array_equal(train.attribute, [row[3] for row in rows_train])
    assert train.x.shape == (30, 16, 16, 3)
    for i in (0, 29):
        image = Image.open(tmp_path / rows_train[i][0]).resize((16, 16), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(train.x[i], np.asarray(image))
    np.testing.assert_array_equal(data.aligned, aligned_cells(train.label, train.attribute, 2, 2))
    np.testing.assert_array_equal(data.aligned, np.eye(2, dtype=bool))


def test_without_val_the_shares_come_from_train(tmp_path):
    root = write_folder(tmp_path, folder_rows(80, val=False))
    data = builder(root, image_size=8, edit_share=0.2, accept_share=0.1)
    assert {name: len(batch.label) for name, batch in data.splits.items()} == {
        "train": 42,
        "edit": 12,
        "accept": 6,
        "test": 20,
    }
    images = np.concatenate([data.splits[name].x for name in ("train", "edit", "accept", "test")])
    assert len({image.tobytes() for image in images}) == 80  # disjoint
    other = builder(root, image_size=8, seed=1)
    assert (other.splits["edit"].x != data.splits["edit"].x).any()


def test_pairs_match_different_images_of_one_label(tmp_path):
    data = builder(write_folder(tmp_path, folder_rows(240)), image_size=8)
    assert data.pairing == "matched"
    assert set(data.pairs) == {"edit", "accept", "test"}
    for name, pairs in data.pairs.items():
        split = data.splits[name]
        row_of = {image.tobytes(): i for i, image in enumerate(split.x)}
        x = np.array([row_of[image.tobytes()] for image in pairs.x])
        twin = np.array([row_of[image.tobytes()] for image in pairs.twin])
        np.testing.assert_array_equal(split.label[x], pairs.label)
        np.testing.assert_array_equal(split.label[twin], pairs.label)
        np.testing.assert_array_equal(split.attribute[x], pairs.attribute)
        assert data.aligned[split.label[x], split.attribute[x]].all()
        assert not data.aligned[split.label[twin], split.attribute[twin]].any()
        assert len(set(x) | set(twin)) == 2 * len(x)  # no image twice
        cells = np.bincount(split.label * 2 + split.attribute, minlength=4)
        assert len(x) == min(cells[0], cells[1]) + min(cells[3], cells[2])


def test_no_conflicting_images_no_pairs(tmp_path):
    rows = [(f"{i}.png", i % 3, i // 3 % 2, i // 3 % 2) for i in range(36)]
    data = builder(write_folder(tmp_path, rows), image_size=8)
    assert dict(data.pairs) == {}
    assert data.pairing == "none"


def test_waterbirds_columns_names_and_words(tmp_path):
    rows = [
        (
            i,
            f"{i}.png",
            ("landbird", "waterbird")[i // 3 % 2],
            ("train", "val", "test")[i % 3],
            ("water", "land", "land", "water")[i // 3 % 4],
            "more",
        )
        for i in range(36)
    ]
    for i in range(36):
        Image.new("L", (5, 7), i).save(tmp_path / f"{i}.png")
    write_folder(tmp_path, rows, header=("img_id", "img_filename", "y", "split", "place", "place_filename"))
    data = builder(tmp_path, image_size=8)
    assert data.label_names == ("landbird", "waterbird")
    assert data.attribute_names == ("land", "water")
    assert data.splits["train"].attribute.tolist() == [1, 0, 0, 1] * 3
    assert data.splits["train"].x[1].max() == 3  # grey images become RGB


def test_integers_are_sorted_as_numbers(tmp_path):
    rows = [(f"{i}.png", i % 3, (10, 2, -1)[i // 3 % 3], 0) for i in range(36)]
    data = builder(write_folder(tmp_path, rows), image_size=8)
    assert data.label_names == ("-1", "2", "10")
    assert data.splits["train"].label.tolist() == [2, 1, 0] * 4


def leaves(data):
    return jax.tree.leaves((dict(data.splits), dict(data.pairs)))


def test_the_cache_saves_decoding_and_notices_changes(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "set", folder_rows())
    first = builder(root, image_size=8)
    (cache,) = (root / ".jaxdebias").iterdir()
    module = __import__("sys").modules["jaxdebias.data._folder"]
    decoded = []
    real = module.read_image
    monkeypatch.setattr(module, "read_image", lambda *a, **k: decoded.append(1) or real(*a, **k))

    for a, b in zip(leaves(first), leaves(builder(root, image_size=8)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not decoded
    builder(root, image_size=9)  # another size
    assert len(decoded) == 60
    os.utime(root / "images/0.png", ns=(1, 1))  # another modification time
    builder(root, image_size=8)
    assert len(decoded) == 120
    cache_again = max((root / ".jaxdebias").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    cache_again.write_bytes(cache.read_bytes()[:100])  # a damaged cache is decoded again and replaced
    for a, b in zip(leaves(first), leaves(builder(root, image_size=8)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(decoded) == 180
    builder(root, image_size=8)
    assert len(decoded) == 180
    assert not [path for path in (root / ".jaxdebias").iterdir() if path.suffix != ".npz"]


def test_a_cache_elsewhere_or_nowhere(tmp_path):
    root = write_folder(tmp_path / "set", folder_rows())
    builder(root, image_size=8, cache_dir=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert not (root / ".jaxdebias").exists()
    (tmp_path / "file").write_text("in the way")  # no folder can be made below a file
    assert builder(root, image_size=8, cache_dir=tmp_path / "file" / "cache").splits["train"].x.shape == (30, 8, 8, 3)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("gone.jpg", 0, 0, 0), "metadata.csv line 8`: expected an image file, got 'gone.jpg', which does not exist"),
        (("text.jpg", 0, 0, 0), "metadata.csv line 8`: expected a readable image, got str 'text.jpg'"),
        (("0.png", 3, 0, 0), "metadata.csv line 8`: expected split 0, 1, 2 or train, val, test, got '3'"),
        (("0.png", 0, "bird", 0), "metadata.csv line 8`: expected a number for y, like '0', got 'bird'"),
        (("0.png", 0, "NA", 0), "metadata.csv line 8`: expected a value for y, got 'NA'"),
        (("0.png", 0, 0, "nan"), "metadata.csv line 8`: expected a value for a, got 'nan'"),
        (("0.png", 0, 0, ""), "metadata.csv line 8`: expected a value for a, got nothing"),
        (("0.png", 0, 0), "metadata.csv line 8`: expected a value for a, got nothing"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path, row, message):
    good = [(f"{i}.png", i % 3, i // 3, 0) for i in range(6)]
    write_folder(tmp_path, [*good, row, *good])
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ContractError, match=message) as caught:
        builder(tmp_path, image_size=8)
    assert "\n" not in str(caught.value)


def test_a_truncated_image_is_named(tmp_path):
    write_folder(tmp_path, folder_rows())
    path = tmp_path / "images/3.png"
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(ContractError, match=r"metadata.csv line 5`: expected a readable image, got str '3.png'"):
        builder(tmp_path, image_size=8)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (
            ("file", "split", "y", "a"),
            [("x", 0, 0, 0)],
            "line 1`: expected a column filename or img_filename, got file, ",
        ),
        (
            ("filename", "split", "y", "a"),
            [("0.png", 0, 0, 0)],
            "`metadata.csv`: expected at least one row of split test",
        ),
        (
            ("filename", "split", "y", "a"),
            [("0.png", 0, 0, 0), ("1.png", 2, 0, 0)],
            "expected enough rows for split edit",
        ),
    ],
)
def test_an_unusable_table_is_refused(tmp_path, header, rows, message):
    with pytest.raises(ContractError, match=message):
        builder(write_folder(tmp_path, rows, header=header), image_size=8)


def test_no_table_is_refused(tmp_path):
    with pytest.raises(ContractError, match=r"`data_dir`: expected a folder with metadata.csv, got .* without it"):
        builder(tmp_path)
    with pytest.raises(ContractError, match=r"expected positive shares, together below 1"):
        builder(tmp_path, edit_share=0.9, accept_share=0.2)


@pytest.mark.parametrize("spelled", [float, bool, lambda v: f" {v}", lambda v: f"{v}.00"])
@pytest.mark.parametrize("first", [True, False])
def test_classes_are_matched_by_value_whichever_row_is_first(tmp_path, spelled, first):
    rows = folder_rows()
    plain = builder(write_folder(tmp_path / "plain", rows), image_size=8)
    other = [
        (*row[:2], *((spelled(row[2]), spelled(row[3])) if (i < 20) == first else row[2:]))
        for i, row in enumerate(rows)
    ]
    mixed = builder(write_folder(tmp_path / "mixed", other), image_size=8)
    assert mixed.label_names == plain.label_names == ("0", "1")
    assert mixed.attribute_names == plain.attribute_names
    for name, batch in plain.splits.items():
        np.testing.assert_array_equal(mixed.splits[name].label, batch.label)
        np.testing.assert_array_equal(mixed.splits[name].attribute, batch.attribute)


@pytest.mark.parametrize("first", [True, False])
def test_a_name_among_numbers_is_refused_wherever_it_stands(tmp_path, first):
    good = [(f"{i}.png", i % 3, i // 3, 0) for i in range(6)]
    bad = ("0.png", 0, "bird", 0)
    write_folder(tmp_path, [bad, *good] if first else [*good, bad])
    with pytest.raises(ContractError, match=r"expected a number for y, like '0', got 'bird'"):
        builder(tmp_path, image_size=8)


def test_pictures_are_read_as_viewers_show_them(tmp_path):
    """A phone's photograph on its side, 16 bits and a transparent one, in one folder."""
    rows = [(f"{i}.png", i % 3, i // 3 % 2, 0) for i in range(36)]
    write_folder(tmp_path, rows)
    top = np.zeros((8, 8, 3), np.uint8)
    top[:2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(top, 1))).save(tmp_path / "0.png", exif=exif)
    Image.fromarray(np.full((8, 8), 257 * 40, np.uint16)).save(tmp_path / "3.png")
    Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(tmp_path / "6.png")
    train = builder(tmp_path, image_size=8).splits["train"]
    np.testing.assert_array_equal(train.x[0], top)
    assert (train.x[1] == 40).all()
    assert (train.x[2] == 255).all()
