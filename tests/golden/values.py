"""What is kept of a run, small enough to be read in a diff, and how two of them are compared.

    PYTHONPATH=tests python -m golden.values OUT [RUN ...]   writes golden files anew from what `runs.py OUT` made

After a deliberate change of results.json, say so in `RENAMED` or `CHANGED` and leave the golden files alone: then they
still show that nothing else moved. They are written anew only when the numbers themselves are meant to change.
"""

import json
import math
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from golden.runs import CHAINS, MACHINE, TIMES, digest

HERE = Path(__file__).parent
LONGEST = 12
"""Of lists that are kept value by value; of longer ones, count and digest."""
RTOL, ATOL = 1e-4, 1e-6
"""float32 sums of another order (another instruction set, another fusion) differ in the seventh digit, and training
and the solves that follow carry that to the fifth. One prediction in another class, of the 3,470 of the digits, is
3e-4 of an accuracy of 1: it is seen. Below 1e-6 are p-values of no doubt, and means of what cancels."""

RENAMED: dict[str, str] = {}
"""Dotted path of before -> the one of now; holds for all below it, too. The longest that fits counts."""
CHANGED: dict[str, str] = {
    "schema": "new: version of the format",
    "command": "new: which command wrote the file",
    "provenance.arguments": "new: the options of the command",
    "provenance.date": "new: depends on the clock",
    "provenance.data": "new: fingerprint of the data",
    "provenance.seconds_by_step": "moved from the top level, and new in repairs of feature files",
    "provenance.seconds_by_part": "new: what rounds and baselines took, which lay beside what they found",
    "seconds_by_step": "moved into provenance",
    "predictions.npz": "kept beside the results, so that two of them are compared row by row",
}
"""Dotted path of before or of now -> why it, and all below it, is not compared any more."""
NEW: dict[str, str] = {"verdict": "every command that judges writes it"}
"""Dotted path -> why results hold it, and all below it, that held nothing there; where they did, it is compared."""


def values(results: Any) -> dict[str, Any]:
    """Dotted path -> value: all of a results.json, long lists by a digest, without what the machine decides.

    >>> values({"seed": 0, "before": {"accuracy": {"value": 0.5}}, "names": ["a", "b"], "seconds": 3.0})
    {'seed': 0, 'before.accuracy.value': 0.5, 'names.0': 'a', 'names.1': 'b'}
    >>> values({"groups": [{"n": 1, "share": 0.5}] * 20})["groups.n"]
    {'count': 20, 'exact': '2f52a424'}
    """
    return dict(_flat("", results))


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    inside = f"{path}." if path else ""
    if isinstance(value, Mapping):
        if not value:
            yield path, "{}"
        for name, one in value.items():
            if name in TIMES and isinstance(one, Mapping):
                yield inside + name, sorted(one)  # the steps, not what they took
            elif name not in (*TIMES, *MACHINE):
                yield from _flat(inside + name, one)
    elif isinstance(value, list) and len(value) > LONGEST and all(isinstance(one, Mapping) for one in value):
        for name in dict.fromkeys(name for one in value for name in one):  # by column
            if name not in TIMES:
                yield from _flat(inside + name, [one.get(name) for one in value])
    elif isinstance(value, list):
        leaves = list(_leaves(value))
        if len(leaves) > LONGEST and not any(isinstance(one, Mapping) for one in leaves):
            yield path, _digest(value, leaves)
        else:
            if not value:
                yield path, "[]"
            for number, one in enumerate(value):
                yield from _flat(f"{inside}{number}", one)
    else:
        yield path, value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def _digest(value: list, leaves: list) -> dict[str, Any]:
    """Of floats three means, beside how many there are; of all else a check sum."""
    if any(isinstance(one, float) for one in leaves) and not any(isinstance(one, str) for one in leaves):
        known = [one for one in leaves if one is not None]
        return {"count": len(leaves), "known": len(known), "means": digest(known)}
    return {"count": len(leaves), "exact": f"{zlib.crc32(json.dumps(value).encode()):08x}"}


