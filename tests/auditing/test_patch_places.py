"""Where the data show attribute and label: on pictures made so that it is known, and with networks that count."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxdebias.auditing import patch_places
from jaxdebias.auditing.patch_places import PlacesConfig, audit_patches, balanced_rows, balancing, one_per_group, place
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, Dataset
from jaxdebias.explain import PatchFitConfig
from jaxdebias.measure import mean_interval
from jaxdebias.mitigate import quantile_mask
from jaxdebias.models import patch_net
from jaxdebias.models.patch_layers import Conv, Pool

KEY = jax.random.key(0)
SHORT = PlacesConfig(steps=200, batch_size=32, held_out=200, examples=8)


def pictures(n, seed, *, biased, side=16):
    """The label is a colour cast, the attribute a spot at rows and columns 10..13."""
    rng = np.random.default_rng(seed)
    attribute = rng.integers(0, 2, n).astype(np.int32)
    other = rng.random(n) < (0.1 if biased else 0.5)
    label = np.where(other, 1 - attribute, attribute).astype(np.int32)
    x = rng.integers(90, 130, (n, side, side, 3)).astype(np.uint8)
    x[label == 1, :, :, 0] += 60
    x[attribute == 1, 10:14, 10:14, 1:] = 250
    return Batch(x=x, label=label, attribute=attribute)


def dataset(**splits):
    return Dataset(
        name="toy",
        variant={},
        splits=splits,
        pairs={},
        label_names=("grey", "red"),
        attribute_names=("plain", "spot"),
        aligned=np.eye(2, dtype=bool),
    )


@pytest.fixture(scope="module")
def small_nets():
    """Networks of one layer, which learn faster."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            patch_places, "patch_net", functools.partial(patch_net, layers=(Conv(width=8), Pool()), hidden=16)
        )
        patched.setattr(patch_places, "PatchFitConfig", functools.partial(PatchFitConfig, learning_rate=1e-2))
        yield


@pytest.fixture(scope="module")
def found(small_nets):
    """Of data whose test split would be noticed if it were used: there is none under its name."""
    del small_nets
    data = dataset(train=pictures(600, 0, biased=True), edit=pictures(240, 1, biased=False), accept=None, test=None)
    return data, audit_patches(KEY, data, SHORT)


def test_a_spot_has_a_place_and_a_colour_cast_has_none(found):
    _, seen = found
    assert (seen.split, seen.rows, seen.missing) == ("edit", 200, 0)
    assert 300 < seen.train_rows < 600
    assert (seen.patch, seen.stride) == (6, 1)
    spot, cast = seen.attribute, seen.label
    assert spot.found
    assert not spot.spread
    assert spot.held > 0.7
    assert spot.area < 0.5
    peak = np.unravel_index(spot.map.argmax(), spot.map.shape)
    assert all(9 <= at <= 14 for at in peak)
    assert spot.map[:4, :4].mean() < 0.05 * spot.map.max()
    assert cast.found
    assert cast.spread
    assert cast.held < 0.4
    # A patch anywhere tells the cast; the spot is seen whole by some patches of the region, in part by the others.
    assert cast.information.value > 0.6
    assert spot.information.low > 0.2
    # All pixels are the top of a flat map, as that of the cast may be.
    a, b = (quantile_mask(one.map, 0.7).mean() or 1.0 for one in (spot, cast))
    assert seen.chance == pytest.approx(a * b / (a + b - a * b))
    assert 0 <= seen.overlap <= 1


def test_examples_show_their_own_value(found):
    data, seen = found
    held = data.splits["edit"]
    assert seen.attribute_maps.shape == seen.label_maps.shape == (len(seen.examples), 16, 16)
    groups = (2 * held.label + held.attribute)[seen.examples]
    assert groups.tolist() == sorted(groups)
    assert set(groups) == {0, 1, 2, 3}
    for maps in (seen.attribute_maps, seen.label_maps):
        assert maps.min() >= 0
        assert maps.max() == 1
    inside, outside = (seen.attribute_maps[:, rows, rows].mean(axis=(1, 2)) for rows in (slice(10, 14), slice(5)))
    spot = held.attribute[seen.examples] == 1
    assert (inside[spot] > 0.8).all()
    assert (outside[spot] < 0.2).all()
    # What has no spot shows that nowhere in particular.
    np.testing.assert_allclose(inside[~spot], outside[~spot], atol=0.2)


