"""Benchmarks of worst groups and of released biased sets: Waterbirds, CelebA, bFFHQ and BAR, methods side by side.

Waterbirds and CelebA as in GroupDRO (Sagawa et al. 2020) and after: ResNet-50 with ImageNet weights, SGD with
momentum, the epoch chosen by the worst group of held-out rows. JTT has the settings of its paper. bFFHQ and BAR as in
DisEnt (Lee et al. 2021): ResNet-18, Adam. Settings that could not be read in a source are ours, and no published number
is shown.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Dataset, repair_sets
from jaxdebias.data import celeba, waterbirds
from jaxdebias.data._sets.aligned_folders import aligned_folder, aligned_folders
from jaxdebias.data._sets.celeba import celeba_folder
from jaxdebias.data._sets.waterbirds import waterbirds_folder
from jaxdebias.mitigate import DfrConfig, dfr
from jaxdebias.reproduce._experiment import Experiment, Files, Level, Measured, Rate, Trial, Work, by_case
from jaxdebias.reproduce._miniatures import write_aligned_folders, write_celeba, write_waterbirds
from jaxdebias.reproduce._repairs import Case, Repair, measure_method
from jaxdebias.reproduce._training import SELECTIONS, Setting
from jaxdebias.train._augment import chain, random_flip, random_shift
from jaxdebias.train._optimizer import Optimizer

RATES = (
    Rate("worst_group_accuracy", "worst group"),
    Rate("group_mean_accuracy", "mean of groups"),
    Rate("accuracy", "accuracy"),
    Rate("bias_conflicting_accuracy", "conflicting acc."),
)
RELEASED_RATES = (RATES[3], RATES[2], RATES[0])
"""Of bFFHQ and BAR the conflicting pictures are what is reported."""
METHODS = ("erm", "group-dro", "group-balanced", "jtt", "lff", "disent", "aug-cell", "dfr")
MIRRORED = chain(random_flip, random_shift(8))
SGD = Optimizer(name="sgd", learning_rate=1e-3, momentum=0.9, weight_decay=1e-4)


class Table(NamedTuple):
    """What an experiment is made of."""

    load: Callable[[Path, Level, int, bool], Dataset]
    """(folder, level, seed, trial) -> data set."""
    setting: Setting
    pretrained: bool
    """Whether training starts from torchvision's weights, which lie beside the data."""


def _measure(table: Table, work: Work) -> Iterator[Measured]:
    assert work.data_dir is not None
    folder = work.data_dir

    def prepare(level: Level, seed: int) -> Case:
        dataset = table.load(folder, level, seed, work.trial)
        setting = table.setting.small() if work.trial else table.setting
        if table.pretrained and not work.trial:
            setting = replace(setting, weights=find_weights(folder))
        return Case(dataset, folder, setting, seed, work.trial, _dfr)

    yield from by_case(work, prepare, measure_method)


def _settings(table: Table, method: str) -> object:
    del method
    return {**table.setting.described(), "pretrained": table.pretrained}


def find_weights(folder: Path) -> Path:
    """torchvision's state dict of a ResNet-50, `resnet50*.npz` or `.safetensors`, in the folder or beside it.

    Raises:
      ContractError: there is none.
    """
    kinds = (".npz", ".safetensors")
    files = [path for place in (folder, folder.parent) for path in sorted(place.glob("resnet50*"))]
    found = [path for path in files if path.suffix in kinds]
    wanted = "torchvision's weights, resnet50*.npz or resnet50*.safetensors"
    expect(len(found) > 0, "data_dir", wanted, f"{folder} without them")
    return found[0]


def _with_weights(find: Callable[[Path], Path], data_dir: Path) -> Path:
    folder = find(data_dir)
    find_weights(folder)
    return folder


def _dfr(case: Case) -> Mapping[str, Repair]:
    """DFR as published: L1, balanced subsamples, heads averaged, the penalty chosen by the worst group."""
    sets = repair_sets(case.dataset)
    assert sets.edit is not None
    assert sets.accept is not None
    config = DfrConfig(
        penalty_kind="l1",
        penalties=(10.0, 3.0, 1.0),
        balance_by="subsamples",
        averaged=2 if case.trial else 20,
        select="worst_group",
        tolerance=1e-2,
        max_steps=20 if case.trial else 1000,
    )
    samples = len(sets.edit.label) + len(sets.accept.label)
    classifier, params, *_ = case.trained
    fit = Repair(
        "held-out samples with attribute", samples, lambda: dfr(case.key("dfr"), classifier, params, sets, config)
    )
    return {"dfr": fit}


def _waterbirds(folder: Path, level: Level, seed: int, trial: bool) -> Dataset:
    del level
    return waterbirds(folder, image_size=16 if trial else 224, seed=seed, masks=False)


def _celeba(folder: Path, level: Level, seed: int, trial: bool) -> Dataset:
    return celeba(folder, target=str(level), attribute="Male", image_size=16 if trial else 224, seed=seed)


