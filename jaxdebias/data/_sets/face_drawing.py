"""Generated faces: an expression drawn on an identity, from a few dozen random numbers each, in NumPy.

Everything is a region with a signed distance, painted over what lies behind it with the share of a pixel that it
covers. Distances are in face units: the head is about 1 from its middle to the chin.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdebias.contracts import expect

EXPRESSIONS = ("happy", "sad", "surprised", "angry")
BLOCK = 64
"""Pictures drawn at a time: their planes then fit into a processor's cache."""

Numbers = Float[np.ndarray, " n"]
Colours = Float[np.ndarray, "n 3"]
Planes = Float[np.ndarray, "n h w"]


class Looks(NamedTuple):
    """Who is in the picture and how it was taken: nothing here depends on the expression. Colours are in [0, 1]."""

    x: Numbers
    """Where the head is, in halves of the picture."""
    y: Numbers
    size: Numbers
    """Halves of the picture per face unit."""
    tilt: Numbers
    """Radians."""
    turn: Numbers
    """Of the head to the side, -1..1."""
    width: Numbers
    jaw: Numbers
    tone: Numbers
    """Of the skin, 0 light to 1 dark."""
    tint: Colours
    """Added to the skin."""
    hair: Colours
    volume: Numbers
    """Of the hair around the head; below 0: bald."""
    length: Numbers
    """Where the hair ends, from the middle of the head downwards."""
    hairline: Numbers
    parting: Numbers
    beard: Numbers
    """How dense, 0..1."""
    eyes: Numbers
    """Half their distance."""
    eye_size: Numbers
    gaze: Numbers
    iris: Colours
    brow: Numbers
    """Thickness."""
    nose: Numbers
    """Its lower end."""
    mouth: Numbers
    """Its height."""
    lips: Numbers
    """Thickness."""
    lip_colour: Colours
    glasses: Bool[np.ndarray, " n"]
    frame: Colours
    angular: Numbers
    """Shape of the glasses, 2 round to 6 square."""
    lens: Numbers
    """How dark the lenses are."""
    level: Numbers
    """Brightness of the light."""
    slope: Numbers
    """How much brighter one side is."""
    from_side: Numbers
    """Direction of the light, radians."""
    ground: Float[np.ndarray, "n 2 3"]
    """Two colours of the background."""
    fall: Numbers
    """Direction in which one becomes the other."""
    waves: Numbers
    """Waves of the background per picture."""
    board: Float[np.ndarray, "n 4"]
    """A board behind the head: its middle and its half sizes."""
    clothes: Colours


class Muscles(NamedTuple):
    """What an expression does to a face."""

    curve: Numbers
    """How far the corners of the mouth go up."""
    opening: Numbers
    stretch: Numbers
    """Half the width of the mouth."""
    lift: Numbers
    """Of the brows."""
    slant: Numbers
    """Of the brows: above 0 the inner ends are up."""
    wide: Numbers
    """Opening of the eyes, 1 at rest."""
    teeth: Numbers


# curve, opening, stretch, lift, slant, wide of each expression at full strength, and of a face at rest.
_AT_REST = np.array([0.0, 0.0, 0.33, 0.0, 0.0, 1.0], np.float32)
_AT_FULL = np.array(
    [
        [0.30, 0.10, 0.46, 0.01, 0.00, 0.75],
        [-0.25, 0.00, 0.34, 0.03, 0.12, 0.75],
        [0.00, 0.24, 0.23, 0.13, 0.00, 1.40],
        [-0.11, 0.00, 0.37, -0.06, -0.13, 0.80],
    ],
    np.float32,
)
_SPREAD = np.array([0.02, 0.008, 0.02, 0.02, 0.015, 0.06], np.float32)


