"""Waterbirds: land birds and water birds cut out and pasted on land and water, with their segmentations."""

import csv
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxdebias.contracts import check_dataset, expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._matching import matched_pairs, one_hot
from jaxdebias.data.masked_pictures import CENTRE, in_threads, read_mask, read_pictures
from jaxdebias.data.streams import named_rng

METADATA = "metadata.csv"
COLUMNS = ("img_filename", "y", "split", "place")
PARTS = ("train", "validation", "test")  # 0, 1, 2 in the column split
BIRDS, PLACES = ("landbird", "waterbird"), ("land", "water")
REGIONS = {"bird": (1,), "background": (0,)}
"""Labels of the masks per region, in the order of the published scores; for `measure.region_masks`."""
HALF = 127
"""Segmentations are grey where annotators disagree; a pixel above this belongs to the bird for most of them."""


class Rows(NamedTuple):
    """The rows of metadata.csv, in its order."""

    line: tuple[int, ...]
    """Line of the file, for error messages."""
    file: tuple[str, ...]
    label: Int[np.ndarray, " n"]
    """0 land bird, 1 water bird."""
    place: Int[np.ndarray, " n"]
    """0 land, 1 water."""
    part: Int[np.ndarray, " n"]
    """Index into `PARTS`."""


def waterbirds(
    data_dir: str | pathlib.Path,
    *,
    image_size: int = 64,
    seed: int = 0,
    accept_share: float = 1 / 3,
    crop: float = CENTRE,
    masks: bool = True,
    segmentations: str | pathlib.Path | None = None,
) -> Dataset:
    """Land bird or water bird? On land or on water, which in training goes with it.

    Splits: train and test as in the file; validation is divided by seed into edit and accept. In `mask` 1 is the bird.
    Pairs of edit, accept and test are matched: two different pictures of one label, x on the aligned and twin on the
    other background, of the same species where there is one left (the folder of the picture), no picture in two pairs.

    Pictures are held in memory, `3 * image_size**2` bytes each and, with masks, 4 more per pixel. All splits have the
    same cut, that of the published evaluation: resized to a square without keeping the aspect, the middle of it cut
    out. (Published training crops at random, which is an augmentation and not part of the data.)

    Args:
      data_dir: a folder that group_DRO's generator wrote: `metadata.csv` with columns img_id, img_filename, y, split,
        place, place_filename, and the pictures in folders of species; or its parent, if there is one only or it is
        called `waterbirds`.
      image_size: height and width of the pictures.
      seed: fixes the division of validation.
      accept_share: share of validation that becomes accept.
      crop: share of each side that is kept; 1: the whole picture.
      masks: False: leave `mask` None, where there are no segmentations.
      segmentations: the folder of CUB-200-2011's segmentations, `<species>/<picture>.png`. None: `segmentations` in
        the folder or beside it, or else `<species>/mask/<picture>` in the folder.

    Raises:
      ContractError: a missing file, a bad row (named by its line), or a split without pictures.

    Source: Sagawa, Koh, Hashimoto and Liang 2020 (data); Wah et al. 2011 (birds and segmentations); Serianni et al.
    2025 (regions).
    """
    expect(0 < accept_share < 1, "accept_share", "a share above 0 and below 1", accept_share)
    folder = waterbirds_folder(data_dir)
    rows = read_rows(folder)
    where = {name: np.flatnonzero(rows.part == number) for number, name in enumerate(PARTS)}
    for name, part in where.items():
        expect(len(part) > 0, METADATA, f"at least one picture of {name}", "none")
    held = named_rng(seed, "waterbirds split").permutation(where["validation"])
    accept = round(len(held) * accept_share)
    expect(0 < accept < len(held), "accept_share", f"a share that divides {len(held)} pictures", accept_share)
    parts = {
        "train": where["train"],
        "edit": np.sort(held[accept:]),
        "accept": np.sort(held[:accept]),
        "test": where["test"],
    }
    mask_of = _segmentations(folder, rows, segmentations) if masks else None

    aligned, species = np.eye(2, dtype=bool), np.array([pathlib.PurePosixPath(file).parent.name for file in rows.file])
    splits, pairs = {}, {}
    for name, part in parts.items():
        splits[name] = _pictures(folder, rows, part, mask_of, image_size, crop)
        if name != "train":
            pairs[name] = matched_pairs(splits[name], one_hot(species[part]), aligned)
    dataset = Dataset(
        name="waterbirds",
        variant={
            "folder": folder.resolve().name,
            "image_size": image_size,
            "crop": crop,
            "masks": masks,
            "accept_share": accept_share,
            **{name: len(part) for name, part in parts.items()},
            **{f"{name}_pairs": len(batch.label) for name, batch in pairs.items()},
        },
        splits=splits,
        pairs=pairs,
        label_names=BIRDS,
        attribute_names=PLACES,
        aligned=aligned,
        pairing="matched",
        regions=REGIONS,
        attribute_region="background",
    )
    check_dataset(dataset)
    return dataset


