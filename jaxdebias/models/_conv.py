"""A convolution that stays fast inside `lax.scan` on CPU, and pooling that does.

XLA's CPU compiler has one fast convolution, for the layout NHWC x HWIO -> NHWC, and a naive loop nest for all others.
The derivatives of a convolution are convolutions in other layouts. XLA rewrites those to the fast one, but not inside
the body of a loop: a training step in a `lax.scan` is then many times slower than outside (jax-ml/jax issue
12868). Here the rewriting is done when JAX hands the operation to XLA on a CPU. Nothing else changes: the
values, all derivatives in both modes, and what an accelerator gets to see are those of `lax.conv_general_dilated`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Float

_stock_p = lax.conv_general_dilated_p
_conv_p = Primitive("scan_fast_conv")


def _with_fast_conv(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)` with every stock convolution in it replaced by ours; fn returns one array.

    Through this each rule of our primitive is stated as the stock rule: we own no derivative of a convolution.
    """
    closed = jax.make_jaxpr(fn)(*args)
    env = dict(zip([*closed.jaxpr.constvars, *closed.jaxpr.invars], [*closed.consts, *args], strict=True))
    for eqn in closed.jaxpr.eqns:
        primitive = _conv_p if eqn.primitive is _stock_p else eqn.primitive
        operands = [atom.val if hasattr(atom, "val") else env[atom] for atom in eqn.invars]
        out = primitive.bind(*operands, **eqn.params)
        env.update(zip(eqn.outvars, out if primitive.multiple_results else [out], strict=True))
    (result,) = closed.jaxpr.outvars
    return env[result]


def conv_general_dilated(lhs: Any, rhs: Any, *args: Any, **kwargs: Any) -> jax.Array:
    """`jax.lax.conv_general_dilated`, same arguments and values, fast inside loops on CPU whatever is derived from it.

    Flax takes it as `nn.Conv(..., conv_general_dilated=conv_general_dilated)`. A transposed convolution is one with
    `input_dilation` (Flax) or `lhs_dilation`. Strides, paddings, dilations, groups, `jvp`, `grad`, any nesting of the
    two and `vmap` work as with the stock function.

    >>> x, w = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
    >>> conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")).ravel().tolist()
    [9.0, 9.0, 9.0, 9.0]
    """
    return _with_fast_conv(lambda x, w: lax.conv_general_dilated(x, w, *args, **kwargs), lhs, rhs)


def _canonical(lhs, rhs, *, dimension_numbers, feature_group_count, batch_group_count, **params):
    """The same convolution as NHWC x HWIO -> NHWC between explicit transpositions."""
    lhs_spec, rhs_spec, out_spec = dimension_numbers  # each: where batch, feature, *space (rhs: out, in, *space) lie
    space = range(1, lhs.ndim - 1)
    lhs = lax.transpose(lhs, (lhs_spec[0], *lhs_spec[2:], lhs_spec[1]))
    rhs = lax.transpose(rhs, (*rhs_spec[2:], rhs_spec[1], rhs_spec[0]))
    channels_last = (0, lhs.ndim - 1, *space)
    kernel = (rhs.ndim - 1, rhs.ndim - 2, *range(rhs.ndim - 2))
    out = _stock_p.bind(
        lhs,
        rhs,
        dimension_numbers=lax.ConvDimensionNumbers(channels_last, kernel, channels_last),
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        **params,
    )
    where = {axis: here for here, axis in zip(channels_last, out_spec, strict=True)}
    return lax.transpose(out, tuple(where[axis] for axis in range(out.ndim)))


def _transpose_lhs(cotangent, lhs, rhs, **params):
    return _with_fast_conv(
        lambda g, w: jax.linear_transpose(lambda x: _stock_p.bind(x, w, **params), lhs.aval)(g)[0], cotangent, rhs
    )


def _transpose_rhs(cotangent, lhs, rhs, **params):
    return _with_fast_conv(
        lambda g, x: jax.linear_transpose(lambda w: _stock_p.bind(x, w, **params), rhs.aval)(g)[0], cotangent, lhs
    )


def _batch(operands, axes, **params):
    return _with_fast_conv(jax.vmap(lambda x, w: _stock_p.bind(x, w, **params), in_axes=tuple(axes)), *operands), 0


_conv_p.def_impl(_stock_p.bind)
_conv_p.def_abstract_eval(lambda *avals, **params: _stock_p.abstract_eval(*avals, **params)[0])
ad.defbilinear(_conv_p, _transpose_lhs, _transpose_rhs)
batching.primitive_batchers[_conv_p] = _batch
mlir.register_lowering(_conv_p, mlir.lower_fun(_stock_p.bind, multiple_results=False))
mlir.register_lowering(_conv_p, mlir.lower_fun(_canonical, multiple_results=False), platform="cpu")


def max_pool(
    x: Float[jax.Array, "n h w c"],
    window_shape: tuple[int, int],
    strides: tuple[int, int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
) -> Float[jax.Array, "n h2 w2 c"]:
    """`flax.linen.max_pool`, same values and gradients, whose gradient is faster on CPU.

    XLA differentiates a windowed maximum by a serial select-and-scatter; here it is the maximum of shifted slices, one
    axis after the other. Among equal values the first in reading order gets the gradient, as there. Average pooling
    needs no such care: use Flax's.

    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), (2, 2), (2, 2)).ravel().tolist()
    [5.0, 7.0, 13.0, 15.0]
    """
    strides = strides or (1, 1)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], window_shape, strides, padding)
    lowest = jnp.array(-jnp.inf, x.dtype)
    x = lax.pad(x, lowest, [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
    for axis, window, stride in ((2, window_shape[1], strides[1]), (1, window_shape[0], strides[0])):
        reach = x.shape[axis] - window + 1
        slices = [lax.slice_in_dim(x, start, start + reach, stride, axis) for start in range(window)]
        x = slices[0]
        for later in slices[1:]:
            x = jnp.where((later > x) | jnp.isnan(later), later, x)
    return x
