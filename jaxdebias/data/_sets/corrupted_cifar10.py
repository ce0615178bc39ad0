"""Corrupted CIFAR-10 as LfF and Signal-is-Harder build it: in training the corruption gives the class away."""

import hashlib
import io
import json
import pathlib
import pickle
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from jaxdebias.contracts import ContractError, check_dataset, describe, expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._aligned import check_share, milestone_attribute, other_attribute
from jaxdebias.data._sets.corruptions import CORRUPTIONS, SIZE, VERSION, corrupt, pillow
from jaxdebias.data.decode import decode_all
from jaxdebias.data.streams import named_rng
from jaxdebias.files import write_arrays

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
PACKED = {"train": ("cifar10_train_jpeg.npz",), "test": ("cifar10_test_jpeg.npz",)}
TEST_NUMBER = 50_000
"""Number of the first test picture in the random draws of its corruption; training pictures have their row."""


class Pictures(NamedTuple):
    """One part of CIFAR-10 in the order of its files."""

    x: UInt8[np.ndarray, "n 32 32 3"]
    label: Int[np.ndarray, " n"]
    """int32, index into `CLASSES`."""


def corrupted_cifar10(
    data_dir: str | pathlib.Path,
    *,
    conflicting: float = 0.005,
    seed: int = 0,
    held_out: int = 7000,
    limit: int | None = None,
    cache_dir: str | pathlib.Path | None = None,
) -> Dataset:
    """CIFAR-10 in ten corruptions (type 0, strongest level), 32x32; class i goes with corruption i.

    Splits:
      train: the training pictures that are not held out, in file order, corrupted by the published deterministic rule
        (`aligned.milestone_attribute`) with aligned share 1 - conflicting.
      edit, accept: 5/7 and 2/7 of the held-out pictures, drawn by seed, each once in a uniformly random corruption.
      test: the official test pictures with aligned share 0.1, so that all 100 cells are equally large.
    Pairs of edit, accept and test: every picture in its class's corruption and in one random other one. A picture
    with one corruption is the same wherever it is shown. There is no undamaged picture in the set.

    The corruptions are our own (`data.corruptions`): they follow the published constants, but their random draws
    differ from those of the official files, and `frost` is a generated stand-in for photographs.

    Uint8 throughout: 3 KB for each picture of train, and three times that for each of the others (289 MB with the
    defaults), beside the 184 MB that are read. Building corrupts each of these pictures.

    Args:
      data_dir: a folder with the six files of `cifar-10-batches-py` (read without running what a pickle may contain),
        or with packed JPEG copies `cifar10_train_jpeg.npz` and `cifar10_test_jpeg.npz` (JPEG files back to back in
        `jpeg`, cut at `offset`; `label`), or the parent of either, called `cifar-10-batches-py` or `cifar10`.
        `variant["source"]` says which was read: JPEG copies are lossy, and their order need not be the original one.
      conflicting: share of training pictures in the corruption of another class; published 0.005 to 0.2.
      seed: fixes which pictures are held out, their corruptions and all random draws. The corruptions of the training
        pictures that remain follow the deterministic rule.
      held_out: training pictures kept for edit and accept. 0 is the published protocol: all in train, no edit or
        accept split.
      limit: only the first so many training pictures, held-out ones included, for quick runs; None: all.
      cache_dir: a folder, made if missing, in which the finished arrays are kept (an uncompressed .npz file for every
        combination of arguments, source files and `corruptions.VERSION`) and found again; None: build every time.

    Raises:
      ContractError: a missing or damaged file (named), a share outside 0..1, more held out than there are, pillow
        not installed.

    Source: SiH, Vandenhirtz et al. 2023, and LfF, Nam et al. 2020, official codes; `seed` and `held_out` are ours.
    """
    check_share("conflicting", conflicting)
    expect(limit is None or limit >= 1, "limit", "at least 1, or None for all", limit)
    pillow()  # missing, it would be missed only after the longest part of the work
    folder = cifar10_folder(data_dir)
    kept = None
    if cache_dir is not None:
        arguments = {"conflicting": float(conflicting), "seed": int(seed), "held_out": held_out, "limit": limit}
        kept = pathlib.Path(cache_dir).expanduser() / f"corrupted-cifar10-{_key(folder, arguments)}.npz"
    if kept is not None and kept.exists():
        splits, pairs = _read_cache(kept)
    else:
        splits, pairs = _build(folder, conflicting, seed, held_out, limit)
        if kept is not None:
            _write_cache(kept, splits, pairs)

    sizes = {name: len(splits[name].label) if name in splits else 0 for name in ("train", "edit", "accept", "test")}
    dataset = Dataset(
        name="corrupted-cifar10",
        variant={
            "conflicting": conflicting,
            "source": _source(folder),
            "frost": "generated",
            "corruptions_version": VERSION,
            "held_out": held_out,
            "limit": limit,
            **sizes,
        },
        splits=splits,
        pairs=pairs,
        label_names=CLASSES,
        attribute_names=CORRUPTIONS,
        aligned=np.eye(10, dtype=bool),
    )
    check_dataset(dataset)
    return dataset


