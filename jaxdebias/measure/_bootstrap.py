"""Every number with its uncertainty: Wilson intervals for rates, one bootstrap kernel for everything else.

What is resampled or counted is the independent *unit*: ten renderings of one digit are one unit, not ten.
"""

import functools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_finite, check_integers, check_numbers, describe, expect
from jaxdebias.core import Array, Key
from jaxdebias.measure._intervals import Interval, plain

CHUNK_ELEMENTS = 2**20
"""Resampled rows that the bootstrap holds at a time; see `bootstrap` for the memory that follows from it."""


def wilson(correct: Any, n: Any, *, level: float = 0.95) -> Interval:
    """Wilson's score interval of a rate; never of zero width, not even at 0 or 1 (Wilson 1927).

    Args:
      correct: successes, a number or an array of any shape. May be fractional where n is an effective sample size.
      n: trials, same shape. Where n = 0 the rate does not exist: value, low and high are NaN.
      level: confidence level.

    >>> wilson(8, 10).value, round(wilson(8, 10).low, 4), round(wilson(8, 10).high, 4)
    (0.8, 0.4902, 0.9433)
    """
    for name, value in (("correct", correct), ("n", n)):
        check_numbers(name, value, "...")
    correct, n = np.asarray(correct), np.asarray(n)
    expect(correct.shape == n.shape, "correct", f"the shape of n, {list(n.shape)}", describe(correct))
    expect(bool(np.all((correct >= 0) & (correct <= n))), "correct", "values in 0..n", describe(correct))
    z = statistics.NormalDist().inv_cdf((1 + _checked(level)) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.where(n > 0, correct / n, np.nan)
        centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2.0)) / (1 + z**2 / n)
        # At 0 and 1 a limit is exactly the rate; rounding must not put the value outside its interval.
        low, high = np.clip(centre - half, 0.0, rate), np.clip(centre + half, rate, 1.0)
    return Interval(plain(rate), plain(low), plain(high), plain(n))


def rate_intervals(
    hit: Shaped[Array, " n"],
    pool: Int[Array, " n"],
    unit: Int[Array, " n"] | None = None,
    *,
    pools: int,
    level: float = 0.95,
) -> Interval:
    """The rate of `hit` in each pool of rows, with Wilson's interval at the effective sample size.

    Rows of one unit are correlated, so they count for less than as many rows: the number of rows is divided by the
    design effect, the variance between units over that of independent rows (Kish 1965). With one row per unit this
    is exactly `wilson(hits, rows)`. Where all rows agree no variance can be seen, and every unit counts once
    (Kish's size `rows^2 / sum of squared unit sizes`).

    Args:
      hit: `[n]` bool or 0/1.
      pool: `[n]` in 0..pools-1; -1 leaves the row out.
      unit: `[n]` integers from 0; None: every row is its own unit.
      pools: how many pools; an empty one has value NaN and n = 0.
      level: confidence level of the interval.

    Returns:
      Interval of arrays `[pools]`; its n is the number of distinct units.
    """
    check_numbers("hit", hit, "n")
    rows = len(hit)
    check_finite("hit", hit)
    check_integers("pool", pool, rows, -1, pools)
    hit, pool = np.asarray(hit, np.float64), np.asarray(pool)
    if unit is not None:
        check_integers("unit", unit, rows, 0, None)
        unit = np.asarray(unit)[pool >= 0]
    hit, pool = hit[pool >= 0], pool[pool >= 0]
    size = np.bincount(pool, minlength=pools)
    hits = np.bincount(pool, hit, minlength=pools)
    if unit is None:
        return wilson(hits, size, level=level)._replace(n=size)
    # A cell holds the rows of one unit in one pool.
    _, unit = np.unique(unit, return_inverse=True)
    cells, cell = np.unique(pool.astype(np.int64) * (unit.max(initial=0) + 1) + unit, return_inverse=True)
    pool_of_cell = cells // (unit.max(initial=0) + 1)
    units = np.bincount(pool_of_cell, minlength=pools)
    cell_size = np.bincount(cell)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = hits / size
        deviation = np.bincount(cell, hit - rate[pool])
        between = np.bincount(pool_of_cell, deviation**2, minlength=pools) * units / (units - 1)
        design_effect = between * (size - 1) / (size**2 * rate * (1 - rate))
        kish = size**2 / np.bincount(pool_of_cell, cell_size**2, minlength=pools)
        unanimous = (hits == 0) | (hits == size) | (units == 1)
        effective = np.where(unanimous, kish, size / np.maximum(design_effect, 1.0))
    effective = np.where(size > 0, effective, 0.0)
    return wilson(np.where(size > 0, rate, 0.0) * effective, effective, level=level)._replace(n=units)


