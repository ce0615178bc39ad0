"""One form for each value of a class or an attribute, however a file, a frame or an array spells it.

`0`, `0.0`, `"0"` and `False` are one value, and so are `"cat"` and `" cat "`. Missing values are unknown, whether they
are missing (None, NaN, NA, NaT) or written as text. Everything that reads values compares them here: predictions,
`metadata.csv`, arrays, frames and candidates, within one column and between splits or files.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array

Value = bool | int | float | str
"""A canonical value. Python compares and hashes True, 1 and 1.0 as equal, and so do its dictionaries."""

MISSING = frozenset(
    {"", "?", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"}
    | {"NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null", "inf", "-inf"}
)
"""Spellings of a missing value: those that pandas reads as such, `?` (UCI), and infinities."""
BOOLEANS = {"True": True, "true": True, "TRUE": True, "False": False, "false": False, "FALSE": False}
INTEGER = re.compile(r"[+-]?[0-9]+")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

MOST_VALUES = 12
"""Numbers with more values than this are cut into quarters."""
LEAST_ROWS = 5
"""Text with more than `MOST_VALUES` values and fewer known rows per value than this identifies rows."""
COUNTED_ROWS = 100
"""Whole numbers that count rows (each occurs once, few are left out) are noticed from so many rows on."""
MOST_GROUPS = 2**16
"""Most cells of a table of classes and values: more would not be readable, and the results would not fit in memory."""


class Column(NamedTuple):
    """A column of values as numbers."""

    value: Array
    """`[n]` int32 from 0, -1 where unknown."""
    names: tuple[str, ...]
    """Canonical spelling of each number."""
    missing: Mapping[str, int] = {}
    """Text that was read as unknown, and in how many rows; empty cells and true missing values are not listed."""
    problem: str = ""
    """Why it is no attribute that samples share; empty if it is one."""

    @property
    def remark(self) -> str:
        """What a reader must know about the values; empty if there is nothing."""
        notes = []
        if self.missing:
            rows = sum(self.missing.values())
            cells = "1 cell" if rows == 1 else f"{rows} cells"
            notes.append(f"{cells} with {listed(map(repr, self.missing))} {'is' if rows == 1 else 'are'} unknown")
        folded = Counter(name.casefold() for name in self.names)
        if twice := [name for name in self.names if folded[name.casefold()] > 1]:
            notes.append(f"{listed(map(repr, twice))} differ in upper and lower case only and are different values")
        return "; ".join(notes)


def canonical(value: Any) -> Value | None:
    """The canonical form of one value, None if it is missing.

    Args:
      value: a scalar of Python, NumPy, JAX, pandas or polars.

    >>> [canonical(value) for value in ("0", 0.0, np.float32(0.1), " red ", "1e3", "True", np.True_)]
    [0, 0, 0.1, 'red', 1000, True, True]
    >>> [canonical(value) for value in ("", "NA", None, float("nan"), "?")]
    [None, None, None, None, None]
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    scalar = not isinstance(value, list | tuple | dict | set) and np.ndim(value) == 0
    expect(scalar, "value", "one number or text", describe(value))
    text = unicodedata.normalize("NFC", str(value)).strip()
    if text in MISSING:
        return None
    if text in BOOLEANS:
        return BOOLEANS[text]
    if INTEGER.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text) and np.isfinite(number := float(text)):
        return int(number) if number.is_integer() else number
    return text


def canonical_all(values: Any) -> list[Value | None]:
    """The canonical form of every value of a column: a list, an array `[n]` or a Series (its values by position).

    >>> canonical_all(np.array([1.0, np.nan])), canonical_all(["a", None, " a"])
    ([1, None], ['a', None, 'a'])
    """
    known: dict[Any, Value | None] = {}
    found = []
    for value in cells(values):
        key = type(value), value if isinstance(value, str) else repr(value)
        if key not in known:
            known[key] = canonical(value)
        found.append(known[key])
    return found


def cells(values: Any) -> list[Any]:
    """The values of a column by position, as scalars.

    Args:
      values: a list, an array `[n]`, or a Series of pandas, polars or another library that narwhals knows.
    """
    import narwhals as nw  # slow to import

    series = nw.from_native(values, series_only=True, pass_through=True)
    if isinstance(series, nw.Series):
        return list(series.to_list())
    if isinstance(values, list | tuple):
        return list(values)
    array = np.asarray(values)
    expect(array.ndim == 1, "values", "[n]", describe(array))
    return list(array)  # not tolist: float32 keeps its short decimal form


def is_number(value: Value | None) -> bool:
    """Whether a canonical value is a number; booleans are.

    >>> is_number(1), is_number(True), is_number("1a"), is_number(None)
    (True, True, False, False)
    """
    return isinstance(value, bool | int | float)


def in_order(values: Iterable[Value]) -> dict[Value, str]:
    """Different values and their names: numbers by value, everything else by name.

    >>> in_order([10, 2, "a"]), in_order([True, False]), in_order([True, 0])
    ({2: '2', 10: '10', 'a': 'a'}, {False: 'False', True: 'True'}, {0: '0', 1: '1'})
    """
    values = list(values)  # a set would keep True or 1, whichever comes first
    booleans = all(isinstance(value, bool | str) for value in values)

    def name(value: Value) -> str:
        return str(value) if booleans or not isinstance(value, bool) else str(int(value))

    ordered = sorted(
        set(values), key=lambda value: (not is_number(value), name(value) if isinstance(value, str) else value)
    )
    return {value if booleans or not isinstance(value, bool) else int(value): name(value) for value in ordered}


