"""JSON files of a checkpoint's folder, which may be pointers, pages or of other types than they should be."""

import json
from typing import Any

from jaxdebias.contracts import expect
from jaxdebias.files import one_line

POINTER = b"version https://git-lfs"


def read_object(what: str, content: bytes) -> dict[str, Any]:
    """The JSON object in the bytes of a file, with or without a byte order mark.

    Args:
      what: the file's name, for the error.
      content: its bytes.

    Raises:
      ContractError: a Git LFS pointer, no UTF-8, no JSON, or JSON that is no object.

    >>> read_object("config.json", b"[]")
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `config.json`: expected a JSON object {...}, got list
    """
    pointer = "a Git LFS pointer (run `git lfs pull` in the folder)"
    expect(not content.startswith(POINTER), what, "a JSON file", pointer)
    value, problem = None, ""
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError, MemoryError) as error:  # of JSON and of UTF-8
        problem = one_line(error)
    expect(not problem, what, "a JSON file", f"{problem}, in a file that begins {content[:20]!r}")
    expect(isinstance(value, dict), what, "a JSON object {...}", type(value).__name__)
    return value


def count(what: str, settings: dict[str, Any], key: str, default: int | None = None, least: int = 1) -> int:
    """A whole number of a configuration, at least `least`; missing or null is the default.

    >>> count("config.json", {"n_head": None}, "n_head")
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `n_head in config.json`: expected a whole number of at least 1, got None
    """
    value = settings.get(key)
    value = default if value is None else value
    good = isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31
    expect(good, f"{key} in {what}", f"a whole number of at least {least}", repr(value)[:60])
    return value


def share(what: str, settings: dict[str, Any], key: str) -> float:
    """A number from 0 up to, but without, 1 of a configuration.

    >>> share("config.json", {"attn_pdrop": 0.1}, "attn_pdrop")
    0.1
    """
    value = settings.get(key)
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
    expect(good, f"{key} in {what}", "a number in 0..1, below 1", repr(value)[:60])
    return float(value)
