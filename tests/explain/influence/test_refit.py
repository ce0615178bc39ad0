"""The refitted last layer is the minimum of the weighted objective: an oracle's gradient vanishes there."""

import numpy as np
import pytest
from oracles import softmax_head as oracle
from precision import enable_x64

from jaxdebias.explain import influence
from jaxdebias.explain.influence import AffineHead, refit, to_vector


@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_of_the_weighted_objective_vanishes(weighted):
    rng = np.random.default_rng(0)
    x, label, l2 = rng.normal(size=(60, 4)), rng.integers(0, 3, 60), 0.5
    weight = rng.uniform(0.0, 4.0, 60) if weighted else None
    with enable_x64(True):
        problem = influence.head_problem(x, label, AffineHead(np.zeros((4, 3)), None), l2=l2, weight=weight)
        head, info = refit(problem, tolerance=1e-9)
        theta = np.asarray(to_vector(head)).reshape(4, 3)
    assert np.linalg.norm(oracle.gradient(theta, x, label, l2, weight)) < 1e-8
    np.testing.assert_allclose(theta, oracle.fit(x, label, 3, l2, weight), atol=1e-7)
    assert info.steps > 0


def test_a_head_too_large_for_its_hessian_has_the_same_minimum(monkeypatch):
    """Newton steps by conjugate gradients instead of a factor of p x p numbers, which is never formed."""
    rng = np.random.default_rng(0)
    x, label, l2 = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 3, 60), 0.5
    weight = rng.uniform(0.0, 4.0, 60).astype(np.float32)
    head = AffineHead(np.zeros((4, 3), np.float32), None)
    problem = influence.head_problem(x, label, head, l2=l2, weight=weight)
    monkeypatch.setattr("jaxdebias.explain.influence._refit.LARGEST", 11)
    monkeypatch.setattr("jaxdebias.explain.influence._refit.hessian", None)
    fitted, info = refit(problem, tolerance=1e-4)
    assert info.converged
    np.testing.assert_allclose(
        np.asarray(to_vector(fitted)).reshape(4, 3), oracle.fit(x.astype(float), label, 3, l2, weight), atol=1e-4
    )
