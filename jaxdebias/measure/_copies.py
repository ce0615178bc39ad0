"""Attributes that say the same, and attributes that only accompany the one that matters."""

from collections.abc import Mapping, Sequence

import numpy as np

COPY = 0.9
"""Agreement from which on two attributes are one finding with two names."""
COPY_BEYOND_CHANCE = 0.8
"""The same beyond chance (Cohen's kappa): two attributes that hardly vary agree on 90 % of the rows by chance."""


def agreement(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Share of rows on which two attributes agree, and the same beyond chance, values matched one to one.

    Args:
      first: `[n]` integers, -1 unknown.
      second: `[n]` the same. Rows that lack one of the two do not count.

    >>> agreement(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]))
    (1.0, 1.0)
    """
    from scipy.optimize import linear_sum_assignment  # slow to import

    known = (first >= 0) & (second >= 0)
    if not known.any():
        return 0.0, 0.0
    _, first = np.unique(first[known], return_inverse=True)
    _, second = np.unique(second[known], return_inverse=True)
    shape = int(first.max()) + 1, int(second.max()) + 1
    share = np.bincount(first * shape[1] + second, minlength=shape[0] * shape[1]).reshape(shape) / len(first)
    match = linear_sum_assignment(-share)
    agree, by_chance = float(share[match].sum()), float((share.sum(1)[match[0]] * share.sum(0)[match[1]]).sum())
    return agree, (agree - by_chance) / (1.0 - by_chance) if by_chance < 1.0 else 0.0


def are_copies(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two attributes `[n]` agree on at least 90 % of the rows, and not by chance."""
    agree, beyond = agreement(first, second)
    return agree >= COPY and beyond >= COPY_BEYOND_CHANCE


def explained_by(
    leaning: Sequence[str],
    conditional: Mapping[tuple[str, str], float],
    same: Mapping[str, Sequence[str]],
    alpha: float,
) -> dict[str, str]:
    """Attributes that do not lean within (label, another attribute), and that other attribute.

    If neither of two leans given the other, the stronger one explains the weaker.

    Args:
      leaning: attributes whose mistakes lean, the strongest first.
      conditional: (name, given) -> adjusted p of the lean of `name` within `given`, for all that are no copies.
      same: name -> its copies, which explain nothing: they are the same finding.
      alpha: level.
    """
    explained: dict[str, str] = {}
    for name in reversed(leaning):  # the weakest first, so that the strongest of a circle remains
        for other in leaning:
            # A weaker one that does not lean given this one has been explained already: no two explain each other.
            if other == name or other in explained or other in same[name] or conditional[name, other] <= alpha:
                continue
            explained[name] = other
            break
    return explained
