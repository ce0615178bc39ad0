import itertools
import statistics

import jax
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.measure import find_shortcuts, label_association, mistake_pull
from jaxdebias.measure._shortcuts import _conditional, _explained_by, holm

BIASED = np.array([[90, 10], [10, 90]])


def balanced(rng, n, classes=2, attributes=2):
    return rng.integers(0, classes, n).astype(np.int32), rng.integers(0, attributes, n).astype(np.int32)


def follows(rng, label, attribute, share):
    """Predictions: the attribute for a share of the samples, else the label, with a tenth of mistakes."""
    right = np.where(rng.random(len(label)) < 0.9, label, 1 - label)
    return np.where(rng.random(len(label)) < share, attribute, right).astype(np.int32)


def by_pairs(predicted, label, attribute, score):
    """The definition, pair by pair."""
    of_labels = []
    for y in np.unique(label):
        own = np.flatnonzero(label == y)
        more = [
            score[predicted[i], attribute[i]] - score[predicted[i], attribute[j]]
            for i in own
            for j in own
            if attribute[i] != attribute[j]
        ]
        if more:
            of_labels.append(np.mean(more))
    return np.mean(of_labels)


def test_the_pull_is_the_mean_over_pairs():
    rng = np.random.default_rng(0)
    label, attribute = balanced(rng, 40, 3, 4)
    predicted = rng.integers(0, 3, 40).astype(np.int32)
    score = rng.normal(size=(3, 4))
    found = mistake_pull(predicted, label, attribute, score)
    assert found.value == pytest.approx(by_pairs(predicted, label, attribute, score))
    assert found.n == 40


def test_its_null_is_that_of_all_exchanges():
    """Mean 0, and z in standard deviations over every way to exchange the attribute within labels."""
    label = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1])
    attribute, predicted = np.array([0, 1, 1, 0, 0, 0, 1, 1, 1]), np.array([0, 1, 0, 0, 1, 0, 1, 1, 0])
    score = np.array([[0.6, -1.2], [-0.9, 0.4]])
    every = [
        by_pairs(predicted, label, np.concatenate([first, second]), score)
        for first in itertools.permutations(attribute[:4])
        for second in itertools.permutations(attribute[4:])
    ]
    assert np.mean(every) == pytest.approx(0, abs=1e-12)
    found = mistake_pull(predicted, label, attribute, score)
    assert found.z == pytest.approx(found.value / np.std(every))


def test_given_compares_only_what_agrees():
    rng = np.random.default_rng(1)
    label, attribute = balanced(rng, 60)
    other, predicted = rng.integers(-1, 2, 60), rng.integers(0, 2, 60)
    found = mistake_pull(predicted, label, attribute, label_association(BIASED), given=other)
    of_labels = []
    for y in (0, 1):
        more, pairs = 0.0, 0.0
        for v in (0, 1):
            own = np.flatnonzero((label == y) & (other == v))
            apart = [(i, j) for i in own for j in own if attribute[i] != attribute[j]]
            w = label_association(BIASED)
            # Strata count by the samples that they compare: n (1 - sum of squared shares), pairs per sample.
            more += sum(w[predicted[i], attribute[i]] - w[predicted[i], attribute[j]] for i, j in apart) / len(own)
            pairs += len(apart) / len(own)
        of_labels.append(more / pairs)
    assert found.value == pytest.approx(np.mean(of_labels))
    assert found.n == (other >= 0).sum()


def test_a_shortcut_is_found_and_measured(key):
    rng = np.random.default_rng(2)
    label, colour = balanced(rng, 1000)
    noise = rng.integers(0, 3, 1000).astype(np.int32)
    counts = {"colour": BIASED, "noise": np.array([[50, 30, 20], [20, 30, 50]])}
    predicted = follows(rng, label, colour, 0.5)
    first, second = find_shortcuts(key, predicted, label, {"noise": noise, "colour": colour}, train_counts=counts)
    assert (first.name, first.verdict, second.verdict) == ("colour", "shortcut", "none")
    assert first.gap.low < 0.5 < first.gap.high
    assert first.gap.value == pytest.approx(
        np.mean(
            [
                np.mean(predicted[(label == y) & (colour == y)] == y)
                - np.mean(predicted[(label == y) & (colour != y)] == y)
                for y in (0, 1)
            ]
        ),
        abs=1e-6,
    )
    assert first.p_value < 1e-6 < 0.05 < second.p_value


