import numpy as np
import pytest
from oracles.expression_files import raf_db_rows, write_raf_db
from oracles.faces import colour_of

from jaxdebias.contracts import ContractError
from jaxdebias.data import aligned_cells, raf_db
from jaxdebias.data._sets.raf_db import ATTRIBUTES, EXPRESSIONS

ROWS = raf_db_rows()
COLUMN = {"gender": 2, "race": 3, "age": 4}
FEW = {"image_size": 8, "held_out": 0.3}


@pytest.fixture(scope="module")
def basic(tmp_path_factory):
    return write_raf_db(tmp_path_factory.mktemp("raf") / "RAF-DB" / "basic", ROWS)


def whose(images):
    """The number of each picture, from its colour."""
    colours = np.array([colour_of(i) for i in range(len(ROWS))], int)
    distance = abs(images.mean(axis=(1, 2))[:, None] - colours).sum(-1)
    assert distance.min(axis=1).max() < 12
    return distance.argmin(axis=1)


@pytest.mark.parametrize("attribute", ["none", *ATTRIBUTES])
def test_pictures_keep_their_labels_and_annotations(basic, attribute):
    data = raf_db(basic.parent.parent, attribute=attribute, **FEW)
    everybody = []
    for name, batch in data.splits.items():
        rows = whose(batch.x)
        everybody += [*rows]
        assert all(ROWS[i][0].startswith("test") == (name == "test") for i in rows)
        assert batch.label.tolist() == [ROWS[i][1] - 1 for i in rows]
        if attribute == "none":
            assert (batch.attribute == -1).all()
        else:
            said = [ROWS[i][COLUMN[attribute]] for i in rows]
            assert batch.attribute.tolist() == [-1 if attribute == "gender" and a == 2 else a for a in said]
    assert sorted(everybody) == list(range(len(ROWS)))
    assert {name: len(batch.label) for name, batch in data.splits.items()} == {
        "train": 56,
        "edit": 42,
        "accept": 42,
        "test": 28,
    }
    assert data.label_names == EXPRESSIONS
    assert EXPRESSIONS[0] == "surprise"
    assert data.attribute_names == ATTRIBUTES.get(attribute, ("unknown",))
    assert (data.pairs == {}) == (attribute == "none")


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_pairs_have_one_expression_and_both_sides(basic, attribute):
    data = raf_db(basic, attribute=attribute, **FEW)
    train = data.splits["train"]
    aligned = aligned_cells(train.label, train.attribute, 7, len(ATTRIBUTES[attribute]))
    np.testing.assert_array_equal(data.aligned, aligned)
    for name, pairs in data.pairs.items():
        x, twin = whose(pairs.x), whose(pairs.twin)
        assert len(x) == data.variant[f"{name}_pairs"] > 0
        assert len({*x, *twin}) == 2 * len(x)
        assert {*x, *twin} <= set(whose(data.splits[name].x))
        for i, j, label, value in zip(x, twin, pairs.label, pairs.attribute, strict=True):
            assert ROWS[i][1] == ROWS[j][1] == label + 1
            assert ROWS[i][COLUMN[attribute]] == value
            assert aligned[label, value]
            assert not aligned[label, ROWS[j][COLUMN[attribute]]]


def test_without_annotations_only_the_attribute_is_missing(tmp_path):
    folder = write_raf_db(tmp_path / "basic", ROWS[:30] + ROWS[-7:], annotations=False)
    assert len(raf_db(tmp_path, image_size=8).splits["train"].label) == 24
    with pytest.raises(ContractError, match=r"manu_attri.txt`: expected a readable text file, got"):
        raf_db(folder, attribute="race")


def test_bad_files_are_named(tmp_path):
    with pytest.raises(ContractError, match=r"`data_dir`: expected RAF-DB's EmoLabel/list_patition_label.txt and"):
        raf_db(tmp_path)
    folder = write_raf_db(tmp_path, ROWS[:20] + ROWS[-4:])
    path = folder / "Annotation" / "manual" / "train_00004_manu_attri.txt"
    whole = path.read_text().splitlines()
    for lines, message in [
        (whole[:7], r"train_00004_manu_attri.txt`: expected 5 lines of landmarks, gender, race and"),
        ([*whole[:5], "3", *whole[6:]], r"_00004_manu_attri.txt gender`: expected a number in 0..2"),
        ([*whole[:7], "old"], r"4_manu_attri.txt age`: expected a number in 0..4, got str 'old'"),
    ]:
        path.write_text("\n".join(lines) + "\n")
        with pytest.raises(ContractError, match=message):
            raf_db(folder, attribute="gender")
    listed = folder / "EmoLabel" / "list_patition_label.txt"
    text = listed.read_text()
    for bad in ("train_00004.jpg 8", "train_00004.jpg", "val_00004.jpg 4", "train_00004.png 4"):
        listed.write_text(text.replace("train_00004.jpg 4", bad))
        with pytest.raises(ContractError, match=r"list_patition_label.txt line 1`: expected train_NUMBER.jpg or test_"):
            raf_db(folder)
    listed.write_text(text.replace("train_", "test_"))
    with pytest.raises(ContractError, match=r"expected training pictures to divide, and test pictures, got 0 and 24"):
        raf_db(folder)
    listed.write_text(text, encoding="utf-8-sig")
    assert len(raf_db(folder).splits["test"].label) == 4
    listed.write_text(text)
    (folder / "Image" / "aligned" / "train_00004_aligned.jpg").unlink()
    with pytest.raises(ContractError, match=r"`Image/aligned/train_00004_aligned.jpg`: expected an image file"):
        raf_db(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"attribute": "ages"},
            r"`attribute`: expected one of none, gender, race, age, got 'ages' .did you mean 'age'",
        ),
        ({"held_out": 0.5}, r"`held_out`: expected a share above 0 and below 1/2, got 0.5"),
    ],
)
def test_bad_arguments_are_refused(basic, options, message):
    with pytest.raises(ContractError, match=message):
        raf_db(basic, **options)
