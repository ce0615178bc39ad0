"""One call from a trained model to five answers: which attribute is a shortcut, how strongly, on which pixels, because
of which training samples, and what to do about it.

    report = audit(classifier.apply, params, dataset, split=classifier.vector, fix=True)
    print(report)                      # the answers
    report.write("audit")              # results.json, report.html, report.md, model_card.md
    report.params                      # repaired, if the repair held on the test set

Inputs in steps: predictions alone answer the first two questions; `apply_fn` adds pairs; `split`, the model cut before
its last layer, adds influence and repairs; `spatial` adds maps; training data add counts, patches and bias cells. What
cannot be answered says what would be needed.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from jaxdebias import auditing
from jaxdebias.auditing import discovery
from jaxdebias.auditing.candidates import Candidate
from jaxdebias.auditing.pipeline import Advised, AuditedModel, AuditRequest, run_audit
from jaxdebias.contracts import check_split, expect
from jaxdebias.core import Array, Classifier, Dataset, Params, Split
from jaxdebias.explain._taps import Tap
from jaxdebias.files import write_text
from jaxdebias.measure._reliance import Shortcut
from jaxdebias.report._page import Pictures, write_page
from jaxdebias.report.answers import Answer, answers, text
from jaxdebias.results import build as content
from jaxdebias.results.provenance import Clock, timing
from jaxdebias.results.records import to_json, write_results
from jaxdebias.train._checkpoint import save_params


@dataclass(frozen=True)
class AuditReport:
    """What an audit found. Printed: the five answers."""

    results: dict[str, Any]
    """As `results.json`; schema in `jaxdebias.results.records`."""
    params: Params | None
    """Repaired, if a repair was asked for and held on the test set; else the ones that were given."""
    pictures: Pictures | None

    @property
    def answers(self) -> list[Answer]:
        return answers(self.results)

    @property
    def shortcuts(self) -> list[str]:
        """Names of the attributes that are shortcuts, the strongest first."""
        return [one["name"] for one in self.results["candidates"] if one["verdict"] == "shortcut"]

    @property
    def fix(self) -> str:
        """The recommended repair, "leave it", or "not tried"."""
        return self.results["advice"]["fix"]

    def __str__(self) -> str:
        return text(self.results)

    def write(self, out: str | Path, *, overwrite: bool = False) -> Path:
        """Writes results.json, report.html, report.md, model_card.md and, after a repair that held, params.npz.

        Raises:
          ContractError: results already in `out`.
        """
        from jaxdebias.report import _markdown as markdown

        out = Path(out)
        expect(overwrite or not (out / "results.json").exists(), "out", "a folder without results (or overwrite)", out)
        expect(not out.exists() or out.is_dir(), "out", "a folder", f"{out}, which is a file")
        write_results(self.results, out / "results.json")
        write_page(self.results, self.pictures, out / "report.html")
        write_text(out / "report.md", markdown.table(self.results))
        write_text(out / "model_card.md", markdown.model_card(self.results))
        if self.results["after"] is not None and self.results["edit"]["accepted"]:
            save_params(out / "params.npz", self.params)
        return out


def audit(
    model: Classifier | Any,
    params: Params,
    dataset: Dataset,
    *,
    predicted: Shaped[Array, "n *k"] | None = None,
    split: Split | None = None,
    spatial: Split | Tap | None = None,
    candidates: Mapping[str, Candidate | Mapping[str, Any]] | None = None,
    attribute: str | None = None,
    items: str = "samples",
    name: str | None = None,
    head_path: tuple[str | int, ...] | None = None,
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
      split: the model cut before its last layer.
      spatial: cut at the layer of the maps.
      candidates: name -> split -> `[n]` values of further attributes, see `auditing.candidates`.
      attribute: what the data set's own attribute is called.
      items: what the samples are called in sentences.
      name: what the model is called.
      head_path: where the last layer lies in params.
      pixels: `maps` of the model, `patches` of the data (trains two small networks, up to minutes), `both`, `none`;
        `auto`: maps where there are masks and `spatial`, else patches, where there are pictures and a shortcut.
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
        )
    elif model is not None:
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
        candidates=candidates,
        pixels=pixels,
        discover=discover,
        judges=judges,
        fix=fix,
        seed=seed,
        batch_size=batch_size,
    )
    if audited is not None and split is not None and not isinstance(model, Classifier):
        check_split(audited.apply_fn, split, params, dataset.splits["test"].x)
    state = run_audit(request, lap=clock.lap)
    called = name or ("predictions" if audited is None else getattr(audited.apply_fn, "__name__", "a model"))
    results = build_results(state, items=items, name=called, clock=clock)
    return AuditReport(results, params if state.after is None else state.advice.chosen.params, build_pictures(state))


def build_results(state: Advised, *, items: str, name: str, clock: Clock) -> dict[str, Any]:
    """The results of an audit, as `results.json`; schema in `jaxdebias.results.records`."""
    dataset = state.data.dataset
    method = "audit" if state.verified is None else state.advice.fix
    results = {
        **content.identity(dataset, state.strongest or "attribute", items, method, state.request.seed, name),
        **timing(clock),
        "before": content.measurement(state.before, dataset),
        "after": None if state.after is None else content.measurement(state.after, dataset),
        "edit": _edit(state),
        **({} if state.after is None else {"changes": state.verified.changes}),
        "baselines": {},
        "training": {"epochs": 0, "loss": []},
        "harmful": [sample._asdict() for sample in state.samples.harmful],
        "harmful_rows": content.table_rows(dataset, state.samples.harmful),
        "helpful": [sample._asdict() for sample in state.samples.helpful],
        "helpful_rows": content.table_rows(dataset, state.samples.helpful),
        "candidates": [_candidate(verdict) for verdict in state.verdicts],
        "discovered": _discovered(state),
        "advice": _advice(state),
        "inputs": _inputs(state),
        "findings": list(dict.fromkeys([*_leaks(state), *_remarks(state), *_findings(state)])),
        **({} if state.maps is None else {"maps": content.maps(state.maps, dataset)}),
        **({} if state.places is None else {"patches": content.patches(state.places, dataset)}),
    }
    results["answers"] = [answer._asdict() for answer in answers(to_json(results))]
    return to_json(results)


def _candidate(verdict: Shortcut) -> dict[str, Any]:
    """A verdict as a Candidate of `jaxdebias.results.records`."""

    def number(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    return {
        "name": verdict.name,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "explained_by": verdict.explained_by,
        "gap": None if np.isnan(verdict.gap.value) else verdict.gap._asdict(),
        "pull": number(verdict.pull.value),
        "z": number(verdict.pull.z),
        "p_value": verdict.p_value,
        "n": verdict.pull.n,
    }


def _edit(state: Advised) -> dict[str, Any] | None:
    if state.verified is None:
        return None
    reason = (
        "Chosen on held-out samples, verified on the test set."
        if state.verified.held
        else "Chosen on held-out samples, not verified on the test set: the model was left as it is."
    )
    counts = content.parameter_counts(state.request.model.params, state.advice.chosen.params)
    return {"accepted": state.verified.held, "reason": reason, **counts, "rounds": []}


def _discovered(state: Advised) -> dict[str, Any] | None:
    guesses = state.guesses
    if guesses is None and state.error_groups is None:
        return None
    cells = None
    if guesses is not None:
        cells = {
            "name": discovery.CELLS,
            "judges": state.request.judges,
            "flagged_share": guesses.flagged_share,
            "confidence": list(guesses.confidence),
            "followed": guesses.followed._asdict(),
            "plain": guesses.plain,
            "suspected": discovery.suspected(guesses, state.verdicts),
            "typical": guesses.typical,
            "typical_label": np.asarray(state.data.dataset.splits["train"].label)[guesses.typical],
        }
    return {"cells": cells, "groups": [group._asdict() for group in state.error_groups or []]}


def _advice(state: Advised) -> dict[str, Any]:
    """The recommendation as an Advice of `jaxdebias.results.records`."""
    advice, splits = state.advice, state.data.dataset.splits
    missing, retrain = advice.missing, []
    if not state.has_shortcut:
        reason = (
            "no shortcut was found that a repair could take out"
            if state.verdicts
            else "nothing was tested that a repair could take out"
        )
    elif state.data.embedded is None:
        reason, missing = "", "the model cut before its last layer (split), and held-out samples"
    elif not advice.options:
        reason = ""
    else:
        reason = "what a repair of the last layer would change is not separable from nothing on held-out samples"
    if state.has_shortcut and advice.chosen is None and "train" in splits:
        known = bool((np.asarray(splits["train"].attribute) >= 0).all())
        retrain.append(
            "training again without the shortcut is the other way, whose effect is not known beforehand: "
            + (
                "mitigate.group_balanced (jaxdebias train --method group-balanced), as the attribute of the "
                "training samples is known"
                if known
                else "mitigate.aug_cell or sih (--method aug-cell, sih), which need no attribute"
            )
        )
    return {
        "fix": advice.fix,
        "reason": reason,
        "missing": missing,
        "retrain": retrain,
        "options": [
            {
                "name": option.name,
                "expected": _intervals(option.expected),
                "gains": list(option.gains),
                "harm": list(option.harm),
                "seconds": option.seconds,
            }
            for option in advice.options
        ],
        "verified": None
        if state.verified is None
        else {"held": state.verified.held, "changes": _intervals(state.verified.changes)},
    }


def _intervals(intervals: Mapping[str, Any]) -> dict[str, Any]:
    return {name: interval._asdict() for name, interval in intervals.items() if np.isfinite(interval.value)}


def _inputs(state: Advised) -> dict[str, str]:
    """What would be needed for the answers that may be missing."""
    dataset, embedded = state.data.dataset, state.data.embedded
    if not state.data.has_pictures:
        where = "pictures: these are rows of a table, or predictions alone"
    elif state.request.pixels == "none":
        where = "pixels='auto', or maps or patches by name"
    elif not state.has_shortcut:
        where = "a shortcut to look for; pixels='maps' or 'patches' look all the same"
    else:
        where = "training pictures of known attribute, or a model cut at a spatial layer"
    if embedded is None:
        why = "the model cut before its last layer (split), and its training data"
    elif "train" not in dataset.splits:
        why = "the training split"
    elif "edit" not in dataset.pairs:
        why = "held-out pairs (split edit) of bias-aligned and bias-conflicting samples of one label"
    else:
        why = "a bias that any training sample adds to"
    model = "predictions" if state.request.model is None else "apply_fn" if embedded is None else "features and head"
    return {"model": model, "pixels": where, "samples": why}


def _findings(state: Advised) -> list[str]:
    """Remarks of a measurement, without those about an attribute or pairs that nothing was measured with."""
    remarks = auditing.findings(state.data.dataset, state.before, aligned_from_test=state.aligned_from_test)
    if state.before.pair_probability is None:
        remarks = [remark for remark in remarks if not remark.startswith(("Pairs are", "No counterfactual"))]
    return remarks if state.strongest is not None else [remark for remark in remarks if "bias" not in remark]


def _remarks(state: Advised) -> list[str]:
    """How values of candidates were understood."""
    return [f"{name}: {candidate.remark}." for name, candidate in state.candidates.items() if candidate.remark]


def _leaks(state: Advised) -> list[str]:
    """Test samples that training or selection has seen."""
    return [
        f"Leakage: {count} samples of the split {name!r} are in the test split, input for input. What they make "
        "look good says nothing."
        for name, count in state.repeated.items()
        if count
    ]


def build_pictures(state: Advised) -> Pictures | None:
    """The images of the page; None for a table, predictions, or without training images."""
    splits = state.data.dataset.splits
    if not state.data.has_pictures or state.request.model is None or "train" not in splits:
        return None
    harmful, helpful = state.samples
    pictures = content.pictures(state.data.dataset, harmful, state.before, state.after, helpful=helpful)
    if state.maps is not None:
        pictures = pictures._replace(maps=splits["test"].x[state.maps.examples], maps_shown=state.maps.example_maps)
    if state.places is not None:
        pictures = pictures._replace(
            patch=splits[state.places.split].x[state.places.examples],
            patch_attribute=state.places.attribute_maps,
            patch_label=state.places.label_maps,
        )
    if state.guesses is not None and len(state.guesses.typical):
        pictures = pictures._replace(suspects=splits["train"].x[state.guesses.typical])
    if state.error_groups:
        rows = np.concatenate([group.typical for group in state.error_groups[:6]])
        pictures = pictures._replace(mistaken=splits["test"].x[rows])
    return pictures
