"""`jaxdebias debias RUN`: repair a trained run with its held-out samples, beside other ways on the same samples."""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
from tyro.conf import Positional, Suppress, arg

from jaxdebias import auditing
from jaxdebias.app import progress
from jaxdebias.app.ending import print_ending
from jaxdebias.app.option_types import Folder, Int
from jaxdebias.app.predicted import input_fingerprint, write_predictions
from jaxdebias.app.recipes import RECIPES
from jaxdebias.app.result_set import ResultSet, claim, file_digest, is_complete
from jaxdebias.app.run_folder import Run, Watch, check_trained, load, watching
from jaxdebias.app.train import write_page_and_seal
from jaxdebias.auditing.judgement import judge, repair_effect
from jaxdebias.batching import unpair
from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Classifier, Dataset, Key, Params, repair_sets
from jaxdebias.explain import influence
from jaxdebias.mitigate._dfr import dfr
from jaxdebias.mitigate._fine_tune import FineTuneConfig, fine_tune, train_from_scratch
from jaxdebias.mitigate._fine_tune_block import fine_tune_block, mixing_block
from jaxdebias.mitigate._fmd.config import FmdConfig
from jaxdebias.mitigate._fmd.edit import fmd
from jaxdebias.mitigate._methods import METHODS, REPAIRS, choices, help_text, refuse_unmet
from jaxdebias.report.pictures import pictures
from jaxdebias.report.verdict_words import with_words
from jaxdebias.results import build
from jaxdebias.results.codec import convert, read_run
from jaxdebias.results.provenance import Clock, fingerprint, provenance
from jaxdebias.results.records import Baseline, Edit, RunResults
from jaxdebias.train._checkpoint import load_params, save_params

BLOCKS = ("head", "last-2", "last-3", "input-row")


@dataclass(frozen=True, kw_only=True)
class DebiasConfig:
    """How to repair; by default what suits the data set and the method."""

    method: Annotated[str, arg(metavar="{" + ",".join(choices(REPAIRS)) + "}", help=help_text(REPAIRS))] = "fmd"
    block: Annotated[str, arg(metavar="{" + ",".join(BLOCKS) + "}")] = "head"
    """What FMD edits: the last layer, the last two or three, or the input row of a table's protected column."""
    max_aligned_loss: float = 0.10
    """Accuracy on bias-aligned samples that FMD may cost; 1 for no limit."""
    rounds: int = 10
    """Rounds of FMD, each linearised anew, with a line search."""
    direction: Annotated[Literal["ext", "gradB"] | None, arg(metavar="{ext,gradB}", help_behavior_hint="")] = None
    """Step of FMD. ext: external pairs, as in the paper; gradB: the gradient of the bias alone."""
    pairs: Int = None
    """At most this many held-out pairs."""
    search: Suppress[bool] = True
    """With a line search; without, one step at t = 1."""
    baselines: bool = True
    """Also fit DFR, fine-tuning and training from scratch on the same held-out samples."""
    data_dir: Folder = None
    """Folder with the data set's files, if it has moved since the training."""
    seed: int = 0
    """Seed of the edit and of the intervals."""


@dataclass(frozen=True, kw_only=True)
class Debias:
    """Repair a trained run with held-out pairs, accept or roll back, and measure again beside other ways.

    Reads the model and the data set of RUN and leaves RUN as it is.
    """

    run: Annotated[Path, Positional, arg(metavar="RUN")]
    """Folder of the trained run."""
    out: Path
    """Folder of the repaired run. Stopped early, the same command resumes."""
    overwrite: bool = False
    """Replace a result in OUT, once the new one is complete."""
    repair: DebiasConfig = DebiasConfig()
    """How to repair."""

    def execute(self) -> int:
        from jaxdebias.report._tables import print_summary

        done_before = is_complete(self.out) and not self.overwrite
        print_summary(debias(self.run, self.repair, self.out, overwrite=self.overwrite, watch=progress.progress_bar))
        next_steps = (
            f"jaxdebias compare {self.run} {self.out}   what changed, paired over the test samples",
            f"jaxdebias check {self.out} --max-gap 0.1   for continuous integration",
        )
        print_ending("debias", self.out, done_before=done_before, next_steps=next_steps)
        return 0


