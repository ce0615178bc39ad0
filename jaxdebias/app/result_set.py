"""The folder that a command fills: claimed, carried on after a stop, sealed by results.json, replaced only as a whole.

    measurements.json   while at work: the command, its arguments, and what has been measured so far
    results.json        written last; a folder that has it is complete
    .new/               with `overwrite`: the result that will take the place of the complete one
    .moving/            the same once it is complete, while its files are moved up

Killed at any moment, a folder holds the old result, the new one, or an unfinished one that the same command finishes.
While one process fills it, a second one is refused.
"""

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxdebias.contracts import ContractError, expect
from jaxdebias.files import locked, one_line, read_sealed, write_sealed
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

    def __init__(
        self,
        out: Path,
        folder: Path,
        command: str,
        arguments: Mapping[str, Any],
        measured: dict[str, Any],
        check_there: Callable[[], None],
    ):
        self.out = out
        """Folder that the user named."""
        self.folder = folder
        """Folder to write to: `out`, or one beside its complete result, which is replaced at the end."""
        self.command = command
        self.arguments = arguments
        self.measured = measured
        """Name -> JSON value that `keep` was given, in this call or in the one that was stopped."""
        self._check_there = check_there

    @property
    def complete(self) -> bool:
        """Whether results.json seals the folder: the same command has ended here before."""
        return (self.folder / RESULTS).is_file()

    def keep(self, **measured: Any) -> None:
        """Saves values at once, for the call that carries on if this one is stopped."""
        self._check_there()
        self.measured |= plain(measured)
        content = {"command": self.command, "arguments": self.arguments, "measured": self.measured}
        write_sealed(self.folder / MEASUREMENTS, content)

    def _seal(self) -> None:
        """Ends the set: removes what only a stopped call needed, and replaces the old result by the new one."""
        try:
            self._check_there()
        except ContractError:
            (self.folder / RESULTS).unlink(missing_ok=True)  # what was written before is not beside it
            raise
        _remove_unfinished(self.folder)
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
    made = [one for one in (out, *out.parents) if not one.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ContractError(f"`{out}`: expected a folder that can be written, got {one_line(error)}") from None
    with locked(out) as check_there:
        run = None
        try:
            run = _found(out, command, arguments, overwrite, check_there)
            if not run.complete:
                run.keep()
            yield run
        except BaseException:
            if run is not None and not run.complete and not _worth(run.folder, {"measured": run.measured}):
                _remove_unfinished(run.folder)
                made = made if run.folder == out else [run.folder]
            for one in made:
                with contextlib.suppress(OSError):
                    one.rmdir()
            raise
        if run.complete:
            run._seal()


def _found(
    out: Path, command: str, arguments: dict[str, Any], overwrite: bool, check_there: Callable[[], None]
) -> ResultSet:
    """The set that is there already, complete or stopped, or a new one."""
    _replace(out)
    sealed = _read(out / RESULTS)
    if sealed is not None and not overwrite:
        difference = _difference(sealed, command, arguments)
        expected = f"a folder without results, or the same command again (or --overwrite to {command} anew)"
        expect(difference is None, "out", expected, f"{out}, {difference}")
        return ResultSet(out, out, command, arguments, {}, check_there)
    folder = out if sealed is None else out / NEW
    stopped = _stopped(folder / MEASUREMENTS, overwrite)
    difference = None if stopped is None else _difference(stopped, command, arguments)
    if difference is not None:
        expected = f"the command that was stopped there (or --overwrite to {command} anew)"
        expect(overwrite or not _worth(folder, stopped), "out", expected, f"{out}, {difference}")
    if difference is not None:
        _remove(folder, (*KEPT, *AT_WORK))
        stopped = None
    elif stopped is None and overwrite:
        _remove(folder, AT_WORK)
    return ResultSet(out, folder, command, arguments, {} if stopped is None else stopped["measured"], check_there)


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
    """What a complete set says about itself; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ContractError(f"`{path}`: expected a file that can be read, got {one_line(error)}") from None
    except (ValueError, RecursionError):
        content = None
    return content if isinstance(content, dict) else {}


def _stopped(path: Path, overwrite: bool) -> dict[str, Any] | None:
    """What a call that was stopped has measured; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        content = read_sealed(path)
    except ContractError as error:
        expect(overwrite, "out", "the measurements of the call that was stopped (or --overwrite to start anew)", error)
        content = {}
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


def _remove_unfinished(folder: Path) -> None:
    """Removes what only an unfinished set has, and what a kill left half written."""
    parts = [*folder.glob(".*.part"), *folder.glob("model/.*.part")]
    _remove(folder, (*AT_WORK, *(part.relative_to(folder) for part in parts)))


def _remove(folder: Path, names: Any) -> None:
    for name in names:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
