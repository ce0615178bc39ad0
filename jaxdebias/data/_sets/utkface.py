"""UTKFace: gender from a face, where age or race gives it away in training."""

import functools
import hashlib
import pathlib
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jaxdebias.contracts import ContractError, check_choice, check_dataset, expect
from jaxdebias.core import Batch, Dataset, take
from jaxdebias.data._aligned import check_share
from jaxdebias.data._matching import matched_pairs, one_hot, ordered
from jaxdebias.data.decode import decode_all
from jaxdebias.data.streams import named_rng

PACKED = "utkface_96.npz"
GENDERS = ("male", "female")
RACES = ("White", "Black", "Asian", "Indian", "other")
YOUNG, GROWN = 12, 20
"""At most so old is young, at least so old is not; who is between has no attribute `age` and is left out."""
AGE_EDGES = (3, 13, 20, 30, 40, 50, 60, 70)
"""Where the age bins begin in which pairs for the attribute `race` are matched."""
ATTRIBUTES = {"age": (f"{GROWN} or older", f"{YOUNG} or younger"), "race": ("other than White", "White")}
HELD_OUT = 400


class Faces(NamedTuple):
    """What UTKFace says of each picture, in the order of the file."""

    age: Int[np.ndarray, " n"]
    gender: Int[np.ndarray, " n"]
    """0 male, 1 female."""
    race: Int[np.ndarray, " n"]
    """Index into `RACES`."""


def utkface(
    data_dir: str | pathlib.Path,
    *,
    attribute: str = "age",
    conflicting: float = 0.02,
    seed: int = 0,
    image_size: int = 48,
    edit: int = HELD_OUT,
    accept: int = HELD_OUT,
    test: int = HELD_OUT,
) -> Dataset:
    """Male or female? With age (12 or younger) or race (White) as the attribute that goes with being female.

    Aligned cells: female with the attribute, male without it. The attribute is chosen by whom training leaves out, no
    picture is changed.

    Splits, all by seed: edit, accept and test are balanced over the four cells of (gender, attribute). Train takes
    from the rest as many faces of each gender as there are at the share `conflicting`; sizes therefore depend on it.
    Pairs of edit, accept and test are matched: two different people of one gender, x in the aligned and twin in the
    conflicting cell, equal in the other annotation (race for `age`; the bin of `AGE_EDGES` for `race`), nobody in two
    pairs. Faces without such a partner are in no pair. The labels of UTKFace are estimates and partly wrong, and
    several pictures may show one person: nobody is identified.

    Args:
      data_dir: a folder with `utkface_96.npz` (JPEG files back to back in `jpeg`, cut at `offset`; `age`, `gender`,
        `race`), or with UTKFace's own files `age_gender_race_date.jpg`, or the parent of either, called `utkface` or
        `UTKFace`. Of the files, those whose names do not follow the scheme are left out, and so are repeated files.
      attribute: `age` or `race`.
      conflicting: share of training faces in a conflicting cell, per gender.
      seed: fixes the division and the pairs.
      image_size: height and width of the pictures, `3 * image_size**2` bytes each.
      edit: sizes of these splits, multiples of 4.
      accept: sizes of these splits, multiples of 4.
      test: sizes of these splits, multiples of 4.

    Raises:
      ContractError: missing or damaged files (named), an unknown attribute, sizes beyond what the cells hold.

    Source: Zhang, Song and Qi 2017 (faces and annotations); sizes and the division are ours.
    """
    sizes = {"edit": edit, "accept": accept, "test": test}
    folder = utkface_folder(data_dir)
    faces = read_faces(folder)
    label = faces.gender
    parts = _division(faces, attribute, conflicting, seed, sizes)
    value, _ = attribute_of(faces, attribute)
    others = one_hot(faces.race) if attribute == "age" else ordered(faces.age, AGE_EDGES)

    images = read_images(folder, image_size)
    everything = Batch(x=images, label=label.astype(np.int32), attribute=value.astype(np.int32))
    splits = {name: take(everything, rows) for name, rows in parts.items()}
    aligned = np.eye(2, dtype=bool)
    pairs = {name: matched_pairs(splits[name], others[parts[name]], aligned, farthest=0) for name in sizes}
    dataset = Dataset(
        name="utkface",
        variant={
            "attribute": attribute,
            "conflicting": conflicting,
            "image_size": image_size,
            **{name: len(rows) for name, rows in parts.items()},
            **{f"{name}_pairs": len(batch.label) for name, batch in pairs.items()},
        },
        splits=splits,
        pairs=pairs,
        label_names=GENDERS,
        attribute_names=ATTRIBUTES[attribute],
        aligned=aligned,
        pairing="matched",
    )
    check_dataset(dataset)
    return dataset


