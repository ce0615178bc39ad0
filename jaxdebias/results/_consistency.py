"""What the types of a record cannot say: tables fit the names of labels and attribute values, indices exist."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdebias.contracts import expect
from jaxdebias.results.records import (
    DrawnGroup,
    DrawnSample,
    Draws,
    Group,
    Maps,
    Measurement,
    Patches,
    Results,
    RunResults,
    Sample,
)


def check_consistency(record: Results) -> None:
    """Checks shapes and indices of a record whose fields have the right types.

    Raises:
      ContractError: naming the first field that does not fit the others.
    """
    if isinstance(record, RunResults):
        _check_run(record)


def _check_run(record: RunResults) -> None:
    k, a = len(record.label_names), len(record.attribute_names)
    expect(k > 0 and a > 0, "label_names", "at least one label and one attribute value", f"{k} and {a}")
    _check_table("train_counts", record.train_counts, (k, a))
    _check_table("aligned", record.aligned, (k, a))
    _check_measurement("before", record.before, k, a)
    if record.after is not None:
        _check_measurement("after", record.after, k, a)
    for name, baseline in record.baselines.items():
        _check_measurement(f"baselines[{name!r}].measurement", baseline.measurement, k, a)
    for name, samples in (("harmful", record.harmful), ("helpful", record.helpful)):
        for i, sample in enumerate(samples):
            _check_cell(f"{name}[{i}]", sample, k, a)
    for name, rows, samples in (
        ("harmful_rows", record.harmful_rows, record.harmful),
        ("helpful_rows", record.helpful_rows, record.helpful),
    ):
        fits = rows is None or len(rows) <= len(samples)
        expect(fits, name, f"at most {len(samples)} rows, one of each sample", len(rows or ()))
    if record.discovered is not None:
        for i, group in enumerate(record.discovered.groups):
            for key, label in (("label", group.label), ("mistaken_for", group.mistaken_for)):
                expect(label < k, f"discovered.groups[{i}].{key}", f"a number in 0..{k - 1}", label)
    if record.maps is not None:
        _check_maps(record.maps, k, a)
    if record.patches is not None:
        _check_patches(record.patches, k, a)
    if record.draws is not None:
        _check_draws(record.draws, k, a)


def _check_measurement(what: str, measurement: Measurement, k: int, a: int) -> None:
    for i, group in enumerate(measurement.groups):
        _check_cell(f"{what}.groups[{i}]", group, k, a)
    _check_table(f"{what}.confusion_by_group", measurement.confusion_by_group, (k, a, k))


def _check_maps(maps: Maps, k: int, a: int) -> None:
    expect(bool(maps.rows), "maps.rows", "at least one set of images", "none")
    for i, row in enumerate(maps.rows):
        if row.average is not None:
            _check_table(f"maps.rows[{i}].average", row.average, maps.grid)
        names = tuple(region.region for region in row.regions)
        expect(names == maps.regions, f"maps.rows[{i}].regions", ", ".join(maps.regions) or "none", ", ".join(names))
        known = (row.label is not None and row.attribute is not None) == (row.kind == "group")
        expect(known, f"maps.rows[{i}]", "label and attribute of a group, and of nothing else", row.kind)
        for key, index, count in (("label", row.label, k), ("attribute", row.attribute, a)):
            fits = index is None or 0 <= index < count
            expect(fits, f"maps.rows[{i}].{key}", f"a number in 0..{count - 1}", index)
    for i, example in enumerate(maps.examples):
        _check_cell(f"maps.examples[{i}]", example, k, a)


def _check_patches(patches: Patches, k: int, a: int) -> None:
    for name, place in (("attribute", patches.attribute), ("label", patches.label)):
        _check_table(f"patches.{name}.map", place.map, (len(place.map), len(place.map[0]) if place.map else 0))
    for i, example in enumerate(patches.examples):
        _check_cell(f"patches.examples[{i}]", example, k, a)


def _check_draws(draws: Draws, k: int, a: int) -> None:
    _check_table("draws.histogram", draws.histogram, (len(draws.edges) - 1,))
    for name, values in (("ess_by_epoch", draws.ess_by_epoch), ("never_by_epoch", draws.never_by_epoch)):
        _check_table(f"draws.{name}", values, (len(draws.epochs),))
    for name, rows in (("groups", draws.groups), ("rarest", draws.rarest), ("commonest", draws.commonest)):
        for i, row in enumerate(rows):
            _check_cell(f"draws.{name}[{i}]", row, k, a)


def _check_cell(what: str, row: Group | Sample | DrawnGroup | DrawnSample | Any, k: int, a: int) -> None:
    expect(0 <= row.label < k, f"{what}.label", f"a number in 0..{k - 1}", row.label)
    expect(-1 <= row.attribute < a, f"{what}.attribute", f"a number in -1..{a - 1}", row.attribute)


def _check_table(what: str, table: Sequence[Any], shape: tuple[int, ...]) -> None:
    try:
        array = np.array(table)
    except ValueError:  # rows of unequal length
        array = np.array(None)
    got = list(array.shape) or "rows of unequal length"
    expect(array.shape == shape, what, f"numbers in nested lists {list(shape)}", got)
