"""Self-influence: against the definition, and what it finds among coloured digits."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import softmax_head

from jaxdebias import models
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, RepairSets
from jaxdebias.data import digits
from jaxdebias.explain.influence import AffineHead, head_problem
from jaxdebias.mitigate import SelfInfluenceConfig, erm, self_influence, self_influence_scores
from jaxdebias.mitigate._self_influence import pivotal_set
from jaxdebias.train import FitConfig, Optimizer, cross_entropy, fit


@pytest.mark.parametrize("biased", [True, False])
def test_is_the_quadratic_form_of_each_gradient(biased):
    rng = np.random.default_rng(0)
    n, d, k, damping = 120, 5, 3, 0.7
    z, label = rng.normal(size=(n, d)), rng.integers(0, k, n)
    theta = rng.normal(size=(d + biased, k))
    phi = np.concatenate([z, np.ones((n, 1))], axis=1) if biased else z
    weight = rng.uniform(0.5, 2.0, n)
    inverse = np.linalg.inv(softmax_head.hessian(theta, phi, 0.3, weight) + damping * np.eye(theta.size))
    expected = [g @ inverse @ g for g in softmax_head.example_gradients(theta, phi, label)]
    head = AffineHead(theta[:d].astype(np.float32), theta[d].astype(np.float32) if biased else None)
    problem = head_problem(z.astype(np.float32), label, head, weight=weight.astype(np.float32), l2=0.3)
    np.testing.assert_allclose(self_influence_scores(problem, damping=damping), expected, rtol=2e-4)


def test_the_head_without_the_sample_does_worse_on_it_by_about_its_self_influence():
    """First order: leaving sample i out raises its own loss by its self-influence."""
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(size=(300, 4)), np.ones((300, 1))], axis=1)
    label = (x[:, 0] + 0.5 * rng.normal(size=300) > 0).astype(int)
    theta = softmax_head.fit(x, label, 2, 3.0)
    problem = head_problem(
        x[:, :4].astype(np.float32), label, AffineHead(*(a.astype(np.float32) for a in (theta[:4], theta[4]))), l2=3.0
    )
    score = self_influence_scores(problem, damping=0.0)
    rows = np.argsort(score)[::30]
    actual = []
    for i in rows:
        without = softmax_head.fit(np.delete(x, i, 0), np.delete(label, i), 2, 3.0, start=theta)
        losses = [float(cross_entropy(x[i : i + 1] @ t, label[i : i + 1])[0]) for t in (without, theta)]
        actual.append(losses[0] - losses[1])
    np.testing.assert_allclose(score[rows], actual, rtol=0.15, atol=1e-4)


def test_pivotal_set_by_hand():
    label = np.array([0, 0, 0, 1, 1, 1])
    scores = np.array([[5.0, 4.0, 3.0, 1.0, 2.0, 2.0], [5.0, 3.0, 4.0, 3.0, 2.0, 1.0]])
    assert pivotal_set(scores, label, 1).tolist() == [True, False, False, False, False, False]
    assert pivotal_set(scores, label, 2).tolist() == [True, False, False, False, True, False]
    assert pivotal_set(scores, label, 3).all()


@pytest.fixture(scope="module")
def tuned():
    """A biased model of coloured digits, one sample in fifty conflicting, and what the tuning made of it."""
    train = digits(conflicting=0.02, seed=0).splits["train"]
    classifier = models.mlp(hidden=(32,), classes=10)
    learner = erm(classifier, optimizer=Optimizer(learning_rate=1e-3))
    params = fit(jax.random.key(0), learner, train, FitConfig(epochs=20, batch_size=64)).state.variables
    kept = jax.tree.map(np.array, params)
    config = SelfInfluenceConfig(per_class=5, epochs=10, batch_size=64, tune_epochs=100)
    new, info = self_influence(jax.random.key(1), classifier, params, RepairSets(train=train), config)
    jax.tree.map(np.testing.assert_array_equal, params, kept)
    return train, classifier, params, new, info


@pytest.mark.slow
@pytest.mark.unoptimised
def test_finds_conflicting_digits_without_their_colour(tuned):
    train, _, _, _, info = tuned
    conflicting = train.label != train.attribute
    base = conflicting.mean()
    assert base == pytest.approx(0.02, abs=0.002)
    for score in info.scores:
        named = pivotal_set(score[None], train.label, 5)
        assert conflicting[named].mean() > 10 * base
    assert conflicting[info.pivotal].mean() > 15 * base  # agreement of several models is more precise
    assert conflicting[info.pivotal].sum() >= 0.7 * conflicting.sum()
    assert info.per_class.sum() == len(info.pivotal) < 50
    assert (info.scores >= 0).all()


@pytest.mark.slow
@pytest.mark.unoptimised
def test_the_bias_labels_are_not_used(tuned):
    train, classifier, params, new, info = tuned
    config = SelfInfluenceConfig(per_class=5, epochs=10, batch_size=64, tune_epochs=100)
    unknown = train._replace(attribute=np.full(len(train.label), -1, np.int32))
    again, info_again = self_influence(jax.random.key(1), classifier, params, RepairSets(train=unknown), config)
    np.testing.assert_array_equal(info.pivotal, info_again.pivotal)
    jax.tree.map(np.testing.assert_array_equal, new, again)


@pytest.mark.slow
@pytest.mark.unoptimised
def test_tuning_learns_the_pivotal_samples(tuned):
    train, classifier, params, new, info = tuned
    rows = jnp.asarray(train.x[info.pivotal]), train.label[info.pivotal]

    def loss(p):
        return float(cross_entropy(classifier.apply(p, rows[0]), rows[1]).mean())

    assert loss(new) < 0.5 * loss(params)


def test_the_drawn_rest_weighs_less_than_the_pivotal_set(key, monkeypatch):
    rng = np.random.default_rng(0)
    train = Batch(
        rng.normal(size=(60, 4)).astype(np.float32),
        (np.arange(60) % 2).astype(np.int32),
        np.full(60, -1, np.int32),
        weight=np.full(60, 2.0, np.float32),
    )
    classifier, given = models.mlp(hidden=(4,), classes=2), []

    def recorded(key, learner, data, config, **more):
        given.append(data)
        state = more.get("state") or learner.init(key, data)
        return SimpleNamespace(state=state)

    monkeypatch.setattr("jaxdebias.mitigate._self_influence.fit", recorded)
    config = SelfInfluenceConfig(repeats=1, per_class=5, rest=2.0, rest_weight=0.25)
    _, info = self_influence(key, classifier, classifier.init(key, train.x), RepairSets(train=train), config)
    assert len(info.pivotal) == 10
    assert given[-1].weight.tolist() == [2.0] * 10 + [0.5] * 20
    np.testing.assert_array_equal(given[-1].x[:10], train.x[info.pivotal])


def test_a_weight_of_two_curves_the_loss_as_two_rows_do(key, monkeypatch):
    rng = np.random.default_rng(1)
    x, label = rng.normal(size=(60, 4)).astype(np.float32), (np.arange(60) % 2).astype(np.int32)
    classifier = models.mlp(hidden=(4,), classes=2)

    def untrained(key, learner, data, config, **more):
        return SimpleNamespace(state=more.get("state") or learner.init(key, data))

    monkeypatch.setattr("jaxdebias.mitigate._self_influence.fit", untrained)
    config = SelfInfluenceConfig(repeats=1, per_class=5)

    def scores(rows, weight=None):
        train = Batch(x[rows], label[rows], np.full(len(rows), -1, np.int32), weight=weight)
        return self_influence(key, classifier, classifier.init(key, x), RepairSets(train=train), config)[1].scores

    rows = np.arange(60)
    weighted = scores(rows, np.where(rows < 20, 2.0, 1.0).astype(np.float32))
    np.testing.assert_allclose(weighted, scores(np.r_[rows, :20])[:, :60], rtol=1e-4)


def test_bad_input_is_one_line(key):
    rng = np.random.default_rng(0)
    train = Batch(
        rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 2, 60).astype(np.int32), np.full(60, -1, np.int32)
    )
    classifier = models.mlp(hidden=(4,), classes=2)
    with pytest.raises(ContractError, match="`per_class`: expected at most half of the smallest class"):
        self_influence(key, classifier, classifier.init(key, train.x), RepairSets(train=train))
    with pytest.raises(ContractError, match="`damping`"):
        SelfInfluenceConfig(damping=0.0)
    with pytest.raises(ContractError, match="`q`"):
        SelfInfluenceConfig(q=0.0)
