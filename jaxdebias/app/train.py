"""Runs on disk: train a model, look into a trained one, and write what was measured. The command line calls these.

A run is a folder:

    results.json   what was measured (schema: `jaxdebias.results.records`) and `config`, from which it can be repeated
    report.html    the same as a page
    params.npz     the model
    log.jsonl      one line per epoch; none of AUG-CELL
    draws.npz      of DB-VAE: the weight of every training row, and reconstructions
    patches.npz    after `audit --patches`: the maps of attribute and label
    checkpoints/   while training: where a stopped run carries on

Repairs are in `repair_runs`, what suits a data set in `recipes`, and what a method trains in `training`; the names
that a caller needs are here.
"""

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdebias import auditing
from jaxdebias.app.debias import DebiasConfig, debias
from jaxdebias.app.recipes import RECIPES, Recipe, TrainConfig, model_options, resolved
from jaxdebias.app.run_folder import Run, Watch, claim, load, watching
from jaxdebias.app.training import build_training, default_augment
from jaxdebias.auditing import class_maps, draw_shares, patch_places
from jaxdebias.contracts import check_choice, expect
from jaxdebias.data import _registry as registry
from jaxdebias.files import read_arrays, write_arrays
from jaxdebias.mitigate._aug_cell.info import Stage
from jaxdebias.mitigate._aug_cell.training import CANDIDATES
from jaxdebias.mitigate._methods import METHODS, TRAINING, choices
from jaxdebias.models import load_resnet
from jaxdebias.report._page import write_page
from jaxdebias.results import build as content
from jaxdebias.results.provenance import Clock, timing
from jaxdebias.results.records import read_results, to_json, write_results
from jaxdebias.train._checkpoint import save_params
from jaxdebias.train._optimizer import Optimizer
from jaxdebias.train._plans import steps_per_epoch
from jaxdebias.train._run import FitConfig, fit

__all__ = [
    "METHODS",
    "RECIPES",
    "DebiasConfig",
    "Recipe",
    "Run",
    "TrainConfig",
    "Watch",
    "audit_run",
    "debias",
    "load",
    "quickstart",
    "train",
]


