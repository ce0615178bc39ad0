"""`results.json`: records as strict JSON, and back. What is read is whole and of this version, or refused by name.

    write_results("run/results.json", record)
    record = read_results("run")

One JSON object: `schema`, the version of the format; `command` and `provenance`, the same for every command; then the
fields of the record, flat. A field with a default is left out where it has its default.
"""

# It walks through values of any kind; what is in one is unknown before it is looked at.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from jaxdebias.contracts import ContractError, describe, expect
from jaxdebias.files import write_text
from jaxdebias.results._consistency import check_consistency
from jaxdebias.results.records import CompareResults, FeatureResults, LanguageResults, Results, RunResults, TableResults

SCHEMA = 2
"""Version of the format. Files of version 1 had no `schema`."""
RECORDS: Mapping[str, type[Results]] = {
    "train": RunResults,
    "debias": RunResults,
    "audit": RunResults,
    "audit-predictions": RunResults,
    "debias-features": FeatureResults,
    "debias-language": LanguageResults,
    "compare": CompareResults,
    "reproduce": TableResults,
}
"""Command -> the record that it writes."""
_FORMER = {"dataset", "method", "before", "seconds"}
"""Some of these keys are in every file of version 1."""

T = TypeVar("T")


def to_json(record: Results) -> dict[str, Any]:
    """What `results.json` holds, as plain JSON values.

    Raises:
      ContractError: naming a value that JSON does not have (NaN, an array), or a field that does not fit the others.
    """
    plain = {"schema": SCHEMA, **_plain(record, "results")}
    from_json(plain)
    return plain


def from_json(plain: Any, what: str = "results") -> Results:
    """The record of plain JSON values.

    Args:
      plain: what a file held.
      what: the name of the source, for the error.

    Raises:
      ContractError: another format or version, or what does not follow the schema, in one line.
    """
    expect(isinstance(plain, Mapping), what, "a JSON object", describe(plain))
    if "schema" not in plain:
        former = len(_FORMER & set(plain)) >= 2
        expect(not former, what, f"results of format {SCHEMA}", "those of a former version: run the command again")
        keys = ", ".join(map(str, plain)) or "no key"
        expect(False, what, "results of jaxdebias, with a key 'schema'", keys[:80])
    version = plain["schema"]
    expect(version is not True and version == SCHEMA, what, f"results of format {SCHEMA}", f"format {version!r}")
    command = plain.get("command")
    known = isinstance(command, str) and command in RECORDS
    expect(known, f"{what}: command", f"one of {', '.join(RECORDS)}", repr(command))
    record = convert(_with_python_names(plain), RECORDS[str(command)], what)
    check_consistency(record)
    lost = _lost({key: value for key, value in plain.items() if key != "schema"}, _plain(record, what))
    expect(lost is None, what, "only keys of this version", f"another key, {lost}")
    return record


def write_results(path: str | os.PathLike[str], record: Results) -> None:
    """Writes a record, checked; a reader never sees half a file.

    Args:
      path: of `results.json`.
      record: what a command found.
    """
    write_text(path, json.dumps(to_json(record), indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_results(path: str | os.PathLike[str]) -> Results:
    """Reads the record that any command wrote.

    Args:
      path: of `results.json`, or the folder in which it lies.

    Raises:
      ContractError: in one line, if there is no such file, it is no JSON, of another version, or damaged.
    """
    path = pathlib.Path(path)
    path = path / "results.json" if path.is_dir() else path
    expect(path.is_file(), str(path), "a results.json that a command has written", "no such file")
    try:
        plain = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"`{path}`: expected JSON, got {' '.join(str(error).split())}") from None
    try:
        return from_json(plain)
    except ContractError as error:
        raise ContractError(f"{path}, {error}") from None


def read_run(path: str | os.PathLike[str]) -> RunResults:
    """Reads the record of a classifier on a data set: of `train`, `debias`, `audit` or `audit-predictions`.

    Raises:
      ContractError: as `read_results`; also where another command wrote the file.
    """
    record = read_results(path)
    commands = ", ".join(command for command, kind in RECORDS.items() if kind is RunResults)
    expect(isinstance(record, RunResults), str(path), f"results of {commands}", f"those of {record.command}")
    assert isinstance(record, RunResults)
    return record


def convert(plain: Any, kind: type[T], what: str) -> T:
    """Plain JSON values as a dataclass, checked against its types. Strings become paths where paths are meant.

    Raises:
      ContractError: naming the first value that does not fit.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     seed: int
    >>> convert({"seed": 3}, Config, "config").seed
    3
    >>> convert({"seed": "3"}, Config, "config")
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `config.seed`: expected int, got str
    """
    try:
        return msgspec.convert(plain, kind, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ContractError(_in_one_line(str(error), what)) from None


def _plain(value: Any, what: str) -> Any:
    """A record as plain JSON values."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        expect(math.isfinite(value), what, "a finite number or null", value)
        return float(value)  # np.float64 is one
    if dataclasses.is_dataclass(value):
        return {
            json_name(field.name): _plain(held, f"{what}.{field.name}")
            for field in dataclasses.fields(value)
            if (held := getattr(value, field.name)) is not field.default
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(held, f"{what}.{key}") for key, held in value.items()}
    expect(isinstance(value, list | tuple), what, "a JSON value", describe(value))
    return [_plain(held, f"{what}[{i}]") for i, held in enumerate(value)]


def json_name(name: str) -> str:
    """`class` is no name in Python.

    >>> json_name("class_")
    'class'
    """
    return name.removesuffix("_")


def _with_python_names(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keys `class` of a verdict's disparities under the name of their field."""
    verdict = plain.get("verdict")
    if not isinstance(verdict, Mapping) or not isinstance(verdict.get("disparity"), list):
        return plain
    renamed = [
        {("class_" if key == "class" else key): value for key, value in entry.items()}
        if isinstance(entry, Mapping)
        else entry
        for entry in verdict["disparity"]
    ]
    return {**plain, "verdict": {**verdict, "disparity": renamed}}


def _lost(given: Any, kept: Any, where: str = "") -> str | None:
    """The first key of a file that its record does not hold."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            name = f"{where}.{key}" if where else str(key)
            if not isinstance(kept, Mapping) or (key not in kept and value is not None):
                return name
            if key in kept and (found := _lost(value, kept[key], name)) is not None:
                return found
    elif isinstance(given, list):
        for i, (value, held) in enumerate(zip(given, kept, strict=True)):
            if isinstance(value, dict | list) and (found := _lost(value, held, f"{where}[{i}]")) is not None:
                return found
    return None


def _path(kind: type, value: Any) -> Any:
    if issubclass(kind, pathlib.Path):
        return kind(value)
    raise NotImplementedError(kind)


def _in_one_line(message: str, what: str) -> str:
    """
    >>> _in_one_line("Expected `float` <= 1.0 - at `$.before.accuracy.value`", "results")
    '`results.before.accuracy.value`: expected float <= 1.0'
    >>> _in_one_line("Object missing required field `seed`", "results")
    "`results`: expected a key 'seed'"
    """
    message, _, where = message.partition(" - at `$")
    what = f"{what}{where.rstrip('`')}"
    if missing := re.fullmatch(r"Object missing required field `(.*)`", message):
        return f"`{what}`: expected a key {json_name(missing[1])!r}"
    message = message.replace("`", "").replace("array", "list").replace("object", "dict")
    return f"`{what}`: {message[:1].lower()}{message[1:]}"


def _refuse(token: str) -> None:
    raise ValueError(f"{token}, which JSON does not have")
