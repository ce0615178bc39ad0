"""Reading `.npz` files of arrays that may be damaged, half written or something else."""

import os
import pathlib
import zipfile
import zlib

import numpy as np

from jaxdebias.contracts import ContractError, expect

BROKEN = (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, NotImplementedError, RuntimeError,
          SyntaxError, zipfile.BadZipFile, zlib.error)  # fmt: skip
"""What NumPy raises on files that are no archive of arrays: cut short, of other bytes, a lone `.npy`, encrypted."""


def read_arrays(what: str, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file, each read whole.

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
    """What an exception says, without its line breaks; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
