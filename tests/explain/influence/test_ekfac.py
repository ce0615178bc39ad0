"""EK-FAC against explicit Jacobians: the layers that are found, the values in their bases, and the scores."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from jaxdebias import models
from jaxdebias.contracts import ContractError
from jaxdebias.explain import influence
from jaxdebias.explain.influence import AffineHead, Ekfac, find_block, paths
from jaxdebias.explain.influence import _ekfac as ekfac
from jaxdebias.explain.influence import _solvers as solvers

DAMPING = 2.0


def transposed(params, x):
    """Kernels stored [o i] and [i o], one product with the kernel on the left, no bias in the second layer."""
    hidden = jnp.tanh(x @ params["one"]["w"].T + params["one"]["b"][None])
    return jnp.tanh((params["two"] @ hidden.T).T) @ params["three"]


def tokens(params, x):
    """A dense layer at several positions, whose bias is added after a mean that it does not belong to."""
    hidden = jax.nn.gelu(jnp.einsum("nti,io->nto", x, params["token"]["w"]) + params["token"]["b"][None, None])
    return hidden.mean(axis=1) @ params["head"]["w"] + params["head"]["b"][None]


def convolved(params, x):
    """A strided, dilated, padded convolution in PyTorch's layout."""
    maps = jax.lax.conv_general_dilated(
        x,
        params["conv"]["w"],
        (2, 1),
        ((1, 0), (2, 1)),
        rhs_dilation=(1, 2),
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
    )
    return jnp.tanh(maps + params["conv"]["b"][None, :, None, None]).sum(axis=(2, 3)) @ params["head"]


