"""Means over runs that differ in their seed, with Student's t interval."""

from typing import Any

import numpy as np

from jaxdebias.contracts import check_numbers, describe, expect
from jaxdebias.measure._intervals import Interval, checked_level, plain


def over_seeds(values: Any, *, level: float = 0.95) -> Interval:
    """Mean over seeds with Student's t interval.

    Args:
      values: `[s ...]`, one result per seed, seeds first.
      level: confidence level of the interval.

    Returns:
      Interval of the remaining shape, n = s. A single seed has no interval: low and high are NaN.

    >>> over_seeds([0.70, 0.74, 0.72]).n
    3
    """
    from scipy import special  # a dependency of jax; loaded only here because it is slow to import

    check_numbers("values", values, "s ...")
    values = np.asarray(values, np.float64)
    expect(len(values) > 0, "values", "one result per seed, [s ...]", describe(values))
    seeds, mean = len(values), values.mean(axis=0)
    if seeds == 1:
        half = np.full_like(mean, np.nan)
    else:
        half = special.stdtrit(seeds - 1, (1 + checked_level(level)) / 2) * values.std(axis=0, ddof=1) / np.sqrt(seeds)
    return Interval(plain(mean), plain(mean - half), plain(mean + half), seeds)


def paired_over_seeds(before: Any, after: Any, *, level: float = 0.95) -> Interval:
    """Mean over seeds of `after - before`: both `[s ...]`, of the same seeds in the same order."""
    for name, value in (("before", before), ("after", after)):
        check_numbers(name, value, "s ...")
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    expect(before.shape == after.shape, "after", f"the seeds of before, {list(before.shape)}", describe(after))
    return over_seeds(after - before, level=level)
