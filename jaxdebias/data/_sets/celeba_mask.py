"""CelebAMask-HQ: 30,000 faces with CelebA's 40 attributes and the parts of each face drawn by hand."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jaxdebias.contracts import expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._sets.celeba import read_attributes
from jaxdebias.data._sets.celebrity_attributes import aligned_in, assemble, attribute_columns, divide, roles
from jaxdebias.data.masked_pictures import CENTRE, in_threads, read_mask, read_pictures

FOLDER = "CelebAMask-HQ"
ATTRIBUTES, PICTURES, MASKS = "CelebAMask-HQ-attribute-anno.txt", "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
REGION_NAMES = (
    "background",
    "skin",
    "nose",
    "eyeglasses",
    "eyes",
    "eyebrows",
    "ears",
    "mouth",
    "hair",
    "hat",
    "earrings",
    "necklace",
    "neck",
    "cloth",
)
"""The 14 regions of the published scores; a mask holds the index."""
REGIONS = {name: (number,) for number, name in enumerate(REGION_NAMES)}
"""Labels of the masks per region, for `measure.region_masks`."""
PART_REGIONS = {
    "skin": "skin",
    "nose": "nose",
    "eye_g": "eyeglasses",
    "l_eye": "eyes",
    "r_eye": "eyes",
    "l_brow": "eyebrows",
    "r_brow": "eyebrows",
    "l_ear": "ears",
    "r_ear": "ears",
    "mouth": "mouth",
    "u_lip": "mouth",
    "l_lip": "mouth",
    "hair": "hair",
    "hat": "hat",
    "ear_r": "earrings",
    "neck_l": "necklace",
    "neck": "neck",
    "cloth": "cloth",
}
"""Drawn part -> region, in the order in which parts are painted: where two overlap the later one is seen."""
REGION_OF_ATTRIBUTE = {
    **dict.fromkeys(("Arched_Eyebrows", "Bushy_Eyebrows"), "eyebrows"),
    **dict.fromkeys(
        ("Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Straight_Hair", "Wavy_Hair"), "hair"
    ),
    **dict.fromkeys(("Big_Lips", "Mouth_Slightly_Open", "Smiling", "Wearing_Lipstick"), "mouth"),
    **dict.fromkeys(("Big_Nose", "Pointy_Nose"), "nose"),
    **dict.fromkeys(("Eyeglasses", "Narrow_Eyes"), "eyes"),
}
"""The 17 attributes that the paper scores against the region they are about; Eyeglasses are scored against eyes."""


class Annotations(NamedTuple):
    """The attribute list, in its order."""

    names: tuple[str, ...]
    """Of the attributes."""
    number: Int[np.ndarray, " n"]
    """Of the picture, by which its files are named."""
    values: Bool[np.ndarray, "n j"]


class Faces(NamedTuple):
    """Some faces in memory, for a classifier of all attributes at once."""

    x: UInt8[np.ndarray, "n h w 3"]
    values: Bool[np.ndarray, "n j"]
    mask: Int[np.ndarray, "n h w"]
    """Index into `REGION_NAMES`, int32."""


def celeba_mask(
    data_dir: str | pathlib.Path,
    *,
    target: str = "Blond_Hair",
    attribute: str = "Male",
    seed: int = 0,
    image_size: int = 64,
    max_train: int | None = None,
    accept_share: float = 1 / 3,
    pairs_per_label: int | None = None,
    crop: float = CENTRE,
) -> Dataset:
    """Faces of celebrities: is `target` there? With `attribute` as what goes with it, and masks of 14 regions.

    Train and test are those of the published protocol (`protocol_split`, not CelebA's own split); its validation split
    is divided by seed into edit and accept. A cell is aligned if training holds more of it than independence would put
    there. Pairs of edit, accept and test are matched on the other attributes, as `celeba` does it.

    All pictures are held in memory, 7 bytes per pixel with the mask: 860 MB for 30,000 at 64 pixels. For one network
    of all 40 attributes use `read_annotations`, `protocol_split` and `read_faces`.

    Args:
      data_dir: the folder with `CelebAMask-HQ-attribute-anno.txt`, `CelebA-HQ-img/` and `CelebAMask-HQ-mask-anno/`, or
        its parent if it is called `CelebAMask-HQ`.
      target: the attribute that is the label; any name in the header of the attribute list.
      attribute: the bias attribute; another one.
      seed: fixes the division of validation, and which training pictures `max_train` keeps.
      image_size: height and width of the pictures.
      max_train: keep at most so many training pictures, drawn at random; None: all.
      accept_share: share of validation that becomes accept.
      pairs_per_label: at most so many pairs of each target value per split; None: as many as there are.
      crop: share of each side that is kept; 1: the whole picture.

    Raises:
      ContractError: a missing file, list row or picture (named), an unknown attribute, or a split in which one target
        value has no conflicting picture.

    Source: Lee, Liu, Wu and Luo 2020 (files); Serianni et al. 2025 (split and regions).
    """
    folder = celeba_mask_folder(data_dir)
    listed = read_annotations(folder)
    found = roles(listed.names, listed.values, target, attribute)
    where = protocol_split(len(listed.number))
    # Of all training pictures, so that `max_train` cannot turn the bias round.
    expected = f"one that goes with {target} in training"
    aligned = aligned_in(found, where["train"], "attribute", expected, f"{attribute}, which does not")
    parts = divide(where, "celeba-mask", seed=seed, max_train=max_train, accept_share=accept_share)
    splits = {}
    for name, rows in parts.items():
        faces = read_faces(folder, listed, rows, image_size=image_size, crop=crop)
        splits[name] = Batch(x=faces.x, label=found.label[rows], attribute=found.value[rows], mask=faces.mask)
    variant = {"image_size": image_size, "crop": crop, "accept_share": accept_share}
    return assemble("celeba-mask", splits, parts, found, aligned, variant, per_label=pairs_per_label, regions=REGIONS)


def celeba_mask_columns(
    data_dir: str | pathlib.Path,
    names: Sequence[str],
    *,
    seed: int = 0,
    max_train: int | None = None,
    accept_share: float = 1 / 3,
) -> dict[str, dict[str, list[str]]]:
    """Attributes on the rows of `celeba_mask`, without reading a picture: name -> split -> values as text.

    Args:
      data_dir: as of `celeba_mask`.
      names: attributes, as in the header of the attribute list.
      seed: as of `celeba_mask`, so that the rows are the same.
      max_train: as `seed`.
      accept_share: as `seed`.
    """
    known = read_annotations(celeba_mask_folder(data_dir))
    where = protocol_split(len(known.number))
    parts = divide(where, "celeba-mask", seed=seed, max_train=max_train, accept_share=accept_share)
    return attribute_columns(known.names, known.values, names, parts)


def celeba_mask_folder(data_dir: str | pathlib.Path) -> pathlib.Path:
    """The folder that holds CelebAMask-HQ: `data_dir` itself or `data_dir/CelebAMask-HQ`.

    Raises:
      ContractError: naming the first file or folder that is missing.
    """
    root = pathlib.Path(data_dir).expanduser()
    folder = root if (root / ATTRIBUTES).is_file() or not (root / FOLDER).is_dir() else root / FOLDER
    for name in (ATTRIBUTES, PICTURES, MASKS):
        there = (folder / name).is_file() if name == ATTRIBUTES else (folder / name).is_dir()
        expect(there, "data_dir", f"{FOLDER}'s list, pictures and masks, also {name}", f"{folder} without it")
    return folder


def protocol_split(n: int) -> dict[str, Int[np.ndarray, " m"]]:
    """Rows of train, validation and test: 70, 15 and 15 % of one permutation by NumPy's old generator, seed 0.

    Source: Serianni et al. 2025 (official code); 21,000, 4,500 and 4,500 of 30,000 faces.

    >>> {name: len(rows) for name, rows in protocol_split(30_000).items()}
    {'train': 21000, 'validation': 4500, 'test': 4500}
    """
    expect(n >= 7, "n", "at least 7 pictures", n)
    order = np.random.RandomState(0).permutation(n)  # its bits never change, and the global generator is left alone
    train, validation = round(0.7 * n), round(0.15 * n)
    return {
        "train": order[:train],
        "validation": order[train : train + validation],
        "test": order[train + validation :],
    }


def read_annotations(folder: pathlib.Path) -> Annotations:
    """The attribute list: a count, the names, then a file name and -1 or 1 each per line.

    Raises:
      ContractError: naming the line of the first bad row.
    """
    names, rows, values = read_attributes(folder / ATTRIBUTES)
    numbers = np.empty(len(rows), np.int64)
    for i, (line, file) in enumerate(rows):
        stem, _, suffix = file.partition(".")
        expect(stem.isdigit() and suffix == "jpg", f"{ATTRIBUTES} line {line}", "a name like 0.jpg", repr(file))
        numbers[i] = int(stem)
    return Annotations(names, numbers, values)


def read_faces(
    folder: pathlib.Path,
    listed: Annotations,
    rows: Int[np.ndarray, " m"],
    *,
    image_size: int = 64,
    crop: float = CENTRE,
) -> Faces:
    """Pictures, attributes and masks of some rows of the list, in their order.

    Masks are those of `NNNNN_PART.png` in any folder under `CelebAMask-HQ-mask-anno`, not 0 where the part is. What no
    part covers is background, and a part without a file is not there.

    Raises:
      ContractError: a missing or unreadable file, or a face without a single part; it is named.
    """
    numbers = [int(number) for number in listed.number[rows]]
    x = read_pictures(
        [folder / PICTURES / f"{number}.jpg" for number in numbers],
        image_size,
        crop=crop,
        name=lambda i: f"{PICTURES}/{numbers[i]}.jpg",
    )
    drawn = {path.name: path for path in (folder / MASKS).glob("*/*.png")}
    mask = np.zeros(x.shape[:3], np.int32)

    def one(i: int) -> None:
        parts = [(f"{numbers[i]:05}_{part}.png", REGION_NAMES.index(name)) for part, name in PART_REGIONS.items()]
        parts = [(drawn[file], region) for file, region in parts if file in drawn]
        expect(len(parts) > 0, f"{MASKS}/*/{numbers[i]:05}_skin.png", "a mask of this or another part", "none")
        for path, region in parts:
            there = read_mask(path, image_size, crop=crop, above=0, name=f"{path.parent.name}/{path.name}")
            mask[i][there] = region

    in_threads(one, len(numbers))
    return Faces(x, listed.values[rows], mask)
