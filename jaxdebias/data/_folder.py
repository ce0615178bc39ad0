"""Your own images: a folder with a metadata.csv, as WILDS (Waterbirds) and SubpopBench users have it."""

import contextlib
import hashlib
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jaxdebias.contracts import ContractError, check_choice, check_dataset, describe, expect
from jaxdebias.core import Batch, Dataset, take
from jaxdebias.data._aligned import aligned_cells
from jaxdebias.data._values import canonical_all, check_groups, in_order, is_number
from jaxdebias.data.csv_files import read_csv
from jaxdebias.data.decode import MAX_BYTES, MAX_PIXELS, as_rgb, check_memory, check_pixels
from jaxdebias.data.streams import named_rng
from jaxdebias.files import one_line, read_arrays, write_arrays

METADATA = "metadata.csv"
ALIASES = {"filename": ("filename", "img_filename"), "split": ("split",), "y": ("y",), "a": ("a", "place")}
SPLITS = {"0": "train", "1": "val", "2": "test", "train": "train", "val": "val", "test": "test"}


def folder(
    data_dir: str | pathlib.Path,
    *,
    image_size: int = 64,
    seed: int = 0,
    edit_share: float = 0.2,
    accept_share: float = 0.1,
    cache_dir: str | pathlib.Path | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Dataset:
    """A folder of images with `metadata.csv`: columns `filename, split, y` and `a`, a header line, one row per image.

    Columns: `filename` (or `img_filename`) relative to the folder; `split` 0/1/2 or train/val/test; `y` the label;
    `a` (or `place`) the bias attribute, -1 everywhere without that column. Labels and attributes are numbers or names,
    compared by value (`0` and `0.0` are one) and numbered in sorted order (0, 1, ... keep their numbers). Further
    columns: see `further_columns`.

    Splits: train and test as given; val is divided into edit and accept, by seed, in the proportion edit_share to
    accept_share. Without a val split, these shares are taken from train.
    Pairs of edit, accept and test are matched, not counterfactual: two different images of one label, x with an
    aligned and twin with a conflicting attribute, drawn at random, no image twice. Without any such images there are
    no pairs. A cell is aligned if training holds more of it than independence would put there
    (`aligned.aligned_cells`).

    Args:
      data_dir: the folder.
      image_size: images are resized to this height and width (bilinear, antialiased, aspect not kept), as RGB.
      seed: fixes the division into edit and accept, and the pairs.
      edit_share: the part of val, or of train, for the split edit.
      accept_share: the same for accept.
      cache_dir: where the decoded images are kept for next time; default `data_dir/.jaxdebias`. A folder that cannot
        be written is used without a cache. The file's name is a hash of metadata.csv, image_size and the images'
        sizes and modification times, so a changed folder is decoded again; old files stay and may be deleted at any
        time.
      max_pixels: a larger picture is refused before it is decoded: a small file may unpack to gigabytes.
      max_bytes: the resized pictures of a larger set are refused, as they would be kept in memory.

    Raises:
      ContractError: no metadata.csv, a missing column, no train or test rows; or a bad row, naming the csv line: a
        missing, too large or unreadable image, one outside the folder (links are followed), an unknown split, an empty
        value, a missing one spelled as text (NA, nan), a name among numbers.
    """
    root = pathlib.Path(data_dir).expanduser()
    expect(image_size >= 1, "image_size", "at least 1 pixel", image_size)
    good = edit_share > 0 and accept_share > 0 and edit_share + accept_share < 1
    expect(good, "edit_share + accept_share", "positive shares, together below 1", f"{edit_share} + {accept_share}")
    rows = read_metadata(root)
    label, label_names = _numbered(rows, "y", [row.y for row in rows])
    known = all(row.a for row in rows)
    attribute, attribute_names = (
        _numbered(rows, "a", [row.a for row in rows]) if known else (np.full(len(rows), -1, np.int32), ("unknown",))
    )
    check_groups(f"{METADATA}: y and a", len(label_names), len(attribute_names))
    parts = _parts([row.split for row in rows], seed, edit_share, accept_share)

    check_memory(len(rows), image_size, max_bytes)
    cache = pathlib.Path(cache_dir) if cache_dir else root / ".jaxdebias"
    images = _cached_images(root, rows, image_size, cache, max_pixels)
    everything = Batch(x=images, label=label, attribute=attribute)
    splits = {name: take(everything, part) for name, part in parts.items()}
    aligned = np.zeros((len(label_names), 1), bool)
    if known:
        aligned = aligned_cells(
            splits["train"].label, splits["train"].attribute, len(label_names), len(attribute_names)
        )
    pairs = {}
    for name in ("edit", "accept", "test") if known else ():
        x, twin = matched_rows(named_rng(seed, f"folder pairs {name}"), splits[name], aligned)
        if len(x):
            pairs[name] = take(splits[name], x)._replace(twin=splits[name].x[twin])

    dataset = Dataset(
        name="folder",
        variant={
            "folder": root.resolve().name,
            "image_size": image_size,
            "edit_share": edit_share,
            "accept_share": accept_share,
            **{name: len(part) for name, part in parts.items()},
        },
        splits=splits,
        pairs=pairs,
        label_names=label_names,
        attribute_names=attribute_names,
        aligned=aligned,
        pairing="matched" if pairs else "none",
    )
    check_dataset(dataset)
    return dataset


def further_columns(
    data_dir: str | pathlib.Path,
    names: Sequence[str] | None = None,
    *,
    seed: int = 0,
    edit_share: float = 0.2,
    accept_share: float = 0.1,
) -> dict[str, dict[str, list[str]]]:
    """The columns of `metadata.csv` that `folder` does not read: name -> split -> the cells of its rows, as text.

    Args:
      data_dir: the folder.
      names: of columns; None: all of them.
      seed: as of `folder`, so that the rows are the same.
      edit_share: as `seed`.
      accept_share: as `seed`.
    """
    root = pathlib.Path(data_dir).expanduser()
    rows = read_metadata(root)
    parts = _parts([row.split for row in rows], seed, edit_share, accept_share)
    header, records = read_csv(root / METADATA)
    used = {alias for aliases in ALIASES.values() for alias in aliases}
    further = [name for name in header if name not in used]
    names = further if names is None else names
    for name in names:
        check_choice("attribute", name, further)
    return {name: {split: [records[i].cells[name] for i in part] for split, part in parts.items()} for name in names}


class Row(NamedTuple):
    """One line of metadata.csv."""

    line: int
    file: pathlib.Path
    split: str
    y: str
    a: str
    """Empty without that column."""


def read_metadata(root: pathlib.Path) -> list[Row]:
    """The rows of `root/metadata.csv`, each checked: its image exists, its split is known, nothing is empty."""
    path = root / METADATA
    expect(path.is_file(), "data_dir", f"a folder with {METADATA}", f"{root} without it")
    rows = []
    header, records = read_csv(path)
    column = {}
    for name, aliases in ALIASES.items():
        found = [alias for alias in aliases if alias in header]
        wanted = f"a column {' or '.join(aliases)}"
        if name == "a" and not found:
            continue
        expect(len(found) > 0, f"{METADATA} line 1", wanted, ", ".join(header) or "nothing")
        column[name] = found[0]
    for line, cells in records:
        where = f"{METADATA} line {line}"
        value = {name: cells[alias] for name, alias in column.items()}
        for name, text in value.items():
            expect(text != "", where, f"a value for {column[name]}", "nothing")
        expect(value["split"] in SPLITS, where, "split 0, 1, 2 or train, val, test", repr(value["split"]))
        image = root / value["filename"]
        name = value["filename"]
        inside = not pathlib.PurePath(name).is_absolute() and ".." not in pathlib.PurePath(name).parts
        expect(inside, where, "an image below the folder", describe(name))
        expect(_is_file(image), where, "an image file", f"{name[:100]!r}, which does not exist")
        rows.append(Row(line, image, SPLITS[value["split"]], value["y"], value.get("a", "")))
    for split in ("train", "test"):
        expect(any(row.split == split for row in rows), METADATA, f"at least one row of split {split}", "none")
    return rows


def _is_file(path: pathlib.Path) -> bool:
    """Whether it is a file, or a link to one; a name that no system can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # over 255 bytes, a zero byte
        return False


def matched_rows(
    rng: np.random.Generator, batch: Batch, aligned: Bool[np.ndarray, "k a"]
) -> tuple[Int[np.ndarray, "m"], Int[np.ndarray, "m"]]:
    """Rows (x, twin), both `[m]`, of one label each: x in an aligned cell, twin in a conflicting one, no row twice."""
    is_aligned = aligned[batch.label, batch.attribute]
    x, twin = [], []
    for y in range(len(aligned)):
        one = rng.permutation(np.flatnonzero((batch.label == y) & is_aligned))
        other = rng.permutation(np.flatnonzero((batch.label == y) & ~is_aligned))
        n = min(len(one), len(other))
        x.append(one[:n])
        twin.append(other[:n])
    return np.concatenate(x), np.concatenate(twin)


def _numbered(rows: list[Row], column: str, values: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers 0.. of the values in order, int32 `[n]`, and their names. Values are compared as numbers if most are."""
    found = canonical_all(values)
    for row, value, text in zip(rows, found, values, strict=True):
        expect(value is not None, f"{METADATA} line {row.line}", f"a value for {column}", repr(text))
    numbers = [is_number(value) for value in found]
    if any(numbers) and 2 * sum(numbers) >= len(numbers):
        like = repr(values[numbers.index(True)])
        for row, number, text in zip(rows, numbers, values, strict=True):
            expect(number, f"{METADATA} line {row.line}", f"a number for {column}, like {like}", repr(text))
    names = in_order(found)
    number_of = {value: i for i, value in enumerate(names)}
    return np.array([number_of[value] for value in found], np.int32), tuple(names.values())


def _parts(split: list[str], seed: int, edit_share: float, accept_share: float) -> dict[str, np.ndarray]:
    """Rows of train, edit, accept and test, each in the file's order."""
    rows = {name: np.flatnonzero(np.array(split) == name) for name in ("train", "val", "test")}
    train, held = rows["train"], rows["val"]
    rng = named_rng(seed, "folder split")
    if len(held) == 0:
        take_out = round(len(train) * (edit_share + accept_share))
        shuffled = rng.permutation(train)
        held, train = shuffled[:take_out], shuffled[take_out:]
    cut = round(len(held) * edit_share / (edit_share + accept_share))
    held = rng.permutation(held)
    parts = {"train": train, "edit": held[:cut], "accept": held[cut:], "test": rows["test"]}
    for name, part in parts.items():
        expect(len(part) > 0, METADATA, f"enough rows for split {name}", f"{len(split)} rows, none left for it")
    return {name: np.sort(part) for name, part in parts.items()}


def _cached_images(
    root: pathlib.Path, rows: list[Row], size: int, cache_dir: pathlib.Path, max_pixels: int
) -> UInt8[np.ndarray, "n h w 3"]:
    """The decoded images from the cache, or decoded now and then kept there."""
    digest = hashlib.sha256(f"2 {size} ".encode() + (root / METADATA).read_bytes())
    for row in rows:
        status = row.file.stat()
        digest.update(f"{status.st_size} {status.st_mtime_ns} ".encode())
    path = cache_dir / f"images-{size}-{digest.hexdigest()[:32]}.npz"
    with contextlib.suppress(ContractError):  # no cache, or one that cannot be read: decode
        images = read_arrays("cache", path).get("x")
        if images is not None and images.shape == (len(rows), size, size, 3) and images.dtype == np.uint8:
            return images
    images = _decode(rows, size, max_pixels)
    # The cache only saves time: a folder that cannot be written works without it.
    with contextlib.suppress(OSError, ContractError):
        write_arrays(path, {"x": images})
    return images


def _decode(rows: list[Row], size: int, max_pixels: int) -> UInt8[np.ndarray, "n h w 3"]:
    images = np.empty((len(rows), size, size, 3), np.uint8)

    def decode(i: int) -> None:
        where = f"{METADATA} line {rows[i].line}"
        images[i] = read_image(rows[i].file, size, where=where, max_pixels=max_pixels)

    with ThreadPoolExecutor() as pool:  # pillow decodes outside the interpreter's lock
        for _ in pool.map(decode, range(len(rows))):  # in order, so the first bad line is the one reported
            pass
    return images


def read_image(
    file: pathlib.Path, size: int, *, where: str, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "h w 3"]:
    """One image as RGB, resized to `[size size 3]`; `where` names it in the error."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            check_pixels(image, max_pixels, where)
            image.draft("RGB", (2 * size, 2 * size))  # lets JPEG decode at a smaller scale
            return np.asarray(as_rgb(image).resize((size, size), Image.Resampling.BILINEAR))
    except ContractError:
        raise
    except (OSError, SyntaxError, ValueError, MemoryError, Image.DecompressionBombError) as error:
        said = one_line(error)[:200]
        raise ContractError(f"`{where}`: expected a readable image, got {describe(file.name)}: {said}") from error
