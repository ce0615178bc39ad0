"""The command line as a user meets it: help, one-line errors with exit code 2, and the commands end to end."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxdebias.app import cli
from jaxdebias.data import _registry as registry


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.err
    assert said.err.startswith("jaxdebias: ")
    return said.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "Expected one of {quickstart, train, debias, audit, check, reproduce, data}"),
        (("train",), "Missing from jaxdebias train: --data, --out"),
        (("tran",), "Available subcommands: quickstart, train, debias, audit, check, reproduce, data"),
        (("train", "--data", "digits", "--ot", "x", "--out", "y"), "did you mean --out?"),
        (("train", "--data", "digits", "--out", "x", "--epochs", "many"), "--epochs"),
        (("train", "--data", "digit", "--out", "x"), "got 'digit' (did you mean 'digits'?)"),
        (("debias", "nowhere", "--out", "x"), "the folder of a finished `jaxdebias train`"),
        (("audit",), "`audit`: expected the folder of a run, or --predictions with --out, got neither"),
        (("audit", "--predictions", "nowhere.csv"), "`--out`: expected a folder, with --predictions"),
        (("audit", "run", "--predictions", "nowhere.csv", "--out", "x"), "not both"),
        (("audit", "--predictions", "nowhere.csv", "--out", "x", "--maps"), "`--maps`: expected the folder of a run"),
        (
            ("audit", "--predictions", "x.csv", "--out", "x", "--judges", "sih"),
            "`--judges`: expected the folder of a run",
        ),
        (
            ("audit", "--predictions", "nowhere.csv", "--out", "x"),
            "`predictions`: expected a CSV file, got nowhere.csv",
        ),
        (("audit", "nowhere"), "a results.json that a run has written, got no such file"),
        (("audit", "nowhere", "--maps"), "the folder of a finished `jaxdebias train`"),
        (("audit", "nowhere", "--patches"), "the folder of a finished `jaxdebias train`"),
        (("check",), "Missing from jaxdebias check: RUN"),
        (("check", "nowhere", "--max-gap", "0.1"), "a results.json that a run has written, got no such file"),
        (("data", "prepare", "digitz", "--data-dir", "."), "did you mean 'digits'?"),
    ],
)
def test_bad_arguments_are_one_line(capsys, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in fails(capsys, *arguments)


def test_debias_takes_a_run_or_feature_files(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "the folder of a trained run, or --features with --head" in fails(capsys, "debias", "--out", "x")
    assert "`--head`: expected an .npz file" in fails(capsys, "debias", "--features", "F.npz", "--out", "x")
    assert "not both" in fails(capsys, "debias", "run", "--features", "F.npz", "--out", "x")
    assert "`--save-factor`: expected --features" in fails(capsys, "debias", "run", "--save-factor", "f", "--out", "x")
    files = ("--features", "F.npz", "--head", "H.npz", "--out", "x")
    assert "`features`: expected an .npz file of arrays, got F.npz" in fails(capsys, "debias", *files)
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 60)
    signal, noise = (2.0 * label - 1)[:, None], rng.normal(size=(60, 1))
    x, twin = np.hstack([signal + noise, signal]), np.hstack([signal + noise, -signal])
    arrays = {"edit_twin": twin}
    for name in ("train", "edit", "accept_pairs"):
        arrays |= {name: x, f"{name}_label": label}
    np.savez("F.npz", **arrays)
    np.savez("H.npz", weight=np.array([[-0.2, -1.0], [0.2, 1.0]], np.float32))
    assert "an array accept_twin to go with accept_pairs" in fails(capsys, "debias", *files)
    np.savez("F.npz", **arrays, accept_twin=twin)
    cli.main(["debias", *files, "--rounds", "1", "--save-factor", "factor.npz", "--bias", "gap"])
    said = capsys.readouterr().out
    assert "FMD on 2 features and 2 classes: accepted." in said
    assert "Matched-pair gap" in said
    with np.load("x/head.npz") as file:
        assert file["weight"].shape == (2, 2)
        assert file["weight"].dtype == np.float32
    assert json.loads(Path("x/results.json").read_text())["rows"]["train"] == 60
    assert "a folder without results" in fails(capsys, "debias", *files)
    cli.main(["debias", *files, "--rounds", "1", "--factor", "factor.npz", "--overwrite", "--bias", "gap"])
    assert json.loads(Path("x/results.json").read_text())["factor"] is True


def test_bad_values_are_one_line(capsys, tmp_path):
    out = str(tmp_path / "run")
    assert "conflicting" in fails(capsys, "train", "--data", "digits", "--out", out, "--conflicting", "2")
    assert "at least 1" in fails(capsys, "train", "--data", "digits", "--out", out, "--epochs", "0")
    message = fails(capsys, "train", "--data", "digits", "--out", out, "--model", "mpl")
    assert "did you mean 'mlp'?" in message
    message = fails(capsys, "train", "--data", "digits", "--out", out, "--image-size", "8")
    assert "expected options among conflicting, seed, got image_size" in message
    message = fails(capsys, "train", "--data", "folder", "--data-dir", str(tmp_path), "--out", out)
    assert "metadata.csv" in message
    message = fails(capsys, "train", "--data", "digits", "--weights", "w.npz", "--out", out)
    assert "a model resnet18 or resnet50" in message


@pytest.mark.parametrize(
    "command", [[], ["quickstart"], ["train"], ["debias"], ["audit"], ["data"], ["data", "list"], ["data", "prepare"]]
)
def test_help_explains_every_option(capsys, command):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "usage: jaxdebias" in said
    # Beside its name, kind of value and default, every option has words.
    lines = [line.strip("│ ") for line in said.splitlines()]
    for number, line in enumerate(lines):
        if re.match("--[a-z]", line):
            text = re.sub(r"\(default.*|--[\w-]+|\b[A-Z]{3,}\b|\{.*?\}", "", " ".join(lines[number : number + 3]))
            assert len(re.findall(r"[a-z]{2,}", text)) >= 3, line


def test_data_list(capsys):
    cli.main(["data", "list"])
    said = capsys.readouterr().out
    for name in registry.DATASETS:
        assert name in said


@pytest.mark.slow
def test_train_debias_and_refusals(capsys, tmp_path):
    trained, fixed = tmp_path / "trained", tmp_path / "fixed"
    cli.main(["train", "--data", "digits", "--conflicting", "0.02", "--epochs", "30", "--out", str(trained)])
    cli.main(["debias", str(trained), "--rounds", "3", "--no-baselines", "--out", str(fixed)])
    capsys.readouterr()
    before = json.loads((trained / "results.json").read_text())
    after = json.loads((fixed / "results.json").read_text())
    assert before["after"] is None
    assert after["before"]["accuracy"] == pytest.approx(before["before"]["accuracy"], abs=0.02)
    assert after["after"]["accuracy"]["value"] > after["before"]["accuracy"]["value"]
    for folder in (trained, fixed):
        assert (folder / "report.html").stat().st_size > 10_000
    assert "a folder without results" in fails(capsys, "debias", str(trained), "--out", str(fixed))
    assert "a trained run, not a repaired one" in fails(capsys, "debias", str(fixed), "--out", str(tmp_path / "x"))
    assert "another folder" in fails(capsys, "debias", str(trained), "--out", str(trained))
    cli.main(["check", str(trained), "--max-gap", "1"])
    assert capsys.readouterr().out.startswith("passed: accuracy falls by ")
    with pytest.raises(SystemExit) as stop:
        cli.main(["check", str(trained), "--max-gap", "0.01"])
    assert stop.value.code == 1
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_as_a_process_in_any_terminal(tmp_path, encoding):
    done = subprocess.run(
        [sys.executable, "-m", "jaxdebias.app.cli", "train", "--data", "nothing"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 2
    assert done.stderr == "jaxdebias: Missing from jaxdebias train: --out; see --help\n"
