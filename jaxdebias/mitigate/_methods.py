"""Training methods by the name that a user types: the network that each needs, and the learner that trains it.

Only methods that need nothing beyond the training split are here. Code imports the learners themselves.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from jaxdebias import auditing, models
from jaxdebias.contracts import expect
from jaxdebias.core import Array, Batch, Classifier, Dataset, Key, Learner, Params
from jaxdebias.mitigate._aug_cell import AugCellConfig, AugCellInfo, aug_cell
from jaxdebias.mitigate._dbvae.learner import dbvae
from jaxdebias.mitigate._erm import erm
from jaxdebias.mitigate._gce import gce
from jaxdebias.mitigate._group_balanced import group_balanced
from jaxdebias.mitigate._group_dro import group_dro
from jaxdebias.mitigate._lff import lff
from jaxdebias.mitigate._sih import sih
from jaxdebias.models._vae_classifier import VaeClassifier
from jaxdebias.train._augment import chain, random_affine, random_flip, random_shift
from jaxdebias.train._optimizer import Optimizer

Augment = Callable[[Key, Array], Any]
LearnerOf = Callable[[Optimizer, Batch, Augment | None], Learner]
"""(optimizer, training rows, augment) -> learner."""
ENOUGH = 20_000
"""Training samples of which AUG-CELL keeps a tenth to compare by; of fewer, a quarter."""


class Trainee(NamedTuple):
    """What a run trains."""

    classifier: Classifier
    """What predicts, of the variables that the learner's state holds: all of the network, whatever else is in it."""
    learner: LearnerOf | None
    """None where `fit` trains."""
    vae: VaeClassifier | None = None
    """Of DB-VAE."""
    fit: Callable[..., tuple[Params, AugCellInfo]] | None = None
    """Of AUG-CELL, which is several trainings: (key, training rows, augment, steps=, batch_size=, learning_rate=,
    observe=) -> what `aug_cell` returns."""


class Method(NamedTuple):
    make: Callable[[str, Mapping[str, Any], Dataset], Trainee]
    """(model, options of its builder, data) -> trainee."""
    model: str | None = None
    """What it trains by default; None: what suits the data set."""
    augment: bool = False
    """Whether pictures are shifted and mirrored by default."""
    draws: Literal["independent", "systematic"] = "independent"
    """As in `FitConfig`."""
    one_network: bool = True
    """Whether the variables are those of one classifier, which may start from given weights."""
    pictures: bool = False
    """Whether it needs pictures."""


def _of_classifier(learner: Callable[[Classifier, Optimizer, Batch, Dataset, Augment | None], Learner]) -> Any:
    """The `make` of a method that trains any classifier."""

    def make(model: str, options: Mapping[str, Any], dataset: Dataset) -> Trainee:
        network = models.build(model, classes=len(dataset.label_names), **options)
        return Trainee(network, lambda optimizer, data, augment: learner(network, optimizer, data, dataset, augment))

    return make


def _dbvae(model: str, options: Mapping[str, Any], dataset: Dataset) -> Trainee:
    """The encoder of our measurements, or any network by its name; latents as measured for faces of that size."""
    image, classes = tuple(dataset.splits["train"].x.shape[1:]), len(dataset.label_names)
    expect(
        not model.startswith("resnet"), "model", "a network without batch normalisation, such as cnn, for dbvae", model
    )
    encoder = None if model == "cnn" else models.build(model, classes=classes, **options)
    vae = models.vae_classifier(image=image, classes=classes, latent=8 if max(image[:2]) <= 32 else 16, encoder=encoder)
    return Trainee(vae.classifier, lambda optimizer, data, augment: dbvae(vae, optimizer, augment=augment), vae)


