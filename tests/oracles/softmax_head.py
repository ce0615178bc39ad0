"""An L2 softmax head in plain float64 NumPy: loss, gradient, Hessian and Newton fit, written as the definitions say.

theta is [d k]; a bias is a column of ones in the features. The loss is the weighted sum of cross-entropies plus
l2 / 2 |theta|^2; vectors are theta row by row.
"""

import numpy as np


def probabilities(theta, x):
    logits = x @ theta
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def loss(theta, x, y, l2, weight=None):
    logits = x @ theta
    top = logits.max(axis=1)
    log_p = logits[np.arange(len(y)), y] - top - np.log(np.exp(logits - top[:, None]).sum(axis=1))
    weight = np.ones(len(y)) if weight is None else weight
    return -(weight * log_p).sum() + 0.5 * l2 * (theta**2).sum()


def example_gradients(theta, x, y):
    """[n p], one outer product per example."""
    error = probabilities(theta, x) - np.eye(theta.shape[1])[y]
    return np.stack([np.outer(row, e).reshape(-1) for row, e in zip(x, error, strict=True)])


def gradient(theta, x, y, l2, weight=None):
    weight = np.ones(len(y)) if weight is None else weight
    error = probabilities(theta, x) - np.eye(theta.shape[1])[y]
    return (x.T @ (weight[:, None] * error)).reshape(-1) + l2 * theta.reshape(-1)


def hessian(theta, x, l2, weight=None):
    """Sum over the rows of (x x^T) kron (diag p - p p^T), block by block of classes."""
    d, k = theta.shape
    weight = np.ones(len(x)) if weight is None else weight
    p = probabilities(theta, x)
    out = np.zeros((d, k, d, k))
    for a in range(k):
        for b in range(k):
            curvature = weight * (p[:, a] * ((a == b) - p[:, b]))
            out[:, a, :, b] = (x * curvature[:, None]).T @ x
    return out.reshape(d * k, d * k) + l2 * np.eye(d * k)


def fit(x, y, k, l2, weight=None, start=None, tolerance=1e-10):
    """Newton's method with backtracking until the gradient norm of the sum is under the tolerance."""
    theta = np.zeros((x.shape[1], k)) if start is None else start.copy()
    for _ in range(200):
        g = gradient(theta, x, y, l2, weight)
        if np.linalg.norm(g) < tolerance:
            return theta
        step = -np.linalg.solve(hessian(theta, x, l2, weight), g)
        size, here = 1.0, loss(theta, x, y, l2, weight)
        while loss(theta + size * step.reshape(theta.shape), x, y, l2, weight) > here + 1e-9 and size > 1e-8:
            size /= 2
        theta = theta + size * step.reshape(theta.shape)
    raise AssertionError(f"no convergence: gradient {np.linalg.norm(g)}")


def pair_bias(theta, x, twin, y):
    rows = np.arange(len(y))
    return np.abs(probabilities(theta, x)[rows, y] - probabilities(theta, twin)[rows, y]).mean()


def pair_bias_gradient(theta, x, twin, y):
    """grad |p - q| = sign(p - q) (grad p - grad q), and grad p_y = p_y x (onehot(y) - p)^T."""
    total = np.zeros(theta.size)
    for row, other, label in zip(x, twin, y, strict=True):
        p, q = probabilities(theta, row[None])[0], probabilities(theta, other[None])[0]
        one = np.eye(theta.shape[1])[label]
        grad_p = p[label] * np.outer(row, one - p).reshape(-1)
        grad_q = q[label] * np.outer(other, one - q).reshape(-1)
        total += np.sign(p[label] - q[label]) * (grad_p - grad_q)
    return total / len(y)
