import jax
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.data import scenes
from jaxdebias.data._sets.scenes import SHAPES, TEXTURES

SMALL = {"train": 600, "edit": 120, "accept": 60, "test": 180}
KINDS = [("scenes", 2), ("scenes", 3), ("glyphs", 2), ("glyphs", 6)]


@pytest.fixture(scope="module", params=KINDS, ids=lambda p: f"{p[0]}-{p[1]}")
def data(request):
    kind, classes = request.param
    return scenes(kind=kind, classes=classes, conflicting=0.1, **SMALL)


def test_shares_of_conflicting_images(data):
    k = len(data.label_names)
    train, test = data.splits["train"], data.splits["test"]
    for y in range(k):
        of_class = train.label == y
        assert abs((train.attribute[of_class] != y).sum() - 0.1 * of_class.sum()) <= 1
    cells = np.bincount(test.label * k + test.attribute, minlength=k * k)
    assert cells.max() - cells.min() <= 1
    edit = data.splits["edit"]
    assert abs((edit.attribute == edit.label).mean() - 1 / k) < 4 * np.sqrt(1 / k * (1 - 1 / k) / 120)


def test_twins_share_the_object_pixel_for_pixel_and_nothing_else(data):
    for batch in (*data.splits.values(), *data.pairs.values()):
        object_pixels = batch.mask == 1
        np.testing.assert_array_equal(batch.x[object_pixels], batch.twin[object_pixels])
        elsewhere = (batch.x != batch.twin).any(-1) & ~object_pixels
        assert elsewhere.any((1, 2)).all()
        size = object_pixels.mean((1, 2))
        assert size.min() > 0.01
        assert size.max() < 0.4


def test_pairs_go_from_the_aligned_to_a_conflicting_background(data):
    for name, pairs in data.pairs.items():
        split = data.splits[name]
        np.testing.assert_array_equal(pairs.attribute, pairs.label)
        aligned = split.attribute == split.label
        np.testing.assert_array_equal(pairs.x[aligned], split.x[aligned])
        np.testing.assert_array_equal(pairs.twin[~aligned], split.x[~aligned])
        np.testing.assert_array_equal(split.twin[~aligned], pairs.x[~aligned])


def test_glyphs_keep_to_their_sides_and_the_mask_follows_the_image():
    data = scenes(kind="glyphs", classes=6, conflicting=0.5, **SMALL)
    train = data.splits["train"]
    assert set(np.unique(train.mask)) == {0, 1, 2}
    assert not (train.mask[:, :, :16] == 2).any()
    assert not (train.mask[:, :, 16:] == 1).any()
    # The right letter differs between image and twin exactly where one of the two masks has ink: compare with the
    # other rendering's mask by way of the pairs, whose mask belongs to the aligned rendering.
    pairs, split = data.pairs["test"], data.splits["test"]
    conflicting = split.attribute != split.label
    differ = (pairs.mask[conflicting] == 2) ^ (split.mask[conflicting] == 2)
    changed = (split.x[conflicting] != pairs.x[conflicting]).any(-1)
    assert differ.any((1, 2)).all()
    assert not (changed & ~differ).any()


def nearest_neighbour_accuracy(train_x, train_y, test_x, test_y):
    distance = (test_x**2).sum(1)[:, None] - 2 * test_x @ train_x.T + (train_x**2).sum(1)[None]
    return (train_y[distance.argmin(1)] == test_y).mean()


def test_the_background_is_learnable_from_texture_alone():
    """Amplitude spectra of standardised grey images know no colour, brightness or contrast; chance is 1/6."""
    data = scenes(classes=6, conflicting=5 / 6, train=1500, edit=6, accept=6, test=300)

    def spectrum(batch):
        gray, outside = batch.x.mean(-1), batch.mask == 0
        mean = (gray * outside).sum((1, 2)) / outside.sum((1, 2))
        gray = np.where(outside, gray, mean[:, None, None])  # the object is cut out
        gray = (gray - gray.mean((1, 2), keepdims=True)) / gray.std((1, 2), keepdims=True)
        return np.log1p(np.abs(np.fft.rfft2(gray))).reshape(len(gray), -1)

    train, test = data.splits["train"], data.splits["test"]
    accuracy = nearest_neighbour_accuracy(spectrum(train), train.attribute, spectrum(test), test.attribute)
    assert accuracy > 0.75


def test_the_object_is_visible():
    """The object's mean colour differs from its surroundings' in every image."""
    batch = scenes(**SMALL).splits["train"]
    gray, inside = batch.x.mean(-1), batch.mask == 1
    contrast = [abs(g[m].mean() - g[~m].mean()) for g, m in zip(gray, inside, strict=True)]
    assert min(contrast) > 10
    assert np.median(contrast) > 50


def test_class_names_and_kinds():
    assert len(SHAPES) >= 3
    assert len(TEXTURES) >= 3
    data = scenes(classes=3, **SMALL)
    assert data.label_names == ("disc/cross", "square/crescent", "ring/star")
    assert data.attribute_names == ("waves/checks", "bricks/speckle", "blobs/stripes")
    assert data.splits["train"].x.shape == (600, 32, 32, 3)
    assert scenes(image_size=48, **SMALL).splits["test"].x.shape == (180, 48, 48, 3)


def test_equal_seeds_give_equal_bits():
    one, same, other = scenes(seed=1, **SMALL), scenes(seed=1, **SMALL), scenes(seed=2, **SMALL)
    for a, b in zip(jax.tree.leaves(dict(one.splits)), jax.tree.leaves(dict(same.splits)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one.splits["train"].x != other.splits["train"].x).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "scene"}, "`kind`: expected one of scenes, glyphs, got 'scene' .did you mean 'scenes'"),
        ({"classes": 7}, "`classes`: expected 2..6, got 7"),
        ({"edit": 1}, "`edit`: expected at least classes=2 images, got 1"),
        ({"image_size": 8}, "`image_size`: expected at least 16, got 8"),
        ({"conflicting": -0.1}, "`conflicting`: expected a share in 0..1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ContractError, match=message):
        scenes(**options)


@pytest.mark.parametrize("kind", ["scenes", "glyphs"])
def test_every_label_of_the_masks_is_in_one_region(kind):
    data = scenes(kind=kind, train=20, edit=20, accept=20, test=20)
    labels = [label for region in data.regions.values() for label in region]
    assert sorted(labels) == np.unique(data.splits["test"].mask).tolist()
