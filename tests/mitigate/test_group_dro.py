import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import tiny_network as oracle
from train.tiny import BARE, table

from jaxdebias.contracts import ContractError
from jaxdebias.mitigate import GroupDroConfig, group_dro
from jaxdebias.mitigate._group_dro import GroupDroHyper, group_losses, raised_weights
from jaxdebias.train import FitConfig, Optimizer, fit

SGD = Optimizer(name="sgd", learning_rate=0.1, momentum=0.0)
COUNTS = ((40, 4), (9, 25), (0, 16))  # no training sample of label 2 and attribute 0
PLAIN = GroupDroHyper(jnp.float32(0.01), jnp.zeros(2))


def test_weights_and_loss_of_two_known_losses():
    losses = jnp.array([1.0, 3.0])
    weight = raised_weights(jnp.array([0.5, 0.5]), losses, PLAIN)
    np.testing.assert_allclose(weight, [0.49500017, 0.50499983], atol=1e-6)
    np.testing.assert_allclose((weight * losses).sum(), 2.00999967, atol=1e-6)
    same = raised_weights(jnp.array([0.3, 0.7]), jnp.array([2.0, 2.0]), PLAIN)
    np.testing.assert_allclose(same, [0.3, 0.7], atol=1e-6)


def test_adjustment_raises_small_groups_and_large_losses_do_not_overflow():
    hyper = GroupDroHyper(jnp.float32(1.0), jnp.array([0.0, 1.0]))
    weight = raised_weights(jnp.array([0.5, 0.5]), jnp.array([2.0, 2.0]), hyper)
    np.testing.assert_allclose(weight, [1 / (1 + np.e), np.e / (1 + np.e)], rtol=1e-5)
    huge = raised_weights(jnp.array([0.5, 0.5]), jnp.array([1.0, 1e4]), hyper)
    np.testing.assert_array_equal(huge, [0.0, 1.0])


def test_no_gradient_passes_the_weights():
    slope = jax.grad(lambda losses: (raised_weights(jnp.array([0.5, 0.5]), losses, PLAIN) * losses).sum())
    np.testing.assert_allclose(slope(jnp.array([1.0, 3.0])), [0.49500017, 0.50499983], atol=1e-6)


def test_group_losses_of_absent_groups_and_unknown_attributes():
    losses = group_losses(jnp.array([1.0, 3.0, 5.0, 7.0]), jnp.array([2, 2, -1, 0]), 4, jnp.array([1.0, 3.0, 1.0, 0.0]))
    np.testing.assert_allclose(losses, [0.0, 0.0, 2.5, 0.0])


def test_two_steps_equal_the_steps_by_hand(key):
    learner = group_dro(BARE, GroupDroConfig(eta=0.5, adjustment=2.0), SGD, groups=np.array(COUNTS))
    state, step = learner.init(key, table(1)), jax.jit(learner.step)
    params = oracle.double(state.variables)
    weight = np.array([0.2, 0.2, 0.2, 0.2, 0.0, 0.2])
    np.testing.assert_allclose(state.group_weight, weight)
    extra = [2 / np.sqrt(n) if n else 0 for n in np.ravel(COUNTS)]
    for seed in (1, 2):
        batch = table(12, seed)._replace(weight=np.linspace(0, 2, 12).astype(np.float32))
        batch.attribute[batch.label == 2] = 1
        batch.attribute[3] = -1
        state, info = step(key, state, batch)

        x = batch.x.astype(np.float64)
        p = oracle.softmax(oracle.forward(params, x)[1])
        members = [[i for i in range(12) if batch.attribute[i] == g % 2 and batch.label[i] == g // 2] for g in range(6)]
        losses, shares = np.zeros(6), np.zeros((6, 12))
        for g, rows in enumerate(members):
            total = sum(batch.weight[i] for i in rows)
            for i in rows:
                if total:
                    shares[g, i] = batch.weight[i] / total
                    losses[g] -= shares[g, i] * np.log(p[i, batch.label[i]])
        weight = weight * np.exp(0.5 * (losses + extra))
        weight /= weight.sum()
        np.testing.assert_allclose(info.loss, weight @ losses, rtol=1e-5)
        np.testing.assert_allclose(state.group_weight, weight, rtol=1e-5)
        error = (weight @ shares)[:, None] * (p - np.eye(3)[batch.label])
        params = oracle.descended(params, oracle.gradient(params, x, error), 0.1)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.variables, params)
    assert len(set(weight)) == 6
    assert state.group_weight[4] == 0


@pytest.mark.slow
def test_trains_through_the_loop_with_balanced_draws(key):
    data = table(64)
    data = data._replace(attribute=np.where(np.arange(64) < 60, 0, 1).astype(np.int32))
    counts = np.zeros((3, 2), int)
    np.add.at(counts, (data.label, data.attribute), 1)
    learner = group_dro(BARE, optimizer=Optimizer(learning_rate=0.03), groups=counts)
    chances = np.asarray(learner.weights(learner.init(key, data), data))
    np.testing.assert_allclose(chances, 1 / counts[data.label, data.attribute], rtol=1e-6)
    result = fit(key, learner, data, FitConfig(epochs=20, batch_size=32, epochs_per_chunk=10))
    assert result.history[-1].loss < 0.5 * result.history[0].loss
    assert group_dro(BARE, GroupDroConfig(balanced=False), groups=counts).weights is None


def test_the_adjustment_is_that_of_the_square_root_of_the_group(key):
    learner = group_dro(BARE, GroupDroConfig(adjustment=2.0), groups=np.array([[100, 4], [25, 16], [1, 0]]))
    hyper = learner.init(key, table(6)).hyper
    np.testing.assert_allclose(hyper.adjustment, [0.2, 1.0, 0.4, 0.5, 2.0, 0.0], rtol=1e-6)


def test_equal_arguments_give_one_learner_and_bad_ones_are_refused(key):
    assert group_dro(BARE, groups=np.array(COUNTS)) is group_dro(BARE, groups=np.array(COUNTS, np.int32))
    with pytest.raises(ContractError, match=r"`groups`.*this method needs the attribute, got None"):
        group_dro(BARE)
    with pytest.raises(ContractError, match="some sample whose attribute is known"):
        group_dro(BARE, groups=np.zeros((3, 2), int))
    with pytest.raises(ContractError, match=r"`config.eta`"):
        GroupDroConfig(eta=-1.0)
    with pytest.raises(ContractError, match="a row per class"):
        group_dro(BARE, groups=np.array(COUNTS[:2])).init(key, table(1))
