import numpy as np
import pytest
from oracles.faces import colour_of
from oracles.masked_files import bird_mask, waterbirds_rows, write_waterbirds

from jaxdebias.contracts import ContractError
from jaxdebias.data import waterbirds

ROWS = waterbirds_rows()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_waterbirds(tmp_path_factory.mktemp("files") / "waterbirds", ROWS)


def whose(images):
    colours = np.array([colour_of(i) for i in range(len(ROWS))], int)
    distance = abs(images.mean(axis=(1, 2))[:, None] - colours).sum(-1)
    assert distance.min(axis=1).max() < 12
    return distance.argmin(axis=1)


def test_pictures_keep_their_row_and_their_mask(files):
    data = waterbirds(files.parent, image_size=16, crop=1.0)
    rows = {name: whose(batch.x) for name, batch in data.splits.items()}
    for name, number in (("train", 0), ("test", 2)):
        assert rows[name].tolist() == [i for i, row in enumerate(ROWS) if row[2] == number]
    assert sorted([*rows["edit"], *rows["accept"]]) == [i for i, row in enumerate(ROWS) if row[2] == 1]
    assert (len(rows["edit"]), len(rows["accept"])) == (32, 16)
    for name, batch in data.splits.items():
        for i, label, place, mask in zip(rows[name], batch.label, batch.attribute, batch.mask, strict=True):
            assert (label, place) == (ROWS[i][1], ROWS[i][3])
            # Nearest of 32 x 48 to 16 x 16: every second row, every third column, at their centres.
            np.testing.assert_array_equal(mask, bird_mask(i)[1::2, 1::3] > 127)
    assert batch.mask.dtype == np.int32
    assert (data.label_names, data.attribute_names) == (("landbird", "waterbird"), ("land", "water"))
    np.testing.assert_array_equal(data.aligned, np.eye(2, dtype=bool))


def test_the_middle_is_cut_out_of_picture_and_mask_alike(tmp_path):
    from PIL import Image

    files = write_waterbirds(tmp_path, ROWS)
    for name, *_ in ROWS:  # pictures that are bright where their mask is
        mask = Image.open((files / "segmentations" / name).with_suffix(".png"))
        Image.fromarray(np.repeat((np.asarray(mask) > 127)[..., None] * np.uint8(255), 3, 2)).save(files / name)
    for crop in (1.0, 0.875, 0.5):
        batch = waterbirds(files, image_size=24, crop=crop).splits["train"]
        agree = ((batch.x[..., 0] > 127) == batch.mask).mean()
        assert agree > 0.95
        assert batch.mask.mean() == pytest.approx(bird_mask(5).astype(bool).mean() / crop**2, rel=0.35)


def test_masks_beside_the_pictures_or_elsewhere_or_not_at_all(files, tmp_path):
    expected = waterbirds(files, image_size=16)
    beside = waterbirds(write_waterbirds(tmp_path / "beside", ROWS, layout="mask"), image_size=16)
    there = waterbirds(tmp_path / "beside", image_size=16, segmentations=files / "segmentations")
    without = waterbirds(tmp_path / "beside", image_size=16, masks=False)
    for name, batch in expected.splits.items():
        np.testing.assert_array_equal(there.splits[name].mask, batch.mask)
        assert (beside.splits[name].mask == batch.mask).mean() > 0.97  # these masks are JPEG
        assert without.splits[name].mask is None
        np.testing.assert_array_equal(without.splits[name].x, batch.x)


def test_pairs_are_of_one_species_where_they_can(files):
    data = waterbirds(files, image_size=16)
    for name in ("edit", "accept", "test"):
        pairs = data.pairs[name]
        x, twin = whose(pairs.x), whose(pairs.twin)
        assert len({*x, *twin}) == 2 * len(x) > 0
        for i, j in zip(x, twin, strict=True):
            assert ROWS[i][1] == ROWS[j][1] == ROWS[i][3] == 1 - ROWS[j][3]
    same = [
        ROWS[i][0][:3] == ROWS[j][0][:3]
        for i, j in zip(whose(data.pairs["test"].x), whose(data.pairs["test"].twin), strict=True)
    ]
    assert np.mean(same) == 1.0  # in test every species is on both backgrounds equally often


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "bird_003.jpg",
            "bird_x.jpg",
            "`metadata.csv line 5`: expected an image file, got '003.Wren/bird_x.jpg', which",
        ),
        ("bird_003.jpg,1,", "bird_003.jpg,2,", "`metadata.csv line 5`: expected y among 0, 1, got '2'"),
        ("bird_003.jpg,1,0,1", "bird_003.jpg,1,0,", "`metadata.csv line 5`: expected place among 0, 1, got ''"),
        ("img_filename", "file", "`data_dir`: expected a folder with metadata.csv of columns img_filename, y, "),
    ],
)
def test_a_bad_row_is_named(tmp_path, old, new, message):
    path = write_waterbirds(tmp_path, ROWS) / "metadata.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ContractError, match=message):
        waterbirds(tmp_path, image_size=8)


def test_a_missing_mask_or_folder_is_named(tmp_path):
    files = write_waterbirds(tmp_path / "waterbird_complete95_forest2water2", ROWS)
    mask = files / "segmentations" / "003.Wren" / "bird_003.png"
    mask.unlink()
    with pytest.raises(ContractError, match=r"^`003.Wren/bird_003.png`: expected an image file, got none$"):
        waterbirds(tmp_path, image_size=8)
    mask.write_bytes(b"no picture")
    with pytest.raises(ContractError, match=r"^`003.Wren/bird_003.png`: expected a readable image, got"):
        waterbirds(tmp_path, image_size=8)
    with pytest.raises(ContractError, match=r"`segmentations`: expected the mask of 001.Rail/bird_000.jpg .or masks="):
        waterbirds(tmp_path, image_size=8, segmentations=tmp_path)
    write_waterbirds(tmp_path / "waterbird_complete50_forest2water2", ROWS[:8])
    with pytest.raises(ContractError, match=r"expected one of the versions in it, got waterbird_complete50_forest2"):
        waterbirds(tmp_path, image_size=8)
    with pytest.raises(ContractError, match=r"`metadata.csv`: expected at least one row, got none"):
        waterbirds(write_waterbirds(tmp_path / "empty", []))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accept_share": 0.0}, "`accept_share`: expected a share above 0 and below 1, got 0.0"),
        ({"accept_share": 0.01}, "`accept_share`: expected a share that divides 48 pictures, got 0.01"),
        ({"crop": 0.0}, "`crop`: expected a share above 0 and at most 1, got 0.0"),
        ({"image_size": 0}, "`image_size`: expected at least 1 pixel, got 0"),
    ],
)
def test_bad_arguments_are_refused(files, options, message):
    with pytest.raises(ContractError, match=message):
        waterbirds(files, **{"image_size": 8} | options)
