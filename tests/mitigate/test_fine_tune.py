"""Fine-tuning and training from scratch: what they start from, choose and leave alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias import models
from jaxdebias.core import Batch, RepairSets
from jaxdebias.data import digits
from jaxdebias.explain import influence
from jaxdebias.mitigate import (
    FineTuneConfig,
    fine_tune,
    fine_tune_block,
    fine_tune_head,
    retrain_counterfactual,
    train_from_scratch,
)

CONFIG = FineTuneConfig(epochs=5, batch_size=32, learning_rates=(1e-2, 1e-7))


def data(seed, n=200):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n, dtype=np.int32)
    x = rng.normal(size=(n, 6)).astype(np.float32) + 3.0 * (2 * label[:, None] - 1) * (np.arange(6) == 0)[None, :]
    return Batch(x=x.astype(np.float32), label=label, attribute=np.zeros(n, np.int32))


def held_out(edit=None, accept=None):
    return RepairSets(edit=data(0) if edit is None else edit, accept=data(1) if accept is None else accept)


@pytest.fixture(scope="module")
def classifier():
    return models.mlp(hidden=(8,), classes=2)


def test_the_better_rate_is_kept_and_the_parameters_stay(key, classifier):
    params = classifier.init(key, data(0).x)
    kept = jax.tree.map(np.array, params)
    tuned, info = fine_tune(key, classifier, params, held_out(), CONFIG)
    assert info.learning_rate == 1e-2
    assert set(info.accept_accuracy) == {1e-2, 1e-7}
    assert info.accept_accuracy[1e-2] > 0.95
    jax.tree.map(np.testing.assert_array_equal, params, kept)
    right = np.asarray(classifier.apply(tuned, jnp.asarray(data(1).x))).argmax(-1) == data(1).label
    assert right.mean() == pytest.approx(info.accept_accuracy[1e-2])


def test_a_tiny_rate_stays_where_it_started(key, classifier):
    params = classifier.init(key, data(0).x)
    tuned, _ = fine_tune(key, classifier, params, held_out(), FineTuneConfig(epochs=1, learning_rates=(1e-9,)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), tuned, params)


def test_from_scratch_learns(key, classifier):
    _, info = train_from_scratch(key, classifier, None, held_out(), CONFIG)
    assert info.accept_accuracy[info.learning_rate] > 0.95


def test_only_the_head_is_tuned_and_as_in_the_whole_model(key, classifier):
    """Full batches, no decay: a step of the head on cached features is the head's part of a step of the model."""
    params, batch = classifier.init(key, data(0).x), data(0)
    config = FineTuneConfig(epochs=1, batch_size=200, learning_rates=(1e-2,), weight_decay=0.0)
    tuned, info = fine_tune_head(key, classifier.vector, params, held_out(batch), config)
    whole, _ = fine_tune(key, classifier, params, held_out(batch), config)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), tuned["params"]["head"], whole["params"]["head"]
    )
    assert tuned["params"]["layers_0"] is params["params"]["layers_0"] or all(
        a is b
        for a, b in zip(
            jax.tree.leaves(tuned["params"]["layers_0"]), jax.tree.leaves(params["params"]["layers_0"]), strict=True
        )
    )
    right = np.asarray(classifier.apply(tuned, jnp.asarray(data(1).x))).argmax(-1) == data(1).label
    assert right.mean() == pytest.approx(info.accept_accuracy[1e-2])


def test_the_head_alone_learns_and_keeps_the_better_rate(key, classifier):
    params = classifier.init(key, data(0).x)
    config = FineTuneConfig(epochs=20, batch_size=32, learning_rates=(1e-7, 1e-1))
    _, info = fine_tune_head(key, classifier.vector, params, held_out(), config)
    assert info.learning_rate == 1e-1
    assert info.accept_accuracy[1e-1] > 0.9


