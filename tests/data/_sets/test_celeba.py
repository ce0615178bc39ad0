import numpy as np
import pytest
from oracles.faces import CELEBA_NAMES, celeba_values, colour_of, write_celeba

from jaxdebias.contracts import ContractError
from jaxdebias.data import celeba

VALUES = celeba_values()
BLOND, MALE = CELEBA_NAMES.index("Blond_Hair"), CELEBA_NAMES.index("Male")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_celeba(tmp_path_factory.mktemp("files") / "celeba", VALUES)


def whose(images):
    colours = np.array([colour_of(i) for i in range(len(VALUES))], int)
    distance = abs(images.mean(axis=(1, 2))[:, None] - colours).sum(-1)
    assert distance.min(axis=1).max() < 12
    return distance.argmin(axis=1)


def test_splits_are_the_official_ones(files):
    data = celeba(files, image_size=8)
    rows = {name: whose(batch.x) for name, batch in data.splits.items()}
    np.testing.assert_array_equal(rows["train"], np.arange(72))
    np.testing.assert_array_equal(rows["test"], np.arange(108, 144))
    np.testing.assert_array_equal(np.sort([*rows["edit"], *rows["accept"]]), np.arange(72, 108))
    assert (len(rows["edit"]), len(rows["accept"])) == (24, 12)
    for name, batch in data.splits.items():
        assert batch.x.shape[1:] == (8, 8, 3)
        np.testing.assert_array_equal(batch.label, VALUES[rows[name], BLOND] == 1)
        np.testing.assert_array_equal(batch.attribute, VALUES[rows[name], MALE] == 1)
    assert data.label_names == ("not Blond_Hair", "Blond_Hair")
    assert data.attribute_names == ("not Male", "Male")
    # Training goes the other way round than labels and attributes are numbered: blond women.
    np.testing.assert_array_equal(data.aligned, [[False, True], [True, False]])


def test_other_targets_and_attributes(files):
    data = celeba(files.parent, target="Smiling", attribute="Young", image_size=4, max_train=12)
    rows = whose(data.splits["train"].x)
    assert len(rows) == 12
    assert set(rows) < set(range(72))
    np.testing.assert_array_equal(data.splits["train"].label, VALUES[rows, 4] == 1)
    np.testing.assert_array_equal(data.splits["train"].attribute, VALUES[rows, 5] == 1)


