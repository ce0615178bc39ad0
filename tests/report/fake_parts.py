"""Parts of made-up results: rates, measurements and changes, computed from drawn predictions."""

import dataclasses
import functools

import numpy as np

from jaxdebias.results.build import plain
from jaxdebias.results.codec import SCHEMA, from_json
from jaxdebias.results.records import METRICS, Change, Difference, Rate, RunResults

VERSIONS = {
    "jaxdebias": "0.1.0",
    "jax": "0.10.2",
    "flax": "0.12.1",
    "optax": "0.2.8",
    "numpy": "2.4.0",
    "python": "3.11.9",
}


def as_record(make):
    """The record of what `make` returns: plain values, its provenance among them, what is usual left out."""

    @functools.wraps(make)
    def made(**options):
        values = {"attribute": "attribute", "items": "samples", "level": 0.95, "pairing": "counterfactual",
                  "harmful_rows": None, "helpful": [], "helpful_rows": None, **make(**options)}  # fmt: skip
        whence = {name: values.pop(name) for name in ("seed", "device", "versions", "seconds", "seconds_by_step")}
        whence |= {"date": "2026-01-31T12:00:00Z", "arguments": {}, "data": None,
                   "seconds_by_part": values.pop("seconds_by_part", {})}  # fmt: skip
        record = from_json({"schema": SCHEMA, "command": "debias", "provenance": whence, **plain(values)})
        return compared(record)

    return made


def minus(one, other):
    """(value, low, high, separable) of one minus the other, as if they were independent."""
    value = one.value - other.value
    low = value - np.hypot(one.value - one.low, other.high - other.value)
    high = value + np.hypot(one.high - one.value, other.value - other.low)
    return {"value": value, "low": low, "high": high, "n": one.n, "separable": bool(low > 0 or high < 0)}


def compared(record):
    """The record with the changes from before to after, and of baselines to after, that fit its numbers."""
    sides = {}
    for name in ("before", "after"):
        measured = getattr(record, name)
        if measured is not None:
            aligned, conflicting = measured.bias_aligned_accuracy, measured.bias_conflicting_accuracy
            gap = Difference(**minus(aligned, conflicting)) if aligned and conflicting else None
            sides[name] = dataclasses.replace(measured, alignment_gap=gap)
    record = dataclasses.replace(record, **sides)
    before, after = record.before, record.after
    if after is None:
        return dataclasses.replace(record, changes=None)
    both = {name: (getattr(before, name), getattr(after, name)) for name in (*METRICS, "alignment_gap")}
    changes = {name: Change(**minus(two, one), p=0.5, discordant=9) for name, (one, two) in both.items() if one and two}
    baselines = {
        name: dataclasses.replace(one, accuracy_change=Change(**minus(one.measurement.accuracy, after.accuracy)))
        for name, one in record.baselines.items()
    }
    return dataclasses.replace(record, changes=changes, baselines=baselines)


def changed(record, **values):
    """The record with other values, each at the end of a path of fields: `before__accuracy=`. Changes follow."""
    measured = any(path.startswith(("before", "after")) for path in values)
    record = _changed(record, **{path: value for path, value in values.items() if path != "changes"})
    record = compared(record) if measured and isinstance(record, RunResults) else record
    return dataclasses.replace(record, changes=values["changes"]) if "changes" in values else record


def _changed(record, **values):
    for path, value in values.items():
        name, _, rest = path.partition("__")
        inside = _changed(getattr(record, name), **{rest: value}) if rest else value
        record = dataclasses.replace(record, **{name: inside})
    return record


def between(low, value, high, n=1000):
    return Rate(value=value, low=low, high=high, n=n)


def rate(hits, n):
    """Wilson's interval of hits out of n."""
    if n == 0:
        return {"value": None, "low": None, "high": None, "n": 0}
    p, z2 = hits / n, 1.96**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = 1.96 / (1 + z2 / n) * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return {"value": p, "low": max(0.0, middle - half), "high": min(1.0, middle + half), "n": int(n)}


def about(value, half, n):
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half), "n": n}


