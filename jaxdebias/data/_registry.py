"""Data sets by name, for the command line. Code imports the builders themselves."""

import functools
import inspect
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from jaxdebias.contracts import ContractError, check_choice, expect
from jaxdebias.core import Dataset
from jaxdebias.data._folder import METADATA, folder, further_columns
from jaxdebias.data._sets.adult import adult, adult_columns, adult_folder
from jaxdebias.data._sets.celeba import celeba, celeba_columns, celeba_folder
from jaxdebias.data._sets.celeba_four_cells import celeba_four_cells, celeba_four_cells_columns
from jaxdebias.data._sets.celeba_mask import celeba_mask, celeba_mask_columns, celeba_mask_folder
from jaxdebias.data._sets.colored_mnist import colored_mnist, mnist_folder
from jaxdebias.data._sets.composites import composites, composites_folder
from jaxdebias.data._sets.corrupted_cifar10 import cifar10_folder, corrupted_cifar10
from jaxdebias.data._sets.digits import digits
from jaxdebias.data._sets.faces import faces
from jaxdebias.data._sets.scenes import scenes
from jaxdebias.data._sets.utkface import utkface, utkface_columns, utkface_folder
from jaxdebias.data._sets.utkface_darkened import utkface_darkened
from jaxdebias.data._sets.utkface_planted import utkface_planted
from jaxdebias.data._sets.waterbirds import waterbirds, waterbirds_folder

VARIABLE = "JAXDEBIAS_DATA"
"""Environment variable with the folder of real data, used where no data_dir is given."""


class DatasetInfo(NamedTuple):
    """What the command line knows of a data set."""

    builder: Callable[..., Dataset]
    summary: str
    kind: Literal["images", "table"]
    needs: str
    """Which files, in words; empty for sets that need none."""
    find: Callable[[pathlib.Path], pathlib.Path] | None = None
    """data_dir -> the folder of the files, or ContractError naming what is missing. None: needs no files."""
    columns: Callable[..., dict[str, dict[str, list[str]]]] | None = None
    """(folder, names, **options) -> name -> split -> values as text, of further attributes on the rows of the builder;
    reads no picture. None: the set has one attribute."""


class Row(NamedTuple):
    """One line of `jaxdebias data list`."""

    name: str
    kind: str
    summary: str
    needs: str
    found: bool
    """The set can be loaded now: it needs no files, or they are in the data folder."""
    detail: str
    """Where the files are, or the one line that says what is missing."""


def _metadata_folder(data_dir: pathlib.Path) -> pathlib.Path:
    expect((data_dir / METADATA).is_file(), "data_dir", f"a folder with {METADATA}", f"{data_dir} without it")
    return data_dir


DATASETS: Mapping[str, DatasetInfo] = {
    "digits": DatasetInfo(digits, "1,797 real handwritten digits, coloured by class", "images", ""),
    "scenes": DatasetInfo(scenes, "generated objects on backgrounds, with masks and twins", "images", ""),
    "glyphs": DatasetInfo(
        functools.partial(scenes, kind="glyphs"), "generated letters, left the class and right the bias", "images", ""
    ),
    "faces": DatasetInfo(
        faces, "generated faces, expressions, with a group that is rare in training, and twins", "images", ""
    ),
    "colored-mnist": DatasetInfo(
        colored_mnist,
        "MNIST, coloured by class as in LfF and SiH",
        "images",
        "MNIST's four .gz files, in DIR or DIR/mnist",
        mnist_folder,
    ),
    "corrupted-cifar10": DatasetInfo(
        corrupted_cifar10,
        "CIFAR-10, corrupted by class as in LfF and SiH",
        "images",
        "CIFAR-10's six python files or their packed copies, in DIR, DIR/cifar10 or DIR/cifar-10-batches-py",
        cifar10_folder,
    ),
    "adult": DatasetInfo(
        adult,
        "census income, with sex or race as the attribute",
        "table",
        "UCI's adult.data and adult.test, in DIR or DIR/adult",
        adult_folder,
        adult_columns,
    ),
    "utkface": DatasetInfo(
        utkface,
        "faces, gender with age or race as the attribute",
        "images",
        "utkface_96.npz or UTKFace's .jpg files, in DIR, DIR/utkface or DIR/UTKFace",
        utkface_folder,
        utkface_columns,
    ),
    "utkface-darkened": DatasetInfo(
        utkface_darkened,
        "faces, gender with almost all women darkened, with twins",
        "images",
        "the files of utkface, in DIR, DIR/utkface or DIR/UTKFace",
        utkface_folder,
    ),
    "utkface-planted": DatasetInfo(
        utkface_planted,
        "faces, gender with a marker planted in a corner, with masks and twins",
        "images",
        "the files of utkface, in DIR, DIR/utkface or DIR/UTKFace",
        utkface_folder,
    ),
    "celeba": DatasetInfo(
        celeba,
        "faces, any of 40 attributes with any other as the bias",
        "images",
        "CelebA's two .txt lists and img_align_celeba/, in DIR or DIR/celeba",
        celeba_folder,
        celeba_columns,
    ),
    "celeba-four-cells": DatasetInfo(
        celeba_four_cells,
        "faces of celeba in four cells of chosen sizes, one of them empty",
        "images",
        "the files of celeba, in DIR or DIR/celeba",
        celeba_folder,
        celeba_four_cells_columns,
    ),
    "celeba-mask": DatasetInfo(
        celeba_mask,
        "30,000 faces with masks of 14 regions, attributes as in celeba",
        "images",
        "CelebAMask-HQ's list, CelebA-HQ-img/ and CelebAMask-HQ-mask-anno/, in DIR or DIR/CelebAMask-HQ",
        celeba_mask_folder,
        celeba_mask_columns,
    ),
    "waterbirds": DatasetInfo(
        waterbirds,
        "land and water birds on land and water, with masks",
        "images",
        "a folder of group_DRO's generator and CUB's segmentations, in DIR, DIR/waterbirds or DIR/waterbird_*",
        waterbirds_folder,
    ),
    "composites": DatasetInfo(
        composites,
        "motorbikes and other things in forests and at sea, with masks and twins",
        "images",
        "cutouts.npz and scenes.npz, in DIR or DIR/objects_on_scenes",
        composites_folder,
    ),
    "folder": DatasetInfo(
        folder,
        "your own images",
        "images",
        "metadata.csv in DIR with columns filename, split, y, a",
        _metadata_folder,
        further_columns,
    ),
}


