"""Where a trained model looks: its class maps on a split, by group, beside the regions that the data set knows.

    maps = audit_maps(key, classifier.spatial, params, dataset)
    maps.overall.score, maps.overall.chance

The maps are Grad-CAM's of the predicted logit, on the layer's own grid, after the steps that Attention-IoU publishes
for scores of masks (`explain.maps.as_published`). A score is only there together with its chance level: what a map that
looks everywhere alike scores with the same regions of the same images.

Grad-CAM has one weight per channel for the whole image. That is exact where the layers above average over places; where
they tell places apart (a network that flattens its maps), its maps can lie elsewhere than the evidence. HiResCAM keeps
the places apart, and `MapAudit.agreement` says how far the two are the same.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.contracts import check_choice, describe, expect
from jaxdebias.core import Array, Batch, Dataset, Key, Params, Split, group_of
from jaxdebias.explain._cam import class_maps
from jaxdebias.explain._taps import Tap
from jaxdebias.explain.maps import as_published, unit_sum
from jaxdebias.measure._attention_iou import area_fraction, attention_iou, chance_attention_iou, mask_scores
from jaxdebias.measure._intervals import Interval
from jaxdebias.measure._map_scores import ScoreReport, score_report
from jaxdebias.measure._region_masks import region_masks

Regions = Mapping[str, Sequence[int]]
"""Name of a region -> the labels of the masks that it unites."""


class MapSummary(NamedTuple):
    """Where the model looks in one set of images. r regions, which may be none; NaN where no image entered."""

    rows: int
    """Images of the set."""
    without_map: int
    """Images whose map is 0 everywhere: no place is evidence for the predicted class. They enter nothing below."""
    average: np.ndarray
    """`[h w]`, mean of the maps, each of sum 1, times the number of cells: 1 everywhere for a uniform map."""
    score: Interval
    """`[r]` Attention-IoU with each region, over the images where it is present."""
    chance: np.ndarray
    """`[r]` score of a uniform map on the same images."""
    inside: Interval
    """`[r]` share of the map that lies within the region."""
    area: np.ndarray
    """`[r]` share of the image that the region fills: `inside` of a uniform map."""
    used: np.ndarray
    """`[r]` images that entered: the region is present and the map is not 0 everywhere."""
    small: np.ndarray
    """Bool `[r]`: not empty, but fewer than 30 independent images."""


class MapAudit(NamedTuple):
    """Where a model looks: in all images, in aligned and conflicting ones, by group, and in single ones."""

    grid: tuple[int, int]
    """Height and width of the maps. Scores of two grids are not on one scale."""
    regions: tuple[str, ...]
    overall: MapSummary
    aligned: MapSummary | None
    """None, as `conflicting`, where there are no such images."""
    conflicting: MapSummary | None
    groups: list[MapSummary]
    """k * a of them; that of (label, attribute) is number label * a + attribute."""
    agreement: float
    """Mean Attention-IoU of these maps with HiResCAM's of the same images; NaN where no image has both."""
    predicted: np.ndarray
    """`[n]` int, of every image of the split."""
    examples: np.ndarray
    """`[m]` rows of the split, group by group: correct ones of aligned and wrong ones of conflicting groups first."""
    example_maps: np.ndarray
    """`[m h w]` their maps, in 0..1."""


class ImageMaps(NamedTuple):
    """Maps of n single images and their scores with r regions.

    A region that is absent, or a map that is empty, has the scores NaN and the levels 0.
    """

    predicted: Int[Array, "n"]
    share: Float[Array, "n h w"] | None
    """Of sum 1; NaN where the map is empty. None where only sums of it were kept."""
    shown: Float[Array, "n h w"] | None
    """In 0..1; None as `share`."""
    agreement: Float[Array, "n"]
    """Attention-IoU with HiResCAM's map."""
    score: Float[Array, "n r"]
    inside: Float[Array, "n r"]
    chance: Float[Array, "n r"]
    area: Float[Array, "n r"]


class GroupSums(NamedTuple):
    """Sums over the images of each of g groups."""

    rows: np.ndarray
    """`[g]` images."""
    with_map: np.ndarray
    """`[g]` images whose map is not empty."""
    share: np.ndarray
    """`[g h w]` sum of their maps, each of sum 1."""


