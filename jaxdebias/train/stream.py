"""Data larger than memory: rows read at random by grain, shuffled, batched and prefetched, with exact resumption.

Batch number t of a source is a function of the seed and t alone, so a run resumes at step t by asking for it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Batch
from jaxdebias.train._plans import steps_per_epoch


class RowStream:
    """Batches of a source: anything with `__len__` and `__getitem__(i)` that returns one row.

    A row is a `Batch` without the leading axis, or a mapping with `x` and `label` and any other fields of `Batch`.
    Every row has the same fields and shapes. `__getitem__` runs in several threads. One pass visits every row once, in
    an order of its own; the order needs no memory. One process reads the whole source.

    Args:
      seed: of the order, 0 to 2^32 - 1.
      drop_last: leave out the incomplete batch of a pass; otherwise it is filled with its first row at weight 0.
    """

    def __init__(self, source: Any, *, seed: int, batch_size: int, drop_last: bool = False):
        import grain  # not at the top: only data that do not fit need it

        good = hasattr(source, "__len__") and hasattr(source, "__getitem__")
        expect(good, "data", "a Batch, or a source with __len__ and __getitem__", type(source).__name__)
        self._rows = _Rows(source)
        self._batch_size = batch_size
        self.steps_per_pass = steps_per_epoch(len(source), batch_size, drop_last=drop_last)
        order = grain.MapDataset.source(self._rows).seed(seed).shuffle()
        self._batches = order.batch(batch_size, drop_remainder=drop_last).repeat()

    def example(self) -> Batch:
        """A batch of the shape that steps see, made of row 0."""
        row = self._rows[0]
        return Batch(**{name: np.stack([value] * self._batch_size) for name, value in row.items()})

    def stacks(self, start: int, stop: int, size: int) -> Iterator[Batch]:
        """Batches start..stop-1 as stacks `[s b ...]` of `size` batches; the last stack may be smaller."""
        stack = []
        for batch in self._batches.slice(slice(start, stop)).to_iter_dataset():
            stack.append(self._filled(batch))
            if len(stack) == size:
                yield jax.tree.map(lambda *leaves: np.stack(leaves), *stack)
                stack = []
        if stack:
            yield jax.tree.map(lambda *leaves: np.stack(leaves), *stack)

    def _filled(self, batch: Mapping[str, np.ndarray]) -> Batch:
        missing = self._batch_size - len(batch["label"])
        if missing:
            batch = {name: np.concatenate([leaf, leaf[:1].repeat(missing, 0)]) for name, leaf in batch.items()}
            batch["weight"][-missing:] = 0.0
        return Batch(**batch)


_INTEGERS = frozenset({"label", "attribute", "mask", "index", "unit"})


class _Rows:
    """The source with every row as a dict of NumPy arrays, complete with weight and row number."""

    def __init__(self, source: Any):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        row = self._source[int(i)]
        row = row._asdict() if isinstance(row, Batch) else row
        expect(isinstance(row, Mapping), f"data[{i}]", "a Batch or a mapping", type(row).__name__)
        known = set(row) <= set(Batch._fields) and {"x", "label"} <= set(row)
        expect(known, f"data[{i}]", f"x, label and perhaps {', '.join(Batch._fields[2:])}", ", ".join(map(str, row)))
        given = {name: value for name, value in row.items() if value is not None}
        row = {"attribute": -1, "weight": 1.0} | given | {"index": i}
        row = {name: np.asarray(value) for name, value in row.items()}
        row |= {name: row[name].astype(np.int32) for name in _INTEGERS & set(row)}
        row["weight"] = row["weight"].astype(np.float32)
        x = row["x"]
        fine = x.ndim in (1, 3) and (x.dtype == np.uint8 or (x.dtype == np.float32 and bool(np.isfinite(x).all())))
        expect(fine, f"data[{i}].x", "uint8 or finite float32 [h w c] or [d]", describe(x))
        scalar = row["label"].ndim == 0 and row["label"] >= 0
        expect(bool(scalar), f"data[{i}].label", "one integer of at least 0", describe(row["label"]))
        return row
