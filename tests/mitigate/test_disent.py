import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import tiny_network as oracle
from train.tiny import BARE, table

from jaxdebias.contracts import ContractError
from jaxdebias.core import take
from jaxdebias.mitigate import DisentConfig, disent
from jaxdebias.mitigate._disent import head_logits, rate_at, swap_partners
from jaxdebias.models import TwoEncoders, mlp_two_encoders
from jaxdebias.train import FitConfig, Optimizer, fit

SGD = Optimizer(name="sgd", learning_rate=0.1, momentum=0.0)
DATA = table(10)


def _init(key, x):
    del x
    draws = [
        jax.random.normal(one, shape)
        for one, shape in zip(jax.random.split(key, 4), [(5, 4), (5, 4), (8, 3), (8, 3)], strict=True)
    ]
    return dict(zip(["encoder_i", "encoder_b", "head_i", "head_b"], draws, strict=True))


def _encode(variables, x):
    return jnp.tanh(x @ variables["encoder_i"]), jnp.tanh(x @ variables["encoder_b"])


BARE_TWO = TwoEncoders(
    init=_init,
    encode=_encode,
    train=lambda key, variables, x: (_encode(variables, x), variables),
    intrinsic=lambda variables, z: z @ variables["head_i"],
    biased=lambda variables, z: z @ variables["head_b"],
    classifier=BARE,  # not looked at here
)
CONFIG = DisentConfig(
    q=0.6,
    decay=0.8,
    biased_weight=3.0,
    swap_weight=0.5,
    swap_biased_weight=2.0,
    swap_after=0,
    rate_after=1,
    rate_steps=1,
)
BATCHES = [  # rows and their weights
    ([0, 1, 2, 3, 4, 7], [1.0, 2.0, 1.0, 1.0, 0.5, 0.0]),
    ([3, 0, 5, 6, 1, 2], [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]),
    ([8, 2, 4, 6, 0, 3], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
]


def by_hand(net, partners):
    """DisEnt with CONFIG on BATCHES; yields (net, loss, swap loss) after each step."""
    tables, rate = ({}, {}), 0.1
    for t, ((rows, weight), partner) in enumerate(zip(BATCHES, partners, strict=True)):
        x, label = DATA.x[rows].astype(np.float64), DATA.label[rows]
        share = np.array(weight) / np.sum(weight)
        z_i, z_b = np.tanh(x @ net["encoder_i"]), np.tanh(x @ net["encoder_b"])
        slope = {name: np.zeros_like(value) for name, value in net.items()}
        back_i, back_b = np.zeros_like(z_i), np.zeros_like(z_b)
        hard, losses = np.zeros(6), []
        for swap in (False, True):
            at = partner if swap else np.arange(6)
            both = np.concatenate([z_i, z_b[at]], axis=1)
            p_i, p_b = oracle.softmax(both @ net["head_i"]), oracle.softmax(both @ net["head_b"])
            own_i, own_b = p_i[np.arange(6), label], p_b[np.arange(6), label[at]]
            if not swap:
                for known, own in zip(tables, (own_b, own_i), strict=True):
                    for i, row in enumerate(rows):
                        if weight[i]:
                            known[row] = 0.8 * known[row] - 0.2 * np.log(own[i]) if row in known else -np.log(own[i])
                for i, row in enumerate(rows):
                    if row in tables[0]:
                        b, d = (
                            known[row] / max(known[j] for j in known if DATA.label[j] == label[i]) for known in tables
                        )
                        hard[i] = b / (b + d + 1e-8)
            scale = 0.5 * (t > 0) if swap else 1.0
            biased_weight = 2.0 if swap else 3.0
            factor = 0.6 * own_b**0.6
            own_losses = hard * np.log(own_i) + biased_weight * factor * np.log(own_b)
            losses.append(-(share * own_losses).sum())
            error_i = scale * (share * hard)[:, None] * (p_i - np.eye(3)[label])
            error_b = scale * biased_weight * (share * factor)[:, None] * (p_b - np.eye(3)[label[at]])
            slope["head_i"] += both.T @ error_i
            slope["head_b"] += both.T @ error_b
            back_i += error_i @ net["head_i"][:4].T
            np.add.at(back_b, at, error_b @ net["head_b"][4:].T)
        slope["encoder_i"] = x.T @ (back_i * (1 - z_i**2))
        slope["encoder_b"] = x.T @ (back_b * (1 - z_b**2))
        net = oracle.descended(net, slope, rate * 0.5 ** max(t - 1, 0))
        yield net, losses[0] + 0.5 * (t > 0) * losses[1], losses[1]


@pytest.mark.slow
@pytest.mark.unoptimised
def test_steps_equal_the_steps_by_hand(key):
    learner = disent(BARE_TWO, CONFIG, SGD, rows=10)
    step = jax.jit(learner.step)
    state = learner.init(key, DATA)
    keys = jax.random.split(key, 3)
    partners = [
        np.asarray(swap_partners(jax.random.split(one, 3)[2], jnp.array(weight)))
        for one, (_, weight) in zip(keys, BATCHES, strict=True)
    ]
    steps = by_hand(oracle.double(state.variables), partners)
    for one, (rows, weight), (net, loss, swap_loss) in zip(keys, BATCHES, steps, strict=True):
        batch = take(DATA, np.array(rows))._replace(index=np.array(rows, np.int32), weight=np.array(weight, np.float32))
        state, info = step(one, state, batch)
        np.testing.assert_allclose(info.loss, loss, rtol=1e-5)
        np.testing.assert_allclose(info.swap_loss, swap_loss, rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6), state.variables, net)
    assert int(state.steps) == 3


