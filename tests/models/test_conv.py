"""The scan-fast convolution and max-pool against the stock ones: values, derivatives of both modes, vmap, speed."""

import functools
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdebias.models import conv_general_dilated, max_pool

NHWC = ("NHWC", "HWIO", "NHWC")
CASES = {  # shape of x, shape of w, strides, padding, other arguments
    "same": ((2, 6, 6, 3), (3, 3, 3, 4), (1, 1), "SAME", {}),
    "valid": ((2, 7, 5, 3), (3, 2, 3, 4), (1, 1), "VALID", {}),
    "stride 2, even": ((2, 8, 6, 3), (3, 3, 3, 4), (2, 2), "SAME", {}),
    "stride 2, odd": ((2, 7, 9, 3), (3, 3, 3, 4), (2, 2), "SAME", {}),
    "rows unused": ((2, 8, 8, 2), (3, 3, 2, 4), (3, 2), "VALID", {}),
    "explicit": ((2, 9, 9, 3), (7, 7, 3, 2), (2, 2), [(3, 3), (2, 3)], {}),
    "pointwise": ((2, 5, 5, 3), (1, 1, 3, 4), (2, 2), "VALID", {}),
    "dilated kernel": ((2, 8, 8, 3), (3, 3, 3, 4), (1, 2), "SAME", {"rhs_dilation": (2, 2)}),
    "transposed": ((2, 4, 4, 3), (4, 4, 3, 2), (1, 1), [(2, 2), (2, 2)], {"lhs_dilation": (2, 2)}),
    "grouped": ((2, 6, 6, 4), (3, 3, 2, 6), (2, 2), "SAME", {"feature_group_count": 2}),
    "depthwise": ((2, 6, 6, 3), (3, 3, 1, 3), (1, 1), "SAME", {"feature_group_count": 3}),
}


def operands_and_options(case):
    x, w, strides, padding, other = CASES[case]
    operands = draw(0, *x), draw(1, *w), draw(2, *x), draw(3, *w)
    return operands, {"window_strides": strides, "padding": padding, **other}


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def everything(conv, x, w, vx, vw, *, order=2, **options):
    """Every derivative that the library takes of a convolution."""

    def f(x, w):
        return conv(x, w, dimension_numbers=NHWC, **options)

    def loss(x, w):
        return jnp.square(jnp.tanh(f(x, w))).sum()

    def grad(x, w):
        return jax.grad(loss, (0, 1))(x, w)

    def slope(x, w):
        gx, gw = grad(x, w)
        return (gx * vx).sum() + (gw * vw).sum()

    first = {
        "value": f(x, w),
        "jvp": jax.jvp(f, (x, w), (vx, vw))[1],
        "grad": grad(x, w),
        "per-example grad": jax.vmap(lambda row: jax.grad(loss, 1)(row[None], w))(x),
    }
    second = {
        "jvp of grad": jax.jvp(grad, (x, w), (vx, vw))[1],
        "grad of grad": jax.grad(slope, (0, 1))(x, w),
        "vmap over kernels": jax.vmap(jax.grad(loss, (0, 1)), (None, 0))(x, jnp.stack([w, vw])),
        "vmap over both": jax.vmap(f)(jnp.stack([x, vx]), jnp.stack([w, vw])),
    }
    return first | second if order == 2 else first


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_stock_convolution(case):
    operands, options = operands_and_options(case)
    order = 2 if case in ("stride 2, odd", "grouped") else 1  # spares compilations
    ours, stock = (
        jax.jit(functools.partial(everything, conv, order=order, **options))(*operands)
        for conv in (conv_general_dilated, lax.conv_general_dilated)
    )
    for name in stock:
        for got, want in zip(jax.tree.leaves(ours[name]), jax.tree.leaves(stock[name]), strict=True):
            assert got.dtype == want.dtype
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max(), err_msg=name)


def convolutions(jaxpr):
    """Names of the convolution primitives anywhere in a jaxpr."""
    for eqn in jaxpr.eqns:
        if "conv_" in eqn.primitive.name or eqn.primitive.name.endswith("_conv"):
            yield eqn.primitive.name
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "jaxpr")):
            if hasattr(value, "jaxpr"):
                yield from convolutions(value.jaxpr)


@pytest.mark.parametrize("case", ["stride 2, odd", "grouped"])
def test_no_stock_convolution_is_left_in_any_derivative(case):
    operands, options = operands_and_options(case)
    closed = jax.make_jaxpr(functools.partial(everything, conv_general_dilated, **options))(*operands)
    assert set(convolutions(closed.jaxpr)) == {"scan_fast_conv"}
    stock = jax.make_jaxpr(functools.partial(everything, lax.conv_general_dilated, **options))(*operands)
    assert set(convolutions(stock.jaxpr)) == {"conv_general_dilated"}  # the search finds what it looks for


