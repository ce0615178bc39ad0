"""UTKFace with a planted marker: gender from a face, where a striped patch in a corner gives it away in training.

The bias has a place, it is known exactly, and every face has a twin with the marker put in or taken out: the case in
which hiding pixels (`mitigate.patch_noise`) ought to work.
"""

import pathlib

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jaxdebias.contracts import check_choice, check_dataset, expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._aligned import biased_attribute, check_share
from jaxdebias.data._sets.utkface import GENDERS, read_faces, read_images, utkface_folder
from jaxdebias.data.streams import named_rng

MARKER, NEAREST, FARTHEST, SIZE = 10, 2, 6, 64
"""Side of the marker and its smallest and largest distance from the image's edges, in pixels of an image of `SIZE`."""
CORNERS = ("top left", "top right", "bottom left", "bottom right")
RED, YELLOW = (220, 30, 30), (240, 220, 40)
STRIPE = 2
"""Width of a stripe in pixels, counted along a row."""
GRAIN = 20.0
"""Standard deviation of the marker's noise, of 255."""
MARKS = ("no marker", "marker")


def utkface_planted(
    data_dir: str | pathlib.Path,
    *,
    conflicting: float = 0.05,
    marked: str = "biased",
    corner: str = "top left",
    min_age: int = 10,
    edit: int = 200,
    accept: int = 200,
    test: int = 700,
    image_size: int = SIZE,
    seed: int = 0,
) -> Dataset:
    """Male or female? With a marker in a corner of the picture that goes with being female.

    The marker is a square of red and yellow diagonal stripes with noise, at a random distance from the corner. Aligned
    cells: women with it, men without. Every picture has its own marker, shown or not: `mask` is 1 where it is or would
    be, and the twin is the same face with the marker taken out or put in; the two differ nowhere else.

    Splits, of different faces drawn by seed, both genders alike:
      train: all faces that are left; per gender the share `conflicting` in the conflicting cell.
      edit, accept: each face once, half of each gender with the marker.
      test: each face twice, with and without the marker; `unit` tells the faces apart.
    Pairs of edit, accept and test: x in the aligned cell, twin in the conflicting one.

    Args:
      data_dir: as for `utkface`.
      conflicting: share of training faces, per gender, of men with the marker and of women without.
      marked: `biased`; or `never`: no training face has the marker, the other splits stay as they are. What a model
        reaches then is the ceiling for any method.
      corner: `top left`, `top right`, `bottom left` or `bottom right`.
      min_age: younger faces are left out.
      edit: numbers of faces, edit and accept multiples of 4, test of 2.
      accept: as `edit`.
      test: as `edit`.
      image_size: height and width of the pictures, at least 16; the marker is in proportion.
      seed: equal seeds, equal bits.

    Raises:
      ContractError: missing or damaged files (named), a size or share out of range, too few faces.

    Source: Zhang, Song and Qi 2017 (faces and annotations); the marker is ours.
    """
    check_share("conflicting", conflicting)
    check_choice("marked", marked, ("biased", "never"))
    check_choice("corner", corner, CORNERS)
    expect(image_size >= 16, "image_size", "at least 16", image_size)
    sizes = {"edit": edit, "accept": accept, "test": test}
    for name, n in sizes.items():
        least = 2 if name == "test" else 4
        expect(n >= least and n % least == 0, name, f"a multiple of {least} of at least {least}", n)
    folder = utkface_folder(data_dir)
    faces = read_faces(folder)
    rng = named_rng(seed, "planted split")
    of_gender = [rng.permutation(np.flatnonzero((faces.age >= min_age) & (faces.gender == y))) for y in (0, 1)]
    each = min(map(len, of_gender))
    held = sum(sizes.values()) // 2
    expect(held < each, "edit + accept + test", f"fewer than {2 * each} faces", 2 * held)
    parts, start = {}, 0
    for name, n in {**sizes, "train": 2 * (each - held)}.items():
        parts[name] = np.sort(np.concatenate([rows[start : start + n // 2] for rows in of_gender]))
        start += n // 2

    images, label = read_images(folder, image_size), faces.gender.astype(np.int32)
    splits, pairs = {}, {}
    for name in ("train", "edit", "accept", "test"):
        rows, rng = parts[name], named_rng(seed, f"planted {name}")
        plain, marked_x, mask = plant(rng, images[rows], corner)
        of_face = label[rows]
        if name == "train":
            value = biased_attribute(rng, of_face, conflicting, 2)
            splits[name] = _shown(plain, marked_x, mask, of_face, value if marked == "biased" else np.zeros_like(value))
            continue
        if name == "test":
            one, other = (_shown(plain, marked_x, mask, of_face, np.full_like(of_face, a)) for a in (0, 1))
            both = {
                field: np.concatenate([getattr(one, field), getattr(other, field)])
                for field in ("x", "label", "attribute", "mask", "twin")
            }
            splits[name] = Batch(**both, unit=np.tile(np.arange(len(rows), dtype=np.int32), 2))
        else:
            value = np.empty(len(rows), np.int32)
            for y in (0, 1):
                value[of_face == y] = rng.permutation(np.arange(len(rows) // 2) % 2)
            splits[name] = _shown(plain, marked_x, mask, of_face, value)
        pairs[name] = _shown(plain, marked_x, mask, of_face, of_face)
    dataset = Dataset(
        name="utkface-planted",
        variant={
            "conflicting": conflicting,
            "marked": marked,
            "corner": corner,
            "min_age": min_age,
            "image_size": image_size,
            **{name: len(parts[name]) for name in splits},
        },
        splits=splits,
        pairs=pairs,
        label_names=GENDERS,
        attribute_names=MARKS,
        aligned=np.eye(2, dtype=bool),
        regions={"marker": (1,)},
        attribute_region="marker",
    )
    check_dataset(dataset)
    return dataset


def plant(
    rng: np.random.Generator, images: UInt8[np.ndarray, "n h w 3"], corner: str = "top left"
) -> tuple[UInt8[np.ndarray, "n h w 3"], UInt8[np.ndarray, "n h w 3"], Int[np.ndarray, "n h w"]]:
    """(the images as they are, with a marker each, where it is), for square images."""
    n, size = images.shape[:2]
    side, nearest, farthest = (max(1, round(length / SIZE * size)) for length in (MARKER, NEAREST, FARTHEST))
    offset = rng.integers(nearest, farthest + 1, (n, 2))
    low, right = corner.startswith("bottom"), corner.endswith("right")
    stripes = _stripes(rng, n, side)
    marked, mask = images.copy(), np.zeros(images.shape[:3], np.int32)
    for i, (down, along) in enumerate(offset):
        top = size - side - down if low else down
        left = size - side - along if right else along
        window = (i, slice(top, top + side), slice(left, left + side))
        marked[window] = stripes[i]
        mask[window] = 1
    return images, marked, mask


def marker_box(mask: Int[np.ndarray, "n h w"]) -> Bool[np.ndarray, "h w"]:
    """The smallest box that holds every marker: what a map of the data set ought to find."""
    rows, columns = (np.flatnonzero((mask == 1).any(axis=axes)) for axes in ((0, 2), (0, 1)))
    box = np.zeros(mask.shape[1:], bool)
    box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return box


def _stripes(rng: np.random.Generator, n: int, side: int) -> UInt8[np.ndarray, "n s s 3"]:
    """Diagonal stripes, red and yellow in turn, each marker with noise of its own."""
    place = np.arange(side)
    red = ((place[:, None] + place) // STRIPE) % 2 == 0
    colour: Float[np.ndarray, "s s 3"] = np.where(red[..., None], np.float32(RED), np.float32(YELLOW))
    noisy = colour + GRAIN * rng.standard_normal((n, side, side, 3), dtype=np.float32)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def _shown(plain: np.ndarray, marked: np.ndarray, mask: np.ndarray, label: np.ndarray, value: np.ndarray) -> Batch:
    with_it = (value == 1)[:, None, None, None]
    return Batch(
        x=np.where(with_it, marked, plain),
        label=label,
        attribute=value.astype(np.int32),
        mask=mask,
        twin=np.where(with_it, plain, marked),
    )