def debias(
    folder: Path, config: DebiasConfig, out: Path, *, overwrite: bool = False, watch: Watch | None = None
) -> RunResults:
    """Repairs a trained run, measures before and after on the test split, writes the result to `out` and returns it.

    A repair that was stopped is carried on by the same call; a complete one is returned as it is.

    Args:
      folder: of a run that `train` wrote.
      config: how to repair.
      out: folder of the result.
      overwrite: replace what is there, once the new result is complete.
      watch: gives the observer of the progress.

    Raises:
      ContractError: no trained run, data without pairs to repair with, or results of another call in `out`.
    """
    check_choice("method", config.method, choices(REPAIRS))
    check_choice("block", config.block, BLOCKS)
    out, folder = Path(out), Path(folder)
    expect(out.resolve() != folder.resolve(), "out", "another folder than the trained run", out)
    check_trained(folder)
    arguments = {
        "run": str(folder.resolve()),
        "params": file_digest(folder / "params.npz"),
        **dataclasses.asdict(config),
    }
    with claim(out, "debias", arguments, overwrite=overwrite) as run:
        if run.complete:
            return read_run(run.folder)
        return _debias(folder, config, run, watch)


def _debias(folder: Path, config: DebiasConfig, run: ResultSet, watch: Watch | None) -> RunResults:
    clock = Clock()
    trained = load(folder, data_dir=config.data_dir)
    dataset, classifier, params = trained.dataset, trained.classifier, trained.params
    auditing.check_repairable(dataset)
    refuse_unmet(METHODS[config.method], dataset)
    clock.lap("data")
    recipe = RECIPES[trained.config.data]
    key_edit, key_measure, key_changes, key_baselines = jax.random.split(jax.random.key(config.seed), 4)
    key_effect, key_verdict = (jax.random.fold_in(key_changes, number) for number in (1, 2))
    if "edit" in run.measured:
        edited = load_params(run.folder / "params.npz", params)
        edit = convert(run.measured["edit"], Edit, f"{run.folder / 'measurements.json'}: edit")
        took = run.measured["seconds"]
        expect(isinstance(took, Mapping), f"{run.folder / 'measurements.json'}: seconds", "times by name", repr(took))
        parts = dict(took)
        clock.laps["edit"] = parts.pop("edit")
    else:
        edited, edit, parts = _repaired(key_edit, config, trained)
        jax.block_until_ready(edited)
        clock.lap("edit")
        save_params(run.folder / "params.npz", edited)
        run.keep(edit=edit, seconds={"edit": clock.laps["edit"], **parts})
    before, after = (auditing.measure(key_measure, classifier.apply, p, dataset) for p in (params, edited))
    changes = auditing.changes(key_changes, before, after, dataset)
    write_predictions(run.folder, dataset, after, rows=input_fingerprint(dataset))
    run.keep(before=build.measurement(before, dataset), after=build.measurement(after, dataset), changes=changes)
    clock.lap("measure")
    held_out = [auditing.measure(key_measure, classifier.apply, p, dataset, split="accept") for p in (params, edited)]
    tried = repair_effect(
        key_effect,
        config.method.replace("-", "_"),
        {"accept": held_out[0], "test": before},
        {"accept": held_out[1], "test": after},
        dataset,
    )
    found = judge(key_verdict, classifier.apply, params, dataset, before, attribute=recipe.attribute, repairs=tried)
    clock.lap("verdict")
    baselines = _baselines(key_baselines, trained, run, config, key_measure, after, watch) if config.baselines else {}
    remarks = [one["remark"] for one in baselines.values() if one["remark"]]
    parts |= {name: one["seconds"] for name, one in baselines.items()}
    clock.lap("baselines")
    of_run = trained.record
    record = build.run_results(
        "debias",
        provenance(
            clock.laps,
            seed=config.seed,
            arguments=run.arguments,
            data=fingerprint(dataset),
            seconds_by_part=parts,
        ),
        dataset,
        method=config.method,
        model=of_run.model,
        attribute=recipe.attribute,
        items=recipe.items,
        before=build.measurement(before, dataset),
        after=build.measurement(after, dataset),
        edit=edit,
        baselines={name: _baseline(name, one) for name, one in baselines.items()},
        training=of_run.training,
        harmful=of_run.harmful,
        helpful=of_run.helpful,
        findings=list(
            dict.fromkeys(
                [
                    *(text for text in auditing.findings(dataset, before) if not text.startswith("The average")),
                    *auditing.findings(dataset, after),
                    *remarks,
                ]
            )
        ),
    )
    record = dataclasses.replace(
        record,
        changes=build.changes(changes),
        verdict=with_words(build.verdict(found, dataset.label_names)),
        config=of_run.config,
        edit_config=build.plain(dataclasses.asdict(config), "edit_config"),
        trained=str(folder.resolve()),
    )
    shown = pictures(dataset, of_run.harmful, before, after, helpful=of_run.helpful)
    return write_page_and_seal(record, shown, run.folder)


