"""Two variational encoders with a classifier each, signal and bias, and one decoder of both codes: SiH's networks.

Source: "Signal is Harder to Learn than Bias" (SiH), Vandenhirtz et al. 2023, and its code's layer sizes.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxdebias.contracts import expect
from jaxdebias.core import Array, Classifier, Key, Params, Split, as_float
from jaxdebias.models._resnet import _Block
from jaxdebias.models._resnet_cifar import CIFAR_MEAN, CIFAR_STD
from jaxdebias.models.linen import Affine, Conv


class Code(NamedTuple):
    """A diagonal Gaussian over the latent of one branch, for each row."""

    mean: Float[Array, "n l"]
    log_variance: Float[Array, "n l"]


class Codes(NamedTuple):
    """What the two encoders, which share nothing, say of the same rows."""

    signal: Code
    bias: Code


class Branches(NamedTuple):
    """The networks as pure functions of one set of variables, `{"params": {signal, bias, decoder}, ...}`.

    `z` is a latent `[n l]`. The classifier of a branch is a ReLU on the latent, then one affine layer; the features of
    its `vector` split are the ReLU of the mean code, so its logits of any latent are `vector.head(variables, relu(z))`.
    Batch statistics, where there are any, are the entry `"batch_stats"` of the variables.
    """

    init: Callable[[Key, Array], Params]
    """(key, x) -> variables; x gives shapes only."""
    encode: Callable[[Params, Array], Codes]
    """(variables, x) -> codes, evaluation mode."""
    decode: Callable[[Params, Array, Array], jax.Array]
    """(variables, z_signal, z_bias) -> logits of the pixels, shaped as x, evaluation mode; their sigmoid is the
    image."""
    encode_train: Callable[[Params, Array], tuple[Codes, Params]]
    """(variables, x) -> (codes, variables with new batch statistics), training mode."""
    decode_train: Callable[[Params, Array, Array], tuple[jax.Array, Params]]
    """As `decode`, in training mode, with the variables."""
    signal: Classifier
    """The signal branch on its mean code: an ordinary classifier of the same variables, for whatever takes one."""
    bias: Classifier
    """The bias branch on its mean code."""


class _Branches(nn.Module):
    """Subclasses say in `setup` what `signal`, `bias` (x, train -> Code), `signal_head`, `bias_head` and `decoder` are.

    An encoder has the latent's size from `latent`, the decoder takes both codes, the signal's first.
    """

    def code(self, branch: str, x: jax.Array, train: bool) -> Code:
        return getattr(self, branch)(x, train)

    def logits(self, branch: str, vector: jax.Array) -> jax.Array:
        return getattr(self, f"{branch}_head")(vector)

    def codes(self, x: jax.Array, train: bool) -> Codes:
        return Codes(self.code("signal", x, train), self.code("bias", x, train))

    def pixels(self, z_signal: jax.Array, z_bias: jax.Array, train: bool) -> jax.Array:
        return self.decoder(jnp.concatenate([z_signal, z_bias], axis=1), train)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Touches every layer, for `init`."""
        codes = self.codes(x, train=False)
        for branch, code in codes._asdict().items():
            self.logits(branch, code.mean)
        return self.pixels(codes.signal.mean, codes.bias.mean, train=False)


class _MlpEncoder(nn.Module):
    hidden: tuple[int, ...]
    latent: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> Code:
        del train  # nothing here differs between training and evaluation
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = nn.relu(Affine(width)(x))
        return Code(Affine(self.latent, name="mean")(x), Affine(self.latent, name="log_variance")(x))


class _MlpDecoder(nn.Module):
    hidden: tuple[int, ...]
    image: tuple[int, int, int]

    @nn.compact
    def __call__(self, z: jax.Array, train: bool) -> jax.Array:
        del train
        for width in self.hidden:
            z = nn.relu(Affine(width)(z))
        return Affine(math.prod(self.image))(z).reshape(z.shape[0], *self.image)


