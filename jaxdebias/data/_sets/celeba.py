"""CelebA: one of its 40 attributes to classify, another as the bias attribute, pairs matched on the other 38."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxdebias.contracts import ContractError, describe, expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._sets.celebrity_attributes import aligned_in, assemble, attribute_columns, divide, roles
from jaxdebias.data.decode import decode_all

ATTRIBUTES, PARTITION, IMAGES = "list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"
PARTS = ("train", "validation", "test")  # 0, 1, 2 in the partition file


class Annotations(NamedTuple):
    """CelebA's two lists, joined; line i + 3 of the attribute list is row i."""

    names: tuple[str, ...]
    """Of the attributes."""
    files: tuple[str, ...]
    values: Bool[np.ndarray, "n j"]
    part: Int[np.ndarray, " n"]
    """Index into `PARTS`."""


def celeba(
    data_dir: str | pathlib.Path,
    *,
    target: str = "Blond_Hair",
    attribute: str = "Male",
    seed: int = 0,
    image_size: int = 64,
    max_train: int | None = None,
    accept_share: float = 1 / 3,
    pairs_per_label: int | None = None,
) -> Dataset:
    """Faces of celebrities: is `target` there? With `attribute` as what goes with it in training.

    Splits: train and test are the official ones; the official validation split is divided by seed into edit and
    accept. A cell is aligned if training holds more of it than independence would put there: with the defaults women
    with blond hair and men without.
    Pairs of edit, accept and test are matched: two different pictures of one target value, x in the aligned and twin
    in the conflicting cell, as alike as possible in the attributes that are neither target nor bias
    (`matching.nearest_partners`). No picture is in two pairs, and both target values have as many pairs as the
    scarcer one allows (blond men are few), the closest first.

    Pictures are cut to their central square (178 of 178 x 218 pixels) and resized. All of them are held in memory as
    uint8, `3 * image_size**2` bytes each: 2.5 GB for all 202,599 at 64 pixels, of which `max_train` saves up to 2 GB.

    Args:
      data_dir: the folder with `list_attr_celeba.txt`, `list_eval_partition.txt` and the folder `img_align_celeba`,
        or its parent if they lie in `celeba/`.
      target: the attribute that is the label; any name in the header of `list_attr_celeba.txt`.
      attribute: the bias attribute; another one.
      seed: fixes the division of validation, and which training pictures `max_train` keeps.
      image_size: height and width of the pictures.
      max_train: keep at most so many training pictures, drawn at random; None: all.
      accept_share: share of the validation split that becomes accept; the rest is edit.
      pairs_per_label: at most so many pairs of each target value per split; None: as many as there are.

    Raises:
      ContractError: a missing file, list row or picture (named), an unknown attribute, or a split in which one target
        value has no conflicting picture.

    Source: Liu, Luo, Wang and Tang 2015 (files); FMD, Chen et al. 2023 (target and bias; its official code pairs
    pictures of the validation split in their order, unmatched).
    """
    folder = celeba_folder(data_dir)
    lists = read_lists(folder)
    found = roles(lists.names, lists.values, target, attribute)
    where = _where(lists)
    parts = divide(where, "celeba", seed=seed, max_train=max_train, accept_share=accept_share)
    # Of all training pictures, so that `max_train` cannot turn the bias round.
    expected = f"one that goes with {target} in training"
    aligned = aligned_in(found, where["train"], "attribute", expected, f"{attribute}, which does not")
    splits = {
        name: Batch(
            x=read_pictures(folder, lists, rows, image_size), label=found.label[rows], attribute=found.value[rows]
        )
        for name, rows in parts.items()
    }
    variant = {"image_size": image_size, "accept_share": accept_share}
    return assemble("celeba", splits, parts, found, aligned, variant, per_label=pairs_per_label)


