"""What changing the attribute alone does to the predictions on the test split: the strongest evidence of reliance.

    found = intervene(key, model, dataset, candidates, counts, predicted, pair_classes=classes)
    found["sex"]                     # measure.Intervention, one for each kind of change that the data allow

Three kinds of change need nothing but the data set and a model that can be called: *twins* (the same sample with
another value), the *hidden region* that shows the attribute (`Dataset.attribute_region`), and *flipped columns* of a
table that hold the attribute. Each has a control (`measure.changed_value_reliance`, `hidden_region_reliance`), since a
changed sample may merely be harder.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdebias.auditing.candidates import Candidate, own_name
from jaxdebias.core import Array, Batch, Dataset, Key
from jaxdebias.measure import Intervention, changed_value_reliance, hidden_region_reliance, intervention_reliance
from jaxdebias.measure._changed_values import associated_class
from jaxdebias.measure._interventions import other_values
from jaxdebias.measure._significance import numpy_generator

Predict = Callable[[Array], np.ndarray]
"""x -> predicted classes `[n]`."""
MOST_HIDDEN = 4000
"""Pictures of which a region is hidden, at most."""
LEAST_CONTROL = 0.5
"""Area of the control region, as a share of that of the hidden one, below which there is none."""


class Changed(NamedTuple):
    """Rows before and after a change of the attribute."""

    batch: Batch
    """Label and value before the change."""
    before: np.ndarray
    """`[n]` predicted classes."""
    after: np.ndarray
    """`[n]` predicted classes."""
    value: np.ndarray
    """`[n]` value after the change; -1 unknown."""


def intervene(
    key: Key,
    predict: Predict | None,
    dataset: Dataset,
    candidates: Mapping[str, Candidate],
    counts: Mapping[str, np.ndarray],
    predicted: np.ndarray,
    *,
    pair_classes: tuple[np.ndarray, np.ndarray] | None = None,
    level: float = 0.95,
) -> dict[str, list[Intervention]]:
    """Makes every change that the data set allows, and measures what it does.

    Args:
      key: randomness of new values, controls and tests.
      predict: predicted classes of any rows; None where there are predictions only.
      dataset: the data set; rows of weight 0 count in nothing.
      candidates: name -> values of an attribute.
      counts: name -> `[k a]` training rows by class and value; 0 where unknown.
      predicted: `[n]` predicted classes of the test split.
      pair_classes: `[m]` predicted classes at x and at the twin of the test pairs.
      level: confidence level of the intervals.

    Returns:
      name -> interventions; attributes without any are left out.
    """
    keys = jax.random.split(key, 3)
    found: dict[str, list[Intervention | None]] = {name: [] for name in candidates}
    own = own_name(dataset)
    if own in candidates and candidates[own].own:
        of_own = counts[own] if counts[own].any() else dataset.aligned.astype(np.int64)
        if of_own.any():
            found[own] += [
                _twins(keys[0], predict, dataset, of_own, predicted, pair_classes, level),
                _hidden_region(keys[1], predict, dataset, of_own, predicted, level),
            ]
    for number, (name, candidate) in enumerate(candidates.items()):
        if predict is not None and counts[name].any():
            key_column = jax.random.fold_in(keys[2], number)
            found[name].append(_flipped_column(key_column, predict, dataset, name, candidate, counts[name], predicted))
    return {name: [one for one in several if one is not None] for name, several in found.items() if any(several)}


def _twins(
    key: Key,
    predict: Predict | None,
    dataset: Dataset,
    counts: np.ndarray,
    predicted: np.ndarray,
    pair_classes: tuple[np.ndarray, np.ndarray] | None,
    level: float,
) -> Intervention | None:
    """What twins show: those of the test split, whose values change both ways, where that is the control; else pairs.

    With more than two classes the control is among the classes, and pairs, which the audit has predicted, are enough.
    """
    if dataset.pairing != "counterfactual":
        return None
    test, pairs, values = dataset.splits["test"], dataset.pairs.get("test"), counts.shape[1]
    if len(counts) == 2 and predict is not None and test.twin is not None:
        both = Changed(test, predicted, predict(test.twin), twin_values(test, values))
        found = _measured(key, both, counts, "twins", level)
        if found is not None and found.controlled:
            return found
    if pair_classes is None or pairs is None:
        return None
    changed = Changed(pairs, *pair_classes, twin_values(pairs, values))
    found = _measured(key, changed, counts, "twins", level)
    if found is not None or (changed.value >= 0).any():
        return found
    # Nobody knows which value the twins show, only that x shows the one associated with the label.
    return intervention_reliance(
        changed.before, changed.after, np.asarray(pairs.label),
        key=key, away=True, evidence="twins", unit=_array(pairs.unit), weight=_array(pairs.weight), level=level,
    )  # fmt: skip


def twin_values(batch: Batch, values: int) -> np.ndarray:
    """`[n]`, the attribute of each twin; -1 where it is unknown."""
    if batch.twin_attribute is not None:
        return np.asarray(batch.twin_attribute)
    attribute = np.asarray(batch.attribute)
    return np.where(attribute >= 0, 1 - attribute, -1) if values == 2 else np.full(len(attribute), -1)


def _measured(key: Key, changed: Changed, counts: np.ndarray, evidence: str, level: float) -> Intervention | None:
    batch = changed.batch
    return changed_value_reliance(
        changed.before,
        changed.after,
        np.asarray(batch.label),
        np.asarray(batch.attribute),
        changed.value,
        counts,
        key=key,
        evidence=evidence,
        unit=_array(batch.unit),
        weight=_array(batch.weight),
        level=level,
    )


def _hidden_region(
    key: Key, predict: Predict | None, dataset: Dataset, counts: np.ndarray, predicted: np.ndarray, level: float
) -> Intervention | None:
    """What hiding the attribute's region shows, against hiding as large a region elsewhere, where there is room."""
    test, name = dataset.splits["test"], dataset.attribute_region
    if predict is None or name is None or test.mask is None:
        return None
    key_rows, key_signs = jax.random.split(key)
    n = len(test.label)
    rows = np.sort(numpy_generator(key_rows).permutation(n)[:MOST_HIDDEN])
    x, mask = np.asarray(test.x)[rows], np.asarray(test.mask)[rows]
    region = np.isin(mask, list(dataset.regions[name]))
    elsewhere = moved_region(region)
    hidden = predict(hide(x, region))
    control = predict(hide(x, elsewhere)) if elsewhere.sum() >= LEAST_CONTROL * region.sum() else None
    return hidden_region_reliance(
        predicted[rows], hidden, np.asarray(test.label)[rows], np.asarray(test.attribute)[rows], counts,
        key=key_signs, control=control, level=level,
        unit=None if test.unit is None else np.asarray(test.unit)[rows],
        weight=None if test.weight is None else np.asarray(test.weight)[rows],
    )  # fmt: skip


