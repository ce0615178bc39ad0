"""Checkpoints of a run, atomic under SIGKILL and read only if whole, and plain weights in one file.

    FOLDER/manifest.json   written last: which checkpoint counts, the checksum of each of its files, and JSON values
    FOLDER/EPOCH/          the states of that epoch, as Orbax writes them

A kill at any moment leaves a complete checkpoint, or none before the first: what the manifest does not name is removed
when the folder is opened. A file that has changed since is refused by its name before anything of it is interpreted.
"""

import contextlib
import json
import os
import pathlib
import shutil
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.contracts import ContractError, describe, expect
from jaxdebias.core import Params
from jaxdebias.files import (
    checksum,
    file_checksum,
    locked,
    not_written,
    one_line,
    read_arrays,
    read_sealed,
    write_arrays,
    write_sealed,
)

Path = str | os.PathLike
MANIFEST = "manifest.json"
CHECKSUMS = "sha256"
"""Name of the entry of a file of weights that holds the checksum of each of the others, as JSON."""
NEW = "delete the folder to start anew"


class Saved(NamedTuple):
    """Everything a run needs to go on as if it had never stopped."""

    epoch: int
    state: Any
    best: Any
    """The state of the best epoch, or None if the run keeps none."""
    host: Mapping[str, Any]
    """JSON values: bookkeeping and history."""


class Checkpoints:
    """The checkpoints of one run in one folder: the last state, and with it the best one.

    Args:
      folder: made if missing, and locked: a second process that opens it is refused.
      made_by: JSON values that fix the run. A folder made by others is refused, naming the first that differs.

    Raises:
      ContractError: the folder holds the checkpoint of another run, a damaged one, or is in use.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, Any]):
        import orbax.checkpoint as ocp  # not at the top: importing the library must stay light

        self._ocp = ocp
        self._folder = pathlib.Path(folder).absolute()
        self._made_by = json.loads(json.dumps(made_by))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_written(self._folder, error) from None
        with contextlib.ExitStack() as opened:
            self._check_there = opened.enter_context(locked(self._folder))
            # Synchronous: a save is short, and the state is donated to the next chunk.
            self._orbax = opened.enter_context(ocp.Checkpointer(ocp.StandardCheckpointHandler()))
            manifest = self._folder / MANIFEST
            self._last = read_sealed(manifest) if manifest.is_file() else None
            self._remove_but(None if self._last is None else self._last.get("epoch"))
            if self._last is not None:
                self._check_same_run(self._last)
            self._opened = opened.pop_all()

    def save(self, saved: Saved) -> None:
        """Writes one checkpoint; when it returns, the checkpoint is on disk and earlier ones are gone.

        Raises:
          ContractError: no room, or the folder has gone; the checkpoint before is kept.
        """
        states = {"state": _named_leaves(saved.state)}
        if saved.best is not None:
            states["best"] = _named_leaves(saved.best)
        self._check_there()
        epoch = self._folder / str(saved.epoch)
        try:
            self._orbax.save(epoch, args=self._ocp.args.StandardSave(states), force=True)
            files = {name: file_checksum(epoch / name) for name in _files(epoch)}
        except Exception as error:  # of Orbax's storage, which has kinds of its own for a full disk
            raise not_written(epoch, error) from None
        manifest = {
            "epoch": saved.epoch,
            "made_by": self._made_by,
            "host": dict(saved.host),
            "has_best": saved.best is not None,
            "files": files,
        }
        write_sealed(self._folder / MANIFEST, manifest)
        self._remove_but(saved.epoch)

    def restore(self, like: Any) -> Saved | None:
        """The checkpoint found when the folder was opened, its states with the structure and placement of `like`.

        None if there was none.

        Raises:
          ContractError: a file of it that is missing or not as it was written, by its name.
        """
        if self._last is None:
            return None
        last, epoch = self._last, self._folder / str(self._last["epoch"])
        found = set(_files(epoch))
        for name, digest in last["files"].items():
            path = epoch / name
            expect(name in found, str(path), f"a file of the checkpoint ({NEW})", "none")
            try:
                whole = file_checksum(path) == digest
            except OSError as error:
                raise ContractError(f"`{path}`: expected a file that can be read, got {one_line(error)}") from None
            expect(whole, str(path), "the bytes it was written with", f"others: its checksum differs; {NEW}")
        more = sorted(found - set(last["files"]))
        expect(not more, str(epoch), "only the files of the checkpoint", f"also {', '.join(more[:1])}; {NEW}")
        target = {"state": _named_leaves(like)} | ({"best": _named_leaves(like)} if last["has_best"] else {})
        try:
            states = self._orbax.restore(epoch, args=self._ocp.args.StandardRestore(target))
        except Exception as error:  # whole, so of another version of Orbax or of this package
            said = one_line(error)[:200]
            raise ContractError(f"`{epoch}`: expected a checkpoint of this network, got {said}; {NEW}") from None
        best = _from_named_leaves(states["best"], like) if last["has_best"] else None
        return Saved(last["epoch"], _from_named_leaves(states["state"], like), best, last["host"])

    def close(self) -> None:
        """Frees Orbax's threads and the lock."""
        self._opened.close()

    def _remove_but(self, epoch: int | None) -> None:
        """Removes what the manifest does not name: older checkpoints, and what a kill has left half written."""
        for path in self._folder.iterdir():
            stale = path.name.partition(".")[0].isdigit() and path.name != str(epoch)
            if stale and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name.startswith(f".{MANIFEST}."):
                path.unlink(missing_ok=True)

    def _check_same_run(self, last: Mapping[str, Any]) -> None:
        found = last["made_by"]
        for name in self._made_by | found:
            old, new = found.get(name), self._made_by.get(name)
            what = f"checkpoint {self._folder}"
            expect(old == new, what, f"one made with {name}={new!r}", f"{name}={old!r}; choose another folder")


