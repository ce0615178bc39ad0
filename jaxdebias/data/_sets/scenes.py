"""Generated images with known truth: where the object is, what the bias is, and the same image with the bias changed.

Two kinds. `scenes`: an object on a background, after Waterbirds; class and background kind are correlated. `glyphs`:
two letters side by side, the left one is the class and the right one the bias. Both are drawn with NumPy in a second
or two.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jaxdebias.contracts import check_choice, check_dataset, expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._aligned import biased_attribute, other_attribute
from jaxdebias.data.streams import named_rng

Pixels = Float[np.ndarray, "n h w"]
Images = Float[np.ndarray, "n h w 3"]
Rendering = tuple[UInt8[np.ndarray, "n h w 3"], Int[np.ndarray, "n h w"]]  # images and their region labels

REGIONS = {
    "scenes": {"object": (1,), "background": (0,)},
    "glyphs": {"letter of the class": (1,), "letter of the bias": (2,), "background": (0,)},
}
"""Labels of the masks per region, of each kind."""
ATTRIBUTE_REGION = {"scenes": "background", "glyphs": "letter of the bias"}


def scenes(
    *,
    kind: str = "scenes",
    classes: int = 2,
    conflicting: float = 0.05,
    train: int = 4000,
    edit: int = 600,
    accept: int = 400,
    test: int = 1000,
    image_size: int = 32,
    seed: int = 0,
) -> Dataset:
    """Objects on backgrounds (or pairs of glyphs) whose kinds go together in training; the bias is the easier cue.

    Splits, every image an object of its own; `mask` and `twin` are filled in all of them:
      train: per class the share `conflicting` on a random other background kind.
      edit, accept: the background kind is uniformly random.
      test: classes and background kinds in all combinations equally often, up to rounding.
    A twin is the same object, pixel for pixel, on the background of another kind: on the aligned one where x
    conflicts, else on a random other one. Pairs of edit, accept and test: x on the aligned kind, twin on a random
    other one.

    Args:
      kind: `scenes`: several shapes per class, varying in size, position, rotation, shade and hue; background kinds
        differ in texture, in its shape, and in typical colours. mask 1 = object. `glyphs`: mask 1 = left letter, the
        class; mask 2 = right letter, the bias.
      classes: 2 to 6; there are as many background kinds.
      conflicting: share of training images whose background goes with another class, 0..1.
      train: number of images.
      edit: number of images.
      accept: number of images.
      test: number of images.
      image_size: height and width, 16 or more.
      seed: equal seeds, equal bits.

    Raises:
      ContractError: an unknown kind, a number or share out of range.
    """
    check_choice("kind", kind, DRAW)
    expect(classes in range(2, 7), "classes", "2..6", classes)
    expect(image_size >= 16, "image_size", "at least 16", image_size)
    sizes = {"train": train, "edit": edit, "accept": accept, "test": test}
    splits, pairs = {}, {}
    for name, n in sizes.items():
        expect(n >= classes, name, f"at least classes={classes} images", n)
        rng = named_rng(seed, f"{kind} {name}")
        order = rng.permutation(n)
        label = (order % classes).astype(np.int32)
        other = other_attribute(rng, label, classes)
        if name == "train":
            attribute = biased_attribute(rng, label, conflicting, classes)
            other = np.where(attribute == label, other, attribute)
        elif name == "test":
            attribute = (order // classes % classes).astype(np.int32)
            other = np.where(attribute == label, other, attribute)
        else:
            attribute = np.where(rng.random(n) < 1 / classes, label, other).astype(np.int32)
        (x_aligned, mask_aligned), (x_other, mask_other) = DRAW[kind](rng, label, other, classes, image_size)
        is_aligned = (attribute == label)[:, None, None]
        splits[name] = Batch(
            x=np.where(is_aligned[..., None], x_aligned, x_other),
            label=label,
            attribute=attribute,
            mask=np.where(is_aligned, mask_aligned, mask_other),
            twin=np.where(is_aligned[..., None], x_other, x_aligned),
        )
        if name != "train":
            pairs[name] = Batch(
                x=x_aligned,
                label=label,
                attribute=label,
                mask=mask_aligned,
                twin=x_other,
                twin_attribute=other.astype(np.int32),
            )

    dataset = Dataset(
        name=kind,
        variant={"classes": classes, "conflicting": conflicting, "image_size": image_size, **sizes},
        splits=splits,
        pairs=pairs,
        label_names=tuple(names(SHAPES, classes) if kind == "scenes" else LEFT_LETTERS[:classes]),
        attribute_names=tuple(names(TEXTURES, classes) if kind == "scenes" else RIGHT_LETTERS[:classes]),
        aligned=np.eye(classes, dtype=bool),
        regions=REGIONS[kind],
        attribute_region=ATTRIBUTE_REGION[kind],
    )
    check_dataset(dataset)
    return dataset


def names(kinds: dict[str, Callable], classes: int) -> list[str]:
    """Kind i belongs to class i mod classes; a class is named after its kinds.

    >>> names(SHAPES, 2)
    ['disc/ring/crescent', 'square/cross/star']
    """
    return ["/".join(list(kinds)[c::classes]) for c in range(classes)]


def draw_scenes(
    rng: np.random.Generator, label: Int[np.ndarray, "n"], other: Int[np.ndarray, "n"], classes: int, size: int
) -> tuple[Rendering, Rendering]:
    """The same objects on the background of their class, and on that of `other`."""
    n = len(label)
    shape = _kind_of_class(rng, label, len(SHAPES), classes)
    mask, edge = _objects(rng, shape, size)
    # Light or dark objects: backgrounds keep to the middle. Light falls from a random side.
    light = rng.random(n) < 0.5
    shade = np.where(light, rng.uniform(0.9, 1.0, n), rng.uniform(0.03, 0.15, n))
    colour = np.clip(shade[:, None] + rng.uniform(-0.1, 0.1, (n, 3)), 0, 1).astype(np.float32)
    x, y = _grid(size)
    side = rng.uniform(0, 2 * np.pi, n).astype(np.float32)[:, None, None]
    slope = 1.0 + 0.2 * (np.cos(side) * x + np.sin(side) * y)
    paint = np.clip(colour[:, None, None, :] * (slope * edge)[..., None], 0, 1)

    def on(attribute: np.ndarray) -> Rendering:
        ground = _grounds(rng, _kind_of_class(rng, attribute, len(TEXTURES), classes), size)
        return _to_uint8(np.where(mask[..., None], paint, ground)), mask.astype(np.int32)

    return on(label), on(other)


def draw_glyphs(
    rng: np.random.Generator, label: Int[np.ndarray, "n"], other: Int[np.ndarray, "n"], classes: int, size: int
) -> tuple[Rendering, Rendering]:
    """The same left letters beside the right letter of their class, and beside that of `other`.

    The left letter is faint, turned, and varies in size; the right one is bright and nearly upright.
    """
    del classes  # one letter each
    n = len(label)
    ground = rng.uniform(0.05, 0.2, (n, 1, 1, 3)).astype(np.float32)
    ground = ground + 0.1 * rng.standard_normal((n, size, size, 1), dtype=np.float32)
    left = _letters(rng, LEFT_LETTERS, label, size, centre=-0.5, turn=0.9, scale=(0.3, 0.35))
    ink_left = rng.uniform(0.32, 0.52, (n, 1, 1, 3)).astype(np.float32)
    ink_right = rng.uniform(0.75, 1.0, (n, 1, 1, 3)).astype(np.float32)
    place = rng.bit_generator.state

    def beside(attribute: np.ndarray) -> Rendering:
        rng.bit_generator.state = place  # both right letters stand in the same place
        right = _letters(rng, RIGHT_LETTERS, attribute, size, centre=0.5, turn=0.1, scale=(0.42, 0.48))
        image = np.where(right[..., None], ink_right, np.where(left[..., None], ink_left, ground))
        return _to_uint8(image), np.where(right, 2, left).astype(np.int32)

    return beside(label), beside(other)


DRAW = {"scenes": draw_scenes, "glyphs": draw_glyphs}


# Shapes: level functions of coordinates (u, v) in units of the object's radius, negative inside. Round ones and
# angular ones take turns, so that with two classes one is round and the other angular.


def _disc(u: Pixels, v: Pixels) -> Pixels:
    return np.hypot(u, 1.25 * v) - 0.9


def _square(u: Pixels, v: Pixels) -> Pixels:
    return np.maximum(np.abs(u), np.abs(v)) - 0.75


def _ring(u: Pixels, v: Pixels) -> Pixels:
    return np.abs(np.hypot(u, v) - 0.7) - 0.25


def _cross(u: Pixels, v: Pixels) -> Pixels:
    a, b = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(a - 0.3, b - 1.0), np.maximum(a - 1.0, b - 0.3))


def _crescent(u: Pixels, v: Pixels) -> Pixels:
    return np.maximum(np.hypot(u, v) - 1.0, 0.75 - np.hypot(u - 0.55, v))


def _star(u: Pixels, v: Pixels) -> Pixels:
    return np.hypot(u, v) - (0.68 + 0.38 * np.cos(5 * np.arctan2(v, u)))


SHAPES: dict[str, Callable[[Pixels, Pixels], Pixels]] = {
    "disc": _disc,
    "square": _square,
    "ring": _ring,
    "cross": _cross,
    "crescent": _crescent,
    "star": _star,
}


def _objects(
    rng: np.random.Generator, shape: Int[np.ndarray, "n"], size: int
) -> tuple[Bool[np.ndarray, "n h w"], Float[np.ndarray, "n h w"]]:
    """Masks of the objects, and a factor on their paint that darkens their outline."""
    n = len(shape)
    x, y = _grid(size)
    radius = rng.uniform(0.34, 0.56, n).astype(np.float32)[:, None, None]
    turn = rng.uniform(0, 2 * np.pi, n).astype(np.float32)[:, None, None]
    room = 0.95 - radius
    dx, dy = rng.uniform(-1, 1, (2, n, 1, 1)).astype(np.float32) * room
    a, b = (x - dx) / radius, (y - dy) / radius
    u, v = np.cos(turn) * a + np.sin(turn) * b, np.cos(turn) * b - np.sin(turn) * a
    level = np.empty(u.shape, np.float32)
    for kind, outline in enumerate(SHAPES.values()):
        rows = shape == kind
        level[rows] = outline(u[rows], v[rows])
    depth = -level * radius * (size / 2)  # about how many pixels inside
    return level < 0, 0.8 + 0.2 * np.clip(depth, 0, 1)


# Textures: value in [0, 1] at pixel coordinates (x, y), mixing a kind's two colours; `size` sets the scale.


def _waves(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    n = len(x)
    sway = _column(rng, n, 1.2, 2.2) * np.sin(2 * np.pi * x / _column(rng, n, 9, 14) + _column(rng, n, 0, 6.3))
    return 0.5 + 0.5 * np.sin(2 * np.pi * (y + sway) / _column(rng, n, 4.5, 6.5) + _column(rng, n, 0, 6.3))


def _bricks(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    n = len(x)
    high, wide = _column(rng, n, 4.5, 6), _column(rng, n, 8, 11)
    row = (y + _column(rng, n, 0, 30)) / high
    along = (x + _column(rng, n, 0, 30)) / wide + 0.5 * (np.floor(row) % 2)
    mortar = (row % 1 < 1.1 / high) | (along % 1 < 1.1 / wide)
    tone = np.sin(12.9898 * np.floor(row) + 78.233 * np.floor(along)) * 43758.5 % 1  # each brick its own
    return np.where(mortar, 1.0, 0.35 * tone).astype(np.float32)


def _stripes(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    n = len(x)
    turn = _column(rng, n, -1.0, 1.0)  # upright, leaning up to 57 degrees
    phase = 2 * np.pi * (np.cos(turn) * x + np.sin(turn) * y) / _column(rng, n, 5, 8) + _column(rng, n, 0, 6.3)
    return _sharp(np.sin(phase), 2.5)


def _checks(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    n = len(x)
    turn, period = _column(rng, n, -0.4, 0.4), _column(rng, n, 8, 12)
    u = (np.cos(turn) * x + np.sin(turn) * y) / period + _column(rng, n, 0, 1)
    v = (np.cos(turn) * y - np.sin(turn) * x) / period + _column(rng, n, 0, 1)
    return _sharp(np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v), 5.0)


def _blobs(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    n, total = len(x), np.zeros_like(x)
    for _ in range(5):  # a smooth random field, cut at zero
        turn, period = _column(rng, n, 0, 6.3), _column(rng, n, 9, 16)
        total += np.sin(2 * np.pi * (np.cos(turn) * x + np.sin(turn) * y) / period + _column(rng, n, 0, 6.3))
    return _sharp(total, 1.5)


def _speckle(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    return (rng.random(x.shape, dtype=np.float32) < 0.22).astype(np.float32)


# Texture -> (how it is drawn, its two typical colours). Lines and grids take turns.
TEXTURES: dict[str, Callable[[np.random.Generator, Pixels, Pixels], Pixels]] = {
    "waves": _waves,
    "bricks": _bricks,
    "blobs": _blobs,
    "checks": _checks,
    "speckle": _speckle,
    "stripes": _stripes,
}
COLOURS = np.array(
    [
        [[0.20, 0.42, 0.66], [0.45, 0.66, 0.76]],  # water
        [[0.62, 0.32, 0.24], [0.70, 0.64, 0.58]],  # brick and mortar
        [[0.26, 0.46, 0.44], [0.36, 0.60, 0.68]],  # foam
        [[0.46, 0.36, 0.26], [0.68, 0.56, 0.36]],  # wood
        [[0.30, 0.38, 0.56], [0.62, 0.66, 0.74]],  # snowfall
        [[0.32, 0.46, 0.22], [0.58, 0.60, 0.30]],  # reeds
    ],
    np.float32,
)


def _grounds(rng: np.random.Generator, kind: Int[np.ndarray, "n"], size: int) -> Images:
    """Backgrounds `[n h w 3]`: the kind's texture between its two colours, jittered per image, with a little grain."""
    n = len(kind)
    x, y = _grid(size)
    value = np.empty((n, size, size), np.float32)
    for number, texture in enumerate(TEXTURES.values()):
        rows = np.flatnonzero(kind == number)
        shape = (len(rows), size, size)
        value[rows] = texture(rng, np.broadcast_to(16 * x, shape), np.broadcast_to(16 * y, shape))
    colour = COLOURS[kind] + rng.uniform(-0.1, 0.1, (n, 1, 3)).astype(np.float32)
    colour += rng.uniform(-0.06, 0.06, (n, 2, 3)).astype(np.float32)
    first, second = colour[:, 0][:, None, None, :], colour[:, 1][:, None, None, :]
    grain = 0.025 * rng.standard_normal((n, size, size, 1), dtype=np.float32)
    return first + value[..., None] * (second - first) + grain


