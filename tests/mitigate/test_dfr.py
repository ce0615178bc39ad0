"""The refitted last layer: against scikit-learn, its groups and its choice of penalty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import softmax_head
from oracles.fmd_toy import toy

from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, RepairSets, Split, group_of
from jaxdebias.mitigate import DfrConfig, balanced_subsamples, balanced_weights, dfr
from jaxdebias.mitigate._dfr import fit_l1

AFFINE = Split(
    features=lambda params, x: x,
    head=lambda params, z: z @ params["head"]["kernel"] + params["head"]["bias"][None, :],
    head_path=("head",),
)
KEY = jax.random.key(3)


def held_out(edit, accept):
    return RepairSets(edit=edit, accept=accept)


def batch(data, attributes=True):
    a = data.a.astype(np.int32) if attributes else np.full(len(data.y), -1, np.int32)
    return Batch(data.x[:, :-1].astype(np.float32) * 3 + 1, data.y.astype(np.int32), a)


def params():
    return {"trunk": jnp.ones(2), "head": {"kernel": jnp.zeros((10, 2)), "bias": jnp.zeros(2)}}


@pytest.mark.parametrize("balance", [True, False])
def test_is_the_logistic_regression_of_scikit_learn(balance):
    from sklearn.linear_model import LogisticRegression

    edit = batch(toy(1, n=600))
    config = DfrConfig(penalties=(6.0,), balance=balance)
    fitted, info = dfr(KEY, AFFINE, params(), held_out(edit, batch(toy(2, n=300, agreement=0.5))), config)
    x = (edit.x - edit.x.mean(0)) / edit.x.std(0)
    x = np.concatenate([x, np.ones((600, 1))], axis=1)  # our regulariser counts the bias
    weight = np.ones(600)
    if balance:
        for g in range(4):
            rows = group_of(edit.label, edit.attribute, 2) == g
            weight[rows] = 600 / 4 / rows.sum()
    # One weight vector for two classes is the difference of two columns: half the penalty.
    peer = LogisticRegression(C=2 / 6.0, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(x, edit.label, weight)
    logits = AFFINE.head(fitted, edit.x)
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], peer.decision_function(x), atol=2e-4)
    assert info.gradient_norms[0] < 1e-3
    assert fitted["trunk"] is not None


def test_only_the_head_changes_and_the_best_penalty_is_kept():
    before, accept = params(), batch(toy(2, n=300, agreement=0.5))
    config = DfrConfig(penalties=(0.1, 10.0, 1e6))
    fitted, info = dfr(KEY, AFFINE, before, held_out(batch(toy(1, n=600)), accept), config)
    assert fitted["trunk"] is before["trunk"]
    right = np.asarray(AFFINE.head(fitted, accept.x)).argmax(1) == accept.label
    assert info.accuracy_after == pytest.approx(right.mean(), abs=1e-6)
    assert info.accuracy_after == max(info.scores) > 0.75
    assert info.penalty == config.penalties[int(np.argmax(info.scores))]
    assert info.accuracy_before == pytest.approx((accept.label == 0).mean())  # zero logits say class 0


def l1_problem(classes=3, n=400, e=8, seed=0):
    """Standardised features with a column of ones, labels that only three of them explain, uneven weights."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, e)) @ (np.eye(e) + 0.3 * rng.normal(size=(e, e)))
    x[:, -1] = 1.0
    label = (x[:, :3] @ rng.normal(size=(3, classes)) + rng.gumbel(size=(n, classes))).argmax(1)
    return x.astype(np.float32), label.astype(np.int32), rng.uniform(0.5, 2.0, n).astype(np.float32)


def test_l1_is_the_optimum_of_scikit_learns_saga():
    from sklearn.linear_model import LogisticRegression

    x, label, weight = l1_problem()
    rows, start = np.arange(len(x))[None], np.zeros((1, 8, 3), np.float32)
    theta, violation, _ = fit_l1(x, label, weight, rows, start, 8.0, 1e-4, max_steps=20_000)
    assert violation[0] <= 1e-4
    peer = LogisticRegression(C=1 / 8.0, l1_ratio=1.0, solver="saga", fit_intercept=False, tol=1e-8, max_iter=50_000)
    peer.fit(x.astype(np.float64), label, weight)
    np.testing.assert_allclose(theta[0], peer.coef_.T, atol=2e-3)
    np.testing.assert_array_equal(np.abs(np.asarray(theta[0])) > 2e-3, np.abs(peer.coef_.T) > 2e-3)
    assert (np.asarray(theta) == 0).mean() > 0.2


