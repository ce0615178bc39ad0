"""Self-influence fine-tuning: find bias-conflicting training samples without bias labels, and fine-tune on them.

Self-influence, `grad l_i^T H^-1 grad l_i`, is how much a sample's own loss would rise if it were left out of training.
It finds mislabelled samples. To a model that knows only the shortcut, a bias-conflicting sample looks mislabelled; so
it is computed on models trained briefly and with a loss that favours what is easy (generalised cross-entropy). The
samples of each class that rank highest for several such models are the pivotal set; the trained model is fine-tuned
on it, together with a random draw from the rest.

Source: Jung et al., "A Simple Remedy for Dataset Bias via Self-Influence: A Mislabeled Sample Perspective", NeurIPS
2024 (arXiv 2411.00360), from its abstract and overview. Ours, because neither its text nor its code was at hand: the
exact softmax curvature of the last layer with damping, how the draws are weighed, and all default numbers.
"""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_finite, check_key, check_type, expect
from jaxdebias.core import Array, Batch, Classifier, Key, Params, RepairSets, take
from jaxdebias.explain.influence._dense import LARGEST
from jaxdebias.explain.influence._objective import HIGHEST, HeadProblem, design, error, head_problem, hessian
from jaxdebias.mitigate._erm import erm
from jaxdebias.mitigate._gce import GceConfig, gce
from jaxdebias.mitigate._last_layer import frozen_features, last_layer, needed
from jaxdebias.train._optimizer import Optimizer
from jaxdebias.train._plans import steps_per_epoch
from jaxdebias.train._run import FitConfig, fit


