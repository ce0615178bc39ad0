"""CelebA in four cells of chosen sizes: the biased subset on which training with noise was published."""

import pathlib
from collections.abc import Sequence

import numpy as np

from jaxdebias.contracts import expect
from jaxdebias.core import Batch, Dataset, take
from jaxdebias.data._sets.celeba import PARTS, Annotations, celeba_folder, read_lists, read_pictures
from jaxdebias.data._sets.celebrity_attributes import Roles, aligned_in, assemble, attribute_columns, roles
from jaxdebias.data.streams import named_rng

CELLS = (1000, 2000, 3000, 0)
"""Training pictures of the release, cell by cell: (no target, no bias), (no target, bias), (target, no bias), (target,
bias). By default 1,000 women who are not blond, 2,000 who are, 3,000 men who are not, and no blond man."""
PER_CELL = 182
"""Validation pictures of each cell."""


def celeba_four_cells(
    data_dir: str | pathlib.Path,
    *,
    target: str = "Male",
    attribute: str = "Blond_Hair",
    cells: Sequence[int] = CELLS,
    per_cell: int = PER_CELL,
    test_per_cell: int | None = None,
    image_size: int = 64,
    seed: int = 0,
) -> Dataset:
    """Faces of celebrities: is `target` there? Trained without a single picture of (target, attribute) by default.

    Splits; only their pictures are read, and of each cell they are drawn at random by seed:
      train: `cells` pictures of the official training split.
      validation: `per_cell` pictures of each cell of the official validation split, on which the release reports.
      edit, accept: two thirds and one third of these, cell by cell.
      test: as many of each cell as there are in the scarcest, of the official test split. Only ever reported.
    A cell is aligned if training holds more of it than independence would put there. Pairs of edit, accept and test
    are matched: two different pictures of one target value, x in the aligned and twin in the conflicting cell, as
    alike as possible in the other attributes.

    Pictures are cut to their central square (178 of 178 x 218 pixels) and resized. The release squashed them for its
    maps, and for its patch net it resized without cutting and looked at the upper part alone.

    Args:
      data_dir: as for `celeba`.
      target: the attribute that is the label.
      attribute: the bias attribute, another one.
      cells: numbers of training pictures, in the order of `CELLS`.
      per_cell: of validation, at least 2.
      test_per_cell: at most so many test pictures of each cell; None: as many as the scarcest holds.
      image_size: height and width of the pictures; 128 in the release.
      seed: which pictures.

    Raises:
      ContractError: a missing file, list row or picture (named), an unknown attribute, a cell with too few pictures,
        sizes under which the attribute does not go with the target.

    Source: De Coninck et al. 2024 (released code): cells, sizes, target and attribute. That code draws no test
    pictures; ours are kept apart because it chose and reported on the same validation pictures.
    """
    cells = tuple(cells)
    folder = celeba_folder(data_dir)
    lists = read_lists(folder)
    roles_of = roles(lists.names, lists.values, target, attribute)
    parts = _division(lists, roles_of, target, attribute, cells, per_cell, test_per_cell, seed)
    expected = f"sizes with which {attribute} goes with {target}"
    aligned = aligned_in(roles_of, parts["train"], "cells", expected, cells)
    used = np.unique(np.concatenate(list(parts.values())))
    everything = Batch(
        x=read_pictures(folder, lists, used, image_size), label=roles_of.label[used], attribute=roles_of.value[used]
    )
    splits = {name: take(everything, np.searchsorted(used, rows)) for name, rows in parts.items()}
    variant = {"cells": list(cells), "per_cell": per_cell, "image_size": image_size}
    return assemble("celeba-four-cells", splits, parts, roles_of, aligned, variant)


def celeba_four_cells_columns(
    data_dir: str | pathlib.Path,
    names: Sequence[str],
    *,
    target: str = "Male",
    attribute: str = "Blond_Hair",
    cells: Sequence[int] = CELLS,
    per_cell: int = PER_CELL,
    test_per_cell: int | None = None,
    seed: int = 0,
) -> dict[str, dict[str, list[str]]]:
    """Attributes on the rows of `celeba_four_cells`, without reading a picture: name -> split -> values as text.

    Args:
      data_dir: as of `celeba_four_cells`.
      names: attributes, as in the header of `list_attr_celeba.txt`.
      target: as of `celeba_four_cells`, as all that follows: they decide on the rows.
      attribute: as `target`.
      cells: as `target`.
      per_cell: as `target`.
      test_per_cell: as `target`.
      seed: as `target`.
    """
    lists = read_lists(celeba_folder(data_dir))
    found = roles(lists.names, lists.values, target, attribute)
    parts = _division(lists, found, target, attribute, tuple(cells), per_cell, test_per_cell, seed)
    return attribute_columns(lists.names, lists.values, names, parts)


def _division(
    lists: Annotations,
    roles_of: Roles,
    target: str,
    attribute: str,
    cells: tuple[int, ...],
    per_cell: int,
    test_per_cell: int | None,
    seed: int,
) -> dict[str, np.ndarray]:
    """Split -> its rows of the lists."""
    good = len(cells) == 4 and all(isinstance(n, int | np.integer) and n >= 0 for n in cells) and sum(cells) > 0
    expect(good, "cells", "four numbers of pictures, of at least 0 and not all 0", cells)
    expect(per_cell >= 2, "per_cell", "at least 2", per_cell)
    expect(test_per_cell is None or test_per_cell >= 1, "test_per_cell", "at least 1, or None", test_per_cell)
    group = 2 * roles_of.label + roles_of.value

    def drawn(part: str) -> list[np.ndarray]:
        """The pictures of each cell in random order."""
        rng = named_rng(seed, f"four cells {part}")
        return [rng.permutation(np.flatnonzero((lists.part == PARTS.index(part)) & (group == g))) for g in range(4)]

    def first(part: str, counts: Sequence[int]) -> list[np.ndarray]:
        found = drawn(part)
        for g, (rows, count) in enumerate(zip(found, counts, strict=True)):
            expect(
                len(rows) >= count,
                "cells" if part == "train" else "per_cell",
                f"at most the {len(rows)} pictures of {part} with {target} {g // 2} and {attribute} {g % 2}",
                count,
            )
        return [rows[:count] for rows, count in zip(found, counts, strict=True)]

    validation, found = first("validation", [per_cell] * 4), drawn("test")
    scarcest = min(map(len, found))
    expect(scarcest > 0, "test", f"pictures in all four cells of {target} and {attribute}", "an empty one")
    test = [rows[: min(scarcest, test_per_cell or scarcest)] for rows in found]
    cut = min(-(-2 * per_cell // 3), per_cell - 1)  # two thirds, rounded up; one picture at least is left for accept
    return {
        name: np.sort(np.concatenate(rows))
        for name, rows in {
            "train": first("train", cells),
            "edit": [rows[:cut] for rows in validation],
            "accept": [rows[cut:] for rows in validation],
            "test": test,
            "validation": validation,
        }.items()
    }