def arrays(shapes, seed=0):
    """A pytree of normal arrays whose products keep about unit scale."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[-1]), jnp.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def of_ours(model, x):
    return model.apply, model.init(jax.random.key(0), x)


def of_equinox():
    """Kernels [o i] whose product under `vmap` is transposed before the bias is added."""
    model = eqx.nn.MLP(4, 3, 5, 1, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_array)
    return lambda params, x: jax.vmap(eqx.combine(params, static))(x), params, (4,)


CASES = {
    "equinox": of_equinox,
    "mlp": lambda: (*of_ours(models.mlp(hidden=(6, 5), classes=3), np.zeros((1, 4), np.float32)), (4,)),
    "cnn": lambda: (
        *of_ours(models.cnn(channels=(3, 4), dense=5, classes=3), np.zeros((1, 7, 8, 2), np.float32)),
        (7, 8, 2),
    ),
    "transposed": lambda: (transposed, arrays({"one": {"w": (6, 4), "b": (6,)}, "two": (5, 6), "three": (5, 3)}), (4,)),
    "tokens": lambda: (tokens, arrays({"token": {"w": (4, 5), "b": (5,)}, "head": {"w": (5, 3), "b": (3,)}}), (7, 4)),
    "convolved": lambda: (convolved, arrays({"conv": {"w": (4, 2, 3, 2), "b": (4,)}, "head": (4, 3)}), (2, 6, 5)),
}


@functools.cache
def case(name, n=40, where=None):
    """(problem of all layers, x, features): the same for every test."""
    apply_fn, params, shape = CASES[name]()
    rng = np.random.default_rng(1)
    x = rng.uniform(size=(n, *shape)) if name == "cnn" else rng.normal(size=(n, *shape))
    x, label, weight = x.astype(np.float32), rng.integers(0, 3, n), rng.uniform(0.5, 2.0, n).astype(np.float32)
    head, features, _ = find_block(apply_fn, params, x, list(paths(params)) if where is None else list(where))
    return influence.head_problem(features(params, x), label, head, weight=weight, l2=0.5), x


def curving(problem):
    """`[n c p]` in float64: rows whose outer products add up to the Gauss-Newton matrix of the losses."""
    head = problem.head
    jacobian = np.asarray(
        jax.jacobian(lambda v: head.with_vector(v).logits(problem.features))(head.vector()), np.float64
    )
    p = np.asarray(jax.nn.softmax(head.logits(problem.features)), np.float64)
    weight = np.ones(len(p)) if problem.weight is None else np.asarray(problem.weight, np.float64)
    mean = np.einsum("nk,nkp->np", p, jacobian)
    return np.sqrt(weight[:, None, None] * p[:, :, None]) * (jacobian - mean[:, None])


@functools.cache
def factored(name):
    return influence.factor(case(name)[0], Ekfac(), damping=DAMPING)


@pytest.mark.parametrize(
    "name", [name if name in ("tokens", "convolved") else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_every_layer_is_found_and_its_values_are_squared_gradients(name):
    problem, inverse = case(name)[0], factored(name)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([part.index.ravel() for part in inverse.parts])), np.arange(problem.size)
    )
    rows = curving(problem)
    for part in inverse.parts:
        for basis in (part.basis_in, part.basis_out):
            np.testing.assert_allclose(basis.T @ basis, np.eye(len(basis)), atol=1e-10)
        gradients = rows[:, :, part.index]  # [n c i o]
        turned = np.einsum("ji,ncjq,qo->ncio", part.basis_in, gradients, part.basis_out)
        wanted = (turned**2).sum(axis=(0, 1))
        np.testing.assert_allclose(part.values, wanted, rtol=1e-4, atol=1e-5 * wanted.max())


def test_the_bases_are_those_of_inputs_and_outputs():
    problem, x = case("transposed")
    inverse = factored("transposed")
    weight = np.asarray(problem.weight, np.float64)
    by_name = {part.name: part for part in inverse.parts}
    first, last = by_name["one/w"], by_name["three"]
    a = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    p = np.asarray(jax.nn.softmax(problem.head.logits(problem.features)), np.float64)
    outputs = (weight[:, None, None] * (p[:, :, None] * np.eye(3) - p[:, :, None] * p[:, None])).sum(axis=0)
    for basis, gram in ((first.basis_in, (weight[:, None] * a).T @ a), (last.basis_out, outputs)):
        turned = basis.T @ gram @ basis
        np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-4 * np.abs(turned).max())


def test_patches_of_a_convolution_are_what_its_kernel_sees():
    problem, x = case("convolved")
    part = factored("convolved").parts[0]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 0), (2, 1)))
    gram = np.zeros((13, 13))
    for row, weight in zip(padded, np.asarray(problem.weight), strict=True):
        for top in range(0, padded.shape[2] - 2, 2):
            for left in range(padded.shape[3] - 2):
                patch = row[:, top : top + 3, left : left + 3 : 2]  # [channels 3 2]
                a = np.append(patch.transpose(1, 2, 0).ravel(), 1.0)
                gram += weight * np.outer(a, a)
    turned = part.basis_in.T @ gram @ part.basis_in
    np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-4 * turned.max())


def test_a_solve_is_the_inverse_of_the_kronecker_form():
    problem, inverse = case("tokens")[0], factored("tokens")
    matrix = np.zeros((problem.size, problem.size))
    for part in inverse.parts:
        basis = np.kron(part.basis_in, part.basis_out)
        index = part.index.ravel()
        matrix[np.ix_(index, index)] = (basis * part.values.ravel()) @ basis.T
    matrix += (0.5 + DAMPING) * np.eye(problem.size)
    rhs = np.random.default_rng(2).normal(size=(problem.size, 3))
    solution = inverse.solve(rhs)
    np.testing.assert_allclose(solution.value, np.linalg.solve(matrix, rhs), rtol=1e-8, atol=1e-10)
    assert solution.residual < 1e-10
    assert (solution.iterations, solution.damping) == (0, DAMPING)
    rows, gradient = curving(problem).reshape(-1, problem.size), np.asarray(problem.gradient(), np.float64)
    x = np.linalg.solve(matrix, gradient)
    left = rows.T @ (rows @ x) + (0.5 + DAMPING) * x - gradient
    assert inverse.info.residual == pytest.approx(np.linalg.norm(left) / np.linalg.norm(gradient), rel=1e-3)


def scores(problem, inverse_of, right):
    return np.asarray(problem.slopes(inverse_of(right).astype(np.float32)), np.float64)


def example_gradients(problem, count):
    """Gradients of the losses of the first rows, as columns."""
    one_hot = np.eye(len(problem.label), dtype=np.float32)[:count]
    columns = [problem._replace(weight=jnp.asarray(row), l2=0.0).gradient() for row in one_hot]
    return np.stack(columns, axis=1).astype(np.float64)


@pytest.mark.parametrize(
    ("as_block", "with_bias", "limit"),
    [
        (False, False, 0.98),
        pytest.param(True, False, 0.98, marks=pytest.mark.slow),
        pytest.param(True, True, 0.93, marks=pytest.mark.slow),
    ],
)
def test_one_linear_layer_with_gaussian_inputs(as_block, with_bias, limit):
    rng = np.random.default_rng(0)
    n, d, k = 2_000, 10, 4
    x = rng.normal(size=(n, d)).astype(np.float32)
    # Logits of about unit scale: where they saturate, g depends on a and the Kronecker form fits less well.
    kernel, bias = (0.3 * rng.normal(size=(d, k))).astype(np.float32), (0.3 * rng.normal(size=k)).astype(np.float32)
    label = rng.integers(0, k, n)
    if as_block:
        # The input of a bias is 1, which is not Gaussian.
        params = {"w": jnp.asarray(kernel), "b": jnp.asarray(bias if with_bias else np.zeros_like(bias))}
        head, features, _ = find_block(
            lambda params, x: x @ params["w"] + params["b"][None], params, x, ["w", "b"] if with_bias else ["w"]
        )
        problem = influence.head_problem(features(params, x), label, head)
    else:
        problem = influence.head_problem(x, label, AffineHead(jnp.asarray(kernel), None))
    damping = 1e-2 * n
    inverse = influence.factor(problem, Ekfac(), damping=damping)
    rows = curving(problem).reshape(-1, problem.size)
    explicit = rows.T @ rows + damping * np.eye(problem.size)
    right = example_gradients(problem, 3)
    ours = scores(problem, lambda b: inverse.solve(b).value, right)
    exact = scores(problem, lambda b: np.linalg.solve(explicit, b), right)
    for column in range(3):
        assert pearsonr(ours[3:, column], exact[3:, column])[0] > limit


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pearson", "spearman"), [("mlp", 0.8, 0.6), ("cnn", 0.7, 0.5)])
def test_scores_of_several_layers_correlate_with_dense_ones(name, pearson, spearman):
    # Moderate by design: what lies between layers is left out.
    problem, _ = case(name, n=300)
    damping = 1e-2 * 300
    inverse = influence.factor(problem, Ekfac(), damping=damping)
    rows = curving(problem).reshape(-1, problem.size)
    explicit = rows.T @ rows + (0.5 + damping) * np.eye(problem.size)
    right = example_gradients(problem, 4)
    ours = scores(problem, lambda b: inverse.solve(b).value, right)[4:]
    exact = scores(problem, lambda b: np.linalg.solve(explicit, b), right)[4:]
    assert np.median([pearsonr(ours[:, j], exact[:, j])[0] for j in range(4)]) > pearson
    assert np.median([spearmanr(ours[:, j], exact[:, j])[0] for j in range(4)]) > spearman


def test_many_rows_in_closed_form():
    # Beyond the sizes at which jaxlib 0.10.2 fuses products and sums wrongly on CPU.
    rng = np.random.default_rng(0)
    n, d, k = 20_000, 6, 5
    x, kernel = rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=(d, k)).astype(np.float32)
    problem = influence.head_problem(x, rng.integers(0, k, n), AffineHead(jnp.asarray(kernel), None))
    (part,) = influence.factor(problem, Ekfac(), damping=1.0).parts
    logits = x.astype(np.float64) @ kernel
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    g = np.sqrt(p)[:, :, None] * (np.eye(k)[None] - p[:, None])  # [n c k]
    wanted = ((x @ part.basis_in) ** 2).T @ ((g @ part.basis_out) ** 2).sum(axis=1)
    np.testing.assert_allclose(part.values, wanted, rtol=1e-4, atol=1e-6 * wanted.max())


@pytest.mark.slow
def test_chunks_and_duplicated_rows_change_nothing(monkeypatch):
    problem, _ = case("convolved")
    once = factored("convolved")
    monkeypatch.setattr(ekfac, "NUMBERS", 2_000)
    chunked = influence.factor(problem, Ekfac(), damping=DAMPING)
    twice = problem._replace(
        features=jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), problem.features),
        label=jnp.tile(problem.label, 2),
        weight=0.5 * jnp.tile(problem.weight, 2),
    )
    doubled = influence.factor(twice, Ekfac(), damping=DAMPING)
    rhs = np.random.default_rng(2).normal(size=(problem.size, 2))
    wanted = once.solve(rhs).value
    for other in (chunked, doubled):
        assert np.linalg.norm(other.solve(rhs).value - wanted) < 1e-4 * np.linalg.norm(wanted)


def test_labels_are_drawn_where_there_are_many_classes(monkeypatch):
    rng = np.random.default_rng(0)
    n, d, k = 3_000, 4, 20
    x, kernel = rng.normal(size=(n, d)).astype(np.float32), 0.5 * rng.normal(size=(d, k)).astype(np.float32)
    problem = influence.head_problem(x, rng.integers(0, k, n), AffineHead(jnp.asarray(kernel), None))
    drawn, again, other = (influence.factor(problem, Ekfac(seed=seed), damping=30.0).solve for seed in (0, 0, 1))
    rhs = rng.normal(size=(d * k, 2))
    np.testing.assert_array_equal(drawn(rhs).value, again(rhs).value)
    monkeypatch.setattr(ekfac, "EXACT", k)
    exact = influence.factor(problem, Ekfac(), damping=30.0).solve(rhs).value
    for solve in (drawn, other):
        off = np.linalg.norm(solve(rhs).value - exact) / np.linalg.norm(exact)
        assert 1e-4 < off < 0.1


def test_it_survives_the_disk(tmp_path):
    problem, inverse = case("tokens")[0], factored("tokens")
    solvers.save(tmp_path / "ekfac.npz", inverse)
    read = solvers.load(tmp_path / "ekfac.npz")
    rhs = np.random.default_rng(2).normal(size=(problem.size, 2))
    np.testing.assert_array_equal(read.solve(rhs).value, inverse.solve(rhs).value)
    assert read.info == inverse.info


def scaled(params, x):
    return jnp.tanh(x @ params["w"] * params["scale"][None]) @ params["head"]


def shared(params, x):
    return jnp.tanh(jnp.tanh(x @ params["w"]) @ params["w"]) @ params["head"]


def read_twice(params, x):
    """The product without its bias is used as well, so the two do not have the same derivative."""
    hidden = x @ params["w"]
    return jnp.tanh(hidden + params["b"][None]) @ params["head"] + hidden[:, :3]


@pytest.mark.parametrize(
    ("apply_fn", "shapes", "where", "named"),
    [
        (read_twice, {"w": (4, 4), "b": (4,), "head": (4, 3)}, ["w", "b", "head"], "b"),
        (scaled, {"w": (4, 4), "scale": (4,), "head": (4, 3)}, ["w", "scale", "head"], "scale"),
        (shared, {"w": (4, 4), "head": (4, 3)}, ["w", "head"], "w"),
        (shared, {"w": (4, 4), "head": (4, 3)}, {"head": (0, (1, 2))}, "head"),
    ],
)
def test_what_is_no_layer_is_named(apply_fn, shapes, where, named):
    params, x = arrays(shapes), np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    head, features, _ = find_block(apply_fn, params, x, where)
    problem = influence.head_problem(features(params, x), np.array([0, 1, 2, 0, 1]), head)
    with pytest.raises(ContractError, match=f"`{named}`.*expected"):
        influence.factor(problem, Ekfac(), damping=1.0)


def test_a_layer_between_frozen_ones_and_bad_input():
    # The block may leave out what EK-FAC cannot treat.
    params, x = arrays({"w": (4, 4), "scale": (4,), "head": (4, 3)}), np.ones((5, 4), np.float32)
    head, features, _ = find_block(scaled, params, x, ["w"])
    problem = influence.head_problem(features(params, x), np.array([0, 1, 2, 0, 1]), head)
    (part,) = influence.factor(problem, Ekfac(), damping=1.0).parts
    assert part.name == "w"
    with pytest.raises(ContractError, match="damping"):
        influence.factor(problem, Ekfac())
    with pytest.raises(ContractError, match="rhs"):
        influence.factor(problem, Ekfac(), damping=1.0).solve(np.ones((3, 1)))
    broken = problem._replace(features=jax.tree.map(lambda leaf: leaf.at[0].set(np.nan), problem.features))
    with pytest.raises(ContractError, match=r"layer w.*finite"):
        influence.factor(broken, Ekfac(), damping=1.0)
