"""Writing and reading `results.json`: whole, strict, of this version, or refused by name in one line."""

import dataclasses
import json
import math

import numpy as np
import pytest
from results.small_records import SMALL, change, features, language, measurement, rate, run, verdict

from jaxdebias.contracts import ContractError
from jaxdebias.results.codec import SCHEMA, from_json, read_results, read_run, to_json, write_results


@pytest.mark.parametrize("name", SMALL)
def test_round_trip(name, tmp_path):
    record = SMALL[name]()
    write_results(tmp_path / "run" / "results.json", record)
    assert read_results(tmp_path / "run") == record
    assert read_results(tmp_path / "run" / "results.json") == record


@pytest.mark.parametrize("name", SMALL)
def test_envelope_is_the_same_for_all(name):
    plain = to_json(SMALL[name]())
    assert list(plain)[:3] == ["schema", "command", "provenance"]
    assert plain["schema"] == SCHEMA
    keys = ["versions", "device", "date", "seconds", "seconds_by_step", "seconds_by_part", "seed", "arguments", "data"]
    assert list(plain["provenance"]) == keys


def test_json_keys_are_the_fields_without_those_at_their_default():
    plain = to_json(run())
    assert "maps" not in plain
    assert plain["after"] is None
    assert plain["before"]["worst_group_accuracy"]["group"] == "cat · dark"
    assert "group" not in plain["before"]["accuracy"]
    assert plain["training"] == {"epochs": 2, "loss": [0.5, None]}
    assert "separable" not in to_json(run(changes={"accuracy": change(0.1)}))["changes"]["accuracy"]
    told = change(0.1, p=0.01, discordant=9, separable=True)
    assert to_json(run(changes={"accuracy": told}))["changes"]["accuracy"]["separable"] is True


def test_class_of_a_verdict_is_called_so():
    plain = to_json(run(verdict=verdict()))
    (entry,) = plain["verdict"]["disparity"]
    assert entry["class"] == "cat"
    assert from_json(plain).verdict.disparity[0].class_ == "cat"
    entry["class_"] = entry.pop("class")
    entry["class"] = None
    with pytest.raises(ContractError):
        from_json(plain)


def test_no_rounding(tmp_path):
    third = dataclasses.replace(rate(0.5), value=1 / 3)
    write_results(tmp_path / "results.json", run(before=dataclasses.replace(measurement(), accuracy=third)))
    assert read_run(tmp_path).before.accuracy.value == 1 / 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_are_refused_by_name(bad, tmp_path):
    record = run(training=dataclasses.replace(run().training, loss=(0.5, bad)))
    with pytest.raises(ContractError, match=r"`results.training.loss\[1\]`: expected a finite number or null"):
        write_results(tmp_path / "results.json", record)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [np.int64(3), np.zeros(2), object(), {1, 2}])
def test_what_is_no_json_is_refused_by_name(bad):
    with pytest.raises(ContractError, match=r"`results.variant.size`: expected a JSON value"):
        to_json(run(variant={"size": bad}))


@pytest.mark.parametrize("name", SMALL)
def test_every_key_that_must_be_there_is_missed_by_name(name):
    record, plain = SMALL[name](), to_json(SMALL[name]())
    needed = [one.name for one in dataclasses.fields(record) if one.default is dataclasses.MISSING]
    for key in needed:
        with pytest.raises(ContractError, match=key):
            from_json({k: v for k, v in plain.items() if k != key})
    for key in plain["provenance"]:
        broken = {k: v for k, v in plain["provenance"].items() if k != key}
        with pytest.raises(ContractError, match=f"`results.provenance`: expected a key '{key}'"):
            from_json({**plain, "provenance": broken})


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("provenance", "seed"), "0", "`results.provenance.seed`: expected int, got str"),
        (("provenance", "seed"), True, "`results.provenance.seed`: expected int, got bool"),
        (("after",), [], "`results.after`: expected dict | null, got list"),
        (("before", "accuracy", "value"), 97.0, "`results.before.accuracy.value`: expected float <= 1.0"),
        (("before", "groups", 1, "n"), -1, "`results.before.groups[1].n`: expected int >= 0"),
        (("pairing",), "some", "`results.pairing`: invalid enum value 'some'"),
        (("train_counts",), [[1]], "`results, `train_counts`: expected numbers in nested lists [2, 2], got [1, 1]"),
        (("train_counts",), [[1, 2], [3]], "expected numbers in nested lists [2, 2], got rows of unequal length"),
        (("harmful", 0, "label"), 2, "`harmful[0].label`: expected a number in 0..1, got 2"),
        (("harmful", 0, "attribute"), -2, "`harmful[0].attribute`: expected a number in -1..1, got -2"),
        (("before", "confusion_by_group"), [[[1, 2]]], "`before.confusion_by_group`: expected numbers in nested"),
    ],
)
def test_wrong_values_are_named(where, value, message):
    plain = to_json(run())
    *path, last = where
    inside = plain
    for step in path:
        inside = inside[step]
    inside[last] = value
    with pytest.raises(ContractError) as error:
        from_json(plain)
    assert message.removeprefix("`results, ") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("where", "name"),
    [((), "more"), (("before",), "before.more"), (("before", "groups", 1), "before.groups[1].more")],
)
def test_what_the_record_cannot_hold_is_not_dropped_in_silence(where, name):
    plain = to_json(run())
    inside = plain
    for step in where:
        inside = inside[step]
    inside["more"] = 1
    with pytest.raises(ContractError, match="only keys of this version") as error:
        from_json(plain)
    assert str(error.value).endswith(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{", "expected JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "expected results of jaxdebias, with a key 'schema', got no key"),
        ('{"name": 1}', "expected results of jaxdebias, with a key 'schema', got name"),
        ('{"dataset": "digits", "before": {}, "seed": 0}', "those of a former version: run the command again"),
        ('{"schema": 1, "command": "train"}', f"expected results of format {SCHEMA}, got format 1"),
        ('{"schema": 3, "command": "train"}', f"expected results of format {SCHEMA}, got format 3"),
        ('{"schema": 2, "command": "bake"}', "expected one of train, debias, .*, got 'bake'"),
        ('{"schema": 2}', "expected one of train, debias, .*, got None"),
        ('{"schema": 2, "command": "train", "seed": NaN}', "NaN, which JSON does not have"),
    ],
)
def test_reading_errors_are_one_line_and_name_the_file(tmp_path, content, message):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(ContractError, match=message) as error:
        read_results(tmp_path / "results.json")
    assert "\n" not in str(error.value)
    assert str(tmp_path / "results.json") in str(error.value)


def test_a_run_is_asked_for_by_kind(tmp_path):
    for record in (features(), language()):
        write_results(tmp_path / "results.json", record)
        with pytest.raises(ContractError, match=f"expected results of train, debias.* got those of {record.command}"):
            read_run(tmp_path)


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_results(path, run())
    old = path.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(ContractError, match="disk full"):
        write_results(path, run(method="dfr"))
    assert path.read_bytes() == old
    assert [one.name for one in tmp_path.iterdir()] == ["results.json"]


def test_file_is_strict_json(tmp_path):
    write_results(tmp_path / "results.json", run())

    def refuse(token):
        raise AssertionError(token)

    assert json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)["training"]["loss"][1] is None
