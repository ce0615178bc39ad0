import collections

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import enable_x64

from jaxdebias.contracts import ContractError
from jaxdebias.train import Optimizer, trainable, with_trainable
from jaxdebias.train._optimizer import update

TORCH = {
    "adam": (Optimizer(learning_rate=0.1), lambda torch, p: torch.optim.Adam(p, lr=0.1)),
    "adam_l2": (
        Optimizer(learning_rate=0.1, weight_decay=0.3),
        lambda torch, p: torch.optim.Adam(p, lr=0.1, weight_decay=0.3),
    ),
    "adamw": (
        Optimizer(name="adamw", learning_rate=0.1, weight_decay=0.3),
        lambda torch, p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.3),
    ),
    "sgd": (
        Optimizer(name="sgd", learning_rate=0.1, weight_decay=0.3, momentum=0.5),
        lambda torch, p: torch.optim.SGD(p, lr=0.1, weight_decay=0.3, momentum=0.5),
    ),
    "sgd_nesterov": (
        Optimizer(name="sgd", learning_rate=0.1, nesterov=True),
        lambda torch, p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_equals_torch(name, torch):
    config, build = TORCH[name]
    target = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    optimizer = build(torch, [target])
    with enable_x64(True):  # 1 - 0.999^t loses four digits in float32
        params = jnp.array([1.0, -2.0, 0.5])
        opt_state = config.build().init(params)
        for _ in range(5):
            optimizer.zero_grad()
            (target**4).sum().backward()
            optimizer.step()
            params, opt_state = update(config.build(), 4 * params**3, opt_state, params, jnp.ones(()))
        np.testing.assert_allclose(params, target.detach().numpy(), rtol=1e-6)


def test_clip_bounds_the_norm_of_the_gradient():
    config = Optimizer(name="sgd", learning_rate=1.0, momentum=0.0, clip=0.5)
    params, _ = update(
        config.build(), jnp.array([30.0, 40.0]), config.build().init(jnp.zeros(2)), jnp.zeros(2), jnp.ones(())
    )
    np.testing.assert_allclose(params, [-0.3, -0.4], rtol=1e-6)


def test_cosine_reaches_half_in_the_middle_and_zero_at_the_end():
    config = Optimizer(name="sgd", learning_rate=1.0, momentum=0.0, schedule="cosine", steps=4)
    params, opt_state, moved = jnp.zeros(()), config.build().init(jnp.zeros(())), []
    for _ in range(5):
        new, opt_state = update(config.build(), jnp.ones(()), opt_state, params, jnp.ones(()))
        moved.append(float(params - new))
        params = new
    np.testing.assert_allclose(moved, [1.0, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0.0], atol=1e-6)


def test_lr_scale_multiplies_the_update_and_keeps_the_dtype():
    config, params = Optimizer(), {"w": jnp.ones(3, jnp.bfloat16)}
    gradient = {"w": jnp.ones(3, jnp.bfloat16)}
    still, _ = update(config.build(), gradient, config.build().init(params), params, jnp.zeros(()))
    assert still["w"].dtype == jnp.bfloat16
    assert still["w"].tolist() == [1.0, 1.0, 1.0]


def test_equal_configurations_build_one_object():
    assert Optimizer(clip=1.0).build() is Optimizer(clip=1.0).build()
    assert Optimizer(clip=1.0).build() is not Optimizer(clip=2.0).build()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learning_rate": 0.0}, r"optimizer\.learning_rate"),
        ({"schedule": "cosine"}, r"optimizer\.steps"),
        ({"clip": -1.0}, r"optimizer\.clip"),
    ],
)
def test_refuses(wrong, message):
    with pytest.raises(ContractError, match=message):
        Optimizer(**wrong)


@pytest.mark.parametrize("kind", [dict, collections.OrderedDict, flax.core.FrozenDict])
def test_trainable_is_the_params_of_collections(kind):
    variables = kind({"params": {"w": 1.0}, "batch_stats": {"mean": 2.0}})
    assert trainable(variables)["w"] == 1.0
    moved = with_trainable(variables, kind({"w": 3.0}))
    assert moved["params"]["w"] == 3.0
    assert moved["batch_stats"]["mean"] == 2.0
    assert type(moved) is kind


def test_trainable_is_the_whole_of_any_other_tree():
    tree = [(jnp.ones(2), jnp.zeros(2))]
    assert trainable(tree) is tree
    doubled = jax.tree.map(lambda leaf: 2 * leaf, tree)
    assert with_trainable(tree, doubled) is doubled


def test_adamw_decays_by_its_own_setting():
    """Without a gradient, AdamW takes rate * decay of every parameter; optax's default decay is 1e-4."""
    transform = Optimizer(name="adamw", learning_rate=0.1, weight_decay=0.5).build()
    params = {"w": jnp.array([2.0, -4.0])}
    updates, _ = transform.update({"w": jnp.zeros(2)}, transform.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.1 * 0.5 * params["w"], rtol=1e-6)
