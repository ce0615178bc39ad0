"""Arrays and frames of any library: the same rows, the same data set."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest

from jaxdebias import Dataset
from jaxdebias.contracts import ContractError
from jaxdebias.data import from_arrays, from_frame

N = 120
RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 2, N)
SEX = np.where(RNG.random(N) < 0.8, LABEL, 1 - LABEL)
X = RNG.normal(size=(N, 3)).astype(np.float32)
SPLIT = np.array(["train", "train", "train", "val", "val", "test"])[np.arange(N) % 6]


def same(one, other):
    assert one.label_names == other.label_names
    assert one.attribute_names == other.attribute_names
    np.testing.assert_array_equal(one.aligned, other.aligned)
    for name, batch in one.splits.items():
        for field in ("x", "label", "attribute"):
            np.testing.assert_array_equal(getattr(batch, field), getattr(other.splits[name], field))
    assert set(one.pairs) == set(other.pairs)


KINDS = {
    "lists": lambda v: v.tolist(),
    "JAX": jnp.asarray,
    "shuffled index": lambda v: pd.Series(v, index=RNG.permutation(len(v))),
    "index with gaps": lambda v: pd.Series(v, index=2 * np.arange(len(v)) + 7),
    "floats": lambda v: pd.Series(v, dtype="Float64"),
    "categories": lambda v: pd.Series(v).astype("category"),
    "text": lambda v: [f"{value}.0" for value in v],
    "polars": pl.Series,
    "polars, text": lambda v: pl.Series(v.astype(str)),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_every_kind_of_column_gives_the_same_rows(make):
    same(from_arrays(X, LABEL, SEX, split=SPLIT), from_arrays(X, make(LABEL), make(SEX), split=SPLIT))


@pytest.mark.parametrize(
    "make", [pd.DataFrame, lambda v: pl.DataFrame(v), lambda v: pd.DataFrame(v, index=range(N, 0, -1))]
)
def test_every_frame_gives_the_same_rows(make):
    columns = {"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": LABEL, "sex": SEX, "part": SPLIT}
    found = from_frame(make(columns), label="y", attribute="sex", split="part")
    same(from_arrays(X, LABEL, SEX, split=SPLIT), found)
    assert found.feature_names == ("a", "b", "c")
    assert found.variant["attribute"] == "sex"
    assert found.variant["split"] == "edit, accept drawn by seed 0"
    same(from_arrays(X, LABEL, SEX, split=SPLIT), from_arrays(make(columns)[["a", "b", "c"]], LABEL, SEX, split=SPLIT))


def test_rows_keep_their_splits():
    found = from_arrays(X, LABEL, SEX, split=SPLIT)
    np.testing.assert_array_equal(found.splits["train"].x, X[SPLIT == "train"])
    np.testing.assert_array_equal(found.splits["test"].label, LABEL[SPLIT == "test"])
    held = np.concatenate([found.splits["edit"].x, found.splits["accept"].x])
    assert {row.tobytes() for row in held} == {row.tobytes() for row in X[SPLIT == "val"]}
    assert len(found.splits["edit"].x) == 27  # two thirds of 40, rounded
    numbers = from_arrays(X, LABEL, SEX, split=np.array([0, 0, 0, 1, 1, 2.0])[np.arange(N) % 6])
    same(found, numbers)


def test_without_splits_they_are_drawn_once_by_seed():
    found, other = from_arrays(X, LABEL, SEX), from_arrays(X, LABEL, SEX, seed=1)
    assert {name: len(batch.label) for name, batch in found.splits.items()} == {
        "train": 67,
        "edit": 19,
        "accept": 10,
        "test": 24,
    }
    rows = np.concatenate([batch.x for batch in found.splits.values()])
    assert len({row.tobytes() for row in rows}) == N
    assert found.variant["split"] == "test, edit, accept drawn by seed 0"
    same(found, from_arrays(X, LABEL, SEX))
    assert (found.splits["test"].x != other.splits["test"].x).any()


def test_units_stay_together():
    unit = [f"patient {i // 4}" for i in range(N)]
    found = from_arrays(X, LABEL, SEX, unit=unit)
    seen = [set(batch.unit.tolist()) for batch in found.splits.values()]
    assert sum(map(len, seen)) == len(set().union(*seen)) == N // 4


def test_pairs_join_one_label_and_known_values_only():
    sex = SEX.astype(float)
    sex[::3] = np.nan
    found = from_arrays(X, LABEL, sex, split=SPLIT)
    place = {row.tobytes(): i for i, row in enumerate(X)}
    assert found.pairs
    for pairs in found.pairs.values():
        one, other = (np.array([place[row.tobytes()] for row in side]) for side in (pairs.x, pairs.twin))
        np.testing.assert_array_equal(LABEL[one], LABEL[other])
        assert not np.isnan(sex[[*one, *other]]).any()
        assert found.aligned[LABEL[one], sex[one].astype(int)].all()
        assert not found.aligned[LABEL[other], sex[other].astype(int)].any()


def test_words_among_the_features_become_columns():
    found = from_frame(
        {"job": ["b", "a", "b", "c"] * 30, "old": [True, False] * 60, "y": LABEL, "hours": [1, 2, 3, 4] * 30}, label="y"
    )
    assert found.feature_names == ("job=a", "job=b", "job=c", "old", "hours")
    assert found.attribute_names == ("unknown",)
    x = np.concatenate([batch.x for batch in found.splits.values()])
    by_hand = {(0, 1, 0, 1, 1), (1, 0, 0, 0, 2), (0, 1, 0, 1, 3), (0, 0, 1, 0, 4)}
    assert {tuple(row.astype(int).tolist()) for row in x} == by_hand


def test_pictures_and_weights():
    images = RNG.integers(0, 256, (N, 8, 8, 3))
    weight = np.r_[np.ones(N - 5), np.zeros(5)]
    found = from_arrays(images, LABEL, SEX, weight=weight, split=SPLIT)
    assert found.splits["train"].x.dtype == np.uint8
    assert sum((batch.weight == 0).sum() for batch in found.splits.values()) == 5
    as_floats = from_arrays((images / 255).astype(np.float32), LABEL, SEX, split=SPLIT)
    assert as_floats.splits["train"].x.dtype == np.float32


def test_the_class_offers_them():
    same(Dataset.from_arrays(X, LABEL, SEX, split=SPLIT), from_arrays(X, LABEL, SEX, split=SPLIT))
    frame = pd.DataFrame({"a": X[:, 0], "y": LABEL})
    same(Dataset.from_frame(frame, label="y"), from_frame(frame, label="y"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": LABEL[1:]}, r"`label`: expected \[n=120\], got \[119\]"),
        ({"label": [None, *LABEL[1:]]}, "`label`: expected a class in every row, got none in 1 rows, row 0 first"),
        ({"label": np.ones(N)}, "`label`: expected at least two classes, got 1"),
        (
            {"attribute": [f"{i}.png" for i in range(N)]},
            "`attribute`: expected values that samples share, got an id",
        ),
        ({"split": ["train", "holdout"] * 60}, "`split`: expected train, val, .* got 'holdout'"),
        ({"split": ["test"] * N}, "`split`: expected rows of train"),
        ({"x": np.full((N, 2), np.nan)}, "expected finite values"),
        ({"x": pd.DataFrame({"age": [None, *range(N - 1)]})}, "`age`: expected a value in every row.*, got 1 missing"),
        ({"x": {"file": [f"{i}.png" for i in range(N)]}}, "`file`: expected a feature .*, got an identifier"),
        ({"x": np.array(["a"] * N)}, "`x`: expected images"),
        ({"test_share": 1.0}, "`test_share`: expected a share"),
    ],
)
def test_refused(change, message):
    with pytest.raises(ContractError, match=message):
        from_arrays(**{"x": X, "label": LABEL, "attribute": SEX, **change})


def test_unknown_columns_are_named():
    with pytest.raises(ContractError, match="`label`: expected one of a, y, got 'Y'"):
        from_frame(pd.DataFrame({"a": X[:, 0], "y": LABEL}), label="Y")
    with pytest.raises(ContractError, match="`frame`: expected a data frame"):
        from_frame(3, label="Y")
