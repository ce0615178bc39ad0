import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.measure import (
    Interval,
    Intervention,
    assess_reliance,
    flipped_column_reliance,
    intervention_reliance,
    mcnemar_midp,
    paired_interval,
    quote_interventions,
)

COUNTS = np.array([[90, 10], [10, 90]])


def test_the_effect_is_what_the_change_moves_beyond_the_control(key):
    rng = np.random.default_rng(0)
    before, after, control, toward = (rng.integers(0, 3, 300) for _ in range(4))
    toward = np.where(rng.random(300) < 0.1, -1, toward)
    found = intervention_reliance(before, after, toward, control=control, key=key)
    counted = [row for row in range(300) if toward[row] >= 0]

    def moved(now):
        return np.mean([int(now[row] == toward[row]) - int(before[row] == toward[row]) for row in counted])

    gains = sum(after[row] == toward[row] != control[row] for row in counted)
    losses = sum(control[row] == toward[row] != after[row] for row in counted)
    assert found.moved == pytest.approx(moved(after))
    assert found.moved_by_control == pytest.approx(moved(control))
    assert found.effect.value == pytest.approx(found.moved - found.moved_by_control)
    expected = paired_interval([gains], [losses], [len(counted)], [1.0])
    assert found.effect == pytest.approx(expected)
    assert found.p == pytest.approx(mcnemar_midp(gains, losses))
    assert found.discordant == gains + losses


def test_hiding_moves_predictions_away(key):
    """Where the region is hidden, the associated class is predicted less often; the control hides another one."""
    before, toward = np.repeat([1, 0], [80, 20]), np.ones(100, int)
    hidden, control = np.repeat([0, 1, 0], [30, 50, 20]), np.repeat([0, 1, 0], [4, 76, 20])
    found = intervention_reliance(before, hidden, toward, control=control, away=True, evidence="hidden_region", key=key)
    assert (found.moved, found.moved_by_control) == (pytest.approx(0.3), pytest.approx(0.04))
    assert found.effect.value == pytest.approx(0.26)
    assert found.shown(found.p)
    assert found.evidence == "hidden_region"


def test_what_a_control_moves_as_far_shows_nothing(key):
    before, toward = np.zeros(200, int), np.ones(200, int)
    after, control = np.repeat([1, 0], [40, 160]), np.repeat([1, 0, 1, 0], [20, 20, 18, 142])
    alone = intervention_reliance(before, after, toward, key=key)
    assert (alone.shown(0.001), alone.controlled) == (True, False)
    assert not intervention_reliance(before, after, toward, control=control, key=key).effect.low > 0


@pytest.mark.parametrize(
    ("low", "discordant", "p", "shown"),
    [
        (0.02, 9, 0.01, True),
        (0.01, 9, 0.01, False),
        (0.02, 5, 0.01, False),
        (0.02, 6, 0.05, True),
        (0.02, 9, 0.06, False),
    ],
)
def test_three_conditions(low, discordant, p, shown):
    found = Intervention("twins", 0.1, 0.0, Interval(0.1, low, 0.2, 90), 0.001, discordant)
    assert found.shown(p) == shown


def test_units_and_padding(key):
    rng = np.random.default_rng(1)
    before, after = rng.integers(0, 2, 120), rng.integers(0, 2, 120)
    toward, control = np.ones(120, int), rng.integers(0, 2, 120)
    plain = intervention_reliance(before, after, toward, control=control, key=key)
    padded = [np.r_[of, np.full(30, 1)] for of in (before, after, toward, control)]
    weight = np.r_[np.ones(120), np.zeros(30)]
    found = intervention_reliance(*padded[:3], control=1 - padded[3], key=key, weight=weight)
    found = intervention_reliance(*padded[:3], control=padded[3], key=key, weight=weight)
    assert found == plain
    ten = [np.repeat(of, 10) for of in (before, after, toward, control)]
    once = intervention_reliance(before, after, toward, control=control, unit=np.arange(120), key=key)
    clustered = intervention_reliance(*ten[:3], control=ten[3], unit=np.repeat(np.arange(120), 10), key=key)
    assert (clustered.p, clustered.discordant) == (pytest.approx(once.p), once.discordant)
    assert clustered.effect.low == pytest.approx(once.effect.low, abs=0.01)
    nobody = intervention_reliance(before, after, np.full(120, -1), key=key)
    assert not nobody.shown(nobody.p)


def world(n=600):
    rng = np.random.default_rng(2)
    return {"sex": rng.choice(["f", "m"], n), "x": rng.normal(size=n), "z": rng.normal(size=n)}


