"""What is suspected without any attribute, where there is something and where there is nothing."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
from auditing.toys import table

from jaxdebias import FitConfig, data, erm, fit, models
from jaxdebias.auditing import discovery
from jaxdebias.auditing.candidates import Candidate
from jaxdebias.auditing.discovery import (
    POWER,
    ErrorGroup,
    Guesses,
    SearchPower,
    augmented_judges,
    error_groups,
    guess_cells,
    sih_judges,
    suspected,
)
from jaxdebias.core import Batch, Dataset
from jaxdebias.explain import Cells, CellsConfig
from jaxdebias.measure import proportion_interval


def features(n=1200, seed=0, bad=0.6):
    """Two labels; a quarter of label 0 lies apart, and is taken for label 1 with chance `bad`, all others .05."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    apart = (label == 0) & (rng.random(n) < 0.25)
    z = rng.normal(size=(n, 5)) * 0.3
    z[:, 0] += 4 * label
    z[:, 1] += 3 * apart
    wrong = rng.random(n) < np.where(apart, bad, 0.05)
    return z.astype(np.float32), np.where(wrong, 1 - label, label), label, apart


def test_a_group_with_many_mistakes_is_found(key):
    z, predicted, label, apart = features()
    found = error_groups(key, z, predicted, label)
    assert found
    worst = found[0]
    assert isinstance(worst, ErrorGroup)
    assert (worst.label, worst.mistaken_for) == (0, 1)
    assert worst.error.low > worst.others.high
    assert abs(worst.error.value - 0.6) < 0.15
    assert apart[worst.typical].all()
    assert (predicted[worst.typical] != label[worst.typical]).all()


def test_where_all_are_alike_no_group_is_named(key):
    named = [
        bool(error_groups(one, *features(seed=seed, bad=0.05)[:3]))
        for seed, one in enumerate(jax.random.split(key, 20))
    ]
    assert sum(named) <= 3  # 5 % of them, at most by chance


def test_units_stay_on_one_side_and_few_samples_say_nothing(key):
    z, predicted, label, _ = features()
    assert error_groups(key, z[:100], predicted[:100], label[:100]) == []
    one_unit = np.zeros(len(label), np.int32)
    assert error_groups(key, z, predicted, label, unit=one_unit) == []


def test_only_plain_cells_that_mistakes_follow_are_suspected(key):
    rng = np.random.default_rng(0)
    dataset = table()
    values = {name: np.asarray(batch.attribute) for name, batch in dataset.splits.items()}
    guesses = Guesses(
        Candidate(values, ("0", "1")), 0.02, (0.9, 0.95), proportion_interval(8, 10), True, np.zeros(0, np.int64)
    )
    label, guess = dataset.splits["test"].label, values["test"]
    followed = np.where(rng.random(400) < 0.4, guess, label)
    assert suspected(key, guesses, followed, dataset)
    assert not suspected(key, guesses._replace(plain=False), followed, dataset)
    assert not suspected(key, guesses, label, dataset)
    unseen = guesses._replace(candidate=Candidate({"test": guess}, ("0", "1")))
    assert not suspected(key, unseen, followed, dataset)


@pytest.mark.parametrize(
    ("classes", "flagged", "sure", "taken", "plain"),
    [
        (10, 0.1, (0.83, 0.93), 0.0, True),
        (2, 0.1, (0.83, 0.93), 0.0, False),  # above chance, three quarters of what they are sure of elsewhere
        (2, 0.1, (0.95, 0.99), 0.0, True),
        (2, 0.4, (0.95, 0.99), 0.0, False),  # hardly more right than guesses
        (10, 0.4, (0.95, 0.99), 0.0, True),
        (2, 0.1, (0.95, 0.99), 0.6, True),
        (2, 0.1, (0.95, 0.99), 0.95, False),  # the model takes less of them for the guess
    ],
)
def test_what_is_plain(key, monkeypatch, classes, flagged, sure, taken, plain):
    """Judges by hand: they contradict the share `flagged`, as `sure` of these as of the others; the model takes nine
    of ten of these for the guess."""
    n = 200
    label = np.arange(n, dtype=np.int32) % classes
    contrary = np.arange(n) < flagged * n
    guess = np.where(contrary, (label + 1) % classes, label).astype(np.int32)
    confidence = np.where(contrary, *sure)[:, None]
    probability = np.full((n, classes), 1.0) * (1 - confidence) / (classes - 1)
    probability[np.arange(n), guess] = confidence[:, 0]
    both = [np.concatenate([one, one]) for one in (guess, probability)]
    monkeypatch.setattr(discovery, "find_cells", lambda *_: Cells(*both, np.zeros((1, 2 * n), np.int32), np.zeros(0)))
    batch = Batch(x=np.zeros((n, 2, 2, 1), np.uint8), label=label, attribute=np.full(n, -1, np.int32))
    names = tuple(map(str, range(classes)))
    dataset = Dataset(
        name="by hand",
        variant={},
        splits={"train": batch, "test": batch},
        pairs={},
        label_names=names,
        attribute_names=("unknown",),
        pairing="none",
        aligned=np.zeros((classes, 1), bool),
    )
    predicted = np.where(contrary & (np.arange(n) % 10 > 0), guess, label)
    judges = augmented_judges(models.mlp(hidden=(4,), classes=classes))._replace(followed=taken)
    said = guess_cells(key, dataset, judges, predicted)
    assert said.plain == plain
    assert said.followed.value == (pytest.approx(0.9) if said.followed.n else pytest.approx(np.nan, nan_ok=True))