def audit_maps(
    key: Key,
    layer: Split | Tap,
    params: Params,
    dataset: Dataset,
    *,
    regions: Regions | None = None,
    split: str = "test",
    examples: int = 24,
    batch_size: int = 128,
) -> MapAudit:
    """Computes maps of every image of a split, their averages by group, their scores with the regions, and examples.

    Images are taken `batch_size` at a time by one compiled program; only sums of maps are kept.

    Args:
      key: randomness of the intervals.
      layer: `classifier.spatial`, or what else `class_maps` takes.
      params: of the model.
      dataset: gives the split, its masks, groups and independent units.
      regions: name -> labels of the masks; None: those of the data set. Without masks there are no scores.
      split: name of the split.
      examples: about how many single images to pick.
      batch_size: images at a time; memory is what their maps need.

    Raises:
      ContractError: a table, an unknown split, or a layer without maps.
    """
    check_choice("split", split, dataset.splits)
    batch = dataset.splits[split]
    expect(batch.x.ndim == 4, "split", "images [n h w c]", describe(batch.x))
    expect(
        examples >= 0 and batch_size >= 1,
        "batch_size",
        "at least 1, and no negative number of examples",
        (batch_size, examples),
    )
    expect(batch.mask is not None or not regions, "regions", "a split with masks", f"{split!r} without")
    if regions is None:
        regions = {} if batch.mask is None else dataset.regions
    k, a = dataset.aligned.shape
    # Images of unknown attribute form a group of their own, so that they count among all.
    group = np.asarray(group_of(np.asarray(batch.label), np.asarray(batch.attribute), a))
    group = np.where(group < 0, k * a, group).astype(np.int32)
    size = min(batch_size, len(batch.label))
    map_rows = functools.partial(_map_rows, layer, params, batch, tuple(map(tuple, regions.values())), size)
    images, sums = _map_all(map_rows, group, k * a + 1, size)

    side_of_group = np.append(np.where(dataset.aligned, 0, 1).ravel(), -1)  # 0 aligned, 1 conflicting, -1 unknown
    key_groups, key_sides = jax.random.split(key)
    by_group = by_side = None
    if regions:
        by_group = _report(key_groups, images, group, k * a + 1, batch.unit)
        if sums.rows[side_of_group >= 0].any():
            by_side = _report(key_sides, images, side_of_group[group].astype(np.int32), 2, batch.unit)

    def summary_of_side(side: int) -> MapSummary | None:
        groups = np.flatnonzero(side_of_group == side)
        return _summary(sums, groups, by_side, side, len(regions)) if sums.rows[groups].any() else None

    chosen = _pick(np.asarray(batch.label), images.predicted, group, dataset.aligned, examples)
    shown = [map_rows(chosen[start : start + size]).shown for start in range(0, len(chosen), size)]
    grid = sums.share.shape[1:]
    return MapAudit(
        grid=tuple(int(length) for length in grid),
        regions=tuple(regions),
        overall=_summary(sums, np.arange(k * a + 1), by_group, -1, len(regions)),
        aligned=summary_of_side(0),
        conflicting=summary_of_side(1),
        groups=[_summary(sums, np.array([cell]), by_group, cell, len(regions)) for cell in range(k * a)],
        agreement=float(np.nanmean(images.agreement)) if not np.isnan(images.agreement).all() else float("nan"),
        predicted=images.predicted,
        examples=chosen,
        example_maps=np.concatenate(shown) if shown else np.zeros((0, *grid), np.float32),
    )


def _map_rows(
    layer: Split | Tap,
    params: Params,
    batch: Batch,
    regions: tuple[tuple[int, ...], ...],
    size: int,
    rows: np.ndarray,
) -> ImageMaps:
    """Maps of at most `size` rows of a split, on the host."""
    padded = np.resize(rows, size)  # one shape, one compilation
    mask = jnp.asarray(np.asarray(batch.mask)[padded]) if regions else None
    maps = _image_maps(layer, params, jnp.asarray(np.asarray(batch.x)[padded]), mask, regions=regions)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(rows)], maps)


def _map_all(
    map_rows: Callable[[np.ndarray], ImageMaps], group: np.ndarray, groups: int, size: int
) -> tuple[ImageMaps, GroupSums]:
    """All images of a split, `size` at a time, without their maps, and the sums of these by group."""
    parts, with_map, share = [], np.zeros(groups, np.int64), None
    for start in range(0, len(group), size):
        rows = np.arange(start, min(start + size, len(group)))
        maps = map_rows(rows)
        present = ~np.isnan(maps.share).any(axis=(1, 2))
        share = np.zeros((groups, *maps.share.shape[1:])) if share is None else share
        np.add.at(share, group[rows[present]], maps.share[present])
        np.add.at(with_map, group[rows[present]], 1)
        parts.append(maps._replace(share=None, shown=None))
    images = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return images, GroupSums(np.bincount(group, minlength=groups), with_map, share)