def load(name: str, *, data_dir: str | pathlib.Path | None = None, **options: Any) -> Dataset:
    """The data set of a name.

    Args:
      name: a key of `DATASETS`.
      data_dir: the folder of its files; None takes the environment variable JAXDEBIAS_DATA. Sets that need no files
        ignore it.
      **options: arguments of the builder, as `options_of(name)` lists them.

    Raises:
      ContractError: an unknown name or option, missing files, or what the builder raises.

    >>> load("digits", conflicting=0.05).splits["train"].x.shape
    (1000, 16, 16, 3)
    >>> load("digits", sigma=0.1)
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `digits`: expected options among conflicting, seed, got sigma
    """
    check_choice("data", name, DATASETS)
    _check_options(name, options)
    info = DATASETS[name]
    return info.builder(**options) if info.find is None else info.builder(files_of(name, data_dir), **options)


def columns(
    name: str, attributes: Sequence[str], *, data_dir: str | pathlib.Path | None = None, **options: Any
) -> dict[str, dict[str, list[str]]]:
    """Further attributes on the rows of `load(name, data_dir=data_dir, **options)`: attribute -> split -> `[n]` text.

    All of them come from one read of the annotations; no picture is read.

    Args:
      name: a key of `DATASETS`.
      attributes: columns of a folder's metadata.csv; of other sets, values of their option `attribute`.
      data_dir: as of `load`.
      **options: as of `load`.

    Raises:
      ContractError: a data set of one attribute, or an unknown attribute.
    """
    check_choice("data", name, DATASETS)
    _check_options(name, options)
    several = [other for other, info in DATASETS.items() if info.columns is not None]
    read = DATASETS[name].columns
    expect(read is not None, "data", f"a data set with several attributes ({', '.join(several)})", name)
    asked = inspect.signature(read).parameters
    taken = {option: value for option, value in options.items() if option in asked}
    return read(files_of(name, data_dir), attributes, **taken)


def files_of(name: str, data_dir: str | pathlib.Path | None = None) -> pathlib.Path:
    """Where the files of a data set are, in `data_dir` (None: JAXDEBIAS_DATA).

    Raises:
      ContractError: an unknown name, no folder given, or missing files.
    """
    check_choice("data", name, DATASETS)
    info, place = DATASETS[name], _data_dir(data_dir)
    expect(info.find is not None, "data", "a data set that is made of files", name)
    expect(place is not None, "data_dir", f"{info.needs} (or set {VARIABLE})", "nothing")
    return info.find(place)


def options_of(name: str) -> dict[str, Any]:
    """The options of a data set and their defaults, read off its builder's signature.

    >>> options_of("digits")
    {'conflicting': 0.02, 'seed': 0}
    """
    check_choice("data", name, DATASETS)
    builder = DATASETS[name].builder
    bound = builder.keywords if isinstance(builder, functools.partial) else {}
    parameters = inspect.signature(builder).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in (*bound, "kind")}


def describe(data_dir: str | pathlib.Path | None = None) -> list[Row]:
    """Every data set, and whether its files are in `data_dir` (None: JAXDEBIAS_DATA)."""
    rows, place = [], _data_dir(data_dir)
    for name, info in DATASETS.items():
        found, detail = True, ""
        if info.find is not None:
            try:
                expect(place is not None, "data_dir", f"a folder (or {VARIABLE})", "nothing")
                detail = str(info.find(place))
            except ContractError as error:
                found, detail = False, str(error)
        rows.append(Row(name, info.kind, info.summary, info.needs or "nothing", found, detail))
    return rows


def prepare(name: str, data_dir: str | pathlib.Path | None, out: str | pathlib.Path, **options: Any) -> str:
    """Writes colored-mnist or folder as a TFDS data set (array_record) under `out`; the others need no preparation.

    Returns:
      One line that says what was done and where.

    Raises:
      ContractError: an unknown name or option, missing files, or tensorflow-datasets not installed.
    """
    check_choice("data", name, DATASETS)
    _check_options(name, options)
    info = DATASETS[name]
    if info.find is None:
        return f"{name}: nothing to prepare, it is made in memory"
    if info.kind == "table":
        return f"{name}: nothing to prepare, the table is read as it is"
    from jaxdebias.data import tfds

    place = _data_dir(data_dir)
    expect(place is not None, "data_dir", f"{info.needs} (or set {VARIABLE})", "nothing")
    if name not in tfds.BUILDERS:
        return f"{name}: nothing to prepare, its files are read as they are"
    path = tfds.prepare(name, info.find(place), out, **options)
    return f"{name}: prepared in {path}"


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    known = options_of(name)
    unknown = [option for option in options if option not in known]
    expect(not unknown, name, f"options among {', '.join(known)}", ", ".join(unknown))


def _data_dir(data_dir: str | pathlib.Path | None) -> pathlib.Path | None:
    given = data_dir if data_dir is not None else os.environ.get(VARIABLE) or None
    return None if given is None else pathlib.Path(given).expanduser()
