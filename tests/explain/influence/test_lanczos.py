"""The low-rank inverse against the float64 Hessian, its eigenvalues, and dense factors."""

import jax.numpy as jnp
import numpy as np
import pytest
from oracles import softmax_head as oracle
from precision import enable_x64

from jaxdebias.contracts import ContractError
from jaxdebias.explain import influence
from jaxdebias.explain.influence import AffineHead, Dense, Lanczos, find_block
from jaxdebias.explain.influence import _solvers as solvers

D, K, L2, DAMPING = 11, 5, 0.5, 2.0
P = D * K
FLOOR = L2 + DAMPING


def setting(dtype=np.float32, l2=L2):
    """Features whose scales fall off, so that few directions carry most of the curvature."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, D)) * 3.0 * 0.6 ** np.arange(D)[None, :]
    head = AffineHead((0.3 * rng.normal(size=(D, K))).astype(dtype), None)
    return influence.head_problem(x.astype(dtype), rng.integers(0, K, 400), head, l2=l2)


def curvature(problem):
    return oracle.hessian(np.asarray(problem.head.kernel, np.float64), np.asarray(problem.features, np.float64), 0.0)


def right(columns=4):
    return np.random.default_rng(1).normal(size=(P, columns))


@pytest.mark.parametrize(("wide", "rtol"), [(False, 1e-4), (True, 1e-9)])
def test_all_steps_are_the_dense_solution(wide, rtol):
    with enable_x64(wide):
        problem = setting(np.float64 if wide else np.float32)
        inverse = influence.factor(problem, Lanczos(steps=P + 10), damping=DAMPING)
        solution = inverse.solve(right())
    wanted = np.linalg.solve(curvature(problem) + FLOOR * np.eye(P), right())
    assert np.linalg.norm(solution.value - wanted) < rtol * np.linalg.norm(wanted)
    assert inverse.vectors.shape == (P, P)
    assert inverse.info.ignored == 0.0
    assert inverse.info.residual < rtol
    assert solution.residual < 1e-10
    assert (solution.iterations, solution.damping) == (0, DAMPING)


def test_the_basis_is_orthonormal_and_finds_the_largest_curvatures():
    problem = setting()
    inverse = influence.factor(problem, Lanczos(steps=30), damping=DAMPING)
    np.testing.assert_allclose(inverse.vectors.T @ inverse.vectors, np.eye(30), atol=1e-12)
    np.testing.assert_allclose(inverse.values[-8:], np.linalg.eigvalsh(curvature(problem))[-8:], rtol=1e-4)
    assert (inverse.values >= 0).all()


def test_outside_the_basis_there_is_damping_only():
    problem = setting()
    full = curvature(problem)
    inverse = influence.factor(problem, Lanczos(steps=12), damping=DAMPING)
    onto = inverse.vectors @ inverse.vectors.T
    wanted = np.linalg.solve(onto @ full @ onto + FLOOR * np.eye(P), right())
    assert np.linalg.norm(inverse.solve(right()).value - wanted) < 1e-4 * np.linalg.norm(wanted)
    outside = right() - onto @ right()
    np.testing.assert_allclose(inverse.solve(outside).value, outside / FLOOR, rtol=1e-9, atol=1e-12)
    assert inverse.solve(right()).residual < 1e-10  # of what it inverts


def test_info_measures_what_is_left_out():
    problem = setting()
    full, gradient = curvature(problem), np.asarray(problem.gradient(), np.float64)[:, None]
    few, more = (influence.factor(problem, Lanczos(steps=steps), damping=DAMPING) for steps in (4, 25))
    x = few.solve(gradient).value
    left = np.linalg.norm((full + FLOOR * np.eye(P)) @ x - gradient) / np.linalg.norm(gradient)
    assert few.info.residual == pytest.approx(left, rel=1e-3)
    assert more.info.residual < 0.1 * few.info.residual
    outside = np.eye(P) - few.vectors @ few.vectors.T
    mean = np.trace(outside @ full) / (P - 4)
    assert 0.4 * mean < few.info.ignored < 2.5 * mean
    assert more.info.ignored < 0.1 * few.info.ignored


def test_an_invariant_space_does_not_end_the_search():
    # Two identity-like curvatures only: the Krylov space of any start has three dimensions.
    with enable_x64(True):
        x = np.eye(6)[np.arange(60) % 6]
        problem = influence.head_problem(x, np.arange(60) % 3, AffineHead(np.zeros((6, 3)), None), l2=L2)
        inverse = influence.factor(problem, Lanczos(steps=18), damping=DAMPING)
        matrix = oracle.hessian(np.zeros((6, 3)), x, FLOOR)
        rhs = np.random.default_rng(1).normal(size=(18, 2))
        np.testing.assert_allclose(inverse.solve(rhs).value, np.linalg.solve(matrix, rhs), rtol=1e-9, atol=1e-12)


def network():
    rng = np.random.default_rng(0)
    params = {
        "first": jnp.asarray(rng.normal(size=(4, 5)), jnp.float32),
        "last": jnp.asarray(rng.normal(size=(5, 3)), jnp.float32),
    }
    x, label = jnp.asarray(rng.normal(size=(80, 4)), jnp.float32), rng.integers(0, 3, 80)
    head, features, _ = find_block(
        lambda params, x: jnp.tanh(x @ params["first"]) @ params["last"], params, x, ["first", "last"]
    )
    return influence.head_problem(features(params, x), label, head)


def test_a_block_of_two_layers():
    problem, rhs = network(), np.random.default_rng(1).normal(size=(35, 2))
    inverse = influence.factor(problem, Lanczos(steps=35), damping=1.0)
    wanted = influence.factor(problem, Dense(), damping=1.0).solve(rhs).value
    assert np.linalg.norm(inverse.solve(rhs).value - wanted) < 1e-4 * np.linalg.norm(wanted)
    # Off the last layer the Hessian is indefinite.
    with pytest.raises(ContractError, match=r"damping.*negative curvature"):
        influence.factor(problem, Lanczos(steps=35, curvature="hessian"), damping=1e-3)


def test_it_survives_the_disk_and_equal_seeds_are_equal_bits(tmp_path):
    problem = setting()
    inverse, again = (influence.factor(problem, Lanczos(steps=10), damping=DAMPING) for _ in range(2))
    np.testing.assert_array_equal(inverse.vectors, again.vectors)
    solvers.save(tmp_path / "low_rank.npz", inverse)
    read = solvers.load(tmp_path / "low_rank.npz")
    np.testing.assert_array_equal(read.solve(right()).value, inverse.solve(right()).value)
    assert read.info == inverse.info


def test_bad_input_is_one_line():
    problem = setting(l2=0.0)
    with pytest.raises(ContractError, match="damping"):
        influence.factor(problem, Lanczos())
    with pytest.raises(ContractError, match="steps"):
        influence.factor(problem, Lanczos(steps=0), damping=1.0)
    with pytest.raises(ContractError, match="rhs"):
        influence.factor(problem, Lanczos(steps=3), damping=1.0).solve(np.ones((P + 1, 1)))
    broken = problem._replace(features=problem.features.at[3, 2].set(np.nan))
    with pytest.raises(ContractError, match=r"layer kernel.*finite"):
        influence.factor(broken, Lanczos(steps=3), damping=1.0)
