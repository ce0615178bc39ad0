"""What to do about a shortcut: repairs of the last layer, what each is expected to give, and "leave it".

A repair is fitted on the edit split, makes its choices on one half of the acceptance split, and its effect is estimated
on the other half, paired over samples. It is recommended only if the mean accuracy over groups gets separably better
there and the counterfactual bias not separably worse; else the advice is to leave the model as it is. Better on
bias-conflicting samples alone recommends nothing: that can be paid for with as many mistakes on bias-aligned ones. Nor
does it that probabilities depend less on the attribute: a model that has become less sure of everything shows that,
too. Both are reported. The test split is read once, by `verify`, after the choice has been made.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxdebias.auditing._measurement import Measurement, changes, measure
from jaxdebias.contracts import ContractError
from jaxdebias.core import Array, Batch, Dataset, Key, Params, Split, repair_sets, take
from jaxdebias.measure._groups import SMALL_GROUP
from jaxdebias.measure._row_intervals import PairedChange
from jaxdebias.mitigate._dfr import DfrConfig, dfr
from jaxdebias.mitigate._fmd.config import FmdConfig
from jaxdebias.mitigate._fmd.edit import fmd

LEAVE, UNTRIED = "leave it", "not tried"
GAIN, HARM = "group_mean_accuracy", "counterfactual_bias"
"""What has to get better, and what must not get worse."""
LEAST_GAIN = 0.01
"""A smaller estimated gain is not worth a repair, however sure it is."""
ESTIMATE = "estimate"


class Option(NamedTuple):
    """A repair that was tried."""

    name: str
    params: Params
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


class Advice(NamedTuple):
    """What to do, and what that is known from."""

    fix: str
    """Name of an option; `LEAVE`; or `UNTRIED`, where nothing could be tried."""
    options: tuple[Option, ...]
    """All that were tried, the best first."""
    missing: str
    """What would be needed to try more; empty if nothing."""

    @property
    def chosen(self) -> Option | None:
        return next((option for option in self.options if option.name == self.fix), None)


def advise(
    key: Key, split: Split, params: Params, dataset: Dataset, *, head_path: tuple[str | int, ...] | None = None
) -> Advice:
    """Tries Deep Feature Reweighting and Fast Model Debias, and says which to use, if any.

    Args:
      key: random key.
      split: the model cut before its last layer.
      params: of the trained model, which come back untouched.
      dataset: its splits edit and accept, with known attributes, and their pairs are used; never test.
      head_path: where the last layer lies in params; None: as the split says.
    """
    lacks = _lacks(dataset)
    if lacks:
        return Advice(UNTRIED, (), lacks)
    key_halves, key_fmd, key_measure, key_changes = jax.random.split(key, 4)
    halved = _halved(key_halves, dataset)
    sets = repair_sets(halved)
    split = split if head_path is None else split._replace(head_path=head_path)

    def with_fmd() -> Params:
        config = FmdConfig(bias="pair" if dataset.pairing == "counterfactual" else "gap")
        return fmd(key_fmd, split, params, sets, config)[0]

    def with_dfr() -> Params:
        return dfr(jax.random.fold_in(key_fmd, 1), split, params, sets, DfrConfig())[0]

    tried = {"dfr": with_dfr}
    if all(batch is not None for batch in (sets.pairs, sets.accept_pairs, sets.train)):
        tried["fmd"] = with_fmd
    before = measure(key_measure, _logits(split), params, halved, split=ESTIMATE)
    options, refused = [], []
    for name, fit in tried.items():
        began = time.perf_counter()
        try:
            edited = jax.block_until_ready(fit())
        except ContractError as error:  # a head that is not affine, say: what cannot be tried is said
            refused.append(f"{name} could not be tried: {error}")
            continue
        after = measure(key_measure, _logits(split), edited, halved, split=ESTIMATE)
        expected = changes(key_changes, before, after, halved, split=ESTIMATE)
        options.append(Option(name, edited, expected, *_sorted(expected), time.perf_counter() - began))
    options.sort(key=_worth, reverse=True)
    best = UNTRIED if not options else options[0].name if options[0].worth_it else LEAVE
    return Advice(best, tuple(options), "; ".join(refused))


class Verified(NamedTuple):
    """What a repair did on the test split, in a paired test."""

    after: Measurement
    changes: Mapping[str, PairedChange]
    """Metric -> after minus before."""
    held: bool
    """What was expected to get better did, separably, and nothing judged got separably worse."""


def verify(
    key: Key, split: Split, option: Option, dataset: Dataset, before: Measurement, *, measure_key: Key
) -> Verified:
    """Measures a repair on the test split.

    Args:
      key: of the intervals of the differences.
      split: the model cut before its last layer.
      option: the repair.
      dataset: the data set.
      before: of the trained model on the test split, made with `measure_key`.
      measure_key: key with which `before` was measured.
    """
    after = measure(measure_key, _logits(split), option.params, dataset)
    differences = changes(key, before, after, dataset)
    return Verified(after, differences, worth_it(*_sorted(differences)))


def worth_it(gains: Sequence[str], harm: Sequence[str]) -> bool:
    """Whether a repair is: what is judged, by what gets separably better and what separably worse."""
    return GAIN in gains and not harm


def _lacks(dataset: Dataset) -> str:
    """What a repair needs and the data set has not; empty if it has all."""
    for name in ("edit", "accept"):
        if name not in dataset.splits:
            return f"a split {name!r} of held-out samples with known attribute"
        batch = dataset.splits[name]
        label, attribute = np.asarray(batch.label), np.asarray(batch.attribute)
        known = attribute >= 0
        sides = set(dataset.aligned[label[known], attribute[known]].tolist())
        if len(sides) < 2:
            return f"bias-aligned and bias-conflicting samples of known attribute in split {name!r}"
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
