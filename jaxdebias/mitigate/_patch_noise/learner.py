"""Training on images in which the pixels that carry the bias are hidden, after De Coninck et al. 2024.

A patch net finds where the bias attribute can be read from the data (`explain.patches`); any method is then trained on
images with noise in that region. Labels: the bias attribute's, to fit the patch net and make the map; neither training
nor prediction needs them. The trained model sees images as they are.

When it works: the bias has a place (a marker, a caption, a glyph). A bias that is spread over the image can still be
read from the pixels outside the mask, and a colour cast has no place at all: ask `localised` of `explain` before
training. `benchmarks/reproduce/patch_noise.py` puts both kinds to the test.

A region of each image's own (`specific_*`, `budget_mask(per_image=True)`) can give the bias away by its shape: black
where the marker was, and only there. One region for all images cannot; prefer it where the bias stands still.

Which operation: `noise` is the paper's. A flat marker can still be made out under pixel noise; `zero` removes the
region with certainty and `swap` fills it with the pixels of other images. For a bias with a place we recommend these
two, and a mask by `budget_mask`: after noise or zero a clean image looks foreign to the network, the more so the larger
the region.

Deviations from the released code: pixels are noised and clipped in [0, 1] before the network's own normalisation.
There, normalised pixels were clipped to [0, 1], which makes every value below the channel's mean 0, in the whole image
and in the noised arm alone; `compat="reference"` does the same, and with `sigma=0` it is the control arm that the
release lacks. Its validation images are noised in some modes and not in others; here `corrupt` applies an arm's
corruption to test images, so that both can be reported.
"""

import functools
import hashlib
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from jaxdebias.contracts import check_choice, check_finite, describe, expect
from jaxdebias.core import Array, Batch, Key, Learner, as_float
from jaxdebias.mitigate._patch_noise.masks import pack, quantile_mask, unpack
from jaxdebias.models._resnet import IMAGENET_MEAN, IMAGENET_STD

OPERATIONS = ("keep", "noise", "zero", "swap")
"""What may be done to a region, by the number that `Corruption.operation` holds."""
MODES = ("general_noise", "specific_noise", "specific_mask", "general_mask")
DONORS = 8
"""How many other images of a batch `swap` asks, one after the other, for a pixel of their own region."""


@dataclass(frozen=True, kw_only=True)
class PatchNoiseConfig:
    """What is done to the pixels of a mask."""

    operation: Literal["keep", "noise", "zero", "swap"] = "noise"
    """`noise`: Gaussian noise is added, fresh in every step for every pixel and channel, and the image clipped to
    [0, 1]. `zero`: black. `swap`: the pixels of another image of the batch, another one in every step. `keep`: nothing,
    for a plain arm in one sweep with the others."""
    sigma: float = 0.5
    """Standard deviation of the noise, of pixels in [0, 1]; the other operations ignore it."""
    compat: Literal["reference"] | None = None
    """`reference`: noise and zero as in the released code, on pixels normalised by ImageNet's mean and deviation. Noise
    then clips the whole image there; zero puts ImageNet's mean colour."""

    def __post_init__(self):
        check_choice("config.operation", self.operation, OPERATIONS)
        expect(self.compat in (None, "reference"), "config.compat", "None or 'reference'", self.compat)
        expect(self.sigma >= 0, "config.sigma", "at least 0", self.sigma)
        fits = self.compat is None or self.operation in ("noise", "zero")
        expect(fits, "config.compat", f"None for {self.operation}, which the release does not have", self.compat)


class Corruption(NamedTuple):
    """What to do to which pixels: arrays only, so that other masks, or another operation, compile nothing again."""

    operation: Int[Array, "*r"]
    """Index into `OPERATIONS`."""
    sigma: Float[Array, "*r"]
    reference: Bool[Array, "*r"]
    """On pixels normalised as in the release."""
    bits: UInt8[Array, "*r m h v"] | None
    """Masks packed along the width, one for all images (m = 1) or one per row of the training set."""
    levels: UInt8[Array, "*r m h w"] | None
    """Strengths of 0 to 255 in place of masks."""


