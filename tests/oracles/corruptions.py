"""The random corruptions of CIFAR-10-C for one picture, pixel by pixel, and with SciPy's interpolation."""

import math

import numpy as np
from scipy import ndimage

SIZE = 32


def snow(x, noise, angle):
    """x `[32 32 3]` in 0..255, noise `[32 32]`, angle in degrees."""
    flakes = ndimage.zoom(noise[3:29, 3:29], 1.25, order=1)
    assert flakes.shape == (SIZE, SIZE)
    flakes[flakes < 0.65] = 0
    flakes = np.clip(flakes, 0, 1)
    weights = [math.exp(-t * t / (2 * 12 * 12)) for t in range(29)]
    layer = np.zeros((SIZE, SIZE))
    for i in range(SIZE):
        for j in range(SIZE):
            for t, w in enumerate(weights):
                down = math.ceil(t * math.sin(math.radians(angle)) - 0.5)
                right = math.ceil(t * math.cos(math.radians(angle)) - 0.5)
                row, column = min(max(i + down, 0), SIZE - 1), min(max(j + right, 0), SIZE - 1)
                layer[i, j] += w * flakes[row, column] / sum(weights)
    x = x / 255
    gray = 0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2]
    x = 0.8 * x + 0.2 * np.maximum(x, gray[..., None] * 1.5 + 0.5)
    return 255 * np.clip(x + layer[..., None] + np.rot90(layer, k=2)[..., None], 0, 1)


def plasma(uniform, decay):
    """Diamond-square on a torus, one point after the other."""
    values, draws = np.zeros((SIZE, SIZE)), iter(uniform)
    step, amplitude = SIZE, 100.0
    while step >= 2:
        half = step // 2

        def mean(i, j, around):
            return sum(values[(i + a) % SIZE, (j + b) % SIZE] for a, b in around) / 4

        diagonal = [(-half, -half), (-half, half), (half, -half), (half, half)]
        straight = [(-half, 0), (half, 0), (0, -half), (0, half)]
        for first, around in (((half, half), diagonal), ((0, half), straight), ((half, 0), straight)):
            for i in range(first[0], SIZE, step):
                for j in range(first[1], SIZE, step):
                    values[i, j] = mean(i, j, around) + amplitude**2 * next(draws)
        step, amplitude = half, amplitude / decay
    assert next(draws, None) is None
    return (values - values.min()) / (values.max() - values.min())


def elastic(x, jitter, field):
    """x `[32 32 3]`, jitter `[3 2]` of three points (column, row), field `[2 32 32]` uniform (rows, columns)."""
    before = np.array([[26, 26], [26, 6], [6, 6]], float)
    forward = np.linalg.lstsq(np.c_[before, np.ones(3)], before + jitter, rcond=None)[0].T  # [2 3]
    x = x.astype(float)  # SciPy rounds to the type that it is given
    dr, dc = (3.2 * ndimage.gaussian_filter(f, 0.96, mode="reflect", truncate=3) for f in field)
    out = np.empty(x.shape)
    for c in range(3):
        warped = np.empty((SIZE, SIZE))
        for i in range(SIZE):
            for j in range(SIZE):
                column, row = np.linalg.solve(forward[:, :2], np.array([j, i]) - forward[:, 2])
                warped[i, j] = ndimage.map_coordinates(x[..., c], [[row], [column]], order=1, mode="mirror")[0]
        i, j = np.mgrid[:SIZE, :SIZE]
        out[..., c] = ndimage.map_coordinates(warped, [i + dr, j + dc], order=1, mode="reflect")
    return out
