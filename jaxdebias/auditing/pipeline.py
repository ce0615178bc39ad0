"""An audit in five stages. Each takes what is known so far and returns it with what it adds.

    predicted = predict_test(request)          # what the model answers on the test split
    assessed = assess_attributes(predicted)    # which attribute is a shortcut
    measured = measure_bias(assessed)          # how strong the bias is, in which groups
    explained = explain_bias(measured)         # on which pixels, because of which training samples
    advised = advise_repair(explained)         # what to do, and whether it held on the test split

`run_audit` runs all five. What cannot be computed from the given inputs is None. `jaxdebias.audit` turns the last state
into a report.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from jaxdebias import models
from jaxdebias.auditing import advice, class_maps, discovery, patch_places
from jaxdebias.auditing._measurement import Influential, Measurement, influential, measure_predictions
from jaxdebias.auditing._padding import without_padding
from jaxdebias.auditing.candidates import Candidate, assess_candidates, counts_of, list_candidates, with_attribute
from jaxdebias.auditing.embedded import Embedded, embed, repeated_rows, row_digests
from jaxdebias.batching import predict_rows
from jaxdebias.contracts import NOT_LOGITS, are_probabilities, check_batch, check_choice, describe, expect
from jaxdebias.core import Array, Dataset, Key, Params, Split
from jaxdebias.explain._taps import Tap
from jaxdebias.measure._shortcuts import Shortcut

PIXELS = ("auto", "maps", "patches", "both", "none")
JUDGES = ("aug-cell", "sih")
SHOWN = 12
"""Training samples at each end of the influence ranking."""
LEAST_PROBABILITY = 1e-12
"""Probabilities below this count as this, so that their logarithm is finite."""
HEAD_ROWS = 8192
"""Rows of features at a time through the last layer."""

Lap = Callable[[str], None]
"""Called with the name of a step when the step is done."""


@dataclass(frozen=True, kw_only=True)
class AuditedModel:
    """A trained model and where it can be cut."""

    apply_fn: Callable[[Params, Array], jax.Array]
    """(params, x) -> logits [n k], evaluation mode."""
    params: Params
    split: Split | None = None
    """Cut before the last layer; None: no influence and no repairs."""
    spatial: Split | Tap | None = None
    """Cut at the layer of the maps; None: no maps."""
    head_path: tuple[str | int, ...] | None = None
    """Where the last layer lies in params; None: it is looked for."""


@dataclass(frozen=True, kw_only=True)
class AuditData:
    """A data set and, where the model can be cut, the same data set in features."""

    dataset: Dataset
    embedded: Embedded | None = None

    @property
    def has_pictures(self) -> bool:
        return self.dataset.splits["test"].x.ndim == 4

    def with_attribute(self, name: str, candidate: Candidate) -> "AuditData":
        """Both views with a candidate as their attribute."""
        embedded = self.embedded
        if embedded is not None:
            embedded = embedded._replace(dataset=with_attribute(embedded.dataset, name, candidate))
        return AuditData(dataset=with_attribute(self.dataset, name, candidate), embedded=embedded)


class AuditKeys(NamedTuple):
    """One random key per purpose, in a fixed order: equal seeds give equal numbers."""

    candidates: Key
    cells: Key
    errors: Key
    measure: Key
    changes: Key
    advice: Key
    maps: Key
    patches: Key


@dataclass(frozen=True, kw_only=True)
class AuditRequest:
    """What is audited and what is asked; the fields are the arguments of `jaxdebias.audit`.

    Raises:
      ContractError: malformed data, unknown choices, or both a model and predictions, or neither.
    """

    dataset: Dataset
    model: AuditedModel | None
    """None with `predictions`."""
    predictions: Shaped[Array, "n *k"] | None = None
    """On the test split, classes or logits."""
    candidates: Mapping[str, Candidate | Mapping[str, Any]] | None = None
    pixels: str = "auto"
    discover: bool | None = None
    judges: str = "aug-cell"
    fix: bool = False
    seed: int = 0
    batch_size: int = 256

    def __post_init__(self):
        check_choice("pixels", self.pixels, PIXELS)
        check_choice("judges", self.judges, JUDGES)
        _check_dataset(self.dataset)
        expect(
            (self.model is None) == (self.predictions is not None),
            "audit",
            "a model with its params, or predicted",
            "both" if self.model is not None else "neither",
        )

    @property
    def keys(self) -> AuditKeys:
        return AuditKeys(*jax.random.split(jax.random.key(self.seed), len(AuditKeys._fields)))


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """After the first stage: what the model answers on the test split."""

    request: AuditRequest
    data: AuditData
    """From `assess_attributes` on, with the strongest candidate as its attribute."""
    logits: np.ndarray
    """`[n k]`, or classes `[n]`, of the test split."""
    from_probabilities: bool
    """The model puts out probabilities, whose logarithms are taken as its logits."""
    repeated: Mapping[str, int]
    """Split -> rows of test that are in this split as well, input for input."""


@dataclass(frozen=True, kw_only=True)
class Assessed(Predicted):
    """After the second stage: which attributes are shortcuts."""

    candidates: Mapping[str, Candidate]
    """Every candidate that was listed, bias cells included."""
    verdicts: list[Shortcut]
    """On every candidate, the most important first."""
    guesses: discovery.Guesses | None
    """Bias cells, where an attribute that nobody named was looked for."""
    error_groups: list[discovery.ErrorGroup] | None
    """As `guesses`; groups of test samples with many mistakes."""

    @property
    def strongest(self) -> str | None:
        """Name of the candidate that is the attribute of `data`; None without candidates."""
        return self.verdicts[0].name if self.verdicts else None

    @property
    def aligned_from_test(self) -> bool:
        """Whether aligned cells are those of the test split, because no training sample has a value of the strongest.

        How attribute and label are associated in training is then unknown.
        """
        if self.strongest is None:
            return False
        candidate = self.candidates[self.strongest]
        return not candidate.own and not counts_of(self.data.dataset, candidate).any()

    @property
    def has_shortcut(self) -> bool:
        return bool(self.verdicts) and self.verdicts[0].verdict == "shortcut"


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

    advice: advice.Advice
    verified: advice.Verified | None  # pyright: ignore[reportInvalidTypeForm]
    """The recommended repair on the test split, if it was asked for and there is one."""

    @property
    def after(self) -> Measurement | None:
        """Of the repaired model; None unless a repair held on the test split."""
        return self.verified.after if self.verified is not None and self.verified.held else None


def run_audit(request: AuditRequest, *, lap: Lap = lambda step: None) -> Advised:
    """Runs the five stages, on the rows that are no padding."""
    dataset, predictions, candidates = without_padding(request.dataset, request.predictions, request.candidates)
    if dataset is not request.dataset:  # a new request is checked anew
        request = dataclasses.replace(request, dataset=dataset, predictions=predictions, candidates=candidates)
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
    return Predicted(
        request=request,
        data=AuditData(dataset=dataset, embedded=embedded),
        logits=logits,
        from_probabilities=from_probabilities,
        repeated=_repeated_rows(dataset) if embedded is None else embedded.repeated,
    )


def assess_attributes(predicted: Predicted) -> Assessed:
    """Finds which attribute is a shortcut, among the candidates and, where that is asked for, in the pictures alone."""
    request, data, logits, keys = predicted.request, predicted.data, predicted.logits, predicted.request.keys
    candidates = list_candidates(data.dataset, request.candidates)
    discover = not candidates if request.discover is None else request.discover
    guesses = groups = None
    if discover and "train" in data.dataset.splits and data.has_pictures:
        classes = np.argmax(logits, -1) if logits.ndim == 2 else logits
        guesses = discovery.guess_cells(keys.cells, data.dataset, _judges(request.judges, data.dataset), classes)
        candidates[discovery.CELLS] = guesses.candidate
    if discover and data.embedded is not None:
        test = data.embedded.dataset.splits["test"]
        groups = discovery.error_groups(keys.errors, test.x, np.argmax(logits, -1), test.label, unit=test.unit)
    # Bias cells that are not plain are no candidate: model and judges may only find the same samples hard.
    tested = dict(candidates)
    if guesses is not None and not (guesses.plain and counts_of(data.dataset, guesses.candidate).any()):
        del tested[discovery.CELLS]
    verdicts = assess_candidates(keys.candidates, logits, data.dataset, tested) if tested else []
    if verdicts:
        data = data.with_attribute(verdicts[0].name, tested[verdicts[0].name])
    return Assessed(
        **{**vars(predicted), "data": data},
        candidates=candidates,
        verdicts=verdicts,
        guesses=guesses,
        error_groups=groups,
    )


def measure_bias(assessed: Assessed) -> Measured:
    """Measures accuracies by group, fairness and, where there are pairs, counterfactual bias on the test split."""
    data, model, key = assessed.data, assessed.request.model, assessed.request.keys.measure
    pair_logits = None
    if model is not None and "test" in data.dataset.pairs:
        if data.embedded is None:
            pairs, predict, rows = data.dataset.pairs["test"], model.apply_fn, 256
        else:
            pairs, predict, rows = data.embedded.dataset.pairs["test"], data.embedded.split.head, HEAD_ROWS
        pair_logits = tuple(predict_rows(predict, model.params, x, batch_size=rows) for x in (pairs.x, pairs.twin))
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
    kinds = _pixel_kinds(request.pixels, data.dataset, spatial, measured.has_shortcut)
    maps = places = None
    if "maps" in kinds:
        maps = _audit_maps(keys.maps, model, data)
        lap("maps")
    if "patches" in kinds:
        places = patch_places.audit_patches(keys.patches, data.dataset)
        lap("patches")
    return Explained(**vars(measured), samples=samples, maps=maps, places=places)


def advise_repair(explained: Explained, *, lap: Lap = lambda step: None) -> Advised:
    """Tries repairs of the last layer on held-out samples; if asked, tests the recommended one on the test split."""
    request, model, keys = explained.request, explained.request.model, explained.request.keys
    embedded = explained.data.embedded
    found, verified = advice.Advice(advice.UNTRIED if explained.has_shortcut else advice.LEAVE, (), ""), None
    if explained.has_shortcut and model is not None and embedded is not None:
        found = advice.advise(keys.advice, embedded.split, model.params, embedded.dataset, head_path=model.head_path)
    lap("advice")
    if request.fix and embedded is not None and found.chosen is not None:
        split, features, before = embedded.split, embedded.dataset, explained.before
        verified = advice.verify(keys.changes, split, found.chosen, features, before, measure_key=keys.measure)
        lap("verify")
    return Advised(**vars(explained), advice=found, verified=verified)


def _check_dataset(dataset: Dataset) -> None:
    """As `contracts.check_dataset`, but without a training split, which an audit can do without."""
    k, a = len(dataset.label_names), len(dataset.attribute_names)
    expect("test" in dataset.splits, "splits", "a split named test", ", ".join(dataset.splits) or "none")
    expect(dataset.aligned.shape == (k, a), "aligned", f"bool [k={k}, a={a}]", describe(dataset.aligned))
    for name, batch in [*dataset.splits.items(), *dataset.pairs.items()]:
        check_batch(batch, classes=k, attributes=a, what=name)


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


def _pixel_kinds(pixels: str, dataset: Dataset, spatial: Split | Tap | None, has_shortcut: bool) -> tuple[str, ...]:
    """Which of `maps` and `patches` to compute."""
    test, has_maps = dataset.splits["test"], spatial is not None
    if pixels == "auto":
        if not (test.x.ndim == 4 and has_shortcut):
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
