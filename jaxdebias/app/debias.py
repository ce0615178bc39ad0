"""Repairs of trained runs, beside the honest alternatives on the same held-out samples."""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxdebias import auditing
from jaxdebias.app.recipes import RECIPES
from jaxdebias.app.run_folder import Run, Watch, claim, load, watching
from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Classifier, Dataset, Params, repair_sets, unpair
from jaxdebias.explain import influence
from jaxdebias.mitigate._dfr import dfr
from jaxdebias.mitigate._fine_tune import FineTuneConfig, fine_tune, train_from_scratch
from jaxdebias.mitigate._fine_tune_block import fine_tune_block, mixing_block
from jaxdebias.mitigate._fmd.config import FmdConfig
from jaxdebias.mitigate._fmd.edit import fmd
from jaxdebias.report._page import write_page
from jaxdebias.results import build as content
from jaxdebias.results.provenance import Clock, timing
from jaxdebias.results.records import to_json, write_results
from jaxdebias.train._checkpoint import save_params


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


def debias(
    folder: Path, config: DebiasConfig, out: Path, *, overwrite: bool = False, watch: Watch | None = None
) -> dict[str, Any]:
    """Repairs a trained run, measures before and after on the test split, writes the result to `out` and returns it.

    Raises:
      ContractError: no trained run, data without pairs to repair with, or results already in `out`.
    """
    check_choice("method", config.method, ("fmd", "dfr", "mixing"))
    check_choice("block", config.block, ("head", "last-2", "last-3", "input-row"))
    out, folder = Path(out), Path(folder)
    expect(out.resolve() != folder.resolve(), "out", "another folder than the trained run", out)
    clock = Clock()
    trained = load(folder, data_dir=config.data_dir)
    _, dataset, classifier, params, _ = trained
    auditing.check_repairable(dataset)
    claim(out, "debias", overwrite=overwrite)
    clock.lap("data")
    recipe = RECIPES[trained.results["config"]["data"]]
    key_edit, key_measure, key_changes, key_baselines = jax.random.split(jax.random.key(config.seed), 4)
    splits, sets = dataset.splits, repair_sets(dataset)
    if config.method == "fmd":
        fmd_config = FmdConfig(
            rounds=config.rounds,
            direction=config.direction or recipe.direction,
            pairs=config.pairs,
            search=config.search,
            aligned_floor=config.aligned_floor,
            bias="pair" if dataset.pairing == "counterfactual" else "gap",
        )
        block = _block(config.block, dataset, classifier, params)
        edited, info = fmd(key_edit, classifier, params, sets, fmd_config, block=block)
        edit = content.edit(info, params, edited, fmd_config)
    elif config.method == "mixing":
        block = mixing_block(classifier.apply, params, splits["accept"].x)
        edited, info = fine_tune_block(key_edit, classifier, params, sets, block=block)
        count = influence.find_block(classifier.apply, params, splits["accept"].x[:2], block)[0].vector().size
        edit = {
            "accepted": True,
            "reason": f"{count:,} numbers trained: the first layer's channel mixing and the last "
            f"two layers, at learning rate {info.learning_rate:g}, chosen on the acceptance split.",
            **content.parameter_counts(params, edited),
            "rounds": [],
        }
    else:
        edited, info = dfr(key_edit, classifier, params, sets)
        edit = {
            "accepted": True,
            "reason": f"Last layer refitted with penalty {info.penalty:g}, chosen on the acceptance split.",
            **content.parameter_counts(params, edited),
            "rounds": [],
        }
    jax.block_until_ready(edited)
    clock.lap("edit")
    # The same bootstrap weights on both sides: what differs is the model.
    before, after = (auditing.measure(key_measure, classifier.apply, p, dataset) for p in (params, edited))
    changes = auditing.changes(key_changes, before, after, dataset)
    clock.lap("measure")
    baselines, remarks = {}, []
    if config.baselines:
        baselines = dict(
            _baselines(
                key_baselines, trained, skip=config.method, measure_key=key_measure, watch=watch, remarks=remarks
            )
        )
    clock.lap("baselines")

    save_params(out / "params.npz", edited)
    harmful, helpful = (
        [auditing.Harmful(**sample) for sample in trained.results.get(name, [])] for name in ("harmful", "helpful")
    )
    results = to_json(
        {
            **content.identity(
                dataset,
                recipe.attribute,
                recipe.items,
                config.method,
                trained.results["seed"],
                trained.results["model"],
            ),
            **timing(clock),
            "config": trained.results["config"],
            "trained": str(folder.resolve()),
            "edit_config": dataclasses.asdict(config),
            "before": content.measurement(before, dataset),
            "after": content.measurement(after, dataset),
            "changes": changes,
            "baselines": baselines,
            "edit": edit,
            "harmful": trained.results["harmful"],
            "harmful_rows": content.table_rows(dataset, harmful),
            "helpful": trained.results.get("helpful", []),
            "helpful_rows": content.table_rows(dataset, helpful),
            "training": trained.results["training"],
            "findings": list(
                dict.fromkeys(
                    [
                        *(text for text in auditing.findings(dataset, before) if not text.startswith("The average")),
                        *auditing.findings(dataset, after),
                        *remarks,
                    ]
                )
            ),
        }
    )
    write_results(results, out / "results.json")
    write_page(results, content.pictures(dataset, harmful, before, after, helpful=helpful), out / "report.html")
    return results


def _baselines(
    key: Any, trained: Run, *, skip: str, measure_key: Any, watch: Watch | None, remarks: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The honest alternatives on the same held-out samples: name -> measurement, seconds, what it needs.

    What is wrong with one of them is added to `remarks`.
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
    methods.pop(skip, None)
    with watching(watch, len(methods), "baselines") as observe:
        for number, (name, (called, needs, fit)) in enumerate(methods.items(), 1):
            start = time.perf_counter()
            fitted, _ = jax.block_until_ready(fit())
            seconds = time.perf_counter() - start
            said = auditing.measure(measure_key, classifier.apply, fitted, dataset)
            remark = auditing.collapsed(f"The baseline {called}", said, splits["test"].label)
            remarks += [remark] if remark else []
            observe({"epoch": number})
            yield name, {"measurement": content.measurement(said, dataset), "seconds": seconds, "needs": needs}


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
