"""Every training-time baseline on the coloured digits, 5 % conflicting: does it do what it is for?"""

import functools

import jax
import numpy as np
import pytest

from jaxdebias.auditing import train_counts
from jaxdebias.data import digits
from jaxdebias.mitigate import (
    DisentConfig,
    JttConfig,
    difficulty,
    disent,
    erm,
    gce,
    group_balanced,
    group_dro,
    group_weighted,
    jtt,
    lff,
)
from jaxdebias.models import mlp, mlp_two_encoders
from jaxdebias.train import FitConfig, Optimizer, fit

pytestmark = pytest.mark.slow

ADAM, NET = Optimizer(learning_rate=1e-3), mlp(hidden=(100,), classes=10)
CONFIG = FitConfig(epochs=60, batch_size=100, epochs_per_chunk=60)


@functools.cache
def data():
    return digits(conflicting=0.05, seed=0)


def conflicting_accuracy(logits_of) -> float:
    """On the held-out digits of edit and accept whose colour is another digit's."""
    right = []
    for name in ("edit", "accept"):
        split = data().splits[name]
        conflicting = split.label != split.attribute
        right.append((np.argmax(logits_of(split.x), axis=1) == split.label)[conflicting])
    return float(np.concatenate(right).mean())


def trained(learner, train=None):
    state = fit(jax.random.key(0), learner, train or data().splits["train"], CONFIG).state
    return state, conflicting_accuracy(lambda x: learner.predict(state, x))


@functools.cache
def plain() -> float:
    return trained(erm(NET, optimizer=ADAM))[1]


@pytest.mark.parametrize("name", ["drawn", "weighted", "group_dro"])
def test_group_labels_help(name):
    learner = {
        "drawn": lambda: group_balanced(NET, optimizer=ADAM, groups=train_counts(data())),
        "weighted": lambda: erm(NET, optimizer=ADAM),
        "group_dro": lambda: group_dro(NET, optimizer=ADAM, groups=train_counts(data())),
    }[name]()
    train = group_weighted(data().splits["train"]) if name == "weighted" else None
    assert trained(learner, train)[1] > plain() + 0.05


def test_generalised_cross_entropy_alone_makes_it_worse():
    assert trained(gce(NET, optimizer=ADAM))[1] < plain() - 0.05


def weights_of(state) -> tuple[float, float]:
    """Mean W of the (conflicting, aligned) training samples."""
    train = data().splits["train"]
    weight = np.asarray(difficulty(state.history, np.arange(len(train.label)), 10))
    conflicting = train.label != train.attribute
    return float(weight[conflicting].mean()), float(weight[~conflicting].mean())


def test_lff_finds_the_conflicting_samples_and_learns_from_them():
    state, accuracy = trained(lff(NET, optimizer=ADAM, rows=1000))
    conflicting, aligned = weights_of(state)
    assert conflicting > 10 * aligned
    assert accuracy > plain() + 0.05


def test_disent_finds_the_conflicting_samples():
    config = DisentConfig(swap_after=200, rate_after=300, rate_steps=200)
    state, accuracy = trained(disent(mlp_two_encoders(hidden=(100, 16)), config=config, rows=1000))
    conflicting, aligned = weights_of(state)
    assert conflicting > 10 * aligned
    assert accuracy > 0.5


@pytest.mark.parametrize("by", ["weights", "draws"])
def test_jtt_helps(by):
    train = data().splits["train"]
    first = FitConfig(epochs=10, batch_size=100, epochs_per_chunk=10)
    config = JttConfig(first=first, second=CONFIG, upweight=20.0, by=by)
    params, info = jtt(jax.random.key(0), NET, train, config, ADAM)
    assert (train.label != train.attribute)[info.errors].mean() > 0.5  # conflicting, of the error set
    assert conflicting_accuracy(lambda x: NET.apply(params, x)) > plain() + 0.05
