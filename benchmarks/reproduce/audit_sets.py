"""Generated data sets in which it is known what a shortcut is: what `audit_networks.py` audits.

Every set has six candidate attributes, of which at most one can be a shortcut:

    the planted one   seen in the picture; goes with the label in training as strongly as asked, or not at all
    scanner           goes with the label in training, always for 95 %, and cannot be seen
    paper             cannot be seen either; it is the planted attribute's value for 90 % of the samples
    blur              seen; makes a picture harder, and has nothing to do with the label
    frame             seen, a light line at an edge; has nothing to do with the label
    batch             four values without a meaning

In held-out samples no attribute has to do with the label: within each, all values are equally frequent, as far as the
numbers go. (So sets of a family have equal shapes, and little is compiled twice.) No attribute is the data set's own,
and there are no counterfactual pairs: an audit gets columns, as a user would give them. The pairs here are kept back,
for an oracle that asks the network itself.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxdebias import data, models
from jaxdebias.core import Batch, Classifier, Dataset, take
from jaxdebias.data._aligned import biased_attribute, other_attribute
from jaxdebias.data._colour import COLOUR_NAMES, PALETTE
from jaxdebias.data._sets.digits import gray_digits
from jaxdebias.data.streams import named_rng

Pictures = Float[np.ndarray, "n h w 3"]
Numbers = Int[np.ndarray, " n"]

SCANNER, PAPER = 0.05, 0.10
"""Share of training samples whose scanner is another label's; share of samples whose paper is another value's,
rounded in each cell of label and value."""
RENDERINGS = 3
"""Of each test digit, with attributes drawn anew; intervals resample digits. Letters and scenes have one each."""
SPLITS = ("train", "edit", "accept", "test")
SIZES = {"digits": (70, 35, 35, 34), "scenes": (2500, 480, 600, 810)}
"""Of each split: written digits of each of the ten, which are all that there are; scenes."""


class Family(NamedTuple):
    """One way of planting a shortcut."""

    planted: str
    """Name of the attribute."""
    values: tuple[str, ...]
    """Of the attribute; value y goes with label y."""
    classes: int
    network: Classifier
    steps: int
    """Of training, 64 samples each, Adam at 1e-3."""
    draw: Callable[[np.random.Generator, Pictures, Numbers], Pictures] | None
    """`(rng, grey digits, value) -> pictures`; None: `data.scenes` of the family's name draws."""


class Made(NamedTuple):
    """A data set and what is known of it."""

    dataset: Dataset
    """Without attribute and pairs."""
    candidates: Mapping[str, Mapping[str, np.ndarray]]
    """Name -> split -> `[n]` names, as `jaxdebias.audit` takes them."""
    pairs: Batch
    """Test samples, and as twins the same with nothing but the planted attribute changed: aligned, conflicting."""


def _ink(rng: np.random.Generator, gray: Pictures, value: Numbers) -> Pictures:
    """Digits in the colour of their value; the background stays dark."""
    colour = np.clip(PALETTE[value] + 0.02 * rng.standard_normal((len(value), 3)), 0, 1)
    return gray * colour[:, None, None, :]


def _mark(rng: np.random.Generator, gray: Pictures, value: Numbers) -> Pictures:
    """A square of 3 x 3 pixels in the upper left corner or the upper right one."""
    strength = rng.uniform(0.6, 1.0, len(value))
    x = np.repeat(0.8 * gray, 3, axis=3)
    for corner, columns in enumerate((slice(0, 3), slice(13, 16))):
        x[value == corner, :3, columns] = strength[value == corner, None, None, None]
    return x


def _ground(rng: np.random.Generator, gray: Pictures, value: Numbers) -> Pictures:
    """A background that is a little bluish, or a little reddish."""
    tint = np.where(value[:, None] == 1, [0.30, 0.12, 0.10], [0.10, 0.12, 0.30])
    tint = np.clip(tint + 0.03 * rng.standard_normal(tint.shape), 0, 1)[:, None, None, :]
    return np.maximum(0.8 * gray, tint)


def _bright(rng: np.random.Generator, gray: Pictures, value: Numbers) -> Pictures:
    """Faint ink or full ink."""
    ink = np.where(value == 1, 1.0, 0.55) + 0.05 * rng.standard_normal(len(value))
    return np.repeat(np.clip(gray * ink[:, None, None, None], 0, 1), 3, axis=3)


