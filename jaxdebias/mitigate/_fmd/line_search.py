"""How far to go along a step: candidates in units of what they do to the logits, judged on held-out examples.

What is held out is a view: `AcceptView` of a classifier, `language_fmd.LanguageView` of a language model. It says how a
head does on it (`judged`, with a field `bias`), what the bias is a function of (`bias_data`), and how large a step is
there (`unit`).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdebias.batching import map_rows
from jaxdebias.core import Array
from jaxdebias.explain.influence._objective import AffineHead, HeadPairs


class AcceptView(NamedTuple):
    """The accept sets as cached features."""

    features: Any
    """What the head takes, n rows."""
    label: jax.Array
    """`[n]`"""
    weight: jax.Array
    """`[n]`"""
    pairs: HeadPairs
    bias_data: Any
    """What the bias is a function of, beside the head: the pairs, or `HeadRows`."""

    def judged(self, head: Any, bias_fn: Callable) -> "Judged":
        """A head on the accept sets."""
        right = _logits(head, self.features).argmax(axis=1) == self.label
        aligned = _logits(head, self.pairs.features).argmax(axis=1) == self.pairs.label
        return Judged(bias_fn(head, self.bias_data), (self.weight * right).sum() / self.weight.sum(), aligned.mean())

    def unit(self, head: Any, direction: Any) -> jax.Array:
        """Rms change of the centred logits of the pairs at t = 1.

        Off the last layer logits are not linear in the step: the unit is that of its first order.
        """
        both = self.pairs.features, self.pairs.twin
        change = jax.jvp(lambda t: [moved(head, direction, t).logits(z) for z in both], (0.0,), (1.0,))[1]
        change = jnp.concatenate(change)
        return jnp.sqrt(((change - change.mean(axis=1, keepdims=True)) ** 2).mean())


class Judged(NamedTuple):
    """A head, or m of them, on the accept sets."""

    bias: Array
    accuracy: Array
    aligned: Array
    """Accuracy on the aligned renderings of the pairs."""


class Search(NamedTuple):
    """All candidates of one round."""

    t: Array
    """`[m]`, as multiples of the step."""
    judged: Any
    """`[m]` each; of an `AcceptView` `Judged`."""
    slope: Array
    """Derivative of the bias by t at 0."""
    unit: Array
    """Size of the step at t = 1, as the view measures it."""


def candidates(steps_per_octave: int, *, low: int = -5, high: int = 4) -> Float[np.ndarray, "m"]:
    """The candidates u: 0 and 2^low .. 2^high, in the unit of the view; as given for the centred logits of classifiers.

    >>> candidates(1)[:4].tolist(), candidates(1)[-1].item(), len(candidates(4))
    ([0.0, 0.03125, 0.0625, 0.125], 16.0, 38)
    """
    exponents = np.arange(low * steps_per_octave, high * steps_per_octave + 1) / steps_per_octave
    return np.concatenate([[0.0], 2.0**exponents]).astype(np.float32)


def near(
    accuracy: Float[Array, "m"], bias: Float[Array, "m"], aligned: Float[Array, "m"], *, floor: float, tolerance: float
) -> int:
    """The candidate of least bias among those within `tolerance` of the best accuracy; the first of equals.

    Candidate 0 is the present head. Others under the floor of aligned accuracy, or not finite, are not candidates.

    >>> near(np.array([0.5, 0.7, 0.795, 0.80]), np.array([0.6, 0.1, 0.2, 0.3]), np.ones(4), floor=0.9, tolerance=0.01)
    2
    """
    allowed = (np.asarray(aligned) >= floor) & np.isfinite(np.asarray(bias))
    allowed[0] = True
    accuracy = np.where(allowed, accuracy, -np.inf)
    enough = accuracy.max() - tolerance - 1e-6  # one point of 2,000 float32 examples is one point
    return int(np.argmin(np.where(accuracy >= enough, bias, np.inf)))


def _judge(head: Any, view: Any, bias_fn: Callable) -> Any:
    return view.judged(head, bias_fn)


judge = jax.jit(_judge, static_argnames=("bias_fn",))
"""(head, view, bias_fn) -> what the view judges."""


def moved(head: Any, direction: Any, t: Any) -> Any:
    """The head after t times the step; `direction` is a head that holds the step."""
    return head.at(jax.tree.map(lambda leaf, change: leaf + t * change, head.theta, direction.theta))


@functools.partial(jax.jit, static_argnames=("bias_fn",))
def search(head: Any, direction: Any, view: Any, grid: Float[Array, "m"], bias_fn: Callable) -> Search:
    """All candidates of one round in one program; `direction` is a head that holds the step."""
    unit = view.unit(head, direction)
    t = jnp.where(unit > 0, grid / jnp.where(unit > 0, unit, 1.0), 0.0)
    each = jax.vmap if isinstance(head, AffineHead) else _one_by_one
    judged = each(lambda t: view.judged(moved(head, direction, t), bias_fn))(t)
    _, slope = jax.jvp(lambda t: bias_fn(moved(head, direction, t), view.bias_data), (0.0,), (1.0,))
    return Search(t, judged, slope, unit)


def _one_by_one(fn: Callable) -> Callable:
    """Like `vmap`, in the memory of one: the activations of a block are not those of a head."""
    return lambda t: jax.lax.map(fn, t)


def _logits(head: Any, features: Any) -> jax.Array:
    return map_rows(_head_logits, head, features, batch_size=8192)


def _head_logits(head: Any, features: Any) -> jax.Array:
    return head.logits(features)
