"""Where in the picture the evidence for a class lies: class activation maps of all classes from one forward pass.

The forward pass runs once. The derivative of each class's logit by the chosen layer is pulled back from the logits to
that layer only, for many classes at once, and each is summed to its map on the way, so that no more than `chunk`
gradients exist at a time. With A the layer's output `[h w c]` and g the gradient of the target by it, for one image and
one target, sums over pixels for the weights of channels and over channels for maps:

    gradcam       sum_c w_c A_c, w the mean of g over pixels           Selvaraju et al. 2017
    gradcam++     the same, w = sum ReLU(g) g^2 / (2 g^2 + g^3 sum A)  Chattopadhay et al. 2018, equation 19
    xgradcam      the same, w = sum(g A) / sum A                       Fu et al. 2020
    hirescam      sum_c g A                                            Draelos & Carin 2020
    layercam      sum_c ReLU(g) A                                      Jiang et al. 2021
    elementwise   sum_c ReLU(g A)                                      as the `grad-cam` package has it
    eigencam      first principal component of A over the pixels       Muhammad & Yeasin 2020
    eigengradcam  the same of g A                                      as the `grad-cam` package has it

These are the definitions of the PyTorch package `grad-cam` 1.5.7, its small constants included. There the sign of the
two Eigen maps is left to the SVD; here a map correlates non-negatively with the sum over channels of what it is the
component of (of A; of g A, which is HiResCAM's map before its ReLU). Attention-IoU (Serianni et al. 2025) takes
`gradcam` of the absolute logit.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.contracts import check_choice, check_integers, check_numbers, describe, expect
from jaxdebias.core import Array, Params, Split
from jaxdebias.explain._taps import Tap

Target = str | Callable[[Array], jax.Array]

CHUNK_VALUES = 2**26
"""Without a `chunk`, as many targets at a time as have so many numbers in their gradients: 256 MiB of float32."""


class ClassMaps(NamedTuple):
    """What `class_maps` returns: k is the number of targets in `maps`, of classes in `logits`."""

    logits: Float[jax.Array, "n classes"]
    maps: Float[jax.Array, "n k h w"]


def class_maps(
    layer: Split | Tap,
    params: Params,
    x: Array,
    *,
    method: str = "gradcam",
    target: Target = "abs",
    classes: Sequence[int] | None = None,
    label: Array | None = None,
    chunk: int | None = None,
    relu: bool = True,
) -> ClassMaps:
    """Logits and the maps of every target, on the layer's own grid, neither shifted nor scaled (see `explain.maps`).

    Pure; works under `jit`, `vmap` and `grad`, the maps as a penalty of training too. Compiled once for the same layer
    object, shapes and options.

    Args:
      layer: a model in two halves, `Split`, whose features are `[n h w c]` (`classifier.spatial`), or a `Tap` of a
        model that cannot be cut (`explain.taps`). In evaluation mode: the logits of an image must depend on that image
        alone, as the targets of a batch are differentiated together.
      params: of the model.
      x: images `[n h w c]`, as the model takes them.
      method: see the head of this file.
      target: what is differentiated. `abs`: |logit|, so the map shows evidence for the answer given, presence or
        absence (a logit of exactly 0 has an empty map); `logit`: evidence for the class. Both have a map per class.
        `predicted` and `label`: the logit of the class with the largest one, or of `label`: one map per image, k = 1.
        Or a function logits `[n classes] -> [n k]`, row by row.
      classes: with `abs` and `logit`, the classes that get a map; None: all.
      label: `[n]` int, with target `label`.
      chunk: how many targets are pulled back at a time; it bounds memory, to `chunk` gradients `[n h w c]` and what the
        layers above need for them. None: as many as stay within `CHUNK_VALUES`; all of them together are fastest. With
        several chunks the pullback runs in a loop; on a CPU, convolutions above the layer are then only fast as
        `models.conv_general_dilated`, which our networks use.
      relu: negative values become 0, as the package does to the maps of all eight methods: what speaks for the target
        stays, and scores of maps take no other. False: signed maps; only `elementwise` has no negative values then, and
        `layercam` none where A has none.

    Returns:
      Logits and maps `[n k h w]`, float32 also where the layer computes in bfloat16. `eigencam` knows no targets: its
      map is the same for every one.

    Raises:
      ContractError: an unknown method or target, classes or labels out of range, a layer without maps.

    >>> split = Split(lambda params, x: x, lambda params, z: z.mean((1, 2)) @ params)
    >>> x = jnp.array([[[[1.0, 0.0], [0.0, 4.0]]]])  # one image of 1 x 2 pixels: channel 0 on the left, 1 on the right
    >>> maps = class_maps(split, jnp.array([[2.0, 0.0], [0.0, 1.0]]), x).maps
    >>> maps.tolist()
    [[[[1.0, 0.0]], [[0.0, 2.0]]]]
    """
    check_choice("method", method, METHODS)
    check_numbers("x", x, "n ...")
    x = x if hasattr(x, "shape") else np.asarray(x)
    expect(isinstance(layer, Split) or callable(layer), "layer", "a Split or a tap", describe(layer))
    if not callable(target):
        check_choice("target", target, TARGETS)
    per_class = target in ("abs", "logit")
    expect(classes is None or per_class, "classes", f"None with target={_name(target)}", classes)
    classes = None if classes is None else tuple(int(one) for one in classes)
    expect(classes is None or len(classes) > 0, "classes", "at least one", classes)
    expect(
        (label is not None) == (target == "label"),
        "label",
        f"{'labels' if target == 'label' else 'None'} with target={_name(target)}",
        describe(label),
    )
    expect(chunk is None or chunk >= 1, "chunk", "at least 1", chunk)
    if label is not None:
        check_numbers("label", label, "n")
    out = _class_maps(
        layer,
        params,
        x,
        None if label is None else jnp.asarray(label),
        method=method,
        target=target,
        classes=classes,
        chunk=chunk,
        relu=relu,
    )
    if isinstance(label, np.ndarray):  # what is on a device already, or traced, is not fetched for a check
        check_integers("label", label, out.logits.shape[0], 0, out.logits.shape[1])
    return out


@functools.partial(jax.jit, static_argnames=("layer", "method", "target", "classes", "chunk", "relu"))
def _class_maps(
    layer: Split | Tap,
    params: Params,
    x: Array,
    label: Array | None,
    *,
    method: str,
    target: Target,
    classes: tuple[int, ...] | None,
    chunk: int | None,
    relu: bool,
) -> ClassMaps:
    logits, z, pull = _forward(layer, params, x)
    expect(z.ndim == 4, "layer", "features [n h w c]", describe(z))
    expect(logits.ndim == 2, "layer", "logits [n k]", describe(logits))
    chosen = functools.partial(TARGETS.get(target, _own), target=target, classes=classes, label=label)
    scores, pull_scores = jax.vjp(chosen, logits)
    shape = f"[n={len(logits)}, k]"
    expect(scores.ndim == 2 and len(scores) == len(logits), "target", f"scores {shape}", describe(scores))

    n, h, w, _ = z.shape
    t = scores.shape[1]
    real = jnp.promote_types(z.dtype, jnp.float32)
    a = z.astype(real)
    per_image = METHODS[method]

    def map_of(i: jax.Array) -> Float[jax.Array, "n h w"]:
        one_hot = (jnp.arange(t) == i).astype(scores.dtype)
        (by_logits,) = pull_scores(jnp.broadcast_to(one_hot[None, :], scores.shape))
        (g,) = pull(by_logits)
        return jax.vmap(per_image)(a, g.astype(real))

    if method == "eigencam":
        maps = jnp.broadcast_to(jax.vmap(_component)(a)[:, None], (n, t, h, w))
    else:
        chunk = chunk or max(1, CHUNK_VALUES // max(1, z.size))
        every = jnp.arange(t)
        maps = jax.vmap(map_of)(every) if chunk >= t else jax.lax.map(map_of, every, batch_size=chunk)
        maps = jnp.moveaxis(maps, 0, 1)
    return ClassMaps(logits, jax.nn.relu(maps) if relu else maps)


def _forward(layer: Split | Tap, params: Params, x: Array) -> tuple[jax.Array, jax.Array, Callable[..., Any]]:
    """Logits, the layer's output z, and the pullback from logits to z."""
    if isinstance(layer, Split):
        z = layer.features(params, x)
        logits, pull = jax.vjp(lambda z: layer.head(params, z), z)
        return logits, z, pull
    eps = jax.eval_shape(lambda params, x: layer(params, x, None)[1], params, x)
    logits, pull, z = jax.vjp(lambda eps: layer(params, x, eps), jnp.zeros(eps.shape, eps.dtype), has_aux=True)
    return logits, z, pull


