"""From what patches say to maps over pixels: how sure a patch is, the mean over the patches that cover a pixel.

A confidence is a number per patch, made of the patch network's logits. `info_gain` is KL(q || pi) with q the patch's
class probabilities and pi those of the training set: 0 for a patch that says nothing, in nats, and its mean over
images at a position estimates the information between the class and that patch. The paper's three (De Coninck et al.
2024: `neg_entropy`, `margin`, `top_softmax`) do not know pi: where classes are not balanced, a patch that says nothing
looks sure to them, and one that moves the odds to even looks the least sure of all. None of these four looks at the
label. `pointwise`, log q_y - log pi_y, does: on data that were not trained on its mean is a lower bound of the
information, and negative where the net misleads. From biased data the label-free confidence of the *target* is the
map of the bias; ask for `pointwise` on balanced held-out data there.

A map cannot be sharper than a patch: one informative pixel is seen by every patch that covers it, which gives a
triangle of half width P at stride 1. Pixels at the border are covered by few patches and are noisier.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from jaxdebias.contracts import check_choice, check_integers, check_numbers, describe, expect
from jaxdebias.core import Array, Params
from jaxdebias.explain._patches import CropFn, grid_of, patch_logits, starts_of
from jaxdebias.models._patch_net import PatchNet

CONFIDENCES = ("info_gain", "neg_entropy", "margin", "top_softmax", "pointwise")
EDGES = ("error", "flush", "nearest")
SPREAD = 0.5
"""A map is called spread out if the top 30 % of its pixels hold less than this share of what it shows."""


def patch_confidence(
    logits: Float[Array, "n *grid k"],
    *,
    kind: str = "info_gain",
    prior: Float[Array, "k"] | None = None,
    labels: Int[Array, "n"] | None = None,
    temperature: float | Float[Array, ""] = 1.0,
) -> Float[jax.Array, "n *grid"]:
    """How sure each patch is. Finite for all finite logits.

    Args:
      logits: of patches, the first axis images.
      kind: see the head of this file.
      prior: class shares of the training set, positive, for `info_gain` and `pointwise`.
      labels: `[n]` of the images, for `pointwise`.
      temperature: the logits are divided by it.

    Raises:
      ContractError: an unknown kind, a prior or labels that are missing or do not fit.

    >>> logits = jnp.log(jnp.array([[0.7, 0.3], [0.5, 0.5]]))  # one image a row, one patch each
    >>> np.asarray(patch_confidence(logits, prior=np.array([0.15, 0.85]))).round(3)
    array([0.766, 0.337], dtype=float32)
    >>> np.asarray(patch_confidence(logits, kind="margin")).round(3)
    array([0.4, 0. ], dtype=float32)
    """
    check_choice("confidence", kind, CONFIDENCES)
    check_numbers("logits", logits, "n ... k")
    logits = logits if hasattr(logits, "shape") else np.asarray(logits)
    k = logits.shape[-1]
    if kind in ("info_gain", "pointwise"):
        expect(prior is not None, "prior", f"class shares [k={k}] of the training set, for {kind}", None)
        check_numbers("prior", prior, "k")
        prior = prior if isinstance(prior, jax.Array) else np.asarray(prior, np.float32)
        good = prior.shape == (k,)
        if isinstance(prior, np.ndarray):  # one on a device, or traced, is not fetched for a check
            good = good and bool((prior > 0).all()) and abs(float(prior.sum()) - 1) < 1e-3
        expect(good, "prior", f"positive shares [k={k}] that sum to 1", describe(prior))
        log_prior = jnp.log(jnp.asarray(prior)).reshape((1,) * (logits.ndim - 1) + (k,))
    if kind == "pointwise":
        expect(labels is not None, "labels", f"[n={len(logits)}], for pointwise", None)
        if not isinstance(labels, jax.Array):
            check_integers("labels", labels, len(logits), 0, k)
        own = jnp.asarray(labels).reshape(-1, *(1,) * (logits.ndim - 1))
        own = jnp.broadcast_to(own, (*logits.shape[:-1], 1))
    # log(softmax) would be -inf, and 0 * -inf NaN, once a probability underflows.
    log_q = jax.nn.log_softmax(jnp.asarray(logits) / temperature)
    q = jnp.exp(log_q)
    if kind == "info_gain":
        return (q * (log_q - log_prior)).sum(-1)
    if kind == "pointwise":
        return jnp.take_along_axis(log_q - log_prior, own, axis=-1)[..., 0]
    if kind == "neg_entropy":
        return (q * log_q).sum(-1)
    best = jax.lax.top_k(q, 2)[0]
    return best[..., 0] if kind == "top_softmax" else best[..., 0] - best[..., 1]


def cover_counts(length: int, patch: int, stride: int) -> Int[np.ndarray, "length"]:
    """How many patches cover each pixel of an axis, in closed form; 0 where the last patch does not reach.

    >>> cover_counts(10, 4, 3).tolist(), cover_counts(11, 4, 3).tolist()
    ([1, 1, 1, 2, 1, 1, 2, 1, 1, 1], [1, 1, 1, 2, 1, 1, 2, 1, 1, 1, 0])
    """
    patches = (length - patch) // stride + 1
    pixel = np.arange(length)
    first = np.maximum(0, -((patch - 1 - pixel) // stride))
    return np.maximum(0, np.minimum(pixel // stride, patches - 1) - first + 1)


def fold(
    confidences: Float[Array, "*n gh gw"], size: tuple[int, int], *, patch: int, stride: int, edge: str = "error"
) -> Float[jax.Array, "*n h w"]:
    """Maps: at each pixel the mean confidence of the patches that cover it, exactly.

    Sums over covering patches are separable: two products with 0/1 matrices. Where the stride divides the patch they
    are over cells of stride x stride pixels, on which a map is constant.

    Args:
      confidences: on the grid of patches.
      size: (h, w) of the images.
      patch: side of a patch, pixels.
      stride: pixels between neighbouring patches.
      edge: where the stride does not divide h - P or w - P, the last pixels are not covered. `error`; `flush`: the
        grid has one more patch at the end (`patch_logits(flush=True)`); `nearest`: they get the last covered value.

    Raises:
      ContractError: another grid, a stride larger than the patch, uncovered pixels under `edge="error"`.

    >>> fold(jnp.array([[1.0, 3.0]]), (2, 3), patch=2, stride=1).tolist()
    [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]
    """
    if not isinstance(confidences, jax.Array):
        check_numbers("confidences", confidences, "... gh gw")
        confidences = np.asarray(confidences, np.float32)
    # One compiled call, whose checks are made while it is traced: on one map they would take most of the time.
    return _fold(confidences, tuple(size), patch, stride, edge)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _fold(
    confidences: Shaped[Array, "..."], size: tuple[int, int], patch: int, stride: int, edge: str
) -> Float[jax.Array, "*n h w"]:
    """`fold`; the matrices are constants of the program."""
    check_choice("edge", edge, EDGES)
    expect(stride <= patch, "stride", f"at most the patch's {patch} pixels: others are covered by no patch", stride)
    left_over = tuple((length - patch) % stride for length in size)
    expect(
        edge != "error" or not any(left_over),
        "edge",
        "flush or nearest, or a stride that divides h - P and w - P",
        f"{left_over} pixels left over under edge='error'",
    )
    grid = grid_of(size, patch, stride, flush=edge == "flush")
    check_numbers("confidences", confidences, "... gh gw")
    expect(confidences.shape[-2:] == grid, "confidences", f"[... {grid[0]} {grid[1]}]", describe(confidences))
    confidences = confidences.astype(jnp.float32)
    sums, counts, repeats = [], [], []
    for length in size:
        beyond = (length - patch) % stride
        cells = stride if patch % stride == 0 and not beyond else 1
        pixel = np.arange(0, length, cells)
        starts = starts_of(length, patch, stride, flush=edge == "flush")
        cover = (starts[None, :] <= pixel[:, None]) & (pixel[:, None] < starts[None, :] + patch)
        count = cover.sum(1) if edge == "flush" and beyond else cover_counts(length, patch, stride)[pixel]
        reached = np.minimum(np.arange(len(pixel)), np.flatnonzero(count)[-1])
        sums.append(cover[reached].astype(np.float32))
        counts.append(count[reached])
        repeats.append(cells)
    total = jnp.einsum("yi,...ij,xj->...yx", sums[0], confidences, sums[1], precision=jax.lax.Precision.HIGHEST)
    covered = (counts[0][:, None] * counts[1][None, :]).astype(np.float32)
    maps = total / covered.reshape((1,) * (total.ndim - 2) + covered.shape)
    return jnp.repeat(jnp.repeat(maps, repeats[0], axis=-2), repeats[1], axis=-1)


def general_map(
    net: PatchNet | CropFn,
    params: Params,
    images: Array,
    *,
    stride: int,
    confidence: str = "info_gain",
    prior: Float[Array, "k"] | None = None,
    labels: Int[Array, "n"] | None = None,
    temperature: float = 1.0,
    edge: str = "error",
    method: str = "auto",
    patch: int | None = None,
    batch_size: int = 64,
) -> Float[np.ndarray, "h w"]:
    """The map of a data set: the mean of its images' maps. Confidences are summed first and folded once.

    Args:
      net: as in `patch_logits`.
      params: as in `patch_logits`.
      images: as in `patch_logits`.
      stride: as in `patch_logits`.
      method: as in `patch_logits`.
      patch: as in `patch_logits`.
      confidence: as in `patch_confidence`, where confidence is `kind`.
      prior: as in `patch_confidence`, where confidence is `kind`.
      labels: as in `patch_confidence`, where confidence is `kind`.
      temperature: as in `patch_confidence`, where confidence is `kind`.
      edge: as in `fold`.
      batch_size: images at a time on the device.
    """
    total = 0.0
    for rows, found in _confidences(
        net,
        params,
        images,
        labels,
        batch_size,
        stride=stride,
        confidence=confidence,
        prior=prior,
        temperature=temperature,
        edge=edge,
        method=method,
        patch=patch,
    ):
        total = total + np.asarray(found[: len(rows)], np.float64).sum(axis=0)
    side = net.patch if isinstance(net, PatchNet) else patch
    mean = (total / len(images)).astype(np.float32)  # pyright: ignore[reportAttributeAccessIssue]
    return np.asarray(fold(mean, tuple(images.shape[1:3]), patch=side, stride=stride, edge=edge))


def image_maps(
    net: PatchNet | CropFn,
    params: Params,
    images: Array,
    *,
    stride: int,
    confidence: str = "info_gain",
    prior: Float[Array, "k"] | None = None,
    labels: Int[Array, "n"] | None = None,
    temperature: float = 1.0,
    edge: str = "error",
    method: str = "auto",
    patch: int | None = None,
    batch_size: int = 64,
) -> Float[np.ndarray, "n h w"]:
    """The map of each image, in the order of the rows. Arguments as for `general_map`."""
    side = net.patch if isinstance(net, PatchNet) else patch
    maps = np.zeros(images.shape[:3], np.float32)
    for rows, found in _confidences(
        net,
        params,
        images,
        labels,
        batch_size,
        stride=stride,
        confidence=confidence,
        prior=prior,
        temperature=temperature,
        edge=edge,
        method=method,
        patch=patch,
    ):
        maps[rows] = fold(found, tuple(images.shape[1:3]), patch=side, stride=stride, edge=edge)[: len(rows)]
    return maps


def _confidences(
    net: PatchNet | CropFn,
    params: Params,
    images: Array,
    labels: Array | None,
    batch_size: int,
    *,
    stride: int,
    edge: str,
    patch: int | None,
    **options: object,
) -> Iterator[tuple[Int[np.ndarray, "m"], Float[jax.Array, "b gh gw"]]]:
    """(rows, their confidences), batch by batch of one shape: what is beyond the rows repeats the last."""
    check_choice("edge", edge, EDGES)
    check_numbers("images", images, "n h w c")
    expect(hasattr(images, "shape") and len(images) > 0, "images", "an array, at least one", describe(images))
    n = len(images)
    if labels is not None:
        check_integers("labels", labels, n, 0, None)
    size = min(batch_size, n)
    prior = options.pop("prior")
    for start in range(0, n, size):
        rows = np.arange(start, min(start + size, n))
        filled = np.minimum(np.arange(start, start + size), n - 1)
        own = None if labels is None else np.asarray(labels)[filled]
        of = functools.partial(_confidence_of, stride=stride, patch=patch, flush=edge == "flush", **options)
        yield rows, of(net, params, images[filled], own, None if prior is None else np.asarray(prior, np.float32))


@functools.partial(jax.jit, static_argnames=("net", "stride", "patch", "flush", "confidence", "method"))
def _confidence_of(
    net: PatchNet | CropFn,
    params: Params,
    images: Array,
    labels: Array | None,
    prior: Array | None,
    *,
    stride: int,
    patch: int | None,
    flush: bool,
    confidence: str,
    method: str,
    temperature: float | Array,
) -> Float[jax.Array, "b gh gw"]:
    logits = patch_logits(net, params, images, stride=stride, method=method, patch=patch, flush=flush)
    return patch_confidence(logits, kind=confidence, prior=prior, labels=labels, temperature=temperature)


class Localised(NamedTuple):
    """Whether what a map shows has a place, and so whether noise on some pixels can hide it."""

    raw_share: float
    """Of all that the map shows, how much its top pixels hold; the share of the pixels itself for a flat map."""
    top_share: float
    """The same after the map's minimum is subtracted."""
    gini: float
    """Gini coefficient of the pixels, 0 for a flat map, near 1 for one bright spot."""
    share: float
    """Of the pixels, those called top."""

    @property
    def spread(self) -> bool:
        """Whether the top pixels hold less than half of what the map shows."""
        return self.raw_share < SPREAD

    @property
    def warning(self) -> str | None:
        """One sentence where noise on the top pixels cannot help, else None."""
        if not self.spread:
            return None
        top, held = 100 * self.share, 100 * self.raw_share
        return (
            f"The bias has no place: the top {top:.0f} % of the pixels hold {held:.0f} % of the information, so "
            f"noise on them leaves the rest readable (a colour cast, a background)."
        )


