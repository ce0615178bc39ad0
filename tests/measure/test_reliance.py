import jax
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.measure import adjust_holm, assess_reliance, label_association
from jaxdebias.measure._exchange import exchange_test
from jaxdebias.measure._lean import Rows, detectable_lean, lean_test
from jaxdebias.measure._reliance import SMALL_LEAN
from jaxdebias.measure._reversed import reversed_sides_p

COUNTS = np.array([[90, 10], [10, 90]])
UNEVEN = np.array([[180, 20], [10, 90]])


def relying(rng, n, strength, *, classes=2, share=0.5):
    """predicted, label, value, probabilities of a model that adds log odds of the value's class."""
    label = rng.integers(0, classes, n)
    value = np.where(rng.random(n) < share, label, rng.integers(0, classes, n)) if share != 0.5 else None
    value = rng.integers(0, classes, n) if value is None else value
    z = 2.6 * (rng.normal(size=(n, classes)) + np.eye(classes)[label] * 1.4) + strength * np.eye(classes)[value]
    q = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    return q.argmax(1), label, value, q


@pytest.fixture
def strong():
    return relying(np.random.default_rng(0), 3000, 2.0)


@pytest.mark.parametrize("scores", [True, False])
@pytest.mark.parametrize(
    ("drawn", "state"),
    [
        ("assigned", "shown_given"),
        ("as_they_come", "shown_given"),
        ("picked", "consistent"),
        ("unknown", "consistent"),
    ],
)
def test_how_rows_came_about_decides_what_is_shown(key, strong, drawn, state, scores):
    predicted, label, value, q = strong
    found = assess_reliance(predicted, label, value, COUNTS, q if scores else None, drawn, key=key)
    assert (found.state, found.drawn, found.evidence) == (state, drawn, "mistakes")
    assert found.p < 1e-6
    assert found.mistakes == (predicted != label).sum()
    assert found.lean.low > 0
    asked = drawn in ("assigned", "as_they_come")
    assert found.rivals.base_rates.state == ("excluded" if asked else "open")
    assert (found.rivals.base_rates.figure is not None) == asked
    assert found.rivals.fallback == ("excluded", pytest.approx(1.0))
    assert found.rivals.label_noise == ("not_checked", None)


def test_suspected_labels_leave_a_lean_consistent(key, strong):
    predicted, label, value, q = strong
    found = assess_reliance(predicted, label, value, COUNTS, q, "assigned", key=key, wrong_labels=True)
    assert (found.state, found.rivals.label_noise) == ("consistent", ("open", 1.0))
    found = assess_reliance(predicted, label, value, COUNTS, q, "assigned", key=key, wrong_labels=False)
    assert (found.state, found.rivals.label_noise) == ("shown_given", ("excluded", 0.0))


@pytest.mark.parametrize("drawn", ["assigned", "as_they_come"])
def test_a_class_to_fall_back_on_needs_scores(key, strong, drawn):
    predicted, label, value, q = strong
    bare = assess_reliance(predicted, label, value, UNEVEN, None, drawn, key=key)
    assert (bare.state, bare.rivals.fallback) == ("consistent", ("open", pytest.approx(4 / 3)))
    scored = assess_reliance(predicted, label, value, UNEVEN, q, drawn, key=key)
    assert (scored.state, scored.rivals.fallback.state) == ("shown_given", "excluded")
    if drawn == "as_they_come":  # halves of the information, or outer thirds with a class to fall back on
        rows, present = Rows(predicted, label, value, q, None, None), np.array([True, True])
        for counts, fallback in ((UNEVEN, True), (COUNTS, False)):
            p = reversed_sides_p(rows, label_association(counts), present, fallback=fallback, key=key)
            found = assess_reliance(predicted, label, value, counts, q, drawn, key=key)
            assert found.rivals.base_rates.figure == pytest.approx(p, rel=1e-9)
    just = np.array([[99, 11], [9, 81]])  # 110 of 200: 1.1 of an even share
    assert assess_reliance(predicted, label, value, just, None, drawn, key=key).state == "shown_given"


def test_no_sign_needs_rows_that_would_have_shown_one(key):
    for n, state in ((3000, "no_sign"), (120, "cannot_tell")):
        predicted, label, value, _ = relying(np.random.default_rng(1), n, 0.0)
        found = assess_reliance(predicted, label, value, COUNTS, key=key)
        assert found.state == state
        assert (found.detectable <= SMALL_LEAN) == (state == "no_sign")
        assert set(found.rivals) == {("not_checked", None)}


