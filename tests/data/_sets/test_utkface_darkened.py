import numpy as np
import pytest
from oracles.faces import colour_of, utkface_rows, write_packed_utkface

from jaxdebias.contracts import ContractError
from jaxdebias.data import utkface_darkened
from jaxdebias.data._sets.utkface import read_faces

ROWS = utkface_rows(320)  # 200 of 13 or older, 100 of each gender
FEW = {"edit": 12, "accept": 8, "test": 20, "image_size": 8}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return write_packed_utkface(tmp_path_factory.mktemp("packed") / "utkface", ROWS)


def whose(images):
    colours = np.array([colour_of(i) for i in range(216)], int)
    distance = abs(images.mean(axis=(1, 2))[:, None] - colours).sum(-1)
    return distance.argmin(axis=1)


def grown():
    return [gender for age, gender, _ in ROWS if age >= 13]


def test_darkened_faces_have_half_the_brightness_and_the_right_gender(tmp_path):
    rows = ROWS[:208]  # as many as there are colours
    data = utkface_darkened(write_packed_utkface(tmp_path, rows), conflicting=0.1, **FEW | {"edit": 4, "test": 8})
    everybody = []
    for batch in data.splits.values():
        dark = (batch.attribute == 1)[:, None, None, None]
        light, dim = np.where(dark, batch.twin, batch.x), np.where(dark, batch.x, batch.twin)
        np.testing.assert_array_equal(dim, (light * np.float32(0.5)).round().astype(np.uint8))
        who = whose(light)
        everybody += [*who]
        assert batch.label.tolist() == [rows[i][1] for i in who]
        assert all(rows[i][0] >= 13 for i in who)
    assert len(set(everybody)) == len(everybody) == sum(age >= 13 for age, _, _ in rows)


@pytest.mark.parametrize("conflicting", [0.0, 0.05, 0.5])
def test_shares_and_balance(packed, conflicting):
    data = utkface_darkened(packed, conflicting=conflicting, **FEW)
    train = data.splits["train"]
    assert len(train.label) == len(grown()) - 40
    for y in (0, 1):
        of = train.attribute[train.label == y]
        assert len(of) == grown().count(y) - 20
        assert (of != y).sum() == round(conflicting * len(of))
    for name in ("edit", "accept", "test"):
        split, pairs = data.splits[name], data.pairs[name]
        assert np.bincount(2 * split.label + split.attribute).tolist() == [FEW[name] // 4] * 4
        np.testing.assert_array_equal(pairs.attribute, pairs.label)
        swapped = (pairs.attribute != split.attribute)[:, None, None, None]
        np.testing.assert_array_equal(pairs.x, np.where(swapped, split.twin, split.x))
        np.testing.assert_array_equal(pairs.twin, np.where(swapped, split.x, split.twin))
    assert data.pairing == "counterfactual"


def test_options(packed):
    data = utkface_darkened(packed, grey=True, train=40, brightness=0.25, **FEW)
    train = data.splits["train"]
    assert train.x.shape == (40, 8, 8, 1)
    assert (
        abs(
            np.where(train.attribute == 1, 4, 1) * train.x.mean((1, 2, 3))
            - np.where(train.attribute == 0, 4, 1) * train.twin.mean((1, 2, 3))
        ).max()
        < 3
    )
    one, same, other = (utkface_darkened(packed, seed=seed, **FEW).splits["train"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.x, same.x)
    assert one.x.shape != other.x.shape or (one.x != other.x).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conflicting": 1.5}, r"`conflicting`: expected a share in 0..1"),
        ({"brightness": 1.0}, r"`brightness`: expected a factor above 0 and below 1, got 1.0"),
        ({"test": 18}, r"`test`: expected a multiple of 4 of at least 4, got 18"),
        ({"train": 1}, r"`train`: expected at least 2, or None for all, got 1"),
        ({"test": 180}, r"`edit . accept . test`: expected fewer than 200 faces, twice the scarcer gender's, got 200"),
    ],
)
def test_bad_arguments_are_refused(packed, options, message):
    with pytest.raises(ContractError, match=message):
        utkface_darkened(packed, **FEW | options)


@pytest.mark.slow
@pytest.mark.realdata
def test_the_real_faces(data_dir):
    data = utkface_darkened(data_dir, grey=True)
    faces = read_faces(data_dir / "utkface")
    train, test = data.splits["train"], data.splits["test"]
    assert len(train.label) == (faces.age >= 13).sum() - 1060
    conflicting = train.label != train.attribute
    assert 0.045 < conflicting.mean() < 0.055
    light = np.where((test.attribute == 1)[:, None, None, None], test.twin, test.x).mean()
    dark = np.where((test.attribute == 1)[:, None, None, None], test.x, test.twin).mean()
    assert dark / light == pytest.approx(0.5, abs=0.01)