def kept(folder: Path) -> dict[str, Any]:
    """What is kept of a run that `runs.py` wrote: its values, arrays and files; of a check, what it printed."""
    if not (folder / "results.json").is_file():
        return {"printed": (folder / "printed.txt").read_text(encoding="utf-8")}
    read = {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("results", "arrays")}
    files = (folder / "files.txt").read_text(encoding="utf-8").split()
    return {
        "values": values(read["results"]),
        "arrays": values(read["arrays"]) if read["arrays"] else {},
        "files": dict.fromkeys(files, "written"),
    }


def differences(
    golden: Mapping[str, Any],
    now: Mapping[str, Any],
    renamed: Mapping[str, str] = RENAMED,
    changed: Mapping[str, str] = CHANGED,
) -> list[str]:
    """One line per path that is missing, new, or of another value.

    >>> differences({"a.b": 1, "c": 2.0}, {"d.b": 1, "c": 2.00001, "e": 0}, {"a": "d"}, {"e": "new"})
    []
    >>> differences({"a": 1}, {"a": 2, "verdict.alpha": 0.05}, {}, {})
    ['a: 1 before, 2 now']
    >>> differences({"verdict.alpha": 0.05}, {"verdict.alpha": 0.05, "verdict.level": 0.95}, {}, {})
    ['verdict.level: new, 0.95']
    """
    before = {_moved(path, renamed): value for path, value in golden.items() if not _under(path, changed)}
    found = []
    for path in dict.fromkeys([*before, *now]):
        if _under(path, changed):
            continue
        if before.get(path) is None and now.get(path) is None:
            continue  # what does not apply is null or left out
        new = _under(path, NEW)
        if new is not None and not any(_under(old, {new: ""}) for old in before):
            continue
        if path not in now or path not in before:
            what = before.get(path, now.get(path))
            found.append(f"{path}: {'new' if path in now else 'gone'}, {json.dumps(what)[:100]}")
        elif not same(before[path], now[path]):
            found.append(f"{path}: {json.dumps(before[path])} before, {json.dumps(now[path])} now")
    return found


def _under(path: str, paths: Mapping[str, str]) -> str | None:
    """The longest of the paths that is this one or above it."""
    return max((one for one in paths if path == one or path.startswith(f"{one}.")), key=len, default=None)


def _moved(path: str, renamed: Mapping[str, str]) -> str:
    old = _under(path, renamed)
    return path if old is None else renamed[old] + path[len(old) :]


def same(before: Any, now: Any) -> bool:
    """Equal, numbers with a fraction up to `RTOL`.

    >>> same(0.5, 0.50001), same(0.5, 0.51), same(3, 4), same("shortcut", "none"), same(1, True)
    (True, False, False, False, False)
    """
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(same(before[name], now[name]) for name in before)
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(same(*both) for both in zip(before, now, strict=True))
    if isinstance(before, float) and isinstance(now, float):
        return math.isclose(before, now, rel_tol=RTOL, abs_tol=ATOL)
    return type(before) is type(now) and before == now


def names(chain: str) -> list[str]:
    """The runs of a chain, each once."""
    return list(dict.fromkeys(run.name for run in CHAINS[chain].runs))


def write(out: Path, wanted: Sequence[str] = ()) -> None:
    """Writes the golden file of the wanted runs, or of every run; numbers to six digits."""
    for name in wanted or (name for chain in CHAINS for name in names(chain)):
        parts = {
            part: {path: one for path, one in found.items() if not _under(path, CHANGED)}
            if isinstance(found, dict)
            else found
            for part, found in kept(out / name).items()
        }
        text = json.dumps(_short(parts), indent=0, separators=(",", ":"), ensure_ascii=False)
        (HERE / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_short(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2:])
