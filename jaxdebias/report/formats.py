"""How numbers are written, and when a difference may be called one. Rates come in as fractions in 0..1."""

import math
from typing import NamedTuple

from jaxdebias.measure._intervals import Interval as Measured
from jaxdebias.results.records import Difference, Interval

NONE = "–"


class Change(NamedTuple):
    """A difference of two rates with its interval."""

    value: float
    low: float
    high: float
    separable: bool | None = None
    """Whether it was found to differ from none, when it was measured; None: not tested."""

    def __str__(self) -> str:
        return "not separable" if self.separable is False else signed_points(self.value)

    @classmethod
    def of(cls, found: Difference | None) -> "Change | None":
        """The difference of a record; None without one."""
        if found is None or found.value is None:
            return None
        ends = (math.nan if end is None else end for end in (found.low, found.high))
        return cls(found.value, *ends, found.separable)


Estimate = Interval | Measured | Change
"""With `value`, `low` and `high`: of a record, as it was measured, or made of two of them."""


def applies(rate: Estimate | None) -> bool:
    """Whether there is an estimate."""
    return rate is not None and rate.value is not None


def percent(value: float | int | None, digits: int = 1) -> str:
    """A fraction as a percentage. What is not all or nothing is never rounded to it.

    >>> percent(0.4771), percent(0.9997), percent(1.0), percent(None)
    ('47.7 %', '>99.9 %', '100 %', '–')
    """
    number = _hundredfold(value, digits)
    return number if number == NONE else f"{number} %"


def points(value: float | int | None, digits: int = 1) -> str:
    """A difference of two fractions, in percentage points.

    >>> points(0.473)
    '47.3 points'
    """
    number = _hundredfold(value, digits)
    return number if number == NONE else f"{number} points"


def signed_points(value: float | int) -> str:
    """A change, in percentage points, with its sign.

    >>> signed_points(0.336), signed_points(-0.04)
    ('+33.6 points', '−4.0 points')
    """
    return f"{'+' if value >= 0 else '−'}{abs(100 * value):.1f} points"


def signed_change(rate: Estimate | None) -> str:
    """A difference in points, with its interval.

    >>> signed_change(Change(0.3, 0.25, 0.36))
    '+30.0 points (25.0 to 36.0)'
    """
    if not applies(rate):
        return NONE
    low, high = (f"{100 * end:.1f}".replace("-", "−") for end in (rate.low, rate.high))
    return f"{signed_points(rate.value)} ({low} to {high})"


def p_value(p: float) -> str:
    """A p-value in two digits.

    >>> p_value(3e-9), p_value(0.0213), p_value(1.0)
    ('< 0.001', '0.021', '1')
    """
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def interval(rate: Estimate | None) -> str:
    """The ends of a rate's interval, in percent, without the unit.

    >>> interval(Interval(value=0.5, low=0.452, high=0.5481, n=400))
    '45.2–54.8'
    """
    if not applies(rate) or rate.low is None or rate.high is None:
        return ""
    return f"{100 * rate.low:.1f}–{100 * rate.high:.1f}"


def _hundredfold(value: float | int | None, digits: int) -> str:
    if value is None:
        return NONE
    least = 10.0**-digits
    if 0 < value < 1:  # at the very ends the number of digits would hide that it is not exactly 0 or 1
        if 100 * value < least / 2:
            return f"<{least:.{digits}f}"
        if 100 * (1 - value) < least / 2:
            return f">{100 - least:.{digits}f}"
    return f"{100 * value:.0f}" if value in (0, 1) else f"{100 * value:.{digits}f}"


def count(value: int) -> str:
    """An integer with thousands separated.

    >>> count(53000)
    '53,000'
    """
    return f"{value:,}"


def seconds(value: float | int | None) -> str:
    """A duration in two significant digits or whole seconds.

    >>> seconds(0.0123), seconds(1.94), seconds(41.6), seconds(125)
    ('0.012 s', '1.9 s', '42 s', '2 min 05 s')
    """
    if value is None:
        return NONE
    if value < 0.001:
        return "<0.001 s"
    if value < 9.95:
        return f"{value:.{max(1, 1 - math.floor(math.log10(value)))}f} s"
    whole = round(value)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60:02d} s"


def change(before: Estimate | None, after: Estimate | None) -> Change | None:
    """after - before with an interval from the two intervals (Newcombe 1998, method 10; Zou and Donner 2008).

    The two are treated as independent. Measured on the same test samples they are not: then the interval is wider
    than it need be. No test goes with it, so nothing is said about whether there is a difference.

    >>> str(change(Measured(.5, .4, .6, 9), Measured(.6, .5, .7, 9)))
    '+10.0 points'
    """
    if not (interval(before) and interval(after)):
        return None
    value = after.value - before.value
    low = math.hypot(after.value - after.low, before.high - before.value)
    high = math.hypot(after.high - after.value, before.value - before.low)
    return Change(value, value - low, value + high)


def common_power(values: list[float | int]) -> int:
    """The power of ten in which the largest of some small numbers has one digit before the point.

    >>> common_power([2.1e-4, -3e-6])
    -4
    """
    largest = max((abs(v) for v in values), default=0.0)
    return math.floor(math.log10(largest)) if largest > 0 else 0
