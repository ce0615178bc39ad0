"""The head refitted on edited data: against a float64 fit, replaced and joined rows, and its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import softmax_head
from oracles.fmd_toy import toy

from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, RepairSets, Split
from jaxdebias.mitigate import RefitHeadConfig, refit_head

AFFINE = Split(
    features=lambda params, x: x,
    head=lambda params, z: z @ params["head"]["kernel"] + params["head"]["bias"][None, :],
    head_path=("head",),
)
KEY = jax.random.key(0)  # not used
CONFIG = RefitHeadConfig(damping=1e-2)


def batches(n=300):
    """The toy without its last column of ones, and the same rows with the colour negated."""
    data = toy(0, n=n)
    x, label, attribute = data.x[:, :-1].astype(np.float32), data.y.astype(np.int32), data.a.astype(np.int32)
    flipped = x.copy()
    flipped[:, 1] *= -1
    return Batch(x, label, attribute), Batch(flipped, label, 1 - attribute)


def params():
    return {"trunk": jnp.ones(2), "head": {"kernel": jnp.ones((10, 2)), "bias": jnp.zeros(2)}}


def fitted_by_oracle(x, label, l2, weight=None):
    theta = softmax_head.fit(np.concatenate([x, np.ones((len(x), 1))], axis=1).astype(np.float64), label, 2, l2, weight)
    return theta[:-1], theta[-1]


def assert_head(new, expected):
    np.testing.assert_allclose(new["head"]["kernel"], expected[0], atol=2e-5)
    np.testing.assert_allclose(new["head"]["bias"], expected[1], atol=2e-5)


def test_joined_rows_are_the_fit_on_both():
    train, flipped = batches()
    before = params()
    new, info = refit_head(KEY, AFFINE, before, RepairSets(train=train), CONFIG, counterfactual=flipped)
    assert new["trunk"] is before["trunk"]
    assert (info.rows, info.converged) == (600, True)
    assert info.gradient_norm <= CONFIG.tolerance
    x, label = np.concatenate([train.x, flipped.x]), np.concatenate([train.label, flipped.label])
    assert_head(new, fitted_by_oracle(x, label, 600 * CONFIG.damping))
    # The colour no longer tells anything, so its weight is that of no class.
    assert abs(float(new["head"]["kernel"][1, 1] - new["head"]["kernel"][1, 0])) < 1e-4


def test_replaced_rows_are_the_fit_with_these_rows_exchanged():
    train, flipped = batches()
    rows = np.array([5, 250, 17, 100])
    chosen = Batch(flipped.x[rows], flipped.label[rows], flipped.attribute[rows])
    new, info = refit_head(KEY, AFFINE, params(), RepairSets(train=train), CONFIG, counterfactual=chosen, replaced=rows)
    assert info.rows == 300
    x = train.x.copy()
    x[rows] = flipped.x[rows]
    assert_head(new, fitted_by_oracle(x, train.label, 300 * CONFIG.damping))


def test_every_row_replaced_and_weights():
    train, flipped = batches()
    weight = np.random.default_rng(0).uniform(0, 2, 300).astype(np.float32)
    new, info = refit_head(
        KEY,
        AFFINE,
        params(),
        RepairSets(train=train._replace(weight=weight)),
        CONFIG,
        counterfactual=flipped,
        replaced=np.arange(300),
    )
    assert info.rows == 300
    assert_head(new, fitted_by_oracle(flipped.x, flipped.label, weight.sum() * CONFIG.damping, weight))


def test_the_twins_of_the_pairs_join_where_nothing_else_is_given():
    train, flipped = batches()
    sets = RepairSets(train=train, pairs=train._replace(twin=flipped.x))
    new, info = refit_head(KEY, AFFINE, params(), sets, CONFIG)
    expected, _ = refit_head(KEY, AFFINE, params(), RepairSets(train=train), CONFIG, counterfactual=flipped)
    np.testing.assert_array_equal(new["head"]["kernel"], expected["head"]["kernel"])
    assert info.rows == 600


def test_bad_input_is_one_line():
    train, flipped = batches()
    with pytest.raises(ContractError, match="`damping`: expected more than 0"):
        RefitHeadConfig(damping=0.0)
    with pytest.raises(ContractError, match=r"`replaced`: expected values in 0\.\.299"):
        refit_head(KEY, AFFINE, params(), RepairSets(train=train), counterfactual=flipped, replaced=np.arange(1, 301))
    with pytest.raises(ContractError, match="`replaced`: expected every row once, got 299 rows more than once"):
        refit_head(KEY, AFFINE, params(), RepairSets(train=train), counterfactual=flipped, replaced=np.zeros(300, int))
