"""Every experiment in miniature: from generated files in the released layout to rows, table and figure."""

import numpy as np
import pytest

from jaxdebias.app import cli
from jaxdebias.reproduce import EXPERIMENTS, TableConfig, list_experiments, reproduce_table
from jaxdebias.reproduce.view import markdown, print_experiments

AT_LEAST = 15


@pytest.mark.slow
@pytest.mark.unoptimised
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_trial_writes_rows_table_and_figure(name, tmp_path, capsys):
    experiment = EXPERIMENTS[name]
    table = reproduce_table(TableConfig(experiment=name, trial=True), tmp_path)
    assert [(row["method"], row["level"], row["seed"]) for row in table.rows if row["device"]] == [
        (row["method"], row["level"], 0) for row in table.rows
    ]
    trial = experiment.trial
    wanted = {(method, level) for method in trial.methods for level in trial.levels}
    assert {(row["method"], row["level"]) for row in table.rows} == wanted
    for row in table.rows:
        assert np.isfinite(row[experiment.rates[0].name])
        assert row["seconds"] >= 0
        assert len(row["fingerprint"]) == 16
    assert all(row["published"] is None for row in table.summary)
    assert table.margins == ()
    assert (tmp_path / "results.md").read_text() == markdown(table)
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    again = reproduce_table(TableConfig(experiment=name, trial=True), tmp_path)  # nothing is measured twice
    assert again.rows == table.rows
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(["check", str(tmp_path), "--min-accuracy", "0.5"])
    assert stop.value.code == 1
    assert capsys.readouterr().out == "cannot be judged: reproduce measured no accuracy here\n"
    cli.main(["show", str(tmp_path)])
    assert "A trial: generated data, tiny networks" in " ".join(capsys.readouterr().out.split())


def test_the_list_says_what_can_run_now(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("JAXDEBIAS_DATA", raising=False)
    listed = {one.experiment.name: one for one in list_experiments()}
    assert list(listed) == list(EXPERIMENTS)
    assert len(listed) >= AT_LEAST
    assert listed["fmd-digits"].ready
    assert not listed["sih-colored-mnist"].ready
    assert "MNIST" in listed["sih-colored-mnist"].detail
    trial = EXPERIMENTS["bffhq"].trial
    trial.write(tmp_path)
    found = {one.experiment.name: one for one in list_experiments(tmp_path)}
    assert found["bffhq"].ready
    assert not found["bar"].ready
    print_experiments(found.values())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(EXPERIMENTS)  # one line each
    (line,) = (line for line in lines if line.startswith("bar "))
    assert "missing" in line
    assert "needs bar/" in line


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_row_of_the_registry_fits_together(name):
    experiment = EXPERIMENTS[name]
    assert all((experiment.title, experiment.paper, experiment.place, experiment.cost, experiment.rates))
    assert len(set(experiment.methods)) == len(experiment.methods)
    assert set(experiment.usual) <= set(experiment.methods)
    assert set(experiment.trial.methods) <= set(experiment.methods)
    assert experiment.baseline in experiment.methods
    assert {name for pair in experiment.against for name in pair} <= set(experiment.methods)
    assert experiment.open_levels or set(experiment.trial.levels) <= set(experiment.levels)
    assert (experiment.files is None) == (experiment.trial.write is None)
    known = {rate.name for rate in experiment.rates}
    for margin in experiment.margins:
        assert margin.method in experiment.methods
        assert margin.level in experiment.levels
        assert margin.rate in known
        assert margin.sign in ("<=", ">=")
