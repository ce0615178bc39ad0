"""The full audit of runs on disk, from the command line."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxdebias.app.audit import AuditConfig, audit_run
from jaxdebias.app.cli import main
from jaxdebias.app.recipes import TrainConfig
from jaxdebias.app.train import train
from jaxdebias.contracts import ContractError
from jaxdebias.results.codec import read_results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Bright and dark squares on red or blue ground, with two more columns; and a run that was trained on them."""
    root, rng, lines = tmp_path_factory.mktemp("squares"), np.random.default_rng(0), []
    for i in range(900):
        split, y = ("train", "val", "test")[i % 3], i // 3 % 2
        ground = y if rng.random() < (0.95 if split == "train" else 0.5) else 1 - y
        image = np.zeros((16, 16, 3), np.uint8)
        image[..., 2 * ground] = 160
        image[4:12, 4:12] = (90, 165)[y] + rng.integers(-70, 70)
        Image.fromarray(image).save(root / f"{i}.png")
        lines.append(
            [
                f"{i}.png",
                split,
                ("dark", "bright")[y],
                ("red", "blue")[ground],
                ("A", "B")[rng.integers(2)],
                rng.integers(0, 90),
            ]
        )
    with open(root / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([["filename", "split", "y", "a", "camera", "age"], *lines])
    config = TrainConfig(data="folder", data_dir=root, options={"image_size": 16}, epochs=8, model="cnn")
    train(config, root / "run")
    return root


def test_the_answers_about_a_folder_with_more_columns(faces, tmp_path, capsys):
    main(
        [
            "audit",
            str(faces / "run"),
            "--out",
            str(tmp_path / "out"),
            "--candidates",
            "camera",
            "age",
            "--fix",
            "--pixels",
            "maps",
            "--attribute",
            "ground",
        ]
    )
    said = capsys.readouterr().out
    results = read_results(tmp_path / "out")
    states = {one.attribute: one.state for one in results.verdict.reliance}
    assert states["ground"] == "consistent"
    assert {states["camera"], states["age"]} <= {"no_sign", "cannot_tell"}
    assert said.startswith(results.verdict.headline)
    assert results.verdict.advice.state.startswith("disparity")
    assert "ground" in results.verdict.headline
    assert results.maps is not None
    assert results.verdict.advice.held_out is not None
    assert results.config["data"] == "folder"
    for name in ("report.html", "report.md", "model_card.md"):
        assert (tmp_path / "out" / name).is_file()


def test_what_is_refused(faces, tmp_path):
    with pytest.raises(ContractError, match="camera"):
        audit_run(faces / "run", tmp_path / "out", AuditConfig(candidates=("camra",)))
    with pytest.raises(ContractError, match="another folder than the run"):
        audit_run(faces / "run", faces / "run")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_the_attribute_is_searched(faces, tmp_path):
    """The column a taken away: the background is suspected from the pictures, or at least nothing breaks."""
    root = tmp_path / "blind"
    shutil.copytree(faces, root, ignore=shutil.ignore_patterns("run"))
    with open(faces / "metadata.csv", newline="") as file:
        lines = [line[:3] for line in csv.reader(file)]
    with open(root / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows(lines)
    results = audit_run(faces / "run", tmp_path / "out", AuditConfig(pixels="none", data_dir=root))
    assert results.before.accuracy.value > 0.5
    assert "no attribute was given" in results.answers[1].said
    assert results.discovered.cells is not None
