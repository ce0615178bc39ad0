"""Trains a patch network to tell the attribute of an image from one patch of it, and calibrates what it says.

Source: De Coninck et al. 2024, by its released code: every image, every step, one position drawn uniformly, the
image's own label, cross-entropy with label smoothing .1, AdamW. Ours: a cosine schedule in place of steps down, the
temperature that minimises the cross-entropy of held-out patches, and maps of images by nets that have not been
trained on them (what a net says of its own training images is too sure).
"""

import functools
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.contracts import check_choice, check_integers, describe, expect
from jaxdebias.core import Array, Batch, Key, Learner, Params
from jaxdebias.explain._patch_calibration import Calibration, calibration_of, fit_temperature
from jaxdebias.explain._patch_maps import EDGES, fold, general_map, image_maps, patch_confidence
from jaxdebias.explain._patches import dense_logits, grid_of, obstacle, patch_logits, starts_of
from jaxdebias.models._patch_net import PatchNet, crops_at
from jaxdebias.train._cross_fit import cross_fit
from jaxdebias.train._losses import correct, cross_entropy, weighted_mean
from jaxdebias.train._optimizer import Optimizer, trainable, update, with_trainable
from jaxdebias.train._plans import steps_per_epoch
from jaxdebias.train._run import FitConfig, fit


@dataclass(frozen=True, kw_only=True)
class PatchFitConfig:
    """How a patch network is trained. Label smoothing, optimiser and its rate are the paper's code's."""

    stride: int | None = None
    """Of positions, in training and of maps. None: a quarter of the patch."""
    steps: int = 700
    batch_size: int = 64
    loss: Literal["random", "dense"] = "random"
    """`random`: one random patch per image and step, the paper's. `dense`: the mean over all positions of an image,
    which is what the former estimates (ours); it costs a dense pass per step and needs a net that has one."""
    label_smoothing: float = 0.1
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    held_out: float = 0.1
    """Share of the images that is left out of training, for the temperature and the accuracies."""

    def __post_init__(self):
        check_choice("config.loss", self.loss, ("random", "dense"))
        for name in ("stride", "steps", "batch_size"):
            value = getattr(self, name)
            expect(value is None or value >= 1, f"config.{name}", "at least 1", value)
        expect(0 < self.held_out < 1, "config.held_out", "a share between 0 and 1", self.held_out)
        expect(0 <= self.label_smoothing < 1, "config.label_smoothing", "a share in [0, 1)", self.label_smoothing)

    @property
    def optimizer(self) -> Optimizer:
        return Optimizer(
            name="adamw",
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            schedule="cosine",
            steps=self.steps,
        )

    def stride_of(self, net: PatchNet) -> int:
        return self.stride or max(1, net.patch // 4)


class PatchFit(NamedTuple):
    """A trained patch network, and what it knows of held-out images."""

    net: PatchNet
    params: Params
    temperature: float
    """By which logits are to be divided."""
    prior: Float[np.ndarray, "k"]
    """Class shares of the images it was trained on."""
    stride: int
    accuracy: float
    """Over patches of held-out images."""
    position_accuracy: Float[np.ndarray, "gh gw"]
    vote_accuracy: float
    """Of the sum over an image's patches of their log probabilities."""
    cross_entropy: float
    """Of held-out patches at that temperature, in nats."""
    held_out: Int[np.ndarray, "m"]
    """Rows that were not trained on."""
    loss: float
    """Mean training loss of the last pass."""
    calibration: Calibration
    """Of held-out patches at that temperature."""

    def logits(self, images: Array, *, flush: bool = False) -> Float[jax.Array, "n gh gw k"]:
        """Of every patch, divided by the temperature."""
        return patch_logits(self.net, self.params, images, stride=self.stride, flush=flush) / self.temperature

    def general_map(
        self, images: Array, labels: Array | None = None, *, confidence: str = "info_gain", edge: str = "error"
    ) -> Float[np.ndarray, "h w"]:
        """`patch_maps.general_map` of this net."""
        return general_map(self.net, self.params, images, labels=labels, **self._options(confidence, edge))

    def image_maps(
        self, images: Array, labels: Array | None = None, *, confidence: str = "info_gain", edge: str = "error"
    ) -> Float[np.ndarray, "n h w"]:
        """`patch_maps.image_maps` of this net."""
        return image_maps(self.net, self.params, images, labels=labels, **self._options(confidence, edge))

    def _options(self, confidence: str, edge: str) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "confidence": confidence,
            "prior": self.prior,
            "temperature": self.temperature,
            "edge": edge,
        }


class State(NamedTuple):
    """What the next step needs."""

    variables: Params
    """What the net's `apply` takes."""
    opt_state: Any
    lr_scale: Float[Array, ""]


