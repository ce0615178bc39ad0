"""The test that keeps an edit: against plain formulas, over units, exact where they are few."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdebias.explain.influence import AffineHead, HeadPairs, HeadRows
from jaxdebias.mitigate._fmd.acceptance import EXACT, bias_drop_z, units_z


def head(seed, scale=1.0):
    return AffineHead(jnp.asarray(scale * np.random.default_rng(seed).normal(size=(3, 2)), jnp.float32), None)


def probabilities(head, z):
    logits = np.asarray(z, np.float64) @ np.asarray(head.kernel, np.float64)
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def pairs(n, seed=0):
    rng = np.random.default_rng(seed)
    z, twin = rng.normal(size=(2, n, 3)).astype(np.float32)
    return HeadPairs(jnp.asarray(z), jnp.asarray(twin), jnp.asarray(rng.integers(0, 2, n)))


def falls(before, after, data, bias):
    """What each pair adds to the drop, times n, by hand."""
    rows = np.arange(len(data.label))
    terms = []
    for one in (before, after):
        change = probabilities(one, data.features)[rows, data.label] - probabilities(one, data.twin)[rows, data.label]
        terms.append(np.abs(change) if bias == "pair" else change * np.sign(change.mean()))
    return terms[0] - terms[1]


@pytest.mark.parametrize("bias", ["pair", "gap"])
def test_many_units_are_students_t_as_a_z_value(bias):
    before, after, data = head(0, 2.0), head(1), pairs(200)
    found = falls(before, after, data, bias)
    t = found.mean() / (found.std(ddof=1) / np.sqrt(200))
    expected = np.sign(t) * stats.norm.isf(stats.t.sf(abs(t), 199))
    assert bias_drop_z(before, after, data, bias) == pytest.approx(expected, abs=5e-3)


def test_signs_that_cancel_are_no_gap():
    """Pairs whose changes cancel have a bias by pairs and none by the gap of means."""
    z = np.tile(np.array([[1.0, 0, 0], [-1.0, 0, 0]], np.float32), (30, 1))
    data = HeadPairs(jnp.asarray(z), jnp.asarray(-z), jnp.zeros(60, int))
    strong, weak = (AffineHead(jnp.array([[s, -s], [0, 0], [0, 0]]), None) for s in (2.0, 0.1))
    assert bias_drop_z(strong, weak, data, "pair") > 8
    assert abs(bias_drop_z(strong, weak, data, "gap")) < 1e-3


def test_copies_of_a_row_are_one_piece_of_evidence():
    before, after, alone = head(0, 2.0), head(1), pairs(40)
    copied = HeadPairs(*(jnp.repeat(leaf, 5, axis=0) for leaf in alone))
    unit = np.repeat(np.arange(40), 5)
    once = bias_drop_z(before, after, alone, "pair")
    assert bias_drop_z(before, after, copied, "pair", unit) == pytest.approx(once, rel=1e-5)
    assert abs(bias_drop_z(before, after, copied, "pair")) > 2 * abs(once)
    assert bias_drop_z(before, after, alone, "pair", np.arange(40)) == pytest.approx(once, rel=1e-6)


@pytest.mark.parametrize("m", [1, 3, 10, EXACT])
def test_few_units_are_the_exact_test_of_signs(m):
    share = np.random.default_rng(m).normal(loc=0.4, size=m)
    p = np.mean([np.dot(signs, share) >= share.sum() * (1 - 1e-9) for signs in itertools.product((1, -1), repeat=m)])
    expected = np.sign(share.sum()) * max(stats.norm.isf(p if share.sum() > 0 else 1 - p), 0)
    if share.sum() > 0:
        assert units_z(share, share - share.mean()) == pytest.approx(expected, abs=1e-9)
    assert units_z(-share, -(share - share.mean())) == pytest.approx(-units_z(share, share - share.mean()))


def test_fewer_than_ten_units_never_reach_three():
    assert units_z(np.ones(9), np.zeros(9)) < 3 < units_z(np.ones(10), np.zeros(10))
    assert units_z(np.zeros(4), np.zeros(4)) == units_z(np.zeros(0), np.zeros(0)) == 0.0


def test_the_exact_and_the_robust_test_meet():
    rng = np.random.default_rng(0)
    for _ in range(5):
        share = rng.normal(loc=0.5, size=EXACT + 1)
        exact = units_z(share[:-1], share[:-1] - share[:-1].mean())
        robust = units_z(share, share - share.mean())
        assert abs(exact - robust) < 0.7


@pytest.mark.parametrize("bias", ["demographic_parity", "equal_opportunity", "equalised_odds"])
def test_gaps_of_groups_by_hand(bias):
    rng = np.random.default_rng(3)
    n = 400
    label, attribute = rng.integers(0, 2, n), rng.integers(0, 2, n)
    z = rng.normal(size=(n, 3)).astype(np.float32)
    z[:, 0] += attribute
    before, after = head(0, 2.0), head(1)
    p, p_after = (probabilities(one, z)[:, 1] for one in (before, after))
    sides = {"demographic_parity": [label >= 0], "equal_opportunity": [label == 1]}.get(bias, [label == 0, label == 1])

    def gap(p, member):
        return p[member & (attribute == 0)].mean() - p[member & (attribute == 1)].mean()

    member = max(sides, key=lambda member: abs(gap(p, member)))
    drop = np.sign(gap(p, member)) * (gap(p, member) - gap(p_after, member))
    groups = [member & (attribute == a) for a in (0, 1)]
    error = np.sqrt(sum((p - p_after)[g].var() / g.sum() for g in groups))
    got = bias_drop_z(before, after, HeadRows(jnp.asarray(z), jnp.asarray(label), jnp.asarray(attribute)), bias)
    assert got == pytest.approx(drop / error, rel=0.05)
    assert bool(np.sign(got) == np.sign(drop))
