"""Where a trained model looks: its class maps on a split, by group, beside the regions that the data set knows.

    seen = look(key, classifier.spatial, params, dataset)
    seen.everything.score, seen.everything.chance

The maps are Grad-CAM's of the predicted logit, on the layer's own grid, after the steps that Attention-IoU publishes
for scores of masks (`explain.maps.as_published`). A score is only there together with its chance level: what a map that
looks everywhere alike scores with the same regions of the same images.

Grad-CAM has one weight per channel for the whole image. That is exact where the layers above average over places; where
they tell places apart (a network that flattens its maps), its maps can lie elsewhere than the evidence. HiResCAM keeps
the places apart, and `MapAudit.agreement` says how far the two are the same.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.contracts import check_choice, describe, expect
from jaxdebias.core import Array, Dataset, Key, Params, Split, group_of
from jaxdebias.data._sets.celeba_mask import REGIONS as PARTS_OF_FACES
from jaxdebias.data._sets.composites import REGIONS as PARTS_OF_COMPOSITES
from jaxdebias.data._sets.waterbirds import REGIONS as PARTS_OF_BIRDS
from jaxdebias.explain._cam import class_maps
from jaxdebias.explain._taps import Tap
from jaxdebias.explain.maps import as_published, unit_sum
from jaxdebias.measure._attention_iou import area_fraction, attention_iou, chance_attention_iou, mask_scores
from jaxdebias.measure._bootstrap import Interval
from jaxdebias.measure._map_scores import ScoreReport, score_report
from jaxdebias.measure._region_masks import region_masks

Regions = Mapping[str, Sequence[int]]
"""Name of a region -> the labels of the masks that it unites."""

REGIONS: Mapping[str, Regions] = {
    "scenes": {"object": (1,), "background": (0,)},
    "glyphs": {"letter of the class": (1,), "letter of the bias": (2,), "background": (0,)},
    "composites": PARTS_OF_COMPOSITES,
    "waterbirds": PARTS_OF_BIRDS,
    "celeba-mask": PARTS_OF_FACES,
}
"""The regions of the data sets that come with masks."""


class Looked(NamedTuple):
    """Where the model looks in one set of images. r regions, which may be none; NaN where no image entered."""

    rows: int
    """Images of the set."""
    without_map: int
    """Those whose map is 0 everywhere: no place speaks for the class that was predicted. They enter nothing below."""
    average: np.ndarray
    """`[h w]`, mean of the maps, each of sum 1, times the number of cells: 1 is what looking everywhere alike gives."""
    score: Interval
    """`[r]` Attention-IoU with each region, over the images where it is present."""
    chance: np.ndarray
    """`[r]` what a uniform map scores on the same images."""
    inside: Interval
    """`[r]` the share of the map that lies within the region."""
    area: np.ndarray
    """`[r]` the share of the image that the region fills: what `inside` is for a uniform map."""
    used: np.ndarray
    """`[r]` images that entered: the region is present and the map is not 0 everywhere."""
    small: np.ndarray
    """Bool `[r]`: not empty, but fewer than 30 independent images."""


class MapAudit(NamedTuple):
    """Where a model looks: in all images, by how the attribute goes with the label, by group, and in single ones."""

    grid: tuple[int, int]
    """Height and width of the maps. Scores of two grids are not on one scale."""
    regions: tuple[str, ...]
    everything: Looked
    aligned: Looked | None
    """None, as `conflicting`, where there are no such images."""
    conflicting: Looked | None
    groups: list[Looked]
    """k * a of them; that of (label, attribute) is number label * a + attribute."""
    agreement: float
    """Mean Attention-IoU of these maps with HiResCAM's of the same images; NaN where no image has both."""
    predicted: np.ndarray
    """`[n]` int, of every image of the split."""
    examples: np.ndarray
    """`[m]` rows of the split, group by group: aligned ones that are right, conflicting ones that are wrong first."""
    example_maps: np.ndarray
    """`[m h w]` their maps, in 0..1."""


