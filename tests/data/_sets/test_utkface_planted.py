import numpy as np
import pytest
from oracles.faces import colour_of, utkface_rows, write_packed_utkface

from jaxdebias.contracts import ContractError
from jaxdebias.data import utkface_planted
from jaxdebias.data._sets.utkface import utkface_folder
from jaxdebias.data._sets.utkface_planted import CORNERS, marker_box, plant

ROWS = utkface_rows()  # 72 of each gender are 10 or older
FEW = {"edit": 16, "accept": 12, "test": 20, "image_size": 64}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_packed_utkface(tmp_path_factory.mktemp("packed") / "utkface", ROWS)


@pytest.fixture(scope="module")
def data(files):
    return utkface_planted(files, conflicting=0.1, **FEW)


def whose(images, mask):
    """The number of each picture, from its colour outside the marker."""
    colours = np.array([colour_of(i) for i in range(len(ROWS))], int)
    shown = np.array([np.median(image[one == 0], axis=0) for image, one in zip(images, mask, strict=True)])
    return abs(shown[:, None] - colours).sum(-1).argmin(axis=1)


def test_who_is_where(data):
    parts = {name: whose(batch.x, batch.mask) for name, batch in data.splits.items()}
    assert {name: len(rows) for name, rows in parts.items()} == {
        "train": 144 - 48,
        "edit": 16,
        "accept": 12,
        "test": 40,
    }
    everybody = np.concatenate([np.unique(rows) for rows in parts.values()])
    assert len(set(everybody)) == len(everybody)
    for name, batch in data.splits.items():
        assert all(ROWS[i][0] >= 10 for i in parts[name])
        np.testing.assert_array_equal(batch.label, [ROWS[i][1] for i in parts[name]])
    cells = {
        name: np.bincount(2 * batch.label + batch.attribute, minlength=4).tolist()
        for name, batch in data.splits.items()
    }
    assert cells == {"train": [43, 5, 5, 43], "edit": [4] * 4, "accept": [3] * 4, "test": [10] * 4}
    test = data.splits["test"]
    np.testing.assert_array_equal(parts["test"][:20], parts["test"][20:])
    np.testing.assert_array_equal(test.unit, np.tile(np.arange(20), 2))
    np.testing.assert_array_equal(test.x[:20], test.twin[20:])
    for name, pairs in data.pairs.items():
        np.testing.assert_array_equal(pairs.attribute, pairs.label)
        assert set(whose(pairs.x, pairs.mask)) == set(parts[name])


def test_the_marker_is_the_only_difference_to_the_twin(data):
    for batch in (*data.splits.values(), *data.pairs.values()):
        differs = (batch.x != batch.twin).any(-1)
        assert not differs[batch.mask == 0].any()
        assert differs[batch.mask == 1].mean() > 0.99
        assert (batch.mask.sum((1, 2)) == 100).all()
        with_it = np.where((batch.attribute == 1)[:, None, None, None], batch.x, batch.twin)
        for image, mask in zip(with_it, batch.mask, strict=True):
            top, left = (np.flatnonzero(mask.any(axis))[0] for axis in (1, 0))
            assert {int(top), int(left)} <= set(range(2, 7))
            square = image[top : top + 10, left : left + 10].astype(float)
            assert mask[top : top + 10, left : left + 10].all()
            # Red and yellow differ in green alone; along a diagonal the stripe stays the same.
            red = square[..., 1] < 125
            np.testing.assert_array_equal(red, [[(i + j) // 2 % 2 == 0 for j in range(10)] for i in range(10)])
            assert 10 < (square[..., 1][red] - 30).std() < 30
    assert marker_box(data.splits["train"].mask).sum() <= 14 * 14


@pytest.mark.parametrize("corner", CORNERS)
def test_corners(corner):
    images = np.full((40, 32, 32, 3), 128, np.uint8)
    plain, marked, mask = plant(np.random.default_rng(0), images, corner)
    assert plain is images
    half = {"top": slice(0, 16), "bottom": slice(16, 32), "left": slice(0, 16), "right": slice(16, 32)}
    first, second = (half[word] for word in corner.split())
    assert mask.sum() == mask[:, first, second].sum() == 40 * 25  # 5 x 5 at half the size
    np.testing.assert_array_equal(marked[mask == 0], 128)


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("size", [64, 32])
def test_markers_are_at_every_allowed_distance_and_no_other(corner, size):
    """2 to 6 pixels from both edges of the corner, of 64: 25 places, each about equally often."""
    images = np.full((2000, size, size, 3), 128, np.uint8)
    mask = plant(np.random.default_rng(0), images, corner)[2]
    rows, columns = mask.any(2), mask.any(1)
    down = (rows[:, ::-1] if corner.startswith("bottom") else rows).argmax(1)
    along = (columns[:, ::-1] if corner.endswith("right") else columns).argmax(1)
    nearest, farthest = (2, 6) if size == 64 else (1, 3)
    for distance in (down, along):
        count = np.bincount(distance)
        assert not count[:nearest].any()
        assert len(count) == farthest + 1
        expected = len(images) / (farthest - nearest + 1)
        assert (abs(count[nearest:] - expected) < 5 * np.sqrt(expected)).all()


def test_never_marked_is_the_same_but_for_training(files, data):
    free = utkface_planted(files, conflicting=0.1, marked="never", **FEW)
    train = data.splits["train"]
    without = np.where((train.attribute == 1)[:, None, None, None], train.twin, train.x)
    np.testing.assert_array_equal(free.splits["train"].x, without)
    assert not free.splits["train"].attribute.any()
    np.testing.assert_array_equal(free.splits["train"].label, train.label)
    for name in ("edit", "accept", "test"):
        np.testing.assert_array_equal(free.splits[name].x, data.splits[name].x)
    np.testing.assert_array_equal(free.aligned, data.aligned)


def test_equal_seeds_equal_bits(files):
    few = {"edit": 4, "accept": 4, "test": 8, "image_size": 16}
    one, same, other = (utkface_planted(files, seed=seed, **few).splits["train"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.x, same.x)
    assert (one.x != other.x).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conflicting": 1.5}, "`conflicting`: expected a share in 0..1"),
        ({"marked": "always"}, "`marked`: expected one of biased, never, got 'always'"),
        (
            {"corner": "middle"},
            "`corner`: expected one of top left, top right, bottom left, bottom right, got 'middle'",
        ),
        ({"edit": 6}, "`edit`: expected a multiple of 4 of at least 4, got 6"),
        ({"test": 120}, r"`edit . accept . test`: expected fewer than 144 faces, got 148"),
        ({"image_size": 8}, "`image_size`: expected at least 16, got 8"),
    ],
)
def test_bad_arguments_are_refused(files, options, message):
    with pytest.raises(ContractError, match=message):
        utkface_planted(files, **{**FEW, **options})


@pytest.mark.slow
@pytest.mark.realdata
def test_real_faces(data_dir):
    data = utkface_planted(utkface_folder(data_dir), image_size=16)
    assert len(data.splits["test"].label) == 1400
    train = data.splits["train"]
    assert len(train.label) > 1500
    assert (train.label == train.attribute).mean() == pytest.approx(0.95, abs=0.001)
