"""How rare each row is in latent space, and the weights with which rows are drawn so that the rare ones are seen.

Of every latent one histogram; a row's weight is the product (or the largest) of its latents' 1 / (mass of its bin +
alpha), cut back until the draws are worth a chosen number of rows. Written in logarithms: the product of many latents
over- and underflows otherwise. But it does worse than that: the sum of k roughly independent logarithms has a standard
deviation of sqrt(k), so with many latents nearly all draws fall on one row. Hence few latents, those that carry
information, and a target for the effective sample size (ESS, `(sum W)^2 / sum W^2`).

Rows are compared within blocks: within their class, or all debiased rows with each other. Dimension letters: l latents,
j blocks.

Source: Amini et al., "Uncovering and Mitigating Algorithmic Bias through Learned Latent Structure", AIES 2019
(equations 2-4, Algorithm 1), and the first author's course notebook (MITDeepLearning/introtodeeplearning, lab 2). Ours:
selection of latents, blocks per class, tempering, caps, soft histograms.
"""

import functools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdebias.contracts import check_choice, check_finite, check_integers, check_numbers, describe, expect
from jaxdebias.core import Array
from jaxdebias.mitigate._dbvae.blocks import capped, class_prior, temper, within_blocks
from jaxdebias.mitigate._dbvae.density import kernel_log_density, mixture_log_density, rarity_of_density
from jaxdebias.mitigate._dbvae.flow import flow_log_density
from jaxdebias.mitigate._dbvae.histograms import fit_histograms, log_rarity, soft_mass

_DENSITIES = {"kernel": kernel_log_density, "mixture": mixture_log_density, "flow": flow_log_density}


@dataclass(frozen=True, kw_only=True)
class RarityConfig:
    """The defaults are those that worked in our measurements; `EQUATION_4` and `MIT_LAB` are the published rules."""

    density: Literal["histogram", "kernel", "mixture", "flow"] = "histogram"
    """`kernel`: a smoothed histogram per latent; of the latents together, `mixture`: a Gaussian mixture, and `flow`: a
    normalising flow that is told the class. These give a density q, and the weight is 1 / (q / q' + alpha) with q' the
    geometric mean of q in the block."""
    bins: int = 10
    quantile: float = 0.001
    """Share of rows beyond each end of a latent's bins; they count in the end bins. 0: from smallest to largest, where
    one outlier may press all others into one bin."""
    soft: bool = False
    """Bins get the mass of each row's posterior N(mean, variance) instead of a 1 where its mean is."""
    rule: Literal["product", "max", "topm"] = "product"
    """Over latents, of weights that sum to 1 over the block's rows each."""
    top: int = 5
    """Of `topm`: the product of so many largest weights of each row."""
    alpha: float = 0.01
    alpha_kind: Literal["mass", "density_renorm"] = "mass"
    """What alpha is added to: the bin's share of rows, or the density, whose unit is that of 1/latent."""
    latents: int | None = 8
    """So many latents of the largest mean KL take part; None: all."""
    least_kl: float = 0.01
    """In nats: a latent whose mean KL is less carries nothing; the noise of its mean would only dilute."""
    ess_target: float | None = 0.2
    """Least ESS / n in each block; weights are raised to a power below 1 until it is reached. None: no such power."""
    max_ratio: float | None = None
    """Most that a row may weigh, times the mean of its block."""
    per_class: bool = True
    """Histograms of each class; else one for all debiased rows, which up-samples rare classes too."""
    class_prior: Literal["data", "uniform"] = "data"
    """Share of the draws that a class gets: as in the data, or equal."""
    rows_per_bin: int = 20
    """A class with fewer than `bins` times so many rows uses the histogram of all debiased rows; 0: never."""

    def __post_init__(self):
        check_choice("rarity.density", self.density, ("histogram", *_DENSITIES))
        check_choice("rarity.rule", self.rule, ("product", "max", "topm"))
        check_choice("rarity.alpha_kind", self.alpha_kind, ("mass", "density_renorm"))
        check_choice("rarity.class_prior", self.class_prior, ("data", "uniform"))
        expect(self.bins >= 1, "rarity.bins", "at least 1", self.bins)
        expect(0 <= self.quantile < 0.5, "rarity.quantile", "a share in [0, 0.5)", self.quantile)
        expect(self.top >= 1, "rarity.top", "at least 1", self.top)
        expect(self.alpha >= 0, "rarity.alpha", "at least 0", self.alpha)
        expect(self.latents is None or self.latents >= 1, "rarity.latents", "None or at least 1", self.latents)
        expect(
            self.ess_target is None or 0 < self.ess_target <= 1,
            "rarity.ess_target",
            "None or in (0, 1]",
            self.ess_target,
        )
        expect(self.max_ratio is None or self.max_ratio >= 1, "rarity.max_ratio", "None or at least 1", self.max_ratio)
        expect(not self.soft or self.density == "histogram", "rarity.soft", "False, for this density", self.soft)
        expect(self.rows_per_bin >= 0, "rarity.rows_per_bin", "at least 0", self.rows_per_bin)