_ON_DIGITS = {"classes": 2, "network": models.mlp(hidden=(100, 100), classes=2), "steps": 400}
FAMILIES = {
    "colour": Family("ink", COLOUR_NAMES, 10, models.mlp(hidden=(100, 100), classes=10), 500, _ink),
    "mark": Family("mark", ("left", "right"), draw=_mark, **_ON_DIGITS),
    "ground": Family("ground", ("bluish", "reddish"), draw=_ground, **_ON_DIGITS),
    "brightness": Family("ink", ("faint", "full"), draw=_bright, **_ON_DIGITS),
    "scenes": Family(
        "place", ("waves", "bricks"), 2, models.cnn(channels=(16, 32, 32), dense=32, classes=2), 800, None
    ),
    "glyphs": Family("letter", ("O", "T", "L"), 3, models.cnn(channels=(16, 32, 32), dense=32, classes=3), 600, None),
}
"""Digits: ten classes with ten colours of ink; even or odd with the others. The networks and steps were chosen on
other seeds, by accuracy without a shortcut alone."""


def make(family: str, conflicting: float | None, seed: int, *, sizes: tuple[int, int, int, int] | None = None) -> Made:
    """A data set with known truth.

    Args:
      family: a key of `FAMILIES`.
      conflicting: share of training samples whose planted attribute is another label's; None: the attribute is drawn
        without regard to the label.
      seed: equal seeds, equal bits.
      sizes: of the splits, train, edit, accept, test; None: as in `SIZES`.
    """
    of = FAMILIES[family]
    sizes = sizes or SIZES["digits" if of.draw else "scenes"]
    if conflicting is None:
        n = sizes[0] * (10 if of.draw else 1)
        conflicting = float(named_rng(seed, f"audit {family} none").binomial(n, 1 - 1 / of.classes) / n)
    render = _digits if of.draw else _scenes
    splits, columns, pairs = {}, {}, None
    for name, (batch, aligned, conflict) in render(family, conflicting, seed, sizes).items():
        rng = named_rng(seed, f"audit {family} {name}")
        n, k = len(batch.label), of.classes
        draw = _any if name == "train" else _balanced
        scanner = biased_attribute(rng, batch.label, SCANNER, k) if name == "train" else _balanced(rng, batch.label, k)
        paper = _mostly(rng, batch.label, batch.attribute, k)
        hard, line, lot = (draw(rng, batch.label, values) for values in (3, 2, 4))
        grain = rng.standard_normal(batch.x.shape, dtype=np.float32)
        columns[name] = {
            of.planted: np.array(of.values)[batch.attribute],
            "scanner": _named("scanner", scanner),
            "paper": _named("paper", paper),
            "blur": np.array(["none", "some", "much"])[hard],
            "frame": np.array(["no", "yes"])[line],
            "batch": _named("batch", lot),
        }
        splits[name] = batch._replace(x=_finished(batch.x, hard, line, grain), attribute=np.full(n, -1, np.int32))
        if name == "test":
            x, twin = (_finished(view, hard, line, grain) for view in (aligned, conflict))
            pairs = splits[name]._replace(x=x, twin=twin)
    dataset = Dataset(
        name=f"{family}, generated",
        variant={"conflicting": conflicting, "sizes": list(sizes)},
        splits=splits,
        pairs={},
        label_names=tuple(map(str, range(of.classes))),
        attribute_names=of.values,
        pairing="none",
        aligned=np.eye(of.classes, dtype=bool),
    )
    candidates = {name: {split: columns[split][name] for split in SPLITS} for name in columns["test"]}
    return Made(dataset, candidates, pairs)


