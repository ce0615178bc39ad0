from types import SimpleNamespace

import jax
import numpy as np
import pytest
from train.tiny import BARE, table

from jaxdebias.contracts import ContractError
from jaxdebias.mitigate import JttConfig, drawn_by_weight, erm, error_set, jtt, jtt_weights
from jaxdebias.train import FitConfig, Optimizer, epoch_plan, fit

ADAM = Optimizer(learning_rate=0.01)
DATA = table(60)
RUNS = {"first": FitConfig(epochs=1, batch_size=20), "second": FitConfig(epochs=2, batch_size=20)}


def test_error_set_equals_the_misclassified_rows():
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(50, 4)).astype(np.float32), rng.integers(0, 4, 50).astype(np.int32)
    errors = error_set(logits, label)
    assert np.flatnonzero(errors).tolist() == [
        i for i in range(50) if max(range(4), key=lambda k: logits[i, k]) != label[i]
    ]


def test_weights_have_mean_1_and_multiply():
    errors = np.array([True, False, False, True])
    weight = jtt_weights(errors, 3.0)
    np.testing.assert_allclose(weight, np.array([4, 1, 1, 4]) / 2.5)
    weight = jtt_weights(errors, 3.0, np.array([1.0, 2.0, 0.0, 1.0]))
    np.testing.assert_allclose(weight, np.array([4, 2, 0, 4]) / 2.5)


@pytest.mark.slow
def test_upweight_0_reproduces_erm(key):
    params, info = jtt(key, BARE, DATA, JttConfig(upweight=0.0, **RUNS), ADAM)
    plain = fit(jax.random.split(key)[1], erm(BARE, optimizer=ADAM), DATA, RUNS["second"])
    jax.tree.map(np.testing.assert_array_equal, params, plain.state.variables)
    logits = BARE.apply(info.first.state.variables, DATA.x)
    np.testing.assert_array_equal(info.errors, np.argmax(logits, axis=1) != DATA.label)
    assert 0 < info.errors.sum() < 60


@pytest.mark.slow
@pytest.mark.parametrize("by", ["weights", "draws"])
def test_the_error_set_is_learned_better(key, by):
    # Six rows that contradict others: the same x, another label. One of the two stays an error in stage 1.
    x, label = DATA.x.copy(), DATA.label.copy()
    x[54:], label[54:] = x[:6], (label[:6] + 1) % 3
    data = DATA._replace(x=x, label=label)
    length = FitConfig(epochs=20, batch_size=20, epochs_per_chunk=20)
    config = JttConfig(upweight=50.0, by=by, first=length, second=length)
    params, info = jtt(key, BARE, data, config, Optimizer(learning_rate=0.03))
    right = np.argmax(BARE.apply(params, data.x), axis=1) == data.label
    assert 6 <= info.errors.sum() < 20
    assert right[info.errors].mean() > 0.8


def test_drawn_rows_count_once_and_as_often_as_their_weight_says(key):
    plain = erm(BARE, optimizer=ADAM)
    learner = drawn_by_weight(plain)
    data = DATA._replace(weight=jtt_weights(np.arange(60) < 10, 9.0))
    state, step = learner.init(key, data), jax.jit(learner.step)
    chances = learner.weights(state, data)
    keys = jax.random.split(key, 40)
    rows = np.concatenate([epoch_plan(one, 60, 60, draw_weights=chances).index.ravel() for one in keys])
    assert abs(np.mean(rows < 10) - 100 / 150) < 0.05
    padded = data._replace(weight=np.where(np.arange(60) < 50, data.weight, 0).astype(np.float32))
    expected = jax.jit(plain.step)(key, state, data._replace(weight=(np.arange(60) < 50).astype(np.float32)))
    jax.tree.map(np.testing.assert_array_equal, step(key, state, padded), expected)
    spoiled = data._replace(weight=np.full(60, np.nan, np.float32))
    assert np.isnan(step(key, state, spoiled)[1].loss)
    assert learner is drawn_by_weight(erm(BARE, optimizer=ADAM))


def test_each_training_has_a_key_and_an_optimizer_of_its_own(key, monkeypatch):
    given = []

    def recorded(key, learner, data, config, **_):
        given.append((key, learner, data, config))
        return SimpleNamespace(state=SimpleNamespace(variables=BARE.init(key, DATA.x)))

    monkeypatch.setattr("jaxdebias.mitigate._jtt.fit", recorded)
    config = JttConfig(upweight=3.0, first_optimizer=Optimizer(learning_rate=0.5), **RUNS)
    weighted = DATA._replace(weight=np.linspace(0.5, 2.0, 60).astype(np.float32))
    params, info = jtt(key, BARE, weighted, config, ADAM)
    expected = jax.random.split(key)
    for (used, *_), own in zip(given, expected, strict=True):
        np.testing.assert_array_equal(jax.random.key_data(used), jax.random.key_data(own))
    assert [learner for _, learner, *_ in given] == [
        erm(BARE, optimizer=config.first_optimizer),
        erm(BARE, optimizer=ADAM),
    ]
    assert [length for *_, length in given] == [config.first, config.second]
    np.testing.assert_allclose(given[1][2].weight, jtt_weights(info.errors, 3.0, weighted.weight))
    assert params is info.second.state.variables


def test_refuses():
    with pytest.raises(ContractError, match="upweight"):
        JttConfig(upweight=-1.0)
    with pytest.raises(ContractError, match="did you mean 'draws'"):
        JttConfig(by="draw")
    with pytest.raises(ContractError, match="positive weight"):
        jtt_weights(np.array([True]), 1.0, np.zeros(1))
