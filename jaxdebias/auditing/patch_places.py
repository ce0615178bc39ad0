"""Where the data show the bias attribute, and where the label: patch maps of both on held-out images.

    places = audit_patches(key, dataset)
    places.attribute.spread, places.attribute.held, places.overlap

A patch network (`explain.fit_patches`) is trained for the attribute, another for the label. Their maps are `pointwise`
over held-out images. In training and in maps every (label, attribute) group counts alike: a patch that shows the label
then says nothing about the attribute, and the other way round. From the biased images as they are, a network for the
attribute would learn to read the label, too, and mislead. The test split is never used.

Such a map is about the data. It says where the attribute can be read, not whether a model reads it there.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array, Batch, Dataset, Key, group_of, take
from jaxdebias.explain._fit_patches import PatchFitConfig, fit_patches
from jaxdebias.explain._patch_calibration import fit_temperature
from jaxdebias.explain._patch_maps import localise
from jaxdebias.measure._intervals import Interval
from jaxdebias.measure._mean_intervals import mean_interval
from jaxdebias.mitigate._patch_noise.masks import budget_mask, mask_iou, quantile_mask
from jaxdebias.models._patch_net import patch_net

TOP = 0.3
"""Share of the pixels that is called top, the part that the paper hides."""
SPREAD_AREA = 0.5
"""What takes more than this share of the pixels to hold 90 % of its information is called spread out: a colour of
strokes in the middle of the picture, which the rule of `explain.patch_maps` alone would give a place."""
LEAST_PATCH = 6
"""Pixels; smaller patches leave nothing of the network's windows."""
LEAST_ROWS = 20
"""A value of the attribute, or a label, with fewer training images than this is left out."""
LARGEST = 96
"""Images with more pixels a side are halved until they have not."""


@dataclass(frozen=True, kw_only=True)
class PlacesConfig:
    """How the places are looked for. The defaults are for one core and pictures of 32 to 64 pixels a side."""

    patch: int | None = None
    """Side of a patch in pixels. None: a quarter of the image's shorter side, at least `LEAST_PATCH`."""
    stride: int | None = None
    """None: a quarter of the patch."""
    steps: int = 1000
    batch_size: int = 64
    train: int = 3000
    """At most so many draws of training images, every group alike: images of small groups are drawn several times."""
    held_out: int = 1000
    """At most so many held-out images."""
    examples: int = 24
    """About how many single images to pick."""

    def __post_init__(self):
        for name in ("patch", "stride", "steps", "batch_size", "train", "held_out"):
            value = getattr(self, name)
            expect(value is None or value >= 1, f"config.{name}", "at least 1", value)
        expect(self.examples >= 0, "config.examples", "at least 0", self.examples)


class Place(NamedTuple):
    """Where the data show one thing, the attribute or the label."""

    map: Float[np.ndarray, "h w"]
    """What the patches over a pixel say on average, in nats; below 0 where they mislead."""
    information: Interval
    """What a patch in the top region says on average, of all there is to know (1). The region of one half of the
    images is judged on the other half, so that a map of chance gives 0."""
    held: float
    """Of the information in the map, the share that its top `TOP` pixels hold; `TOP` for a flat map."""
    spread: bool
    """They hold less than half of it, or 90 % of it lies in more than `SPREAD_AREA` of the pixels: hiding them leaves
    it readable."""
    area: float
    """Of the pixels, the share that holds 90 % of the information."""
    classes: int
    """Values that were told apart."""

    @property
    def found(self) -> bool:
        """Whether patches say anything, beyond the error."""
        return bool(self.information.low > 0)


class Places(NamedTuple):
    """Where the data show the attribute and the label, and single images."""

    split: str
    """Whose images the maps are of."""
    rows: int
    """Images of the maps."""
    train_rows: int
    """Different images that the networks were trained and calibrated on."""
    patch: int
    """Side in pixels of the images as they are."""
    stride: int
    missing: int
    """Groups without an image, in training or held out: where there are such, the map of the attribute may show the
    label, too."""
    attribute: Place
    label: Place
    overlap: float
    """IoU of the top pixels of both maps; 1 is the same place."""
    chance: float
    """What it is for masks of these sizes that have nothing to do with each other."""
    examples: Int[np.ndarray, "m"]
    """Rows of the split, group by group."""
    attribute_maps: Float[np.ndarray, "m h w"]
    """Of the examples, in 0..1: what is said for the image's own value, in parts of the most in any of them."""
    label_maps: Float[np.ndarray, "m h w"]


