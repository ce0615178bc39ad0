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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from jaxdebias import auditing, models
from jaxdebias.auditing import advice as fixes
from jaxdebias.auditing import candidates as listing
from jaxdebias.auditing import class_maps, discovery, patch_places
from jaxdebias.auditing._measurement import Measurement
from jaxdebias.auditing._padding import without_padding
from jaxdebias.auditing.candidates import Candidate, counts_of, entry, judged, with_attribute
from jaxdebias.auditing.embedded import Embedded, embed, row_digests
from jaxdebias.batching import predict_rows
from jaxdebias.contracts import NOT_LOGITS, are_probabilities, check_batch, check_choice, check_split, describe, expect
from jaxdebias.core import Array, Classifier, Dataset, Key, Params, Split
from jaxdebias.explain._taps import Tap
from jaxdebias.files import write_text
from jaxdebias.measure._reliance import Shortcut
from jaxdebias.report._page import Pictures, write_page
from jaxdebias.report.answers import Answer, answers, text
from jaxdebias.results import build as content
from jaxdebias.results.provenance import Clock, timing
from jaxdebias.results.records import to_json, write_results
from jaxdebias.train._checkpoint import save_params

PIXELS = ("auto", "maps", "patches", "both", "none")
JUDGES = ("aug-cell", "sih")
LEAST_PROBABILITY = 1e-12
"""Probabilities below this count as this, so that their logarithm is finite."""
SHOWN = 12
"""Training samples at each end of the influence ranking."""


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
    check_choice("pixels", pixels, PIXELS)
    check_choice("judges", judges, JUDGES)
    _check(dataset)
    dataset, predicted, candidates = without_padding(dataset, predicted, candidates)
    expect(
        (model is None) == (predicted is not None),
        "audit",
        "a model with its params, or predicted",
        "both" if model is not None else "neither",
    )
    apply_fn = model
    if model is not None and not isinstance(model, Classifier) and split is not None:
        check_split(model, split, params, dataset.splits["test"].x)
    if isinstance(model, Classifier):
        apply_fn, split, spatial = model.apply, split or model.vector, spatial or model.spatial
        head_path = head_path or model.head_path
    keys = dict(
        zip(
            ("candidates", "cells", "errors", "measure", "changes", "advice", "maps", "patches"),
            jax.random.split(jax.random.key(seed), 8),
            strict=True,
        )
    )
    clock = Clock()
    dataset = _named(dataset, attribute)
    seen, logits = _seen(apply_fn, split, spatial, params, dataset, predicted, batch_size)
    probabilities = logits.ndim == 2 and np.issubdtype(logits.dtype, np.floating) and are_probabilities(logits)
    if probabilities:
        expect(split is None and spatial is None, "model", "logits", NOT_LOGITS)
        logits = np.log(np.maximum(logits, LEAST_PROBABILITY))
        apply_fn = None if apply_fn is None else _logarithm_of(apply_fn)
    clock.lap("predict")

    listed = listing.candidates(seen.dataset if seen else dataset, candidates)
    if discover is None:
        discover = not listed
    guesses = errors = None
    if discover and "train" in dataset.splits and dataset.splits["test"].x.ndim == 4:
        predicts = np.argmax(logits, -1) if logits.ndim == 2 else logits
        guesses = discovery.guess_cells(keys["cells"], dataset, _judges(judges, dataset), predicts)
        listed[discovery.CELLS] = guesses.candidate
    if discover and seen is not None:
        test = seen.dataset.splits["test"]
        errors = discovery.error_groups(keys["errors"], test.x, np.argmax(logits, -1), test.label, unit=test.unit)
    found = _judged(keys["candidates"], logits, dataset, listed, guesses)
    clock.lap("candidates")

    strongest = found[0].name if found else None
    if strongest is not None:
        dataset = with_attribute(dataset, strongest, listed[strongest])
        if seen is not None:
            seen = seen._replace(dataset=with_attribute(seen.dataset, strongest, listed[strongest]))
    shortcut = strongest is not None and found[0].verdict == "shortcut"
    before = _measured(keys["measure"], apply_fn, params, seen, dataset, logits)
    clock.lap("measure")

    harmful, helpful = auditing.Influential([], [])
    if seen is not None and "train" in dataset.splits:
        harmful, helpful = auditing.influential(
            seen.split, params, seen.dataset, count=SHOWN, head_path=head_path or ("params", "head")
        )
    clock.lap("samples")
    want = _pixels(pixels, dataset, spatial, shortcut)
    looked = places = None
    if "maps" in want:
        looked = _look(keys["maps"], spatial, params, dataset, seen)
        clock.lap("maps")
    if "patches" in want:
        places = patch_places.find_places(keys["patches"], dataset)
        clock.lap("patches")
    advice, checked = fixes.Advice(fixes.UNTRIED if shortcut else fixes.LEAVE, (), ""), None
    if shortcut and seen is not None:
        advice = fixes.advise(
            keys["advice"], seen.split, params, seen.dataset, head_path=head_path or ("params", "head")
        )
    clock.lap("advice")
    if fix and advice.chosen is not None:
        checked = fixes.verified(
            keys["changes"], seen.split, advice.chosen, seen.dataset, before, measure_key=keys["measure"]
        )
        clock.lap("verify")
    repaired = checked is not None and checked.held
    after = checked.after if repaired else None

    results = {
        **content.identity(
            dataset,
            strongest or "attribute",
            items,
            "audit" if checked is None else advice.fix,
            seed,
            name or ("predictions" if model is None else getattr(apply_fn, "__name__", "a model")),
        ),
        **timing(clock),
        "before": content.measurement(before, dataset),
        "after": None if after is None else content.measurement(after, dataset),
        "edit": None if checked is None else _edit(checked, params, advice.chosen.params),
        **({} if not repaired else {"changes": checked.changes}),
        "baselines": {},
        "training": {"epochs": 0, "loss": []},
        "harmful": [one._asdict() for one in harmful],
        "harmful_rows": content.table_rows(dataset, harmful),
        "helpful": [one._asdict() for one in helpful],
        "helpful_rows": content.table_rows(dataset, helpful),
        "candidates": [entry(one) for one in found],
        "discovered": _discovered(judges, guesses, errors, found, dataset),
        "advice": _advice(advice, checked, found, dataset, seen),
        "inputs": _inputs(model, seen, spatial, dataset, shortcut, pixels),
        "findings": list(
            dict.fromkeys(
                [*_leaks(seen, dataset), *_remarks(listed, probabilities), *_findings(dataset, before, strongest)]
            )
        ),
        **({} if looked is None else {"maps": content.maps(looked, dataset)}),
        **({} if places is None else {"patches": content.patches(places, dataset)}),
    }
    results["answers"] = [one._asdict() for one in answers(to_json(results))]
    pictures = None
    if dataset.splits["test"].x.ndim == 4 and model is not None:
        pictures = _pictures(dataset, harmful, helpful, before, after, looked, places, guesses, errors)
    return AuditReport(to_json(results), advice.chosen.params if repaired else params, pictures)


