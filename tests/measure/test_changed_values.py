"""Samples shown with another value, or with a region hidden: what is only harder must not look like reliance."""

import jax
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.measure import (
    assess_reliance,
    changed_value_reliance,
    hidden_region_reliance,
    mcnemar_midp,
    paired_interval,
    quote_interventions,
)

SETS = 12
COUNTS = np.array([[90, 10], [10, 90]])
WAYS = [(2, "one"), (2, "both"), (3, "one"), (6, "one"), (6, "both")]


def counts_of(classes):
    return 10 + 80 * np.eye(classes, dtype=int)


def pictures(rng, n, classes, way):
    """(label, value, changed value): values equal the label's class where they are associated with it."""
    label = rng.integers(0, classes, n)
    value = label if way == "one" else rng.integers(0, classes, n)
    return label, value, (value + rng.integers(1, classes, n)) % classes


def answer(rng, label, value, *, strength, wrong, fallback=None):
    """A model that is wrong in a share of the rows, at random or with a class of its own; with `strength` in a share
    of the rows it says the value's class."""
    classes = int(label.max()) + 1
    other = (label + rng.integers(1, classes, len(label))) % classes
    mistaken = rng.random(len(label)) < wrong
    said = np.where(mistaken, other if fallback is None else fallback, label)
    return np.where(rng.random(len(label)) < strength, value, said)


def shown(seed, classes, way, *, strength, harder, fallback=None, n=600):
    """Whether the audit's evidence shows reliance: the twins, and where they have no control, the mistakes as well."""
    rng = np.random.default_rng(seed)
    key = jax.random.key(seed)
    label, value, changed = pictures(rng, n, classes, way)
    before = answer(rng, label, value, strength=strength, wrong=0.05)
    after = answer(rng, label, changed, strength=strength, wrong=0.05 + harder, fallback=fallback)
    found = changed_value_reliance(before, after, label, value, changed, counts_of(classes), key=key)
    test, of_test, _ = pictures(rng, n, classes, "both")
    predicted = answer(rng, test, of_test, strength=strength, wrong=0.05)
    mistakes = {"a": assess_reliance(predicted, test, of_test, counts_of(classes), key=key)}
    return quote_interventions(mistakes, {"a": [found]})["a"].state == "shown", found.controlled


@pytest.mark.slow
@pytest.mark.parametrize("fallback", [None, 0])
@pytest.mark.parametrize(("classes", "way"), WAYS)
def test_a_harder_twin_shows_nothing(classes, way, fallback):
    """Changed samples are missed in a quarter more of the rows, at random or always with one class."""
    found = [shown(seed, classes, way, strength=0.0, harder=0.25, fallback=fallback) for seed in range(SETS)]
    assert sum(one for one, _ in found) <= 1
    assert {controlled for _, controlled in found} == {(classes, way) != (2, "one")}


@pytest.mark.slow
@pytest.mark.parametrize("harder", [0.0, 0.25])
@pytest.mark.parametrize(("classes", "way"), WAYS)
def test_a_relying_model_is_shown(classes, way, harder):
    found = [shown(seed, classes, way, strength=0.15, harder=harder) for seed in range(4)]
    assert sum(one for one, _ in found) >= 3


@pytest.mark.parametrize(("classes", "way"), [(2, "one"), (2, "both"), (6, "one")])
def test_only_reliance_is_shown(classes, way):
    harder = [shown(seed, classes, way, strength=0.0, harder=0.25)[0] for seed in range(3)]
    relying = [shown(seed, classes, way, strength=0.2, harder=0.25)[0] for seed in range(2)]
    assert (harder, relying) == ([False] * 3, [True] * 2)


def test_without_the_control_a_harder_twin_would_be_shown():
    """What the control is there for: one-way twins of two classes alone call a harder twin reliance."""
    rng = np.random.default_rng(0)
    label, value, changed = pictures(rng, 600, 2, "one")
    after = answer(rng, label, changed, strength=0.0, wrong=0.3)
    found = changed_value_reliance(label, after, label, value, changed, COUNTS, key=jax.random.key(0))
    assert found.shown(found.p)
    assert not found.controlled


def test_two_classes_by_hand(key):
    rng = np.random.default_rng(1)
    label, value = (rng.integers(0, 2, 400) for _ in range(2))
    before, after = (rng.integers(0, 2, 400) for _ in range(2))
    found = changed_value_reliance(before, after, label, value, 1 - value, COUNTS, key=key)
    gains, losses, rows = [], [], []
    for y in (0, 1):
        for back in (False, True):
            cell = [i for i in range(400) if label[i] == y and (1 - value[i] == y) == back]
            gains.append(sum(after[i] == 1 - value[i] != before[i] for i in cell))
            losses.append(sum(before[i] == 1 - value[i] != after[i] for i in cell))
            rows.append(len(cell))
    assert found.effect == pytest.approx(paired_interval(gains, losses, rows, [0.25] * 4))
    assert found.discordant == sum(gains) + sum(losses)
    assert found.moved == pytest.approx(found.effect.value)