# Letters of 5x7 pixels, one string per letter, rows from the top.
LEFT_LETTERS, RIGHT_LETTERS = "KSAXER", "OTLHZU"
_LETTERS = {
    "K": "10001 10010 10100 11000 10100 10010 10001",
    "S": "01111 10000 10000 01110 00001 00001 11110",
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "X": "10001 10001 01010 00100 01010 10001 10001",
    "E": "11111 10000 10000 11110 10000 10000 11111",
    "R": "11110 10001 10001 11110 10100 10010 10001",
    "O": "01110 10001 10001 10001 10001 10001 01110",
    "T": "11111 00100 00100 00100 00100 00100 00100",
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "H": "10001 10001 10001 11111 10001 10001 10001",
    "Z": "11111 00001 00010 00100 01000 10000 11111",
    "U": "10001 10001 10001 10001 10001 10001 01110",
}


def _letters(
    rng: np.random.Generator,
    alphabet: str,
    kind: Int[np.ndarray, "n"],
    size: int,
    *,
    centre: float,
    turn: float,
    scale: tuple[float, float],
) -> Bool[np.ndarray, "n h w"]:
    """Masks of letters around (centre, 0): half-height within `scale`, turned by up to `turn` radians."""
    n = len(kind)
    x, y = _grid(size)
    half = rng.uniform(*scale, n).astype(np.float32)[:, None, None]
    angle = _column(rng, n, -turn, turn)
    dx, dy = _column(rng, n, -0.06, 0.06), _column(rng, n, -0.3, 0.3)
    a, b = (x - centre - dx) / half, (y - dy) / half
    u, v = np.cos(angle) * a + np.sin(angle) * b, np.cos(angle) * b - np.sin(angle) * a
    column, row = np.floor(3.5 * u + 2.5).astype(int), np.floor(3.5 * v + 3.5).astype(int)
    inside = (column >= 0) & (column < 5) & (row >= 0) & (row < 7)
    bitmap = np.array([[list(row) for row in _LETTERS[letter].split()] for letter in alphabet]) == "1"
    return inside & bitmap[kind[:, None, None], np.clip(row, 0, 6), np.clip(column, 0, 4)]


def _kind_of_class(rng: np.random.Generator, c: Int[np.ndarray, "n"], kinds: int, classes: int) -> np.ndarray:
    """One of the kinds c, c + classes, c + 2 classes ... that belong to class c, uniformly."""
    many = (kinds - c + classes - 1) // classes
    return c + classes * np.floor(rng.random(len(c)) * many).astype(int)


def _grid(size: int) -> tuple[Pixels, Pixels]:
    """Pixel centres [1 h w] of x (to the right) and y (downwards), from -1 to 1 across the image."""
    line = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1)[None]
    return np.repeat(line[:, None, :], size, 1), np.repeat(line[:, :, None], size, 2)


def _column(rng: np.random.Generator, n: int, low: float | int, high: float | int) -> Float[np.ndarray, "n 1 1"]:
    """One uniform number per image, shaped to meet its pixels."""
    return rng.uniform(low, high, (n, 1, 1)).astype(np.float32)


def _sharp(value: Pixels, slope: float) -> Pixels:
    """[-inf, inf] to [0, 1], steep at zero."""
    return np.clip(0.5 + slope * value, 0, 1)


def _to_uint8(image: Images) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
