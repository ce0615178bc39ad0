"""What a training run is made of: the configuration, and what suits each data set where it says nothing."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Suppress, arg

from jaxdebias.app.option_types import Bool, Float, Folder, Int
from jaxdebias.contracts import expect
from jaxdebias.mitigate._methods import METHODS, TRAINING, choices, help_text
from jaxdebias.models._registry import BUILDERS


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What suits a data set when the user says nothing, and what its attribute and samples are called."""

    model: str
    model_options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    direction: str = "ext"
    attribute: str = "attribute"
    items: str = "samples"
    mirrored: bool = False
    """Whether the mirror image of a sample still shows its label; then training with `augment` mirrors, too."""


RECIPES = {
    "digits": Recipe(
        model="mlp", model_options={"hidden": (64, 64)}, epochs=150, batch_size=64, attribute="colour", items="digits"
    ),
    "scenes": Recipe(model="cnn", epochs=15, batch_size=64, attribute="background", items="images"),
    "glyphs": Recipe(model="cnn", epochs=15, batch_size=64, attribute="second letter", items="images"),
    "faces": Recipe(model="cnn", epochs=20, batch_size=64, attribute="appearance", items="faces", mirrored=True),
    "colored-mnist": Recipe(
        model="mlp", model_options={"initial": "he"}, epochs=20, batch_size=256, attribute="colour", items="digits"
    ),
    "corrupted-cifar10": Recipe(
        model="cnn", epochs=20, batch_size=256, attribute="corruption", items="images", mirrored=True
    ),
    "adult": Recipe(model="mlp", epochs=15, batch_size=256, weight_decay=1e-2, direction="gradB", items="people"),
    "utkface": Recipe(model="cnn", epochs=12, batch_size=64, items="faces", mirrored=True),
    "utkface-darkened": Recipe(
        model="cnn", epochs=14, batch_size=64, attribute="brightness", items="faces", mirrored=True
    ),
    "utkface-planted": Recipe(model="pooled-cnn", epochs=10, batch_size=32, attribute="marker", items="faces"),
    "celeba": Recipe(model="cnn", epochs=10, batch_size=256, items="faces", mirrored=True),
    "celeba-four-cells": Recipe(model="cnn", epochs=10, batch_size=128, items="faces", mirrored=True),
    "celeba-mask": Recipe(model="pooled-cnn", epochs=10, batch_size=256, items="faces", mirrored=True),
    "waterbirds": Recipe(
        model="pooled-cnn", epochs=15, batch_size=64, attribute="background", items="images", mirrored=True
    ),
    "composites": Recipe(
        model="pooled-cnn", epochs=22, batch_size=64, attribute="place", items="images", mirrored=True
    ),
    "folder": Recipe(model="cnn", epochs=30, batch_size=64, items="images"),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What to train, on what; by default what suits the data set and the method."""

    data: str
    """Name of the data set: see `data list`."""
    data_dir: Folder = None
    """Folder with its files; by default $JAXDEBIAS_DATA."""
    options: Annotated[Mapping[str, Any], Suppress] = field(default_factory=dict)
    """Options of the data set's builder, for instance {"conflicting": 0.02}."""
    method: Annotated[str, arg(metavar="{" + ",".join(choices(TRAINING)) + "}", help=help_text(TRAINING))] = "erm"
    """Name of a training method, a key of `mitigate._methods.METHODS`."""
    model: Annotated[str | None, arg(metavar="{" + ",".join(BUILDERS) + "}", help_behavior_hint="")] = None
    """Network to train."""
    weights: Folder = None
    """State dict of torchvision that a ResNet starts from."""
    epochs: Int = None
    """Passes over the training set."""
    batch_size: Int = None
    """Samples per step."""
    learning_rate: Float = None
    """Highest learning rate."""
    weight_decay: Float = None
    """Decoupled weight decay (AdamW)."""
    augment: Bool = None
    """Shift pictures at random, mirror where labels survive."""
    seed: int = 0
    """Seed of data, model and training."""


def resolve(config: TrainConfig) -> TrainConfig:
    """The configuration with the recipe's values where the user gave none, and checked."""
    recipe, method = RECIPES[config.data], METHODS[config.method]
    if config.model is None and method.model is not None:
        config = dataclasses.replace(config, model=method.model)
    if config.augment is None:
        config = dataclasses.replace(config, augment=method.augment)
    expect(
        config.method != "aug-cell" or config.augment,
        "augment",
        "left on: by turned pictures aug-cell guesses",
        config.augment,
    )
    expect(
        method.kind != "trainings" or config.weight_decay is None,
        "weight_decay",
        f"none with {config.method}",
        config.weight_decay,
    )
    names = ("model", "epochs", "batch_size", "learning_rate", "weight_decay")
    config = dataclasses.replace(
        config, **{name: getattr(recipe, name) for name in names if getattr(config, name) is None}
    )
    for name in ("epochs", "batch_size"):
        expect(getattr(config, name) >= 1, name, "at least 1", getattr(config, name))
    expect(
        config.weights is None or method.one_network, "weights", "a method that trains one classifier", config.method
    )
    expect(
        config.weights is None or config.model.startswith("resnet"),
        "weights",
        "a model resnet18 or resnet50",
        config.model,
    )
    if config.data_dir is not None:
        # A run is read back from anywhere.
        config = dataclasses.replace(config, data_dir=Path(config.data_dir).resolve())
    return config


def model_options(config: TrainConfig) -> Mapping[str, Any]:
    """Options of the network's builder: the recipe's, for the network of the recipe."""
    recipe = RECIPES[config.data]
    return recipe.model_options if config.model == recipe.model else {}
