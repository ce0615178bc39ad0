"""The plain repairs that any edit must be compared with: fine-tuning, and training anew, on data without the shortcut.

Fine-tuning (of all layers or of the last one) and training from scratch use the same held-out samples that an edit may
use, and choose their learning rate on the same held-out acceptance split. On Colored MNIST those that train all layers
are more accurate than an edit of the head; a table that leaves them out is not honest. Retraining on the training set
joined by its counterfactuals is what an edit is meant to save, and the ceiling to which it is compared.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.batching import concatenate, predict_rows, unpair
from jaxdebias.contracts import check_batch, check_key, check_type, expect
from jaxdebias.core import Array, Batch, Classifier, Key, Params, RepairSets, Split, counted
from jaxdebias.explain.influence._objective import AffineHead, head_logits
from jaxdebias.mitigate._erm import State, erm
from jaxdebias.mitigate._last_layer import as_split, frozen_features, held_out_rows, last_layer, needed
from jaxdebias.train._optimizer import Optimizer, trainable
from jaxdebias.train._plans import steps_per_epoch
from jaxdebias.train._run import FitConfig, fit


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig:
    """Adam with decoupled weight decay and a cosine schedule, once for each learning rate."""

    epochs: int = 20
    batch_size: int = 64
    learning_rates: tuple[float, ...] = (1e-3, 3e-4)
    weight_decay: float = 1e-4


class FineTuneInfo(NamedTuple):
    """What was tried and what was kept."""

    learning_rate: float
    accept_accuracy: dict[float, float]
    """Accuracy on the acceptance split, for each learning rate."""


def fine_tune(
    key: Key,
    model: Classifier,
    params: Params,
    sets: RepairSets,
    config: FineTuneConfig = FineTuneConfig(),
    *,
    batch_size: int = 256,
) -> tuple[Params, FineTuneInfo]:
    """Train all layers further on held-out data; keep the learning rate that is most accurate on `sets.accept`.

    Args:
      key: for the order of the samples.
      model: the classifier.
      params: where training starts.
      sets: trained on are both sides of `pairs` if there are any, else `edit`; `accept` chooses the learning rate.
      config: epochs, batch size and the learning rates to try.
      batch_size: rows at a time when candidates predict.

    Returns:
      (params, info).

    Raises:
      ContractError: sets that are missing or malformed, a model that is no Classifier.
    """
    check_type("model", model, Classifier)
    data, accept = tuning_rows(sets, config)
    return best_of_rates(key, model, params, data, accept, config, batch_size)


def fine_tune_head(
    key: Key,
    model: Classifier | Split,
    params: Params,
    sets: RepairSets,
    config: FineTuneConfig = FineTuneConfig(epochs=40, learning_rates=(1e-1, 1e-2, 1e-3)),
    *,
    batch_size: int = 256,
) -> tuple[Params, FineTuneInfo]:
    """Train the last layer alone, from where it is; features are computed once, so an epoch is a small regression.

    Args:
      key: for the order of the samples.
      model: a classifier, or a model cut before its last layer; the head must be affine.
      params: where training starts.
      sets: as in `fine_tune`.
      config: epochs, batch size and the learning rates to try.
      batch_size: rows at a time through the network.

    Returns:
      (params, info): only the leaves of the head are new.

    Raises:
      ContractError: sets that are missing or malformed, a head that is not affine.
    """
    split = as_split(model)

    def features(batch: Batch) -> Batch:
        z = frozen_features(split, params, batch.x, batch_size=batch_size)
        return Batch(np.asarray(z), batch.label, batch.attribute, weight=batch.weight)

    data, accept = (features(batch) for batch in tuning_rows(sets, config))
    head, replace = last_layer(split, params, data.x.shape[1])
    network = _last_layer(head.kernel.shape[1], head.bias is not None)
    head, info = best_of_rates(key, network, head, data, accept, config, batch_size)
    return replace(params, head), info


def train_from_scratch(
    key: Key,
    model: Classifier,
    params: Params,
    sets: RepairSets,
    config: FineTuneConfig = FineTuneConfig(epochs=60),
    *,
    batch_size: int = 256,
) -> tuple[Params, FineTuneInfo]:
    """Train a fresh model on held-out data alone: what the biased training set was worth.

    Args:
      key: for the initial parameters and the order of the samples.
      model: the classifier.
      params: not used, and may be None; every repair takes them.
      sets: as in `fine_tune`.
      config: epochs, batch size and the learning rates to try.
      batch_size: rows at a time when candidates predict.

    Returns:
      (params, info).

    Raises:
      ContractError: sets that are missing or malformed, a model that is no Classifier.
    """
    del params
    check_type("model", model, Classifier)
    data, accept = tuning_rows(sets, config)
    return best_of_rates(key, model, None, data, accept, config, batch_size)


def retrain_counterfactual(
    key: Key,
    model: Classifier,
    params: Params,
    sets: RepairSets,
    config: FineTuneConfig = FineTuneConfig(epochs=20, batch_size=256, learning_rates=(1e-3,)),
    *,
    counterfactual: Batch | None = None,
    batch_size: int = 256,
) -> tuple[Params, FineTuneInfo]:
    """Train a fresh model on the training set joined by counterfactuals of its rows (counterfactual augmentation).

    It needs what an edit does without: the training set, a counterfactual of each row, and the time of a training.

    Args:
      key: for the initial parameters and the order of the samples.
      model: the classifier.
      params: not used, and may be None; every repair takes them.
      sets: `train`, the biased training set; `accept`, which chooses the learning rate where there are several.
      config: epochs, batch size and learning rates; those of the original training make the comparison fair.
      counterfactual: the training samples with the attribute changed: the flipped rows of a table, recoloured digits.
        As many rows as the training set has give both sides the same total weight. None: `sets.train.twin`.
      batch_size: rows at a time when candidates predict.

    Returns:
      (params, info).

    Raises:
      ContractError: sets that are missing or malformed, no counterfactuals, a model that is no Classifier.
    """
    del params
    check_type("model", model, Classifier)
    check_type("config", config, FineTuneConfig)
    check_key("key", key)
    sets = needed(sets, "train", "accept")
    if counterfactual is None:
        expect(sets.train.twin is not None, "sets.train.twin", "counterfactuals of the training samples", None)
        data = unpair(sets.train)
    else:
        check_batch(counterfactual, what="counterfactual")
        data = concatenate(sets.train, counted(counterfactual))
    return best_of_rates(key, model, None, data, sets.accept, config, batch_size)


def tuning_rows(sets: RepairSets, config: FineTuneConfig) -> tuple[Batch, Batch]:
    """(what to train on, what chooses the learning rate)."""
    check_type("config", config, FineTuneConfig)
    paired = isinstance(sets, RepairSets) and sets.pairs is not None and len(sets.pairs.label) > 0
    sets = needed(sets, "pairs" if paired else "edit", "accept")
    return held_out_rows(sets), sets.accept


@functools.cache
def _last_layer(classes: int, biased: bool) -> Classifier:
    """The last layer as a model of its own, whose x are features and whose parameters are an `AffineHead`."""

    def init(key: Key, x: Array) -> AffineHead:
        del key  # never trained from here: `_best_of_rates` puts the trained head in its place
        return AffineHead(jnp.zeros((x.shape[1], classes)), jnp.zeros(classes) if biased else None)

    def train(key: Key, head: AffineHead, x: Array) -> tuple[jax.Array, AffineHead]:
        del key
        return head_logits(head, x), head

    return Classifier(
        init=init,
        apply=head_logits,
        train=train,
        vector=Split(features=lambda head, x: x, head=head_logits, head_path=()),
    )


def best_of_rates(
    key: Key,
    classifier: Classifier,
    params: Params | None,
    data: Batch,
    accept: Batch,
    config: FineTuneConfig,
    batch_size: int,
) -> tuple[Params, FineTuneInfo]:
    """Train once for each learning rate; what is most accurate on `accept` is returned."""
    steps = config.epochs * steps_per_epoch(len(data.label), config.batch_size)
    one_row = jax.tree.map(lambda leaf: leaf[:1], data)
    accuracies, candidates = {}, {}
    # One learner, scaled to each rate: the rates then share one compiled program.
    first = config.learning_rates[0]
    optimizer = Optimizer(
        name="adamw", learning_rate=first, weight_decay=config.weight_decay, schedule="cosine", steps=steps
    )
    learner = erm(classifier, optimizer=optimizer)
    for rate in config.learning_rates:
        lr_scale = jnp.asarray(rate / first, jnp.float32)
        if params is None:
            state = learner.init(key, one_row)._replace(lr_scale=lr_scale)
        else:
            # The loop donates its state; the caller keeps the parameters that came in.
            variables = jax.tree.map(jnp.array, params)
            state = State(variables, optimizer.build().init(trainable(variables)), lr_scale)
        trained = fit(key, learner, data, FitConfig(epochs=config.epochs, batch_size=config.batch_size), state=state)
        candidates[rate] = trained.state.variables
        logits = predict_rows(classifier.apply, trained.state.variables, accept.x, batch_size=batch_size)
        right = np.asarray(logits.argmax(-1)) == np.asarray(accept.label)
        accuracies[rate] = float(np.average(right, weights=accept.weight))
    best = max(accuracies, key=accuracies.get)
    return candidates[best], FineTuneInfo(best, accuracies)
