"""Pictures of a bias: the code of SiH's bias branch is moved until that branch sees another class, and decoded.

The signal code stays as it is, so what changes in the picture is what the bias branch goes by. The move follows
DeepFool (Moosavi-Dezfooli et al. 2016), with a given target class, on the mean code and the branch's classifier alone.
Source: "Signal is Harder to Learn than Bias", Vandenhirtz et al. 2023, whose routine is `ShiftConfig(official=True)`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_integers, describe, expect
from jaxdebias.core import Array, Batch, Key, Params, as_float
from jaxdebias.models._vae import Branches

TIE = 1e-4
"""Logit difference that a step closes at least, so that a tie is left."""

SWEEPS = 60
"""Rounds over the classes in the quadratic programme of a step."""


@dataclass(frozen=True, kw_only=True)
class ShiftConfig:
    """How far a code may be moved."""

    steps: int = 20
    """Most steps; the paper takes 20 for figures, 10 while training."""
    overshoot: float = 0.02
    """Every step goes this share further than to the linearised boundary."""
    margin: float = 0.0
    """By how much the target's logit is to lead. At 0, as in the paper, a code ends just beyond the boundary, and its
    picture, encoded again, may fall back; a lead of a few nats makes pictures of a bias that is seen again."""
    official: bool = False
    """As the paper's code: coordinates at or below 0, which the ReLU hides, never move, and ties stay. Some codes then
    reach no other class at all."""

    def __post_init__(self):
        expect(self.steps >= 1, "config.steps", "at least 1", self.steps)
        expect(self.overshoot >= 0, "config.overshoot", "no negative number", self.overshoot)
        expect(self.margin >= 0, "config.margin", "no negative number", self.margin)
        expect(not (self.official and self.margin), "config.margin", "0 with official", self.margin)


class Shift(NamedTuple):
    """Codes that were moved towards a class."""

    z: Float[jax.Array, "n l"]
    target: Int[Array, "n"]
    success: Bool[jax.Array, "n"]
    """Whether the classifier now says the target, by the margin."""
    steps: Int[jax.Array, "n"]
    """Steps taken; 0 where it said so before."""


def draw_targets(key: Key, label: Int[Array, "n"], classes: int) -> Int[jax.Array, "n"]:
    """A class for each row, uniform over those that are not its label."""
    expect(classes >= 2, "classes", "at least 2", classes)
    return (label + jax.random.randint(key, label.shape, 1, classes)) % classes


@functools.partial(jax.jit, static_argnames=("head", "config", "relu"))
def latent_shift(
    head: Callable[[Params, Array], jax.Array],
    params: Params,
    z: Float[Array, "n l"],
    target: Int[Array, "n"],
    config: ShiftConfig = ShiftConfig(),
    *,
    relu: bool = True,
) -> Shift:
    """Moves each code a short way to where the largest logit is the target's; codes that are there stay.

    Each step linearises the classifier at the code and takes (1 + overshoot) times the shortest move that puts the
    target above every other class, a quadratic programme in as many variables as classes. A coordinate that the ReLU
    hides has no derivative; such coordinates as raise the target over the class on top may join a move, which then also
    covers their way up to 0, if it is shorter for it or cannot be made without. Where no move would do, and with
    `config.official` always, the step is DeepFool's: to the boundary of the class on top alone, hidden ones at rest.

    Args:
      head: `(params, u) -> logits [n k]`, row by row; the classifier is `head(params, relu(z))`.
      params: the model's parameters.
      z: `[n d]`, the latents to shift.
      target: `[n]` int, the class to shift to.
      config: settings, see the class.
      relu: False: the classifier is `head(params, z)`, any smooth function.

    >>> identity = lambda params, u: u
    >>> move = lambda z, official: latent_shift(identity, None, jnp.array([z]), jnp.array([1]),
    ...                                         ShiftConfig(official=official))
    >>> move([2.0, 1.0], False).z.round(2).tolist()
    [[1.49..., 1.50...]]
    >>> [bool(move([2.0, -1.0], official).success[0]) for official in (False, True)]
    [True, False]
    """
    expect(z.ndim == 2 and target.shape == z.shape[:1], "target", "one class per row of z [n l]", describe(target))

    def logits(z: jax.Array) -> jax.Array:
        return head(params, jax.nn.relu(z) if relu else z)

    def there(z: jax.Array) -> jax.Array:
        f = logits(z)
        first = f.argmax(axis=1) == target
        of_target = jax.nn.one_hot(target, f.shape[1], dtype=bool)
        lead = jnp.where(of_target, f, -jnp.inf).max(axis=1) - jnp.where(of_target, -jnp.inf, f).max(axis=1)
        return first & (lead >= config.margin)

    def step(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        t, z, steps = carry
        active = ~there(z)
        z = jnp.where(active[:, None], z + (1.0 + config.overshoot) * _move(head, params, z, target, config, relu), z)
        return t + 1, z, steps + active

    def unfinished(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        t, z, _ = carry
        return (t < config.steps) & ~there(z).all()

    z = jnp.asarray(z)
    _, z, steps = jax.lax.while_loop(unfinished, step, (jnp.int32(0), z, jnp.zeros(target.shape, jnp.int32)))
    return Shift(z, target, there(z), steps)


def _move(
    head: Callable[[Params, Array], jax.Array],
    params: Params,
    z: Float[Array, "n l"],
    target: Int[Array, "n"],
    config: ShiftConfig,
    relu: bool,
) -> Float[jax.Array, "n l"]:
    """To the linearised boundary: of the class on top alone (`official`), or of all classes."""
    f, pull = jax.vjp(lambda u: head(params, u), jax.nn.relu(z) if relu else z)
    classes = f.shape[1]
    towards = jax.nn.one_hot(target, classes)[None, :, :] - jnp.eye(classes)[:, None, :]
    gradient = jnp.moveaxis(jax.vmap(pull)(towards)[0], 0, 1)  # [n k l], of f_target - f_k
    gap = f - jnp.take_along_axis(f, target[:, None], axis=1)
    of_target = jax.nn.one_hot(target, classes, dtype=bool)
    top = jnp.where(of_target & (config.margin > 0), -jnp.inf, f).argmax(axis=1)[:, None]  # the one to overtake
    shown = (z > 0) if relu else jnp.ones(z.shape, bool)
    gap_top = jnp.take_along_axis(gap, top, axis=1)[:, 0]
    gradient_top = jnp.take_along_axis(gradient, top[:, :, None], axis=1)[:, 0]
    deepfool = (gap_top / ((shown * gradient_top**2).sum(axis=1) + 1e-8))[:, None] * shown * gradient_top
    if config.official:
        return deepfool

    gap = gap + config.margin
    gap = jnp.where(jnp.abs(gap) < TIE, TIE, gap)
    gap = jnp.where(of_target, -1.0, gap)  # asks nothing
    move, good = _shortest(gap, gradient * shown[:, None, :])
    move = jnp.where(good[:, None], move, deepfool)
    if not relu:
        return move
    hidden = ~shown & (gradient_top > 0)
    lift = jnp.einsum("nkl,nl->nk", gradient, jnp.where(hidden, z, 0.0))
    far, far_good = _shortest(gap - lift, gradient * (shown | hidden)[:, None, :])
    shorter = far_good & (~good | ((far**2).sum(axis=1) < (move**2).sum(axis=1)))
    return jnp.where(shorter[:, None], far, move)


def _shortest(gap: Float[Array, "n k"], gradient: Float[Array, "n k l"]) -> tuple[jax.Array, jax.Array]:
    """The shortest move m `[n l]` with `gradient @ m >= gap`, and whether there is one `[n]`.

    Hildreth's method (1957): coordinate ascent on the multipliers, each the largest that is not negative.
    """
    gram = jnp.einsum("nkl,njl->nkj", gradient, gradient)
    scale = jnp.diagonal(gram, axis1=1, axis2=2) + 1e-8
    classes = gap.shape[1]

    def ascend(i: jax.Array, multiplier: jax.Array) -> jax.Array:
        k = i % classes
        short = gap[:, k] - (gram[:, k] * multiplier).sum(axis=1)
        return multiplier.at[:, k].set(jnp.maximum(multiplier[:, k] + short / scale[:, k], 0.0))

    multiplier = jax.lax.fori_loop(0, SWEEPS * classes, ascend, jnp.zeros_like(gap))
    missing = gap - jnp.einsum("nkj,nj->nk", gram, multiplier)
    size = jnp.abs(gap)  # a step goes further than to the boundary anyway
    good = (missing <= 1e-2 * size + 1e-6 * size.max(axis=1, keepdims=True)).all(axis=1)
    return jnp.einsum("nkl,nk->nl", gradient, multiplier), good


class Shifted(NamedTuple):
    """Rows of a figure, and what both classifiers say on the way. Images are floats in [0, 1]."""

    original: Float[jax.Array, "n h w c"]
    reconstruction: Float[jax.Array, "n h w c"]
    """Decoded from both mean codes."""
    moved: Float[jax.Array, "n h w c"]
    """Decoded from the same signal code and the moved bias code."""
    shift: Shift
    signal_before: Int[jax.Array, "n"]
    """The class that the signal branch sees in the original."""
    signal_after: Int[jax.Array, "n"]
    """The class that it sees in `moved`, encoded again."""
    bias_before: Int[jax.Array, "n"]
    bias_after: Int[jax.Array, "n"]

    def outcomes(self) -> dict[str, Bool[jax.Array, "n"]]:
        """Per row: did the move work, and does the picture show it? For rates with their intervals."""
        return {
            "bias code moved to the target": self.shift.success,
            "bias branch sees the target": self.bias_after == self.shift.target,
            "signal branch sees what it saw": self.signal_after == self.signal_before,
        }


def shift_images(
    branches: Branches,
    variables: Params,
    x: Array,
    target: Int[Array, "n"],
    config: ShiftConfig = ShiftConfig(),
    *,
    batch_size: int = 1024,
) -> Shifted:
    """Moves the bias code of each image to the target class, decodes it, and encodes the picture again.

    Args:
      branches: the autoencoders.
      variables: of `branches`, as in a SiH state.
      x: images `[n h w c]`.
      target: see `draw_targets`.
      config: settings, see the class.
      batch_size: rows at a time.
    """
    expect(hasattr(x, "ndim") and x.ndim == 4, "x", "images [n h w c]", describe(x))
    classes = jax.eval_shape(branches.bias.apply, variables, x).shape[-1]
    check_integers("target", target, x.shape[0], 0, classes)
    return map_rows(
        _shift_images(branches, config), variables, (jnp.asarray(x), jnp.asarray(target)), batch_size=batch_size
    )


@functools.cache
def _shift_images(branches: Branches, config: ShiftConfig) -> Callable[[Params, tuple[Array, Array]], Shifted]:
    def classes(variables: Params, z_signal: jax.Array, z_bias: jax.Array) -> tuple[jax.Array, jax.Array]:
        return tuple(
            classifier.vector.head(variables, jax.nn.relu(z)).argmax(axis=1)
            for classifier, z in ((branches.signal, z_signal), (branches.bias, z_bias))
        )

    def fn(variables: Params, rows: tuple[Array, Array]) -> Shifted:
        x, target = as_float(rows[0]), rows[1]
        codes = branches.encode(variables, x)
        signal, bias = codes.signal.mean, codes.bias.mean
        shift = latent_shift(branches.bias.vector.head, variables, bias, target, config)
        rebuilt, moved = (jax.nn.sigmoid(branches.decode(variables, signal, z)) for z in (bias, shift.z))
        again = branches.encode(variables, moved)
        before = classes(variables, signal, bias)
        after = classes(variables, again.signal.mean, again.bias.mean)
        return Shifted(x, rebuilt, moved, shift, before[0], after[0], before[1], after[1])

    return fn


def both_right(branches: Branches, variables: Params, batch: Batch, *, batch_size: int = 1024) -> Bool[jax.Array, "n"]:
    """Rows on which both branches see the label: most are bias-aligned, found without bias labels."""
    logits = [
        map_rows(branch.apply, variables, jnp.asarray(batch.x), batch_size=batch_size)
        for branch in (branches.signal, branches.bias)
    ]
    return (logits[0].argmax(axis=1) == batch.label) & (logits[1].argmax(axis=1) == batch.label)
