"""Fast Model Debias (Chen et al. 2023): repairs of one trained model beside the honest alternatives, on four data sets.

The paper's tables put FMD beside methods that train (LfF, LDR, Rebias, GroupDRO); here stand also what is as cheap:
heads that are fitted again, fine-tuning, training on the held-out samples alone. On digits and coloured digits there
are true counterfactuals; on faces pairs are two people, so methods are told so (`bias="gap"`).
Margins were fixed before the first run (they come from a prototype's seeds).
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxdebias.batching import unpair
from jaxdebias.core import Dataset, repair_sets
from jaxdebias.data import celeba, colored_mnist, digits, utkface
from jaxdebias.data._sets.celeba import celeba_folder
from jaxdebias.data._sets.colored_mnist import mnist_folder
from jaxdebias.data._sets.utkface import utkface_folder
from jaxdebias.explain.influence import Mix
from jaxdebias.mitigate import FmdConfig, fmd
from jaxdebias.reproduce._experiment import (
    ACCURACIES,
    Experiment,
    Files,
    Level,
    Margin,
    Measured,
    Rate,
    Trial,
    Work,
    by_case,
)
from jaxdebias.reproduce._fmd_samples import NAMES as SAMPLES
from jaxdebias.reproduce._fmd_samples import sample_repairs
from jaxdebias.reproduce._miniatures import write_celeba, write_mnist, write_utkface
from jaxdebias.reproduce._recoloured import retrained
from jaxdebias.reproduce._repairs import Case, Repair, alternatives, fmd_repairs, measure_method
from jaxdebias.reproduce._training import Setting

PAPER = "Fast Model Debias"
RATES = (*ACCURACIES, Rate("counterfactual_bias", "bias"), Rate("group_gap", "gap"))
Repairs = Mapping[str, Repair]


class Table(NamedTuple):
    """What an experiment is made of."""

    load: Callable[[Path | None, Level, int, bool], Dataset]
    """(folder, level, seed, trial) -> data set."""
    setting: Setting
    repairs: Callable[[Case], Repairs]


def _measure(table: Table, work: Work) -> Iterator[Measured]:
    def prepare(level: Level, seed: int) -> Case:
        dataset = table.load(work.data_dir, level, seed, work.trial)
        setting = table.setting.small() if work.trial else table.setting
        return Case(dataset, work.data_dir, setting, seed, work.trial, table.repairs)

    yield from by_case(work, prepare, measure_method)


def _settings(table: Table, method: str) -> object:
    del method
    return table.setting.described()


# --- digits


def _digits(folder: Path | None, level: Level, seed: int, trial: bool) -> Dataset:
    del folder, trial
    return digits(conflicting=float(level), seed=seed)


def _digits_repairs(case: Case) -> Repairs:
    """As everywhere, and the step that the paper takes, which ruins a trained network."""
    dataset, (classifier, params, *_) = case.dataset, case.trained
    sets = repair_sets(dataset)
    assert sets.edit is not None
    assert sets.accept is not None
    single = FmdConfig(direction="ext", rounds=1, search=False)
    trap = Repair(
        "held-out pairs",
        len(sets.edit.label) + len(sets.accept.label),
        lambda: fmd(case.key("edit"), classifier.vector, params, sets, single),
    )
    pairs, every = unpair(dataset.pairs["edit"]), dataset.splits["edit_every_colour"]
    others = alternatives(case, pairs, every, select="accuracy", layers=2, mixed={})
    return {**dict(fmd_repairs(case, {"": 0.10}, layers=2)), **dict(others), "fmd ext, one step at t = 1": trap}


# --- coloured digits


def _colored_mnist(folder: Path | None, level: Level, seed: int, trial: bool) -> Dataset:
    assert folder is not None
    held_out = {"held_out": 40} if trial else {}
    return colored_mnist(folder, conflicting=float(level), seed=seed, every_colour_of_edit=True, **held_out)


def _colored_mnist_repairs(case: Case) -> Repairs:
    """Methods that fine-tune see both sides of the edit pairs; training from scratch sees the edit digits in all ten
    colours. The head is refitted on the training set joined by the twins of the edit pairs."""
    splits, pairs = case.dataset.splits, case.dataset.pairs
    mixed = {"params/layers_0/kernel": Mix(channels=3), "params/layers_0/bias": None}
    others = alternatives(
        case, unpair(pairs["edit"]), splits["edit_every_colour"], select="accuracy", layers=3, mixed=mixed
    )
    return {**dict(fmd_repairs(case, {"": 0.10}, layers=3)), **dict(others), **retrained(case)}


# --- faces


def _utkface(folder: Path | None, level: Level, seed: int, trial: bool) -> Dataset:
    assert folder is not None
    attribute, _, share = str(level).partition(", ")
    sizes = {"edit": 16, "accept": 16, "test": 16, "image_size": 24} if trial else {}
    return utkface(folder, attribute=attribute, conflicting=float(share.split()[0]) / 100, seed=seed, **sizes)


def _celeba(folder: Path | None, level: Level, seed: int, trial: bool) -> Dataset:
    assert folder is not None
    return celeba(folder, target=str(level), attribute="Male", seed=seed, image_size=16 if trial else 64)


def _face_repairs(floors: Mapping[str, float | None], case: Case) -> Repairs:
    """The baselines that train are given all faces of the edit split: no picture of the same person with another
    attribute exists. The block is the two dense layers; a third is a convolution."""
    edit = case.dataset.splits["edit"]
    others = alternatives(case, edit, edit, select="worst_group", layers=2, mixed={})
    return {**dict(fmd_repairs(case, floors, layers=2)), **dict(others)}


TRAINED = ("lff", "disent", "group-dro", "group-balanced", "jtt")
"""Methods that train, with the bias labels of all training samples where they need them."""
FACES = ("dfr l2", "dfr l1", "refit head", "fine-tune head", "fine-tune 2 layers", "fine-tune all", "self-influence")
TABLES = {
    "digits": Table(
        _digits, Setting(model="mlp", options={"hidden": (64, 64)}, epochs=150, batch_size=64), _digits_repairs
    ),
    "colored-mnist": Table(
        _colored_mnist,
        Setting(model="mlp", options={"initial": "he"}, epochs=20, batch_size=256),
        _colored_mnist_repairs,
    ),
    "samples": Table(
        _colored_mnist, Setting(model="mlp", options={"initial": "he"}, epochs=20, batch_size=256), sample_repairs
    ),
    "utkface": Table(
        _utkface,
        Setting(model="cnn", epochs=12, batch_size=64),
        functools.partial(_face_repairs, {"": 0.10, ", no floor": None}),
    ),
    "celeba": Table(
        _celeba,
        Setting(model="cnn", epochs=10, batch_size=256),
        functools.partial(_face_repairs, {"": 0.10}),
    ),
}
COLOURED_MARGINS = (
    Margin("erm", 0.005, "accuracy", ">=", 0.40),
    Margin("erm", 0.005, "accuracy", "<=", 0.46),
    Margin("erm", 0.01, "accuracy", ">=", 0.56),
    Margin("erm", 0.01, "accuracy", "<=", 0.60),
    Margin("erm", 0.02, "accuracy", ">=", 0.69),
    Margin("erm", 0.02, "accuracy", "<=", 0.73),
    *(
        Margin(method, level, rate, sign, bound)
        for level, *bounds in (
            (0.005, 0.82, 0.80, 0.22, 0.16, 0.87, 0.13),
            (0.01, 0.83, 0.82, 0.22, 0.14, 0.89, 0.11),
            (0.02, 0.88, 0.87, 0.13, 0.11, 0.90, 0.10),
        )
        for (method, rate, sign), bound in zip(
            (
                ("fmd ext", "accuracy", ">="),
                ("fmd ext", "bias_conflicting_accuracy", ">="),
                ("fmd ext", "counterfactual_bias", "<="),
                ("fmd gradB", "counterfactual_bias", "<="),
                ("fmd 3 layers ext", "accuracy", ">="),
                ("fmd 3 layers ext", "counterfactual_bias", "<="),
            ),
            bounds,
            strict=True,
        )
    ),
)
EDITS = ("fmd ext", "fmd gradB")


def _experiment(name: str, **more: object) -> Experiment:
    table = TABLES[name]
    return Experiment(
        name=f"fmd-{name}",
        measure=functools.partial(_measure, table),
        settings=functools.partial(_settings, table),
        rates=RATES,
        **more,  # pyright: ignore[reportArgumentType]
    )


_TRIED = ("erm", "fmd ext", "dfr l2", "fine-tune head")
_COLOURED = (
    "erm",
    *EDITS,
    "fmd 3 layers ext",
    "fmd 3 layers gradB",
    "dfr l2",
    "dfr l1",
    "refit head",
    "fine-tune head",
    "fine-tune 3 layers",
    "fine-tune mixing and head",
    "fine-tune mixing and 2 layers",
    "fine-tune all",
    "self-influence",
    "scratch",
    "retrain, counterfactuals",
    "retrain, recoloured",
    "lff",
    "disent",
)
_UTKFACE = (
    "erm",
    *EDITS,
    "fmd ext, no floor",
    "fmd gradB, no floor",
    "fmd 2 layers ext",
    "fmd 2 layers gradB",
    *FACES,
    "scratch",
)
_CELEBA = ("erm", *EDITS, "fmd 2 layers ext", "fmd 2 layers gradB", *FACES, *TRAINED, "scratch")
_DIGITS = (
    "erm",
    *EDITS,
    "fmd ext, one step at t = 1",
    "fmd 2 layers ext",
    "fmd 2 layers gradB",
    "dfr l2",
    "dfr l1",
    "refit head",
    "fine-tune head",
    "fine-tune 2 layers",
    "fine-tune all",
    "self-influence",
    "scratch",
)
FAST_MODEL_DEBIAS = (
    _experiment(
        "digits",
        title="FMD and the honest alternatives on the embedded digits",
        paper="ours",
        place="needs no files",
        methods=_DIGITS,
        usual=("erm", *EDITS, "fmd ext, one step at t = 1", "dfr l2", "fine-tune all", "scratch"),
        levels=(0.02,),
        level="conflicting",
        open_levels=True,
        seeds=5,
        cost="minutes on two cores",
        margins=(
            Margin("erm", 0.02, "accuracy", "<=", 0.65),
            Margin("erm", 0.02, "counterfactual_bias", ">=", 0.42),
            Margin("fmd ext", 0.02, "accuracy", ">=", 0.80),
            Margin("fmd ext", 0.02, "counterfactual_bias", "<=", 0.20),
            Margin("fmd ext, one step at t = 1", 0.02, "accuracy", "<=", 0.25),
        ),
        trial=Trial(levels=(0.02,), methods=_TRIED),
    ),
    _experiment(
        "colored-mnist",
        title="FMD beside methods that train and as cheap alternatives, coloured digits",
        paper=PAPER,
        place="table of Colored MNIST",
        methods=_COLOURED,
        usual=_COLOURED,
        levels=(0.005, 0.01, 0.02),
        level="conflicting",
        open_levels=True,
        seeds=5,
        cost="hours on two cores, less than one on a GPU (estimates)",
        files=Files("MNIST's four .gz files, in DIR or DIR/mnist", mnist_folder),
        margins=COLOURED_MARGINS,
        trial=Trial(levels=(0.02,), methods=_TRIED, write=write_mnist),
    ),
    _experiment(
        "samples",
        title="which training samples FMD should replace or remove, coloured digits",
        paper=PAPER,
        place="ablation of samples",
        methods=("erm", *SAMPLES),
        usual=("erm", *SAMPLES),
        levels=(0.005,),
        level="conflicting",
        open_levels=True,
        seeds=3,
        cost="minutes on two cores",
        files=Files("MNIST's four .gz files, in DIR or DIR/mnist", mnist_folder),
        trial=Trial(levels=(0.02,), methods=("erm", "replace, by action score, K=500"), write=write_mnist),
    ),
    _experiment(
        "celeba",
        title="the same on faces: Blond_Hair and Attractive, with Male as the bias",
        paper=PAPER,
        place="table of CelebA",
        methods=_CELEBA,
        usual=_CELEBA,
        levels=("Blond_Hair", "Attractive"),
        level="target",
        seeds=5,
        cost="days on two cores, hours on a GPU (estimates)",
        files=Files("CelebA's two .txt lists and img_align_celeba/, in DIR or DIR/celeba", celeba_folder),
        trial=Trial(levels=("Blond_Hair",), methods=_TRIED, write=write_celeba),
    ),
    _experiment(
        "utkface",
        title="the same on UTKFace: gender, with age or race as the bias",
        paper="ours",
        place="faces at hand",
        methods=_UTKFACE,
        usual=_UTKFACE,
        levels=("age, 2 %", "age, 10 %", "race, 2 %"),
        level="bias",
        seeds=5,
        cost="an hour or two on two cores (estimate)",
        files=Files("utkface_96.npz or UTKFace's .jpg files, in DIR, DIR/utkface or DIR/UTKFace", utkface_folder),
        margins=(
            Margin("erm", "age, 2 %", "group_gap", ">=", 0.5),
            Margin("erm", "age, 2 %", "bias_conflicting_accuracy", "<=", 0.42),
            Margin("fmd ext, no floor", "age, 2 %", "group_gap", "<=", 0.20),
        ),
        trial=Trial(levels=("age, 10 %",), methods=_TRIED, write=write_utkface),
    ),
)
