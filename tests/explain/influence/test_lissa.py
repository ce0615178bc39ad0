"""LiSSA against the published recursion, written in NumPy, and against dense solves."""

import jax.numpy as jnp
import numpy as np
import pytest
from oracles import softmax_head as oracle
from precision import enable_x64

from jaxdebias.contracts import ContractError
from jaxdebias.explain import influence
from jaxdebias.explain.influence import AffineHead, Dense, Lissa, find_block
from jaxdebias.explain.influence import _solvers as solvers

D, K, L2 = 6, 3, 0.5
P = D * K


def setting(dtype=np.float32, weight=None):
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(200, D)).astype(dtype), rng.integers(0, K, 200)
    head = AffineHead((0.5 * rng.normal(size=(D, K))).astype(dtype), None)
    return influence.head_problem(x, label, head, l2=L2, weight=weight)


def hessian(problem):
    weight = None if problem.weight is None else np.asarray(problem.weight, np.float64)
    return oracle.hessian(
        np.asarray(problem.head.kernel, np.float64), np.asarray(problem.features, np.float64), L2, weight
    )


def right(columns=2):
    return np.random.default_rng(1).normal(size=(P, columns))


def published(matrix, v, damp, scale, depth):
    """h <- v + (1 - damp) h - H h / scale, from h = v; the published code forgets the division by scale at the end."""
    h = v.copy()
    for _ in range(depth):
        h = v + (1.0 - damp) * h - matrix @ h / scale
    return h / scale


def test_step_by_step_the_published_recursion():
    with enable_x64(True):
        problem = setting(np.float64)
        matrix, damp, scale = hessian(problem), 0.01, 80.0
        inverse = influence.factor(problem, Lissa(depth=101, tolerance=0.0, scale=scale), damping=scale * damp)
        solution = inverse.solve(right())
        np.testing.assert_allclose(solution.value, published(matrix, right(), damp, scale, 100), rtol=1e-10)
        assert solution.iterations == 101


def test_damping_is_damping_and_not_multiplied_by_the_scale():
    problem = setting()
    matrix = hessian(problem)
    inverse = influence.factor(problem, Lissa(tolerance=1e-4), damping=2.0)
    solution = inverse.solve(right())
    wanted = np.linalg.solve(matrix + 2.0 * np.eye(P), right())
    np.testing.assert_allclose(solution.value, wanted, rtol=1e-3, atol=1e-5)
    assert solution.residual <= 1e-4
    assert solution.damping == 2.0
    assert 0 < solution.iterations < 5000
    # What the same number means in published code.
    theirs = published(matrix, right(), 2.0 / 25.0, 80.0, 5000)
    np.testing.assert_allclose(theirs, np.linalg.solve(matrix + 80.0 * 2.0 / 25.0 * np.eye(P), right()), rtol=1e-6)
    assert np.linalg.norm(theirs - wanted) > 0.1 * np.linalg.norm(wanted)


def test_the_scale_is_found():
    problem = setting()
    largest = np.linalg.eigvalsh(hessian(problem))[-1]
    inverse = influence.factor(problem, Lissa(), damping=2.0)
    assert largest + 2.0 <= inverse.scale <= 1.12 * (largest + 2.0)


def test_a_run_that_is_too_short_says_so_and_one_that_diverges_raises():
    problem = setting()
    short = influence.factor(problem, Lissa(depth=10), damping=0.1).solve(right())
    assert short.iterations == 10
    assert short.residual > 0.1
    largest = np.linalg.eigvalsh(hessian(problem))[-1]
    with pytest.raises(ContractError, match=r"scale.*converges"):
        influence.factor(problem, Lissa(scale=0.45 * largest), damping=2.0).solve(right())
    # Just above half of it is enough, as promised.
    good = influence.factor(problem, Lissa(scale=0.55 * (largest + 2.0)), damping=2.0).solve(right())
    assert good.residual <= 1e-3


def test_random_batches_come_near_and_more_repeats_come_nearer():
    problem = setting(weight=np.random.default_rng(2).uniform(0.5, 2.0, 200).astype(np.float32))
    wanted = np.linalg.solve(hessian(problem) + 20.0 * np.eye(P), right())

    def off(repeats, seed=0):
        config = Lissa(batch_size=20, depth=200, tolerance=0.0, repeats=repeats, seed=seed)
        value = influence.factor(problem, config, damping=20.0).solve(right()).value
        return np.linalg.norm(value - wanted) / np.linalg.norm(wanted)

    alone, together = np.mean([off(1, 100 * seed) for seed in range(3)]), off(16)
    assert alone < 0.5
    assert together < 0.6 * alone
    assert off(1) == off(1)


def test_bad_input_is_one_line(tmp_path):
    problem = setting()
    for wrong, match in (({"depth": 0}, "depth"), ({"batch_size": 0}, "batch_size"), ({"scale": -1.0}, "scale")):
        with pytest.raises(ContractError, match=match):
            influence.factor(problem, Lissa(**wrong), damping=1.0)
    inverse = influence.factor(problem, Lissa(), damping=1.0)
    with pytest.raises(ContractError, match="rhs"):
        inverse.solve(np.ones((P + 1, 1)))
    with pytest.raises(ContractError, match="training set"):
        solvers.save(tmp_path / "lissa.npz", inverse)
    broken = problem._replace(features=problem.features.at[3, 2].set(np.nan))
    with pytest.raises(ContractError, match=r"curvature.*finite"):
        influence.factor(broken, Lissa(), damping=1.0)


def test_a_block_of_two_layers_with_and_without_batches():
    rng = np.random.default_rng(0)
    params = {
        "first": jnp.asarray(0.5 * rng.normal(size=(4, 5)), jnp.float32),
        "last": jnp.asarray(0.5 * rng.normal(size=(5, 3)), jnp.float32),
    }
    x, label = jnp.asarray(rng.normal(size=(80, 4)), jnp.float32), rng.integers(0, 3, 80)
    head, features, _ = find_block(
        lambda params, x: jnp.tanh(x @ params["first"]) @ params["last"], params, x, ["first", "last"]
    )
    problem = influence.head_problem(features(params, x), label, head)
    rhs = rng.normal(size=(35, 2))
    wanted = influence.factor(problem, Dense(), damping=4.0).solve(rhs).value
    exact = influence.factor(problem, Lissa(tolerance=1e-4), damping=4.0).solve(rhs).value
    assert np.linalg.norm(exact - wanted) < 1e-3 * np.linalg.norm(wanted)
    noisy = influence.factor(problem, Lissa(batch_size=40, depth=150), damping=4.0).solve(rhs)
    assert np.linalg.norm(noisy.value - wanted) < 0.3 * np.linalg.norm(wanted)
    assert noisy.residual > 1e-3  # and it says so


def test_the_scale_covers_the_damping():
    problem = setting()
    largest = float(np.linalg.eigvalsh(hessian(problem)).max())
    inverse = influence.factor(problem, Lissa(power_steps=100), damping=10 * largest)
    assert inverse.scale == pytest.approx(1.1 * 11 * largest, rel=0.02)