def draw_looks(rng: np.random.Generator, n: int, *, glasses: float = 0.25) -> Looks:
    """n identities; the share `glasses` of them wears some."""

    def uniform(low: float | int, high: float | int, *shape: int) -> np.ndarray:
        return rng.uniform(low, high, (n, *shape)).astype(np.float32)

    tone = uniform(0, 1)
    # Dark skin rarely comes with fair hair; a few heads are grey, fewer dyed.
    dark = np.clip(uniform(0, 1) + 0.7 * tone, 0, 1)[:, None]
    hair = (1 - dark) * np.array([0.78, 0.56, 0.28], np.float32) + dark * np.array([0.11, 0.07, 0.05], np.float32)
    hair = np.where(uniform(0, 1, 1) < 0.12, uniform(0.5, 0.85, 1), hair)
    hair = np.where(uniform(0, 1, 1) < 0.05, uniform(0.1, 0.9, 3), hair)
    volume = np.where(uniform(0, 1) < 0.12, np.float32(-1), uniform(0.04, 0.26))
    length = np.where(uniform(0, 1) < 0.45, uniform(0.5, 1.5), uniform(-0.35, 0.2))
    sunny = uniform(0, 1) < 0.15
    return Looks(
        x=uniform(-0.1, 0.1),
        y=uniform(-0.08, 0.08),
        size=uniform(0.7, 0.88),
        tilt=uniform(-0.16, 0.16),
        turn=uniform(-1, 1),
        width=uniform(0.64, 0.82),
        jaw=uniform(0.08, 0.36),
        tone=tone,
        tint=uniform(-0.03, 0.03, 3),
        hair=hair,
        volume=volume,
        length=length,
        hairline=uniform(-0.68, -0.42),
        parting=uniform(-0.25, 0.25),
        beard=np.where(uniform(0, 1) < 0.2, uniform(0.2, 0.75), np.float32(0)),
        eyes=uniform(0.29, 0.36),
        eye_size=uniform(0.115, 0.155),
        gaze=uniform(-0.05, 0.05),
        iris=uniform(0, 1, 1) * np.array([0.1, 0.25, 0.4], np.float32) + uniform(0.03, 0.2, 1),
        brow=uniform(0.03, 0.06),
        nose=uniform(0.2, 0.3),
        mouth=uniform(0.48, 0.56),
        lips=uniform(0.04, 0.075),
        lip_colour=np.array([0.5, 0.12, 0.14], np.float32) + uniform(-0.1, 0.2, 3),
        glasses=rng.random(n) < glasses,
        frame=uniform(0.02, 0.35, 1) + uniform(0, 0.25, 3),
        angular=uniform(2, 6),
        lens=np.where(sunny, uniform(0.35, 0.6), uniform(0, 0.12)),
        level=uniform(0.85, 1.1),
        slope=uniform(0, 0.25),
        from_side=uniform(-np.pi, np.pi),
        ground=uniform(0.2, 0.5, 1, 1) + uniform(-0.12, 0.12, 2, 3),
        fall=uniform(-np.pi, np.pi),
        waves=uniform(0, 3),
        board=np.concatenate([uniform(-1, 1, 2), uniform(0.15, 0.7, 2)], axis=1),
        clothes=uniform(0.1, 0.8, 1) + uniform(-0.2, 0.2, 3),
    )


def draw_muscles(rng: np.random.Generator, label: Int[np.ndarray, " n"]) -> Muscles:
    """Expressions of the given kinds (indices into `EXPRESSIONS`), each of its own strength."""
    n = len(label)
    strength = rng.uniform(0.6, 1.15, (n, 1)).astype(np.float32)
    pull = strength * (_AT_FULL[label] - _AT_REST)
    open_mouth = rng.random(n) < np.array([0.6, 0.0, 1.0, 0.3])[label]
    bared = (label == EXPRESSIONS.index("angry")) & open_mouth
    pull[:, 1] = np.where(open_mouth, pull[:, 1] + 0.07 * bared, 0.0)
    values = _AT_REST + pull + _SPREAD * rng.standard_normal((n, 6), dtype=np.float32)
    values[:, 1] = np.maximum(values[:, 1], 0.0)
    shown = np.where(label == EXPRESSIONS.index("surprised"), rng.random(n) < 0.3, open_mouth)
    return Muscles(*values.T, teeth=shown.astype(np.float32))


def draw_faces(looks: Looks, muscles: Muscles, size: int) -> Float[np.ndarray, "n h w 3"]:
    """The pictures, float32 in [0, 1], `[n size size 3]`. Equal numbers give equal pictures; nothing is random here."""
    expect(size >= 16, "image_size", "at least 16", size)
    n = len(looks.x)
    images = np.empty((n, size, size, 3), np.float32)
    for start in range(0, n, BLOCK):
        rows = slice(start, start + BLOCK)
        of_looks = Looks(*(field[rows].astype(np.float32) for field in looks))
        images[rows] = _draw(of_looks, Muscles(*(field[rows].astype(np.float32) for field in muscles)), size)
    return images


_SKIN = np.array([[0.98, 0.83, 0.73], [0.85, 0.64, 0.47], [0.58, 0.38, 0.25], [0.27, 0.17, 0.12]], np.float32)


def skin_colour(tone: Numbers) -> Colours:
    """From light, 0, to dark, 1, through four colours."""
    place = np.clip(tone, 0, 1) * (len(_SKIN) - 1)
    first = np.minimum(place.astype(int), len(_SKIN) - 2)
    return _SKIN[first] + (place - first)[:, None].astype(np.float32) * (_SKIN[first + 1] - _SKIN[first])


