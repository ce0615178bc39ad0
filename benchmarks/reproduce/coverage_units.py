"""Simulated designs for `interval_coverage.py`: rows of units, continuous quantities, probabilities."""

from collections.abc import Callable
from typing import Any

import numpy as np
from coverage_designs import (
    CHANGES,
    RATES,
    WEIGHTS,
    Design,
    Part,
    alternating,
    claimed_differences,
    claims,
    interval_counts,
    key_of,
)
from scipy import special

from jaxdebias import measure

SHARED = 0.3
"""Share of the variance that rows of one unit have in common."""


def unit_sizes(design: Design) -> np.ndarray:
    """Rows of each unit: equal, or half of the units 20 times as large as the others."""
    count, kind = design.units.split(", ")[0].split()
    per_unit = int(design.rows)
    large, small = (2 * per_unit, max(per_unit // 10, 1)) if kind == "unequal" else (per_unit, per_unit)
    return alternating(int(count), large, small).astype(int)


def drawn_rows(design: Design, simulations: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(numbers `[s n]`, uniform on [0, 1] and correlated within units, group `[n]`, unit `[n]`).

    Units have a normal random intercept; with `copied` in its place a row copies its unit's number, so that whole units
    fail at once.
    """
    sizes, rng = unit_sizes(design), design.rng
    unit = np.repeat(np.arange(len(sizes)), sizes)
    if design.quantity.endswith("nested"):  # with unequal sizes, units of both sizes are in every group
        group = (unit // 2 if "unequal" in design.units else unit) % design.groups
    else:
        group = np.arange(len(unit)) % design.groups
    shape, of_unit = (simulations, len(unit)), (simulations, len(sizes))
    if "copied" in design.units:
        common, copied = rng.random(of_unit)[:, unit], rng.random(shape) < SHARED**0.5
        return np.where(copied, common, rng.random(shape)), group, unit
    intercept = rng.normal(size=of_unit)[:, unit]
    return special.ndtr(intercept * SHARED**0.5 + rng.normal(size=shape) * (1.0 - SHARED) ** 0.5), group, unit


def weights_of(design: Design) -> np.ndarray:
    return WEIGHTS[design.quantity.split(",")[0]](design.groups)


def sum_of_rates(design: Design, simulations: int) -> dict[str, float]:
    uniform, group, unit = drawn_rows(design, simulations)
    p, w = RATES[design.rates](design.groups), weights_of(design)
    interval = measure.weighted_rate_interval(uniform < p[group], group, w, unit=unit)
    return interval_counts(interval.low, interval.high, float(w @ p))


def drawn_changes(design: Design, simulations: int) -> tuple[np.ndarray, ...]:
    """(gained, lost `[s n]`, group, unit)."""
    uniform, group, unit = drawn_rows(design, simulations)
    up, down = CHANGES[design.rates](design.groups)
    return uniform < up[group], uniform > 1.0 - down[group], group, unit


def change_interval(design: Design, gained: Any, lost: Any, group: Any, unit: Any) -> measure.Interval:
    """What `paired_change` gives, for many data sets at once."""
    w = weights_of(design)
    factor = measure.unit_design_effect(gained.astype(int) - lost, group, unit, w).factor[:, None]
    gains, n = measure.group_counts(gained, group, groups=design.groups)
    losses, _ = measure.group_counts(lost, group, groups=design.groups)
    return measure.paired_interval(gains / factor, losses / factor, n / factor, w)


def change(design: Design, simulations: int) -> dict[str, float]:
    interval = change_interval(design, *drawn_changes(design, simulations))
    up, down = CHANGES[design.rates](design.groups)
    return interval_counts(interval.low, interval.high, float(weights_of(design) @ (up - down)))


def no_change(design: Design, simulations: int) -> dict[str, float]:
    gained, lost, group, unit = drawn_changes(design, simulations)
    excluded = measure.excludes_zero(change_interval(design, gained, lost, group, unit))
    claimed, key = np.zeros(simulations, bool), key_of(design.rng)
    for i in np.flatnonzero(excluded):  # the others are not separable
        found = measure.paired_change(~gained[i], ~lost[i], group, weights_of(design), unit=unit, key=key)
        claimed[i] = found.separable
    return claims(excluded, claimed)


def counts_of(design: Design, simulations: int) -> tuple[np.ndarray, np.ndarray]:
    """Effective counts `[s g]`."""
    uniform, group, unit = drawn_rows(design, simulations)
    right = uniform < RATES[design.rates](design.groups)[group]
    return measure.group_counts(right, group, groups=design.groups, unit=unit)


def worst_group(design: Design, simulations: int) -> dict[str, float]:
    interval = measure.worst_group_interval(*counts_of(design, simulations))
    return interval_counts(interval.low, interval.high, float(RATES[design.rates](design.groups).min()))


def largest_difference(design: Design, simulations: int) -> dict[str, float]:
    x, n = counts_of(design, simulations)
    interval = measure.largest_difference_interval(x[:, None], n[:, None])
    return interval_counts(interval.low, interval.high, float(np.ptp(RATES[design.rates](design.groups))))


def no_difference(design: Design, simulations: int) -> dict[str, float]:
    x, n = counts_of(design, simulations)
    return claimed_differences(x[:, None], n[:, None], key_of(design.rng))


SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "uniform": lambda rng, shape: rng.random(shape) - 0.5,
    "three values": lambda rng, shape: rng.integers(-1, 2, shape).astype(float),
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1.0,
    "four in five 0": lambda rng, shape: rng.exponential(size=shape) * (rng.random(shape) < 0.2) - 0.2,
}
"""Distributions of mean 0; the last two are skewed."""


def mean(design: Design, simulations: int) -> dict[str, float]:
    sizes, rng = unit_sizes(design), design.rng
    unit, draw = np.repeat(np.arange(len(sizes)), sizes), SHAPES[design.rates]
    common = draw(rng, (simulations, len(sizes)))[:, unit]
    values = np.where(rng.random(common.shape) < SHARED**0.5, common, draw(rng, common.shape))
    parts = np.array_split(values, max(1, simulations // 50))  # resamples are shared within a part
    limits = [measure.mean_interval(part, unit=unit, key=key_of(rng), resamples=1000)[1:3] for part in parts]
    return interval_counts(*np.concatenate(limits, axis=1), 0.0)


def drawn_events(design: Design, simulations: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(events, probabilities `[s n]`, true mean of events minus that of probabilities)."""
    low, high = (float(value) for value in design.rates.split(" to "))
    rng, shift = design.rng, 0.0 if design.quantity == "calibrated" else 0.4
    q = low + (high - low) * rng.random((simulations, int(design.rows)))
    return rng.random(q.shape) < q + shift * (1.0 - q), q, shift * (1.0 - (low + high) / 2.0)


def calibration_gap(design: Design, simulations: int) -> dict[str, float]:
    event, q, truth = drawn_events(design, simulations)
    interval = measure.calibration_gap(event, q)
    return interval_counts(interval.low, interval.high, truth)


def calibration_error(design: Design, simulations: int) -> dict[str, float]:
    event, q, _ = drawn_events(design, simulations)
    key = key_of(design.rng)
    p = [measure.calibration_error(e, row, key=key, draws=200).p for e, row in zip(event, q, strict=True)]
    return {"claimed": float(np.mean(np.array(p) <= 0.05))}


ROWS = ("4", "20")
UNITS = ("8 equal", "8 unequal", "20 equal", "20 unequal", "60 unequal", "200 equal", "200 unequal")
COPIED = tuple(f"{units}, copied" for units in UNITS[:5])
SIZES = ("8 equal", "8 unequal", "20 equal", "20 unequal", "60 equal", "60 unequal", "200 equal", "200 unequal")


def both(*quantities: str) -> list[str]:
    """Units in one group each, and units spread over groups."""
    return [f"{quantity}, {how}" for quantity in quantities for how in ("nested", "spread")]


PARTS: dict[str, Part] = {
    "units: sums of rates": Part(
        sum_of_rates, both("group mean", "aligned - conflicting"), (2, 4), ROWS, ("0.5", "0.95", "0.99 and 0.6"), UNITS
    ),
    "units: changes": Part(change, both("group mean"), (2, 4), ROWS, ("0.1 up, 0.02 down", "0.3 up, 0.15 down"), UNITS),
    "units: separable, none": Part(no_change, both("group mean"), [2], ROWS, ["0.1 up, 0.1 down"], UNITS),
    "units: worst group": Part(worst_group, both("worst group"), (2, 4), ROWS, ("0.8", "0.99 and 0.6"), UNITS),
    "units: largest difference": Part(largest_difference, both("gap"), (2, 4), ROWS, ["0.99 and 0.6"], UNITS),
    "units: largest difference, none": Part(no_difference, both("gap"), (2, 4), ROWS, ("0.8", "0.95"), UNITS),
    "units: failing as a whole": Part(sum_of_rates, both("group mean"), [2], ["20"], ("0.5", "0.8", "0.95"), COPIED),
    "means": Part(mean, ["mean"], [1], ("1", "10"), list(SHAPES)[:3], SIZES),
    "means of skewed quantities": Part(mean, ["mean"], [1], ("1", "10"), list(SHAPES)[3:], SIZES),
    "calibration gap": Part(
        calibration_gap,
        ["calibrated", "too low"],
        [1],
        ("100", "300", "1000"),
        ("0.0 to 1.0", "0.4 to 0.6", "0.0 to 0.1", "0.0 to 0.02"),
    ),
    "calibration error, none": Part(
        calibration_error, ["calibrated"], [1], ("30", "100", "300"), ("0.0 to 1.0", "0.0 to 0.1")
    ),
}
UNBOUNDED = ("units: failing as a whole", "means of skewed quantities")
"""Reported without a margin. Where units fail rarely and as a whole, or one value in five differs from 0, a sample of
few units may hold no such unit, and nothing in it shows that there are any."""
