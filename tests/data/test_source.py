import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.data import from_source


def records(n=5, shape=(6, 4, 3)):
    rng = np.random.default_rng(0)
    return [
        {"image": rng.integers(0, 256, shape, dtype=np.uint8), "label": i % 2, "more": {"Male": bool(i % 3)}}
        for i in range(n)
    ]


def test_a_list_of_dictionaries():
    source = records()
    batch = from_source(source, attribute="more/Male")
    np.testing.assert_array_equal(batch.x, np.stack([record["image"] for record in source]))
    assert batch.label.tolist() == [0, 1, 0, 1, 0]
    assert batch.attribute.tolist() == [0, 1, 1, 0, 1]
    assert batch.label.dtype == batch.attribute.dtype == np.int32
    assert from_source(source).attribute.tolist() == [-1] * 5


def test_fields_may_be_functions_and_images_float():
    source = records()
    batch = from_source(source, image=lambda r: r["image"][..., 0] / np.float32(255), label=lambda r: 1 - r["label"])
    assert batch.x.shape == (5, 6, 4, 1)
    assert batch.x.dtype == np.float32
    assert batch.label.tolist() == [1, 0, 1, 0, 1]


def test_sizes_may_differ_if_one_is_asked_for():
    source = [*records(2), *records(2, (8, 8, 3))]
    with pytest.raises(ContractError, match=r"`source\[2\]`: expected an image like source\[0\], uint8 \[6, 4, 3\]"):
        from_source(source)
    assert from_source(source, image_size=5).x.shape == (4, 5, 5, 3)
    assert from_source(records(2, (6, 4)), image_size=5).x.shape == (2, 5, 5, 1)


def test_a_grain_source():
    grain = pytest.importorskip("grain")
    source = grain.MapDataset.source(records()).map(lambda record: record | {"label": record["label"] + 1})
    assert from_source(source).label.tolist() == [1, 2, 1, 2, 1]


@pytest.mark.parametrize(
    ("source", "fields", "message"),
    [
        (iter([]), {}, "`source`: expected __len__ and __getitem__ by number, got list_iterator"),
        ({"image": 1}, {}, "`source`: expected __len__ and __getitem__ by number, got dict"),
        ([], {}, "`source`: expected at least one record, got none"),
        ([3], {}, r"`source\[0\]`: expected a dictionary, got int 3"),
        (records(), {"label": "y"}, r"`source\[0\]`: expected a field 'y', got image, label, more"),
        (records(), {"label": "more/Old"}, r"`source\[0\]`: expected a field 'more/Old', got Male"),
        (records(), {"label": "image"}, r"`source\[0\]`: expected an integer in 'image', got uint8 \[6, 4, 3\]"),
        (records(), {"image": "label"}, r"`source\[0\]`: expected an image \[h w c\] or \[h w\], got int64 \[\]"),
        ([{"image": np.full((2, 2), 9.0), "label": 0}], {}, r"`source.x`: expected pixels in \[0, 1\], got 9..9"),
    ],
)
def test_bad_sources_are_refused(source, fields, message):
    with pytest.raises(ContractError, match=message):
        from_source(source, **fields)
