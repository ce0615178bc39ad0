"""One form for each value, whatever spells it."""

import decimal

import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdebias.contracts import ContractError
from jaxdebias.data._values import (
    MISSING,
    canonical,
    canonical_all,
    categories,
    check_groups,
    check_names,
    column,
    different_values,
    in_order,
)

ONE = [1, 1.0, "1", "1.0", " 1 ", "+1", "1e0", "01", True, np.int8(1), np.float32(1), np.bool_(True), jnp.float32(1)]
ONE += [decimal.Decimal("1.0"), b"1", np.str_("1.00")]


@pytest.mark.parametrize("value", ONE, ids=repr)
def test_one_is_one_value(value):
    assert canonical(value) == 1
    assert hash(canonical(value)) == hash(1)


UNKNOWN = (*sorted(MISSING), " NaN ", None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, -np.inf)


@pytest.mark.parametrize("value", UNKNOWN)
def test_missing_values_are_unknown(value):
    assert canonical(value) is None
    assert categories(["a", value]).value.tolist() == [0, -1]


@pytest.mark.parametrize("text", ["none", "na", "NAN", "missing", "1,5", "1 2", "0x1", "1_000", "١", "-", "e5"])
def test_words_stay_words(text):
    """Also what Python takes for a number where no table does, and words that merely look like missing values."""
    assert canonical(text) == text


def test_large_integers_are_exact_and_float32_is_short():
    assert canonical("9007199254740993") == 9007199254740993
    assert canonical(np.float32(0.1)) == canonical("0.1") == 0.1
    assert canonical(jnp.bfloat16(0.5)) == 0.5
    assert canonical("é") == canonical("e\u0301")  # composed and not


@given(st.integers(-(10**12), 10**12), st.sampled_from([str, float, np.float64, lambda x: f"{x}.0", lambda x: f" {x}"]))
def test_every_spelling_of_an_integer_is_it(number, spelled):
    assert canonical(spelled(number)) == number
    assert in_order([canonical(spelled(number))]) == {number: str(number)}


@given(st.lists(st.sampled_from(["a", "b", 0, 1, 0.5, None]), min_size=1), st.randoms())
def test_order_of_rows_changes_no_number(values, random):
    shuffled = random.sample(range(len(values)), len(values))
    one, other = categories(values), categories([values[i] for i in shuffled])
    assert one.names == other.names
    assert one.value[shuffled].tolist() == other.value.tolist()


SERIES = {
    "list": list,
    "NumPy": lambda values: np.array([np.nan if v is None else v for v in values], float),
    "object": lambda values: np.array(values, object),
    "pandas": pd.Series,
    "pandas, other index": lambda values: pd.Series(values, index=range(10, 10 - len(values), -1)),
    "pandas, nullable": lambda values: pd.Series(values, dtype="Int64"),
    "pandas, boolean": lambda values: pd.Series([None if v is None else bool(v) for v in values], dtype="boolean"),
    "pandas, category": lambda values: pd.Series(values, dtype="Int64").astype("category"),
    "pandas, text": lambda values: pd.Series([None if v is None else f"{v}.0" for v in values], dtype="string"),
    "polars": pl.Series,
    "polars, text": lambda values: pl.Series([None if v is None else str(v) for v in values], dtype=pl.Categorical),
    "polars, bool": lambda values: pl.Series([None if v is None else bool(v) for v in values]),
    "JAX": lambda values: jnp.array([jnp.nan if v is None else v for v in values]),
}


@pytest.mark.parametrize("make", SERIES.values(), ids=SERIES)
def test_every_kind_of_column_is_read_by_position(make):
    read = categories(make([1, 0, None, 1]))
    assert read.value.tolist() == [1, 0, -1, 1]
    assert read.names in (("0", "1"), ("False", "True"))
    assert read.missing == {}


def test_text_that_is_missing_is_reported():
    read = column(["m", "NA", "f", "nan", "NA", ""])
    assert read.value.tolist() == [1, -1, 0, -1, -1, -1]
    assert read.missing == {"NA": 2, "nan": 1}  # the empty cell needs no word
    assert read.remark == "3 cells with 'NA', 'nan' are unknown"
    assert "upper and lower case only" in column(["M", "m", "f"]).remark
    assert column(["M", "f"]).remark == ""


def test_one_missing_word_does_not_make_numbers_a_list():
    ages = [str(age) for age in range(18, 90)] * 3
    assert len(column([*ages, "nan", "?"]).names) == 4
    assert column([*ages, "nan"]).value.tolist()[:-1] == column(ages).value.tolist()


def test_quarters_hold_a_quarter_each():
    value, names = column([f"{i / 2}" for i in range(40)])[:2]
    assert np.bincount(value).tolist() == [10, 10, 10, 10]
    assert names == ("up to 4.875", "up to 9.75", "up to 14.625", "above 14.625")


IDENTIFIERS = {
    "file names": [f"img_{i:05d}.png" for i in range(300)],
    "few rows per name": [f"patient {i // 3}" for i in range(300)],
    "row numbers": list(range(300)),
    "row numbers as text, shuffled": [str(i) for i in np.random.default_rng(0).permutation(300)],
    "row numbers as floats": np.arange(300.0) + 7,
}


@pytest.mark.parametrize("values", IDENTIFIERS.values(), ids=IDENTIFIERS)
def test_identifiers_are_named(values):
    assert column(values).problem.startswith("an identifier: ")


SHARED = {
    "cities": [f"city {i % 20}" for i in range(300)],
    "ages": list(np.random.default_rng(0).integers(18, 90, 300)),
    "measurements": list(np.random.default_rng(0).normal(size=300)),
    "large numbers": list(np.random.default_rng(0).integers(0, 10**9, 300)),
    "classes": list("abcdefghij"),
}


@pytest.mark.parametrize("values", SHARED.values(), ids=SHARED)
def test_attributes_are_none(values):
    assert column(values).problem == ""


def test_values_that_only_one_split_has():
    def said(train, test):
        joined = column([*train, *test])
        return different_values({"train": joined.value[: len(train)], "test": joined.value[len(train) :]}, joined.names)

    assert said([0, 1], ["0.0", True]) == ""
    assert (
        said(["Male", "Female"], ["male", "female"])
        == "only in train: 'Female', 'Male'; only in test: 'female', 'male'"
    )
    assert said(["a", "b"], ["b", "c"]) == ""  # half of them are known
    assert said(["a", "b"], ["c", "c", "b"]) == "only in train: 'a'; only in test: 'c'"
    assert said([None], ["c"]) == ""
    assert different_values({"test": np.array([0])}, ["a"]) == ""


def test_names_are_compared_by_value_and_order():
    check_names("label_names", ["0", "1"], ["0.0", "1.0"])
    for found in (["Dog", "cat"], ["dog", "cat"], ["cat"], ["cat", "dog", "emu"]):
        with pytest.raises(ContractError, match="`label_names`: expected 'cat', 'dog', as when the run was made"):
            check_names("label_names", ["cat", "dog"], found)


def test_refused():
    with pytest.raises(ContractError, match="one number or text"):
        canonical_all([[1], [2]])
    with pytest.raises(ContractError, match="`values`: expected \\[n\\]"):
        canonical_all(np.zeros((2, 2)))
    with pytest.raises(ContractError, match="at most 65,536 groups, got 1000 classes x 66 values"):
        check_groups("sites", 1000, 66)
    check_groups("sites", 1000, 65)
