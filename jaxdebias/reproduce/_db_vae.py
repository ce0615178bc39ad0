"""DB-VAE for facial expressions (Amigo, Rivas and Marks 2023, after Amini et al. 2019): rules and alphas side by side.

The paper's tables were not available. What is reported is what the first paper reports: mean and variance over groups,
beside precision and the worst group, over five restarts. Groups are expressions, on RAF-DB those of each gender.
"""

import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxdebias.batching import predict_rows
from jaxdebias.contracts import check_choice
from jaxdebias.core import Dataset
from jaxdebias.data import fer2013, raf_db
from jaxdebias.data._sets.fer2013 import fer2013_folder
from jaxdebias.data._sets.raf_db import raf_db_folder
from jaxdebias.mitigate import EQUATION_4, MIT_LAB, DbVaeConfig, RarityConfig, dbvae, erm
from jaxdebias.models import VaeClassifier, vae_classifier
from jaxdebias.reproduce._experiment import Experiment, Files, Level, Measured, Rate, Trial, Work, by_case
from jaxdebias.reproduce._miniatures import write_fer2013, write_raf_db
from jaxdebias.train._augment import chain, random_flip, random_shift
from jaxdebias.train._run import FitConfig, fit

ALPHAS = (0.1, 0.05, 0.01, 0.001)
RULES = {"equation 4": EQUATION_4, "max": MIT_LAB, "ours": RarityConfig()}
ARMS: dict[str, DbVaeConfig | None] = {
    "plain": None,
    "vae": DbVaeConfig(sampling="uniform"),
    **{
        f"{rule}, alpha {alpha:g}": DbVaeConfig(rarity=RarityConfig(**{**vars(rarity), "alpha": alpha}))
        for rule, rarity in RULES.items()
        for alpha in ALPHAS
    },
}
"""`plain` trains the encoder with its class head alone; `vae` draws every row once, the control of all that follow."""
LATENT, BATCH, EPOCHS = 16, 64, 30
RATES = (
    Rate("group_mean", "mean of groups"),
    Rate("variance", "variance of groups, %²", percent=False),
    Rate("worst_group", "worst group"),
    Rate("precision", "precision"),
    Rate("accuracy", "accuracy"),
)


class Faces(NamedTuple):
    """A data set with the networks' size."""

    dataset: Dataset
    seed: int
    trial: bool


def _measure(load: str, work: Work) -> Iterator[Measured]:
    assert work.data_dir is not None
    folder = work.data_dir
    yield from by_case(
        work, lambda level, seed: Faces(_load(load, folder, level, seed), seed, work.trial), _measure_arm
    )


def _load(name: str, folder: Path, level: Level, seed: int) -> Dataset:
    check_choice("levels", str(level), LEVELS[name])
    if name == "fer2013":
        return fer2013(folder, seed=seed)
    return raf_db(folder, attribute="none" if level == "expressions" else str(level), seed=seed)


LEVELS = {"fer2013": ("expressions",), "raf-db": ("expressions", "gender", "race", "age")}


def _measure_arm(arm: str, faces: Faces) -> dict[str, object]:
    """One network, trained to the last epoch; first weights and order are those of its seed in every arm."""
    dataset, test = faces.dataset, faces.dataset.splits["test"]
    began = time.perf_counter()
    model = _model(dataset, faces.trial)
    augment = chain(random_flip, random_shift(2))
    config = ARMS[arm]
    learner = erm(model.classifier, augment=augment) if config is None else dbvae(model, config, augment=augment)
    data = dataset.splits["train"]._replace(twin=None, mask=None, unit=None)
    limits = {"steps_per_epoch": 2} if faces.trial else {}
    settings = FitConfig(epochs=3 if faces.trial else EPOCHS, batch_size=BATCH, draws="systematic", **limits)
    result = fit(jax.random.key(faces.seed), learner, data, settings)
    seconds = time.perf_counter() - began
    predicted = np.asarray(predict_rows(learner.predict, result.state, test.x)).argmax(1)
    return {**over_groups(predicted, test.label, test.attribute, len(dataset.label_names)), "seconds": seconds}


def _model(dataset: Dataset, trial: bool) -> VaeClassifier:
    image, classes = tuple(dataset.splits["train"].x.shape[1:]), len(dataset.label_names)
    decoder = {"decoder": (8,)} if trial else {}
    return vae_classifier(image=image, classes=classes, latent=4 if trial else LATENT, **decoder)


def over_groups(predicted: np.ndarray, label: np.ndarray, attribute: np.ndarray, classes: int) -> dict[str, object]:
    """Accuracy of every (label, attribute) group that there is, their mean, variance (per cent squared, ddof 1) and
    least; precision as the mean over classes, 0 of a class that is never predicted.

    Args:
      predicted: `[n]` classes.
      label: `[n]` 0..k-1.
      attribute: `[n]`; where it is nowhere known, groups are the labels; else rows of unknown attribute are left out.
      classes: k.
    """
    known = attribute >= 0
    value, counted = (attribute, known) if known.any() else (np.zeros_like(label), np.ones(len(label), bool))
    right = predicted == label
    groups = {
        (int(y), int(a)): float(right[counted & (label == y) & (value == a)].mean())
        for y, a in sorted(set(zip(label[counted].tolist(), value[counted].tolist(), strict=True)))
    }
    rates = np.array(list(groups.values()))
    precision = [right[predicted == y].mean() if (predicted == y).any() else 0.0 for y in range(classes)]
    return {
        "group_mean": rates.mean(),
        "variance": np.var(100 * rates, ddof=1),
        "worst_group": rates.min(),
        "precision": np.mean(precision),
        "accuracy": right.mean(),
        "groups": [{"label": y, "attribute": a, "accuracy": rate} for (y, a), rate in groups.items()],
    }


def _settings(arm: str) -> object:
    return {"arm": ARMS[arm], "latent": LATENT, "batch": BATCH, "epochs": EPOCHS}


def _experiment(name: str, load: str, title: str, files: Files, write: object) -> Experiment:
    return Experiment(
        name=name,
        title=title,
        paper="DB-VAE for expressions",
        place="table of restarts, as of the first paper",
        measure=functools.partial(_measure, load),
        settings=_settings,
        rates=RATES,
        methods=tuple(ARMS),
        usual=tuple(ARMS),
        levels=LEVELS[load],
        level="groups",
        seeds=5,
        baseline="plain",
        against=tuple((arm, "vae") for arm in ARMS if arm not in ("plain", "vae")),
        cost="days on two cores, hours on a GPU (estimates)",
        files=files,
        trial=Trial(levels=LEVELS[load][-2:][:1], methods=("plain", "max, alpha 0.01"), write=write),  # pyright: ignore[reportArgumentType]
    )


DB_VAE = (
    _experiment(
        "dbvae-fer2013",
        "fer2013",
        "draws by rarity in latent space on FER2013: three rules, four alphas, five restarts",
        Files("fer2013.csv, icml_face_data.csv or the packed copies, in DIR or DIR/fer2013", fer2013_folder),
        write_fer2013,
    ),
    _experiment(
        "dbvae-raf-db",
        "raf-db",
        "the same on RAF-DB, groups of expression and gender, race or age",
        Files("RAF-DB's folder basic, in DIR, DIR/RAF-DB or DIR/raf_db", raf_db_folder),
        write_raf_db,
    ),
)
