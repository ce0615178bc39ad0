import itertools

import jax
import numpy as np
import pytest
from report.verdict_records import REPAIRS, change, entry, reliance

from jaxdebias.auditing.verdict import Repair, best_repair, decide, most_needed, overall_reliance, rows_needed
from jaxdebias.measure import assess_disparity, largest_difference_interval

KINDS = {
    "shown": "twins", "shown_given": "as_they_come", "consistent": "consistent", "no_sign": "no_sign",
    "cannot_tell": "few",
}  # fmt: skip


def expected(served, relied, verified):
    """The table of advice, row by row."""
    if relied in ("shown", "shown_given"):
        return "reliance_repaired" if verified else "reliance_retrain"
    if served == "exceeds":
        return "disparity_repaired" if verified else "disparity_cause_not_shown"
    if served == "within" and relied in ("consistent", "no_sign"):
        return "no_problem_found"
    return "not_enough_data"


@pytest.mark.parametrize(
    ("served", "relied", "tried"), list(itertools.product(("exceeds", "within", "cannot_tell"), KINDS, REPAIRS))
)
def test_the_table(served, relied, tried):
    found = decide([entry("age", served)], [reliance("age", KINDS[relied])], (), REPAIRS[tried], rows=800)
    assert found.advice.state == expected(served, relied, tried == "verified")
    assert (found.advice.repair is None) == (
        tried == "none" or found.advice.state in ("no_problem_found", "not_enough_data")
    )


def test_only_rates_given_the_label_and_accuracy_decide():
    reported = entry("age", "exceeds", measure="positive_rate", class_=1)
    assert decide([entry("age", "within"), reported], [reliance("age", "no_sign")], rows=800).advice.state == (
        "no_problem_found"
    )
    for measure in ("accuracy", "true_positive_rate", "false_positive_rate", "recall_of_class"):
        found = decide([entry("age", "exceeds", measure=measure)], [reliance("age", "no_sign")], rows=800)
        assert found.advice.state == "disparity_cause_not_shown"


def test_the_first_state_of_reliance_counts():
    def overall(*kinds):
        return overall_reliance([reliance("age", kind) for kind in kinds])

    assert overall("no_sign", "consistent") == "consistent"
    assert overall("no_sign", "consistent", "few") == "cannot_tell"
    assert overall("few", "as_they_come") == "shown_given"
    assert overall("as_they_come", "twins") == "shown"
    assert overall() == "cannot_tell"


def test_nothing_given_is_not_enough():
    advice = decide([], [], rows=0).advice
    assert (advice.state, advice.rows_needed) == ("not_enough_data", None)


def test_a_repair_needs_a_point_and_both_sets():
    tiny, small = change(0.009, sure=True), change(0.02, sure=True)
    assert not Repair("dfr", tiny, small).recommended
    assert not Repair("dfr", small, None).verified
    assert not Repair("dfr", small, tiny).verified
    assert not Repair("dfr", small, change(0.02, sure=False)).verified
    assert Repair("dfr", small, small).verified
    assert not Repair("dfr", change(-0.05, sure=True), small).recommended
    assert best_repair([Repair("a", change(0.2, sure=True), None), Repair("b", small, small)]).name == "b"
    assert best_repair([Repair("a", change(0.2, sure=False), None), Repair("b", small, None)]).name == "b"


def test_rows_needed_settle_the_comparison():
    """As many rows of the smaller group, at the same rates, put the interval on one side of the tolerance."""
    label = np.tile([0, 1], 450)
    group = np.repeat([0, 1], [800, 100])
    predicted = np.where(np.arange(900) % 10 < np.where(group == 1, 2, 1), 1 - label, label)
    entries = assess_disparity(predicted, label, {"sex": group}, key=jax.random.key(0), names={"sex": ("m", "f")})
    accuracy = next(one for one in entries if one.measure == "accuracy")
    assert accuracy.state == "cannot_tell"
    needed = most_needed([accuracy], 0.05, 30)
    assert needed.group == "f"
    for rows, settled in ((needed.rows, True), (int(0.97 * needed.rows), False)):
        gap = largest_difference_interval([0.9 * max(rows, 800), 0.8 * rows], [max(rows, 800), rows])
        assert (gap.low > 0.05 or gap.high <= 0.05) == settled
    assert rows_needed(entries, [reliance("sex", "no_sign")], 0.05, 30, 900) >= needed.rows


def test_more_rows_of_the_same_kind_do_not_replace_what_is_missing():
    small = [entry("age", "cannot_tell", n=12)]
    assert rows_needed(small, [reliance("age", "few")], 0.05, 30, 800) is None
    within = [entry("age", "within")]
    assert rows_needed(within, [reliance("age", "no_direction")], 0.05, 30, 800) is None
    assert rows_needed(within, [reliance("age", "few")], 0.05, 30, 800) == int(np.ceil(800 * 2.7**2))
