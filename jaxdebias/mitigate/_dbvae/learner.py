"""DB-VAE: a classifier with a variational code, trained on draws that favour what is rare in the code.

Each epoch all rows are encoded, every latent gets a histogram, and rows are drawn the oftener the rarer they are in it
(see `latent_weights`). The loss of a row, with c1, c2, c3 the weights of the configuration, is

    L = c1 CE + I_D(y) (c2 |x - decoded| + c3 KL)

where I_D is 1 for rows of the classes to be debiased. For all others decoder and code get no gradient at all: encoder
and class head learn from the cross-entropy alone.

Labels: those of the task only. `config.sampling` also names the arms to compare with: `uniform` is the control that has
everything but the resampling. Expect an effect where the rare factor is low-dimensional, visible in the pixels and rare
within a class, and only with augmentation: without it few rows drawn often are learned by heart.

Source: Amini et al., "Uncovering and Mitigating Algorithmic Bias through Learned Latent Structure", AIES 2019, and the
first author's course notebook (loss and its numbers). Amigo, Rivas and Marks (arXiv 2312.15307) apply it to expressions
of faces; their settings were not available. With two classes and `debiased=(1,)` this is the first paper's method;
several classes, histograms per class, selected latents and tempering are ours.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_choice, check_rows, check_type, describe, expect
from jaxdebias.core import Array, Batch, Key, Learner, Params, as_float
from jaxdebias.mitigate._dbvae.blocks import class_prior, temper, within_blocks
from jaxdebias.mitigate._dbvae.rarity import RarityConfig, kl_of_latents, latent_weights
from jaxdebias.models._vae_classifier import Encoding, VaeClassifier
from jaxdebias.train._losses import correct, cross_entropy, weighted_mean
from jaxdebias.train._optimizer import Optimizer, trainable, update, with_trainable


@dataclass(frozen=True, kw_only=True)
class DbVaeConfig:
    """The loss's weights are the course notebook's; the other defaults are ours."""

    class_weight: float = 1.0
    """c1, of the cross-entropy."""
    reconstruction_weight: float = 1.0
    """c2."""
    kl_weight: float = 5e-4
    """c3, of the KL summed over latents."""
    reconstruction: Literal["absolute", "squared"] = "absolute"
    """Mean over pixels and channels."""
    debiased: tuple[int, ...] | None = None
    """D, the classes whose rows are reconstructed and resampled; None: all."""
    sampling: Literal["latent", "uniform", "class", "loss"] = "latent"
    """`latent`: by rarity. `uniform`: every row once, the control. `class`: classes equally often. `loss`: by the
    cross-entropy within the class, (CE + alpha)^tau with the alpha, ESS target and class prior of `rarity`."""
    rarity: RarityConfig = field(default_factory=RarityConfig)
    warmup_epochs: int = 2
    """Every row once until so many passes are done: an untrained encoder knows nothing of rarity."""
    stale: bool = False
    """Codes and losses are remembered from the training steps instead of computed anew for each epoch. They are then
    those of augmented rows, and of a row that is no longer drawn they stay as old as its last draw."""
    encode_rows: int = 512
    """Rows at a time when all are encoded."""

    def __post_init__(self):
        check_choice("config.reconstruction", self.reconstruction, ("absolute", "squared"))
        check_choice("config.sampling", self.sampling, ("latent", "uniform", "class", "loss"))
        for name in ("class_weight", "reconstruction_weight", "kl_weight", "warmup_epochs"):
            expect(getattr(self, name) >= 0, f"config.{name}", "at least 0", getattr(self, name))
        expect(
            self.debiased is None or len(set(self.debiased)) == len(self.debiased) > 0,
            "config.debiased",
            "None or different classes",
            self.debiased,
        )
        expect(
            not self.stale or self.warmup_epochs >= 1,
            "config.warmup_epochs",
            "at least 1 with stale codes: every row is to be seen once",
            self.warmup_epochs,
        )
        expect(
            not (self.stale and self.rarity.soft),
            "config.rarity.soft",
            "False with stale codes, which are means only",
            True,
        )


class Remembered(NamedTuple):
    """Of each training row, what the last step that saw it computed."""

    mean: Float[Array, "n l"]
    kl: Float[Array, "l"]
    """Of each latent, averaged over the last steps."""
    loss: Float[Array, "n"]
    """Cross-entropy."""


class DbVaeState(NamedTuple):
    variables: Params
    """Of encoder, code and decoder; `model.classifier` takes them."""
    opt_state: Any
    lr_scale: Float[Array, ""]
    seen: Int[Array, ""]
    """Rows trained on so far, counted up to 2^30."""
    remembered: Remembered | None


class DbVaeInfo(NamedTuple):
    """Means over the batch, by the rows' weights; the last two over its rows of the debiased classes."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    cross_entropy: Float[Array, ""]
    reconstruction: Float[Array, ""]
    kl: Float[Array, ""]
    """Summed over latents, in nats."""


