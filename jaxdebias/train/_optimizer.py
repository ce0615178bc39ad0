"""What is trained, and by which rule: a hashable optimiser configuration and one update of a model's variables."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import optax
from jaxtyping import Float

from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Array, Params


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An optimiser by its numbers. Equal configurations build the same optax object, so nothing compiles again."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    """Added to the gradient by adam and sgd (L2, as in PyTorch); decoupled in adamw."""
    momentum: float = 0.9
    """Of sgd; 0 for none. The others ignore it."""
    nesterov: bool = False
    """Of sgd."""
    schedule: Literal["constant", "cosine"] = "constant"
    steps: int | None = None
    """Length of the cosine schedule, in steps; the learning rate is 0 from then on."""
    clip: float | None = None
    """Largest global norm of the gradient, before weight decay is added."""

    def __post_init__(self):
        check_choice("optimizer.name", self.name, ("adam", "adamw", "sgd"))
        check_choice("optimizer.schedule", self.schedule, ("constant", "cosine"))
        expect(self.learning_rate > 0, "optimizer.learning_rate", "a positive number", self.learning_rate)
        expect(self.weight_decay >= 0, "optimizer.weight_decay", "no negative number", self.weight_decay)
        expect(self.clip is None or self.clip > 0, "optimizer.clip", "None or a positive norm", self.clip)
        needs_steps = self.schedule == "cosine"
        expect(not needs_steps or (self.steps or 0) > 0, "optimizer.steps", "steps of the cosine schedule", self.steps)

    def build(self) -> optax.GradientTransformation:
        """The optax transformation: the same object for equal configurations.

        >>> Optimizer(learning_rate=0.1).build() is Optimizer(learning_rate=0.1).build()
        True
        """
        return _build(self)


@functools.cache
def _build(config: Optimizer) -> optax.GradientTransformation:
    rate = config.learning_rate
    if config.schedule == "cosine":
        rate = optax.cosine_decay_schedule(rate, config.steps)
    parts = []
    if config.clip is not None:
        parts.append(optax.clip_by_global_norm(config.clip))
    if config.weight_decay and config.name != "adamw":
        parts.append(optax.add_decayed_weights(config.weight_decay))
    if config.name == "sgd":
        parts.append(optax.sgd(rate, momentum=config.momentum or None, nesterov=config.nesterov))
    elif config.name == "adam":
        parts.append(optax.adam(rate))
    else:
        parts.append(optax.adamw(rate, weight_decay=config.weight_decay))
    return optax.chain(*parts)


def trainable(variables: Params) -> Params:
    """The part of a model's variables that gradients move.

    The rule, for any model: variables that are a mapping with the entry `"params"` are Linen's, and that entry is
    trained while the others (batch statistics) change only by the forward pass; everything else is trained whole.

    >>> trainable({"params": 1.0, "batch_stats": 2.0}), trainable([1.0, 2.0])
    (1.0, [1.0, 2.0])
    """
    return variables["params"] if _has_collections(variables) else variables


def with_trainable(variables: Params, params: Params) -> Params:
    """The variables with their trainable part replaced; the inverse of `trainable`, of the same tree structure."""
    return type(variables)({**variables, "params": params}) if _has_collections(variables) else params


def _has_collections(variables: Any) -> bool:
    return isinstance(variables, Mapping) and "params" in variables


def update(
    transformation: optax.GradientTransformation,
    gradient: Params,
    opt_state: Any,
    params: Params,
    lr_scale: Float[Array, ""],
) -> tuple[Params, Any]:
    """One step of the optimiser, its update multiplied by `lr_scale` (what a plateau schedule lowers).

    Returns:
      (new params, new opt_state).
    """
    change, opt_state = transformation.update(gradient, opt_state, params)
    change = jax.tree.map(lambda leaf: lr_scale.astype(leaf.dtype) * leaf, change)
    return optax.apply_updates(params, change), opt_state