def test_logits_do_as_well(key):
    rng = np.random.default_rng(2)
    label, colour = balanced(rng, 200)
    predicted = follows(rng, label, colour, 0.5)
    of_logits = find_shortcuts(
        key, np.eye(2, dtype=np.float32)[predicted], label, {"colour": colour}, train_counts={"colour": BIASED}
    )
    assert of_logits == find_shortcuts(key, predicted, label, {"colour": colour}, train_counts={"colour": BIASED})


@pytest.mark.parametrize("share_of_ones", [0.5, 0.8])
def test_a_harder_group_is_no_shortcut(key, share_of_ones):
    """Nor where labels, or groups within labels, are of unequal size."""
    rng = np.random.default_rng(3)
    label = (rng.random(6000) < share_of_ones).astype(np.int32)
    group = np.where(rng.random(6000) < 0.9, label, 1 - label).astype(np.int32)
    wrong = rng.random(6000) < np.where(group == 1, 0.3, 0.02)
    predicted = np.where(wrong, 1 - label, label).astype(np.int32)
    found = find_shortcuts(key, predicted, label, {"group": group}, train_counts={"group": BIASED})[0]
    assert abs(found.pull.z) < 3
    # Whereas the same share of mistakes, made in the direction of the group's class, is one.
    pulled = np.where(wrong, group, label).astype(np.int32)
    found = find_shortcuts(key, pulled, label, {"group": group}, train_counts={"group": BIASED})[0]
    assert found.verdict == "shortcut"


def test_false_alarms_are_as_rare_as_promised(key):
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(200):
        label, first = balanced(rng, 150)
        second = rng.integers(0, 2, 150).astype(np.int32)
        predicted = follows(rng, label, first, 0.0)
        pulls = {
            name: mistake_pull(predicted, label, value, label_association(BIASED))
            for name, value in (("first", first), ("second", second))
        }
        p = {name: statistics.NormalDist().cdf(-one.z) for name, one in pulls.items()}
        alarms += min(holm(p).values()) < 0.05
    assert alarms <= 19  # of 200 at 5 %: 99.7 % of a binomial


def test_an_attribute_that_goes_with_the_shortcut_is_explained_by_it(key):
    rng = np.random.default_rng(5)
    label, colour = balanced(rng, 3000)
    shirt = np.where(rng.random(3000) < 0.85, colour, 1 - colour).astype(np.int32)
    predicted = follows(rng, label, colour, 0.6)
    found = {
        one.name: one
        for one in find_shortcuts(
            key,
            predicted,
            label,
            {"shirt": shirt, "colour": colour},
            train_counts={"colour": BIASED, "shirt": np.array([[80, 20], [20, 80]])},
        )
    }
    assert (found["colour"].verdict, found["colour"].explained_by) == ("shortcut", None)
    assert (found["shirt"].verdict, found["shirt"].explained_by) == ("explained", "colour")


def test_what_goes_with_the_shortcut_is_rarely_called_one():
    """Six of them in each of 40 sets: one test each at 5 % would call some in ten sets."""
    called = 0
    score = dict.fromkeys(map(str, range(6)), label_association(np.array([[80, 20], [20, 80]]))) | {
        "colour": label_association(BIASED)
    }
    for seed in range(40):
        rng = np.random.default_rng(seed)
        label, colour = balanced(rng, 1000)
        values = {name: np.where(rng.random(1000) < 0.8, colour, 1 - colour).astype(np.int32) for name in score}
        values["colour"] = colour
        given_others = _conditional(list(score), follows(rng, label, colour, 0.6), label, values, score, None)
        behind = {name: _explained_by(name, given_others, 0.05) for name in score}
        assert behind.pop("colour") is None
        called += None in behind.values()
    assert called <= 5  # of 40 at 5 %: 98.6 % of a binomial


