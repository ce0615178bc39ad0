"""Signal is Harder (SiH): training without bias labels, from two variational autoencoders that share a decoder.

The bias branch is made greedy for what is easily learned (generalised cross-entropy); the signal branch is trained on
what the bias branch gets wrong; the decoder rebuilds the image from both codes, which keeps them from losing anything.
Per row, with p the probability that the bias branch gives to the label, D pixels and sg the stop-gradient:

    L = sg((1 - p)^gamma) CE_signal + sg(p^q) CE_bias + lambda rec / D + beta KL / D

where KL is that of both codes to a standard normal, and gamma = q = 0.7, lambda = 100, beta = 1 in the paper.
Labels needed: those of the task only; a bias attribute is never read, by training or by the monitor.

Source: Vandenhirtz, Manduchi, Marcinkevics and Vogt 2023 (arXiv 2305.19671) and their code. What differs here: weights
are computed in log space, the reconstruction from logits, and the monitor by default sees every held-out row.
"""

import functools
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Scalar

from jaxdebias.contracts import check_choice, check_type, expect
from jaxdebias.core import Array, Batch, Key, Learner, Params, as_float
from jaxdebias.models._vae import Branches, Code, Codes
from jaxdebias.train._augment import Augment
from jaxdebias.train._losses import correct, cross_entropy, weighted_mean
from jaxdebias.train._optimizer import Optimizer, trainable, update, with_trainable
from jaxdebias.train._run import FitConfig
from jaxdebias.train._schedule import EarlyStop, Monitor, Plateau


@dataclass(frozen=True, kw_only=True)
class SihConfig:
    """The loss. Its numbers are the initial `state.hyper`, the paper's by default."""

    q: float = 0.7
    """Exponent of the bias branch's weight p^q: 0 is cross-entropy, larger is greedier."""
    gamma: float | None = None
    """Exponent of the signal branch's weight (1 - p)^gamma; None: q."""
    reconstruction: Literal["bernoulli", "gaussian"] = "bernoulli"
    """`bernoulli`: cross-entropy of pixels in [0, 1] (Colored MNIST); `gaussian`: squared error (CIFAR)."""
    reconstruction_weight: float = 100.0
    kl_weight: float = 1.0

    def __post_init__(self):
        check_choice("config.reconstruction", self.reconstruction, ("bernoulli", "gaussian"))
        for name, value in vars(self).items():
            good = not isinstance(value, int | float) or value >= 0
            expect(good, f"config.{name}", "no negative number", value)

    def hyper(self) -> "Hyper":
        """The numbers, as arrays that a program takes as input."""
        gamma = self.q if self.gamma is None else self.gamma
        numbers = self.q, gamma, self.reconstruction_weight, self.kl_weight
        return Hyper(*(jnp.asarray(number, jnp.float32) for number in numbers))


class Hyper(NamedTuple):
    """The numbers of the loss. They are traced: runs with other values, set by `state._replace(hyper=...)`, share one
    program, and a sweep maps over them."""

    q: Float[Array, "..."]
    gamma: Float[Array, "..."]
    reconstruction_weight: Float[Array, "..."]
    kl_weight: Float[Array, "..."]


class SihState(NamedTuple):
    """What the next step needs."""

    variables: Params
    """Those of both branches and the decoder, what the functions of `Branches` take."""
    opt_state: Any
    lr_scale: Scalar
    """Multiplies every update; a plateau schedule lowers it."""
    hyper: Hyper


class SihInfo(NamedTuple):
    """Means over the batch, by the rows' weights. The loss is the sum of signal, bias, and, by their weights,
    reconstruction and KL."""

    loss: Scalar
    signal: Scalar
    """(1 - p)^gamma CE of the signal branch."""
    bias: Scalar
    """p^q CE of the bias branch."""
    reconstruction: Scalar
    """Per pixel."""
    kl_signal: Scalar
    """Per pixel, as all KL here."""
    kl_bias: Scalar
    signal_weight: Scalar
    """(1 - p)^gamma."""
    signal_accuracy: Scalar
    bias_accuracy: Scalar


