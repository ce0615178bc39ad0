import numpy as np
import pytest
from oracles.faces import CELEBA_NAMES, celeba_values, colour_of, write_celeba

from jaxdebias.contracts import ContractError
from jaxdebias.data import celeba_four_cells

VALUES = celeba_values()
BLOND, MALE = CELEBA_NAMES.index("Blond_Hair"), CELEBA_NAMES.index("Male")
# In train 6 blond men, 30 blond women, 30 other men, 6 other women; in validation and test 9 of each.
FEW = {"cells": (4, 20, 25, 0), "per_cell": 6, "image_size": 8}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_celeba(tmp_path_factory.mktemp("files") / "celeba", VALUES)


def whose(images):
    colours = np.array([colour_of(i) for i in range(len(VALUES))], int)
    distance = abs(images.mean(axis=(1, 2))[:, None] - colours).sum(-1)
    assert distance.min(axis=1).max() < 12
    return distance.argmin(axis=1)


def counts(batch):
    return np.bincount(2 * batch.label + batch.attribute, minlength=4).tolist()


def test_cells_and_official_splits(files):
    data = celeba_four_cells(files, **FEW)
    rows = {name: whose(batch.x) for name, batch in data.splits.items()}
    for name, batch in data.splits.items():
        np.testing.assert_array_equal(batch.label, VALUES[rows[name], MALE] == 1)
        np.testing.assert_array_equal(batch.attribute, VALUES[rows[name], BLOND] == 1)
        assert len(set(rows[name])) == len(rows[name])
    assert {name: counts(batch) for name, batch in data.splits.items()} == {
        "train": [4, 20, 25, 0],
        "edit": [4] * 4,
        "accept": [2] * 4,
        "validation": [6] * 4,
        "test": [9] * 4,
    }
    assert set(rows["train"]) <= set(range(72))
    assert set(rows["validation"]) <= set(range(72, 108))
    assert set(rows["test"]) <= set(range(108, 144))
    assert sorted([*rows["edit"], *rows["accept"]]) == sorted(rows["validation"])
    # Women go with blond hair, men without.
    np.testing.assert_array_equal(data.aligned, [[False, True], [True, False]])
    assert (data.label_names, data.attribute_names) == (("not Male", "Male"), ("not Blond_Hair", "Blond_Hair"))


@pytest.mark.parametrize(("per_cell", "edit", "accept"), [(2, 1, 1), (4, 3, 1), (5, 4, 1), (7, 5, 2), (8, 6, 2)])
def test_two_thirds_of_a_cell_are_edit_rounded_up(files, per_cell, edit, accept):
    data = celeba_four_cells(files, **{**FEW, "per_cell": per_cell})
    assert counts(data.splits["edit"]) == [edit] * 4
    assert counts(data.splits["accept"]) == [accept] * 4


def test_pairs_are_matched_within_the_target_value(files):
    data = celeba_four_cells(files.parent, **FEW, test_per_cell=5)
    assert counts(data.splits["test"]) == [5] * 4
    for pairs in data.pairs.values():
        x, twin = whose(pairs.x), whose(pairs.twin)
        np.testing.assert_array_equal(VALUES[x, MALE], VALUES[twin, MALE])
        assert (VALUES[x, BLOND] == -VALUES[x, MALE]).all()
        assert (VALUES[twin, BLOND] == VALUES[twin, MALE]).all()


def test_seeds_draw_other_pictures_reproducibly(files):
    one, same, other = (whose(celeba_four_cells(files, seed=seed, **FEW).splits["train"].x) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert set(one) != set(other)


def test_other_attributes_and_lists_of_cells(files):
    data = celeba_four_cells(
        files, target="Blond_Hair", attribute="Male", cells=[3, 20, 20, 2], per_cell=4, image_size=4
    )
    assert counts(data.splits["train"]) == [3, 20, 20, 2]
    np.testing.assert_array_equal(data.aligned, [[False, True], [True, False]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "Blond_Hair"}, "`attribute`: expected another attribute than the target Blond_Hair"),
        ({"target": "Mal"}, "`target`: expected one of Bald, .* got 'Mal' .did you mean 'Male'"),
        (
            {"cells": (1, 2, 3)},
            r"`cells`: expected four numbers of pictures, of at least 0 and not all 0, got \(1, 2, 3\)",
        ),
        (
            {"cells": (7, 20, 25, 0)},
            "`cells`: expected at most the 6 pictures of train with Male 0 and Blond_Hair 0, got",
        ),
        ({"cells": (5, 5, 5, 5)}, "`cells`: expected sizes with which Blond_Hair goes with Male"),
        ({"per_cell": 10}, "`per_cell`: expected at most the 9 pictures of validation with Male 0 and Blond_Hair 0"),
        ({"per_cell": 1}, "`per_cell`: expected at least 2, got 1"),
        ({"test_per_cell": 0}, "`test_per_cell`: expected at least 1, or None, got 0"),
    ],
)
def test_bad_arguments_are_refused(files, options, message):
    with pytest.raises(ContractError, match=message):
        celeba_four_cells(files, **{**FEW, **options})
