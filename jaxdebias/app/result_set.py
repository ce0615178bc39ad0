"""The folder that a command fills: claimed, carried on after a stop, sealed by results.json, replaced only as a whole.

    measurements.json   while at work: the command, its arguments, and what has been measured so far
    results.json        written last; a folder that has it is complete
    .new/               with `overwrite`: the result that will take the place of the complete one
    .moving/            the same once it is complete, while its files are moved up

Killed at any moment, a folder holds the old result, the new one, or an unfinished one that the same command finishes.
"""

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxdebias.contracts import expect
from jaxdebias.files import write_text
from jaxdebias.results.build import plain

RESULTS, MEASUREMENTS, CHECKPOINTS, PICTURES = "results.json", "measurements.json", "checkpoints", "pictures.npz"
NEW, MOVING = ".new", ".moving"
KEPT = (
    "report.html",
    "report.md",
    "model_card.md",
    "params.npz",
    "head.npz",
    "model",
    "predictions.npz",
    "log.jsonl",
    "draws.npz",
    "patches.npz",
)
"""Files and folders of a complete set besides results.json. Nothing else in a folder is ever touched."""
AT_WORK = (MEASUREMENTS, CHECKPOINTS, PICTURES)
"""Files and folders of an unfinished set, besides."""


class ResultSet:
    """A claimed folder."""

    def __init__(self, out: Path, folder: Path, command: str, arguments: Mapping[str, Any], measured: dict[str, Any]):
        self.out = out
        """Folder that the user named."""
        self.folder = folder
        """Folder to write to: `out`, or one beside its complete result, which is replaced at the end."""
        self.command = command
        self.arguments = arguments
        self.measured = measured
        """Name -> JSON value that `keep` was given, in this call or in the one that was stopped."""

    @property
    def complete(self) -> bool:
        """Whether results.json seals the folder: the same command has ended here before."""
        return (self.folder / RESULTS).is_file()

    def keep(self, **measured: Any) -> None:
        """Saves values at once, for the call that carries on if this one is stopped."""
        self.measured |= plain(measured)
        content = {"command": self.command, "arguments": self.arguments, "measured": self.measured}
        write_text(self.folder / MEASUREMENTS, json.dumps(content, indent=1) + "\n")

    def _seal(self) -> None:
        """Ends the set: removes what only a stopped call needed, and replaces the old result by the new one."""
        _remove(self.folder, (*AT_WORK, *(part.name for part in self.folder.glob(".*.part"))))
        if self.folder != self.out:
            _replace(self.out)


@contextlib.contextmanager
def claim(out: Path, command: str, arguments: Mapping[str, Any], *, overwrite: bool = False) -> Iterator[ResultSet]:
    """The result set of one call of a command. The block writes results.json last; without it the set is unfinished.

    A complete set with the same command and arguments is handed back as it is (`complete`). An error before anything
    was kept leaves no trace.

    Args:
      out: folder, made if missing.
      command: name of the command.
      arguments: what fixes the result, as JSON values; two calls are the same if these are equal.
      overwrite: start anew; a complete set stays until the new one is complete.

    Raises:
      ContractError: a folder that cannot be written, or one with a result of other arguments.
    """
    out, arguments = Path(out), plain(arguments)
    expect(not out.exists() or out.is_dir(), "out", "a folder", f"{out}, which is a file")
    _replace(out)
    sealed = _read(out / RESULTS)
    if sealed is not None and not overwrite:
        difference = _difference(sealed, command, arguments)
        expected = f"a folder without results, or the same command again (or --overwrite to {command} anew)"
        expect(difference is None, "out", expected, f"{out}, {difference}")
        _remove(out, AT_WORK)
        yield ResultSet(out, out, command, arguments, {})
        return
    folder = out if sealed is None else out / NEW
    stopped = _read(folder / MEASUREMENTS)
    difference = None if stopped is None else _difference(stopped, command, arguments)
    if difference is not None:
        expected = f"the command that was stopped there (or --overwrite to {command} anew)"
        expect(overwrite or not _worth(folder, stopped), "out", expected, f"{out}, {difference}")
    if difference is not None:
        _remove(folder, (*KEPT, *AT_WORK))
        stopped = None
    elif stopped is None and overwrite:
        _remove(folder, AT_WORK)
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    run = ResultSet(out, folder, command, arguments, {} if stopped is None else stopped["measured"])
    run.keep()
    try:
        yield run
    except BaseException:
        if not _worth(folder, {"measured": run.measured}):
            _remove(folder, AT_WORK)
            for one in made:
                with contextlib.suppress(OSError):
                    one.rmdir()
        raise
    if run.complete:
        run._seal()


def file_digest(path: Path) -> str:
    """Checksum of a file or of the files in a folder, so that changed input is not taken for the same call."""
    path, checksum = Path(path), 0
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            with open(file, "rb") as stream:
                while block := stream.read(1 << 20):
                    checksum = zlib.crc32(block, checksum)
    return f"crc {checksum:08x}"


def is_complete(out: Path) -> bool:
    """Whether a folder holds a complete result."""
    return (Path(out) / RESULTS).is_file()


def _read(path: Path) -> dict[str, Any] | None:
    """What a set says about itself; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        content = None
    content = content if isinstance(content, dict) else {}
    measured = content.get("measured")
    return {**content, "measured": measured if isinstance(measured, dict) else {}}


def _difference(found: Mapping[str, Any], command: str, arguments: Mapping[str, Any]) -> str | None:
    """The first way in which a set is not that of the command, in words."""
    if "command" not in found:
        return "which has results of something else"
    if found["command"] != command:
        return f"which has results of {found['command']}"
    of_set = found.get("arguments", (found.get("provenance") or {}).get("arguments")) or {}
    for name in {**arguments, **of_set}:
        old, new = of_set.get(name), arguments.get(name)
        if old != new:
            return f"made with {name}={old!r}, not {new!r}"
    return None


def _worth(folder: Path, stopped: Mapping[str, Any]) -> bool:
    """Whether a stopped call left anything that took time to make."""
    return bool(stopped["measured"]) or any((folder / name).exists() for name in (CHECKPOINTS, "params.npz"))


def _replace(out: Path) -> None:
    """Moves a complete new result over the old one. Started again after a kill, it ends the same."""
    new, moving = out / NEW, out / MOVING
    if (new / RESULTS).is_file():
        spared = {one.name for one in new.iterdir()}
        if (_read(out / RESULTS) or {}).get("command") != "debias-language":
            spared.add("model")  # of somebody else
        _remove(out, [name for name in (*KEPT, *AT_WORK) if name not in spared])
        shutil.rmtree(moving, ignore_errors=True)
        os.rename(new, moving)
    if not (moving / RESULTS).is_file():
        return
    (out / RESULTS).unlink(missing_ok=True)
    for one in sorted(moving.iterdir(), key=lambda one: one.name == RESULTS):  # results.json comes last
        if one.is_dir():
            shutil.rmtree(out / one.name, ignore_errors=True)
        os.replace(one, out / one.name)
    moving.rmdir()


def _remove(folder: Path, names: Any) -> None:
    for name in names:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