@functools.partial(jax.jit, static_argnames=("layer", "regions"))
def _image_maps(
    layer: Split | Tap,
    params: Params,
    x: Array,
    mask: Int[Array, "n x y"] | None,
    *,
    regions: tuple[tuple[int, ...], ...],
) -> ImageMaps:
    logits, raw = class_maps(layer, params, x, target="predicted")
    maps = as_published(raw)
    hires = as_published(class_maps(layer, params, x, method="hirescam", target="predicted").maps)
    predicted, agreement = logits.argmax(axis=1), attention_iou(maps, hires)[:, 0]
    if mask is None:
        score = inside = chance = area = jnp.zeros((len(x), 0))
    else:
        masks = region_masks(mask, regions, grid=maps.shape[-2:])
        score = mask_scores(maps, masks)[:, 0]
        there = ~jnp.isnan(score)
        # The most precise product: these shares are compared with areas, on accelerators too.
        inside = jnp.einsum("nhw,nrhw->nr", unit_sum(maps)[:, 0], masks, precision=jax.lax.Precision.HIGHEST)
        inside = jnp.where(there, inside, jnp.nan)
        chance = jnp.where(there, chance_attention_iou(area_fraction(masks)), 0.0)
        area = jnp.where(there, masks.mean(axis=(2, 3)), 0.0)
    return ImageMaps(predicted, unit_sum(maps)[:, 0], maps[:, 0], agreement, score, inside, chance, area)


def _report(key: Key, images: ImageMaps, group: np.ndarray, groups: int, unit: Array | None) -> ScoreReport:
    """Scores by group: r columns of scores, then r of the shares inside."""
    return score_report(
        key,
        np.concatenate([images.score, images.inside], axis=1),
        group,
        groups=groups,
        score="mask",
        chance=np.concatenate([images.chance, images.area], axis=1),
        policy="present_only",  # under the official policy a rare region scores mostly how rare it is
        unit=None if unit is None else np.asarray(unit, np.int32),
    )


def _summary(sums: GroupSums, groups: np.ndarray, report: ScoreReport | None, row: int, r: int) -> MapSummary:
    """The summary of the images of some groups, whose scores with the r regions are a row of the report."""
    rows, with_map = int(sums.rows[groups].sum()), int(sums.with_map[groups].sum())
    average = np.full(sums.share.shape[1:], np.nan)
    if with_map:
        average = sums.share[groups].sum(axis=0) * (sums.share[0].size / with_map)
    if report is None:
        none = np.zeros(0)
        empty = Interval(none, none, none, none.astype(np.int64))
        return MapSummary(
            rows, rows - with_map, average, empty, none, empty, none, none.astype(np.int64), none.astype(bool)
        )

    def interval(columns: slice) -> Interval:
        # Means of float32 may pass the ends of their range by a rounding error.
        limits = (np.clip(field[row, columns], 0.0, 1.0) for field in report.score[:3])
        return Interval(*limits, report.score.n[row, columns])

    return MapSummary(
        rows=rows,
        without_map=rows - with_map,
        average=average,
        score=interval(slice(r)),
        chance=report.chance[row, :r],
        inside=interval(slice(r, None)),
        area=report.chance[row, r:],
        used=report.used[row, :r],
        small=report.small[row, :r],
    )


def _pick(label: np.ndarray, predicted: np.ndarray, group: np.ndarray, aligned: np.ndarray, count: int) -> np.ndarray:
    """Rows to show, up to three of each group and `count` in all; the first ones of their kind, not the nicest."""
    cells = np.flatnonzero(np.bincount(group, minlength=aligned.size)[: aligned.size]).tolist()
    if not cells or not count:
        return np.zeros(0, np.int64)
    # Aligned groups first; where there are too many, both kinds are thinned out evenly.
    kinds = [[cell for cell in cells if aligned.flat[cell] == kind] for kind in (True, False)]
    if len(cells) > count:
        kinds = [
            [kind[i] for i in np.linspace(0, len(kind) - 1, min(len(kind), count // 2)).astype(int)] for kind in kinds
        ]
    each = max(1, min(3, count // max(1, sum(map(len, kinds)))))
    chosen = []
    for cell in (cell for kind in kinds for cell in kind):
        rows = np.flatnonzero(group == cell)
        telling = (predicted[rows] == label[rows]) == aligned.flat[cell]
        chosen.append(rows[np.argsort(~telling, kind="stable")][:each])
    return np.concatenate(chosen)
