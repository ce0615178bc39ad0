"""Ten corruptions of 32x32 pictures at the strongest level of CIFAR-10-C, for Corrupted CIFAR-10.

Own NumPy code from the description of the benchmark: no ImageMagick, OpenCV or scikit-image. Constants are those of
level 5 (the published "severity 4", counted from 0). Random draws are NumPy's, so that random corruptions agree with
the published files in distribution, not pixel for pixel. `frost` is a stand-in, see `_frost`.

Inside, pixels are floats in 0..255; results are truncated to integers, as the benchmark does.

Source: Hendrycks and Dietterich 2019 (CIFAR-10-C); LfF, Nam et al. 2020, and SiH, Vandenhirtz et al. 2023 (choice).
"""

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxdebias.contracts import ContractError, check_choice, check_integers, describe, expect
from jaxdebias.core import Array
from jaxdebias.data.streams import named_rng

VERSION = 1
"""Goes up with every change that alters pixels; caches of corrupted pictures are keyed by it."""
SIZE = 32
CHUNK = 500  # pictures at a time: keeps the float intermediates near 50 MB

Draws = Sequence[np.random.Generator]
"""One generator per picture."""
Pixels = Float[np.ndarray, "n 32 32 3"]
Map = Float[np.ndarray, "n 32 32"]


def corrupt(
    images: UInt8[Array, "n h w 3"], corruption: str, *, index: Int[Array, " n"], seed: int = 0
) -> UInt8[np.ndarray, "n 32 32 3"]:
    """Every picture with one corruption.

    Args:
      images: `[n 32 32 3]`; the constants fit no other size.
      corruption: one of `CORRUPTIONS`.
      index: `[n]` a number of at least 0 for each picture. It fixes, with the seed and the corruption, the random
        draws: a picture comes out the same whatever else is in the call.
      seed: at least 0.

    Raises:
      ContractError: another shape, an unknown corruption, negative numbers, or `jpeg` without pillow.

    >>> dark = np.zeros((1, 32, 32, 3), np.uint8)
    >>> corrupt(dark, "brightness", index=np.array([0])).max()
    np.uint8(76)
    """
    check_choice("corruption", corruption, CORRUPTIONS)
    good = images.dtype == np.uint8 and images.shape[1:] == (SIZE, SIZE, 3)
    expect(good, "images", f"uint8 [n, {SIZE}, {SIZE}, 3]", describe(images))
    check_integers("index", index, len(images), 0, None)
    out = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        draws = [named_rng(seed, f"{corruption} {int(i)}") for i in index[part]] if corruption in _RANDOM else []
        result = _APPLY[corruption](np.asarray(images[part], np.float64), draws)
        # Truncated; what rounding errors leave short of a whole number still counts as that number.
        out[part] = np.floor(np.clip(result, 0.0, 255.0) + 1e-6)
    return out


def pillow() -> Any:
    """Pillow's `Image`, or the line that says how to get it."""
    try:
        from PIL import Image
    except ImportError as error:
        wanted = "to be installed (pip install 'jaxdebias[data]')"
        raise ContractError(f"`pillow`: expected {wanted}, got {error}") from error
    return Image


def _snow(x: Pixels, draws: Draws) -> Pixels:
    """Sparse flakes smeared downwards by motion, the same turned by 180 degrees, and a whitened picture.

    The motion blur is ImageMagick's: one half of a Gaussian (29 taps, standard deviation 12 pixels) along a line whose
    points are rounded to whole pixels, the border repeated.
    """
    noise = np.stack([rng.normal(0.3, 0.3, (SIZE, SIZE)) for rng in draws])
    angle = np.deg2rad([rng.uniform(-135.0, -45.0) for rng in draws])
    crop = noise[:, 3:29, 3:29]  # enlarged 1.25 times, linear between the outermost points
    enlarge = _linear(np.linspace(0.0, 25.0, SIZE), 26)
    flakes = enlarge @ crop @ enlarge.T
    flakes = np.clip(np.where(flakes < 0.65, 0.0, flakes), 0.0, 1.0)

    tap = np.arange(29)
    weight = np.exp(-(tap**2) / (2 * 12.0**2))
    weight /= weight.sum()
    picture = np.arange(len(x))[:, None]
    layer = np.zeros_like(flakes)
    for t, w in zip(tap, weight, strict=True):
        row = (np.arange(SIZE) + np.ceil(t * np.sin(angle) - 0.5).astype(int)[:, None]).clip(0, SIZE - 1)
        column = (np.arange(SIZE) + np.ceil(t * np.cos(angle) - 0.5).astype(int)[:, None]).clip(0, SIZE - 1)
        layer += w * flakes.ravel()[((picture * SIZE + row) * SIZE)[:, :, None] + column[:, None, :]]

    gray = (x @ np.array([0.299, 0.587, 0.114]))[..., None]
    whitened = 0.8 * x + 0.2 * np.maximum(x, 1.5 * gray + 127.5)
    return whitened + 255.0 * (layer + layer[:, ::-1, ::-1])[..., None]


