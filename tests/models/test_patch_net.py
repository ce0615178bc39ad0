"""Patch networks on crops, against NumPy; their description, and what they refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import patches as oracle

from jaxdebias.contracts import ContractError
from jaxdebias.explain import patch_logits
from jaxdebias.models import patch_net
from jaxdebias.models.patch_layers import Conv, Lattice, Pool, Residual

RNG = np.random.default_rng(0)
SMALL = patch_net(
    patch=9,
    layers=(
        Conv(width=8, padding=1, norm="group"),
        Pool(kernel=3, stride=2, kind="avg"),
        Residual(
            body=(Conv(width=6, stride=2, padding=1, norm="batch"), Conv(width=6, padding=1, norm="batch", relu=False))
        ),
    ),
    head="mean",
    hidden=0,
    position="early",
    grid=(2, 3),
)


def test_crops_equal_numpy():
    params = oracle.drawn(SMALL)
    crops, position = RNG.integers(0, 256, (6, 9, 9, 3)).astype(np.uint8), np.array([5, 0, 1, 1, 4, 3], np.int32)
    found = jax.jit(SMALL.apply)(params, crops, position)
    np.testing.assert_allclose(found, oracle.logits(SMALL, params, crops / 255, position), atol=2e-5)


def test_training_mode_uses_and_remembers_the_batch():
    net = patch_net(patch=4, layers=(Conv(width=3, norm="batch", relu=False),), head="mean", hidden=0)
    params = oracle.drawn(net)
    crops = RNG.uniform(size=(5, 4, 4, 3)).astype(np.float32)
    logits, after = jax.jit(net.train)(params, crops)
    bare = dataclasses.replace(net, layers=(Conv(width=3, relu=False),))
    kernel = {"kernel": params["params"]["layer0"]["kernel"], "bias": np.zeros(3)}
    plain = oracle.convolution(bare.layers[0], {"params": {"c": kernel}}, "c", (crops - net.mean) / net.std)
    mean, var = plain.mean((0, 1, 2)), plain.var((0, 1, 2))
    stats = {"layer0": {"mean": mean, "var": var}}
    np.testing.assert_allclose(logits, oracle.logits(net, {**params, "batch_stats": stats}, crops), atol=2e-5)
    for name, value in stats["layer0"].items():
        wanted = 0.9 * np.asarray(params["batch_stats"]["layer0"][name]) + 0.1 * value
        np.testing.assert_allclose(after["batch_stats"]["layer0"][name], wanted, rtol=1e-5)


def test_the_papers_network_has_its_size():
    """ResNet-18 for 32 x 32 has 11,173,962 parameters with 3 channels and 10 classes; 2,401 planes of 32 x 32."""
    net = patch_net(patch=32, position="early", grid=(49, 49))
    params = jax.eval_shape(net.init, jax.random.key(0))["params"]
    assert params.pop("position").size == 2401 * 1024
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 11_173_962 + 64 * 9 - 8 * 513
    assert net.side == 4


def test_default_networks():
    for patch, side, width, hidden in ((8, 2, 32, 64), (16, 4, 64, 64), (32, 5, 64, 128)):
        net = patch_net(patch=patch)
        assert (net.side, net.width, net.hidden) == (side, width, hidden)
    assert hash(patch_net(patch=16, layers=(Conv(width=4),))) == hash(patch_net(patch=16, layers=(Conv(width=4),)))


def test_lattices_of_unequal_strides():
    """Strides 2, 2 under patches every 6 pixels: every pixel, every second, every second."""
    dilation, stride, lattice = Lattice(stride=6).step(2)
    assert (dilation, stride) == (1, 2)
    dilation, stride, lattice = lattice.step(2)
    assert (dilation, stride, lattice.spacing) == (1, 1, 2)
    assert lattice.head == (2, 3)


def test_initial_values(key):
    """He's variance 2 / fan_in for convolutions, PyTorch's 1 / (3 fan_in) for affine layers."""
    net = patch_net(patch=16)
    init = jax.jit(net.init)
    params, other = (init(one)["params"] for one in (key, jax.random.key(1)))
    for name, fan_in, size in (("layer1", 9 * 16, 2.0), ("layer3", 9 * 32, 2.0), ("hidden", 1024, 1 / 3)):
        kernel = np.asarray(params[name]["kernel"])
        assert kernel.var() * fan_in == pytest.approx(size, rel=0.05)
        assert abs(np.corrcoef(kernel.ravel(), np.asarray(other[name]["kernel"]).ravel())[0, 1]) < 0.1
    assert not np.asarray(params["layer0"]["bias"]).any()


def test_refuses():
    with pytest.raises(ContractError, match="maps of at least 3 pixels"):
        patch_net(patch=6, layers=(Conv(width=4), Pool(), Conv(width=4)))
    with pytest.raises(ContractError, match=r"grid.*\(rows, columns\)"):
        patch_net(patch=16, position="late")
    with pytest.raises(ContractError, match="did you mean 'late'"):
        patch_net(patch=16, position="lat")
    with pytest.raises(ContractError, match="norm"):
        Conv(width=4, norm="layer")
    net = patch_net(patch=8)
    with pytest.raises(ContractError, match=r"crops.*\[m 8 8 3\]"):
        net.apply(oracle.drawn(net), np.zeros((2, 9, 9, 3), np.float32))


@pytest.mark.slow
def test_a_trunk_in_bfloat16(key):
    """Logits stay float32 and near those of float32; dense and crops agree as far as the dtype goes."""
    x = np.random.default_rng(0).integers(0, 256, (2, 20, 24, 3), dtype=np.uint8)
    exact, half = (patch_net(patch=8, dtype=dtype) for dtype in ("float32", "bfloat16"))
    params = exact.init(key)
    assert jax.tree.leaves(half.init(key))[0].dtype == jnp.float32
    one, dense, crops = (
        patch_logits(net, params, x, stride=4, method=method)
        for net, method in ((exact, "dense"), (half, "dense"), (half, "crops"))
    )
    assert dense.dtype == jnp.float32
    scale = float(jnp.abs(one).max())
    assert 0 < float(jnp.abs(dense - one).max()) < 0.03 * scale
    assert float(jnp.abs(dense - crops).max()) < 0.03 * scale
    gradient = jax.grad(lambda p: half.apply(p, x[:, :8, :8]).sum())(params)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))
    with pytest.raises(ContractError, match="dtype"):
        patch_net(patch=8, dtype="float16")
