"""Sets of feature matrices as a data set, and the verdict on the last layer that comes with them."""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from jaxdebias import auditing
from jaxdebias.app.feature_sets import FeatureSets
from jaxdebias.auditing.judgement import judge, repair_effect
from jaxdebias.batching import unpair
from jaxdebias.core import Array, Batch, Dataset, Key, Params, cell_counts
from jaxdebias.measure._lean import label_association
from jaxdebias.report.verdict_words import with_words
from jaxdebias.results import build
from jaxdebias.results.records import Verdict

Head = Callable[[Params, Array], jax.Array]


def feature_data(k: int, splits: Mapping[str, Batch], pairs: Mapping[str, Batch], bias: str) -> Dataset:
    """The sets as a data set.

    Aligned cells are those of the training rows, where their attribute is known; else none. Values have no names in
    the files, and are called by their numbers.

    Args:
      k: number of classes.
      splits: name -> rows; `test` is needed.
      pairs: name -> pairs.
      bias: `pair` where twins are the same example, else `gap`.
    """
    a = 1 + max([0, *(int(np.max(batch.attribute)) for batch in splits.values())])
    aligned, train = np.zeros((k, a), bool), splits.get("train")
    if train is not None and (np.asarray(train.attribute) >= 0).any():
        aligned = label_association(cell_counts(train.label, train.attribute, k, a)) > 0
    return Dataset(
        name="features",
        variant={},
        splits=splits,
        pairs=pairs,
        label_names=tuple(map(str, range(k))),
        attribute_names=tuple(map(str, range(a))),
        aligned=aligned,
        pairing="counterfactual" if bias == "pair" else "matched",
    )


def feature_verdict(
    key: Key, head: Head, models: Sequence[Params], sets: FeatureSets, method: str, bias: str
) -> Verdict:
    """The verdict on the layer that came in, with the repair as what was tried.

    Judged are the test arrays; without any, the acceptance sets, and then no repair is verified. Where no row has a
    known attribute and there are two classes, both sides of the pairs are judged, the value being the class that a side
    is associated with.

    Args:
      key: randomness of tests and controls.
      head: `(params, features) -> logits`.
      models: parameters before and after the repair.
      sets: the sets of the features file.
      method: name of the repair.
      bias: as in `feature_data`.
    """
    k = np.shape(head(models[0], np.asarray(sets.accept.x[:1])))[1]
    tested = sets.test is not None or sets.test_pairs is not None
    test, test_pairs = (sets.test, sets.test_pairs) if tested else (sets.accept, sets.accept_pairs)
    splits = {"test": _with_sides(test, test_pairs, k), "accept": _with_sides(sets.accept, sets.accept_pairs, k)}
    if sets.train is not None:
        splits["train"] = sets.train
    pairs = {name: of for name, of in (("test", test_pairs), ("accept", sets.accept_pairs)) if of is not None}
    dataset = feature_data(k, splits, pairs, bias)
    key_judge, key_effect, key_measure = jax.random.split(key, 3)
    before, after = (
        {split: auditing.measure(key_measure, head, params, dataset, split=split) for split in ("test", "accept")}
        for params in models
    )
    kept = ("test", "accept") if tested else ("accept",)
    effects = ({split: one[split] for split in kept} for one in (before, after))
    tried = repair_effect(key_effect, method, *effects, dataset)
    found = judge(key_judge, head, models[0], dataset, before["test"], repairs=tried)
    return with_words(build.verdict(found, dataset.label_names))


def _with_sides(rows: Batch, pairs: Batch | None, classes: int) -> Batch:
    """The rows, or both sides of the pairs where the rows' attribute is unknown and the sides tell it."""
    if pairs is None or classes != 2 or (np.asarray(rows.attribute) >= 0).any():
        return rows
    label = np.asarray(pairs.label)
    unit = np.tile(np.arange(len(label), dtype=np.int32), 2)
    return unpair(pairs)._replace(attribute=np.concatenate([label, 1 - label]).astype(np.int32), unit=unit)
