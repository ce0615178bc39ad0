"""Coloured digits: 1,797 real handwritten digits that come with the package, coloured by class."""

import importlib.resources

import numpy as np
from jaxtyping import Int, UInt8

from jaxdebias.contracts import check_dataset
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._aligned import biased_attribute
from jaxdebias.data._colour import COLOUR_NAMES, SEVERITY_4, coloured_pairs, every_colour, one_colour
from jaxdebias.data.streams import named_rng

TRAIN, EDIT, ACCEPT = 1000, 300, 150  # the remaining 347 are the test digits


def digits(*, conflicting: float = 0.02, seed: int = 0) -> Dataset:
    """Ten digits, ten colours, 16x16; in training the colour gives the digit away.

    Splits, of disjoint digits drawn by seed:
      train: 1,000 digits, each once; per class the share `conflicting` in a random other colour.
      edit, accept: 300 and 150 digits, each once in a uniformly random colour.
      edit_every_colour: the 300 edit digits in all ten colours (3,000 rows), for baselines trained on held-out
      digits.
      test: the 347 remaining digits in all ten colours (3,470 rows); `unit` tells the digits apart.
    Pairs of edit, accept and test: every digit in its class's colour and in one random other colour.

    Args:
      conflicting: share of training digits whose colour is another class's, 0..1.
      seed: fixes splits, colours and colour noise: equal seeds, equal bits.

    Raises:
      ContractError: a share outside 0..1, a negative seed.
    """
    gray, label = gray_digits()
    order = named_rng(seed, "digits split").permutation(len(gray))
    train, edit, accept, test = np.split(order, np.cumsum([TRAIN, EDIT, ACCEPT]))

    def uniform(name: str, rows: np.ndarray) -> Batch:
        rng = named_rng(seed, f"digits {name}")
        return one_colour(rng, gray[rows], label[rows], rng.integers(0, 10, len(rows)).astype(np.int32))

    rng_train = named_rng(seed, "digits train")
    bias = biased_attribute(rng_train, label[train], conflicting, 10)
    dataset = Dataset(
        name="digits",
        variant={
            "conflicting": conflicting,
            "sigma": SEVERITY_4,
            "image_size": 16,
            "train": TRAIN,
            "edit": EDIT,
            "accept": ACCEPT,
            "test": len(test),
        },
        splits={
            "train": one_colour(rng_train, gray[train], label[train], bias),
            "edit": uniform("edit", edit),
            "accept": uniform("accept", accept),
            "test": every_colour(named_rng(seed, "digits test"), gray[test], label[test]),
            "edit_every_colour": every_colour(named_rng(seed, "digits edit every colour"), gray[edit], label[edit]),
        },
        pairs={
            name: coloured_pairs(named_rng(seed, f"digits pairs {name}"), gray[rows], label[rows])
            for name, rows in (("edit", edit), ("accept", accept), ("test", test))
        },
        label_names=tuple("0123456789"),
        attribute_names=COLOUR_NAMES,
        aligned=np.eye(10, dtype=bool),
    )
    check_dataset(dataset)
    return dataset


def gray_digits() -> tuple[UInt8[np.ndarray, "n 16 16"], Int[np.ndarray, "n"]]:
    """All 1,797 digits, 0..255, upsampled from 8x8 to 16x16, and their labels.

    Source: UCI Machine Learning Repository, CC BY 4.0; `digits.txt` beside this file has authors, origin and terms.
    """
    file = importlib.resources.files("jaxdebias.data._sets") / "digits.npz"
    with file.open("rb") as opened, np.load(opened) as arrays:
        image, label = arrays["image"].astype(np.float64), arrays["label"].astype(np.int32)
    fine = _double(_double(image, axis=1), axis=2)
    return np.round(fine * (255.0 / 16.0)).astype(np.uint8), label


def _double(image: np.ndarray, axis: int) -> np.ndarray:
    """Bilinear interpolation to twice the size along one axis: new centres lie a quarter beside the old."""
    image = np.moveaxis(image, axis, 0)
    before = np.concatenate([image[:1], image[:-1]])
    after = np.concatenate([image[1:], image[-1:]])
    fine = np.stack([0.75 * image + 0.25 * before, 0.75 * image + 0.25 * after], axis=1)
    return np.moveaxis(fine.reshape(-1, *image.shape[1:]), 0, axis)
