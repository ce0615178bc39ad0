"""The dense factor against the explicit Hessian of the weighted, regularised objective."""

import numpy as np
import pytest
from oracles import softmax_head as oracle
from precision import enable_x64

from jaxdebias.explain import influence
from jaxdebias.explain.influence import AffineHead

D, L2, DAMPING = 5, 0.7, 0.3


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_solves_with_the_hessian_of_the_whole_objective(classes, weighted):
    """Two classes take a reduced curvature of their own; weights, l2 and damping each shift the result visibly."""
    rng = np.random.default_rng(classes)
    x, label = rng.normal(size=(40, D)), rng.integers(0, classes, 40)
    theta = 0.5 * rng.normal(size=(D, classes))
    weight = rng.uniform(0.0, 3.0, 40) if weighted else None
    rhs = rng.normal(size=(D * classes, 3))
    with enable_x64(True):
        problem = influence.head_problem(x, label, AffineHead(theta, None), l2=L2, weight=weight)
        solution = influence.factor(problem, damping=DAMPING).solve(rhs)
    matrix = oracle.hessian(theta, x, L2, weight) + DAMPING * np.eye(D * classes)
    np.testing.assert_allclose(solution.value, np.linalg.solve(matrix, rhs), rtol=1e-9, atol=1e-12)
    assert solution.residual < 1e-9
