"""Tests that hold their level: changes on the same rows, equal rates, exchangeability within strata, several tests.

`separable` is the word for a change: it asks for a small p by sign flips, for enough rows that changed, and for an
interval without 0. Each alone is fooled: one changed row among a hundred thousand, or gains in large groups that equal
losses in small ones.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdebias.contracts import check_key, check_numbers, describe, expect
from jaxdebias.core import Key
from jaxdebias.measure._intervals import (
    checked_changes,
    checked_counts,
    checked_weights,
    paired_interval,
    plain,
)
from jaxdebias.measure._score_limits import Numbers

ALPHA = 0.05
LEAST_DISCORDANT = 6
"""Rows that changed, below which no exact two-sided test reaches 5 %."""
FLIPS = 2000
"""Draws of the signs."""
MOST_EXACT = 11
"""Units whose signs are all enumerated instead."""
STREAM = 0x6A61
CHUNK = 2**22
"""Random numbers that are held at a time."""


class CMH(NamedTuple):
    """A Cochran-Mantel-Haenszel test: the standardised sum, above 0 where high scores are frequent, and its p."""

    z: float | np.ndarray
    p: float | np.ndarray


def mcnemar_midp(gains: Any, losses: Any) -> Any:
    """Two-sided mid-p of McNemar's exact test (Lancaster 1961; Fagerland et al. 2013); 1 where gains equal losses.

    Under the hypothesis each discordant row is a gain with probability 1/2: twice the probability of fewer than
    min(gains, losses) of either, plus that of just as many.

    Args:
      gains: `[...]` rows that are right after and were wrong before.
      losses: `[...]` rows that are wrong after and were right before.

    >>> round(mcnemar_midp(2, 0), 6), round(mcnemar_midp(7, 3), 4)
    (0.25, 0.2266)
    """
    from scipy import special  # a dependency of jax; loaded only here because it is slow to import

    for name, value in (("gains", gains), ("losses", losses)):
        check_numbers(name, value, "...")
        expect(bool(np.all(np.asarray(value) >= 0)), name, "no negative count", describe(value))
    gains, losses = np.asarray(gains, np.float64), np.asarray(losses, np.float64)
    fewer, total = np.minimum(gains, losses), gains + losses
    below = special.betainc(np.where(total > fewer, total - fewer, 1.0), fewer + 1.0, 0.5)
    below = np.where(total > fewer, below, 1.0)  # P(X <= fewer)
    just = np.exp(
        special.gammaln(total + 1)
        - special.gammaln(fewer + 1)
        - special.gammaln(total - fewer + 1)
        - total * np.log(2.0)
    )
    return plain(np.minimum(np.where(gains == losses, 1.0, 2.0 * below - just), 1.0))


def sign_flip_p(gains: Any, losses: Any, n: Any, w: Any, *, key: Key, draws: int = FLIPS) -> Any:
    """Two-sided mid-p of S = sum w_g (gains_g - losses_g) / n_g against random signs of the rows that changed.

    Where every changed row moves S equally (plain accuracy: w_g in proportion to n_g), this is `mcnemar_midp`, exactly.
    Otherwise the signs are drawn: gains of g are binomial with 1/2 among its changed rows.

    Args:
      gains: `[... g]` rows that are right after and were wrong before.
      losses: `[... g]` rows that are wrong after and were right before.
      n: `[... g]` rows in all.
      w: `[... g]` or `[g]` weights of either sign.
      key: randomness of the signs.
      draws: number of draws.

    >>> sign_flip_p([7], [3], [50], [1.0], key=jax.random.key(0)) == mcnemar_midp(7, 3)
    True
    """
    gains, losses, n = checked_changes(gains, losses, n)
    w, seen, _ = checked_weights(w, n)
    gains, losses, n = np.broadcast_arrays(gains, losses, n, w)[:3]
    batch = w.shape[:-1]
    per_row = np.where(seen & (gains + losses > 0), w / np.where(seen, n, 1.0), 0.0).reshape(-1, w.shape[-1])
    gains, losses = (np.where(per_row != 0, value.reshape(per_row.shape), 0.0) for value in (gains, losses))
    # Positive and negative weights of one size are equal too, once gains and losses change places.
    size = np.abs(per_row)
    largest = size.max(-1, keepdims=True, initial=0.0)
    equal = np.all((size == 0) | (size >= largest * (1.0 - 1e-9)), axis=-1)
    up = np.where(per_row > 0, gains, losses).sum(-1)
    p = np.asarray(mcnemar_midp(up, (gains + losses).sum(-1) - up)).reshape(-1).copy()
    changed, observed = np.rint(gains + losses).astype(np.int64), np.abs((per_row * (gains - losses)).sum(-1))
    rng = numpy_generator(key)
    uneven = np.flatnonzero(~equal)
    at_once = max(1, CHUNK // (draws * max(per_row.shape[-1], 1)))
    for start in range(0, len(uneven), at_once):
        rows = uneven[start : start + at_once]
        flipped = 2.0 * rng.binomial(changed[rows], 0.5, (draws, len(rows), per_row.shape[-1])) - changed[rows]
        drawn = np.abs((per_row[rows] * flipped).sum(-1))
        p[rows] = mid_p(drawn, observed[rows])
    return plain(p.reshape(batch))


def unit_flip_p(totals: Any, *, key: Key, draws: int = FLIPS) -> Any:
    """Two-sided mid-p of a sum over units against random signs of whole units; exact for at most 11 that are not 0.

    Args:
      totals: `[... u]`, what each unit adds to the sum.
      key: randomness of the signs.
      draws: number of draws, where there are more units.

    >>> unit_flip_p([1.0, 1.0, 1.0, 0.0], key=jax.random.key(0))
    0.125
    """
    check_numbers("totals", totals, "... u")
    totals = np.asarray(totals, np.float64)
    flat = totals.reshape(-1, totals.shape[-1])
    rng = numpy_generator(key)
    p = np.ones(len(flat))
    for row, values in enumerate(flat):
        values = values[values != 0]
        if not len(values):
            continue
        observed = np.abs(values.sum())
        if len(values) <= MOST_EXACT:
            signs = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1
            p[row] = float(_beyond(_flipped(signs, values), observed)) / len(signs)
            continue
        at_once = max(1, CHUNK // len(values))
        sizes = [(min(at_once, draws - start), len(values)) for start in range(0, draws, at_once)]
        drawn = np.concatenate([_flipped(rng.integers(0, 2, size, np.int8), values) for size in sizes])
        p[row] = float(mid_p(drawn, observed))
    return plain(p.reshape(totals.shape[:-1]))


def separable(gains: Any, losses: Any, n: Any, w: Any, *, key: Key, level: float = 0.95) -> Any:
    """Whether a change on the same rows can be told from none: a bool, or an array of the batch shape.

    It can if the sign-flip test gives p <= 1 - level, at least 6 rows changed, and the score interval of
    `paired_interval` excludes 0.

    Args:
      gains: `[... g]` rows that are right after and were wrong before.
      losses: `[... g]` rows that are wrong after and were right before.
      n: `[... g]` rows in all.
      w: `[... g]` or `[g]` weights of either sign.
      key: randomness of the sign flips.
      level: confidence level of the interval; the test is at 1 - level.

    >>> separable([1], [0], [60], [1.0], key=jax.random.key(0))
    False
    >>> separable([9], [1], [60], [1.0], key=jax.random.key(0))
    True
    """
    interval = paired_interval(gains, losses, n, w, level=level)
    gains, losses, n, w = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in (gains, losses, n, w)))
    enough = changed_rows(gains, losses, w) >= LEAST_DISCORDANT
    result = np.asarray(enough & ((np.asarray(interval.low) > 0) | (np.asarray(interval.high) < 0)))
    if result.any():  # the draws are needed only where the rest holds
        p = sign_flip_p(gains[result], losses[result], n[result], w[result], key=key)
        result[result] = np.asarray(p) <= 1.0 - level + 1e-12
    return plain(result)


def changed_rows(gains: np.ndarray, losses: np.ndarray, w: np.ndarray) -> Numbers:
    """Discordant rows `[...]` in groups whose weight is not 0."""
    return np.where(np.asarray(w) != 0, np.asarray(gains) + np.asarray(losses), 0.0).sum(-1)


def homogeneity_p(x: Any, n: Any, *, key: Key, resolve: float = ALPHA, most_draws: int = 200_000) -> Any:
    """p of equal rates in all groups of each family: permutation within families of the largest chi-square.

    With expected counts of 5 or more in all cells the chi-square distribution serves; otherwise successes are dealt to
    the groups at random (2,000 times, and more until p is on one side of `resolve` by three standard errors).

    Args:
      x: `[... f g]` successes in families (labels) and groups, or `[g]`. Fractional counts (of clustered rows: divided
        by design effects, Rao and Scott 1992) are rounded where they are dealt.
      n: `[... f g]` trials. Groups without trials take no part.
      key: randomness of the permutations.
      resolve: the level that p will be compared with: 0.05 over the number of tests, where there are several.
      most_draws: bound on the number of permutations.

    >>> round(homogeneity_p([[40, 30]], [[50, 50]], key=jax.random.key(0)), 4)
    0.0291
    """
    from scipy import special

    x, n = checked_counts(x, n)
    if x.ndim == 1:
        x, n = x[None], n[None]
    batch, shape = x.shape[:-2], x.shape[-2:]
    x, n = x.reshape(-1, *shape), n.reshape(-1, *shape)
    groups = (n > 0).sum(-1)
    rate = x.sum(-1) / np.maximum(n.sum(-1), 1e-300)
    varied = (groups > 1) & (rate > 1e-12) & (rate < 1.0 - 1e-12)  # other families have a chi-square of 0, always
    expected = n * np.minimum(rate, 1.0 - rate)[..., None]
    large = np.all((expected >= 5.0) | (n == 0) | ~varied[..., None], axis=(-1, -2))
    statistic = _chi_square(x, n)
    beyond = special.chdtrc(np.maximum(groups - 1, 1), statistic[:, None])
    with np.errstate(divide="ignore"):
        p = -np.expm1(np.where(varied, np.log1p(-beyond), 0.0).sum(-1))
    p = np.where(varied.any(-1), p, 1.0)
    small = np.flatnonzero(~large & varied.any(-1))
    if len(small):
        n_dealt = np.rint(n[small]).astype(np.int64)
        x_dealt = np.minimum(np.rint(x[small]).astype(np.int64), n_dealt)
        p[small] = _permutation_p(numpy_generator(key), x_dealt, n_dealt, resolve, most_draws)
    return plain(p.reshape(batch))


def cmh_test(tables: Any, scores: Any = None) -> CMH:
    """Cochran-Mantel-Haenszel test of exchangeability within strata, for tables of any size with scores.

    T = sum over strata and cells of scores x counts, standardised by mean and variance with all margins fixed; without
    continuity correction. In 2x2 tables this is the classical test (Mantel and Haenszel 1959).

    Args:
      tables: `[... s r c]` counts in strata s, rows r (predicted classes) and columns c (values of an attribute).
      scores: `[r c]`; None: 1 in the first cell, 0 elsewhere.

    >>> cmh = cmh_test([[[12, 5], [6, 14]], [[9, 3], [8, 9]]])
    >>> round(cmh.z, 3), round(cmh.p, 4)
    (2.804, 0.0051)
    """
    from scipy import special

    check_numbers("tables", tables, "... s r c")
    tables = np.asarray(tables, np.float64)
    expect(bool(np.all(tables >= 0)), "tables", "no negative count", describe(tables))
    if scores is None:
        scores = np.zeros(tables.shape[-2:])
        scores[0, 0] = 1.0
    scores = np.asarray(scores, np.float64)
    expect(scores.shape == tables.shape[-2:], "scores", f"one per cell, {list(tables.shape[-2:])}", describe(scores))
    total = tables.sum((-1, -2))
    safe = np.maximum(total, 1.0)[..., None, None]
    rows, columns = tables.sum(-1, keepdims=True) / safe, tables.sum(-2, keepdims=True) / safe
    mean = (rows * columns * scores).sum((-1, -2), keepdims=True)
    centred = scores - (columns * scores).sum(-1, keepdims=True) - (rows * scores).sum(-2, keepdims=True) + mean
    deviation = (tables * scores).sum((-1, -2)) - total * mean[..., 0, 0]
    variance = (rows * columns * centred**2).sum((-1, -2)) * total**2 / np.maximum(total - 1.0, 1.0)
    deviation, variance = deviation.sum(-1), variance.sum(-1)
    z = np.where(variance > 1e-12, deviation / np.sqrt(np.maximum(variance, 1e-300)), 0.0)
    return CMH(plain(z), plain(2.0 * special.ndtr(-np.abs(z))))


def adjust_holm(p: Any) -> Any:
    """Holm's adjusted p values (1979) over the last axis: the family-wise error of all tests together is held.

    The i-th smallest of m is multiplied by m - i + 1, and none is less than one before it.

    Args:
      p: `[... m]`; NaN: a test that was not done, which does not count.

    >>> adjust_holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    check_numbers("p", p, "... m")
    p = np.asarray(p, np.float64)
    done = ~np.isnan(p)
    order = np.argsort(np.where(done, p, np.inf), axis=-1)
    ordered = np.take_along_axis(np.where(done, p, np.inf), order, axis=-1)
    left = done.sum(-1, keepdims=True) - np.arange(p.shape[-1])
    with np.errstate(invalid="ignore"):
        steps = np.minimum(np.maximum.accumulate(np.where(np.isfinite(ordered), ordered * left, 0.0), axis=-1), 1.0)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, steps, axis=-1)
    return np.where(done, adjusted, np.nan)