def _frost(x: Pixels, draws: Draws) -> Pixels:
    """0.75 times the picture and 0.45 times a crop of ice. A STAND-IN: the ice is generated.

    The benchmark crops one of five photographs of frost, which are not distributed here. In their place stand five
    generated textures (needles that branch like ferns on a clouded ground, bluish to white). Weights, size of the crop
    and the choice of one of five are the benchmark's; brightness, colour and shapes of the ice are not. Accuracies
    on this corruption are therefore not comparable with published ones.
    """
    ice = frost_textures()
    crops = np.empty_like(x)
    for i, rng in enumerate(draws):
        top, left = rng.integers(0, np.array(ice.shape[1:3]) - SIZE)
        crops[i] = ice[rng.integers(len(ice)), top : top + SIZE, left : left + SIZE]
    return 0.75 * x + 0.45 * crops


def _fog(x: Pixels, draws: Draws) -> Pixels:
    """A plasma fractal (diamond-square on a torus) of amplitude 1.5, rescaled so that the brightest value stays."""
    haze = 1.5 * 255.0 * plasma(np.stack([rng.uniform(-1.0, 1.0, 1023) for rng in draws]), decay=1.75)
    top = x.max((1, 2, 3), keepdims=True)
    return (x + haze[..., None]) * top / (top + 1.5 * 255.0)


def _brightness(x: Pixels, draws: Draws) -> Pixels:
    """V of HSV raised by 0.3 and clipped: with hue and saturation kept, all channels grow in proportion."""
    del draws
    value = x.max(-1, keepdims=True)
    raised = np.minimum(value + 0.3 * 255.0, 255.0)
    return np.where(value > 0, x * raised / np.maximum(value, 1.0), raised)


def _contrast(x: Pixels, draws: Draws) -> Pixels:
    """0.15 of the distance from each channel's mean."""
    del draws
    mean = x.mean((1, 2), keepdims=True)
    return mean + 0.15 * (x - mean)


def _spatter(x: Pixels, draws: Draws) -> Pixels:
    """Spots of mud where smoothed noise is high; their thin borders are cut off."""
    from scipy import ndimage

    noise = np.stack([rng.normal(0.65, 0.1, (SIZE, SIZE)) for rng in draws])
    liquid = ndimage.gaussian_filter(noise, (0, 0.5, 0.5), mode="nearest")
    mud = ndimage.gaussian_filter((liquid > 0.68).astype(np.float64), (0, 0.6, 0.6), mode="nearest")
    mud = np.where(mud < 0.8, 0.0, mud)[..., None]
    return (1.0 - mud) * x + mud * np.array([63.0, 42.0, 20.0])


def _elastic(x: Pixels, draws: Draws) -> Pixels:
    """A small affine jitter (three points moved by up to 0.96 pixels), then a smooth random displacement field."""
    from scipy import ndimage

    points = np.array([[26.0, 26.0], [26.0, 6.0], [6.0, 6.0]])  # (column, row)
    moved = points + np.stack([rng.uniform(-0.96, 0.96, (3, 2)) for rng in draws])
    field = np.stack([rng.uniform(-1.0, 1.0, (2, SIZE, SIZE)) for rng in draws])
    field = 3.2 * ndimage.gaussian_filter(field, (0, 0, 0.96, 0.96), mode="reflect", truncate=3.0)

    row, column = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    with_one = np.concatenate([moved, np.ones((len(x), 3, 1))], -1)
    back = np.linalg.solve(with_one, np.broadcast_to(points, moved.shape))  # [n 3 2]: where each point came from
    origin = np.stack([column, row, np.ones_like(row)], -1) @ back[:, None]
    x = _bilinear(x, origin[..., 1], origin[..., 0], repeat_edge=False)
    return _bilinear(x, row + field[:, 0], column + field[:, 1], repeat_edge=True)


