"""Charts as inline SVG and HTML, and pictures as base64 PNG: strings for one self-contained page.

Lengths are percentages of whatever width there is, and text stays outside the SVG, so that it has the same size on a
phone as on a desk. Colours are CSS variables of the page, which knows about dark, light and print.
"""

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array
from jaxdebias.report.formats import Estimate, applies, interval, percent
from jaxdebias.results.records import Interval


def bar(rate: Estimate | None, tone: str, *, full: float = 1.0, mark: float | None = None) -> str:
    """A horizontal bar from 0 to the rate's value on a track of length `full`, with its interval as a whisker.

    `mark`: a level to compare it with, as a line across the track.

    >>> bar(None, "before")
    '<svg class="bar" aria-hidden="true"><rect class="track" width="100%" height="100%"/></svg>'
    """
    parts = ['<rect class="track" width="100%" height="100%"/>']
    if applies(rate):
        scale = 100.0 / full
        parts.append(f'<rect class="{tone}" width="{_at(rate.value, scale)}" height="100%"/>')
        if rate.low is not None and rate.high is not None:
            low, high = _at(rate.low, scale), _at(rate.high, scale)
            parts.append(f'<line class="whisker" x1="{low}" x2="{high}" y1="50%" y2="50%"/>')
            parts += [f'<line class="whisker" x1="{x}" x2="{x}" y1="25%" y2="75%"/>' for x in (low, high)]
        if mark is not None:
            at = _at(mark, scale)
            parts.append(f'<line class="mark" x1="{at}" x2="{at}" y1="0" y2="100%"/>')
    return f'<svg class="bar" aria-hidden="true">{"".join(parts)}</svg>'


def length(value: float | int, tone: str, *, full: float) -> str:
    """A bar of a number without an interval."""
    return bar(Interval(value=float(value), low=None, high=None, n=None), tone, full=full)


def _at(value: float | int, scale: float) -> str:
    return f"{min(max(value * scale, 0.0), 100.0):.2f}%"


def heat(share: float | int | None, tone: str) -> str:
    """Inline style and class of a table cell that is coloured by a share in 0..1.

    >>> heat(0.8, "hot")
    'class="cell mid" style="--share:80%;--tone:var(--hot)"'
    """
    if share is None:
        return 'class="cell empty"'
    # Which text is legible depends on light or dark: `mid` turns it in the dark, `on` in both.
    weight = " on" if share > 0.8 else " mid" if share > 0.6 else ""
    return f'class="cell{weight}" style="--share:{100 * share:.0f}%;--tone:var(--{tone})"'


class Series(NamedTuple):
    """One line of a chart: its name, tone, and a value in 0..1 (or None) at each step."""

    name: str
    tone: str
    values: Sequence[float | int | None]