def _released(name: str, folder: Path, level: Level, seed: int, trial: bool) -> Dataset:
    return aligned_folders(folder, name=name, percent=str(level), image_size=16 if trial else 224, seed=seed)


def _check(method: str) -> None:
    """Methods that train may be followed by what chooses the epoch, `erm@mean`."""
    name, _, select = method.partition("@")
    check_choice("methods", name, METHODS)
    check_choice("methods", select or SELECTIONS[0], SELECTIONS)
    expect(not select or name != "dfr", "methods", "a method that trains, before @", method)


def _experiment(name: str, table: Table, **more: object) -> Experiment:
    return Experiment(
        name=name,
        measure=functools.partial(_measure, table),
        settings=functools.partial(_settings, table),
        methods=METHODS,
        usual=METHODS,
        check=_check,
        **more,  # pyright: ignore[reportArgumentType]
    )


WATERBIRDS = Table(
    _waterbirds,
    Setting(
        model="resnet50",
        epochs=300,
        batch_size=128,
        optimizer=SGD,
        cosine=False,
        augment=MIRRORED,
        select="worst-group",
        first_epochs=60,
        upweight=100.0,
        own={"jtt": Optimizer(name="sgd", learning_rate=1e-5, momentum=0.9, weight_decay=1.0)},
    ),
    pretrained=True,
)
CELEBA = Table(
    _celeba,
    Setting(
        model="resnet50",
        epochs=50,
        batch_size=128,
        optimizer=SGD,
        cosine=False,
        augment=MIRRORED,
        select="worst-group",
        first_epochs=1,
        upweight=50.0,
        own={"jtt": Optimizer(name="sgd", learning_rate=1e-5, momentum=0.9, weight_decay=0.1)},
    ),
    pretrained=True,
)
RELEASED = Setting(
    model="resnet18",
    epochs=100,
    batch_size=64,
    optimizer=Optimizer(learning_rate=1e-4),
    cosine=False,
    augment=MIRRORED,
)
TRIED = ("erm", "group-dro", "dfr")
WORST_GROUPS = (
    _experiment(
        "waterbirds",
        WATERBIRDS,
        title="worst group of methods with and without attribute labels, birds on land and water",
        paper="GroupDRO and after",
        place="table of Waterbirds",
        rates=RATES,
        levels=("all",),
        level="data",
        seeds=5,
        cost="not on CPUs; a day on one GPU (estimate)",
        files=Files(
            "the folder of group_DRO's generator in DIR, and torchvision's resnet50*.npz beside it",
            functools.partial(_with_weights, waterbirds_folder),
        ),
        trial=Trial(levels=("all",), methods=TRIED, write=write_waterbirds),
    ),
    _experiment(
        "celeba-groups",
        CELEBA,
        title="the same on faces: Blond_Hair, with Male as the bias",
        paper="GroupDRO and after",
        place="table of CelebA",
        rates=RATES,
        levels=("Blond_Hair",),
        level="target",
        seeds=5,
        cost="not on CPUs; days on one GPU (estimate)",
        files=Files(
            "CelebA's two .txt lists and img_align_celeba/ in DIR or DIR/celeba, and torchvision's resnet50*.npz",
            functools.partial(_with_weights, celeba_folder),
        ),
        trial=Trial(levels=("Blond_Hair",), methods=TRIED, write=write_celeba),
    ),
    _experiment(
        "bffhq",
        Table(functools.partial(_released, "bffhq"), RELEASED, pretrained=False),
        title="young or old, where gender goes with it",
        paper="DisEnt",
        place="table of bFFHQ",
        rates=RELEASED_RATES,
        levels=("0.5pct",),
        level="conflicting",
        seeds=3,
        cost="not on CPUs; half a day on one GPU (estimate)",
        files=Files(
            "bffhq/0.5pct/align, bffhq/0.5pct/conflict, bffhq/valid and bffhq/test in DIR",
            lambda data_dir: aligned_folder(data_dir, "bffhq"),
        ),
        trial=Trial(levels=("0.5pct",), methods=TRIED, write=functools.partial(write_aligned_folders, name="bffhq")),
    ),
    _experiment(
        "bar",
        Table(functools.partial(_released, "bar"), RELEASED, pretrained=False),
        title="six actions, each at one kind of place",
        paper="LfF and after",
        place="table of BAR",
        rates=RELEASED_RATES,
        levels=("1pct", "5pct"),
        level="conflicting",
        seeds=3,
        cost="not on CPUs; hours on one GPU (estimate)",
        files=Files(
            "bar/<1pct or 5pct>/align, .../conflict and bar/test in DIR",
            lambda data_dir: aligned_folder(data_dir, "bar"),
        ),
        trial=Trial(
            levels=("1pct",),
            methods=("erm", "group-dro"),
            write=functools.partial(write_aligned_folders, name="bar", percent="1pct", classes=6, valid=False),
        ),
    ),
)
