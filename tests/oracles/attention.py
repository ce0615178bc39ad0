"""Slow and obvious: Attention-IoU, its comparison scores, antialiased shrinking and the averages, with loops."""

import math

import numpy as np


def attention_iou(a, b):
    a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    if a.sum() == 0 or b.sum() == 0:
        return math.nan
    intersection = union = 0.0
    for x, y in zip(a / a.sum(), b / b.sum(), strict=True):
        intersection += x * y
        union += ((x + y) / 2) ** 2
    return intersection / union


def overlap(a, b):
    return sum(min(x, y) for x, y in zip(a.ravel() / a.sum(), b.ravel() / b.sum(), strict=True))


def top_pixel_iou(a, mask):
    region = {i for i, value in enumerate(mask.ravel()) if value > 0.5}
    highest = sorted(range(a.size), key=lambda i: (-a.ravel()[i], i))[: len(region)]
    return len(region & set(highest)) / len(region | set(highest)) if region else math.nan


def pointing_game(a, mask):
    highest = max(range(a.size), key=lambda i: (a.ravel()[i], -i))
    return mask.ravel()[highest] / mask.sum()


def shrink(image, height, width):
    """Antialiased bilinear: a triangle as wide as two output cells around each cell's centre, cut at the border."""

    def weights(size, cells):
        scale = size / cells
        matrix = np.zeros((cells, size))
        for i in range(cells):
            centre = (i + 0.5) * scale
            for j in range(size):
                matrix[i, j] = max(0.0, 1 - abs(j + 0.5 - centre) / max(scale, 1.0))
            matrix[i] /= matrix[i].sum()
        return matrix

    return weights(image.shape[0], height) @ image @ weights(image.shape[1], width).T


def group_scores(scores, group, groups, absent):
    """(means, population standard deviations) of each group and of all; NaN scores are left out, or count `absent`."""
    means, deviations = [], []
    for g in [*range(groups), None]:
        values = [
            absent if math.isnan(s) and absent is not None else s
            for s, of in zip(scores, group, strict=True)
            if (of >= 0 if g is None else of == g) and not (absent is None and math.isnan(s))
        ]
        mean = sum(values) / len(values) if values else math.nan
        means.append(mean)
        deviations.append(math.sqrt(sum((v - mean) ** 2 for v in values) / len(values)) if values else math.nan)
    return np.array(means), np.array(deviations)
