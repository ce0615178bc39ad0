import csv

import numpy as np
import pytest
from oracles.files import write_adult

from jaxdebias.contracts import ContractError
from jaxdebias.data.adult import adult

SIZES = {"edit": 10, "accept": 8}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_adult(tmp_path_factory.mktemp("files") / "adult")


def test_columns(files):
    data = adult(files, **SIZES)
    names, train = list(data.feature_names), data.splits["train"].x
    assert train.shape == (42, len(names))
    assert train.dtype == np.float32
    assert not any("fnlwgt" in name for name in names)
    assert "workclass=missing" in names
    assert [name for name in names if "sex" in name] == ["sex"]
    assert names[data.variant["protected_column"]] == "sex"
    for name, column in zip(names, train.T, strict=True):
        if name in ("age", "capital-gain"):
            assert abs(column.mean()) < 1e-5
            assert abs(column.std() - 1) < 1e-4
        elif "=" in name or name == "sex":
            assert set(np.unique(column)) <= {0.0, 1.0}
        else:  # constant in this table
            assert (column == 0).all()
    one_hot = train[:, [i for i, name in enumerate(names) if name.startswith("workclass=")]]
    np.testing.assert_array_equal(one_hot.sum(1), 1)


def test_rows_match_the_file_by_an_independent_reading(files):
    data = adult(files, attribute="race", **SIZES)
    with open(files / "adult.test") as file:
        rows = [[text.strip() for text in row] for row in csv.reader(file)][1:]
    test = data.splits["test"]
    np.testing.assert_array_equal(test.label, [row[14] == ">50K." for row in rows])
    np.testing.assert_array_equal(test.attribute, [row[8] == "White" for row in rows])
    np.testing.assert_array_equal(test.x[:, data.variant["protected_column"]], test.attribute)
    gain = test.x[:, data.feature_names.index("capital-gain")].astype(float)
    wanted = np.log1p([float(row[10]) for row in rows])
    # Standardised: the same up to one affine map, fitted on the train split.
    assert np.corrcoef(gain, wanted)[0, 1] > 1 - 1e-6


def test_pairs_flip_the_protected_column_and_nothing_else(files):
    data = adult(files, **SIZES)
    column = data.variant["protected_column"]
    for name in ("edit", "accept", "test"):
        pairs, split = data.pairs[name], data.splits[name]
        np.testing.assert_array_equal(pairs.label, split.label)
        np.testing.assert_array_equal(pairs.attribute, pairs.label)  # Male and >50K, Female and <=50K
        np.testing.assert_array_equal(pairs.x[:, column], pairs.label)
        np.testing.assert_array_equal(pairs.twin[:, column], 1 - pairs.label)
        rest = np.arange(split.x.shape[1]) != column
        np.testing.assert_array_equal(pairs.x[:, rest], split.x[:, rest])
        np.testing.assert_array_equal(pairs.twin[:, rest], split.x[:, rest])
    assert data.attribute_names == ("Female", "Male")
    np.testing.assert_array_equal(data.aligned, np.eye(2, dtype=bool))


def test_seeds_divide_the_rows_differently_and_reproducibly(files):
    one, same, other = (adult(files, seed=seed, **SIZES).splits["edit"].label for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize(("old", "new", "message"), [
    ("Private, ", "", "adult.data line 3`: expected 15 values, got 14"),
    (", 9, ", ", nine, ", "adult.data line 1`: expected a number, got could not convert string to float: 'nine'"),
    ("<=50K", "poor", "expected <=50K or >50K at the end, got 'poor'"),
])
def test_a_bad_line_is_named(tmp_path, old, new, message):
    path = write_adult(tmp_path) / "adult.data"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ContractError, match=message):
        adult(tmp_path, **SIZES)


def test_bad_arguments_are_refused(files, tmp_path):
    with pytest.raises(ContractError, match=r"`attribute`: expected one of sex, race, got 'gender'"):
        adult(files, attribute="gender", **SIZES)
    with pytest.raises(ContractError, match=r"`data_dir`: expected UCI's Adult files, also adult.data, got"):
        adult(tmp_path)
    with pytest.raises(ContractError, match=r"expected at least 1 each and fewer than 60 rows, got 50 . 10"):
        adult(files, edit=50, accept=10)


@pytest.mark.realdata
@pytest.mark.parametrize(("attribute", "ones"), [("sex", 21790), ("race", 27816)])
def test_counts_of_the_real_table(data_dir, attribute, ones):
    data = adult(data_dir, attribute=attribute)
    sizes = {name: len(batch.label) for name, batch in data.splits.items()}
    assert sizes == {"train": 25561, "edit": 4000, "accept": 3000, "test": 16281}
    held = [data.splits[name] for name in ("train", "edit", "accept")]
    assert sum(int(batch.attribute.sum()) for batch in held) == ones
    assert sum(int(batch.label.sum()) for batch in held) == 7841
    assert int(data.splits["test"].label.sum()) == 3846
    missing = [i for i, name in enumerate(data.feature_names) if name.endswith("=missing")]
    rows = sum(int((batch.x[:, missing].sum(1) > 0).sum()) for batch in held)
    assert (rows, int((data.splits["test"].x[:, missing].sum(1) > 0).sum())) == (2399, 1221)
