import jax
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.data import faces
from jaxdebias.data._sets.faces import GRAIN, VARIANTS

SMALL = {"train": 240, "edit": 16, "accept": 16, "test": 64, "image_size": 16}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("classes", [2, 4])
def test_the_rare_group_has_its_share_of_every_class(variant, classes):
    data = faces(variant=variant, classes=classes, conflicting=0.05, **SMALL)
    train = data.splits["train"]
    conflicting = ~data.aligned[train.label, train.attribute]
    for y in range(classes):
        assert (train.label == y).sum() == 240 // classes
        assert conflicting[train.label == y].sum() == 240 // classes // 20
        usual = y % 2 if variant == "cue" else 0
        assert data.aligned[y].tolist() == [usual == 0, usual == 1]
    for name in ("edit", "accept", "test"):
        split, pairs = data.splits[name], data.pairs[name]
        cells = np.bincount(2 * split.label + split.attribute, minlength=2 * classes)
        np.testing.assert_array_equal(cells, SMALL[name] // (2 * classes))
        assert data.aligned[pairs.label, pairs.attribute].all()
        # A pair is what its row and its twin show, in this order or the other.
        swapped = (pairs.attribute != split.attribute)[:, None, None, None]
        np.testing.assert_array_equal(pairs.x, np.where(swapped, split.twin, split.x))
        np.testing.assert_array_equal(pairs.twin, np.where(swapped, split.x, split.twin))
    assert data.label_names == ("happy", "sad", "surprised", "angry")[:classes]


def both_values(batch):
    """Float pictures at attribute 0 and at attribute 1."""
    rare = batch.attribute[:, None, None, None] == 1
    return (np.where(rare, a, b) / 255.0 for a, b in ((batch.twin, batch.x), (batch.x, batch.twin)))


@pytest.mark.parametrize(
    ("variant", "undo"),
    [("inverted", lambda x: 1 - x), ("cue", lambda x: 1 - x), ("rotated", lambda x: x[:, ::-1, ::-1])],
)
def test_twins_differ_by_the_attribute_and_noise_only(variant, undo):
    common, rare = both_values(faces(variant=variant, **SMALL).splits["train"])
    # The same noise is on both, so undoing the change leaves the difference of two noises, never more than the sum.
    rest = undo(rare) - common
    assert 0.8 * GRAIN < rest.std() < 2 * GRAIN
    assert abs(rest.mean()) < 0.01
    assert abs(rare - common).mean() > 5 * GRAIN / 2


def test_dim_light_glasses_and_dark_skin():
    common, rare = both_values(faces(variant="lighting", **SMALL).splits["train"])
    assert 0.35 < (rare.mean((1, 2, 3)) / common.mean((1, 2, 3))).mean() < 0.55
    halves = [rare[:, :, :8].mean((1, 2, 3)) / rare[:, :, 8:].mean((1, 2, 3))]
    assert np.std(np.log(halves)) > 1.2 * np.std(
        np.log(common[:, :, :8].mean((1, 2, 3)) / common[:, :, 8:].mean((1, 2, 3)))
    )
    common, rare = both_values(faces(variant="glasses", **SMALL).splits["train"])
    changed = abs(rare - common).max(axis=-1) > 0.02
    assert (changed.mean((1, 2)) > 0.01).all()
    assert changed.mean((1, 2)).max() < 0.5  # nothing but around the eyes
    assert changed[:, 12:].mean() < 0.03
    common, rare = both_values(faces(variant="skin", **SMALL).splits["train"])
    middle = (slice(None), slice(6, 11), slice(5, 11))
    assert (rare[middle].mean((1, 2, 3)) < common[middle].mean((1, 2, 3))).all()
    np.testing.assert_allclose(rare[:, 0, 0], common[:, 0, 0])  # the background stays


def test_every_face_is_another_one():
    data = faces(**SMALL)
    x = np.concatenate([batch.x.reshape(len(batch.x), -1) for batch in data.splits.values()]) / 255.0
    square = (x**2).sum(1)
    distance = square[:, None] + square - 2 * x @ x.T
    np.fill_diagonal(distance, np.inf)
    # Two pictures of one face would differ by two noises per number.
    assert distance.min() > 1.5 * 2 * GRAIN**2 * x.shape[1]


def test_grey_sizes_and_seeds():
    small = SMALL | {"train": 8, "test": 8}
    data = faces(grey=True, **small | {"image_size": 20})
    assert data.splits["test"].x.shape == (8, 20, 20, 1)
    one, same, other = (faces(seed=seed, **small) for seed in (1, 1, 2))
    for a, b in zip(jax.tree.leaves(dict(one.splits)), jax.tree.leaves(dict(same.splits)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one.splits["train"].x != other.splits["train"].x).any()
    assert one.splits["train"].x.dtype == np.uint8


@pytest.mark.slow
def test_a_linear_probe_of_the_pixels_sees_something_of_the_expression():
    """Far better than chance, far from perfect: faces stand in other places, sizes and directions."""
    data = faces(classes=2, conflicting=0.0, grey=True, train=1600, edit=4, accept=4, test=800)
    train, test = data.splits["train"], data.splits["test"]
    rare = test.attribute == 1
    x, z = (
        np.concatenate([batch.x.reshape(len(batch.x), -1) / 255.0 - 0.5, np.ones((len(batch.x), 1))], axis=1)
        for batch in (train, test)
    )
    weights = np.linalg.solve(x.T @ x + 30.0 * np.eye(x.shape[1]), x.T @ (2.0 * train.label - 1))
    right = (z @ weights > 0) == test.label
    assert 0.6 < right[~rare].mean() < 0.95
    assert right[rare].mean() < 0.5  # inverted, the same cue says the opposite


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"variant": "invert"},
            "`variant`: expected one of inverted, lighting, .* got 'invert' .did you mean 'inverted'",
        ),
        ({"classes": 5}, "`classes`: expected 2..4, got 5"),
        ({"test": 7}, "`test`: expected at least 8 images with classes=4, got 7"),
        ({"image_size": 8}, "`image_size`: expected at least 16, got 8"),
        ({"conflicting": -0.1}, "`conflicting`: expected a share in 0..1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ContractError, match=message):
        faces(**SMALL | options)
