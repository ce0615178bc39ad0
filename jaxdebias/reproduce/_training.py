"""How the networks of a table are trained on a data set: one setting, any training method by its name."""

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxdebias import models
from jaxdebias.contracts import check_choice
from jaxdebias.core import Batch, Classifier, Dataset, Params, cell_counts
from jaxdebias.explain import CellsConfig
from jaxdebias.mitigate import AugCellConfig, JttConfig, aug_cell, jtt
from jaxdebias.mitigate._methods import METHODS, refuse_unmet
from jaxdebias.models import load_resnet
from jaxdebias.models._registry import BUILDERS, build
from jaxdebias.train._augment import Augment
from jaxdebias.train._optimizer import Optimizer
from jaxdebias.train._plans import steps_per_epoch
from jaxdebias.train._run import FitConfig, fit
from jaxdebias.train._schedule import HELD_OUT_ACCURACY, HELD_OUT_LOSS, Monitor, worst_group_accuracy

SELECTIONS = ("last", "worst-group", "mean")
"""What chooses the epoch: nothing, or the accuracy of the worst group or of all held-out rows."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a network is trained, the same for every method of a table unless the method says otherwise."""

    model: str
    """Name of the network, a key of `models`' registry."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of its builder, besides the number of classes."""
    epochs: int
    batch_size: int
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(name="adamw", weight_decay=1e-4))
    """A cosine schedule gets its length from the epochs."""
    own: Mapping[str, Optimizer] = field(default_factory=dict)
    """Optimisers of methods that were published with one of their own, by name."""
    cosine: bool = True
    augment: Augment | None = None
    turning: Augment | None = None
    """What breaks shapes for AUG-CELL; None: as `augment`."""
    select: Literal["last", "worst-group", "mean"] = "last"
    """What chooses the epoch on the split `accept`."""
    first_epochs: int = 1
    """Of JTT's first model."""
    upweight: float = 50.0
    """Of JTT's error set."""
    weights: Path | None = None
    """State dict of torchvision that a ResNet starts from."""

    def small(self) -> "Setting":
        """One epoch of a tiny network, for trials: they mostly compile, and this compiles fastest."""
        tiny: dict[str, Any] = {"model": "mlp", "options": {"hidden": (8, 8)}, "weights": None, "augment": None}
        return replace(self, **tiny, epochs=1, batch_size=16, first_epochs=1)

    def described(self) -> dict[str, Any]:
        """What decides a row, for its fingerprint."""
        functions = ("augment", "turning", "weights")
        return {name: value for name, value in vars(self).items() if name not in functions}


class Trained(NamedTuple):
    """A network after its training."""

    classifier: Classifier
    params: Params
    seconds: float
    said: Mapping[str, Any]
    """What else a table may want, as JSON values."""


def train(method: str, setting: Setting, dataset: Dataset, seed: int) -> Trained:
    """Trains by a method of `mitigate`; `@last`, `@worst-group` or `@mean` after its name chooses the epoch.

    Args:
      method: a training method.
      setting: how.
      dataset: splits train and accept are used.
      seed: of first weights and order, as `jaxdebias train` takes it.

    Raises:
      ContractError: an unknown method or one that needs what the data set lacks.
    """
    name, _, select = method.partition("@")
    check_choice("methods", name, METHODS)
    if select:
        check_choice("methods", select, SELECTIONS)
        setting = replace(setting, select=select)
    setting = replace(setting, optimizer=setting.own.get(name, setting.optimizer))
    refuse_unmet(METHODS[name], dataset)
    began = time.perf_counter()
    key = jax.random.split(jax.random.key(seed), 3)[1]
    data = dataset.splits["train"]._replace(twin=None, mask=None, unit=None)
    trainer = {"jtt": _train_jtt, "aug-cell": _train_aug_cell}.get(name, functools.partial(_train_learner, name))
    classifier, params, said = trainer(key, setting, dataset, data)
    return Trained(jax.block_until_ready(classifier), jax.block_until_ready(params), time.perf_counter() - began, said)


Fitted = tuple[Classifier, Params, dict[str, Any]]


