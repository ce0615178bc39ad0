"""Real objects pasted on real scenes: motorbikes and other things, in a forest or at sea, with exact masks and twins.

A stand-in for Waterbirds that is small enough for a laptop. The place is by far the easier cue, and it fills most of
every picture: read region scores beside their chance level.
"""

import functools
import pathlib
import zipfile
import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jaxdebias.contracts import ContractError, check_dataset, expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._aligned import biased_attribute, check_share
from jaxdebias.data.decode import decode_all
from jaxdebias.data.streams import named_rng

CUTOUTS, SCENES = "cutouts.npz", "scenes.npz"
OBJECTS, PLACES = ("other object", "motorbike"), ("forest", "sea")
MOTORBIKE = 1
"""Its number among the cut-outs' superclasses; the others are animals and further objects."""
REGIONS = {"object": (1,), "background": (0,)}
"""Labels of the masks per region, for `measure.region_masks`."""
SIDES = (40, 44, 48)
"""Object sides in pixels, at `SIZE`; other sizes are in proportion."""
SCENE, SIZE = 72, 64
"""Scenes are resized to the first and cut to the second at random."""
TEST_SHARE = 0.3
"""Of the cut-outs and of the scenes; what is in a test picture is in no other split's."""


class Sources(NamedTuple):
    """The cut-outs at every side they are pasted at, and the scenes."""

    cutouts: tuple[tuple[UInt8[np.ndarray, "m s s 3"], Bool[np.ndarray, "m s s"]], ...]
    """(colours, mask) per side."""
    motorbike: Bool[np.ndarray, " m"]
    scenes: UInt8[np.ndarray, "q v v 3"]
    place: Int[np.ndarray, " q"]
    """Index into `PLACES`."""


class Portions(NamedTuple):
    """The cut-outs and scenes of one split, by label and by place."""

    cutouts: tuple[np.ndarray, np.ndarray]
    scenes: tuple[np.ndarray, np.ndarray]


