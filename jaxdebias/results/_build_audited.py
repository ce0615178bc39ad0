"""From the last stage of an audit to its record."""

import dataclasses
from typing import Literal, cast

import numpy as np

from jaxdebias import auditing
from jaxdebias.auditing import advice, discovery
from jaxdebias.auditing.pipeline import Advised
from jaxdebias.results import records
from jaxdebias.results._build_located import maps, patches
from jaxdebias.results._build_run import measurement, parameter_counts, run_results
from jaxdebias.results._build_verdict import verdict
from jaxdebias.results._intervals import changes, rate_at
from jaxdebias.results._plain import finite


def audit_results(state: Advised, provenance: records.Provenance, *, items: str, name: str) -> records.RunResults:
    """The record of an audit, but for its answers and the sentences of its verdict, which are words.

    Args:
      state: the last stage.
      provenance: with what, when and from what it was made.
      items: what samples are called in sentences.
      name: what the model is called.
    """
    dataset, recommended = state.data.dataset, state.tried.recommended
    record = run_results(
        "audit",
        provenance,
        dataset,
        method="audit" if state.verified is None or recommended is None else recommended.name,
        model=name,
        attribute=state.focus or "attribute",
        items=items,
        before=measurement(state.before, dataset),
        after=None if state.after is None else measurement(state.after, dataset),
        edit=_edit(state),
        harmful=state.samples.harmful,
        helpful=state.samples.helpful,
        findings=list(dict.fromkeys([*_leaks(state), *_remarks(state), *_findings(state)])),
    )
    return dataclasses.replace(
        record,
        changes=None if state.after is None else _metric_changes(state),
        discovered=_discovered(state),
        verdict=verdict(state.verdict, dataset.label_names),
        inputs=_inputs(state),
        maps=None if state.maps is None else maps(state.maps, dataset),
        patches=None if state.places is None else patches(state.places, dataset),
    )


def _metric_changes(state: Advised) -> dict[str, records.Change]:
    """Changes of what is measured before and after; that of the balanced accuracy is in the advice."""
    if state.verified is None:
        return {}
    return changes({name: one for name, one in state.verified.changes.items() if name != advice.GAIN})


def _edit(state: Advised) -> records.Edit | None:
    """What the repair changed that was chosen on held-out samples and tested on the test set."""
    recommended = state.tried.recommended
    if state.verified is None or recommended is None or state.request.model is None:
        return None
    reason = (
        "Chosen on held-out samples, verified on the test set."
        if state.verified.held
        else "Chosen on held-out samples, not verified on the test set: the model was left as it is."
    )
    counts = parameter_counts(state.request.model.params, recommended.params)
    return records.Edit(accepted=bool(state.verified.held), reason=reason, rounds=(), **counts)


def _discovered(state: Advised) -> records.Discovered | None:
    if state.guesses is None and state.error_groups is None:
        return None
    return records.Discovered(
        cells=_cells(state),
        groups=tuple(
            records.ErrorGroup(
                label=int(group.label),
                error=rate_at(group.error),
                others=rate_at(group.others),
                p_value=float(group.p_value),
                mistaken_for=int(group.mistaken_for),
                typical=tuple(np.asarray(group.typical).tolist()),
            )
            for group in state.error_groups or ()
        ),
    )


def _cells(state: Advised) -> records.BiasCells | None:
    guesses = state.guesses
    if guesses is None:
        return None
    flagged, others = guesses.confidence
    typical = np.asarray(guesses.typical)
    return records.BiasCells(
        name=discovery.CELLS,
        judges=cast(Literal["aug-cell", "sih"], state.request.judges),
        flagged_share=float(guesses.flagged_share),
        confidence=(finite(flagged), finite(others)),
        followed=rate_at(guesses.followed),
        plain=bool(guesses.plain),
        suspected=state.suspected,
        typical=tuple(typical.tolist()),
        typical_label=tuple(np.asarray(state.data.dataset.splits["train"].label)[typical].tolist()),
    )


def _inputs(state: Advised) -> records.Inputs:
    """What would be needed for the answers that may be missing."""
    dataset, embedded = state.data.dataset, state.data.embedded
    if not state.data.has_pictures:
        where = "pictures: these are rows of a table, or predictions alone"
    elif state.request.pixels == "none":
        where = "--pixels auto, maps or patches"
    elif not state.leans:
        where = "mistakes that lean with an attribute; --pixels maps or patches look all the same"
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
    return records.Inputs(model=model, pixels=where, samples=why, repairs=state.tried.missing)


def _findings(state: Advised) -> list[str]:
    """Remarks of a measurement, without those about an attribute or pairs that nothing was measured with."""
    remarks = auditing.findings(state.data.dataset, state.before)
    # The verdict says so, of every attribute.
    remarks = [remark for remark in remarks if "are associated in training is unknown" not in remark]
    if state.before.pair_probability is None:
        remarks = [remark for remark in remarks if not remark.startswith(("Pairs are", "No counterfactual"))]
    return remarks if state.focus is not None else [remark for remark in remarks if "bias" not in remark]


def _remarks(state: Advised) -> list[str]:
    """How outputs of the model and values of candidates were understood."""
    remarks: list[str] = []
    if state.from_probabilities:
        remarks.append("The model puts out probabilities, not logits: their logarithms were taken as logits.")
    return remarks + [
        f"{name}: {candidate.remark}." for name, candidate in state.candidates.items() if candidate.remark
    ]


def _leaks(state: Advised) -> list[str]:
    """Test samples that training or selection has seen."""
    return [
        f"Leakage: {count} samples of the split {name!r} are in the test split, input for input. What they make "
        "look good says nothing."
        for name, count in state.repeated.items()
        if count
    ]
