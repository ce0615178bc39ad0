"""An audit in five stages. Each takes what is known so far and returns it with what it adds.

    predicted = predict_test(request)          # what the model answers on the test split
    assessed = assess_attributes(predicted)    # are groups served differently, do decisions depend on an attribute
    measured = measure_bias(assessed)          # how strong the bias is, in which groups
    explained = explain_bias(measured)         # on which pixels, because of which training samples
    advised = advise_repair(explained)         # what to do, and whether it held on the test split

`run_audit` runs all five. What cannot be computed from the given inputs is None. `jaxdebias.audit` turns the last state
into a report.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias import models
from jaxdebias.auditing import advice, class_maps, discovery, patch_places
from jaxdebias.auditing import verdict as verdicts
from jaxdebias.auditing._measurement import Influential, Measurement, influential, measure_predictions
from jaxdebias.auditing._padding import counted_rows, without_padding
from jaxdebias.auditing.assessment import Assessment, assess, training_counts
from jaxdebias.auditing.candidates import Candidate, list_candidates
from jaxdebias.auditing.embedded import embed, repeated_rows, row_digests
from jaxdebias.auditing.interventions import intervene
from jaxdebias.auditing.request import AuditData, AuditedModel, AuditRequest
from jaxdebias.batching import predict_rows
from jaxdebias.contracts import NOT_LOGITS, are_probabilities, expect
from jaxdebias.core import Array, Dataset, Key, Params, Split
from jaxdebias.explain._taps import Tap
from jaxdebias.measure import Intervention

Lap = Callable[[str], None]
"""Called with the name of a step when the step is done."""
SHOWN = 12
"""Training samples at each end of the influence ranking."""
LEAST_PROBABILITY = 1e-12
"""Probabilities below this count as this, so that their logarithm is finite."""
HEAD_ROWS = 8192
"""Rows of features at a time through the last layer."""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """After the first stage: what the model answers on the test split."""

    request: AuditRequest
    data: AuditData
    """From `assess_attributes` on, with the strongest candidate as its attribute."""
    logits: np.ndarray
    """`[n k]`, or classes `[n]`, of the test split."""
    pair_logits: tuple[np.ndarray, np.ndarray] | None
    """`[m k]` at x and at the twin of the test pairs; None without a model or pairs."""
    from_probabilities: bool
    """The model puts out probabilities, whose logarithms are taken as its logits."""
    repeated: Mapping[str, int]
    """Split -> rows of test that are in this split as well, input for input."""


@dataclass(frozen=True, kw_only=True)
class Assessed(Predicted):
    """After the second stage: the three answers about every attribute."""

    candidates: Mapping[str, Candidate]
    """Every candidate that was listed, bias cells included."""
    assessment: Assessment
    """Of every named candidate."""
    focus: str | None
    """Name of the candidate that is the attribute of `data`; None without candidates."""
    guesses: discovery.Guesses | None
    """Bias cells, where an attribute that nobody named was looked for."""
    suspected: bool
    """Whether the bias cells are worth a look."""
    error_groups: list[discovery.ErrorGroup] | None
    """As `guesses`; groups of test samples with many mistakes."""

    @property
    def leans(self) -> bool:
        """Whether decisions depend on an attribute, or may."""
        return self.suspected or self.assessment.leans


@dataclass(frozen=True, kw_only=True)
class Measured(Assessed):
    """After the third stage: how strong the bias is."""

    before: Measurement
    """Of the model as it was given."""


@dataclass(frozen=True, kw_only=True)
class Explained(Measured):
    """After the fourth stage: on which pixels, because of which training samples."""

    samples: Influential
    """Empty where influence cannot be computed."""
    maps: class_maps.MapAudit | None
    places: patch_places.Places | None


@dataclass(frozen=True, kw_only=True)
class Advised(Explained):
    """After the last stage: what to do."""

    tried: advice.Tried
    """Repairs that were tried on held-out samples."""
    verified: advice.Verified | None  # pyright: ignore[reportInvalidTypeForm]
    """The recommended repair on the test split, if it was asked for and there is one."""
    verdict: verdicts.Verdict
    """Three answers and the advice."""

    @property
    def after(self) -> Measurement | None:
        """Of the repaired model; None unless a repair held on the test split."""
        return self.verified.after if self.verified is not None and self.verified.held else None


def run_audit(request: AuditRequest, *, lap: Lap = lambda step: None) -> Advised:
    """Runs the five stages, on the rows that are no padding."""
    dataset, predictions, candidates = without_padding(request.dataset, request.predictions, request.candidates)
    if dataset is not request.dataset:  # a new request is checked anew
        request = dataclasses.replace(
            request,
            dataset=dataset,
            predictions=predictions,
            probabilities=counted_rows(request.dataset, request.probabilities),
            candidates=candidates,
            questions=request.questions.of_rows(functools.partial(counted_rows, request.dataset)),
        )
    predicted = predict_test(request)
    lap("predict")
    assessed = assess_attributes(predicted)
    lap("candidates")
    measured = measure_bias(assessed)
    lap("measure")
    explained = explain_bias(measured, lap=lap)
    return advise_repair(explained, lap=lap)


def predict_test(request: AuditRequest) -> Predicted:
    """Computes the features of the data set, if the model can be cut, and what it answers on the test split."""
    dataset, model, embedded = request.dataset, request.model, None
    if model is None:
        logits = request.predictions
    elif model.split is None:
        logits = predict_rows(model.apply_fn, model.params, dataset.splits["test"].x, batch_size=request.batch_size)
    else:
        spatial = model.spatial if isinstance(model.spatial, Split) else None
        embedded = embed(model.split, model.params, dataset, spatial=spatial, batch_size=request.batch_size)
        features = embedded.dataset.splits["test"].x
        logits = predict_rows(model.split.head, model.params, features, batch_size=HEAD_ROWS)
    logits = np.asarray(logits)
    floats = logits.ndim == 2 and np.issubdtype(logits.dtype, np.floating)
    from_probabilities = bool(floats and are_probabilities(logits))
    if from_probabilities:
        expect(model is None or (model.split is None and model.spatial is None), "model", "logits", NOT_LOGITS)
        logits = np.log(np.maximum(logits, LEAST_PROBABILITY))
        if model is not None:
            model = dataclasses.replace(model, apply_fn=_logarithms_of(model.apply_fn))
            request = dataclasses.replace(request, model=model)
    data = AuditData(dataset=dataset, embedded=embedded)
    return Predicted(
        request=request,
        data=data,
        logits=logits,
        pair_logits=_pair_logits(request, data),
        from_probabilities=from_probabilities,
        repeated=_repeated_rows(dataset) if embedded is None else embedded.repeated,
    )


def _pair_logits(request: AuditRequest, data: AuditData) -> tuple[np.ndarray, np.ndarray] | None:
    """What the model answers to both sides of the test pairs."""
    model = request.model
    if model is None or "test" not in data.dataset.pairs:
        return None
    if data.embedded is None:
        pairs, predict, rows = data.dataset.pairs["test"], model.apply_fn, 256
    else:
        pairs, predict, rows = data.embedded.dataset.pairs["test"], data.embedded.split.head, HEAD_ROWS
    first, second = (np.asarray(predict_rows(predict, model.params, x, batch_size=rows)) for x in (pairs.x, pairs.twin))
    return first, second


def assess_attributes(predicted: Predicted) -> Assessed:
    """Answers three questions about each candidate; where that is asked for, looks for an attribute nobody named."""
    request, data, logits, keys = predicted.request, predicted.data, predicted.logits, predicted.request.keys
    named = list_candidates(data.dataset, request.candidates)
    candidates = dict(named)
    discover = not candidates if request.discover is None else request.discover
    guesses, groups, suspected = None, None, False
    classes = np.argmax(logits, -1) if logits.ndim == 2 else logits
    if discover and "train" in data.dataset.splits and data.has_pictures:
        guesses = discovery.guess_cells(keys.cells, data.dataset, _judges(request.judges, data.dataset), classes)
        candidates[discovery.CELLS] = guesses.candidate
        suspected = discovery.suspected(keys.candidates, guesses, classes, data.dataset)
    if discover and data.embedded is not None:
        test = data.embedded.dataset.splits["test"]
        groups = discovery.error_groups(keys.errors, test.x, classes, test.label, unit=test.unit)
    key_assess, key_changes = jax.random.split(keys.candidates)
    counts = training_counts(data.dataset, named, request.questions)
    changes = intervene(
        key_changes,
        _predicted_classes(request),
        data.dataset,
        named,
        counts,
        classes,
        pair_classes=_sides(predicted.pair_logits),
    )
    assessment = assess(
        key_assess,
        logits,
        data.dataset,
        named,
        request.questions,
        probabilities=_probabilities(request, logits),
        interventions=_joined(changes, request.interventions),
    )
    focus = assessment.focus
    if focus is not None:
        data = data.with_attribute(focus, named[focus], counts[focus])
    elif suspected:
        focus = discovery.CELLS
        data = data.with_attribute(focus, guesses.candidate)
    return Assessed(
        **{**vars(predicted), "data": data},
        candidates=candidates,
        assessment=assessment,
        focus=focus,
        guesses=guesses,
        suspected=suspected,
        error_groups=groups,
    )


def _predicted_classes(request: AuditRequest) -> Callable[[Array], np.ndarray] | None:
    """x -> predicted classes; None where there are predictions only."""
    model = request.model
    if model is None:
        return None
    return lambda x: _argmax(predict_rows(model.apply_fn, model.params, x, batch_size=request.batch_size))


def _argmax(logits: Array) -> np.ndarray:
    return np.asarray(logits).argmax(-1)


def _sides(pair_logits: tuple[np.ndarray, np.ndarray] | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Predicted classes of both sides of the pairs."""
    return None if pair_logits is None else (_argmax(pair_logits[0]), _argmax(pair_logits[1]))


