"""Rows of weight 0 are padding: an audit leaves them out before it counts anything."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdebias.auditing.candidates import Candidate
from jaxdebias.core import Array, Dataset, counted
from jaxdebias.data._values import cells


def without_padding(
    dataset: Dataset, predicted: Array | None, candidates: Mapping[str, Candidate | Mapping[str, Any]] | None
) -> tuple[Dataset, Array | None, Mapping[str, Candidate | Mapping[str, Any]] | None]:
    """A data set, predictions on its test split and candidates, without the rows of weight 0; the same objects where
    there are none.

    Args:
      dataset: its splits and pairs may have weights.
      predicted: `[n]` or `[n k]` on the test split, or None.
      candidates: name -> split -> `[n]` values.
    """
    pairs = {name: counted(batch) for name, batch in dataset.pairs.items()}
    splits = {name: counted(batch) for name, batch in dataset.splits.items()}
    kept = {
        name: np.flatnonzero(np.asarray(batch.weight))
        for name, batch in dataset.splits.items()
        if splits[name] is not batch
    }
    if not kept and all(pairs[name] is batch for name, batch in dataset.pairs.items()):
        return dataset, predicted, candidates
    dataset = dataclasses.replace(dataset, splits=splits, pairs=pairs)

    def rows(split: str, values: Any) -> Any:
        if split not in kept:
            return values
        values = cells(values)
        return [values[i] for i in kept[split] if i < len(values)]

    found = {}
    for name, given in (candidates or {}).items():
        if isinstance(given, Candidate):
            values = {split: np.asarray(rows(split, value)) for split, value in given.values.items()}
            found[name] = given._replace(values=values)
        else:
            found[name] = {split: rows(split, value) for split, value in given.items()}
    if predicted is not None and "test" in kept and len(predicted) > kept["test"].max(initial=-1):
        predicted = np.asarray(predicted)[kept["test"]]
    return dataset, predicted, found if candidates is not None else None


def counted_rows(dataset: Dataset, values: Any) -> Any:
    """Rows of the test split that are no padding, of values `[n ...]` or None; the same object where there is none."""
    weight = dataset.splits["test"].weight
    if values is None or weight is None or len(values) != len(np.asarray(weight)):
        return values
    kept = np.flatnonzero(np.asarray(weight))
    return values if len(kept) == len(values) else np.asarray(cells(values) if np.ndim(values) == 1 else values)[kept]
