"""All overlapping patches: the dense ways against every crop by itself, the plan against the published FLOP ratios."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import patches as oracle

from jaxdebias.contracts import ContractError
from jaxdebias.explain import patch_logits
from jaxdebias.explain._patches import grid_of, plan
from jaxdebias.models import patch_net
from jaxdebias.models.patch_layers import Conv, Pool, Residual

RNG = np.random.default_rng(0)
STRIDES = (1, 2, 3, 4, 8)
IMAGES = RNG.uniform(size=(2, 18, 23, 3)).astype(np.float32)
NETS = {
    "max-pool, batch norm, late": patch_net(
        patch=8,
        layers=(Conv(width=4, norm="batch"), Pool(), Conv(width=5, kernel=2)),
        hidden=6,
        position="late",
        grid=(1, 1),
    ),
    # On 10 pixels the last one is dropped by the second window, so the map of the net goes on behind the last patch.
    "strides 2, residual, mean": patch_net(
        patch=10,
        layers=(
            Conv(width=4, stride=2, norm="channel"),
            Residual(body=(Conv(width=5, kernel=2, stride=2), Conv(width=5, kernel=1, relu=False))),
        ),
        head="mean",
        hidden=0,
    ),
    "residual without a stride, average": patch_net(
        patch=8,
        layers=(
            Pool(kernel=2, stride=1, kind="avg"),
            Conv(width=4, kernel=2),
            Residual(body=(Conv(width=4, norm="batch"),)),
            Pool(kernel=3, stride=3),
        ),
        hidden=6,
    ),
}


def of_stride(net, stride, *, flush=False):
    """The net that knows the grid of the test's images."""
    grid = grid_of(IMAGES.shape[1:3], net.patch, stride, flush=flush)
    return dataclasses.replace(net, grid=grid) if net.position != "none" else net


def check(net, ways):
    """`ways`: (stride, options of `patch_logits`), all in one program."""
    cases = []
    for stride, options in ways:
        own = of_stride(net, stride, flush=options.get("flush", False))
        cases.append((own, oracle.drawn(own), stride, options))

    @jax.jit
    def found(every):
        return [
            patch_logits(own, params, IMAGES, stride=stride, **options)
            for params, (own, _, stride, options) in zip(every, cases, strict=True)
        ]

    for got, (own, params, stride, options) in zip(found([case[1] for case in cases]), cases, strict=True):
        wanted = oracle.patch_logits(own, params, IMAGES, stride, options.get("flush", False))
        scale = max(1.0, np.abs(wanted).max())
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, atol=1e-5 * scale, err_msg=f"stride {stride}, {options}")


@pytest.mark.parametrize("name", list(NETS)[:2])
def test_dense_equals_every_crop_by_itself(name):
    check(NETS[name], [(stride, {"method": "dense"}) for stride in STRIDES])


def test_other_ways_equal_every_crop_by_itself():
    check(
        NETS["max-pool, batch norm, late"],
        [
            (1, {"method": "phases"}),
            (3, {"method": "phases", "flush": True}),
            (2, {"method": "tiled", "tile": 4}),
            (3, {"method": "dense", "flush": True}),
            (3, {"method": "crops", "chunk": 7}),
        ],
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NETS))
@pytest.mark.parametrize(
    "options",
    [
        {"method": "dense", "flush": True},
        {"method": "phases"},
        {"method": "tiled", "tile": 3},
        {"method": "crops", "chunk": 50},
    ],
    ids=lambda options: options["method"],
)
def test_every_way_equals_every_crop_by_itself(name, options):
    check(NETS[name], [(stride, options) for stride in STRIDES])


def test_a_function_of_crops_is_evaluated_exactly():
    """Of whole numbers below 2^24, so that any order of sums gives the same bits; chunks that do not divide 12."""
    images = RNG.integers(0, 256, (2, 9, 7, 1)).astype(np.uint8)
    weights = RNG.integers(-9, 9, (16, 3)).astype(np.float32)

    def own(params, crops):
        assert crops.dtype == jnp.uint8
        return crops.astype(jnp.float32).reshape(len(crops), -1) @ params

    cut = oracle.crops(images, 4, oracle.starts(9, 4, 2, True), oracle.starts(7, 4, 2, True))
    wanted = cut.reshape(*cut.shape[:3], 16).astype(np.float64) @ weights
    assert wanted.shape == (2, 4, 3, 3)
    for chunk in (5, 24, 100):
        found = patch_logits(own, weights, images, stride=2, patch=4, chunk=chunk, flush=True)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("patch", "size", "ratios"),
    [
        (8, 32, (8.8, 3.4, 1.1, 0.4)),
        (16, 64, (11.5, 9.4, 4.3, 1.5)),
        (32, 128, (48.3, 41.7, 19.2, 6.5)),
        (32, 224, (51.0, 44.9, 21.7, 7.3)),
    ],
)
def test_the_plan_counts_flops(patch, size, ratios):
    found = [plan(patch_net(patch=patch), (size, size), stride=stride) for stride in (1, 2, 4, 8)]
    assert [round(one.ratio, 1) for one in found] == list(ratios)
    assert [one.method for one in found] == ["dense" if ratio >= 1 else "crops" for ratio in ratios]


def test_flops_by_hand():
    """8 x 8 patches of 10 x 12 pixels: a 3x3 convolution of 3 to 4 channels, a 2x2 maximum, 3 x 3 x 4 to 2."""
    net = patch_net(patch=8, layers=(Conv(width=4), Pool()), hidden=0)
    found = plan(net, (10, 12), stride=2)
    assert found.crop_flops == 2 * 6 * (36 * 27 * 4 + 36 * 2)
    assert found.dense_flops == 2 * (8 * 10 * 27 * 4 + 6 * 36 * 2)
    assert found.values == 10 * 12 * 3


def test_a_large_image_is_tiled():
    found = plan(patch_net(patch=32), (4000, 4000), stride=4)
    assert found.method == "tiled"
    assert 1 <= found.tile < found.grid[0]


def test_what_has_no_dense_form_is_refused_by_name(key):
    nets = {
        "condition 1": patch_net(patch=8, layers=(Conv(width=2, padding=1),)),
        "condition 2": patch_net(patch=8, layers=(Conv(width=2), Conv(width=2, norm="group"))),
        "condition 5": patch_net(patch=8, layers=(Conv(width=2),), position="early", grid=(11, 16)),
    }
    for condition, net in nets.items():
        assert plan(net, (18, 23), stride=1).method == "crops"
        for method in ("dense", "phases", "tiled"):
            with pytest.raises(ContractError, match=f"method.*{condition}"):
                patch_logits(net, jax.eval_shape(net.init, key), IMAGES, stride=1, method=method)
    with pytest.raises(ContractError, match="not known"):
        patch_logits(lambda params, crops: crops, None, IMAGES, stride=1, patch=8, method="dense")


def test_refuses():
    net = patch_net(patch=16)
    with pytest.raises(ContractError, match="16 pixels"):
        patch_logits(net, None, np.zeros((1, 15, 20, 3), np.float32), stride=1)
    with pytest.raises(ContractError, match="did you mean 'dense'"):
        patch_logits(net, None, IMAGES, stride=1, method="dens")
    with pytest.raises(ContractError, match="images"):
        patch_logits(net, None, IMAGES[..., :1], stride=1)
    with pytest.raises(ContractError, match="positions of the grid"):
        patch_logits(NETS["max-pool, batch norm, late"], None, IMAGES, stride=1)
    with pytest.raises(ContractError, match="patch"):
        patch_logits(lambda params, crops: crops, None, IMAGES, stride=1)
