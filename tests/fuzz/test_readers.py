"""Files of users, damaged or strange: read, or refused in one line."""

import contextlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxdebias.app.predictions import read_predictions
from jaxdebias.contracts import ContractError
from jaxdebias.data import folder
from jaxdebias.data._folder import further_columns, read_metadata

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
CELL = st.sampled_from(
    [
        "",
        "a",
        "b",
        "0",
        "1",
        "-1",
        "2",
        "nan",
        "inf",
        "1e400",
        "<b>",
        '"',
        "train",
        "test",
        "val",
        "ü",
        "\x00",
        "\n",
        "a,b",
        "0.png",
        "../0.png",
        "9" * 30,
    ]
)
TABLES = st.lists(st.lists(CELL, min_size=0, max_size=6), min_size=0, max_size=6)


@contextlib.contextmanager
def one_line():
    said = ""
    try:
        yield
    except ContractError as error:
        said = str(error)
    assert "\n" not in said


def lines(header, rows):
    return "\n".join(",".join(row) for row in [header, *rows]).encode()


@given(st.binary(max_size=200))
@example(b"label,predicted,a\n\xff,0,1\n")
@example(b"label,predicted,a\n0,\x00,1\n")
@example(b"\xff\xfel\x00a\x00")
@QUICK
def test_predictions_of_any_bytes(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "p.csv"
    path.write_bytes(content)
    with one_line():
        read_predictions(path)


@given(TABLES)
@example([["0", "0"], ["1", "1", "1", "test", "1", "1"]])
@QUICK
def test_predictions_of_any_cells(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("cells") / "p.csv"
    path.write_bytes(lines(["label", "predicted", "sex", "split"], rows))
    with one_line():
        read = read_predictions(path)
        assert len(read.label) == len(read.predicted) == len(read.train)
        assert all(len(one.value) == len(read.label) for one in read.columns.values())


@given(st.binary(max_size=200))
@example(b"filename,split,y,a\n\xff.png,train,0,1\n")
@example(b"filename,split,y,a\n0\x00.png,train,0,1\n")
@QUICK
def test_metadata_of_any_bytes(tmp_path_factory, content):
    root = tmp_path_factory.mktemp("bytes")
    (root / "metadata.csv").write_bytes(content)
    with one_line():
        read_metadata(root)


@given(TABLES)
@example([["0.png", "train"], ["0.png", "test", "0", "1", "1", "1"]])
@QUICK
def test_metadata_of_any_cells(tmp_path_factory, rows):
    root = tmp_path_factory.mktemp("cells")
    Image.new("RGB", (4, 4)).save(root / "0.png")
    (root / "metadata.csv").write_bytes(lines(["filename", "split", "y", "a", "more"], rows))
    with one_line():
        read_metadata(root)
    with one_line():
        further_columns(root)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"GIF89a\x00"])
def test_images_of_any_bytes(tmp_path, content):
    """More of the same row, so that every split has some."""
    (tmp_path / "0.png").write_bytes(content)
    rows = [["0.png", split, str(i % 2), str(i % 2)] for split in ("train", "val", "test") for i in range(4)]
    (tmp_path / "metadata.csv").write_bytes(lines(["filename", "split", "y", "a"], rows))
    with pytest.raises(ContractError, match=r"metadata\.csv line 2"):
        folder(tmp_path, image_size=8)
