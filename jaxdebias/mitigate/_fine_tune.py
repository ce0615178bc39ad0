"""The plain repairs that any edit must be compared with: fine-tuning, and training anew, on data without the shortcut.

Fine-tuning (of all layers or of the last one) and training from scratch use the same held-out samples that an edit may
use, and choose their learning rate on the same held-out acceptance split. On Colored MNIST those that train all layers
are more accurate than an edit of the head; a table that leaves them out is not honest. Retraining on the training set
joined by its counterfactuals is what an edit is meant to save, and the ceiling to which it is compared.
"""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.batching import map_rows, predict_rows
from jaxdebias.contracts import check_batch, describe, expect
from jaxdebias.core import Array, Batch, Classifier, Key, Params, Split
from jaxdebias.explain.influence._block import find_block
from jaxdebias.explain.influence._cut import ApplyFn, Cut, Where
from jaxdebias.explain.influence._find_head import find_head
from jaxdebias.explain.influence._objective import AffineHead, head_logits
from jaxdebias.explain.influence._program import Mix
from jaxdebias.mitigate._erm import State, erm
from jaxdebias.train._optimizer import Optimizer, trainable
from jaxdebias.train._plans import steps_per_epoch
from jaxdebias.train._run import FitConfig, fit


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig:
    """Adam with decoupled weight decay and a cosine schedule, once for each learning rate."""

    epochs: int = 20
    batch_size: int = 64
    learning_rates: tuple[float, ...] = (1e-3, 3e-4)
    weight_decay: float = 1e-4


class FineTuneInfo(NamedTuple):
    """What was tried and what was kept."""

    learning_rate: float
    accept_accuracy: dict[float, float]
    """Accuracy on the acceptance split, for each learning rate."""


def fine_tune(
    key: Key,
    classifier: Classifier,
    params: Params,
    data: Batch,
    accept: Batch,
    config: FineTuneConfig = FineTuneConfig(),
) -> tuple[Params, FineTuneInfo]:
    """Trains all layers further on held-out data; keeps the learning rate that is most accurate on `accept`.

    Args:
      key: for the order of the samples.
      classifier: the model.
      params: where training starts.
      data: what to train on, for instance both renderings of held-out pairs (`both_sides`).
      accept: held-out data that chooses the learning rate.
      config: epochs, batch size and the learning rates to try.
    """
    check_batch(data, what="data")
    check_batch(accept, what="accept")
    return _best_of_rates(key, classifier, params, data, accept, config)


def fine_tune_head(
    key: Key,
    split: Split,
    params: Params,
    data: Batch,
    accept: Batch,
    config: FineTuneConfig = FineTuneConfig(epochs=40, learning_rates=(1e-1, 1e-2, 1e-3)),
    *,
    head_path: tuple[str | int, ...] = ("params", "head"),
    batch_size: int = 1024,
) -> tuple[Params, FineTuneInfo]:
    """Trains the last layer alone, from where it is; features are computed once, so an epoch is a small regression.

    Args:
      key: for the order of the samples.
      split: the model cut before its last layer; the head must be affine.
      params: where training starts.
      data: what to train on, for instance both renderings of held-out pairs (`both_sides`).
      accept: held-out data that chooses the learning rate.
      config: epochs, batch size and the learning rates to try.
      head_path: where the last layer lies in params, see `influence.find_head`.
      batch_size: rows at a time through the network.

    Returns:
      (params, info): only the leaves of the head are new.
    """
    check_batch(data, what="data")
    check_batch(accept, what="accept")

    def features(batch: Batch) -> Batch:
        z = map_rows(split.features, params, jnp.asarray(batch.x), batch_size=batch_size)
        expect(z.ndim == 2, "split.features", "vectors [n d] before the last layer", describe(z))
        return Batch(np.asarray(z), batch.label, batch.attribute, weight=batch.weight)

    data, accept = features(data), features(accept)
    head, replace = find_head(split.head, params, head_path, data.x.shape[1])
    last_layer = _last_layer(head.kernel.shape[1], head.bias is not None)
    head, info = _best_of_rates(key, last_layer, head, data, accept, config)
    return replace(params, head), info


def fine_tune_block(
    key: Key,
    apply_fn: ApplyFn,
    params: Params,
    data: Batch,
    accept: Batch,
    block: Where,
    config: FineTuneConfig = FineTuneConfig(learning_rates=(3e-3, 1e-3)),
    *,
    batch_size: int = 1024,
) -> tuple[Params, FineTuneInfo]:
    """Trains a block of parameters alone, from where it is; what lies before it is computed once.

    With the channel mixing of the first layer in the block (`influence.Mix`), colour can be taken out where it enters,
    by a few numbers for each unit, and images are still seen once. A mixing entry moves a whole layer's input: its
    updates are `MIX_RATE` times those of other parameters.

    Args:
      key: for the order of the samples.
      apply_fn: (params, x) -> logits `[n k]`, evaluation mode: a model of any library.
      params: where training starts.
      data: what to train on, for instance both renderings of held-out pairs (`both_sides`).
      accept: held-out data that chooses the learning rate.
      block: what is trained, see `influence.Where`.
      config: epochs, batch size and the learning rates to try.
      batch_size: rows at a time through the network before the block.
    """
    check_batch(data, what="data")
    check_batch(accept, what="accept")
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
    trained, info = _best_of_rates(key, _block_classifier(head.cut, shapes), start, data, accept, config)
    return replace(params, head.at(_scaled(head.cut, trained["params"], MIX_RATE))), info


