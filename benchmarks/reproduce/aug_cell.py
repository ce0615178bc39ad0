"""Where AUG-CELL works and where it does not: `python benchmarks/reproduce/aug_cell.py --data-dir DIR`.

DIR has the files of MNIST and, for one case, of CIFAR-10. All runs train on a biased training set without bias labels,
choose without them and report the official test pictures with independent bias, every candidate of the method with its
group-free score. The cases:

    wrong labels        coloured digits, 0.5 % conflicting, 0.5 % of the labels replaced by others, uniformly
    ..., not looked for the same with `cleaning_rounds=0`
    no bias             digits in colours that mean nothing
    place               grey digits of half the size; class c goes with the c-th of ten places on a ring: a bias that
                        the default augmentation moves
    hard shape          composed scenes, two classes, 5 % on the other background: debiased training loses accuracy on
                        aligned pictures for want of skill, which looks like wrong labels and is none
    corrupted cifar10   pictures, class c goes with corruption c (`frost` is a generated stand-in)

Digits are learned by the MLP of the Colored MNIST table with the default recipe, which was chosen on coloured digits,
CIFAR-10 by a small CNN with the CNN recipe of the table, scenes by the CNN of their data set; none was chosen on these
cases. The bound below which the judges hesitate (`explain.cells.PLAIN`) was chosen on other sets and seeds. Of the rule
by which suspects stay out or are kept a first version failed on seed 0 of `hard shape`; for the present one seed 2 was
fresh. Resumable: rows in the file are kept.
"""

import argparse
import functools
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdebias import models
from jaxdebias.batching import predict_rows
from jaxdebias.core import Batch, Classifier
from jaxdebias.data import _registry as registry
from jaxdebias.data import scenes
from jaxdebias.data._colour import draw_tints
from jaxdebias.data._sets.colored_mnist import MnistDigits, all_digits, tinted_mnist
from jaxdebias.data.streams import named_rng
from jaxdebias.mitigate import AugCellConfig, aug_cell
from jaxdebias.reproduce._colored_mnist import CNN, CNN_OPTIMIZER, CNN_RECIPE, aug_cell_said
from jaxdebias.reproduce._fitting import accuracies
from jaxdebias.results.provenance import device_name, versions
from jaxdebias.train import Optimizer, chain, random_affine, random_flip
from jaxdebias.train._augment import Augment

OUT = Path(__file__).parents[1] / "results" / "aug_cell.json"
PLACES, SIDE = 10, 14


class Task(NamedTuple):
    train: Batch
    test: Batch
    classifier: Classifier
    config: AugCellConfig
    augment: Augment | None = None
    optimizer: Optimizer = Optimizer()
    wrong: np.ndarray | None = None
    """Training rows whose label was replaced."""


class Case(NamedTuple):
    conflicting: float
    seeds: int
    build: Callable[[Path, float, int], Task]


def coloured(data_dir: Path, conflicting: float, seed: int) -> tuple[Batch, Batch]:
    """The digits of the table, drawn."""
    digits = all_digits(data_dir)
    return tuple(
        rows._replace(x=np.asarray(draw_tints(digits.gray, rows).x))
        for rows in tinted_mnist(digits, conflicting=conflicting, seed=seed)
    )


def wrong_labels(config: AugCellConfig) -> Callable[[Path, float, int], Task]:
    def build(data_dir: Path, conflicting: float, seed: int) -> Task:
        train, test = coloured(data_dir, conflicting, seed)
        rng, n = named_rng(seed, "wrong labels"), len(train.label)
        wrong = np.isin(np.arange(n), rng.choice(n, round(0.005 * n), replace=False))
        other = (train.label + rng.integers(1, 10, n)) % 10
        label = np.where(wrong, other, train.label).astype(np.int32)
        return Task(train._replace(label=label), test, models.mlp(), config, wrong=wrong)

    return build


def no_bias(data_dir: Path, conflicting: float, seed: int) -> Task:
    return Task(*coloured(data_dir, conflicting, seed), models.mlp(), AugCellConfig())


def place(data_dir: Path, conflicting: float, seed: int) -> Task:
    digits = all_digits(data_dir)
    parts = tinted_mnist(digits, conflicting=conflicting, seed=seed)
    train, test = (rows._replace(x=placed(digits, np.asarray(rows.x.picture), rows.attribute)) for rows in parts)
    return Task(train, test, models.mlp(), AugCellConfig())


