"""Signal is Harder (Vandenhirtz et al. 2023): its tables of Colored MNIST and of Corrupted CIFAR-10."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from jaxdebias.core import Learner
from jaxdebias.data._sets.colored_mnist import mnist_folder
from jaxdebias.data._sets.corrupted_cifar10 import cifar10_folder
from jaxdebias.mitigate import erm, lff
from jaxdebias.models import mlp
from jaxdebias.reproduce._cases import DATA, Case, Cases
from jaxdebias.reproduce._corrupted_cifar10 import CROPS, PADDED
from jaxdebias.reproduce._experiment import ACCURACIES, Experiment, Files, Measured, Trial, Work
from jaxdebias.reproduce._fitting import Swept, accuracies
from jaxdebias.reproduce._methods import METHODS, method_of
from jaxdebias.reproduce._miniatures import write_cifar10, write_mnist

RATIOS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
PAPER = "Signal is Harder"
AGAINST = (("sih", "lff"), ("sih", "disent"))
MNIST = Files("MNIST's four .gz files, in DIR or DIR/mnist", mnist_folder)
CIFAR10 = Files("CIFAR-10's six python files or their packed copies, in DIR or DIR/cifar10", cifar10_folder)


def _measure(data: str, work: Work) -> Iterator[Measured]:
    """Each method is one sweep over all of its missing runs."""
    assert work.data_dir is not None
    pictures = DATA[data](work.data_dir)
    for name in dict.fromkeys(cell.method for cell in work.cells):
        method = method_of(data, name)
        own = {(cell.level, cell.seed): cell for cell in work.cells if cell.method == name}
        fit = _shortened(data, name, method.fit) if work.trial and isinstance(method.fit, Swept) else method.fit
        cases = Cases(pictures, [(float(level), seed) for level, seed in own])
        for fitted in fit(cases, lambda line, name=name: work.observe(f"{name}: {line}")):
            row = accuracies(fitted.logits, fitted.case.test)
            row |= {"seconds": fitted.seconds, "selection": method.selection, "labels": method.labels, **fitted.said}
            yield own[fitted.case.conflicting, fitted.case.seed], row


def _shortened(data: str, name: str, fit: Swept) -> Swept:
    """Two steps of a small batch; on pictures of a small network, because a ResNet compiles for a minute."""
    config = replace(fit.config, epochs=1, steps_per_epoch=2, batch_size=8)
    small = SMALL.get(name) if data == "corrupted-cifar10" else None
    return replace(fit, config=config) if small is None else Swept(learner_of=small, config=config)


SMALL: Mapping[str, Callable[[Case], Learner]] = {
    "erm": lambda case: erm(mlp(hidden=(8,)), augment=CROPS),
    "lff": lambda case: lff(mlp(hidden=(8,)), rows=len(case.train.label), augment=PADDED),
}


def _settings(data: str, name: str) -> object:
    method = method_of(data, name)
    fit = method.fit
    trained = (fit.config, fit.held_out) if isinstance(fit, Swept) else None
    return {"selection": method.selection, "fit": trained}


def _table(data: str, title: str, files: Files, cost: str, write: Callable[[Path], Path]) -> Experiment:
    return Experiment(
        name=f"sih-{data}",
        title=title,
        paper=PAPER,
        place="table of ten seeds",
        measure=functools.partial(_measure, data),
        settings=functools.partial(_settings, data),
        rates=ACCURACIES,
        methods=tuple(METHODS[data]),
        usual=("erm", "sih", "lff", "disent"),
        levels=RATIOS,
        level="conflicting",
        open_levels=True,
        seeds=10,
        cost=cost,
        files=files,
        against=AGAINST,
        check=lambda name: method_of(data, name) and None,
        trial=Trial(levels=(0.2,), methods=("erm", "lff"), write=write),
    )


SIGNAL_IS_HARDER = (
    _table(
        "colored-mnist",
        "training without bias labels on coloured digits",
        MNIST,
        "days on two cores, hours on a GPU (estimates)",
        write_mnist,
    ),
    _table(
        "corrupted-cifar10",
        "the same on corrupted pictures",
        CIFAR10,
        "weeks on two cores, a day on a GPU (estimates)",
        write_cifar10,
    ),
)