def test_p_and_what_is_detectable_are_those_of_all_attributes(key):
    rng = np.random.default_rng(2)
    predicted, label, value, _ = relying(rng, 2000, 0.5)
    values = {"a": value, "b": rng.integers(0, 2, 2000), "c": rng.integers(0, 3, 2000)}
    counts = {"a": COUNTS, "b": COUNTS, "c": np.array([[50, 30, 20], [20, 30, 50]])}
    found = assess_reliance(predicted, label, values, counts, key=key)
    w = {name: label_association(table) for name, table in counts.items()}
    rows = {name: Rows(predicted, label, of, None, None, None) for name, of in values.items()}
    p = [lean_test(rows[name], w[name], key=key).p for name in values]
    np.testing.assert_allclose([found[name].p for name in values], adjust_holm(p), rtol=1e-9)
    for name in values:
        assert found[name].detectable == pytest.approx(detectable_lean(rows[name], w[name], alpha=0.05 / 3))


def test_a_proxy_is_explained_by_what_it_accompanies(key, strong):
    predicted, label, value, q = strong
    rng = np.random.default_rng(3)
    proxy = np.where(rng.random(3000) < 0.8, value, 1 - value)
    found = assess_reliance(
        predicted, label, {"proxy": proxy, "used": value}, {"proxy": COUNTS, "used": COUNTS}, q, "assigned", key=key
    )
    assert list(found) == ["proxy", "used"]
    assert (found["proxy"].state, found["proxy"].copies) == ("no_sign", ("used",))
    assert (found["used"].state, found["used"].copies) == ("shown_given", ())
    within = exchange_test(predicted, label_association(COUNTS), proxy, 2 * value + label, key=key)
    assert found["proxy"].p == pytest.approx(within.p, rel=1e-6)


def test_copies_are_one_finding(key, strong):
    predicted, label, value, q = strong
    copy = np.where(np.arange(3000) % 20 == 0, value, 1 - value)  # renamed, and 5 % differ
    values, counts = {"copy": copy, "used": value}, {"copy": COUNTS[:, ::-1], "used": COUNTS}
    found = assess_reliance(predicted, label, values, counts, q, "assigned", key=key)
    assert found["copy"].copies == ("used",)
    assert found["used"].copies == ("copy",)
    for field in ("state", "evidence", "p", "rivals"):
        assert getattr(found["copy"], field) == getattr(found["used"], field)
    assert found["copy"].lean != found["used"].lean
    assert found["used"].state == "shown_given"


def test_without_training_counts_the_rows_give_the_direction(key):
    rng = np.random.default_rng(4)
    predicted, label, value, _ = relying(rng, 2000, 1.5, share=0.7)
    assert assess_reliance(predicted, label, value, key=key).state == "consistent"
    reverse = assess_reliance(1 - predicted, 1 - label, value, key=key)
    assert reverse.state == "consistent"
    # A balanced set tells no direction.
    even = np.tile([0, 0, 1, 1], 500), np.tile([0, 1], 1000)
    found = assess_reliance(even[1], even[0], even[1], key=key)
    assert (found.state, found.p, found.lean, found.detectable) == ("cannot_tell", None, None, None)


def test_units_count_once_where_the_rows_give_the_direction(key):
    """45 of 80 units have the value of their label, which chance gives often; ten rows of each make no more of it."""
    label = np.tile([0, 1], 40)
    value = np.where(np.arange(80) < 45, label, 1 - label)
    rows = [np.repeat(of, 10) for of in (label, value)]
    predicted = np.where(np.arange(800) % 4 == 0, rows[1], rows[0])
    assert assess_reliance(predicted, *rows, key=key).p is not None
    assert assess_reliance(predicted, *rows, key=key, unit=np.repeat(np.arange(80), 10)).p is None


def test_an_attribute_that_training_did_not_associate_is_no_sign(key, strong):
    predicted, label, value, q = strong
    found = assess_reliance(predicted, label, value, np.array([[100, 100], [101, 99]]), q, "assigned", key=key)
    assert (found.state, found.p) == ("no_sign", None)


