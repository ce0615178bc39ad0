"""Changes that an audit makes itself: which data allow which, and what they show of models whose rule is known."""

import dataclasses

import jax
import numpy as np
import pytest
from auditing.toys import linear, looking_at, table

import jaxdebias
from jaxdebias.auditing.candidates import list_candidates
from jaxdebias.auditing.interventions import attribute_columns, hide, intervene, moved_region, twin_values
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, Dataset
from jaxdebias.measure import Interval, Intervention

N = 480


def pictures(seed=0, classes=2):
    """The class is the brightness of the left half, the attribute that of the right one, the region `place`."""
    rng = np.random.default_rng(seed)

    def batch(share):
        label = rng.integers(0, classes, N).astype(np.int32)
        other = (label + rng.integers(1, classes, N)) % classes
        value = np.where(rng.random(N) < share, other, label).astype(np.int32)
        return drawn(label, value)

    mask = np.zeros((N, 4, 4), np.int32)
    mask[:, :, 2:] = 2

    def drawn(label, value):
        x = np.zeros((N, 4, 4, 1), np.float32)
        x[:, :, :2, 0] = (label / classes)[:, None, None]
        x[:, :, 2:, 0] = (value / classes)[:, None, None]
        return Batch(x, label, value, mask=mask)

    return Dataset(
        name="halves",
        variant={"attribute": "place"},
        splits={"train": batch(0.1), "test": batch(0.5)},
        pairs={},
        label_names=tuple("abcdef"[:classes]),
        attribute_names=tuple("uvwxyz"[:classes]),
        aligned=np.eye(classes, dtype=bool),
        pairing="none",
        regions={"object": (0,), "place": (2,)},
        attribute_region="place",
    )


def reads(half, classes=2):
    """A model that reads one half; of a hidden one it says the class next to the mean brightness."""
    columns = slice(0, 2) if half == "left" else slice(2, 4)
    return lambda x: np.round(np.asarray(x)[:, 0, columns, 0].mean(-1) * classes).astype(int) % classes


def effects(dataset, predict, **options):
    named = list_candidates(dataset)
    counts = {name: np.array([[400, 40], [40, 400]]) for name in named}
    predicted = predict(dataset.splits["test"].x)
    return intervene(jax.random.key(0), predict, dataset, named, counts, predicted, **options)


def test_a_hidden_region_shows_who_reads_it():
    dataset = pictures()
    relies, ignores = (effects(dataset, reads(half))["place"] for half in ("right", "left"))
    assert [one.evidence for one in relies] == ["hidden_region"]
    assert relies[0].shown(relies[0].p)
    assert relies[0].effect.value == pytest.approx(0.5, abs=0.02)
    assert relies[0].moved_by_control == pytest.approx(0.0, abs=0.02)  # the other half, hidden, moves nothing
    assert not ignores[0].shown(ignores[0].p)
    for without in (
        dataclasses.replace(dataset, attribute_region=None),
        dataclasses.replace(dataset, splits={**dataset.splits, "test": dataset.splits["test"]._replace(mask=None)}),
    ):
        assert effects(without, reads("right")) == {}


def test_hidden_pixels_are_the_mean_and_the_rest_stays():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (3, 4, 4, 2)).astype(np.uint8)
    region = rng.random((3, 4, 4)) < 0.4
    found = hide(x, region)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[~region], x[~region])
    assert set(map(tuple, found[region])) == {tuple(np.round(x.reshape(-1, 2).mean(0)).astype(int))}
    assert not (moved_region(region) & region).any()


def test_twins_of_the_test_split_change_both_ways():
    dataset = pictures()
    test = dataset.splits["test"]
    twin = np.array(test.x)
    twin[:, :, 2:, 0] = ((1 - test.attribute) / 2)[:, None, None]
    with_twins = dataclasses.replace(
        dataset,
        splits={**dataset.splits, "test": test._replace(twin=twin)},
        pairing="counterfactual",
        attribute_region=None,
    )
    (found,) = effects(with_twins, reads("right"))["place"]
    assert (found.evidence, found.controlled, found.effect.value) == ("twins", True, 1.0)
    matched = dataclasses.replace(with_twins, pairing="matched")
    assert effects(matched, reads("right")) == {}