def _baseline(name: str, kept: Mapping[str, Any]) -> Baseline:
    """A baseline as it was kept, but for its time and the remark about it."""
    of_record = {key: value for key, value in kept.items() if key not in ("remark", "seconds")}
    return convert(of_record, Baseline, f"baselines.{name}")


def _repaired(key: Key, config: DebiasConfig, trained: Run) -> tuple[Params, Edit, dict[str, float]]:
    """The repaired parameters, what was done, and how long its rounds took."""
    dataset, classifier, params = trained.dataset, trained.classifier, trained.params
    splits, sets = dataset.splits, repair_sets(dataset)
    if config.method == "fmd":
        recipe = RECIPES[trained.config.data]
        fmd_config = FmdConfig(
            rounds=config.rounds,
            direction=config.direction or recipe.direction,
            pairs=config.pairs,
            search=config.search,
            aligned_floor=None if config.max_aligned_loss >= 1 else config.max_aligned_loss,
            bias="pair" if dataset.pairing == "counterfactual" else "gap",
        )
        block = _block(config.block, dataset, classifier, params)
        edited, info = fmd(key, classifier, params, sets, fmd_config, block=block)
        return edited, build.edit(info, params, edited, fmd_config), build.round_seconds(info.rounds)
    if config.method == "mixing":
        block = mixing_block(classifier.apply, params, splits["accept"].x)
        edited, info = fine_tune_block(key, classifier, params, sets, block=block)
        count = influence.find_block(classifier.apply, params, splits["accept"].x[:2], block)[0].vector().size
        reason = (
            f"{count:,} numbers trained: the first layer's channel mixing and the last "
            f"two layers, at learning rate {info.learning_rate:g}, chosen on the acceptance split."
        )
    else:
        edited, info = dfr(key, classifier, params, sets)
        reason = f"Last layer refitted with penalty {info.penalty:g}, chosen on the acceptance split."
    return edited, build.refit(reason, params, edited), {}


def _baselines(
    key: Key,
    trained: Run,
    run: ResultSet,
    config: DebiasConfig,
    measure_key: Key,
    repaired: auditing.Measurement,
    watch: Watch | None,
) -> dict[str, dict[str, Any]]:
    """Other ways on the same held-out samples: name -> measurement, seconds, what it needs, how much more accurate than
    the repaired model it is, what is wrong with it.

    Each is kept as soon as it is measured.
    """
    dataset, classifier, params = trained.dataset, trained.classifier, trained.params
    splits, sets = dataset.splits, repair_sets(dataset)
    key_tune, key_scratch = jax.random.split(key)
    # Pairs in every rendering of the attribute where the data set can draw them, else both sides of each pair.
    every = splits.get("edit_every_colour", unpair(sets.pairs))
    scratch = FineTuneConfig(epochs=max(5, min(60, 120_000 // len(every.label))))
    methods = {
        "dfr": (
            "DFR",
            "held-out samples with their attribute",
            lambda: dfr(jax.random.fold_in(key, 2), classifier, params, sets),
        ),
        "fine_tune": (
            "fine-tuning",
            "the same held-out pairs; trains all layers",
            lambda: fine_tune(key_tune, classifier, params, sets),
        ),
        "scratch": (
            "from scratch",
            "the same held-out samples; no training set",
            lambda: train_from_scratch(key_scratch, classifier, params, sets._replace(edit=every, pairs=None), scratch),
        ),
    }
    methods.pop(config.method, None)
    done = dict(run.measured.get("baselines", {}))
    with watching(watch, len(methods), "baselines") as observe:
        for number, (name, (title, needs, fit)) in enumerate(methods.items(), 1):
            if name not in done:
                start = time.perf_counter()
                fitted, _ = jax.block_until_ready(fit())
                seconds = time.perf_counter() - start
                measured = auditing.measure(measure_key, classifier.apply, fitted, dataset)
                done[name] = {
                    "measurement": build.plain(build.measurement(measured, dataset)),
                    "seconds": seconds,
                    "needs": needs,
                    "accuracy_change": build.plain(
                        build.change(auditing.changes(measure_key, repaired, measured, dataset)["accuracy"])
                    ),
                    "remark": auditing.collapsed(f"The baseline {title}", measured, splits["test"].label),
                }
                run.keep(baselines=done)
            observe({"epoch": number})
    return {name: done[name] for name in methods}


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