@pytest.mark.parametrize("penalty", [0.5, 20.0])
def test_l1_satisfies_the_optimality_conditions(penalty):
    x, label, weight = l1_problem(classes=4, seed=1)
    start = np.full((1, 8, 4), 0.7, np.float32)
    theta, violation, norm = fit_l1(x, label, weight, np.arange(len(x))[None], start, penalty, 1e-3, max_steps=20_000)
    theta = np.asarray(theta[0], np.float64)
    gradient = softmax_head.gradient(theta, x.astype(np.float64), label, 0.0, weight).reshape(theta.shape)
    at_zero = theta == 0
    assert (np.abs(gradient[at_zero]) <= penalty * 1.002).all()
    np.testing.assert_allclose(gradient[~at_zero], -penalty * np.sign(theta[~at_zero]), atol=2e-3 * penalty)
    excess = np.where(at_zero, np.maximum(np.abs(gradient) - penalty, 0), np.abs(gradient + penalty * np.sign(theta)))
    assert violation[0] == pytest.approx(excess.max() / penalty, abs=3e-4)
    assert norm[0] == pytest.approx(np.linalg.norm(excess), abs=1e-3 * penalty)


def test_a_huge_l1_penalty_leaves_nothing_and_too_few_steps_are_said():
    edit, accept = batch(toy(1, n=300)), batch(toy(2, n=100))
    fitted, info = dfr(KEY, AFFINE, params(), held_out(edit, accept), DfrConfig(penalty_kind="l1", penalties=(1e5,)))
    assert info.zeros == 1.0
    assert (np.asarray(fitted["head"]["kernel"]) == 0).all()
    assert info.converged
    config = DfrConfig(penalty_kind="l1", penalties=(0.1,), max_steps=1)
    assert not dfr(KEY, AFFINE, params(), held_out(edit, accept), config)[1].converged


def test_l1_finds_the_sparse_head(key):
    """Eight of the toy's ten features are noise; an L1 penalty that is chosen on accept drops most of them."""
    edit, accept = batch(toy(1, n=2000)), batch(toy(2, n=1000, agreement=0.5))
    config = DfrConfig(penalty_kind="l1", penalties=(100.0, 30.0, 10.0), balance_by="subsamples", averaged=3)
    _, info = dfr(key, AFFINE, params(), held_out(edit, accept), config)
    assert info.converged
    assert info.accuracy_after > 0.8
    assert info.zeros > 0.3
    assert info.rows < 500


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_averaged_heads_are_the_mean_of_the_fits_on_each_subsample(key, kind):
    edit, accept = batch(toy(1, n=500)), batch(toy(2, n=200))
    config = DfrConfig(penalty_kind=kind, penalties=(3.0,), balance_by="subsamples", averaged=3, tolerance=1e-4)
    fitted, info = dfr(key, AFFINE, params(), held_out(edit, accept), config)
    x = (edit.x - edit.x.mean(0)) / edit.x.std(0)
    phi = np.concatenate([x, np.ones((500, 1))], axis=1).astype(np.float32)
    rows = balanced_subsamples(key, edit.label, edit.attribute, 3)
    assert info.rows == rows.shape[1]
    if kind == "l2":
        heads = [softmax_head.fit(phi[r].astype(np.float64), edit.label[r], 2, 3.0) for r in rows]
    else:
        one = np.ones(500, np.float32)
        heads = [
            fit_l1(phi, edit.label, one, r[None], np.zeros((1, 11, 2), np.float32), 3.0, 1e-4, max_steps=20_000)[0][0]
            for r in rows
        ]
    np.testing.assert_allclose(AFFINE.head(fitted, edit.x), phi @ np.mean(heads, axis=0), atol=2e-2, rtol=1e-3)


def test_subsamples_have_groups_of_the_size_of_the_smallest(key):
    rng = np.random.default_rng(0)
    label, attribute = rng.integers(0, 3, 200), rng.integers(0, 4, 200) ** 2 // 3
    group = group_of(label, attribute, 4)
    _, size = np.unique(group, return_counts=True)
    rows = balanced_subsamples(key, label, attribute, 5)
    for one in rows:
        assert len(np.unique(one)) == len(one)
        np.testing.assert_array_equal(np.unique(group[one], return_counts=True)[1], size.min())
    assert len({tuple(sorted(one)) for one in rows}) == 5
    np.testing.assert_array_equal(rows, balanced_subsamples(key, label, attribute, 5))


def test_nothing_compiles_again(key):
    edit, accept = batch(toy(1, n=300)), batch(toy(2, n=100))
    config = DfrConfig(penalty_kind="l1", penalties=(5.0, 1.0), balance_by="subsamples", averaged=2)
    dfr(key, AFFINE, params(), held_out(edit, accept), config)
    before = fit_l1._cache_size()
    dfr(jax.random.key(0), AFFINE, params(), held_out(edit, accept), config)
    assert fit_l1._cache_size() == before


