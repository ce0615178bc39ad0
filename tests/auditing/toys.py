"""Two columns, the signal and the attribute, both +-1, and linear models that look at either."""

import jax.numpy as jnp
import numpy as np

from jaxdebias.core import Batch, Dataset, Split


def table(n=400, conflicting=0.05, seed=0, noise=0.0):
    """Pairs flip the second column; `noise` flips the first one, so that no model is always right."""
    rng = np.random.default_rng(seed)

    def batch(share):
        label = rng.integers(0, 2, n, dtype=np.int32)
        attribute = np.where(rng.random(n) < share, 1 - label, label).astype(np.int32)
        shown = np.where(rng.random(n) < noise, 1 - label, label)
        x = np.stack([2 * shown - 1, 2 * attribute - 1], axis=1).astype(np.float32)
        if noise:
            x = x + rng.normal(0, 0.05, x.shape).astype(np.float32)
        return Batch(x=x, label=label, attribute=attribute)

    def pairs(data):
        towards = np.where(data.attribute == data.label, 1, -1)[:, None]
        flip = np.array([[1, -1]], np.float32)
        aligned = np.where(towards > 0, data.x, data.x * flip)
        return Batch(x=aligned, label=data.label, attribute=data.label, twin=aligned * flip)

    splits = {"train": batch(conflicting), **{name: batch(0.5) for name in ("edit", "accept", "test")}}
    return Dataset(
        name="toy",
        variant={"conflicting": conflicting},
        splits=splits,
        pairs={name: pairs(splits[name]) for name in ("edit", "accept", "test")},
        label_names=("no", "yes"),
        attribute_names=("blue", "red"),
        aligned=np.eye(2, dtype=bool),
    )


def linear(params, x):
    """Logits of (signal weight, attribute weight) = params["params"]["head"]["kernel"]."""
    return x @ params["params"]["head"]["kernel"]


SPLIT = Split(features=lambda params, x: x, head=linear)


def looking_at(signal, attribute):
    kernel = jnp.array([[-signal, signal], [-attribute, attribute]], jnp.float32)
    return {"params": {"head": {"kernel": kernel}}}
