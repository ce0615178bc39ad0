"""Two encoders and two heads on both codes: the networks of DisEnt, as pure functions."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Array, Classifier, Key, Params, Split, as_float
from jaxdebias.models._mlp import _MLP
from jaxdebias.models._resnet import _BLOCKS, _ResNet
from jaxdebias.models._resnet_cifar import CIFAR_MEAN, CIFAR_STD
from jaxdebias.models.linen import Affine, Network


class TwoEncoders(NamedTuple):
    """Builders return the same object for the same arguments. `x` may be uint8; codes are `[n d]` each."""

    init: Callable[[Key, Array], Params]
    """(key, x) -> variables of all four parts; x gives shapes only."""
    encode: Callable[[Params, Array], tuple[jax.Array, jax.Array]]
    """(variables, x) -> (intrinsic code, biased code), evaluation mode."""
    train: Callable[[Key, Params, Array], tuple[tuple[jax.Array, jax.Array], Params]]
    """(key, variables, x) -> ((intrinsic code, biased code), variables with new batch statistics), training mode."""
    intrinsic: Callable[[Params, Array], jax.Array]
    """(variables, both codes `[n 2d]`, intrinsic first) -> logits of the debiased head."""
    biased: Callable[[Params, Array], jax.Array]
    """(variables, both codes `[n 2d]`) -> logits of the biased head."""
    classifier: Classifier
    """What predicts, for measuring and explaining: both encoders and the debiased head, of the same variables."""


class _TwoEncoders(nn.Module):
    intrinsic: Network
    biased: Network
    classes: int

    def setup(self):
        self.intrinsic_head = Affine(self.classes)
        self.biased_head = Affine(self.classes)

    def codes(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        first, second = (encoder.pool(encoder.trunk(x, train)) for encoder in (self.intrinsic, self.biased))
        return first, second

    def intrinsic_logits(self, z: jax.Array) -> jax.Array:
        return self.intrinsic_head(z)

    def biased_logits(self, z: jax.Array) -> jax.Array:
        return self.biased_head(z)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = jnp.concatenate(self.codes(x, train=False), axis=-1)
        return self.intrinsic_logits(z), self.biased_logits(z)


@functools.cache
def _two_encoders(encoder: Network, classes: int, input_scale: float = 1.0) -> TwoEncoders:
    network = _TwoEncoders(intrinsic=encoder, biased=encoder.clone(), classes=classes)

    def scaled(x: Array) -> jax.Array:
        return as_float(x) if input_scale == 1.0 else input_scale * as_float(x)

    def init(key: Key, x: Array) -> Params:
        return dict(network.lazy_init(key, jax.ShapeDtypeStruct((1, *x.shape[1:]), jnp.float32)))

    def encode(variables: Params, x: Array) -> tuple[jax.Array, jax.Array]:
        return network.apply(variables, scaled(x), train=False, method="codes")

    def train(key: Key, variables: Params, x: Array) -> tuple[tuple[jax.Array, jax.Array], Params]:
        codes, changed = network.apply(
            variables, scaled(x), train=True, method="codes", mutable=["batch_stats"], rngs={"dropout": key}
        )
        return codes, {**variables, **changed}

    def intrinsic(variables: Params, z: Array) -> jax.Array:
        return network.apply(variables, jnp.asarray(z), method="intrinsic_logits")

    def biased(variables: Params, z: Array) -> jax.Array:
        return network.apply(variables, jnp.asarray(z), method="biased_logits")

    def both(variables: Params, x: Array) -> jax.Array:
        return jnp.concatenate(encode(variables, x), axis=-1)

    def train_logits(key: Key, variables: Params, x: Array) -> tuple[jax.Array, Params]:
        codes, variables = train(key, variables, x)
        return intrinsic(variables, jnp.concatenate(codes, axis=-1)), variables

    predicts = Classifier(
        init=init,
        apply=lambda variables, x: intrinsic(variables, both(variables, x)),
        train=train_logits,
        vector=Split(both, intrinsic, ("params", "intrinsic_head")),
    )
    return TwoEncoders(init, encode, train, intrinsic, biased, predicts)


def mlp_two_encoders(
    *, hidden: Sequence[int] = (100, 100, 16), classes: int = 10, input_scale: float = 1.0
) -> TwoEncoders:
    """Multilayer perceptrons with a ReLU after each layer, the last included; initial values as in PyTorch.

    The default is that of DisEnt (Lee et al. 2021) on Colored MNIST: codes of 16 numbers each. Its code divides pixels
    by 255 twice, which is `input_scale=1 / 255`.

    >>> mlp_two_encoders() is mlp_two_encoders(hidden=[100, 100, 16])
    True
    """
    expect(len(hidden) > 0, "hidden", "at least one layer", hidden)
    expect(input_scale > 0, "input_scale", "a number above 0", input_scale)
    return _two_encoders(_MLP(hidden=tuple(hidden), classes=classes, initial="pytorch"), classes, float(input_scale))


def resnet_two_encoders(
    *,
    depth: int = 18,
    classes: int = 10,
    norm: str = "batch",
    stem: str = "imagenet",
    width: int = 64,
    input_mean: Sequence[float] = CIFAR_MEAN,
    input_std: Sequence[float] = CIFAR_STD,
) -> TwoEncoders:
    """Residual networks up to the average pool, 8 * width = 512 numbers of each for depth 18; arguments of `resnet`.

    With the defaults the encoders of DisEnt (Lee et al. 2021) on Corrupted CIFAR-10. Which stem the published numbers
    had is not certain; `imagenet` is that of torchvision's ResNet-18, `small` keeps the resolution of small images.
    """
    check_choice("depth", str(depth), map(str, _BLOCKS))
    check_choice("norm", norm, ["batch", "group"])
    check_choice("stem", stem, ["imagenet", "small"])
    expect(
        len(input_mean) == len(input_std),
        "input_std",
        f"as many values as input_mean, {len(input_mean)}",
        len(input_std),
    )
    blocks, bottleneck = _BLOCKS[depth]
    return _two_encoders(
        _ResNet(
            blocks=blocks,
            bottleneck=bottleneck,
            classes=classes,
            norm=norm,
            stem_kind=stem,
            width=width,
            input_mean=tuple(input_mean),
            input_std=tuple(input_std),
            dtype=jnp.float32,
        ),
        classes,
    )