def _sih(model: str, options: Mapping[str, Any], dataset: Dataset) -> Trainee:
    del options  # the branches' layers are their own
    image, classes = tuple(dataset.splits["train"].x.shape[1:]), len(dataset.label_names)
    expect(model in ("mlp", "resnet18"), "model", "mlp or resnet18, for the branches of sih", model)
    expect(model == "mlp" or image == (32, 32, 3), "model", "mlp for pictures other than 32 x 32 in colour", model)
    branches = models.mlp_vae(image=image, classes=classes) if model == "mlp" else models.resnet_vae(classes=classes)
    return Trainee(
        branches.signal, lambda optimizer, data, augment: sih(branches, optimizer=optimizer, augment=augment)
    )


def _aug_cell(model: str, options: Mapping[str, Any], dataset: Dataset) -> Trainee:
    """The judges are those of an audit: what it suspects is what is trained against."""
    classes = len(dataset.label_names)
    network, judge = models.build(model, classes=classes, **options), models.mlp(hidden=(100, 100), classes=classes)

    def fit(
        key: Key,
        data: Batch,
        augment: Augment,
        *,
        steps: int,
        batch_size: int,
        learning_rate: float,
        observe: Callable[[Any], None],
    ) -> tuple[Params, AugCellInfo]:
        config = AugCellConfig(
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            held_out=0.1 if len(data.label) >= ENOUGH else 0.25,
            cleaning_steps=min(1000, steps),
        )
        return aug_cell(key, network, data, config, judge=judge, augment=augment, observe=observe)

    return Trainee(network, None, fit=fit)


METHODS: dict[str, Method] = {
    "erm": Method(
        _of_classifier(lambda network, optimizer, data, dataset, augment: erm(network, optimizer, augment=augment))
    ),
    "gce": Method(
        _of_classifier(lambda network, optimizer, data, dataset, augment: gce(network, optimizer, augment=augment))
    ),
    "group-balanced": Method(
        _of_classifier(
            lambda network, optimizer, data, dataset, augment: group_balanced(
                network,
                optimizer,
                classes=dataset.aligned.shape[0],
                attributes=dataset.aligned.shape[1],
                augment=augment,
            )
        )
    ),
    "group-dro": Method(
        _of_classifier(
            lambda network, optimizer, data, dataset, augment: group_dro(
                network, optimizer, counts=auditing.train_counts(dataset), augment=augment
            )
        )
    ),
    "lff": Method(
        _of_classifier(
            lambda network, optimizer, data, dataset, augment: lff(
                network, optimizer, samples=len(data.label), augment=augment
            )
        ),
        one_network=False,
    ),
    "sih": Method(_sih, model="mlp", one_network=False, pictures=True),
    "aug-cell": Method(_aug_cell, augment=True, one_network=False, pictures=True),
    "dbvae": Method(_dbvae, model="cnn", augment=True, draws="systematic", one_network=False, pictures=True),
}
"""Their schedule is the data set's recipe, for all alike: the protocols of the papers' tables are in `reproduce`."""


def trainee(method: str, model: str, dataset: Dataset, options: Mapping[str, Any] | None = None) -> Trainee:
    """What `method` trains with the network called `model`.

    Args:
      options: of the network's builder.

    Raises:
      ContractError: a network that is not known or does not fit the method or the data.
    """
    of, pictures = METHODS[method], dataset.splits["train"].x.ndim == 4
    expect(pictures or not of.pictures, "method", "one for tables: erm, gce, group-balanced, group-dro or lff", method)
    expect(pictures or model == "mlp", "model", "mlp for a table", model)
    return of.make(model, options or {}, dataset)


def views(dataset: Dataset, *, mirrored: bool, turned: bool = False) -> Augment:
    """Random shifts by some 4 % of a picture, and mirror images where these still show the label.

    Args:
      turned: turned and stretched as well, and shifted by a tenth: what breaks shapes for AUG-CELL.

    Raises:
      ContractError: a table.
    """
    x = dataset.splits["train"].x
    expect(x.ndim == 4, "augment", "pictures", f"{dataset.name}, a table")
    size = max(x.shape[1:3])
    moved = random_affine(shift=3 * size / 28) if turned else random_shift(max(2, size // 24))
    return chain(random_flip, moved) if mirrored else moved