def _train_learner(name: str, key: Any, setting: Setting, dataset: Dataset, data: Batch) -> Fitted:
    network, classifier = _network(METHODS[name].network, setting, dataset)
    groups = cell_counts(data.label, data.attribute, *dataset.aligned.shape)
    learner = METHODS[name].build(
        network,
        optimizer=_optimizer(setting, len(data.label)),
        augment=setting.augment,
        rows=len(data.label),
        groups=groups,
    )
    state = None
    if setting.weights is not None and METHODS[name].one_network:
        state = learner.init(key, jax.tree.map(lambda leaf: leaf[:1], data))
        state = state._replace(variables=load_resnet(setting.weights, state.variables, head="skip"))
    result = fit(key, learner, data, _config(setting), state=state, **_watched(setting, dataset))
    return classifier, result.state.variables, {"epochs": result.epoch, "best_epoch": result.best_epoch}


def _train_jtt(key: Any, setting: Setting, dataset: Dataset, data: Batch) -> Fitted:
    _, classifier = _network("classifier", setting, dataset)
    config = JttConfig(
        first=FitConfig(epochs=setting.first_epochs, batch_size=setting.batch_size),
        second=_config(setting),
        upweight=setting.upweight,
    )
    optimizer = _optimizer(setting, len(data.label))
    params, info = jtt(key, classifier, data, config, optimizer, augment=setting.augment, **_watched(setting, dataset))
    conflicting = ~dataset.aligned[data.label, data.attribute]
    recall = info.errors[conflicting].mean() if conflicting.any() else None
    said = {"flagged": info.errors.mean(), "flagged_recall": recall}
    return classifier, params, said


def _train_aug_cell(key: Any, setting: Setting, dataset: Dataset, data: Batch) -> Fitted:
    _, classifier = _network("classifier", setting, dataset)
    steps = setting.epochs * steps_per_epoch(len(data.label), setting.batch_size)
    config = AugCellConfig(
        cells=CellsConfig(steps=min(300, 10 * steps), batch_size=setting.batch_size),
        steps=steps,
        batch_size=setting.batch_size,
        held_out=0.1 if len(data.label) >= 20_000 else 0.25,
        cleaning_steps=min(1000, steps),
    )
    unlabelled = data._replace(attribute=np.full_like(data.label, -1))
    judge = models.mlp(hidden=(100, 100), classes=len(dataset.label_names))
    optimizer = Optimizer(learning_rate=setting.optimizer.learning_rate)
    turning = setting.turning or setting.augment
    params, info = aug_cell(key, classifier, unlabelled, config, optimizer, judge=judge, augment=turning)
    return classifier, params, {"chosen": info.chosen}


def _network(kind: str, setting: Setting, dataset: Dataset) -> tuple[Any, Classifier]:
    """What a method trains, and the classifier in it that predicts."""
    classes, image = len(dataset.label_names), tuple(dataset.splits["train"].x.shape[1:])
    if kind == "two encoders":
        deep = setting.model.startswith("resnet")
        encoders = models.resnet_two_encoders(classes=classes) if deep else models.mlp_two_encoders(classes=classes)
        return encoders, encoders.classifier
    if kind == "branches":
        branches = models.mlp_vae(image=image, classes=classes)
        return branches, branches.signal
    if kind == "vae":
        vae = models.vae_classifier(image=image, classes=classes, latent=8 if max(image[:2]) <= 32 else 16)
        return vae, vae.classifier
    check_choice("model", setting.model, BUILDERS)
    network = build(setting.model, classes=classes, **setting.options)
    return network, network


def _optimizer(setting: Setting, rows: int) -> Optimizer:
    if not setting.cosine:
        return setting.optimizer
    steps = setting.epochs * steps_per_epoch(rows, setting.batch_size)
    return replace(setting.optimizer, schedule="cosine", steps=steps)


def _config(setting: Setting) -> FitConfig:
    keep = "last" if setting.select == "last" else "best"
    return FitConfig(epochs=setting.epochs, batch_size=setting.batch_size, keep=keep)


def _watched(setting: Setting, dataset: Dataset) -> dict[str, Any]:
    """The held-out rows and the monitor that choose the epoch."""
    if setting.select == "last":
        return {}
    monitors: Mapping[str, Monitor] = {
        "worst-group": worst_group_accuracy(*dataset.aligned.shape),
        "mean": HELD_OUT_ACCURACY,
    }
    held_out = dataset.splits["accept"]._replace(twin=None, mask=None, unit=None)
    return {"held_out": held_out, "monitor": monitors.get(setting.select, HELD_OUT_LOSS)}
