"""Runs on disk: train a model, repair a trained one, and write what was measured. The command line calls these.

A run is a folder:

    results.json   what was measured (schema: `jaxdebias.report.results`) and `config`, from which it can be repeated
    report.html    the same as a page
    params.npz     the model
    log.jsonl      one line per epoch
    patches.npz    after `audit --patches`: the maps of attribute and label
    checkpoints/   while training: where a stopped run carries on
"""

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdebias import audit, audit_maps, audit_patches
from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Classifier, Dataset, Params
from jaxdebias.data import registry
from jaxdebias.data.plans import steps_per_epoch
from jaxdebias.explain import influence
from jaxdebias.mitigate.dfr import dfr
from jaxdebias.mitigate.erm import erm
from jaxdebias.mitigate.fine_tune import (
    FineTuneConfig,
    both_sides,
    fine_tune,
    fine_tune_block,
    train_from_scratch,
)
from jaxdebias.mitigate.fmd import FmdConfig, fmd
from jaxdebias.models import build, load_resnet
from jaxdebias.report import content
from jaxdebias.report.page import write_page
from jaxdebias.report.results import read_results, to_json, write_results
from jaxdebias.train.checkpoint import load_params, save_params
from jaxdebias.train.optimizer import Optimizer
from jaxdebias.train.run import RunConfig, run

Watch = Callable[[int, str], AbstractContextManager[Callable[[Mapping[str, Any]], None]]]
"""(epochs, label) -> a context that gives the training loop's observer, for instance `report.progress_bar`."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What suits a data set when the user says nothing, and what its attribute and samples are called."""

    model: str
    model_options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    direction: str = "ext"
    attribute: str = "attribute"
    items: str = "samples"


