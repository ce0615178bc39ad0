"""A block of several layers against autodiff of the whole, and as an affine head against the closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from precision import enable_x64

from jaxdebias import models
from jaxdebias.contracts import ContractError
from jaxdebias.explain import influence
from jaxdebias.explain.influence import find_block
from jaxdebias.explain.influence._block import cross_entropy


def example(layers=2, n=40, dtype=np.float32, hidden=(6, 5)):
    """(problem, apply_fn, params, x) of a small network and its last layers."""
    rng = np.random.default_rng(0)
    classifier = models.build("mlp", hidden=hidden, classes=3)
    x = rng.normal(size=(n, 7)).astype(dtype)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype) * 2, classifier.init(jax.random.key(1), x))
    where = influence.last_layers(classifier.apply, params, x, layers)
    head, features, replace = find_block(classifier.apply, params, x, where)
    problem = influence.head_problem(
        jax.jit(features)(params, x), rng.integers(0, 3, n), head, weight=rng.uniform(0.5, 2, n).astype(dtype), l2=0.3
    )
    return problem, classifier.apply, params, x, replace


def whole_loss(problem, apply_fn, params, x):
    """F as a function of the block's vector, through the whole network."""

    def loss(vector):
        moved = problem.head.cut.put(params, problem.head.with_vector(vector).theta)
        log_p = jax.nn.log_softmax(apply_fn(moved, x))
        own = jnp.take_along_axis(log_p, problem.label[:, None], axis=1)[:, 0]
        return -(problem.weight * own).sum() + 0.15 * (vector**2).sum()

    return loss