def test_swapped_codes_count_from_step_10001_on_and_equal_the_others_where_nothing_is_swapped(key):
    learner = disent(BARE_TWO, optimizer=SGD, rows=10)
    step = jax.jit(learner.step)
    batch = DATA._replace(index=np.arange(10, dtype=np.int32), weight=np.ones(10, np.float32))
    state = learner.init(key, batch)
    for steps, counts in ((0, 0.0), (10_000, 0.0), (10_001, 1.0)):
        _, info = step(key, state._replace(steps=jnp.int32(steps)), batch)
        np.testing.assert_allclose(info.loss, info.disentangling_loss + counts * info.swap_loss, rtol=1e-6)
        assert abs(info.swap_loss - info.disentangling_loss) > 1e-3
    one_row = batch._replace(weight=np.eye(10, dtype=np.float32)[4])  # its only partner is itself
    _, info = step(key, state, one_row)
    np.testing.assert_allclose(info.swap_loss, info.disentangling_loss, rtol=1e-6)


def test_each_head_sends_a_gradient_to_its_own_encoder_only(key):
    networks = mlp_two_encoders(hidden=(6, 4), classes=3)
    variables = networks.init(key, DATA.x)

    @jax.jit
    def slopes(variables):
        def total(variables, head):
            codes, _ = networks.train(key, variables, DATA.x)
            return (head_logits(networks, variables, *codes)[head] ** 2).sum()

        return [jax.grad(total)(variables, head)["params"] for head in (0, 1)]

    for slope, own, other in zip(slopes(variables), ("intrinsic", "biased"), ("biased", "intrinsic"), strict=True):
        for name, moves in ((own, True), (f"{own}_head", True), (other, False), (f"{other}_head", False)):
            assert any(np.any(leaf) for leaf in jax.tree.leaves(slope[name])) == moves


def test_partners_are_a_permutation_that_keeps_padding_to_itself(key):
    weight = jnp.array([1.0, 0.0, 0.5, 1.0, 0.0, 2.0, 1.0])
    rows = np.flatnonzero(np.asarray(weight) > 0)
    draws = np.asarray(jax.jit(jax.vmap(lambda one: swap_partners(one, weight)))(jax.random.split(key, 600)))
    assert (np.sort(draws, axis=1) == np.arange(7)).all()
    assert np.isin(draws[:, rows], rows).all()
    assert len(np.unique(draws[:, rows], axis=0)) > 100  # of 120
    assert all(abs((draws[:, i] == j).mean() - 0.2) < 0.08 for i in rows for j in rows)


def test_rate_halves_from_step_20000_on():
    rates = [float(rate_at(jnp.int32(t), DisentConfig())) for t in (0, 10_000, 19_999, 20_000, 29_999, 30_000, 49_999)]
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.125]


@pytest.mark.slow
@pytest.mark.unoptimised
def test_learns_through_the_loop_and_its_classifier_predicts_the_same(key):
    data = table(64)
    networks = mlp_two_encoders(hidden=(8,), classes=3)
    learner = disent(networks, DisentConfig(swap_after=20), Optimizer(learning_rate=0.02), rows=64)
    result = fit(key, learner, data, FitConfig(epochs=30, batch_size=24, epochs_per_chunk=30))
    logits = learner.predict(result.state, data.x)
    assert (np.argmax(logits, axis=1) == data.label).mean() > 0.8
    np.testing.assert_array_equal(logits, networks.classifier.apply(result.state.variables, data.x))
    np.testing.assert_array_equal(result.state.history.label, data.label)


def test_equal_arguments_give_one_learner_and_bad_ones_are_refused():
    assert disent(BARE_TWO, rows=5) is disent(BARE_TWO, DisentConfig(), Optimizer(learning_rate=0.01), rows=5)
    with pytest.raises(ContractError, match="`rows`"):
        disent(BARE_TWO, rows=0)
    with pytest.raises(ContractError, match=r"`config.q`"):
        DisentConfig(q=2.0)