def audit_patches(key: Key, dataset: Dataset, config: PlacesConfig = PlacesConfig()) -> Places:
    """Maps where the held-out images show the attribute and the label.

    Uses the splits `train` and `edit`; without `edit` it uses `accept`, and without both a fifth of `train`.

    Raises:
      ContractError: a table, images of less than 12 pixels a side, or an attribute or label of one value.
    """
    check_pictures(dataset)
    key_held, key_train, key_maps, key_attribute, key_label = jax.random.split(key, 5)
    key_interval = jax.random.fold_in(key, 5)
    train, split, held, kept = _parts(key_held, dataset)
    size = held.x.shape[1:3]
    factor = 1
    while min(size) // factor > LARGEST:
        factor *= 2
    side = min(length // factor for length in size)
    patch = max(LEAST_PATCH, side // 4) if config.patch is None else max(1, config.patch // factor)
    stride = max(1, patch // 4) if config.stride is None else max(1, config.stride // factor)

    attribute = _Codes.of(train.attribute)
    label = _Codes.of(np.where(attribute(train.attribute) >= 0, train.label, -1))
    rows, checks = balanced_rows(key_train, attribute(train.attribute), label(train.label), config.train)
    known = (attribute(held.attribute) >= 0) & (label(held.label) >= 0)
    expect(bool(known.any()), "patches", "held-out images with a known attribute", "none")
    chosen = _some(key_maps, known, config.held_out)
    held, kept = take(held, chosen), kept[chosen]
    weight, missing = balancing(attribute(held.attribute), label(held.label))
    missing = max(missing, balancing(attribute(train.attribute)[rows], label(train.label)[rows])[1])
    unit = np.arange(len(kept)) if held.unit is None else np.unique(held.unit, return_inverse=True)[1]
    x, x_checks, x_held = (_halved(np.asarray(images), factor) for images in (train.x[rows], train.x[checks], held.x))

    places = []
    for key_fit, codes, own, truth in (
        (key_attribute, attribute, train.attribute, held.attribute),
        (key_label, label, train.label, held.label),
    ):
        net = patch_net(patch=patch, classes=codes.count, channels=x.shape[3])
        fit = fit_patches(
            key_fit,
            net,
            x,
            codes(own)[rows],
            PatchFitConfig(stride=stride, steps=config.steps, batch_size=config.batch_size),
        )
        # Its own temperature was chosen on images of which copies were trained on.
        again = fit_temperature(fit.logits(x_checks), codes(own)[checks])
        fit = fit._replace(temperature=fit.temperature * again)
        maps = fit.image_maps(x_held, codes(truth), confidence="pointwise", edge="flush")
        most = _most(fit.prior, codes(truth), weight)
        places.append((place(key_interval, maps, weight, unit, most=most, classes=codes.count), maps))
    (of_attribute, attribute_maps), (of_label, label_maps) = places

    tops = [_top(place.map) for place in (of_attribute, of_label)]
    a, b = (float(top.mean()) for top in tops)
    group = np.asarray(group_of(np.asarray(held.label), np.asarray(held.attribute), dataset.aligned.shape[1]))
    shown = one_per_group(group, config.examples)
    return Places(
        split=split,
        rows=len(kept),
        train_rows=len(np.union1d(rows, checks)),
        patch=patch * factor,
        stride=stride * factor,
        missing=missing,
        attribute=of_attribute._replace(map=_enlarged(of_attribute.map, factor, size)),
        label=of_label._replace(map=_enlarged(of_label.map, factor, size)),
        overlap=mask_iou(*tops),
        chance=a * b / (a + b - a * b),
        examples=kept[shown],
        attribute_maps=_enlarged(_scaled(attribute_maps[shown]), factor, size),
        label_maps=_enlarged(_scaled(label_maps[shown]), factor, size),
    )


def _top(general: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The pixels that tell most; all of a flat map, which tell alike."""
    top = quantile_mask(general, 1 - TOP)
    return top if top.any() else np.ones_like(top)


def check_pictures(dataset: Dataset) -> None:
    """Refuses, in one line, data that have no patches."""
    x = dataset.splits["train"].x
    expect(x.ndim == 4, "patches", "a run on images", f"{dataset.name}, a table")
    expect(
        min(x.shape[1:3]) >= 2 * LEAST_PATCH,
        "patches",
        f"images of at least {2 * LEAST_PATCH} pixels a side",
        f"{x.shape[1]} x {x.shape[2]}",
    )


def place(
    key: Key,
    maps: Float[np.ndarray, "n h w"],
    weight: Float[np.ndarray, " n"],
    unit: Int[np.ndarray, " n"],
    *,
    most: float,
    classes: int,
) -> Place:
    """The place that the maps of images show together.

    Args:
      key: randomness of the interval's resamples.
      maps: pointwise, in nats.
      weight: of each image.
      unit: images of one number are not independent; 0..u-1.
      most: nats that there are to know.
      classes: number of values that the maps are about.
    """
    expect(maps.shape[:1] == weight.shape == unit.shape, "maps", f"[n={len(weight)} h w]", describe(maps))

    def mean(rows: np.ndarray) -> np.ndarray:
        return np.einsum("n,nhw->hw", weight[rows] / weight[rows].sum(), maps[rows])

    general = mean(np.arange(len(maps))).astype(np.float32)
    # The top pixels are chosen on one half and measured on the other: the top of mere noise is noise there.
    value = np.zeros(len(maps))
    halves = [np.flatnonzero(unit % 2 == half) for half in (0, 1)]
    for chosen, measured in (halves, halves[::-1]):
        if len(chosen) and len(measured):
            top = _top(mean(chosen))
            value[measured] = maps[measured][:, top].mean(axis=1)
    share = value / most
    least = min(-1.0, float(share.min()))  # patches may mislead without bound, and say no more than there is
    information = mean_interval(share, key=key, unit=unit, weight=weight, bounds=(least, 1.0))
    location, area = localise(general, share=TOP), float(budget_mask(general, 0.9, floor=0.0).mean())
    return Place(
        map=general,
        information=information,
        held=location.raw_share,
        spread=location.spread or area > SPREAD_AREA,
        area=area,
        classes=classes,
    )


def balancing(attribute: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"]) -> tuple[Float[np.ndarray, " n"], int]:
    """(weights with which all groups that have an image count alike, groups that have none).

    >>> balancing(np.array([0, 0, 0, 1], np.int32), np.array([0, 0, 1, 1], np.int32))
    (array([0.5, 0.5, 1. , 1. ]), 1)
    """
    counts = np.zeros((label.max() + 1, attribute.max() + 1), np.int64)
    np.add.at(counts, (label, attribute), 1)
    there = counts.any(axis=1)[:, None] & counts.any(axis=0)[None, :]
    return 1.0 / counts[label, attribute], int((there & (counts == 0)).sum())


def balanced_rows(
    key: Key, attribute: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"], count: int
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " v"]]:
    """(rows to train on, others to check on), of every group equally many, at least one and about `count` in all.

    A tenth of each group is for the check. Rows of small groups come several times, those with a code below 0 never.
    """
    group = np.where((attribute < 0) | (label < 0), -1, label * (attribute.max() + 1) + attribute)
    order = np.asarray(jax.random.permutation(key, len(group)))
    cells = np.unique(group[group >= 0])
    each = max(1, min(count, int((group >= 0).sum())) // len(cells))
    rows, checks = [], []
    for cell in cells:
        members = order[group[order] == cell]
        tenth = max(1, len(members) // 10)
        rows.append(np.resize(members[tenth:] if len(members) > 1 else members, each))
        checks.append(np.resize(members[:tenth], -(-each // 10)))
    # In turn through the groups, so that the first of them are of all.
    return np.concatenate(rows), np.stack(checks, axis=1).ravel()[: max(1, round(0.1 * each * len(cells)))]


def one_per_group(group: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " m"]:
    """Rows, about `count` of them and up to three of each group; the first ones, not the nicest. Group by group.

    >>> one_per_group(np.array([1, 0, 1, 1, 1], np.int32), 10).tolist()
    [1, 0, 2, 3]
    """
    cells = np.unique(group)
    if not count:
        return np.zeros(0, np.int64)
    if len(cells) > count:
        cells = cells[np.linspace(0, len(cells) - 1, count).astype(int)]
    each = max(1, min(3, count // len(cells)))
    return np.concatenate([np.flatnonzero(group == cell)[:each] for cell in cells])


class _Codes(NamedTuple):
    """Those values that have enough images, as 0..count-1; -1 for all others."""

    table: Int[np.ndarray, " v"]
    count: int

    @classmethod
    def of(cls, values: Array) -> "_Codes":
        values = np.asarray(values)
        counts = np.bincount(values[values >= 0])
        there = counts >= LEAST_ROWS
        expect(
            int(there.sum()) >= 2,
            "patches",
            f"two values with {LEAST_ROWS} training images each",
            f"counts {counts.tolist()[:12]}",
        )
        return cls(np.where(there, np.cumsum(there) - 1, -1).astype(np.int32), int(there.sum()))

    def __call__(self, values: Array) -> Int[np.ndarray, " n"]:
        values = np.asarray(values)
        inside = (values >= 0) & (values < len(self.table))
        return np.where(inside, self.table[np.where(inside, values, 0)], -1).astype(np.int32)


def _parts(key: Key, dataset: Dataset) -> tuple[Batch, str, Batch, np.ndarray]:
    """(images to train on, name of the split of the others, the others, their rows in that split)."""
    train = dataset.splits["train"]
    for name in ("edit", "accept"):
        if name in dataset.splits and len(dataset.splits[name].label):
            held = dataset.splits[name]
            return train._replace(twin=None), name, held._replace(twin=None), np.arange(len(held.label))
    unit = np.arange(len(train.label)) if train.unit is None else np.unique(train.unit, return_inverse=True)[1]
    fifth = np.asarray(jax.random.permutation(key, int(unit.max()) + 1))[unit] % 5 == 0
    bare = train._replace(twin=None)
    return take(bare, np.flatnonzero(~fifth)), "train", take(bare, np.flatnonzero(fifth)), np.flatnonzero(fifth)


def _some(key: Key, member: np.ndarray, most: int) -> np.ndarray:
    rows = np.flatnonzero(member)
    return np.sort(rows[np.asarray(jax.random.permutation(key, len(rows)))[:most]])


def _most(prior: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    """Nats that a patch says that is sure and right, over these images."""
    return float(-weight @ np.log(prior[truth].astype(np.float64)) / weight.sum())


def _halved(x: np.ndarray, factor: int) -> np.ndarray:
    """Means over squares of `factor` pixels a side; pixels beyond the last whole square are dropped."""
    if factor == 1:
        return x
    h, w = (length // factor for length in x.shape[1:3])
    out = np.empty((len(x), h, w, x.shape[3]), x.dtype)
    for i, image in enumerate(x):  # one at a time: a whole data set in float would not fit
        mean = image[: h * factor, : w * factor].reshape(h, factor, w, factor, -1).mean(axis=(1, 3))
        out[i] = np.rint(mean) if x.dtype == np.uint8 else mean
    return out


def _enlarged(maps: np.ndarray, factor: int, size: tuple[int, int]) -> Shaped[np.ndarray, "*n h w"]:
    """Maps of halved images at the size of the images."""
    if factor == 1:
        return maps
    rows, columns = (np.minimum(np.arange(length) // factor, length // factor - 1) for length in size)
    return maps[..., rows[:, None], columns[None, :]]


def _scaled(maps: np.ndarray) -> np.ndarray:
    maps = np.maximum(maps, 0.0)
    top = maps.max(initial=0.0)
    return (maps / top if top > 0 else maps).astype(np.float32)