def corruption(region: Shaped[Array, "*n h w"], config: PatchNoiseConfig = PatchNoiseConfig()) -> Corruption:
    """A corruption of one region for all images, or of a region for each.

    Args:
      region: `[h w]`, or `[n h w]` in the order of the training set: a step finds an image's own by `batch.index`. A
        bool mask (see `patch_masks`), or float strengths in [0, 1] (see `soft_strength`), which are kept in steps of
        1/255: noise of strength t has deviation `t * sigma`, zero and swap mix in the share t.
      config: settings, see the class.

    Raises:
      ContractError: another shape or dtype, strengths out of range, or a region without a pixel, as a map that is the
        same everywhere gives it: then there is nothing to hide.
    """
    region = np.asarray(region)
    expect(region.ndim in (2, 3), "region", "[h w] or [n h w]", describe(region))
    hard = bool(region.dtype == bool)
    expect(hard or np.issubdtype(region.dtype, np.floating), "region", "bool, or float strengths", describe(region))
    if not hard:
        check_finite("region", region)
        expect(
            bool(region.min() >= 0 and region.max() <= 1),
            "region",
            "strengths in [0, 1]",
            f"{region.min():.4g}..{region.max():.4g}",
        )
    needs = config.operation != "keep" and not (config.compat and config.operation == "noise" and config.sigma == 0)
    expect(bool(region.any()) or not needs, "region", "at least one pixel to hide (has this bias a place?)", "none")
    region = region.reshape(-1, *region.shape[-2:])
    return Corruption(
        operation=jnp.int32(OPERATIONS.index(config.operation)),
        sigma=jnp.float32(config.sigma),
        reference=jnp.bool_(config.compat == "reference"),
        bits=pack(region) if hard else None,
        levels=None if hard else jnp.asarray(np.round(255 * region).astype(np.uint8)),
    )


def corruptions_of_mode(
    mode: str,
    maps: Float[Array, "*n h w"],
    *,
    q: float = 0.7,
    sigma: float = 0.5,
    compat: Literal["reference"] | None = None,
) -> tuple[Corruption, Corruption | None]:
    """The four modes of the released code: (corruption of training images, of validation images or None for clean).

    Args:
      mode: `general_noise`: noise where the mean map is above its quantile, in training and validation.
        `specific_noise`: where the image's own map is; in validation, where the mean map is.
        `specific_mask`: zero where the image's own map is; validation stays clean.
        `general_mask`: zero where the mean map is, in both.
      maps: `[n h w]` in the order of the training set; for the general modes also the mean map `[h w]`.
      q: quantile of the map above which a pixel is hidden.
      sigma: standard deviation of the noise.
      compat: as the released code does it, see `PatchNoiseConfig`.
    """
    check_choice("mode", mode, MODES)
    maps = np.asarray(maps)
    specific = mode.startswith("specific")
    expect(
        maps.ndim == 3 or (maps.ndim == 2 and not specific),
        "maps",
        "[n h w], a map per image" + " or [h w]" * (not specific),
        describe(maps),
    )
    config = PatchNoiseConfig(operation="noise" if mode.endswith("noise") else "zero", sigma=sigma, compat=compat)
    of_all = functools.partial(corruption, config=config)
    mean = maps if maps.ndim == 2 else maps.mean(axis=0)
    train = of_all(quantile_mask(maps if specific else mean, q))
    return train, None if mode == "specific_mask" else of_all(quantile_mask(mean, q))


def corrupt(
    key: Key, x: Shaped[Array, "n h w c"], corruption: Corruption, index: Int[Array, " n"] | None = None
) -> Float[jax.Array, "n h w c"]:
    """The images with their regions hidden, float in [0, 1]. Pure; equal keys give equal noise.

    Outside the region nothing changes, bit for bit, but for `compat="reference"` noise.

    Args:
      key: random key.
      x: uint8, or float in [0, 1].
      corruption: what is done where.
      index: which of the corruption's regions each image has; None: the first image the first one, and so on. Not
        needed for one region for all.

    Raises:
      ContractError: images of another size than the regions, a region per image without knowing which, or one image
        alone to swap.
    """
    _check(x, corruption, index)
    return _corrupt(key, x, corruption, index)


