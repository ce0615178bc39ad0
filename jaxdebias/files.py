"""Files: written whole or not at all, read only if whole, and folders that one process at a time fills."""

import contextlib
import glob
import hashlib
import json
import math
import os
import pathlib
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import numpy as np

from jaxdebias.contracts import ContractError, expect

Path = str | os.PathLike[str]

BROKEN = (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, NotImplementedError, RuntimeError,
          SyntaxError, MemoryError, zipfile.BadZipFile, zlib.error)  # fmt: skip
"""What NumPy raises on files that are no archive of arrays: cut short, of other bytes, a lone `.npy`, encrypted."""
MOST_UNPACKED = 2**31
"""Bytes that a compressed file may unpack to; more only if the file itself is that large, so not a bomb."""
CHECKSUM = "sha256"
"""Key of the checksum in the JSON files that `write_sealed` writes."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` when the block ends, and leaves no trace when it fails.

    The only way in which this package writes a file. What is written goes to a temporary file in the same folder (made
    if missing), reaches the disk (fsync), gets the permissions that the umask allows, and is renamed: a kill or a power
    cut at any moment leaves the old file or the new one.

    Args:
      path: the file to write.

    Raises:
      ContractError: a folder that cannot be made or written, a full disk, a limit on the size of files.

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
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            pathlib.Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise not_written(path, error) from None
        raise


def not_written(path: Path, error: BaseException) -> ContractError:
    """The one line about a file that could not be written: a full disk, a limit, a folder that has gone."""
    return ContractError(
        f"`{path}`: expected room and permission to write it, got {one_line(error)[:200]}; "
        "what was finished before is kept, and the same command resumes"
    )


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def write_arrays(path: Path, arrays: Mapping[str, Any], *, compressed: bool = False) -> None:
    """Writes an `.npz` file of arrays by name, whole or not at all."""
    with replacing(path) as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)


def read_arrays(what: str, path: Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file, each read whole. Nothing is allocated before the file has shown that it holds it.

    Args:
      what: the name of the file's role, for the error.
      path: the file.

    Raises:
      ContractError: no such file, no `.npz`, damaged, with Python objects in it, or one that unpacks to more than
        `MOST_UNPACKED` or than its headers say; in one line that names the file.
    """
    path = pathlib.Path(path)
    expect(path.is_file(), what, "an .npz file of arrays", f"{path}, which is no file")
    try:
        with np.load(path, allow_pickle=False) as file:
            check_unpacked(file.zip, path)
            return {name: _array(file[name]) for name in file.files}
    except ContractError:
        raise
    except BROKEN as error:
        raise ContractError(f"`{what}`: expected an .npz file of arrays, got {path} ({one_line(error)})") from None


def check_unpacked(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuses an archive that would fill the memory: by the sizes of its members, and by what their headers claim.

    Raises:
      ContractError: naming the file and the sizes.
    """
    most = max(MOST_UNPACKED, 2 * os.path.getsize(path))
    total = sum(member.file_size for member in archive.infolist())
    expect(total <= most, str(path), f"a file that unpacks to at most {most:,} bytes", f"{total:,} bytes")
    for member in archive.infolist():
        with archive.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            expect(version[0] in read_header, f"{path}: {member.filename}", "the .npy format 1 or 2", version)
            shape, _, dtype = read_header[version[0]](stream)
            claimed, held = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
            whole = dtype.hasobject or (min(shape, default=0) >= 0 and claimed == held)
            expect(whole, f"{path}: {member.filename}", f"an array of {held:,} bytes", f"a header of {claimed:,}")


def _array(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise ValueError("a member that is no array")
    return value


def checksum(array: Any) -> str:
    """SHA-256 of an array's dtype, shape and bytes, in hexadecimal."""
    value = np.asarray(array)
    return hashlib.sha256(f"{value.dtype} {value.shape} ".encode() + value.tobytes()).hexdigest()


def file_checksum(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object with the checksum of what it holds, whole or not at all."""
    content = json.loads(json.dumps(content))
    write_text(path, json.dumps({**content, CHECKSUM: _of_json(content)}, indent=1) + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` wrote, without the checksum.

    Raises:
      ContractError: a file that cannot be read, is no JSON object, or was changed since.

    >>> path = pathlib.Path(tempfile.mkdtemp(), "a.json")
    >>> write_sealed(path, {"epoch": 1})
    >>> read_sealed(path)
    {'epoch': 1}
    """
    try:
        content = json.loads(pathlib.Path(path).read_bytes())
        found = content.pop(CHECKSUM)
    except (*BROKEN, RecursionError) as error:
        raise ContractError(f"`{path}`: expected a file that is whole, got {one_line(error)[:200]}") from None
    same = found == _of_json(content)
    expect(same, str(path), "the content it was written with", "other content: its checksum differs")
    return content


def _of_json(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[Callable[[], None]]:
    """A folder, or a file to be, that no other process fills at the same time. The lock ends with the process.

    That of a folder lies on the folder itself (`flock`) and leaves nothing; that of a file on `.NAME.lock` beside it,
    which is removed at the end, as is what a process that was killed left of the file half written. A file system
    without such locks (some NFS) is warned of; on Windows there are none.

    Args:
      path: a folder that exists, or a file that need not.

    Returns:
      A function that raises `ContractError` once the folder is another one than when it was locked, or gone.

    Raises:
      ContractError: another process holds it, or it cannot be opened.

    >>> folder = tempfile.mkdtemp()
    >>> with locked(folder):
    ...     with locked(folder):
    ...         pass
    Traceback (most recent call last):
    jaxdebias.contracts.ContractError: `...`: expected a place that no other process writes to, got one in use; ...
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield lambda: None
        return
    path = pathlib.Path(path)
    folder = path.is_dir()
    held = path if folder else path.parent / f".{path.name}.lock"

    def same() -> bool:
        return held.exists() and os.path.samestat(os.stat(held), os.fstat(handle))

    while True:
        try:
            held.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(held, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ContractError(f"`{path}`: expected a place that can be opened, got {one_line(error)}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            busy = "one in use; wait for it, or choose another"
            expect(False, str(path), "a place that no other process writes to", busy)
        except OSError as error:
            warnings.warn(f"{path} cannot be locked ({one_line(error)}): let one process write to it", stacklevel=3)
        if same():
            break
        os.close(handle)  # removed by the one who held it, between opening and locking

    if not folder:  # what a process that was killed left half written
        for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            part.unlink(missing_ok=True)

    def check() -> None:
        expect(same(), str(path), "the folder that was there at the start", "none, or another one; start again")

    try:
        yield check
    finally:
        if not folder:
            held.unlink(missing_ok=True)
        os.close(handle)


def one_line(error: BaseException) -> str:
    """The message of an exception without its line breaks; its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: pathlib.Path) -> None:
    """Makes a rename survive a power cut; where folders cannot be synchronised (Windows), it is left to the system."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
