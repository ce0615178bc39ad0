"""Slow and obvious: intervals and tests of rates, one number at a time, by scans and root finders of scipy."""

import math

import numpy as np
from scipy import optimize, stats

Z = 1.959963984540054
LOGS = np.linspace(-8.0, 30.0, 153)
"""Where the log of a tilt is looked at before a root is refined."""


def exact(x, n, alpha=0.05):
    """Clopper-Pearson, as the rates at which the binomial tails have alpha/2."""
    low = optimize.brentq(lambda p: stats.binom.sf(x - 1, n, p) - alpha / 2, 0, 1, xtol=1e-14) if x > 0 else 0.0
    high = optimize.brentq(lambda p: stats.binom.cdf(x, n, p) - alpha / 2, 0, 1, xtol=1e-14) if x < n else 1.0
    return low, high


def tilted_rate(t, x, n, w):
    """The root in [0, 1] of b p^2 - (n + b) p + x, b = t w, between 0 and the observed rate or it and 1."""
    b = t * w
    rate = x / n
    if b == 0:
        return rate
    ends = (0.0, rate) if b > 0 else (rate, 1.0)
    f = lambda p: b * p * p - (n + b) * p + x  # noqa: E731
    if f(ends[0]) == 0 and not (b > 0 and x == n) and not (b < 0 and x < n):
        return ends[0]
    # Two roots may lie in the range where x is 0 or n: the one that a rate strictly inside tends to.
    if x == 0:
        return max(0.0, 1 + n / b) if b < 0 else 0.0
    if x == n:
        return min(1.0, n / b) if b > 0 else 1.0
    return optimize.brentq(f, *ends, xtol=1e-16, rtol=1e-15)


def tilted_change(t, gains, losses, n, w):
    """(p10, p01) with gains / (l + tau), losses / (l - tau), same / l of sum 1."""
    tau, same = t * w, n - gains - losses
    pole = abs(tau)

    def parts(above):
        """The three shares at l = pole + above."""
        l = pole + above  # noqa: E741
        ends = (2 * pole + above, above) if tau > 0 else (above, 2 * pole + above)  # l + tau and l - tau
        return tuple(
            count / total if count else 0.0 for count, total in zip((gains, losses, same), (*ends, l), strict=True)
        )

    at_pole = losses if tau > 0 else gains if tau < 0 else n
    if at_pole == 0 and sum(parts(0.0)) < 1:
        p10, p01, rest = parts(0.0)
        return (p10, 1 - p10 - rest) if tau > 0 else (1 - p01 - rest, p01)
    above = optimize.brentq(lambda above: sum(parts(above)) - 1, at_pole / 4, 3 * n, xtol=1e-15, rtol=1e-14)
    return parts(above)[:2]


def distance(t, rows, w, paired, skew, z):
    """(|t| V / sqrt(V*) - c - z, S under the tilt)."""
    mean, variance, third, counts = [], [], [], []
    for row, weight in zip(rows, w, strict=True):
        if paired:
            p10, p01 = tilted_change(t, *row, weight)
            mean.append(p10 - p01)
            variance.append(p10 + p01 - (p10 - p01) ** 2)
            third.append(0.0)
        else:
            p = tilted_rate(t, *row, weight)
            mean.append(p)
            variance.append(p * (1 - p))
            third.append(p * (1 - p) * (1 - 2 * p))
        counts.append(row[-1])
    s = sum(weight * m for weight, m in zip(w, mean, strict=True))
    part = [weight**2 * v / n for weight, v, n in zip(w, variance, counts, strict=True)]
    total = sum(part)
    if total <= 0:
        return -z, s
    wider = sum(
        weight**2 * v / max(n - 1 + p / total, 0.2 * n)
        for weight, v, n, p in zip(w, variance, counts, part, strict=True)
    )
    c = 0.0
    if skew:
        k = sum(weight**3 * v / n**2 for weight, v, n in zip(w, third, counts, strict=True)) / total**1.5
        c = max(-z / 2, math.copysign(1, t) * k * (z * z - 1) / 6)
    return abs(t) * total / math.sqrt(wider) - c - z, s


