"""SIGKILL of a real process; `tests/test_faults.py` tries every call to the file system, in one process."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.unoptimised]


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
