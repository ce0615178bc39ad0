import math

import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch
from jaxdebias.train import (
    HELD_OUT_ACCURACY,
    HELD_OUT_LOSS,
    EarlyStop,
    Plateau,
    worst_class_accuracy,
    worst_group_accuracy,
)
from jaxdebias.train._schedule import Bookkeeping, judge


def replay(values, **rules):
    books, verdicts = Bookkeeping(), []
    for epoch, value in enumerate(values, 1):
        books, verdict = judge(books, value, epoch, **rules)
        verdicts.append((verdict, books))
    return verdicts


def test_sequence_of_the_paper():
    verdicts = replay([5.0, 4.0, 4.0, 4.0], plateau=Plateau(), early_stop=EarlyStop(patience=2))
    np.testing.assert_allclose(1e-3 * np.cumprod([v.lr_factor for v, _ in verdicts]), [1e-3, 1e-3, 1e-4, 1e-5])
    assert [books.stopped for _, books in verdicts] == [False, False, False, True]
    assert verdicts[-1][1].best_epoch == 2


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("patience", [0, 2])
def test_plateau_equals_torch(mode, relative, patience, torch):
    values = np.random.default_rng(patience).normal(3, 0.5, 40).round(1) + 1.0
    target = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        target, mode=mode, patience=patience, threshold=0.05, threshold_mode="rel" if relative else "abs", eps=0.0
    )
    expected = []
    for value in values:
        scheduler.step(value)
        expected.append(target.param_groups[0]["lr"])
    plateau = Plateau(patience=patience, threshold=0.05, relative=relative)
    verdicts = replay([float(value) for value in values], mode=mode, plateau=plateau)
    np.testing.assert_allclose(np.cumprod([v.lr_factor for v, _ in verdicts]), expected, rtol=1e-9)
    assert expected[-1] < 1.0  # the case is one where something happens


def test_early_stop_counts_consecutive_epochs_and_its_threshold_is_absolute():
    verdicts = replay([1.0, 0.9, 0.895, 0.89, 0.7], early_stop=EarlyStop(patience=3, threshold=0.01))
    assert [v.improved for v, _ in verdicts] == [True, True, False, True, True]
    assert not any(books.stopped for _, books in verdicts)


def test_best_without_early_stop_is_the_first_of_equals():
    assert replay([2.0, 1.0, 1.0, 3.0])[-1][1].best_epoch == 2
    assert replay([0.2, 0.9, 0.9, 0.1], mode="max")[-1][1].best_epoch == 2


def test_an_equal_value_never_improves_at_threshold_zero():
    assert replay([1.0, 1.0, 1.0], early_stop=EarlyStop(patience=2, threshold=0.0))[-1][1].stopped


@pytest.mark.parametrize(
    ("kind", "wrong"), [(Plateau, {"factor": 1.0}), (Plateau, {"patience": -1}), (EarlyStop, {"patience": 0})]
)
def test_refuses(kind, wrong):
    with pytest.raises(ContractError, match=next(iter(wrong))):
        kind(**({"patience": 1} | wrong))


def test_monitors_count_rows_by_weight():
    logits = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]], np.float32)
    weight = np.array([1.0, 1.0, 0.0])
    batch = Batch(x=np.zeros((3, 1)), label=np.array([0, 1, 0]), attribute=np.zeros(3), weight=weight)
    assert float(HELD_OUT_ACCURACY.fn(logits, batch)) == 0.5
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(2))) / 2
    assert float(HELD_OUT_LOSS.fn(logits, batch)) == pytest.approx(expected, rel=1e-6)


def test_the_worst_class_and_group_are_found():
    """Classes 0, 1 right in 3/4 and 1/2 of the weight; group (1, 0) never; empty and unknown ones do not count."""
    logits = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0], [2.0, 0.0], [2.0, 0.0]], np.float32)
    batch = Batch(
        x=np.zeros((6, 1)),
        label=np.array([0, 0, 0, 1, 1, 1]),
        attribute=np.array([0, 1, 1, 1, 0, -1]),
        weight=np.array([2.0, 1.0, 1.0, 1.0, 1.0, 0.0], np.float32),
    )
    assert float(worst_class_accuracy(2).fn(logits, batch)) == 0.5
    assert float(worst_class_accuracy(3).fn(logits, batch)) == 0.5
    assert float(worst_group_accuracy(2, 2).fn(logits, batch)) == 0.0
    known = batch._replace(weight=np.array([2.0, 1.0, 1.0, 1.0, 0.0, 1.0], np.float32))
    assert float(worst_group_accuracy(2, 2).fn(logits, known)) == 0.5  # (0, 1); the wrong row of class 1 is unknown
    assert worst_group_accuracy(2, 2) is worst_group_accuracy(2, 2)
