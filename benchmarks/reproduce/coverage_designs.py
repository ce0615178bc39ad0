"""Simulated designs for `interval_coverage.py`: independent rows with known rates, and what the intervals made of them.

A design is a quantity and a way of drawing data sets in which its true value is known. A part's `simulate` draws many
data sets at once, asks the library for the interval or the test of each, and counts: how often the truth lay below and
above the interval, how wide it was, or how often a finding was claimed. Rows of units are in `coverage_units.py`.
"""

import itertools
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from jaxdebias import measure


class Design(NamedTuple):
    """One way of drawing data sets, by names that the tables below resolve."""

    part: str
    """Family of designs; a row of the summary."""
    quantity: str
    groups: int
    rows: str
    """Rows per group; two numbers alternate over groups. In designs with units: rows per unit."""
    rates: str
    units: str = ""
    """Number of units, their sizes and what correlates them; empty: rows are independent."""

    @property
    def rng(self) -> np.random.Generator:
        """Equal for equal designs."""
        return np.random.default_rng(zlib.crc32(repr(tuple(self)).encode()))


class Part(NamedTuple):
    """A family of designs, every combination of its lists, and how each of them is simulated."""

    simulate: Callable[[Design, int], dict[str, float]]
    """(design, data sets) -> counts."""
    quantities: Sequence[str]
    groups: Sequence[int]
    rows: Sequence[str]
    rates: Sequence[str]
    units: Sequence[str] = ("",)
    most_rows: int = 2000
    """Units times rows per unit; larger designs are left out."""

    def designs(self, name: str) -> list[Design]:
        every = itertools.product(self.quantities, self.groups, self.rows, self.rates, self.units)
        made = [Design(name, *values) for values in every]
        return [d for d in made if not d.units or int(d.units.split()[0]) * int(d.rows) <= self.most_rows]


Rates = Callable[[int], np.ndarray]
Changes = Callable[[int], tuple[np.ndarray, np.ndarray]]


def alternating(groups: int, first: float, second: float) -> np.ndarray:
    return np.where(np.arange(groups) % 2 == 0, first, second)


RATES: dict[str, Rates] = {
    **{name: lambda groups, rate=float(name): np.full(groups, rate) for name in ("0.02", "0.5", "0.8", "0.95", "0.99")},
    "0.02 to 0.99": lambda groups: np.linspace(0.02, 0.99, groups),
    "0.9, one 0.5": lambda groups: np.where(np.arange(groups) == 0, 0.5, 0.9),
    "0.9, one 0.7": lambda groups: np.where(np.arange(groups) == 0, 0.7, 0.9),
    "0.99 and 0.6": lambda groups: alternating(groups, 0.99, 0.6),
}
CHANGES: dict[str, Changes] = {
    "0.02 up, 0.02 down": lambda groups: (np.full(groups, 0.02), np.full(groups, 0.02)),
    "0.1 up, 0.1 down": lambda groups: (np.full(groups, 0.1), np.full(groups, 0.1)),
    "0.1 up, 0.02 down": lambda groups: (np.full(groups, 0.1), np.full(groups, 0.02)),
    "0.3 up, 0.15 down": lambda groups: (np.full(groups, 0.3), np.full(groups, 0.15)),
    "0.005 up": lambda groups: (np.full(groups, 0.005), np.zeros(groups)),
    "0.05 up or 0.05 down": lambda groups: (alternating(groups, 0.05, 0.0), alternating(groups, 0.0, 0.05)),
}
"""Shares of rows per group that turn right, and wrong."""
WEIGHTS: dict[str, Rates] = {
    "group mean": lambda groups: np.full(groups, 1.0 / groups),
    "re-weighted": lambda groups: alternating(groups, 19.0, 1.0) / alternating(groups, 19.0, 1.0).sum(),
    "aligned - conflicting": lambda groups: alternating(groups, 2.0, -2.0) / groups,
}


def sizes_of(design: Design) -> np.ndarray:
    sizes = [int(part) for part in design.rows.split(" and ")]
    return alternating(design.groups, sizes[0], sizes[-1]).astype(np.int64)


def key_of(rng: np.random.Generator) -> Any:
    return jax.random.key(int(rng.integers(2**31)))


def interval_counts(low: Any, high: Any, truth: float) -> dict[str, float]:
    low, high = np.asarray(low), np.asarray(high)
    below, above = truth < low - 1e-12, truth > high + 1e-12
    return {
        "coverage": float(np.mean(~below & ~above)),
        "truth_below": float(np.mean(below)),
        "truth_above": float(np.mean(above)),
        "width": float(np.nanmean(high - low)),
        "zero_width": float(np.mean(high - low <= 1e-9)),
    }


def claims(by_interval: np.ndarray, claimed: np.ndarray) -> dict[str, float]:
    return {"claimed": float(np.mean(claimed)), "by_interval": float(np.mean(by_interval))}


def claimed_differences(x: np.ndarray, n: np.ndarray, key: Any) -> dict[str, float]:
    """How often the largest difference excludes 0, and how often the test agrees: counts `[s f g]`."""
    excluded = np.asarray(measure.largest_difference_interval(x, n).low) > 0
    n, claimed = np.broadcast_to(n, x.shape), np.zeros(len(x), bool)
    if excluded.any():
        claimed[excluded] = np.asarray(measure.homogeneity_p(x[excluded], n[excluded], key=key)) <= 0.05
    return claims(excluded, claimed)


def one_rate(design: Design, simulations: int) -> dict[str, float]:
    n, p = sizes_of(design)[0], float(RATES[design.rates](1)[0])
    interval = measure.proportion_interval(design.rng.binomial(n, p, simulations), np.full(simulations, n))
    return interval_counts(interval.low, interval.high, p)