def _jpeg(x: Pixels, draws: Draws) -> Pixels:
    """Written and read as JPEG at quality 40."""
    del draws
    image = pillow()
    out = np.empty_like(x)
    for i, picture in enumerate(x.astype(np.uint8)):
        buffer = io.BytesIO()
        image.fromarray(picture).save(buffer, "JPEG", quality=40)
        with image.open(buffer) as read:
            out[i] = np.asarray(read)
    return out


def _pixelate(x: Pixels, draws: Draws) -> Pixels:
    """To 20x20 and back with pillow's box filter, which averages the pixels whose centres lie in the box: one or two.

    Columns first, then rows, rounded after each.
    """
    del draws
    first = np.ceil(1.6 * np.arange(21) - 0.5).astype(int)
    count = np.diff(first)
    source = (0.625 * (np.arange(SIZE) + 0.5)).astype(int)
    x = np.floor(np.add.reduceat(x, first[:-1], axis=2) / count[:, None] + 0.5)
    x = np.floor(np.add.reduceat(x, first[:-1], axis=1) / count[:, None, None] + 0.5)
    return x[:, source][:, :, source]


def _saturate(x: Pixels, draws: Draws) -> Pixels:
    """S of HSV times 2.5 plus 0.2, clipped; hue and V kept. Grey has hue 0 by convention, so it turns reddish."""
    del draws
    value, least = x.max(-1, keepdims=True), x.min(-1, keepdims=True)
    span = value - least
    saturation = np.minimum(2.5 * span / np.maximum(value, 1.0) + 0.2, 1.0)
    below = np.where(span > 0, (value - x) / np.maximum(span, 1.0), np.array([0.0, 1.0, 1.0]))
    return value * (1.0 - saturation * below)


_APPLY: Mapping[str, Callable[[Pixels, Draws], Pixels]] = {
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "spatter": _spatter,
    "elastic": _elastic,
    "jpeg": _jpeg,
    "pixelate": _pixelate,
    "saturate": _saturate,
}
_RANDOM = ("snow", "frost", "fog", "spatter", "elastic")

CORRUPTIONS = tuple(_APPLY)
"""In the order of the classes with which Corrupted CIFAR-10 (type 0) aligns them."""


def plasma(uniform: Float[np.ndarray, "n 1023"], *, decay: float) -> Map:
    """Diamond-square fractals on a 32x32 torus, each scaled to 0..1.

    From one corner, every halving of the grid sets the centres of the squares, then the middles of their sides, to
    the mean of the four neighbours plus a draw times the squared amplitude; this starts at 100 and is divided by
    `decay` at each halving.

    Args:
      uniform: `[n 1023]` draws in -1..1, one for each point but the corner.
      decay: factor by which the noise shrinks from scale to scale.
    """
    n = len(uniform)
    out = np.zeros((n, SIZE, SIZE))
    step, amplitude, used = SIZE, 100.0, 0
    while step >= 2:
        half, k = step // 2, SIZE // step
        draws = amplitude**2 * uniform[:, used : used + 3 * k * k].reshape(n, 3, k, k)
        corner = out[:, ::step, ::step].copy()
        right, below = np.roll(corner, -1, 2), np.roll(corner, -1, 1)
        centre = (corner + right + below + np.roll(right, -1, 1)) / 4 + draws[:, 0]
        out[:, half::step, half::step] = centre
        out[:, ::step, half::step] = (corner + right + centre + np.roll(centre, 1, 1)) / 4 + draws[:, 1]
        out[:, half::step, ::step] = (corner + below + centre + np.roll(centre, 1, 2)) / 4 + draws[:, 2]
        step, amplitude, used = half, amplitude / decay, used + 3 * k * k
    out -= out.min((1, 2), keepdims=True)
    return out / out.max((1, 2), keepdims=True)


