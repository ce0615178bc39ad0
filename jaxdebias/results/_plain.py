"""Measured values as plain JSON values: the one place where arrays become lists and NaN becomes null."""

# It walks through values of any kind; what is in one is unknown before it is looked at.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
import dataclasses
import math
import numbers
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdebias.contracts import describe, expect


def plain(value: Any, what: str = "results") -> Any:
    """Plain JSON values: arrays and tuples become lists, NamedTuples and dataclasses dicts, NaN and infinities None.

    Args:
      value: anything made of numbers, texts, arrays, paths, dicts and sequences.
      what: the name of the value, for the error.

    Raises:
      ContractError: naming what JSON does not have.

    >>> plain({"rate": np.float32("nan"), "n": np.int32(3), "counts": np.arange(2)})
    {'rate': None, 'n': 3, 'counts': [0, 1]}
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return finite(value)
    if isinstance(value, pathlib.Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{what}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: plain(getattr(value, field.name), f"{what}.{field.name}") for field in fields}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict(), what)  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, list) and all(type(item) in (int, str, bool) for item in value):
        return list(value)  # nothing to convert: spares the tables of counts a call for each number
    if isinstance(value, list | tuple):
        return [plain(item, f"{what}[{i}]") for i, item in enumerate(value)]
    numeric = hasattr(value, "dtype") and hasattr(value, "shape") and np.asarray(value).dtype.kind in "biufU"
    expect(numeric, what, "a JSON value or an array of numbers", describe(value))
    return plain(np.asarray(value).tolist(), what)


def finite(value: Any) -> float | None:
    """A number as a float; None for None, NaN and infinities.

    >>> finite(np.float32(0.5)), finite(float("nan")), finite(None)
    (0.5, None, None)
    """
    return None if value is None or not math.isfinite(value) else float(value)


def nested(array: Any) -> tuple[Any, ...]:
    """An array as nested tuples of Python numbers.

    >>> nested(np.eye(2, dtype=int))
    ((1, 0), (0, 1))
    """
    array = np.asarray(array)
    return tuple(array.tolist()) if array.ndim < 2 else tuple(map(nested, array))