class Terms(NamedTuple):
    """The parts of the loss before their weights lambda and beta, one value per row."""

    signal: Float[jax.Array, "n"]
    bias: Float[jax.Array, "n"]
    reconstruction: Float[jax.Array, "n"]
    kl_signal: Float[jax.Array, "n"]
    kl_bias: Float[jax.Array, "n"]
    signal_weight: Float[jax.Array, "n"]

    def total(self, hyper: Hyper) -> Float[jax.Array, "n"]:
        """L of each row."""
        kl = self.kl_signal + self.kl_bias
        return self.signal + self.bias + hyper.reconstruction_weight * self.reconstruction + hyper.kl_weight * kl


def sih(
    network: Branches,
    config: SihConfig = SihConfig(),
    optimizer: Optimizer = Optimizer(),
    *,
    augment: Augment | None = None,
    rows: int | None = None,
    groups: Int[np.ndarray, "k a"] | None = None,
) -> Learner:
    """Train both branches and the decoder with one optimiser. Equal arguments give the same learner.

    `predict` are the signal branch's logits of the mean code; the bias branch's are `network.bias.apply(
    state.variables, x)`. Both branches are classifiers of `state.variables`, so `network.signal` goes where a
    trained classifier is wanted (audit, FMD, DFR). `signal_weight` tells which rows the signal branch learns from.

    The published runs: `sih_run_config`, `sih_monitor`, and a random tenth of the training rows held out.

    Args:
      network: `models.mlp_vae` or `models.resnet_vae`.
      config: exponents and weights of the loss.
      optimizer: of all trainable variables.
      augment: `(key, x) -> x` of each batch; what is rebuilt is the augmented image.
      rows: not used; every training method takes them.
      groups: not used; every training method takes them.

    Raises:
      ContractError: a config or an optimizer of another type.
    """
    del rows, groups
    check_type("config", config, SihConfig)
    check_type("optimizer", optimizer, Optimizer)
    return _sih(network, config, optimizer, augment)


@functools.cache
def _sih(branches: Branches, config: SihConfig, optimizer: Optimizer, augment: Augment | None) -> Learner:
    def init(key: Key, batch: Batch) -> SihState:
        variables = branches.init(key, batch.x)
        opt_state = optimizer.build().init(trainable(variables))
        return SihState(variables, opt_state, jnp.ones((), jnp.float32), config.hyper())

    def step(key: Key, state: SihState, batch: Batch) -> tuple[SihState, SihInfo]:
        key_augment, key_noise = jax.random.split(key)
        x = as_float(batch.x if augment is None else augment(key_augment, batch.x))

        def loss_fn(params: Params) -> tuple[jax.Array, tuple[SihInfo, Params]]:
            variables = with_trainable(state.variables, params)
            terms, logits, variables = train_terms(branches, config, key_noise, variables, x, batch.label, state.hyper)
            rows = SihInfo(terms.total(state.hyper), *terms, *(correct(one, batch.label) for one in logits))
            info = jax.tree.map(lambda values: weighted_mean(values, batch.weight), rows)
            return info.loss, (info, variables)

        params = trainable(state.variables)
        gradient, (info, variables) = jax.grad(loss_fn, has_aux=True)(params)
        params, opt_state = update(optimizer.build(), gradient, state.opt_state, params, state.lr_scale)
        return SihState(with_trainable(variables, params), opt_state, state.lr_scale, state.hyper), info

    def predict(state: SihState, x: Array) -> jax.Array:
        return branches.signal.apply(state.variables, x)

    return Learner(init=init, step=step, predict=predict)