_AS_PUBLISHED = {
    "quantile": 0.0,
    "latents": None,
    "least_kl": 0.0,
    "ess_target": None,
    "per_class": False,
    "class_prior": "uniform",
    "rows_per_bin": 0,
}
EQUATION_4 = RarityConfig(**_AS_PUBLISHED)
"""W ~ prod_i 1 / (Q_i + alpha) over all latents, as printed. With many latents it spends the draws on a few rows."""
MIT_LAB = RarityConfig(rule="max", alpha=0.001, alpha_kind="density_renorm", **_AS_PUBLISHED)
"""The course notebook's procedure: the largest weight over latents, alpha added to a density."""


class LatentWeights(NamedTuple):
    weight: Float[jax.Array, "n"]
    """Sums to 1."""
    power: Float[jax.Array, "j"]
    """What weights were raised to for the target ESS, of each block; 1 where they had it."""
    kl: Float[jax.Array, "l"]
    """Mean over the debiased rows, in nats."""
    used: Bool[jax.Array, "l"]
    """The latents that took part."""


def latent_weights(
    mean: Float[Array, "n l"],
    log_variance: Float[Array, "n l"] | None,
    label: Int[Array, "n"],
    config: RarityConfig = RarityConfig(),
    *,
    classes: int,
    debiased: tuple[int, ...] | None = None,
    counted: Bool[Array, "n"] | None = None,
    kl: Float[Array, "l"] | None = None,
) -> LatentWeights:
    """The weights of all rows, by their codes.

    Args:
      mean: of each row's posterior; may be old (see `DbVaeConfig.stale`).
      log_variance: of the posterior, for the KL and for soft histograms; None: `kl` is given instead.
      label: 0..k-1.
      config: settings, see the class.
      classes: k.
      debiased: the classes whose rows are weighted; in the others all rows weigh alike. None: all.
      counted: False: rows to be left out, with weight 0. None: all count.
      kl: mean KL of each latent; None: computed here.

    Raises:
      ContractError: arrays that do not fit each other; of NumPy arrays also values that are not finite, and labels out
        of range: what is on a device, or traced, is not fetched for a check.
    """
    check_numbers("mean", mean, "n l")
    shape = tuple(np.shape(mean))
    expect(min(shape) > 0, "mean", "float [n l], at least one row and one latent", describe(mean))
    for name, value, dimensions, wanted in (
        ("log_variance", log_variance, "n l", shape),
        ("kl", kl, "l", shape[1:]),
        ("label", label, "n", shape[:1]),
        ("counted", counted, "n", shape[:1]),
    ):
        if value is not None or name == "label":
            check_numbers(name, value, dimensions)
            expect(np.shape(value) == wanted, name, f"[{dimensions}] = {list(wanted)}, as mean has", describe(value))
    if isinstance(label, jax.Array):
        expect(jnp.issubdtype(label.dtype, jnp.integer), "label", f"int [n={shape[0]}]", describe(label))
    else:
        check_integers("label", label, shape[0], 0, classes)
    for name, value in (("mean", mean), ("log_variance", log_variance), ("kl", kl)):
        if not isinstance(value, jax.Array) and value is not None:
            check_finite(name, value)
    mean = jnp.asarray(mean)
    mean = mean.astype(jnp.promote_types(mean.dtype, jnp.float32))
    return _latent_weights(
        mean,
        log_variance if log_variance is None else jnp.asarray(log_variance, mean.dtype),
        jnp.asarray(label),
        config,
        classes=classes,
        debiased=debiased,
        counted=counted if counted is None else jnp.asarray(counted, bool),
        kl=kl if kl is None else jnp.asarray(kl, mean.dtype),
    )


