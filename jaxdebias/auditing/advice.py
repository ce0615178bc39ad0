"""Repairs that are tried where a model serves groups differently or relies on an attribute, and what each gives.

A repair is fitted on the edit split (or on training rows), makes its choices on one half of the acceptance split, and
its effect is estimated on the other half, paired over samples. It is recommended only if the balanced accuracy (the
mean over bias-aligned and bias-conflicting samples; where training is unknown, over attribute values) gets separably
better there, by more than a point, and the counterfactual bias not separably worse. The mean over all groups of label
and attribute is reported: with many groups it rests on a handful of rows each. Better on
bias-conflicting samples alone recommends nothing: that can be paid for with as many mistakes on bias-aligned ones. Nor
does it that probabilities depend less on the attribute: a model that has become less sure of everything shows that,
too. Both are reported. The test split is read once, by `verify`, after the choice has been made.

Tried is whatever `jaxdebias debias` shows beside its own method: DFR, FMD, fine-tuning, training on the held-out
samples from scratch; and what needs training rows: the last layer refitted on them and their counterfactuals and, where
their groups are known, DFR on them and group-balanced retraining, which is what the advice to train again asks for.
What trains all layers sees at most `MOST_ROWS` rows for each learning rate, so that an audit of a large training set
costs no training of its own; a full one may do better.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxdebias.auditing._measurement import Measurement, changes, known_attribute, measure
from jaxdebias.auditing.verdict import LEAST_GAIN, Repair
from jaxdebias.batching import unpair
from jaxdebias.contracts import ContractError
from jaxdebias.core import Array, Batch, Classifier, Dataset, Key, Params, Split, repair_sets, take
from jaxdebias.measure._groups import SMALL_GROUP
from jaxdebias.measure._row_intervals import PairedChange, paired_change
from jaxdebias.mitigate._dfr import dfr
from jaxdebias.mitigate._fine_tune import FineTuneConfig, fine_tune, fine_tune_head, train_from_scratch
from jaxdebias.mitigate._fmd.config import FmdConfig
from jaxdebias.mitigate._fmd.edit import fmd
from jaxdebias.mitigate._group_balanced import balanced_draws
from jaxdebias.mitigate._refit_head import refit_head

GAIN, HARM = "balanced_accuracy", "counterfactual_bias"
"""What has to get better, and what must not get worse."""
ESTIMATE = "estimate"
MOST_ROWS = 120_000
"""Rows that a repair of all layers trains on for each learning rate, every epoch's counted."""
MOST_DRAWN = 20_000
"""Different draws among them, where groups are balanced."""


class Option(NamedTuple):
    """A repair that was tried."""

    name: str
    params: Params
    whole: bool
    """It changed layers below the last one: features of the model as it was are none of it."""
    expected: Mapping[str, PairedChange]
    """Metric -> after minus before, on the half of the acceptance split that chose nothing."""
    gains: tuple[str, ...]
    """The judged metrics, `GAIN` and `HARM`, that get separably better; `GAIN` by more than `LEAST_GAIN`."""
    harm: tuple[str, ...]
    """Those that get separably worse."""
    seconds: float

    @property
    def worth_it(self) -> bool:
        return worth_it(self.gains, self.harm)


class Tried(NamedTuple):
    """What was tried on held-out samples."""

    options: tuple[Option, ...]
    """The best first."""
    missing: str
    """What would be needed to try more; empty if nothing."""

    @property
    def recommended(self) -> Option | None:
        """The best one, if it is worth it."""
        return self.options[0] if self.options and self.options[0].worth_it else None


