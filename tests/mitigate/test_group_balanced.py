import jax
import numpy as np
import pytest
from train.tiny import BARE, table

from jaxdebias.contracts import ContractError
from jaxdebias.mitigate import erm, group_balanced, group_weighted
from jaxdebias.mitigate._group_balanced import balanced_draws
from jaxdebias.train import epoch_plan

SIZES = {  # (label, attribute): rows
    (0, 0): 50,
    (0, 1): 2,
    (1, 1): 40,
    (2, 0): 8,
}
COUNTS = np.array([[50, 2], [0, 40], [8, 0]])
LABELS = np.repeat([k for k, _ in SIZES], list(SIZES.values())).astype(np.int32)
ATTRIBUTES = np.repeat([a for _, a in SIZES], list(SIZES.values())).astype(np.int32)


def test_chances_are_one_over_the_size_of_the_group():
    attribute = np.where(np.arange(100) == 99, -1, ATTRIBUTES)  # one of the last group becomes unknown
    expected = [1 / SIZES[k, a] for k, a in zip(LABELS, ATTRIBUTES, strict=True)]
    expected[92:] = [1 / 7] * 7 + [0]
    np.testing.assert_allclose(balanced_draws(LABELS, attribute, 3, 2), expected, rtol=1e-6)
    np.testing.assert_allclose(
        jax.jit(balanced_draws, static_argnums=(2, 3))(LABELS, attribute, 3, 2), expected, rtol=1e-6
    )


def test_groups_are_drawn_equally_often(key):
    data = table(100)._replace(label=LABELS, attribute=ATTRIBUTES)
    learner = group_balanced(BARE, groups=COUNTS)
    chances = learner.weights(learner.init(key, data), data)
    keys = jax.random.split(key, 40)
    rows = np.concatenate([epoch_plan(one, 100, 100, draw_weights=chances).index.ravel() for one in keys])
    for k, a in SIZES:
        share = np.mean((LABELS[rows] == k) & (ATTRIBUTES[rows] == a))
        assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)


def test_the_step_is_that_of_erm_and_equal_arguments_give_one_learner():
    learner = group_balanced(BARE, groups=COUNTS)
    assert learner.step is erm(BARE).step
    assert learner is group_balanced(BARE, groups=COUNTS)


def test_weighted_groups_have_equal_totals():
    data = table(100)._replace(label=LABELS, attribute=ATTRIBUTES)
    weight = group_weighted(data).weight
    totals = [weight[(k == LABELS) & (a == ATTRIBUTES)].sum() for k, a in SIZES]
    np.testing.assert_allclose(totals, 25, rtol=1e-5)
    np.testing.assert_allclose(group_weighted(data._replace(weight=np.full(100, 2, np.float32))).weight, 2 * weight)


def test_refuses_unknown_attributes():
    with pytest.raises(ContractError, match="1 unknown"):
        group_weighted(table(4)._replace(attribute=np.array([0, 0, -1, 1], np.int32)))
    with pytest.raises(ContractError, match=r"`groups`.*this method needs the attribute, got int64"):
        group_balanced(BARE, groups=np.zeros((3, 0), int))
