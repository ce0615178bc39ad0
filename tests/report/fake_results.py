"""Made-up results with the shape of real ones: drawn predictions, and every number computed from them."""

import dataclasses
import functools

import numpy as np

from jaxdebias.report import Pictures
from jaxdebias.results.build import plain
from jaxdebias.results.codec import SCHEMA, from_json
from jaxdebias.results.records import METRICS, Change, Difference, Rate, RunResults

COLOURS = ("red", "green", "blue", "yellow", "magenta", "cyan", "orange", "lime", "violet", "grey")
RGB = np.array(
    [
        (230, 40, 40),
        (40, 190, 70),
        (50, 80, 240),
        (240, 220, 40),
        (230, 40, 220),
        (40, 210, 220),
        (250, 140, 30),
        (170, 240, 60),
        (140, 80, 220),
        (170, 170, 170),
    ]
)
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
        whence |= {"date": "2026-01-31T12:00:00Z", "arguments": {}, "data": None}
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
                "seconds": 0.17,
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


@as_record
def digits(*, repaired=True):
    """Ten digits in ten colours, an edit that works, three baselines, pictures."""
    rng = np.random.default_rng(1)
    labels, aligned = [str(i) for i in range(10)], np.eye(10, dtype=bool)
    n = rng.integers(14, 46, (10, 10))
    train = np.where(
        aligned, rng.integers(95, 112, (10, 10)), rng.integers(0, 2, (10, 10)) * rng.integers(0, 2, (10, 10))
    )
    hard = rng.normal(0, 0.16, (10, 10)) + rng.normal(0, 0.12, (10, 1))

    def measured(conflicting, aligned_accuracy, spread, follow, bias):
        p = np.where(aligned, aligned_accuracy, np.clip(conflicting + spread * hard, 0.02, 0.99))
        return measurement(rng, n, p, follow, labels, COLOURS, aligned, train, bias=bias)

    loss = (2.2 * np.exp(-np.arange(30) / 4) + 0.004).tolist()
    out = common(
        dataset="digits",
        variant={"conflicting": 0.02, "size": 16},
        method="fmd" if repaired else "erm",
        model="mlp 768-100-100-100-10",
        attribute="colour",
        items="digits",
        seconds=74.2,
        seconds_by_step={
            "data": 0.9,
            "train": 41.6,
            "measure": 6.3,
            "influence": 2.2,
            "edit": 1.9,
            "baselines": 19.8,
            "report": 1.5,
        },
        label_names=labels,
        attribute_names=list(COLOURS),
        train_counts=train,
        aligned=aligned.tolist(),
        before=measured(0.475, 0.997, 1.0, 0.86, 0.468),
        harmful=[
            {
                "index": int(i),
                "label": int(y),
                "attribute": int(y if j % 9 else (y + 3) % 10),
                "score": 3.1e-4 / (1 + 0.15 * j),
            }
            for j, (i, y) in enumerate(zip(rng.integers(0, 1100, 50), rng.integers(0, 10, 50), strict=True))
        ],
        training={"epochs": 30, "loss": loss},
    )
    if repaired:
        out |= {
            "after": measured(0.811, 0.958, 0.5, 0.35, 0.162),
            "edit": {
                "accepted": True,
                "reason": "Held-out accuracy rose from 51.8 % to 82.4 %; aligned accuracy stayed above its floor.",
                "parameters_changed": 1010,
                "parameters": 98310,
                "accept_before": {"accuracy": 0.52, "bias": 0.46, "aligned_accuracy": 0.995},
                "rounds": rounds(10),
            },
            "baselines": {
                "DFR": {
                    "measurement": measured(0.806, 0.97, 0.5, 0.4, 0.17),
                    "seconds": 0.52,
                    "needs": "the same 300 digits, with colour labels",
                },
                "fine-tuning": {
                    "measurement": measured(0.86, 0.965, 0.4, 0.2, 0.10),
                    "seconds": 3.9,
                    "needs": "the same 300 digits and the whole model",
                },
                "from scratch": {
                    "measurement": measured(0.905, 0.91, 0.3, 0.1, 0.031),
                    "seconds": 15.4,
                    "needs": "only the 300 digits, recoloured each epoch",
                },
            },
            "findings": [
                "Training from scratch on the 300 held-out digits is more accurate than the edit. "
                "The edit needs no pixels of the training set."
            ],
        }
    return out