class Info(NamedTuple):
    """What a person needs to judge the step: means over the batch."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    """Of the patches drawn, or of all with the dense loss."""


class FoldMaps(NamedTuple):
    """Maps of images by nets that have not been trained on them, by row of the data."""

    maps: Float[np.ndarray, "n h w"]
    confidences: Float[np.ndarray, "n gh gw"]
    fold: Int[np.ndarray, "n"]
    """Which fold an image was in."""
    temperature: float
    """Common to all nets, chosen on all images, each judged by the net that has not seen it."""
    accuracy: float
    """Over patches of images not trained on."""

    @property
    def general(self) -> Float[np.ndarray, "h w"]:
        """The map of the data set."""
        return self.maps.mean(axis=0)


@functools.cache
def patch_learner(
    net: PatchNet,
    stride: int,
    optimizer: Optimizer = Optimizer(),
    *,
    label_smoothing: float = 0.1,
    loss: str = "random",
) -> Learner:
    """The patch network as a learner on whole images. Equal arguments give the same learner.

    `predict` gives what every patch says, `[n gh * gw * k]` log probabilities, patch by patch.

    Raises:
      ContractError: the dense loss for a net that has no dense form or that normalises over the batch.
    """
    reason = obstacle(net)
    if reason is None and any(conv.norm == "batch" for _, conv, _ in net.convolutions()):
        reason = "batch statistics of whole maps are not those of crops"
    expect(loss == "random" or reason is None, "loss", "'random' for this net", f"{loss!r}, but {reason}")

    def init(key: Key, batch: Batch) -> State:
        _check_images(net, batch.x)
        variables = net.init(key)
        return State(variables, optimizer.build().init(trainable(variables)), jnp.ones((), jnp.float32))

    def random_logits(key: Key, variables: Params, x: Array) -> tuple[jax.Array, Params]:
        tops, lefts = (jnp.asarray(starts_of(length, net.patch, stride)) for length in x.shape[1:3])
        position = jax.random.randint(key, (len(x),), 0, len(tops) * len(lefts))
        crops = crops_at(x, jnp.arange(len(x)), tops[position // len(lefts)], lefts[position % len(lefts)], net.patch)
        return net.train(variables, crops, position)

    def step(key: Key, state: State, batch: Batch) -> tuple[State, Info]:
        weight = jnp.ones(batch.label.shape, jnp.float32) if batch.weight is None else batch.weight

        def loss_fn(params: Params) -> tuple[jax.Array, tuple[jax.Array, Params]]:
            variables = with_trainable(state.variables, params)
            if loss == "random":
                logits, variables = random_logits(key, variables, batch.x)
                label, each = batch.label, weight
            else:
                logits = dense_logits(net, variables, jnp.asarray(batch.x), stride=stride)
                patches = logits.shape[1] * logits.shape[2]
                logits = logits.reshape(-1, net.classes)
                label, each = (jnp.repeat(values, patches) for values in (batch.label, weight))
            values = cross_entropy(logits, label, label_smoothing=label_smoothing)
            return weighted_mean(values, each), (weighted_mean(correct(logits, label), each), variables)

        params = trainable(state.variables)
        (value, (accuracy, variables)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        params, opt_state = update(optimizer.build(), gradient, state.opt_state, params, state.lr_scale)
        return State(with_trainable(variables, params), opt_state, state.lr_scale), Info(value, accuracy)

    def predict(state: State, x: Array) -> jax.Array:
        logits = patch_logits(net, state.variables, x, stride=stride)
        return jax.nn.log_softmax(logits).reshape(len(x), -1)

    return Learner(init=init, step=step, predict=predict)


def fit_patches(
    key: Key, net: PatchNet, images: Array, labels: Int[Array, "n"], config: PatchFitConfig = PatchFitConfig()
) -> PatchFit:
    """Trains a patch network on labels of images, for instance those of the bias attribute.

    The labels are all it needs. A share of the images, drawn at random, is held out; on all its patches the temperature
    is chosen and the accuracies are measured.

    Args:
      key: random key.
      net: the patch net.
      images: `[n h w c]`, uint8 or float in [0, 1].
      labels: `[n]` int, 0..k-1.
      config: settings, see the class.

    Raises:
      ContractError: images that the net does not take, labels out of range, a class that is missing in training.
      FloatingPointError: a loss that is not finite.
    """
    images, labels = _checked(net, images, labels, config.stride_of(net))
    n, stride = len(images), config.stride_of(net)
    key_split, key_run = jax.random.split(key)
    order = np.asarray(jax.random.permutation(key_split, n))
    held = max(1, round(config.held_out * n))
    expect(held < n, "images", "some to train on beside those held out", n)
    held_out, rows = np.sort(order[:held]), np.sort(order[held:])
    prior = _prior(labels[rows], net.classes)

    result = fit(key_run, _learner(net, config), _batch(images[rows], labels[rows]), _run_config(len(rows), config))
    params = result.state.variables
    logits = patch_logits(net, params, images[held_out], stride=stride)
    temperature = fit_temperature(logits, labels[held_out])
    hit = np.asarray(logits.argmax(-1)) == labels[held_out][:, None, None]
    log_q = jax.nn.log_softmax(logits / temperature)
    calibration = calibration_of(np.asarray(jnp.exp(log_q)), labels[held_out])
    own = patch_confidence(
        logits,
        kind="pointwise",
        prior=np.full(net.classes, 1 / net.classes, np.float32),
        labels=labels[held_out],
        temperature=temperature,
    )
    votes = np.asarray(log_q.sum((1, 2)).argmax(-1)) == labels[held_out]
    return PatchFit(
        net=net,
        params=params,
        temperature=temperature,
        prior=prior,
        stride=stride,
        accuracy=float(hit.mean()),
        position_accuracy=hit.mean(0),
        vote_accuracy=float(votes.mean()),
        cross_entropy=float(np.log(net.classes) - own.mean()),
        held_out=held_out,
        loss=result.history[-1].loss,
        calibration=calibration,
    )


def out_of_fold_maps(
    key: Key,
    net: PatchNet,
    images: Array,
    labels: Int[Array, "n"],
    config: PatchFitConfig = PatchFitConfig(),
    *,
    folds: int = 2,
    confidence: str = "info_gain",
    edge: str = "error",
) -> FoldMaps:
    """The map of every image by a net that has not been trained on it: one training per fold, as one sweep.

    What all patches of all images say is held in host memory, `n * gh * gw * k` float32.

    Args:
      key: random key.
      net: the patch net.
      images: as for `fit_patches`; `config.held_out` is not used.
      labels: as for `fit_patches`; `config.held_out` is not used.
      config: settings, see the class.
      folds: number of folds.
      confidence: as `kind` of `patch_confidence`; the prior is that of all labels.
      edge: `error` or `nearest`, see `fold`.
    """
    check_choice("edge", edge, [name for name in EDGES if name != "flush"])
    stride = config.stride_of(net)
    images, labels = _checked(net, images, labels, stride)
    said = cross_fit(
        key,
        _learner(net, config),
        _batch(images, labels),
        steps=config.steps,
        folds=folds,
        batch_size=config.batch_size,
    )
    # Softmax of all patches' log probabilities together: each patch's probabilities, over the number of patches.
    grid = grid_of(images.shape[1:3], net.patch, stride)
    probability = said.probability.reshape(len(images), *grid, net.classes)
    logits = np.log(np.maximum(probability, np.finfo(np.float32).tiny))
    temperature = fit_temperature(logits, labels)
    found = patch_confidence(
        logits, kind=confidence, prior=_prior(labels, net.classes), labels=labels, temperature=temperature
    )
    maps = fold(found, tuple(images.shape[1:3]), patch=net.patch, stride=stride, edge=edge)
    accuracy = float((probability.argmax(-1) == labels[:, None, None]).mean())
    return FoldMaps(np.asarray(maps), np.asarray(found), said.fold[0], temperature, accuracy)


def _learner(net: PatchNet, config: PatchFitConfig) -> Learner:
    return patch_learner(
        net, config.stride_of(net), config.optimizer, label_smoothing=config.label_smoothing, loss=config.loss
    )


def _run_config(rows: int, config: PatchFitConfig) -> FitConfig:
    """All steps as one program; passes of equal length."""
    epochs = -(-config.steps // steps_per_epoch(rows, config.batch_size))
    return FitConfig(
        epochs=epochs, epochs_per_chunk=epochs, steps_per_epoch=-(-config.steps // epochs), batch_size=config.batch_size
    )


def _batch(images: np.ndarray, labels: np.ndarray) -> Batch:
    return Batch(x=images, label=labels, attribute=np.full(len(labels), -1, np.int32))


def _prior(labels: np.ndarray, classes: int) -> Float[np.ndarray, "k"]:
    counts = np.bincount(labels, minlength=classes)
    expect(bool((counts > 0).all()), "labels", f"every class 0..{classes - 1} in training", f"counts {counts.tolist()}")
    return (counts / counts.sum()).astype(np.float32)


def _check_images(net: PatchNet, images: Any) -> None:
    expect(
        images.ndim == 4 and images.shape[3] == net.channels, "images", f"[n h w c={net.channels}]", describe(images)
    )


def _checked(net: PatchNet, images: Array, labels: Array, stride: int) -> tuple[np.ndarray, np.ndarray]:
    _check_images(net, images)
    check_integers("labels", labels, len(images), 0, net.classes)
    grid = grid_of(images.shape[1:3], net.patch, stride)
    expect(net.grid in (None, grid), "net", f"positions of the grid {grid} of these images and stride", net.grid)
    return np.asarray(images), np.asarray(labels, np.int32)
