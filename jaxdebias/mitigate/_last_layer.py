"""What every repair sees: the sets that it needs, and the last layer of a trained model with its features."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxdebias.batching import map_rows, unpair
from jaxdebias.contracts import check_batch, describe, expect
from jaxdebias.core import Array, Batch, Classifier, Params, RepairSets, Split
from jaxdebias.explain.influence._find_head import find_head
from jaxdebias.explain.influence._objective import AffineHead

Model = Classifier | Split | Callable[[Params, Array], jax.Array]
"""A classifier, a model cut before its last layer, or, where a method cuts it itself, any `(params, x) -> logits`."""


def as_split(model: Model) -> Split:
    """The model cut before its last layer.

    Raises:
      ContractError: a function, which cannot be cut here.
    """
    if isinstance(model, Classifier):
        return model.vector
    expect(isinstance(model, Split), "model", "a Classifier, or a Split before the last layer", describe(model))
    return model


def as_function(model: Model) -> Callable[[Params, Array], jax.Array]:
    """The whole model as `(params, x) -> logits`: the same object for the same model, so nothing compiles again."""
    if isinstance(model, Classifier):
        return model.apply
    if isinstance(model, Split):
        return _whole(model)
    expect(callable(model), "model", "a Classifier, a Split or a function", describe(model))
    return model


@functools.cache
def _whole(split: Split) -> Callable[[Params, Array], jax.Array]:
    return lambda params, x: split.head(params, split.features(params, x))


def frozen_features(split: Split, params: Params, x: Array, *, batch_size: int) -> Float[jax.Array, "n d"]:
    """What the last layer sees; floats in float32 at least: half precision is for the trunk, not for a fit on it."""
    z = map_rows(split.features, params, jnp.asarray(x), batch_size=batch_size)
    expect(z.ndim == 2, "split.features", "vectors [n d] before the last layer", describe(z))
    return z.astype(jnp.promote_types(z.dtype, jnp.float32)) if jnp.issubdtype(z.dtype, jnp.floating) else z


def last_layer(split: Split, params: Params, width: int) -> tuple[AffineHead, Callable[[Params, AffineHead], Params]]:
    """The head in params, and the function that puts another one in its place; see `influence.find_head`."""
    return find_head(split.head, params, split.head_path, width)


def needed(sets: RepairSets, *names: str) -> RepairSets:
    """The sets without their padding, of which those named are there, well formed and not empty.

    Raises:
      ContractError: a set that is missing, malformed, or all padding; pairs without twins.
    """
    expect(isinstance(sets, RepairSets), "sets", "RepairSets, see repair_sets(dataset)", type(sets).__name__)
    for name in names:
        batch = getattr(sets, name)
        expect(batch is not None, f"sets.{name}", PURPOSE[name], None)
        check_batch(batch, what=f"sets.{name}")
        if "pairs" in name:
            expect(batch.twin is not None, f"sets.{name}.twin", "the conflicting rendering of x", None)
    found = sets.counted()
    for name in names:
        expect(len(getattr(found, name).label) > 0, f"sets.{name}.weight", "some row of positive weight", "none")
    return found


PURPOSE = {
    "train": "the training set",
    "edit": "held-out samples to fit on",
    "pairs": "held-out pairs to fit on",
    "accept": "held-out samples for choices",
    "accept_pairs": "held-out pairs for choices",
}


def held_out_rows(sets: RepairSets) -> Batch:
    """What a repair without pairs of its own fits on: both sides of each pair if there are any, else the edit rows."""
    if sets.pairs is not None and len(sets.pairs.label) > 0:
        return unpair(sets.pairs)
    expect(sets.edit is not None, "sets.edit, sets.pairs", "held-out samples or pairs to fit on", None)
    return sets.edit
