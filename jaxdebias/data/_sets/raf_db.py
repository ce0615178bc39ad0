"""RAF-DB, the basic part: seven expressions on real faces, with gender, race or age as the attribute."""

import pathlib
import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxdebias.contracts import ContractError, check_choice, check_dataset, describe, expect
from jaxdebias.core import Batch, Dataset, cell_counts, take
from jaxdebias.data._aligned import aligned_cells
from jaxdebias.data._matching import matched_pairs, one_hot
from jaxdebias.data.decode import decode_all
from jaxdebias.data.streams import named_rng

LIST = "EmoLabel/list_patition_label.txt"
"""As the authors spell it: `train_00001.jpg 5` per line."""
IMAGES, ANNOTATIONS = "Image/aligned", "Annotation/manual"
EXPRESSIONS = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
"""1 to 7 in the list, 0 to 6 here."""
ATTRIBUTES = {
    "gender": ("male", "female"),
    "race": ("Caucasian", "African-American", "Asian"),
    "age": ("0-3", "4-19", "20-39", "40-69", "70 or older"),
}
UNSURE = 2
"""The value of gender that is taken as unknown."""
LANDMARKS = 5
"""Lines of an annotation file before gender, race and age, a line each."""


class Listed(NamedTuple):
    """The list and, where they were read, the annotations, in the order of the list."""

    names: tuple[str, ...]
    """Without `.jpg`."""
    label: Int[np.ndarray, " n"]
    """Index into `EXPRESSIONS`."""
    test: Bool[np.ndarray, " n"]
    attributes: dict[str, Int[np.ndarray, " n"]]
    """gender, race and age, -1 unknown; empty where the annotations were not read."""


def raf_db(
    data_dir: str | pathlib.Path, *, attribute: str = "none", image_size: int = 48, held_out: float = 0.1, seed: int = 0
) -> Dataset:
    """Which of seven expressions? The official division, with edit and accept taken from its training part.

    A cell is aligned if training holds more of it than independence would put there. With an attribute, pairs of edit,
    accept and test are matched: two different pictures of one expression, x in an aligned and twin in a conflicting
    cell, equal in the two other annotations if they can be (`matching.nearest_partners`), no picture in two pairs;
    expressions of which a split does not hold both sides have no pairs there. Nobody is identified.

    Args:
      data_dir: the folder `basic` with `EmoLabel/list_patition_label.txt`, `Image/aligned/NAME_aligned.jpg` and, for an
        attribute, `Annotation/manual/NAME_manu_attri.txt` (five lines of landmarks, then gender, race and age, a number
        each), or its parent, or the parent of that called `RAF-DB` or `raf_db`.
      attribute: `gender` (unsure: unknown), `race`, `age`, or `none`: unknown, -1, and no pairs.
      image_size: height and width of the pictures, 100 in the files.
      held_out: share of the official training pictures that becomes edit, and again accept.
      seed: fixes that division.

    Raises:
      ContractError: missing or damaged files (named, with the line), an unknown attribute, a share out of range.

    Source: Li, Deng and Du 2017 (files, which their authors give out on request).
    """
    check_choice("attribute", attribute, ("none", *ATTRIBUTES))
    expect(0 < held_out < 0.5, "held_out", "a share above 0 and below 1/2", held_out)
    folder = raf_db_folder(data_dir)
    listed = read_list(folder, annotations=attribute != "none")
    rows = named_rng(seed, "raf_db split").permutation(np.flatnonzero(~listed.test))
    part = round(held_out * len(rows))
    expect(
        part >= 1 and bool(listed.test.any()),
        LIST,
        "training pictures to divide, and test pictures",
        f"{len(rows)} and {int(listed.test.sum())}",
    )
    parts = {
        "train": rows[2 * part :],
        "edit": rows[:part],
        "accept": rows[part : 2 * part],
        "test": np.flatnonzero(listed.test),
    }
    parts = {name: np.sort(rows) for name, rows in parts.items()}

    classes, names = len(EXPRESSIONS), ATTRIBUTES.get(attribute, ("unknown",))
    value = listed.attributes.get(attribute, np.full(len(listed.label), -1)).astype(np.int32)
    files = [folder / IMAGES / f"{name}_aligned.jpg" for name in listed.names]
    images = decode_all(len(files), image_size, files.__getitem__, lambda i: f"{IMAGES}/{files[i].name}")
    everything = Batch(x=images, label=listed.label.astype(np.int32), attribute=value)
    splits = {name: take(everything, rows) for name, rows in parts.items()}
    train = splits["train"]
    aligned = aligned_cells(train.label, train.attribute, classes, len(names))
    pairs = {}
    if attribute != "none":
        others = np.concatenate([one_hot(listed.attributes[name]) for name in ATTRIBUTES if name != attribute], axis=1)
        pairs = {name: _pairs(splits[name], others[parts[name]], aligned) for name in ("edit", "accept", "test")}
    dataset = Dataset(
        name="raf-db",
        variant={
            "attribute": attribute,
            "image_size": image_size,
            **{name: len(rows) for name, rows in parts.items()},
            **{f"{name}_pairs": len(batch.label) for name, batch in pairs.items()},
        },
        splits=splits,
        pairs=pairs,
        label_names=EXPRESSIONS,
        attribute_names=names,
        aligned=aligned,
        pairing="none" if attribute == "none" else "matched",
    )
    check_dataset(dataset)
    return dataset