def celeba_columns(
    data_dir: str | pathlib.Path,
    names: Sequence[str],
    *,
    seed: int = 0,
    max_train: int | None = None,
    accept_share: float = 1 / 3,
) -> dict[str, dict[str, list[str]]]:
    """Attributes on the rows of `celeba`, without reading a picture: name -> split -> values as text.

    Args:
      data_dir: as of `celeba`.
      names: attributes, as in the header of `list_attr_celeba.txt`.
      seed: as of `celeba`, so that the rows are the same.
      max_train: as `seed`.
      accept_share: as `seed`.
    """
    lists = read_lists(celeba_folder(data_dir))
    parts = divide(_where(lists), "celeba", seed=seed, max_train=max_train, accept_share=accept_share)
    return attribute_columns(lists.names, lists.values, names, parts)


def _where(lists: Annotations) -> dict[str, np.ndarray]:
    """Official split -> its rows of the lists."""
    where = {name: np.flatnonzero(lists.part == number) for number, name in enumerate(PARTS)}
    for name, rows in where.items():
        expect(len(rows) > 0, PARTITION, f"at least one picture of {name}", "none")
    return where


def celeba_folder(data_dir: str | pathlib.Path) -> pathlib.Path:
    """The folder that holds CelebA: `data_dir` itself or `data_dir/celeba`.

    Raises:
      ContractError: naming the first file or folder that is missing.
    """
    root = pathlib.Path(data_dir).expanduser()
    folder = root if (root / ATTRIBUTES).is_file() or not (root / "celeba").is_dir() else root / "celeba"
    for name in (ATTRIBUTES, PARTITION, IMAGES):
        there = (folder / name).is_dir() if name == IMAGES else (folder / name).is_file()
        expect(there, "data_dir", f"CelebA's lists and pictures, also {name}", f"{folder} without it")
    return folder


def read_lists(folder: pathlib.Path) -> Annotations:
    """The attribute list (a count, the names, then a file name and -1 or 1 each per line), joined with the partition.

    Raises:
      ContractError: naming the file and line of the first bad row.
    """
    part = {}
    for number, words in _lines(folder / PARTITION):
        good = len(words) == 2 and words[1] in ("0", "1", "2")
        expect(good, f"{PARTITION} line {number}", "a file name and 0, 1 or 2", describe(" ".join(words)))
        part[words[0]] = int(words[1])

    names, rows, values = read_attributes(folder / ATTRIBUTES)
    for number, file in rows:
        expect(file in part, f"{ATTRIBUTES} line {number}", f"a file that {PARTITION} lists", repr(file))
    files = tuple(file for _, file in rows)
    return Annotations(names, files, values, np.array([part[file] for file in files]))


def read_attributes(path: pathlib.Path) -> tuple[tuple[str, ...], list[tuple[int, str]], Bool[np.ndarray, "n t"]]:
    """An attribute list as CelebA and CelebAMask-HQ have it: names, (line number, file name) of each row, values.

    Raises:
      ContractError: naming the file and line of the first bad row.
    """
    lines = _lines(path)
    expect(len(lines) > 2, path.name, "a count, a line of names and rows", f"{len(lines)} lines")
    (_, count), (_, names), *rows = lines
    expect(
        count == [str(len(rows))], f"{path.name} line 1", f"the number of rows, {len(rows)}", describe(" ".join(count))
    )
    values = np.empty((len(rows), len(names)), bool)
    for i, (number, words) in enumerate(rows):
        good = len(words) == len(names) + 1 and {"1", "-1"}.issuperset(words[1:])
        expect(
            good,
            f"{path.name} line {number}",
            f"a file name and {len(names)} values of -1 or 1",
            describe(" ".join(words)),
        )
        values[i] = [word == "1" for word in words[1:]]
    return tuple(names), [(number, words[0]) for number, words in rows], values


def _lines(path: pathlib.Path) -> list[tuple[int, list[str]]]:
    """Line numbers and words of the lines that are not empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"`{path}`: expected a readable text file, got {error}") from error
    return [(number, words) for number, line in enumerate(text.splitlines(), 1) if (words := line.split())]


def read_pictures(folder: pathlib.Path, lists: Annotations, rows: np.ndarray, image_size: int) -> np.ndarray:
    """Pictures `[m s s 3]` uint8 of some rows of the lists, in their order."""
    files = [lists.files[row] for row in rows]
    return decode_all(len(files), image_size, lambda i: folder / IMAGES / files[i], lambda i: f"{IMAGES}/{files[i]}")
