"""Made-up results with the shape of real ones: drawn predictions, and every number computed from them."""

import numpy as np
from report.fake_parts import as_record, common, measurement, rounds

from jaxdebias.report import Pictures

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
                    "needs": "the same 300 digits, with colour labels",
                },
                "fine-tuning": {
                    "measurement": measured(0.86, 0.965, 0.4, 0.2, 0.10),
                    "needs": "the same 300 digits and the whole model",
                },
                "from scratch": {
                    "measurement": measured(0.905, 0.91, 0.3, 0.1, 0.031),
                    "needs": "only the 300 digits, recoloured each epoch",
                },
            },
            "seconds_by_part": {f"round {i}": 0.17 for i in range(1, 11)}
            | {"DFR": 0.52, "fine-tuning": 3.9, "from scratch": 15.4},
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
