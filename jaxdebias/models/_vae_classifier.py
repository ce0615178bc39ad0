"""A classifier with a variational code beside its logits, and a decoder of the code: DB-VAE's network.

Any classifier is the trunk: mean and log-variance are an affine layer each on what its last layer sees. The decoder
gets the code alone, not the logits.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxdebias.contracts import expect
from jaxdebias.core import Array, Classifier, Key, Params, Split, as_float
from jaxdebias.models._cnn import cnn
from jaxdebias.models.linen import Affine, Conv


class Encoding(NamedTuple):
    """What the encoder says of each row: d class logits and a diagonal Gaussian over the latents."""

    logits: Float[Array, "n k"]
    mean: Float[Array, "n l"]
    log_variance: Float[Array, "n l"]


class VaeClassifier(NamedTuple):
    """Pure functions of one set of variables, `{"params": {"encoder": ..., "code": ..., "decoder": ...}}`.

    Nothing differs between training and evaluation. Builders return the same object for the same arguments.
    """

    init: Callable[[Key, Array], Params]
    """(key, x) -> variables; x gives shapes only."""
    encode: Callable[[Params, Array], Encoding]
    """(variables, x) -> encoding."""
    decode: Callable[[Params, Array], jax.Array]
    """(variables, z [n l]) -> images [n h w c] in [0, 1]."""
    classifier: Classifier
    """What predicts, for measuring and explaining: the encoder and its class head, of the same variables."""
    encoder: Classifier
    """The trunk with its head, whose own variables are `variables["params"]["encoder"]`: the model without the VAE."""
    classes: int
    latent: int


class _Code(nn.Module):
    latent: int

    @nn.compact
    def __call__(self, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
        return Affine(self.latent, name="mean")(vector), Affine(self.latent, name="log_variance")(vector)


class _Decoder(nn.Module):
    """An affine layer to a small map, then 3x3 convolutions, each with its channels spread over twice the size.

    On a CPU that is about twice as fast as a transposed convolution.
    """

    image: tuple[int, int, int]
    channels: tuple[int, ...]

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        height, width, colours = self.image
        scale = 2 ** len(self.channels)
        rows, columns = -(-height // scale), -(-width // scale)
        x = nn.relu(Affine(rows * columns * self.channels[0])(z)).reshape(-1, rows, columns, self.channels[0])
        he = nn.initializers.he_normal()
        for out in self.channels[1:]:
            x = nn.relu(depth_to_space(Conv(4 * out, (3, 3), kernel_init=he)(x)))
        x = depth_to_space(Conv(4 * colours, (3, 3))(x))
        return nn.sigmoid(x[:, :height, :width, :])


def depth_to_space(x: Float[jax.Array, "n h w c4"]) -> Float[jax.Array, "n h2 w2 c"]:
    """Twice the height and width, a quarter of the channels; channel (i, j, c) goes to pixel (i, j) of its four.

    >>> depth_to_space(jnp.arange(4.0).reshape(1, 1, 1, 4))[0, :, :, 0].tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    n, h, w, c = x.shape
    return x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c // 4)


def vae_classifier(
    *,
    image: tuple[int, int, int] = (48, 48, 1),
    classes: int = 2,
    latent: int = 16,
    encoder: Classifier | None = None,
    decoder: Sequence[int] = (64, 48, 32, 16),
) -> VaeClassifier:
    """The network of DB-VAE; the defaults are those of our measurements on small faces.

    Args:
      image: h, w, c of the images; the decoder's output.
      classes: k, the outputs of the encoder.
      latent: l, the size of the code.
      encoder: any classifier without batch normalisation (`models.resnet(norm="group", ...)`, `models.vit(...)`); its
        features in evaluation mode are used in training too. None: `models.cnn` with four convolutions of stride 2 (16,
        32, 48, 64 channels) and 128 hidden units.
      decoder: channels before each doubling of the size; one more convolution makes the pixels.

    >>> vae_classifier(latent=8) is vae_classifier(latent=8, decoder=[64, 48, 32, 16])
    True
    """
    expect(len(image) == 3 and min(image) >= 1, "image", "h, w, c", image)
    expect(classes >= 2, "classes", "at least 2", classes)
    expect(latent >= 1, "latent", "at least 1", latent)
    expect(len(decoder) > 0, "decoder", "at least one layer", decoder)
    encoder = encoder or cnn(channels=(16, 32, 48, 64), dense=128, classes=classes)
    return _vae_classifier(encoder, tuple(image), int(classes), int(latent), tuple(decoder))


@functools.cache
def _vae_classifier(
    encoder: Classifier, image: tuple[int, int, int], classes: int, latent: int, channels: tuple[int, ...]
) -> VaeClassifier:
    code, decoder = _Code(latent), _Decoder(image, channels)

    def init(key: Key, x: Array) -> Params:
        expect(tuple(x.shape[1:]) == image, "x", f"images of shape {image}", x.shape)
        key_encoder, key_code, key_decoder = jax.random.split(key, 3)
        trunk = encoder.init(key_encoder, x)
        extra = [name for name in trunk if name != "params"] if isinstance(trunk, Mapping) and "params" in trunk else []
        expect(not extra, "encoder", "a network whose variables are all trained", f"the collections {extra}")
        one = jax.ShapeDtypeStruct((1, *image), jnp.float32)
        logits, vector = (jax.eval_shape(fn, trunk, one) for fn in (encoder.apply, encoder.vector.features))
        expect(logits.shape == (1, classes), "encoder", f"{classes} logits of an image", logits.shape)
        return {
            "params": {
                "encoder": trunk,
                "code": code.lazy_init(key_code, jax.ShapeDtypeStruct(vector.shape, jnp.float32))["params"],
                "decoder": decoder.lazy_init(key_decoder, jax.ShapeDtypeStruct((1, latent), jnp.float32))["params"],
            }
        }

    def encode(variables: Params, x: Array) -> Encoding:
        vector = encoder.vector.features(variables["params"]["encoder"], as_float(x))
        logits = encoder.vector.head(variables["params"]["encoder"], vector)
        return Encoding(logits, *code.apply({"params": variables["params"]["code"]}, vector))

    def decode(variables: Params, z: Array) -> jax.Array:
        return decoder.apply({"params": variables["params"]["decoder"]}, z)

    return VaeClassifier(init, encode, decode, _of_encoder(init, encoder), encoder, classes, latent)


def _of_encoder(init: Callable[[Key, Array], Params], encoder: Classifier) -> Classifier:
    """The encoder as a classifier of the whole network's variables."""

    def own(variables: Params) -> Params:
        return variables["params"]["encoder"]

    def split(parts: Split) -> Split:
        return Split(
            lambda variables, x: parts.features(own(variables), x),
            lambda variables, z: parts.head(own(variables), z),
            ("params", "encoder", *encoder.head_path),
        )

    def train(key: Key, variables: Params, x: Array) -> tuple[jax.Array, Params]:
        logits, trunk = encoder.train(key, own(variables), x)
        return logits, {**variables, "params": {**variables["params"], "encoder": trunk}}

    return Classifier(
        init=init,
        apply=lambda variables, x: encoder.apply(own(variables), x),
        train=train,
        vector=split(encoder.vector),
        spatial=None if encoder.spatial is None else split(encoder.spatial),
    )