def utkface_columns(
    data_dir: str | pathlib.Path,
    names: Sequence[str],
    *,
    attribute: str = "age",
    conflicting: float = 0.02,
    seed: int = 0,
    edit: int = HELD_OUT,
    accept: int = HELD_OUT,
    test: int = HELD_OUT,
) -> dict[str, dict[str, list[str]]]:
    """Annotations on the rows of `utkface`, without decoding a picture: name -> split -> values as text.

    Args:
      data_dir: as of `utkface`.
      names: `age` or `race`. An age between those of young and of grown is empty text.
      attribute: that of the data set, which decides on the rows, as all that follows.
      conflicting: as of `utkface`.
      seed: as of `utkface`.
      edit: as of `utkface`.
      accept: as of `utkface`.
      test: as of `utkface`.
    """
    faces = read_faces(utkface_folder(data_dir))
    parts = _division(faces, attribute, conflicting, seed, {"edit": edit, "accept": accept, "test": test})
    columns = {}
    for name in names:
        check_choice("attribute", name, ATTRIBUTES)
        value, known = attribute_of(faces, name)
        text = np.where(known, np.array(ATTRIBUTES[name])[value], "")
        columns[name] = {split: text[rows].tolist() for split, rows in parts.items()}
    return columns


def _division(
    faces: Faces, attribute: str, conflicting: float, seed: int, sizes: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Split -> its faces."""
    check_choice("attribute", attribute, ATTRIBUTES)
    check_share("conflicting", conflicting)
    for name, size in sizes.items():
        expect(size >= 4 and size % 4 == 0, name, "a multiple of 4 of at least 4", size)
    label, (value, known) = faces.gender, attribute_of(faces, attribute)
    rng = named_rng(seed, "utkface split")
    cells = {
        (y, a): rng.permutation(np.flatnonzero(known & (label == y) & (value == a))) for y in (0, 1) for a in (0, 1)
    }
    least = min(len(rows) for rows in cells.values())
    expect(
        sum(sizes.values()) // 4 < least,
        "edit + accept + test",
        f"fewer than {4 * least} faces, 4 times the smallest cell",
        sum(sizes.values()),
    )
    parts, start = {}, 0
    for name, size in sizes.items():
        parts[name] = np.concatenate([rows[start : start + size // 4] for rows in cells.values()])
        start += size // 4
    rest = {cell: rows[start:] for cell, rows in cells.items()}
    parts["train"] = np.concatenate([_biased(rest[y, y], rest[y, 1 - y], conflicting) for y in (0, 1)])
    expect(len(parts["train"]) > 0, "conflicting", "a share that leaves faces to train on", conflicting)
    return {name: np.sort(parts[name]) for name in ("train", "edit", "accept", "test")}


def utkface_folder(data_dir: str | pathlib.Path) -> pathlib.Path:
    """The folder that holds the faces: `data_dir` itself, `data_dir/utkface` or `data_dir/UTKFace`.

    Raises:
      ContractError: saying what was looked for.
    """
    root = pathlib.Path(data_dir).expanduser()
    for folder in (root, root / "utkface", root / "UTKFace"):
        if (folder / PACKED).is_file() or (folder.is_dir() and next(folder.glob("*_*_*_*.jpg"), None) is not None):
            return folder
    raise ContractError(f"`data_dir`: expected {PACKED} or UTKFace's own .jpg files, got {root} without them")


def attribute_of(faces: Faces, attribute: str) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The value 0 or 1 of each face, as in `ATTRIBUTES`, and whether it has one."""
    if attribute == "race":
        return (faces.race == RACES.index("White")).astype(np.int64), np.ones(len(faces.race), bool)
    return (faces.age <= YOUNG).astype(np.int64), (faces.age <= YOUNG) | (faces.age >= GROWN)


def read_faces(folder: pathlib.Path) -> Faces:
    """The annotations of all faces in `folder`, those that `read_images` reads, in the same order."""
    if not (folder / PACKED).is_file():
        named = [_parse(path.name) for path in _originals(folder, _stamp(folder))]
        return Faces(*(np.array(column, np.int64) for column in zip(*named, strict=True)))
    packed = _packed(folder)
    faces = Faces(*(packed[name].astype(np.int64) for name in Faces._fields))
    n = len(packed["offset"]) - 1
    for name, values, most in (("age", faces.age, None), ("gender", faces.gender, 1), ("race", faces.race, 4)):
        good = values.shape == (n,) and n > 0 and values.min() >= 0 and (most is None or values.max() <= most)
        expect(
            bool(good),
            f"{PACKED} {name}",
            f"{n} integers of at least 0" + f", at most {most}" * (most is not None),
            f"{values.dtype} {list(values.shape)}",
        )
    return faces


def read_images(folder: pathlib.Path, image_size: int) -> UInt8[np.ndarray, "n h w 3"]:
    """All faces of `folder`, decoded. The last two results are kept in memory, nothing is written to disk."""
    return _decoded(folder, image_size, _stamp(folder))


@functools.lru_cache(maxsize=2)
def _decoded(folder: pathlib.Path, image_size: int, stamp: tuple[int, int]) -> np.ndarray:
    if (folder / PACKED).is_file():
        packed = _packed(folder)
        jpeg, offset = packed["jpeg"], packed["offset"]
        images = decode_all(
            len(offset) - 1,
            image_size,
            lambda i: jpeg[offset[i] : offset[i + 1]].tobytes(),
            lambda i: f"{PACKED} picture {i}",
        )
    else:
        files = _originals(folder, stamp)
        images = decode_all(len(files), image_size, files.__getitem__, lambda i: files[i].name)
    images.flags.writeable = False  # shared by all who ask
    return images


def _biased(aligned: np.ndarray, conflicting: np.ndarray, share: float) -> np.ndarray:
    """As many rows as both sides allow, round(share of them) conflicting."""
    n = len(aligned) + len(conflicting)
    while n - round(share * n) > len(aligned) or round(share * n) > len(conflicting):
        n -= 1
    return np.concatenate([aligned[: n - round(share * n)], conflicting[: round(share * n)]])


def _packed(folder: pathlib.Path) -> dict[str, np.ndarray]:
    path = folder / PACKED
    try:
        with np.load(path) as stored:
            return {name: stored[name] for name in ("jpeg", "offset", *Faces._fields)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ContractError(f"`{path}`: expected arrays jpeg, offset, age, gender and race, got {error}") from error


@functools.lru_cache(maxsize=2)
def _originals(folder: pathlib.Path, stamp: tuple[int, int]) -> tuple[pathlib.Path, ...]:
    """UTKFace's files by name, without those whose names lack a field and without repetitions of the same bytes."""
    del stamp  # only tells a changed folder from the one that was read
    files, seen = [], set()
    for path in sorted(folder.glob("*_*_*_*.jpg")):
        if _parse(path.name) is None:
            continue
        digest = hashlib.sha256(path.read_bytes()).digest()
        if digest not in seen:
            seen.add(digest)
            files.append(path)
    expect(len(files) > 0, "data_dir", "files named age_gender_race_date.jpg", f"{folder} without one")
    return tuple(files)


def _parse(name: str) -> tuple[int, int, int] | None:
    """(age, gender, race) from a file's name; some of the published names lack one of them.

    >>> _parse("36_0_1_20170109010546978.jpg.chip.jpg"), _parse("61_1_20170109142408075.jpg.chip.jpg")
    ((36, 0, 1), None)
    """
    found = re.match(r"(\d{1,3})_([01])_([0-4])_\d+\.jpg", name)
    return None if found is None else (int(found[1]), int(found[2]), int(found[3]))


def _stamp(folder: pathlib.Path) -> tuple[int, int]:
    """Changes when the packed file, or the list of files in the folder, does."""
    path = folder / PACKED
    status = (path if path.is_file() else folder).stat()
    return status.st_mtime_ns, status.st_size