def train(config: TrainConfig, out: Path, *, overwrite: bool = False, watch: Watch | None = None) -> dict[str, Any]:
    """Trains, measures on the test split, writes the run to `out` and returns its results.

    A run that was stopped is carried on by the same call, one of AUG-CELL from its beginning; a run that is whole is
    only replaced with `overwrite`.

    Raises:
      ContractError: unknown names, missing files, or results already in `out`.
    """
    check_choice("data", config.data, registry.DATASETS)
    check_choice("method", config.method, choices(TRAINING))
    recipe, config = RECIPES[config.data], resolved(config)
    method = METHODS[config.method]
    out = Path(out)
    claim(out, "train", overwrite=overwrite)
    clock = Clock()
    dataset = registry.load(config.data, data_dir=config.data_dir, seed=config.seed, **config.options)
    clock.lap("data")

    data = dataset.splits["train"]._replace(twin=None, mask=None)
    steps = config.epochs * steps_per_epoch(len(data.label), config.batch_size)
    classifier, learner_of, vae, fit_several = build_training(
        config.method, config.model, dataset, model_options(config)
    )
    augment = (
        default_augment(dataset, mirrored=recipe.mirrored, turned=fit_several is not None) if config.augment else None
    )
    key_init, key_train, key_measure = jax.random.split(jax.random.key(config.seed), 3)
    remarks, history = [], ()
    if fit_several is not None:
        with watching(watch, len(CANDIDATES) * config.epochs, f"{config.method} on {config.data}") as observe:
            params, info = fit_several(
                key_train,
                data,
                augment,
                steps=steps,
                batch_size=config.batch_size,
                learning_rate=config.learning_rate,
                observe=_in_all(observe, config.epochs),
            )
        remarks = content.aug_cell(info, recipe.items)
    else:
        optimizer = Optimizer(
            name="adamw",
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            schedule="cosine",
            steps=steps,
        )
        learner, state = learner_of(optimizer, data, augment), None
        if config.weights is not None:
            state = learner.init(key_init, jax.tree.map(lambda leaf: leaf[:1], data))
            state = state._replace(variables=load_resnet(config.weights, state.variables, head="skip"))
        with watching(watch, config.epochs, f"{config.method} on {config.data}") as observe:
            portions = FitConfig(
                epochs=config.epochs,
                batch_size=config.batch_size,
                draws=method.draws,
                epochs_per_chunk=_epochs_per_chunk(config.epochs),
            )
            trained = fit(
                key_train,
                learner,
                data,
                portions,
                state=state,
                checkpoint=out / "checkpoints",
                log=out / "log.jsonl",
                observe=observe,
            )
        params, history = trained.state.variables, trained.history
    clock.lap("train")
    before = auditing.measure(key_measure, classifier.apply, params, dataset)
    clock.lap("measure")
    drawn = None
    if vae is not None:
        drawn = draw_shares.audit_draws(learner, trained.state, vae, dataset)
        write_arrays(
            out / "draws.npz",
            {"weight": drawn.weight, "rarest": drawn.rarest_decoded, "commonest": drawn.commonest_decoded},
            compressed=True,
        )
        clock.lap("draws")
    harmful, helpful = auditing.influential(classifier.vector, params, dataset, head_path=classifier.head_path)
    clock.lap("influence")

    save_params(out / "params.npz", params)
    results = to_json(
        {
            **content.identity(dataset, recipe.attribute, recipe.items, config.method, config.seed, config.model),
            "config": {**dataclasses.asdict(config), "options": dict(config.options)},
            **timing(clock),
            "before": content.measurement(before, dataset),
            "after": None,
            "baselines": {},
            "edit": None,
            "harmful": [sample._asdict() for sample in harmful],
            "harmful_rows": content.table_rows(dataset, harmful),
            "helpful": [sample._asdict() for sample in helpful],
            "helpful_rows": content.table_rows(dataset, helpful),
            "training": {"epochs": config.epochs, "loss": [record.loss for record in history]},
            "findings": [*remarks, *auditing.findings(dataset, before)],
            **({} if drawn is None else {"draws": content.draws(drawn, dataset, history)}),
        }
    )
    write_results(results, out / "results.json")
    pictures = content.pictures(dataset, harmful, before, helpful=helpful)
    write_page(results, content.with_draws(pictures, results, dataset, out / "draws.npz"), out / "report.html")
    # The run is whole; what was there only to carry on a stopped one can go.
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return results


