"""`predictions.npz` of a result set: what its model predicts on the test rows, for comparisons that are paired.

| array | what it is |
| --- | --- |
| `logits` | `[n k]`, on the test split |
| `label`, `attribute`, `unit` | `[n]`, of the test split; unit where it has one |
| `pair_probability`, `pair_label`, `pair_unit` | `[m 2]`, `[m]`, `[m]`: of the test pairs, where there are any |
| `rows` | text: fingerprint of the inputs |
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdebias.auditing import Measurement
from jaxdebias.contracts import expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.files import read_arrays, write_arrays
from jaxdebias.train._checkpoint import fingerprint

NAME = "predictions.npz"


class Predicted(NamedTuple):
    """Predictions on a test split, with what is needed to measure them again."""

    logits: np.ndarray
    test: Batch
    pair_probability: np.ndarray | None
    pairs: Batch | None
    rows: str


def input_fingerprint(dataset: Dataset) -> str:
    """Fingerprint of the test inputs: two sets with equal ones were measured on the same rows."""
    return fingerprint({"x": dataset.splits["test"].x})


def write_predictions(folder: Path, dataset: Dataset, measured: Measurement, *, rows: str) -> None:
    """Writes the predictions that a measurement was made from.

    Args:
      folder: where to.
      dataset: whose test split was measured.
      measured: logits, and probabilities of pairs.
      rows: fingerprint of the rows.
    """
    test = dataset.splits["test"]
    arrays = {
        "logits": measured.logits,
        "label": test.label,
        "attribute": test.attribute,
        "rows": np.array(rows),
    }
    if test.unit is not None:
        arrays["unit"] = test.unit
    if measured.pair_probability is not None:
        pairs = dataset.pairs["test"]
        arrays |= {"pair_probability": measured.pair_probability, "pair_label": pairs.label}
        if pairs.unit is not None:
            arrays["pair_unit"] = pairs.unit
    write_arrays(folder / NAME, arrays, compressed=True)


def read_predictions(folder: Path) -> Predicted | None:
    """Reads them back; None where a set has none.

    Raises:
      ContractError: a file that is damaged or lacks an array.
    """
    path = Path(folder) / NAME
    if not path.is_file():
        return None
    found = read_arrays("predictions", path)
    wanted = {"logits", "label", "attribute", "rows"}
    expect(wanted <= set(found), str(path), f"arrays {', '.join(sorted(wanted))}", ", ".join(found) or "none")

    def batch(prefix: str, label: np.ndarray, attribute: np.ndarray) -> Batch:
        x = np.zeros((len(label), 1), np.float32)
        return Batch(x, label, attribute, unit=found.get(f"{prefix}unit"))

    pairs = None
    if "pair_probability" in found and "pair_label" in found:
        pairs = batch("pair_", found["pair_label"], np.full(len(found["pair_label"]), -1, np.int32))
    test = batch("", found["label"], found["attribute"])
    return Predicted(found["logits"], test, found.get("pair_probability"), pairs, str(found["rows"]))
