"""How much of each patch reaches a transformer's class token: attention rollout (Abnar & Zuidema 2020).

It is a map of one image, not of a class. `models.attention_weights` gives what it takes for our own transformer.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxdebias.contracts import check_choice, describe, expect
from jaxdebias.core import Array

_FUSE = {"mean": jnp.mean, "max": jnp.max, "min": jnp.min}


def rollout(
    attention: Float[Array, "layers n heads t t"], *, heads: str = "mean", grid: tuple[int, int] | None = None
) -> Float[jax.Array, "n h w"]:
    """The class token's row, class token left out, of the product over layers of 0.5 (A + I) with rows of sum 1.

    Args:
      attention: weights of each layer and head, first layer first; a row is what one token (the first is the class
        token) takes from every token.
      heads: how the heads of a layer are made one: their `mean`, `max` or `min`.
      grid: rows and columns of patches, in reading order; None: a square.

    Returns:
      Maps `[n h w]`, non-negative. What is missing to a sum of 1 is the class token's own share.

    >>> print(rollout(jnp.full((1, 1, 1, 5, 5), 0.2)).round(3))
    [[[0.1 0.1] [0.1 0.1]]]
    """
    check_choice("heads", heads, _FUSE)
    square = attention.ndim == 5 and attention.shape[3] == attention.shape[4] and attention.shape[0] > 0
    expect(square, "attention", "weights [layers n heads t t]", describe(attention))
    patches = attention.shape[-1] - 1
    h, w = grid or (math.isqrt(patches), math.isqrt(patches))
    expect(h * w == patches, "grid", f"{patches} patches, t - 1", f"{h} x {w}")

    def mixed(a: Float[Array, "n heads t t"]) -> Float[jax.Array, "n t t"]:
        a = 0.5 * (_FUSE[heads](a, axis=1) + jnp.eye(patches + 1)[None])
        return a / a.sum(axis=-1, keepdims=True)

    # Only the class token's row is asked for, so the product is taken from the last layer down, a row at a time.
    def step(row: jax.Array, a: jax.Array) -> tuple[jax.Array, None]:
        return jnp.einsum("nt,nts->ns", row, mixed(a), precision=jax.lax.Precision.HIGHEST), None

    first = jnp.zeros((attention.shape[1], patches + 1)).at[:, 0].set(1.0)
    row, _ = jax.lax.scan(step, first, jnp.asarray(attention), reverse=True)
    return row[:, 1:].reshape(-1, h, w)