class Terms(NamedTuple):
    """The parts of the loss before their weights, one value per row."""

    cross_entropy: Float[jax.Array, "n"]
    reconstruction: Float[jax.Array, "n"]
    """0 for rows of other classes than the debiased ones."""
    kl: Float[jax.Array, "n"]
    """0 for rows of other classes than the debiased ones."""


def dbvae(
    network: VaeClassifier,
    config: DbVaeConfig = DbVaeConfig(),
    optimizer: Optimizer = Optimizer(),
    *,
    augment: Callable[[Key, Array], Array] | None = None,
    rows: int | None = None,
    groups: Int[np.ndarray, "k a"] | None = None,
) -> Learner:
    """Train a classifier with a code on draws that favour what is rare in the code.

    Equal arguments give the same learner, so nothing compiles again. Train it with `FitConfig(draws="systematic")`:
    less noise, and equal weights are an ordinary epoch. Data in memory only, except for `uniform`.

    Args:
      network: `models.vae_classifier`.
      config: weights of the loss, and how rows are drawn.
      optimizer: of all trainable variables.
      augment: `(key, x) -> x`, applied to each batch; the target of the reconstruction is what it returns.
      rows: n, rows of the training set; needed for stale codes only.
      groups: not used; every training method takes them.

    Raises:
      ContractError: classes to debias that the network lacks, stale codes without rows, a config or an optimizer of
        another type.
    """
    del groups
    check_type("config", config, DbVaeConfig)
    check_type("optimizer", optimizer, Optimizer)
    known = config.debiased is None or all(0 <= one < network.classes for one in config.debiased)
    expect(known, "config.debiased", f"classes in 0..{network.classes - 1}", config.debiased)
    needed = config.stale and config.sampling in ("latent", "loss")
    return _dbvae(network, config, optimizer, check_rows(rows) if needed else None, augment)


