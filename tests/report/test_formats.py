import numpy as np
import pytest
from report.fake_parts import rate as fake_rate

from jaxdebias.report import formats
from jaxdebias.results.records import Difference, Interval


def rate(value, low, high):
    return Interval(value=value, low=low, high=high, n=100)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.9996, ">99.9 %"),
        (0.0004, "<0.1 %"),
        (0.5, "50.0 %"),
        (0.0005, "0.1 %"),
        (None, "–"),
    ],
)
def test_percent_never_rounds_to_all_or_nothing(value, text):
    assert formats.percent(value) == text


def wilson(hits, n):
    return Interval(**fake_rate(int(hits), n))


def test_change_agrees_with_simulation():
    """Coverage of the combined interval over two independent binomials, from Wilson intervals."""
    rng, covered, runs, n = np.random.default_rng(0), 0, 2000, 200
    for _ in range(runs):
        a, b = wilson(rng.binomial(n, 0.9), n), wilson(rng.binomial(n, 0.7), n)
        difference = formats.change(b, a)
        covered += difference.low <= 0.2 <= difference.high
    assert 0.935 <= covered / runs <= 0.97


def test_change_matches_newcombe_table():
    """Newcombe 1998, table II, case (a), method 10: 56/70 - 48/80 has the interval 0.0524 to 0.3339."""
    difference = formats.change(wilson(48, 80), wilson(56, 70))
    np.testing.assert_allclose(difference[:3], (0.2, 0.0524, 0.3339), atol=5e-5)


def test_change_without_intervals_is_none():
    assert formats.change(None, rate(0.5, 0.4, 0.6)) is None
    assert formats.change(rate(0.5, None, None), rate(0.5, 0.4, 0.6)) is None


def test_not_separable_is_said_as_it_was_tested_whatever_the_interval():
    ends = {"value": 0.05, "low": 0.01, "high": 0.09, "n": 100}
    assert str(formats.Change.of(Difference(**ends, separable=False))) == "not separable"
    assert str(formats.Change.of(Difference(**ends, separable=True))) == "+5.0 points"
    assert str(formats.Change.of(Difference(**ends))) == "+5.0 points"  # not tested: no word about it
    assert str(formats.change(rate(0.5, 0.4, 0.6), rate(0.55, 0.45, 0.65))) == "+5.0 points"
    assert formats.Change.of(None) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0005, "<0.001 s"), (9.99, "10 s"), (99.4, "99 s"), (100, "1 min 40 s"), (119.7, "2 min 00 s"), (1.0, "1.0 s")],
)
def test_seconds(value, text):
    assert formats.seconds(value) == text