RECIPES = {
    "digits": Recipe(model="mlp", model_options={"hidden": (64, 64)}, epochs=150, batch_size=64,
                     attribute="colour", items="digits"),
    "scenes": Recipe(model="cnn", epochs=15, batch_size=64, attribute="background", items="images"),
    "glyphs": Recipe(model="cnn", epochs=15, batch_size=64, attribute="second letter", items="images"),
    "faces": Recipe(model="cnn", epochs=20, batch_size=64, attribute="appearance", items="faces"),
    "colored-mnist": Recipe(model="mlp", model_options={"initial": "he"}, epochs=20, batch_size=256,
                            attribute="colour", items="digits"),
    "corrupted-cifar10": Recipe(model="cnn", epochs=20, batch_size=256, attribute="corruption", items="images"),
    "adult": Recipe(model="mlp", epochs=15, batch_size=256, weight_decay=1e-2, direction="gradB", items="people"),
    "utkface": Recipe(model="cnn", epochs=12, batch_size=64, items="faces"),
    "utkface-darkened": Recipe(model="cnn", epochs=14, batch_size=64, attribute="brightness", items="faces"),
    "utkface-planted": Recipe(model="pooled-cnn", epochs=10, batch_size=32, attribute="marker", items="faces"),
    "celeba": Recipe(model="cnn", epochs=10, batch_size=256, items="faces"),
    "celeba-four-cells": Recipe(model="cnn", epochs=10, batch_size=128, items="faces"),
    "celeba-mask": Recipe(model="pooled-cnn", epochs=10, batch_size=256, items="faces"),
    "waterbirds": Recipe(model="pooled-cnn", epochs=15, batch_size=64, attribute="background", items="images"),
    "composites": Recipe(model="pooled-cnn", epochs=22, batch_size=64, attribute="place", items="images"),
    "folder": Recipe(model="cnn", epochs=30, batch_size=64, items="images"),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What to train, on what. None: the data set's recipe decides."""

    data: str
    data_dir: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the data set's builder, for instance {"conflicting": 0.02}."""
    method: str = "erm"
    model: str | None = None
    weights: Path | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class DebiasConfig:
    """How to repair a trained run. None: the data set's recipe, or the method's default, decides."""

    method: str = "fmd"
    """`fmd`, `dfr`, or `mixing`: fine-tuning of the first layer's channel mixing and the last two layers."""
    rounds: int = 10
    direction: str | None = None
    pairs: int | None = None
    block: str = "head"
    """What FMD edits: `head`, `last-2`, `last-3` layers, or `input-row`, the row of the protected column of a table."""
    aligned_floor: float | None = 0.10
    search: bool = True
    baselines: bool = True
    data_dir: Path | None = None
    seed: int = 0


class Run(NamedTuple):
    """A trained run, read back."""

    results: dict[str, Any]
    dataset: Dataset
    classifier: Classifier
    params: Params


def train(config: TrainConfig, out: Path, *, overwrite: bool = False, watch: Watch | None = None) -> dict[str, Any]:
    """Trains, measures on the test split, writes the run to `out` and returns its results.

    A run that was stopped is carried on by the same call; a run that is whole is only replaced with `overwrite`.

    Raises:
      ContractError: unknown names, missing files, or results already in `out`.
    """
    check_choice("data", config.data, registry.DATASETS)
    check_choice("method", config.method, ("erm",))
    recipe, config = RECIPES[config.data], _resolved(config)
    out = Path(out)
    _claim(out, "train", overwrite=overwrite)
    clock = _Clock()
    dataset = registry.load(config.data, data_dir=config.data_dir, seed=config.seed, **config.options)
    clock.lap("data")

    data = dataset.splits["train"]._replace(twin=None, mask=None)
    steps = config.epochs * steps_per_epoch(len(data.label), config.batch_size)
    classifier = _classifier(config.data, config.model, dataset)
    learner = erm(classifier, Optimizer(name="adamw", learning_rate=config.learning_rate,
                                        weight_decay=config.weight_decay, schedule="cosine", steps=steps))
    key_init, key_train, key_measure = jax.random.split(jax.random.key(config.seed), 3)
    state = None
    if config.weights is not None:
        state = learner.init(key_init, jax.tree.map(lambda leaf: leaf[:1], data))
        state = state._replace(variables=load_resnet(config.weights, state.variables, head="skip"))
    with _watching(watch, config.epochs, f"{config.method} on {config.data}") as observe:
        portions = RunConfig(epochs=config.epochs, batch_size=config.batch_size,
                             epochs_per_chunk=_epochs_per_chunk(config.epochs))
        trained = run(key_train, learner, data, portions, state=state, checkpoint=out / "checkpoints",
                      log=out / "log.jsonl", observe=observe)
    params = trained.state.variables
    clock.lap("train")
    before = audit.measure(key_measure, classifier.apply, params, dataset)
    clock.lap("measure")
    harmful, helpful = audit.influential(classifier.vector, params, dataset, head_path=classifier.head_path)
    clock.lap("influence")

    save_params(out / "params.npz", params)
    results = to_json({
        **content.identity(dataset, recipe.attribute, recipe.items, config.method, config.seed, config.model),
        "config": {**dataclasses.asdict(config), "options": dict(config.options)},
        **_timing(clock),
        "before": content.measurement(before, dataset), "after": None, "baselines": {}, "edit": None,
        "harmful": [sample._asdict() for sample in harmful], "harmful_rows": content.table_rows(dataset, harmful),
        "helpful": [sample._asdict() for sample in helpful], "helpful_rows": content.table_rows(dataset, helpful),
        "training": {"epochs": config.epochs, "loss": [record.loss for record in trained.history]},
        "findings": audit.findings(dataset, before),
    })
    write_results(results, out / "results.json")
    write_page(results, content.pictures(dataset, harmful, before, helpful=helpful), out / "report.html")
    # The run is whole; what was there only to carry on a stopped one can go.
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return results


def load(folder: Path, *, data_dir: Path | None = None) -> Run:
    """Reads a trained run back: its data set is built anew from the recorded configuration.

    Args:
      folder: of a run that `train` wrote.
      data_dir: where the data set's files are now, if they have moved.

    Raises:
      ContractError: no run there, one that was not trained, or files that are missing.
    """
    folder = Path(folder)
    expect((folder / "results.json").is_file() and (folder / "params.npz").is_file(), "run",
           "the folder of a finished `jaxdebias train`", folder)
    results = read_results(folder)
    expect("data" in results.get("config", {}), "run", "a trained run, not a repaired one", folder)
    config = results["config"]
    dataset = registry.load(config["data"], data_dir=data_dir or config["data_dir"], seed=config["seed"],
                            **config["options"])
    classifier = _classifier(config["data"], config["model"], dataset)
    like = jax.eval_shape(classifier.init, jax.random.key(0), dataset.splits["train"].x[:1])
    return Run(results, dataset, classifier, load_params(folder / "params.npz", like))


def audit_run(folder: Path, *, maps: bool = False, patches: bool = False,
              data_dir: Path | None = None) -> dict[str, Any]:
    """What a run has measured; with `maps` or `patches` also what these say, added to its results and its page.

    Args:
      folder: of a run that `train` wrote; without `maps` and `patches`, of any run.
      maps: where its model looks: class maps on the test split, by group and beside the regions of the data's masks
        (`audit_maps`). Made anew with `patches`, if the run has them.
      patches: where the data show the attribute (`audit_patches`); the maps at full size go to patches.npz.
      data_dir: where the data set's files are now, if they have moved.

    Raises:
      ContractError: no run there; one that was not trained, a table, images too small for patches, or, with `maps`, a
        model without maps.
    """
    folder = Path(folder)
    if not (maps or patches):
        return read_results(folder)
    clock = _Clock()
    results, dataset, classifier, params = load(folder, data_dir=data_dir)
    maps = maps or results.get("maps") is not None  # their pictures are only on the page
    if maps:
        expect(dataset.splits["test"].x.ndim == 4, "maps", "a run on images", f"{dataset.name}, a table")
        expect(classifier.spatial is not None, "maps",
               "a model whose last layers keep places (train with --model cnn or pooled-cnn)", results["model"])
    if patches:
        audit_patches.check_pictures(dataset)
    clock.lap("data")
    # As in `train`: the same keys, so that the pictures of the page are the same.
    _, _, key_measure = jax.random.split(jax.random.key(results["seed"]), 3)
    before = audit.measure(key_measure, classifier.apply, params, dataset)
    harmful, helpful = ([audit.Harmful(**sample) for sample in results.get(name, [])]
                        for name in ("harmful", "helpful"))
    pictures, kept = content.pictures(dataset, harmful, before, helpful=helpful), folder / "patches.npz"
    laps = dict(results["seconds_by_step"])
    if maps:
        seen = audit_maps.look(jax.random.fold_in(key_measure, 1), classifier.spatial, params, dataset)
        pictures = pictures._replace(maps=dataset.splits["test"].x[seen.examples], maps_shown=seen.example_maps)
        clock.lap("maps")
        laps["maps"] = sum(clock.laps.values())
        results = {**results, "maps": content.maps(seen, dataset)}
    if patches:
        places = audit_patches.find_places(jax.random.fold_in(key_measure, 2), dataset)
        np.savez_compressed(kept, attribute=places.attribute.map, label=places.label.map,
                            example_attribute=places.attribute_maps, example_label=places.label_maps)
        clock.lap("patches")
        laps["patches"] = clock.laps["patches"] if maps else sum(clock.laps.values())
        results = {**results, "patches": content.patches(places, dataset)}
    if results.get("patches") is not None and kept.is_file():
        shown, said = np.load(kept), results["patches"]
        pictures = pictures._replace(
            patch=dataset.splits[said["split"]].x[np.array([one["row"] for one in said["examples"]], int)],
            patch_attribute=shown["example_attribute"], patch_label=shown["example_label"])
    results = to_json({**results, "seconds": sum(laps.values()), "seconds_by_step": laps})
    write_results(results, folder / "results.json")
    write_page(results, pictures, folder / "report.html")
    return results


def debias(folder: Path, config: DebiasConfig, out: Path, *, overwrite: bool = False,
           watch: Watch | None = None) -> dict[str, Any]:
    """Repairs a trained run, measures before and after on the test split, writes the result to `out` and returns it.

    Raises:
      ContractError: no trained run, data without pairs to repair with, or results already in `out`.
    """
    check_choice("method", config.method, ("fmd", "dfr", "mixing"))
    check_choice("block", config.block, ("head", "last-2", "last-3", "input-row"))
    out, folder = Path(out), Path(folder)
    expect(out.resolve() != folder.resolve(), "out", "another folder than the trained run", out)
    clock = _Clock()
    trained = load(folder, data_dir=config.data_dir)
    _, dataset, classifier, params = trained
    audit.check_repairable(dataset)
    _claim(out, "debias", overwrite=overwrite)
    clock.lap("data")
    recipe = RECIPES[trained.results["config"]["data"]]
    key_edit, key_measure, key_changes, key_baselines = jax.random.split(jax.random.key(config.seed), 4)
    splits, pairs = dataset.splits, dataset.pairs
    if config.method == "fmd":
        fmd_config = FmdConfig(rounds=config.rounds, direction=config.direction or recipe.direction,
                               pairs=config.pairs, search=config.search, aligned_floor=config.aligned_floor,
                               bias="pair" if dataset.pairing == "counterfactual" else "gap")
        block = _block(config.block, dataset, classifier, params)
        edited, info = fmd(key_edit, classifier.vector if block is None else classifier.apply, params, splits["train"],
                           pairs["edit"], splits["accept"], pairs["accept"], fmd_config, block=block,
                           head_path=classifier.head_path)
        edit = content.edit(info, params, edited, fmd_config)
    elif config.method == "mixing":
        block = _mixing(dataset, classifier, params)
        edited, info = fine_tune_block(key_edit, classifier.apply, params, both_sides(pairs["edit"]), splits["accept"],
                                       block)
        count = influence.find_block(classifier.apply, params, splits["accept"].x[:2], block)[0].vector().size
        edit = {"accepted": True, "reason": f"{count:,} numbers trained: the first layer's channel mixing and the last "
                f"two layers, at learning rate {info.learning_rate:g}, chosen on the acceptance split.",
                **content.parameter_counts(params, edited), "rounds": []}
    else:
        edited, info = dfr(classifier.vector, params, splits["edit"], splits["accept"],
                           head_path=classifier.head_path)
        edit = {"accepted": True, "reason": f"Last layer refitted with penalty {info.penalty:g}, chosen on the "
                "acceptance split.", **content.parameter_counts(params, edited), "rounds": []}
    jax.block_until_ready(edited)
    clock.lap("edit")
    # The same bootstrap weights on both sides: what differs is the model.
    before, after = (audit.measure(key_measure, classifier.apply, p, dataset) for p in (params, edited))
    changes = audit.changes(key_changes, before, after, dataset)
    clock.lap("measure")
    baselines = {}
    if config.baselines:
        baselines = dict(_baselines(key_baselines, trained, skip=config.method, measure_key=key_measure, watch=watch))
    clock.lap("baselines")

    save_params(out / "params.npz", edited)
    harmful, helpful = ([audit.Harmful(**sample) for sample in trained.results.get(name, [])]
                        for name in ("harmful", "helpful"))
    results = to_json({
        **content.identity(dataset, recipe.attribute, recipe.items, config.method, trained.results["seed"],
                           trained.results["model"]),
        **_timing(clock),
        "edit_config": dataclasses.asdict(config),
        "before": content.measurement(before, dataset), "after": content.measurement(after, dataset),
        "changes": changes, "baselines": baselines, "edit": edit,
        "harmful": trained.results["harmful"], "harmful_rows": content.table_rows(dataset, harmful),
        "helpful": trained.results.get("helpful", []), "helpful_rows": content.table_rows(dataset, helpful),
        "training": trained.results["training"],
        "findings": list(dict.fromkeys([*audit.findings(dataset, before), *audit.findings(dataset, after)])),
    })
    write_results(results, out / "results.json")
    write_page(results, content.pictures(dataset, harmful, before, after, helpful=helpful), out / "report.html")
    return results


def quickstart(out: Path, *, conflicting: float = 0.02, seed: int = 0, overwrite: bool = False,
               watch: Watch | None = None) -> dict[str, Any]:
    """`train` on the embedded digits into OUT/trained, then `debias` into OUT, with every comparison."""
    out = Path(out)
    _claim(out, "quickstart", overwrite=overwrite)
    config = TrainConfig(data="digits", options={"conflicting": conflicting}, seed=seed)
    train(config, out / "trained", overwrite=True, watch=watch)
    return debias(out / "trained", DebiasConfig(seed=seed), out, overwrite=overwrite, watch=watch)


def _baselines(key: Any, trained: Run, *, skip: str, measure_key: Any,
               watch: Watch | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The honest alternatives on the same held-out samples: name -> measurement, seconds, what it needs."""
    dataset, classifier, params = trained.dataset, trained.classifier, trained.params
    splits, pairs = dataset.splits, dataset.pairs
    key_tune, key_scratch = jax.random.split(key)
    # Pairs in every rendering of the attribute where the data set can draw them, else both sides of each pair.
    every = splits.get("edit_every_colour", both_sides(pairs["edit"]))
    scratch = FineTuneConfig(epochs=max(5, min(60, 120_000 // len(every.label))))
    methods = {
        "dfr": ("DFR", "held-out samples with their attribute", lambda: dfr(
            classifier.vector, params, splits["edit"], splits["accept"], head_path=classifier.head_path)),
        "fine_tune": ("fine-tuning", "the same held-out pairs; trains all layers", lambda: fine_tune(
            key_tune, classifier, params, both_sides(pairs["edit"]), splits["accept"])),
        "scratch": ("from scratch", "the same held-out samples; no training set", lambda: train_from_scratch(
            key_scratch, classifier, every, splits["accept"], scratch)),
    }
    methods.pop(skip, None)
    with _watching(watch, len(methods), "baselines") as observe:
        for number, (name, (_, needs, fit)) in enumerate(methods.items(), 1):
            start = time.perf_counter()
            fitted, _ = jax.block_until_ready(fit())
            seconds = time.perf_counter() - start
            said = audit.measure(measure_key, classifier.apply, fitted, dataset)
            observe({"epoch": number})
            yield name, {"measurement": content.measurement(said, dataset), "seconds": seconds, "needs": needs}


def _resolved(config: TrainConfig) -> TrainConfig:
    """The configuration with the recipe's values where the user gave none, and checked."""
    recipe = RECIPES[config.data]
    names = ("model", "epochs", "batch_size", "learning_rate", "weight_decay")
    config = dataclasses.replace(config, **{name: getattr(recipe, name) for name in names
                                            if getattr(config, name) is None})
    for name in ("epochs", "batch_size"):
        expect(getattr(config, name) >= 1, name, "at least 1", getattr(config, name))
    expect(config.weights is None or config.model.startswith("resnet"), "weights", "a model resnet18 or resnet50",
           config.model)
    if config.data_dir is not None:
        # A run is read back from anywhere.
        config = dataclasses.replace(config, data_dir=Path(config.data_dir).resolve())
    return config


def _block(name: str, dataset: Dataset, classifier: Classifier, params: Params) -> influence.Where | None:
    """What FMD edits; None is the last layer, for which there are closed forms."""
    x = dataset.splits["accept"].x[:2]
    if name == "head":
        return None
    if name == "input-row":
        column = dataset.variant.get("protected_column")
        expect(column is not None, "block", "a table with a protected column for input-row", dataset.name)
        kernel = influence.layers_in_order(classifier.apply, params, x)[0] + "/kernel"
        return {kernel: (0, (int(column),))}
    return influence.last_layers(classifier.apply, params, x, int(name.removeprefix("last-")))


def _mixing(dataset: Dataset, classifier: Classifier, params: Params) -> influence.Where:
    """The channel mixing of the first layer, its bias, and the last two layers."""
    x = dataset.splits["accept"].x[:2]
    expect(x.ndim == 4 and x.shape[-1] > 1, "method", "images with several channels for mixing", dataset.name)
    first = influence.layers_in_order(classifier.apply, params, x)[0]
    bias = {f"{first}/bias": None} if f"{first}/bias" in influence.paths(params) else {}
    return dict.fromkeys(influence.last_layers(classifier.apply, params, x, 2)) | bias | {
        f"{first}/kernel": influence.Mix(channels=x.shape[-1])}


def _epochs_per_chunk(epochs: int) -> int:
    """A divisor of the epochs that lets the host look some 15 to 30 times: each look costs a checkpoint.

    >>> _epochs_per_chunk(150), _epochs_per_chunk(20), _epochs_per_chunk(7)
    (10, 1, 1)
    """
    return max(d for d in range(1, max(1, epochs // 15) + 1) if epochs % d == 0)


def _classifier(data: str, model: str, dataset: Dataset) -> Classifier:
    options = RECIPES[data].model_options if model == RECIPES[data].model else {}
    images = dataset.splits["train"].x.ndim == 4
    expect(images or model == "mlp", "model", "mlp for a table", model)
    return build(model, classes=len(dataset.label_names), **options)


def _claim(out: Path, command: str, *, overwrite: bool) -> None:
    """Refuses to write over results, and clears what another run left when told to."""
    done = out / "results.json"
    expect(overwrite or not done.exists(), "out", f"a folder without results (or --overwrite to {command} anew)", out)
    expect(not out.exists() or out.is_dir(), "out", "a folder", f"{out}, which is a file")
    if overwrite:
        for name in ("results.json", "report.html", "params.npz", "log.jsonl", "patches.npz"):
            (out / name).unlink(missing_ok=True)
        shutil.rmtree(out / "checkpoints", ignore_errors=True)


@contextmanager
def _watching(watch: Watch | None, epochs: int, label: str) -> Iterator[Callable[[Any], None]]:
    """The observer of one stage, given records of the loop or plain dicts; silent without a watch."""
    start = time.perf_counter()
    with watch(epochs, label) if watch is not None else nullcontext(lambda record: None) as observe:
        def observe_record(record: Any) -> None:
            record = record._asdict() if hasattr(record, "_asdict") else record
            observe({**record, "seconds": time.perf_counter() - start})

        yield observe_record


class _Clock:
    """Wall time of the steps of a command, in order."""

    def __init__(self):
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


def _timing(clock: _Clock) -> dict[str, Any]:
    return {"seconds": sum(clock.laps.values()), "seconds_by_step": clock.laps}
