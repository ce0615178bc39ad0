"""Every training method through what the loop, sweeps and users rely on. A new method is a new line in LEARNERS."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train.tiny import BARE, NORMED

from jaxdebias import models
from jaxdebias.core import Batch, Learner
from jaxdebias.mitigate import (
    CellBalancedConfig,
    DbVaeConfig,
    DisentConfig,
    ErmConfig,
    GroupDroConfig,
    cell_balanced,
    corruption,
    dbvae,
    disent,
    drawn_by_weight,
    erm,
    gce,
    group_balanced,
    group_dro,
    lff,
    patch_noise,
    sih,
)
from jaxdebias.mitigate._dbvae.contrastive import contrastive
from jaxdebias.train import Optimizer, random_flip

SGD = Optimizer(name="sgd", learning_rate=0.1, clip=1.0)
MLP = models.mlp(hidden=(8,), classes=3)
CNN = models.cnn(channels=(4,), dense=8, classes=3)

IMAGES = Batch(
    x=np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8),
    label=np.arange(8, dtype=np.int32) % 3,
    attribute=np.arange(8, dtype=np.int32) % 2,
    weight=np.ones(8, np.float32),
    index=np.arange(8, dtype=np.int32),
)
TABLE = IMAGES._replace(x=np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32))

GROUPS = np.array([[9, 1], [1, 5], [2, 0]])

# name: (learner, a batch of its data, whether rows are independent: batch normalisation couples them)
LEARNERS: dict[str, tuple[Learner, Batch, bool]] = {
    "erm_bare": (erm(BARE), TABLE, True),
    "erm_mlp_sgd": (erm(MLP, ErmConfig(class_weights=(1.0, 2.0, 0.5), label_smoothing=0.1), SGD), IMAGES, True),
    "erm_cnn_augment": (erm(CNN, augment=random_flip), IMAGES, True),
    "erm_batch_norm": (erm(NORMED, optimizer=SGD), TABLE, False),
    "gce": (gce(BARE), TABLE, True),
    "group_balanced": (group_balanced(BARE, groups=GROUPS), TABLE, True),
    "group_dro": (group_dro(BARE, GroupDroConfig(adjustment=1.0), SGD, groups=GROUPS), TABLE, True),
    "group_dro_batch_norm": (group_dro(NORMED, GroupDroConfig(balanced=False), groups=GROUPS), TABLE, False),
    "jtt_drawn": (drawn_by_weight(erm(BARE)), TABLE, True),
    "lff": (lff(BARE, rows=8), TABLE, True),
    "lff_batch_norm": (lff(NORMED, optimizer=SGD, rows=20), TABLE, False),
    "cell_balanced": (cell_balanced(BARE, CellBalancedConfig(input_dropout=0.1), groups=GROUPS), TABLE, True),
    "patch_noise": (
        patch_noise(gce(CNN), corruption(np.arange(64).reshape(1, 8, 8).repeat(8, 0) % 3 == 0)),
        IMAGES,
        True,
    ),
    "dbvae": (
        dbvae(
            models.vae_classifier(image=(8, 8, 3), classes=3, latent=4, encoder=MLP, decoder=(4,)),
            DbVaeConfig(debiased=(0, 2), stale=True),
            SGD,
            rows=8,
        ),
        IMAGES,
        True,
    ),
    "contrastive": (contrastive(MLP, latent=3, augment=random_flip), IMAGES, False),
    "disent": (
        disent(models.mlp_two_encoders(hidden=(4,), classes=3), DisentConfig(swap_after=0), SGD, rows=9),
        IMAGES,
        True,
    ),
    "sih": (
        sih(models.mlp_vae(image=(8, 8, 3), hidden=(8,), latent=4, decoder=(6,), classes=3), augment=random_flip),
        IMAGES,
        True,
    ),
}
# Compiling takes its time: of each kind of learner one is among the quick tests.
QUICK = ("erm_bare", "erm_mlp_sgd", "erm_cnn_augment", "erm_batch_norm", "gce", "group_dro", "lff")


def names(*, independent: bool = False) -> list:
    """Of the learners, or of those whose rows are independent, for `parametrize`."""
    return [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name, (*_, rows_are) in LEARNERS.items()
        if rows_are or not independent
    ]


every_learner = pytest.mark.parametrize("name", names())


@functools.cache
def compiled(name: str):
    """(init, step, how often step was traced) of a learner, compiled once for all tests."""
    learner, traces = LEARNERS[name][0], []

    def step(key, state, batch):
        traces.append(1)
        return learner.step(key, state, batch)

    return jax.jit(learner.init), jax.jit(step), traces


def close(a, b, atol):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol, rtol=atol), a, b)


def moved(before, after) -> bool:
    pairs = zip(jax.tree.leaves(before.variables), jax.tree.leaves(after.variables), strict=True)
    return any((a != b).any() for a, b in pairs)


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def other_rows(batch: Batch) -> Batch:
    """The same rows in another order: a second batch of equal shapes."""
    return batch._replace(**{f: np.asarray(v)[::-1] for f, v in batch._asdict().items() if v is not None})


@every_learner
def test_arguments_and_fields(name):
    learner, batch, _ = LEARNERS[name]
    assert list(inspect.signature(learner.init).parameters) == ["key", "batch"]
    assert list(inspect.signature(learner.step).parameters) == ["key", "state", "batch"]
    assert list(inspect.signature(learner.predict).parameters) == ["state", "x"]
    if learner.weights is not None:
        assert list(inspect.signature(learner.weights).parameters) == ["state", "data"]
    state = jax.eval_shape(learner.init, jax.random.key(0), batch)
    _, info = jax.eval_shape(learner.step, jax.random.key(0), state, batch)
    info = info._asdict() if hasattr(info, "_asdict") else info
    assert {leaf.shape for leaf in info.values()} == {()}
    assert "loss" in info
    logits = jax.eval_shape(learner.predict, state, batch.x)
    assert (logits.shape, logits.dtype) == ((8, 3), jnp.float32)


@every_learner
def test_state_keeps_shapes_and_dtypes(name):
    """Else the state cannot be carried by a scan."""
    learner, batch, _ = LEARNERS[name]
    state = jax.eval_shape(learner.init, jax.random.key(0), batch)
    new, _ = jax.eval_shape(learner.step, jax.random.key(0), state, batch)
    assert jax.tree.structure(state) == jax.tree.structure(new)
    kinds = [[(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(tree)] for tree in (state, new)]
    assert kinds[0] == kinds[1]


@every_learner
def test_one_trace_same_key_same_bits_and_finite(name, key):
    _, batch, _ = LEARNERS[name]
    init, step, traces = compiled(name)
    start, ends = init(key, batch), []
    for _ in range(2):
        state = start
        for i, rows in enumerate([batch, other_rows(batch), batch]):
            state, info = step(jax.random.fold_in(key, i), state, rows)
        ends.append((state, info))
    assert len(traces) == 1
    jax.tree.map(np.testing.assert_array_equal, *ends)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ends))
    assert moved(start, ends[0][0])


@every_learner
def test_jit_equals_no_jit(name, key):
    learner, batch, _ = LEARNERS[name]
    init, step, _ = compiled(name)
    state = init(key, batch)
    close(step(key, state, batch), learner.step(key, state, batch), atol=1e-6)


@every_learner
def test_vmap_over_seeds_equals_a_loop(name):
    learner, batch, _ = LEARNERS[name]
    init, step, _ = compiled(name)
    keys = jax.random.split(jax.random.key(0), 2)
    states = [init(key, batch) for key in keys]
    loop = stack([step(key, state, batch) for key, state in zip(keys, states, strict=True)])
    mapped = jax.jit(jax.vmap(learner.step, in_axes=(0, 0, None)))(keys, stack(states), batch)
    close(mapped, loop, atol=1e-5)
    assert moved(states[0], states[1])


@pytest.mark.parametrize("name", names(independent=True))
def test_rows_of_weight_zero_change_nothing(name, key):
    _, batch, _ = LEARNERS[name]
    init, step, _ = compiled(name)
    state = init(key, batch)
    half = batch._replace(weight=np.array([1, 1, 1, 1, 0, 0, 0, 0], np.float32))
    x = np.concatenate([half.x[:4], half.x[:4][::-1]])
    spoiled = half._replace(x=x, label=(half.label + np.arange(8, dtype=np.int32) // 4) % 3)
    close(step(key, state, spoiled), step(key, state, half), atol=1e-6)
    assert moved(step(key, state, batch)[0], step(key, state, half)[0])