def placed(digits: MnistDigits, rows: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Each digit at half its size, at one of ten places around the middle, `[n 28 28 3]`."""
    small = digits.gray[rows].reshape(len(rows), SIDE, 2, SIDE, 2).mean((2, 4)).astype(np.uint8)
    angle = 2 * np.pi * np.asarray(where) / PLACES
    top, left = (np.round(7 + 6.5 * part(angle)).astype(int) for part in (np.sin, np.cos))
    out = np.zeros((len(rows), 2 * SIDE, 2 * SIDE), np.uint8)
    for i in range(len(rows)):
        out[i, top[i] : top[i] + SIDE, left[i] : left[i] + SIDE] = small[i]
    return np.repeat(out[..., None], 3, axis=-1)


def hard_shape(data_dir: Path, conflicting: float, seed: int) -> Task:
    data = scenes(train=12000, conflicting=conflicting, seed=seed)
    train = data.splits["train"]._replace(twin=None, mask=None)
    return Task(train, data.splits["test"], models.cnn(classes=2), AugCellConfig(steps=3000, batch_size=64))


def corrupted(data_dir: Path, conflicting: float, seed: int) -> Task:
    data = registry.load("corrupted-cifar10", data_dir=data_dir, conflicting=conflicting, seed=seed, held_out=0)
    return Task(
        data.splits["train"], data.splits["test"], CNN, CNN_RECIPE, chain(random_flip, random_affine()), CNN_OPTIMIZER
    )


CASES = {
    "wrong labels": Case(0.005, 2, wrong_labels(AugCellConfig())),
    "wrong labels, not looked for": Case(0.005, 2, wrong_labels(AugCellConfig(cleaning_rounds=0))),
    "no bias": Case(0.9, 2, no_bias),
    "place": Case(0.005, 2, place),
    "hard shape": Case(0.05, 3, hard_shape),
    "corrupted cifar10": Case(0.05, 1, corrupted),
}


def measured(task: Task, seed: int) -> dict[str, Any]:
    began = time.process_time()
    unlabelled = task.train._replace(attribute=np.full_like(task.train.label, -1), twin=None)
    params, info = aug_cell(
        jax.random.key(seed),
        task.classifier,
        unlabelled,
        task.config,
        task.optimizer,
        augment=task.augment,
        observe=functools.partial(print, flush=True),
    )
    seconds = time.process_time() - began

    def logits(trained: Any) -> np.ndarray:
        return np.asarray(predict_rows(task.classifier.apply, trained, task.test.x))

    row = {
        **accuracies({"": logits(params)}, task.test),
        "processor_seconds": seconds,
        **aug_cell_said(info, task.train, task.test, logits),
    }
    if task.wrong is not None:
        row |= {
            "wrong": int(task.wrong.sum()),
            "left_out_wrong": int((info.suspect & task.wrong).sum()),
            "left_out_conflicting": row["left_out_conflicting"] - int((info.suspect & task.wrong).sum()),
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--trial", action="store_true", help="few steps and rows, to see that everything runs")
    args = parser.parse_args()
    table = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    done = {(row["case"], row["seed"]) for row in table["rows"]}
    for name in args.cases:
        case = CASES[name]
        for seed in range(1 if args.trial else case.seeds):
            if (name, seed) in done:
                continue
            task = case.build(args.data_dir, case.conflicting, seed)
            if args.trial:
                task = shortened(task)
            row = {"case": name, "conflicting": case.conflicting, "seed": seed, **measured(task, seed)}
            table["rows"].append(row)
            table |= {"device": device_name(), "versions": versions(), "date": time.strftime("%Y-%m-%d")}
            temporary = args.out.with_suffix(".tmp")
            temporary.write_text(json.dumps(table, indent=1) + "\n")
            os.replace(temporary, args.out)
            print(
                f"{name}, seed {seed}: {row['chosen']} {row['accuracy']:.2%}, {row['processor_seconds']:.0f} s; "
                f"{' '.join(row['said'])}",
                flush=True,
            )


def shortened(task: Task) -> Task:
    few = np.arange(600)
    train, test = (
        jax.tree.map(lambda leaf: np.asarray(leaf)[few], rows._replace(twin=None, mask=None))
        for rows in (task.train, task.test)
    )
    config = replace(task.config, steps=4, cleaning_steps=2, cells=replace(task.config.cells, steps=2))
    return task._replace(train=train, test=test, config=config, wrong=None if task.wrong is None else task.wrong[few])


if __name__ == "__main__":
    main()