def test_two_values_need_enough_units(key, strong):
    predicted, label, value, _ = strong
    few = np.where(np.cumsum(value) <= 29, value, -1 * value)
    found = assess_reliance(predicted, label, few, COUNTS, key=key)
    assert (found.state, found.p) == ("cannot_tell", None)
    assert found.mistakes == (predicted != label)[few >= 0].sum()
    assert assess_reliance(predicted, label, few, COUNTS, key=key, min_group=29).p is not None
    unit = np.arange(3000) // 150  # 20 units
    assert assess_reliance(predicted, label, value, COUNTS, key=key, unit=unit).state == "cannot_tell"
    nobody = assess_reliance(predicted, label, np.full(3000, -1), COUNTS, key=key)
    assert (nobody.state, nobody.mistakes) == ("cannot_tell", 0)


def test_given_columns_that_explain_the_lean_take_it_away(key):
    """Labels and predictions depend on x; the groups differ in x. Given x nothing leans, given noise it does."""
    rng = np.random.default_rng(5)
    value = rng.integers(0, 2, 4000)
    x = rng.normal(size=4000) + 0.5 * value
    q = 1 / (1 + np.exp(-2.0 * (x - 0.25)))
    label, predicted = (rng.random(4000) < q).astype(int), (q > 0.5).astype(int)
    q = np.stack([1 - q, q], 1)
    noise = rng.normal(size=4000)
    found = assess_reliance(predicted, label, value, COUNTS, q, given={"x": x}, key=key)
    assert (found.state, found.evidence) == ("consistent", "mistakes")
    found = assess_reliance(predicted, label, value, COUNTS, q, given={"noise": noise}, key=key)
    assert (found.state, found.evidence) == ("shown_given", "given:noise")  # as far as these columns go
    z = 2.0 * (x - 0.25) + 1.5 * (value - 0.5)
    uses = np.stack([1 / (1 + np.exp(z)), 1 / (1 + np.exp(-z))], 1)
    found = assess_reliance(uses.argmax(1), label, value, COUNTS, uses, given={"x": x, "noise": noise}, key=key)
    assert (found.state, found.evidence) == ("shown_given", "given:x,noise")
    assert found.rivals.base_rates.state == "excluded"


@pytest.mark.parametrize("drawn", ["assigned", "as_they_come"])
def test_order_names_and_padding_do_not_matter(key, drawn):
    rng = np.random.default_rng(6)
    predicted, label, value, q = relying(rng, 1500, 1.5, classes=3)
    counts, w = np.array([[80, 10, 10], [10, 80, 10], [10, 10, 80]]), {}
    unit = rng.integers(0, 700, 1500)
    for name, of_unit in (("rows", None), ("units", unit)):
        plain = assess_reliance(predicted, label, value, counts, q, drawn, key=key, unit=of_unit)
        w[name] = plain
        order = rng.permutation(1500)
        unit_ordered = None if of_unit is None else of_unit[order]
        again = assess_reliance(
            predicted[order], label[order], value[order], counts, q[order], drawn, key=key, unit=unit_ordered
        )
        same(again, plain)
        classes, names = rng.permutation(3), rng.permutation(3)
        renamed, probabilities = np.empty_like(counts), np.empty_like(q)
        renamed[np.ix_(classes, names)] = counts
        probabilities[:, classes] = q
        again = assess_reliance(
            classes[predicted], classes[label], names[value], renamed, probabilities, drawn, key=key, unit=of_unit
        )
        same(again, plain)
        more = [np.concatenate([of, of[:200]]) for of in (predicted, label, value, q)]
        more_unit = None if of_unit is None else np.r_[of_unit, of_unit[:200]]
        weight = np.r_[np.ones(1500), np.zeros(200)]
        again = assess_reliance(*more[:3], counts, more[3], drawn, key=key, unit=more_unit, weight=weight)
        same(again, plain)
    assert w["rows"].p != w["units"].p


def same(found, expected):
    assert (found.state, found.mistakes) == (expected.state, expected.mistakes)
    assert found.p == pytest.approx(expected.p, rel=1e-6)
    assert found.detectable == pytest.approx(expected.detectable, rel=1e-6)
    np.testing.assert_allclose(found.lean, expected.lean, rtol=1e-6)
    assert found.rivals.base_rates.figure == pytest.approx(expected.rivals.base_rates.figure, rel=1e-6)


