"""FMD and its alternatives on Colored MNIST: `python benchmarks/reproduce/fmd_colored_mnist.py --data-dir DIR`.

DIR holds MNIST's four .gz files. See `fmd_methods`: 53,000 digits to train on, 5,000 to edit with, 2,000 to accept
with, tested on the official 10,000. Methods that fine-tune see both sides of the edit pairs; training from scratch sees
the edit digits in all ten colours. The head is refitted on the training set joined by the twins of the edit pairs.
Retraining on counterfactuals gets every training digit in one random other colour beside the biased rendering; the
ceiling is that of all training digits in one uniformly random colour each. Both use the gray training digits, which no
repair of a trained model has.

The margins were fixed before this script was first run (they come from a prototype's three seeds).
"""

import sys
from collections.abc import Iterator

import numpy as np
from fmd_methods import Cell, Method, Setup, baseline_methods, fill, fmd_methods, parser
from fmd_methods_summary import Margin
from fmd_table import RESULTS

from jaxdebias.app.recipes import RECIPES, TrainConfig
from jaxdebias.batching import unpair
from jaxdebias.core import Batch, RepairSets, repair_sets
from jaxdebias.data._aligned import other_attribute
from jaxdebias.data._colour import one_colour
from jaxdebias.data._sets.colored_mnist import read_mnist
from jaxdebias.data.streams import named_rng
from jaxdebias.explain.influence import Mix
from jaxdebias.mitigate import FineTuneConfig, retrain_counterfactual, train_from_scratch

RATIOS = (0.005, 0.01, 0.02)
PARTS = {f"{100 * ratio:g} %": ratio for ratio in RATIOS}
MARGINS: list[Margin] = [
    ("0.5 %", "erm", "accuracy", ">=", 0.40),
    ("0.5 %", "erm", "accuracy", "<=", 0.46),
    ("1 %", "erm", "accuracy", ">=", 0.56),
    ("1 %", "erm", "accuracy", "<=", 0.60),
    ("2 %", "erm", "accuracy", ">=", 0.69),
    ("2 %", "erm", "accuracy", "<=", 0.73),
]
for part, accuracy, conflicting, bias_ext, bias_grad, accuracy_3, bias_3 in (
    ("0.5 %", 0.82, 0.80, 0.22, 0.16, 0.87, 0.13),
    ("1 %", 0.83, 0.82, 0.22, 0.14, 0.89, 0.11),
    ("2 %", 0.88, 0.87, 0.13, 0.11, 0.90, 0.10),
):
    MARGINS += [
        (part, "fmd ext", "accuracy", ">=", accuracy),
        (part, "fmd ext", "bias_conflicting_accuracy", ">=", conflicting),
        (part, "fmd ext", "counterfactual_bias", "<=", bias_ext),
        (part, "fmd gradB", "counterfactual_bias", "<=", bias_grad),
        (part, "fmd 3 layers ext", "accuracy", ">=", accuracy_3),
        (part, "fmd 3 layers ext", "counterfactual_bias", "<=", bias_3),
    ]


def methods(setup: Setup) -> Iterator[Method]:
    dataset, classifier = setup.trained.dataset, setup.trained.classifier
    splits, pairs = dataset.splits, dataset.pairs
    recipe = RECIPES["colored-mnist"]
    as_trained = FineTuneConfig(
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rates=(recipe.learning_rate,),
        weight_decay=recipe.weight_decay,
    )
    mixed = {"params/layers_0/kernel": Mix(channels=3), "params/layers_0/bias": None}
    yield from fmd_methods(setup, {"": 0.10}, layers=3)
    yield from baseline_methods(
        setup, unpair(pairs["edit"]), splits["edit_every_colour"], select="accuracy", layers=3, mixed=mixed
    )
    yield Method(
        "retrain, counterfactuals",
        "training set and its counterfactuals",
        0,
        lambda: retrain_counterfactual(
            setup.key("tune"),
            classifier,
            None,
            repair_sets(dataset),
            as_trained,
            counterfactual=training_counterfactuals(setup),
        ),
    )
    yield Method(
        "retrain, recoloured",
        "training set in colours at random",
        0,
        lambda: train_from_scratch(
            setup.key("tune"),
            classifier,
            None,
            RepairSets(edit=training_in_random_colours(setup), accept=splits["accept"]),
            as_trained,
        ),
    )


def training_counterfactuals(setup: Setup) -> Batch:
    """Every training digit in one random colour that is not its own."""
    attribute = setup.trained.dataset.splits["train"].attribute
    rng = named_rng(setup.seed, "colored-mnist training counterfactuals")
    return _training_digits(setup, rng, other_attribute(rng, attribute, 10))


def training_in_random_colours(setup: Setup) -> Batch:
    """Every training digit in one colour, uniform over the ten."""
    rng = named_rng(setup.seed, "colored-mnist training recoloured")
    count = len(setup.trained.dataset.splits["train"].label)
    return _training_digits(setup, rng, rng.integers(0, 10, count).astype(np.int32))


def _training_digits(setup: Setup, rng: np.random.Generator, attribute: np.ndarray) -> Batch:
    """The digits of the train split anew, from the files: which ones they are is drawn as in `colored_mnist`."""
    dataset, config = setup.trained.dataset, setup.cell.config
    gray, label = read_mnist(config.data_dir, "train")
    order = named_rng(setup.seed, "colored-mnist split").permutation(len(gray))
    rows = np.sort(order[dataset.variant["held_out"] :])
    train = dataset.splits["train"]
    # Same labels in the same order, and colour only where there is ink: these are the digits.
    assert np.array_equal(label[rows], train.label)
    assert not train.x.max(axis=-1)[gray[rows] == 0].any()
    return one_colour(rng, gray[rows], label[rows], attribute, sigma=dataset.variant["sigma"])


if __name__ == "__main__":
    arguments = parser(__doc__.splitlines()[0], RESULTS / "fmd_full_colored_mnist.json", seeds=5).parse_args()
    cells = [
        Cell(
            part,
            TrainConfig(
                data="colored-mnist",
                data_dir=arguments.data_dir,
                seed=seed,
                options={"conflicting": ratio, "every_colour_of_edit": True},
            ),
        )
        for seed in range(arguments.seeds)
        for part, ratio in PARTS.items()
    ]
    sys.exit(fill(arguments, cells, methods, MARGINS) > 0)
