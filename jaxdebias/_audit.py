"""One call from a trained model to five answers: are groups served differently, do decisions depend on an attribute, on
which pixels, because of which training samples, and what to do about it.

    report = audit(classifier.apply, params, dataset, split=classifier.vector, fix=True)
    print(report)                      # the answers
    report.write("audit")              # results.json, report.html, report.md, model_card.md
    report.params                      # repaired, if the repair held on the test set

Inputs in steps: predictions alone answer the first two questions; `apply_fn` adds pairs; `split`, the model cut before
its last layer, adds influence and repairs; `spatial` adds maps; training data add counts, patches and bias cells. What
cannot be answered says what would be needed.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Shaped

from jaxdebias.auditing.assessment import Questions
from jaxdebias.auditing.candidates import Candidate
from jaxdebias.auditing.pipeline import run_audit
from jaxdebias.auditing.request import AuditedModel, AuditRequest
from jaxdebias.contracts import check_output, check_split, expect
from jaxdebias.core import Array, Classifier, Dataset, Params, Split
from jaxdebias.explain._taps import Tap
from jaxdebias.files import write_text
from jaxdebias.measure import Intervention
from jaxdebias.report._page import write_page
from jaxdebias.report.answers import answers, text
from jaxdebias.report.pictures import Pictures, audit_pictures
from jaxdebias.report.verdict_words import with_words
from jaxdebias.results import build
from jaxdebias.results.codec import to_json, write_results
from jaxdebias.results.provenance import Clock, fingerprint, provenance
from jaxdebias.results.records import Answer, RunResults, Verdict
from jaxdebias.train._checkpoint import save_params


@dataclass(frozen=True)
class AuditReport:
    """What an audit found. Printed: the five answers."""

    record: RunResults
    """All that was found."""
    params: Params | None
    """Repaired, if a repair was asked for and held on the test set; else the ones that were given."""
    pictures: Pictures | None

    @functools.cached_property
    def results(self) -> dict[str, Any]:
        """What `results.json` holds, as plain JSON values."""
        return to_json(self.record)

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The five answers."""
        return answers(self.record)

    @property
    def verdict(self) -> Verdict:
        """Three answers and one piece of advice, as codes and numbers."""
        return self.record.verdict

    def __str__(self) -> str:
        return text(self.record)

    def write(self, out: str | Path, *, overwrite: bool = False) -> Path:
        """Writes results.json, report.html, report.md, model_card.md and, after a repair that held, params.npz.

        Raises:
          ContractError: results already in `out`.
        """
        from jaxdebias.report import _markdown as markdown

        out = Path(out)
        expect(overwrite or not (out / "results.json").exists(), "out", "a folder without results (or overwrite)", out)
        expect(not out.exists() or out.is_dir(), "out", "a folder", f"{out}, which is a file")
        write_results(out / "results.json", self.record)
        write_page(self.record, self.pictures, out / "report.html")
        write_text(out / "report.md", markdown.table(self.record))
        write_text(out / "model_card.md", markdown.model_card(self.record))
        if self.record.after is not None and self.record.edit.accepted:
            save_params(out / "params.npz", self.params)
        return out