def test_counterfactual_retraining_unlearns_a_column_that_flips(key, classifier):
    """Column 1 is the label in training; in the augmented rows it is turned over, so only column 0 is left to learn."""
    train = data(0, n=400)
    x = train.x.copy()
    x[:, 1] = 5.0 * (2 * train.label - 1)
    turned = x.copy()
    turned[:, 1] *= -1
    biased, augmented = train._replace(x=x), train._replace(x=turned)
    accept = data(1)
    params, info = retrain_counterfactual(
        key,
        classifier,
        None,
        RepairSets(train=biased, accept=accept),
        FineTuneConfig(epochs=20, batch_size=64, learning_rates=(1e-2,)),
        counterfactual=augmented,
    )
    assert info.accept_accuracy[1e-2] > 0.9
    same = np.asarray(classifier.apply(params, jnp.asarray(x))).argmax(1)
    assert (same == np.asarray(classifier.apply(params, jnp.asarray(turned))).argmax(1)).mean() > 0.95


def test_a_block_is_trained_and_nothing_else(key, classifier):
    params = classifier.init(key, data(0).x)
    where = ["params/head/kernel", "params/head/bias"]
    tuned, info = fine_tune_block(key, classifier.apply, params, held_out(), CONFIG, block=where)
    assert info.learning_rate == 1e-2
    assert info.accept_accuracy[1e-2] > info.accept_accuracy[1e-7]
    right = np.asarray(classifier.apply(tuned, data(1).x)).argmax(-1) == data(1).label
    assert right.mean() == pytest.approx(info.accept_accuracy[1e-2], abs=1e-6)
    assert tuned["params"]["layers_0"]["kernel"] is params["params"]["layers_0"]["kernel"]
    # The same as the head trained on features by itself, from the same place in the same order.
    alone, _ = fine_tune_head(key, classifier.vector, params, held_out(), CONFIG)
    # A rate does the same whichever was tried first.
    second, _ = fine_tune_head(
        key,
        classifier.vector,
        params,
        held_out(),
        dataclasses.replace(CONFIG, learning_rates=CONFIG.learning_rates[::-1]),
    )
    for other in (alone, second):
        one, two = (p["params"]["head"]["kernel"] for p in (tuned, other))
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.unoptimised
def test_mixed_channels_take_a_colour_out(key):
    """Real digits whose colour is their class: with the mixing the head alone can do much better."""
    dataset = digits(conflicting=0.02, seed=0)
    train, edit, accept = (dataset.splits[name] for name in ("train", "edit", "accept"))
    classifier = models.mlp(hidden=(32,), classes=10)
    biased, _ = train_from_scratch(
        key, classifier, None, held_out(train, train), FineTuneConfig(epochs=20, batch_size=64, learning_rates=(3e-3,))
    )

    def accuracy(params):
        return float(np.mean(np.asarray(classifier.apply(params, accept.x)).argmax(-1) == accept.label))

    head = ["params/head/kernel", "params/head/bias"]
    mix = {"params/layers_0/kernel": influence.Mix(3), "params/layers_0/bias": None, **dict.fromkeys(head)}
    config = FineTuneConfig(epochs=20, batch_size=32, learning_rates=(3e-3,))
    tuned, without = (
        fine_tune_block(key, classifier.apply, biased, held_out(edit, accept), config, block=block)[0]
        for block in (mix, head)
    )
    assert accuracy(biased) < 0.7
    assert accuracy(tuned) > accuracy(without) + 0.03 > accuracy(biased) + 0.1
    # The mixture is folded into the kernel: each pixel's three rows are combinations of what they were.
    before, after = (np.asarray(p["params"]["layers_0"]["kernel"]).reshape(-1, 3, 32) for p in (biased, tuned))
    for unit in range(8):  # of 32
        fit, *_ = np.linalg.lstsq(before[:, :, unit], after[:, :, unit], rcond=None)
        np.testing.assert_allclose(before[:, :, unit] @ fit, after[:, :, unit], atol=1e-3)
