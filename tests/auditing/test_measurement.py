"""The audit against what can be counted by hand, with models whose bias is known."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from auditing.toys import SPLIT, linear, looking_at, table

from jaxdebias import auditing
from jaxdebias.contracts import ContractError


def test_a_model_of_the_attribute_alone(key):
    dataset = table()
    said = auditing.measure(key, linear, looking_at(0.0, 10.0), dataset)
    assert said.groups.bias_aligned_accuracy.value == 1.0
    assert said.groups.bias_conflicting_accuracy.value == 0.0
    assert said.counterfactual_bias.value == pytest.approx(1.0, abs=1e-6)
    assert said.fairness.demographic_parity_difference.value == 1.0
    np.testing.assert_allclose(said.pair_probability, [[1.0, 0.0]] * 400, atol=1e-6)


def test_a_model_of_the_signal_alone(key):
    said = auditing.measure(key, linear, looking_at(10.0, 0.0), table())
    assert said.groups.accuracy.value == 1.0
    assert said.counterfactual_bias.value == 0.0
    assert said.fairness.equalised_odds_difference.value == 0.0


def test_changes_are_paired(key):
    dataset = table()
    before = auditing.measure(key, linear, looking_at(0.0, 10.0), dataset)
    after = auditing.measure(key, linear, looking_at(10.0, 0.0), dataset)
    found = auditing.changes(key, before, after, dataset)
    assert found["accuracy"].value == pytest.approx(1.0 - before.groups.accuracy.value)
    assert found["counterfactual_bias"].value == pytest.approx(-1.0, abs=1e-6)
    same = auditing.changes(key, before, before, dataset)
    assert all(change.value == 0 or np.isnan(change.value) for change in same.values())
    assert not any(change.separable for change in same.values())


def test_the_change_of_a_gap_does_not_depend_on_its_sign(key):
    """A gap against the attribute is a bias too: taking it out lowers the bias."""
    matched = dataclasses.replace(table(), pairing="matched")
    before, after = (
        auditing.measure(key, linear, looking_at(*weights), matched) for weights in ((1.0, -3.0), (1.0, 0.0))
    )
    assert np.mean(before.pair_probability[:, 0] - before.pair_probability[:, 1]) < -0.3
    change = auditing.changes(key, before, after, matched)["counterfactual_bias"]
    assert change.value == pytest.approx(after.counterfactual_bias.value - before.counterfactual_bias.value, abs=1e-5)
    assert change.high < -0.3


def test_the_gap_is_used_for_matched_pairs(key):
    dataset = table()
    pairs = dataset.pairs["test"]
    # Half of the pairs are turned round: the differences cancel in the gap, not in the pair bias.
    turned = np.arange(400)[:, None] % 2 == 0
    pairs = pairs._replace(x=np.where(turned, pairs.twin, pairs.x), twin=np.where(turned, pairs.x, pairs.twin))
    dataset = dataclasses.replace(dataset, pairs={**dataset.pairs, "test": pairs})
    assert auditing.measure(key, linear, looking_at(0.0, 10.0), dataset).counterfactual_bias.value > 0.999
    matched = dataclasses.replace(dataset, pairing="matched")
    assert auditing.measure(key, linear, looking_at(0.0, 10.0), matched).counterfactual_bias.value == pytest.approx(
        0.0, abs=1e-6
    )


def test_harmful_samples_are_the_aligned_ones_that_teach_the_attribute():
    dataset = table(conflicting=0.2)
    harmful = auditing.most_harmful(SPLIT, looking_at(0.5, 0.5), dataset, count=20)
    assert [sample.score for sample in harmful] == sorted((s.score for s in harmful), reverse=True)
    assert harmful[0].score > 0
    assert all(sample.attribute == sample.label for sample in harmful)
    train = dataset.splits["train"]
    assert all(train.label[sample.index] == sample.label for sample in harmful)


def test_helpful_samples_are_the_other_end():
    """With equal features only the attribute's agreement with the label tells samples apart: conflicting ones help."""
    dataset = table(conflicting=0.2)
    found = auditing.influential(SPLIT, looking_at(0.5, 0.5), dataset, count=20)
    assert found.harmful == auditing.most_harmful(SPLIT, looking_at(0.5, 0.5), dataset, count=20)
    assert [sample.score for sample in found.helpful] == sorted(s.score for s in found.helpful)
    assert found.helpful[0].score < 0
    assert all(sample.attribute != sample.label for sample in found.helpful)
    everything = auditing.influential(SPLIT, looking_at(0.5, 0.5), dataset, count=1000)
    assert len(everything.helpful) == 400
    assert {sample.index for sample in everything.helpful} == set(range(400))


def test_harmful_needs_edit_pairs():
    unpaired = dataclasses.replace(table(), pairs={})
    assert auditing.most_harmful(SPLIT, looking_at(1, 1), unpaired) == []
    assert auditing.influential(SPLIT, looking_at(1, 1), unpaired) == ([], [])


def test_findings(key):
    dataset = table(n=40)
    said = auditing.measure(key, linear, looking_at(0.0, 0.0), dataset)
    text = " ".join(auditing.findings(dataset, said))
    assert "constant" in text
    assert "fewer than 30" in text
    biased = table(conflicting=0.0)
    text = " ".join(auditing.findings(biased, auditing.measure(key, linear, looking_at(1.0, 0.0), biased)))
    assert "No training sample is bias-conflicting" in text
    assert "constant" not in text


