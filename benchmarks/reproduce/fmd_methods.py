"""Every repair of one trained model, a row each: what the scripts of the honest tables share.

A cell is a data set, a share of conflicting samples and a seed. It runs in a process of its own: the model is trained
once, as `jaxdebias train` does, then every method repairs that same model. A row is written as soon as it is measured;
a killed script, started again, trains the cell's model once more (to the same bits, which is checked) and carries on.
What is reported is the test split. Selection, acceptance and learning rates see `edit` and `accept` only.

Of a row:
    seconds             wall time of the method's first call in its process, compilation included; of the training for
                        the row `erm`. Measuring is not counted.
    seconds_warm        of a second call with the same arguments, where the first one took less than `REPEATED`; else
                        None
    cpu_seconds         of the first call, over all threads
    samples             held-out samples that it uses, beyond the training set
    changed             numbers among the parameters that differ from those of the trained model, and their share
    free                of a block: numbers that are chosen; a channel mixing moves a whole kernel by few of them
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from fmd_methods_summary import REPEATED, Margin, changed, finish, group_gap
from fmd_table import RATES as ACCURACIES
from fmd_table import _write

from jaxdebias import auditing
from jaxdebias.app.recipes import TrainConfig
from jaxdebias.app.run_folder import Run, load
from jaxdebias.app.train import train
from jaxdebias.core import Batch, Params, repair_sets
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
from jaxdebias.results.provenance import device_name, versions


class Cell(NamedTuple):
    name: str
    """Of the table's part, without the seed."""
    config: TrainConfig


class Setup(NamedTuple):
    """A cell with its trained model."""

    cell: Cell
    trained: Run

    @property
    def seed(self) -> int:
        return self.cell.config.seed

    def key(self, what: str) -> jax.Array:
        """Of a method; `edit`, `measure`, `tune` and `scratch` are those of the command line."""
        edit, measure, _, baselines = jax.random.split(jax.random.key(self.seed), 4)
        tune, scratch = jax.random.split(baselines)
        named = {"edit": edit, "measure": measure, "tune": tune, "scratch": scratch}
        return named.get(what, jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(what.encode()) & 0x7FFFFFFF))


class Method(NamedTuple):
    """A method that has not run yet."""

    name: str
    needs: str
    samples: int
    fit: Callable[[], tuple[Params, Any]]
    """Returns (params, what it says of itself)."""
    free: int | None = None
    """Numbers that are chosen, where they are fewer than the parameters that change by them."""


Methods = Callable[[Setup], Iterable[Method]]


# --- the methods that every table shows


def fmd_methods(setup: Setup, floors: Mapping[str, float | None], *, layers: int) -> Iterator[Method]:
    """FMD on the last layer, for each (suffix of its name, floor of aligned accuracy), and on the last few.

    The latter without a floor, because the margins that it is held to were found without one.
    """
    dataset, classifier, params = setup.trained.dataset, setup.trained.classifier, setup.trained.params
    splits, sets = dataset.splits, repair_sets(dataset)
    bias = "pair" if dataset.pairing == "counterfactual" else "gap"
    samples = _digits(sets.pairs, dataset.pairing) + len(splits["accept"].label)
    whole = influence.last_layers(classifier.apply, params, splits["accept"].x[:2], layers)

    def method(name: str, model: Any, config: FmdConfig, **options: Any) -> Method:
        return Method(
            name,
            "held-out pairs",
            samples,
            lambda: fmd(setup.key("edit"), model, params, sets, config, **options),
        )

    for suffix, floor in floors.items():
        for direction in ("ext", "gradB"):
            yield method(
                f"fmd {direction}{suffix}",
                classifier.vector,
                FmdConfig(direction=direction, bias=bias, aligned_floor=floor),
            )
    for direction in ("ext", "gradB"):
        yield method(
            f"fmd {layers} layers {direction}",
            classifier.apply,
            FmdConfig(direction=direction, bias=bias, aligned_floor=None),
            block=whole,
        )


