"""`jaxdebias audit RUN`: five answers about a trained or a repaired run."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
from tyro.conf import Positional, arg

from jaxdebias import auditing
from jaxdebias._audit import AuditReport, audit
from jaxdebias.app.ending import print_ending
from jaxdebias.app.option_types import Bool, Folder, Names, Str
from jaxdebias.app.predicted import input_fingerprint, write_predictions
from jaxdebias.app.questions import DEFAULT, QuestionOptions, plain
from jaxdebias.app.recipes import RECIPES, TrainConfig
from jaxdebias.app.result_set import PICTURES, ResultSet, claim, file_digest, is_complete
from jaxdebias.app.run_folder import check_trained, load
from jaxdebias.auditing.candidates import own_name
from jaxdebias.contracts import ContractError, expect
from jaxdebias.core import Dataset
from jaxdebias.data import _registry as registry
from jaxdebias.data._values import legitimate_input
from jaxdebias.files import read_arrays, write_arrays, write_text
from jaxdebias.report import _markdown as markdown
from jaxdebias.report._page import render_page
from jaxdebias.report.pictures import Pictures
from jaxdebias.results.codec import from_json, read_run, to_json, write_results
from jaxdebias.results.records import RunResults
from jaxdebias.train._checkpoint import save_params


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """What is asked of a run."""

    candidates: Names = None
    """Further attributes: columns of a folder's metadata.csv, or others of adult, utkface, celeba."""
    attribute: Str = None
    """Name of the run's own attribute (of a folder)."""
    fix: bool = False
    """Apply the recommended repair, if there is one, and test it on the test set. The repaired model goes to
    OUT/params.npz if it holds."""
    pixels: Literal["auto", "maps", "patches", "both", "none"] = "auto"
    """Maps of the model, patches of the data, both or none; auto: what fits."""
    discover: Bool = None
    """Look for shortcuts that no attribute names; by default where no attribute is known."""
    judges: Literal["aug-cell", "sih"] = "aug-cell"
    """Networks that look for them: ones that see shapes badly, or the biased branch of SiH."""
    data_dir: Folder = None
    """Folder with the data set's files, if it has moved since the training."""
    seed: int = 0
    """Seed of the intervals, halves and small networks."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Are groups served differently, do decisions depend on an attribute, where, because of what, and what to do.

    Writes results.json, report.html, report.md and model_card.md to OUT.
    """

    run: Annotated[Path, Positional, arg(metavar="RUN")]
    """Folder of a trained or repaired run."""
    out: Path
    """Folder of the report. Stopped early, the same command resumes."""
    overwrite: bool = False
    """Replace a report in OUT, once the new one is complete."""
    questions: AuditConfig = AuditConfig()
    """What is asked of a run."""
    verdict: QuestionOptions = DEFAULT
    """What counts as a disparity, and what is known about the test set."""

    def execute(self) -> int:
        from jaxdebias.report import answers

        done_before = is_complete(self.out) and not self.overwrite
        results = audit_run(self.run, self.out, self.questions, self.verdict, overwrite=self.overwrite)
        print(answers.text(results))
        fix = () if self.questions.fix else (f"jaxdebias audit {self.run} --out {self.out}-fix --fix   try the repair",)
        gate = f"jaxdebias check {self.out}   for continuous integration"
        print_ending("audit", self.out, done_before=done_before, next_steps=(*fix, gate))
        return 0