def cifar10_folder(data_dir: str | pathlib.Path) -> pathlib.Path:
    """The folder that holds CIFAR-10: `data_dir` or one of its `cifar-10-batches-py` and `cifar10`; originals first.

    Raises:
      ContractError: naming the first file that is missing.
    """
    root = pathlib.Path(data_dir).expanduser()
    places = [root / name for name in (".", "cifar-10-batches-py", "cifar10/cifar-10-batches-py", "cifar10")]
    for files in (BATCHES, PACKED):
        wanted = (*files["train"], *files["test"])
        for folder in places:
            if (folder / wanted[0]).is_file():
                for name in wanted:
                    expect(
                        (folder / name).is_file(), "data_dir", f"CIFAR-10's files, also {name}", f"{folder} without it"
                    )
                return folder
    raise ContractError(
        f"`data_dir`: expected {BATCHES['train'][0]} and its fellows or {PACKED['train'][0]}, got {root} without them"
    )


def read_cifar10(folder: pathlib.Path, part: str, limit: int | None = None) -> Pictures:
    """The pictures and labels of `train` or `test`; at most the first `limit`."""
    return (_read_batches if _source(folder) == "original" else _read_packed)(folder, part, limit)


def _build(
    folder: pathlib.Path, conflicting: float, seed: int, held_out: int, limit: int | None
) -> tuple[dict[str, Batch], dict[str, Batch]]:
    train, test = read_cifar10(folder, "train", limit), read_cifar10(folder, "test")
    n = len(train.label)
    expect(held_out == 0 or 7 <= held_out < n, "held_out", f"0, or 7..{n - 1} pictures", held_out)
    order = named_rng(seed, "corrupted-cifar10 split").permutation(n)
    edit, accept, rest = np.split(order, [held_out * 5 // 7, held_out])
    rest = np.sort(rest)  # the rule goes by file order

    def render(pictures: Pictures, rows: np.ndarray, attribute: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), SIZE, SIZE, 3), np.uint8)
        first = TEST_NUMBER if pictures is test else 0
        for b, corruption in enumerate(CORRUPTIONS):
            at = np.flatnonzero(attribute == b)
            out[at] = corrupt(pictures.x[rows[at]], corruption, index=first + rows[at], seed=seed)
        return out

    def once(pictures: Pictures, rows: np.ndarray, attribute: np.ndarray) -> Batch:
        return Batch(x=render(pictures, rows, attribute), label=pictures.label[rows], attribute=attribute)

    def twice(name: str, pictures: Pictures, rows: np.ndarray) -> Batch:
        label = pictures.label[rows]
        other = other_attribute(named_rng(seed, f"corrupted-cifar10 pairs {name}"), label, 10)
        twin = render(pictures, rows, other)
        return once(pictures, rows, label)._replace(twin=twin, twin_attribute=other.astype(np.int32))

    everything = np.arange(len(test.label))
    splits = {
        "train": once(train, rest, milestone_attribute(train.label[rest], 1.0 - conflicting, 10)),
        "test": once(test, everything, milestone_attribute(test.label, 0.1, 10)),
    }
    pairs = {"test": twice("test", test, everything)}
    for name, rows in (("edit", edit), ("accept", accept)) if held_out else ():
        uniform = named_rng(seed, f"corrupted-cifar10 corruptions {name}").integers(0, 10, len(rows)).astype(np.int32)
        splits[name] = once(train, rows, uniform)
        pairs[name] = twice(name, train, rows)
    return splits, pairs


