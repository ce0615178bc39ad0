"""Generated faces with an expression to recognise, and a group of faces that is rare in training."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jaxdebias.contracts import check_choice, check_dataset, expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._aligned import check_share
from jaxdebias.data._sets.face_drawing import EXPRESSIONS, Looks, Muscles, draw_faces, draw_looks, draw_muscles
from jaxdebias.data.streams import named_rng

GRAIN = 0.05
"""Standard deviation of the noise on every pixel."""

Images = Float[np.ndarray, "n h w c"]
Sides = tuple[Images, Images]  # the same faces as the usual and as the rare group would show them


def faces(
    *,
    variant: str = "inverted",
    classes: int = 4,
    conflicting: float = 0.05,
    train: int = 2000,
    edit: int = 400,
    accept: int = 400,
    test: int = 1000,
    image_size: int = 32,
    grey: bool = False,
    seed: int = 0,
) -> Dataset:
    """Which expression? Identities vary in skin, hair, beard, glasses, pose, place, size, light and background.

    In training the attribute takes its rarer value on the share `conflicting` of every class, exactly up to rounding,
    and on nothing else; labels and attributes are balanced in edit, accept and test, up to rounding. All faces are
    different ones. `twin` is the same face in the other value, and pairs of edit, accept and test have x in the
    common and twin in the rare value.

    Args:
      variant: what is rare. `inverted`: light and dark exchanged. `lighting`: dim light from one side. `rotated`:
        upside down. `glasses`: wears some, which nobody else does. `skin`: dark skin, where all others have light to
        medium skin. `cue`: inversion goes with the class, even classes are shown as they are and odd ones inverted;
        rare is the other way round.
      classes: the first 2 to 4 of happy, sad, surprised, angry.
      conflicting: share of the rare group, 0..1.
      train: number of images.
      edit: number of images.
      accept: number of images.
      test: number of images.
      image_size: height and width, 16 or more.
      grey: one channel instead of three.
      seed: equal seeds, equal bits.

    Raises:
      ContractError: an unknown variant, a number or share out of range.
    """
    check_choice("variant", variant, VARIANTS)
    expect(classes in range(2, len(EXPRESSIONS) + 1), "classes", f"2..{len(EXPRESSIONS)}", classes)
    check_share("conflicting", conflicting)
    sizes = {"train": train, "edit": edit, "accept": accept, "test": test}
    usual = np.arange(classes) % 2 if variant == "cue" else np.zeros(classes, int)  # attribute of each class
    aligned = usual[:, None] == np.arange(2)
    splits, pairs = {}, {}
    for name, n in sizes.items():
        least = classes if name == "train" else 2 * classes
        expect(n >= least, name, f"at least {least} images with classes={classes}", n)
        rng = named_rng(seed, f"faces {variant} {name}")
        order = rng.permutation(n)
        label = (order % classes).astype(np.int32)
        if name == "train":
            rare = rare_rows(rng, label, conflicting)
            attribute = np.where(rare, 1 - usual[label], usual[label]).astype(np.int32)
        else:
            attribute = (order // classes % 2).astype(np.int32)
        values = _both_values(rng, variant, label, image_size, grey)
        x, twin = (_of(values, which) for which in (attribute, 1 - attribute))
        splits[name] = Batch(x=x, label=label, attribute=attribute, twin=twin)
        if name != "train":
            goes_along = usual[label].astype(np.int32)
            pairs[name] = Batch(
                x=_of(values, goes_along), label=label, attribute=goes_along, twin=_of(values, 1 - goes_along)
            )
    dataset = Dataset(
        name="faces",
        variant={
            "variant": variant,
            "classes": classes,
            "conflicting": conflicting,
            "image_size": image_size,
            "grey": grey,
            **sizes,
        },
        splits=splits,
        pairs=pairs,
        label_names=EXPRESSIONS[:classes],
        attribute_names=VARIANTS[variant][0],
        aligned=aligned,
    )
    check_dataset(dataset)
    return dataset


def rare_rows(rng: np.random.Generator, label: Int[np.ndarray, " n"], share: float) -> Bool[np.ndarray, " n"]:
    """Which rows are rare: of every class round(share * its size) ones, drawn at random.

    >>> rare = rare_rows(np.random.default_rng(0), np.repeat([0, 1], [40, 20]), 0.1)
    >>> int(rare[:40].sum()), int(rare[40:].sum())
    (4, 2)
    """
    rare = np.zeros(len(label), bool)
    for y in np.unique(label):
        rows = rng.permutation(np.flatnonzero(label == y))
        rare[rows[: round(share * len(rows))]] = True
    return rare


def _both_values(
    rng: np.random.Generator, variant: str, label: np.ndarray, size: int, grey: bool
) -> tuple[UInt8[np.ndarray, "n h w c"], UInt8[np.ndarray, "n h w c"]]:
    """The faces at attribute 0 and at attribute 1; noise is the same on both."""
    n = len(label)
    looks = draw_looks(rng, n, glasses=0.0 if variant == "glasses" else 0.25)
    sides = VARIANTS[variant][1](looks, draw_muscles(rng, label), size)
    if grey:
        sides = tuple((side @ np.array([0.299, 0.587, 0.114], np.float32))[..., None] for side in sides)
    grain = GRAIN * rng.standard_normal(sides[0].shape, dtype=np.float32)
    first, second = ((255 * np.clip(side + grain, 0, 1)).round().astype(np.uint8) for side in sides)
    return first, second


def _of(values: tuple[np.ndarray, np.ndarray], attribute: np.ndarray) -> np.ndarray:
    return np.where(attribute[:, None, None, None] == 0, *values)


def _inverted(looks: Looks, muscles: Muscles, size: int) -> Sides:
    drawn = draw_faces(looks, muscles, size)
    return drawn, 1 - drawn


def _rotated(looks: Looks, muscles: Muscles, size: int) -> Sides:
    drawn = draw_faces(looks, muscles, size)
    return drawn, drawn[:, ::-1, ::-1]


def _lighting(looks: Looks, muscles: Muscles, size: int) -> Sides:
    dim = looks._replace(level=0.45 * looks.level, slope=looks.slope + 0.45)
    return draw_faces(looks, muscles, size), draw_faces(dim, muscles, size)


def _glasses(looks: Looks, muscles: Muscles, size: int) -> Sides:
    wearing = looks._replace(glasses=np.ones_like(looks.glasses))
    return draw_faces(looks, muscles, size), draw_faces(wearing, muscles, size)


def _skin(looks: Looks, muscles: Muscles, size: int) -> Sides:
    light, dark = (looks._replace(tone=start + span * looks.tone) for start, span in ((0.0, 0.55), (0.75, 0.25)))
    return draw_faces(light, muscles, size), draw_faces(dark, muscles, size)


VARIANTS: dict[str, tuple[tuple[str, str], Callable[[Looks, Muscles, int], Sides]]] = {
    "inverted": (("as it is", "inverted"), _inverted),
    "lighting": (("bright", "dim, from one side"), _lighting),
    "rotated": (("upright", "upside down"), _rotated),
    "glasses": (("without glasses", "with glasses"), _glasses),
    "skin": (("light to medium skin", "dark skin"), _skin),
    "cue": (("as it is", "inverted"), _inverted),
}
"""Names of the attribute's values, and how both are drawn."""
