"""What can be asked about sentences: the bias of sentence pairs, and which training sentences taught it.

The log-probability of a sentence is a sum over positions (`positions`), so its gradient is that of a weighted
`HeadProblem`, and the influence of a training sentence is the sum of that of its positions: nothing here is a second
copy of what classifiers use.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Array
from jaxdebias.explain.influence._block import cross_entropy
from jaxdebias.explain.influence._inverse import InverseHessian
from jaxdebias.explain.influence._objective import HeadProblem
from jaxdebias.explain.influence._scores import change_if_removed

ROWS = 1024
"""Positions at a time: each has one logit for every entry of the vocabulary."""


class TokenRows(NamedTuple):
    """m positions as cached features."""

    features: Any
    """What the head takes."""
    token: Array
    """`[m]` int, what stands or comes there."""


class PairRows(NamedTuple):
    """Sentence pairs as cached features of their m positions; see `positions.PairPositions`."""

    rows: TokenRows
    weight: Array
    """`[m]`, signed: a pair's difference is the sum of weight * log p over its positions."""
    pair: Array
    """`[m]` int, which of the n pairs."""
    unit: Array
    """`[n]` int, pairs that belong together."""


def log_probabilities(head: Any, rows: TokenRows) -> Float[jax.Array, " m"]:
    """log p(token) at each position, nats."""
    return map_rows(_log_probability, head, (rows.features, rows.token), batch_size=ROWS)


def sentence_differences(head: Any, pairs: PairRows) -> Float[jax.Array, " n"]:
    """Mean log-probability of a token in the stereotype less that in the other sentence, for each pair."""
    return jax.ops.segment_sum(pairs.weight * log_probabilities(head, pairs.rows), pairs.pair, pairs.unit.shape[0])


def soft_sentence_pair_bias(head: Any, pairs: PairRows) -> Float[jax.Array, ""]:
    """The mean absolute difference: FMD's counterfactual bias of a language model, as `sentence_pair_bias`."""
    return jnp.abs(sentence_differences(head, pairs)).mean()


@jax.jit
def sentence_bias_gradient(head: Any, pairs: PairRows) -> Float[jax.Array, "p"]:
    """The gradient of `soft_sentence_pair_bias` by theta, a chunk of positions at a time."""
    differences = sentence_differences(head, pairs)
    factor = jnp.sign(differences) / differences.shape[0]
    # log p is minus the loss.
    return -_weighted(head, pairs, factor[pairs.pair] * pairs.weight)


@jax.jit
def sentence_pair_gradient(head: Any, pairs: PairRows) -> Float[jax.Array, "p"]:
    """Sum over the pairs of grad loss(stereotype) - grad loss(other), a sentence's loss being the mean of its tokens.

    What FMD's edit with external pairs multiplies by H^-1.
    """
    return _weighted(head, pairs, pairs.weight)


def sentence_changes(
    problem: HeadProblem, inverse: InverseHessian, bias_gradient: Float[Array, "p"], sentence: Int[Array, " m"]
) -> Float[np.ndarray, " n"]:
    """Predicted change of the bias if a training sentence were removed. Negative: a harmful sentence.

    Args:
      problem: the positions of the training sentences.
      inverse: the factor of the training objective, usually of this problem.
      bias_gradient: for instance `sentence_bias_gradient`.
      sentence: of each position, 0..n-1; all of them have to occur, as in `Positions.text`.
    """
    sentence = np.asarray(sentence)
    expect(sentence.shape == problem.label.shape, "sentence", f"int {list(problem.label.shape)}", list(sentence.shape))
    change = np.asarray(change_if_removed(problem, inverse, bias_gradient), np.float64)
    return np.bincount(sentence, change)


def sentence_gradient(kind: str) -> Any:
    """`ext` or `gradB`: the function (head, pairs) -> `[p]` whose result the inverse curvature is applied to."""
    check_choice("direction", kind, ("ext", "gradB"))
    return sentence_pair_gradient if kind == "ext" else _descent


def _descent(head: Any, pairs: PairRows) -> Float[jax.Array, "p"]:
    return -sentence_bias_gradient(head, pairs)


def _weighted(head: Any, pairs: PairRows, weight: Float[Array, " m"]) -> Float[jax.Array, "p"]:
    return HeadProblem(pairs.rows.features, pairs.rows.token, weight, head, 0.0).gradient()


def _log_probability(head: Any, rows: tuple[Any, Array]) -> Float[jax.Array, " b"]:
    features, token = rows
    return -cross_entropy(head.logits(features), token)
