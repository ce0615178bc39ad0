"""Conjugate gradients against dense solves, with each preconditioner."""

import numpy as np
import pytest
from explain.influence.test_block import example
from explain.influence.test_solvers import problem_of
from precision import enable_x64

from jaxdebias.contracts import ContractError
from jaxdebias.explain import influence
from jaxdebias.explain.influence import ConjugateGradient, Jacobi, Nystroem

SOLVERS = {"plain": None, "jacobi": Jacobi(), "nystroem": Nystroem(rank=12)}


@pytest.mark.parametrize("kind", SOLVERS)
@pytest.mark.parametrize("block", [False, True])
def test_equal_to_dense(kind, block):
    problem = example()[0] if block else problem_of(n=3000)
    rhs = np.random.default_rng(1).normal(size=(problem.size, 5)).astype(np.float32)
    rhs[:, 3] = 0.0
    rhs[:, 4] *= 1e6
    solver = ConjugateGradient(tolerance=1e-6, preconditioner=SOLVERS[kind])
    solution = influence.factor(problem, solver, damping=0.5).solve(rhs)
    dense = influence.factor(problem, damping=0.5).solve(rhs)
    error = np.linalg.norm(solution.value - dense.value, axis=0) / np.maximum(np.linalg.norm(dense.value, axis=0), 1e-9)
    assert error.max() < 1e-4
    assert solution.value[:, 3].tolist() == [0.0] * problem.size
    assert solution.residual < 1e-4  # the true one, of float32 products
    assert 0 < solution.iterations <= 3 * problem.size
    assert (dense.iterations, dense.damping, solution.damping) == (0, 0.5, 0.5)
    alone = influence.factor(problem, solver, damping=0.5).solve(rhs[:, :1]).value
    np.testing.assert_allclose(alone, solution.value[:, :1], rtol=1e-3, atol=1e-6)


def test_preconditioners_save_iterations():
    """Features whose scales span more than one order of magnitude."""
    rng = np.random.default_rng(0)
    scales = np.logspace(0, 1.5, 30)
    head = influence.AffineHead(np.zeros((30, 3), np.float32), None)
    mixed = (rng.normal(size=(500, 30)) * scales).astype(np.float32)
    problem = influence.head_problem(mixed, rng.integers(0, 3, 500), head, l2=1.0)
    # Softmax gradients sum to zero over the classes; outside of that range only damping is curvature.
    rhs = rng.normal(size=(30, 3, 2))
    rhs = (rhs - rhs.mean(axis=1, keepdims=True)).reshape(90, 2)
    steps = {
        kind: influence.factor(problem, ConjugateGradient(tolerance=1e-4, preconditioner=p)).solve(rhs).iterations
        for kind, p in {**SOLVERS, "nystroem": Nystroem(rank=60)}.items()
    }
    assert steps["jacobi"] < 0.5 * steps["plain"]
    assert steps["nystroem"] < 0.5 * steps["plain"]


def test_too_few_steps_are_said():
    problem = problem_of(n=3000)
    solution = influence.factor(problem, ConjugateGradient(max_steps=2), damping=1e-3).solve(
        np.random.default_rng(0).normal(size=(24, 1))
    )
    assert solution.iterations == 2
    assert solution.residual > 1e-3


def test_an_indefinite_hessian_is_loud():
    problem = example(n=6)[0]._replace(l2=0.0)
    values = np.linalg.eigvalsh(np.asarray(problem.product(np.eye(problem.size, dtype=np.float32), "hessian")))
    assert values[0] < -1e-3
    solver = ConjugateGradient(curvature="hessian", max_steps=100)
    with pytest.raises(ContractError, match=r"hessian around layer params/.*positive curvature"):
        influence.factor(problem, solver, damping=1e-6).solve(np.random.default_rng(0).normal(size=(problem.size, 4)))
    influence.factor(problem, ConjugateGradient(max_steps=300), damping=1e-2).solve(np.ones((problem.size, 1)))


def test_bad_settings_and_the_disk():
    with pytest.raises(ContractError, match="tolerance"):
        ConjugateGradient(tolerance=0.0)
    with pytest.raises(ContractError, match="curvature"):
        ConjugateGradient(curvature="fisher")
    problem = problem_of()
    with pytest.raises(ContractError, match="rank"):
        influence.factor(problem, ConjugateGradient(preconditioner=Nystroem(rank=25)))
    inverse = influence.factor(problem, ConjugateGradient())
    with pytest.raises(ContractError, match="needs no training set"):
        influence.save("nowhere.npz", inverse)


def test_it_stops_at_the_tolerance_and_not_before():
    """Features of equal scale: a step lowers the residual to about a quarter, so that a stop at another one shows."""
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(200, 20)), rng.integers(0, 3, 200)
    with enable_x64(True):
        problem = influence.head_problem(x, label, influence.AffineHead(np.zeros((20, 3)), None), l2=0.1)
        rhs = rng.normal(size=(60, 1))
        for tolerance in (1e-2, 1e-5):
            found = influence.factor(problem, ConjugateGradient(tolerance=tolerance), damping=0.1).solve(rhs)
            assert 0.02 * tolerance < found.residual <= 1.001 * tolerance