@functools.lru_cache(maxsize=1)
def frost_textures() -> UInt8[np.ndarray, "5 160 200 3"]:
    """The five generated sheets of ice from which `frost` cuts its crops; the same for every seed."""
    sheets = np.stack([_ice(named_rng(0, f"frost texture {number}"), (160, 200)) for number in range(5)])
    sheets.flags.writeable = False
    return sheets


def _ice(rng: np.random.Generator, shape: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Needles that branch twice at about 60 degrees, bright on a clouded ground, bluish where dark."""
    from scipy import ndimage

    needles = np.zeros(shape)

    def grow(row: float, column: float, angle: float, length: float, level: int) -> None:
        along = np.arange(0.0, length, 0.5)
        bend = angle + rng.normal(0.0, 0.004) * along
        rows, columns = row + np.cumsum(0.5 * np.sin(bend)), column + np.cumsum(0.5 * np.cos(bend))
        at = (np.round(rows).astype(int) % shape[0], np.round(columns).astype(int) % shape[1])
        np.maximum.at(needles, at, 0.75**level * (1.0 - 0.5 * along / length))
        if level < 2:
            for i in range(6, len(along), int(rng.integers(10, 20))):
                for side in (-1.0, 1.0):
                    rest = rng.uniform(0.15, 0.5) * (length - along[i])
                    if rest > 3.0:
                        grow(rows[i], columns[i], bend[i] + side * np.pi / 3, rest, level + 1)

    for _ in range(int(rng.integers(12, 18))):
        grow(rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(0, 2 * np.pi), rng.uniform(50, 110), 0)
    ground = sum(
        _standard(ndimage.gaussian_filter(rng.standard_normal(shape), size, mode="wrap")) * size**0.5
        for size in (1.0, 3.0, 9.0, 20.0)
    )
    sharp, soft = (ndimage.gaussian_filter(needles, size, mode="wrap") for size in (0.5, 3.0))
    light = rng.uniform(0.15, 0.35) + 0.12 * _standard(ground) + 0.7 * sharp + 0.5 * soft
    dark, white = np.array([55.0, 75.0, 100.0]), np.array([240.0, 247.0, 255.0])
    return np.clip(dark + light.clip(0.0, 1.0)[..., None] * (white - dark), 0, 255).astype(np.uint8)


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def _linear(at: Float[np.ndarray, " m"], size: int) -> Float[np.ndarray, "m {size}"]:
    """The matrix that interpolates linearly between `size` points at the places `at`, 0..size-1."""
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(size)))


def _bilinear(x: Pixels, row: Map, column: Map, *, repeat_edge: bool) -> Pixels:
    """Each picture read at real places; beyond the border it is mirrored, with or without repeating the edge."""
    top, left = np.floor(row), np.floor(column)
    down, right = (row - top)[..., None], (column - left)[..., None]
    rows = [_mirror(top.astype(int) + i, repeat_edge) for i in (0, 1)]
    columns = [_mirror(left.astype(int) + i, repeat_edge) for i in (0, 1)]
    picture, flat = np.arange(len(x))[:, None, None], x.reshape(-1, 3)
    (a, b), (c, d) = ([flat[(picture * SIZE + r) * SIZE + q] for q in columns] for r in rows)
    return (1 - down) * ((1 - right) * a + right * b) + down * ((1 - right) * c + right * d)


def _mirror(at: Int[np.ndarray, "n 32 32"], repeat_edge: bool) -> Int[np.ndarray, "n 32 32"]:
    """Places on an endless line folded into 0..31.

    >>> line = np.broadcast_to(np.arange(-2, 30), (1, 32, 32))
    >>> _mirror(line, True)[0, 0, :3].tolist(), _mirror(line, False)[0, 0, :3].tolist()
    ([1, 0, 0], [2, 1, 0])
    """
    period = 2 * SIZE if repeat_edge else 2 * SIZE - 2
    at = at % period
    return np.minimum(at, period - 1 - at) if repeat_edge else np.minimum(at, period - at)
