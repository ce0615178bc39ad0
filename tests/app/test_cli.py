"""The command line as a user meets it: help, one-line errors with exit code 2, and the commands end to end."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxdebias.app import cli
from jaxdebias.app.check import Check
from jaxdebias.app.old_spellings import modern
from jaxdebias.app.train import Train
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


COMMANDS = "quickstart, train, debias, debias-features, debias-language, show, audit, audit-predictions, check, compare"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("train",), "Missing from jaxdebias train: --out, --data"),
        (("tran",), f"Available subcommands: {COMMANDS}"),
        (("train", "--data", "digits", "--ot", "x", "--out", "y"), "did you mean --out?"),
        (("train", "--data", "digits", "--out", "x", "--epochs", "many"), "--epochs"),
        (("train", "--data", "digit", "--out", "x"), "got 'digit' (did you mean 'digits'?)"),
        (("train", "--data", "digits", "--method", "em", "--out", "x"), "got 'em' (did you mean 'erm'?)"),
        (("debias", "nowhere", "--out", "x"), "the folder of a finished `jaxdebias train`"),
        (("debias", "nowhere", "--method", "fdm", "--out", "x"), "got 'fdm' (did you mean 'fmd'?)"),
        (("audit",), "Missing from jaxdebias audit: RUN, --out"),
        (("audit", "nowhere", "--fix"), "Missing from jaxdebias audit: --out"),
        (("audit", "nowhere", "--out", "x"), "the folder of a finished `jaxdebias train`"),
        (("audit-predictions", "nowhere.csv"), "Missing from jaxdebias audit-predictions: --out"),
        (("audit-predictions", "nowhere.csv", "--out", "x", "--maps"), "--maps"),
        (("audit-predictions", "nowhere.csv", "--out", "x"), "`predictions`: expected a CSV file, got nowhere.csv"),
        (("show", "nowhere"), "a results.json that a command has written, got no such file"),
        (("show", "nowhere", "--maps"), "the folder of a finished `jaxdebias train`"),
        (("check",), "Missing from jaxdebias check: RUN"),
        (("check", "nowhere"), "a results.json that a command has written, got no such file"),
        (("check", "nowhere", "--max-gap", "0.1"), "a results.json that a command has written, got no such file"),
        (("compare", "nowhere"), "Missing from jaxdebias compare: B"),
        (("compare", "nowhere", "either"), "a results.json that a command has written, got no such file"),
        (("compare", "nowhere", "either", "--out", "x"), "a results.json that a command has written"),
        (("data", "prepare", "digitz", "--data-dir", "."), "did you mean 'digits'?"),
        (("reproduce", "digits", "--out", "x.json"), "`table`: expected one of"),
    ],
)
def test_bad_arguments_are_one_line(capsys, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in fails(capsys, *arguments)


def features(folder):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 60)
    signal, noise = (2.0 * label - 1)[:, None], rng.normal(size=(60, 1))
    x, twin = np.hstack([signal + noise, signal]), np.hstack([signal + noise, -signal])
    arrays = {"edit_twin": twin, "accept_twin": twin}
    for name in ("train", "edit", "accept_pairs"):
        arrays |= {name: x, f"{name}_label": label}
    np.savez(folder / "F.npz", **arrays)
    np.savez(folder / "H.npz", weight=np.array([[-0.2, -1.0], [0.2, 1.0]], np.float32))


def test_debias_features(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "Missing from jaxdebias debias-features: --head" in fails(
        capsys, "debias-features", "--features", "F.npz", "--out", "x"
    )
    files = ("--features", "F.npz", "--head", "H.npz", "--out", "x")
    assert "`features`: expected an .npz file of arrays, got F.npz" in fails(capsys, "debias-features", *files)
    features(tmp_path)
    cli.main(["debias-features", *files, "--rounds", "1", "--save-factor", "factor.npz", "--bias", "gap"])
    printed = capsys.readouterr().out
    assert "FMD on 2 features and 2 classes: accepted." in printed
    assert "Matched-pair gap" in printed
    assert "Wrote to x: results.json, head.npz.\nNext:\n" in printed
    with np.load("x/head.npz") as file:
        assert file["weight"].shape == (2, 2)
        assert file["weight"].dtype == np.float32
    results = json.loads(Path("x/results.json").read_text())
    assert results["rows"]["train"] == 60
    assert results["command"] == "debias-features"
    assert results["provenance"]["arguments"]["rounds"] == 1
    assert "made with rounds=1, not 2" in fails(capsys, "debias-features", *files, "--rounds", "2", "--bias", "gap")
    cli.main(["debias-features", *files, "--rounds", "1", "--factor", "factor.npz", "--overwrite", "--bias", "gap"])
    assert json.loads(Path("x/results.json").read_text())["factor"] is True
    cli.main(["show", "x"])
    assert "FMD on 2 features" in capsys.readouterr().out


def old(capsys, *arguments):
    """Runs an old spelling; -> (what it printed, the new spelling)."""
    cli.main(list(arguments))
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("jaxdebias: this is now spelled: jaxdebias ")
    return printed.out, printed.err.strip().removeprefix("jaxdebias: this is now spelled: jaxdebias ")


@pytest.mark.slow
def test_old_spellings_do_the_job_and_print_the_new_one(capsys, tmp_path, monkeypatch, trained):
    monkeypatch.chdir(tmp_path)
    features(tmp_path)
    printed, new = old(
        capsys, "debias", "--features", "F.npz", "--head", "H.npz", "--rounds", "1", "--out=x", "--overwrite"
    )
    assert "FMD on 2 features" in printed
    assert new == "debias-features --features F.npz --head H.npz --rounds 1 --out x --overwrite"
    printed, new = old(capsys, "audit", str(trained[0]))
    assert new == f"show {trained[0]}"
    assert "Counterfactual bias" in printed
    rows = [("a", "b")[i % 2] + "," + ("a", "b")[i % 3 % 2] + "," + ("m", "f")[i % 5 % 2] for i in range(80)]
    Path("p.csv").write_text("label,predicted,sex\n" + "\n".join(rows) + "\n")
    printed, new = old(capsys, "audit", "--predictions", "p.csv", "--out", "y")
    assert new == "audit-predictions --out y p.csv"
    assert "1. Does the model serve groups differently?" in printed
    assert Path("y/model_card.md").is_file()
    assert modern(["debias", "r", "--out", "o", "--aligned-floor", "0.2"])[0][-2:] == ["--max-aligned-loss", "0.2"]
    assert modern(["debias", "--data", "language", "--kind", "bert", "--out", "o"])[0] == [
        "debias-language", "--kind", "bert", "--out", "o",
    ]  # fmt: skip
    for new in (["debias", "r", "--out", "o"], ["audit", "r", "--fix"], ["audit", "--help"], ["train"], []):
        assert modern(new) == (new, False)


def test_the_version_and_nothing_at_all(capsys):
    cli.main(["--version"])
    assert re.fullmatch(r"jaxdebias \S+\n", capsys.readouterr().out)
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 0
    assert "audit-predictions" in capsys.readouterr().out


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "x"), MemoryError("no room")])
def test_what_a_machine_refuses_is_one_line(capsys, monkeypatch, tmp_path, error):
    def broken(self):
        raise error

    monkeypatch.setattr(Check, "execute", broken)
    fails(capsys, "check", str(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_command_in_one_line_that_says_how_to_resume(capsys, monkeypatch, tmp_path, number):
    monkeypatch.setattr(Train, "execute", lambda self: os.kill(os.getpid(), number))
    before = signal.getsignal(signal.SIGTERM)
    of_python = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    command = ["train", "--data", "digits", "--out", str(tmp_path / "a run")]
    with pytest.raises(SystemExit) as stop:
        cli.main(command)
    signal.signal(signal.SIGINT, of_python)
    assert stop.value.code == 130
    said = capsys.readouterr().err
    assert said == f"jaxdebias: interrupted; the same command resumes: jaxdebias {shlex.join(command)}\n"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "command",
    [
        ("train", "--data", "digits"),
        ("quickstart",),
        ("audit-predictions", "p.csv"),
        ("debias-features", "--features", "F.npz", "--head", "H.npz"),
        ("debias-language",),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(capsys, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    features(tmp_path)
    Path("p.csv").write_text("label,predicted,sex\na,a,m\nb,a,f\n")
    assert "a folder that can be written" in fails(capsys, *command, "--out", "/proc/nowhere")


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


@pytest.mark.parametrize("command", [[], *([name] for name in cli.COMMANDS), ["data", "list"], ["data", "prepare"]])
def test_help_explains_every_option_in_less_than_60_lines(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "usage: jaxdebias" in said
    assert said.count("\n") < 60
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
    assert "made with rounds=3, not 10" in fails(capsys, "debias", str(trained), "--out", str(fixed))
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
        [sys.executable, "-m", "jaxdebias", "train", "--data", "nothing"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 2
    assert done.stderr == "jaxdebias: Missing from jaxdebias train: --out; see --help\n"
