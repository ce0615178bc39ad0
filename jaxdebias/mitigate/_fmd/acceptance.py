"""Whether an edit has lowered the bias by more than chance: a paired test over independent units."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdebias.measure._counterfactual import true_class_probability

EXACT = 16
"""Most units of which every pattern of signs is tried."""


class Drop(NamedTuple):
    """The drop of a bias, taken apart by row."""

    share: Float[jax.Array, "n"]
    """What the row adds to the drop; their sum is the drop."""
    deviation: Float[jax.Array, "n"]
    """The same, less what the mean row of its group adds."""
    member: Bool[jax.Array, "n"]
    """Whether the bias is a function of the row at all."""


def bias_drop_z(before: Any, after: Any, data: Any, bias: str, unit: Int[np.ndarray, "n"] | None = None) -> float:
    """The drop of the bias on the same rows for both heads, as a z value.

    Rows of one unit are no independent evidence: their shares are added first. Of more than `EXACT` units it is the
    drop in cluster-robust standard errors, referred to Student's t with one degree of freedom less than units (as a z
    value by Wallace 1959). Of fewer it is the exact test of all patterns of signs, whose one-sided p is at least
    2^-units: fewer than ten units never reach a z of 3.

    Args:
      before: heads.
      after: heads.
      data: `HeadPairs` for the biases `pair` and `gap`, else `HeadRows`.
      bias: its name.
      unit: `[n]`, which independent unit a row belongs to; None: each row is one.
    """
    share, deviation, member = (np.asarray(part) for part in _drop(before, after, data, bias))
    share, deviation = share[member].astype(np.float64), deviation[member].astype(np.float64)
    if unit is not None:
        _, number = np.unique(np.asarray(unit)[member], return_inverse=True)
        share, deviation = (np.bincount(number, weights=part) for part in (share, deviation))
    return units_z(share, deviation)


def units_z(share: Float[np.ndarray, "m"], deviation: Float[np.ndarray, "m"]) -> float:
    """The z value of `sum(share)` from what each independent unit adds to it, see `bias_drop_z`.

    >>> round(units_z(np.full(10, 0.01), np.zeros(10)), 3)  # p = 2^-10
    3.097
    """
    from scipy.stats import norm

    m, drop = len(share), float(share.sum())
    if m == 0 or drop == 0.0:
        return 0.0
    sign = math.copysign(1.0, drop)
    if m <= EXACT:
        signs = 1.0 - 2.0 * ((np.arange(2**m)[:, None] >> np.arange(m)[None, :]) & 1)
        p = (signs @ (sign * share) >= abs(drop) * (1.0 - 1e-9)).mean()
        return sign * max(float(norm.isf(p)), 0.0)
    error = math.sqrt(m / (m - 1) * float((deviation**2).sum()))
    t, freedom = abs(drop) / max(error, 1e-12), m - 1
    return sign * math.sqrt(freedom * math.log1p(t**2 / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)


@functools.partial(jax.jit, static_argnames=("bias",))
def _drop(before: Any, after: Any, data: Any, bias: str) -> Drop:
    if bias in ("pair", "gap"):
        terms = []
        for head in (before, after):
            p, p_twin = (true_class_probability(head.logits(z), data.label) for z in (data.features, data.twin))
            change = p - p_twin
            terms.append(jnp.abs(change) if bias == "pair" else change * jnp.sign(change.mean()))
        share = (terms[0] - terms[1]) / terms[0].size
        return Drop(share, share - share.mean(), jnp.ones(share.shape, bool))
    p, p_after = (jax.nn.softmax(head.logits(data.features))[:, 1] for head in (before, after))
    members = {
        "demographic_parity": [data.label >= 0],
        "equal_opportunity": [data.label == 1],
        "equalised_odds": [data.label == 0, data.label == 1],
    }[bias]
    gaps = [_drop_of_gap(p, p_after, member, data.attribute) for member in members]
    # Equalised odds is the larger gap of two: what counts is the one that was larger.
    first = jnp.stack([gap for gap, _ in gaps]).argmax()
    return jax.tree.map(lambda *leaves: jnp.stack(leaves)[first], *(drop for _, drop in gaps))


def _drop_of_gap(p: jax.Array, p_after: jax.Array, member: jax.Array, attribute: jax.Array) -> tuple[jax.Array, Drop]:
    """(the gap between the attributes before, its drop) among the members."""
    gap, share, deviation = 0.0, 0.0, 0.0
    for value, sign in ((0, 1.0), (1, -1.0)):
        here = member & (attribute == value)
        count = jnp.maximum(here.sum(), 1)
        mean = (here * (p - p_after)).sum() / count
        gap += sign * (here * p).sum() / count
        share += sign * here * (p - p_after) / count
        deviation += sign * here * (p - p_after - mean) / count
    side = jnp.sign(gap)
    return jnp.abs(gap), Drop(side * share, side * deviation, member & (attribute >= 0))