def _named(dataset: Dataset, attribute: str | None) -> Dataset:
    return (
        dataset
        if attribute is None
        else dataclasses.replace(dataset, variant={**dataset.variant, "attribute": attribute})
    )


def _check(dataset: Dataset) -> None:
    """As `contracts.check_dataset`, but for a training split, without which much can be said."""
    k, a = len(dataset.label_names), len(dataset.attribute_names)
    expect("test" in dataset.splits, "splits", "a split named test", ", ".join(dataset.splits) or "none")
    expect(dataset.aligned.shape == (k, a), "aligned", f"bool [k={k}, a={a}]", describe(dataset.aligned))
    for name, batch in [*dataset.splits.items(), *dataset.pairs.items()]:
        check_batch(batch, classes=k, attributes=a, what=name)


def _seen(
    apply_fn: Any, split: Split | None, spatial: Any, params: Params, dataset: Dataset, predicted: Any, batch_size: int
) -> tuple[Embedded | None, np.ndarray]:
    """The data set in features, if the model can be cut, and what is predicted on the test split."""
    if predicted is not None:
        return None, np.asarray(predicted)
    if split is None:
        return None, np.asarray(predict_rows(apply_fn, params, dataset.splits["test"].x, batch_size=batch_size))
    seen = embed(split, params, dataset, spatial=spatial if isinstance(spatial, Split) else None, batch_size=batch_size)
    return seen, np.asarray(predict_rows(split.head, params, seen.dataset.splits["test"].x, batch_size=8192))


def _logarithm_of(apply_fn: Any) -> Any:
    """`(params, x) -> logits` of a model that puts out probabilities."""
    return lambda params, x: jnp.log(jnp.maximum(apply_fn(params, x), LEAST_PROBABILITY))


def _judges(kind: str, dataset: Dataset) -> discovery.Judges:
    """Small networks for the bias cells."""
    classes = len(dataset.label_names)
    if kind == "sih":
        image = dataset.splits["train"].x.shape[1:]
        return discovery.biased_branch(models.mlp_vae(image=image, latent=32, decoder=(256,), classes=classes), classes)
    return discovery.shapeless(models.mlp(hidden=(100, 100), classes=classes))