@as_record
def birds():
    """Two labels, two backgrounds; no counterfactual pairs; a method that trains anew."""
    rng = np.random.default_rng(2)
    n = np.array([[2255, 2255], [642, 642]])
    train = np.array([[3498, 184], [56, 1057]])
    aligned = np.eye(2, dtype=bool)
    labels, places = ["landbird", "waterbird"], ["on land", "on water"]

    def measured(p, parity):
        return measurement(rng, n, np.array(p), 1.0, labels, places, aligned, train, parity=parity)

    return common(
        dataset="waterbirds",
        variant={"resolution": 224},
        method="groupdro",
        model="resnet50",
        attribute="background",
        items="birds",
        device="gpu: NVIDIA H200",
        seconds=412.0,
        seconds_by_step={"train": 390.5, "measure": 21.5},
        label_names=labels,
        attribute_names=places,
        train_counts=train.tolist(),
        aligned=aligned.tolist(),
        before=measured([[0.995, 0.79], [0.71, 0.955]], (0.24, 0.22, 0.24)),
        after=measured([[0.93, 0.91], [0.885, 0.92]], (0.05, 0.035, 0.04)),
        training={"epochs": 40, "loss": [0.5, 0.2, 0.08, 0.05, 0.04]},
    )


@as_record
def census():
    """A table: no pictures, no aligned groups, an edit that was rolled back, null metrics."""
    rng = np.random.default_rng(3)
    n = np.array([[3000, 5200], [320, 1480]])
    train = np.array([[9592, 15128], [1179, 6662]])
    columns = {
        "age": "41",
        "education": "Doctorate",
        "hours per week": "60",
        "occupation": "Exec-managerial",
        "relationship": "Wife",
    }
    out = common(
        dataset="adult",
        variant={"protected": "sex"},
        method="fmd",
        model="mlp 104-100-100-100-2",
        attribute="sex",
        items="people",
        seconds=21.4,
        seconds_by_step={"train": 14.2, "measure": 3.9, "edit": 0.6},
        label_names=["≤50K", ">50K"],
        attribute_names=["Female", "Male"],
        train_counts=train,
        aligned=np.zeros((2, 2), bool).tolist(),
        before=measurement(
            rng,
            n,
            np.array([[0.97, 0.90], [0.53, 0.64]]),
            1.0,
            ["≤50K", ">50K"],
            ["Female", "Male"],
            np.zeros((2, 2), bool),
            train,
            bias=0.0507,
            parity=(0.181, 0.084, 0.11),
        ),
        harmful=[{"index": 17 * i, "label": i % 2, "attribute": i % 2, "score": 4e-6 / (1 + i)} for i in range(12)],
        harmful_rows=[{**columns, "age": str(30 + i)} for i in range(12)],
        training={"epochs": 15, "loss": [0.45, float("nan"), 0.31]},
    )
    return out | {
        "after": out["before"],
        "edit": {
            "accepted": False,
            "reason": "no step lowered the bias and kept the accuracy",
            "parameters_changed": 0,
            "parameters": 30802,
            "rounds": rounds(1, (0.85, 0.05, 0.85), (0.82, 0.06, 0.85)),
        },
    }


@as_record
def fair():
    """A model without a bias to speak of, tiny groups, an empty one, everything nullable null."""
    rng = np.random.default_rng(4)
    n, train = np.array([[40, 25], [0, 38], [33, 31]]), np.array([[200, 190], [0, 205], [197, 201]])
    labels, rooms, aligned = (
        ["cat", "dog", "small rodent"],
        ["indoors", "outdoors"],
        np.array([[1, 0], [0, 1], [1, 0]], bool),
    )
    out = common(
        dataset="folder",
        variant={},
        method="erm",
        model="cnn",
        seconds=8.0,
        seconds_by_step={},
        label_names=labels,
        attribute_names=rooms,
        train_counts=train,
        aligned=aligned.tolist(),
        before=measurement(rng, n, np.full((3, 2), 0.9), 0.3, labels, rooms, aligned, train),
        training={"epochs": 3, "loss": []},
    )
    out["before"] |= {"group_mean_accuracy": None, "reweighted_accuracy": None}
    return out


@as_record
def faces():
    """Matched pairs: different people of one label. An edit that works, helpful samples beside the harmful ones."""
    rng = np.random.default_rng(5)
    n, train, aligned = np.full((2, 2), 100), np.array([[2900, 59], [40, 1960]]), np.eye(2, dtype=bool)
    labels, ages = ["male", "female"], ["20 or older", "12 or younger"]

    def measured(p, gap, parity):
        return measurement(rng, n, np.array(p), 1.0, labels, ages, aligned, train, bias=gap, parity=parity)

    def ranked(sign, agrees):
        return [
            {
                "index": 31 * i,
                "label": i % 2,
                "attribute": i % 2 if agrees else 1 - i % 2,
                "score": sign * 2.4e-3 / (1 + 0.2 * i),
            }
            for i in range(12)
        ]

    return common(
        dataset="utkface",
        variant={"attribute": "age", "conflicting": 0.02},
        pairing="matched",
        method="fmd",
        model="cnn",
        attribute="age",
        items="faces",
        seconds=31.0,
        seconds_by_step={"train": 25.0, "edit": 2.0},
        label_names=labels,
        attribute_names=ages,
        train_counts=train,
        aligned=aligned.tolist(),
        before=measured([[0.97, 0.05], [0.56, 0.97]], 0.605, (0.66, 0.39, 0.94)),
        after=measured([[0.85, 0.31], [0.70, 0.85]], 0.25, (0.34, 0.04, 0.65)),
        edit={
            "accepted": True,
            "reason": "All 10 rounds were taken.",
            "parameters_changed": 130,
            "parameters": 203970,
            "rounds": rounds(10),
        },
        harmful=ranked(1, True),
        helpful=ranked(-1, False),
        training={"epochs": 12, "loss": [0.6, 0.2, 0.08]},
    )