class Subject(NamedTuple):
    """A model and its data, as features below the last layer and, if all layers can be trained, whole."""

    split: Split
    """Cut before the last layer; takes features."""
    features: Dataset
    """The data set in features."""
    classifier: Classifier | None
    """With all layers; None where only the last one can be changed."""
    dataset: Dataset
    """The data set as the classifier takes it."""

    def halved(self, key: Key) -> "Subject":
        """With the acceptance split cut in two, the same way in both views."""
        return self._replace(features=_halved(key, self.features), dataset=_halved(key, self.dataset))

    def measure(self, key: Key, params: Params, *, whole: bool, split: str) -> Measurement:
        """Measures parameters on a split, through all layers where they were changed."""
        if whole:
            return measure(key, self.classifier.apply, params, self.dataset, split=split)
        return measure(key, _logits(self.split), params, self.features, split=split)


def try_repairs(key: Key, subject: Subject, params: Params, *, head_path: tuple[str | int, ...] | None = None) -> Tried:
    """Tries the repairs that the data allow, the best first.

    Args:
      key: random key.
      subject: the model and its data; splits edit and accept, with known attributes, and their pairs are used; never
        test.
      params: of the trained model, which come back untouched.
      head_path: where the last layer lies in params; None: as the split says.
    """
    lacks = _lacks(subject.features)
    if lacks:
        return Tried((), lacks)
    key_halves, key_fit, key_measure, key_changes = jax.random.split(key, 4)
    halved = subject.halved(key_halves)
    before = halved.measure(key_measure, params, whole=False, split=ESTIMATE)
    options, refused = [], []
    for name, (fit, whole) in _repairs(key_fit, halved, params, head_path).items():
        began = time.perf_counter()
        try:
            edited = jax.block_until_ready(fit())
        except ContractError as error:  # a head that is not affine, say: what cannot be tried is said
            refused.append(f"{name} could not be tried: {error}")
            continue
        after = halved.measure(key_measure, edited, whole=whole, split=ESTIMATE)
        expected = judged_changes(key_changes, before, after, halved.features, split=ESTIMATE)
        options.append(Option(name, edited, whole, expected, *_sorted(expected), time.perf_counter() - began))
    options.sort(key=_worth, reverse=True)
    return Tried(tuple(options), "; ".join(refused))


