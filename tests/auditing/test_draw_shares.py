"""Who is drawn, against counting by hand, with a model whose codes and weights are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.auditing import draw_shares
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, Dataset, Learner
from jaxdebias.mitigate._dbvae.learner import DbVaeState
from jaxdebias.models import Encoding, VaeClassifier

LABEL = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 0], np.int32)
ATTRIBUTE = np.array([0, 0, 0, 1, 1, 1, 1, 0, 0, -1], np.int32)
WEIGHT = np.array([1, 2, 5, 4, 1, 1, 2, 8, 2, 9], np.float32)


def data():
    """One pixel per image, its row number."""
    x = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    train = Batch(x=x, label=LABEL, attribute=ATTRIBUTE)
    return Dataset(
        name="toy",
        variant={},
        splits={"train": train, "test": train},
        pairs={},
        label_names=("no", "yes"),
        attribute_names=("blue", "red"),
        aligned=np.eye(2, dtype=bool),
    )


def model():
    """The first latent has mean 2, the second carries nothing; a row is decoded to twice its pixel."""

    def encode(variables, x):
        pixel = jnp.asarray(x, jnp.float32).reshape(-1, 1)
        mean = jnp.concatenate([0 * pixel + 2, 0 * pixel], axis=1)
        return Encoding(jnp.zeros((len(x), 2)), mean + variables * jnp.concatenate([pixel, 0 * pixel], 1), 0 * mean)

    def decode(variables, z):
        del variables
        return (2 * (z[:, 0] - 2) / 0.001 / 255).reshape(-1, 1, 1, 1)

    return VaeClassifier(None, encode, decode, None, None, 2, 2)


def learner(weights):
    return Learner(init=None, step=None, predict=None, weights=weights)


def state():
    return DbVaeState(0.001, None, jnp.ones(()), jnp.zeros((), jnp.int32), None)


def test_who_is_drawn():
    drawn = draw_shares.audit_draws(learner(lambda state, data: jnp.asarray(WEIGHT)), state(), model(), data(), shown=3)
    np.testing.assert_allclose(drawn.weight, WEIGHT / WEIGHT.sum(), rtol=1e-6)
    assert drawn.report.rarest.tolist() == [9, 7, 2]
    assert drawn.rarest_decoded[:, 0, 0, 0].tolist() == [18, 14, 4]
    np.testing.assert_allclose(drawn.kl, [2.0, 0.0], atol=0.02)
    known, total = ATTRIBUTE >= 0, WEIGHT[ATTRIBUTE >= 0].sum()
    for (y, a), group in drawn.groups.items():
        own = (y == LABEL) & (a == ATTRIBUTE)
        others = (y == LABEL) & known & ~own
        wins = [1.0 if w > v else 0.5 if w == v else 0.0 for w in WEIGHT[own] for v in WEIGHT[others]]
        assert group.rows == own.sum()
        assert group.row_share == pytest.approx(own.sum() / 9)
        assert group.draw_share == pytest.approx(WEIGHT[own].sum() / total)
        assert group.auc == pytest.approx(np.mean(wins))
    # Of label 0 one conflicting row, which outweighs 2 of 3; of label 1 two: one outweighs 3 of 3, one 2 and ties.
    assert drawn.conflicting.auc == pytest.approx((1 * 2 / 3 + 2 * (3 + 2.5) / 6) / 3)
    assert drawn.conflicting.draw_share == pytest.approx(14 / total)


def test_a_learner_that_draws_every_row_once_is_refused():
    with pytest.raises(ContractError, match="`learner`: expected one with weights"):
        draw_shares.audit_draws(learner(None), state(), model(), data())