def _joined(
    found: Mapping[str, Sequence[Intervention]], given: Mapping[str, Sequence[Intervention]] | None
) -> dict[str, list[Intervention]]:
    """Interventions that the audit made, and those that came with the request."""
    return {name: [*found.get(name, ()), *(given or {}).get(name, ())] for name in {**found, **(given or {})}}


def _probabilities(request: AuditRequest, logits: np.ndarray) -> np.ndarray | None:
    """`[n k]` of the classes; None where only classes were given."""
    if request.probabilities is not None:
        return np.asarray(request.probabilities, np.float64)
    if logits.ndim != 2 or not np.issubdtype(logits.dtype, np.floating):
        return None
    return np.asarray(jax.nn.softmax(jnp.asarray(logits), axis=-1), np.float64)


def measure_bias(assessed: Assessed) -> Measured:
    """Measures accuracies by group, fairness and, where there are pairs, counterfactual bias on the test split."""
    data, key = assessed.data, assessed.request.keys.measure
    pair_logits = assessed.pair_logits
    if data.dataset.pairs is not assessed.request.dataset.pairs:  # those of another attribute
        pair_logits = _pair_logits(assessed.request, data)
    before = measure_predictions(key, assessed.logits, data.dataset, pair_logits=pair_logits)
    return Measured(**vars(assessed), before=before)


