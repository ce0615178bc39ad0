"""The toy of the influence checks: one core feature that is hard, one colour that is easy and mostly agrees.

y ~ Bernoulli(1/2); A = y with probability 0.95; x = [N(2y-1, 1), 2(2A-1) + 0.3 N(0, 1), 8 x N(0, 1), 1].
The counterfactual of a row has its colour coordinate negated. The last column is the intercept.
"""

from typing import NamedTuple

import numpy as np


class Toy(NamedTuple):
    x: np.ndarray  # [n 11]
    y: np.ndarray  # [n]
    a: np.ndarray  # [n], the colour


def toy(seed, n=2000, agreement=0.95):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    a = np.where(rng.random(n) < agreement, y, 1 - y)
    core = rng.normal(2.0 * y - 1.0, 1.0)
    colour = 2.0 * (2.0 * a - 1.0) + 0.3 * rng.normal(size=n)
    x = np.concatenate([core[:, None], colour[:, None], rng.normal(size=(n, 8)), np.ones((n, 1))], axis=1)
    return Toy(x, y, a)


def flip(x):
    """The counterfactual: colour negated, everything else as it is."""
    out = x.copy()
    out[:, 1] = -out[:, 1]
    return out


def l2(n):
    """1e-3 n on the weights of the logistic model, which are the difference of two softmax columns: hence twice it."""
    return 2e-3 * n