def _judged(
    key: Key, logits: np.ndarray, dataset: Dataset, listed: Mapping[str, Candidate], guesses: discovery.Guesses | None
) -> list[Shortcut]:
    """The verdicts. Bias cells that are not plain are no candidate: both may only find the same samples hard."""
    if guesses is not None and not (guesses.plain and counts_of(dataset, guesses.candidate).any()):
        listed = {name: one for name, one in listed.items() if name != discovery.CELLS}
    return judged(key, logits, dataset, listed) if listed else []


def _measured(
    key: Key, apply_fn: Any, params: Params, seen: Embedded | None, dataset: Dataset, logits: np.ndarray
) -> Measurement:
    if "test" not in dataset.pairs or apply_fn is None:
        return auditing.measure_predictions(key, logits, dataset)
    if seen is not None:
        pairs = seen.dataset.pairs["test"]
        both = tuple(predict_rows(seen.split.head, params, x, batch_size=8192) for x in (pairs.x, pairs.twin))
    else:
        pairs = dataset.pairs["test"]
        both = tuple(predict_rows(apply_fn, params, x, batch_size=256) for x in (pairs.x, pairs.twin))
    return auditing.measure_predictions(key, logits, dataset, pair_logits=both)


def _pixels(pixels: str, dataset: Dataset, spatial: Any, shortcut: bool) -> Sequence[str]:
    """What is looked for on the pixels."""
    pictures, maps = dataset.splits["test"].x.ndim == 4, spatial is not None
    if pixels == "auto":
        if not (pictures and shortcut):
            return ()
        if maps and dataset.splits["test"].mask is not None:
            return ("maps",)
        known = {name for name, batch in dataset.splits.items() if (np.asarray(batch.attribute) >= 0).any()}
        enough = {"train", "edit"} <= known and (
            min(dataset.splits["test"].x.shape[1:3]) >= 2 * patch_places.LEAST_PATCH
        )
        return ("patches",) if enough else ("maps",) if maps else ()
    want = {"maps": ("maps",), "patches": ("patches",), "both": ("maps", "patches"), "none": ()}[pixels]
    if want:
        expect(pictures, "pixels", "none for a table", pixels)
    if "maps" in want:
        expect(maps, "spatial", "the model cut at the layer of the maps", "nothing")
    if "patches" in want:
        patch_places.check_pictures(dataset)
    return want


def _look(key: Key, spatial: Any, params: Params, dataset: Dataset, seen: Embedded | None) -> class_maps.MapAudit:
    """The maps, from features that are there already where there are some."""
    if seen is None or seen.spatial is None:
        return class_maps.look(key, spatial, params, dataset)
    test = dataset.splits["test"]
    known = dataclasses.replace(dataset, splits={"test": test._replace(x=seen.spatial)})
    return class_maps.look(key, Split(seen.split.features, spatial.head), params, known)


def _edit(checked: fixes.Verified, params: Params, edited: Params) -> dict[str, Any]:
    reason = (
        "Chosen on held-out samples, verified on the test set."
        if checked.held
        else "Chosen on held-out samples, not verified on the test set: the model was left as it is."
    )
    return {"accepted": checked.held, "reason": reason, **content.parameter_counts(params, edited), "rounds": []}


def _discovered(
    judges: str,
    guesses: discovery.Guesses | None,
    errors: list[discovery.ErrorGroup] | None,
    found: Sequence[Shortcut],
    dataset: Dataset,
) -> dict[str, Any] | None:
    if guesses is None and errors is None:
        return None
    cells = None
    if guesses is not None:
        cells = {
            "name": discovery.CELLS,
            "judges": judges,
            "flagged_share": guesses.flagged_share,
            "confidence": list(guesses.confidence),
            "followed": guesses.followed._asdict(),
            "plain": guesses.plain,
            "suspected": discovery.suspected(guesses, found),
            "typical": guesses.typical,
            "typical_label": np.asarray(dataset.splits["train"].label)[guesses.typical],
        }
    return {"cells": cells, "groups": [one._asdict() for one in errors or []]}