def mid_p(drawn: np.ndarray, observed: Numbers) -> Numbers:
    """Mid-p of draws `[r ...]`, to which the observation is added: no p of 0."""
    return (_beyond(drawn, observed) + 0.5) / (len(drawn) + 1)


def numpy_generator(key: Key) -> np.random.Generator:
    """NumPy's generator for the discrete distributions that are drawn on the host, from a key of JAX.

    The last word keeps it apart from `default_rng(0)`, with which callers draw their data.
    """
    check_key("key", key)
    return np.random.default_rng([*np.asarray(jax.random.key_data(key)).ravel().tolist(), STREAM])


def _flipped(signs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """|sum| for signs `[r u]` of 0 and 1."""
    return np.abs(2.0 * (signs @ values) - values.sum())


def _beyond(drawn: np.ndarray, observed: Numbers) -> Numbers:
    """Draws above the observation, and half of those that equal it up to rounding."""
    slack = 1e-9 * np.maximum(np.abs(observed), 1e-300)
    return (drawn > observed + slack).sum(0) + 0.5 * (np.abs(drawn - observed) <= slack).sum(0)


def _chi_square(x: np.ndarray, n: np.ndarray) -> Numbers:
    """The largest chi-square of the families, `[...]` of counts `[... f g]`."""
    totals = n.sum(-1, keepdims=True)
    rate = x.sum(-1, keepdims=True) / np.maximum(totals, 1e-300)
    spread = rate * (1.0 - rate)
    squares = np.where((n > 0) & (spread > 0), (x - n * rate) ** 2 / np.where(n * spread > 0, n * spread, 1.0), 0.0)
    return squares.sum(-1).max(-1)


def _permutation_p(rng: np.random.Generator, x: np.ndarray, n: np.ndarray, resolve: float, most: int) -> np.ndarray:
    """(1 + draws at least as large as observed) / (1 + draws), `[entries]`, with draws until it is resolved."""
    observed = _chi_square(x.astype(np.float64), n.astype(np.float64))
    reached, done = np.zeros(len(x)), np.zeros(len(x))
    left, size = np.arange(len(x)), FLIPS
    while len(left):
        at_once = max(1, CHUNK // x[0].size)
        for start in range(0, size * len(left), at_once):
            entries = left[np.arange(start, min(start + at_once, size * len(left))) // size]
            drawn = _chi_square(_dealt(rng, x[entries].sum(-1), n[entries]), n[entries].astype(np.float64))
            reached += np.bincount(entries, drawn >= observed[entries] * (1.0 - 1e-9), minlength=len(x))
        done[left] += size
        p = (1.0 + reached) / (1.0 + done)
        error = np.sqrt(p * (1.0 - p) / done)
        left = np.flatnonzero((np.abs(p - resolve) <= 3.0 * error) & (done < most))
        size *= 2
    return p


def _dealt(rng: np.random.Generator, successes: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Successes `[e f]` dealt to groups of sizes n `[e f g]` at random: multivariate hypergeometric."""
    dealt = np.zeros(n.shape)
    good, rest = successes.copy(), n.sum(-1)
    for group in range(n.shape[-1] - 1):
        dealt[..., group] = rng.hypergeometric(good, rest - good, n[..., group])
        good, rest = good - dealt[..., group].astype(np.int64), rest - n[..., group]
    dealt[..., -1] = good
    return dealt