# Targets: logits [n classes] -> the scores [n k] that are differentiated, row by row.


def _logit(logits: Array, *, target: Target, classes: tuple[int, ...] | None, label: Array | None) -> jax.Array:
    del target, label
    if classes is None:
        return logits
    for one in classes:
        expect(0 <= one < logits.shape[1], "classes", f"values in 0..{logits.shape[1] - 1}", one)
    return logits[:, np.array(classes)]


def _abs(logits: Array, **options: Any) -> jax.Array:
    return jnp.abs(_logit(logits, **options))


def _of(logits: Array, which: Int[Array, "n"]) -> jax.Array:
    return jnp.take_along_axis(logits, which[:, None], axis=1)


def _predicted(logits: Array, **options: Any) -> jax.Array:
    del options
    return _of(logits, logits.argmax(axis=1))


def _label(logits: Array, *, target: Target, classes: None, label: Array) -> jax.Array:
    del target, classes
    good = jnp.issubdtype(label.dtype, jnp.integer) and label.shape == logits.shape[:1]
    expect(good, "label", f"int [n={len(logits)}]", describe(label))
    return _of(logits, label)


def _own(logits: Array, *, target: Callable[[Array], jax.Array], **options: Any) -> jax.Array:
    del options
    return target(logits)


TARGETS = {"logit": _logit, "abs": _abs, "predicted": _predicted, "label": _label}