@functools.cache
def _dbvae(model: VaeClassifier, config: DbVaeConfig, optimizer: Optimizer, samples: int | None, augment) -> Learner:
    debiased = tuple(range(model.classes)) if config.debiased is None else config.debiased

    def init(key: Key, batch: Batch) -> DbVaeState:
        variables = model.init(key, batch.x)
        opt_state = optimizer.build().init(trainable(variables))
        remembered = (
            None
            if samples is None
            else Remembered(jnp.zeros((samples, model.latent)), jnp.zeros(model.latent), jnp.zeros(samples))
        )
        return DbVaeState(variables, opt_state, jnp.ones((), jnp.float32), jnp.zeros((), jnp.int32), remembered)

    def step(key: Key, state: DbVaeState, batch: Batch) -> tuple[DbVaeState, DbVaeInfo]:
        key_augment, key_noise = jax.random.split(key)
        x = as_float(batch.x if augment is None else augment(key_augment, batch.x))
        weight = jnp.ones(batch.label.shape, jnp.float32) if batch.weight is None else jnp.asarray(batch.weight)

        def loss_fn(params: Params) -> tuple[jax.Array, tuple[DbVaeInfo, Encoding, Terms]]:
            variables = with_trainable(state.variables, params)
            encoding = model.encode(variables, x)
            decoded = model.decode(variables, sample_code(key_noise, encoding))
            terms = loss_terms(encoding, decoded, x, batch.label, debiased=debiased, kind=config.reconstruction)
            total = (
                config.class_weight * terms.cross_entropy
                + config.reconstruction_weight * terms.reconstruction
                + config.kl_weight * terms.kl
            )
            loss, ours = weighted_mean(total, weight), weight * is_in(batch.label, debiased, model.classes)
            info = DbVaeInfo(
                loss,
                weighted_mean(correct(encoding.logits, batch.label), weight),
                weighted_mean(terms.cross_entropy, weight),
                weighted_mean(terms.reconstruction, ours),
                weighted_mean(terms.kl, ours),
            )
            return loss, (info, encoding, terms)

        params = trainable(state.variables)
        gradient, (info, encoding, terms) = jax.grad(loss_fn, has_aux=True)(params)
        params, opt_state = update(optimizer.build(), gradient, state.opt_state, params, state.lr_scale)
        remembered = state.remembered
        if remembered is not None:
            ours = weight * is_in(batch.label, debiased, model.classes)
            remembered = _remember(remembered, batch, weight, encoding, terms.cross_entropy, ours)
        seen = jnp.minimum(state.seen + (weight > 0).sum(dtype=jnp.int32), 2**30)
        return DbVaeState(with_trainable(state.variables, params), opt_state, state.lr_scale, seen, remembered), info

    def predict(state: DbVaeState, x: Array) -> jax.Array:
        return model.classifier.apply(state.variables, x)

    def weights(state: DbVaeState, data: Batch) -> jax.Array:
        counted = jnp.ones(data.label.shape, bool) if data.weight is None else jnp.asarray(data.weight) > 0
        equal = counted / jnp.maximum(counted.sum(), 1).astype(jnp.float32)
        # A pass may be a few rows short (drop_last): it counts as done from its second half on.
        passes = state.seen / jnp.maximum(counted.sum(), 1)
        return jax.lax.cond(passes > config.warmup_epochs - 0.5, lambda: resampled(state, data, counted), lambda: equal)

    def resampled(state: DbVaeState, data: Batch, counted: jax.Array) -> jax.Array:
        if config.sampling == "class":
            return class_balanced_weights(data.label, counted, model.classes)
        if samples is None:
            encoding = encode_all(model, state.variables, data.x, rows=config.encode_rows)
            mean, log_variance, kl = encoding.mean, encoding.log_variance, None
            loss = cross_entropy(encoding.logits, data.label) if config.sampling == "loss" else None
        else:
            expect(data.label.shape == (samples,), "rows", f"the {data.label.shape[0]} rows of the data", samples)
            (mean, kl, loss), log_variance = state.remembered, None  # pyright: ignore[reportGeneralTypeIssues]
        if config.sampling == "loss":
            return loss_sampling_weights(loss, data.label, counted, config.rarity, classes=model.classes)
        return latent_weights(
            mean,
            log_variance,
            data.label,
            config.rarity,
            classes=model.classes,
            debiased=debiased,
            counted=counted,
            kl=kl,
        ).weight

    return Learner(init=init, step=step, predict=predict, weights=None if config.sampling == "uniform" else weights)


def loss_terms(
    encoding: Encoding,
    decoded: Float[Array, "n h w c"],
    x: Float[Array, "n h w c"],
    label: Int[Array, "..."],
    *,
    debiased: tuple[int, ...],
    kind: str = "absolute",
) -> Terms:
    """The loss of each row, its VAE terms masked so that rows of other classes send no gradient to them.

    Labels are `[n]`. A column `[n 1]` is refused: beside terms of shape `[n]` it broadcasts to `[n n]`, and then the
    mask only scales the VAE terms of all rows alike, as in the published notebooks.

    Raises:
      ContractError: labels of another shape, images and reconstructions of different shapes.
    """
    n = encoding.logits.shape[0]
    expect(label.shape == (n,), "label", f"int [n={n}]", describe(label))
    expect(decoded.shape == x.shape, "decoded", f"the shape of x, {list(x.shape)}", describe(decoded))
    mask = is_in(label, debiased, encoding.logits.shape[1]) > 0
    error = jnp.abs(x - decoded) if kind == "absolute" else (x - decoded) ** 2
    kl = kl_of_latents(encoding.mean, encoding.log_variance).sum(1)
    return Terms(
        cross_entropy(encoding.logits, label), jnp.where(mask, error.mean((1, 2, 3)), 0.0), jnp.where(mask, kl, 0.0)
    )