def sum_of_rates(design: Design, simulations: int) -> dict[str, float]:
    n, p, w = sizes_of(design), RATES[design.rates](design.groups), WEIGHTS[design.quantity](design.groups)
    interval = measure.weighted_interval(design.rng.binomial(n, p, (simulations, len(n))), n, w)
    return interval_counts(interval.low, interval.high, float(w @ p))


def change_weights(design: Design) -> np.ndarray:
    n = sizes_of(design)
    return n / n.sum() if design.quantity == "accuracy" else WEIGHTS[design.quantity](design.groups)


def drawn_changes(rng: np.random.Generator, n: np.ndarray, up: np.ndarray, down: np.ndarray, simulations: int) -> Any:
    """(gains, losses), both `[s g]`."""
    gains = rng.binomial(n, up, (simulations, len(n)))
    return gains, rng.binomial(n - gains, down / (1.0 - up))


def change(design: Design, simulations: int) -> dict[str, float]:
    n, w = sizes_of(design), change_weights(design)
    up, down = CHANGES[design.rates](design.groups)
    interval = measure.paired_interval(*drawn_changes(design.rng, n, up, down, simulations), n, w)
    return interval_counts(interval.low, interval.high, float(w @ (up - down)))


def no_change(design: Design, simulations: int) -> dict[str, float]:
    """Gains or losses are scaled down so that the weighted sum does not change, although every group may."""
    n, w, rng = sizes_of(design), change_weights(design), design.rng
    up, down = CHANGES[design.rates](design.groups)
    ratio = (w @ up) / (w @ down)
    gains, losses = drawn_changes(rng, n, up * min(1.0, 1.0 / ratio), down * min(1.0, ratio), simulations)
    excluded = measure.excludes_zero(measure.paired_interval(gains, losses, n, w))
    return claims(excluded, measure.separable(gains, losses, n, w, key=key_of(rng)))


def change_power(design: Design, simulations: int) -> dict[str, float]:
    """Found by `separable`, and by McNemar's exact test of all rows."""
    n, w, rng = sizes_of(design), change_weights(design), design.rng
    gains, losses = drawn_changes(rng, n, *CHANGES[design.rates](design.groups), simulations)
    fewer, total = np.minimum(gains.sum(-1), losses.sum(-1)), (gains + losses).sum(-1)
    exact = 2.0 * stats.binom.cdf(fewer, total, 0.5) <= 0.05
    found = measure.separable(gains, losses, n, w, key=key_of(rng))
    return {"power": float(np.mean(found)), "mcnemar": float(np.mean(exact))}


def worst_group(design: Design, simulations: int) -> dict[str, float]:
    n, p = sizes_of(design), RATES[design.rates](design.groups)
    interval = measure.worst_group_interval(design.rng.binomial(n, p, (simulations, len(n))), n)
    return interval_counts(interval.low, interval.high, float(p.min()))


def families_of(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """(sizes, rates) `[f g]`: one family, or for equalised odds a second one with rates that are 10 points lower."""
    p = RATES[design.rates](design.groups)
    rates = np.stack([p, np.maximum(p - 0.1, 0.01)])[: 2 if design.quantity == "equalised odds" else 1]
    return np.broadcast_to(sizes_of(design), rates.shape), rates


def largest_difference(design: Design, simulations: int) -> dict[str, float]:
    n, p = families_of(design)
    interval = measure.largest_difference_interval(design.rng.binomial(n, p, (simulations, *n.shape)), n)
    return interval_counts(interval.low, interval.high, float(np.ptp(p, axis=-1).max()))


def no_difference(design: Design, simulations: int) -> dict[str, float]:
    (n, p), rng = families_of(design), design.rng
    return claimed_differences(rng.binomial(n, p, (simulations, *n.shape)), n, key_of(rng))


def difference_power(design: Design, simulations: int) -> dict[str, float]:
    return {"power": no_difference(design, simulations)["claimed"]}


GROUPS = (2, 5, 20)
ROWS = ("5", "20", "100", "1000", "95 and 5")
SPREAD = ("0.5", "0.95", "0.99", "0.02 to 0.99", "0.99 and 0.6")
CHANGED = ("0.02 up, 0.02 down", "0.1 up, 0.02 down", "0.3 up, 0.15 down", "0.005 up", "0.05 up or 0.05 down")
CANCELLED = ("0.02 up, 0.02 down", "0.1 up, 0.1 down", "0.05 up or 0.05 down")
GAPS = ("gap", "equalised odds")

PARTS: dict[str, Part] = {
    "one rate": Part(one_rate, ["rate"], [1], ROWS[:4], ("0.02", "0.5", "0.8", "0.95", "0.99")),
    "sums of rates": Part(sum_of_rates, list(WEIGHTS), GROUPS, ROWS, SPREAD),
    "changes": Part(change, list(WEIGHTS), GROUPS, ROWS, CHANGED),
    "worst group": Part(worst_group, ["worst group"], GROUPS, ROWS, (*SPREAD, "0.9, one 0.5")),
    "largest difference": Part(largest_difference, GAPS, GROUPS, ROWS, ("0.5", "0.95", *SPREAD[3:], "0.9, one 0.5")),
    "largest difference, none": Part(no_difference, GAPS, GROUPS, ROWS, ("0.02", "0.5", "0.8", "0.95")),
    "separable, none": Part(no_change, ["accuracy", "group mean"], GROUPS, ROWS, CANCELLED),
    "power of separable": Part(
        change_power, ["accuracy", "group mean"], (1, 2, 10), ("30", "100", "300"), ["0.1 up, 0.02 down"]
    ),
    "power of the largest difference": Part(difference_power, ["gap"], (3, 5, 10), ["100"], ["0.9, one 0.7"]),
}
