"""Losses, pairs of probabilities and scores: what does not fit is refused, where an index would broadcast it."""

import jax
import numpy as np
import pytest
from fuzz.mutations import REFUSED, Call, check, each, outcome

from jaxdebias import measure
from jaxdebias.contracts import ContractError
from jaxdebias.language import crows_pairs_change
from jaxdebias.mitigate import erm
from jaxdebias.train import FitConfig, fit
from jaxdebias.train._losses import correct, cross_entropy, weighted_mean

RNG = np.random.default_rng(0)
LOGITS, TWIN = RNG.normal(size=(2, 6, 3)).astype(np.float32)
LABEL = (np.arange(6) % 3).astype(np.int32)
P, Q, WEIGHT = RNG.random((3, 6)).astype(np.float32)
KEY = jax.random.key(0)


def crows(more, less, after):
    return crows_pairs_change(KEY, (more, less), (after, less))


CALLS = {
    "flip_rate": Call(measure.flip_rate, {"logits": LOGITS, "logits_twin": TWIN}, ("logits", "logits_twin")),
    "true_class_probability": Call(
        measure.true_class_probability, {"logits": LOGITS, "label": LABEL}, ("logits", "label")
    ),
    "pair_bias": Call(
        measure.pair_bias,
        {"p": P, "p_twin": Q, "weight": WEIGHT},
        ("p", "p_twin", "weight"),
        optional=("weight",),
    ),
    "pair_gap": Call(
        measure.pair_gap,
        {"p": P, "p_twin": Q, "weight": WEIGHT},
        ("p", "p_twin", "weight"),
        optional=("weight",),
    ),
    "cross_entropy": Call(cross_entropy, {"logits": LOGITS, "label": LABEL}, ("logits", "label")),
    "correct": Call(correct, {"logits": LOGITS, "label": LABEL}, ("logits", "label")),
    "weighted_mean": Call(weighted_mean, {"values": P, "weight": WEIGHT}, ("values", "weight"), optional=("weight",)),
    "crows_pairs_change": Call(crows, {"more": P, "less": Q, "after": WEIGHT}, ("more", "less", "after")),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_change_of_every_argument(name):
    for _, argument, mutation in each({name: CALLS[name]}):
        check(CALLS[name], argument, mutation)


WRONG = (None, 0, "key", 0.5, np.zeros(3, np.uint32), np.zeros(2, np.float32), jax.random.split(KEY, 2))


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_keys_of_a_wrong_type(number):
    key, batch = WRONG[number], measure_batch()
    for call in (
        lambda key: measure.assess_reliance(LABEL, LABEL, {"a": LABEL % 2}, key=key),
        lambda key: measure.assess_disparity(LABEL, LABEL, {"a": LABEL % 2}, key=key),
        lambda key: measure.fairness_report(key, LABEL % 2, LABEL % 2, LABEL % 2),
        lambda key: measure.mean_change(P, Q, key=key),
        lambda key: measure.counterfactual_bias_of_logits(LOGITS, TWIN, LABEL, key=key),
        lambda key: fit(key, erm(None), batch),
    ):
        assert outcome(call, {"key": key}) is REFUSED


def measure_batch():
    from jaxdebias.core import Batch

    return Batch(LOGITS, LABEL, LABEL % 2)


def test_configurations_of_a_wrong_type():
    for config in (None, 0.7, {"epochs": 2}, "fast", FitConfig):
        assert outcome(fit, {"key": KEY, "learner": erm(None), "data": measure_batch(), "config": config}) is REFUSED


def test_views_that_are_larger_than_the_memory_are_refused_at_once():
    huge = np.broadcast_to(np.int32(1), (2**45,))
    for call in (
        lambda: measure.group_confusion(huge, huge, huge, classes=2, attributes=2),
        lambda: measure.pair_bias(np.broadcast_to(0.5, (2**45,)), np.broadcast_to(0.5, (2**45,))),
        lambda: weighted_mean(np.broadcast_to(0.5, (2**45,))),
        lambda: measure.flip_rate(np.broadcast_to(0.5, (2**45, 2)), np.broadcast_to(0.5, (2**45, 2))),
    ):
        with pytest.raises(ContractError, match=r"at most .* bytes, the memory"):
            call()


def test_a_table_of_no_classes_or_of_more_than_there_can_be_is_refused():
    for classes in (0, -1, True, 2.0, 2**40, None):
        arguments = {"predicted": LABEL, "label": LABEL, "attribute": LABEL, "classes": classes, "attributes": 3}
        assert outcome(measure.group_confusion, arguments) is REFUSED
    column = {"predicted": LABEL[:, None], "label": LABEL, "attribute": LABEL, "classes": 3, "attributes": 3}
    assert outcome(jax.jit(measure.group_confusion, static_argnames=("classes", "attributes")), column) is REFUSED