def test_many_classes_by_hand(key):
    """Movement toward the class of the new value against that toward the only class that is left."""
    rng = np.random.default_rng(2)
    label, value, changed = pictures(rng, 900, 3, "one")
    before, after = (rng.integers(0, 3, 900) for _ in range(2))
    found = changed_value_reliance(before, after, label, value, changed, counts_of(3), key=key)
    effects = []
    for c in range(3):
        rows = [i for i in range(900) if changed[i] == c]
        score = 0
        for i in rows:
            rest = 3 - label[i] - c
            gain = (int(after[i] == c) - int(before[i] == c)) - (int(after[i] == rest) - int(before[i] == rest))
            score += np.sign(gain)
        effects.append(score / len(rows))
    assert found.effect.value == pytest.approx(np.mean(effects))


def test_rows_that_say_nothing_take_no_part(key):
    label, value = np.arange(400) % 2, np.arange(400) // 2 % 2
    changed = np.where(np.arange(400) < 200, -1, 1 - value)
    found = changed_value_reliance(label, label, label, value, changed, COUNTS, key=key)
    assert found.effect.n == 200
    even = np.full((2, 2), 50)  # no value is associated with a class
    assert changed_value_reliance(label, label, label, value, 1 - value, even, key=key) is None
    same = np.array([[90, 80, 10], [10, 20, 90]])  # values 0 and 1 are associated with one class
    assert changed_value_reliance(label, label, label, 0 * value, 0 * value + 1, same, key=key) is None
    weight = np.r_[np.ones(300), np.zeros(100)]
    padded = changed_value_reliance(label, value, label, value, 1 - value, COUNTS, key=key, weight=weight)
    plain = changed_value_reliance(label[:300], value[:300], label[:300], value[:300], 1 - value[:300], COUNTS, key=key)
    assert (padded.moved, padded.p) == (plain.moved, plain.p)


@pytest.mark.parametrize("wrong", [0.3, 0.6])
@pytest.mark.parametrize("fallback", [None, 1])
def test_hiding_that_is_only_harder_shows_nothing(wrong, fallback):
    claims = 0
    for seed in range(SETS):
        rng, key = np.random.default_rng(seed), jax.random.key(seed)
        label, value, _ = pictures(rng, 600, 2, "both")
        before = answer(rng, label, value, strength=0.0, wrong=0.05)
        hidden = answer(rng, label, value, strength=0.0, wrong=wrong, fallback=fallback)
        found = hidden_region_reliance(before, hidden, label, value, COUNTS, key=key)
        claims += found.shown(found.p)
    assert claims <= 1


def test_hiding_what_is_relied_on_is_shown(key):
    rng = np.random.default_rng(3)
    label, value, _ = pictures(rng, 600, 3, "both")
    before = answer(rng, label, value, strength=0.3, wrong=0.05)
    hidden = answer(rng, label, value, strength=0.0, wrong=0.1)
    found = hidden_region_reliance(before, hidden, label, value, counts_of(3), key=key)
    assert found.shown(found.p)
    assert found.controlled
    assert found.effect.value == pytest.approx(0.2, abs=0.05)
    # What hiding another region does is subtracted.
    beside = hidden_region_reliance(before, hidden, label, value, counts_of(3), key=key, control=hidden)
    assert (beside.effect.value, beside.shown(beside.p)) == (0.0, False)
    assert beside.moved == beside.moved_by_control == pytest.approx(found.moved)


def test_a_label_seen_with_one_value_only_takes_no_part(key):
    label = np.repeat([0, 1], 200)
    assert hidden_region_reliance(label, label, label, label, COUNTS, key=key) is None


def test_an_effect_of_chance_is_exact():
    """One cell pair: the p value is that of McNemar's test."""
    label, value = np.zeros(200, int), np.repeat([0, 1], 100)
    before = np.zeros(200, int)
    after = before.copy()
    after[:9] = 1
    found = changed_value_reliance(before, after, label, value, 1 - value, COUNTS, key=jax.random.key(0))
    assert found.p == pytest.approx(mcnemar_midp(9, 0))


def test_bad_input_is_one_line(key):
    good = np.zeros(5, int)
    with pytest.raises(ContractError, match="`changed`: expected"):
        changed_value_reliance(good, good, good, good, good + 2, COUNTS, key=key)
    with pytest.raises(ContractError, match="`after`: expected int"):
        changed_value_reliance(good, good[:4], good, good, good, COUNTS, key=key)
    with pytest.raises(ContractError, match="`control`: expected int"):
        hidden_region_reliance(good, good, good, good, COUNTS, key=key, control=good[:3])