def hide(x: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Pictures with a region in the mean colour of all of them.

    Args:
      x: `[n h w c]` pictures.
      region: `[n h w]` bool.

    >>> hide(np.array([[[[0.0], [1.0]]]]), np.array([[[True, False]]])).ravel().tolist()
    [0.5, 1.0]
    """
    mean = x.mean((0, 1, 2), dtype=np.float64)
    fill = np.round(mean) if np.issubdtype(x.dtype, np.integer) else mean
    return np.where(region[..., None], fill.astype(x.dtype), x)


def moved_region(region: np.ndarray) -> np.ndarray:
    """The region moved by half a picture down and to the right, without what it shares with itself.

    >>> moved_region(np.array([[[1, 0, 0, 0], [0, 0, 0, 0]]], bool)).astype(int).tolist()
    [[[0, 0, 0, 0], [0, 0, 1, 0]]]
    """
    height, width = region.shape[1:]
    return np.roll(region, (height // 2, width // 2), axis=(1, 2)) & ~region


def _flipped_column(
    key: Key,
    predict: Predict,
    dataset: Dataset,
    name: str,
    candidate: Candidate,
    counts: np.ndarray,
    predicted: np.ndarray,
    level: float = 0.95,
) -> Intervention | None:
    """What another value in the columns that hold the attribute shows; None where no column of the table does."""
    test = dataset.splits["test"]
    value = np.asarray(candidate.values["test"])
    columns, patterns = attribute_columns(dataset, name, value, len(candidate.names))
    of_value = associated_class(counts)
    usable = np.array([v for v in patterns if of_value[v] >= 0], int)
    if not len(usable) or len(patterns) < 2:
        return None
    key_values, key_signs = jax.random.split(key)
    new = other_values(numpy_generator(key_values), value, usable)  # who keeps the own one takes no part
    known = value >= 0
    x = np.array(test.x)
    x[np.ix_(known, columns)] = np.stack([patterns[v] for v in new[known]])
    batch = test._replace(attribute=value)
    return _measured(
        key_signs, Changed(batch, predicted, predict(x), np.where(known, new, -1)), counts, "flipped_column", level
    )


def attribute_columns(
    dataset: Dataset, name: str, value: np.ndarray, values: int
) -> tuple[list[int], dict[int, np.ndarray]]:
    """The columns that hold an attribute, and what they hold for each of its values; empty where there are none.

    Columns are those with its name, or `name=category`. They hold the attribute if all test rows of one value have
    the same numbers in them, and rows of different values different ones.

    Args:
      dataset: a table, with `feature_names`.
      name: name of the attribute.
      value: `[n]` its values on the test split, -1 unknown.
      values: how many there are.
    """
    x = np.asarray(dataset.splits["test"].x)
    columns = [i for i, of in enumerate(dataset.feature_names) if of == name or of.startswith(f"{name}=")]
    if x.ndim != 2 or not columns:
        return [], {}
    patterns = {}
    for v in range(values):
        found = np.unique(x[value == v][:, columns], axis=0)
        if len(found) > 1:
            return [], {}
        if len(found):
            patterns[v] = found[0]
    different = len({pattern.tobytes() for pattern in patterns.values()}) == len(patterns)
    return (columns, patterns) if different else ([], {})


def _array(of_rows: Any) -> np.ndarray | None:
    return None if of_rows is None else np.asarray(of_rows)