def largest(value, half, n, attributes):
    ends = {"highest": attributes[0], "lowest": attributes[1], "p": 0.001, "all_groups": value, "left_out": []}
    return {**about(value, half, n), **ends}


def measurement(rng, n, p_right, follow, labels, attributes, aligned, train_counts, bias=None, parity=None):
    """Group sizes n [k a], chance of a right answer [k a], and how often an error names the attribute's label."""
    k, a = n.shape
    confusion = np.zeros((k, a, k), int)
    for y in range(k):
        for s in range(a):
            wrong = np.ones(k)
            wrong[y] = 0
            named = aligned[:, s] & (np.arange(k) != y)
            share = wrong / wrong.sum() * (1 - follow if named.any() else 1.0)
            if named.any():
                share = share + follow * named / named.sum()
            p = (1 - p_right[y, s]) * share
            p[y] += p_right[y, s]
            confusion[y, s] = rng.multinomial(n[y, s], p / p.sum())
    hits = confusion[np.arange(k)[:, None], np.arange(a)[None, :], np.arange(k)[:, None]]
    accuracy = np.divide(hits, n, out=np.full((k, a), np.nan), where=n > 0)
    groups = [
        {
            "label": y,
            "attribute": s,
            "label_name": labels[y],
            "attribute_name": attributes[s],
            "aligned": bool(aligned[y, s]),
            "n": int(n[y, s]),
            "accuracy": rate(hits[y, s], n[y, s]),
            "flagged": bool(n[y, s] < 30),
        }
        for y in range(k)
        for s in range(a)
    ]
    worst = np.unravel_index(np.nanargmin(accuracy), accuracy.shape)
    total, known = int(n.sum()), n > 0
    weights = train_counts / train_counts.sum()
    split = bool(aligned.any())
    return {
        "accuracy": rate(hits.sum(), total),
        "group_mean_accuracy": about(float(accuracy[known].mean()), 0.021, total),
        "reweighted_accuracy": about(
            float((accuracy[known] * weights[known]).sum() / weights[known].sum()), 0.008, total
        ),
        "worst_group_accuracy": {
            **rate(hits[worst], n[worst]),
            "group": f"{labels[worst[0]]} in {attributes[worst[1]]}",
        },
        "bias_aligned_accuracy": rate(hits[aligned].sum(), n[aligned].sum()) if split else None,
        "bias_conflicting_accuracy": rate(hits[~aligned].sum(), n[~aligned].sum()) if split else None,
        "counterfactual_bias": None if bias is None else about(bias, 0.018, total),
        "alignment_gap": None,
        "demographic_parity_difference": None if parity is None else largest(parity[0], 0.02, total, attributes),
        "equal_opportunity_difference": None if parity is None else largest(parity[1], 0.03, total, attributes),
        "equalised_odds_difference": None if parity is None else largest(parity[2], 0.03, total, attributes),
        "groups": groups,
        "confusion_by_group": confusion.tolist(),
    }


def rounds(count, start=(0.52, 0.46, 0.995), end=(0.83, 0.15, 0.955)):
    out, bias = [], start[1]
    for i in range(1, count + 1):
        part = 1 - np.exp(-i / 2.5)
        now = [s + (e - s) * part for s, e in zip(start, end, strict=True)]
        out.append(
            {
                "round": i,
                "u": [4, 2, 2, 1, 1][min(i - 1, 4)] / (1 + (i > 7)),
                "t": 0.03 * i,
                "predicted_change": 1.4 * (now[1] - bias),
                "achieved_change": now[1] - bias,
                "accept_accuracy": now[0],
                "accept_bias": now[1],
                "aligned_accuracy": now[2],
                "residual": 3e-7,
                "smallest_pivot": None,
                "gradient_norm": 0.5,
            }
        )
        bias = now[1]
    return out


def common(**more):
    return {
        "seed": 0,
        "device": "cpu: 2 cores",
        "versions": VERSIONS,
        "baselines": {},
        "edit": None,
        "after": None,
        "harmful": [],
        "findings": [],
        **more,
    }
