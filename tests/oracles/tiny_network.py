"""The network of `train/tiny.py` in NumPy and float64: logits, and the gradient that a gradient on logits gives."""

import jax
import numpy as np


def double(params):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def softmax(logits):
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def forward(params, x):
    """(hidden units, logits)."""
    kernel, bias = params["hidden"]
    z = np.tanh(x @ kernel + bias)
    return z, z @ params["head"]["kernel"] + params["head"]["bias"]


def gradient(params, x, error):
    """Of `sum(error * logits)`, error `[n k]`."""
    z, _ = forward(params, x)
    back = error @ params["head"]["kernel"].T * (1 - z**2)
    return {"hidden": (x.T @ back, back.sum(0)), "head": {"kernel": z.T @ error, "bias": error.sum(0)}}


def descended(params, slope, rate):
    """One step of plain gradient descent."""
    return jax.tree.map(lambda leaf, step: leaf - rate * step, params, slope)