def composites(
    data_dir: str | pathlib.Path,
    *,
    conflicting: float = 0.05,
    train: int = 3000,
    edit: int = 400,
    accept: int = 400,
    test: int = 800,
    selection_share: float = 0.08,
    image_size: int = SIZE,
    seed: int = 0,
) -> Dataset:
    """Motorbike or not? In a forest or at sea, which in training goes with it.

    Every picture is a scene, cut and mirrored at random, with a cut-out, mirrored at random, somewhere on it; `mask` 1
    is the object, exact by construction. The twin is the same object in the same place on a scene of the other kind.
    Aligned cells: motorbikes at sea, other objects in a forest.

    Splits share neither cut-outs nor scenes. Of both, by seed and per kind, 30 % are test's; of the rest the share
    `selection_share` is divided equally among edit and accept, for choosing and repairing models, and what is left is
    train's. Train has as many motorbikes as other objects and per label the share `conflicting` in the other place;
    edit, accept and test have equally many of all four cells. Pairs of edit, accept and test: x in the aligned place,
    twin in the other one.
    A split has far more pictures than cut-outs, so `unit` is the cut-out's number: intervals resample cut-outs.

    Args:
      data_dir: a folder with `cutouts.npz` (`rgb` `[m h w 3]`, `mask` `[m h w]`, `superclass` `[m]`, of which 1 is the
        motorbike) and `scenes.npz` (JPEG files back to back in `jpeg`, cut at `offset`; `place`, 0 forest and 1 sea),
        or its parent if it is called `objects_on_scenes`.
      conflicting: share of training pictures in the other place, per label; the bias level is 1 minus it.
      train: numbers of pictures; those of edit, accept and test are multiples of 4.
      edit: as `train`.
      accept: as `train`.
      test: as `train`.
      selection_share: see above. Small by default, because its cut-outs and scenes are missing in training, but no
        smaller: edit and accept get 5 motorbikes each, and their intervals are over cut-outs. Without use for the two,
        0.02 leaves most to training.
      image_size: height and width of the pictures, at least 16.
      seed: equal seeds, equal bits for one version of Pillow.

    Raises:
      ContractError: missing or damaged files (named), a size or share out of range, too few cut-outs or scenes.
    """
    check_share("conflicting", conflicting)
    expect(image_size >= 16, "image_size", "at least 16", image_size)
    expect(0 < selection_share < 1, "selection_share", "a share above 0 and below 1", selection_share)
    sizes = {"train": train, "edit": edit, "accept": accept, "test": test}
    for name, n in sizes.items():
        least = 2 if name == "train" else 4
        expect(n >= least and n % least == 0, name, f"a multiple of {least} of at least {least}", n)
    folder = composites_folder(data_dir)
    sources = read_sources(folder, image_size)
    portions = _portions(sources, seed, selection_share)

    splits, pairs = {}, {}
    for name, n in sizes.items():
        rng = named_rng(seed, f"composites {name}")
        label = rng.permutation(np.arange(n, dtype=np.int32) % 2)
        if name == "train":
            attribute = biased_attribute(rng, label, conflicting, 2)
        else:
            attribute = np.empty(n, np.int32)
            for y in (0, 1):
                attribute[label == y] = np.arange(n // 2) % 2
        aligned, other, mask, cutout = _paste(rng, sources, portions[name], label, image_size)
        along = (attribute == label)[:, None, None, None]
        splits[name] = Batch(
            x=np.where(along, aligned, other),
            label=label,
            attribute=attribute,
            mask=mask,
            twin=np.where(along, other, aligned),
            unit=cutout,
        )
        if name != "train":
            pairs[name] = Batch(x=aligned, label=label, attribute=label, mask=mask, twin=other, unit=cutout)
    dataset = Dataset(
        name="composites",
        variant={"conflicting": conflicting, "image_size": image_size, "selection_share": selection_share, **sizes},
        splits=splits,
        pairs=pairs,
        label_names=OBJECTS,
        attribute_names=PLACES,
        aligned=np.eye(2, dtype=bool),
        regions=REGIONS,
        attribute_region="background",
    )
    check_dataset(dataset)
    return dataset


def composites_folder(data_dir: str | pathlib.Path) -> pathlib.Path:
    """The folder that holds cut-outs and scenes: `data_dir` itself or `data_dir/objects_on_scenes`.

    Raises:
      ContractError: naming the file that is missing.
    """
    root = pathlib.Path(data_dir).expanduser()
    below = root / "objects_on_scenes"
    folder = root if (root / CUTOUTS).is_file() or not below.is_dir() else below
    for name in (CUTOUTS, SCENES):
        expect((folder / name).is_file(), "data_dir", f"{CUTOUTS} and {SCENES}, also {name}", f"{folder} without it")
    return folder


def read_sources(folder: pathlib.Path, image_size: int = SIZE) -> Sources:
    """Cut-outs and scenes of `folder`, resized. The last result is kept in memory, nothing is written to disk."""
    stamps = tuple((folder / name).stat()[6:9] for name in (CUTOUTS, SCENES))
    return _sources(folder, image_size, stamps)


@functools.lru_cache(maxsize=1)
def _sources(folder: pathlib.Path, image_size: int, stamps: tuple) -> Sources:
    del stamps  # only tells changed files from those that were read
    cut = _stored(folder / CUTOUTS, ("rgb", "mask", "superclass"))
    packed = _stored(folder / SCENES, ("jpeg", "offset", "place"))
    count, place = len(cut["rgb"]), packed["place"].astype(np.int64)
    whole = cut["mask"].shape == cut["rgb"].shape[:3] and cut["superclass"].shape == (count,)
    expect(
        whole,
        CUTOUTS,
        "rgb [m h w 3], mask [m h w] and superclass [m]",
        ", ".join(f"{name} {list(array.shape)}" for name, array in cut.items()),
    )
    expect(
        bool(np.isin(place, (0, 1)).all()) and len(packed["offset"]) == len(place) + 1,
        SCENES,
        "one place, 0 or 1, for each picture",
        f"{len(place)} places, {len(packed['offset']) - 1} pictures",
    )
    jpeg, offset = packed["jpeg"], packed["offset"]
    scenes = decode_all(
        len(place),
        round(SCENE / SIZE * image_size),
        lambda i: jpeg[offset[i] : offset[i + 1]].tobytes(),
        lambda i: f"{SCENES} picture {i}",
    )
    sides = [round(side / SIZE * image_size) for side in SIDES]
    sources = Sources(
        tuple(_resized(cut["rgb"], cut["mask"], side) for side in sides), cut["superclass"] == MOTORBIKE, scenes, place
    )
    for array in (scenes, *(array for pair in sources.cutouts for array in pair)):
        array.flags.writeable = False  # shared by all who ask
    return sources


def _resized(rgb: np.ndarray, mask: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut-outs of a side: colours of the object alone, and where it covers at least half of a pixel."""
    from PIL import Image

    colours, masks = np.empty((len(rgb), side, side, 3), np.uint8), np.empty((len(rgb), side, side), bool)
    for i, (of_one, there) in enumerate(zip(rgb, mask, strict=True)):
        # With an alpha channel Pillow weighs colours by it, so that the black outside does not darken the outline.
        full = Image.fromarray(np.concatenate([of_one, (there[..., None] > 0) * np.uint8(255)], axis=2), "RGBA")
        small = np.asarray(full.resize((side, side), Image.Resampling.BILINEAR))
        colours[i], masks[i] = small[..., :3], small[..., 3] > 127
    return colours, masks


def _stored(path: pathlib.Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as stored:
            return {name: stored[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ContractError(f"`{path}`: expected arrays {', '.join(names)}, got {error}") from error


def _portions(sources: Sources, seed: int, selection_share: float) -> dict[str, Portions]:
    """The cut-outs and scenes of each split, disjoint."""
    rng = named_rng(seed, "composites split")
    kinds = [
        np.flatnonzero(kind) for kind in (~sources.motorbike, sources.motorbike, sources.place == 0, sources.place == 1)
    ]
    cut = [_cut(rng.permutation(rows), selection_share) for rows in kinds]
    for name, parts in zip((*OBJECTS, *PLACES), cut, strict=True):
        expect(
            all(len(part) for part in parts.values()),
            "data_dir",
            f"enough pictures of {name} for four splits",
            sum(map(len, parts.values())),
        )
    return {name: Portions((cut[0][name], cut[1][name]), (cut[2][name], cut[3][name])) for name in cut[0]}


def _cut(rows: np.ndarray, selection_share: float) -> dict[str, np.ndarray]:
    test = round(TEST_SHARE * len(rows))
    rest = rows[test:]
    edit, accept = round(selection_share * len(rest) / 2), round(selection_share * len(rest))
    return {"train": rest[accept:], "edit": rest[:edit], "accept": rest[edit:accept], "test": rows[:test]}


def _paste(
    rng: np.random.Generator, sources: Sources, portions: Portions, label: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(pictures in the aligned place, in the other one, masks, cut-outs), the same objects in all."""
    n = len(label)
    cutout = np.empty(n, np.int32)
    for y in (0, 1):
        cutout[label == y] = _evenly(rng, portions.cutouts[y], int((label == y).sum()))
    aligned, other = (_grounds(rng, sources, portions, place, size) for place in (label, 1 - label))
    side, mirrored, spot = rng.integers(0, len(SIDES), n), rng.random(n) < 0.5, rng.random((n, 2))
    mask = np.zeros((n, size, size), np.int32)
    for i in range(n):
        colours, there = (array[cutout[i]] for array in sources.cutouts[side[i]])
        if mirrored[i]:
            colours, there = colours[:, ::-1], there[:, ::-1]
        room = size - len(there) + 1
        top, left = (spot[i] * room).astype(int)
        window = (i, slice(top, top + len(there)), slice(left, left + len(there)))
        for picture in (aligned, other):
            picture[window][there] = colours[there]
        mask[window] = there
    return aligned, other, mask, cutout


def _grounds(
    rng: np.random.Generator, sources: Sources, portions: Portions, place: np.ndarray, size: int
) -> UInt8[np.ndarray, "n h w 3"]:
    """A scene of each place, cut to size and mirrored at random."""
    n = len(place)
    scene = np.empty(n, np.int64)
    for a in (0, 1):
        scene[place == a] = _evenly(rng, portions.scenes[a], int((place == a).sum()))
    corner, mirrored = rng.integers(0, sources.scenes.shape[1] - size + 1, (n, 2)), rng.random(n) < 0.5
    pictures = np.empty((n, size, size, 3), np.uint8)
    for i in range(n):
        top, left = corner[i]
        cut = sources.scenes[scene[i], top : top + size, left : left + size]
        pictures[i] = cut[:, ::-1] if mirrored[i] else cut
    return pictures


def _evenly(rng: np.random.Generator, rows: np.ndarray, n: int) -> np.ndarray:
    """n of the rows in random order, each as often as any other, up to once."""
    rounds = [rng.permutation(rows) for _ in range(-(-n // len(rows)))]
    return rng.permutation(np.concatenate([rows[:0], *rounds])[:n])