def train_terms(
    branches: Branches,
    config: SihConfig,
    key: Key,
    variables: Params,
    x: Float[Array, "n h w c"],
    label: Int[Array, "n"],
    hyper: Hyper,
) -> tuple["Terms", tuple[jax.Array, jax.Array], Params]:
    """The loss of each row in training mode, from latents drawn by `sample(key, codes)`.

    Returns:
      (terms, logits of both branches, variables with new batch statistics).
    """
    codes, variables = branches.encode_train(variables, x)
    latents = sample(key, codes)
    pixels, variables = branches.decode_train(variables, *latents)
    logits = _classify(branches, variables, *latents)
    return loss_terms(*logits, codes, pixels, x, label, hyper, config.reconstruction), logits, variables


def sample(key: Key, codes: Codes) -> tuple[Float[jax.Array, "n l"], Float[jax.Array, "n l"]]:
    """A latent of each branch: mean + (exp(log_variance / 2) + 1e-8) * noise.

    The noise of the signal branch is `normal(key_signal)`, that of the bias branch `normal(key_bias)`, where
    `key_signal, key_bias = split(key)`. The key of a step is `split(key_of_the_step)[1]`.
    """

    def draw(key: Key, code: Code) -> jax.Array:
        noise = jax.random.normal(key, code.mean.shape, code.mean.dtype)
        return code.mean + (jnp.exp(0.5 * code.log_variance) + 1e-8) * noise

    key_signal, key_bias = jax.random.split(key)
    return draw(key_signal, codes.signal), draw(key_bias, codes.bias)


def loss_terms(
    signal_logits: Float[Array, "n k"],
    bias_logits: Float[Array, "n k"],
    codes: Codes,
    pixel_logits: Float[Array, "n h w c"],
    x: Float[Array, "n h w c"],
    label: Int[Array, "n"],
    hyper: Hyper,
    reconstruction: str,
) -> Terms:
    """The loss of each row from what the networks say; gradients stop at both weights."""
    weight_signal, weight_bias = weights(bias_logits, label, q=hyper.q, gamma=hyper.gamma)
    pixels = x.size // x.shape[0]
    return Terms(
        signal=weight_signal * cross_entropy(signal_logits, label),
        bias=weight_bias * cross_entropy(bias_logits, label),
        reconstruction=_reconstruction(reconstruction, pixel_logits, x).sum((1, 2, 3)) / pixels,
        kl_signal=kl_to_standard_normal(codes.signal) / pixels,
        kl_bias=kl_to_standard_normal(codes.bias) / pixels,
        signal_weight=weight_signal,
    )


def weights(
    bias_logits: Float[Array, "n k"], label: Int[Array, "n"], *, q: float | Array = 0.7, gamma: float | Array = 0.7
) -> tuple[Float[jax.Array, "n"], Float[jax.Array, "n"]]:
    """((1 - p)^gamma, p^q) of the probability p of the label, without a gradient.

    Both from logarithms: log(1 - p) is a log-sum-exp over the other classes, accurate however close p is to 1.

    >>> [round(float(w[0]), 6) for w in weights(jnp.array([[10.0, 0.0, 0.0]]), jnp.array([0]))]
    [0.001481, 0.999936]
    """
    logits = jax.lax.stop_gradient(jnp.asarray(bias_logits))
    other = jnp.where(jax.nn.one_hot(label, logits.shape[1], dtype=bool), -jnp.inf, logits)
    log_failure = jax.nn.logsumexp(other, axis=1) - jax.nn.logsumexp(logits, axis=1)
    return jnp.exp(gamma * log_failure), jnp.exp(-q * cross_entropy(logits, label))


def kl_to_standard_normal(code: Code) -> Float[jax.Array, "n"]:
    """KL(N(mean, diag exp(log_variance)) || N(0, I)) of each row, in nats."""
    mean, log_variance = code
    return -0.5 * (1.0 + log_variance - mean**2 - jnp.exp(log_variance)).sum(axis=1)


def _reconstruction(kind: str, logits: Float[Array, "n h w c"], x: Float[Array, "n h w c"]) -> jax.Array:
    if kind == "bernoulli":
        return jax.nn.softplus(logits) - x * logits
    return (jax.nn.sigmoid(logits) - x) ** 2


