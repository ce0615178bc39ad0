"""Fine-tuning of one block of parameters of any model, such as the channel mixing of its first layer.

As fast as a small training: what lies before the block is computed once. See `_fine_tune` for what it is compared with.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.batching import map_rows
from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array, Batch, Classifier, Key, Params, RepairSets, Split
from jaxdebias.explain.influence._block import find_block
from jaxdebias.explain.influence._cut import ApplyFn, Cut, Where, last_layers, layers_in_order, paths
from jaxdebias.explain.influence._program import Mix
from jaxdebias.mitigate._fine_tune import FineTuneConfig, FineTuneInfo, best_of_rates, tuning_rows
from jaxdebias.mitigate._last_layer import Model, as_function

LARGEST = 8
"""GiB of frozen features that a block may be trained on."""

MIX_RATE = 30.0
"""How much faster than other parameters a channel mixing is trained (chosen on an accept split)."""


def fine_tune_block(
    key: Key,
    model: Model,
    params: Params,
    sets: RepairSets,
    config: FineTuneConfig = FineTuneConfig(learning_rates=(3e-3, 1e-3)),
    *,
    block: Where | None = None,
    batch_size: int = 256,
) -> tuple[Params, FineTuneInfo]:
    """Train a block of parameters alone, from where it is; what lies before it is computed once.

    With the channel mixing of the first layer in the block (`influence.Mix`), colour can be taken out where it enters,
    by a few numbers for each unit, and images are still seen once. A mixing entry moves a whole layer's input: its
    updates are `MIX_RATE` times those of other parameters.

    Args:
      key: for the order of the samples.
      model: a classifier, a model cut in two, or any `(params, x) -> logits [n k]` in evaluation mode.
      params: where training starts.
      sets: as in `fine_tune`.
      config: epochs, batch size and the learning rates to try.
      block: what is trained, see `influence.Where`; None: `mixing_block`.
      batch_size: rows at a time through the network before the block.

    Returns:
      (params, info): only the leaves of the block are new.

    Raises:
      ContractError: sets that are missing or malformed, images of one channel without a block, frozen features that do
        not fit in memory.
    """
    data, accept = tuning_rows(sets, config)
    apply_fn = as_function(model)
    if block is None:
        block = mixing_block(apply_fn, params, data.x)
    head, features, replace = find_block(apply_fn, params, jnp.asarray(data.x[:2]), block)
    of_one = jax.eval_shape(features, params, jax.ShapeDtypeStruct((1, *data.x.shape[1:]), data.x.dtype))
    size = 4 * len(data.label) * sum(math.prod(part.shape) for part in of_one) / 2**30
    expect(
        size <= LARGEST,
        "block",
        f"frozen features of at most {LARGEST} GiB (fewer samples, or a later block)",
        f"{size:.1f} GiB",
    )

    def packed(batch: Batch) -> tuple[Batch, tuple[tuple[int, ...], ...]]:
        """The frozen features as one table, and the shapes of its parts."""
        parts = map_rows(features, params, jnp.asarray(batch.x), batch_size=batch_size)
        table = np.concatenate([np.asarray(part, np.float32).reshape(len(part), -1) for part in parts], axis=1)
        return (
            Batch(table, batch.label, batch.attribute, weight=batch.weight),
            tuple(tuple(part.shape[1:]) for part in parts),
        )

    (data, shapes), (accept, _) = packed(data), packed(accept)
    start = {"params": _scaled(head.cut, head.theta, 1.0 / MIX_RATE), "frozen": head.params}
    trained, info = best_of_rates(key, _block_classifier(head.cut, shapes), start, data, accept, config, batch_size)
    return replace(params, head.at(_scaled(head.cut, trained["params"], MIX_RATE))), info


def mixing_block(apply_fn: ApplyFn, params: Params, x: Array) -> Where:
    """The channel mixing of the first layer, its bias, and the last two layers.

    Raises:
      ContractError: no images, or images of one channel, which nothing can mix.
    """
    expect(x.ndim == 4 and x.shape[-1] > 1, "block", "images with several channels, for mixing", describe(x))
    first = layers_in_order(apply_fn, params, x[:2])[0]
    bias = {f"{first}/bias": None} if f"{first}/bias" in paths(params) else {}
    last = dict.fromkeys(last_layers(apply_fn, params, x[:2], 2))
    return last | bias | {f"{first}/kernel": Mix(channels=x.shape[-1])}


def _scaled(made: Cut, theta: dict[str, Array], factor: float) -> dict[str, Array]:
    """theta with its channel mixings multiplied; trained small, they move fast."""
    parts = dict(made.chosen)
    return {name: value * factor if isinstance(parts[name], Mix) else value for name, value in theta.items()}


@functools.cache
def _block_classifier(made: Cut, shapes: tuple[tuple[int, ...], ...]) -> Classifier:
    """The block as a model of its own, whose x are packed features; what it does not train is a collection `frozen`."""
    ends = np.cumsum([0, *(math.prod(shape) for shape in shapes)]).tolist()

    def apply(variables: Params, x: Array) -> jax.Array:
        pieces = zip(ends[:-1], ends[1:], shapes, strict=True)
        parts = [x[:, start:end].reshape(-1, *shape) for start, end, shape in pieces]
        return made.head(variables["frozen"], tuple(parts), _scaled(made, variables["params"], MIX_RATE))

    def init(key: Key, x: Array) -> Params:
        raise ValueError("a block is trained from a model's parameters")

    def train(key: Key, variables: Params, x: Array) -> tuple[jax.Array, Params]:
        del key
        return apply(variables, x), variables

    return Classifier(init=init, apply=apply, train=train, vector=Split(lambda variables, x: x, apply, ()))
