"""Anything with `__len__` and `__getitem__` that returns dictionaries, as a Batch: TFDS and grain sources, lists."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxdebias.contracts import ContractError, check_batch, describe, expect
from jaxdebias.core import Batch

Field = str | Callable[[Mapping[str, Any]], Any]


def from_source(
    source: Any,
    *,
    image: Field = "image",
    label: Field = "label",
    attribute: Field | None = None,
    image_size: int | None = None,
) -> Batch:
    """All records of a source in memory, in its order.

    Args:
      source: has `len(source)` and `source[i]` -> dictionary, as TFDS data sources, grain sources and lists do.
      image: name of the image's field, or a function of the record. uint8, or float in [0, 1]; grey images `[h w]`
        get one channel.
      label: likewise, integers or booleans. A name may be a path, as in `"attributes/Male"`. Without an
        attribute it is -1, unknown.
      attribute: as `label`.
      image_size: resize every image to this height and width (bilinear); needed where sizes differ. uint8 only.

    Raises:
      ContractError: no source, an empty one, a record without a field, images of different shapes; the record is
      named.

    >>> records = [{"image": np.zeros((4, 4), np.uint8), "label": 1, "place": 0}]
    >>> batch = from_source(records, attribute="place")
    >>> batch.x.shape, batch.label.tolist(), batch.attribute.tolist()
    ((1, 4, 4, 1), [1], [0])
    """
    has = hasattr(source, "__len__") and hasattr(source, "__getitem__") and not isinstance(source, Mapping)
    expect(has, "source", "__len__ and __getitem__ by number", type(source).__name__)
    expect(len(source) > 0, "source", "at least one record", "none")
    x, labels, attributes = None, np.empty(len(source), np.int32), np.full(len(source), -1, np.int32)
    for i in range(len(source)):
        record, where = source[i], f"source[{i}]"
        expect(isinstance(record, Mapping), where, "a dictionary", describe(record))
        pixels = _image(_get(record, image, where), image_size, where)
        if x is None:
            x = np.empty((len(source), *pixels.shape), pixels.dtype)
        same = bool(pixels.shape == x.shape[1:] and pixels.dtype == x.dtype)
        expect(same, where, f"an image like source[0], {x.dtype} {list(x.shape[1:])}, or image_size=", describe(pixels))
        x[i] = pixels
        labels[i] = _integer(_get(record, label, where), where, label)
        if attribute is not None:
            attributes[i] = _integer(_get(record, attribute, where), where, attribute)
    batch = Batch(x=x, label=labels, attribute=attributes)
    check_batch(batch, what="source")
    return batch


def _get(record: Mapping[str, Any], field: Field, where: str) -> Any:
    if callable(field):
        return field(record)
    value: Any = record
    for part in field.split("/"):
        expect(
            isinstance(value, Mapping) and part in value,
            where,
            f"a field {field!r}",
            ", ".join(map(str, value)) if isinstance(value, Mapping) else describe(value),
        )
        value = value[part]
    return value


def _image(value: Any, size: int | None, where: str) -> np.ndarray:
    pixels = np.asarray(value)
    expect(pixels.ndim in (2, 3), where, "an image [h w c] or [h w]", describe(pixels))
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if size is None or pixels.shape[:2] == (size, size):
        return pixels
    from PIL import Image

    good = bool(pixels.dtype == np.uint8) and pixels.shape[2] in (1, 3)
    expect(good, where, "uint8 [h w 1] or [h w 3] to resize", describe(pixels))
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).reshape(size, size, -1)


def _integer(value: Any, where: str, field: Field) -> int:
    number = np.asarray(value)
    whole = number.shape == () and (np.issubdtype(number.dtype, np.integer) or number.dtype == bool)
    if not whole:
        name = field if isinstance(field, str) else getattr(field, "__name__", "field")
        raise ContractError(f"`{where}`: expected an integer in {name!r}, got {describe(value)}")
    return int(number)
