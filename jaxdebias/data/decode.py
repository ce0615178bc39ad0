"""Encoded pictures to square uint8 arrays of one size, for data sets that keep them in memory."""

import io
import pathlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import UInt8

from jaxdebias.contracts import ContractError, expect


def decode_all(
    count: int, size: int, source: Callable[[int], bytes | pathlib.Path], name: Callable[[int], str]
) -> UInt8[np.ndarray, "n h w 3"]:
    """`count` pictures as RGB, cut to their central square and resized (bilinear, antialiased) to `[size size]`.

    Args:
      count: how many.
      size: height and width of the result; `3 * size**2` bytes per picture.
      source: number -> the encoded bytes, or the file that holds them.
      name: number -> what an error calls that picture.

    Raises:
      ContractError: a picture that is missing or cannot be read; the first one is named.
    """
    expect(size >= 1, "image_size", "at least 1 pixel", size)
    images = np.empty((count, size, size, 3), np.uint8)

    def decode(i: int) -> None:
        images[i] = _decode(source(i), size, name(i))

    with ThreadPoolExecutor() as pool:  # pillow decodes outside the interpreter's lock
        for _ in pool.map(decode, range(count)):  # in order, so the first bad picture is the one reported
            pass
    return images


def _decode(encoded: bytes | pathlib.Path, size: int, name: str) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            width, height = image.size
            side = min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            square = (left, top, left + side, top + side)
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=square))
    except FileNotFoundError as error:
        raise ContractError(f"`{name}`: expected an image file, got none") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ContractError(f"`{name}`: expected a readable image, got {error}") from error