def categories(values: Any) -> Column:
    """Numbers every different value, in order.

    >>> categories(["b", "a", "NA", "b"]).value.tolist(), categories([1, 0.0, "1"]).names
    ([1, 0, -1, 1], ('0', '1'))
    """
    found = canonical_all(values)
    names = in_order(value for value in found if value is not None)
    number_of = {value: i for i, value in enumerate(names)}
    number = np.array([-1 if value is None else number_of[value] for value in found], np.int32)
    return Column(number, tuple(names.values()), _missing(values, found))


def column(values: Any) -> Column:
    """Values as an attribute that samples share: numbers with many values by quarter, everything else by name.

    >>> column(["b", "a", "", "b"]).names
    ('a', 'b')
    >>> column([str(i / 2) for i in range(20)]).names
    ('up to 2.375', 'up to 4.75', 'up to 7.125', 'above 7.125')
    >>> column([f"{i}.png" for i in range(20)]).problem
    'an identifier: 20 values in 20 rows'
    """
    found = canonical_all(values)
    known = [value for value in found if value is not None]
    distinct = set(known)
    if len(distinct) <= MOST_VALUES:
        return categories(values)
    if not all(map(is_number, distinct)):
        few = len(known) < LEAST_ROWS * len(distinct)
        return categories(values)._replace(problem=_identifier(distinct, known) if few else "")
    number = np.array([np.nan if value is None else float(value) for value in found])
    cuts = np.unique(np.quantile(number[~np.isnan(number)], [0.25, 0.5, 0.75]))
    value = np.where(np.isnan(number), -1, np.searchsorted(cuts, number)).astype(np.int32)
    names = (*(f"up to {cut:g}" for cut in cuts), f"above {cuts[-1]:g}")
    counts_rows = (
        len(known) >= COUNTED_ROWS
        and len(distinct) == len(known)
        and all(isinstance(one, int) for one in distinct)
        and max(distinct) - min(distinct) < 2 * len(known)
    )
    return Column(value, names, _missing(values, found), _identifier(distinct, known) if counts_rows else "")


def legitimate_input(name: str, values: Any) -> np.ndarray:
    """`[n]` of an input that may explain the label: numbers, missing ones at the median; or categories, also missing.

    Args:
      name: of the column, for the error.
      values: a column.

    >>> legitimate_input("priors", ["1", "", "3.5"]).tolist(), legitimate_input("charge", ["F", "", "M"]).tolist()
    ([1.0, 2.25, 3.5], [0, 2, 1])
    """
    found = canonical_all(values)
    known = [value for value in found if value is not None]
    expect(bool(known), name, "at least one known value", "none")
    if not all(map(is_number, known)):
        return categories(["missing" if value is None else value for value in found]).value
    middle = float(np.median([float(value) for value in known]))
    return np.array([middle if value is None else float(value) for value in found], np.float64)


def check_groups(what: str, classes: int, values: int) -> None:
    """Refuses an attribute with so many values that the groups could not be listed."""
    expect(
        classes * values <= MOST_GROUPS, what, f"at most {MOST_GROUPS:,} groups", f"{classes} classes x {values} values"
    )


def different_values(values: Mapping[str, Array], names: Sequence[str]) -> str:
    """Says which values occur in training only and which in another split only, if most rows of that split are new.

    Args:
      values: split -> `[n]` numbers of the same names, -1 where unknown.
      names: of the numbers.

    Returns:
      Empty where most rows of every split have values that training has; or without a train split.

    >>> different_values({"train": np.array([0, 0]), "test": np.array([1, -1])}, ["Male", "male"])
    "only in train: 'Male'; only in test: 'male'"
    """
    if "train" not in values:
        return ""
    of_train = set(np.unique(values["train"]).tolist()) - {-1}
    for split, number in values.items():
        known = np.asarray(number)[np.asarray(number) >= 0]
        if of_train and len(known) and np.isin(known, list(of_train)).mean() < 0.5:
            of_split = set(np.unique(known).tolist())
            only = [listed(repr(names[i]) for i in sorted(side)) for side in (of_train - of_split, of_split - of_train)]
            return "; ".join(
                f"only in {name}: {text}" for name, text in zip(("train", split), only, strict=True) if text
            )
    return ""


def check_names(what: str, recorded: Sequence[str], found: Sequence[str]) -> None:
    """Refuses data whose classes or attribute values are not those that a run was made with.

    Args:
      what: whose names they are, for the error.
      recorded: names in the results of the run, in order.
      found: names in the data now, in order.

    >>> check_names("label_names", ["cat", "dog"], ["Dog", "cat"])
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `label_names`: expected 'cat', 'dog', as when the run was made, got 'Dog', 'cat'
    """
    same = list(in_order_of(recorded)) == list(in_order_of(found))
    expected = f"{listed(map(repr, recorded))}, as when the run was made"
    expect(same, what, expected, listed(map(repr, found)))


def in_order_of(names: Sequence[str]) -> list[Value | None]:
    """Canonical values of names, in the order given: `"0.0"` and `"0"` name one class.

    >>> in_order_of(["0.0", "cat"])
    [0, 'cat']
    """
    return [canonical(name) for name in names]


def listed(words: Iterable[str], most: int = 6) -> str:
    """Words with commas, the first few of many.

    >>> listed("abc"), listed("abcdefgh")
    ('a, b, c', 'a, b, c, d, e, f and 2 more')
    """
    words = list(words)
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def _identifier(distinct: set[Value], known: Sequence[Value]) -> str:
    return f"an identifier: {len(distinct):,} values in {len(known):,} rows"


def _missing(values: Any, found: Sequence[Value | None]) -> dict[str, int]:
    text = (
        cell.strip()
        for cell, value in zip(cells(values), found, strict=True)
        if value is None and isinstance(cell, str)
    )
    return dict(Counter(word for word in text if word))
