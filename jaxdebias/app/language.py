"""`jaxdebias debias-language`: a checkpoint of a language model in, a repaired one and what was measured out.

The folder that `debias_language` writes:

    model/         the repaired checkpoint: config.json, model.safetensors, the tokenizer's files
    results.json   what was measured before and after, and the configuration; keys as in `report.results` where they fit
    report.md      the same as tables
"""

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
from tyro.conf import Suppress, arg

from jaxdebias.app import progress
from jaxdebias.app.ending import print_ending
from jaxdebias.app.language_tests import language_tests
from jaxdebias.app.option_types import Folder
from jaxdebias.app.result_set import ResultSet, claim, file_digest, is_complete
from jaxdebias.contracts import ContractError, check_choice, expect
from jaxdebias.core import Params
from jaxdebias.data._registry import VARIABLE
from jaxdebias.files import write_text
from jaxdebias.language._baselines import (
    LanguageTuningConfig,
    counterfactual_texts,
    language_projection,
    language_tuning,
)
from jaxdebias.language._evaluation import LanguageReport, LanguageTests, language_changes, language_report
from jaxdebias.language._fmd import LanguageFmdConfig, LanguageFmdInfo, influence_on_bias, language_fmd
from jaxdebias.language._positions import BLOCKS
from jaxdebias.language._text_scores import Scorer
from jaxdebias.language._training import LanguageTraining, train_language_model
from jaxdebias.language.models import (
    LanguageModel,
    Tokenizer,
    load_checkpoint,
    read_tokenizer,
    save_checkpoint,
    small_language_model,
    word_tokenizer,
)
from jaxdebias.language.training_sets import LanguageSets, checkpoint_sets, planted_sets
from jaxdebias.measure._intervals import Interval
from jaxdebias.report.language_markdown import markdown
from jaxdebias.results import build, records
from jaxdebias.results.codec import read_results, write_results
from jaxdebias.results.provenance import provenance
from jaxdebias.train._checkpoint import fingerprint

SMALL = {
    "gpt2": LanguageTraining(steps=900, learning_rate=5e-3, length=16),
    "bert": LanguageTraining(steps=900, learning_rate=3e-3, length=16, share=0.3),
}
"""How the small models are trained, at which they learn the planted bias."""


@dataclass(frozen=True, kw_only=True)
class LanguageDebiasConfig:
    """What to repair, and how."""

    checkpoint: Folder = None
    """Folder of a GPT-2 or a BERT in the layout of Hugging Face (config.json, model.safetensors, tokenizer files).
    Without it a small model with a planted bias is trained first."""
    kind: Literal["gpt2", "bert"] = "gpt2"
    """Kind of the small model."""
    data_dir: Folder = None
    """Folder with WikiText-2, StereoSet, CrowS-Pairs and Winogender, or with language/...; what is there is measured.
    Without it the environment variable JAXDEBIAS_DATA."""
    block: Annotated[str, arg(metavar="{" + ",".join(BLOCKS) + "}")] = "top"
    """What is edited. transform: the final transform and the bias of the logits; mlp: the perceptron of the last
    block; top: both."""
    direction: Literal["ext", "gradB"] = "gradB"
    """Step of FMD. ext: external pairs; gradB: the gradient of the bias alone."""
    rounds: int = 10
    """Rounds of FMD, each with a line search."""
    baselines: bool = True
    """Also counterfactual fine-tuning (of small models) and the projection of the gender direction."""
    steps: Suppress[int | None] = None
    """Steps that a small model is trained for; None: as many as it needs to learn the bias."""
    sentences: Suppress[int] = 4000
    """Number of sentences that a small model is trained on."""
    seed: int = 0
    """Seed of the training, the edit and the intervals."""