def _source(folder: pathlib.Path) -> str:
    return "original" if (folder / BATCHES["train"][0]).is_file() else "JPEG copies"


def _read_batches(folder: pathlib.Path, part: str, limit: int | None) -> Pictures:
    """Each file: a pickled dictionary with b"data" `[m 3072]` uint8, channel by channel, and b"labels"."""
    x, labels, have = [], [], 0
    for name in BATCHES[part]:
        if limit is not None and have >= limit:
            break
        stored = _unpickle(folder / name)
        stored = stored if isinstance(stored, dict) else {}
        data, label = stored.get(b"data"), np.asarray(stored.get(b"labels", ()))
        good = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2
        good = good and data.shape[1] == 3 * SIZE**2
        expect(bool(good), f"{name} data", f"uint8 [m, {3 * SIZE**2}]", describe(data))
        _check_labels(name, label, len(data))
        x.append(data.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1))
        labels.append(label)
        have += len(data)
    return Pictures(np.concatenate(x)[:limit], np.concatenate(labels)[:limit].astype(np.int32))


def _read_packed(folder: pathlib.Path, part: str, limit: int | None) -> Pictures:
    path = folder / PACKED[part][0]
    try:
        with np.load(path) as stored:
            jpeg, offset, label = stored["jpeg"], stored["offset"], stored["label"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ContractError(f"`{path}`: expected arrays jpeg, offset and label, got {error}") from error
    n = len(offset) - 1
    _check_labels(path.name, label, n)
    n = n if limit is None else min(n, limit)
    x = decode_all(n, SIZE, lambda i: jpeg[offset[i] : offset[i + 1]].tobytes(), lambda i: f"{path.name} picture {i}")
    return Pictures(x, label[:n].astype(np.int32))


def _check_labels(name: str, label: np.ndarray, n: int) -> None:
    good = np.issubdtype(label.dtype, np.integer) and label.shape == (n,) and n > 0
    good = good and 0 <= int(label.min()) <= int(label.max()) <= 9
    expect(bool(good), f"{name} labels", f"{n} integers in 0..9", describe(label))


# What pickled arrays refer to. The function is asked of NumPy: its home has moved, and the files name the old one.
_ARRAY_PARTS = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numbers, strings, lists, dictionaries and NumPy arrays, and refuses to look up anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") and name in _ARRAY_PARTS:
            return _ARRAY_PARTS[name]
        raise pickle.UnpicklingError(f"{module}.{name} in it")


def _unpickle(path: pathlib.Path) -> Any:
    try:
        return _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        wanted = "a pickle of numbers, lists, dictionaries and arrays"
        raise ContractError(f"`{path}`: expected {wanted}, got {' '.join(str(error).split())}") from error


def _key(folder: pathlib.Path, arguments: dict[str, Any]) -> str:
    """Of everything that the arrays depend on: arguments, bytes of the source files, our version and NumPy's."""
    files = BATCHES if _source(folder) == "original" else PACKED
    digests = []
    for name in (*files["train"], *files["test"]):
        with open(folder / name, "rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    said = json.dumps([VERSION, "twin_attribute", np.__version__, arguments, digests])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _write_cache(path: pathlib.Path, splits: dict[str, Batch], pairs: dict[str, Batch]) -> None:
    arrays = {
        f"{kind}/{name}/{field}": value
        for kind, batches in (("splits", splits), ("pairs", pairs))
        for name, batch in batches.items()
        for field, value in batch._asdict().items()
        if value is not None
    }
    write_arrays(path, arrays)


def _read_cache(path: pathlib.Path) -> tuple[dict[str, Batch], dict[str, Batch]]:
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {"splits": {}, "pairs": {}}
    try:
        with np.load(path) as stored:
            for entry in stored.files:
                kind, name, field = entry.split("/")
                found[kind].setdefault(name, {})[field] = stored[entry]
        splits, pairs = ({name: Batch(**fields) for name, fields in found[kind].items()} for kind in found)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ContractError(
            f"`cache_dir`: expected {path} as it was written (delete it to build anew), got {error}"
        ) from error
    return splits, pairs
