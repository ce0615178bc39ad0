"""Pictures and their masks from files, cut and resized alike, so that a mask stays on its picture."""

import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from jaxdebias.contracts import ContractError, describe, expect
from jaxdebias.data.decode import as_rgb

CENTRE = 224 / 256
"""The share of each side that the usual "resize to 256, cut out the middle 224" keeps."""


def read_pictures(
    files: Sequence[pathlib.Path], image_size: int, *, crop: float = CENTRE, name: Callable[[int], str]
) -> UInt8[np.ndarray, "n h w 3"]:
    """Pictures as RGB: the middle of each, resized to `[image_size image_size]` without keeping its aspect.

    Args:
      files: one per picture.
      image_size: height and width of the result (bilinear, antialiased).
      crop: share of each side that is kept; 1: the whole picture.
      name: number -> what an error calls that picture.

    Raises:
      ContractError: a picture that is missing or cannot be read; the first one is named.
    """
    _check(image_size, crop)
    pictures = np.empty((len(files), image_size, image_size, 3), np.uint8)

    def one(i: int) -> None:
        def resized(image: Any) -> np.ndarray:
            image.draft("RGB", (round(2 * image_size / crop),) * 2)  # lets JPEG decode at a smaller scale
            return _resized(as_rgb(image), image_size, crop, smooth=True)

        pictures[i] = _opened(files[i], name(i), resized)

    in_threads(one, len(files))
    return pictures


def read_mask(
    file: pathlib.Path, image_size: int, *, crop: float = CENTRE, above: int, name: str
) -> Bool[np.ndarray, "h w"]:
    """Where a grey picture is brighter than `above`, on the cut of `read_pictures`; each pixel is that at its centre.

    Raises:
      ContractError: a file that is missing or cannot be read.
    """
    _check(image_size, crop)
    return _opened(file, name, lambda image: _resized(image.convert("L"), image_size, crop, smooth=False)) > above


def in_threads(one: Callable[[int], None], count: int) -> None:
    """Calls `one` with 0..count-1; the exception of the lowest number is the one raised."""
    with ThreadPoolExecutor() as pool:  # pillow decodes outside the interpreter's lock
        for _ in pool.map(one, range(count)):
            pass


def _check(image_size: int, crop: float) -> None:
    expect(image_size >= 1, "image_size", "at least 1 pixel", image_size)
    expect(0 < crop <= 1, "crop", "a share above 0 and at most 1", crop)


def _resized(image: Any, size: int, crop: float, *, smooth: bool) -> np.ndarray:
    from PIL import Image

    (width, height), margin = image.size, (1 - crop) / 2
    box = (margin * width, margin * height, (1 - margin) * width, (1 - margin) * height)
    how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.asarray(image.resize((size, size), how, box=box))


def _opened(file: pathlib.Path, name: str, read: Callable[[Any], np.ndarray]) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return read(image)
    except FileNotFoundError as error:
        raise ContractError(f"`{name}`: expected an image file, got none") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ContractError(f"`{name}`: expected a readable image, got {describe(file.name)}: {error}") from error
