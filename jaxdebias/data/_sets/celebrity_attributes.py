"""What the three data sets of CelebA's attributes share: one attribute to classify, another as the bias."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxdebias.contracts import check_choice, check_dataset, expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._aligned import aligned_cells
from jaxdebias.data._matching import matched_pairs
from jaxdebias.data.streams import named_rng


class Roles(NamedTuple):
    """The attributes of all pictures by what they are in a data set."""

    target: str
    attribute: str
    label: Int[np.ndarray, " n"]
    """Whether the target is there, int32."""
    value: Int[np.ndarray, " n"]
    """Whether the bias attribute is there, int32."""
    others: Bool[np.ndarray, "n j"]
    """The attributes that are neither, on which pairs are matched."""


def roles(names: Sequence[str], values: Bool[np.ndarray, "n j"], target: str, attribute: str) -> Roles:
    """Gives each attribute its role.

    Args:
      names: of the attributes.
      values: `[n j]`, which of them each picture has.
      target: the attribute that is the label.
      attribute: the bias attribute.

    Raises:
      ContractError: an unknown attribute, or one in both roles.
    """
    expect(target != attribute, "attribute", f"another attribute than the target {target}", repr(attribute))
    for what, name in (("target", target), ("attribute", attribute)):
        check_choice(what, name, names)
    label, value = (values[:, names.index(name)].astype(np.int32) for name in (target, attribute))
    return Roles(
        target,
        attribute,
        label,
        value,
        values[:, [i for i, name in enumerate(names) if name not in (target, attribute)]],
    )


def aligned_in(
    found: Roles, rows: Int[np.ndarray, " _"], what: str, expected: str, got: Any
) -> Bool[np.ndarray, "2 2"]:
    """The cells of which the training rows hold more than independence would put there; refused if there are none."""
    aligned = aligned_cells(found.label[rows], found.value[rows], 2, 2)
    expect(bool(aligned.any()), what, expected, got)
    return aligned


def divide(
    where: Mapping[str, Int[np.ndarray, " _"]], stream: str, *, seed: int, max_train: int | None, accept_share: float
) -> dict[str, Int[np.ndarray, " _"]]:
    """Rows of train, edit, accept and test: some of train, and validation in two, both drawn by seed.

    Args:
      where: rows of train, validation and test.
      stream: name of the data set among the streams of random numbers.
      seed: of the draws.
      max_train: at most so many training rows; None: all.
      accept_share: share of validation that becomes accept.
    """
    expect(max_train is None or max_train >= 1, "max_train", "at least 1, or None for all", max_train)
    expect(0 < accept_share < 1, "accept_share", "a share above 0 and below 1", accept_share)
    train, held = where["train"], named_rng(seed, f"{stream} split").permutation(where["validation"])
    if max_train is not None:
        train = named_rng(seed, f"{stream} train").permutation(train)[:max_train]
    accept = round(len(held) * accept_share)
    expect(0 < accept < len(held), "accept_share", f"a share that divides {len(held)} pictures", accept_share)
    parts = {"train": train, "edit": held[accept:], "accept": held[:accept], "test": where["test"]}
    return {name: np.sort(rows) for name, rows in parts.items()}


def attribute_columns(
    known: Sequence[str], values: Bool[np.ndarray, "n j"], names: Sequence[str], parts: Mapping[str, np.ndarray]
) -> dict[str, dict[str, list[str]]]:
    """name -> split -> "NAME" or "not NAME" of each row of the split."""
    for name in names:
        check_choice("attribute", name, known)
    return {
        name: {
            split: [name if there else f"not {name}" for there in values[rows, known.index(name)]]
            for split, rows in parts.items()
        }
        for name in names
    }


def assemble(
    name: str,
    splits: Mapping[str, Batch],
    parts: Mapping[str, Int[np.ndarray, " _"]],
    found: Roles,
    aligned: Bool[np.ndarray, "2 2"],
    variant: Mapping[str, Any],
    *,
    per_label: int | None = None,
    regions: Mapping[str, Sequence[int]] | None = None,
) -> Dataset:
    """The data set of splits that are read, with pairs of edit, accept and test matched on the other attributes.

    Args:
      name: of the data set.
      splits: their pictures, labels and attributes.
      parts: rows of each split.
      found: see `roles`.
      aligned: see `aligned_in`.
      variant: what else fixes the data; sizes are added.
      per_label: at most so many pairs of each target value per split; None: as many as there are.
      regions: of the masks; None: there are none.
    """
    pairs = {
        part: matched_pairs(splits[part], found.others[parts[part]], aligned, balanced=True, per_label=per_label)
        for part in ("edit", "accept", "test")
    }
    dataset = Dataset(
        name=name,
        variant={
            "target": found.target,
            "attribute": found.attribute,
            **variant,
            **{part: len(rows) for part, rows in parts.items()},
            **{f"{part}_pairs": len(batch.label) for part, batch in pairs.items()},
        },
        splits=splits,
        pairs=pairs,
        label_names=(f"not {found.target}", found.target),
        attribute_names=(f"not {found.attribute}", found.attribute),
        aligned=aligned,
        pairing="matched",
        regions=regions or {},
    )
    check_dataset(dataset)
    return dataset