def audit_run(
    folder: Path,
    out: Path,
    config: AuditConfig = AuditConfig(),
    questions: QuestionOptions = DEFAULT,
    *,
    overwrite: bool = False,
) -> RunResults:
    """Answers the five questions about a trained or a repaired run and writes the report to `out`.

    Args:
      folder: of a run that `train` or `debias` wrote.
      out: folder of the report.
      config: what is asked.
      questions: what counts as a disparity, and what is known about the test set.
      overwrite: replace what is there, once the new report is complete.

    Returns:
      What results.json holds.

    Raises:
      ContractError: no run there, unknown candidates, or results of another call in `out`.
    """
    folder, out = Path(folder), Path(out)
    expect(out.resolve() != folder.resolve(), "out", "another folder than the run", out)
    check_trained(folder)
    arguments = {
        "run": str(folder.resolve()),
        "params": file_digest(folder / "params.npz"),
        **dataclasses.asdict(config),
        **plain(questions),
    }
    with claim(out, "audit", arguments, overwrite=overwrite) as run:
        if run.complete:
            return read_run(run.folder)
        if "results" not in run.measured:
            record, made, dataset, classifier, params, _ = load(folder, data_dir=config.data_dir, repaired=True)
            recipe = RECIPES[made.data]
            report = audit(
                classifier,
                params,
                dataset,
                candidates=_further(config.candidates, config, made, dataset),
                given=_given(questions, config, made, dataset),
                **questions.arguments(),
                attribute=config.attribute or dataset.variant.get("attribute", recipe.attribute),
                items=recipe.items,
                name=record.model,
                pixels=config.pixels,
                discover=config.discover,
                judges=config.judges,
                fix=config.fix,
                seed=config.seed,
            )
            measured = auditing.measure(jax.random.key(config.seed), classifier.apply, report.params, dataset)
            write_predictions(run.folder, dataset, measured, rows=input_fingerprint(dataset))
            found = dataclasses.replace(report.record, config=record.config, trained=str(folder.resolve()))
            keep_report(run, dataclasses.replace(report, record=found))
        return write_report(run)


def keep_report(run: ResultSet, report: AuditReport, data: str | None = None) -> None:
    """Saves all that an audit found before anything of it is drawn: repaired weights, pictures, results.

    Args:
      run: the claimed folder, with the arguments of the command.
      report: what was found.
      data: fingerprint of the data; None: the report has it.
    """
    record = report.record
    if record.after is not None and record.edit.accepted:
        save_params(run.folder / "params.npz", report.params)
    if report.pictures is not None:
        kept = {name: value for name, value in report.pictures._asdict().items() if value is not None}
        write_arrays(run.folder / PICTURES, kept)
    whence = dataclasses.replace(record.provenance, arguments=run.arguments, data=data or record.provenance.data)
    run.keep(results=to_json(dataclasses.replace(record, command=run.command, provenance=whence)))


def write_report(run: ResultSet) -> RunResults:
    """Draws and writes what `keep_report` saved; results.json comes last."""
    record, path = from_json(run.measured["results"]), run.folder / PICTURES
    try:
        pictures = Pictures(**read_arrays("pictures", path)) if path.is_file() else None
        page = render_page(record, pictures)
    except ContractError as error:
        record = dataclasses.replace(record, findings=(*record.findings, f"The page was not drawn: {error}."))  # pyright: ignore[reportAttributeAccessIssue]
    else:
        write_text(run.folder / "report.html", page)
    write_text(run.folder / "report.md", markdown.table(record))
    write_text(run.folder / "model_card.md", markdown.model_card(record))
    write_results(run.folder / "results.json", record)
    return record


def _further(
    names: Sequence[str] | None, config: AuditConfig, made: TrainConfig, dataset: Dataset
) -> dict[str, dict[str, list[str]]]:
    """Further columns by name, on the rows of the run's data set."""
    if not names:
        return {}
    for name in names:
        other = name not in (own_name(dataset), dataset.variant.get("target"))
        expect(other, "candidates", "other attributes than that of the run and than its label", name)
    place = config.data_dir or made.data_dir
    return registry.columns(made.data, tuple(names), data_dir=place, seed=made.seed, **made.options)


def _given(
    questions: QuestionOptions, config: AuditConfig, made: TrainConfig, dataset: Dataset
) -> dict[str, np.ndarray] | None:
    """Legitimate inputs on the test rows: columns of the table that the model takes, or of its annotations."""
    if not questions.given:
        return None
    features = {name: i for i, name in enumerate(dataset.feature_names)}
    inputs = np.asarray(dataset.splits["test"].x) if features else None
    found = {name: inputs[:, features[name]].astype(float) for name in questions.given if name in features}
    rest = [name for name in questions.given if name not in features]
    columns = _further(rest, config, made, dataset)
    return {**found, **{name: legitimate_input(name, of_split["test"]) for name, of_split in columns.items()}}
