import subprocess
import sys

import numpy as np
import pytest
from oracles.cifar import write_packed
from oracles.faces import celeba_values, utkface_rows, write_celeba, write_packed_utkface
from oracles.files import folder_rows, write_adult, write_folder, write_mnist
from oracles.masked_files import waterbirds_rows, write_celeba_mask, write_objects_on_scenes, write_waterbirds

from jaxdebias.contracts import ContractError, check_dataset
from jaxdebias.data import DATASETS, load
from jaxdebias.data._registry import VARIABLE, columns, describe, options_of, prepare


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_mnist(root / "mnist")
    write_packed(root / "cifar10", train=20, test=10)
    write_adult(root / "adult")
    write_packed_utkface(root / "utkface", utkface_rows())
    write_celeba(root / "celeba", celeba_values())
    write_celeba_mask(root / "CelebAMask-HQ", celeba_values(200))
    write_waterbirds(root / "waterbirds", waterbirds_rows())
    write_objects_on_scenes(root / "objects_on_scenes")
    return write_folder(root, folder_rows())


@pytest.fixture(autouse=True)
def without_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


FEW = {"train": 40, "edit": 8, "accept": 8, "test": 8}
OPTIONS = {
    "scenes": FEW,
    "glyphs": FEW,
    "faces": FEW | {"image_size": 16},
    "utkface-darkened": {"edit": 12, "accept": 8, "test": 8, "image_size": 8},
    "colored-mnist": {"held_out": 14},
    "corrupted-cifar10": {"held_out": 7},
    "adult": {"edit": 10, "accept": 8},
    "utkface": {"edit": 12, "accept": 8, "test": 8, "image_size": 8},
    "celeba": {"image_size": 8},
    "utkface-planted": {"edit": 8, "accept": 8, "test": 8, "image_size": 16},
    "celeba-four-cells": {
        "image_size": 8,
        "target": "Blond_Hair",
        "attribute": "Male",
        "cells": (2, 10, 10, 0),
        "per_cell": 3,
    },
    "celeba-mask": {"image_size": 8, "accept_share": 0.5},
    "waterbirds": {"image_size": 8},
    "composites": {**FEW, "image_size": 16, "selection_share": 0.4},
    "folder": {"image_size": 8},
}


@pytest.mark.parametrize("name", DATASETS)
def test_every_name_loads_what_its_builder_makes(name, files):
    data = load(name, data_dir=files, seed=1, **OPTIONS.get(name, {}))
    check_dataset(data)
    assert data.name == name
    assert set(data.splits) >= {"train", "edit", "accept", "test"}
    assert set(data.pairs) == {"edit", "accept", "test"}
    for batch in (*data.splits.values(), *data.pairs.values()):
        assert isinstance(batch.x, np.ndarray)
        assert batch.label.dtype == batch.attribute.dtype == np.int32
    assert "seed" in options_of(name)


def test_the_environment_names_the_folder(files, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(files))
    assert load("adult", **OPTIONS["adult"]).name == "adult"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digit", {}, "`data`: expected one of digits, scenes, .* got 'digit' .did you mean 'digits'"),
        ("digits", {"conflict": 0.1}, "`digits`: expected options among conflicting, seed, got conflict"),
        ("glyphs", {"kind": "scenes"}, "`glyphs`: expected options among classes, conflicting, .* got kind"),
        ("adult", {}, "`data_dir`: expected UCI's adult.data and adult.test, in DIR or DIR/adult .or set JAXDEBIAS"),
    ],
)
def test_bad_requests_are_refused(name, options, message):
    with pytest.raises(ContractError, match=message):
        load(name, **options)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("adult", ("sex", "race")),
        ("utkface", ("age", "race")),
        ("celeba", ("Young", "Male", "Smiling")),
        ("celeba-four-cells", ("Young", "Male")),
        ("celeba-mask", ("Young", "Male")),
        ("folder", ()),
    ],
)
def test_columns_are_those_of_the_rows_and_no_picture_is_read(name, others, files, monkeypatch):
    options = {"seed": 1, **OPTIONS[name]}
    data = load(name, data_dir=files, **options)
    with monkeypatch.context() as patched:
        for module in [module for module in sys.modules if module.startswith("jaxdebias.data")]:
            for read in ("decode_all", "read_pictures", "read_faces" if name == "celeba-mask" else "read_mask"):
                if hasattr(sys.modules[module], read):
                    patched.setattr(sys.modules[module], read, lambda *_: pytest.fail("a picture was read"))
        found = columns(name, others, data_dir=files, **options)
    assert list(found) == list(others)
    for values in found.values():
        assert {split: len(rows) for split, rows in values.items()} == {
            split: len(batch.label) for split, batch in data.splits.items()
        }
    if others:
        own = found[data.variant["attribute"]]
        for split, batch in data.splits.items():
            assert own[split] == [data.attribute_names[a] for a in batch.attribute]


@pytest.mark.parametrize(("name", "other"), [("adult", "race"), ("celeba", "Young"), ("celeba-mask", "Young")])
def test_columns_are_what_the_set_of_that_attribute_holds(name, other, files):
    """Where rows do not depend on the attribute, it is the same data set asked for another attribute."""
    options = {"seed": 2, **OPTIONS[name]}
    data = load(name, data_dir=files, **{**options, "attribute": other})
    found = columns(name, [other], data_dir=files, **options)[other]
    for split, batch in data.splits.items():
        assert found[split] == [data.attribute_names[a] for a in batch.attribute]


def test_utkface_columns_leave_ages_between_unknown(files):
    options = {**OPTIONS["utkface"], "attribute": "race", "seed": 0}
    found = columns("utkface", ["age"], data_dir=files, **options)["age"]
    assert {text for values in found.values() for text in values} == {"", "20 or older", "12 or younger"}


def test_columns_of_a_set_with_one_attribute_are_refused(files):
    with pytest.raises(ContractError, match=r"a data set with several attributes .adult, utkface, .*, got digits"):
        columns("digits", ["x"])
    with pytest.raises(ContractError, match=r"`attribute`: expected one of .*Young"):
        columns("celeba", ["Yuong"], data_dir=files)


def test_describe_says_what_is_there(files, tmp_path):
    rows = {row.name: row for row in describe(files)}
    assert list(rows) == list(DATASETS)
    assert all(row.found for row in rows.values())
    assert rows["adult"].kind == "table"
    assert rows["colored-mnist"].detail == str(files / "mnist")
    for place in (tmp_path, None):
        there = {row.name: row.found for row in describe(place)}
        assert [name for name, found in there.items() if found] == ["digits", "scenes", "glyphs", "faces"]
    assert all("\n" not in row.detail for row in describe(tmp_path))


def test_prepare(files, tmp_path):
    pytest.importorskip("tensorflow_datasets")
    said = prepare("folder", files, tmp_path, image_size=8)
    assert said.startswith(f"folder: prepared in {tmp_path}/folder/")
    assert prepare("digits", None, tmp_path) == "digits: nothing to prepare, it is made in memory"
    assert prepare("adult", None, tmp_path) == "adult: nothing to prepare, the table is read as it is"
    assert prepare("celeba", files, tmp_path) == "celeba: nothing to prepare, its files are read as they are"
    with pytest.raises(ContractError, match=r"`data_dir`: expected MNIST's four .gz files"):
        prepare("colored-mnist", None, tmp_path)


def test_importing_the_room_is_light():
    code = (
        "import sys, jaxdebias.data\n"
        "heavy = {'sklearn', 'PIL', 'tensorflow_datasets', 'grain', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