@dataclass(frozen=True, kw_only=True)
class DebiasLanguage:
    """Repair a GPT-2 or a BERT in which occupations are associated with a pronoun, and measure stereotypes.

    The repaired checkpoint goes to OUT/model, tables to OUT/report.md.
    """

    out: Path
    """Folder of the result."""
    overwrite: bool = False
    """Replace a result in OUT, once the new one is complete."""
    repair: LanguageDebiasConfig = LanguageDebiasConfig()
    """What to repair, and how."""

    def execute(self) -> int:
        done_before = is_complete(self.out) and not self.overwrite
        given = self.repair.data_dir or os.environ.get(VARIABLE)
        config = dataclasses.replace(self.repair, data_dir=None if given is None else Path(given))
        print(markdown(debias_language(config, self.out, overwrite=self.overwrite, observe=progress.print_line)))
        steps = (f"load {self.out / 'model'} as any checkpoint of Hugging Face", f"open {self.out / 'report.md'}")
        print_ending("debias-language", self.out, done_before=done_before, next_steps=steps)
        return 0


def debias_language(
    config: LanguageDebiasConfig,
    out: Path,
    *,
    overwrite: bool = False,
    observe: Callable[[str], None] = lambda said: None,
) -> records.LanguageResults:
    """Repairs a language model, measures before and after, writes the folder `out` and returns the results.

    Args:
      config: what to repair, and how.
      out: folder of the result.
      overwrite: replace what is there, once the new result is complete.
      observe: called with a line after every step.

    Raises:
      ContractError: no checkpoint or tokenizer there, unknown names, or results already in `out`.
    """
    check_choice("block", config.block, BLOCKS)
    check_choice("direction", config.direction, ("ext", "gradB"))
    check_choice("kind", config.kind, SMALL)
    out = Path(out)
    same = config.checkpoint is not None and out.resolve() == Path(config.checkpoint).resolve()
    expect(not same, "out", "another folder than the checkpoint", out)
    if config.data_dir is not None:
        expect(Path(config.data_dir).is_dir(), "data_dir", "a folder", config.data_dir)
    arguments = dataclasses.asdict(config)
    if config.checkpoint is not None:
        expect(Path(config.checkpoint).is_dir(), "checkpoint", "a folder with config.json", config.checkpoint)
        arguments["weights"] = file_digest(config.checkpoint)
    with claim(out, "debias-language", arguments, overwrite=overwrite) as run:
        return read_results(run.folder) if run.complete else _debias(config, run, observe)


def _debias(config: LanguageDebiasConfig, run: ResultSet, observe: Callable[[str], None]) -> records.LanguageResults:
    laps, last = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        laps[name], last = time.perf_counter() - last, time.perf_counter()
        observe(f"{name}: {laps[name]:.0f} s")

    key_train, key_edit, key_measure, key_baselines = jax.random.split(jax.random.key(config.seed), 4)
    model, tokenizer, params, sets = _loaded(key_train, config)
    lap("model")
    # A small model knows 512 words: the published benchmarks are not for it.
    tests = language_tests(sets, model, tokenizer, config.data_dir if config.checkpoint is not None else None)
    edit_config = LanguageFmdConfig(block=config.block, direction=config.direction, rounds=config.rounds)
    before = language_report(key_measure, _scorer(model, params, tokenizer), tests)
    lap("measure before")
    edited, info = language_fmd(
        key_edit, model, tokenizer, params, sets.train, sets.pairs, sets.accept_texts, sets.accept_pairs, edit_config
    )
    lap("edit")
    save_checkpoint(run.folder / "model", model, edited, tokenizer)
    run.keep(before=_measurement(before), edit=_edit(info, params))
    after = language_report(key_measure, _scorer(model, edited, tokenizer), tests)
    changes = language_changes(key_measure, before, after, tests)
    lap("measure after")
    found = influence_on_bias(key_edit, model, tokenizer, params, sets.train, sets.pairs, edit_config)
    lap("influence")
    baselines, took = _baselines(key_baselines, config, model, tokenizer, params, sets, tests, key_measure)
    lap("baselines")

    kind = "gpt2" if model.causal else "bert"
    data = fingerprint({"texts": np.array(sum(map(len, sets.train))), "pairs": np.array(len(sets.pairs))})
    harmful, helpful = _sentences(found.change, sets.train)
    record = records.LanguageResults(
        command="debias-language",
        provenance=provenance(
            laps,
            seed=config.seed,
            arguments=run.arguments,
            data=data,
            seconds_by_part=build.round_seconds(info.rounds) | took,
        ),
        dataset="language",
        variant={"planted": config.checkpoint is None, "texts": len(sets.train), "pairs": len(sets.pairs)},
        method="fmd",
        model=kind if config.checkpoint is None else Path(config.checkpoint).name,
        edit_config=build.plain(dataclasses.asdict(config), "edit_config"),
        before=_measurement(before),
        after=_measurement(after),
        changes=records.LanguageChanges(
            pairs=build.changes(changes.pairs),
            perplexity=None if changes.perplexity is None else build.change(changes.perplexity),
            stereoset={
                name: records.StereoSetChanges(
                    ss=build.change(one.ss), lms=build.change(one.lms), icat=build.change(one.icat)
                )
                for name, one in changes.stereoset.items()
            },
            crows=build.changes(changes.crows),
        ),
        baselines=baselines,
        edit=_edit(info, params),
        harmful=harmful,
        helpful=helpful,
        findings=tuple(_findings(before, after, info.accepted)),
    )
    write_text(run.folder / "report.md", markdown(record))
    write_results(run.folder / "results.json", record)
    return record


