"""What the tests of edits share: a small problem, its repair and its report."""

import jax
import jax.numpy as jnp
import numpy as np
from oracles import softmax_head as oracle
from oracles.fmd_toy import flip, l2, toy

from jaxdebias import models
from jaxdebias.core import Batch, RepairSets, Split
from jaxdebias.explain import influence
from jaxdebias.mitigate import FineTuneConfig, FmdConfig, train_from_scratch

IDENTITY = Split(
    features=lambda params, x: x * params["scale"],
    head=lambda params, z: z @ params["head"]["kernel"],
    head_path=("head",),
)
PATH = ("head",)


def batch(data):
    return Batch(data.x.astype(np.float32), data.y.astype(np.int32), data.a.astype(np.int32))


def pair_batch(data):
    """x aligned, twin conflicting; both of the row's label."""
    aligned = np.where((data.a == data.y)[:, None], data.x, flip(data.x)).astype(np.float32)
    return Batch(aligned, data.y.astype(np.int32), data.y.astype(np.int32), twin=flip(aligned))


def setting(seed):
    """(params, train, pairs, accept, accept_pairs): a head at its optimum and held-out sets."""
    train = toy(seed)
    theta = oracle.fit(train.x, train.y, 2, l2(2000), tolerance=1e-8)
    params = {"scale": jnp.ones(()), "head": {"kernel": jnp.asarray(theta, jnp.float32)}}
    accept = toy(300 + seed, n=400, agreement=0.5)
    return params, batch(train), pair_batch(toy(100 + seed, n=125)), batch(accept), pair_batch(accept)


def repair(train, pairs, accept, accept_pairs):
    return RepairSets(train=train, pairs=pairs, accept=accept, accept_pairs=accept_pairs)


def report(params, seed):
    """(accuracy, conflicting accuracy, bias) on a large set on which colour says nothing."""
    test, theta = toy(900 + seed, n=5000, agreement=0.5), np.asarray(params["head"]["kernel"], np.float64)
    right = oracle.probabilities(theta, test.x).argmax(1) == test.y
    return right.mean(), right[test.a != test.y].mean(), oracle.pair_bias(theta, test.x, flip(test.x), test.y)


# The toy's head does not interpolate: its aligned accuracy is bought by the colour alone, and there is no floor on it.
# Nor is it saturated, so the search needs a fine grid.
TOY = FmdConfig(aligned_floor=None, steps_per_octave=4)


def biased_network(seed=0):
    """A two-layer network on the toy that follows the colour, as (apply_fn, params, train, pairs, accept, pairs)."""
    _, train, pairs, accept, accept_pairs = setting(seed)
    classifier = models.mlp(hidden=(6,), classes=2)
    params, _ = train_from_scratch(
        jax.random.key(seed),
        classifier,
        None,
        RepairSets(edit=train, accept=train),
        FineTuneConfig(epochs=5, learning_rates=(1e-2,)),
    )
    return classifier, params, train, pairs, accept, accept_pairs


class Identity:
    def solve(self, rhs):
        return influence.Solution(rhs, 0.0, 0, 1.0)
