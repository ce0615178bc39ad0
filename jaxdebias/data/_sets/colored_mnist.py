"""Colored MNIST as Signal-is-Harder builds it, from MNIST's four files, with held-out digits for the repair."""

import gzip
import pathlib
import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from jaxdebias.contracts import ContractError, check_dataset, expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._aligned import check_share, milestone_attribute
from jaxdebias.data._colour import (
    COLOUR_NAMES,
    SEVERITY_4,
    Tint,
    coloured_pairs,
    every_colour,
    noisy_colours,
    one_colour,
)
from jaxdebias.data.streams import named_rng

FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def colored_mnist(
    data_dir: str | pathlib.Path,
    *,
    conflicting: float = 0.005,
    seed: int = 0,
    held_out: int = 7000,
    sigma: float = SEVERITY_4,
    every_colour_of_edit: bool = False,
) -> Dataset:
    """MNIST in ten colours, 28x28; in training the colour gives the digit away.

    Splits:
      train: the training digits that are not held out, in file order, coloured by the published deterministic rule
        (`aligned.milestone_attribute`) with aligned share 1 - conflicting.
      edit, accept: 5/7 and 2/7 of the held-out digits, drawn by seed, each once in a uniformly random colour.
      test: the official test digits with aligned share 0.1, so that all 100 cells are equally large.
      edit_every_colour: only on request, the edit digits in all ten colours, for baselines trained on them.
    Pairs of edit, accept and test: every digit in its class's colour and in one random other colour.

    Args:
      data_dir: the folder with MNIST's four original .gz files, or its parent if they lie in `mnist/`.
      conflicting: share of training digits whose colour is another class's; published 0.005 to 0.2.
      seed: fixes which digits are held out, their colours and all colour noise. The colours of the training digits
        that remain follow the deterministic rule.
      held_out: training digits kept for edit and accept. 0 is the published protocol: all 60,000 in train, no edit or
        accept split.
      sigma: standard deviation of the colour noise; published severities 1..5 are .05, .02, .01, .005 (used), .002.
      every_colour_of_edit: add `edit_every_colour` (117 MB for 5,000 digits).

    Raises:
      ContractError: a missing or damaged file (named), a share outside 0..1, more digits held out than there are.

    Source: SiH, Vandenhirtz et al. 2023, official code; `seed` and `held_out` are ours.
    """
    gray, label = read_mnist(data_dir, "train")
    gray_test, label_test = read_mnist(data_dir, "t10k")
    check_share("conflicting", conflicting)
    expect(held_out == 0 or 7 <= held_out < len(gray), "held_out", f"0, or 7..{len(gray) - 1} digits", held_out)

    order = named_rng(seed, "colored-mnist split").permutation(len(gray))
    edit, accept, train = np.split(order, [held_out * 5 // 7, held_out])
    train = np.sort(train)  # the rule goes by file order

    def rendering(name: str, gray: np.ndarray, label: np.ndarray, attribute: np.ndarray) -> Batch:
        return one_colour(named_rng(seed, f"colored-mnist {name}"), gray, label, attribute, sigma=sigma)

    def pairs(name: str, gray: np.ndarray, label: np.ndarray) -> Batch:
        return coloured_pairs(named_rng(seed, f"colored-mnist pairs {name}"), gray, label, sigma=sigma)

    biased = milestone_attribute(label[train], 1.0 - conflicting, 10)
    balanced = milestone_attribute(label_test, 0.1, 10)
    splits = {
        "train": rendering("train", gray[train], label[train], biased),
        "test": rendering("test", gray_test, label_test, balanced),
    }
    twins = {"test": pairs("test", gray_test, label_test)}
    for name, rows in (("edit", edit), ("accept", accept)) if held_out else ():
        uniform = named_rng(seed, f"colored-mnist colours {name}").integers(0, 10, len(rows)).astype(np.int32)
        splits[name] = rendering(name, gray[rows], label[rows], uniform)
        twins[name] = pairs(name, gray[rows], label[rows])
    if every_colour_of_edit:
        expect(held_out > 0, "held_out", "more than 0 with every_colour_of_edit", held_out)
        rng = named_rng(seed, "colored-mnist edit every colour")
        splits["edit_every_colour"] = every_colour(rng, gray[edit], label[edit], sigma=sigma)

    dataset = Dataset(
        name="colored-mnist",
        variant={
            "conflicting": conflicting,
            "sigma": sigma,
            "held_out": held_out,
            "train": len(train),
            "edit": len(edit),
            "accept": len(accept),
            "test": len(label_test),
        },
        splits=splits,
        pairs=twins,
        label_names=tuple("0123456789"),
        attribute_names=COLOUR_NAMES,
        aligned=np.eye(10, dtype=bool),
    )
    check_dataset(dataset)
    return dataset


class MnistDigits(NamedTuple):
    """MNIST's files: all grey digits `[m 28 28]`, training first, and the labels of both parts."""

    gray: UInt8[np.ndarray, "m h w"]
    label_train: Int[np.ndarray, "n"]
    label_test: Int[np.ndarray, "t"]


def all_digits(data_dir: str | pathlib.Path) -> MnistDigits:
    """Both parts of MNIST, read once for many tables."""
    (gray, label), (gray_test, label_test) = (read_mnist(data_dir, part) for part in ("train", "t10k"))
    return MnistDigits(np.concatenate([gray, gray_test]), label, label_test)


def tinted_mnist(
    digits: MnistDigits, *, conflicting: float, seed: int, sigma: float = SEVERITY_4
) -> tuple[Batch, Batch]:
    """The train and test split of `colored_mnist(held_out=0)`, undrawn: `x` is a `Tint` of the digits.

    Runs of other ratios and seeds differ in these rows alone and share the grey digits. `draw_tints(digits.gray, rows)`
    gives the pixels, the same to the bit.
    """
    check_share("conflicting", conflicting)

    def rows(name: str, label: np.ndarray, first: int, aligned: float) -> Batch:
        attribute = milestone_attribute(label, aligned, 10)
        colour = noisy_colours(named_rng(seed, f"colored-mnist {name}"), attribute, sigma=sigma)
        picture = np.arange(first, first + len(label), dtype=np.int32)
        return Batch(x=Tint(picture, colour), label=label, attribute=attribute)

    return (
        rows("train", digits.label_train, 0, 1.0 - conflicting),
        rows("test", digits.label_test, len(digits.label_train), 0.1),
    )


def read_mnist(data_dir: str | pathlib.Path, part: str) -> tuple[UInt8[np.ndarray, "n h w"], Int[np.ndarray, "n"]]:
    """Images and labels (int32) of one part, `train` or `t10k`, in file order."""
    folder = mnist_folder(data_dir)
    gray = _read_idx(folder / f"{part}-images-idx3-ubyte.gz", dimensions=3)
    label = _read_idx(folder / f"{part}-labels-idx1-ubyte.gz", dimensions=1)
    expect(len(gray) == len(label), f"{folder / part}-labels", f"{len(gray)} labels, one per image", len(label))
    expect(len(label) > 0 and int(label.max()) <= 9, f"{folder / part}-labels", "digits 0..9", f"{len(label)} labels")
    return gray, label.astype(np.int32)


def mnist_folder(data_dir: str | pathlib.Path) -> pathlib.Path:
    """The folder that holds MNIST's files: `data_dir` itself or `data_dir/mnist`.

    Raises:
      ContractError: naming the first file that is missing.
    """
    root = pathlib.Path(data_dir).expanduser()
    folder = root if (root / FILES[0]).is_file() or not (root / "mnist").is_dir() else root / "mnist"
    for name in FILES:
        expect((folder / name).is_file(), "data_dir", f"MNIST's four .gz files, also {name}", f"{folder} without it")
    return folder


def _read_idx(path: pathlib.Path, dimensions: int) -> np.ndarray:
    """An idx file of uint8: bytes 0, 0, 8, number of dimensions; their sizes as big-endian uint32; the values."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ContractError(f"`{path}`: expected a readable gzip file, got {error}") from error
    start = 4 + 4 * dimensions
    expect(
        raw[:4] == bytes([0, 0, 8, dimensions]),
        str(path),
        f"an idx file of uint8 with {dimensions} dimensions",
        f"first bytes {raw[:4].hex(' ')}",
    )
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", count=dimensions, offset=4))
    expect(len(raw) == start + int(np.prod(shape)), str(path), f"values of shape {list(shape)}", f"{len(raw)} bytes")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
