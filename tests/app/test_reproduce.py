"""`jaxdebias reproduce` as a user meets it: the list, a trial, former names, one-line errors."""

import json

import pytest

from jaxdebias import reproduce
from jaxdebias.app import cli
from jaxdebias.app.old_spellings import modern
from jaxdebias.reproduce import EXPERIMENTS


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(["reproduce", *arguments])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.count("\n") == 1, said
    return said


def test_without_a_name_it_lists_every_table(capsys, monkeypatch):
    monkeypatch.delenv("JAXDEBIAS_DATA", raising=False)
    cli.main(["reproduce"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(EXPERIMENTS)]] == list(EXPERIMENTS)
    assert {line.split()[1] for line in lines[: len(EXPERIMENTS)]} == {"ready", "missing"}


@pytest.mark.slow
@pytest.mark.unoptimised
def test_a_trial_by_its_former_name(capsys, tmp_path):
    arguments = ["reproduce", "colored-mnist", "--trial", "--ratios", "0.3", "--methods", "erm"]
    cli.main([*arguments, "--out", str(tmp_path / "table.json")])
    said = capsys.readouterr()
    assert "now spelled: jaxdebias reproduce sih-colored-mnist --trial --levels 0.3" in said.err
    assert "A trial" in said.out
    table = json.loads((tmp_path / "table.json").read_text())
    assert [(row["method"], row["level"]) for row in table["rows"]] == [("erm", 0.3)]
    assert table["provenance"]["arguments"]["trial"] is True
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md", ".png"}


@pytest.mark.slow
@pytest.mark.unoptimised
def test_all_tries_every_table_one_after_the_other(capsys, monkeypatch):
    monkeypatch.setattr(reproduce, "EXPERIMENTS", {"celeba-groups": EXPERIMENTS["celeba-groups"]})
    cli.main(["reproduce", "all", "--trial"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("celeba-groups: ")
    assert lines[-1].endswith(": 1 tables in miniature")


def test_bad_arguments_are_one_line(capsys, tmp_path):
    out = ("--out", str(tmp_path / "x.json"))
    assert "`table`: expected one of" in fails(capsys, "sih-colored-mnits", *out)
    assert "did you mean" in fails(capsys, "sih-colored-mnits", *out)
    assert "`out`: expected a JSON file or a folder, or --trial" in fails(capsys, "fmd-digits")
    assert "`table`: expected one table, or all with --trial" in fails(capsys, "all", *out)
    assert "`methods`" in fails(capsys, "fmd-digits", "--methods", "fmmd", *out)
    assert "`levels`" in fails(capsys, "bffhq", "--levels", "9pct", *out)
    assert "`levels`: expected shares between 0 and 1" in fails(capsys, "fmd-digits", "--levels", "half", *out)
    assert not (tmp_path / "x.json").exists()


def test_a_file_that_is_called_as_a_table_was_keeps_its_name():
    given = ["reproduce", "sih-colored-mnist", "--out", "colored-mnist"]
    assert modern(given) == (given, False)
