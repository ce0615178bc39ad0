"""One folder of each command: `check` judges it or says that it cannot, `show` shows it, again it has nothing to do."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxdebias.app import cli

pytestmark = [pytest.mark.slow, pytest.mark.unoptimised]

COMMANDS = {
    "run": "train --data digits --epochs 2 --out run",
    "fixed": "debias run --method dfr --no-baselines --out fixed",
    "audit": "audit run --pixels none --out audit",
    "predicted": "audit-predictions p.csv --out predicted",
    "layer": "debias-features --features F.npz --head H.npz --method dfr --out layer",
    "compared": "compare run fixed --out compared",
}
JUDGED = {"run", "fixed", "audit", "predicted", "layer"}


def call(arguments):
    try:
        cli.main(arguments.split())
    except SystemExit as stop:
        return stop.code
    return 0


def inputs(folder):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 60)
    x = np.stack([2.0 * label - 1 + rng.normal(size=60), 2.0 * label - 1], axis=1)
    twin = x * np.array([1, -1])
    arrays = {"edit_twin": twin, "accept_twin": twin}
    for name in ("train", "edit", "accept_pairs"):
        arrays |= {name: x, f"{name}_label": label}
    np.savez(folder / "F.npz", **arrays)
    np.savez(folder / "H.npz", weight=np.array([[-0.2, -1.0], [0.2, 1.0]], np.float32))
    names = [("no", "yes")[y] for y in label]
    rows = [f"{y},{y if i % 5 else 'no'},{'mf'[i % 2]}" for i, y in enumerate(names)]
    (folder / "p.csv").write_text("label,predicted,sex\n" + "\n".join(rows) + "\n")


def test_every_folder_is_checked_shown_and_complete(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs(tmp_path)
    for name, command in COMMANDS.items():
        assert call(command) == 0, capsys.readouterr().err
        printed = capsys.readouterr().out
        assert f"Wrote to {name}: results.json" in printed
        assert "\nNext:\n" in printed
        results = json.loads(Path(name, "results.json").read_text())
        assert results["command"] == command.split()[0]
        assert {"versions", "device", "date", "seconds", "seconds_by_step", "seed", "arguments", "data"} <= set(
            results["provenance"]
        )
        stamps = {path: path.stat().st_mtime_ns for path in Path(name).iterdir()}
        assert call(command) == 0
        assert f"Nothing to do: the same {results['command']} is complete in {name}" in capsys.readouterr().out
        assert {path: path.stat().st_mtime_ns for path in Path(name).iterdir()} == stamps
        code = call(f"check {name} --min-accuracy 0.01")
        printed = capsys.readouterr().out
        assert (code, printed.split(":")[0]) == ((0, "passed") if name in JUDGED else (1, "cannot be judged"))
        assert printed.count("\n") == 1
        assert call(f"show {name}") == 0
        assert len(capsys.readouterr().out) > 200
    assert call("check audit --max-gap 0.000") in (0, 1)
    assert call("compare run layer") == 2  # other classes