def baseline_methods(
    setup: Setup, held_out: Batch, every: Batch, *, select: str, layers: int, mixed: Mapping[str, Any]
) -> Iterator[Method]:
    """The honest alternatives.

    Args:
      setup: the trained model and its data.
      held_out: what to fine-tune on, made of the edit split.
      every: what to train on from scratch: the edit split in every rendering that the data set can draw.
      select: what chooses DFR's L1 penalty on the accept split; `worst_group` needs groups of some size.
      layers: how many last layers are fine-tuned as a block, as many as FMD edits.
      mixed: what is trained with the head, and with one layer fewer than that, if anything: the channel mixing of the
        first layer. It is few numbers, but the kernel into which it is folded changes everywhere.
    """
    dataset, classifier, params = setup.trained.dataset, setup.trained.classifier, setup.trained.params
    sets = repair_sets(dataset)
    edit, accept = sets.edit, sets.accept
    tuning = sets._replace(edit=held_out, pairs=None)
    samples = len(edit.label) + len(accept.label)

    # methods["block"]: the layers that FMD edits as a block, and these with the channel mixing of the first layer.
    whole = dict.fromkeys(influence.last_layers(classifier.apply, params, accept.x[:2], layers))
    blocks = {f"fine-tune {layers} layers": whole}
    if mixed:
        blocks["fine-tune mixing and head"] = mixed | dict.fromkeys(
            influence.last_layers(classifier.apply, params, accept.x[:2], 1)
        )
        blocks[f"fine-tune mixing and {layers - 1} layers"] = mixed | dict.fromkeys(
            influence.last_layers(classifier.apply, params, accept.x[:2], layers - 1)
        )
    for name, block in blocks.items():
        yield Method(
            name,
            "held-out pairs",
            samples,
            functools.partial(fine_tune_block, setup.key("tune"), classifier.apply, params, tuning, block=block),
            influence.find_block(classifier.apply, params, accept.x[:2], block)[0].vector().size,
        )
    # The paper averages 20 and tries more penalties; with 100 groups of digits that takes minutes.
    paper = DfrConfig(
        penalty_kind="l1",
        penalties=(10.0, 3.0, 1.0),
        balance_by="subsamples",
        averaged=5,
        select=select,
        tolerance=1e-2,
        max_steps=1000,
    )
    yield Method(
        "dfr l2",
        "held-out samples with attribute",
        samples,
        lambda: dfr(setup.key("dfr"), classifier, params, sets, DfrConfig(penalties=(100.0, 10.0, 1.0, 0.1))),
    )
    yield Method(
        "dfr l1",
        "held-out samples with attribute",
        samples,
        lambda: dfr(setup.key("dfr l1"), classifier, params, sets, paper),
    )
    yield Method(
        "refit head",
        "training set, held-out pairs",
        _digits(sets.pairs, dataset.pairing),
        lambda: refit_head(setup.key("refit"), classifier, params, sets),
    )
    yield Method(
        "fine-tune head",
        "held-out pairs",
        samples,
        lambda: fine_tune_head(setup.key("tune"), classifier, params, tuning),
    )
    yield Method(
        "fine-tune all",
        "held-out pairs",
        samples,
        lambda: fine_tune(setup.key("tune"), classifier, params, tuning),
    )
    scratch = FineTuneConfig(epochs=max(5, min(60, 120_000 // len(every.label))))
    yield Method(
        "scratch",
        "held-out samples, no training set",
        samples,
        lambda: train_from_scratch(setup.key("scratch"), classifier, params, tuning._replace(edit=every), scratch),
    )
    yield Method(
        "self-influence",
        "training set, no attribute",
        0,
        lambda: self_influence(setup.key("self-influence"), classifier, params, sets),
    )


def _digits(pairs: Batch, pairing: str) -> int:
    """Samples in pairs: both sides of a true counterfactual are one."""
    return len(pairs.label) * (1 if pairing == "counterfactual" else 2)


# --- one row


def measured(setup: Setup, params: Params) -> dict[str, float | None]:
    """All rates of one model on the test split."""
    dataset, classifier = setup.trained.dataset, setup.trained.classifier
    said = auditing.measure(setup.key("measure"), classifier.apply, params, dataset)
    rates = {name: getattr(said.groups, name).value for name in ACCURACIES if name != "counterfactual_bias"}
    rates["counterfactual_bias"] = said.counterfactual_bias.value
    rates["group_gap"] = group_gap(said.logits, dataset)
    return {name: None if value is None else float(value) for name, value in rates.items()}


def said(info: Any) -> dict[str, Any]:
    """The numbers of an info that fit a table; FMD's rounds as their steps."""
    found = info if isinstance(info, Mapping) else info._asdict()
    plain = {name: value for name, value in found.items() if isinstance(value, bool | int | float | str)}
    plain |= {name: found[name].tolist() for name in ("per_class",) if isinstance(found.get(name), np.ndarray)}
    if "rounds" in found and isinstance(found["rounds"], tuple):
        plain["steps"] = [one.u for one in found["rounds"]]
    plain.pop("seconds", None)
    return plain


def row_of(setup: Setup, method: Method) -> dict[str, Any]:
    start, cpu = time.perf_counter(), time.process_time()
    params, info = jax.block_until_ready(method.fit())
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    warm = None
    if seconds < REPEATED:
        start = time.perf_counter()
        jax.block_until_ready(method.fit())
        warm = time.perf_counter() - start
    return {
        "method": method.name,
        **measured(setup, params),
        **changed(setup.trained.params, params),
        "free": method.free,
        "samples": method.samples,
        "needs": method.needs,
        "seconds": seconds,
        "seconds_warm": warm,
        "cpu_seconds": cpu,
        "info": said(info),
    }


# --- the table


def fill_cell(path: Path, cell: Cell, methods: Methods, skip: Sequence[str] = ()) -> None:
    """Measures what is missing of one cell, but for the methods to skip, writing `path` after each row."""
    table = json.loads(path.read_text()) if path.exists() else {"rows": []}
    seed = cell.config.seed
    done = {row["method"]: row for row in table["rows"] if (row["cell"], row["seed"]) == (cell.name, seed)}

    def add(row: dict[str, Any]) -> None:
        table["rows"].append({"cell": cell.name, "seed": seed, **row})
        table["measured_on"] = {"device": device_name(), "versions": versions(), "date": time.strftime("%Y-%m-%d")}
        _write(path, table)
        print(
            f"{cell.name} seed {seed} {row['method']}: accuracy {row['accuracy']:.3f}, conflicting "
            f"{row['bias_conflicting_accuracy']:.3f}, aligned {row['bias_aligned_accuracy']:.3f}, bias "
            f"{row['counterfactual_bias']:.3f}, gap {row['group_gap']:.3f}, {row['seconds']:.1f} s",
            flush=True,
        )

    with tempfile.TemporaryDirectory() as folder:
        result = train(cell.config, Path(folder) / "trained")
        trained = load(Path(folder) / "trained")
    setup = Setup(cell, trained)
    rates = measured(setup, trained.params)
    if "erm" not in done:
        add(
            {
                "method": "erm",
                **rates,
                "changed": 0,
                "changed_share": 0.0,
                "samples": 0,
                "needs": "",
                "seconds": result.provenance.seconds_by_step["train"],
                "seconds_warm": None,
                "cpu_seconds": None,
                "info": {},
            }
        )
    elif abs(done["erm"]["accuracy"] - rates["accuracy"]) > 1e-9:
        sys.exit(
            f"{cell.name}, seed {seed}: the model trained now has accuracy {rates['accuracy']}, the one of the "
            f"rows in {path} had {done['erm']['accuracy']}; take out these rows and start again"
        )
    for method in methods(setup):
        if method.name not in (*done, *skip):
            add(row_of(setup, method))


def parser(description: str, out: Path, seeds: int) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description)
    made.add_argument(
        "--data-dir",
        type=Path,
        default=os.environ.get("JAXDEBIAS_DATA"),
        help="folder with the data set's files (or set JAXDEBIAS_DATA)",
    )
    made.add_argument("--seeds", type=int, default=seeds)
    made.add_argument("--out", type=Path, default=out)
    made.add_argument("--skip", nargs="*", default=[], metavar="METHOD", help="leave these out, to be run another time")
    made.add_argument("--cell", type=int, help="only this cell, in this process, without the summary")
    return made


def fill(arguments: argparse.Namespace, cells: Sequence[Cell], methods: Methods, margins: Iterable[Margin]) -> int:
    """All cells, each in a process of its own; or, with `--cell`, one of them here. Returns the margins missed."""
    if arguments.cell is not None:
        fill_cell(arguments.out, cells[arguments.cell], methods, arguments.skip)
        return 0
    options = [
        arg
        for name in ("data_dir", "seeds", "out")
        for arg in (f"--{name.replace('_', '-')}", str(getattr(arguments, name)))
    ]
    for number in range(len(cells)):
        subprocess.run(
            [sys.executable, sys.argv[0], *options, "--cell", str(number), "--skip", *arguments.skip], check=True
        )
    return finish(arguments.out, margins)