def _classify(
    branches: Branches, variables: Params, z_signal: Float[Array, "n l"], z_bias: Float[Array, "n l"]
) -> tuple[jax.Array, jax.Array]:
    """Each branch's logits of its own latent; neither sees the other's."""
    return (
        branches.signal.vector.head(variables, jax.nn.relu(z_signal)),
        branches.bias.vector.head(variables, jax.nn.relu(z_bias)),
    )


def evaluate(branches: Branches, config: SihConfig, state: SihState, batch: Batch) -> Terms:
    """The terms of each row in evaluation mode: from mean codes, with weights of the probabilities of those."""
    x = as_float(batch.x)
    codes = branches.encode(state.variables, x)
    means = codes.signal.mean, codes.bias.mean
    pixels = branches.decode(state.variables, *means)
    logits = _classify(branches, state.variables, *means)
    return loss_terms(*logits, codes, pixels, x, batch.label, state.hyper, config.reconstruction)


def signal_weight(branches: Branches, state: SihState, batch: Batch) -> Float[jax.Array, "n"]:
    """(1 - p)^gamma of each row from mean codes: high for rows that contradict the bias."""
    return weights(branches.bias.apply(state.variables, batch.x), batch.label, gamma=state.hyper.gamma)[0]


@functools.cache
def sih_monitor(
    branches: Branches,
    config: SihConfig = SihConfig(),
    *,
    protocol: Literal["fixed", "official"] = "fixed",
    batch_size: int = 256,
    augment: Augment | None = None,
) -> Monitor:
    """The mean loss of the held-out rows in evaluation mode, which the plateau and early stopping watch.

    The held-out rows are biased like the training rows, and no bias label is read.

    Args:
      branches: the autoencoders.
      config: settings, see the class.
      protocol: `fixed` is the mean over all held-out rows by their weights. `official` does as the paper's code: each
        epoch it sums over as many random rows as fill whole batches, and divides by the number of all of them, so the
        value is lower and noisy.
      batch_size: of `official`, which needs at least so many rows.
      augment: of `official`, which the paper's code applies to the held-out CIFAR images too.
    """
    check_choice("protocol", protocol, ("fixed", "official"))

    def outputs(state: SihState, batch: Batch) -> jax.Array:
        return evaluate(branches, config, state, batch).total(state.hyper)

    def mean(loss: jax.Array, held_out: Batch) -> jax.Array:
        return weighted_mean(loss, held_out.weight)

    def rows(key: Key, held_out: Batch) -> Batch:
        n = held_out.label.shape[0]
        expect(n >= batch_size, "held_out", f"at least one batch of {batch_size} rows", n)
        expect(held_out.weight is None, "held_out.weight", "None, under the official protocol", "weights")
        key_rows, key_augment = jax.random.split(key)
        seen = jax.random.permutation(key_rows, n) < n - n % batch_size
        x = held_out.x if augment is None else augment(key_augment, held_out.x)
        return held_out._replace(x=x, weight=seen.astype(jnp.float32))

    def official(loss: jax.Array, held_out: Batch) -> jax.Array:
        return (held_out.weight * loss).sum() / loss.shape[0]

    if protocol == "official":
        return Monitor(name="sih_loss_official", fn=official, outputs=outputs, rows=rows)
    return Monitor(name="sih_loss", fn=mean, outputs=outputs)


def sih_run_config(*, patience: int = 2, epochs: int = 500, batch_size: int = 256) -> FitConfig:
    """The published schedule; patience is 2 epochs for Colored MNIST and 20 for Corrupted CIFAR-10.

    The learning rate falls to a tenth after `patience // 2` epochs without improvement (relative threshold 1e-5), the
    run ends after `patience` (absolute), with the best state; if it never does, the last state is returned.
    """
    expect(patience >= 2, "patience", "at least 2 epochs", patience)
    return FitConfig(
        epochs=epochs,
        batch_size=batch_size,
        drop_last=True,
        plateau=Plateau(patience=patience // 2 - 1),
        early_stop=EarlyStop(patience=patience),
    )
