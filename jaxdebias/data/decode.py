"""Encoded pictures to square uint8 arrays of one size, for data sets that keep them in memory."""

import io
import pathlib
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from jaxdebias.contracts import ContractError, expect
from jaxdebias.files import one_line

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MAX_PIXELS = 50_000_000
"""Pixels of a picture that is decoded, unless the caller allows more."""
MAX_BYTES = 2**31
"""Bytes of a set of decoded pictures that is kept in memory, unless the caller allows more."""
ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""


def decode_all(
    count: int,
    size: int,
    source: Callable[[int], bytes | pathlib.Path],
    name: Callable[[int], str],
    *,
    max_pixels: int = MAX_PIXELS,
) -> UInt8[np.ndarray, "n h w 3"]:
    """`count` pictures as RGB, cut to their central square and resized (bilinear, antialiased) to `[size size]`.

    Args:
      count: how many.
      size: height and width of the result; `3 * size**2` bytes per picture.
      source: number -> the encoded bytes, or the file that holds them.
      name: number -> what an error calls that picture.
      max_pixels: a larger picture is refused before it is decoded.

    Raises:
      ContractError: a picture that is missing or cannot be read; the first one is named.
    """
    expect(size >= 1, "image_size", "at least 1 pixel", size)
    images = np.empty((count, size, size, 3), np.uint8)

    def decode(i: int) -> None:
        images[i] = _decode(source(i), size, name(i), max_pixels)

    with ThreadPoolExecutor() as pool:  # pillow decodes outside the interpreter's lock
        for _ in pool.map(decode, range(count)):  # in order, so the first bad picture is the one reported
            pass
    return images


def _decode(encoded: bytes | pathlib.Path, size: int, name: str, max_pixels: int) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            check_pixels(image, max_pixels, name)
            upright = as_rgb(image)
            width, height = upright.size
            side = min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            square = (left, top, left + side, top + side)
            return np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR, box=square))
    except FileNotFoundError as error:
        raise ContractError(f"`{name}`: expected an image file, got none") from error
    except ContractError:
        raise
    except (OSError, SyntaxError, ValueError, MemoryError, Image.DecompressionBombError) as error:
        raise ContractError(f"`{name}`: expected a readable image, got {one_line(error)[:200]}") from error


def check_pixels(image: "Picture", most: int, name: str) -> None:
    """Refuses a picture by the size that its header states, before its pixels are unpacked.

    Args:
      image: an open picture.
      most: pixels.
      name: what an error calls it.
    """
    width, height = image.size
    got = f"{width} x {height} (--max-pixels {width * height} allows it)"
    expect(width * height <= most, name, f"a picture of at most {most:,} pixels", got)


def check_memory(count: int, size: int, most: int) -> None:
    """Refuses a set of pictures whose pixels, resized, would not fit in `most` bytes."""
    needed = 3 * count * size**2
    got = f"{count:,} of {size} x {size}, {needed:,} bytes (--image-size, or --max-bytes {needed} allows it)"
    expect(needed <= most, "data_dir", f"pictures of at most {most:,} bytes in memory", got)


def as_rgb(image: "Picture") -> "Picture":
    """A picture as viewers show it: upright, 8 bits, RGB.

    Orientation is that of the EXIF tag, if there is one that can be read. 16-bit grey is divided by 257, so that its
    range is kept. Transparent pixels are shown on white. Palettes, grey and CMYK are converted.

    Args:
      image: an open picture.

    Raises:
      ValueError: 32-bit pixels, integer or float, whose range is not known.

    >>> from PIL import Image
    >>> as_rgb(Image.new("I;16", (1, 1), 65535)).getpixel((0, 0)), as_rgb(Image.new("LA", (1, 1))).getpixel((0, 0))
    ((255, 255, 255), (255, 255, 255))
    """
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image) if _orientation(image) in range(2, 9) else image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # older Pillow reads the latter
        return Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"32-bit pixels (mode {image.mode}), whose range is not known: save it with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _orientation(image: "Picture") -> int:
    """The EXIF tag, 1 (upright) where there is none or a damaged one: the picture itself may be sound."""
    try:
        tag = image.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error):
        return 1
    return tag if isinstance(tag, int) else 1
