import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train.tiny import BARE, NORMED, table

from jaxdebias.contracts import ContractError
from jaxdebias.mitigate import ErmConfig, erm
from jaxdebias.train import Optimizer

SGD = Optimizer(name="sgd", learning_rate=0.1, momentum=0.0)
DATA = table(12)


def by_hand(params, weight):
    """The gradient step of a weighted mean cross-entropy, in NumPy, for the network of `tiny`."""
    x, label = DATA.x.astype(np.float64), DATA.label
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    (kernel, bias), head = params["hidden"], params["head"]
    z = np.tanh(x @ kernel + bias)
    logits = z @ head["kernel"] + head["bias"]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (p - np.eye(3)[label]) * (weight / weight.sum())[:, None]
    back = error @ head["kernel"].T * (1 - z**2)
    loss = -(weight * np.log(p[np.arange(12), label])).sum() / weight.sum()
    return loss, {
        "hidden": (kernel - 0.1 * x.T @ back, bias - 0.1 * back.sum(0)),
        "head": {"kernel": head["kernel"] - 0.1 * z.T @ error, "bias": head["bias"] - 0.1 * error.sum(0)},
    }


@pytest.mark.parametrize("class_weights", [None, (1.0, 5.0, 0.5)])
def test_step_equals_the_step_by_hand(key, class_weights):
    learner = erm(BARE, ErmConfig(class_weights=class_weights), SGD)
    state = learner.init(key, DATA)
    row_weight = np.linspace(0, 2, 12).astype(np.float32)
    new, info = learner.step(key, state, DATA._replace(weight=row_weight))
    importance = np.ones(3) if class_weights is None else np.array(class_weights)
    loss, expected = by_hand(state.variables, row_weight * importance[DATA.label])
    np.testing.assert_allclose(info.loss, loss, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), new.variables, expected)


def test_lr_scale_scales_the_step(key):
    learner = erm(BARE, optimizer=SGD)
    state = learner.init(key, DATA)
    whole, _ = learner.step(key, state, DATA)
    tenth, _ = learner.step(key, state._replace(lr_scale=jnp.float32(0.1)), DATA)
    ratio = (tenth.variables["head"]["bias"] - state.variables["head"]["bias"]) / (
        whole.variables["head"]["bias"] - state.variables["head"]["bias"]
    )
    np.testing.assert_allclose(ratio, 0.1, rtol=1e-4)


def test_batch_statistics_follow_the_data_and_not_the_gradient(key):
    learner = erm(NORMED, optimizer=SGD)
    state = learner.init(key, DATA)
    new, _ = learner.step(key, state, DATA)
    stats = new.variables["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(stats["mean"], DATA.x.mean(0) / 2, rtol=1e-4, atol=1e-6)
    assert set(jax.tree.leaves(jax.tree.map(jnp.shape, state.opt_state))) <= {()}  # plain SGD remembers nothing
    before, after = (s.variables["params"]["Dense_0"]["kernel"] for s in (state, new))
    assert not np.array_equal(before, after)


def test_the_optimizer_of_collections_sees_params_only(key):
    state = erm(NORMED, optimizer=Optimizer()).init(key, DATA)
    moments = jax.tree.leaves(state.opt_state)
    assert len(moments) == 1 + 2 * len(jax.tree.leaves(state.variables["params"]))


def test_augment_gets_a_key_of_its_own_each_step_and_leaves_predict_alone(key):
    keys = []
    learner = erm(BARE, optimizer=SGD, augment=lambda key, x: (keys.append(key), 0.0 * x)[1])
    state = learner.init(key, DATA)
    new, _ = learner.step(jax.random.key(1), state, DATA)
    learner.step(jax.random.key(2), state, DATA)
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 2
    np.testing.assert_array_equal(new.variables["hidden"][0], state.variables["hidden"][0])  # x was 0
    assert np.ptp(learner.predict(new, DATA.x)) > 0


def test_label_smoothing_raises_the_loss_of_a_sure_model(key):
    plain, smooth = erm(BARE, optimizer=SGD), erm(BARE, ErmConfig(label_smoothing=0.2), SGD)
    state = plain.init(key, DATA)
    state = state._replace(variables=jax.tree.map(lambda leaf: 50 * leaf, state.variables))
    sure = DATA._replace(label=plain.predict(state, DATA.x).argmax(axis=1))
    assert smooth.step(key, state, sure)[1].loss > plain.step(key, state, sure)[1].loss + 1


def test_equal_arguments_give_one_learner():
    assert erm(BARE) is erm(BARE, ErmConfig(), Optimizer(), rows=3)
    assert erm(BARE, ErmConfig(class_weights=(1.0, 2.0, 3.0))) is erm(BARE, ErmConfig(class_weights=(1.0, 2.0, 3.0)))
    assert erm(BARE) is not erm(BARE, ErmConfig(label_smoothing=0.1))


def test_refuses(key):
    with pytest.raises(ContractError, match="label_smoothing"):
        ErmConfig(label_smoothing=1.0)
    with pytest.raises(ContractError, match="positive"):
        ErmConfig(class_weights=(1.0, 0.0))
    learner = erm(BARE, ErmConfig(class_weights=(1.0, 2.0)))
    with pytest.raises(ContractError, match="3 numbers, one per class"):
        learner.step(key, learner.init(key, DATA), DATA)