@jax.jit
def _corrupt(key: Key, x: Array, corruption: Corruption, index: Array | None) -> jax.Array:
    x = as_float(x)
    # [n h w 1], or [1 h w 1] for one region for all.
    strength = _strength(corruption, index, x.shape[2])[..., None].astype(x.dtype)
    inside = strength > 0
    # What the release's pixels are less, and over: nothing without compat, and then no bit changes.
    like, per_channel = corruption.reference, (1, 1, 1, x.shape[3])
    mean, std = (
        jnp.where(like, jnp.asarray(numbers, x.dtype), none).reshape(per_channel)
        if x.shape[3] == 3
        else jnp.full(per_channel, none, x.dtype)
        for numbers, none in ((IMAGENET_MEAN, 0.0), (IMAGENET_STD, 1.0))
    )

    def noise(x: jax.Array) -> jax.Array:
        draw = corruption.sigma.astype(x.dtype) * strength * jax.random.normal(key, x.shape, x.dtype)
        return jnp.where(inside | like, jnp.clip((x - mean) / std + draw, 0.0, 1.0) * std + mean, x)

    def mixed(x: jax.Array, other: jax.Array) -> jax.Array:
        return jnp.where(inside, jnp.where(strength < 1, x + strength * (other - x), other), x)

    branches = (lambda x: x, noise, lambda x: mixed(x, mean), lambda x: mixed(x, _of_others(key, x, inside)))
    return jax.lax.switch(corruption.operation, branches, x)


def _strength(corruption: Corruption, index: Array | None, width: int) -> Float[jax.Array, "m h w"]:
    kept = corruption.bits if corruption.levels is None else corruption.levels
    rows = kept if index is None or kept.shape[0] == 1 else kept[index]
    if corruption.levels is None:
        return unpack(rows, width).astype(jnp.float32)
    return rows.astype(jnp.float32) / 255.0


def _of_others(key: Key, x: jax.Array, inside: jax.Array) -> jax.Array:
    """For each image the pixels of others: of those that stand so many places on in the batch, in a circle.

    How many is drawn once; which image that is, the random order of the batch decides. Where each image has its own
    region, the first of `DONORS` donors is taken whose region holds the pixel too, so that what is put over one
    image's background is background, not another's object; if there is none, the last. With one region for all,
    every pixel is passed on once, and the batch keeps its values.
    """
    n = x.shape[0]
    first, rows = jax.random.randint(key, (), 0, max(n - 1, 1)), jnp.arange(n)
    donors = [(rows + 1 + (first + step) % max(n - 1, 1)) % n for step in range(max(min(DONORS, n - 1), 1))]
    if inside.shape[0] == 1:
        return x[donors[0]]
    found = x[donors[-1]]
    for donor in reversed(donors[:-1]):
        found = jnp.where(inside[donor], x[donor], found)
    return found


