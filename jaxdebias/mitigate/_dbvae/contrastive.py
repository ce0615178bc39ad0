"""A latent space by supervised contrast: rows of one class are drawn together, others apart.

What is left of a class is one cloud, and rows that do not fit in lie at its edge: candidates for rare rows where a
variational code, which spends itself on pose and light, has them in its middle. The codes go to
`latent_weights(code, None, label, config, classes=k, kl=jnp.ones(l))`.

Labels: those of the task only.

Source: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, loss L_out. To draw by the rarity in its space
is ours. Deviation: the class head is trained at the same time, on features that it sends no gradient to.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxdebias.contracts import expect
from jaxdebias.core import Array, Batch, Classifier, Key, Learner, Params
from jaxdebias.train._losses import correct, cross_entropy, weighted_mean
from jaxdebias.train._optimizer import Optimizer, update


class ContrastiveState(NamedTuple):
    variables: Params
    """What the classifier's `apply` takes."""
    projection: Float[Array, "d l"]
    """From the classifier's vector features to the code."""
    opt_state: Any
    lr_scale: Float[Array, ""]


class ContrastiveInfo(NamedTuple):
    """Means over the batch, by the rows' weights."""

    loss: Float[Array, ""]
    """Contrast and cross-entropy."""
    contrast: Float[Array, ""]
    accuracy: Float[Array, ""]


def contrastive(
    classifier: Classifier,
    optimizer: Optimizer = Optimizer(),
    *,
    latent: int = 8,
    temperature: float = 0.1,
    augment: Callable[[Key, Array], Array] | None = None,
) -> Learner:
    """Trains the code on two views of each batch. Equal arguments give the same learner.

    Args:
      classifier: without batch statistics; its features in evaluation mode are used.
      optimizer: settings of the optimiser.
      latent: l, the size of the code.
      temperature: cosines are divided by it; 0.1 in the paper.
      augment: `(key, x) -> x`; None: both views are the row itself.
    """
    expect(latent >= 2, "latent", "at least 2: codes lie on a sphere", latent)
    expect(temperature > 0, "temperature", "a positive number", temperature)
    return _contrastive(classifier, optimizer, int(latent), float(temperature), augment)


@functools.cache
def _contrastive(classifier: Classifier, optimizer: Optimizer, latent: int, temperature: float, augment) -> Learner:
    def init(key: Key, batch: Batch) -> ContrastiveState:
        key_classifier, key_projection = jax.random.split(key)
        variables = classifier.init(key_classifier, batch.x)
        width = jax.eval_shape(classifier.vector.features, variables, batch.x).shape[1]
        projection = jax.random.normal(key_projection, (width, latent)) / jnp.sqrt(float(width))
        opt_state = optimizer.build().init((variables, projection))
        return ContrastiveState(variables, projection, opt_state, jnp.ones((), jnp.float32))

    def step(key: Key, state: ContrastiveState, batch: Batch) -> tuple[ContrastiveState, ContrastiveInfo]:
        views = [batch.x if augment is None else augment(k, batch.x) for k in jax.random.split(key)]
        weight = jnp.ones(batch.label.shape, jnp.float32) if batch.weight is None else jnp.asarray(batch.weight)

        def loss_fn(params: tuple[Params, jax.Array]) -> tuple[jax.Array, ContrastiveInfo]:
            variables, projection = params
            features = [classifier.vector.features(variables, x) for x in views]
            z = jnp.concatenate([on_sphere(one @ projection) for one in features])
            twice = jnp.tile(batch.label, 2), jnp.tile(weight, 2)
            contrast = weighted_mean(supervised_contrast(z, *twice, temperature=temperature), twice[1])
            logits = classifier.vector.head(variables, jax.lax.stop_gradient(features[0]))
            task = weighted_mean(cross_entropy(logits, batch.label), weight)
            accuracy = weighted_mean(correct(logits, batch.label), weight)
            return contrast + task, ContrastiveInfo(contrast + task, contrast, accuracy)

        params = (state.variables, state.projection)
        gradient, info = jax.grad(loss_fn, has_aux=True)(params)
        params, opt_state = update(optimizer.build(), gradient, state.opt_state, params, state.lr_scale)
        return ContrastiveState(*params, opt_state, state.lr_scale), info

    def predict(state: ContrastiveState, x: Array) -> jax.Array:
        return classifier.apply(state.variables, x)

    return Learner(init=init, step=step, predict=predict)


def code(classifier: Classifier, state: ContrastiveState, x: Array) -> Float[jax.Array, "n l"]:
    """Codes of rows, of length 1."""
    return on_sphere(classifier.vector.features(state.variables, x) @ state.projection)


def on_sphere(z: Float[Array, "n l"]) -> Float[jax.Array, "n l"]:
    """Rows of length 1; a row of zeros stays.

    >>> [round(value, 4) for value in on_sphere(jnp.array([[3.0, 4.0]]))[0].tolist()]
    [0.6, 0.8]
    """
    z = jnp.asarray(z)
    return z * jax.lax.rsqrt(jnp.maximum((z**2).sum(1, keepdims=True), 1e-12))


def supervised_contrast(
    z: Float[Array, "n l"], label: Int[Array, "n"], weight: Float[Array, "n"], *, temperature: float = 0.1
) -> Float[jax.Array, "n"]:
    """L_out of each row: how much nearer than all others those of its own class are; 0 for one without any.

    -1/|P| sum_{p in P} log(exp(z.z_p / t) / sum_{a != i} exp(z.z_a / t)), where P are the other rows of the label.

    Args:
      z: of length 1.
      label: `[n]` int; rows of one label attract each other.
      weight: rows of weight 0 are padding: nobody's neighbour.
      temperature: divides the logits.
    """
    z, label, there = jnp.asarray(z), jnp.asarray(label), jnp.asarray(weight) > 0
    others = there[None, :] & ~jnp.eye(z.shape[0], dtype=bool)
    likeness = jnp.where(others, z @ z.T / temperature, -jnp.inf)
    near = others & (label[:, None] == label[None, :])
    total = jax.nn.logsumexp(jnp.where(others.any(1, keepdims=True), likeness, 0.0), axis=1)
    gained = jnp.where(near, likeness - total[:, None], 0.0).sum(1)
    return -gained / jnp.maximum(near.sum(1), 1)
