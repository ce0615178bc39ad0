"""Model-agnostic data attribution (De Coninck et al. 2024): training with noise where an attribute can be read.

The released code trains a plain and a "robust" twin from the same first weights on the same batches, on four cells of
which one is empty, and reports on balanced validation pictures. The text of the paper's tables could not be read: no
number of it is shown. Ours beside the four modes: the control that hides as many random pixels, and what the map itself
says about whether the attribute has a place. Test pictures are reported here, which the release does not use.
"""

import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxdebias.batching import predict_rows
from jaxdebias.core import Classifier, Dataset
from jaxdebias.data import celeba_four_cells
from jaxdebias.data._sets.celeba import celeba_folder
from jaxdebias.explain import PatchFitConfig, fit_patches, localise, out_of_fold_maps
from jaxdebias.measure import group_report
from jaxdebias.mitigate import (
    Corruption,
    PatchNoiseConfig,
    corrupt,
    corruption,
    corruptions_of_mode,
    erm,
    patch_noise,
    quantile_mask,
)
from jaxdebias.mitigate._patch_noise.masks import random_pixels
from jaxdebias.models import cnn, patch_net, pooled_cnn
from jaxdebias.reproduce._experiment import Experiment, Files, Level, Measured, Rate, Trial, Work, by_case
from jaxdebias.reproduce._miniatures import write_celeba
from jaxdebias.train._optimizer import Optimizer
from jaxdebias.train._run import FitConfig, fit

MODES = ("general_noise", "specific_noise", "specific_mask", "general_mask")
METHODS = ("plain", *MODES, "random_noise")
PATCH, STRIDE, BATCH, EPOCHS = 32, 4, 128, 10
OPTIMIZER = Optimizer(name="adamw", learning_rate=1e-3, weight_decay=1e-3)
LEVELS = ("Male", "Blond_Hair", "Smiling", "Wearing_Earrings")
"""Targets; the bias is blond hair, of blond hair being a man."""
RATES = (
    Rate("bias_conflicting_accuracy", "conflicting acc."),
    Rate("bias_aligned_accuracy", "aligned acc."),
    Rate("worst_group_accuracy", "worst group"),
    Rate("accuracy", "accuracy"),
    Rate("corrupted_accuracy", "on corrupted pictures"),
)


class Mapped(NamedTuple):
    """The data with its maps, which all modes share."""

    dataset: Dataset
    maps: np.ndarray
    """`[n h w]` of the training pictures, each by a network that has not been trained on it."""
    seed: int
    trial: bool
    said: dict[str, object]


def _measure(work: Work) -> Iterator[Measured]:
    assert work.data_dir is not None
    yield from by_case(work, functools.partial(_prepare, work.data_dir, work.trial), _measure_mode)


def _prepare(folder: Path, trial: bool, level: Level, seed: int) -> Mapped:
    attribute = "Male" if level == "Blond_Hair" else "Blond_Hair"
    sizes = {"cells": (8, 16, 24, 0), "per_cell": 3, "image_size": 24} if trial else {"image_size": 128}
    dataset = celeba_four_cells(folder, target=str(level), attribute=attribute, seed=seed, **sizes)
    train = dataset.splits["train"]
    net = patch_net(patch=8 if trial else PATCH, classes=len(dataset.attribute_names))
    config = PatchFitConfig(stride=STRIDE, steps=2 if trial else 700)
    key_fit, key_fold = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1))
    fitted = fit_patches(key_fit, net, train.x, train.attribute, config=config)
    edit = dataset.splits["edit"]
    said = localise(fitted.general_map(edit.x, edit.attribute, confidence="pointwise"))
    maps = out_of_fold_maps(key_fold, net, train.x, train.attribute, config).maps
    place = {"patch_accuracy": fitted.accuracy, "spread": bool(said.spread), "top_share": said.top_share}
    return Mapped(dataset, np.asarray(maps), seed, trial, place)


def _measure_mode(mode: str, case: Mapped) -> dict[str, object]:
    dataset, train, test = case.dataset, case.dataset.splits["train"], case.dataset.splits["test"]
    began = time.perf_counter()
    network = _network(case)
    hidden, seen = _corruptions(mode, case.maps)
    plain = erm(network, optimizer=OPTIMIZER)
    learner = plain if hidden is None else patch_noise(plain, hidden)
    data = train._replace(twin=None, mask=None, unit=None)
    config = FitConfig(epochs=1 if case.trial else EPOCHS, batch_size=16 if case.trial else BATCH)
    params = fit(jax.random.key(case.seed), learner, data, config).state.variables
    seconds = time.perf_counter() - began

    def logits(x: np.ndarray) -> np.ndarray:
        return np.asarray(predict_rows(network.apply, params, x))

    report = group_report(logits(test.x), test, dataset.aligned)
    row: dict[str, object] = {
        name: getattr(report, name).value
        for name in ("accuracy", "bias_aligned_accuracy", "bias_conflicting_accuracy", "worst_group_accuracy")
    }
    if seen is not None:
        x = np.asarray(corrupt(jax.random.fold_in(jax.random.key(case.seed), 2), test.x, seen))
        row["corrupted_accuracy"] = float((logits(x).argmax(1) == test.label).mean())
    return {**row, **case.said, "seconds": seconds}


def _network(case: Mapped) -> Classifier:
    """Three convolutions and two dense layers, as the release has; without its dropout and batch statistics."""
    return pooled_cnn(channels=(4, 4, 4), classes=2) if case.trial else cnn(channels=(6, 12, 24), dense=100, classes=2)


def _corruptions(mode: str, maps: np.ndarray) -> tuple[Corruption | None, Corruption | None]:
    """What is hidden in training, and in the corrupted test pictures; the control hides as many random pixels."""
    if mode == "plain":
        return None, None
    if mode == "random_noise":
        control = corruption(random_pixels(quantile_mask(maps.mean(axis=0))), PatchNoiseConfig())
        return control, control
    return corruptions_of_mode(mode, maps)


def _settings(mode: str) -> object:
    del mode
    return {"patch": PATCH, "stride": STRIDE, "batch": BATCH, "epochs": EPOCHS, "optimizer": OPTIMIZER}


PATCH_ATTRIBUTION = (
    Experiment(
        name="patch-celeba",
        title="noise where the bias can be read, four modes and a control, faces of which a cell is missing",
        paper="Model-agnostic data attribution",
        place="experiment of the release",
        measure=_measure,
        settings=_settings,
        rates=RATES,
        methods=METHODS,
        usual=METHODS,
        levels=LEVELS,
        level="target",
        seeds=5,
        baseline="plain",
        against=tuple((mode, "random_noise") for mode in MODES),
        cost="a day on two cores, an hour on a GPU (estimates)",
        files=Files("CelebA's two .txt lists and img_align_celeba/, in DIR or DIR/celeba", celeba_folder),
        trial=Trial(levels=("Male",), methods=("plain", "general_noise"), write=write_celeba),
    ),
)
