"""Training counts in a CSV file, for audits of predictions without training rows.

| column | what it holds |
| --- | --- |
| `attribute` | name of a candidate column |
| `value` | one of its values |
| `label` | a class |
| `count` | how many training rows have both |

Combinations that are not listed have none. Values are compared as in `data._values`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxdebias.contracts import expect
from jaxdebias.data._values import Column, canonical, in_order_of, listed
from jaxdebias.data.csv_files import read_csv

COLUMNS = ("attribute", "value", "label", "count")


def read_train_counts(path: Path, classes: tuple[str, ...], columns: Mapping[str, Column]) -> dict[str, np.ndarray]:
    """Reads name -> `[k a]` training rows by class and value, of the attributes that the file lists.

    Args:
      path: a CSV file with the columns attribute, value, label and count.
      classes: names of the classes.
      columns: the candidate attributes.

    Raises:
      ContractError: no file, missing columns, unknown names, or counts that are no whole numbers of at least 0.
    """
    path = Path(path)
    expect(path.is_file(), "train_counts", "a CSV file", path)
    header, rows = read_csv(path)
    expect(set(COLUMNS) <= set(header), path.name, f"columns {', '.join(COLUMNS)}", ", ".join(header) or "nothing")
    labels = in_order_of(classes)
    found: dict[str, np.ndarray] = {}
    for row in rows:
        where, name = f"{path.name} line {row.line}", row.cells["attribute"]
        expect(name in columns, where, f"one of {listed(columns)}", repr(name))
        values = in_order_of(columns[name].names)
        for what, known in (("label", labels), ("value", values)):
            names = classes if what == "label" else columns[name].names
            expect(canonical(row.cells[what]) in known, where, f"{what} among {listed(names)}", repr(row.cells[what]))
        count = canonical(row.cells["count"])
        good = isinstance(count, int) and not isinstance(count, bool) and count >= 0
        expect(good, where, "count: a whole number of at least 0", repr(row.cells["count"]))
        table = found.setdefault(name, np.zeros((len(labels), len(values)), np.int64))
        table[labels.index(canonical(row.cells["label"])), values.index(canonical(row.cells["value"]))] += count
    empty = [name for name, table in found.items() if not table.any()]
    expect(not empty, path.name, "a count above 0 for each attribute", f"only 0 for {listed(empty)}")
    return found
