"""Slow and obvious: every metric of jaxdebias.measure with Python loops."""

import math

import numpy as np


def wilson(correct, n, z=1.959963984540054):
    """One interval, as the two solutions p of (rate - p)^2 = z^2 p (1 - p) / n."""
    rate = correct / n
    a, b, c = 1 + z * z / n, -(2 * rate + z * z / n), rate * rate
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def confusion(predicted, label, attribute, k, a):
    counts = np.zeros((k, a, k), np.int64)
    for p, y, s in zip(predicted, label, attribute, strict=True):
        if s >= 0:
            counts[y, s, p] += 1
    return counts


def accuracies(predicted, label, attribute, aligned, train_counts, weight=None):
    """plain, group mean, re-weighted, worst, aligned, conflicting accuracy of weighted rows."""
    weight = np.ones(len(label)) if weight is None else weight
    everything, along, against = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    cells = {}
    for p, y, s, w in zip(predicted, label, attribute, weight, strict=True):
        pools = [everything]
        if s >= 0:
            pools += [along if aligned[y, s] else against, cells.setdefault((y, s), [0.0, 0.0])]
        for pool in pools:
            pool[0] += w
            pool[1] += w * (p == y)
    group = {cell: hit / total for cell, (total, hit) in cells.items()}
    share = {cell: train_counts[cell] for cell in group}
    return np.array(
        [
            everything[1] / everything[0],
            sum(group.values()) / len(group),
            sum(share[c] * group[c] for c in group) / sum(share.values()),
            min(group.values()),
            along[1] / along[0],
            against[1] / against[0],
        ]
    )


def design_effect_size(hit, unit):
    """Rows over the design effect: variance of the rate between units over that of independent rows."""
    rate, rows = np.mean(hit), len(hit)
    units = sorted(set(unit))
    between = 0.0
    for u in units:
        between += sum(h - rate for h, v in zip(hit, unit, strict=True) if v == u) ** 2
    between *= len(units) / (len(units) - 1) / rows**2
    independent = rate * (1 - rate) / (rows - 1)
    return rows / max(between / independent, 1.0)


def rates(predicted, label, attribute, value, positive):
    """selection, true positive and false positive rate of one attribute value."""
    rows = [(p == positive, y == positive) for p, y, s in zip(predicted, label, attribute, strict=True) if s == value]
    chosen = [p for p, _ in rows]
    of_positives, of_negatives = [p for p, y in rows if y], [p for p, y in rows if not y]
    return tuple(sum(x) / len(x) if x else math.nan for x in (chosen, of_positives, of_negatives))


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
