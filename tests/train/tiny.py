"""Two networks and a small table to train on. One is of bare functions, which proves that any model will do."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.core import Batch, Classifier, Split, as_float

FEATURES, CLASSES, HIDDEN = 5, 3, 8


def _init(key, x):
    del x
    key_hidden, key_head = jax.random.split(key)
    hidden = jax.random.normal(key_hidden, (FEATURES, HIDDEN)) / FEATURES**0.5
    head = jax.random.normal(key_head, (HIDDEN, CLASSES)) / HIDDEN**0.5
    return {"hidden": (hidden, jnp.zeros(HIDDEN)), "head": {"kernel": head, "bias": jnp.zeros(CLASSES)}}


def _features(params, x):
    kernel, bias = params["hidden"]
    return jnp.tanh(as_float(x) @ kernel + bias[None])


def _head(params, z):
    return z @ params["head"]["kernel"] + params["head"]["bias"][None]


def _apply(params, x):
    return _head(params, _features(params, x))


BARE = Classifier(
    init=_init,
    apply=_apply,
    train=lambda key, params, x: (_apply(params, x), params),
    vector=Split(_features, _head, ("head",)),
)


class _Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        return nn.Dense(3)(x)


def _normed_train(key, variables, x):
    logits, changed = _Normed().apply(variables, x, train=True, mutable=["batch_stats"])
    return logits, {**variables, **changed}


NORMED = Classifier(
    init=lambda key, x: _Normed().init(key, x, train=False),
    apply=lambda variables, x: _Normed().apply(variables, x, train=False),
    train=_normed_train,
    vector=Split(lambda variables, x: x, lambda variables, z: z),
)


def table(n: int, seed: int = 0) -> Batch:
    """Rows whose label is the largest of the first three columns."""
    x = np.random.default_rng(seed).normal(size=(n, FEATURES)).astype(np.float32)
    label = x[:, :CLASSES].argmax(axis=1).astype(np.int32)
    return Batch(x=x, label=label, attribute=(x[:, 3] > 0).astype(np.int32))
