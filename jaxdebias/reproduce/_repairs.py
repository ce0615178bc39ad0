"""Every repair of one trained model by its name: what the tables of FMD and of worst groups share.

A case is a data set and a seed. Its model is trained once, as `jaxdebias train` does, then every method repairs that
same model. What is reported is the test split. Selection, acceptance and learning rates see `edit` and `accept` only.

Of a row:
    seconds             wall time of the method's first call in its process, compilation included; of the training for
                        methods that train. Measuring is not counted.
    seconds_warm        of a second call with the same arguments, where the first one took less than `REPEATED`; else
                        None
    cpu_seconds         of the first call, over all threads
    samples             held-out samples that it uses, beyond the training set
    changed             numbers among the parameters that differ from those of the trained model, and their share
    free                of a block: numbers that are chosen; a channel mixing moves a whole kernel by few of them
"""

import functools
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxdebias.core import Batch, Dataset, Params, repair_sets
from jaxdebias.explain import influence
from jaxdebias.mitigate import (
    DfrConfig,
    FineTuneConfig,
    FmdConfig,
    dfr,
    fine_tune,
    fine_tune_block,
    fine_tune_head,
    fmd,
    refit_head,
    self_influence,
    train_from_scratch,
)
from jaxdebias.mitigate._methods import TRAINING
from jaxdebias.reproduce._rates import changed, measured, said
from jaxdebias.reproduce._training import Setting, Trained, train

REPEATED = 10.0
"""Seconds: quicker methods are called a second time, for the time without compilation."""


class Repair(NamedTuple):
    """A repair that has not run yet."""

    needs: str
    samples: int
    fit: Callable[[], tuple[Params, Any]]
    """Returns (params, what it says of itself)."""
    free: int | None = None
    """Numbers that are chosen, where they are fewer than the parameters that change by them."""


@dataclass(frozen=True, eq=False)
class Case:
    """A data set of a table, and its model."""

    dataset: Dataset
    folder: Path | None
    """Of its files."""
    setting: Setting
    seed: int
    trial: bool
    repairs_of: Callable[["Case"], Mapping[str, Repair]]
    """The repairs that the table knows; they look at the trained model."""

    @functools.cached_property
    def trained(self) -> Trained:
        """The model that repairs begin with, trained when it is first asked for."""
        return train("erm", self.setting, self.dataset, self.seed)

    @functools.cached_property
    def repairs(self) -> Mapping[str, Repair]:
        """The repairs by name."""
        return self.repairs_of(self)

    def key(self, what: str) -> jax.Array:
        """Of a method; `edit`, `measure`, `tune` and `scratch` are those of the command line."""
        edit, measure, _, baselines = jax.random.split(jax.random.key(self.seed), 4)
        tune, scratch = jax.random.split(baselines)
        named = {"edit": edit, "measure": measure, "tune": tune, "scratch": scratch}
        return named.get(what, jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(what.encode()) & 0x7FFFFFFF))


def measure_method(method: str, case: Case) -> dict[str, Any]:
    """A row: `erm`, any other training method by its name, or a repair of `erm` that the table knows.

    Args:
      method: its name.
      case: data set, seed and repairs.
    """
    if method == "erm":
        trained = case.trained
        row = _rates(case, trained.params) | {"changed": 0, "changed_share": 0.0, "samples": 0, "needs": ""}
        return row | {"seconds": trained.seconds, **trained.said}
    if method.partition("@")[0] not in TRAINING:
        return _repaired(case, case.repairs[method])
    trained = train(method, case.setting, case.dataset, case.seed)
    rates = measured(case.key("measure"), trained.classifier.apply, trained.params, case.dataset)
    return {**rates, "samples": 0, "needs": "", "seconds": trained.seconds, **trained.said}


def _rates(case: Case, params: Params) -> dict[str, float | None]:
    return measured(case.key("measure"), case.trained.classifier.apply, params, case.dataset)


def _repaired(case: Case, repair: Repair) -> dict[str, Any]:
    before = case.trained.params  # the time of its training is not the repair's
    start, cpu = time.perf_counter(), time.process_time()
    params, info = jax.block_until_ready(repair.fit())
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    warm = None
    if seconds < REPEATED and not case.trial:
        start = time.perf_counter()
        jax.block_until_ready(repair.fit())
        warm = time.perf_counter() - start
    return {
        **_rates(case, params),
        **changed(before, params),
        "free": repair.free,
        "samples": repair.samples,
        "needs": repair.needs,
        "seconds": seconds,
        "seconds_warm": warm,
        "cpu_seconds": cpu,
        "info": said(info),
    }


# --- the repairs


