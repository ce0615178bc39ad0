"""Every repair of the table of methods through what callers rely on. A new repair is a new line in REPAIRS."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias import models
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, Classifier, RepairSets, Split
from jaxdebias.mitigate import (
    DfrConfig,
    FineTuneConfig,
    FmdConfig,
    ProtectedColumnConfig,
    SelfInfluenceConfig,
    _methods,
)

MLP = models.mlp(hidden=(6,), classes=2)
CNN = models.cnn(channels=(4,), dense=8, classes=2)
TUNE = FineTuneConfig(epochs=2, batch_size=16, learning_rates=(1e-2, 1e-3))
PIVOTAL = SelfInfluenceConfig(repeats=1, epochs=1, per_class=5, batch_size=16, tune_epochs=1, tune_batch_size=8)


class Case(NamedTuple):
    config: Any
    """None: the default."""
    needs: tuple[str, ...]
    """The sets that it cannot do without."""
    head_only: bool
    """Whether nothing but the last layer changes, so that features of half precision are enough to test it on."""
    pictures: bool = False


REPAIRS: Mapping[str, Case] = {
    "fmd": Case(FmdConfig(rounds=2, significance=0.0), ("train", "pairs", "accept", "accept_pairs"), True),
    "dfr": Case(DfrConfig(balance_by="subsamples", averaged=2), ("edit", "accept"), True),
    "mixing": Case(TUNE, ("accept",), False, pictures=True),
    "fine-tune": Case(TUNE, ("accept",), False),
    "fine-tune-head": Case(TUNE, ("accept",), True),
    "from-scratch": Case(TUNE, ("accept",), False),
    "refit-head": Case(None, ("train", "pairs"), True),
    "self-influence": Case(PIVOTAL, ("train",), False),
    "retrain-counterfactual": Case(TUNE, ("train", "accept"), False),
    "protected-column": Case(ProtectedColumnConfig(column=1), ("train",), False),
}
every_repair = pytest.mark.parametrize("name", REPAIRS)


def rows(seed: int, n: int, *, pictures: bool, dtype: Any = np.float32) -> Batch:
    """Rows whose label is the sign of column 0, or the brightness of the picture, and that show the attribute too."""
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % 2).astype(np.int32)
    attribute = np.where(rng.random(n) < 0.7, label, 1 - label).astype(np.int32)
    if pictures:
        x = rng.random((n, 8, 8, 3)) * 0.3 + 0.2 * label[:, None, None, None]
        x[..., 0] += 0.3 * attribute[:, None, None]
        twin = x.copy()
        twin[..., 0] += 0.3 * (1 - 2 * attribute)[:, None, None]
    else:
        x = rng.normal(size=(n, 5)) + 2.0 * (2 * label[:, None] - 1) * (np.arange(5) == 0)
        x[:, 1] += 3.0 * (2 * attribute - 1)
        twin = x.copy()
        twin[:, 1] -= 6.0 * (2 * attribute - 1)
    return Batch(x.astype(dtype), label, attribute, twin=twin.astype(dtype))


@functools.cache
def sets_of(pictures: bool, dtype: Any = np.float32) -> RepairSets:
    return RepairSets(*(rows(seed, n, pictures=pictures, dtype=dtype) for seed, n in enumerate((64, 40, 40, 48, 48))))


@functools.cache
def trained(pictures: bool) -> tuple[Classifier, Any]:
    network = CNN if pictures else MLP
    return network, network.init(jax.random.key(7), sets_of(pictures).train.x[:2])


def repair(name: str, *, sets: RepairSets | None = None, model: Any = None, params: Any = None, key: int = 0) -> Any:
    case, method = REPAIRS[name], _methods.METHODS[name]
    own, start = trained(case.pictures)
    config = () if case.config is None else (case.config,)
    sets = sets_of(case.pictures) if sets is None else sets
    return method.build(jax.random.key(key), model or own, start if params is None else params, sets, *config)


def padded(batch: Batch, seed: int) -> Batch:
    """The batch with five more rows of weight 0 in the middle, whose content a repair must not see."""
    rng = np.random.default_rng(seed)
    extra = rng.integers(0, len(batch.label), 5)
    order = np.insert(np.arange(len(batch.label)), len(batch.label) // 2, extra)
    weight = np.ones(len(order), np.float32)
    filled = slice(len(batch.label) // 2, len(batch.label) // 2 + 5)
    weight[filled] = 0
    found = jax.tree.map(lambda leaf: leaf[order], batch)._replace(weight=weight)
    found.x[filled] = rng.random(found.x[filled].shape)
    found.twin[filled] = rng.random(found.x[filled].shape)
    found.label[filled] = 1 - found.label[filled]
    return found


def leaves(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_the_table_is_tested_whole():
    assert set(REPAIRS) == set(_methods.REPAIRS)


@every_repair
def test_pure_deterministic_and_the_tree_is_kept(name):
    _, params = trained(REPAIRS[name].pictures)
    sets = sets_of(REPAIRS[name].pictures)
    before = [leaf.copy() for leaf in leaves((params, sets))]
    (one, info), (two, _) = repair(name), repair(name)
    chex.assert_trees_all_equal(before, leaves((params, sets)))
    chex.assert_trees_all_equal(one, two)
    assert jax.tree.structure(one) == jax.tree.structure(params)
    chex.assert_trees_all_equal_shapes_and_dtypes(one, params)
    assert all(np.isfinite(leaf).all() for leaf in leaves(one))
    assert hasattr(info, "_fields")


@every_repair
def test_a_second_call_compiles_nothing(name):
    repair(name)
    compiled = []

    def listen(event: str, *_: Any, **__: Any) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    repair(name, key=0)
    assert compiled == []


@every_repair
def test_padding_changes_nothing(name):
    sets = sets_of(REPAIRS[name].pictures)
    plain, _ = repair(name)
    for seed in (0, 1):
        found, _ = repair(name, sets=RepairSets(*(padded(batch, seed) for batch in sets)))
        chex.assert_trees_all_close(found, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, case in REPAIRS.items() if case.head_only])
def test_features_of_half_precision_give_nearly_the_same_head(name):
    network, params = trained(False)

    def half(params: Any, x: Any) -> jax.Array:
        return network.vector.features(params, x).astype(jnp.bfloat16)

    rounded = Split(half, network.vector.head, network.vector.head_path)
    whole = Split(lambda p, x: half(p, x).astype(jnp.float32), network.vector.head, network.vector.head_path)
    (found, _), (expected, _) = repair(name, model=rounded), repair(name, model=whole)
    chex.assert_trees_all_equal(found, expected)
    # Sets in half precision as well, which NumPy does not know as floats.
    sets = sets_of(False, jnp.bfloat16)
    found, _ = repair(name, sets=sets, model=rounded)
    assert all(np.isfinite(leaf).all() for leaf in leaves(found))
    chex.assert_trees_all_equal_shapes_and_dtypes(found, params)


@every_repair
def test_what_is_missing_is_one_line(name):
    case = REPAIRS[name]
    for need in case.needs:
        with pytest.raises(ContractError, match=f"sets.{need}") as caught:
            repair(name, sets=sets_of(case.pictures)._replace(**{need: None}))
        assert "\n" not in str(caught.value)


@every_repair
def test_the_key_decides_and_is_used_once_for_each_purpose(name):
    """Two keys give two results where something is drawn, and the same where nothing is."""
    (one, _), (two, _) = repair(name), repair(name, key=1)
    same = all((a == b).all() for a, b in zip(leaves(one), leaves(two), strict=True))
    assert same == (name in ("fmd", "refit-head", "protected-column"))


@every_repair
def test_defaults_of_the_signature(name):
    parameters = inspect.signature(_methods.METHODS[name].build).parameters
    assert parameters["batch_size"].default == 256
