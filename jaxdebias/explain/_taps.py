"""One inner layer of a finished network, by name: its output, and what a change of it does to the logits.

A tap is `(params, x, eps) -> (logits, z)`, where z `[n h w c]` is what the layer puts out and eps, of the same shape,
is added to it before the network goes on; `None` is 0. The derivative of the logits by eps at 0 is that by z, so maps
need one forward pass and no edit of the model. Whatever can be cut in two is simpler as a `core.Split`, which
`class_maps` takes as well.

Both builders below replace a submodule's output while the network is called. They see calls that happen in this very
trace: a layer inside `scan`, `remat`, or a function that was jitted before, is out of their reach.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdebias.contracts import check_choice, describe, expect
from jaxdebias.core import Array, Params

Tap = Callable[[Params, Array, Array | None], tuple[jax.Array, jax.Array]]


@functools.cache
def linen_tap(apply_fn: Callable[[Params, Array], jax.Array], path: str, *, prefix: int = 0) -> Tap:
    """A tap at the output of one Linen submodule; the same object for the same arguments.

    Args:
      apply_fn: `(params, x) -> logits [n k]` that calls a Linen module, in evaluation mode: `model.apply`, or
        `apply` of any `Classifier` of ours.
      path: names from the outermost module's child inwards, as `linen_paths` lists them: `"layer4_1"`,
        `"blocks_3/ln_1"`.
      prefix: for a layer of tokens `[n t c]`, how many leading tokens are no patches (a class token: 1). They keep
        their values and get no map; the others must form a square.

    Raises:
      ContractError: when called with arrays, if no layer of that path ran, or it ran twice, or its output has no maps.

    >>> from jaxdebias.models import cnn
    >>> network, x = cnn(channels=(4, 6), dense=5, classes=3), jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    >>> params = jax.eval_shape(network.init, jax.random.key(0), x)
    >>> linen_paths(network.apply, params, x)
    {'convs_0': (2, 4, 4, 4), 'convs_1': (2, 2, 2, 6)}
    >>> logits, z = jax.eval_shape(lambda params, x: linen_tap(network.apply, "convs_0")(params, x, None), params, x)
    >>> logits.shape, z.shape
    ((2, 3), (2, 4, 4, 4))
    """

    def tap(params: Params, x: Array, eps: Array | None) -> tuple[jax.Array, jax.Array]:
        found = []

        def change(name: str, out: Any) -> Any:
            if name != path:
                return out
            out, z = _perturbed(path, out, eps, prefix)
            found.append(z)
            return out

        logits = _with_outputs(apply_fn, params, x, change)
        if not found:
            check_choice("path", path, linen_paths(apply_fn, params, x))
        expect(len(found) == 1, "path", f"a layer that runs once, {path!r}", f"{len(found)} runs in this trace")
        return logits, found[0]

    return tap


def linen_paths(
    apply_fn: Callable[[Params, Array], jax.Array], params: Params, x: Array | jax.ShapeDtypeStruct
) -> dict[str, tuple[int, ...]]:
    """Shapes of the submodules' outputs, by path in the order of the forward pass: maps `[n h w c]`, tokens `[n t c]`.

    Nothing is computed, so shapes do for `params` and `x`. A name that runs twice is listed once.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, out: Any) -> Any:
        if name and getattr(out, "ndim", 0) in (3, 4) and out.shape[0] == x.shape[0]:
            shapes[name] = out.shape
        return out

    jax.eval_shape(lambda params, x: _with_outputs(apply_fn, params, x, note), params, x)
    return shapes


def _with_outputs(
    apply_fn: Callable[[Params, Array], jax.Array], params: Params, x: Array, change: Callable[[str, Any], Any]
) -> jax.Array:
    """`apply_fn(params, x)`, in which every submodule's output is `change(path, output)`."""
    from flax import linen  # here, because nothing else of this room knows Linen

    def interceptor(next_fun: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        out = next_fun(*args, **kwargs)
        return change("/".join(context.module.path), out) if context.method_name == "__call__" else out

    with linen.intercept_methods(interceptor):
        return apply_fn(params, x)


@functools.cache
def nnx_tap(graphdef: Any, path: str, *, prefix: int = 0) -> Tap:
    """A tap at the output of one submodule of an nnx model; the same object for the same arguments.

    Args:
      graphdef: of `graphdef, params = nnx.split(model)`, the model in evaluation mode (`model.eval()`) and called as
        `model(x)`. `params` is the tap's first argument.
      path: attribute names and list indices: `"conv1"`, `"blocks/0"`.
      prefix: as for `linen_tap`.

    Raises:
      ContractError: as `linen_tap`.
    """
    from flax import nnx

    def tap(params: Params, x: Array, eps: Array | None) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graphdef, params)
        modules = {"/".join(map(str, names)): (names, module) for names, module in nnx.iter_modules(model) if names}
        check_choice("path", path, modules)
        names, layer = modules[path]
        found = []

        def tapped(*args: Any, **kwargs: Any) -> Any:
            out, z = _perturbed(path, layer(*args, **kwargs), eps, prefix)
            found.append(z)
            return out

        # The merged model lives for this call only: a function may stand in for one of its modules.
        owner = functools.reduce(_child, names[:-1], model)
        if isinstance(names[-1], int):
            owner[names[-1]] = tapped
        else:
            setattr(owner, names[-1], tapped)
        logits = model(x)
        expect(len(found) == 1, "path", f"a layer that runs once, {path!r}", f"{len(found)} runs in this trace")
        return logits, found[0]

    return tap


def _child(module: Any, name: str | int) -> Any:
    return module[name] if isinstance(name, int) else getattr(module, name)


def _perturbed(path: str, out: Any, eps: Array | None, prefix: int) -> tuple[jax.Array, jax.Array]:
    """The layer's output with eps added, and the output itself as maps `[n h w c]`."""
    ndim = getattr(out, "ndim", 0)
    expect(ndim in (3, 4), path, "an output of maps [n h w c] or tokens [n t c]", describe(out))
    if ndim == 4:
        return out if eps is None else out + eps, out
    n, tokens, c = out.shape
    side = math.isqrt(max(0, tokens - prefix))
    expect(
        side > 0 and side * side == tokens - prefix,
        path,
        f"a square of tokens after the first {prefix} (`prefix` says how many are no patches)",
        describe(out),
    )
    z = out[:, prefix:].reshape(n, side, side, c)
    return out if eps is None else out.at[:, prefix:].add(jnp.reshape(eps, (n, -1, c))), z
