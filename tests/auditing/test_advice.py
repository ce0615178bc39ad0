"""Which repair is recommended, from which samples that is known, and when the model is left as it is."""

import dataclasses

import jax
import numpy as np
import pytest
from auditing.toys import SPLIT, linear, looking_at, table

from jaxdebias import auditing
from jaxdebias.auditing.advice import ESTIMATE, LEAVE, UNTRIED, _halved, _sorted, advise, verify, worth_it
from jaxdebias.core import take
from jaxdebias.measure import PairedChange


@pytest.fixture(scope="module")
def advice():
    return advise(jax.random.key(0), SPLIT, looking_at(0.5, 2.0), table(noise=0.1))


@pytest.mark.slow
def test_a_repair_that_helps_is_recommended_and_holds(key, advice):
    dataset, params = table(noise=0.1), looking_at(0.5, 2.0)
    assert advice.fix in ("dfr", "fmd")
    assert {one.name for one in advice.options} == {"dfr", "fmd"}
    gain = advice.chosen.expected["group_mean_accuracy"]
    assert gain.low > 0.2
    assert "group_mean_accuracy" in advice.chosen.gains
    before = auditing.measure(key, linear, params, dataset)
    found = verify(jax.random.key(1), SPLIT, advice.chosen, dataset, before, measure_key=key)
    assert found.held
    assert found.changes["group_mean_accuracy"].low > 0.2
    assert found.after.groups.bias_conflicting_accuracy.value > 0.8


@pytest.mark.slow
def test_a_model_without_the_shortcut_is_left(key):
    found = advise(key, SPLIT, looking_at(4.0, 0.0), table(noise=0.1))
    assert found.fix == LEAVE
    assert found.chosen is None
    assert found.options


def test_with_few_samples_nothing_is_tried(key):
    """The interval of a handful that agrees has no width."""
    dataset = table(noise=0.1)
    few = dataclasses.replace(
        dataset,
        splits={**dataset.splits, "accept": take(dataset.splits["accept"], np.arange(6))},
        pairs={**dataset.pairs, "accept": take(dataset.pairs["accept"], np.arange(6))},
    )
    found = advise(key, SPLIT, looking_at(1.0, 1.1), few)
    assert found.fix == UNTRIED
    assert "60 independent samples in split 'accept', not 6" in found.missing


@pytest.mark.parametrize("without", ["edit", "accept"])
def test_what_is_missing_is_said(key, without):
    dataset = table()
    left = {name: batch for name, batch in dataset.splits.items() if name != without}
    found = advise(key, SPLIT, looking_at(0.5, 2.0), dataclasses.replace(dataset, splits=left))
    assert found.fix == UNTRIED
    assert without in found.missing
    batch = dataset.splits[without]
    blind = {**dataset.splits, without: batch._replace(attribute=np.full(400, -1, np.int32))}
    found = advise(key, SPLIT, looking_at(0.5, 2.0), dataclasses.replace(dataset, splits=blind))
    assert found.fix == UNTRIED
    assert f"known attribute in split '{without}'" in found.missing


def test_no_unit_is_on_both_sides(key):
    dataset = table()
    unit = np.repeat(np.arange(100), 4).astype(np.int32)
    accept = dataset.splits["accept"]._replace(unit=unit)
    pairs = dataset.pairs["accept"]._replace(unit=unit)
    halved = _halved(
        key,
        dataclasses.replace(
            dataset, splits={**dataset.splits, "accept": accept}, pairs={**dataset.pairs, "accept": pairs}
        ),
    )
    one, other = (set(halved.splits[name].unit) for name in ("accept", ESTIMATE))
    assert len(one) == len(other) == 50
    assert not one & other
    assert set(halved.pairs[ESTIMATE].unit) == other
    assert set(halved.pairs["accept"].unit) == one


def test_only_the_mean_over_groups_recommends():
    """Guesses depend on no attribute, and conflicting accuracy can be bought with aligned one: neither is a repair."""
    falls, nothing = (
        PairedChange(-0.8, -0.9, -0.7, 100, 1e-6, 90, True),
        PairedChange(0.0, -0.05, 0.05, 100, 1, 4, False),
    )
    rises = PairedChange(0.2, 0.1, 0.3, 100, 1e-4, 20, True)
    found = {
        "counterfactual_bias": falls,
        "group_mean_accuracy": nothing,
        "bias_aligned_accuracy": nothing,
        "bias_conflicting_accuracy": rises,
    }
    assert _sorted(found) == (("counterfactual_bias",), ())
    assert not worth_it(*_sorted(found))
    gained = {**found, "group_mean_accuracy": rises}
    assert _sorted(gained) == (("group_mean_accuracy", "counterfactual_bias"), ())
    assert worth_it(*_sorted(gained))
    untested = rises._replace(p=0.06, separable=False)  # the interval alone decides nothing
    assert _sorted({**found, "group_mean_accuracy": untested})[0] == ("counterfactual_bias",)
    tiny = rises._replace(value=0.009)
    assert not worth_it(*_sorted({**found, "group_mean_accuracy": tiny}))
    worse = {**gained, "counterfactual_bias": rises}
    assert _sorted(worse) == (("group_mean_accuracy",), ("counterfactual_bias",))
    assert not worth_it(*_sorted(worse))
