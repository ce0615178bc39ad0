"""How strongly label and attribute are associated in a table of counts: Cramer's V with an interval."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from jaxdebias.contracts import check_finite, check_numbers, describe, expect
from jaxdebias.core import Array
from jaxdebias.measure._intervals import Interval, checked_level


class Association(NamedTuple):
    """Association of label and attribute in the training data."""

    attribute: str
    cramers_v: Interval | None
    """In 0..1; None where the counts are unknown, or where label or attribute has one value only."""
    n: int
    """Training rows counted."""


def assess_association(attribute: str, counts: Shaped[Array, "k a"] | None, *, level: float = 0.95) -> Association:
    """Association of label and attribute, with Cramer's V where the counts of the training set are known.

    Args:
      attribute: name of the attribute.
      counts: `[k a]` training rows by label and value; None or all 0: unknown.
      level: confidence level.

    >>> found = assess_association("colour", np.array([[90, 10], [10, 90]]))
    >>> round(found.cramers_v.value, 3), round(found.cramers_v.low, 3), round(found.cramers_v.high, 3), found.n
    (0.797, 0.661, 0.939, 200)
    >>> assess_association("colour", None).cramers_v is None
    True
    """
    if counts is None or not np.any(counts):
        return Association(attribute, None, 0)
    found = cramers_v(counts, level=level)
    return Association(attribute, None if np.isnan(found.value) else found, int(np.sum(counts)))


def cramers_v(counts: Any, *, level: float = 0.95) -> Interval:
    """Cramer's V of a table of counts, in 0..1, with limits from the noncentral chi-square distribution.

    V^2 = lambda / (n m), m = min(rows, columns) - 1, lambda the noncentrality of chi-square. The limits are the lambdas
    for which the observed chi-square is the (1 + level)/2 and the (1 - level)/2 quantile (Steiger 2004; Smithson 2003);
    the estimate is chi-square minus its degrees of freedom, and 0 if that is negative: unlike the plain V it does not
    grow with the size of a table without association (as Bergsma 2013, whose correction of m is left out). Rows and
    columns without counts are left out.

    Args:
      counts: `[k a]` counts of labels and values.
      level: confidence level.

    Returns:
      Interval; n is the number of rows counted. NaN where a side has fewer than two values.

    >>> v = cramers_v([[52, 48], [47, 53]])
    >>> v.value, v.low, round(v.high, 3)
    (0.0, 0.0, 0.188)
    """
    from scipy import special  # a dependency of jax; loaded only here because it is slow to import

    check_numbers("counts", counts, "k a")
    check_finite("counts", counts)
    counts = np.asarray(counts, np.float64)
    expect(bool((counts >= 0).all()), "counts", "no negative count", describe(counts))
    counts = counts[counts.any(1)][:, counts.any(0)]
    n, smaller = counts.sum(), min(counts.shape) - 1
    if smaller < 1:
        return Interval(float("nan"), float("nan"), float("nan"), int(n))
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / n
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    tail = (1.0 - checked_level(level)) / 2.0

    def noncentrality(below: float) -> float:
        """The noncentrality at which the statistic has this probability below it; 0 where even that is too large."""
        if special.chdtr(freedom, statistic) <= below:
            return 0.0
        return float(special.chndtrinc(statistic, freedom, below))

    lambdas = max(statistic - freedom, 0.0), noncentrality(1.0 - tail), noncentrality(tail)
    value, low, high = (min(float(np.sqrt(at / (n * smaller))), 1.0) for at in lambdas)
    return Interval(value, min(low, value), max(high, value), int(n))
