"""Test of many overlapping groups at once: the largest deviation of any of them, against permuted outcomes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxdebias.core import Array, Key
from jaxdebias.measure._significance import CHUNK, numpy_generator

DRAWS = 2000
"""Permutations."""


def slice_p(
    key: Key,
    event: Bool[np.ndarray, "f n"],
    family: Bool[np.ndarray, "f n"],
    groups: Sequence[Int[np.ndarray, " n"]],
    x: Sequence[Float[np.ndarray, "f _"]],
    n: Sequence[Float[np.ndarray, "f _"]],
    *,
    weight: Shaped[Array, " n"] | None = None,
    draws: int = DRAWS,
) -> np.ndarray:
    """`[e]`: p of no deviation for each of several ways to form groups, adjusted over all of their groups together.

    The deviation of a group is |rate - rate of the family| in standard errors of drawing the group from the family
    without replacement. Outcomes are permuted within the family; p is the share of permutations whose largest
    deviation, over all groups of all ways, reaches the largest of this way (Westfall and Young 1993, single step): the
    chance of any false finding is at most the level, however the groups overlap. Outcomes are dealt to the cells that
    all ways form together, of which each group is a union.

    Args:
      key: randomness of the permutations.
      event: `[f n]` outcomes in families of rows.
      family: `[f n]` rows that count in the family.
      groups: for each way `[n]` in 0..g-1, -1 for rows in no group.
      x: for each way `[f g]` successes; effective numbers of clustered rows.
      n: for each way `[f g]` trials; 0 for a group that takes no part.
      weight: `[n]`; rows of weight 0 are padding and not dealt.
      draws: number of permutations.
    """
    counted = np.ones(family.shape[1], bool) if weight is None else np.asarray(weight) > 0
    combinations, cell = np.unique(np.stack(groups), axis=1, return_inverse=True)
    cell, cells = np.reshape(cell, -1), combinations.shape[1]
    rng = numpy_generator(key)
    observed, largest = np.zeros(len(groups)), np.zeros(draws)
    for f in range(len(event)):
        rows = family[f] & counted
        size = np.bincount(cell[rows], minlength=cells)
        total, events = int(size.sum()), int((event[f] & rows).sum())
        if not 0 < events < total:
            continue
        rate = events / total
        member = [(of_cell == np.flatnonzero(n[way][f] > 0)[:, None]) for way, of_cell in enumerate(combinations)]
        for way, of_group in enumerate(member):
            taking = n[way][f] > 0
            part = of_group @ size / total
            error = np.sqrt(rate * (1 - rate) * np.maximum(1 - part, 1e-12) / n[way][f][taking])
            deviation = np.abs(x[way][f][taking] / n[way][f][taking] - rate) / error
            observed[way] = max(observed[way], deviation[part < 1].max(initial=0.0))
        union = np.concatenate(member)
        trials = union @ size
        union, trials = union[trials < total], trials[trials < total]
        error = np.sqrt(trials * rate * (1 - rate) * (1 - trials / total))
        at_once = max(1, CHUNK // max(cells, len(union)))
        for start in range(0, draws, at_once):
            dealt = rng.multivariate_hypergeometric(size, events, min(at_once, draws - start), method="marginals")
            deviation = np.abs(dealt @ union.T - trials * rate) / error
            part = slice(start, start + len(dealt))
            largest[part] = np.maximum(largest[part], deviation.max(1, initial=0.0))
    return (1 + (largest >= observed[:, None] * (1 - 1e-9)).sum(1)) / (1 + draws)
