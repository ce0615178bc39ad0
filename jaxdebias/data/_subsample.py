"""Which rows to train on so that an attribute goes with the label as much, or as little, as one wants.

Two manipulations of real data, with which a bias measure can be put to the test: subsets of equal size whose labels and
attributes have a chosen correlation, and subsets with one value of an attribute only.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdebias.contracts import check_integers, describe, expect
from jaxdebias.core import Array, cell_counts
from jaxdebias.data.streams import named_rng

STEP = 0.01
"""By how much the correlation moves from one solution to the next on the way to a target."""
TOLERANCE = 0.01
"""How far the correlation of whole images may be from its target."""
CLOSE = 1e-3
"""A rounded table this near its target is left as it is."""
SMALLEST = 1e-3
"""Share of the total below which no group goes while it is solved for, which keeps the correlation smooth."""


class Subsamples(NamedTuple):
    """A subset of the rows for each target correlation, all of one size."""

    target: Float[np.ndarray, " m"]
    achieved: Float[np.ndarray, " m"]
    """Correlation of the subset."""
    sizes: Int[np.ndarray, "m 2 2"]
    """Rows per (label, attribute)."""
    indices: Int[np.ndarray, "m total"]
    """Rows of each subset, ascending."""


def matthews_correlation(counts: Array) -> float:
    """Matthews' correlation of two binary variables from their table of counts `[2 2]`; NaN with an empty margin.

    >>> matthews_correlation(np.array([[30, 10], [10, 30]]))
    0.5
    """
    expect(np.shape(counts) == (2, 2), "counts", "a table [2 2]", describe(counts))
    n = np.asarray(counts, np.float64)
    margins = np.prod(n.sum(0)) * np.prod(n.sum(1))
    return float((n[1, 1] * n[0, 0] - n[1, 0] * n[0, 1]) / np.sqrt(margins)) if margins > 0 else float("nan")


def subsample_by_correlation(
    label: Int[Array, " n"],
    attribute: Int[Array, " n"],
    targets: Float[Array, " m"] | Sequence[float],
    *,
    total: int | None = None,
    seed: int = 0,
) -> Subsamples:
    """Subsets of equal size with chosen Matthews correlations of label and attribute, changed as little as possible.

    The sizes of the four groups minimise `sum (g - g0)^2 / g^2` under the correlation, the total and `0 < g <= full
    counts`. As in the paper a target is approached in steps of 0.01, g0 being the solution of the step before; unlike
    there the walk starts from the full counts shrunk in proportion to the total, so that the base correlation keeps
    the proportions exactly. Without a `total` it is the smallest that two such walks to the lowest and highest target
    meet when the total is free: what the hardest target leaves of the data.

    Which rows of a group stay is fixed by the seed, and a larger subset of a group contains the smaller one: subsets
    of near targets differ in few rows. Equal arguments give equal rows.

    Args:
      label: `[n]`, 0 or 1; rows of unknown attribute (-1) are in no subset.
      attribute: as `label`.
      targets: correlations, of which all subsets are made in one call, for instance 41 from base - 0.2 to base + 0.2.
      total: rows of each subset; None: see above.
      seed: which rows.

    Raises:
      ContractError: an empty group, a total beyond the rows, or a target that no subset of this size comes within 0.01
        of.

    Source: Serianni et al. 2025, section on subsampling (official code).
    """
    n = len(label)
    check_integers("label", label, n, 0, 2)
    check_integers("attribute", attribute, n, -1, 2)
    targets = np.asarray(targets, np.float64)
    good = targets.ndim == 1 and len(targets) > 0 and bool((np.abs(targets) < 1).all())
    expect(good, "targets", "correlations above -1 and below 1", describe(targets))
    full = cell_counts(label, attribute, 2, 2)
    expect(bool((full > 0).all()), "label, attribute", "rows in each of the four groups", full.tolist())
    counts, base = full.reshape(-1).astype(np.float64), matthews_correlation(full)
    if total is None:
        free = [walk for end in (targets.min(), targets.max()) for walk in _walk(counts, counts, base, [end], None)]
        total = int(np.floor(min([counts.sum(), *(sizes.sum() for _, sizes in free)]) + 1e-6))
    expect(bool(4 <= total <= counts.sum()), "total", f"4..{int(counts.sum())} rows", total)

    start = counts * (total / counts.sum())
    sizes = np.empty((len(targets), 2, 2), np.int64)
    for below in (True, False):
        side = np.flatnonzero(targets < base) if below else np.flatnonzero(targets >= base)
        side = side[np.argsort(targets[side])]
        side = side[::-1] if below else side
        solutions = dict(_walk(start, counts, base, targets[side].tolist(), float(total)))
        for i in side:
            sizes[i] = _whole(solutions[float(targets[i])], counts, total, targets[i]).reshape(2, 2)
    achieved = np.array([matthews_correlation(table) for table in sizes])
    worst = int(np.argmax(np.abs(achieved - targets)))
    expect(
        bool(abs(achieved[worst] - targets[worst]) <= TOLERANCE),
        "targets",
        f"correlations that {total} of the rows can have",
        f"{targets[worst]:.4g}, nearest {achieved[worst]:.4g}",
    )

    order = {
        (y, a): named_rng(seed, f"subsample {y} {a}").permutation(
            np.flatnonzero((np.asarray(label) == y) & (np.asarray(attribute) == a))
        )
        for y in (0, 1)
        for a in (0, 1)
    }
    indices = np.stack(
        [np.sort(np.concatenate([rows[: table[cell]] for cell, rows in order.items()])) for table in sizes]
    )
    return Subsamples(targets, achieved, sizes, indices)


def one_sided(attribute: Int[Array, " n"], value: int) -> Int[np.ndarray, " m"]:
    """The rows where an attribute has one value only: a model trained on them never sees the other.

    >>> one_sided(np.array([0, 1, 1, 0]), 1).tolist()
    [1, 2]

    Raises:
      ContractError: no such row.
    """
    check_integers("attribute", attribute, len(attribute), -1, None)
    rows = np.flatnonzero(np.asarray(attribute) == value)
    expect(len(rows) > 0, "value", f"one of {', '.join(map(str, np.unique(attribute)))}", value)
    return rows


def _walk(
    start: np.ndarray, counts: np.ndarray, base: float, targets: Sequence[float], total: float | None
) -> list[tuple[float, np.ndarray]]:
    """(correlation, sizes `[4]`) of every step from `start` through targets that lead away from `base` in order."""
    here, at, steps = start, base, []
    for target in targets:
        while at != target:
            at = target if abs(target - at) <= STEP else at + np.sign(target - at) * STEP
            here = _nearest(here, counts, at, total)
            steps.append((at, here))
        steps.append((target, here))
    return steps


def _nearest(before: np.ndarray, counts: np.ndarray, correlation: float, total: float | None) -> np.ndarray:
    """Sizes `[4]` of the given correlation (and total), least changed against `before` by the published measure."""
    from scipy import optimize  # a dependency of jax; loaded only here because it is slow to import

    scale = before.sum() if total is None else total
    old = before / scale

    def moved(g: np.ndarray) -> tuple[float, np.ndarray]:
        change = 1 - old / g
        return float((change**2).sum()), 2 * change * old / g**2

    constraints = [
        {"type": "eq", "fun": lambda g: _correlation(g)[0] - correlation, "jac": lambda g: _correlation(g)[1]}
    ]
    if total is not None:
        constraints.append({"type": "eq", "fun": lambda g: g.sum() - 1, "jac": np.ones_like})
    least = min(SMALLEST, 0.5 * float(old.min()))
    found = optimize.minimize(
        moved,
        old,
        jac=True,
        method="SLSQP",
        constraints=constraints,
        bounds=[(least, max(most, least)) for most in counts / scale],
        options={"ftol": 1e-14, "maxiter": 200},
    )
    return found.x * scale


def _correlation(g: np.ndarray) -> tuple[float, np.ndarray]:
    """Matthews' correlation of sizes (00, 01, 10, 11), and its gradient."""
    a, b, c, d = g
    margins = np.array([a + b, c + d, a + c, b + d])
    root = np.sqrt(margins.prod())
    value = (a * d - b * c) / root
    inverse = 1 / margins
    by_size = np.array(
        [inverse[0] + inverse[2], inverse[0] + inverse[3], inverse[1] + inverse[2], inverse[1] + inverse[3]]
    )
    return float(value), np.array([d, -c, -b, a]) / root - value / 2 * by_size


def _whole(sizes: np.ndarray, counts: np.ndarray, total: int, target: float) -> np.ndarray:
    """Whole numbers near the sizes: of this total, within the counts, then moved one by one nearer to the target."""
    floor = np.minimum(np.floor(sizes + 1e-9), counts).astype(np.int64)
    for i in np.argsort(floor - sizes, kind="stable"):  # largest remainder first
        if floor.sum() < total and floor[i] < counts[i]:
            floor[i] += 1
    while floor.sum() < total:
        floor[np.argmax(counts - floor)] += 1

    def miss(g: np.ndarray) -> float:
        return abs(matthews_correlation(g.reshape(2, 2)) - target)

    moves = [np.eye(4, dtype=np.int64)[i] - np.eye(4, dtype=np.int64)[j] for i in range(4) for j in range(4) if i != j]
    while miss(floor) > CLOSE:
        allowed = [floor + move for move in moves if ((floor + move >= 1) & (floor + move <= counts)).all()]
        best = min(allowed, key=miss, default=floor)
        if not miss(best) < miss(floor):
            return floor
        floor = best
    return floor