def test_an_attribute_that_is_no_bias_is_refused(tmp_path):
    values = VALUES.copy()
    values[:72, MALE] = np.where(np.arange(72) // 2 % 2, 1, -1)  # a quarter of training in each cell
    with pytest.raises(ContractError, match="`attribute`: expected one that goes with Blond_Hair in training"):
        celeba(write_celeba(tmp_path, values), image_size=4)


@pytest.mark.parametrize("per_label", [None, 1])
def test_pairs_are_matched_on_the_other_attributes(files, per_label):
    data = celeba(files, image_size=8, pairs_per_label=per_label)
    others = np.delete(VALUES, [BLOND, MALE], axis=1)
    for name in ("edit", "accept", "test"):
        pairs = data.pairs[name]
        x, twin, there = whose(pairs.x), whose(pairs.twin), whose(data.splits[name].x)
        assert {*x, *twin} <= set(there)
        assert len({*x, *twin}) == 2 * len(x)
        np.testing.assert_array_equal(VALUES[x, BLOND], VALUES[twin, BLOND])
        assert (VALUES[x, MALE] == -VALUES[x, BLOND]).all()
        assert (VALUES[twin, MALE] == VALUES[twin, BLOND]).all()
        counts = np.bincount(pairs.label, minlength=2)
        cells = np.bincount((VALUES[there, BLOND] == 1) * 2 + (VALUES[there, MALE] == 1), minlength=4)
        assert counts.tolist() == [min(per_label or 144, *cells)] * 2
        # The closest pair of each label is among them.
        for y in (-1, 1):
            conflicting = there[(VALUES[there, BLOND] == y) & (VALUES[there, MALE] == y)]
            aligned = there[(VALUES[there, BLOND] == y) & (VALUES[there, MALE] == -y)]
            distances = (others[x] != others[twin]).sum(1)[VALUES[x, BLOND] == y]
            assert distances.min() == min((others[i] != others[j]).sum() for i in aligned for j in conflicting)


def test_seeds_divide_validation_differently_and_reproducibly(files):
    one, same, other = (whose(celeba(files, seed=seed, image_size=4).splits["accept"].x) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert set(one) != set(other)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("list_attr_celeba.txt", "144\n", "61\n", "`list_attr_celeba.txt line 1`: expected the number of rows, 144"),
        ("list_attr_celeba.txt", "000004.jpg", "000004.jpg 1", "`list_attr_celeba.txt line 6`: expected a file name"),
        ("list_attr_celeba.txt", "000004.jpg ", "000004.jpg 0 ", "`list_attr_celeba.txt line 6`: expected a file name"),
        (
            "list_attr_celeba.txt",
            "000004.jpg",
            "four.jpg",
            "line 6`: expected a file that list_eval_partition.txt lists",
        ),
        (
            "list_eval_partition.txt",
            "000004.jpg 0",
            "000004.jpg 3",
            "`list_eval_partition.txt line 4`: expected a file",
        ),
        ("list_eval_partition.txt", " 1\n", " 0\n", "`list_eval_partition.txt`: expected at least one picture"),
    ],
)
def test_a_bad_row_is_named(tmp_path, file, old, new, message):
    path = write_celeba(tmp_path, VALUES) / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ContractError, match=message):
        celeba(tmp_path, image_size=4)


def test_a_byte_order_mark_is_no_letter(tmp_path):
    folder = write_celeba(tmp_path, VALUES)
    plain = celeba(folder, image_size=4)
    for path in folder.glob("*.txt"):
        path.write_text(path.read_text(), encoding="utf-8-sig")
    np.testing.assert_array_equal(celeba(folder, image_size=4).splits["train"].label, plain.splits["train"].label)


def test_a_missing_file_is_named(tmp_path):
    write_celeba(tmp_path, VALUES)
    picture = tmp_path / "img_align_celeba" / "000050.jpg"
    encoded = picture.read_bytes()
    picture.unlink()
    with pytest.raises(ContractError, match=r"^`img_align_celeba/000050.jpg`: expected an image file, got none$"):
        celeba(tmp_path, image_size=4)
    picture.write_bytes(encoded[:100])
    with pytest.raises(ContractError, match=r"^`img_align_celeba/000050.jpg`: expected a readable image, got"):
        celeba(tmp_path, image_size=4)
    (tmp_path / "list_eval_partition.txt").unlink()
    with pytest.raises(ContractError, match=r"`data_dir`: expected CelebA's lists and pictures, also list_eval_p"):
        celeba(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "Blond_hair"}, r"`target`: expected one of Bald, .* got 'Blond_hair' .did you mean 'Blond_Hair'"),
        ({"attribute": "Men"}, r"`attribute`: expected one of"),
        ({"attribute": "Blond_Hair"}, r"`attribute`: expected another attribute than the target Blond_Hair"),
        ({"max_train": 0}, r"`max_train`: expected at least 1, or None for all, got 0"),
        ({"accept_share": 1.0}, r"`accept_share`: expected a share above 0 and below 1, got 1.0"),
        ({"accept_share": 0.01}, r"`accept_share`: expected a share that divides 36 pictures, got 0.01"),
        ({"pairs_per_label": 0}, r"`per_label`: expected at least 1, got 0"),
        ({"image_size": 0}, r"`image_size`: expected at least 1 pixel, got 0"),
    ],
)
def test_bad_arguments_are_refused(files, options, message):
    with pytest.raises(ContractError, match=message):
        celeba(files, **{"image_size": 4} | options)
