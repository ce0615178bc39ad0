"""Building and reading TFDS sets without TensorFlow."""

import subprocess
import sys

import numpy as np
import pytest
from oracles.files import folder_rows, write_folder, write_mnist

from jaxdebias.contracts import ContractError
from jaxdebias.data import colored_mnist, folder, from_source
from jaxdebias.data.tfds import prepare, read, source

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")


def assert_same(prepared, dataset):
    for split, batch in dataset.splits.items():
        records = read(prepared, split)
        order = np.argsort([records[i]["row"] for i in range(len(records))])
        stored = from_source(records, attribute="attribute")
        for field in ("x", "label", "attribute"):
            np.testing.assert_array_equal(getattr(stored, field)[order], getattr(batch, field))


def test_colored_mnist_comes_back_bit_for_bit(tmp_path):
    files, options = write_mnist(tmp_path / "mnist"), {"held_out": 14, "seed": 1, "conflicting": 0.1}
    prepared = prepare("colored-mnist", files, tmp_path / "out", **options)
    assert prepared.parent.parent == tmp_path / "out" / "colored_mnist"
    assert_same(prepared, colored_mnist(files, **options))
    assert len(read(prepared, "train[:10]")) == 10
    written = (prepared / "dataset_info.json").stat().st_mtime_ns
    assert prepare("colored-mnist", files, tmp_path / "out", **options) == prepared  # kept
    assert (prepared / "dataset_info.json").stat().st_mtime_ns == written


def test_folder_comes_back_bit_for_bit_and_changes_get_a_folder_of_their_own(tmp_path):
    root = write_folder(tmp_path / "birds", folder_rows())
    prepared = prepare("folder", root, tmp_path / "out", image_size=8)
    assert_same(prepared, folder(root, image_size=8))
    (root / "images/0.png").write_bytes((root / "images/1.png").read_bytes())
    again = prepare("folder", root, tmp_path / "out", image_size=8)
    assert again != prepared
    assert_same(again, folder(root, image_size=8))


def test_the_reader_needs_neither_tensorflow_nor_our_classes(tmp_path):
    prepared = prepare("colored-mnist", write_mnist(tmp_path / "mnist"), tmp_path / "out", held_out=14)
    code = (
        "import sys, tensorflow_datasets as tfds\n"
        f"s = tfds.builder_from_directory({str(prepared)!r}).as_data_source('test')\n"
        "assert len(s) == 40 and s[0]['image'].shape == (28, 28, 3)\n"
        "assert 'tensorflow' not in sys.modules and 'jaxdebias' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_any_set_that_tfds_knows_becomes_a_batch():
    with tfds.testing.mock_data(num_examples=5):
        batch = from_source(
            source("celeb_a", "train"), label="attributes/Blond_Hair", attribute="attributes/Male", image_size=32
        )
    assert batch.x.shape == (5, 32, 32, 3)
    assert set(batch.label) | set(batch.attribute) <= {0, 1}


def test_tensorflow_is_never_imported():
    assert "tensorflow" not in sys.modules


def test_errors_are_one_line(tmp_path):
    files = write_mnist(tmp_path / "mnist")
    prepared = prepare("colored-mnist", files, tmp_path / "out", held_out=14)
    for call, message in (
        (lambda: prepare("adult", files, tmp_path), "`name`: expected one of colored-mnist, folder, got 'adult'"),
        (lambda: read(tmp_path, "train"), "`prepared_dir`: expected a folder with dataset_info.json, got"),
        (lambda: read(prepared, "trian"), "expected a split prepared as array_record, got ValueError: Unknown split"),
        (lambda: source("mnist", "train", tmp_path), "`mnist`: expected a split prepared as array_record, got"),
    ):
        with pytest.raises(ContractError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