def audit(
    model: Classifier | Any,
    params: Params,
    dataset: Dataset,
    *,
    predicted: Shaped[Array, "n *k"] | None = None,
    probabilities: Shaped[Array, "n k"] | None = None,
    split: Split | None = None,
    spatial: Split | Tap | None = None,
    candidates: Mapping[str, Candidate | Mapping[str, Any]] | None = None,
    attribute: str | None = None,
    items: str = "samples",
    name: str | None = None,
    head_path: tuple[str | int, ...] | None = None,
    tolerance: float = 0.05,
    min_group: int = 30,
    slices: int = 2,
    drawn: str = "unknown",
    given: Mapping[str, Any] | None = None,
    train_counts: Mapping[str, Any] | None = None,
    interventions: Mapping[str, Sequence[Intervention]] | None = None,
    wrong_labels: bool | None = None,
    pixels: str = "auto",
    discover: bool | None = None,
    judges: str = "aug-cell",
    fix: bool = False,
    seed: int = 0,
    batch_size: int = 256,
) -> AuditReport:
    """Audits a trained classifier on the test split of a data set.

    Args:
      model: `(params, x) -> logits [n k]` in evaluation mode, or one of our classifiers, which brings split, spatial
        and head_path along; None with `predicted`.
      params: its parameters; None with `predicted`.
      dataset: `test` is needed; `train` adds how attribute and label go together, influence and patches; `edit` and
        `accept`, held out with known attribute, add repairs. An attribute of -1 everywhere: none is known.
      predicted: on test, classes `[n]` or logits `[n k]` of whatever model, instead of a model.
      probabilities: on test, of the classes `[n k]`, beside predicted classes; logits need none.
      split: the model cut before its last layer.
      spatial: cut at the layer of the maps.
      candidates: name -> split -> `[n]` values of further attributes, see `auditing.candidates`.
      attribute: what the data set's own attribute is called.
      items: what the samples are called in sentences.
      name: what the model is called.
      head_path: where the last layer lies in params.
      tolerance: largest gap of accuracy or error rates between groups that is tolerated, as a fraction.
      min_group: fewest independent test rows of a group that takes part.
      slices: how many attributes form groups together, at most: 1, 2 or 3.
      drawn: how the test set came about: `assigned` (attribute values were given to rows independently of their
        content), `as_they_come` (a plain sample), `picked` (selected by label and value), `unknown`.
      given: name -> `[n]` legitimate inputs of the test rows, numbers or categories: is there a lean beyond them?
      train_counts: attribute -> `[k a]` training rows by class and value, where there are no training rows.
      interventions: attribute -> what changing it alone did where the audit cannot change it itself, by
        `measure.flipped_column_reliance` (a model of frames) or `measure.intervention_reliance` (edited pixels). Twins,
        the data set's `attribute_region` and columns of a table that hold the attribute are changed anyway.
      wrong_labels: whether labels of one value are suspected to be wrong in one direction (`find_wrong_labels`); then
        mistakes alone show no reliance. None: nobody looked.
      pixels: `maps` of the model, `patches` of the data (trains two small networks, up to minutes), `both`, `none`;
        `auto`: maps where there are masks and `spatial`, else patches, where there are pictures and mistakes that lean.
      discover: look for shortcuts that no attribute names (trains small networks); None: where no attribute is known.
      judges: who looks for them: those of `aug-cell`, which see shapes badly, or the biased branch of `sih`, to which
        a shape can be a shortcut too, and which is less sure of everything else (`auditing.discovery`).
      fix: apply the recommended repair and test it, paired, on the test split; without, the test split is only
        predicted.
      seed: of all intervals, halves and small networks.
      batch_size: rows at a time through the model.

    Raises:
      ContractError: malformed data, predictions that do not fit, unknown names.
    """
    clock = Clock()
    audited = None
    if isinstance(model, Classifier):
        audited = AuditedModel(
            apply_fn=model.apply,
            params=params,
            split=split or model.vector,
            spatial=spatial or model.spatial,
            head_path=head_path or (split or model.vector).head_path,
            classifier=model if split is None else None,
        )
    elif model is not None:
        model = _hashable(model)
        audited = AuditedModel(
            apply_fn=model,
            params=params,
            split=split,
            spatial=spatial,
            head_path=head_path or (None if split is None else split.head_path),
        )
    if attribute is not None:
        dataset = dataclasses.replace(dataset, variant={**dataset.variant, "attribute": attribute})
    request = AuditRequest(
        dataset=dataset,
        model=audited,
        predictions=predicted,
        probabilities=probabilities,
        candidates=candidates,
        questions=Questions(
            tolerance=tolerance,
            min_group=min_group,
            slices=slices,
            drawn=drawn,
            given=given,
            train_counts=train_counts,
            wrong_labels=wrong_labels,
        ),
        interventions=interventions,
        pixels=pixels,
        discover=discover,
        judges=judges,
        fix=fix,
        seed=seed,
        batch_size=batch_size,
    )
    if audited is not None and not isinstance(model, Classifier):
        check_output(audited.apply_fn, params, dataset.splits["test"].x)
        if split is not None:
            check_split(audited.apply_fn, split, params, dataset.splits["test"].x)
    state = run_audit(request, lap=clock.lap)
    called = name or ("predictions" if audited is None else getattr(audited.apply_fn, "__name__", "a model"))
    whence = provenance(clock.laps, seed=seed, data=fingerprint(state.data.dataset))
    record = build.audit_results(state, whence, items=items, name=called)
    record = dataclasses.replace(record, verdict=with_words(record.verdict))
    record = dataclasses.replace(record, answers=answers(record))
    return AuditReport(record, params if state.after is None else state.tried.recommended.params, audit_pictures(state))


def _hashable(model: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The model as a function that JAX can tell from others: a dataclass or an Equinox module may have no hash."""
    try:
        hash(model)
    except TypeError:

        def apply(params: Any, x: Any) -> Any:
            return model(params, x)

        apply.__name__ = type(model).__name__
        return apply
    return model