def _name(target: Target) -> str:
    return repr(target) if isinstance(target, str) else "a function"


# Methods, for one image and one target: A [h w c], g [h w c] -> map [h w] before the ReLU.


def _weighted(a: Float[Array, "h w c"], weight: Float[Array, "c"]) -> Float[jax.Array, "h w"]:
    return jnp.einsum("hwc,c->hw", a, weight, precision=jax.lax.Precision.HIGHEST)


def _gradcam(a: Float[Array, "h w c"], g: Float[Array, "h w c"]) -> Float[jax.Array, "h w"]:
    return _weighted(a, g.mean(axis=(0, 1)))


def _gradcam_plus_plus(a: Float[Array, "h w c"], g: Float[Array, "h w c"]) -> Float[jax.Array, "h w"]:
    total = a.sum(axis=(0, 1), keepdims=True)
    # The constant also makes alpha 0 where g is 0.
    alpha = g**2 / (2.0 * g**2 + total * g**3 + 1e-6)
    return _weighted(a, (jax.nn.relu(g) * alpha).sum(axis=(0, 1)))


def _xgradcam(a: Float[Array, "h w c"], g: Float[Array, "h w c"]) -> Float[jax.Array, "h w"]:
    return _weighted(a, (g * a).sum(axis=(0, 1)) / (a.sum(axis=(0, 1)) + 1e-7))


def _hirescam(a: Float[Array, "h w c"], g: Float[Array, "h w c"]) -> Float[jax.Array, "h w"]:
    return (g * a).sum(axis=-1)


def _layercam(a: Float[Array, "h w c"], g: Float[Array, "h w c"]) -> Float[jax.Array, "h w"]:
    return (jax.nn.relu(g) * a).sum(axis=-1)


def _elementwise(a: Float[Array, "h w c"], g: Float[Array, "h w c"]) -> Float[jax.Array, "h w"]:
    return jax.nn.relu(g * a).sum(axis=-1)


def _eigengradcam(a: Float[Array, "h w c"], g: Float[Array, "h w c"]) -> Float[jax.Array, "h w"]:
    return _component(g * a)


def _eigencam(a: Float[Array, "h w c"], g: Float[Array, "h w c"]) -> Float[jax.Array, "h w"]:
    del g
    return _component(a)


METHODS = {
    "gradcam": _gradcam,
    "gradcam++": _gradcam_plus_plus,
    "xgradcam": _xgradcam,
    "hirescam": _hirescam,
    "layercam": _layercam,
    "elementwise": _elementwise,
    "eigencam": _eigencam,
    "eigengradcam": _eigengradcam,
}


def _component(m: Float[Array, "h w c"]) -> Float[jax.Array, "h w"]:
    """The pixels `[h w c]` along their first principal axis, by the smaller of the two Gram matrices."""
    h, w, c = m.shape
    dot = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    m = m.reshape(h * w, c)
    m = m - m.mean(axis=0)[None, :]
    # A common factor would overflow or vanish in the squares: gradients of a confident head are small.
    size = jax.lax.stop_gradient(jnp.abs(m).max())
    m = m / jnp.where(size > 0, size, 1.0)
    if h * w <= c:
        axis = dot(m.T, _leading(dot(m, m.T)))
        norm = jnp.where((square := (axis * axis).sum()) > 0, square, 1.0) ** 0.5
        axis = axis / norm
    else:
        axis = _leading(dot(m.T, m))
    # The columns of m are centred, so <m axis, m 1> has the sign of the correlation with the sum over channels.
    projection = dot(m, axis)
    sign = jnp.where((projection * m.sum(axis=1)).sum() < 0, -size, size)
    return (sign * projection).reshape(h, w)


@jax.custom_jvp
def _leading(gram: Float[Array, "d d"]) -> Float[jax.Array, "d"]:
    """The unit eigenvector of the largest eigenvalue; its sign is open."""
    return jnp.linalg.eigh(gram)[1][:, -1]


@_leading.defjvp
def _leading_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[jax.Array, jax.Array]:
    # That of `eigh` is not finite where any two eigenvalues are equal, as the zeros of a centred matrix are.
    (gram,), (change,) = primals, tangents
    values, vectors = jnp.linalg.eigh(gram)
    gap = values[-1] - values
    share = jnp.where(gap > 0, 1.0 / jnp.where(gap > 0, gap, 1.0), 0.0)
    first = vectors[:, -1]
    dot = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    return first, dot(vectors, share * dot(vectors.T, dot(change, first)))
