"""Sets released as folders `align` and `conflict`: bFFHQ, BAR and Corrupted CIFAR-10 as of DisEnt and after."""

import pathlib
import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxdebias.contracts import check_dataset, expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._aligned import aligned_cells
from jaxdebias.data._matching import matched_pairs
from jaxdebias.data.decode import decode_all
from jaxdebias.data.streams import named_rng

PICTURES = (".png", ".jpg", ".jpeg")
SIDES = ("align", "conflict")
NAMES = {
    "bffhq": (("young", "old"), ("female", "male")),
    "bar": (("climbing", "diving", "fishing", "pole vaulting", "racing", "throwing"), ()),
}
"""Classes, and attributes, by number; sets that are not listed have numbers."""


class Listed(NamedTuple):
    """Pictures of one split, in the order of their names."""

    files: tuple[pathlib.Path, ...]
    label: Int[np.ndarray, " n"]
    attribute: Int[np.ndarray, " n"]


def aligned_folders(
    data_dir: str | pathlib.Path,
    *,
    name: str = "bffhq",
    percent: str = "0.5pct",
    image_size: int = 64,
    accept_share: float = 1 / 3,
    seed: int = 0,
) -> Dataset:
    """A released set of pictures in which an attribute goes with the label in training.

    Layout: `<set>/<percent>/align/<y>/..._<y>_<a>.png` and `.../conflict/...` are training; `valid` and `test` beside
    the folder of the percentage, or in it, with or without folders of classes. A picture's name ends in its label and
    its attribute. A cell is aligned if training holds more of it than independence would put there, which must be what
    the folders say.

    Splits: train and test as released; valid is divided by seed into edit and accept; without valid a fifth of training
    is taken for it. Where a split has both sides of every class, it has matched pairs: two different pictures of one
    class, x on the aligned side.

    Args:
      data_dir: the folder of the set, or the folder in which it lies under its name.
      name: `bffhq`, `bar`, or any set in this layout.
      percent: which share of conflicting pictures, by the name of its folder.
      image_size: height and width of the pictures, cut to their central square and resized.
      accept_share: share of valid that becomes accept.
      seed: fixes the divisions.

    Raises:
      ContractError: missing folders, a picture whose name does not end in `_<label>_<attribute>`, a folder that does
        not agree with the names.

    Source: Lee et al. 2021 (DisEnt; bFFHQ and this layout, read in their code); Nam et al. 2020 (BAR).
    """
    expect(0 < accept_share < 1, "accept_share", "a share above 0 and below 1", accept_share)
    folder = aligned_folder(data_dir, name) / percent
    expect(all((folder / side).is_dir() for side in SIDES), "percent", f"a folder with {' and '.join(SIDES)}", folder)
    rng = named_rng(seed, f"{name} split")
    sides = [_listed(folder / side) for side in SIDES]
    train = Listed(*map(_joined, zip(*sides, strict=True)))
    places = {part: _place(folder, part) for part in ("valid", "test")}
    expect(places["test"] is not None, "data_dir", "a folder test", f"{folder.parent} without it")
    assert places["test"] is not None
    test = _listed(places["test"])
    if places["valid"] is None:
        order = rng.permutation(len(train.files))
        valid, train = (_taken(train, np.sort(rows)) for rows in np.split(order, [len(order) // 5]))
    else:
        valid = _listed(places["valid"])
    held = rng.permutation(len(valid.files))
    accept = round(len(held) * accept_share)
    expect(0 < accept < len(held), "accept_share", f"a share that divides {len(held)} pictures", accept_share)
    parts = {
        "train": train,
        "edit": _taken(valid, np.sort(held[accept:])),
        "accept": _taken(valid, np.sort(held[:accept])),
        "test": test,
    }
    classes, attributes = (
        1 + max(int(getattr(rows, kind).max()) for rows in parts.values()) for kind in ("label", "attribute")
    )
    aligned = aligned_cells(train.label, train.attribute, classes, attributes)
    in_align = aligned[sides[0].label, sides[0].attribute]
    expect(bool(in_align.all()), f"{folder.name}/align", "pictures of cells that are common in training", "others, too")
    splits = {
        part: Batch(
            x=decode_all(len(rows.files), image_size, rows.files.__getitem__, lambda i, rows=rows: rows.files[i].name),
            label=rows.label.astype(np.int32),
            attribute=rows.attribute.astype(np.int32),
        )
        for part, rows in parts.items()
    }
    pairs = {
        part: matched_pairs(batch, np.zeros((len(batch.label), 0), bool), aligned)
        for part, batch in splits.items()
        if part != "train" and _has_both(batch, aligned)
    }
    label_names, attribute_names = NAMES.get(name, ((), ()))
    dataset = Dataset(
        name=name,
        variant={
            "percent": percent,
            "image_size": image_size,
            **{part: len(rows.files) for part, rows in parts.items()},
        },
        splits=splits,
        pairs=pairs,
        label_names=label_names or tuple(map(str, range(classes))),
        attribute_names=attribute_names or tuple(map(str, range(attributes))),
        aligned=aligned,
        pairing="matched" if pairs else "none",
    )
    check_dataset(dataset)
    return dataset


def aligned_folder(data_dir: str | pathlib.Path, name: str) -> pathlib.Path:
    """The folder of a set: `data_dir` itself or `data_dir/<name>`, with a folder of a percentage in it.

    Raises:
      ContractError: saying what was looked for.
    """
    root = pathlib.Path(data_dir).expanduser()
    for folder in (root / name, root):
        if any((place / "align").is_dir() for place in sorted(folder.glob("*pct"))):
            return folder
    expect(False, "data_dir", f"{name}'s folders <share>pct/align and <share>pct/conflict", f"{root} without them")
    raise AssertionError


def _place(folder: pathlib.Path, part: str) -> pathlib.Path | None:
    """Where the pictures of a split lie: beside the folder of the percentage, or in it."""
    return next((place for place in (folder.parent / part, folder / part) if place.is_dir()), None)


def _listed(folder: pathlib.Path) -> Listed:
    """All pictures under a folder, by name, with what their names say."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    expect(len(files) > 0, str(folder), "pictures", "none")
    said = []
    for file in files:
        found = re.search(r"_(\d+)_(\d+)$", file.stem)
        expect(found is not None, file.name, "a name that ends in _<label>_<attribute>", file.stem)
        assert found is not None
        parent = file.parent.name
        agrees = not parent.isdigit() or int(parent) == int(found[1])
        expect(agrees, file.name, f"label {parent}, as its folder", found[1])
        said.append((int(found[1]), int(found[2])))
    label, attribute = np.array(said).T
    return Listed(tuple(files), label, attribute)


def _joined(pair: tuple) -> object:
    first, second = pair
    return first + second if isinstance(first, tuple) else np.concatenate([first, second])


def _taken(rows: Listed, chosen: np.ndarray) -> Listed:
    return Listed(tuple(rows.files[i] for i in chosen), rows.label[chosen], rows.attribute[chosen])


def _has_both(batch: Batch, aligned: Bool[np.ndarray, "k a"]) -> bool:
    """Whether every class of a split has pictures on both sides."""
    label, side = np.asarray(batch.label), aligned[batch.label, batch.attribute]
    return all(side[label == y].any() and not side[label == y].all() for y in np.unique(label))
