"""From candidates, discoveries and repairs that were tried to their records."""

from collections.abc import Sequence

import numpy as np

from jaxdebias.auditing import advice as repairs
from jaxdebias.auditing import discovery
from jaxdebias.core import Dataset, Params
from jaxdebias.measure import _reliance as reliance
from jaxdebias.results import records
from jaxdebias.results._intervals import interval, intervals, rate_at
from jaxdebias.results._parameters import parameter_counts
from jaxdebias.results._plain import finite


def candidate(found: reliance.Shortcut) -> records.Candidate:
    """The test of one candidate attribute."""
    return records.Candidate(
        name=found.name,
        verdict=found.verdict,
        reason=found.reason,
        explained_by=found.explained_by,
        gap=None if np.isnan(found.gap.value) else interval(found.gap),
        pull=finite(found.pull.value),
        z=finite(found.pull.z),
        p_value=float(found.p_value),
        n=int(found.pull.n),
    )


def discovered(
    judges: str,
    guesses: discovery.Guesses | None,
    errors: Sequence[discovery.ErrorGroup] | None,
    found: Sequence[reliance.Shortcut],
    dataset: Dataset,
) -> records.Discovered | None:
    """What was found without an attribute; None where nothing was looked for.

    Args:
      judges: who guessed: `aug-cell` or `sih`.
      guesses: their guesses, if they were asked.
      errors: groups of test samples with many mistakes, if they were looked for.
      found: the tests of all candidates.
      dataset: gives the labels of typical samples.
    """
    if guesses is None and errors is None:
        return None
    return records.Discovered(
        cells=None if guesses is None else _cells(judges, guesses, found, dataset),
        groups=tuple(
            records.ErrorGroup(
                label=int(one.label),
                error=rate_at(one.error),
                others=rate_at(one.others),
                p_value=float(one.p_value),
                mistaken_for=int(one.mistaken_for),
                typical=tuple(np.asarray(one.typical).tolist()),
            )
            for one in errors or ()
        ),
    )


def _cells(
    judges: str, guesses: discovery.Guesses, found: Sequence[reliance.Shortcut], dataset: Dataset
) -> records.BiasCells:
    flagged, others = guesses.confidence
    typical = np.asarray(guesses.typical)
    return records.BiasCells(
        name=discovery.CELLS,
        judges=judges,
        flagged_share=float(guesses.flagged_share),
        confidence=(finite(flagged), finite(others)),
        followed=rate_at(guesses.followed),
        plain=bool(guesses.plain),
        suspected=bool(discovery.suspected(guesses, found)),
        typical=tuple(typical.tolist()),
        typical_label=tuple(np.asarray(dataset.splits["train"].label)[typical].tolist()),
    )


def advice(
    found: repairs.Advice,
    verified: repairs.Verified | None,
    *,
    shortcut: bool,
    tested: bool,
    cut: bool,
    known: bool | None,
) -> records.Advice:
    """What to do.

    Args:
      found: the repairs that were tried, and which is recommended.
      verified: what the recommended one did on the test set, if it was applied.
      shortcut: whether the strongest candidate is a shortcut.
      tested: whether any candidate was tested.
      cut: whether the model could be cut before its last layer.
      known: whether the attribute of all training samples is known; None without a training split.
    """
    missing, retrain = found.missing, []
    if not shortcut:
        reason = (
            "no shortcut was found that a repair could take out"
            if tested
            else "nothing was tested that a repair could take out"
        )
    elif not cut:
        reason, missing = "", "the model cut before its last layer (split), and held-out samples"
    elif not found.options:
        reason = ""
    else:
        reason = "what a repair of the last layer would change is not separable from nothing on held-out samples"
    if shortcut and found.chosen is None and known is not None:
        retrain.append(
            "training again without the shortcut is the other way, whose effect is not known beforehand: "
            + (
                "mitigate.group_balanced (jaxdebias train --method group-balanced), as the attribute of the "
                "training samples is known"
                if known
                else "mitigate.aug_cell or sih (--method aug-cell, sih), which need no attribute"
            )
        )
    return records.Advice(
        fix=found.fix,
        reason=reason,
        missing=missing,
        retrain=tuple(retrain),
        options=tuple(
            records.Option(
                name=option.name,
                expected=intervals(option.expected),
                gains=tuple(option.gains),
                harm=tuple(option.harm),
                seconds=float(option.seconds),
            )
            for option in found.options
        ),
        verified=None
        if verified is None
        else records.Verification(held=bool(verified.held), changes=intervals(verified.changes)),
    )


def verified_edit(verified: repairs.Verified, params: Params, edited: Params) -> records.Edit:
    """What a repair changed that was chosen on held-out samples and tested on the test set."""
    reason = (
        "Chosen on held-out samples, verified on the test set."
        if verified.held
        else "Chosen on held-out samples, not verified on the test set: the model was left as it is."
    )
    return records.Edit(accepted=bool(verified.held), reason=reason, rounds=(), **parameter_counts(params, edited))


def inputs(dataset: Dataset, *, predictions: bool, cut: bool, shortcut: bool, pixels: str) -> records.Inputs:
    """What an audit was given, and what its missing answers would need.

    Args:
      dataset: the data set.
      predictions: whether predictions were given instead of a model.
      cut: whether the model could be cut before its last layer.
      shortcut: whether the strongest candidate is a shortcut.
      pixels: what was asked of the pixels.
    """
    if dataset.splits["test"].x.ndim != 4:
        where = "pictures: these are rows of a table, or predictions alone"
    elif pixels == "none":
        where = "pixels='auto', or maps or patches by name"
    elif not shortcut:
        where = "a shortcut to look for; pixels='maps' or 'patches' look all the same"
    else:
        where = "training pictures of known attribute, or a model cut at a spatial layer"
    if not cut:
        why = "the model cut before its last layer (split), and its training data"
    elif "train" not in dataset.splits:
        why = "the training split"
    elif "edit" not in dataset.pairs:
        why = "held-out pairs (split edit) of bias-aligned and bias-conflicting samples of one label"
    else:
        why = "a bias that any training sample adds to"
    return records.Inputs(
        model="predictions" if predictions else "features and head" if cut else "apply_fn", pixels=where, samples=why
    )
