"""Derivatives of the head against the definitions in float64, and finding the head in any pytree."""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import softmax_head as oracle
from precision import enable_x64

from jaxdebias.contracts import ContractError
from jaxdebias.explain import influence
from jaxdebias.explain.influence import AffineHead, HeadPairs


def example(bias=True, dtype=np.float32, n=60, d=4, k=3, seed=0):
    """A problem with weights and a regulariser, and the oracle's view of it: (problem, pairs, theta, x, twin)."""
    rng = np.random.default_rng(seed)
    z, twin = rng.normal(size=(n, d)).astype(dtype), rng.normal(size=(n, d)).astype(dtype)
    label = rng.integers(0, k, n).astype(np.int32)
    head = AffineHead(rng.normal(size=(d, k)).astype(dtype), rng.normal(size=k).astype(dtype) if bias else None)
    weight = rng.uniform(0.5, 2.0, n).astype(dtype)
    problem = influence.head_problem(z, label, head, weight=weight, l2=0.3)
    ones = np.ones((n, 1)) if bias else np.zeros((n, 0))
    theta = np.asarray(influence.to_vector(head), np.float64).reshape(-1, k)
    return (
        problem,
        HeadPairs(jnp.asarray(z), jnp.asarray(twin), problem.label),
        theta,
        np.concatenate([z, ones], 1).astype(np.float64),
        np.concatenate([twin, ones], 1).astype(np.float64),
    )


