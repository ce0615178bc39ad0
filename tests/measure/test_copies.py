import numpy as np
import pytest

from jaxdebias.measure._copies import agreement, are_copies, explained_by


def test_agreement_is_that_of_the_best_renaming():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 3, 300)
    noisy = np.where(rng.random(300) < 0.2, rng.integers(0, 3, 300), first)
    expected = np.mean(noisy == first)
    by_chance = sum(np.mean(first == v) * np.mean(noisy == v) for v in range(3))
    renamed = np.array([2, 0, 1])[noisy]
    for second in (noisy, renamed):
        agree, beyond = agreement(first, second)
        assert agree == pytest.approx(expected)
        assert beyond == pytest.approx((expected - by_chance) / (1 - by_chance))
    assert agreement(first, renamed) == pytest.approx(agreement(renamed, first))


def test_unknown_rows_do_not_count():
    first, second = np.array([0, 1, -1, 0, 1]), np.array([1, 0, 1, -1, 0])
    assert agreement(first, second) == (1.0, 1.0)
    assert agreement(first, np.full(5, -1)) == (0.0, 0.0)
    assert agreement(np.zeros(5, int), np.zeros(5, int)) == (1.0, 0.0)


def test_copies_agree_on_nine_of_ten_rows_and_not_by_chance():
    rng = np.random.default_rng(1)
    first = np.arange(1000) % 2
    assert are_copies(first, 1 - first)
    assert are_copies(first, np.where(np.arange(1000) < 100, 1 - first, first))
    assert not are_copies(first, np.where(np.arange(1000) < 104, 1 - first, first))
    rare, other = (rng.random(1000) < 0.03).astype(int), (rng.random(1000) < 0.03).astype(int)
    assert agreement(rare, other)[0] > 0.9
    assert not are_copies(rare, other)


def test_what_does_not_lean_given_another_is_explained():
    same = {"a": (), "b": (), "c": ()}

    def explained(leaning, **p):
        return explained_by(leaning, {(name[0], name[1]): value for name, value in p.items()}, same, 0.05)

    assert explained(["b", "a"], ab=0.001, ba=0.5) == {"b": "a"}
    assert explained(["a", "b"], ab=0.001, ba=0.001) == {}
    # Neither leans given the other: the stronger one stands for both.
    assert explained(["a", "b"], ab=0.5, ba=0.5) == {"b": "a"}
    assert explained(["b", "a"], ab=0.5, ba=0.5) == {"a": "b"}
    # A circle: the strongest remains.
    circle = explained(["a", "b", "c"], ab=0.5, ba=0.01, bc=0.5, cb=0.01, ca=0.5, ac=0.01)
    assert "a" not in circle or len(circle) < 3
    assert explained(["a"]) == {}


def test_copies_explain_nothing():
    same = {"a": ("b",), "b": ("a",)}
    assert explained_by(["a", "b"], {}, same, 0.05) == {}
