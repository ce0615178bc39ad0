"""From class maps, patch maps and draws to their records."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdebias.auditing import class_maps, draw_shares, patch_places
from jaxdebias.core import Dataset
from jaxdebias.mitigate._dbvae.diagnostics import RATIO_EDGES
from jaxdebias.results import records
from jaxdebias.results._intervals import interval, rate_at
from jaxdebias.results._plain import finite, nested
from jaxdebias.train._log import Progress

MOST_CELLS = 32
"""Cells a side of a patch map in `results.json`; the maps at full size are in `patches.npz`."""


def maps(found: class_maps.MapAudit, dataset: Dataset) -> records.Maps:
    """Where a model looks on the test split."""
    test = dataset.splits["test"]
    k, a = dataset.aligned.shape
    groups: list[tuple[str, int, int, class_maps.MapSummary | None]] = [
        ("group", label, attribute, found.groups[label * a + attribute]) for label in range(k) for attribute in range(a)
    ]
    sets = [
        ("all", None, None, found.overall),
        ("aligned", None, None, found.aligned),
        ("conflicting", None, None, found.conflicting),
        *groups,
    ]
    return records.Maps(
        method="gradcam",
        target="predicted",
        grid=(int(found.grid[0]), int(found.grid[1])),
        regions=tuple(found.regions),
        agreement=finite(found.agreement),
        rows=tuple(
            _map_set(kind, label, attribute, summary, found.regions)
            for kind, label, attribute, summary in sets
            if summary is not None
        ),
        examples=tuple(
            records.MapExample(
                row=int(i),
                label=int(test.label[i]),
                attribute=int(test.attribute[i]),
                predicted=int(found.predicted[i]),
            )
            for i in found.examples
        ),
    )


def _map_set(
    kind: Any, label: int | None, attribute: int | None, summary: class_maps.MapSummary, regions: Sequence[str]
) -> records.MapSet:
    return records.MapSet(
        kind=kind,
        label=label,
        attribute=attribute,
        n=int(summary.rows),
        without_map=int(summary.without_map),
        average=nested(np.asarray(summary.average, float)) if summary.rows > summary.without_map else None,
        regions=tuple(
            records.MapRegion(
                region=name,
                score=rate_at(summary.score, i),
                chance=finite(summary.chance[i]),
                inside=rate_at(summary.inside, i),
                area=finite(summary.area[i]),
                n=int(summary.used[i]),
                flagged=bool(summary.small[i]),
            )
            for i, name in enumerate(regions)
        ),
    )


def patches(found: patch_places.Places, dataset: Dataset) -> records.Patches:
    """Where the data show the attribute and the label."""
    split = dataset.splits[found.split]
    return records.Patches(
        split=found.split,
        rows=int(found.rows),
        train_rows=int(found.train_rows),
        patch=int(found.patch),
        stride=int(found.stride),
        missing=int(found.missing),
        top=float(patch_places.TOP),
        attribute=_place(found.attribute, found.stride),
        label=_place(found.label, found.stride),
        overlap=float(found.overlap),
        chance=float(found.chance),
        examples=tuple(
            records.PatchExample(row=int(i), label=int(split.label[i]), attribute=int(split.attribute[i]))
            for i in found.examples
        ),
    )


def _place(found: patch_places.Place, stride: int) -> records.Place:
    return records.Place(
        map=nested(np.round(_coarse(np.asarray(found.map), stride), 5)),
        information=interval(found.information),
        held=float(found.held),
        spread=bool(found.spread),
        found=bool(found.found),
        area=float(found.area),
        classes=int(found.classes),
    )


def _coarse(map: np.ndarray, cell: int) -> np.ndarray:
    """Means over cells of a map, at most `MOST_CELLS` a side."""
    shape: tuple[int, ...] = map.shape
    for axis, length in enumerate(shape):
        edges = np.linspace(0, length, min(MOST_CELLS, -(-length // cell)), endpoint=False).round().astype(int)
        sums = np.add.reduceat(map, edges, axis=axis)
        counts = np.diff(np.append(edges, length))
        map = sums / (counts[:, None] if axis == 0 else counts[None, :])
    return map


def draws(found: draw_shares.DrawAudit, dataset: Dataset, history: Sequence[Progress]) -> records.Draws:
    """Which training samples were drawn more often.

    Args:
      found: the weights after the last epoch, and what they mean.
      dataset: its train split is what was drawn from.
      history: of the training loop; its records hold the effective sample size of each chunk.
    """
    train, n, report = dataset.splits["train"], len(found.weight), found.report

    def samples(rows: np.ndarray) -> tuple[records.DrawnSample, ...]:
        return tuple(
            records.DrawnSample(
                index=int(i),
                label=int(train.label[i]),
                attribute=int(train.attribute[i]),
                ratio=float(n * found.weight[i]),
            )
            for i in rows
        )

    logged = [entry for entry in history if "draw_ess" in entry.info]
    conflicting = found.conflicting
    return records.Draws(
        rows=n,
        ess=min(float(report.ess), 1.0),
        largest=float(report.largest),
        never_drawn=float(report.never_drawn),
        edges=tuple(RATIO_EDGES),
        histogram=nested(report.histogram),
        kl=nested(np.asarray(found.kl, float)),
        carrying=int((found.kl >= 0.01).sum()),
        epochs=tuple(int(entry.epoch) for entry in logged),
        ess_by_epoch=tuple(float(entry.info["draw_ess"]) for entry in logged),
        never_by_epoch=tuple(float(entry.info["draw_never"]) for entry in logged),
        groups=tuple(
            records.DrawnGroup(
                label=int(label),
                attribute=int(attribute),
                rows=group.rows,
                row_share=group.row_share,
                draw_share=group.draw_share,
                auc=finite(group.auc),
            )
            for (label, attribute), group in found.groups.items()
        ),
        conflicting=None
        if conflicting is None
        else records.DrawnSet(
            rows=conflicting.rows,
            row_share=conflicting.row_share,
            draw_share=conflicting.draw_share,
            auc=finite(conflicting.auc),
        ),
        rarest=samples(report.rarest),
        commonest=samples(report.commonest),
    )