def _check(x: Any, corruption: Corruption, index: Any) -> None:
    expect(np.ndim(x) == 4, "x", "images [n h w c]", describe(x))
    kept = corruption.bits if corruption.levels is None else corruption.levels
    n, height, width, channels = x.shape
    wide = -(-width // 8) if corruption.levels is None else width
    expect(
        tuple(kept.shape[1:]) == (height, wide),
        "x",
        f"images of the regions' size, {kept.shape[1]} high and "
        + (f"{8 * kept.shape[2] - 7}..{8 * kept.shape[2]}" if corruption.levels is None else f"{kept.shape[2]}")
        + " wide",
        describe(x),
    )
    expect(
        kept.shape[0] in (1, n) or index is not None,
        "index",
        f"which of {kept.shape[0]} regions each image has",
        "nothing",
    )
    if isinstance(corruption.operation, jax.core.Tracer):  # pyright: ignore[reportAttributeAccessIssue]
        return  # inside a step: what follows was checked when the learner was made
    swaps = int(corruption.operation) == OPERATIONS.index("swap")
    expect(not swaps or n > 1, "x", "at least two images to swap pixels", describe(x))
    expect(not bool(corruption.reference) or channels == 3, "x", "three channels for compat='reference'", describe(x))


class PatchNoiseHyper(NamedTuple):
    """What a sweep may map over, by replacing `state.hyper`."""

    corruption: Corruption
    inner: Any = ()
    """Of the learner that is wrapped, if it has one."""


class PatchNoiseState(NamedTuple):
    """The state of the learner that is wrapped, with the corruption beside it."""

    variables: Any
    lr_scale: Any
    hyper: PatchNoiseHyper
    inner: Any
    """The rest of that learner's state; what stands above is None in it, and above if that learner lacks it."""


def patch_noise(learner: Learner, corruption: Corruption) -> Learner:
    """Wrap a learner: it is trained on images whose regions are hidden, `batch.x` being corrupted before each step.

    It takes a learner instead of a network, as any method may be trained so: `patch_noise(erm(network), hidden)`.

    The corruption is drawn inside the step, from the step's key, before the learner's own augmentation; `init`,
    `predict` and `weights` do what they did, on images as they are. Nothing but `x` is touched, neither twins nor
    masks. With `swap`, and no other operation, rows of one batch influence each other, those of weight 0 too.

    The corruption lies in `state.hyper`, so one sweep may train with many of equal shapes, each compared with the
    plain arm, in one program: `sweep(keys, learner, data, hyper=[PatchNoiseHyper(one) for one in corruptions])`, or,
    if the learner has a `hyper` of its own, `PatchNoiseHyper(one, inner_hyper)`. Equal arguments give one learner.

    Raises:
      ContractError: in `init` and `step`, images that do not fit the regions; see `corrupt`.
    """
    for name, value in (("init", learner.init), ("step", learner.step), ("predict", learner.predict)):
        expect(callable(value), f"learner.{name}", "a function", describe(value))
    return _patch_noise(learner, _frozen(corruption))


@dataclass(frozen=True, eq=False)
class _Frozen:
    """A corruption as an argument of a cached function: equal by its values."""

    corruption: Corruption
    digest: str
    """Of the values. A checkpoint records it, so that a run cannot go on with another region unnoticed."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


def _frozen(corruption: Corruption) -> _Frozen:
    corruption = jax.tree.map(np.asarray, corruption)
    digest = hashlib.sha256(str(jax.tree.structure(corruption)).encode())
    for leaf in jax.tree.leaves(corruption):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
    return _Frozen(corruption, digest.hexdigest())


@functools.lru_cache(maxsize=32)
def _patch_noise(learner: Learner, frozen: _Frozen) -> Learner:
    def init(key: Key, batch: Batch) -> PatchNoiseState:
        _check(batch.x, frozen.corruption, batch.index)
        return _wrapped(learner.init(key, batch), jax.tree.map(jnp.asarray, frozen.corruption))

    @functools.wraps(learner.step)  # whose settings a checkpoint records
    def step(key: Key, state: PatchNoiseState, batch: Batch) -> tuple[PatchNoiseState, Any]:
        key_corruption, key_step = jax.random.split(key)
        corruption = state.hyper.corruption
        x = _corrupted_batch(key_corruption, batch, corruption)
        inner, info = learner.step(key_step, _unwrapped(state), batch._replace(x=x))
        return _wrapped(inner, corruption), info

    def predict(state: PatchNoiseState, x: Array) -> jax.Array:
        return learner.predict(_unwrapped(state), x)

    def weights(state: PatchNoiseState, data: Batch) -> jax.Array:
        return learner.weights(_unwrapped(state), data)

    return Learner(init=init, step=step, predict=predict, weights=None if learner.weights is None else weights)


def _corrupted_batch(key: Key, batch: Batch, corruption: Corruption) -> jax.Array:
    kept = corruption.bits if corruption.levels is None else corruption.levels
    # The order of a batch says nothing: without row numbers a region per image cannot be found.
    expect(
        kept.shape[0] == 1 or batch.index is not None,
        "batch.index",
        "the rows' numbers, for a region per image",
        "nothing",
    )
    return corrupt(key, batch.x, corruption, batch.index)


LIFTED = ("variables", "lr_scale", "hyper")
"""Fields of a learner's state that the loop, a schedule or a sweep looks for."""


def _wrapped(inner: Any, corruption: Corruption) -> PatchNoiseState:
    there = {name: getattr(inner, name) for name in LIFTED if hasattr(inner, name)}
    rest = inner._replace(**dict.fromkeys(there)) if there else inner
    return PatchNoiseState(
        there.get("variables"), there.get("lr_scale"), PatchNoiseHyper(corruption, there.get("hyper", ())), rest
    )


def _unwrapped(state: PatchNoiseState) -> Any:
    there = {"variables": state.variables, "lr_scale": state.lr_scale, "hyper": state.hyper.inner}
    fields = getattr(state.inner, "_fields", ())
    own = {name: value for name, value in there.items() if name in fields}
    return state.inner._replace(**own) if own else state.inner