def _repairs(
    key: Key, subject: Subject, params: Params, head_path: tuple[str | int, ...] | None
) -> dict[str, tuple[Callable[[], Params], bool]]:
    """Name -> (repair, whether it changes more than the last layer)."""
    keys, sets = [jax.random.fold_in(key, i) for i in range(7)], repair_sets(subject.features)
    split = subject.split if head_path is None else subject.split._replace(head_path=head_path)
    config = FmdConfig(bias="pair" if subject.features.pairing == "counterfactual" else "gap")
    found: dict[str, tuple[Callable[[], Params], bool]] = {"dfr": (lambda: dfr(keys[1], split, params, sets)[0], False)}
    if sets.train is not None and (np.asarray(sets.train.attribute) >= 0).any():
        of_train = sets._replace(edit=sets.train, pairs=None)
        found["dfr_train"] = (lambda: dfr(keys[2], split, params, of_train)[0], False)
    if all(batch is not None for batch in (sets.pairs, sets.accept_pairs, sets.train)):
        found["fmd"] = (lambda: fmd(keys[0], split, params, sets, config)[0], False)
    if sets.train is not None and sets.pairs is not None and subject.features.pairing == "counterfactual":
        found["refit_head"] = (lambda: refit_head(keys[5], split, params, sets)[0], False)
    if subject.classifier is None:
        found["fine_tune_head"] = (lambda: fine_tune_head(keys[3], split, params, sets)[0], False)
        return found
    whole, classifier = repair_sets(subject.dataset), subject.classifier
    found["fine_tune"] = (lambda: fine_tune(keys[3], classifier, params, whole)[0], True)
    every = subject.dataset.splits["edit"] if whole.pairs is None else unpair(whole.pairs)
    epochs = FineTuneConfig(epochs=max(5, min(60, MOST_ROWS // max(len(every.label), 1))))
    scratch = whole._replace(edit=every, pairs=None)
    found["scratch"] = (lambda: train_from_scratch(keys[4], classifier, params, scratch, epochs)[0], True)
    balanced = None if whole.train is None else balanced_rows(keys[6], whole.train)
    if balanced is not None:
        again = FineTuneConfig(epochs=max(1, min(20, MOST_ROWS // len(balanced.label))))
        groups = whole._replace(edit=balanced, pairs=None)
        found["group_balanced"] = (lambda: fine_tune(keys[6], classifier, params, groups, again)[0], True)
    return found


def balanced_rows(key: Key, train: Batch) -> Batch | None:
    """Training rows in which every group of label and attribute is equally likely, drawn with replacement.

    Args:
      key: randomness of the draws.
      train: the training split; rows of unknown attribute are never drawn.

    Returns:
      As many rows as have a known attribute, at most `MOST_DRAWN`; None with fewer than two groups.
    """
    attribute = known_attribute(train)
    attributes = int(attribute.max(initial=0)) + 1
    chance = np.asarray(balanced_draws(np.asarray(train.label), attribute, int(train.label.max()) + 1, attributes))
    known = int((attribute >= 0).sum())
    if chance.sum() < 1.5:  # the number of groups that are present
        return None
    rows = np.asarray(jax.random.choice(key, len(chance), (min(known, MOST_DRAWN),), p=chance / chance.sum()))
    return take(train._replace(twin=None, mask=None, unit=None, twin_attribute=None), np.sort(rows))


def judged_changes(
    key: Key, before: Measurement, after: Measurement, dataset: Dataset, *, split: str
) -> dict[str, PairedChange]:
    """`changes` and the change of the balanced accuracy, by which repairs are judged.

    Args:
      key: randomness of the tests.
      before: of the trained model.
      after: of the repaired one, on the same rows.
      dataset: the data set.
      split: name of the split that both were measured on.
    """
    batch = dataset.splits[split]
    label, attribute = np.asarray(batch.label), known_attribute(batch)  # padding is in no pool
    pool = np.where(attribute >= 0, dataset.aligned[label, np.maximum(attribute, 0)], -1).astype(np.int64)
    if not dataset.aligned.any():
        pool = attribute.astype(np.int64)
    right = [(measured.logits.argmax(-1) == label).astype(np.int64) for measured in (before, after)]
    key_changes, key_balanced = jax.random.split(key)
    found = changes(key_changes, before, after, dataset, split=split)
    if not (pool >= 0).any():
        return found
    # Pools weigh equally through their rows: one rate, whose design effect holds for few rows of a pool as well.
    size = np.bincount(pool[pool >= 0])
    weight = np.where(pool >= 0, 1.0 / size[np.maximum(pool, 0)], 0.0)
    unit = np.arange(len(label)) if batch.unit is None else np.asarray(batch.unit)
    group = np.zeros(len(label), np.int64)
    balanced = paired_change(*right, group, [1.0], key=key_balanced, unit=unit, weight=weight / weight.max())
    return {GAIN: balanced, **found}


def repairs(tried: Tried, verified: "Verified | None") -> list[Repair]:
    """What was tried as `verdict.decide` takes it: the change of the balanced accuracy."""
    return [
        Repair(
            option.name,
            option.expected[GAIN],
            verified.changes.get(GAIN) if verified is not None and option is tried.recommended else None,
        )
        for option in tried.options
        if GAIN in option.expected and option.params is not None and not option.harm
    ]


class Verified(NamedTuple):
    """What a repair did on the test split, in a paired test."""

    after: Measurement
    changes: Mapping[str, PairedChange]
    """Metric -> after minus before."""
    held: bool
    """What was expected to get better did, separably, and nothing judged got separably worse."""


def verify(key: Key, subject: Subject, option: Option, before: Measurement, *, measure_key: Key) -> Verified:
    """Measures a repair on the test split.

    Args:
      key: of the tests of the differences.
      subject: the model and its data.
      option: the repair.
      before: of the trained model on the test split, made with `measure_key`.
      measure_key: key with which `before` was measured.
    """
    after = subject.measure(measure_key, option.params, whole=option.whole, split="test")
    differences = judged_changes(key, before, after, subject.features, split="test")
    return Verified(after, differences, worth_it(*_sorted(differences)))


def worth_it(gains: Sequence[str], harm: Sequence[str]) -> bool:
    """Whether a repair is: what is judged, by what gets separably better and what separably worse."""
    return GAIN in gains and not harm


def without_harm(differences: Mapping[str, PairedChange]) -> bool:
    """Whether nothing judged gets separably worse."""
    return not _sorted(differences)[1]


def _lacks(dataset: Dataset) -> str:
    """What a repair needs and the data set has not; empty if it has all."""
    for name in ("edit", "accept"):
        if name not in dataset.splits:
            return f"a split {name!r} of held-out samples with known attribute"
        batch = dataset.splits[name]
        label, attribute = np.asarray(batch.label), np.asarray(batch.attribute)
        known = attribute >= 0
        if len(np.unique(attribute[known])) < 2 or len(np.unique(label[known])) < 2:
            return f"samples of two labels and of two values of the attribute in split {name!r}"
    accept = dataset.splits["accept"]
    units = len(accept.label) if accept.unit is None else len(np.unique(accept.unit))
    # An interval over fewer says little: where all of a handful agree, it has no width.
    return "" if units >= 2 * SMALL_GROUP else f"{2 * SMALL_GROUP} independent samples in split 'accept', not {units}"


def _halved(key: Key, dataset: Dataset) -> Dataset:
    """Accept, and its pairs, cut in two by independent units: one half stays `accept`, the other is `ESTIMATE`.

    Rows without units are their own; pairs as many as rows are taken to be those rows. Of matched pairs, a sample may
    choose in a pair and be judged as a row: one reason why the test split has the last word.
    """
    accept, pairs = dataset.splits["accept"], dataset.pairs.get("accept")
    n = len(accept.label)
    unit = np.arange(n) if accept.unit is None else np.asarray(accept.unit)
    half = np.asarray(jax.random.permutation(key, int(unit.max(initial=0)) + 1)) % 2 == 1
    split = {"accept": take(accept, np.flatnonzero(~half[unit])), ESTIMATE: take(accept, np.flatnonzero(half[unit]))}
    halves = {}
    if pairs is not None:
        if pairs.unit is not None and accept.unit is not None:
            of_pair = np.asarray(pairs.unit)
        else:
            of_pair = np.arange(len(pairs.label))
        side = half[of_pair % len(half)]
        halves = {name: take(pairs, np.flatnonzero(rows)) for name, rows in (("accept", ~side), (ESTIMATE, side))}
    whole = dataset.pairing != "none" and all(len(batch.label) for batch in halves.values())
    return dataclasses.replace(
        dataset,
        splits={**dataset.splits, **split},
        pairs={**_without(dataset.pairs, "accept"), **(halves if whole else {})},
    )


def _without(pairs: Mapping[str, Batch], name: str) -> dict[str, Batch]:
    return {key: value for key, value in pairs.items() if key != name}


def _sorted(differences: Mapping[str, PairedChange]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What gets separably better, and what separably worse."""

    def separably(name: str, better: bool) -> bool:
        change = differences.get(name)
        if change is None or not change.separable or (name == GAIN and better and change.value <= LEAST_GAIN):
            return False
        return ((change.value > 0) == name.endswith("accuracy")) == better

    gains, harm = (tuple(name for name in (GAIN, HARM) if separably(name, better)) for better in (True, False))
    return gains, harm


def _worth(option: Option) -> tuple[bool, float]:
    """Larger is better: worth it at all, by the sure part of the gain."""
    sure = option.expected[GAIN].low if GAIN in option.expected else np.nan
    return option.worth_it, float(np.nan_to_num(sure, nan=-np.inf))


@functools.cache
def _logits(split: Split) -> Callable[[Params, Array], jax.Array]:
    return lambda params, x: split.head(params, split.features(params, x))