def _files(folder: pathlib.Path) -> list[str]:
    """The files below a folder, by their paths in it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def save_params(path: Path, variables: Params) -> None:
    """Writes weights to one `.npz` file, atomically; names are the leaves' paths, as `params.head.kernel`.

    One more entry, `sha256`, holds the checksum of each.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in _named_leaves(variables).items()}
    checksums = json.dumps({name: checksum(array) for name, array in arrays.items()})
    write_arrays(path, {**arrays, CHECKSUMS: np.array(checksums)})


def load_params(path: Path, like: Params) -> Params:
    """Reads what `save_params` wrote, with the structure of `like` (arrays, or `jax.eval_shape` of the model's init).

    Raises:
      ContractError: a missing, additional or differently shaped weight, or one with other bytes than were written, by
        its name; a file that is damaged.
    """
    path = pathlib.Path(path)
    expect(path.is_file(), "weights", "a file written by save_params", str(path))
    wanted, found = _named_leaves(like), read_arrays("weights", path)
    checksums = str(found.pop(CHECKSUMS, "{}"))  # files of others have none
    missing, more = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    expect(not missing, str(path), "every weight of the model", f"none for {', '.join(missing[:3])}")
    expect(not more, str(path), "weights of this model only", f"also {', '.join(more[:3])}")
    leaves = {name: found[name] for name in wanted}
    for name, leaf in leaves.items():
        want = wanted[name]
        # NumPy's format has no bfloat16: it stores the bytes.
        if leaf.dtype.kind == "V" and leaf.dtype.itemsize == np.dtype(want.dtype).itemsize:
            leaves[name] = leaf = leaf.view(want.dtype)
        same = leaf.shape == want.shape and leaf.dtype == want.dtype
        expect(same, f"{path}: {name}", f"{want.dtype} {list(want.shape)}", describe(leaf))
    _check_checksums(path, checksums, leaves)
    return _from_named_leaves(jax.tree.map(jnp.asarray, leaves), like)


def _check_checksums(path: pathlib.Path, text: str, leaves: Mapping[str, np.ndarray]) -> None:
    """Refuses weights whose bytes are others than when they were saved."""
    try:
        checksums = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        checksums = dict.fromkeys(leaves, "")
    for name, digest in checksums.items():
        same = name in leaves and checksum(leaves[name]) == digest
        expect(same, f"{path}: {name}", "the weights that were saved", "others: their checksum differs")


def fingerprint(tree: Any) -> str:
    """Shapes, dtypes and a checksum of the values of a tree of arrays, short enough for an error message."""
    checksum = 0
    leaves = _named_leaves(tree)
    for name, leaf in leaves.items():
        value = np.ascontiguousarray(leaf)
        checksum = zlib.crc32(f"{name} {describe(value)}".encode(), checksum)
        checksum = zlib.crc32(value.view(np.uint8) if value.size and value.ndim else value.tobytes(), checksum)
    first = next(iter(leaves.values()), None)
    return f"{len(leaves)} arrays, {describe(first)} first, crc {checksum:08x}"


def _named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves by their paths; a typed key becomes its integers."""
    named = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): _untyped(leaf) for path, leaf in named}


def _from_named_leaves(leaves: Mapping[str, Any], like: Any) -> Any:
    """The inverse of `_named_leaves`."""

    def pick(path, leaf):
        value = leaves[jax.tree_util.keystr(path, simple=True, separator=".")]
        return jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else value

    return jax.tree_util.tree_map_with_path(pick, like)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _untyped(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf
