"""Per-example gradients, Hessian and Gauss-Newton products against explicit matrices and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from precision import enable_x64

from jaxdebias.contracts import ContractError
from jaxdebias.explain.influence.derivatives import (
    gauss_newton_vector_product,
    hessian_vector_product,
    per_example_gradients,
    sum_hvp,
)

RNG = np.random.default_rng(0)
N, D, H, K = 7, 4, 3, 3
PARAMS = {"w1": 0.5 * RNG.normal(size=(D, H)), "b1": RNG.normal(size=H), "w2": RNG.normal(size=(H, K))}
PARAMS = {name: value.astype(np.float32) for name, value in PARAMS.items()}
ROWS = RNG.normal(size=(N, D)).astype(np.float32), RNG.integers(0, K, N).astype(np.int32)
VECTOR = {name: RNG.normal(size=value.shape).astype(np.float32) for name, value in PARAMS.items()}


def apply_fn(params, x):
    return jnp.tanh(x @ params["w1"] + params["b1"][None]) @ params["w2"]


def loss_fn(params, x, label):
    return optax.softmax_cross_entropy_with_integer_labels(apply_fn(params, x), label)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def flat_losses(vector):
    return loss_fn(ravel_pytree(PARAMS)[1](vector), *ROWS)


@pytest.mark.parametrize("batch_size", [3, 100])
def test_per_example_gradients_are_the_rows_of_the_jacobian(batch_size):
    jacobian = jax.jit(jax.jacobian(flat_losses))(flat(PARAMS))
    gradients = per_example_gradients(loss_fn, PARAMS, ROWS, batch_size=batch_size)
    assert jax.tree.map(jnp.shape, gradients) == {name: (N, *value.shape) for name, value in PARAMS.items()}
    rows = np.stack([flat(jax.tree.map(lambda leaf: np.asarray(leaf)[i], gradients)) for i in range(N)])  # noqa: B023
    np.testing.assert_allclose(rows, jacobian, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [3, 100])
def test_sum_hvp_is_the_hessian_of_the_sum(batch_size):
    hessian = jax.jit(jax.hessian(lambda vector: flat_losses(vector).sum()))(flat(PARAMS))
    product = sum_hvp(loss_fn, PARAMS, ROWS, VECTOR, batch_size=batch_size)
    np.testing.assert_allclose(flat(product), hessian @ flat(VECTOR), rtol=1e-4, atol=1e-5)
    single = jax.jit(lambda p, v: hessian_vector_product(lambda p: loss_fn(p, *ROWS).sum(), p, v))(PARAMS, VECTOR)
    np.testing.assert_allclose(flat(product), flat(single), rtol=1e-4, atol=1e-5)


def test_many_right_hand_sides_at_once():
    vectors = jax.tree.map(lambda v: np.stack([v, 2 * v, -v]), VECTOR)
    products = jax.vmap(lambda v: sum_hvp(loss_fn, PARAMS, ROWS, v, batch_size=3))(vectors)
    one = sum_hvp(loss_fn, PARAMS, ROWS, VECTOR, batch_size=3)
    jax.tree.map(lambda m, v: np.testing.assert_allclose(m[1], 2 * v, rtol=1e-4, atol=1e-5), products, one)


def test_gauss_newton_against_the_explicit_matrix():
    jacobian = np.asarray(jax.jit(jax.jacobian(lambda v: apply_fn(ravel_pytree(PARAMS)[1](v), ROWS[0])))(flat(PARAMS)))
    p = np.asarray(jax.nn.softmax(apply_fn(PARAMS, ROWS[0])))
    matrix = sum(j.T @ (np.diag(q) - np.outer(q, q)) @ j for j, q in zip(jacobian, p, strict=True))
    product = gauss_newton_vector_product(apply_fn, PARAMS, ROWS[0], VECTOR, batch_size=3)
    np.testing.assert_allclose(flat(product), matrix @ flat(VECTOR), rtol=1e-4, atol=1e-5)


def test_gauss_newton_is_the_hessian_of_a_linear_model():
    def linear(w, x):
        return x @ w

    def losses(w, x, label):
        return optax.softmax_cross_entropy_with_integer_labels(linear(w, x), label)

    w, v = PARAMS["w2"], VECTOR["w2"]
    rows = ROWS[0][:, :H], ROWS[1]
    np.testing.assert_allclose(
        gauss_newton_vector_product(linear, w, rows[0], v, batch_size=2),
        sum_hvp(losses, w, rows, v, batch_size=2),
        rtol=1e-4,
        atol=1e-5,
    )


def test_finite_differences_in_float64():
    with enable_x64(True):
        params, vector = (jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree) for tree in (PARAMS, VECTOR))
        rows = jnp.asarray(ROWS[0], jnp.float64), jnp.asarray(ROWS[1])
        step = 1e-5
        plus, minus = (jax.tree.map(lambda p, v, s=sign: p + s * step * v, params, vector) for sign in (1, -1))

        losses = jax.jit(loss_fn)
        slope = (losses(plus, *rows) - losses(minus, *rows)) / (2 * step)
        gradients = per_example_gradients(loss_fn, params, rows, batch_size=3)
        along = sum(
            np.asarray(g).reshape(N, -1) @ np.ravel(v)
            for g, v in zip(jax.tree.leaves(gradients), jax.tree.leaves(vector), strict=True)
        )
        np.testing.assert_allclose(along, slope, rtol=1e-7, atol=1e-9)

        total = jax.jit(jax.grad(lambda p: loss_fn(p, *rows).sum()))
        bend = (flat(total(plus)) - flat(total(minus))) / (2 * step)
        product = sum_hvp(loss_fn, params, rows, vector, batch_size=3)
        assert product["w1"].dtype == jnp.float64
        np.testing.assert_allclose(flat(product), bend, rtol=1e-7, atol=1e-8)


def test_equal_shapes_trace_once():
    traces = []

    def counted(params, x, label):
        traces.append(x.shape)
        return loss_fn(params, x, label)

    sum_hvp(counted, PARAMS, ROWS, VECTOR, batch_size=3)
    first = len(traces)
    sum_hvp(counted, PARAMS, (ROWS[0] + 1, ROWS[1]), VECTOR, batch_size=3)
    assert len(traces) == first
    assert {shape[0] for shape in traces} == {3}  # never more rows at once than asked for


def test_bad_input_is_named():
    with pytest.raises(ContractError, match=r"`params\['step'\]`: expected float .*, got int32$"):
        per_example_gradients(loss_fn, {**PARAMS, "step": np.int32(3)}, ROWS)
    with pytest.raises(ContractError, match=r"`rows`: expected arrays that share .*, got lengths \[6, 7\]$"):
        sum_hvp(loss_fn, PARAMS, (ROWS[0][:6], ROWS[1]), VECTOR)
    with pytest.raises(ContractError, match="`vector`: expected the structure"):
        gauss_newton_vector_product(apply_fn, PARAMS, ROWS[0], {**VECTOR, "w1": VECTOR["w1"][:1]})