FAKES = {"digits": digits, "digits_erm": lambda: digits(repaired=False), "birds": birds, "census": census, "fair": fair,
         "faces": faces}  # fmt: skip


def digit_pictures(results, *, side=16):
    """Real handwritten digits, coloured, for the digits result."""
    from sklearn.datasets import load_digits

    data = load_digits()
    rng = np.random.default_rng(5)

    def draw(label, colour):
        grey = data.images[rng.choice(np.flatnonzero(data.target == label))] / 16.0
        grey = np.kron(grey, np.ones((side // 8, side // 8)))
        return (grey[:, :, None] * RGB[colour]).astype(np.uint8)

    harmful = np.stack([draw(h.label, h.attribute) for h in results.harmful[:20]])
    pairs = []
    for label in range(8):
        grey = draw(label, 9).astype(int)[:, :, :1] / 170
        pairs.append(np.stack([(grey * RGB[c]).clip(0, 255).astype(np.uint8) for c in (label, (label + 4) % 10)]))
    after = results.after is not None
    return Pictures(
        worst=np.stack([draw(3, 7) for _ in range(12)]),
        worst_label=np.full(12, 3),
        worst_before=np.where(np.arange(12) % 6 == 5, 3, 7),
        worst_after=np.where(np.arange(12) % 3, 3, 5) if after else None,
        harmful=harmful,
        pairs=np.stack(pairs),
        pairs_label=np.arange(8),
        pairs_before=np.stack([np.linspace(0.999, 0.97, 8), np.linspace(0.01, 0.6, 8)], 1),
        pairs_after=np.stack([np.linspace(0.95, 0.88, 8), np.linspace(0.7, 0.86, 8)], 1) if after else None,
        train=np.stack([draw(y, y if rng.random() > 0.06 else int(rng.integers(10))) for y in rng.integers(0, 10, 40)]),
    )


def bird_pictures(results):
    """Photograph-sized images: a blob on blue or green noise."""
    del results
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:224, :224]

    def draw(water):
        base = np.array((60, 110, 170) if water else (70, 130, 60))
        image = base + 25 * rng.normal(size=(224, 224, 1)) * np.ones(3) + (y / 6)[:, :, None]
        blob = ((x - rng.uniform(80, 140)) / 50) ** 2 + ((y - rng.uniform(90, 140)) / 28) ** 2 < 1
        image[blob] = np.array((120, 90, 60)) + 12 * rng.normal(size=(blob.sum(), 1))
        return image.clip(0, 255).astype(np.uint8)

    return Pictures(
        worst=np.stack([draw(False) for _ in range(8)]),
        worst_label=np.ones(8, int),
        worst_before=np.arange(8) % 2,
        train=np.stack([draw(i % 2 == 0) for i in range(12)]),
    )


def face_pictures(results):
    """Grey squares, lighter for the second age."""

    def draw(sample):
        return np.full((16, 16, 3), 90 + 60 * sample.attribute + sample.index % 30, np.uint8)

    both = np.stack([np.full((16, 16, 3), grey, np.uint8) for grey in (90, 150)])
    return Pictures(
        harmful=np.stack([draw(sample) for sample in results.harmful]),
        helpful=np.stack([draw(sample) for sample in results.helpful]),
        pairs=np.stack([both] * 4),
        pairs_label=np.array([0, 0, 1, 1]),
        pairs_before=np.array([[0.99, 0.02], [0.97, 0.04], [0.95, 0.4], [0.99, 0.3]]),
        pairs_after=np.array([[0.9, 0.5], [0.8, 0.4], [0.85, 0.7], [0.9, 0.6]]),
    )


PICTURES = {"digits": digit_pictures, "digits_erm": digit_pictures, "birds": bird_pictures, "faces": face_pictures}


def fake(name):
    """(results, pictures or None) of one of `FAKES`."""
    results = FAKES[name]()
    return results, PICTURES[name](results) if name in PICTURES else None
