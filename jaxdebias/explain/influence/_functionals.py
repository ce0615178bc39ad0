"""What influence can be asked about: scalar functions B(head, data) of a head, differentiable in it.

`pair_bias` and `pair_gap` (in `objective`) take `HeadPairs`; those here take `HeadRows`. Each goes to `bias_gradient`,
to `change_if_removed` through it, and by its name to `FmdConfig(bias=...)`. Any function of yours with the same
signature does as well.
"""

from typing import Any, NamedTuple

import jax
from jaxtyping import Float

from jaxdebias.core import Array
from jaxdebias.explain.influence._block import cross_entropy
from jaxdebias.measure import _fairness as fairness


class HeadRows(NamedTuple):
    """Held-out examples as cached features."""

    features: Any
    """What the head takes."""
    label: Array
    """`[n]` int."""
    attribute: Array
    """`[n]` int, 0..a-1."""


def demographic_parity(head: Any, rows: HeadRows) -> Float[jax.Array, ""]:
    """Soft demographic parity difference of class 1: of the mean probabilities of the groups."""
    return fairness.soft_demographic_parity(_positive(head, rows), rows.attribute)


def equal_opportunity(head: Any, rows: HeadRows) -> Float[jax.Array, ""]:
    """Soft equal opportunity difference: the same among examples of label 1."""
    return fairness.soft_equal_opportunity(_positive(head, rows), rows.label, rows.attribute)


def equalised_odds(head: Any, rows: HeadRows) -> Float[jax.Array, ""]:
    """Soft equalised odds difference: the larger of that among label 1 and that among label 0."""
    return fairness.soft_equalised_odds(_positive(head, rows), rows.label, rows.attribute)


def subset_loss(head: Any, rows: HeadRows) -> Float[jax.Array, ""]:
    """Mean cross-entropy of the rows, for instance of one group: who is responsible for its errors?"""
    return cross_entropy(head.logits(rows.features), rows.label).mean()


GROUP_BIASES = {
    "demographic_parity": demographic_parity,
    "equal_opportunity": equal_opportunity,
    "equalised_odds": equalised_odds,
}
"""By name."""


def _positive(head: Any, rows: HeadRows) -> Float[jax.Array, "n"]:
    return jax.nn.softmax(head.logits(rows.features))[:, 1]
