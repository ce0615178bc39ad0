"""The refitted last layer: against scikit-learn, its groups and its choice of penalty."""

import jax.numpy as jnp
import numpy as np
import pytest
from oracles.fmd_toy import toy

from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, Split, group_of
from jaxdebias.mitigate.dfr import DfrConfig, balanced_weights, dfr

AFFINE = Split(features=lambda params, x: x,
               head=lambda params, z: z @ params["head"]["kernel"] + params["head"]["bias"][None, :])
PATH = ("head",)


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
    fitted, info = dfr(AFFINE, params(), edit, batch(toy(2, n=300, agreement=0.5)), config, head_path=PATH)
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
    fitted, info = dfr(AFFINE, before, batch(toy(1, n=600)), accept, config, head_path=PATH)
    assert fitted["trunk"] is before["trunk"]
    right = np.asarray(AFFINE.head(fitted, accept.x)).argmax(1) == accept.label
    assert info.accuracy_after == pytest.approx(right.mean(), abs=1e-6)
    assert info.accuracy_after == max(info.scores) > 0.75
    assert info.penalty == config.penalties[int(np.argmax(info.scores))]
    assert info.accuracy_before == pytest.approx((accept.label == 0).mean())  # zero logits say class 0


def test_balancing_undoes_the_shortcut_and_needs_attributes():
    edit, accept = toy(1, n=2000), batch(toy(2, n=1000, agreement=0.5))
    config = DfrConfig(penalties=(1.0,))
    _, balanced = dfr(AFFINE, params(), batch(edit), accept, config, head_path=PATH)
    _, unknown = dfr(AFFINE, params(), batch(edit, attributes=False), accept, config, head_path=PATH)
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
    fitted, info = dfr(AFFINE, params(), edit, accept, DfrConfig(select="worst_group"), head_path=PATH)
    right = np.asarray(AFFINE.head(fitted, accept.x)).argmax(1) == accept.label
    groups = group_of(accept.label, accept.attribute, 2)
    assert max(info.scores) == pytest.approx(min(right[groups == g].mean() for g in range(4)), abs=1e-6)


def test_dead_features_and_heads_without_bias():
    split = Split(features=lambda p, x: jnp.concatenate([x, jnp.zeros((x.shape[0], 1))], axis=1),
                  head=lambda p, z: z @ p["head"]["kernel"])
    data = {"head": {"kernel": jnp.zeros((11, 2))}}
    fitted, info = dfr(split, data, batch(toy(1)), batch(toy(2, n=500, agreement=0.5)), head_path=PATH)
    assert np.isfinite(np.asarray(fitted["head"]["kernel"])).all()
    assert info.accuracy_after > 0.6


def test_bad_input_is_one_line():
    edit = batch(toy(1, n=100))
    with pytest.raises(ContractError, match="penalties"):
        DfrConfig(penalties=(0.0,))
    with pytest.raises(ContractError, match="did you mean 'worst_group'"):
        DfrConfig(select="worst-group")
    with pytest.raises(ContractError, match=r"edit\.label"):
        dfr(AFFINE, params(), edit._replace(label=edit.label[:3]), edit, head_path=PATH)
