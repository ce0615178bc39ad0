"""The cut of a language model, and that the influence code takes its blocks as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxdebias.explain.influence import HeadProblem, find_block
from jaxdebias.language.models import BertConfig, Gpt2Config, bert, causal_loss, gpt2

SIZE = {"vocabulary": 11, "positions": 8, "width": 4, "depth": 1, "heads": 2, "hidden": 6}
MODELS = {"gpt2": gpt2(Gpt2Config(**SIZE, head_bias=True)), "bert": bert(BertConfig(**SIZE))}
TOKENS = np.random.default_rng(0).integers(1, 11, (3, 6)).astype(np.int32)
ROWS = np.concatenate([np.array([[2], [0], [5]], np.int32), TOKENS], axis=1)


def drawn(model):
    """Random params, without the compilations of `init`."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: (0.5 * rng.normal(size=leaf.shape)).astype(np.float32),
        jax.eval_shape(model.init, jax.random.key(0)),
    )


PARAMS = {name: drawn(model) for name, model in MODELS.items()}


def test_paths_name_the_final_transform_and_the_last_perceptron():
    assert MODELS["bert"].transform_paths == (
        "params/output/bias",
        "params/transform/bias",
        "params/transform/kernel",
        "params/transform_norm/bias",
        "params/transform_norm/scale",
    )
    assert MODELS["gpt2"].transform_paths == ("params/norm/bias", "params/norm/scale", "params/output/bias")
    assert MODELS["gpt2"].mlp_paths == tuple(
        f"params/block_0/mlp_{i}/{leaf}" for i in (1, 2) for leaf in ("bias", "kernel")
    )
    assert gpt2(Gpt2Config(**SIZE)).transform_paths == ("params/norm/bias", "params/norm/scale")


@pytest.mark.parametrize("kind", MODELS)
def test_head_of_features_is_the_model_and_its_blocks_can_be_cut_out(kind):
    model, params = MODELS[kind], PARAMS[kind]
    where = (*model.transform_paths, *model.mlp_paths)

    @jax.jit
    def both(params):
        z = model.split.features(params, TOKENS)
        head, features, _ = find_block(model.split.head, params, z.reshape(18, 4), where)
        return model.apply(params, TOKENS), head.logits(features(params, z.reshape(18, 4))), model.at(params, ROWS)

    whole, through_block, at = both(params)
    np.testing.assert_allclose(through_block, whole.reshape(18, 11), atol=1e-5)
    np.testing.assert_allclose(at, whole[np.arange(3), [2, 0, 5]], atol=1e-5)

    head, _, replace = find_block(model.split.head, params, np.zeros((18, 4), np.float32), where)
    edited = replace(params, head.at({name: np.asarray(leaf) + 1 for name, leaf in head.theta.items()}))
    changed = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, new), old in zip(jax.tree_util.tree_leaves_with_path(edited), jax.tree.leaves(params), strict=True)
        if not np.array_equal(new, old)
    ]
    assert sorted(changed) == sorted(where)


@pytest.mark.slow
def test_gradient_of_the_block_is_that_of_the_training_loss():
    """The rows of the problem are positions; their labels are the next tokens."""
    model, params = MODELS["gpt2"], PARAMS["gpt2"]
    z = jax.jit(model.split.features)(params, TOKENS[:, :-1]).reshape(-1, 4)
    head, features, _ = find_block(model.split.head, params, z, model.mlp_paths)
    problem = HeadProblem(features(params, z), jnp.asarray(TOKENS[:, 1:].reshape(-1)), None, head, 0.0)
    whole = jax.jit(jax.grad(lambda params: causal_loss(model, params, TOKENS, pad=0).total.sum()))(params)
    want = ravel_pytree({name: whole["params"]["block_0"][name] for name in ("mlp_1", "mlp_2")})[0]
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(problem.gradient(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_block_further_down_can_be_cut_out_of_the_whole_model():
    model = bert(BertConfig(**SIZE | {"depth": 2}))
    params = drawn(model)
    name = "params/layer_0/mlp_2/bias"

    @jax.jit
    def moved(params):
        head, features, replace = find_block(model.at, params, ROWS, [name])
        head, z = head.at({name: head.theta[name] + 0.5 * jnp.arange(4.0)}), features(params, ROWS)
        return head.logits(z), model.at(replace(params, head), ROWS), model.at(params, ROWS)

    through_block, whole, unmoved = moved(params)
    np.testing.assert_allclose(through_block, whole, atol=1e-5)
    assert np.abs(whole - unmoved).max() > 1e-2