def test_balancing_undoes_the_shortcut_and_needs_attributes():
    edit, accept = toy(1, n=2000), batch(toy(2, n=1000, agreement=0.5))
    config = DfrConfig(penalties=(1.0,))
    _, balanced = dfr(KEY, AFFINE, params(), held_out(batch(edit), accept), config)
    _, unknown = dfr(KEY, AFFINE, params(), held_out(batch(edit, attributes=False), accept), config)
    assert balanced.accuracy_after > unknown.accuracy_after + 0.08


def test_balanced_weights_give_groups_the_same_total():
    rng = np.random.default_rng(0)
    label, attribute = rng.integers(0, 3, 200), rng.integers(0, 4, 200) ** 2 // 3
    weight, group = balanced_weights(label, attribute), group_of(label, attribute, 4)
    totals = [weight[group == g].sum() for g in np.unique(group)]
    np.testing.assert_allclose(totals, 200 / len(totals), rtol=1e-5)
    assert (balanced_weights(label, np.full(200, -1)) == 1).all()


def test_worst_group_selection_looks_at_the_worst_group():
    edit, accept = batch(toy(1, n=600)), batch(toy(2, n=1000))
    fitted, info = dfr(KEY, AFFINE, params(), held_out(edit, accept), DfrConfig(select="worst_group"))
    right = np.asarray(AFFINE.head(fitted, accept.x)).argmax(1) == accept.label
    groups = group_of(accept.label, accept.attribute, 2)
    assert max(info.scores) == pytest.approx(min(right[groups == g].mean() for g in range(4)), abs=1e-6)


def test_dead_features_and_heads_without_bias():
    split = Split(
        features=lambda p, x: jnp.concatenate([x, jnp.zeros((x.shape[0], 1))], axis=1),
        head=lambda p, z: z @ p["head"]["kernel"],
    )
    data = {"head": {"kernel": jnp.zeros((11, 2))}}
    fitted, info = dfr(KEY, split, data, held_out(batch(toy(1)), batch(toy(2, n=500, agreement=0.5))))
    assert np.isfinite(np.asarray(fitted["head"]["kernel"])).all()
    assert info.accuracy_after > 0.6


def test_rows_of_accept_count_by_their_weight():
    edit, accept = batch(toy(1, n=300)), batch(toy(2, n=200))
    weight = np.random.default_rng(0).integers(0, 4, 200).astype(np.float32)
    config = DfrConfig(penalties=(10.0,))
    fitted, info = dfr(KEY, AFFINE, params(), held_out(edit, accept._replace(weight=weight)), config)
    right = np.asarray(AFFINE.head(fitted, accept.x)).argmax(1) == accept.label
    assert info.scores[0] == info.accuracy_after == pytest.approx(np.average(right, weights=weight), abs=1e-6)
    assert abs(info.scores[0] - right.mean()) > 1e-3
    config = DfrConfig(penalties=(10.0,), select="worst_group")
    _, worst = dfr(KEY, AFFINE, params(), held_out(edit, accept._replace(weight=weight)), config)
    groups = group_of(accept.label, accept.attribute, 2)
    expected = min(np.average(right[groups == g], weights=weight[groups == g]) for g in range(4))
    assert worst.scores[0] == pytest.approx(expected, abs=1e-6)


def test_bad_input_is_one_line():
    edit = batch(toy(1, n=100))
    with pytest.raises(ContractError, match="penalties"):
        DfrConfig(penalties=(0.0,))
    with pytest.raises(ContractError, match="did you mean 'worst_group'"):
        DfrConfig(select="worst-group")
    with pytest.raises(ContractError, match="did you mean 'l2'"):
        DfrConfig(penalty_kind="L2")
    with pytest.raises(ContractError, match="averaged"):
        DfrConfig(averaged=20)
    unknown = edit._replace(attribute=np.full(100, -1))
    with pytest.raises(ContractError, match=r"`edit.attribute`: expected known .* 100 unknown"):
        dfr(KEY, AFFINE, params(), held_out(unknown, edit), DfrConfig(balance_by="subsamples"))
    with pytest.raises(ContractError, match=r"edit\.label"):
        dfr(KEY, AFFINE, params(), held_out(edit._replace(label=edit.label[:3]), edit))
    with pytest.raises(ContractError, match=r"`sets.accept`: expected held-out samples for choices, got None"):
        dfr(KEY, AFFINE, params(), RepairSets(edit=edit))