def score_limit(rows, w, sign, *, paired=False, skew=False, z=Z):
    scale = max(abs(weight) for weight in w)
    values = [distance(sign * math.exp(log) / scale, rows, w, paired, skew, z)[0] for log in LOGS]
    if values[-1] < 0:
        most = [abs(weight) for weight in w] if paired else [max(-sign * weight, 0) for weight in w]
        return -sign * sum(most)
    first = 1 + max(i for i, value in enumerate(values) if value < 0)  # the outermost, should there be several
    log = optimize.brentq(
        lambda log: distance(sign * math.exp(log) / scale, rows, w, paired, skew, z)[0],
        LOGS[first - 1],
        LOGS[first],
        xtol=1e-13,
    )
    return distance(sign * math.exp(log) / scale, rows, w, paired, skew, z)[1]


def weighted(x, n, w, z=Z):
    rows = list(zip(map(float, x), map(float, n), strict=True))
    limits = [[score_limit(rows, w, sign, skew=skew, z=z) for skew in (False, True)] for sign in (1, -1)]
    return min(limits[0]), max(limits[1])


def paired(gains, losses, n, w, z=Z):
    rows = list(zip(map(float, gains), map(float, losses), map(float, n), strict=True))
    return score_limit(rows, w, 1, paired=True, z=z), score_limit(rows, w, -1, paired=True, z=z)


def worst_group(x, n, alpha=0.05):
    groups = [(a, b) for a, b in zip(x, n, strict=True) if b > 0]
    return (min(exact(a, b, alpha)[0] for a, b in groups), min(exact(a, b, alpha / len(groups))[1] for a, b in groups))


def largest_difference(x, n, level=0.95):
    families = [[(a, b) for a, b in zip(xs, ns, strict=True) if b > 0] for xs, ns in zip(x, n, strict=True)]
    families = [family for family in families if len(family) > 1]
    alpha = 1 - level ** (1 / len(families))
    z = stats.norm.ppf((1 + level) / 2)
    low, high = 0.0, 0.0
    for family in families:
        q = stats.studentized_range.ppf(1 - alpha, len(family), np.inf) / math.sqrt(2)
        inner = [[score_limit([row], [1.0], sign, skew=True, z=q) for sign in (1, -1)] for row in family]
        outer = [[score_limit([row], [1.0], sign, skew=True, z=z) for sign in (1, -1)] for row in family]
        for i, (a, b) in enumerate(family):
            for j, (c, d) in enumerate(family):
                p, q_ = a / b, c / d
                if i != j:
                    low = max(low, p - q_ - math.hypot(p - inner[i][0], inner[j][1] - q_))
                    high = max(high, p - q_ + math.hypot(outer[i][1] - p, q_ - outer[j][0]))
    return low, min(high, 1.0)