class _Canvas:
    """Pictures that are being painted, as one plane `[n h w]` per colour, and the sharpness of an edge on them."""

    def __init__(self, planes: list[Planes], sharp: np.ndarray):
        self.planes, self.sharp = planes, sharp

    def cover(self, distance: Planes) -> Planes:
        """Share of each pixel that lies inside (distance below 0)."""
        return np.clip(0.5 - self.sharp * distance, 0, 1)

    def paint(self, cover: Planes, colour: Float[np.ndarray, "_ 3"]) -> None:
        """Over what is there; a colour per picture, or one for all `[1 3]`."""
        for plane, value in zip(self.planes, colour.T[:, :, None, None], strict=True):
            plane += cover * (value - plane)


def _draw(looks: Looks, muscles: Muscles, size: int) -> np.ndarray:
    line = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    x, y = line[None, None, :], line[None, :, None]
    like = Looks(*(field[:, None, None] if field.ndim == 1 else field for field in looks))  # to meet pixels
    move = Muscles(*(field[:, None, None] for field in muscles))
    a, b = (x - like.x) / like.size, (y - like.y) / like.size
    cos, sin = np.cos(like.tilt), np.sin(like.tilt)
    u, v = cos * a + sin * b, cos * b - sin * a
    canvas = _Canvas(_background(like, x, y), like.size * (size / 2))
    skin = np.clip(skin_colour(looks.tone) + looks.tint, 0, 1)

    # Back to front: hair behind, shoulders, neck, ears, head.
    inside = like.width + like.volume
    cap = _ellipse(u, v + 0.08, inside, 0.95 + like.volume)
    curtain = np.maximum(np.abs(u) - inside, np.maximum(-v - 0.1, v - like.length))
    behind = np.where(like.length > 0.3, np.minimum(cap, curtain), np.maximum(cap, v - like.length))
    has_hair = like.volume > 0
    canvas.paint(has_hair * canvas.cover(behind), 0.8 * looks.hair)
    canvas.paint(canvas.cover(_ellipse(u, v - 1.85, 1.3, 0.78)), looks.clothes)
    neck = np.maximum(np.abs(u) - 0.55 * like.width, np.maximum(0.3 - v, v - 1.18))
    canvas.paint(canvas.cover(neck), 0.8 * skin)
    canvas.paint(canvas.cover(_ellipse(np.abs(u) - like.width, v - 0.05, 0.1, 0.19)), 0.88 * skin)
    ahead = np.clip(v, 0, 1)
    outline = _ellipse(u, v, like.width * (1 - like.jaw * ahead * ahead), 0.95)
    head = canvas.cover(outline)
    canvas.paint(head, skin)

    # A turned head shows its features nearer to one side, the nose most.
    near, nose_u = u - 0.12 * like.turn, u - 0.2 * like.turn
    side = np.abs(near)
    cheeks = np.exp(-((side - 0.38) ** 2 + (v - 0.28) ** 2) / 0.03)
    canvas.paint(head * cheeks * np.clip(0.18 + 0.6 * move.curve, 0, 0.3), 0.6 * skin + 0.4 * looks.lip_colour)
    lower = canvas.cover(like.nose + 0.1 + 0.05 * np.cos(5 * near) - v - 0.5 * np.maximum(side - 0.35, 0))
    canvas.paint(like.beard * head * lower, 0.85 * looks.hair + 0.1 * skin)
    _mouth(canvas, looks, like, move, near, v, skin)
    _nose(canvas, like, nose_u, v, skin)
    _eyes(canvas, looks, like, move, near, side, v, skin)
    line_of_hair = like.hairline + like.parting * u + 0.6 * (u / like.width) ** 4
    canvas.paint(has_hair * canvas.cover(np.maximum(np.minimum(outline, behind), v - line_of_hair)), looks.hair)
    _glasses(canvas, looks, like, near, side, v)

    # Light falls on everything; the edge of the head turns away from it.
    across = np.clip(np.cos(like.from_side) * u + np.sin(like.from_side) * v, -1.3, 1.3)
    round_off = 1 - 0.22 * head * np.clip((u / like.width) ** 2 + (v / 0.95) ** 2, 0, 1)
    light = like.level * (1 + like.slope * across) * round_off
    return np.clip(np.stack([plane * light for plane in canvas.planes], axis=-1), 0, 1)


def _background(like: Looks, x: np.ndarray, y: np.ndarray) -> list[Planes]:
    along = np.cos(like.fall) * x + np.sin(like.fall) * y
    mix = np.clip(0.5 + 0.4 * along + 0.35 * np.sin(np.pi * like.waves * along), 0, 1)
    middle_x, middle_y, half_x, half_y = (like.board[:, i, None, None] for i in range(4))
    board = (np.abs(x - middle_x) < half_x) & (np.abs(y - middle_y) < half_y)
    mix = np.where(board, 1 - mix, mix)
    first, second = like.ground[:, 0].T[:, :, None, None], like.ground[:, 1].T[:, :, None, None]
    return [one + mix * (other - one) for one, other in zip(first, second, strict=True)]


