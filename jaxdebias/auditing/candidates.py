"""Candidate attributes of a data set: values on every split, and counts in training.

    candidates = list_candidates(dataset, {"sex": {"train": sex, "test": sex_of_test}})
    dataset_of_sex = with_attribute(dataset, "sex", candidates["sex"])

The attribute of the data set is itself the first candidate. What is known about each is found by `assessment.assess`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Array, Batch, Dataset, cell_counts
from jaxdebias.data._matching import matched_pairs
from jaxdebias.data._values import cells, check_groups, column, different_values
from jaxdebias.measure._lean import label_association


class Candidate(NamedTuple):
    """An attribute that a model may have learned instead of the label."""

    values: Mapping[str, Array]
    """Split -> `[n]` int32 from 0, -1 where unknown. Splits may be missing, but for test."""
    names: tuple[str, ...]
    own: bool = False
    """It is the attribute of the data set, with its own aligned cells and pairs."""
    remark: str = ""
    """What a reader must know about the values: how many are unknown because of their text; empty if nothing."""


def list_candidates(
    dataset: Dataset, given: Mapping[str, Candidate | Mapping[str, Any]] | None = None
) -> dict[str, Candidate]:
    """Lists the data set's attribute, where it is known on the test split, and the given ones.

    Args:
      dataset: the data set.
      given: name -> split -> `[n]` values, or a Candidate made before. Values are strings, or numbers, which are cut at
        their quartiles if there are more than `MOST_VALUES`; None, NaN, "" and -1 are unknown. Needed for test; of use
        for train (how attribute and label go together), edit and accept (repairs).

    Raises:
      ContractError: a split that the data set has not, values that do not fit it, none for test.

    Where most test rows have values that training has not, the values of training are left out, with a remark.
    """
    candidates = {}
    if (np.asarray(dataset.splits["test"].attribute) >= 0).any():
        candidates[own_name(dataset)] = Candidate(
            {name: np.asarray(batch.attribute) for name, batch in dataset.splits.items()},
            tuple(dataset.attribute_names),
            own=True,
        )
    for name, of_split in (given or {}).items():
        what = f"candidates[{name!r}]"
        expect(name not in candidates, what, "another name than that of the data set's attribute", name)
        if isinstance(of_split, Candidate):
            candidates[name] = of_split
            continue
        expect("test" in of_split, what, "values for the test split", ", ".join(of_split) or "nothing")
        rows = {}
        for split, values in of_split.items():
            check_choice(f"{what}: split", split, dataset.splits)
            n = len(dataset.splits[split].label)
            of_rows = [_unknown_as_none(value) for value in cells(values)]
            expect(len(of_rows) == n, f"{what}[{split!r}]", f"[n={n}]", f"[{len(of_rows)}]")
            rows[split] = of_rows
        joined = column([value for of_rows in rows.values() for value in of_rows])
        expect(len(joined.names) > 1, what, "at least two values", ", ".join(joined.names) or "none")
        expect(not joined.problem, what, "values that samples share", joined.problem)
        check_groups(what, len(dataset.label_names), len(joined.names))
        ends = np.cumsum([len(of_rows) for of_rows in rows.values()])[:-1]
        number = dict(zip(rows, np.split(joined.value, ends), strict=True))
        difference = different_values(number, joined.names)
        remark = joined.remark
        if difference:  # a group that training hardly knew, or a spelling: either way there is something to audit
            number = {split: values for split, values in number.items() if split != "train"}
            unlike = (
                f"other values in training than in the test rows ({difference}), so that how it is associated with the "
                "label in training is not known; spell the values the same way if they are the same"
            )
            remark = f"{remark}; {unlike}" if remark else unlike
        candidates[name] = Candidate(number, joined.names, remark=remark)
    return candidates


def own_name(dataset: Dataset) -> str:
    """What the data set's attribute is called.

    The attribute that was chosen for the data set, or "attribute".
    """
    return str(dataset.variant.get("attribute", "attribute"))


def counts_of(dataset: Dataset, candidate: Candidate) -> np.ndarray:
    """`[k a]`, how label and candidate go together in training; all 0 where that is not known."""
    shape = len(dataset.label_names), len(candidate.names)
    if "train" not in candidate.values or "train" not in dataset.splits:
        return np.zeros(shape, np.int64)
    train = dataset.splits["train"]
    return cell_counts(train.label, counted(train, candidate.values["train"]), *shape)


def with_attribute(
    dataset: Dataset, name: str, candidate: Candidate, counts: Int[np.ndarray, "k a"] | None = None
) -> Dataset:
    """The data set with a candidate as its attribute: aligned cells from the counts, pairs of different samples.

    Where the counts of training are unknown, so are the aligned cells: there are none, and no pairs.

    Pairs join two samples of one label from an aligned and a conflicting cell, in splits where the candidate is known
    and both are there; nothing else makes them alike.
    """
    if candidate.own:
        return dataset
    unknown = {split: np.full(len(batch.label), -1, np.int32) for split, batch in dataset.splits.items()}
    splits = {
        split: batch._replace(attribute=candidate.values.get(split, unknown[split]), twin=None)
        for split, batch in dataset.splits.items()
    }
    shape = len(dataset.label_names), len(candidate.names)
    if counts is None:
        counts = counts_of(dataset, candidate)
    aligned = label_association(counts) > 0 if counts.any() else np.zeros(shape, bool)
    pairs = {
        split: matched
        for split in ("edit", "accept", "test")
        if split in splits and (matched := _pairs(splits[split], aligned)) is not None
    }
    return dataclasses.replace(
        dataset,
        variant={**dataset.variant, "attribute": name},
        splits=splits,
        pairs=pairs,
        attribute_names=candidate.names,
        aligned=aligned,
        pairing="matched" if pairs else "none",
    )


def counted(batch: Batch, values: Array) -> np.ndarray:
    """Values `[n]`, unknown in padding rows."""
    return np.asarray(values) if batch.weight is None else np.where(np.asarray(batch.weight) > 0, values, -1)


def _unknown_as_none(value: Any) -> Any:
    """-1 is unknown where it is a number, as everywhere in arrays of attributes; as text it is a value."""
    return None if isinstance(value, int | float | np.number) and value == -1 else value


def _pairs(batch: Any, aligned: np.ndarray) -> Any:
    """Pairs of one split, None where a label lacks a side."""
    label, attribute = np.asarray(batch.label), np.asarray(batch.attribute)
    side = np.where(attribute < 0, -1, aligned[label, np.maximum(attribute, 0)])
    both = [y for y in np.unique(label) if {0, 1} <= set(side[label == y].tolist())]
    if not both:
        return None
    kept = batch._replace(attribute=np.where(np.isin(label, both), attribute, -1).astype(np.int32), mask=None)
    return matched_pairs(kept, np.zeros((len(label), 1), bool), aligned)
