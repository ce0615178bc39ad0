"""The dense factor and the Newton refit against float64 NumPy."""

import numpy as np
import pytest
from oracles import softmax_head as oracle
from oracles.fmd_toy import l2, toy
from precision import enable_x64

from jaxdebias.contracts import ContractError
from jaxdebias.explain import influence
from jaxdebias.explain.influence import AffineHead


def problem_of(seed=0, n=400, d=6, k=4, dtype=np.float32, regulariser=0.5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(dtype)
    head = AffineHead(rng.normal(size=(d, k)).astype(dtype), None)
    return influence.head_problem(x, rng.integers(0, k, n), head, l2=regulariser)


def test_solves_equal_dense_solves_in_float64():
    with enable_x64(True):
        problem = problem_of(dtype=np.float64)
        matrix = oracle.hessian(np.asarray(problem.head.kernel), np.asarray(problem.features), 0.5)
        rhs = np.random.default_rng(1).normal(size=(24, 5))
        inverse = influence.factor(problem, damping=0.25)
        solution = inverse.solve(rhs).value
        np.testing.assert_allclose(solution, np.linalg.solve(matrix + 0.25 * np.eye(24), rhs), rtol=1e-10, atol=1e-13)
        looped = np.concatenate([inverse.solve(rhs[:, i : i + 1]).value for i in range(5)], axis=1)
        np.testing.assert_allclose(solution, looped, rtol=1e-5)
        assert inverse.info.residual < 1e-12
        assert influence.residual(problem, solution, rhs, damping=0.25) < 1e-12
        assert influence.residual(problem, 1.01 * solution, rhs, damping=0.25) == pytest.approx(0.01, rel=1e-6)


def test_float32_curvature_with_a_float64_factor():
    problem = problem_of()
    inverse = influence.factor(problem, damping=0.25)
    matrix = oracle.hessian(np.asarray(problem.head.kernel, np.float64), np.asarray(problem.features, np.float64), 0.75)
    rhs = np.random.default_rng(1).normal(size=(24, 5))
    np.testing.assert_allclose(inverse.solve(rhs).value, np.linalg.solve(matrix, rhs), rtol=1e-4, atol=1e-5)
    assert inverse.info.residual < 1e-4
    # The least eigenvalue is that of the null space, l2 + damping; a pivot is never under it.
    assert 0.75 * (1 - 1e-4) <= inverse.info.smallest_pivot < 10.0
    gradient = np.asarray(influence.head_gradient(problem))
    assert inverse.info.gradient_norm == pytest.approx(float(np.linalg.norm(gradient)), rel=1e-5)


def test_singular_and_broken_hessians_are_loud():
    problem = problem_of(regulariser=0.0)
    with pytest.raises(ContractError, match=r"damping.*positive definite"):
        influence.factor(problem)
    broken = problem._replace(features=problem.features.at[3, 2].set(np.nan))
    with pytest.raises(ContractError, match=r"curvature of layer kernel"):
        influence.factor(broken, damping=1.0)
    wide = AffineHead(np.zeros((6, 4000), np.float32), None)
    with pytest.raises(ContractError, match="at most"):
        influence.factor(problem._replace(head=wide), damping=1.0)
    with pytest.raises(ContractError, match="rhs"):
        influence.factor(problem, damping=1.0).solve(np.ones((23, 1)))


def test_a_factor_survives_the_disk(tmp_path):
    inverse = influence.factor(problem_of(), damping=0.25)
    influence.save(tmp_path / "factor.npz", inverse)
    loaded = influence.load(tmp_path / "factor.npz")
    np.testing.assert_array_equal(loaded.cholesky, inverse.cholesky)
    assert loaded.info == inverse.info
    assert [path.name for path in tmp_path.iterdir()] == ["factor.npz"]
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(ContractError, match="a saved inverse"):
        influence.load(tmp_path / "other.npz")


@pytest.mark.parametrize("bias", [True, False])
def test_refit_finds_the_minimum(bias):
    data = toy(0)
    x = data.x[:, :-1] if bias else data.x
    head = AffineHead(np.zeros((x.shape[1], 2), np.float32), np.zeros(2, np.float32) if bias else None)
    problem = influence.head_problem(x.astype(np.float32), data.y, head, l2=l2(2000))
    fitted, info = influence.refit(problem, tolerance=1e-9)
    assert info.converged
    assert info.gradient_norm < 1e-9
    assert info.steps < 30
    exact = oracle.fit(data.x.astype(np.float32).astype(np.float64), data.y, 2, l2(2000))
    np.testing.assert_allclose(influence.to_vector(fitted), exact.reshape(-1), atol=1e-6)


def test_refit_converges_on_separable_data_with_little_regularisation():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5)).astype(np.float32)
    label = (x @ rng.normal(size=(5, 3))).argmax(axis=1)
    problem = influence.head_problem(x, label, AffineHead(np.zeros((5, 3), np.float32), None), l2=1e-4)
    fitted, info = influence.refit(problem)
    assert info.converged
    np.testing.assert_allclose(fitted.kernel, oracle.fit(x.astype(np.float64), label, 3, 1e-4), rtol=1e-6, atol=1e-6)
    _, stopped = influence.refit(problem, max_steps=2)
    assert not stopped.converged
    with pytest.raises(ContractError, match="l2"):
        influence.refit(problem._replace(l2=0.0))