def test_derivatives_are_those_of_the_whole_network():
    with enable_x64(True):
        problem, apply_fn, params, x, _ = example(dtype=np.float64, n=12, hidden=(4, 3))
        loss, vector = whole_loss(problem, apply_fn, params, x), problem.head.vector()
        assert problem.size == len(vector) == sum(size for _, size in problem.layers)
        np.testing.assert_allclose(problem.gradient(), jax.jit(jax.grad(loss))(vector), rtol=1e-8, atol=1e-10)
        dense = np.asarray(jax.jit(jax.hessian(loss))(vector))
        got = problem.product(np.eye(problem.size), "hessian")
        np.testing.assert_allclose(got, dense, rtol=1e-8, atol=1e-9)

        # Gauss-Newton, by its definition.
        def logits(vector):
            return apply_fn(problem.head.cut.put(params, problem.head.with_vector(vector).theta), x)

        jacobian = np.asarray(jax.jit(jax.jacobian(logits))(vector))
        p = np.asarray(jax.jit(lambda v: jax.nn.softmax(logits(v)))(vector))
        expected = 0.3 * np.eye(problem.size)
        for row in range(len(x)):
            curved = np.diag(p[row]) - np.outer(p[row], p[row])
            expected += float(problem.weight[row]) * jacobian[row].T @ curved @ jacobian[row]
        np.testing.assert_allclose(problem.product(np.eye(problem.size)), expected, rtol=1e-8, atol=1e-9)

        # The slope of every row along every column.
        vectors = np.random.default_rng(1).normal(size=(problem.size, 3))

        def losses(vector):
            return -jnp.take_along_axis(jax.nn.log_softmax(logits(vector)), problem.label[:, None], axis=1)[:, 0]

        slopes = np.asarray(jax.jit(jax.jacobian(losses))(vector)) @ vectors
        np.testing.assert_allclose(problem.slopes(vectors), slopes, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian"])
def test_many_columns_at_once_are_the_columns_one_by_one(curvature):
    """More than 32,768 numbers in a chunk: XLA's fusion of a sum of products went wrong there on CPU."""
    problem, *_ = example(layers=3, n=400, hidden=(12, 10))
    vectors = np.random.default_rng(0).normal(size=(problem.size, 101)).astype(np.float32)
    together, some = np.asarray(problem.product(vectors, curvature)), [0, 50, 99, 100]
    alone = np.concatenate([problem.product(vectors[:, [i]], curvature) for i in some], axis=1)
    np.testing.assert_allclose(together[:, some], alone, rtol=1e-3, atol=1e-4 * np.abs(alone).max())


def test_one_layer_as_a_block_is_the_affine_head():
    problem, apply_fn, params, x, _ = example(layers=1)
    classifier = models.build("mlp", hidden=(6, 5), classes=3)
    assert classifier.apply is apply_fn
    z = jax.jit(classifier.vector.features)(params, x)
    head, _ = influence.find_head(classifier.vector.head, params, classifier.head_path, z.shape[1])
    affine = influence.head_problem(z, problem.label, head, weight=problem.weight, l2=0.3)
    # The block's vector starts with the bias, the affine head's with the kernel.
    order = np.concatenate([np.arange(15, 18), np.arange(15)])
    np.testing.assert_allclose(problem.gradient(), np.asarray(affine.gradient())[order], rtol=1e-4, atol=1e-4)
    eye = np.eye(18, dtype=np.float32)
    dense = np.asarray(affine.product(eye))[np.ix_(order, order)]
    np.testing.assert_allclose(problem.product(eye), dense, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(problem.product(eye, "hessian"), dense, rtol=1e-4, atol=1e-4)
    gradient = np.asarray(affine.gradient())
    got = influence.change_if_removed(problem, influence.factor(problem, damping=0.5), gradient[order])
    expected = influence.change_if_removed(affine, influence.factor(affine, damping=0.5), gradient)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)
    pairs = [
        influence.HeadPairs(z, jax.tree.map(lambda v: v[::-1], z), problem.label)
        for z in (problem.features, affine.features)
    ]
    block, closed = (
        influence.bias_gradient(influence.pair_bias, p.head, pair)
        for p, pair in zip((problem, affine), pairs, strict=True)
    )
    np.testing.assert_allclose(block, np.asarray(closed)[order], rtol=1e-4, atol=1e-5)
    block, closed = (influence.pair_gradient(p.head, pair) for p, pair in zip((problem, affine), pairs, strict=True))
    np.testing.assert_allclose(block, np.asarray(closed)[order], rtol=1e-4, atol=1e-4)


def _tanh_network(params, x):
    return jnp.tanh(x @ params["first"]) @ params["last"]


@pytest.mark.slow
def test_leave_one_out_through_two_layers():
    """One Newton step from a converged block predicts retraining with a little less of a row."""
    with enable_x64(True):
        rng = np.random.default_rng(0)  # smooth, so that a minimum is a point without slope
        x, params = rng.normal(size=(60, 5)), {"first": rng.normal(size=(5, 4)), "last": rng.normal(size=(4, 3))}
        head, features, _ = find_block(_tanh_network, params, x, ["first", "last"])
        problem = influence.head_problem(features(params, x), rng.integers(0, 3, 60), head, l2=2.0)

        @jax.jit
        def loss(vector, weight):
            losses = cross_entropy(problem.head.with_vector(vector).logits(problem.features), problem.label)
            return weight @ losses + (vector**2).sum()

        slope, curvature = jax.jit(jax.grad(loss)), jax.jit(jax.hessian(loss))

        def converged(weight, vector):
            """Newton, made positive definite, with backtracking."""
            for _ in range(100):
                gradient = np.asarray(slope(vector, weight))
                if np.linalg.norm(gradient) < 1e-10:
                    break
                values, basis = np.linalg.eigh(curvature(vector, weight))
                step = -basis @ ((basis.T @ gradient) / np.maximum(np.abs(values), 0.1))
                size = 1.0
                while loss(vector + size * step, weight) > loss(vector, weight) + 1e-12 and size > 1e-6:
                    size /= 2
                vector = vector + size * step
            assert np.linalg.norm(gradient) < 1e-8
            return vector

        start = converged(np.ones(60), problem.head.vector())
        base = problem._replace(head=problem.head.with_vector(start))
        target = influence.HeadPairs(
            jax.tree.map(lambda v: v[:20], problem.features),
            jax.tree.map(lambda v: v[20:40], problem.features),
            problem.label[:20],
        )
        gradient = influence.bias_gradient(influence.pair_gap, base.head, target)
        inverse = influence.factor(base, influence.Dense(curvature="hessian"))
        predicted = np.asarray(influence.change_if_removed(base, inverse, gradient))
        before, actual = float(influence.pair_gap(base.head, target)), []
        rows = np.arange(40, 60)
        for row in rows:
            weight = np.ones(60)
            weight[row] = 0.998  # a little of it, so that the first order is all
            after = problem.head.with_vector(converged(weight, start))
            actual.append(float(influence.pair_gap(after, target)) - before)
        np.testing.assert_allclose(0.002 * predicted[rows], actual, rtol=0.03, atol=1e-9)


def test_saturated_losses_keep_their_derivatives():
    logits, label = jnp.array([[30.0, 0.0, 1.0]]), jnp.array([0])
    gradient = jax.grad(lambda z: cross_entropy(z, label)[0])(logits)[0]
    small = np.exp(np.array([0.0, 1.0]) - 30.0)
    np.testing.assert_allclose(gradient, [-small.sum(), *small], rtol=1e-5)
    assert float(cross_entropy(jnp.array([[0.0, 0.0, -jnp.inf]]), label)[0]) == pytest.approx(np.log(2.0))


def test_vectors_and_leaves():
    problem, _, params, _, replace = example()
    head = problem.head.with_vector(problem.head.vector() + 1.0)
    np.testing.assert_allclose(ravel_pytree(head.theta)[0], problem.head.vector() + 1.0)
    moved = replace(params, head)
    assert moved["params"]["layers_0"]["kernel"] is params["params"]["layers_0"]["kernel"]
    np.testing.assert_allclose(moved["params"]["head"]["bias"], params["params"]["head"]["bias"] + 1.0)


def test_a_second_call_compiles_nothing_and_bad_values_name_the_layer():
    problem, apply_fn, params, x, _ = example()
    where = influence.last_layers(apply_fn, params, x, 2)
    problem.product(np.ones((problem.size, 2), np.float32))
    problem.slopes(np.ones((problem.size, 2), np.float32))
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    head, _, _ = find_block(apply_fn, params, x, where)
    again = problem._replace(head=head)
    again.product(np.ones((problem.size, 2), np.float32))
    again.slopes(np.ones((problem.size, 2), np.float32))
    assert compiled == []
    broken = {**problem.head.theta, "params/layers_1/kernel": problem.head.theta["params/layers_1/kernel"] * np.nan}
    with pytest.raises(ContractError, match=r"layers_1/kernel"):
        influence.head_problem(problem.features, problem.label, problem.head.at(broken))
    rhs = np.ones((problem.size, 1), np.float32)
    rhs[18 + 2] = np.nan
    inverse = influence.factor(problem, influence.ConjugateGradient(), damping=1.0)
    with pytest.raises(ContractError, match=r"rhs of layer params/layers_1/bias"):
        inverse.solve(rhs)