def test_repeated_rows_of_a_unit_are_no_more_evidence(key):
    predicted, label, value, q = relying(np.random.default_rng(7), 400, 0.4)
    once = assess_reliance(predicted, label, value, COUNTS, q, "as_they_come", key=key, unit=np.arange(400))
    ten = [np.repeat(of, 10, axis=0) for of in (predicted, label, value, q)]
    found = assess_reliance(*ten[:3], COUNTS, ten[3], "as_they_come", key=key, unit=np.repeat(np.arange(400), 10))
    assert found.p == pytest.approx(once.p, rel=1e-6)
    assert found.detectable == pytest.approx(once.detectable, rel=0.1)
    assert found.lean.low == pytest.approx(once.lean.low, abs=0.01)
    alone = assess_reliance(*ten[:3], COUNTS, ten[3], "as_they_come", key=key)
    assert alone.p < found.p


def test_logits_and_one_array_do_as_well(key, strong):
    predicted, label, value, q = strong
    found = assess_reliance(q, label, {"a": value}, {"a": COUNTS}, key=key)["a"]
    one = assess_reliance(predicted, label, value, COUNTS, key=key)
    assert found._replace(attribute="attribute") == one


def test_nothing_is_claimed_where_there_is_nothing_and_found_where_there_is():
    """A small simulation; `benchmarks/reproduce/audit_power.py` has the large one."""
    claims, found = 0, 0
    for seed in range(60):
        rng, key = np.random.default_rng(seed), jax.random.key(seed)
        # A Bayes rule on x, whose mean differs between the groups, with labels that x does not determine.
        value = rng.integers(0, 2, 800)
        x = rng.normal(size=800) + 0.5 * value
        q = 1 / (1 + np.exp(-2.0 * (x - 0.25)))
        label, q = (rng.random(800) < q).astype(int), np.stack([1 - q, q], 1)
        claims += assess_reliance(q, label, value, COUNTS, q, "as_they_come", key=key).state == "shown_given"
        predicted, label, value, q = relying(rng, 800, 1.3)
        found += assess_reliance(predicted, label, value, COUNTS, q, "as_they_come", key=key).state == "shown_given"
    assert claims <= 2
    assert found >= 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": {}}, "`values`: expected at least one attribute"),
        ({"values": {"c": np.array([0, 1, 2, 0])}}, r"`train_counts\['c'\]`: expected \[k=2, at least a=3\]"),
        ({"values": {"c": np.array([0, -2, 1, 0])}}, r"`values\['c'\]`: expected values of at least -1"),
        ({"train_counts": {"d": COUNTS}}, "`train_counts`: expected counts of c, got d"),
        ({"train_counts": {"c": 0 * COUNTS}}, r"`train_counts\['c'\]`: expected counts, not all 0"),
        ({"train_counts": {"c": np.ones((3, 2))}, "classes": 2}, r"`train_counts\['c'\]`: expected \[k=2"),
        ({"drawn": "as-they-come"}, "`drawn`: expected one of assigned, .*did you mean 'as_they_come'"),
        ({"probabilities": np.full((4, 2), 0.4)}, "`probabilities`: expected rows that are at least 0 with the sum 1"),
        ({"probabilities": np.full((3, 2), 0.5)}, r"`probabilities`: expected \[n=4, k=2\]"),
        ({"label": np.array([0, 1, 2, 0])}, "`label`: expected values in 0..1"),
        ({"weight": np.array([1.0, -1.0, 1.0, 1.0])}, r"`weight`: expected \[n=4\], at least 0"),
        ({"level": 1.0}, "`level`: expected a number between 0 and 1"),
        ({"given": {"x": np.zeros(3)}}, r"`given\['x'\]`: expected one value per row"),
    ],
)
def test_bad_input_is_one_line(key, change, message):
    good = {
        "predicted": np.array([0, 1, 1, 0]),
        "label": np.array([0, 1, 0, 0]),
        "values": {"c": np.array([0, 1, 1, 0])},
        "train_counts": {"c": COUNTS},
    }
    with pytest.raises(ContractError, match=message):
        assess_reliance(**{**good, **change}, key=key)


def test_rounded_probabilities_are_taken(key, strong):
    predicted, label, value, q = strong
    rounded = assess_reliance(predicted, label, value, COUNTS, np.round(q, 3) + 0.0004, "assigned", key=key)
    assert rounded.state == "shown_given"