def explain_bias(measured: Measured, *, lap: Lap = lambda step: None) -> Explained:
    """Ranks the training samples by influence on the bias, and maps where the model looks or the data show it."""
    request, data, model, keys = measured.request, measured.data, measured.request.model, measured.request.keys
    samples = Influential([], [])
    if model is not None and data.embedded is not None and "train" in data.dataset.splits:
        samples = influential(
            data.embedded.split, model.params, data.embedded.dataset, count=SHOWN, head_path=model.head_path
        )
    lap("samples")
    spatial = None if model is None else model.spatial
    kinds = _pixel_kinds(request.pixels, data.dataset, spatial, measured.leans)
    maps = places = None
    if "maps" in kinds:
        maps = _audit_maps(keys.maps, model, data)
        lap("maps")
    if "patches" in kinds:
        places = patch_places.audit_patches(keys.patches, data.dataset)
        lap("patches")
    return Explained(**vars(measured), samples=samples, maps=maps, places=places)


def advise_repair(explained: Explained, *, lap: Lap = lambda step: None) -> Advised:
    """Tries repairs on held-out samples where there is something to repair, and draws the verdict from all of it.

    If asked, the recommended repair is tested on the test split.
    """
    request, model, keys = explained.request, explained.request.model, explained.request.keys
    embedded, assessment = explained.data.embedded, explained.assessment
    tried, verified, subject = advice.Tried((), ""), None, None
    if assessment.relies or assessment.exceeds:
        if model is None or embedded is None:
            tried = advice.Tried((), "the model cut before its last layer (split), and held-out samples")
        else:
            subject = advice.Subject(embedded.split, embedded.dataset, model.classifier, explained.data.dataset)
            tried = advice.try_repairs(keys.advice, subject, model.params, head_path=model.head_path)
    lap("advice")
    if request.fix and tried.recommended is not None:
        verified = advice.verify(keys.changes, subject, tried.recommended, explained.before, measure_key=keys.measure)
        lap("verify")
    questions = request.questions
    found = verdicts.decide(
        assessment.disparity,
        assessment.reliance,
        assessment.association,
        advice.repairs(tried, verified),
        rows=len(request.dataset.splits["test"].label),
        tolerance=questions.tolerance,
        min_group=questions.min_group,
    )
    return Advised(**vars(explained), tried=tried, verified=verified, verdict=found)