@pytest.mark.parametrize("bias", [True, False])
def test_loss_gradient_and_hessian_are_the_definitions(bias):
    problem, _, theta, x, _ = example(bias)
    y, w = np.asarray(problem.label), np.asarray(problem.weight, np.float64)
    np.testing.assert_allclose(influence.head_loss(problem), oracle.loss(theta, x, y, 0.3, w), rtol=1e-5)
    gradient = influence.head_gradient(problem)
    np.testing.assert_allclose(gradient, oracle.gradient(theta, x, y, 0.3, w), rtol=1e-4, atol=1e-4)
    dense = np.asarray(influence.hessian(problem))
    np.testing.assert_allclose(dense, oracle.hessian(theta, x, 0.3, w), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(dense, dense.T)


def test_finite_differences_in_float64():
    with enable_x64(True):
        problem, pairs, theta, x, twin = example(dtype=np.float64)
        y, w, step = np.asarray(problem.label), np.asarray(problem.weight), 1e-6
        got = influence.bias_gradient(influence.pair_bias, problem.head, pairs)
        probe = [
            oracle.pair_bias(theta + s * e.reshape(theta.shape), x, twin, y)
            for e in np.eye(theta.size)
            for s in (step, -step)
        ]
        slope = (np.array(probe[::2]) - probe[1::2]) / (2 * step)
        assert np.linalg.norm(got - slope) / np.linalg.norm(slope) < 1e-7
        np.testing.assert_allclose(got, oracle.pair_bias_gradient(theta, x, twin, y), rtol=1e-10, atol=1e-14)

        v = np.random.default_rng(1).normal(size=theta.size)
        up, down = (oracle.gradient(theta + s * v.reshape(theta.shape), x, y, 0.3, w) for s in (step, -step))
        product = np.asarray(influence.hessian_product(problem, v[:, None]))[:, 0]
        assert np.linalg.norm(product - (up - down) / (2 * step)) / np.linalg.norm(product) < 1e-6
        columns = influence.hessian_product(problem, np.eye(theta.size))
        np.testing.assert_allclose(influence.hessian(problem, chunk=7), columns, rtol=1e-10, atol=1e-12)
        by_autodiff = jax.hessian(
            lambda p: influence.head_loss(problem._replace(head=influence.to_head(p, problem.head)))
        )(influence.to_vector(problem.head))
        np.testing.assert_allclose(columns, by_autodiff, rtol=1e-10, atol=1e-11)


def test_dense_hessian_is_the_product_with_basis_vectors_in_float32():
    problem, *_ = example(n=500)
    dense = np.asarray(influence.hessian(problem, chunk=64))
    columns = influence.hessian_product(problem, np.eye(len(dense), dtype=np.float32))
    np.testing.assert_allclose(dense, columns, rtol=1e-5, atol=1e-5 * np.abs(dense).max())


@pytest.mark.parametrize("bias", [True, False])
def test_the_null_space_is_one_vector_per_feature(bias):
    with enable_x64(True):
        problem, *_ = example(bias, dtype=np.float64)
        values = np.linalg.eigvalsh(influence.hessian(problem._replace(l2=0.0)))
        assert values[0] > -1e-12 * values[-1]  # positive semi-definite
        assert (values < 1e-12 * values[-1]).sum() == 4 + bias


def test_sum_convention_and_invariances():
    problem, *_ = example(n=100)
    dense = np.asarray(influence.hessian(problem._replace(l2=0.0)))
    rows = influence.HeadProblem(*(jnp.concatenate([v, v]) for v in problem[:3]), problem.head, 0.0)
    np.testing.assert_allclose(influence.hessian(rows), 2 * dense, rtol=1e-5, atol=1e-4)  # a sum, not a mean
    order = np.random.default_rng(0).permutation(100)
    shuffled = influence.HeadProblem(*(v[order] for v in problem[:3]), problem.head, 0.0)
    np.testing.assert_allclose(influence.hessian(shuffled, chunk=9), dense, rtol=1e-5, atol=1e-4)


def test_a_saturated_row_keeps_its_gradient_and_curvature():
    # p_y rounds to 1 in float32; 1 - p_y = 2 exp(-20) does not round to 0 when summed from the other classes.
    head = AffineHead(np.array([[20.0, 0.0, 0.0]], np.float32), None)
    problem = influence.head_problem(np.ones((1, 1), np.float32), np.zeros(1, np.int32), head)
    tail = np.exp(-20.0)
    np.testing.assert_allclose(influence.head_gradient(problem), [-2 * tail, tail, tail], rtol=1e-5)
    np.testing.assert_allclose(np.diag(influence.hessian(problem)), [2 * tail, tail, tail], rtol=1e-5)


def test_pair_biases_by_hand():
    large = 50.0  # a pure colour model: feature +1 says class 0, -1 says class 1; the twin has the other colour
    head = AffineHead(np.array([[large, -large]], np.float32), None)
    z, label = jnp.array([[1.0], [-1.0]]), jnp.array([0, 1])
    assert float(influence.pair_bias(head, HeadPairs(z, -z, label))) == pytest.approx(1.0)
    constant = AffineHead(np.zeros((1, 2), np.float32), None)
    assert float(influence.pair_bias(constant, HeadPairs(z, -z, label))) == 0.0
    # One pair loses, the other gains as much: each is biased, the groups are not.
    other = HeadPairs(jnp.array([[1.0], [-1.0]]), jnp.array([[-1.0], [1.0]]), jnp.array([0, 0]))
    assert float(influence.pair_bias(head, other)) == pytest.approx(1.0)
    assert float(influence.pair_gap(head, other)) == pytest.approx(0.0, abs=1e-6)


def test_the_kink_has_derivative_zero():
    head = AffineHead(np.ones((1, 2), np.float32), None)
    same = HeadPairs(jnp.ones((3, 1)), jnp.ones((3, 1)), jnp.array([0, 1, 0]))
    assert np.asarray(influence.bias_gradient(influence.pair_bias, head, same)).tolist() == [0.0, 0.0]


def test_pair_gradients_are_differences_of_example_gradients():
    problem, pairs, theta, x, twin = example()
    y = np.asarray(problem.label)
    expected = oracle.example_gradients(theta, x, y) - oracle.example_gradients(theta, twin, y)
    each = influence.each_pair_gradient(problem.head, pairs)
    np.testing.assert_allclose(each, expected.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(influence.pair_gradient(problem.head, pairs), expected.sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.full(60, 3, np.int32)}, "label"),
        ({"features": np.full((60, 4), np.nan, np.float32)}, "features"),
        ({"weight": np.full(60, -1.0, np.float32)}, "weight"),
        ({"l2": -1.0}, "l2"),
        ({"head": AffineHead(np.zeros((4, 1), np.float32), None)}, "at least 2 classes"),
        ({"head": AffineHead(np.zeros((5, 3), np.float32), None)}, "head.kernel"),
    ],
)
def test_bad_problems_are_refused(change, message):
    problem, *_ = example()
    good = {"features": problem.features, "label": problem.label, "head": problem.head, "weight": problem.weight}
    with pytest.raises(ContractError, match=message):
        influence.head_problem(**(good | change))


