"""Retraining on coloured digits joined by their counterfactuals, or in colours that mean nothing: the ceilings."""

import numpy as np

from jaxdebias.core import Batch, RepairSets, repair_sets
from jaxdebias.data._aligned import other_attribute
from jaxdebias.data._colour import one_colour
from jaxdebias.data._sets.colored_mnist import read_mnist
from jaxdebias.data.streams import named_rng
from jaxdebias.mitigate import FineTuneConfig, retrain_counterfactual, train_from_scratch
from jaxdebias.reproduce._repairs import Case, Repair


def retrained(case: Case) -> dict[str, Repair]:
    """Every training digit in one random other colour beside the biased rendering; or once in a random colour, the
    ceiling."""
    classifier, setting = case.trained.classifier, case.setting
    as_trained = FineTuneConfig(
        epochs=setting.epochs,
        batch_size=setting.batch_size,
        learning_rates=(setting.optimizer.learning_rate,),
        weight_decay=setting.optimizer.weight_decay,
    )
    sets = repair_sets(case.dataset)
    return {
        "retrain, counterfactuals": Repair(
            "training set and its counterfactuals",
            0,
            lambda: retrain_counterfactual(
                case.key("tune"), classifier, None, sets, as_trained, counterfactual=counterfactuals(case)
            ),
        ),
        "retrain, recoloured": Repair(
            "training set in colours at random",
            0,
            lambda: train_from_scratch(
                case.key("tune"), classifier, None, RepairSets(edit=_recoloured(case), accept=sets.accept), as_trained
            ),
        ),
    }


def counterfactuals(case: Case) -> Batch:
    """Every training digit in one random colour that is not its own."""
    rng = named_rng(case.seed, "colored-mnist training counterfactuals")
    return _painted(case, rng, other_attribute(rng, case.dataset.splits["train"].attribute, 10))


def _recoloured(case: Case) -> Batch:
    """Every training digit in one colour, uniform over the ten."""
    rng = named_rng(case.seed, "colored-mnist training recoloured")
    count = len(case.dataset.splits["train"].label)
    return _painted(case, rng, rng.integers(0, 10, count).astype(np.int32))


def _painted(case: Case, rng: np.random.Generator, attribute: np.ndarray) -> Batch:
    """The digits of the train split anew, from the files: which ones they are is drawn as in `colored_mnist`."""
    assert case.folder is not None
    variant, train = case.dataset.variant, case.dataset.splits["train"]
    gray, label = read_mnist(case.folder, "train")
    order = named_rng(case.seed, "colored-mnist split").permutation(len(gray))
    rows = np.sort(order[variant["held_out"] :])
    # Same labels in the same order, and colour only where there is ink: these are the digits.
    assert np.array_equal(label[rows], train.label)
    assert not train.x.max(axis=-1)[gray[rows] == 0].any()
    return one_colour(rng, gray[rows], label[rows], attribute, sigma=variant["sigma"])
