"""SIGKILL between any two writes of a command: the same command finishes, and ends with what an unbroken one writes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.unoptimised]


def run(*arguments, script=("-m", "jaxdebias")):
    done = subprocess.run([sys.executable, *script, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def timeless(value):
    """Without what depends on the clock, and on the folder."""
    times = ("seconds", "seconds_by_step", "date", "trained", "run", "provenance")
    if isinstance(value, dict):
        return {name: timeless(one) for name, one in value.items() if name not in times}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def same(folder, other):
    assert {path.name for path in folder.iterdir()} == {path.name for path in other.iterdir()}
    old, new = (timeless(json.loads((one / "results.json").read_text())) for one in (folder, other))
    assert old == new
    for name in ("params.npz", "predictions.npz"):
        if (folder / name).is_file():
            old, new = (np.load(one / name) for one in (folder, other))
            assert all((old[key] == new[key]).all() for key in old.files)


def test_train_debias_and_audit_survive_a_kill_at_any_write(tmp_path, monkeypatch):
    # Every call compiles the same programs.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "programs"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    script, made = (Path(__file__).parent / "killed.py",), tmp_path / "made"
    train = ("train", "--data", "digits", "--epochs", "2", "--out")
    run(*train, made)
    assert "killed" in run(*train, tmp_path / "train", script=script)
    same(made, tmp_path / "train")
    for name, arguments in (
        ("debias", ("debias", made, "--method", "dfr", "--no-baselines", "--out")),
        ("audit", ("audit", made, "--pixels", "none", "--out")),
    ):
        run(*arguments, tmp_path / f"{name}-unbroken")
        printed = run(*arguments, tmp_path / name, script=script)
        assert int(printed.rsplit("killed ", 1)[1].split()[0]) >= 5
        same(tmp_path / f"{name}-unbroken", tmp_path / name)


def test_a_killed_training_carries_on_to_the_same_bits(tmp_path):
    command = [sys.executable, "-m", "jaxdebias", "train", "--data", "digits", "--epochs", "120", "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    process = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
    log = tmp_path / "killed" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= 2):
        time.sleep(0.01)
    assert process.poll() is None, "the run ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "results.json").exists()
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    old, new = (np.load(tmp_path / name / "params.npz") for name in ("whole", "killed"))
    for name in old.files:
        np.testing.assert_array_equal(old[name], new[name])