def _logarithms_of(apply_fn: Callable[[Params, Array], jax.Array]) -> Callable[[Params, Array], jax.Array]:
    """`(params, x) -> logits` of a model whose outputs are probabilities."""
    return lambda params, x: jnp.log(jnp.maximum(apply_fn(params, x), LEAST_PROBABILITY))


def _repeated_rows(dataset: Dataset) -> dict[str, int]:
    """Split -> its rows that are in the test split too; empty where there are no inputs to compare."""
    x = np.asarray(dataset.splits["test"].x)
    if x.ndim < 2 or not x.any():
        return {}
    return repeated_rows({name: row_digests(batch.x) for name, batch in dataset.splits.items()})


def _judges(kind: str, dataset: Dataset) -> discovery.Judges:
    """Small networks for the bias cells."""
    classes = len(dataset.label_names)
    if kind == "sih":
        image = dataset.splits["train"].x.shape[1:]
        return discovery.sih_judges(models.mlp_vae(image=image, latent=32, decoder=(256,), classes=classes), classes)
    return discovery.augmented_judges(models.mlp(hidden=(100, 100), classes=classes))


def _pixel_kinds(pixels: str, dataset: Dataset, spatial: Split | Tap | None, leans: bool) -> tuple[str, ...]:
    """Which of `maps` and `patches` to compute."""
    test, has_maps = dataset.splits["test"], spatial is not None
    if pixels == "auto":
        if not (test.x.ndim == 4 and leans):
            return ()
        if has_maps and test.mask is not None:
            return ("maps",)
        known = {name for name, batch in dataset.splits.items() if (np.asarray(batch.attribute) >= 0).any()}
        enough = {"train", "edit"} <= known and min(test.x.shape[1:3]) >= 2 * patch_places.LEAST_PATCH
        return ("patches",) if enough else ("maps",) if has_maps else ()
    kinds = {"maps": ("maps",), "patches": ("patches",), "both": ("maps", "patches"), "none": ()}[pixels]
    if kinds:
        expect(test.x.ndim == 4, "pixels", "none for a table", pixels)
    if "maps" in kinds:
        expect(has_maps, "spatial", "the model cut at the layer of the maps", "nothing")
    if "patches" in kinds:
        patch_places.check_pictures(dataset)
    return kinds


def _audit_maps(key: Key, model: AuditedModel, data: AuditData) -> class_maps.MapAudit:
    """The maps, from features that are there already where there are some."""
    if data.embedded is None or data.embedded.spatial is None:
        return class_maps.audit_maps(key, model.spatial, model.params, data.dataset)
    test = data.dataset.splits["test"]
    features = dataclasses.replace(data.dataset, splits={"test": test._replace(x=data.embedded.spatial)})
    layer = Split(data.embedded.split.features, model.spatial.head)
    return class_maps.audit_maps(key, layer, model.params, features)
