"""A small vision transformer: pre-norm blocks, a class token, learned positions (Dosovitskiy et al. 2021)."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Array, Classifier, Params
from jaxdebias.models.linen import Affine, Network, classifier

# torchvision's: epsilon of the normalisations, and initial values.
_Norm = functools.partial(nn.LayerNorm, epsilon=1e-6)
_Dense = functools.partial(nn.Dense, kernel_init=nn.initializers.xavier_uniform())


class _Embedding(nn.Module):
    """Patches `[n t d]` as tokens of `width`, a class token in front, and positions."""

    width: int

    @nn.compact
    def __call__(self, patches: jax.Array) -> jax.Array:
        n, t, _ = patches.shape
        tokens = _Dense(self.width, name="patches")(patches)
        class_token = self.param("class_token", nn.initializers.zeros, (1, 1, self.width))
        positions = self.param("positions", nn.initializers.normal(0.02), (1, t + 1, self.width))
        return jnp.concatenate([jnp.broadcast_to(class_token, (n, 1, self.width)), tokens], axis=1) + positions


class _Attention(nn.Module):
    heads: int

    def weights(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """`[n heads t t]`, rows of sum 1; a method of its own, so that `attention_weights` finds it."""
        scores = jnp.einsum("nqad,nkad->naqk", query, key) / math.sqrt(query.shape[-1])
        return jax.nn.softmax(scores, axis=-1)

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        n, t, width = tokens.shape
        split = _Dense(3 * width, name="qkv")(tokens).reshape(n, t, 3, self.heads, width // self.heads)
        query, key, value = jnp.moveaxis(split, 2, 0)
        mixed = jnp.einsum("naqk,nkad->nqad", self.weights(query, key), value)
        return _Dense(width, name="out")(mixed.reshape(n, t, width))


class _Block(nn.Module):
    width: int
    heads: int
    hidden: int

    def setup(self):
        self.ln_1, self.ln_2 = _Norm(), _Norm()
        self.attention = _Attention(self.heads)
        self.mlp_1, self.mlp_2 = _Dense(self.hidden), _Dense(self.width)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        tokens = tokens + self.attention(self.ln_1(tokens))
        return tokens + self.mlp_2(nn.gelu(self.mlp_1(self.ln_2(tokens)), approximate=False))


class _ViT(Network):
    patch: int
    width: int
    depth: int
    heads: int
    hidden: int
    classes: int
    read: str

    def setup(self):
        self.embedding = _Embedding(self.width)
        self.blocks = [_Block(self.width, self.heads, self.hidden) for _ in range(self.depth)]
        self.norm = _Norm()
        self.head = Affine(self.classes)

    def trunk(self, x: jax.Array, train: bool) -> jax.Array:
        del train  # nothing here differs between training and evaluation
        size = self.patch
        expect(
            x.ndim == 4 and x.shape[1] % size == 0 and x.shape[2] % size == 0,
            "x",
            f"images [n h w c] of whole patches of {size} pixels",
            list(x.shape),
        )
        n, h, w, c = x.shape[0], x.shape[1] // size, x.shape[2] // size, x.shape[3]
        patches = jnp.moveaxis((2.0 * x - 1.0).reshape(n, h, size, w, size, c), 3, 2)
        tokens = self.embedding(patches.reshape(n, h * w, size * size * c))
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        return tokens[:, 0] if self.read == "token" else tokens[:, 1:].reshape(n, h, w, self.width)

    def pool(self, z: jax.Array) -> jax.Array:
        return z if self.read == "token" else z.mean((1, 2))

    def logits(self, vector: jax.Array) -> jax.Array:
        return self.head(vector)


def vit(
    *,
    patch: int = 8,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
    hidden: int = 128,
    classes: int = 10,
    read: str = "token",
) -> Classifier:
    """A transformer over patches, with a class token in front; pixels are scaled to [-1, 1] inside.

    Parameters fit one image size, the one that `init` is shown. The vector features are `[n width]`.

    Args:
      patch: pixels a side of a patch; images are whole numbers of patches.
      width: of the tokens, a multiple of `heads`.
      depth: blocks.
      heads: of each block's attention.
      hidden: units of each block's perceptron.
      classes: k.
      read: what the head reads, after the last normalisation. `token`: the class token. Nothing that comes after the
        last attention then depends on the patches, so there is no spatial cut: maps are taken at
        `linen_tap(vit(...).apply, "blocks_3/ln_1", prefix=1)`. `mean`: the mean of the patches' tokens, which are the
        spatial features `[n h/patch w/patch width]`.
    """
    check_choice("read", read, ["token", "mean"])
    expect(
        min(patch, width, depth, heads, hidden) >= 1,
        "vit",
        "patch, width, depth, heads, hidden of at least 1",
        (patch, width, depth, heads, hidden),
    )
    expect(width % heads == 0, "width", f"a multiple of heads={heads}", width)
    network = _ViT(patch=patch, width=width, depth=depth, heads=heads, hidden=hidden, classes=classes, read=read)
    return classifier(network, spatial=read == "mean")


def attention_weights(network: Classifier, params: Params, x: Array) -> Float[jax.Array, "layers n heads t t"]:
    """The attention of every block of a `vit`, first block first; the first of the t tokens is the class token.

    Pure in `params` and `x`; under `jit`, only what the weights need is computed.

    >>> network, x = vit(patch=4, width=8, depth=2, heads=2, hidden=8), jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    >>> params = jax.eval_shape(network.init, jax.random.key(0), x)
    >>> jax.eval_shape(lambda params, x: attention_weights(network, params, x), params, x).shape
    (2, 1, 2, 5, 5)
    """
    found: list[jax.Array] = []

    def keep(next_fun, args, kwargs, context):
        out = next_fun(*args, **kwargs)
        if isinstance(context.module, _Attention) and context.method_name == "weights":
            found.append(out)
        return out

    with nn.intercept_methods(keep):
        network.apply(params, x)
    expect(len(found) > 0, "network", "a classifier that models.vit built", "one without attention")
    return jnp.stack(found)
