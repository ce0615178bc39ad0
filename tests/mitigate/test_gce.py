import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import tiny_network as oracle
from train.tiny import BARE, table

from jaxdebias.contracts import ContractError
from jaxdebias.mitigate import GceConfig, erm, gce
from jaxdebias.train import Optimizer

SGD = Optimizer(name="sgd", learning_rate=0.1, momentum=0.0)
DATA = table(12)


def test_step_equals_the_step_by_hand(key):
    learner = gce(BARE, GceConfig(q=0.6), SGD)
    state = learner.init(key, DATA)
    weight = np.linspace(0, 2, 12).astype(np.float32)
    new, info = learner.step(key, state, DATA._replace(weight=weight))

    params, x = oracle.double(state.variables), DATA.x.astype(np.float64)
    p = oracle.softmax(oracle.forward(params, x)[1])
    own = p[np.arange(12), DATA.label]
    share = weight / weight.sum()
    np.testing.assert_allclose(info.loss, (share * (1 - own**0.6) / 0.6).sum(), rtol=1e-5)
    error = (share * own**0.6)[:, None] * (p - np.eye(3)[DATA.label])
    expected = oracle.descended(params, oracle.gradient(params, x, error), 0.1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), new.variables, expected)


def test_q_0_is_erm_and_q_can_be_swept(key):
    learner, plain = gce(BARE, optimizer=SGD), erm(BARE, optimizer=SGD)
    state = learner.init(key, DATA)
    many = state.hyper._replace(q=jnp.array([0.0, 0.7]))
    swept, _ = jax.vmap(lambda hyper: learner.step(key, state._replace(hyper=hyper), DATA))(many)
    expected = plain.step(key, plain.init(key, DATA), DATA)[0].variables
    single = learner.step(key, state, DATA)[0].variables
    for i, one in enumerate((expected, single)):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-6), swept.variables, one)
    assert not np.allclose(swept.variables["hidden"][0][0], swept.variables["hidden"][0][1], atol=1e-4)


def test_equal_arguments_give_one_learner_and_bad_ones_are_refused():
    assert gce(BARE) is gce(BARE, GceConfig(q=0.7), Optimizer())
    with pytest.raises(ContractError, match=r"`config.q`"):
        GceConfig(q=1.5)
