"""`jaxdebias train`: train a classifier on a data set with a known bias attribute, and measure its bias.

A run is a folder:

    results.json      what was measured (`jaxdebias.results.records`) and `config`, from which it can be repeated
    report.html       the same as a page
    params.npz        the model
    predictions.npz   what it predicts on the test set
    log.jsonl         one line per epoch; none with AUG-CELL
    draws.npz         with DB-VAE: the weight of every training row, and reconstructions
    patches.npz       after `show --patches`: the maps of attribute and label
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxdebias import auditing
from jaxdebias.app import progress
from jaxdebias.app.ending import print_ending
from jaxdebias.app.option_types import Float, Folder, Int, Names, Str
from jaxdebias.app.predicted import input_fingerprint, write_predictions
from jaxdebias.app.recipes import RECIPES, TrainConfig, model_options, resolve
from jaxdebias.app.result_set import ResultSet, claim, is_complete
from jaxdebias.app.run_folder import Watch, watching
from jaxdebias.app.training import Training, build_training, default_augment
from jaxdebias.auditing import draw_shares
from jaxdebias.auditing.judgement import judge
from jaxdebias.contracts import ContractError, check_choice
from jaxdebias.core import Dataset, Params
from jaxdebias.data import _registry as registry
from jaxdebias.files import write_arrays, write_text
from jaxdebias.mitigate._aug_cell.info import AugCellInfo, Stage
from jaxdebias.mitigate._aug_cell.training import CANDIDATES
from jaxdebias.mitigate._jtt import JttInfo
from jaxdebias.mitigate._methods import METHODS, TRAINING, choices
from jaxdebias.models import load_resnet
from jaxdebias.report import formats, wording
from jaxdebias.report._page import render_page
from jaxdebias.report.pictures import Pictures, pictures, with_draws
from jaxdebias.report.verdict_words import with_words
from jaxdebias.results import build, records
from jaxdebias.results.codec import read_run, write_results
from jaxdebias.results.provenance import Clock, fingerprint, provenance
from jaxdebias.results.records import RunResults
from jaxdebias.train._checkpoint import load_params, save_params
from jaxdebias.train._optimizer import Optimizer
from jaxdebias.train._plans import steps_per_epoch
from jaxdebias.train._run import FitConfig, fit


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Options of some data sets only; by default what suits the data set."""

    conflicting: Float = None
    """Share of bias-conflicting training samples."""
    attribute: Str = None
    """Bias attribute (adult, utkface, celeba, celeba-mask)."""
    target: Str = None
    """Attribute to classify (celeba)."""
    image_size: Int = None
    """Height and width to which pictures are resized."""
    max_pixels: Int = None
    """Largest picture that is decoded (folder; 50,000,000)."""
    max_bytes: Int = None
    """Most memory for all decoded pictures (folder; 2 GiB)."""
    max_train: Int = None
    """At most this many training pictures (celeba)."""
    limit: Int = None
    """The same for corrupted-cifar10."""
    held_out: Int = None
    """Pictures kept for repairs (the same, colored-mnist)."""
    cache_dir: Folder = None
    """Folder for what corrupted-cifar10 computes."""
    proxies: Names = None
    """Columns that change with it (adult)."""
    without: Names = None
    """Columns hidden from the model (adult)."""

    def given(self) -> dict[str, Any]:
        """The options that the user gave."""
        every = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return {name: value for name, value in every.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a classifier on a data set with a known bias attribute, and measure how much it relies on it."""

    out: Path
    """Folder of the run."""
    overwrite: bool = False
    """Replace the run in OUT when complete."""
    training: TrainConfig
    """What to train, on what; by default what suits the data set and the method."""
    data_set: DataOptions = DataOptions()
    """Each for some data sets only."""

    def execute(self) -> int:
        from jaxdebias.report._tables import print_summary

        done_before = is_complete(self.out) and not self.overwrite
        config = dataclasses.replace(self.training, options=self.data_set.given())
        print_summary(train(config, self.out, overwrite=self.overwrite, watch=progress.progress_bar))
        next_steps = (
            f"jaxdebias audit {self.out} --out {self.out}-audit   five answers, with maps and a repair that holds",
            f"jaxdebias debias {self.out} --out {self.out}-fmd    one repair beside other ways",
        )
        print_ending("train", self.out, done_before=done_before, next_steps=next_steps)
        return 0


class Trained(NamedTuple):
    """What training leaves behind."""

    network: Training
    params: Params
    loss: list[float]
    """Mean loss of each chunk of epochs; empty with AUG-CELL."""
    findings: list[str]
    draws: draw_shares.DrawAudit | None
    history: tuple


def train(config: TrainConfig, out: Path, *, overwrite: bool = False, watch: Watch | None = None) -> RunResults:
    """Trains, measures on the test split, writes the run to `out` and returns its results.

    A run that was stopped is carried on by the same call (AUG-CELL's candidates are trained again); a complete one is
    returned as it is.

    Args:
      config: what to train, on what.
      out: folder of the run.
      overwrite: replace what is there, once the new run is complete.
      watch: gives the observer of the training's progress.

    Raises:
      ContractError: unknown names, missing files, or results of another call in `out`.
    """
    check_choice("data", config.data, registry.DATASETS)
    check_choice("method", config.method, choices(TRAINING))
    config = resolve(config)
    arguments = {**dataclasses.asdict(config), "options": dict(config.options)}
    with claim(out, "train", arguments, overwrite=overwrite) as run:
        if run.complete:
            return read_run(run.folder)
        return _train(config, run, watch)


def _train(config: TrainConfig, run: ResultSet, watch: Watch | None) -> RunResults:
    recipe, clock = RECIPES[config.data], Clock()
    dataset = registry.load(config.data, data_dir=config.data_dir, seed=config.seed, **config.options)
    clock.lap("data")
    trained = _fitted(config, dataset, run, watch)
    save_params(run.folder / "params.npz", trained.params)
    clock.lap("train")
    *_, key_measure = jax.random.split(jax.random.key(config.seed), 3)
    classifier = trained.network.classifier
    key_verdict = jax.random.fold_in(key_measure, 2)
    before = auditing.measure(key_measure, classifier.apply, trained.params, dataset)
    write_predictions(run.folder, dataset, before, rows=input_fingerprint(dataset))
    findings = [*trained.findings, *auditing.findings(dataset, before)]
    run.keep(before=build.measurement(before, dataset), findings=findings)
    clock.lap("measure")
    found = judge(key_verdict, classifier.apply, trained.params, dataset, before, attribute=recipe.attribute)
    clock.lap("verdict")
    # From here on nothing may cost what has been measured.
    if trained.draws is not None:
        write_arrays(
            run.folder / "draws.npz",
            {
                "weight": trained.draws.weight,
                "rarest": trained.draws.rarest_decoded,
                "commonest": trained.draws.commonest_decoded,
            },
            compressed=True,
        )
        clock.lap("draws")
    harmful, helpful = auditing.Influential([], [])
    try:
        harmful, helpful = auditing.influential(
            classifier.vector, trained.params, dataset, head_path=classifier.head_path
        )
    except ContractError as error:
        findings.append(f"Influence of training samples was not computed: {error}.")
    clock.lap("influence")
    record = build.run_results(
        "train",
        provenance(clock.laps, seed=config.seed, arguments=run.arguments, data=fingerprint(dataset)),
        dataset,
        method=config.method,
        model=config.model,
        attribute=recipe.attribute,
        items=recipe.items,
        before=build.measurement(before, dataset),
        training=records.Training(epochs=config.epochs, loss=tuple(map(build.finite, trained.loss))),
        harmful=harmful,
        helpful=helpful,
        findings=findings,
    )
    record = dataclasses.replace(
        record,
        config=run.arguments,
        verdict=with_words(build.verdict(found, dataset.label_names)),
        draws=None if trained.draws is None else build.draws(trained.draws, dataset, trained.history),
    )
    shown = pictures(dataset, harmful, before, helpful=helpful)
    return write_page_and_seal(record, with_draws(shown, record, dataset, run.folder / "draws.npz"), run.folder)


def write_page_and_seal(record: RunResults, shown: Pictures | None, folder: Path) -> RunResults:
    """Writes report.html, then results.json. A page that cannot be drawn becomes a finding: the numbers are kept.

    One that cannot be written stops the command, which resumes here.
    """
    try:
        page = render_page(record, shown)
    except ContractError as error:
        record = dataclasses.replace(record, findings=(*record.findings, f"The page was not drawn: {error}."))
    else:
        write_text(folder / "report.html", page)
    write_results(folder / "results.json", record)
    return record


def _fitted(config: TrainConfig, dataset: Dataset, run: ResultSet, watch: Watch | None) -> Trained:
    """Trains, or carries on, or reads what a call that was stopped later had finished."""
    recipe, method = RECIPES[config.data], METHODS[config.method]
    data = dataset.splits["train"]._replace(twin=None, mask=None)
    steps = config.epochs * steps_per_epoch(len(data.label), config.batch_size)
    made = build_training(config.method, config.model, dataset, model_options(config))
    augment = None
    if config.augment:
        augment = default_augment(dataset, mirrored=recipe.mirrored, turned=made.fit is not None)
    key_init, key_train, _ = jax.random.split(jax.random.key(config.seed), 3)
    label = f"{config.method} on {config.data}"
    if made.fit is not None:
        if "training" in run.measured:
            like = jax.eval_shape(made.classifier.init, jax.random.key(0), data.x[:1])
            params = load_params(run.folder / "params.npz", like)
            return Trained(made, params, [], run.measured["training"], None, ())
        with watching(watch, len(CANDIDATES) * config.epochs, label) as observe:
            params, info = made.fit(
                key_train,
                data,
                augment,
                epochs=config.epochs,
                batch_size=config.batch_size,
                learning_rate=config.learning_rate,
                observe=_in_all(observe, config.epochs),
            )
        findings = _findings(info, recipe.items)
        save_params(run.folder / "params.npz", params)
        run.keep(training=findings)
        return Trained(made, params, [], findings, None, ())
    optimizer = Optimizer(
        name="adamw",
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        schedule="cosine",
        steps=steps,
    )
    learner, state = made.learner(optimizer, data, augment), None
    if config.weights is not None:
        state = learner.init(key_init, jax.tree.map(lambda leaf: leaf[:1], data))
        state = state._replace(variables=load_resnet(config.weights, state.variables, head="skip"))
    portions = FitConfig(
        epochs=config.epochs,
        batch_size=config.batch_size,
        draws=method.draws,
        epochs_per_chunk=_epochs_per_chunk(config.epochs),
    )
    with watching(watch, config.epochs, label) as observe:
        trained = fit(
            key_train,
            learner,
            data,
            portions,
            state=state,
            checkpoint=run.folder / "checkpoints",
            log=run.folder / "log.jsonl",
            observe=observe,
        )
    drawn = None if made.vae is None else draw_shares.audit_draws(learner, trained.state, made.vae, dataset)
    loss = [record.loss for record in trained.history]
    return Trained(made, trained.state.variables, loss, [], drawn, trained.history)


def _findings(info: AugCellInfo | JttInfo, items: str) -> list[str]:
    """What a method of several trainings says of itself, as sentences."""
    if isinstance(info, AugCellInfo):
        return wording.aug_cell(info, items)
    wrong = formats.percent(float(info.errors.mean()))
    return [f"After the first, brief training {wrong} of the training {items} were wrong: these then counted more."]


def _in_all(observe: Callable[[Mapping[str, Any]], None], epochs: int) -> Callable[[Stage], None]:
    """Maps AUG-CELL's progress, by candidate, to one progress bar, which never goes back."""
    names, most = [candidate.name for candidate in CANDIDATES], 0

    def tell(stage: Stage) -> None:
        nonlocal most
        if stage.epochs:
            most = max(most, epochs * names.index(stage.name) + epochs * stage.epoch // stage.epochs)
        observe({"epoch": most, "loss": stage.loss if stage.epochs else None})

    return tell


def _epochs_per_chunk(epochs: int) -> int:
    """A divisor of the epochs that gives some 15 to 30 chunks: each costs a checkpoint.

    >>> _epochs_per_chunk(150), _epochs_per_chunk(20), _epochs_per_chunk(7)
    (10, 1, 1)
    """
    return max(d for d in range(1, max(1, epochs // 15) + 1) if epochs % d == 0)