def _mouth(
    canvas: _Canvas, looks: Looks, like: Looks, move: Muscles, near: Planes, v: Planes, skin: np.ndarray
) -> None:
    t = near / move.stretch
    bow = 1 - np.minimum(t * t, 1)  # 1 in the middle, 0 at the corners
    middle = like.mouth + move.curve * (0.5 - t * t)
    upper, lower = middle - 0.35 * move.opening * bow, middle + 0.9 * move.opening * bow
    ends = (np.abs(t) - 1) * move.stretch

    def between(top: Planes, bottom: Planes) -> Planes:
        return canvas.cover(np.maximum(np.maximum(top - v, v - bottom), ends))

    full = like.lips * (0.35 + 0.65 * np.sqrt(bow))
    canvas.paint(0.9 * between(upper - 0.8 * full, lower + full), 0.45 * skin + 0.5 * looks.lip_colour)
    canvas.paint(between(upper - 0.03, lower + 0.03), np.array([[0.16, 0.04, 0.05]], np.float32))
    teeth = move.teeth * (move.opening > 0.03)
    canvas.paint(
        0.95 * teeth * between(upper + 0.01, upper + 0.6 * (lower - upper)), np.array([[0.95, 0.94, 0.9]], np.float32)
    )


def _nose(canvas: _Canvas, like: Looks, u: Planes, v: Planes, skin: np.ndarray) -> None:
    ridge = np.maximum(np.abs(u - 0.045 - 0.05 * like.turn) - 0.025, np.maximum(-0.1 - v, v - like.nose))
    canvas.paint(0.35 * canvas.cover(ridge), 0.6 * skin)
    wings = _ellipse(np.abs(u) - 0.075, v - like.nose, 0.05, 0.032)
    canvas.paint(0.55 * canvas.cover(wings), 0.45 * skin)


def _eyes(
    canvas: _Canvas, looks: Looks, like: Looks, move: Muscles, near: Planes, side: Planes, v: Planes, skin: np.ndarray
) -> None:
    level = v + 0.1
    high = like.eye_size * 0.6 * move.wide
    white = canvas.cover(_ellipse(side - like.eyes, level, like.eye_size, high))
    canvas.paint(
        0.5 * canvas.cover(_ellipse(side - like.eyes, level + 0.25 * high, 1.2 * like.eye_size, 1.25 * high)),
        0.6 * skin,
    )
    canvas.paint(white, np.array([[0.93, 0.93, 0.92]], np.float32))
    from_pupil = np.hypot(np.abs(near - like.gaze) - like.eyes, level)
    canvas.paint(white * canvas.cover(from_pupil - 0.075), looks.iris)
    canvas.paint(white * canvas.cover(from_pupil - 0.035), np.array([[0.02, 0.02, 0.02]], np.float32))
    place = (side - like.eyes) / 0.18
    arch = -0.27 - move.lift + move.slant * place + 0.04 * place * place
    brow = np.maximum(np.abs(v - arch) - like.brow, (np.abs(place) - 1) * 0.18)
    canvas.paint(0.9 * canvas.cover(brow), 0.6 * looks.hair + 0.08 * skin)


def _glasses(canvas: _Canvas, looks: Looks, like: Looks, near: Planes, side: Planes, v: Planes) -> None:
    level = v + 0.08
    p = like.angular
    shape = (np.abs((side - like.eyes) / 0.23) ** p + np.abs(level / 0.18) ** p) ** (1 / p)
    rim = np.abs((shape - 1) * 0.18) - 0.022
    bridge = np.maximum(np.abs(level + 0.04) - 0.018, side - like.eyes + 0.22)
    arms = np.maximum(np.abs(level + 0.06) - 0.018, np.maximum(like.eyes + 0.22 - side, side - like.width - 0.03))
    glass = canvas.cover((shape - 1) * 0.18)
    canvas.paint(like.glasses * like.lens * glass, np.array([[0.05, 0.06, 0.08]], np.float32))
    canvas.paint(like.glasses * canvas.cover(np.minimum(rim, np.minimum(bridge, arms))), looks.frame)


def _ellipse(u: Planes, v: Planes, across: np.ndarray | float, down: np.ndarray | float) -> Planes:
    """About the distance from an ellipse around (0, 0), negative inside; exact on its edge's four tips."""
    return (np.sqrt((u / across) ** 2 + (v / down) ** 2) - 1) * np.minimum(across, down)