def test_large_pictures_are_looked_at_small(found, monkeypatch):
    """Pictures of squares of 2 x 2 equal pixels: halved, they are those of before, and so is all that is found."""
    data, small = found
    monkeypatch.setattr(patch_places, "LARGEST", 16)
    train, edit = (data.splits[name] for name in ("train", "edit"))
    large = dataset(
        train=train._replace(x=train.x.repeat(2, axis=1).repeat(2, axis=2)),
        edit=edit._replace(x=edit.x.repeat(2, axis=1).repeat(2, axis=2)),
    )
    seen = audit_patches(KEY, large, SHORT)
    assert (seen.patch, seen.stride) == (12, 2)
    np.testing.assert_array_equal(seen.attribute.map, small.attribute.map.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(seen.label_maps, small.label_maps.repeat(2, axis=1).repeat(2, axis=2))
    assert seen.attribute.information == small.attribute.information


class Counting:
    """In place of a patch network: what it was trained on; its maps say for every image how bright it is."""

    def __init__(self, images, codes):
        self.images, self.codes = images, codes
        self.prior = np.bincount(codes) / len(codes)
        self.temperature = 1.0

    def logits(self, images):
        self.checks = images
        return np.zeros((len(images), 1, 1, len(self.prior)))

    def _replace(self, temperature):
        self.temperature *= temperature
        return self

    def image_maps(self, images, truth, *, confidence, edge):
        assert (confidence, edge) == ("pointwise", "flush")
        assert truth.min() >= 0
        return np.broadcast_to(images.mean(axis=(1, 2, 3))[:, None, None], images.shape[:3])


@pytest.fixture
def fits(monkeypatch):
    made = []
    monkeypatch.setattr(patch_places, "fit_temperature", lambda logits, codes: 2.0)
    monkeypatch.setattr(
        patch_places,
        "fit_patches",
        lambda key, net, images, codes, config: made.append(Counting(images, codes)) or made[-1],
    )
    return made


def numbered(batch):
    """Every image is of one value: its own number, so that it is known where it went."""
    x = np.broadcast_to(np.arange(len(batch.label), dtype=np.float32)[:, None, None, None], (*batch.x.shape[:3], 1))
    return batch._replace(x=np.ascontiguousarray(x) / len(batch.label))


def test_without_a_split_for_it_a_fifth_of_the_training_images_is_left_out(fits):
    unit = (np.arange(300) // 3).astype(np.int32)
    train = numbered(pictures(300, 0, biased=True))._replace(unit=unit)
    seen = audit_patches(KEY, dataset(train=train, test=None), dataclasses.replace(SHORT, examples=100))
    assert seen.split == "train"
    assert seen.rows == 60
    trained, checks = (set(np.rint(x[:, 0, 0, 0] * 300).astype(int)) for x in (fits[0].images, fits[0].checks))
    assert not trained & checks
    assert len(trained | checks) == seen.train_rows > 150
    assert fits[0].temperature == fits[1].temperature == 2.0
    assert not set(unit[seen.examples]) & set(unit[list(trained | checks)])
    assert seen.attribute.information.n == 20  # units, not images


def test_unknown_and_rare_values_are_left_out(fits):
    train, edit = numbered(pictures(300, 0, biased=True)), numbered(pictures(100, 1, biased=False))
    attribute_train, label = train.attribute.copy(), train.label.copy()
    attribute_train[:40], attribute_train[40:50], label[50:55] = -1, 2, 2
    train = train._replace(attribute=attribute_train, label=label)
    attribute = edit.attribute.copy()
    attribute[:10], attribute[10:20] = -1, 2
    edit = edit._replace(attribute=attribute)
    data = dataclasses.replace(dataset(train=train, edit=edit), aligned=np.eye(3, dtype=bool))
    seen = audit_patches(KEY, data, SHORT)
    assert (seen.attribute.classes, seen.label.classes, seen.rows) == (2, 2, 80)
    number = np.rint(fits[0].images[:, 0, 0, 0] * 300).astype(int)
    assert number.min() >= 55
    assert np.bincount(2 * label[number] + attribute_train[number]).tolist() == [len(number) // 4] * 4
    np.testing.assert_array_equal(fits[0].codes, attribute_train[number])
    np.testing.assert_array_equal(fits[1].codes, label[number])
    assert seen.examples.min() >= 20
    only = edit._replace(attribute=np.where(edit.label == 1, 1, edit.attribute))
    assert audit_patches(KEY, dataset(train=train, edit=only), SHORT).missing == 1
    with pytest.raises(ContractError, match="`patches`: expected two values with 20 training images each"):
        audit_patches(KEY, dataset(train=train._replace(attribute=np.zeros(300, np.int32)), edit=edit), SHORT)
    with pytest.raises(ContractError, match="`patches`: expected held-out images with a known attribute, got none"):
        audit_patches(KEY, dataset(train=train, edit=edit._replace(attribute=np.full(100, -1, np.int32))), SHORT)


def test_tables_and_small_images_are_refused():
    table = Batch(x=np.zeros((4, 3), np.float32), label=np.zeros(4, np.int32), attribute=np.zeros(4, np.int32))
    with pytest.raises(ContractError, match="`patches`: expected a run on images, got toy, a table"):
        audit_patches(KEY, dataset(train=table))
    small = table._replace(x=np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(ContractError, match="`patches`: expected images of at least 12 pixels a side, got 8 x 8"):
        audit_patches(KEY, dataset(train=small))
    with pytest.raises(ContractError, match=r"config\.stride"):
        PlacesConfig(stride=0)


def test_a_place_by_hand():
    """A tenth of the pixels says 0.5 nats in images of weight 1, and 0.1 in those of weight 3."""
    maps = np.zeros((40, 10, 10), np.float32)
    maps[:20, 0], maps[20:, 0] = 0.5, 0.1
    weight = np.repeat([1.0, 3.0], 20)
    seen = place(KEY, maps, weight, np.arange(40), most=0.5, classes=2)
    np.testing.assert_allclose(seen.map[0], 0.2, rtol=1e-6)
    assert seen.information.value == pytest.approx(0.4)
    assert seen.information.n == 40
    share = np.repeat([1.0, 0.2], 20)  # of the nats that there are
    expected = mean_interval(share, key=KEY, weight=weight, bounds=(-1.0, 1.0))
    np.testing.assert_allclose(seen.information, expected, rtol=1e-6)
    error = np.sqrt(20 * (1 * 0.6) ** 2 + 20 * (3 * 0.2) ** 2) / 80
    assert seen.information.high - seen.information.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert (seen.held, seen.spread, seen.found) == (1.0, False, True)
    assert seen.area == pytest.approx(0.1)
    # Two copies of an image are one: the error does not shrink.
    twice = place(KEY, maps.repeat(2, axis=0), weight.repeat(2), np.arange(40).repeat(2), most=0.5, classes=2)
    np.testing.assert_allclose(twice.information[:3], seen.information[:3], rtol=1e-6)


def test_a_place_is_less_than_half_the_picture():
    """A rectangle of 30 % of the pixels holds 60 %, the rest lies behind it or all around."""
    maps = np.zeros((8, 10, 10), np.float32)
    maps[:, :3] = 2.0
    behind, around = maps.copy(), maps.copy()
    behind[:, 3:5], around[:, 3:] = 2.0, 4 / 7
    near, far = (place(KEY, one, np.ones(8), np.arange(8), most=2.0, classes=2) for one in (behind, around))
    assert (near.held, far.held) == pytest.approx((0.6, 0.6))
    assert near.area <= 0.5 < far.area
    assert (near.spread, far.spread) == (False, True)


def test_what_every_pixel_tells_is_found_everywhere():
    """A perfect net on a colour cast makes a flat map, none of whose pixels is above the others."""
    flat = place(KEY, np.full((8, 10, 10), np.log(2), np.float32), np.ones(8), np.arange(8), most=np.log(2), classes=2)
    assert flat.information.value == pytest.approx(1.0)
    assert (flat.found, flat.spread) == (True, True)
    none = place(KEY, np.zeros((8, 10, 10), np.float32), np.ones(8), np.arange(8), most=np.log(2), classes=2)
    assert not none.found


def test_noise_has_no_place():
    """The top of a map of noise is positive by choice; judged on other images it is not."""
    rng = np.random.default_rng(0)
    seen = [
        place(KEY, rng.normal(size=(60, 12, 12)).astype(np.float32), np.ones(60), np.arange(60), most=1.0, classes=2)
        for _ in range(100)
    ]
    # 2.5 % by the interval's own account. The regions' own noise comes on top, as both halves share nothing else.
    assert sum(one.found for one in seen) <= 8
    assert abs(np.mean([one.information.value for one in seen])) < 0.01
    flat = place(KEY, np.zeros((6, 12, 12), np.float32), np.ones(6), np.arange(6), most=1.0, classes=2)
    assert not flat.found
    assert flat.spread


def test_all_groups_count_alike():
    rng = np.random.default_rng(0)
    attribute, label = rng.choice(3, 500, p=[0.7, 0.2, 0.1]), rng.integers(0, 2, 500)
    weight, missing = balancing(attribute, label)
    assert missing == 0
    np.testing.assert_allclose(np.bincount(3 * label + attribute, weights=weight), 1.0)


def test_training_draws_of_every_group_alike():
    """Groups of 50, 30, 1 and no images, and some unknown."""
    attribute = np.repeat([0, 1, 1, -1], [50, 30, 1, 19]).astype(np.int32)
    label = np.repeat([0, 0, 1, 1], [50, 30, 1, 19]).astype(np.int32)
    rows, checks = balanced_rows(KEY, attribute, label, 60)
    assert np.bincount(2 * label[rows] + attribute[rows]).tolist() == [20, 20, 0, 20]
    assert len(set(rows)) == 41
    assert len(checks) == 6
    assert set(rows) & set(checks) == {80}  # the only one of its group
    assert np.bincount(2 * label[checks] + attribute[checks]).tolist() == [2, 2, 0, 2]
    assert len(balanced_rows(KEY, attribute, label, 10**6)[0]) == 81


def test_examples_go_through_the_groups():
    group = np.arange(50, dtype=np.int32) % 10
    assert group[one_per_group(group, 20)].tolist() == np.repeat(np.arange(10), 2).tolist()
    assert group[one_per_group(group, 3)].tolist() == [0, 4, 9]
    assert len(one_per_group(group, 0)) == 0
