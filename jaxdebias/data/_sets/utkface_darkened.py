"""UTKFace with an artificial cue: gender from a face, where a darkened picture gives it away in training."""

import pathlib

import numpy as np

from jaxdebias.contracts import check_dataset, expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._aligned import check_share
from jaxdebias.data._sets.faces import rare_rows
from jaxdebias.data._sets.utkface import GENDERS, read_faces, read_images, utkface_folder
from jaxdebias.data.streams import named_rng


def utkface_darkened(
    data_dir: str | pathlib.Path,
    *,
    conflicting: float = 0.05,
    brightness: float = 0.5,
    min_age: int = 13,
    train: int | None = None,
    edit: int = 200,
    accept: int = 200,
    test: int = 660,
    image_size: int = 48,
    grey: bool = False,
    seed: int = 0,
) -> Dataset:
    """Male or female? In training almost all women are shown darker, and almost no men.

    Real faces with a visible factor that is rare within a class: of the training faces of each gender the share
    `conflicting` has the other one's brightness, exactly up to rounding. In edit, accept and test there are as many
    women as men, half of each darkened. Splits are drawn by seed, nobody's picture is in two. `twin` is the same
    picture in the other brightness, and pairs of edit, accept and test have x in the aligned one.

    Args:
      data_dir: as in `utkface`.
      conflicting: share of training faces of each gender in the other one's brightness, 0..1.
      brightness: what the pixels of a darkened picture are multiplied by, above 0 and below 1.
      min_age: faces of younger people are left out; children's gender hardly shows at this size.
      train: keep at most so many training faces, drawn at random; None: all that the other splits leave.
      edit: sizes of these splits, multiples of 4.
      accept: sizes of these splits, multiples of 4.
      test: sizes of these splits, multiples of 4.
      image_size: height and width of the pictures.
      grey: one channel instead of three.
      seed: fixes the division and who is darkened.

    Raises:
      ContractError: missing or damaged files (named), a number out of range, sizes beyond what there is.

    Source: Zhang, Song and Qi 2017 (faces and annotations); the cue and the division are ours.
    """
    check_share("conflicting", conflicting)
    expect(0 < brightness < 1, "brightness", "a factor above 0 and below 1", brightness)
    expect(train is None or train >= 2, "train", "at least 2, or None for all", train)
    sizes = {"edit": edit, "accept": accept, "test": test}
    for name, size in sizes.items():
        expect(size >= 4 and size % 4 == 0, name, "a multiple of 4 of at least 4", size)
    folder = utkface_folder(data_dir)
    faces = read_faces(folder)
    rng = named_rng(seed, "darkened_utkface split")
    of_gender = [rng.permutation(np.flatnonzero((faces.age >= min_age) & (faces.gender == y))) for y in (0, 1)]
    least = min(len(rows) for rows in of_gender)
    expect(
        sum(sizes.values()) // 2 < least,
        "edit + accept + test",
        f"fewer than {2 * least} faces, twice the scarcer gender's",
        sum(sizes.values()),
    )

    images = read_images(folder, image_size)
    splits, start = {}, 0
    for name, size in sizes.items():
        rows = np.concatenate([of[start : start + size // 2] for of in of_gender])
        start += size // 2
        dark = np.tile(np.arange(size // 2) % 2, 2)
        splits[name] = _shown(images, faces.gender, rows, dark, brightness, grey)
    rest = rng.permutation(np.concatenate([of[start:] for of in of_gender]))[:train]
    gender = faces.gender[rest]
    dark = np.where(rare_rows(rng, gender, conflicting), 1 - gender, gender)
    splits = {"train": _shown(images, faces.gender, rest, dark, brightness, grey), **splits}
    pairs = {}
    for name in sizes:
        split = splits[name]
        swap = (split.attribute != split.label)[:, None, None, None]
        pairs[name] = split._replace(
            x=np.where(swap, split.twin, split.x), attribute=split.label, twin=np.where(swap, split.x, split.twin)
        )
    dataset = Dataset(
        name="utkface-darkened",
        variant={
            "conflicting": conflicting,
            "brightness": brightness,
            "min_age": min_age,
            "image_size": image_size,
            "grey": grey,
            **{name: len(batch.label) for name, batch in splits.items()},
        },
        splits=splits,
        pairs=pairs,
        label_names=GENDERS,
        attribute_names=("as it is", "darkened"),
        aligned=np.eye(2, dtype=bool),
    )
    check_dataset(dataset)
    return dataset


def _shown(
    images: np.ndarray, gender: np.ndarray, rows: np.ndarray, dark: np.ndarray, brightness: float, grey: bool
) -> Batch:
    """These rows in ascending order, darkened where `dark` is 1; twins the other way round."""
    order = np.argsort(rows)
    rows, dark = rows[order], dark[order]
    light = images[rows]
    if grey:
        light = (light @ np.array([0.299, 0.587, 0.114], np.float32)).round().astype(np.uint8)[..., None]
    dim = (light * np.float32(brightness)).round().astype(np.uint8)
    is_dark = dark[:, None, None, None] == 1
    return Batch(
        x=np.where(is_dark, dim, light),
        label=gender[rows].astype(np.int32),
        attribute=dark.astype(np.int32),
        twin=np.where(is_dark, light, dim),
    )
