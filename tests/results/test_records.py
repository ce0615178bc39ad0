import json
import math

import numpy as np
import pytest
from report.fake_results import FAKES

from jaxdebias.contracts import ContractError
from jaxdebias.results.records import METRIC_KEYS, check_results, read_results, to_json, write_results


@pytest.fixture
def plain():
    return to_json(FAKES["birds"]())  # few groups: quick to check many times


@pytest.mark.parametrize("name", FAKES)
def test_round_trip(name, tmp_path):
    results = FAKES[name]()
    write_results(results, tmp_path / "run" / "results.json")
    back = read_results(tmp_path / "run")
    assert back == to_json(results)
    assert back["before"]["accuracy"]["value"] == results["before"]["accuracy"]["value"]  # no rounding


def test_file_is_strict_json_without_nan(tmp_path):
    write_results(FAKES["census"](), tmp_path / "results.json")

    def refuse(token):
        raise AssertionError(token)

    loss = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)["training"]["loss"]
    assert loss == [0.45, None, 0.31]


def test_to_json_numpy_and_jax_and_tuples():
    import jax.numpy as jnp

    out = to_json({"a": jnp.float32(1.5), "b": np.array([[True]]), "c": (np.int64(2), math.inf), 3: np.str_("x")})
    assert out == {"a": 1.5, "b": [[True]], "c": [2, None], "3": "x"}
    assert json.dumps(out)


@pytest.mark.parametrize("bad", [object(), {1, 2}, lambda: 0])
def test_to_json_names_what_it_cannot_write(bad):
    with pytest.raises(ContractError, match=r"results\.edit\[0\]"):
        to_json({"edit": [bad]})


def test_every_missing_key_is_named(plain):
    for key in [k for k in plain if k not in ("attribute", "items", "level", "changes", "harmful_rows")]:
        with pytest.raises(ContractError, match=f"'{key}'"):
            check_results({k: v for k, v in plain.items() if k != key})
    for key in (*METRIC_KEYS, "groups", "confusion_by_group"):
        broken = {**plain, "after": {k: v for k, v in plain["after"].items() if k != key}}
        with pytest.raises(ContractError, match=f"`after`: .*'{key}'"):
            check_results(broken)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", "0", "`results.seed`: expected int"),
        ("seed", True, "`results.seed`: expected int"),
        ("after", [], "`results.after`: expected dict or null"),
        ("train_counts", [[1]], r"`train_counts`: expected numbers in nested lists \[2, 2\], got \[1, 1\]"),
        ("aligned", [[True], [True, False]], "`aligned`: .* got something else"),
        ("edit", {"accepted": True}, "`edit`: expected a key 'reason'"),
        ("harmful", [{"index": 0}], r"`harmful\[0\]`: expected a key 'label'"),
    ],
)
def test_wrong_values_are_named(plain, key, value, message):
    with pytest.raises(ContractError, match=message):
        check_results({**plain, key: value})


def test_a_percentage_is_refused(plain):
    plain["before"]["accuracy"] = {"value": 97.0, "low": 96.0, "high": 98.0, "n": 10}
    with pytest.raises(ContractError, match=r"`before.accuracy.value`: expected a fraction in 0..1, got 97.0"):
        check_results(plain)


def test_failed_write_leaves_the_old_file(tmp_path, plain, monkeypatch):
    path = tmp_path / "results.json"
    write_results(plain, path)
    old = path.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_results({**plain, "seed": 7}, path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(("content", "message"), [(None, "no such file"), ("{", "expected JSON"), ("{}", "'dataset'")])
def test_reading_errors_are_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(ContractError, match=message) as error:
        read_results(tmp_path / "results.json")
    assert "\n" not in str(error.value)
