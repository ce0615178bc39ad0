"""FER2013: seven expressions on small grey faces, from the public table or from packed copies of its pictures."""

import csv
import pathlib
import re
import sys
import zipfile
import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from jaxdebias.contracts import ContractError, check_choice, check_dataset, describe, expect
from jaxdebias.core import Batch, Dataset, take
from jaxdebias.data._aligned import check_share
from jaxdebias.data.decode import decode_all
from jaxdebias.data.streams import named_rng

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
USAGES = ("Training", "PublicTest", "PrivateTest")
TABLES = ("fer2013.csv", "icml_face_data.csv")
"""Names under which the table is given away; the columns of the second stand in another order."""
PACKED = (("fer2013_training_subset.npz", "Training"), ("fer2013_publictest.npz", "PublicTest"))
SIZE = 48
ATTRIBUTES = ("none", "brightness", "contrast")


class Faces(NamedTuple):
    """The pictures in the order of the file."""

    x: UInt8[np.ndarray, "n 48 48 1"]
    label: Int[np.ndarray, " n"]
    """Index into `EMOTIONS`."""
    usage: Int[np.ndarray, " n"]
    """Index into `USAGES`."""


def fer2013(
    data_dir: str | pathlib.Path,
    *,
    attribute: str = "none",
    rare: float = 0.05,
    held_out: float = 0.1,
    max_train: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Which of seven expressions? Classes are far from balanced: disgust is one picture in 65 of the training data.

    Splits by `Usage`: train is Training, test is PrivateTest, and PublicTest is divided by seed into halves edit and
    accept. Where there is no PrivateTest, as in the packed files, test is PublicTest, and edit and accept are the
    share `held_out` each of Training. FER2013 says nothing of who is in a picture, so there are no pairs.

    Args:
      data_dir: a folder with `fer2013.csv` or `icml_face_data.csv` (columns emotion, pixels, Usage), or with
        `fer2013_training_subset.npz` and `fer2013_publictest.npz` (JPEG files back to back in `jpeg`, cut at `offset`,
        and `label`), or its parent if they lie in `fer2013/`. The table is taken if both are there.
      attribute: `none`: it is unknown, -1. `brightness`, `contrast`: derived from the pixels, 1 for faces whose mean,
        or standard deviation, is below the quantile `rare` of the training pictures.
      rare: share of training faces that `attribute` calls 1.
      held_out: share of Training that becomes edit, and again accept, where there is no PrivateTest.
      max_train: keep at most so many training pictures, drawn at random; None: all.
      seed: fixes the divisions.

    Raises:
      ContractError: missing or damaged files (the row is named), an unknown attribute, a share out of range.

    Source: Goodfellow et al. 2013, "Challenges in representation learning"; the derived attributes are ours.
    """
    check_choice("attribute", attribute, ATTRIBUTES)
    check_share("rare", rare)
    expect(0 < held_out < 0.5, "held_out", "a share above 0 and below 1/2", held_out)
    expect(max_train is None or max_train >= 1, "max_train", "at least 1, or None for all", max_train)
    faces = read_faces(fer2013_folder(data_dir))
    rng = named_rng(seed, "fer2013 split")
    train, public, private = (rng.permutation(np.flatnonzero(faces.usage == i)) for i in range(len(USAGES)))
    expect(
        len(train) > 0 and len(public) > 1,
        "Usage",
        "rows of Training and PublicTest",
        f"{len(train)} and {len(public)}",
    )
    if len(private):
        parts = {"edit": public[len(public) // 2 :], "accept": public[: len(public) // 2], "test": private}
    else:
        part = round(held_out * len(train))
        expect(part >= 1, "held_out", f"at least one of {len(train)} faces", held_out)
        parts = {"edit": train[:part], "accept": train[part : 2 * part], "test": public}
        train = train[2 * part :]
    parts = {name: np.sort(rows) for name, rows in ({"train": train[:max_train]} | parts).items()}

    value, names = np.full(len(faces.label), -1, np.int32), ("unknown",)
    if attribute != "none":
        statistic = (np.mean if attribute == "brightness" else np.std)(faces.x, axis=(1, 2, 3), dtype=np.float32)
        value = (statistic < np.quantile(statistic[parts["train"]], rare)).astype(np.int32)
        names = ("bright", "dark") if attribute == "brightness" else ("full contrast", "low contrast")
    everything = Batch(x=faces.x, label=faces.label.astype(np.int32), attribute=value)
    aligned = np.zeros((len(EMOTIONS), len(names)), bool)
    aligned[:, 0] = attribute != "none"
    dataset = Dataset(
        name="fer2013",
        variant={
            "attribute": attribute,
            "rare": rare if attribute != "none" else None,
            "test_of": USAGES[2] if len(private) else USAGES[1],
            **{name: len(rows) for name, rows in parts.items()},
        },
        splits={name: take(everything, rows) for name, rows in parts.items()},
        pairs={},
        label_names=EMOTIONS,
        attribute_names=names,
        aligned=aligned,
        pairing="none",
    )
    check_dataset(dataset)
    return dataset


def fer2013_folder(data_dir: str | pathlib.Path) -> pathlib.Path:
    """The folder that holds FER2013: `data_dir` itself or `data_dir/fer2013`.

    Raises:
      ContractError: saying what was looked for.
    """
    root = pathlib.Path(data_dir).expanduser()
    for folder in (root, root / "fer2013"):
        if _table(folder) is not None or all((folder / name).is_file() for name, _ in PACKED):
            return folder
    raise ContractError(
        f"`data_dir`: expected {' or '.join(TABLES)}, or {' and '.join(name for name, _ in PACKED)}, "
        f"got {root} without them"
    )


def read_faces(folder: pathlib.Path) -> Faces:
    """All faces of `folder`: the table's if there is one, else the packed ones."""
    table = _table(folder)
    return _read_packed(folder) if table is None else _read_table(table)


def _table(folder: pathlib.Path) -> pathlib.Path | None:
    return next((folder / name for name in TABLES if (folder / name).is_file()), None)


def _read_table(path: pathlib.Path) -> Faces:
    pixels, labels, usages = [], [], []
    csv.field_size_limit(max(csv.field_size_limit(), min(sys.maxsize, 2**20)))  # a row's pixels are one long field
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            expect(
                {"emotion", "pixels", "Usage"} <= set(header),
                f"{path.name} line 1",
                "columns emotion, pixels and Usage",
                ", ".join(header) or "none",
            )
            emotion, image, usage = (header.index(name) for name in ("emotion", "pixels", "Usage"))
            for row in rows:
                where = f"{path.name} line {rows.line_num}"
                expect(len(row) == len(header), where, f"{len(header)} columns", len(row))
                known = row[emotion].strip() in "0123456" and row[emotion].strip() != ""
                expect(known, where, "an emotion in 0..6", describe(row[emotion]))
                expect(row[usage].strip() in USAGES, where, f"a Usage among {', '.join(USAGES)}", describe(row[usage]))
                pixels.append(_pixels(row[image], where))
                labels.append(int(row[emotion]))
                usages.append(USAGES.index(row[usage].strip()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ContractError(f"`{path}`: expected a readable csv file, got {error}") from error
    expect(len(pixels) > 0, path.name, "at least one row", "none")
    return Faces(np.stack(pixels).reshape(-1, SIZE, SIZE, 1), np.array(labels), np.array(usages))


def _pixels(text: str, where: str) -> UInt8[np.ndarray, " m"]:
    # Words of up to three digits only: then NumPy's fast reader, which says little of what it cannot read, reads all.
    words = np.fromstring(text, np.int64, sep=" ") if re.fullmatch(r" *(\d{1,3}( +|$))+", text) else np.zeros(0)
    good = len(words) == SIZE * SIZE and words.max() <= 255
    expect(bool(good), where, f"{SIZE * SIZE} pixels in 0..255", f"{len(text.split())} words")
    return words.astype(np.uint8)


def _read_packed(folder: pathlib.Path) -> Faces:
    parts = []
    for name, usage in PACKED:
        path = folder / name
        try:
            with np.load(path) as stored:
                jpeg, offset, label = (stored[key] for key in ("jpeg", "offset", "label"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ContractError(f"`{path}`: expected arrays jpeg, offset and label, got {error}") from error
        n = len(offset) - 1
        good = label.shape == (n,) and n > 0 and label.min() >= 0 and label.max() < len(EMOTIONS)
        expect(bool(good), f"{name} label", f"{n} integers in 0..6", f"{label.dtype} {list(label.shape)}")
        images = decode_all(
            n,
            SIZE,
            lambda i, jpeg=jpeg, offset=offset: jpeg[offset[i] : offset[i + 1]].tobytes(),
            lambda i, name=name: f"{name} picture {i}",
        )
        parts.append(Faces(images[..., :1], label.astype(np.int64), np.full(n, USAGES.index(usage))))
    return Faces(*(np.concatenate(field) for field in zip(*parts, strict=True)))
