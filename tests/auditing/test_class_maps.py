"""Where a model looks, against loops over images, with models that look at what they are told to."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from oracles import attention, cams

from jaxdebias.auditing import class_maps
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, Dataset, Split
from jaxdebias.data._sets import celeba_mask, composites, scenes, waterbirds

REGIONS = {"object": (1,), "rest": (0, 2), "rare": (2,)}
GRID = 4


def pictures(n=67, seed=0):
    """Channel 0 is bright on the object (mask 1), channel 1 elsewhere; mask 2 is a corner that few images have."""
    rng = np.random.default_rng(seed)
    label, attribute = rng.integers(0, 2, n, dtype=np.int32), rng.integers(-1, 2, n, dtype=np.int32)
    mask = np.zeros((n, 8, 8), np.int32)
    for i, (top, left) in enumerate(rng.integers(0, 5, (n, 2))):
        mask[i, top : top + 4, left : left + 4] = 1
        mask[i, 7, 7] = 2 * (i % 5 == 0)
    x = np.stack([mask == 1, mask == 0, np.ones_like(mask)], axis=-1) * rng.uniform(0.5, 1, (n, 8, 8, 1))
    x[3] = 0.0  # nothing to look at
    batch = Batch(
        x=x.astype(np.float32), label=label, attribute=attribute, mask=mask, unit=np.arange(n, dtype=np.int32) // 2
    )
    return Dataset(
        name="toy",
        variant={},
        splits={"train": batch, "test": batch},
        pairs={},
        label_names=("no", "yes"),
        attribute_names=("blue", "red"),
        aligned=np.eye(2, dtype=bool),
    )


def pooled(params, x):
    del params
    return x.reshape(len(x), GRID, 2, GRID, 2, 3).mean(axis=(2, 4))


LAYER = Split(features=pooled, head=lambda params, z: z.mean(axis=(1, 2)) @ params)
AT_OBJECT = jnp.array([[2.0, 1.9], [0.0, 0.0], [0.0, 0.0]])
AT_REST = jnp.array([[0.0, 0.0], [2.0, 1.9], [0.0, 0.0]])


def by_hand(dataset, weights):
    """(map of sum 1 or None, [score, inside] per region, [chance, area] per region) of each image."""
    out = []
    test = dataset.splits["test"]
    for x, mask in zip(test.x.astype(np.float64), test.mask, strict=True):
        z = x.reshape(GRID, 2, GRID, 2, 3).mean(axis=(1, 3))
        predicted = int(np.argmax(z.mean(axis=(0, 1)) @ weights))
        a = cams.published(np.maximum(z @ weights[:, predicted], 0) / GRID**2)
        values, levels = [], []
        for labels in REGIONS.values():
            region = attention.shrink(np.isin(mask, labels).astype(float), GRID, GRID)
            there = a.sum() > 0 and region.sum() > 0
            f = region.sum() ** 2 / (region.size * (region**2).sum()) if there else 0.0
            values.append((attention.attention_iou(a, region), (a * region).sum() / a.sum() if there else math.nan))
            levels.append((4 / (3 + 1 / f), region.mean()) if there else (math.nan, math.nan))
        out.append((a / a.sum() if a.sum() > 0 else None, np.array(values), np.array(levels)))
    return out


@pytest.fixture(scope="module")
def dataset():
    return pictures()


@pytest.mark.parametrize("weights", [AT_OBJECT, AT_REST])
def test_every_number_is_that_of_a_loop_over_the_images(key, dataset, weights):
    seen = class_maps.audit_maps(key, LAYER, weights, dataset, regions=REGIONS, batch_size=16)
    truth, test = by_hand(dataset, np.asarray(weights, np.float64)), dataset.splits["test"]
    assert seen.grid == (GRID, GRID)
    assert seen.regions == tuple(REGIONS)
    aligned, known = test.label == test.attribute, test.attribute >= 0
    sets = [
        (seen.overall, known | True),
        (seen.aligned, aligned),
        (seen.conflicting, known & ~aligned),
        *((seen.groups[2 * y + s], (test.label == y) & (test.attribute == s)) for y in (0, 1) for s in (0, 1)),
    ]
    for found, members in sets:
        some = [one for one, member in zip(truth, members, strict=True) if member]
        assert found.rows == len(some)
        maps = [a for a, _, _ in some if a is not None]
        assert found.without_map == len(some) - len(maps)
        np.testing.assert_allclose(found.average, np.mean(maps, axis=0) * GRID**2, atol=1e-5)
        values, levels = (np.nanmean([one[i] for one in some], axis=0) for i in (1, 2))
        np.testing.assert_allclose(np.stack([found.score.value, found.inside.value], 1), values, atol=1e-5)
        np.testing.assert_allclose(np.stack([found.chance, found.area], 1), levels, atol=1e-5)
        assert found.used.tolist() == (~np.isnan([one[1][:, 0] for one in some])).sum(axis=0).tolist()
        for interval in (found.score, found.inside):
            assert (interval.low <= interval.value + 1e-6).all()
            assert (interval.value <= interval.high + 1e-6).all()
    assert seen.overall.without_map == 1
    assert seen.overall.used[2] < 20 < seen.overall.used[0]
    assert seen.overall.score.n[0] < seen.overall.used[0]  # units of two images each
    there, elsewhere = (0, 1) if weights is AT_OBJECT else (1, 0)
    assert seen.overall.inside.low[there] > seen.overall.area[there]
    assert seen.overall.inside.high[elsewhere] < seen.overall.area[elsewhere]
    assert seen.overall.score.high[elsewhere] < seen.overall.chance[elsewhere]


def flat_head(params, z):
    return jnp.einsum("nhwc,hwck->nk", z, params)


def test_agreement_says_whether_grad_cam_is_to_be_trusted(key, dataset):
    assert class_maps.audit_maps(key, LAYER, AT_OBJECT, dataset, regions=REGIONS).agreement == pytest.approx(
        1.0, abs=1e-5
    )
    # A head for which only the left half counts: Grad-CAM, with one weight per channel, shows both halves.
    left = jnp.zeros((GRID, GRID, 3, 2)).at[:, :2, 2, 0].set(1.0)
    small = dataclasses.replace(dataset, splits={"test": dataset.splits["test"]._replace(mask=None)})
    seen = class_maps.audit_maps(key, Split(pooled, flat_head), left, small)
    test, found = dataset.splits["test"], []
    for x in test.x.astype(np.float64):
        a = x.reshape(GRID, 2, GRID, 2, 3).mean(axis=(1, 3))[..., 2]
        found.append(attention.attention_iou(cams.published(a / 2), cams.published(a * (np.arange(GRID) < 2))))
    assert seen.agreement == pytest.approx(np.nanmean(found), abs=1e-4)
    assert seen.agreement < 0.8


def test_the_batch_size_and_what_pads_the_last_batch_change_nothing(key, dataset):
    one, two = (
        class_maps.audit_maps(key, LAYER, AT_OBJECT, dataset, regions=REGIONS, batch_size=size) for size in (16, 67)
    )
    np.testing.assert_array_equal(one.predicted, two.predicted)
    np.testing.assert_array_equal(one.examples, two.examples)
    np.testing.assert_allclose(one.example_maps, two.example_maps, atol=1e-6)
    np.testing.assert_allclose(one.overall.average, two.overall.average, atol=1e-6)
    np.testing.assert_allclose(one.overall.score.low, two.overall.score.low, atol=1e-6)


def test_examples_are_the_telling_ones_of_each_group(key, dataset):
    test = dataset.splits["test"]
    seen = class_maps.audit_maps(key, LAYER, AT_OBJECT, dataset, regions=REGIONS)
    assert (seen.predicted == 0).all()  # so those of label 0 are right
    cells = [(int(test.label[i]), int(test.attribute[i])) for i in seen.examples]
    assert cells == [cell for cell in ((0, 0), (1, 1), (0, 1), (1, 0)) for _ in range(3)]
    first = np.flatnonzero((test.label == 0) & (test.attribute == 0))[:3]
    np.testing.assert_array_equal(seen.examples[:3], first)
    label, predicted = np.array([0, 0, 0, 1, 1, 1]), np.array([1, 0, 0, 1, 0, 1])
    group = np.array([0, 0, 0, 2, 2, 2])
    picked = class_maps._pick(label, predicted, group, np.eye(2, dtype=bool), 4)
    assert picked.tolist() == [1, 2, 4, 3]  # the aligned group's right ones, the conflicting group's wrong one first
    many = class_maps._pick(np.arange(100) // 10, np.zeros(100, int), np.arange(100), np.eye(10, dtype=bool), 24)
    assert len(many) == 22
    assert np.eye(10, dtype=bool).flat[many].tolist() == [True] * 10 + [False] * 12
    assert class_maps._pick(label, predicted, group, np.eye(2, dtype=bool), 0).tolist() == []


def test_without_masks_there_are_maps_and_no_scores(key, dataset):
    bare = dataclasses.replace(dataset, splits={"test": dataset.splits["test"]._replace(mask=None)})
    seen = class_maps.audit_maps(key, LAYER, AT_OBJECT, bare)
    assert seen.regions == ()
    assert seen.overall.score.value.shape == seen.overall.chance.shape == (0,)
    assert np.nanmean(seen.overall.average) == pytest.approx(1.0, abs=1e-5)
    assert len(seen.example_maps) == len(seen.examples) == 12
    with pytest.raises(ContractError, match="a split with masks"):
        class_maps.audit_maps(key, LAYER, AT_OBJECT, bare, regions=REGIONS)


def test_the_data_set_names_its_regions(key, dataset):
    named = dataclasses.replace(dataset, regions=REGIONS)
    seen = class_maps.audit_maps(key, LAYER, AT_OBJECT, named)
    given = class_maps.audit_maps(key, LAYER, AT_OBJECT, dataset, regions=REGIONS)
    assert seen.regions == tuple(REGIONS)
    np.testing.assert_array_equal(seen.overall.score.value, given.overall.score.value)


def test_groups_without_images_and_data_without_aligned_groups(key, dataset):
    test = dataset.splits["test"]
    only = dataclasses.replace(
        dataset, aligned=np.ones((2, 2), bool), splits={"test": test._replace(attribute=np.zeros_like(test.attribute))}
    )
    seen = class_maps.audit_maps(key, LAYER, AT_OBJECT, only, regions=REGIONS)
    assert seen.conflicting is None
    assert seen.aligned.rows == len(test.label)
    assert seen.groups[1].rows == 0
    assert np.isnan(seen.groups[1].average).all()
    assert np.isnan(seen.groups[1].score.value).all()


def test_what_has_no_maps_is_refused(key, dataset):
    with pytest.raises(ContractError, match="split"):
        class_maps.audit_maps(key, LAYER, AT_OBJECT, dataset, split="tets")
    flat = dataclasses.replace(
        dataset,
        splits={
            "test": Batch(x=np.zeros((4, 3), np.float32), label=np.zeros(4, np.int32), attribute=np.zeros(4, np.int32))
        },
    )
    with pytest.raises(ContractError, match="images"):
        class_maps.audit_maps(key, LAYER, AT_OBJECT, flat)


def test_the_regions_of_the_data_sets():
    of_sets = [celeba_mask.REGIONS, composites.REGIONS, waterbirds.REGIONS, *scenes.REGIONS.values()]
    for regions in of_sets:
        labels = [label for region in regions.values() for label in region]
        assert sorted(labels) == list(range(len(labels)))  # every pixel lies in one region