def bootstrap(
    key: Key,
    statistic: Callable[..., jax.Array],
    values: Float[Array, "n c"],
    *,
    group: Int[Array, " n"] | None = None,
    groups: int = 1,
    unit: Int[Array, " n"] | None = None,
    args: tuple = (),
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of any function of weighted sums per group, by the Bayesian bootstrap (Rubin 1981).

    Each resample gives every unit a weight, jointly Dirichlet(1, ..., 1) times the number of units, and costs one
    segment-sum. No weight is 0, so a group that is not empty stays so; and a ratio within a group is resampled as if
    the groups were strata. What has no spread in the data has none in the resamples: for the rate of one pool
    prefer `rate_intervals`.

    Peak memory beside the data is `max(n, CHUNK_ELEMENTS) * (5 + c) * 4` bytes: 29 MB for c = 2 up to a million
    rows. With equal keys the resamples do not depend on the chunking, and two calls with equal shapes and the same
    `statistic` object compile once.

    Args:
      key: randomness of the weights.
      statistic: `statistic(sums, *args)`, from sums `[g c]` to an array of any shape; traced, so a function of
        module level.
      values: `[n c]`, what is summed. A column of ones gives the weighted count.
      group: `[n]` in 0..groups-1; -1 leaves the row out. None: all rows are in group 0.
      groups: number of groups.
      unit: `[n]` integers from 0, rows of one unit get the same weight. None: every row is its own unit.
      args: arrays for `statistic` that are not resampled.
      resamples: bootstrap resamples.
      level: confidence level of the interval.

    Returns:
      Interval of the statistic's shape. The interval is widened to contain the value where it does not: the
      percentiles of a minimum over groups may all lie below the minimum itself.

    >>> ones_and_hits = np.array([[1, 1], [1, 0], [1, 1], [1, 1]], np.float32)
    >>> bootstrap(jax.random.key(0), lambda sums: sums[0, 1] / sums[0, 0], ones_and_hits).value
    0.75
    """
    value, draws, n = _point_and_draws(key, statistic, values, group, groups, unit, args, resamples)
    return percentile_interval(value, draws, n, level=level)


def paired_difference(
    key: Key,
    statistic: Callable[..., jax.Array],
    before: Float[Array, "n c"],
    after: Float[Array, "n c"],
    *,
    group: Int[Array, " n"] | None = None,
    groups: int = 1,
    unit: Int[Array, " n"] | None = None,
    args: tuple = (),
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Interval of `statistic(after) - statistic(before)` for two models on the same rows.

    Both models see the same weights, so what makes a resample hard for both cancels. Arguments as in `bootstrap`.
    """
    for name, value in (("before", before), ("after", after)):
        check_numbers(name, value, "n c")
    before, after = np.asarray(before, np.float32), np.asarray(after, np.float32)
    expect(before.shape == after.shape, "after", f"the rows of before, {list(before.shape)}", describe(after))
    return bootstrap(
        key,
        _difference_of(statistic),
        np.concatenate([before, after], axis=1),
        group=group,
        groups=groups,
        unit=unit,
        args=args,
        resamples=resamples,
        level=level,
    )


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
        half = special.stdtrit(seeds - 1, (1 + _checked(level)) / 2) * values.std(axis=0, ddof=1) / np.sqrt(seeds)
    return Interval(plain(mean), plain(mean - half), plain(mean + half), seeds)


def paired_over_seeds(before: Any, after: Any, *, level: float = 0.95) -> Interval:
    """Mean over seeds of `after - before`: both `[s ...]`, of the same seeds in the same order."""
    for name, value in (("before", before), ("after", after)):
        check_numbers(name, value, "s ...")
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    expect(before.shape == after.shape, "after", f"the seeds of before, {list(before.shape)}", describe(after))
    return over_seeds(after - before, level=level)


def percentile_interval(value: Any, draws: Shaped[Array, "r ..."], n: int, *, level: float = 0.95) -> Interval:
    """The interval between the percentiles of the draws `[r ...]`, widened to contain the value; NaN stays NaN."""
    value, draws = np.asarray(value), np.asarray(draws)
    low, high = np.quantile(draws, [(1 - _checked(level)) / 2, (1 + level) / 2], axis=0)
    return Interval(plain(value), plain(np.minimum(low, value)), plain(np.maximum(high, value)), n)


def _point_and_draws(
    key: Key,
    statistic: Callable[..., jax.Array],
    values: Array,
    group: Array | None,
    groups: int,
    unit: Array | None,
    args: tuple,
    resamples: int,
) -> tuple[np.ndarray, np.ndarray, int]:
    """The statistic itself, its resampled values `[r ...]`, and the number of units that enter it."""
    check_numbers("values", values, "n c")
    rows = len(values)
    expect(rows > 0, "values", "at least one row", describe(values))
    expect(resamples > 0, "resamples", "at least 1", resamples)
    check_finite("values", values)
    if group is None:
        group = np.zeros(rows, np.int32)
    check_integers("group", group, rows, -1, groups)
    known = np.asarray(group) >= 0
    if unit is None:
        units, n = rows, int(known.sum())
    else:
        check_integers("unit", unit, rows, 0, None)
        names, unit = np.unique(np.asarray(unit), return_inverse=True)
        units, n = len(names), len(np.unique(unit[known]))
        unit = unit.astype(np.int32)
    point, draws = _resample(
        key,
        statistic,
        jnp.asarray(values, jnp.float32),
        jnp.asarray(group, jnp.int32),
        unit,
        args,
        groups=groups,
        units=units,
        resamples=resamples,
    )
    return np.asarray(point), np.asarray(draws), n


@functools.partial(jax.jit, static_argnames=("statistic", "groups", "units", "resamples"))
def _resample(
    key: Key,
    statistic: Callable[..., jax.Array],
    values: Float[Array, "n c"],
    group: Int[Array, " n"],
    unit: Int[Array, " n"] | None,
    args: tuple,
    *,
    groups: int,
    units: int,
    resamples: int,
) -> Any:
    """(statistic of the data, statistic of every resample `[r ...]`): the only resampling code of the library."""

    def sums(weight: Float[Array, " n"]) -> Float[Array, "g c"]:
        # segment_sum drops rows whose segment is negative: the rows left out.
        return jax.ops.segment_sum(values * weight[:, None], group, num_segments=groups)

    def one(key_weight: Key) -> jax.Array:
        # An exponential can round to 0; the floor keeps a group of one row from turning into 0/0.
        weight = jnp.maximum(jax.random.exponential(key_weight, (units,)), 1e-12)
        weight = weight * (units / jnp.sum(weight))
        return statistic(sums(weight if unit is None else weight[unit]), *args)

    keys, chunk = jax.random.split(key, resamples), max(1, CHUNK_ELEMENTS // values.shape[0])
    point = statistic(sums(jnp.ones(values.shape[0])), *args)
    return point, map_rows(lambda _, some: jax.vmap(one)(some), None, keys, batch_size=chunk)


@functools.lru_cache(maxsize=64)  # the same function object for the same statistic: no second compilation
def _difference_of(statistic: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    def difference(sums: Float[Array, "g two_c"], *args: Any) -> jax.Array:
        before, after = jnp.split(sums, 2, axis=1)
        return statistic(after, *args) - statistic(before, *args)

    return difference


def _checked(level: float) -> float:
    expect(0 < level < 1, "level", "a number between 0 and 1", level)
    return level
