import csv

import numpy as np
import pytest
from oracles.files import write_adult

from jaxdebias.contracts import ContractError
from jaxdebias.data import adult

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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Private, ", "", "adult.data line 3`: expected 15 values, got 14"),
        (", 9, ", ", nine, ", "adult.data line 1`: expected a number, got could not convert string to float: 'nine'"),
        ("<=50K", "poor", "expected <=50K or >50K at the end, got 'poor'"),
    ],
)
def test_a_bad_line_is_named(tmp_path, old, new, message):
    path = write_adult(tmp_path) / "adult.data"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ContractError, match=message):
        adult(tmp_path, **SIZES)


def test_a_byte_order_mark_is_no_letter(tmp_path):
    folder = write_adult(tmp_path)
    plain = adult(folder, **SIZES)
    for path in folder.iterdir():
        path.write_text(path.read_text(), encoding="utf-8-sig")
    np.testing.assert_array_equal(adult(folder, **SIZES).splits["train"].x, plain.splits["train"].x)


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


PEOPLE = """
30, Private, 1, HS-grad, 9, Married-civ-spouse, Sales, Husband, White, Male, 0, 0, 40, Cuba, >50K
31, Private, 1, HS-grad, 9, Married-civ-spouse, Sales, Wife, White, Female, 0, 0, 40, Cuba, >50K
32, Private, 1, HS-grad, 9, Divorced, Sales, Unmarried, White, Female, 0, 0, 40, Cuba, <=50K
33, Private, 1, HS-grad, 9, Never-married, Sales, Unmarried, White, Male, 0, 0, 40, Cuba, <=50K
60, State-gov, 1, Masters, 14, Married-civ-spouse, Tech-support, Husband, Black, Male, 0, 0, 60, Iran, <=50K
61, State-gov, 1, Masters, 14, Widowed, Tech-support, Wife, Black, Female, 0, 0, 60, Iran, <=50K
62, State-gov, 1, Masters, 14, Separated, Armed-Forces, Unmarried, Black, Female, 9, 0, 60, Iran, >50K
63, State-gov, 1, Masters, 14, Married-civ-spouse, Priv-house-serv, Unmarried, Black, Male, 9, 0, 60, Iran, >50K
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Eight times the same eight people, so that train has them all whatever the seed; test has them once."""
    folder = tmp_path_factory.mktemp("people")
    (folder / "adult.data").write_text(PEOPLE.strip() + PEOPLE * 7)
    (folder / "adult.test").write_text("|1x3\n" + PEOPLE.replace("50K\n", "50K.\n"))
    return folder


def shown(data, x):
    """category of each column of each row, from the one-hot columns."""
    found = []
    for row in x:
        there = [data.feature_names[i].split("=") for i in np.flatnonzero(row == 1) if "=" in data.feature_names[i]]
        found.append({"sex": ("Female", "Male")[int(row[data.feature_names.index("sex")])], **dict(there)})
    return found


def own_and_other(data, name):
    """The two sides of each pair, sorted into who the person is and the counterpart."""
    pairs, split = data.pairs[name], data.splits[name]
    own = split.attribute == pairs.attribute
    sides = np.where(own[:, None], pairs.x, pairs.twin), np.where(own[:, None], pairs.twin, pairs.x)
    np.testing.assert_array_equal(sides[0], split.x)  # whole persons, never a mixture
    return (shown(data, side) for side in sides)


def test_relationship_flips_with_sex_between_husband_and_wife(people):
    data = adult(people, edit=4, accept=4, proxies=("relationship",))
    assert data.variant["proxies"] == ["relationship"]
    for name in ("edit", "accept", "test"):
        for own, other in zip(*own_and_other(data, name), strict=True):
            assert {own.pop("sex"), other.pop("sex")} == {"Male", "Female"}
            counterpart = {"Husband": "Wife", "Wife": "Husband", "Unmarried": "Unmarried"}[own.pop("relationship")]
            assert other.pop("relationship") == counterpart
            assert own == other
        np.testing.assert_array_equal(data.pairs[name].x[:, data.variant["protected_column"]], data.pairs[name].label)


def test_a_proxy_without_counterpart_comes_from_the_most_alike_person_of_the_other_group(people):
    data = adult(people, edit=4, accept=4, proxies=("marital-status", "occupation", "relationship"))
    # By construction: the neighbour in PEOPLE is the same but for age and what is asked for.
    own, others = own_and_other(data, "test")
    neighbour = [(person["marital-status"], person["occupation"]) for person in own]
    for i, other in enumerate(others):
        assert (other["marital-status"], other["occupation"]) == neighbour[i ^ 1]
    names = data.feature_names
    untouched = [
        i
        for i, column in enumerate(names)
        if column.split("=")[0] not in ("sex", "marital-status", "occupation", "relationship")
    ]
    for batch in data.pairs.values():
        np.testing.assert_array_equal(batch.x[:, untouched], batch.twin[:, untouched])