def _loaded(key: Any, config: LanguageDebiasConfig) -> tuple[LanguageModel, Tokenizer, Params, LanguageSets]:
    if config.checkpoint is not None:
        try:
            model, params = load_checkpoint(config.checkpoint)
        except ContractError as error:
            if "head_bias=True reads it" not in str(error):
                raise
            model, params = load_checkpoint(config.checkpoint, head_bias=True)  # one of our small models
        return model, read_tokenizer(config.checkpoint), params, checkpoint_sets(config.data_dir)
    sets = planted_sets(seed=config.seed, sentences=config.sentences, data_dir=config.data_dir)
    tokenizer = word_tokenizer(sets.train, size=512)
    model = small_language_model(config.kind, tokenizer.size)
    recipe = SMALL[config.kind]
    if config.steps is not None:
        recipe = dataclasses.replace(recipe, steps=config.steps)
    return model, tokenizer, train_language_model(key, model, tokenizer, sets.train, recipe), sets


def _scorer(model: LanguageModel, params: Params, tokenizer: Tokenizer) -> Scorer:
    return Scorer(model.split, params, tokenizer, model.causal, model.config.positions)


def _baselines(
    key: Any,
    config: LanguageDebiasConfig,
    model: LanguageModel,
    tokenizer: Tokenizer,
    params: Params,
    sets: LanguageSets,
    tests: LanguageTests,
    key_measure: Any,
) -> tuple[dict[str, records.LanguageBaseline], dict[str, float]]:
    """(name -> what is measured after it, what it needs; name -> its wall time in seconds)."""
    said: dict[str, records.LanguageBaseline] = {}
    seconds: dict[str, float] = {}
    if not config.baselines:
        return said, seconds
    held_out = sets.accept_texts, sets.accept_pairs

    def add(name: str, needs: str, scorer: Scorer, chosen: str, began: float) -> None:
        seconds[name] = time.perf_counter() - began
        measured = _measurement(language_report(key_measure, scorer, tests))
        said[name] = records.LanguageBaseline(measurement=measured, needs=needs, chosen=chosen)

    began = time.perf_counter()
    split, fitted, info = language_projection(model, tokenizer, params, sets.pairs, *held_out)
    add("projection", "the same pairs", _scorer(model, fitted, tokenizer)._replace(split=split), info.chosen, began)
    if config.checkpoint is None:  # of a large model it is a training on an accelerator
        began = time.perf_counter()
        tuning = LanguageTuningConfig(
            length=SMALL[config.kind].length,
            share=SMALL[config.kind].share,
            steps=50 if config.steps is None else max(1, config.steps // 10),
        )
        tuned, info = language_tuning(
            key, model, tokenizer, params, counterfactual_texts(sets.train), *held_out, tuning
        )
        add(
            "cda",
            "all training texts and a list of gendered words",
            _scorer(model, tuned, tokenizer),
            info.chosen,
            began,
        )
    return said, seconds


def _measurement(report: LanguageReport) -> records.LanguageMeasurement:
    return records.LanguageMeasurement(
        pairs={
            name: records.PairScores(
                absolute=build.interval(one.absolute),
                signed=build.interval(one.signed),
                preferred=build.interval(report.preferred[name]),
            )
            for name, one in report.pairs.items()
        },
        perplexity=_interval(report.perplexity),
        stereoset={
            name: records.StereoSet(
                ss=build.interval(one.ss),
                lms=build.interval(one.lms),
                icat=build.interval(one.icat),
                items=int(one.items),
            )
            for name, one in report.stereoset.items()
        },
        crows={
            name: records.CrowsPairs(
                score=build.interval(one.score),
                stereo=build.interval(one.stereo),
                antistereo=build.interval(one.antistereo),
                neutral=int(one.neutral),
            )
            for name, one in report.crows.items()
        },
    )


def _interval(found: Interval | None) -> records.Interval | None:
    return None if found is None else build.interval(found)


def _edit(info: LanguageFmdInfo, params: Params) -> records.LanguageEdit:
    return records.LanguageEdit(
        accepted=bool(info.accepted),
        bias_before=build.finite(info.bias_before),
        bias_after=build.finite(info.bias_after),
        perplexity_before=build.finite(info.perplexity_before),
        perplexity_after=build.finite(info.perplexity_after),
        fall=build.finite(info.fall),
        parameters=int(info.parameters),
        parameters_changed=int(info.parameters) if info.accepted else 0,
        parameters_of_model=int(sum(leaf.size for leaf in jax.tree.leaves(params))),
        rounds=tuple(
            records.LanguageRound(
                round=number,
                u=build.finite(one.u),
                t=build.finite(one.t),
                predicted_change=build.finite(one.predicted_change),
                achieved_change=build.finite(one.achieved_change),
                bias=build.finite(one.bias),
                perplexity=build.finite(one.perplexity),
                residual=build.finite(one.residual),
                iterations=int(one.iterations),
            )
            for number, one in enumerate(info.rounds, 1)
        ),
    )


def _sentences(
    change: np.ndarray, texts: list[str], count: int = 8
) -> tuple[tuple[records.Sentence, ...], tuple[records.Sentence, ...]]:
    """The most harmful and most helpful training sentences, each text once; scores as in `influence.scores`."""
    _, once = np.unique(texts, return_index=True)
    order = once[np.argsort(change[once], kind="stable")]

    def rows(index: np.ndarray) -> tuple[records.Sentence, ...]:
        return tuple(records.Sentence(index=int(i), text=texts[i], score=-float(change[i])) for i in index)

    return rows(order[:count]), rows(order[::-1][:count])


def _findings(before: LanguageReport, after: LanguageReport, accepted: bool) -> list[str]:
    """Remarks in plain language: whether the edit was kept, and whether it only hides the bias."""
    if not accepted:
        return [
            "The edit was not kept: no candidate lowered the bias of held-out pairs by more than chance explains "
            "within the allowed perplexity. The checkpoint that was written is the one that was read."
        ]
    falls = {
        name: 1 - after.pairs[name].absolute.value / max(one.absolute.value, 1e-12)
        for name, one in before.pairs.items()
    }
    said = []
    if {"edit", "both"} <= falls.keys() and falls["edit"] > 0.2:
        if falls["both"] < 0.5 * falls["edit"]:
            said.append(
                f"The edit hides the bias: it falls by {falls['edit']:.0%} where pairs were built from, and by "
                f"{falls['both']:.0%} with other occupations in other templates."
            )
        else:
            said.append(
                f"The edit carries over: the bias falls by {falls['edit']:.0%} where pairs were built from, "
                f"and by {falls['both']:.0%} with other occupations in other templates."
            )
    if "persons" in falls:
        kept = [report.preferred["persons"].value for report in (before, after)]
        said.append(
            f"Of sentences about women and men, the right pronoun is preferred in {kept[1]:.0%} ({kept[0]:.0%} before)."
        )
    return said