def look(
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
    """Maps of every image of a split, their averages by group, their scores with the regions, and some to look at.

    Images are taken `batch_size` at a time by one compiled program; only sums of maps are kept.

    Args:
      key: for the bootstrap of the intervals.
      layer: `classifier.spatial`, or what else `class_maps` takes.
      params: of the model.
      dataset: gives the split, its masks, groups and independent units.
      regions: name -> labels of the masks; None: those in `REGIONS`. Without masks there are no scores.
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
        regions = {} if batch.mask is None else REGIONS.get(dataset.name, {})
    n, (k, a) = len(batch.label), dataset.aligned.shape
    # Images of unknown attribute form a group of their own, so that they count among all.
    group = np.asarray(group_of(np.asarray(batch.label), np.asarray(batch.attribute), a))
    group = np.where(group < 0, k * a, group).astype(np.int32)

    one = functools.partial(_look_at, layer, params, regions=tuple(tuple(labels) for labels in regions.values()))
    size = min(batch_size, n)

    def parts(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        padded = np.resize(rows, size)  # one shape, one compilation
        mask = None if not regions else jnp.asarray(np.asarray(batch.mask)[padded])
        return tuple(np.asarray(part)[: len(rows)] for part in one(jnp.asarray(np.asarray(batch.x)[padded]), mask))

    predicted, agreement, values, levels, sums = [], [], [], [], None
    with_map = np.zeros(k * a + 1, np.int64)
    for start in range(0, n, size):
        rows = np.arange(start, min(start + size, n))
        answer, share, _, same, value, level = parts(rows)
        there = ~np.isnan(share).any(axis=(1, 2))
        sums = np.zeros((k * a + 1, *share.shape[1:])) if sums is None else sums
        np.add.at(sums, group[rows[there]], share[there])
        np.add.at(with_map, group[rows[there]], 1)
        predicted.append(answer)
        agreement.append(same)
        values.append(value)
        levels.append(level)
    predicted, agreement = np.concatenate(predicted), np.concatenate(agreement)
    values, levels = np.concatenate(values), np.concatenate(levels)

    rows = np.bincount(group, minlength=k * a + 1)
    sides = np.append(np.where(dataset.aligned, 0, 1).ravel(), -1)  # of each group
    key_groups, key_sides = jax.random.split(key)
    by_group = by_side = None
    if regions:
        by_group = _report(key_groups, values, levels, group, k * a + 1, batch.unit)
        if rows[sides >= 0].any():
            by_side = _report(key_sides, values, levels, sides[group].astype(np.int32), 2, batch.unit)

    def looked(members: np.ndarray, report: ScoreReport | None, row: int) -> Looked:
        count, seen = int(rows[members].sum()), int(with_map[members].sum())
        average = sums[members].sum(axis=0) * (sums[0].size / seen) if seen else np.full(sums.shape[1:], np.nan)
        return Looked(count, count - seen, average, *_scores(report, row, len(regions)))

    every = np.arange(k * a + 1)
    halves = [looked(every[sides == side], by_side, side) if rows[sides == side].any() else None for side in (0, 1)]
    chosen = _pick(np.asarray(batch.label), predicted, group, dataset.aligned, examples)
    shown = [parts(chosen[start : start + size])[2] for start in range(0, len(chosen), size)]
    return MapAudit(
        grid=tuple(int(side) for side in sums.shape[1:]),
        regions=tuple(regions),
        everything=looked(every, by_group, -1),
        aligned=halves[0],
        conflicting=halves[1],
        groups=[looked(every[i : i + 1], by_group, i) for i in range(k * a)],
        agreement=float(np.nanmean(agreement)) if not np.isnan(agreement).all() else float("nan"),
        predicted=predicted,
        examples=chosen,
        example_maps=np.concatenate(shown) if shown else np.zeros((0, *sums.shape[1:]), np.float32),
    )


@functools.partial(jax.jit, static_argnames=("layer", "regions"))
def _look_at(
    layer: Split | Tap,
    params: Params,
    x: Array,
    mask: Int[Array, "n x y"] | None,
    *,
    regions: tuple[tuple[int, ...], ...],
) -> tuple[
    Int[Array, "n"],
    Float[Array, "n h w"],
    Float[Array, "n h w"],
    Float[Array, "n"],
    Float[Array, "n two_r"],
    Float[Array, "n two_r"],
]:
    """Prediction, the map of sum 1 (NaN where it is empty) and in 0..1, its agreement, the regions' values and levels.

    Values are (score, inside) of all regions, levels (chance, area). Scores are NaN where a region is absent or the map
    is empty, the levels beside them 0.
    """
    logits, raw = class_maps(layer, params, x, target="predicted")
    maps = as_published(raw)
    share, shown = unit_sum(maps)[:, 0], maps[:, 0]
    same = attention_iou(maps, as_published(class_maps(layer, params, x, method="hirescam", target="predicted").maps))
    answer, same = logits.argmax(axis=1), same[:, 0]
    if mask is None:
        nothing = jnp.zeros((len(x), 0))
        return answer, share, shown, same, nothing, nothing
    masks = region_masks(mask, regions, grid=maps.shape[-2:])
    score = mask_scores(maps, masks)[:, 0]
    # The most precise product: these shares are compared with areas, on accelerators too.
    inside = jnp.einsum("nhw,nrhw->nr", share, masks, precision=jax.lax.Precision.HIGHEST)
    there = ~jnp.isnan(score)
    values = jnp.concatenate([score, jnp.where(there, inside, jnp.nan)], axis=1)
    levels = jnp.concatenate([chance_attention_iou(area_fraction(masks)), masks.mean(axis=(2, 3))], axis=1)
    return answer, share, shown, same, values, jnp.where(jnp.tile(there, (1, 2)), levels, 0.0)


def _report(
    key: Key, values: np.ndarray, levels: np.ndarray, group: np.ndarray, groups: int, unit: Array | None
) -> ScoreReport:
    # Present only: under the official policy a rare region scores mostly how rare it is.
    return score_report(
        key,
        values,
        group,
        groups=groups,
        score="mask",
        chance=levels,
        policy="present_only",
        unit=None if unit is None else np.asarray(unit, np.int32),
    )


def _scores(report: ScoreReport | None, row: int, r: int) -> tuple[Interval | np.ndarray, ...]:
    """(score, chance, inside, area, used, small) of one row of a report whose columns are scores, then shares."""
    if report is None:
        none = np.zeros(0)
        empty = Interval(none, none, none, none.astype(np.int64))
        return empty, none, empty, none, none.astype(np.int64), none.astype(bool)
    # Means of float32 may pass the ends of their range by a rounding error.
    score, inside = (
        Interval(*(np.clip(field[row, columns], 0.0, 1.0) for field in report.score[:3]), report.score.n[row, columns])
        for columns in (slice(r), slice(r, None))
    )
    return (score, report.chance[row, :r], inside, report.chance[row, r:], report.used[row, :r], report.small[row, :r])


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