def predict(weight):
    return lambda table: (np.asarray(table["x"]) + weight * (np.asarray(table["sex"]) == "m") > 0).astype(int)


@pytest.mark.parametrize("library", [dict, pd.DataFrame, pl.DataFrame])
def test_a_flipped_column_of_any_table(key, library):
    table = library(world())
    found = flipped_column_reliance(predict(0.5), table, "sex", COUNTS, control="z", key=key)
    flipped = world() | {"sex": np.where(world()["sex"] == "m", "f", "m")}
    before, after = predict(0.5)(world()), predict(0.5)(flipped)
    toward = (flipped["sex"] == "m").astype(int)
    assert found.moved == pytest.approx(np.mean((after == toward).astype(int) - (before == toward)))
    assert found.moved_by_control == 0.0
    assert found.shown(found.p)
    none = flipped_column_reliance(predict(0.0), table, "sex", COUNTS, control="z", key=key)
    assert (none.moved, none.p, none.shown(none.p)) == (0.0, 1.0, False)
    np.testing.assert_array_equal(np.asarray(table["sex"]), world()["sex"])


def test_a_flipped_column_of_an_array(key):
    rng = np.random.default_rng(3)
    table = np.stack([rng.integers(0, 3, 500), rng.normal(size=500)], axis=1)
    counts = np.array([[80, 10, 30], [10, 80, 30]])  # value 2 is associated with no class
    drawn = []

    def model(x):
        drawn.append(x[:, 0].copy())
        return (x[:, 1] + (x[:, 0] == 1) - (x[:, 0] == 0) > 0).astype(int)

    found = flipped_column_reliance(model, table, "group", counts, names=["group", "x"], key=key)
    assert found.shown(found.p)
    assert (drawn[1] != table[:, 0]).all()
    assert set(drawn[1]) == {0.0, 1.0}
    np.testing.assert_array_equal(drawn[2], table[:, 0])
    shuffled = flipped_column_reliance(model, table, "group", counts, names=["group", "x"], control="x", key=key)
    assert shuffled.effect.value < found.effect.value
    assert (shuffled.controlled, found.controlled) == (True, False)
    with pytest.raises(ContractError, match=r"`column`: expected one of group, x, got 'sex'"):
        flipped_column_reliance(model, table, "sex", counts, names=["group", "x"], key=key)
    with pytest.raises(ContractError, match=r"`train_counts`: expected a value associated with a class"):
        flipped_column_reliance(model, table, "group", np.ones((2, 3)), names=["group", "x"], key=key)


def test_the_strongest_evidence_is_quoted(key):
    rng = np.random.default_rng(4)
    label, value = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
    predicted = np.where(rng.random(400) < 0.4, value, label)
    found = assess_reliance(
        predicted, label, {"a": value, "b": rng.integers(0, 2, 400)}, {"a": COUNTS, "b": COUNTS}, key=key
    )
    strong = Intervention("twins", 0.4, 0.0, Interval(0.4, 0.3, 0.5, 400), 1e-9, 160)
    weak = Intervention("hidden_region", 0.02, 0.0, Interval(0.02, 0.011, 0.03, 400), 0.03, 9)
    quoted = quote_interventions(found, {"a": [weak, strong]})
    assert (quoted["a"].state, quoted["a"].evidence) == ("shown", "twins")
    assert quoted["a"].p == pytest.approx(2e-9)
    assert {rival.state for rival in quoted["a"].rivals} == {"excluded"}
    assert quoted["a"].lean == found["a"].lean
    assert quoted["b"] == found["b"]
    # Holm: the weak one alone is shown, not as one of two.
    assert quote_interventions(found, {"b": [weak]})["b"].evidence == "hidden_region"
    assert quote_interventions(found, {"a": [weak], "b": [weak]}) == found
    assert quote_interventions(found, {}) == found
    with pytest.raises(ContractError, match="`interventions`: expected names among a, b, got c"):
        quote_interventions(found, {"c": [strong]})


def test_bad_input_is_one_line(key):
    good = np.zeros(5, int)
    with pytest.raises(ContractError, match="`after`: expected int"):
        intervention_reliance(good, good[:4], good, key=key)
    with pytest.raises(ContractError, match="`evidence`: expected one of twins"):
        intervention_reliance(good, good, good, key=key, evidence="twin")
    with pytest.raises(ContractError, match="`toward`: expected values of at least -1"):
        intervention_reliance(good, good, good - 2, key=jax.random.key(0))
