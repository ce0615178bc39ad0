"""The plain repairs that any edit must be compared with: fine-tuning, and training from scratch, on held-out data.

Both train every layer on the same held-out samples that an edit may use, and choose their learning rate on the same
held-out acceptance split. On Colored MNIST they are more accurate than an edit of the head; a table that leaves them
out is not honest.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.batching import predict_rows
from jaxdebias.contracts import check_batch, expect
from jaxdebias.core import Batch, Classifier, Key, Params
from jaxdebias.data.plans import steps_per_epoch
from jaxdebias.mitigate.erm import erm
from jaxdebias.train.optimizer import Optimizer
from jaxdebias.train.run import RunConfig, run


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


def fine_tune(key: Key, classifier: Classifier, params: Params, data: Batch, accept: Batch,
              config: FineTuneConfig = FineTuneConfig()) -> tuple[Params, FineTuneInfo]:
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


def train_from_scratch(key: Key, classifier: Classifier, data: Batch, accept: Batch,
                       config: FineTuneConfig = FineTuneConfig(epochs=60)) -> tuple[Params, FineTuneInfo]:
    """Trains a fresh model on held-out data alone: what the biased training set was worth. See `fine_tune`."""
    check_batch(data, what="data")
    check_batch(accept, what="accept")
    return _best_of_rates(key, classifier, None, data, accept, config)


def both_sides(pairs: Batch) -> Batch:
    """x and twin of every pair as one batch of twice the rows; the twins' attribute is unknown (-1).

    >>> pair = Batch(x=np.zeros((1, 2)), label=np.array([3]), attribute=np.array([0]), twin=np.ones((1, 2)))
    >>> both_sides(pair).x.tolist(), both_sides(pair).label.tolist()
    ([[0.0, 0.0], [1.0, 1.0]], [3, 3])
    """
    expect(pairs.twin is not None, "pairs.twin", "the other rendering of x", None)
    return Batch(x=np.concatenate([pairs.x, pairs.twin]), label=np.concatenate([pairs.label, pairs.label]),
                 attribute=np.concatenate([pairs.attribute, np.full_like(pairs.attribute, -1)]))


def _best_of_rates(key: Key, classifier: Classifier, params: Params | None, data: Batch, accept: Batch,
                   config: FineTuneConfig) -> tuple[Params, FineTuneInfo]:
    steps = config.epochs * steps_per_epoch(len(data.label), config.batch_size)
    one_row = jax.tree.map(lambda leaf: leaf[:1], data)
    accuracies, candidates = {}, {}
    for rate in config.learning_rates:
        learner = erm(classifier, Optimizer(name="adamw", learning_rate=rate, weight_decay=config.weight_decay,
                                            schedule="cosine", steps=steps))
        state = learner.init(key, one_row)
        if params is not None:
            # The loop donates its state; the caller keeps the parameters that came in.
            state = state._replace(variables=jax.tree.map(jnp.array, params))
        trained = run(key, learner, data, RunConfig(epochs=config.epochs, batch_size=config.batch_size), state=state)
        candidates[rate] = trained.state.variables
        predicted = predict_rows(classifier.apply, trained.state.variables, accept.x).argmax(-1)
        accuracies[rate] = float(np.mean(np.asarray(predicted) == accept.label))
    best = max(accuracies, key=accuracies.get)
    return candidates[best], FineTuneInfo(best, accuracies)
