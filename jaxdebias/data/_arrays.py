"""Arrays and frames of any library as a data set: NumPy, JAX, pandas, polars and what else narwhals knows.

    dataset = from_arrays(images, label, attribute, split=split)
    dataset = from_frame(frame, label="income", attribute="sex")

Rows are taken by position, never by index. Classes and values are compared as `data._values` says.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdebias.contracts import check_choice, check_dataset, describe, expect
from jaxdebias.core import Batch, Dataset, take
from jaxdebias.data._aligned import aligned_cells
from jaxdebias.data._folder import matched_rows
from jaxdebias.data._values import canonical_all, categories, cells, check_groups, column, in_order, is_number, listed
from jaxdebias.data.streams import named_rng

SPLITS: Mapping[Any, str] = {
    **{"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"},
    **{"edit": "edit", "accept": "accept", 0: "train", 1: "val", 2: "test"},
}
"""Values of a column of splits, and what they mean. `val` is divided into edit and accept."""


def from_arrays(
    x: Any,
    label: Any,
    attribute: Any = None,
    *,
    split: Any = None,
    unit: Any = None,
    weight: Any = None,
    name: str = "arrays",
    attribute_name: str = "attribute",
    test_share: float = 0.2,
    edit_share: float = 0.2,
    accept_share: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """A data set of rows that lie in memory, one value of each argument per row.

    Splits: as given; `val` is divided by seed into edit and accept, in the proportion of their shares. What is missing
    is drawn by seed from train, and test from all rows where none is named; `variant["split"]` says which. Rows of one
    unit stay together. Pairs of edit, accept and test are matched: two rows of one label, one aligned, one conflicting.

    Args:
      x: images `[n h w c]`, uint8 or float in [0, 1], or a table `[n d]` of numbers; a frame is a table.
      label: `[n]` classes, numbers or text.
      attribute: `[n]` values of the bias attribute, missing ones unknown; numbers with many values are cut at their
        quartiles. None: it is unknown.
      split: `[n]` of train, val, test, edit and accept, or 0, 1 and 2. None: all of them by seed.
      unit: `[n]` of what is not independent of each other: the pictures of one patient. None: every row by itself.
      weight: `[n]`, 0 is padding. None: 1.
      name: of the data set.
      attribute_name: what the attribute is called.
      test_share: of all rows, where no test rows are named.
      edit_share: of the training rows, where neither these nor val is named.
      accept_share: as `edit_share`.
      seed: of every draw.

    Raises:
      ContractError: columns of different lengths, a missing label, an attribute that is an identifier, a split without
        rows, numbers that are not finite.

    >>> dataset = from_arrays(np.eye(40), ["cat", "dog"] * 20, [0.0, 1.0, 1.0, 0.0] * 10)
    >>> {name: len(batch.label) for name, batch in dataset.splits.items()}
    {'train': 23, 'edit': 6, 'accept': 3, 'test': 8}
    >>> dataset.label_names, dataset.attribute_names
    (('cat', 'dog'), ('0', '1'))
    """
    inputs = _inputs(x)
    n = len(inputs.x)
    for what, values in (
        ("label", label),
        ("attribute", attribute),
        ("split", split),
        ("unit", unit),
        ("weight", weight),
    ):
        length = n if values is None else len(cells(values))
        expect(length == n, what, f"[n={n}]", f"[{length}]")
    classes = categories(label)
    missing = np.flatnonzero(classes.value < 0)
    expect(
        not len(missing), "label", "a class in every row", f"none in {len(missing)} rows, row {[*missing, 0][0]} first"
    )
    expect(len(classes.names) >= 2, "label", "at least two classes", ", ".join(classes.names))
    values = column([None] * n if attribute is None else attribute)
    expect(not values.problem, attribute_name, "values that samples share", values.problem)
    names = values.names or ("unknown",)
    check_groups(attribute_name, len(classes.names), len(names))
    units = None if unit is None else _units(unit)
    parts, drawn = _parts(split, units, n, seed, test_share, edit_share, accept_share)

    everything = Batch(
        x=inputs.x,
        label=classes.value,
        attribute=values.value,
        weight=None if weight is None else np.asarray(cells(weight), np.float32),
        unit=units,
    )
    splits = {part: take(everything, rows) for part, rows in parts.items()}
    train, known = splits["train"], bool((values.value >= 0).any())
    aligned = np.zeros((len(classes.names), len(names)), bool)
    if known:
        aligned = aligned_cells(train.label, train.attribute, len(classes.names), len(names))
    pairs = {}
    for part in ("edit", "accept", "test") if known else ():
        batch = splits[part]
        rows = np.flatnonzero(batch.attribute >= 0)
        one, other = matched_rows(named_rng(seed, f"arrays pairs {part}"), take(batch, rows), aligned)
        if len(one):
            pairs[part] = take(batch, rows[one])._replace(twin=batch.x[rows[other]])
    dataset = Dataset(
        name=name,
        variant={
            "attribute": attribute_name,
            "split": f"{', '.join(drawn)} drawn by seed {seed}" if drawn else "as given",
            **({"attribute_values": values.remark} if values.remark else {}),
            **{part: len(rows) for part, rows in parts.items()},
        },
        splits=splits,
        pairs=pairs,
        label_names=classes.names,
        attribute_names=names,
        aligned=aligned,
        pairing="matched" if pairs else "none",
        feature_names=inputs.names,
    )
    check_dataset(dataset)
    return dataset


def from_frame(
    frame: Any,
    *,
    label: str,
    attribute: str | None = None,
    features: Sequence[str] | None = None,
    split: str | None = None,
    unit: str | None = None,
    weight: str | None = None,
    name: str = "frame",
    test_share: float = 0.2,
    edit_share: float = 0.2,
    accept_share: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """A data set of the columns of a frame. Text and categories among the features become one column per value.

    Args:
      frame: of pandas, polars or another library that narwhals knows; a dictionary of columns.
      label: names of columns, see `from_arrays`.
      attribute: names of columns, see `from_arrays`.
      split: names of columns, see `from_arrays`.
      unit: names of columns, see `from_arrays`.
      weight: names of columns, see `from_arrays`.
      features: names of the columns of x; None: all that have no other role. The attribute is one only if named here.
      name: of the data set.
      test_share: see `from_arrays`.
      edit_share: see `from_arrays`.
      accept_share: see `from_arrays`.
      seed: see `from_arrays`.

    Raises:
      ContractError: an unknown column, a feature with missing values or one that is an identifier, and what
        `from_arrays` refuses.

    >>> frame = {"job": ["a", "b"] * 20, "hours": list(range(40)), "sex": list("fm") * 20, "rich": [0, 1, 1, 0] * 10}
    >>> from_frame(frame, label="rich", attribute="sex").feature_names
    ('job=a', 'job=b', 'hours')
    """
    columns = _columns(frame)
    roles = {"label": label, "attribute": attribute, "split": split, "unit": unit, "weight": weight}
    roles = {role: of for role, of in roles.items() if of is not None}
    for role, of in [*roles.items(), *(("features", of) for of in features or ())]:
        check_choice(role, of, columns)
    if features is None:
        features = [of for of in columns if of not in roles.values()]
    return from_arrays(
        {of: columns[of] for of in features},
        **{role: columns[of] for role, of in roles.items()},
        name=name,
        attribute_name=attribute or "attribute",
        test_share=test_share,
        edit_share=edit_share,
        accept_share=accept_share,
        seed=seed,
    )


class _Inputs(NamedTuple):
    x: np.ndarray
    names: tuple[str, ...]


# The vocabulary imports nothing of ours; its type gets its ways to be made from here.
Dataset.from_arrays = staticmethod(from_arrays)
Dataset.from_frame = staticmethod(from_frame)


def _inputs(x: Any) -> _Inputs:
    """x as an array that `check_batch` takes, and the names of its columns."""
    if isinstance(x, Mapping) or hasattr(x, "columns"):
        return _table(_columns(x))
    array = np.asarray(x)
    expect(array.ndim in (2, 4) and array.dtype != object, "x", "images [n h w c] or a table [n d]", describe(array))
    whole = np.issubdtype(array.dtype, np.integer) or array.dtype == bool
    if array.ndim == 4 and whole and array.dtype != np.uint8 and array.size and array.min() >= 0 and array.max() <= 255:
        array = array.astype(np.uint8)
    return _Inputs(array.astype(np.float32) if array.ndim == 2 and whole else array, ())


def _columns(frame: Any) -> dict[str, list[Any]]:
    """Name -> values by position."""
    if isinstance(frame, Mapping):
        return {str(name): cells(values) for name, values in frame.items()}
    import narwhals as nw  # slow to import

    found = nw.from_native(frame, eager_only=True, pass_through=True)
    expect(isinstance(found, nw.DataFrame), "frame", "a data frame or columns by name", describe(frame))
    return {name: cells(found[name].to_native()) for name in found.columns}


def _table(columns: Mapping[str, Sequence[Any]]) -> _Inputs:
    """Numbers as they are, everything else as one column of 0 and 1 per value."""
    expect(bool(columns), "features", "at least one column", "none")
    lengths = {name: len(values) for name, values in columns.items()}
    expect(len(set(lengths.values())) == 1, "features", "columns of one length", ", ".join(map(str, lengths.values())))
    found, names = [], []
    for name, values in columns.items():
        canonical = canonical_all(values)
        missing = sum(value is None for value in canonical)
        expect(not missing, name, "a value in every row: fill or leave out what is missing", f"{missing} missing")
        if all(map(is_number, canonical)):
            found.append(np.array(canonical, np.float32)[:, None])
            names.append(name)
            continue
        problem = column(values).problem
        expect(not problem, name, "a feature (name the columns of x in features)", problem)
        values = in_order(canonical)
        number_of = {value: i for i, value in enumerate(values)}
        found.append(np.eye(len(values), dtype=np.float32)[[number_of[value] for value in canonical]])
        names += [f"{name}={text}" for text in values.values()]
    return _Inputs(np.concatenate(found, axis=1), tuple(names))


def _units(unit: Any) -> np.ndarray:
    number = categories(unit).value
    missing = int((number < 0).sum())
    expect(not missing, "unit", "a unit in every row", f"none in {missing} rows")
    return number


def _parts(
    split: Any, unit: np.ndarray | None, n: int, seed: int, test_share: float, edit_share: float, accept_share: float
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Rows of train, edit, accept and test in order, and which of them were drawn."""
    for what, share in (("test_share", test_share), ("edit_share", edit_share), ("accept_share", accept_share)):
        expect(0 < share < 1, what, "a share above 0 and below 1", share)
    expect(edit_share + accept_share < 1, "edit_share + accept_share", "below 1", edit_share + accept_share)
    given = ["train"] * n
    if split is not None:
        values = canonical_all(split)
        unknown = in_order(value for value in values if value is not None and value not in SPLITS)
        good = not unknown and None not in values
        expect(
            good, "split", "train, val, test, edit, accept or 0, 1, 2", listed(map(repr, unknown.values())) or "nothing"
        )
        given = [SPLITS[value] for value in values]
    part, drawn = np.array(given, dtype="<U6"), []
    unit = np.arange(n) if unit is None else unit
    rng = named_rng(seed, "arrays split")

    def draw(source: str, shares: Mapping[str, float]) -> None:
        """Moves units of one part to others."""
        units = rng.permutation(np.unique(unit[part == source]))
        rows, ends = part == source, np.cumsum([round(share * len(units)) for share in shares.values()])
        for name, chosen in zip(shares, np.split(units, ends)[: len(shares)], strict=True):
            part[rows & np.isin(unit, chosen)] = name
            drawn.append(name)

    if "test" not in part:
        draw("train", {"test": test_share})
    if "val" in part:
        both = edit_share + accept_share
        draw("val", {"edit": edit_share / both, "accept": accept_share / both})
        part[part == "val"] = "accept"
    elif not {"edit", "accept"} & set(part.tolist()):
        draw("train", {"edit": edit_share, "accept": accept_share})
    found = {name: np.flatnonzero(part == name) for name in ("train", "edit", "accept", "test")}
    for name, rows in found.items():
        expect(len(rows) > 0, "split", f"rows of {name}", f"{n} rows, none of it")
    return found, drawn