@pytest.mark.parametrize(
    ("aligned", "unknown"),
    [
        (np.zeros((2, 2), bool), True),  # nobody said which cells are aligned
        (np.ones((2, 2), bool), True),
        (np.eye(2, dtype=bool), False),  # the data set says it
    ],
)
def test_without_training_counts_nothing_follows(key, aligned, unknown):
    """The test split holds one sample of each label and value at least, and no training sample is given."""
    test = table().splits["test"]
    dataset = dataclasses.replace(table(), splits={"test": test}, pairs={}, aligned=aligned, pairing="none")
    measured = auditing.measure(key, linear, looking_at(1.0, 0.5), dataset)
    text = " ".join(auditing.findings(dataset, measured))
    assert "only bias-aligned or only" not in text
    assert ("How attribute and the label are associated in training is unknown" in text) == unknown
    if not aligned.any():
        assert np.isnan(measured.groups.bias_aligned_accuracy.value)
        assert np.isnan(measured.groups.bias_conflicting_accuracy.value)
        assert not {"bias_aligned_accuracy", "bias_conflicting_accuracy"} & set(
            auditing.changes(key, measured, measured, dataset)
        )


def test_a_declared_table_may_find_one_side_only(key):
    batch = table().splits["test"]
    sided = batch._replace(attribute=batch.label)
    dataset = dataclasses.replace(table(), splits={"test": sided}, pairs={}, pairing="none")
    measured = auditing.measure(key, linear, looking_at(1.0, 0.5), dataset)
    assert "only bias-aligned or only" in " ".join(auditing.findings(dataset, measured))
    unknown = sided._replace(attribute=np.full(400, -1, np.int32))
    dataset = dataclasses.replace(dataset, splits={"test": unknown})
    text = " ".join(auditing.findings(dataset, auditing.measure(key, linear, looking_at(1.0, 0.5), dataset)))
    assert "No test sample has a known attribute" in text
    assert "only bias-aligned" not in text


def test_worst_rows_shows_errors_first(key):
    dataset = table()
    said = auditing.measure(key, linear, looking_at(0.0, 10.0), dataset)
    test = dataset.splits["test"]
    rows = auditing.worst_rows(test, said, count=5)
    assert len(rows) == 5
    assert {(test.label[i], test.attribute[i]) for i in rows} == {said.groups.worst_group}
    assert all(said.logits[i].argmax() != test.label[i] for i in rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "tset"}, "`split`: expected one of train, edit, accept, test, got 'tset' (did you mean 'test'?)"),
        (
            {"apply_fn": lambda params, x: x[:, :1]},
            "`logits`: expected float [n=400, k=2], got float32 [400, 1] (a single",
        ),
        ({"apply_fn": lambda params, x: x * jnp.nan}, "`logits`: expected finite values, got 800 of 800 not finite"),
    ],
)
def test_errors(key, change, message):
    arguments = {"apply_fn": linear, "params": looking_at(1, 1), "dataset": table(), "split": "test"} | change
    with pytest.raises(ContractError) as caught:
        auditing.measure(key, **arguments)
    assert str(caught.value).startswith(message)


def test_check_repairable():
    auditing.check_repairable(table())
    with pytest.raises(ContractError, match=r"pairs\['edit'\].*pairs for nothing in toy"):
        auditing.check_repairable(dataclasses.replace(table(), pairs={}))


def test_measuring_twice_compiles_once(key):
    traces = 0

    def counted(params, x):
        nonlocal traces
        traces += 1
        return linear(params, x)

    dataset = table()
    for weights in ((0.0, 1.0), (1.0, 0.0)):
        auditing.measure(key, counted, looking_at(*weights), dataset)
    assert traces == 1  # test set and both sides of the pairs have the same shape here


def test_a_baseline_that_has_learned_nothing_is_named(key):
    dataset = table()
    label = dataset.splits["test"].label
    said = auditing.measure(key, linear, looking_at(0.0, 0.0), dataset)
    assert "DFR has collapsed: it answers one class" in auditing.collapsed("DFR", said, label)
    assert auditing.collapsed("DFR", auditing.measure(key, linear, looking_at(1.0, 0.0), dataset), label) == ""
    wrong = auditing.measure(key, linear, looking_at(-1.0, 0.0), dataset)
    assert "worse than answering the most frequent class" in auditing.collapsed("DFR", wrong, label)


def test_averages_that_disagree_are_named(key):
    dataset = table()
    text = " ".join(auditing.findings(dataset, auditing.measure(key, linear, looking_at(0.0, 10.0), dataset)))
    assert "The average is ambiguous: plain" in text
    text = " ".join(auditing.findings(dataset, auditing.measure(key, linear, looking_at(10.0, 0.0), dataset)))
    assert "ambiguous" not in text


def test_pairs_that_weigh_nothing_do_not_count(key):
    dataset, some = table(), (np.arange(400) < 300).astype(np.float32)
    rows = dataset.pairs["test"]
    assert 0.05 < np.mean(rows.x[:300, 0] == 1) < 0.95
    spoiled = rows._replace(twin=np.where(np.arange(400)[:, None] < 300, rows.twin, rows.x), weight=some)
    padded = dataclasses.replace(dataset, pairs={**dataset.pairs, "test": spoiled})
    before, after = (auditing.measure(key, linear, looking_at(*of), padded) for of in ((0.0, 10.0), (10.0, 0.0)))
    assert before.counterfactual_bias.value == pytest.approx(1.0, abs=1e-6)
    change = auditing.changes(key, before, after, padded)["counterfactual_bias"]
    assert change.value == pytest.approx(-1.0, abs=1e-6)