def pytrees():
    """(name, head_fn, params, path): the last layer of each library, square where orientation could be mistaken."""
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(4, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    yield (
        "dict",
        lambda p, z: z @ p["params"]["head"]["kernel"] + p["params"]["head"]["bias"][None, :],
        {"params": {"body": {"kernel": w}, "head": {"kernel": w, "bias": b}}},
        ("params", "head"),
    )
    yield "torch", lambda p, z: z @ p["fc.weight"].T, {"fc.weight": w}, ("fc.weight",)
    layers = eqx.nn.MLP(3, 4, 4, 1, key=jax.random.key(0))
    yield "equinox", lambda p, z: jax.vmap(p.layers[-1])(z), layers, ("layers", 1)
    linear = hk.without_apply_rng(hk.transform(lambda z: hk.Linear(4)(z)))
    yield "haiku", linear.apply, linear.init(jax.random.key(0), jnp.ones((1, 4))), ("linear",)
    graph, state = nnx.split(nnx.Linear(4, 4, rngs=nnx.Rngs(0)))
    yield "nnx", lambda p, z: nnx.merge(graph, p)(z), state, ()


@pytest.mark.parametrize(("head_fn", "params", "path"), [pytest.param(*row, id=name) for name, *row in pytrees()])
def test_the_head_is_found_and_replaced_in_any_pytree(head_fn, params, path):
    head, replace = influence.find_head(head_fn, params, path, 4)
    z = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(influence.head_logits(head, z), head_fn(params, z), rtol=1e-4, atol=1e-5)
    other = jax.tree.map(lambda leaf: 2 * leaf + 1, head)
    changed = replace(params, other)
    np.testing.assert_allclose(influence.head_logits(other, z), head_fn(changed, z), rtol=1e-4, atol=1e-4)
    kept = [a is b for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(changed), strict=True)]
    assert kept.count(False) == len(jax.tree.leaves(head))


def test_heads_that_are_not_affine_or_not_there_are_refused():
    params = {"head": {"kernel": np.ones((4, 3), np.float32)}, "extra": np.ones(3, np.float32)}
    with pytest.raises(ContractError, match="affine"):
        influence.find_head(lambda p, z: jnp.tanh(z @ p["head"]["kernel"]), params, ("head",), 4)
    with pytest.raises(ContractError, match="affine"):  # a bias that does not lie at the path
        influence.find_head(lambda p, z: z @ p["head"]["kernel"] + p["extra"][None, :], params, ("head",), 4)
    with pytest.raises(ContractError, match="for instance one of extra, head"):
        influence.find_head(lambda p, z: z, params, ("haed",), 4)
    with pytest.raises(ContractError, match="d=7"):
        influence.find_head(lambda p, z: z, params, ("head",), 7)


def test_reduced_precision_is_kept_on_the_way_back():
    params = {"head": {"kernel": jnp.ones((4, 3), jnp.bfloat16)}}
    head, replace = influence.find_head(lambda p, z: z @ p["head"]["kernel"].astype(jnp.float32), params, ("head",), 4)
    assert head.kernel.dtype == jnp.float32
    assert replace(params, head)["head"]["kernel"].dtype == jnp.bfloat16


def test_equal_probabilities_have_no_gradient():
    head = AffineHead(jnp.ones((3, 2)), None)
    same = HeadPairs(jnp.ones((4, 3)), jnp.ones((4, 3)), jnp.zeros(4, jnp.int32))
    for bias in (influence.pair_bias, influence.pair_gap):
        np.testing.assert_array_equal(influence.bias_gradient(bias, head, same), np.zeros(6))