def pictures_only(conflicting: float | None, seed: int) -> Dataset:
    """Digits without any attribute: coloured ones (`data.digits`), or, for None, grey ones with grain."""
    made = data.digits(conflicting=0.9 if conflicting is None else conflicting, seed=seed)
    splits = {}
    for name in SPLITS:
        batch, rng = made.splits[name], named_rng(seed, f"audit pictures {name}")
        if name == "test":  # three of the ten colours of each digit
            rows = [rng.permutation(10)[:RENDERINGS] + 10 * i for i in range(len(batch.label) // 10)]
            batch = take(batch._replace(mask=None, twin=None), np.concatenate(rows))
        x = batch.x
        if conflicting is None:
            gray = x.max(axis=3, keepdims=True) / np.maximum(x.max(axis=(1, 2, 3), keepdims=True), 1)
            x = _uint8(np.repeat(gray, 3, axis=3) + 0.05 * rng.standard_normal(x.shape, dtype=np.float32))
        splits[name] = Batch(x=x, label=batch.label, attribute=np.full(len(x), -1, np.int32), unit=batch.unit)
    return Dataset(
        name="digits, pictures only",
        variant={"conflicting": conflicting},
        splits=splits,
        pairs={},
        label_names=made.label_names,
        attribute_names=("unknown",),
        pairing="none",
        aligned=np.zeros((10, 1), bool),
    )


def _digits(
    family: str, conflicting: float, seed: int, sizes: tuple[int, int, int, int]
) -> dict[str, tuple[Batch, Pictures, Pictures]]:
    """Split -> (samples, their aligned rendering, a conflicting one), pixels 0 to 1."""
    of = FAMILIES[family]
    gray, digit = gray_digits()
    rng, found = named_rng(seed, f"audit {family} split"), {}
    cuts = [np.split(rng.permutation(np.flatnonzero(digit == d)), np.cumsum(sizes))[:4] for d in range(10)]
    for number, name in enumerate(SPLITS):
        rng, unit = named_rng(seed, f"audit {family} draw {name}"), None
        rows = rng.permutation(np.concatenate([cut[number] for cut in cuts]))
        if name == "test":
            unit = np.repeat(np.arange(len(rows), dtype=np.int32), RENDERINGS)
            rows = np.repeat(rows, RENDERINGS)
        label = (digit[rows] if of.classes == 10 else digit[rows] % 2).astype(np.int32)
        value = (
            biased_attribute(rng, label, conflicting, of.classes)
            if name == "train"
            else _balanced(rng, label, of.classes)
        )
        other = np.where(value == label, other_attribute(rng, label, of.classes), value)
        # The three renderings draw the same numbers, so that they differ in the attribute alone.
        state, views = rng.bit_generator.state, []
        for shown in (value, label, other):
            rng.bit_generator.state = state
            views.append(of.draw(rng, gray[rows, :, :, None].astype(np.float32) / 255, shown))
        found[name] = Batch(x=views[0], label=label, attribute=value, unit=unit), views[1], views[2]
    return found


def _scenes(
    family: str, conflicting: float, seed: int, sizes: tuple[int, int, int, int]
) -> dict[str, tuple[Batch, Pictures, Pictures]]:
    k = FAMILIES[family].classes
    made = data.scenes(
        kind=family,
        classes=k,
        conflicting=conflicting,
        seed=seed,
        train=sizes[0],
        edit=2 * sizes[1],
        accept=2 * sizes[2],
        test=sizes[3],
    )
    found = {}
    for name, size in zip(SPLITS, sizes, strict=True):
        batch = made.splits[name]
        views = made.pairs.get(name, batch)
        if name in ("edit", "accept"):  # there values are drawn at random: as many of each cell as of the others
            cells = batch.label * k + batch.attribute
            rows = np.sort(np.concatenate([np.flatnonzero(cells == cell)[: size // k**2] for cell in range(k**2)]))
            batch, views = take(batch, rows), take(views, rows)
        x, aligned, conflict = (pixels.astype(np.float32) / 255 for pixels in (batch.x, views.x, views.twin))
        found[name] = Batch(x=x, label=batch.label, attribute=batch.attribute), aligned, conflict
    return found


def _any(rng: np.random.Generator, label: Numbers, values: int) -> Numbers:
    return rng.integers(0, values, len(label)).astype(np.int32)


def _balanced(rng: np.random.Generator, label: Numbers, values: int) -> Numbers:
    """Within each label all values equally often, up to one."""
    out = np.empty(len(label), np.int32)
    for y in np.unique(label):
        rows = rng.permutation(np.flatnonzero(label == y))
        out[rows] = np.arange(len(rows)) % values
    return out


def _mostly(rng: np.random.Generator, label: Numbers, value: Numbers, values: int) -> Numbers:
    """The value, but for the share `PAPER` of each label's samples of each value, which get another."""
    out = value.copy()
    for cell in np.unique(label * values + value):
        rows = rng.permutation(np.flatnonzero(label * values + value == cell))
        rows = rows[: round(PAPER * len(rows))]
        out[rows] = (value[rows] + 1 + np.arange(len(rows)) % (values - 1)) % values
    return out.astype(np.int32)


def _finished(x: Pictures, hard: Numbers, line: Numbers, grain: Pictures) -> np.ndarray:
    """Blurred as much as `hard` says, with a line at the right edge where `line` is 1, and with grain; uint8."""
    x = x.copy()
    for level in (1, 2):
        rows = hard >= level
        padded = np.pad(x[rows], ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        h, w = x.shape[1:3]
        x[rows] = sum(padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)) / 9
    x[line == 1, 4:, -1] = 0.7
    return _uint8(x + 0.05 * grain)


def _uint8(x: Pictures) -> np.ndarray:
    return (np.clip(x, 0, 1) * 255).round().astype(np.uint8)


def _named(name: str, value: Numbers) -> np.ndarray:
    return np.array([f"{name} {v}" for v in value])