def test_pairs_of_two_classes_have_no_control():
    dataset = table(noise=0.1)
    predict = lambda x: np.asarray(linear(looking_at(0.5, 2.0), x)).argmax(-1)  # noqa: E731
    sides = tuple(predict(x) for x in (dataset.pairs["test"].x, dataset.pairs["test"].twin))
    (found,) = effects(dataset, predict, pair_classes=sides)["attribute"]
    assert (found.evidence, found.controlled) == ("twins", False)
    assert found.shown(found.p)
    many = dataclasses.replace(dataset, attribute_names=("blue", "red", "grey"), aligned=np.eye(2, 3, dtype=bool))
    named = list_candidates(many)
    counts = {"attribute": np.array([[400, 40, 0], [40, 400, 0]])}
    (away,) = intervene(
        jax.random.key(0), predict, many, named, counts, predict(many.splits["test"].x), pair_classes=sides
    )["attribute"]
    assert (away.controlled, away.moved) == (False, found.moved)  # which value the twin shows is not known


def test_values_of_twins():
    batch = Batch(np.zeros((3, 1)), np.zeros(3, np.int32), np.array([0, 1, -1], np.int32))
    assert twin_values(batch, 2).tolist() == [1, 0, -1]
    assert twin_values(batch, 3).tolist() == [-1, -1, -1]
    assert twin_values(batch._replace(twin_attribute=np.array([2, 0, 1])), 3).tolist() == [2, 0, 1]


def named_columns(dataset):
    return dataclasses.replace(dataset, pairs={}, pairing="none", feature_names=("income", "sex"))


def test_a_column_that_holds_the_attribute_is_flipped():
    dataset = named_columns(dataclasses.replace(table(n=600), variant={"attribute": "sex"}))
    ignores, relies = (jaxdebias.audit(linear, looking_at(0.5, of_sex), dataset).verdict for of_sex in (0.0, 2.0))
    assert ignores.reliance[0].state != "shown"
    assert (relies.reliance[0].state, relies.reliance[0].evidence) == ("shown", "flipped_column")
    assert "where the column sex is changed and nothing else" in relies.headline


def test_columns_hold_an_attribute_only_if_they_are_a_function_of_it():
    dataset = named_columns(table(n=50))
    value = np.asarray(dataset.splits["test"].attribute)
    columns, patterns = attribute_columns(dataset, "sex", value, 2)
    assert columns == [1]
    assert {v: pattern.tolist() for v, pattern in patterns.items()} == {0: [-1.0], 1: [1.0]}
    assert attribute_columns(dataset, "age", value, 2) == ([], {})
    assert attribute_columns(dataset, "sex", np.roll(value, 1), 2) == ([], {})
    one_hot = dataclasses.replace(dataset, feature_names=("sex=f", "sex=m"))
    two = np.stack([value == 0, value == 1], 1).astype(np.float32)
    one_hot = dataclasses.replace(one_hot, splits={"test": dataset.splits["test"]._replace(x=two)})
    assert attribute_columns(one_hot, "sex", value, 2)[0] == [0, 1]


def test_interventions_that_were_made_elsewhere_count():
    """Of a model of frames, or of edited pixels: what the audit cannot change itself."""
    dataset = named_columns(table(n=600, noise=0.1))
    predicted = np.asarray(dataset.splits["test"].label)
    strong = Intervention("pixel_edit", 0.4, 0.0, Interval(0.4, 0.3, 0.5, 400), 1e-9, 160)
    ways = {"predicted": predicted, "interventions": {"attribute": [strong]}}
    verdict = jaxdebias.audit(None, None, dataset, **ways).verdict
    assert [(one.state, one.evidence) for one in verdict.reliance] == [("shown", "pixel_edit")]
    assert "edited" in verdict.headline
    with pytest.raises(ContractError, match="`interventions`: expected names among attribute, got sex"):
        jaxdebias.audit(None, None, dataset, predicted=predicted, interventions={"sex": [strong]})


def test_suspected_labels_leave_a_lean_consistent():
    dataset = dataclasses.replace(table(n=1200, noise=0.1), pairs={}, pairing="none")
    logits = np.asarray(linear(looking_at(0.5, 2.0), dataset.splits["test"].x))
    ways = {"predicted": logits, "drawn": "assigned"}
    for suspected, state in ((None, "shown_given"), (False, "shown_given"), (True, "consistent")):
        found = jaxdebias.audit(None, None, dataset, wrong_labels=suspected, **ways).verdict.reliance[0]
        assert found.state == state
        rival = found.rivals.label_noise.state
        assert rival == {None: "not_checked", False: "excluded", True: "open"}[suspected]


def test_a_region_that_does_not_exist_is_refused():
    dataset = dataclasses.replace(pictures(), attribute_region="sky")
    with pytest.raises(ContractError, match="`attribute_region`: expected one of the regions"):
        jaxdebias.audit(None, None, dataset, predicted=np.zeros(N, int))
