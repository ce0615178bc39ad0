import jax
import numpy as np
import pytest
from oracles import tiny_network as oracle
from train.tiny import BARE, NORMED, table

from jaxdebias.contracts import ContractError
from jaxdebias.core import take
from jaxdebias.mitigate import LffConfig, difficulty, lff
from jaxdebias.train import FitConfig, Optimizer, fit

SGD = Optimizer(name="sgd", learning_rate=0.1, momentum=0.0)
DATA = table(10)
BATCHES = [  # rows and their weights; row 9 is never visited, row 7 only as padding of weight 0
    ([0, 1, 2, 3, 4, 7], [1.0, 2.0, 1.0, 1.0, 0.5, 0.0]),
    ([3, 0, 5, 6, 1, 2], [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]),
    ([8, 2, 4, 6, 0, 3], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
]


def by_hand(nets, rate, q, decay):
    """LfF on BATCHES with tables that are dictionaries; yields (nets, tables, loss) after each step."""
    tables = {"b": {}, "d": {}}
    for rows, weight in BATCHES:
        x, label, weight = DATA.x[rows].astype(np.float64), DATA.label[rows], np.array(weight)
        logits = {name: oracle.forward(net, x)[1] for name, net in nets.items()}
        p = {name: oracle.softmax(values) for name, values in logits.items()}
        loss = {name: -np.log(values[np.arange(6), label]) for name, values in p.items()}
        for i, row in enumerate(rows):
            for name, known in tables.items():
                if weight[i]:
                    known[row] = decay * known[row] + (1 - decay) * loss[name][i] if row in known else loss[name][i]
        hard = np.zeros(6)
        for i, row in enumerate(rows):
            if row in tables["b"]:
                share = {
                    name: known[row] / max(known[other] for other in known if DATA.label[other] == label[i])
                    for name, known in tables.items()
                }
                hard[i] = share["b"] / (share["b"] + share["d"] + 1e-8)
        own = p["b"][np.arange(6), label]
        factor = {"b": q * own**q, "d": hard}
        total = sum((weight * factor[name] * loss[name]).sum() / weight.sum() for name in nets)
        for name, net in nets.items():
            error = (weight / weight.sum() * factor[name])[:, None] * (p[name] - np.eye(3)[label])
            nets = {**nets, name: oracle.descended(net, oracle.gradient(net, x, error), rate)}
        yield nets, tables, total


def test_steps_equal_the_steps_by_hand(key):
    learner = lff(BARE, LffConfig(q=0.6, decay=0.8), SGD, rows=10)
    step = jax.jit(learner.step)
    state = learner.init(key, DATA)
    nets = {"d": oracle.double(state.variables), "b": oracle.double(state.biased_variables)}
    assert not np.array_equal(nets["d"]["hidden"][0], nets["b"]["hidden"][0])
    for (rows, weight), expected in zip(BATCHES, by_hand(nets, 0.1, 0.6, 0.8), strict=True):
        batch = take(DATA, np.array(rows))._replace(index=np.array(rows, np.int32), weight=np.array(weight, np.float32))
        state, info = step(key, state, batch)
        nets, tables, total = expected
        for name, field in (("b", state.history.biased), ("d", state.history.debiased)):
            np.testing.assert_allclose(field, [tables[name].get(i, 0.0) for i in range(10)], rtol=1e-5)
        visited = [i in tables["b"] for i in range(10)]
        np.testing.assert_array_equal(state.history.label, np.where(visited, DATA.label, -1))
        np.testing.assert_allclose(info.loss, total, rtol=1e-5)
        for net, variables in ((nets["d"], state.variables), (nets["b"], state.biased_variables)):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), variables, net)
    assert not visited[7]
    assert not visited[9]


def test_predicts_with_the_debiased_network(key):
    learner = lff(BARE, rows=10)
    state = learner.init(key, DATA)
    np.testing.assert_array_equal(learner.predict(state, DATA.x), BARE.apply(state.variables, DATA.x))


@pytest.mark.slow
def test_through_the_loop_every_sample_is_visited_and_statistics_move(key):
    data = table(22)
    result = fit(key, lff(NORMED, optimizer=SGD, rows=22), data, FitConfig(epochs=2, batch_size=8, epochs_per_chunk=2))
    np.testing.assert_array_equal(result.state.history.label, data.label)
    assert (np.asarray(result.state.history.biased) > 0).all()
    for variables in (result.state.variables, result.state.biased_variables):
        assert np.any(variables["batch_stats"]["BatchNorm_0"]["mean"])
    weight = difficulty(result.state.history, np.arange(22), 3)
    assert ((weight > 0) & (weight < 1)).all()


def test_too_small_a_history_gives_a_loss_at_which_the_loop_stops(key):
    learner = lff(BARE, optimizer=SGD, rows=5)
    batch = DATA._replace(index=np.arange(10, dtype=np.int32))
    assert np.isnan(jax.jit(learner.step)(key, learner.init(key, batch), batch)[1].loss)


def test_equal_arguments_give_one_learner_and_bad_ones_are_refused(key):
    assert lff(BARE, rows=5) is lff(BARE, LffConfig(q=0.7), Optimizer(), rows=5)
    with pytest.raises(ContractError, match="`rows`"):
        lff(BARE, rows=0)
    with pytest.raises(ContractError, match=r"`config.decay`"):
        LffConfig(decay=1.0)
    learner = lff(BARE, rows=10)
    with pytest.raises(ContractError, match=r"`batch.index`"):
        learner.step(key, learner.init(key, DATA), DATA)
