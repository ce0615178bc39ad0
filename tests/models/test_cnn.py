"""`pooled_cnn` against its definition, loop by loop."""

import jax
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.models import pooled_cnn


def same_convolution(x, kernel, bias, stride):
    """`[h w c]`, zero padding, of which the lower right gets the odd row and column."""
    side = kernel.shape[0]
    out_h, out_w = (-(-n // stride) for n in x.shape[:2])
    pads = [max((out - 1) * stride + side - n, 0) for out, n in zip((out_h, out_w), x.shape[:2], strict=True)]
    x = np.pad(x, [*((pad // 2, pad - pad // 2) for pad in pads), (0, 0)])
    out = np.empty((out_h, out_w, kernel.shape[-1]))
    for i in range(out_h):
        for j in range(out_w):
            window = x[i * stride : i * stride + side, j * stride : j * stride + side]
            out[i, j] = np.tensordot(window, kernel, 3) + bias
    return out


def test_pooled_cnn_is_what_it_says():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2, 16, 12, 3), np.uint8)
    network = pooled_cnn(channels=(4, 6), kernels=(5, 3), strides=(4, 1), classes=3)
    assert network is pooled_cnn(channels=[4, 6], kernels=[5, 3], strides=[4, 1], classes=3)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    p = params["params"]
    for image, logits in zip(x, np.asarray(network.apply(params, x)), strict=True):
        z = (image / 255 - 0.5) * 4
        for i, stride in enumerate((4, 1)):
            z = same_convolution(z, p[f"convs_{i}"]["kernel"], p[f"convs_{i}"]["bias"], stride)
            z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-6)
            z = np.maximum(z * p[f"norms_{i}"]["scale"] + p[f"norms_{i}"]["bias"], 0)
        assert z.shape == (4, 3, 6)
        np.testing.assert_allclose(logits, z.mean((0, 1)) @ p["head"]["kernel"] + p["head"]["bias"], atol=1e-4)


def test_layers_are_described_in_full():
    with pytest.raises(ContractError, match="`strides`: expected 2, one per convolution, got"):
        pooled_cnn(channels=(4, 6), kernels=(3, 3), strides=(1,))
