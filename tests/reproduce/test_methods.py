import json

import numpy as np
import pytest
from oracles.cifar import write_packed
from oracles.files import write_mnist

from jaxdebias import models
from jaxdebias.core import Batch
from jaxdebias.explain import CellsConfig
from jaxdebias.mitigate import AugCellConfig, sih, sih_monitor
from jaxdebias.mitigate._aug_cell.training import CANDIDATES
from jaxdebias.reproduce import _colored_mnist, _corrupted_cifar10, _fitting
from jaxdebias.reproduce._cases import Case, Cases, colored_mnist_pictures, corrupted_cifar10_pictures
from jaxdebias.reproduce._fitting import accuracies
from jaxdebias.reproduce._methods import METHODS
from jaxdebias.reproduce.published import published
from jaxdebias.train import EarlyStop, FitConfig

QUICK = FitConfig(epochs=1, batch_size=32)


def test_published_rows_belong_to_methods_that_there_are():
    for data, own in METHODS.items():
        assert {row.method for row in published(f"sih-{data}").rows} <= set(own)


@pytest.mark.slow
@pytest.mark.unoptimised
def test_methods_that_are_not_one_sweep(tmp_path, monkeypatch):
    """JTT and AUG-CELL, with two steps in each of their stages."""
    cases = Cases(colored_mnist_pictures(write_mnist(tmp_path / "mnist")), [(0.2, 0)])
    monkeypatch.setattr(_colored_mnist, "EPOCHS", QUICK)
    config = AugCellConfig(
        cells=CellsConfig(steps=2, batch_size=32),
        steps=2,
        batch_size=32,
        cleaning_steps=2,
        candidates=(CANDIDATES[0], CANDIDATES[2]),
    )
    (fitted,) = _colored_mnist._aug_cell(models.mlp(), config)(cases, print)
    assert fitted.logits[""].shape == (40, 10)
    assert {"chosen", "scores", "flagged_recall", "left_out"} <= set(fitted.said)
    candidates = fitted.said["candidates"]
    assert set(candidates) == {"erm", "aug-cell"}
    assert candidates[fitted.said["chosen"]] == accuracies(fitted.logits, cases[0].test)
    json.dumps(fitted.said, allow_nan=False)
    (fitted,) = _colored_mnist._fit_jtt(cases, print)
    assert fitted.logits[""].shape == (40, 10)


@pytest.mark.slow
@pytest.mark.unoptimised
def test_two_steps_on_corrupted_pictures(tmp_path, monkeypatch):
    """A narrow ResNet-VAE by the protocol of the table: crops, squared error, a held-out tenth; two cases in turn."""
    pictures = corrupted_cifar10_pictures(write_packed(tmp_path / "cifar10", train=80, test=20))
    cases = Cases(pictures, [(0.2, 0), (0.2, 1)])
    small = models.resnet_vae(latent=8, width=4)
    monkeypatch.setattr(_corrupted_cifar10, "RESNET_BRANCHES", small)
    config = FitConfig(epochs=1, steps_per_epoch=2, batch_size=8, drop_last=True, early_stop=EarlyStop(patience=2))
    gaussian, crops = _corrupted_cifar10.GAUSSIAN, _corrupted_cifar10.CROPS
    monitor = sih_monitor(small, gaussian, protocol="official", batch_size=4, augment=crops)
    fit = _fitting.Swept(
        learner_of=lambda case: sih(small, gaussian, augment=crops),
        config=config,
        others={"bias_branch": _corrupted_cifar10._resnet_bias_branch},
        held_out=True,
        block=1,
        monitor=monitor,
    )
    first, second = fit(cases, print)
    assert {one.case.seed for one in (first, second)} == {0, 1}
    for one in (first, second):
        assert one.logits[""].shape == one.logits["bias_branch"].shape == (20, 10)
        assert np.isfinite(one.logits[""]).all()
    assert not np.array_equal(first.logits[""], second.logits[""])


def test_published_settings_of_disent_by_ratio():
    rows = Batch(x=np.zeros((4, 32, 32, 3), np.uint8), label=np.arange(4), attribute=np.arange(4))
    kinds = {
        ratio: _corrupted_cifar10._disent_on_pictures(Case(ratio, 0, rows, rows)) for ratio in (0.005, 0.01, 0.02, 0.05)
    }
    assert kinds[0.01] is kinds[0.02]
    assert len({id(one) for one in kinds.values()}) == 3