class _MlpBranches(_Branches):
    image: tuple[int, int, int]
    latent: int
    hidden: tuple[int, ...]
    decoder_hidden: tuple[int, ...]
    classes: int

    def setup(self):
        self.signal, self.bias = _MlpEncoder(self.hidden, self.latent), _MlpEncoder(self.hidden, self.latent)
        self.signal_head, self.bias_head = Affine(self.classes), Affine(self.classes)
        self.decoder = _MlpDecoder(self.decoder_hidden, self.image)


def mlp_vae(
    *,
    image: tuple[int, int, int] = (28, 28, 3),
    latent: int = 100,
    hidden: Sequence[int] = (100, 100),
    decoder: Sequence[int] = (512, 1024),
    classes: int = 10,
) -> Branches:
    """Affine layers with ReLU; the defaults are the networks of the paper's Colored MNIST.

    Images are flattened as they are stored, height, width, channels; the paper's code flattens channels first. That is
    a permutation of the first kernels' rows and of the last kernel's columns, whose initial values are exchangeable.

    Args:
      image: h, w, c of the images.
      latent: l, the size of each branch's code.
      hidden: widths of each encoder's hidden layers; mean and log-variance are an affine layer each after them.
      decoder: widths of the decoder's hidden layers.
      classes: k.

    >>> mlp_vae(latent=8) is mlp_vae(latent=8, hidden=[100, 100])
    True
    """
    expect(len(image) == 3 and min(image) >= 1, "image", "h, w, c", image)
    expect(len(hidden) > 0 and len(decoder) > 0, "hidden", "at least one hidden layer", f"{hidden}, {decoder}")
    return _branches(
        _MlpBranches(
            image=tuple(image), latent=latent, hidden=tuple(hidden), decoder_hidden=tuple(decoder), classes=classes
        )
    )


# PyTorch's default for convolutions: weights and bias uniform in +-1/sqrt(fan_in).
_torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_he = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
LARGEST_LOG_VARIANCE = 5.0


def _conv(features: int, size: int, fan_in: int, *, bias: bool = False, padding: int | None = None) -> nn.Conv:
    """Stride 1, "same" unless `padding` says otherwise, initial values of PyTorch."""
    bound = 1 / math.sqrt(fan_in * size * size)

    def uniform(key: Key, shape: tuple[int, ...], dtype: object = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    pad = size // 2 if padding is None else padding
    return Conv(
        features, (size, size), padding=[(pad, pad)] * 2, use_bias=bias, kernel_init=_torch_uniform, bias_init=uniform
    )


def _norm(train: bool) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)  # momentum .1 in PyTorch's words


class _ResNetEncoder(nn.Module):
    latent: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> Code:
        mean, std = (jnp.asarray(values, x.dtype)[None, None, None, :] for values in (self.mean, self.std))
        x = Conv(self.width, (4, 4), (2, 2), padding=[(1, 1)] * 2, use_bias=False, kernel_init=_he)((x - mean) / std)
        x = nn.relu(_norm(train)(x))
        for stage in range(4):
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                x = _Block(self.width * 2**stage, stride, False, "batch", jnp.float32)(x, train)
        mean, log_variance = (_conv(self.latent, 2, x.shape[-1], bias=True, padding=0)(x)[:, 0, 0, :] for _ in range(2))
        return Code(mean, jnp.minimum(log_variance, LARGEST_LOG_VARIANCE))


def _double(x: Float[jax.Array, "n h w c"]) -> Float[jax.Array, "n h2 w2 c"]:
    """Every pixel four times: nearest-neighbour interpolation to twice the size."""
    n, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None, :], (n, h, 2, w, 2, c)).reshape(n, 2 * h, 2 * w, c)