def train_from_scratch(
    key: Key, classifier: Classifier, data: Batch, accept: Batch, config: FineTuneConfig = FineTuneConfig(epochs=60)
) -> tuple[Params, FineTuneInfo]:
    """Trains a fresh model on held-out data alone: what the biased training set was worth. See `fine_tune`."""
    check_batch(data, what="data")
    check_batch(accept, what="accept")
    return _best_of_rates(key, classifier, None, data, accept, config)


def retrain_counterfactual(
    key: Key,
    classifier: Classifier,
    train: Batch,
    augmented: Batch,
    accept: Batch,
    config: FineTuneConfig = FineTuneConfig(epochs=20, batch_size=256, learning_rates=(1e-3,)),
) -> tuple[Params, FineTuneInfo]:
    """Trains a fresh model on the training set joined by counterfactuals of its rows (counterfactual augmentation).

    It needs what an edit does without: the training set, a counterfactual of each row, and the time of a training.

    Args:
      key: for the initial parameters and the order of the samples.
      classifier: the model.
      train: the biased training set.
      augmented: the same samples with the attribute changed: the flipped rows of a table, recoloured digits. As
        many rows as `train` give both sides the same total weight.
      accept: held-out data that chooses the learning rate, where the configuration has several.
      config: epochs, batch size and learning rates; those of the original training make the comparison fair.
    """
    for what, batch in (("train", train), ("augmented", augmented), ("accept", accept)):
        check_batch(batch, what=what)
    return _best_of_rates(key, classifier, None, joined(train, augmented), accept, config)


def joined(*batches: Batch) -> Batch:
    """The rows of several batches: x, label, attribute, and weight if any batch has one (1 for the others).

    >>> one = Batch(x=np.zeros((1, 2)), label=np.array([3]), attribute=np.array([0]))
    >>> joined(one, one._replace(weight=np.array([0.5]))).weight.tolist()
    [1.0, 0.5]
    """
    kinds = {(np.asarray(batch.x).dtype, batch.x.shape[1:]) for batch in batches}
    expect(
        len(kinds) == 1,
        "x of the batches to join",
        "one dtype and shape of a row",
        ", ".join(describe(batch.x) for batch in batches),
    )
    weight = None
    if any(batch.weight is not None for batch in batches):
        weight = np.concatenate(
            [np.ones(len(batch.label), np.float32) if batch.weight is None else batch.weight for batch in batches]
        )
    return Batch(
        *(np.concatenate([getattr(batch, name) for batch in batches]) for name in ("x", "label", "attribute")),
        weight=weight,
    )


def both_sides(pairs: Batch) -> Batch:
    """x and twin of every pair as one batch of twice the rows; the twins' attribute is unknown (-1).

    >>> pair = Batch(x=np.zeros((1, 2)), label=np.array([3]), attribute=np.array([0]), twin=np.ones((1, 2)))
    >>> both_sides(pair).x.tolist(), both_sides(pair).label.tolist()
    ([[0.0, 0.0], [1.0, 1.0]], [3, 3])
    """
    expect(pairs.twin is not None, "pairs.twin", "the other rendering of x", None)
    return Batch(
        x=np.concatenate([pairs.x, pairs.twin]),
        label=np.concatenate([pairs.label, pairs.label]),
        attribute=np.concatenate([pairs.attribute, np.full_like(pairs.attribute, -1)]),
    )


@functools.cache
def _last_layer(classes: int, biased: bool) -> Classifier:
    """The last layer as a model of its own, whose x are features and whose parameters are an `AffineHead`."""

    def init(key: Key, x: Array) -> AffineHead:
        del key  # never trained from here: `_best_of_rates` puts the trained head in its place
        return AffineHead(jnp.zeros((x.shape[1], classes)), jnp.zeros(classes) if biased else None)

    def train(key: Key, head: AffineHead, x: Array) -> tuple[jax.Array, AffineHead]:
        del key
        return head_logits(head, x), head

    return Classifier(
        init=init,
        apply=head_logits,
        train=train,
        vector=Split(features=lambda head, x: x, head=head_logits),
        head_path=(),
    )


LARGEST = 8
"""GiB of frozen features that a block may be trained on."""

MIX_RATE = 30.0
"""How much faster than other parameters a channel mixing is trained (chosen on an accept split)."""


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

    return Classifier(init=init, apply=apply, train=train, vector=Split(lambda variables, x: x, apply), head_path=())


def _best_of_rates(
    key: Key, classifier: Classifier, params: Params | None, data: Batch, accept: Batch, config: FineTuneConfig
) -> tuple[Params, FineTuneInfo]:
    steps = config.epochs * steps_per_epoch(len(data.label), config.batch_size)
    one_row = jax.tree.map(lambda leaf: leaf[:1], data)
    accuracies, candidates = {}, {}
    # One learner, scaled to each rate: the rates then share one compiled program.
    first = config.learning_rates[0]
    optimizer = Optimizer(
        name="adamw", learning_rate=first, weight_decay=config.weight_decay, schedule="cosine", steps=steps
    )
    learner = erm(classifier, optimizer)
    for rate in config.learning_rates:
        lr_scale = jnp.asarray(rate / first, jnp.float32)
        if params is None:
            state = learner.init(key, one_row)._replace(lr_scale=lr_scale)
        else:
            # The loop donates its state; the caller keeps the parameters that came in.
            variables = jax.tree.map(jnp.array, params)
            state = State(variables, optimizer.build().init(trainable(variables)), lr_scale)
        trained = fit(key, learner, data, FitConfig(epochs=config.epochs, batch_size=config.batch_size), state=state)
        candidates[rate] = trained.state.variables
        predicted = predict_rows(classifier.apply, trained.state.variables, accept.x).argmax(-1)
        accuracies[rate] = float(np.mean(np.asarray(predicted) == accept.label))
    best = max(accuracies, key=accuracies.get)
    return candidates[best], FineTuneInfo(best, accuracies)