def raf_db_folder(data_dir: str | pathlib.Path) -> pathlib.Path:
    """The folder that holds the basic part: `data_dir`, or `basic` in it, or in its `RAF-DB` or `raf_db`.

    Raises:
      ContractError: saying what was looked for.
    """
    root = pathlib.Path(data_dir).expanduser()
    for folder in (root, root / "basic", root / "RAF-DB" / "basic", root / "raf_db" / "basic"):
        if (folder / LIST).is_file() and (folder / IMAGES).is_dir():
            return folder
    raise ContractError(f"`data_dir`: expected RAF-DB's {LIST} and {IMAGES}/, also in basic/, got {root} without them")


def read_list(folder: pathlib.Path, *, annotations: bool) -> Listed:
    """The list of pictures and, if asked for, what the annotation file of each says.

    Raises:
      ContractError: naming the file and line of the first bad row.
    """
    names, labels = [], []
    for number, line in enumerate(_lines(folder / LIST), 1):
        if not line.strip():
            continue
        found = re.fullmatch(r"((?:train|test)_\d+)\.jpg\s+([1-7])", line.strip())
        expect(
            found is not None,
            f"{LIST} line {number}",
            "train_NUMBER.jpg or test_NUMBER.jpg and 1..7",
            describe(line.strip()),
        )
        names.append(found[1])
        labels.append(int(found[2]) - 1)
    expect(len(names) > 0, LIST, "at least one row", "none")
    values = {}
    if annotations:
        rows = np.array([_annotation(folder / ANNOTATIONS / f"{name}_manu_attri.txt") for name in names])
        values = dict(zip(ATTRIBUTES, rows.T, strict=True))
    return Listed(tuple(names), np.array(labels), np.array([name.startswith("test") for name in names]), values)


def _annotation(path: pathlib.Path) -> tuple[int, int, int]:
    """gender, race and age of one picture."""
    words = [line.strip() for line in _lines(path) if line.strip()][LANDMARKS:]
    expect(
        len(words) >= 3,
        f"{ANNOTATIONS}/{path.name}",
        f"{LANDMARKS} lines of landmarks, gender, race and age",
        f"{LANDMARKS + len(words)} lines or fewer",
    )
    most = (UNSURE, *(len(ATTRIBUTES[name]) - 1 for name in ("race", "age")))
    for name, word, limit in zip(ATTRIBUTES, words, most, strict=False):
        good = re.fullmatch(r"\d", word) is not None and int(word) <= limit
        expect(good, f"{ANNOTATIONS}/{path.name} {name}", f"a number in 0..{limit}", describe(word))
    gender, race, age = (int(word) for word in words[:3])
    return -1 if gender == UNSURE else gender, race, age


def _pairs(split: Batch, bits: np.ndarray, aligned: np.ndarray) -> Batch:
    """Matched pairs of those expressions that have known aligned and conflicting pictures here."""
    counts = cell_counts(split.label, split.attribute, *aligned.shape)
    both = ((counts * aligned).sum(1) > 0) & ((counts * ~aligned).sum(1) > 0)
    expect(bool(both.any()), "held_out", "a split with both sides of an expression", "none")
    rows = np.flatnonzero(both[split.label])
    return matched_pairs(take(split, rows), bits[rows], aligned)


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"`{path}`: expected a readable text file, got {error}") from error