def waterbirds_folder(data_dir: str | pathlib.Path) -> pathlib.Path:
    """The folder that the generator wrote: `data_dir` itself, `data_dir/waterbirds`, or the one `waterbird_*` in it.

    Raises:
      ContractError: none, or several versions of which one has to be chosen.
    """
    root = pathlib.Path(data_dir).expanduser()
    for folder in (root, root / "waterbirds"):
        if _is_waterbirds(folder):
            return folder
    versions = [folder for folder in sorted(root.glob("waterbird_*")) if _is_waterbirds(folder)]
    expect(len(versions) < 2, "data_dir", "one of the versions in it", ", ".join(folder.name for folder in versions))
    expect(
        len(versions) == 1,
        "data_dir",
        f"a folder with {METADATA} of columns {', '.join(COLUMNS)}",
        f"{root} without it",
    )
    return versions[0]


def read_rows(folder: pathlib.Path) -> Rows:
    """The rows of `folder/metadata.csv`; every picture in it exists.

    Raises:
      ContractError: naming the line of the first bad row.
    """
    lines, files, numbers = [], [], []
    with open(folder / METADATA, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        for record in reader:
            where = f"{METADATA} line {reader.line_num}"
            values = {name: (record[name] or "").strip() for name in COLUMNS}
            for name, allowed in (("y", "01"), ("split", "012"), ("place", "01")):
                good = len(values[name]) == 1 and values[name] in allowed
                expect(good, where, f"{name} among {', '.join(allowed)}", repr(values[name]))
            there = values["img_filename"] != "" and (folder / values["img_filename"]).is_file()
            expect(there, where, "an image file", f"{values['img_filename']!r}, which does not exist")
            lines.append(reader.line_num)
            files.append(values["img_filename"])
            numbers.append([int(values[name]) for name in ("y", "place", "split")])
    expect(len(files) > 0, METADATA, "at least one row", "none")
    label, place, part = np.array(numbers, np.int32).T
    return Rows(tuple(lines), tuple(files), label, place, part)


def _is_waterbirds(folder: pathlib.Path) -> bool:
    if not (folder / METADATA).is_file():
        return False
    with open(folder / METADATA, encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file, skipinitialspace=True), [])
    return set(COLUMNS) <= set(header)


def _segmentations(folder: pathlib.Path, rows: Rows, given: str | pathlib.Path | None) -> Callable[[str], pathlib.Path]:
    """Picture -> file of its mask, in the first of the layouts that has the mask of the first picture."""

    def from_folder(place: pathlib.Path) -> Callable[[str], pathlib.Path]:
        return lambda file: place / pathlib.PurePosixPath(file).with_suffix(".png")

    def beside(file: str) -> pathlib.Path:
        path = folder / file
        return path.parent / "mask" / path.name

    places = (
        [pathlib.Path(given).expanduser()]
        if given is not None
        else [folder / "segmentations", folder.resolve().parent / "segmentations"]
    )
    layouts = [*map(from_folder, places), *([beside] if given is None else [])]
    for layout in layouts:
        if layout(rows.file[0]).is_file():
            return layout
    expect(
        False,
        "segmentations",
        f"the mask of {rows.file[0]} (or masks=False)",
        f"none at {', '.join(str(layout(rows.file[0])) for layout in layouts)}",
    )
    raise AssertionError  # expect has raised


def _pictures(
    folder: pathlib.Path,
    rows: Rows,
    part: np.ndarray,
    mask_of: Callable[[str], pathlib.Path] | None,
    image_size: int,
    crop: float,
) -> Batch:
    files = [rows.file[row] for row in part]
    x = read_pictures(
        [folder / file for file in files], image_size, crop=crop, name=lambda i: f"{METADATA} line {rows.line[part[i]]}"
    )
    mask = None
    if mask_of is not None:
        mask = np.empty(x.shape[:3], np.int32)

        def one(i: int) -> None:
            path = mask_of(files[i])
            mask[i] = read_mask(path, image_size, crop=crop, above=HALF, name=f"{path.parent.name}/{path.name}")

        in_threads(one, len(files))
    return Batch(x=x, label=rows.label[part], attribute=rows.place[part], mask=mask)
