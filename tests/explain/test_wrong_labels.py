import jax
import numpy as np
import pytest
from train.glyphs import glyphs

from jaxdebias import models
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch
from jaxdebias.explain import _wrong_labels as wrong_labels
from jaxdebias.explain import find_wrong_labels
from jaxdebias.mitigate import CellBalancedConfig, cell_balanced, cell_tables
from jaxdebias.train import CrossFit, Optimizer, random_affine

KEY = jax.random.key(0)
LEARNER = cell_balanced(
    models.mlp(hidden=(64, 64), classes=4),
    CellBalancedConfig(input_dropout=0.2),
    Optimizer(learning_rate=1e-3, schedule="cosine", steps=600),
    augment=random_affine(shift=1.0),
    groups=np.ones((4, 4), np.int64),
)


def test_suspects_are_flagged_and_said_to_show_what_the_shortcut_says(monkeypatch):
    """By the definition, on given probabilities; a second round leaves the suspects of the first out."""
    label, guess = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0])
    said = np.array([[0.1, 0.8, 0.1], [0.5, 0.4, 0.1], [0.6, 0.3, 0.1], [0.9, 0.1, 0.0], [0.3, 0.1, 0.6]], np.float32)
    seen = []

    def judged(key, learner, data, *, hyper, **options):
        seen.append((data.weight.tolist(), hyper))
        return CrossFit(said, np.zeros((1, 5), np.int32))

    monkeypatch.setattr(wrong_labels, "cross_fit", judged)
    data = Batch(x=np.zeros((5, 2), np.float32), label=label, attribute=guess)
    found = find_wrong_labels(KEY, LEARNER, data, classes=3, hyper=lambda counts: counts.tolist(), rounds=2)
    assert found.suspect.tolist() == [False, False, True, False, False]
    assert seen == [
        ([1, 1, 1, 1, 1], [[1, 1, 0], [1, 1, 0], [1, 0, 0]]),
        ([1, 1, 0, 1, 1], [[1, 1, 0], [0, 1, 0], [1, 0, 0]]),
    ]


@pytest.mark.slow
def test_tells_wrong_labels_from_conflicting_samples():
    data = glyphs(4000, conflicting=0.3)  # the true colour stands for a perfect guess; many conflict, so that it learns
    wrong = np.random.default_rng(0).random(4000) < 0.05
    label = np.where(wrong, (data.label + 1) % 4, data.label).astype(np.int32)
    found = find_wrong_labels(KEY, LEARNER, data._replace(label=label), classes=4, hyper=cell_tables, steps=600)
    conflicting = (data.attribute != data.label) & ~wrong
    assert found.suspect[wrong & (data.attribute == data.label)].mean() >= 0.8
    assert found.suspect[conflicting].mean() <= 0.1
    assert not found.suspect[label == data.attribute].any()


def test_refuses():
    with pytest.raises(ContractError, match="rounds"):
        find_wrong_labels(KEY, LEARNER, glyphs(20, conflicting=0.5), classes=4, hyper=cell_tables, rounds=0)
