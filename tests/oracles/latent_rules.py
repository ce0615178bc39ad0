"""Weights by rarity in latent space as slow NumPy: the course notebook's steps, and one histogram at a time."""

import numpy as np


def lab_weights(mean: np.ndarray, bins: int = 10, alpha: float = 0.001) -> np.ndarray:
    """MITDeepLearning/introtodeeplearning, lab 2, step by step; constant latents are passed over."""
    weight = np.zeros(len(mean))
    for z in mean.T:
        if z.min() == z.max():
            continue
        density, edges = np.histogram(z, bins=bins, density=True)
        edges[0], edges[-1] = -np.inf, np.inf
        density = density + alpha
        density = density / density.sum()
        p = 1.0 / density[np.digitize(z, edges) - 1]
        weight = np.maximum(weight, p / p.sum())
    return weight / weight.sum()


def product_weights(z: np.ndarray, bins: int, alpha: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """prod_i 1 / (mass + alpha), row by row, scaled to sum 1."""
    log_weight = np.zeros(len(z))
    for i, column in enumerate(z.T):
        width = (high[i] - low[i]) / bins
        bin_of = [min(max(int(np.floor((value - low[i]) / width)), 0), bins - 1) for value in column]
        mass = np.bincount(bin_of, minlength=bins) / len(z)
        log_weight -= np.log(mass[bin_of] + alpha)
    weight = np.exp(log_weight - log_weight.max())
    return weight / weight.sum()


def ess(weight: np.ndarray) -> float:
    return weight.sum() ** 2 / (weight**2).sum() / len(weight)
