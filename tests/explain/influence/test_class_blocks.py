"""The block-diagonal factor against the blocks of the float64 Hessian."""

import jax.numpy as jnp
import numpy as np
import pytest
from oracles import softmax_head as oracle
from precision import enable_x64

from jaxdebias.contracts import ContractError
from jaxdebias.explain import influence
from jaxdebias.explain.influence import AffineHead, ClassBlocks, find_block
from jaxdebias.explain.influence import _solvers as solvers

D, K, L2, DAMPING = 5, 4, 0.5, 0.25
P = (D + 1) * K


def setting(dtype=np.float64, l2=L2):
    rng = np.random.default_rng(0)
    x, label, weight = rng.normal(size=(300, D)), rng.integers(0, K, 300), rng.uniform(0.5, 2.0, 300)
    head = AffineHead(rng.normal(size=(D, K)).astype(dtype), rng.normal(size=K).astype(dtype))
    return influence.head_problem(x.astype(dtype), label, head, weight=weight.astype(dtype), l2=l2)


def matrices(problem):
    """(H, its blocks between equal classes), in float64."""
    theta = np.asarray(problem.head.vector(), np.float64).reshape(D + 1, K)
    phi = np.concatenate([np.asarray(problem.features, np.float64), np.ones((300, 1))], axis=1)
    full = oracle.hessian(theta, phi, 0.0, np.asarray(problem.weight, np.float64))
    kept = (full.reshape(D + 1, K, D + 1, K) * np.eye(K)[None, :, None, :]).reshape(P, P)
    return full, kept


def test_solves_with_the_blocks_and_with_nothing_else():
    with enable_x64(True):
        problem = setting()
        full, kept = matrices(problem)
        rhs = np.random.default_rng(1).normal(size=(P, 3))
        inverse = influence.factor(problem, ClassBlocks(), damping=DAMPING)
        solution = inverse.solve(rhs)
        shift = (L2 + DAMPING) * np.eye(P)
        np.testing.assert_allclose(solution.value, np.linalg.solve(kept + shift, rhs), rtol=1e-9, atol=1e-12)
        assert solution.residual < 1e-12
        assert (solution.iterations, solution.damping) == (0, DAMPING)

        gradient = np.asarray(problem.gradient())[:, None]
        x = np.linalg.solve(kept + shift, gradient)
        left = np.linalg.norm((full + shift) @ x - gradient) / np.linalg.norm(gradient)
        assert inverse.info.residual == pytest.approx(left, rel=1e-6)
        assert left > 0.05  # or the test would not tell the two apart
        assert inverse.info.gradient_norm == pytest.approx(np.linalg.norm(gradient))


def test_the_error_of_the_curvature_is_estimated():
    problem = setting(np.float32)
    full, kept = matrices(problem)
    info = influence.factor(problem, ClassBlocks(), damping=DAMPING).info
    assert info.curvature_error == pytest.approx(np.linalg.norm(full - kept) / np.linalg.norm(full), rel=0.2)


def test_float32_features_and_the_disk(tmp_path):
    problem = setting(np.float32)
    _, kept = matrices(problem)
    rhs = np.random.default_rng(1).normal(size=(P, 3))
    inverse = influence.factor(problem, ClassBlocks(), damping=DAMPING)
    wanted = np.linalg.solve(kept + (L2 + DAMPING) * np.eye(P), rhs)
    np.testing.assert_allclose(inverse.solve(rhs).value, wanted, rtol=1e-4, atol=1e-5)
    solvers.save(tmp_path / "blocks.npz", inverse)
    again = solvers.load(tmp_path / "blocks.npz")
    np.testing.assert_array_equal(again.solve(rhs).value, inverse.solve(rhs).value)
    assert again.info == inverse.info


def test_saturated_classes_keep_their_curvature():
    # 1 - p is 1e-9 here: in float32 p (1 - p) would be 0.
    z = jnp.zeros((1, 2)).at[0, 0].set(1.0)
    head = AffineHead(jnp.array([[20.7, 0.0], [0.0, 0.0]]), None)
    problem = influence.head_problem(z, np.array([0]), head, l2=0.0)
    inverse = influence.factor(problem, ClassBlocks(), damping=1e-12)
    curvature = 1.0 / np.square(inverse.cholesky[:, 0, 0])
    np.testing.assert_allclose(curvature, 1 / (np.exp(-20.7) + 1e-12), rtol=1e-3)


def test_bad_problems_are_one_line():
    problem = setting(np.float32)
    broken = problem._replace(features=problem.features.at[3, 2].set(np.nan))
    with pytest.raises(ContractError, match=r"layer kernel.*finite"):
        influence.factor(broken, ClassBlocks(), damping=1.0)
    zeros = setting(np.float32, l2=0.0)
    zeros = zeros._replace(features=jnp.zeros_like(zeros.features))
    with pytest.raises(ContractError, match=r"damping.*positive definite"):
        influence.factor(zeros, ClassBlocks())
    with pytest.raises(ContractError, match="rhs"):
        influence.factor(problem, ClassBlocks(), damping=1.0).solve(np.ones((P - 1, 1)))
    wide = AffineHead(jnp.zeros((2_000, 100)), None)
    with pytest.raises(ContractError, match="entries"):
        influence.factor(problem._replace(head=wide), ClassBlocks(), damping=1.0)
    params = {"w": jnp.ones((D, K))}
    block, features, _ = find_block(lambda params, x: x @ params["w"], params, jnp.ones((1, D)), ["w"])
    other = influence.head_problem(features(params, problem.features), problem.label, block)
    with pytest.raises(ContractError, match="affine last layer"):
        influence.factor(other, ClassBlocks(), damping=1.0)