def lines(series: Sequence[Series], steps: Sequence[int | str], *, step_name: str = "") -> str:
    """A line chart of shares over steps with the name of each line at its end; the axis runs from 0 to 100 %."""
    count = len(steps)

    def x_of(i: int) -> float:
        return 100.0 * i / (count - 1) if count > 1 else 50.0

    drawn, ends = [], []
    for one in series:
        spots = [(x_of(i), 100 * (1 - v)) for i, v in enumerate(one.values) if v is not None]
        if not spots:
            continue
        path = " ".join(f"{'L' if i else 'M'}{x:.2f} {y:.2f}" for i, (x, y) in enumerate(spots))
        # Zero-length strokes with round caps are dots that do not stretch with the chart.
        dots = " ".join(f"M{x:.2f} {y:.2f}h0.001" for x, y in spots)
        drawn.append(f'<path class="line {one.tone}" d="{path}"/><path class="dots {one.tone}" d="{dots}"/>')
        last = next(v for v in reversed(one.values) if v is not None)
        ends.append((spots[-1][1], one, last))
    grid = "".join(f'<path class="grid" d="M0 {y}H100"/>' for y in (0, 25, 50, 75, 100))
    ticks = "".join(f'<span style="top:{100 - v}%">{v} %</span>' for v in (0, 25, 50, 75, 100))
    labels = "".join(
        f'<span class="{one.tone}" style="top:{top:.1f}%">{escape(one.name)} <b>{100 * last:.0f} %</b></span>'
        for top, (_, one, last) in zip(_spread([e[0] for e in ends], 9.0), ends, strict=True)
    )
    every = max(1, -(-count // 10))
    marks = "".join(f'<span style="left:{x_of(i):.2f}%">{escape(str(step))}</span>'
                    for i, step in enumerate(steps) if i % every == 0 or i == count - 1)  # fmt: skip
    return (
        f'<div class="chart"><div class="ticks">{ticks}</div><div class="plot"><svg viewBox="0 0 100 100" '
        f'preserveAspectRatio="none" aria-hidden="true">{grid}{"".join(drawn)}</svg>'
        f'<div class="marks">{marks}</div></div><div class="ends">{labels}</div>'
        f'<div class="axis">{escape(step_name)}</div></div>'
    )


def _spread(tops: Sequence[float], least: float) -> list[float]:
    """Moves positions in 0..100 apart until neighbours are `least` apart: up where there is room, then down.

    >>> _spread([50.0, 52.0, 98.0, 99.0], 10.0)
    [50.0, 60.0, 90.0, 100.0]
    """
    out = list(tops)
    order = sorted(range(len(out)), key=lambda i: tops[i])
    for i, j in itertools.pairwise(order):
        out[j] = max(out[j], out[i] + least)
    ceiling = 100.0
    for i in reversed(order):
        out[i] = min(out[i], ceiling)
        ceiling = out[i] - least
    return out


def spark(values: Sequence[float | int | None]) -> str:
    """A small line without axes, from the first value to the last."""
    known = [v for v in values if v is not None]
    if len(known) < 2:
        return ""
    low, span = min(known), (max(known) - min(known)) or 1.0
    path = " ".join(f"{'L' if i else 'M'}{100 * i / (len(known) - 1):.1f} {100 - 100 * (v - low) / span:.1f}"
                    for i, v in enumerate(known))  # fmt: skip
    return (f'<svg class="spark" viewBox="0 -5 100 110" preserveAspectRatio="none" aria-hidden="true">'
            f'<path class="line ink" d="{path}"/></svg>')  # fmt: skip


def picture(image: Array, alt: str, *, longest: int = 128) -> str:
    """An `<img>` of one image `[h w c]` with 1 or 3 channels, uint8 or float in [0, 1]; large ones are made smaller.

    Raises:
      ContractError: for another shape or dtype.
    """
    from PIL import Image

    image = np.asarray(image)
    is_float = np.issubdtype(image.dtype, np.floating)
    good = image.ndim == 3 and image.shape[2] in (1, 3) and (is_float or image.dtype == np.uint8)
    expect(good, "pictures", "images [h w c] with 1 or 3 channels, uint8 or float in [0, 1]", describe(image))
    if is_float:
        image = np.rint(255.0 * np.clip(image, 0.0, 1.0)).astype(np.uint8)
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    small = max(picture.size) <= 64
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    kind = ' class="pixels"' if small else ""
    return f'<img{kind} src="data:image/png;base64,{data}" alt="{escape(alt)}">'


# Evenly spaced colours of viridis: dark to light also in grey, and for every common colour vision.
_VIRIDIS = np.array(
    [
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ],
    float,
)


def _coloured(values: Array) -> np.ndarray:
    """Values in 0..1 -> `[... 3]` in 0..255."""
    at = np.clip(np.asarray(values, float), 0.0, 1.0) * (len(_VIRIDIS) - 1)
    return np.stack([np.interp(at, np.arange(len(_VIRIDIS)), channel) for channel in _VIRIDIS.T], axis=-1)


def heat_map(values: Array, alt: str) -> str:
    """An `<img>` of a map `[h w]` in 0..1, a square per cell."""
    values = np.asarray(values)
    expect(values.ndim == 2, "map", "a map [h w]", describe(values))
    return picture(np.rint(_coloured(values)).astype(np.uint8), alt)


def heat_legend(marks: Mapping[float, str]) -> str:
    """The colours of `heat_map` as a strip, with words at some of its values."""
    stops = ",".join(f"rgb({','.join(f'{c:.0f}' for c in colour)})" for colour in _VIRIDIS)
    words = "".join(f'<span style="left:{100 * at:.0f}%">{escape(text)}</span>' for at, text in marks.items())
    return f'<div class="scale"><div style="background:linear-gradient(90deg,{stops})"></div>{words}</div>'


def overlay(image: Array, values: Array, alt: str, *, longest: int = 128) -> str:
    """An `<img>` of one image `[h w c]` in grey, under a map `[u v]` in 0..1 that is enlarged without edges."""
    from PIL import Image

    image, values = np.asarray(image), np.asarray(values, np.float32)
    expect(values.ndim == 2, "map", "a map [h w]", describe(values))
    pixels = np.asarray(image, float) * (1.0 if image.dtype == np.uint8 else 255.0)
    grey = np.repeat(pixels.mean(axis=-1, keepdims=True), 3, axis=-1).clip(0, 255).astype(np.uint8)
    # At a size at which a coarse map is smooth, whatever the image's own.
    size = tuple(max(1, round(side * longest / max(grey.shape[:2]))) for side in (grey.shape[1], grey.shape[0]))
    ground = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC), float)
    smooth = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    return picture(np.rint(0.45 * ground + 0.55 * _coloured(smooth)).astype(np.uint8), alt, longest=longest)


def shifted_pictures(rows: Mapping[str, Array], rates: Mapping[str, Estimate]) -> str:
    """Rows of pictures, one column per example, and rates with their intervals beside them.

    For what `explain.shift_images` returns: the original, its reconstruction, and the reconstruction with the bias
    code moved to another class, beside the rates of its `outcomes`.

    Args:
      rows: name of a row -> images `[m h w c]`, as many in each row.
      rates: what is counted -> its rate with an interval.

    Raises:
      ContractError: rows of different lengths, or a picture of another shape or dtype.
    """
    columns = {len(images) for images in rows.values()}
    expect(len(columns) == 1 and columns != {0}, "rows", "as many pictures in each row", sorted(columns))
    (count,) = columns
    cells = "".join(
        f'<span class="row-name">{escape(name)}</span>'
        + "".join(picture(image, f"{name}, example {i}") for i, image in enumerate(images, 1))
        for name, images in rows.items()
    )
    counted = "".join(
        f'<div class="rate"><span>{escape(name)} <b>{percent(rate.value)}</b> '
        f"<small>{interval(rate)}, n {rate.n:,}</small></span>{bar(rate, 'after')}</div>"  # pyright: ignore[reportAttributeAccessIssue]
        for name, rate in rates.items()
    )
    # `minmax(0, ...)` lets pictures shrink on a phone instead of pushing the page wide.
    return (
        '<div class="shifted" style="display:flex;flex-wrap:wrap;gap:1.5rem;align-items:center">'
        '<div class="strip shifted-rows" style="display:grid;gap:.35rem .5rem;align-items:center;'
        f'grid-template-columns:auto repeat({count},minmax(0,4.5rem))">{cells}</div>'
        f'<div class="shifted-rates" style="flex:1;min-width:14rem;display:grid;gap:.8rem">{counted}</div></div>'
    )