def test_counterparts_are_put_in_before_the_nearest_person_is_sought(tmp_path):
    husband, woman, wife = (
        f"30, Private, 1, HS-grad, 9, {text}, 0, 0, 40, Cuba, >50K\n"
        for text in (
            "Married-AF-spouse, Sales, Husband, White, Male",
            "Divorced, Sales, Unmarried, White, Female",
            "Married-civ-spouse, Sales, Wife, White, Female",
        )
    )
    (tmp_path / "adult.data").write_text((husband + woman * 3 + wife) * 6)
    (tmp_path / "adult.test").write_text(husband)
    data = adult(tmp_path, edit=2, accept=2, proxies=("relationship", "marital-status"))
    other = shown(data, data.pairs["test"].twin)[0]
    assert (other["relationship"], other["marital-status"]) == ("Wife", "Married-civ-spouse")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["edit", "accept", "test"])
def test_partners_for_proxies_are_the_nearest_in_train_by_a_slow_search(files, seed, name):
    data = adult(files, attribute="race", edit=10, accept=8, seed=seed, proxies=("workclass",))
    train, split = data.splits["train"], data.splits[name]
    names = data.feature_names
    work = [i for i, column in enumerate(names) if column.startswith("workclass=")]
    numbers = [i for i, column in enumerate(names) if "=" not in column and column != "race"]
    categories = [i for i, column in enumerate(names) if "=" in column and i not in work]
    edges = {i: np.unique(np.quantile(train.x[:, i], np.arange(1, 10) / 10)) - 1e-6 for i in numbers}

    def bits(x):
        return np.concatenate([*(x[:, [i]] >= edges[i] for i in numbers), x[:, categories]], axis=1)

    pairs = data.pairs[name]
    own = split.attribute == pairs.attribute
    other = np.where(own[:, None], pairs.twin, pairs.x)
    for i in range(len(split.label)):
        allowed = (train.label == split.label[i]) & (train.attribute != split.attribute[i])
        distance = np.where(allowed, (bits(train.x) != bits(split.x)[i]).sum(1), 10_000)
        np.testing.assert_array_equal(other[i, work], train.x[distance.argmin(), work])


def test_without_takes_columns_out_and_the_attribute_stays_known(files):
    whole, data = adult(files, **SIZES), adult(files, without=("sex", "workclass"), **SIZES)
    assert data.variant["without"] == ["sex", "workclass"]
    assert data.variant["protected_column"] is None
    kept = [i for i, name in enumerate(whole.feature_names) if name.split("=")[0] not in ("sex", "workclass")]
    assert data.feature_names == tuple(whole.feature_names[i] for i in kept)
    for name, batch in data.splits.items():
        np.testing.assert_array_equal(batch.x, whole.splits[name].x[:, kept])
        np.testing.assert_array_equal(batch.attribute, whole.splits[name].attribute)
    for name, batch in data.pairs.items():
        np.testing.assert_array_equal(batch.x, batch.twin)
        np.testing.assert_array_equal(batch.attribute, whole.pairs[name].attribute)
    flipped = adult(files, without=["sex"], proxies=["relationship"], **SIZES).pairs["test"]
    assert (flipped.x != flipped.twin).any(axis=1).all()  # everybody there is a husband


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proxies": ("relation",)}, r"`proxies`: expected one of .* got 'relation' .did you mean 'relationship'"),
        ({"proxies": ("age",)}, r"`proxies`: expected one of workclass, "),
        ({"proxies": ("sex",)}, r"`proxies`: expected one of workclass, "),
        ({"proxies": "relationship"}, r"`proxies`: expected a list of column names, each once, got str 'relationship'"),
        ({"without": ("race", "race")}, r"`without`: expected a list of column names, each once, got tuple"),
        ({"without": ("fnlwgt",)}, r"`without`: expected one of age, workclass, "),
        ({"without": ("race",), "proxies": ("race",)}, r"`proxies`: expected columns that `without` does not take out"),
    ],
)
def test_bad_columns_are_refused(files, options, message):
    with pytest.raises(ContractError, match=message):
        adult(files, **SIZES | options)


@pytest.mark.slow
@pytest.mark.realdata
def test_proxies_of_the_real_table(data_dir):
    data = adult(data_dir, proxies=("relationship",))
    names, pairs = list(data.feature_names), data.pairs["test"]
    changed = {names[i] for i in np.flatnonzero((pairs.x != pairs.twin).any(axis=0))}
    assert changed == {"sex", "relationship=Husband", "relationship=Wife"}
    spouses = pairs.x[:, [names.index("relationship=Husband"), names.index("relationship=Wife")]].sum(1)
    assert 0.4 < spouses.mean() < 0.5
    # More than 50K is shown as a man, so as a husband, never as a wife.
    assert pairs.x[pairs.label == 1][:, names.index("relationship=Wife")].sum() <= 1