@functools.partial(jax.jit, static_argnames=("config", "classes", "debiased"))
def _latent_weights(
    mean: Float[Array, "n l"],
    log_variance: Float[Array, "n l"] | None,
    label: Int[Array, "n"],
    config: RarityConfig,
    *,
    classes: int,
    debiased: tuple[int, ...] | None,
    counted: Bool[Array, "n"] | None,
    kl: Float[Array, "l"] | None,
) -> LatentWeights:
    expect(log_variance is not None or (kl is not None and not config.soft), "log_variance", "given, or kl", None)
    mean, label = jnp.asarray(mean), jnp.asarray(label)
    counted = jnp.ones(label.shape, bool) if counted is None else jnp.asarray(counted)
    ours = np.isin(np.arange(classes), np.arange(classes) if debiased is None else debiased)
    weighted = counted & jnp.asarray(ours)[label]
    if kl is None:
        of_rows = kl_of_latents(mean, log_variance)
        share = weighted.astype(mean.dtype) / jnp.maximum(weighted.sum(), 1)
        kl = share @ of_rows
    chosen, active = active_latents(kl, most=config.latents, least_kl=config.least_kl)
    compared, blocks = (label, classes) if config.per_class else (jnp.zeros_like(label), 1)
    compared = jnp.where(weighted, compared, -1)
    log_weight = _log_rarity(
        mean[:, chosen], None if log_variance is None else log_variance[:, chosen], compared, active, config, blocks
    )
    block_of = np.arange(classes) if config.per_class else np.where(ours, classes, np.arange(classes))
    block, blocks = jnp.where(counted, jnp.asarray(block_of)[label], -1), classes + 1
    power = jnp.ones(blocks, mean.dtype)
    if config.ess_target is not None:
        log_weight, power = temper(log_weight, block, target=config.ess_target, blocks=blocks)
    prior = class_prior(jnp.where(counted, label, -1), classes=classes, kind=config.class_prior)
    share = jax.ops.segment_sum(prior, jnp.asarray(block_of), num_segments=blocks)
    weight = within_blocks(log_weight, block, share)
    if config.max_ratio is not None:
        weight = capped(weight, block, ratio=config.max_ratio, blocks=blocks)
    return LatentWeights(weight, power, kl, jnp.zeros(kl.shape, bool).at[chosen].set(active))


def _log_rarity(mean, log_variance, block, active, config: RarityConfig, blocks: int) -> jax.Array:
    if config.density != "histogram":
        # A latent that carries nothing is the same for all rows.
        log_density = _DENSITIES[config.density](jnp.where(active[None], mean, 0.0), block, blocks=blocks)
        return rarity_of_density(log_density, block, alpha=config.alpha, blocks=blocks)
    histograms = fit_histograms(
        mean,
        block,
        blocks=blocks,
        bins=config.bins,
        quantile=config.quantile,
        least_rows=config.rows_per_bin * config.bins,
    )
    if config.soft:
        histograms = soft_mass(histograms, mean, log_variance, block)
    return log_rarity(
        histograms,
        mean,
        block,
        alpha=config.alpha,
        rule=config.rule,
        alpha_kind=config.alpha_kind,
        top=config.top,
        active=active,
    )


def kl_of_latents(mean: Float[Array, "n l"], log_variance: Float[Array, "n l"]) -> Float[jax.Array, "n l"]:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) of each latent, in nats.

    >>> kl_of_latents(jnp.array([[0.0, 1.0]]), jnp.zeros((1, 2))).tolist()
    [[0.0, 0.5]]
    """
    return 0.5 * (jnp.exp(log_variance) + mean**2 - 1.0 - log_variance)


def active_latents(
    kl: Float[Array, "l"], *, most: int | None, least_kl: float
) -> tuple[Int[jax.Array, "m"], Bool[jax.Array, "m"]]:
    """(numbers of the `most` latents of largest KL, which of them have at least `least_kl`)."""
    order = jax.lax.top_k(jnp.asarray(kl), min(most or kl.shape[0], kl.shape[0]))[1]
    active = jnp.ones(order.shape, bool) if least_kl <= 0 else jnp.asarray(kl)[order] >= least_kl
    return order, active