def sample_code(key: Key, encoding: Encoding) -> Float[jax.Array, "n l"]:
    """mean + exp(log_variance / 2) * noise."""
    noise = jax.random.normal(key, encoding.mean.shape, encoding.mean.dtype)
    return encoding.mean + jnp.exp(0.5 * encoding.log_variance) * noise


def encode_all(model: VaeClassifier, variables: Params, x: Array, *, rows: int = 512) -> Encoding:
    """Logits and codes of many rows, `rows` at a time."""
    return map_rows(model.encode, variables, jnp.asarray(x), batch_size=rows)


def reconstructions(model: VaeClassifier, variables: Params, x: Array) -> Float[jax.Array, "n h w c"]:
    """Decoded from mean codes."""
    return model.decode(variables, model.encode(variables, x).mean)


def class_balanced_weights(label: Int[Array, "n"], counted: Bool[Array, "n"], classes: int) -> Float[jax.Array, "n"]:
    """Chances with which every class that is there is drawn equally often.

    >>> class_balanced_weights(jnp.array([0, 0, 1]), jnp.ones(3, bool), 2).tolist()
    [0.25, 0.25, 0.5]
    """
    block = jnp.where(counted, label, -1)
    return within_blocks(jnp.zeros(label.shape), block, class_prior(block, classes=classes, kind="uniform"))


def loss_sampling_weights(
    loss: Float[Array, "n"], label: Int[Array, "n"], counted: Bool[Array, "n"], rarity: RarityConfig, *, classes: int
) -> Float[jax.Array, "n"]:
    """(loss + alpha)^tau within each class, tau at most 1 and such that the class has its effective sample size."""
    block = jnp.where(counted, label, -1)
    log_weight = jnp.log(loss + rarity.alpha)
    if rarity.ess_target is not None:
        log_weight, _ = temper(log_weight, block, target=rarity.ess_target, blocks=classes)
    return within_blocks(log_weight, block, class_prior(block, classes=classes, kind=rarity.class_prior))


def is_in(label: Int[Array, "n"], debiased: tuple[int, ...], classes: int) -> Float[jax.Array, "n"]:
    """1 for rows of the debiased classes, else 0."""
    return jnp.asarray(np.isin(np.arange(classes), debiased).astype(np.float32))[label]


def _remember(
    old: Remembered, batch: Batch, weight: jax.Array, encoding: Encoding, loss: jax.Array, ours: jax.Array
) -> Remembered:
    expect(batch.index is not None, "batch.index", "the row of each sample, which the training loop fills in", None)
    rows = old.loss.shape[0]
    # What fills up the last batch repeats rows that were seen earlier in the epoch: it is left out.
    where = jnp.where(weight > 0, batch.index, rows)
    share = ours / jnp.maximum(ours.sum(), 1e-9)
    kl = (share[:, None] * kl_of_latents(encoding.mean, encoding.log_variance)).sum(0)
    empty = (ours.sum() == 0).astype(kl.dtype)
    keep = 0.9 + 0.1 * empty
    return Remembered(
        old.mean.at[where].set(encoding.mean, mode="drop"),  # pyright: ignore[reportAttributeAccessIssue]
        keep * old.kl + (1 - keep) * kl,
        old.loss.at[where].set(loss, mode="drop"),  # pyright: ignore[reportAttributeAccessIssue]
    )
