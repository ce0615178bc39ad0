"""A column taken out of a model: the bias is exactly 0, and at the column's mean nothing changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias import models
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, RepairSets
from jaxdebias.measure import pair_bias, true_class_probability
from jaxdebias.mitigate import ProtectedColumnConfig, flip_column, protected_column, zero_column


def table(d=7, n=50):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)).astype(np.float32)
    x[:, 3] = rng.integers(0, 2, n)
    return Batch(x, rng.integers(0, 2, n).astype(np.int32), x[:, 3].astype(np.int32))


def rows_first(params, x):
    """Layers as in Equinox and PyTorch: kernels [h d]."""
    hidden = jax.nn.relu(x @ params[0]["w"].T + params[0]["b"][None, :])
    return hidden @ params[1]["w"].T + params[1]["b"][None, :]


def rows_first_params(key, d, h):
    keys = jax.random.split(key, 3)
    return [
        {"w": jax.random.normal(keys[0], (h, d)), "b": jax.random.normal(keys[1], (h,))},
        {"w": jax.random.normal(keys[2], (2, h)), "b": jnp.zeros(2)},
    ]


def linen(key, d, h):
    classifier = models.mlp(hidden=(h, 5), classes=2)
    return classifier.apply, classifier.init(key, jnp.zeros((1, d))), ("params", "layers_0")


@pytest.mark.parametrize("kind", ["linen", "rows first", "rows first, square"])
def test_bias_is_zero_and_at_the_mean_nothing_changes(key, kind):
    h = 7 if "square" in kind else 9
    apply_fn, params, path = linen(key, 7, h) if kind == "linen" else (rows_first, rows_first_params(key, 7, h), (0,))
    batch, mean = table(), 0.6
    new = zero_column(params, path, 3, mean, columns=7, apply_fn=apply_fn if "square" in kind else None)

    def bias(params):
        probability = [
            true_class_probability(apply_fn(params, x), batch.label) for x in (batch.x, flip_column(batch, 3).x)
        ]
        return float(pair_bias(*probability))

    assert bias(params) > 1e-3
    assert bias(new) == 0.0
    at_mean = batch.x.copy()
    at_mean[:, 3] = mean
    np.testing.assert_allclose(apply_fn(new, batch.x), apply_fn(params, at_mean), atol=1e-5)
    changed = [a is not b for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(new), strict=True)]
    assert sum(changed) == 2


def test_no_bias_to_take_up_a_mean_of_zero():
    params = {"first": jnp.ones((3, 2)), "second": jnp.ones((2, 2))}
    new = zero_column(params, ("first",), 0, 0.0, columns=3)
    assert new["first"].tolist() == [[0, 0], [1, 1], [1, 1]]
    with pytest.raises(ContractError, match="a bias to take up the mean"):
        zero_column(params, ("first",), 0, 0.5, columns=3)


def test_flipping_twice_is_the_table():
    batch = table()
    flipped = flip_column(batch, 3)
    np.testing.assert_array_equal(flipped.attribute, 1 - batch.attribute)
    np.testing.assert_array_equal(np.flatnonzero((flipped.x != batch.x).any(axis=0)), [3])
    np.testing.assert_array_equal(flip_column(flipped, 3).x, batch.x)
    assert (flip_column(batch._replace(attribute=np.full(50, -1, np.int32)), 3).attribute == -1).all()


def test_bad_input_is_one_line(key):
    apply_fn, params, path = linen(key, 7, 9)
    with pytest.raises(ContractError, match=r"`column`: expected 0\.\.6, got 7"):
        zero_column(params, path, 7, 0.5, columns=7)
    with pytest.raises(ContractError, match=r"`kernel_path`: .* params/layers_0.*, got params/first"):
        zero_column(params, ("params", "first"), 3, 0.5, columns=7)
    with pytest.raises(ContractError, match="one side of d=8 inputs"):
        zero_column(params, path, 3, 0.5, columns=8)
    with pytest.raises(ContractError, match="one matrix"):
        zero_column(params, ("params",), 3, 0.5, columns=7)
    with pytest.raises(ContractError, match=r"`apply_fn`: .*square"):
        zero_column(linen(key, 7, 7)[1], path, 3, 0.5, columns=7)
    with pytest.raises(ContractError, match="the only layer through which"):
        zero_column(params, path, 3, 0.5, columns=7, apply_fn=lambda p, x: apply_fn(p, x) + x[:, 3:4])
    with pytest.raises(ContractError, match=r"`x\[:, 0\]`: expected only 0 and 1, got 50"):
        flip_column(table(), 0)


def test_the_column_is_held_at_its_weighted_mean(key):
    apply_fn, params, path = linen(key, 7, 9)
    batch = table()._replace(weight=np.linspace(0.1, 2.0, 50).astype(np.float32))
    config = ProtectedColumnConfig(column=3, kernel_path=path)
    _, info = protected_column(key, apply_fn, params, RepairSets(train=batch), config)
    assert info.mean == pytest.approx(np.average(batch.x[:, 3], weights=batch.weight))
    assert info.mean != pytest.approx(batch.x[:, 3].mean())