def localise(map: Float[Array, "h w"], *, share: float = 0.3, nothing: float = 0.0) -> Localised:
    """How far a map is concentrated on few pixels. Look at it before training with noise on the top of a map.

    Args:
      map: of a data set, not yet scaled to [0, 1].
      share: of the pixels, those called top.
      nothing: the confidence of a patch that says nothing: 0 for `info_gain` and `pointwise`, minus the prior's entropy
        for `neg_entropy`. Pixels below it count as 0.

    >>> spot = np.zeros((10, 10)); spot[:3, :3] = 1.0
    >>> localise(spot).raw_share, localise(spot).spread, localise(np.ones((10, 10))).spread
    (1.0, False, True)
    """
    check_numbers("map", map, "h w")
    values = np.asarray(map, np.float64)
    expect(values.size > 0 and bool(np.isfinite(values).all()), "map", "finite [h w]", describe(map))
    expect(0 < share < 1, "share", "between 0 and 1", share)
    shown = np.sort(np.maximum(values.ravel() - nothing, 0.0))[::-1]

    def held(sorted_down: Float[np.ndarray, "p"]) -> float:
        # The share of a flat map is the share of the pixels, whatever h w times it is rounded to.
        place, total = share * len(sorted_down), sorted_down.sum()
        whole = int(place)
        top = sorted_down[:whole].sum() + (place - whole) * sorted_down[min(whole, len(sorted_down) - 1)]
        return float(top / total) if total > 0 else share

    total, count = shown.sum(), len(shown)
    rank = np.arange(count, 0, -1)
    gini = float((2 * rank - count - 1) @ shown / (count * total)) if total > 0 else 0.0
    return Localised(raw_share=held(shown), top_share=held(shown - shown[-1]), gini=gini, share=share)
