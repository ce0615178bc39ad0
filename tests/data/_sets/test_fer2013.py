import numpy as np
import pytest
from oracles.expression_files import fer2013_rows, shade, write_fer2013_csv, write_fer2013_packed

from jaxdebias.contracts import ContractError
from jaxdebias.data import fer2013
from jaxdebias.data._sets.fer2013 import EMOTIONS, read_faces

ROWS = fer2013_rows()


def whose(images):
    """The number of each picture, from its shade."""
    known = np.stack([shade(i) for i in range(len(ROWS))]).reshape(len(ROWS), -1).astype(int)
    distance = abs(images.reshape(len(images), 1, -1).astype(int) - known).mean(-1)
    assert distance.min(axis=1).max() < 2
    return distance.argmin(axis=1)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_fer2013_csv(tmp_path_factory.mktemp("csv") / "fer2013", ROWS)


def test_the_table_pixel_by_pixel(table, tmp_path):
    faces = read_faces(table)
    np.testing.assert_array_equal(faces.x[..., 0], [shade(i) for i in range(len(ROWS))])
    assert faces.label.tolist() == [emotion for emotion, _ in ROWS]
    assert faces.usage.tolist() == [("Training", "PublicTest", "PrivateTest").index(usage) for _, usage in ROWS]
    other = read_faces(write_fer2013_csv(tmp_path, ROWS, name="icml_face_data.csv"))
    for a, b in zip(faces, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_splits_follow_usage(table):
    data = fer2013(table.parent)
    rows = {name: set(whose(batch.x)) for name, batch in data.splits.items()}
    assert rows["train"] == set(range(24))
    assert rows["edit"] | rows["accept"] == set(range(24, 32))
    assert len(rows["edit"]) == len(rows["accept"]) == 4
    assert rows["test"] == set(range(32, 40))
    for batch in data.splits.values():
        assert batch.x.shape[1:] == (48, 48, 1)
        assert batch.label.tolist() == [i % 7 for i in whose(batch.x)]
        assert (batch.attribute == -1).all()
    assert (data.label_names, data.pairs, data.pairing) == (EMOTIONS, {}, "none")
    assert data.variant["test_of"] == "PrivateTest"
    assert len(fer2013(table, max_train=5).splits["train"].label) == 5


def test_without_a_private_test_the_rest_comes_from_training(tmp_path):
    data = fer2013(write_fer2013_packed(tmp_path, ROWS), held_out=0.25)
    rows = {name: set(whose(batch.x)) for name, batch in data.splits.items()}
    assert {name: len(of) for name, of in rows.items()} == {"train": 12, "edit": 6, "accept": 6, "test": 8}
    assert rows["train"] | rows["edit"] | rows["accept"] == set(range(24))
    assert rows["test"] == set(range(24, 32))
    for batch in data.splits.values():
        assert batch.label.tolist() == [i % 7 for i in whose(batch.x)]
    assert data.variant["test_of"] == "PublicTest"
    other = fer2013(tmp_path, held_out=0.25, seed=1)
    assert set(whose(other.splits["edit"].x)) != rows["edit"]


@pytest.mark.parametrize(("attribute", "statistic"), [("brightness", np.mean), ("contrast", np.std)])
def test_attributes_from_the_pixels(table, attribute, statistic):
    data = fer2013(table, attribute=attribute, rare=0.25)
    train = data.splits["train"]
    edge = np.quantile([statistic(x / 1.0) for x in train.x], 0.25)
    for batch in data.splits.values():
        assert batch.attribute.tolist() == [int(statistic(x / 1.0) < edge) for x in batch.x]
    assert train.attribute.sum() == 6
    assert data.aligned.tolist() == [[True, False]] * 7


def test_a_byte_order_mark_is_no_letter(table, tmp_path):
    (tmp_path / "fer2013.csv").write_text((table / "fer2013.csv").read_text(), encoding="utf-8-sig")
    for name, batch in fer2013(tmp_path).splits.items():
        np.testing.assert_array_equal(batch.x, fer2013(table).splits[name].x)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(ContractError, match=r"`data_dir`: expected fer2013.csv or icml_face_data.csv, or fer2013_tr"):
        fer2013(tmp_path)
    path = write_fer2013_csv(tmp_path, ROWS[:3]) / "fer2013.csv"
    whole = path.read_text()
    pixels = " ".join(map(str, shade(0).ravel()))
    for bad, message in [
        (whole.replace("emotion,", "label,"), r"line 1`: expected columns emotion, pixels and Usage, got label"),
        (whole.replace("\n1,", "\n7,"), r"line 3`: expected an emotion in 0..6, got str '7'"),
        (whole.replace("\n1,", "\n,"), r"line 3`: expected an emotion in 0..6"),
        (whole.replace(",Training", ",Test", 1), r"line 2`: expected a Usage among Training, .* got str 'Test'"),
        (whole.replace(pixels, pixels[:-2]), r"line 2`: expected 2304 pixels in 0..255, got 2303 words"),
        (whole.replace(pixels, pixels[:-1] + "x"), r"line 2`: expected 2304 pixels in 0..255, got 2304 words"),
        (whole.replace(pixels, "256" + pixels[2:]), r"line 2`: expected 2304 pixels in 0..255, got 2304 words"),
        (whole.replace(",Training", "", 1), r"line 2`: expected 3 columns, got 2"),
        ("emotion,pixels,Usage\n", r"`fer2013.csv`: expected at least one row"),
    ]:
        path.write_text(bad)
        with pytest.raises(ContractError, match=message):
            fer2013(tmp_path)
    path.write_text(whole)
    with pytest.raises(ContractError, match=r"`Usage`: expected rows of Training and PublicTest, got 3 and 0"):
        fer2013(tmp_path)
    path.unlink()
    write_fer2013_packed(tmp_path, ROWS)
    packed = tmp_path / "fer2013_publictest.npz"
    with np.load(packed) as stored:
        arrays = dict(stored)
    np.savez(packed, **arrays | {"label": arrays["label"] + 5})
    with pytest.raises(ContractError, match=r"`fer2013_publictest.npz label`: expected 8 integers in 0..6"):
        fer2013(tmp_path)
    packed.write_bytes(b"no zip")
    with pytest.raises(ContractError, match=r"_publictest.npz`: expected arrays jpeg, offset and label, got"):
        fer2013(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attribute": "bright"}, r"`attribute`: expected one of none, brightness, contrast, got 'bright'"),
        ({"rare": 2.0}, r"`rare`: expected a share in 0..1"),
        ({"held_out": 0.5}, r"`held_out`: expected a share above 0 and below 1/2, got 0.5"),
        ({"max_train": 0}, r"`max_train`: expected at least 1, or None for all, got 0"),
    ],
)
def test_bad_arguments_are_refused(table, options, message):
    with pytest.raises(ContractError, match=message):
        fer2013(table, **options)


@pytest.mark.slow
@pytest.mark.realdata
def test_counts_of_the_real_faces(data_dir):
    faces = read_faces(data_dir / "fer2013")
    assert np.bincount(faces.usage).tolist() == [10036, 3588]
    assert np.bincount(faces.label[faces.usage == 0]).tolist() == [1600, 436, 1600, 1600, 1600, 1600, 1600]
    assert faces.x.reshape(len(faces.x), -1).std(axis=1).min() > 1  # none is flat
    # Their mean is a face: left and right alike, eyes darker than the cheeks below.
    mean = faces.x[..., 0].mean(axis=0)
    assert np.corrcoef(mean.ravel(), mean[:, ::-1].ravel())[0, 1] > 0.9
    assert mean[16:20, 10:18].mean() < mean[24:30, 10:18].mean() - 5