class _UpBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; with `up`, twice the size and half the channels."""

    up: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        channels = x.shape[-1]
        y = nn.relu(_norm(train)(_conv(channels, 3, channels)(x)))
        if self.up:
            y = _conv(channels // 2, 3, channels, bias=True)(_double(y))
            x = _norm(train)(_conv(channels // 2, 3, channels, bias=True)(_double(x)))
        else:
            y = _conv(channels, 3, channels)(y)
        return nn.relu(_norm(train)(y) + x)


class _ResNetDecoder(nn.Module):
    channels: int

    @nn.compact
    def __call__(self, z: jax.Array, train: bool) -> jax.Array:
        x = z[:, None, None, :]
        for _ in range(4):
            x = _UpBlock(up=True)(_UpBlock(up=False)(x, train), train)
        return _conv(self.channels, 3, x.shape[-1], bias=True)(_double(x))


class _ResNetBranches(_Branches):
    latent: int
    width: int
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def setup(self):
        self.signal, self.bias = (_ResNetEncoder(self.latent, self.width, self.mean, self.std) for _ in range(2))
        self.signal_head, self.bias_head = Affine(self.classes), Affine(self.classes)
        self.decoder = _ResNetDecoder(len(self.mean))


def resnet_vae(
    *,
    latent: int = 512,
    width: int = 64,
    classes: int = 10,
    input_mean: Sequence[float] = CIFAR_MEAN,
    input_std: Sequence[float] = CIFAR_STD,
) -> Branches:
    """ResNet-18 encoders and a residual decoder for 32x32 images, with batch normalisation; the paper's for CIFAR.

    The encoder starts with a 4x4 convolution of stride 2 and has no max-pool; log-variances are cut at 5 from above.
    The layers that the paper's code holds and never uses are left out. Which of its initial values the first
    convolution has was not to be read from the specification; here it is the trunk's, normal by fan-out.

    Args:
      latent: l, a multiple of 8: the decoder halves 2 l channels four times.
      width: channels of the first stage.
      classes: k.
      input_mean: per channel of images in [0, 1], subtracted before the encoder; the reconstruction is of the images
        as they were.
      input_std: see input_mean.
    """
    expect(latent >= 8 and latent % 8 == 0, "latent", "a multiple of 8", latent)
    expect(
        len(input_mean) == len(input_std),
        "input_std",
        f"as many values as input_mean, {len(input_mean)}",
        len(input_std),
    )
    return _branches(
        _ResNetBranches(latent=latent, width=width, classes=classes, mean=tuple(input_mean), std=tuple(input_std))
    )


@functools.cache
def _branches(network: _Branches) -> Branches:
    def init(key: Key, x: Array) -> Params:
        return dict(network.lazy_init(key, jax.ShapeDtypeStruct((1, *x.shape[1:]), jnp.float32)))

    def training(variables: Params, *args: Array, method: str) -> tuple[jax.Array | Codes, Params]:
        out, changed = network.apply(variables, *args, train=True, mutable=["batch_stats"], method=method)
        return out, {**variables, **changed}

    def encode(variables: Params, x: Array) -> Codes:
        return network.apply(variables, as_float(x), train=False, method="codes")

    def decode(variables: Params, z_signal: Array, z_bias: Array) -> jax.Array:
        return network.apply(variables, z_signal, z_bias, train=False, method="pixels")

    def encode_train(variables: Params, x: Array) -> tuple[Codes, Params]:
        return training(variables, as_float(x), method="codes")

    def decode_train(variables: Params, z_signal: Array, z_bias: Array) -> tuple[jax.Array, Params]:
        return training(variables, z_signal, z_bias, method="pixels")

    def classifier(branch: str) -> Classifier:
        def head(variables: Params, vector: Array) -> jax.Array:
            return network.apply(variables, branch, vector, method="logits")

        def features(variables: Params, x: Array) -> jax.Array:
            return nn.relu(network.apply(variables, branch, as_float(x), train=False, method="code").mean)  # pyright: ignore[reportAttributeAccessIssue]

        def apply(variables: Params, x: Array) -> jax.Array:
            return head(variables, features(variables, x))

        def train(key: Key, variables: Params, x: Array) -> tuple[jax.Array, Params]:
            del key
            code, changed = network.apply(
                variables, branch, as_float(x), train=True, mutable=["batch_stats"], method="code"
            )
            return head(variables, nn.relu(code.mean)), {**variables, **_merged(variables, changed)}

        vector = Split(features, head, ("params", f"{branch}_head"))
        return Classifier(init=init, apply=apply, train=train, vector=vector)

    return Branches(init, encode, decode, encode_train, decode_train, classifier("signal"), classifier("bias"))


def _merged(variables: Params, changed: Params) -> Params:
    """`changed` may hold the statistics of one branch only; those of the others stay."""
    return {name: {**variables[name], **entries} for name, entries in changed.items()}
