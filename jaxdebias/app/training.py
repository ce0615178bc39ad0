"""What a run trains: the network that suits a method and a data set, and the learner or the fit on it."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxdebias import models
from jaxdebias.contracts import expect
from jaxdebias.core import Array, Batch, Classifier, Dataset, Key, Learner, Params, cell_counts
from jaxdebias.mitigate._aug_cell.info import AugCellInfo
from jaxdebias.mitigate._aug_cell.training import AugCellConfig, aug_cell
from jaxdebias.mitigate._jtt import JttConfig, JttInfo, jtt
from jaxdebias.mitigate._methods import METHODS, refuse_unmet
from jaxdebias.models._vae_classifier import VaeClassifier
from jaxdebias.train._augment import chain, random_affine, random_flip, random_shift
from jaxdebias.train._optimizer import Optimizer
from jaxdebias.train._plans import steps_per_epoch
from jaxdebias.train._run import FitConfig

Augment = Callable[[Key, Array], Any]
ENOUGH = 20_000
"""Training samples of which AUG-CELL keeps a tenth to compare by; of fewer, a quarter."""


class Training(NamedTuple):
    """What a run trains."""

    classifier: Classifier
    """What predicts, of the variables that the learner's state holds: all of the network, whatever else is in it."""
    learner: Callable[[Optimizer, Batch, Augment | None], Learner] | None
    """(optimizer, training rows, augment) -> learner; None where `fit` trains."""
    vae: VaeClassifier | None = None
    """Of DB-VAE."""
    fit: Callable[..., tuple[Params, AugCellInfo | JttInfo]] | None = None
    """Of AUG-CELL and JTT, which are several trainings: (key, training rows, augment, epochs=, batch_size=,
    learning_rate=, observe=) -> (params, info)."""


def build_training(method: str, model: str, dataset: Dataset, options: Mapping[str, Any] | None = None) -> Training:
    """What `method` trains with the network called `model`.

    Args:
      method: a key of `mitigate._methods.METHODS` that a command offers.
      model: a key of `models.NETWORKS`.
      dataset: gives the classes, the size of a picture and the groups.
      options: of the network's builder.

    Raises:
      ContractError: a method that needs what the data set lacks, a network that is not known or does not fit the method
        or the data.
    """
    row, options = METHODS[method], options or {}
    refuse_unmet(row, dataset)
    train = dataset.splits["train"]
    expect(train.x.ndim == 4 or model == "mlp", "model", "mlp for a table", model)
    network, classifier = NETWORKS[row.network](model, options, dataset)
    vae = network if isinstance(network, VaeClassifier) else None
    if row.kind == "trainings":
        fits = {"aug-cell": functools.partial(_fit_aug_cell, len(dataset.label_names)), "jtt": _fit_jtt}
        return Training(classifier, None, fit=functools.partial(fits[method], network))

    def learner(optimizer: Optimizer, data: Batch, augment: Augment | None) -> Learner:
        groups = cell_counts(data.label, data.attribute, *dataset.aligned.shape)
        return row.build(network, optimizer=optimizer, augment=augment, rows=len(data.label), groups=groups)

    return Training(classifier, learner, vae)


def _classifier(model: str, options: Mapping[str, Any], dataset: Dataset) -> tuple[Classifier, Classifier]:
    network = models.build(model, classes=len(dataset.label_names), **options)
    return network, network


def _vae(model: str, options: Mapping[str, Any], dataset: Dataset) -> tuple[VaeClassifier, Classifier]:
    """The encoder of our measurements, or any network by its name; latents as measured for faces of that size."""
    image, classes = tuple(dataset.splits["train"].x.shape[1:]), len(dataset.label_names)
    good = not model.startswith("resnet")
    expect(good, "model", "a network without batch normalisation, such as cnn, for dbvae", model)
    encoder = None if model == "cnn" else models.build(model, classes=classes, **options)
    vae = models.vae_classifier(image=image, classes=classes, latent=8 if max(image[:2]) <= 32 else 16, encoder=encoder)
    return vae, vae.classifier


def _branches(model: str, options: Mapping[str, Any], dataset: Dataset) -> tuple[Any, Classifier]:
    del options  # the branches' layers are their own
    image, classes = tuple(dataset.splits["train"].x.shape[1:]), len(dataset.label_names)
    expect(model in ("mlp", "resnet18"), "model", "mlp or resnet18, for the branches of sih", model)
    expect(model == "mlp" or image == (32, 32, 3), "model", "mlp for pictures other than 32 x 32 in colour", model)
    branches = models.mlp_vae(image=image, classes=classes) if model == "mlp" else models.resnet_vae(classes=classes)
    return branches, branches.signal


def _two_encoders(model: str, options: Mapping[str, Any], dataset: Dataset) -> tuple[Any, Classifier]:
    del options
    classes = len(dataset.label_names)
    expect(model in ("mlp", "resnet18"), "model", "mlp or resnet18, for the encoders of disent", model)
    build = models.mlp_two_encoders if model == "mlp" else models.resnet_two_encoders
    encoders = build(classes=classes)
    return encoders, encoders.classifier


NETWORKS = {"classifier": _classifier, "vae": _vae, "branches": _branches, "two encoders": _two_encoders}
"""What a method trains -> (model, options, data set) -> (its network, the classifier that predicts)."""


def _fit_jtt(
    network: Classifier,
    key: Key,
    data: Batch,
    augment: Augment | None,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    observe: Callable[[Any], None],
) -> tuple[Params, JttInfo]:
    """JTT as on CelebA: one epoch, then all of them with its errors counting 51 times as much."""
    del observe  # its trainings are not watched
    once = FitConfig(epochs=1, batch_size=batch_size)
    config = JttConfig(first=once, second=FitConfig(epochs=epochs, batch_size=batch_size))
    steps = epochs * steps_per_epoch(len(data.label), batch_size)
    optimizer = Optimizer(learning_rate=learning_rate, schedule="cosine", steps=steps)
    return jtt(key, network, data, config, optimizer, augment=augment)


def _fit_aug_cell(
    classes: int,
    network: Classifier,
    key: Key,
    data: Batch,
    augment: Augment,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    observe: Callable[[Any], None],
) -> tuple[Params, AugCellInfo]:
    """AUG-CELL with the judges of an audit: what it suspects is what is trained against."""
    steps = epochs * steps_per_epoch(len(data.label), batch_size)
    config = AugCellConfig(
        steps=steps,
        batch_size=batch_size,
        held_out=0.1 if len(data.label) >= ENOUGH else 0.25,
        cleaning_steps=min(1000, steps),
    )
    judge, optimizer = models.mlp(hidden=(100, 100), classes=classes), Optimizer(learning_rate=learning_rate)
    return aug_cell(key, network, data, config, optimizer, judge=judge, augment=augment, observe=observe)


def default_augment(dataset: Dataset, *, mirrored: bool, turned: bool = False) -> Augment:
    """Random shifts by some 4 % of a picture, and mirror images where these still show the label.

    Args:
      dataset: gives the size of a picture.
      mirrored: whether the mirror image of a sample shows its label.
      turned: turned and stretched as well, and shifted by a tenth: what breaks shapes for AUG-CELL.

    Raises:
      ContractError: a table.
    """
    x = dataset.splits["train"].x
    expect(x.ndim == 4, "augment", "pictures", f"{dataset.name}, a table")
    size = max(x.shape[1:3])
    moved = random_affine(shift=3 * size / 28) if turned else random_shift(max(2, size // 24))
    return chain(random_flip, moved) if mirrored else moved
