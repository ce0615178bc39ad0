"""Files: written whole or not at all, and `.npz` archives that may be damaged, half written or something else."""

import contextlib
import os
import pathlib
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

from jaxdebias.contracts import ContractError, expect

Path = str | os.PathLike[str]

BROKEN = (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, NotImplementedError, RuntimeError,
          SyntaxError, zipfile.BadZipFile, zlib.error)  # fmt: skip
"""What NumPy raises on files that are no archive of arrays: cut short, of other bytes, a lone `.npy`, encrypted."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` when the block ends, and leaves no trace when it fails.

    The only way in which this package writes a file. What is written goes to a temporary file in the same folder (made
    if missing), reaches the disk (fsync), gets the permissions that the umask allows, and is renamed: a kill at any
    moment leaves the old file or the new one.

    Args:
      path: the file to write.

    Raises:
      ContractError: a folder that cannot be made or written.

    >>> folder = tempfile.mkdtemp()
    >>> with replacing(f"{folder}/a.txt") as file:
    ...     _ = file.write(b"whole")
    >>> os.listdir(folder), pathlib.Path(folder, "a.txt").read_text()
    (['a.txt'], 'whole')
    """
    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise ContractError(f"`{path}`: expected a folder that can be written, got {one_line(error)}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files private
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def write_arrays(path: Path, arrays: Mapping[str, Any], *, compressed: bool = False) -> None:
    """Writes an `.npz` file of arrays by name, whole or not at all."""
    with replacing(path) as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)


def read_arrays(what: str, path: Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file, each read whole.

    Args:
      what: the name of the file's role, for the error.
      path: the file.

    Raises:
      ContractError: no such file, no `.npz`, damaged, or with Python objects in it; in one line that names the file.
    """
    path = pathlib.Path(path)
    expect(path.is_file(), what, "an .npz file of arrays", f"{path}, which is no file")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except BROKEN as error:
        raise ContractError(f"`{what}`: expected an .npz file of arrays, got {path} ({one_line(error)})") from None


def one_line(error: BaseException) -> str:
    """The message of an exception without its line breaks; its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
