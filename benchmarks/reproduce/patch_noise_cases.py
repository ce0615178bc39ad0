"""The data sets and settings of patch_noise.py."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxdebias import models
from jaxdebias.core import Classifier, Dataset
from jaxdebias.data import _registry as registry
from jaxdebias.explain import PatchFit, PatchFitConfig, out_of_fold_maps
from jaxdebias.mitigate import (
    budget_mask,
    quantile_mask,
)
from jaxdebias.mitigate._patch_noise.masks import random_pixels, weakest_pixels

BUDGET = 0.9


@dataclass(frozen=True, kw_only=True)
class Case:
    """A bias, and how networks are trained on it."""

    load: Callable[..., Dataset]
    """(data_dir, seed, trial, ceiling) -> data set."""
    classifier: Classifier
    region: int | None
    """Label of the bias in the masks, for the oracle and the map's judgement; None: the masks do not have it."""
    patch: int = 16
    stride: int = 4
    patch_steps: int = 700
    batch_size: int = 64
    learning_rate: float = 2e-3
    epochs: int = 15
    steps_per_epoch: int = 40


def marker(data_dir: Path | None, seed: int, trial: bool, ceiling: bool) -> Dataset:
    sizes = {"edit": 200, "accept": 2600, "test": 60} if trial else {"edit": 200, "accept": 4, "test": 700}
    return registry.load(
        "utkface-planted", data_dir=data_dir, seed=seed, marked="never" if ceiling else "biased", **sizes
    )


def glyphs(data_dir: Path | None, seed: int, trial: bool, ceiling: bool) -> Dataset:
    sizes = {"train": 256, "test": 60} if trial else {"train": 2000, "test": 1000}
    return registry.load(
        "glyphs", seed=seed, conflicting=0.5 if ceiling else 0.05, edit=200, accept=4, image_size=64, **sizes
    )


def composites(data_dir: Path | None, seed: int, trial: bool, ceiling: bool) -> Dataset:
    sizes = {"train": 256, "test": 60} if trial else {"train": 3000, "test": 800}
    return registry.load(
        "composites", data_dir=data_dir, seed=seed, conflicting=0.5 if ceiling else 0.05, edit=200, accept=4, **sizes
    )


def digits(data_dir: Path | None, seed: int, trial: bool, ceiling: bool) -> Dataset:
    return registry.load("digits", seed=seed, conflicting=0.9 if ceiling else 0.02)


CASES: Mapping[str, Case] = {
    "marker": Case(
        load=marker,
        classifier=models.pooled_cnn(classes=2),
        region=1,
        patch_steps=500,
        batch_size=32,
        learning_rate=1.5e-3,
    ),
    "glyphs": Case(load=glyphs, classifier=models.pooled_cnn(classes=2), region=2, batch_size=32, learning_rate=1.5e-3),
    "composites": Case(load=composites, classifier=models.pooled_cnn(classes=2), region=0, epochs=25),
    "digits": Case(
        load=digits, classifier=models.cnn(classes=10), region=None, patch=8, stride=2, epochs=40, steps_per_epoch=15
    ),
}
PAPERS = ("plain", "noise", "zero", "swap", "random", "elsewhere", "ceiling")
ATTEMPTS = ("zero budget", "zero protected", "zero image", "swap image", "oracle")


def regions_of(
    case: Case, dataset: Dataset, fit: PatchFit, map_: np.ndarray, key: Any
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per arm the region of training images and that of test images, one `[h w]` or each its own."""
    train, test = dataset.splits["train"], dataset.splits["test"]
    top, budget = quantile_mask(map_), budget_mask(map_, BUDGET, floor=0.0)
    own = out_of_fold_maps(
        key, fit.net, train.x, train.attribute, PatchFitConfig(stride=case.stride, steps=case.patch_steps)
    ).maps
    image = tuple(budget_mask(maps, BUDGET, per_image=True, floor=0.0) for maps in (own, fit.image_maps(test.x)))
    random, weakest = random_pixels(top), weakest_pixels(map_, int(top.sum()))
    regions = {
        "noise": (top, top),
        "zero": (top, top),
        "swap": (top, top),
        "random": (random, random),
        "elsewhere": (weakest, weakest),
        "zero budget": (budget, budget),
        "zero image": image,
        "swap image": image,
    }
    if case.region is not None:
        regions["oracle"] = tuple(np.asarray(batch.mask) == case.region for batch in (train, test))
    return regions


def small(case: Case) -> Case:
    """The same case with next to no training."""
    return replace(case, patch_steps=4, epochs=1, steps_per_epoch=2)