def design_effect(right, group, unit, w, level=0.95):
    """(design effect, t / z) with loops over units and groups; right may be -1, 0 or 1."""
    groups = [g for g in range(len(w)) if w[g] != 0 and g in group]
    rows = [[(y, u) for y, h, u in zip(right, group, unit, strict=True) if h == g] for g in range(len(w))]
    n = {g: len(rows[g]) for g in groups}
    mean = {g: sum(y for y, _ in rows[g]) / n[g] for g in groups}
    var = {g: sum((y - mean[g]) ** 2 for y, _ in rows[g]) / n[g] for g in groups}
    units = sorted({u for g in groups for _, u in rows[g]})
    d, k = [], []
    e = {g: 1 / sum((sum(v == u for _, v in rows[g]) / n[g]) ** 2 for u in units) for g in groups}
    for u in units:
        total = size = 0.0
        for g in groups:
            mine = [y for y, v in rows[g] if v == u]
            share = len(mine) / n[g]
            total += w[g] / n[g] * sum(y - mean[g] for y in mine) / max(1 - share, 0.05)
            size += abs(w[g]) * share
        d.append(total)
        k.append(size)
    count = len(units)
    between = (count - 1) / count * sum(v * v for v in d)
    within = sum(w[g] ** 2 * var[g] / n[g] for g in groups)
    if within < 1e-15 or count == 1:
        deff = sum(v * v for v in k) / sum(w[g] ** 2 / n[g] for g in groups)
    else:
        deff = max(1.0, between / within)
    part = {g: w[g] ** 2 / e[g] for g in groups}
    other = sum(part.values()) ** 2 / sum(part[g] ** 2 / max(e[g] - 1, 0.1) for g in groups)
    freedom = max(1.0, min(sum(k) ** 2 / sum(v * v for v in k) - 1, other))
    tail = (1 + level) / 2
    return deff, stats.t.ppf(tail, freedom) / stats.norm.ppf(tail)


def sign_flips(gains, losses, n, w):
    """Two-sided mid-p with every combination of signs of the rows that changed."""
    steps = [weight / size for weight, size, b, c in zip(w, n, gains, losses, strict=True) for _ in range(b + c)]
    observed = abs(sum(weight * (b - c) / size for weight, size, b, c in zip(w, n, gains, losses, strict=True)))
    above = same = 0
    for signs in range(2 ** len(steps)):
        total = abs(sum(step if signs >> i & 1 else -step for i, step in enumerate(steps)))
        same += abs(total - observed) < 1e-12
        above += total >= observed + 1e-12
    return (above + same / 2) / 2 ** len(steps)


def homogeneity(x, n):
    """p of the largest chi-square over families, with every table that has the same margins."""
    families = [(list(map(int, xs)), list(map(int, ns))) for xs, ns in zip(x, n, strict=True)]

    def chi(xs, ns):
        p = sum(xs) / sum(ns)
        return sum((a - b * p) ** 2 / (b * p * (1 - p)) for a, b in zip(xs, ns, strict=True) if b) if 0 < p < 1 else 0.0

    def tables(total, ns):
        if len(ns) == 1:
            if total <= ns[0]:
                yield (total,), math.comb(ns[0], total)
            return
        for first in range(min(total, ns[0]) + 1):
            for rest, ways in tables(total - first, ns[1:]):
                yield (first, *rest), ways * math.comb(ns[0], first)

    observed = max(chi(*family) for family in families)
    below = 1.0
    for xs, ns in families:
        ways = [(chi(table, ns), way) for table, way in tables(sum(xs), ns)]
        below *= sum(way for value, way in ways if value < observed * (1 - 1e-9)) / sum(way for _, way in ways)
    return 1 - below


def holm(p):
    """Adjusted p of each test: the smallest level at which Holm's procedure still rejects it."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted = [0.0] * len(p)
    so_far = 0.0
    for rank, i in enumerate(order):
        so_far = max(so_far, (len(p) - rank) * p[i])
        adjusted[i] = min(so_far, 1.0)
    return adjusted


def tango(gains, losses, n, z=Z):
    """Tango's interval (1998) by his own formula for the share of losses given the difference."""

    def score(difference):
        a, b = 2 * n, -gains - losses + (2 * n - gains + losses) * difference
        c = -losses * difference * (1 - difference)
        p01 = (math.sqrt(max(b * b - 4 * a * c, 0)) - b) / (2 * a)
        variance = n * (2 * p01 + difference * (1 - difference))
        return (gains - losses - n * difference) / math.sqrt(variance) if variance > 0 else math.inf

    observed = (gains - losses) / n
    low = optimize.brentq(lambda d: score(d) - z, -1 + 1e-12, observed - 1e-12)
    high = optimize.brentq(lambda d: score(d) + z, observed + 1e-12, 1 - 1e-12)
    return low, high