def test_the_power_of_the_search_is_the_measured_one():
    """The words of an audit that suspects nothing quote these counts."""
    path = pathlib.Path(__file__).parents[2] / "benchmarks" / "results" / "audit_networks.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    for judges, part in (("aug-cell", "pictures only"), ("sih", "biased branch")):
        planted = [row["suspected"] for row in rows if row["part"] == part and row["state"] == "biased"]
        assert POWER[judges][0] == SearchPower("generated pictures", sum(planted), len(planted))


def test_judges_learn_from_the_training_split_alone(key, monkeypatch):
    """All splits are predicted in one pass; only the rows of train have a weight, and no attribute is handed over."""
    rows = {"test": 30, "train": 40, "edit": 20}  # as a data set may list them: train is not the first
    splits = {
        name: Batch(
            x=np.full((n, 2, 2, 1), i, np.uint8), label=np.arange(n, dtype=np.int32) % 2, attribute=np.ones(n, np.int32)
        )
        for i, (name, n) in enumerate(rows.items())
    }
    dataset = Dataset(
        name="by hand",
        variant={},
        splits=splits,
        pairs={},
        label_names=("0", "1"),
        attribute_names=("a", "b"),
        aligned=np.eye(2, dtype=bool),
        pairing="none",
    )
    given = []

    def find_cells(key, learner, data, config):
        given.append(data)
        n = len(data.label)
        return Cells(data.label, np.eye(2)[data.label], np.zeros((1, n), np.int32), np.zeros((2, 2)))

    monkeypatch.setattr(discovery, "find_cells", find_cells)
    guesses = guess_cells(key, dataset, augmented_judges(models.mlp(hidden=(4,), classes=2)), splits["test"].label)
    (data,) = given
    of_train = data.x[:, 0, 0, 0] == 1
    assert of_train.sum() == rows["train"]
    np.testing.assert_array_equal(data.weight, of_train)
    assert (data.attribute == -1).all()
    assert {name: len(value) for name, value in guesses.candidate.values.items()} == rows


def test_equal_judges_are_one_program():
    branches = models.mlp_vae(image=(4, 4, 3), latent=4, hidden=(4,), decoder=(4,), classes=3)
    assert sih_judges(branches, 3).learner is sih_judges(branches, 3).learner
    classifier = models.mlp(hidden=(4,), classes=3)
    assert augmented_judges(classifier).learner is augmented_judges(classifier).learner


def trained_blind(key, conflicting):
    """Coloured digits without the colours' names, a network trained on them, its test logits, the test colours."""
    dataset = data.digits(conflicting=conflicting, seed=0)
    classifier = models.mlp(hidden=(64, 64), classes=10)
    state = fit(key, erm(classifier), dataset.splits["train"], FitConfig(epochs=30, batch_size=64)).state
    test = dataset.splits["test"]
    blind = dataclasses.replace(
        dataset,
        splits={
            name: batch._replace(attribute=np.full(len(batch.label), -1, np.int32))
            for name, batch in dataset.splits.items()
        },
    )
    return blind, classifier, np.asarray(classifier.apply(state.variables, test.x)), test.attribute


@pytest.mark.slow
@pytest.mark.parametrize(("conflicting", "expected"), [(0.02, True), (0.1, True), (0.89, False)])
def test_colour_is_suspected_where_it_is_a_shortcut(key, conflicting, expected):
    blind, classifier, logits, colour = trained_blind(key, conflicting)
    guesses = guess_cells(key, blind, augmented_judges(classifier, CellsConfig(batch_size=64)), logits.argmax(1))
    assert guesses.plain == expected
    assert suspected(key, guesses, logits.argmax(1), blind) == expected
    if expected:
        guess = guesses.candidate.values["test"]
        assert (guess[guess >= 0] == colour[guess >= 0]).mean() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("conflicting", "expected"), [(0.02, True), (0.89, False)])
def test_the_biased_branch_is_a_judge_by_itself(key, conflicting, expected):
    blind, _, logits, colour = trained_blind(key, conflicting)
    branches = models.mlp_vae(image=blind.splits["train"].x.shape[1:], latent=32, decoder=(256,))
    guesses = guess_cells(key, blind, sih_judges(branches, 10), logits.argmax(1))
    assert guesses.plain == expected
    assert suspected(key, guesses, logits.argmax(1), blind) == expected
    if expected:
        guess, label = guesses.candidate.values["test"], blind.splits["test"].label
        contrary = (guess >= 0) & (guess != label)
        assert guesses.followed.low > 0.5
        assert (guess == colour)[contrary].mean() > 0.6  # any other colour than the label's: by chance a ninth
