"""Coloured glyphs, generated: 12x12 letters of four shapes in four colours, the colour going with the shape."""

import numpy as np

from jaxdebias.core import Batch

SHAPES = ("#...##...##...######", "#####...#...#...####", "#..#.##..##.#..##..#", ".##.#..##..##..#.##.")
COLOURS = np.array([[1, 0.2, 0.2], [0.2, 1, 0.2], [0.3, 0.3, 1], [1, 1, 0.2]])


def glyphs(n: int, *, conflicting: float, seed: int = 0) -> Batch:
    """`n` pictures at random places with random strokes left out; a share shows another class's colour."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, n).astype(np.int32)
    other = (label + rng.integers(1, 4, n)) % 4
    attribute = np.where(rng.random(n) < conflicting, other, label).astype(np.int32)
    ink = np.array([[mark == "#" for mark in shape] for shape in SHAPES]).reshape(4, 5, 4)
    x = np.zeros((n, 12, 12, 3), np.float32)
    for i in range(n):
        top, left = rng.integers(0, 5), rng.integers(0, 7)
        strokes = ink[label[i]] * (rng.random((5, 4)) > 0.15)
        x[i, top : top + 5, left : left + 4] = strokes[..., None] * COLOURS[attribute[i]]
    x += rng.normal(scale=0.1, size=x.shape)
    return Batch(x=(255 * np.clip(x, 0, 1)).astype(np.uint8), label=label, attribute=attribute)
