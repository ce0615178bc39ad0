"""The data sets of the papers' tables, one per ratio and seed, each built when it is asked for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdebias.core import Batch, take
from jaxdebias.data._colour import draw_tints
from jaxdebias.data._sets.colored_mnist import all_digits, tinted_mnist
from jaxdebias.data._sets.corrupted_cifar10 import corrupted_cifar10
from jaxdebias.data.streams import named_rng
from jaxdebias.train.feed import View


class Case(NamedTuple):
    """One data set of a table."""

    conflicting: float
    seed: int
    train: Batch
    """All training rows in file order, perhaps undrawn (see `Pictures.view`)."""
    test: Batch


class Pictures(NamedTuple):
    """What the cases of one table have in common."""

    data: str
    build: Callable[[float, int], tuple[Batch, Batch]]
    """(share of conflicting rows, seed) -> train and test rows."""
    shared: Any = None
    """What all cases draw their pictures from, on the device; None where rows hold their own."""
    view: View | None = None
    """(shared, rows) -> rows with pictures."""


class Cases(Sequence):
    """Cases by (ratio, seed): all of a large table would not fit into memory."""

    def __init__(self, pictures: Pictures, keys: Sequence[tuple[float, int]]):
        self.pictures, self.keys = pictures, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i: int) -> Case:
        ratio, seed = self.keys[i]
        return Case(ratio, seed, *self.pictures.build(ratio, seed))

    def drawn(self, rows: Batch) -> Batch:
        """The rows with their pictures."""
        if self.pictures.view is None:
            return rows
        return rows._replace(x=np.asarray(self.pictures.view(self.pictures.shared, rows).x))

    def tenth(self, case: Case) -> tuple[Batch, Batch]:
        """Nine tenths of the training rows, and the tenth, as biased, on which a method watches its own loss."""
        order = named_rng(case.seed, f"{self.pictures.data} held out").permutation(len(case.train.label))
        tenth = len(order) // 10
        return take(case.train, np.sort(order[tenth:])), take(case.train, np.sort(order[:tenth]))


def colored_mnist_pictures(data_dir: Path) -> Pictures:
    """70,000 grey digits that all cases share; a case says which digit in which colour."""
    digits = all_digits(data_dir)
    return Pictures(
        "colored-mnist",
        lambda ratio, seed: tinted_mnist(digits, conflicting=ratio, seed=seed),
        jax.device_put(digits.gray),
        draw_tints,
    )


def corrupted_cifar10_pictures(data_dir: Path) -> Pictures:
    """Each case has its own 60,000 pictures, 184 MB."""

    def build(ratio: float, seed: int) -> tuple[Batch, Batch]:
        splits = corrupted_cifar10(data_dir, conflicting=ratio, seed=seed, held_out=0).splits
        return tuple(splits[name]._replace(twin=None) for name in ("train", "test"))

    return Pictures("corrupted-cifar10", build)


DATA: dict[str, Callable[[Path], Pictures]] = {
    "colored-mnist": colored_mnist_pictures,
    "corrupted-cifar10": corrupted_cifar10_pictures,
}