def test_compiles_to_channels_last_convolutions_inside_a_scan():
    x, w = draw(0, 4, 8, 8, 3), draw(1, 3, 3, 3, 5)

    def step(w, _):
        loss = lambda w: jnp.square(conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=NHWC)).sum()  # noqa: E731
        return w - jax.grad(loss)(w), None

    text = jax.jit(lambda w: lax.scan(step, w, None, length=3)[0]).lower(w).as_text()
    if jax.default_backend() == "cpu":
        layouts = {
            line.split("dim_numbers = ")[1].split(", window")[0]
            for line in text.splitlines()
            if "stablehlo.convolution" in line
        }
        assert layouts == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}


def test_other_layouts_and_flax():
    x, w = draw(0, 2, 3, 6, 6), draw(1, 4, 3, 3, 3)
    ours, stock = (
        jax.grad(lambda w, conv=conv: jnp.square(conv(x, w, (2, 2), "SAME")).sum())(w)  # NCHW, OIHW
        for conv in (conv_general_dilated, lax.conv_general_dilated)
    )
    np.testing.assert_allclose(ours, stock, rtol=1e-5, atol=1e-4)

    ours, stock = nn.Conv(4, (3, 3), conv_general_dilated=conv_general_dilated), nn.Conv(4, (3, 3))
    params = stock.init(jax.random.key(0), x)
    np.testing.assert_array_equal(ours.apply(params, x), stock.apply(params, x))


def test_errors_are_those_of_the_stock_convolution():
    with pytest.raises(ValueError, match="feature"):
        conv_general_dilated(draw(0, 1, 4, 4, 3), draw(1, 3, 3, 2, 4), (1, 1), "SAME", dimension_numbers=NHWC)


POOLS = {
    "2x2": ((2, 2), (2, 2), "VALID"),
    "stem": ((3, 3), (2, 2), [(1, 1), (1, 1)]),
    "same": ((3, 2), (2, 1), "SAME"),
    "rows unused": ((2, 2), (3, 3), "VALID"),
    "no strides": ((2, 2), None, "VALID"),
}


@pytest.mark.parametrize("case", POOLS)
def test_max_pool_agrees_with_flax(case):
    x = np.round(draw(0, 2, 7, 8, 3) * 2) / 2  # many ties
    g = draw(1, *nn.max_pool(x, *POOLS[case]).shape)
    for pooled in (jnp.asarray(x), jnp.full_like(x, -2.0)):
        ours, stock = (
            jax.value_and_grad(lambda x, pool=pool: (pool(x, *POOLS[case]) * g).sum())(pooled)
            for pool in (max_pool, nn.max_pool)
        )
        np.testing.assert_allclose(ours[0], stock[0], rtol=1e-6)
        np.testing.assert_allclose(ours[1], stock[1], atol=1e-6)


@pytest.mark.parametrize("place", [(0, 0), (1, 1)])
def test_max_pool_passes_nan_on(place):
    x = jnp.zeros((1, 2, 2, 1)).at[0, place[0], place[1], 0].set(jnp.nan)
    assert jnp.isnan(max_pool(x, (2, 2), (2, 2))).all()


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only XLA's CPU compiler needs the cure")
def test_training_step_in_a_scan_costs_what_it_costs_outside():
    x, y = draw(0, 64, 48, 48, 3), draw(1, 64, 64)
    weights = [0.1 * draw(i, 3, 3, a, b) for i, (a, b) in enumerate([(3, 32), (32, 64), (64, 64)])]

    def step(weights, _):
        def loss(weights):
            z = x
            for w in weights:
                z = nn.relu(conv_general_dilated(z, w, (2, 2), "SAME", dimension_numbers=NHWC))
            return jnp.square(z.mean((1, 2)) - y).mean()

        return jax.tree.map(lambda w, g: w - 0.1 * g, weights, jax.grad(loss)(weights)), None

    steps, once = 4, jax.jit(lambda weights: step(weights, None)[0])
    scanned = jax.jit(lambda weights: lax.scan(step, weights, None, length=steps)[0])

    def outside(weights):
        for _ in range(steps):
            weights = once(weights)
        return weights

    seconds = {outside: [], scanned: []}
    for round_ in range(8):  # interleaved, so that a busy machine slows both
        for run, times in seconds.items():
            start = time.perf_counter()
            jax.block_until_ready(run(weights))
            if round_ > 0:  # the first compiles
                times.append(time.perf_counter() - start)
    assert np.median(seconds[scanned]) <= 1.5 * np.median(seconds[outside])
