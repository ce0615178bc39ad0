"""The command line as a user meets it: help, one-line errors with exit code 2, and the commands end to end."""

import json
import os
import re
import subprocess
import sys

import pytest

from jaxdebias import cli


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.err
    assert said.err.startswith("jaxdebias: ")
    return said.err


@pytest.mark.parametrize(("arguments", "expected"), [
    ((), "Expected one of {quickstart, train, debias, data}"),
    (("train",), "Missing from jaxdebias train: --data, --out"),
    (("tran",), "Available subcommands: quickstart, train, debias, data"),
    (("train", "--data", "digits", "--ot", "x", "--out", "y"), "did you mean --out?"),
    (("train", "--data", "digits", "--out", "x", "--epochs", "many"), "--epochs"),
    (("train", "--data", "digit", "--out", "x"), "got 'digit' (did you mean 'digits'?)"),
    (("debias", "nowhere", "--out", "x"), "the folder of a finished `jaxdebias train`"),
    (("data", "prepare", "digitz", "--data-dir", "."), "did you mean 'digits'?"),
])
def test_bad_arguments_are_one_line(capsys, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in fails(capsys, *arguments)


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


@pytest.mark.parametrize("command", [[], ["quickstart"], ["train"], ["debias"], ["data"], ["data", "list"],
                                     ["data", "prepare"]])
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
            text = re.sub(r"\(default.*|--[\w-]+|\b[A-Z]{3,}\b|\{.*?\}", "", " ".join(lines[number:number + 3]))
            assert len(re.findall(r"[a-z]{2,}", text)) >= 3, line


def test_data_list(capsys):
    cli.main(["data", "list"])
    said = capsys.readouterr().out
    for name in ("digits", "scenes", "glyphs", "colored-mnist", "adult", "utkface", "celeba", "folder"):
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


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_as_a_process_in_any_terminal(tmp_path, encoding):
    done = subprocess.run([sys.executable, "-m", "jaxdebias.cli", "train", "--data", "nothing"], cwd=tmp_path,
                          capture_output=True, text=True, check=False, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.returncode == 2
    assert done.stderr == "jaxdebias: Missing from jaxdebias train: --out; see --help\n"