def audit_run(
    folder: Path, *, maps: bool = False, patches: bool = False, data_dir: Path | None = None
) -> dict[str, Any]:
    """What a run has measured; with `maps` or `patches` also what these say, added to its results and its page.

    Args:
      folder: of a run that `train` or `debias` wrote; what was repaired also needs the run that it was made from.
      maps: where its model looks: class maps on the test split, by group and beside the regions of the data's masks
        (`class_maps`). Made anew with `patches`, if the run has them. Of a repaired run: after the repair.
      patches: where the data show the attribute (`patch_places`); the maps at full size go to patches.npz.
      data_dir: where the data set's files are now, if they have moved.

    Raises:
      ContractError: no run there; one that was not trained, a table, images too small for patches, or, with `maps`, a
        model without maps.
    """
    folder = Path(folder)
    if not (maps or patches):
        return read_results(folder)
    clock = Clock()
    results, dataset, classifier, params, _ = load(folder, data_dir=data_dir, repaired=True)
    if not patches and results.get("patches") is not None and (folder / "patches.npz").is_file():
        read_arrays("patches", folder / "patches.npz")  # refused before anything is measured
    original = params
    if results["edit"] is not None:
        expect(
            (Path(results["trained"]) / "params.npz").is_file(),
            "run",
            "the trained run that it was repaired from, in the same place as then",
            results["trained"],
        )
        original = load(Path(results["trained"]), data_dir=data_dir).params
    maps = maps or results.get("maps") is not None  # their pictures are only on the page
    if maps:
        expect(dataset.splits["test"].x.ndim == 4, "maps", "a run on images", f"{dataset.name}, a table")
        expect(
            classifier.spatial is not None,
            "maps",
            "a model whose last layers keep places (train with --model cnn or pooled-cnn)",
            results["model"],
        )
    if patches:
        patch_places.check_pictures(dataset)
    clock.lap("data")
    harmful, helpful = (
        [auditing.Harmful(*(sample[field] for field in auditing.Harmful._fields)) for sample in results.get(name, [])]
        for name in ("harmful", "helpful")
    )
    count = len(dataset.splits["train"].label)
    for sample in (*harmful, *helpful):
        expect(0 <= sample.index < count, f"{folder / 'results.json'}: harmful", f"rows 0..{count - 1}", sample.index)
    # As in `train`: the same keys, so that the pictures of the page are the same.
    _, _, key_measure = jax.random.split(jax.random.key(results["seed"]), 3)
    before = auditing.measure(key_measure, classifier.apply, original, dataset)
    after = None if results["edit"] is None else auditing.measure(key_measure, classifier.apply, params, dataset)
    pictures, kept = content.pictures(dataset, harmful, before, after, helpful=helpful), folder / "patches.npz"
    laps = dict(results["seconds_by_step"])
    if maps:
        seen = class_maps.audit_maps(jax.random.fold_in(key_measure, 1), classifier.spatial, params, dataset)
        pictures = pictures._replace(maps=dataset.splits["test"].x[seen.examples], maps_shown=seen.example_maps)
        clock.lap("maps")
        laps["maps"] = sum(clock.laps.values())
        results = {**results, "maps": content.maps(seen, dataset)}
    if patches:
        places = patch_places.audit_patches(jax.random.fold_in(key_measure, 2), dataset)
        write_arrays(
            kept,
            {
                "attribute": places.attribute.map,
                "label": places.label.map,
                "example_attribute": places.attribute_maps,
                "example_label": places.label_maps,
            },
            compressed=True,
        )
        clock.lap("patches")
        laps["patches"] = clock.laps["patches"] if maps else sum(clock.laps.values())
        results = {**results, "patches": content.patches(places, dataset)}
    if results.get("patches") is not None and kept.is_file():
        shown, said = read_arrays("patches", kept), results["patches"]
        wanted = {"example_attribute", "example_label"}
        expect(wanted <= set(shown), str(kept), f"arrays {' and '.join(sorted(wanted))}", ", ".join(shown) or "none")
        pictures = pictures._replace(
            patch=dataset.splits[said["split"]].x[np.array([one["row"] for one in said["examples"]], int)],
            patch_attribute=shown["example_attribute"],
            patch_label=shown["example_label"],
        )
    pictures = content.with_draws(pictures, results, dataset, folder / "draws.npz")
    results = to_json({**results, "seconds": sum(laps.values()), "seconds_by_step": laps})
    write_results(results, folder / "results.json")
    write_page(results, pictures, folder / "report.html")
    return results


def quickstart(
    out: Path, *, conflicting: float = 0.02, seed: int = 0, overwrite: bool = False, watch: Watch | None = None
) -> dict[str, Any]:
    """`train` on the embedded digits into OUT/trained, then `debias` into OUT, with every comparison."""
    out = Path(out)
    claim(out, "quickstart", overwrite=overwrite)
    config = TrainConfig(data="digits", options={"conflicting": conflicting}, seed=seed)
    train(config, out / "trained", overwrite=True, watch=watch)
    return debias(out / "trained", DebiasConfig(seed=seed), out, overwrite=overwrite, watch=watch)


def _in_all(observe: Callable[[Mapping[str, Any]], None], epochs: int) -> Callable[[Stage], None]:
    """Counts the epochs of AUG-CELL's candidates together, as if each had so many; the count stays where some are
    trained again."""
    names, most = [candidate.name for candidate in CANDIDATES], 0

    def tell(stage: Stage) -> None:
        nonlocal most
        if stage.epochs:
            most = max(most, epochs * names.index(stage.name) + epochs * stage.epoch // stage.epochs)
        observe({"epoch": most, "loss": stage.loss if stage.epochs else None})

    return tell


def _epochs_per_chunk(epochs: int) -> int:
    """A divisor of the epochs that lets the host look some 15 to 30 times: each look costs a checkpoint.

    >>> _epochs_per_chunk(150), _epochs_per_chunk(20), _epochs_per_chunk(7)
    (10, 1, 1)
    """
    return max(d for d in range(1, max(1, epochs // 15) + 1) if epochs % d == 0)
