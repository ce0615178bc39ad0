"""Checkpoints of a run, atomic under SIGKILL, and plain weights in one file.

Orbax writes each checkpoint into a temporary folder and renames it when it is complete; the one before is deleted only
then. A kill at any moment leaves a complete checkpoint, or none before the first.
"""

import contextlib
import json
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.contracts import ContractError, describe, expect
from jaxdebias.core import Params
from jaxdebias.files import BROKEN, one_line, read_arrays, write_arrays

Path = str | os.PathLike


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
      made_by: JSON values that fix the run. A folder made by others is refused, naming the first that differs.

    Raises:
      ContractError: the folder holds the checkpoint of another run.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, Any]):
        import orbax.checkpoint as ocp  # not at the top: importing the library must stay light

        self._ocp = ocp
        self._folder = pathlib.Path(folder).absolute()
        self._made_by = json.loads(json.dumps(made_by))
        # Synchronous: a save is short, and the state is donated to the next chunk.
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False, create=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self._last = self._manager.latest_step()
        if self._last is not None:
            self._check_same_run()

    def save(self, saved: Saved) -> None:
        """Writes one checkpoint; when it returns, the checkpoint is on disk and earlier ones are gone."""
        states = {"state": _named_leaves(saved.state)}
        if saved.best is not None:
            states["best"] = _named_leaves(saved.best)
        host = {"made_by": self._made_by, "host": dict(saved.host), "has_best": saved.best is not None}
        save = self._ocp.args
        self._manager.save(saved.epoch, args=save.Composite(states=save.StandardSave(states), run=save.JsonSave(host)))

    def restore(self, like: Any) -> Saved | None:
        """The checkpoint found when the folder was opened, its states with the structure and placement of `like`.

        None if there was none.
        """
        epoch = self._last
        if epoch is None:
            return None
        restore, run = self._ocp.args, self._run(epoch)
        target = {"state": _named_leaves(like)} | ({"best": _named_leaves(like)} if run["has_best"] else {})
        with self._whole():
            read = restore.Composite(states=restore.StandardRestore(target))
            states = self._manager.restore(epoch, args=read)["states"]
        best = _from_named_leaves(states["best"], like) if run["has_best"] else None
        return Saved(epoch, _from_named_leaves(states["state"], like), best, run["host"])

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """What Orbax says of a checkpoint that is damaged, in one line."""
        try:
            yield
        except ContractError:
            raise
        except BROKEN as error:
            what, said = f"checkpoint {self._folder}", one_line(error)[:200]
            raise ContractError(
                f"`{what}`: expected one that is whole, got {said}; delete the folder to start anew"
            ) from None

    def close(self) -> None:
        """Frees Orbax's threads."""
        self._manager.close()

    def _run(self, epoch: int) -> Mapping[str, Any]:
        restore = self._ocp.args
        with self._whole():
            return self._manager.restore(epoch, args=restore.Composite(run=restore.JsonRestore()))["run"]

    def _check_same_run(self) -> None:
        found = self._run(self._last)["made_by"]
        for name in self._made_by | found:
            old, new = found.get(name), self._made_by.get(name)
            what = f"checkpoint {self._folder}"
            expect(old == new, what, f"one made with {name}={new!r}", f"{name}={old!r}; choose another folder")


def save_params(path: Path, variables: Params) -> None:
    """Writes weights to one `.npz` file, atomically; names are the leaves' paths, as `params.head.kernel`."""
    write_arrays(path, {name: np.asarray(leaf) for name, leaf in _named_leaves(variables).items()})


def load_params(path: Path, like: Params) -> Params:
    """Reads what `save_params` wrote, with the structure of `like` (arrays, or `jax.eval_shape` of the model's init).

    Raises:
      ContractError: a missing, additional or differently shaped weight, by its name; a file that is damaged.
    """
    path = pathlib.Path(path)
    expect(path.is_file(), "weights", "a file written by save_params", str(path))
    wanted, found = _named_leaves(like), read_arrays("weights", path)
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
    return _from_named_leaves(jax.tree.map(jnp.asarray, leaves), like)


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