def test_units_count_once(key):
    """Ten copies of every sample are no more evidence than one."""
    rng = np.random.default_rng(6)
    label, colour = balanced(rng, 300)
    predicted, unit = follows(rng, label, colour, 0.2), np.arange(300)
    w = label_association(BIASED)
    once = mistake_pull(predicted, label, colour, w, unit=unit)
    copies = mistake_pull(*(np.repeat(of, 10) for of in (predicted, label, colour)), w, unit=np.repeat(unit, 10))
    assert copies.z == pytest.approx(once.z, rel=1e-6)
    assert once.z == pytest.approx(mistake_pull(predicted, label, colour, w).z, rel=0.15)


def test_what_cannot_be_said_is_unknown(key):
    rng = np.random.default_rng(7)
    label, _ = balanced(rng, 400)
    even = np.tile([0, 0, 1, 1], 100), np.tile([0, 1], 200)
    found = find_shortcuts(key, even[0], even[0], {"colour": even[1]})[0]
    assert found.verdict == "unknown"
    assert "says nothing about the label in these samples" in found.reason
    # In training it says nothing: nothing to learn from it.
    found = find_shortcuts(key, even[1], even[0], {"colour": even[1]}, train_counts={"colour": np.full((2, 2), 50)})[0]
    assert (found.verdict, found.reason) == ("none", "")
    same = find_shortcuts(key, label, label, {"colour": label})[0]
    assert (same.verdict, same.p_value) == ("unknown", 1.0)
    assert "no label has samples of two values" in same.reason
    assert np.isnan(same.gap.value)
    # Without training counts the samples' own are used, where they say something.
    biased = np.where(rng.random(400) < 0.8, label, 1 - label).astype(np.int32)
    assert find_shortcuts(key, biased, label, {"colour": biased})[0].verdict == "shortcut"


def test_unknown_values_are_left_out(key):
    rng = np.random.default_rng(8)
    label, colour = balanced(rng, 300)
    predicted = follows(rng, label, colour, 0.4)
    some = np.where(rng.random(300) < 0.3, -1, colour).astype(np.int32)
    kept = some >= 0
    w = label_association(BIASED)
    np.testing.assert_allclose(
        mistake_pull(predicted, label, some, w), mistake_pull(predicted[kept], label[kept], colour[kept], w)
    )


def test_a_constant_classifier_has_no_pull(key):
    label, colour = balanced(np.random.default_rng(9), 100)
    found = find_shortcuts(key, np.zeros(100, np.int32), label, {"c": colour}, train_counts={"c": BIASED})[0]
    assert found.pull.value == pytest.approx(0, abs=1e-12)
    assert (found.pull.z, found.verdict) == (0.0, "none")


def test_association_of_empty_cells_and_columns():
    w = label_association(np.array([[10, 0, 0], [0, 10, 0]]))
    assert np.isfinite(w).all()
    assert (w[:, 2] == 0).all()
    assert w[0, 1] < -2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attributes": {}}, "`attributes`: expected at least one candidate"),
        ({"attributes": {"c": np.array([-1, -1])}}, "`attributes`: expected at least one known value"),
        ({"train_counts": {"d": BIASED}}, "`train_counts`: expected counts of c, got d"),
        ({"train_counts": {"c": BIASED[:1]}}, r"`train_counts\['c'\]`: expected \[k=2, more than 1\]"),
        ({"train_counts": {"c": 0 * BIASED}}, r"`train_counts\['c'\]`: expected counts, not all 0"),
        ({"label": np.array([0, 2])}, "`label`: expected values in 0..1"),
        ({"level": 1.0}, "`level`: expected a number between 0 and 1"),
    ],
)
def test_bad_input_is_one_line(change, said):
    good = {
        "predicted": np.array([0, 1]),
        "label": np.array([0, 1]),
        "attributes": {"c": np.array([0, 1])},
        "classes": 2,
    }
    with pytest.raises(ContractError, match=said):
        find_shortcuts(jax.random.key(0), **{**good, **change})