def _advice(
    advice: fixes.Advice,
    checked: fixes.Verified | None,
    found: Sequence[Shortcut],
    dataset: Dataset,
    seen: Embedded | None,
) -> dict[str, Any]:
    """The recommendation as an Advice of `jaxdebias.results.records`."""
    shortcut = bool(found) and found[0].verdict == "shortcut"
    missing, retrain = advice.missing, []
    if not shortcut:
        reason = (
            "no shortcut was found that a repair could take out"
            if found
            else "nothing was tested that a repair could take out"
        )
    elif seen is None:
        reason, missing = "", "the model cut before its last layer (split), and held-out samples"
    elif not advice.options:
        reason = ""
    else:
        reason = "what a repair of the last layer would change is not separable from nothing on held-out samples"
    if shortcut and advice.chosen is None and "train" in dataset.splits:
        known = bool((np.asarray(dataset.splits["train"].attribute) >= 0).all())
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
                "name": one.name,
                "expected": _intervals(one.expected),
                "gains": list(one.gains),
                "harm": list(one.harm),
                "seconds": one.seconds,
            }
            for one in advice.options
        ],
        "verified": None if checked is None else {"held": checked.held, "changes": _intervals(checked.changes)},
    }


def _intervals(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one._asdict() for name, one in found.items() if np.isfinite(one.value)}


def _inputs(
    model: Any, seen: Embedded | None, spatial: Any, dataset: Dataset, shortcut: bool, pixels: str
) -> dict[str, str]:
    """What would be needed for the answers that may be missing."""
    if dataset.splits["test"].x.ndim != 4:
        where = "pictures: these are rows of a table, or predictions alone"
    elif pixels == "none":
        where = "pixels='auto', or maps or patches by name"
    elif not shortcut:
        where = "a shortcut to look for; pixels='maps' or 'patches' look all the same"
    else:
        where = "training pictures of known attribute, or a model cut at a spatial layer"
    if seen is None:
        why = "the model cut before its last layer (split), and its training data"
    elif "train" not in dataset.splits:
        why = "the training split"
    elif "edit" not in dataset.pairs:
        why = "held-out pairs (split edit) of bias-aligned and bias-conflicting samples of one label"
    else:
        why = "a bias that any training sample adds to"
    return {
        "model": "predictions" if model is None else "apply_fn" if seen is None else "features and head",
        "pixels": where,
        "samples": why,
    }


def _findings(dataset: Dataset, before: Measurement, name: str | None) -> list[str]:
    """Remarks of a measurement, without those about an attribute or pairs that nothing was measured with."""
    said = auditing.findings(dataset, before)
    if before.pair_probability is None:
        said = [text for text in said if not text.startswith(("Pairs are", "No counterfactual"))]
    return said if name is not None else [text for text in said if "bias" not in text]


def _remarks(listed: Mapping[str, Candidate], probabilities: bool) -> list[str]:
    """How outputs and values of candidates were understood."""
    outputs = "The model puts out probabilities, not logits: their logarithms were taken as logits."
    return [outputs] * probabilities + [f"{name}: {one.remark}." for name, one in listed.items() if one.remark]


def _leaks(seen: Embedded | None, dataset: Dataset) -> list[str]:
    """Test samples that training or selection has seen."""
    if seen is not None:
        repeated = seen.repeated
    elif np.ndim(dataset.splits["test"].x) > 1 and np.asarray(dataset.splits["test"].x).any():
        test = set(row_digests(dataset.splits["test"].x))
        repeated = {
            name: sum(one in test for one in row_digests(batch.x))
            for name, batch in dataset.splits.items()
            if name != "test"
        }
    else:
        return []
    return [
        f"Leakage: {count} samples of the split {name!r} are in the test split, input for input. What they make "
        "look good says nothing."
        for name, count in repeated.items()
        if count
    ]


def _pictures(
    dataset: Dataset,
    harmful: list,
    helpful: list,
    before: Measurement,
    after: Measurement | None,
    looked: class_maps.MapAudit | None,
    places: patch_places.Places | None,
    guesses: discovery.Guesses | None,
    errors: list[discovery.ErrorGroup] | None,
) -> Pictures | None:
    if "train" not in dataset.splits:
        return None
    shown = content.pictures(dataset, harmful, before, after, helpful=helpful)
    if looked is not None:
        shown = shown._replace(maps=dataset.splits["test"].x[looked.examples], maps_shown=looked.example_maps)
    if places is not None:
        shown = shown._replace(
            patch=dataset.splits[places.split].x[places.examples],
            patch_attribute=places.attribute_maps,
            patch_label=places.label_maps,
        )
    if guesses is not None and len(guesses.typical):
        shown = shown._replace(suspects=dataset.splits["train"].x[guesses.typical])
    if errors:
        shown = shown._replace(mistaken=dataset.splits["test"].x[np.concatenate([one.typical for one in errors[:6]])])
    return shown