def fmd_repairs(case: Case, floors: Mapping[str, float | None], *, layers: int) -> Iterator[tuple[str, Repair]]:
    """FMD on the last layer, for each (suffix of its name, floor of aligned accuracy), and on the last few.

    The latter without a floor, because the margins that it is held to were found without one.
    """
    dataset, (classifier, params, *_) = case.dataset, case.trained
    sets = repair_sets(dataset)
    assert sets.accept is not None
    bias = "pair" if dataset.pairing == "counterfactual" else "gap"
    samples = _samples(sets.pairs, dataset.pairing) + len(sets.accept.label)

    def repair(model: Any, config: FmdConfig, **options: Any) -> Repair:
        return Repair("held-out pairs", samples, lambda: fmd(case.key("edit"), model, params, sets, config, **options))

    for suffix, floor in floors.items():
        for direction in ("ext", "gradB"):
            config = FmdConfig(direction=direction, bias=bias, aligned_floor=floor)
            yield f"fmd {direction}{suffix}", repair(classifier.vector, config)
    whole = influence.last_layers(classifier.apply, params, sets.accept.x[:2], layers)
    for direction in ("ext", "gradB"):
        config = FmdConfig(direction=direction, bias=bias, aligned_floor=None)
        yield f"fmd {layers} layers {direction}", repair(classifier.apply, config, block=whole)


def alternatives(
    case: Case, held_out: Batch, every: Batch, *, select: str, layers: int, mixed: Mapping[str, Any]
) -> Iterator[tuple[str, Repair]]:
    """The honest alternatives.

    Args:
      case: the trained model and its data.
      held_out: what to fine-tune on, made of the edit split.
      every: what to train on from scratch: the edit split in every rendering that the data set can draw.
      select: what chooses DFR's L1 penalty on the accept split; `worst_group` needs groups of some size.
      layers: how many last layers are fine-tuned as a block, as many as FMD edits.
      mixed: what is trained with the head, and with one layer fewer than that, if anything: the channel mixing of the
        first layer. It is few numbers, but the kernel into which it is folded changes everywhere.
    """
    dataset, (classifier, params, *_) = case.dataset, case.trained
    sets = repair_sets(dataset)
    edit, accept = sets.edit, sets.accept
    assert edit is not None
    assert accept is not None
    tuning = sets._replace(edit=held_out, pairs=None)
    quick: dict[str, Any] = {"config": FineTuneConfig(epochs=1, learning_rates=(1e-3,))} if case.trial else {}
    tune = functools.partial(fine_tune_block, case.key("tune"), classifier.apply, params, tuning, **quick)
    samples = len(edit.label) + len(accept.label)
    last = {n: influence.last_layers(classifier.apply, params, accept.x[:2], n) for n in {1, layers - 1, layers} - {0}}
    blocks = {f"fine-tune {layers} layers": dict.fromkeys(last[layers])}
    if mixed:
        blocks["fine-tune mixing and head"] = mixed | dict.fromkeys(last[1])
        blocks[f"fine-tune mixing and {layers - 1} layers"] = mixed | dict.fromkeys(last[layers - 1])
    for name, block in blocks.items():
        yield (
            name,
            Repair(
                "held-out pairs",
                samples,
                functools.partial(tune, block=block),
                influence.find_block(classifier.apply, params, accept.x[:2], block)[0].vector().size,
            ),
        )
    # The paper averages 20 and tries more penalties; with 100 groups of digits that takes minutes.
    paper = DfrConfig(
        penalty_kind="l1",
        penalties=(10.0, 3.0, 1.0),
        balance_by="subsamples",
        averaged=5,
        select=select,
        tolerance=1e-2,
        max_steps=20 if case.trial else 1000,
    )
    penalties = DfrConfig(penalties=(100.0, 10.0, 1.0, 0.1))
    known, pairs = "held-out samples with attribute", "held-out pairs"
    scratch = FineTuneConfig(epochs=1 if case.trial else max(5, min(60, 120_000 // len(every.label))))
    of_pairs = _samples(sets.pairs, dataset.pairing)
    yield from {
        "dfr l2": Repair(known, samples, lambda: dfr(case.key("dfr"), classifier, params, sets, penalties)),
        "dfr l1": Repair(known, samples, lambda: dfr(case.key("dfr l1"), classifier, params, sets, paper)),
        "refit head": Repair(
            f"training set, {pairs}", of_pairs, lambda: refit_head(case.key("refit"), classifier, params, sets)
        ),
        "fine-tune head": Repair(
            pairs, samples, lambda: fine_tune_head(case.key("tune"), classifier, params, tuning, **quick)
        ),
        "fine-tune all": Repair(
            pairs, samples, lambda: fine_tune(case.key("tune"), classifier, params, tuning, **quick)
        ),
        "scratch": Repair(
            "held-out samples, no training set",
            samples,
            lambda: train_from_scratch(case.key("scratch"), classifier, params, tuning._replace(edit=every), scratch),
        ),
        "self-influence": Repair(
            "training set, no attribute",
            0,
            lambda: self_influence(case.key("self-influence"), classifier, params, sets),
        ),
    }.items()


def _samples(pairs: Batch | None, pairing: str) -> int:
    """Samples in pairs: both sides of a true counterfactual are one."""
    return 0 if pairs is None else len(pairs.label) * (1 if pairing == "counterfactual" else 2)