@dataclass(frozen=True, kw_only=True)
class SelfInfluenceConfig:
    """First how the pivotal set is found, then how the model is fine-tuned on it."""

    repeats: int = 3
    """Biased models, each from its own initial values; a sample is pivotal if it ranks high for all of them."""
    epochs: int = 5
    """Of each biased model: few, before it learns the samples by heart."""
    q: float = 0.7
    """Of the generalised cross-entropy (1 - p_y^q) / q of the biased models; towards 0: cross-entropy."""
    per_class: int = 100
    """Candidates of each class that each biased model names."""
    damping: float = 1e-3
    """On the curvature of the MEAN loss of the last layer."""
    learning_rate: float = 1e-3
    """Adam's, of the biased models."""
    batch_size: int = 256
    tune_epochs: int = 20
    tune_learning_rate: float = 1e-3
    """Adam's, with decoupled weight decay and a cosine schedule."""
    tune_batch_size: int = 64
    rest: float = 1.0
    """Random samples of the rest that are drawn for fine-tuning, per pivotal sample."""
    rest_weight: float = 0.1
    """Of the drawn rest in the loss, against the pivotal set: they keep the model from forgetting what it could."""

    def __post_init__(self):
        for name in ("repeats", "epochs", "per_class", "batch_size", "tune_epochs", "tune_batch_size"):
            expect(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        expect(0 < self.q <= 1, "q", "above 0, at most 1", self.q)
        expect(self.damping > 0, "damping", "more than 0: the softmax Hessian is singular", self.damping)
        expect(
            self.rest >= 0 and self.rest_weight >= 0, "rest, rest_weight", "at least 0", (self.rest, self.rest_weight)
        )


class SelfInfluenceInfo(NamedTuple):
    pivotal: np.ndarray
    """`[m]` int, rows of the training set, in order."""
    per_class: np.ndarray
    """`[k]` int, pivotal samples of each class; 0 where the biased models agreed on none."""
    scores: np.ndarray
    """`[repeats n]`, the self-influence of every training sample on each biased model."""
    seconds: float


def self_influence(
    key: Key,
    model: Classifier,
    params: Params,
    sets: RepairSets,
    config: SelfInfluenceConfig = SelfInfluenceConfig(),
    *,
    batch_size: int = 256,
) -> tuple[Params, SelfInfluenceInfo]:
    """Fine-tune a biased model on the training samples that contradict its shortcut. Uses no attribute and no pairs.

    Args:
      key: for the biased models, the draw of the rest and the order of the samples.
      model: the classifier.
      params: of the trained, biased model.
      sets: `train`, the training set, of which x, label and weight are used. `info.pivotal` counts its rows without
        padding.
      config: how the pivotal set is found, and how the model is fine-tuned.
      batch_size: rows at a time through the network, when features are computed.

    Returns:
      (params, info).

    Raises:
      ContractError: no training set or a malformed one, a model that is no Classifier, fewer samples of a class
        than `per_class` asks for twice over, a pivotal set that is empty.
    """
    began = time.perf_counter()
    check_type("config", config, SelfInfluenceConfig)
    check_key("key", key)
    check_type("model", model, Classifier)
    train, classifier = needed(sets, "train").train, model
    label = np.asarray(train.label)
    one_row = jax.ShapeDtypeStruct((1, *train.x.shape[1:]), train.x.dtype)
    classes = jax.eval_shape(classifier.apply, params, one_row).shape[-1]
    counts = np.bincount(label, minlength=classes)
    fewest = int(counts[counts > 0].min())
    expect(
        2 * config.per_class <= fewest,
        "per_class",
        f"at most half of the smallest class, which has {fewest} samples",
        config.per_class,
    )
    key_models, key_draw, key_tune = jax.random.split(key, 3)
    data = train._replace(twin=None, mask=None, attribute=np.full(len(label), -1, np.int32))

    learner = gce(classifier, GceConfig(q=config.q), Optimizer(learning_rate=config.learning_rate))
    scores = []
    for key_model in jax.random.split(key_models, config.repeats):
        state = fit(key_model, learner, data, FitConfig(epochs=config.epochs, batch_size=config.batch_size)).state
        z = frozen_features(classifier.vector, state.variables, data.x, batch_size=batch_size)
        head, _ = last_layer(classifier.vector, state.variables, z.shape[1])
        problem = head_problem(z, label, head, weight=data.weight)
        scores.append(self_influence_scores(problem, damping=config.damping * float(_total(data))))
    scores = np.stack(scores)
    pivotal = np.flatnonzero(pivotal_set(scores, label, config.per_class))
    expect(len(pivotal) > 0, "per_class", "enough for the biased models to agree on some sample", config.per_class)

    rest = np.setdiff1d(np.arange(len(label)), pivotal)
    rest = np.asarray(jax.random.permutation(key_draw, rest)[: round(config.rest * len(pivotal))])
    rows = np.concatenate([pivotal, rest])
    weight = np.where(np.arange(len(rows)) < len(pivotal), 1.0, config.rest_weight).astype(np.float32)
    chosen = take(data, rows)
    chosen = chosen._replace(weight=weight if data.weight is None else weight * np.asarray(chosen.weight, np.float32))
    steps = config.tune_epochs * steps_per_epoch(len(rows), config.tune_batch_size)
    optimizer = Optimizer(
        name="adamw", learning_rate=config.tune_learning_rate, weight_decay=1e-4, schedule="cosine", steps=steps
    )
    tuner = erm(classifier, optimizer=optimizer)
    start = tuner.init(key_tune, take(chosen, slice(0, 1)))
    # The loop donates its state; the caller keeps the parameters that came in.
    start = start._replace(variables=jax.tree.map(jnp.array, params))
    tuned = fit(
        key_tune, tuner, chosen, FitConfig(epochs=config.tune_epochs, batch_size=config.tune_batch_size), state=start
    ).state.variables
    return tuned, SelfInfluenceInfo(
        pivotal, np.bincount(label[pivotal], minlength=len(counts)), scores, time.perf_counter() - began
    )


def self_influence_scores(problem: HeadProblem, *, damping: float) -> Float[np.ndarray, "n"]:
    """`grad l_i^T (H + damping I)^-1 grad l_i` of every row of a head's objective, never negative.

    With L the Cholesky factor of H + damping I and grad l_i = phi_i (x) (p_i - y_i), the score is |L^-1 grad l_i|^2:
    one dense factor for all rows, then p^2 operations a row. A row's weight counts in H, not in its gradient.

    Args:
      problem: the training objective at the head, with p parameters.
      damping: added to the diagonal of H of the SUM of losses.

    Raises:
      ContractError: a Hessian that is not positive definite, or too large to be formed.
    """
    from scipy import linalg

    expect(problem.size <= LARGEST, "head", f"at most {LARGEST} parameters for a dense factor", problem.size)
    matrix = np.array(hessian(problem), np.float64)
    check_finite("hessian", matrix)
    matrix[np.diag_indices(len(matrix))] += damping
    try:
        lower = linalg.cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        expect(False, "damping", "l2 + damping large enough for a positive definite Hessian", damping)
    inverse = linalg.solve_triangular(lower, np.eye(len(lower)), lower=True, check_finite=False)
    inverse = jnp.asarray(inverse.astype(problem.features.dtype))
    rows = int(np.clip(2**24 // len(lower), 1, 8192))  # at most 16 Mi numbers [b p] at a time
    return np.asarray(
        map_rows(_whitened_norm, (problem.head, inverse), (problem.features, problem.label), batch_size=rows)
    )


def _whitened_norm(params: Any, rows: tuple[Array, Array]) -> jax.Array:
    """|L^-1 grad l|^2 of each row [b]."""
    head, inverse = params
    features, label = rows
    gradient = design(features, head)[:, :, None] * error(head, features, label)[:, None, :]
    return (jnp.matmul(gradient.reshape(len(label), -1), inverse.T, precision=HIGHEST) ** 2).sum(axis=1)


def pivotal_set(
    scores: Float[np.ndarray, "s n"],
    label: Int[np.ndarray, "n"],
    per_class: int,
) -> Bool[np.ndarray, "n"]:
    """The samples that every row of scores ranks among the `per_class` highest of their class; ties by index.

    >>> pivotal_set(np.array([[3.0, 2.0, 1.0, 9.0], [3.0, 1.0, 2.0, 9.0]]), np.array([0, 0, 0, 1]), 2).tolist()
    [True, False, False, True]
    """
    chosen = np.ones(len(label), bool)
    for score in scores:
        order = np.lexsort((-score, label))  # by class, the highest score first
        first = np.searchsorted(label[order], label[order])
        top = np.zeros(len(label), bool)
        top[order] = np.arange(len(label)) - first < per_class
        chosen &= top
    return chosen


def _total(batch: Batch) -> float:
    return float(len(batch.label) if batch.weight is None else np.sum(batch.weight))
