import importlib.util
import json
import pathlib

import pytest
from report.fake_results import FAKES

from jaxdebias.results import records as module
from jaxdebias.results.records import to_json

DOCS = pathlib.Path(__file__).parents[2] / "docs"
TYPES = {"string": str, "number": (int, float), "integer": int, "boolean": bool, "array": list, "object": dict,
         "null": type(None)}  # fmt: skip


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("results_schema", DOCS / "results_schema.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def faults(value, schema, where="results"):
    """What a value breaks of a JSON Schema: the few words of it that ours uses."""
    if "anyOf" in schema:
        found = [faults(value, one, where) for one in schema["anyOf"]]
        return [] if [] in found else found[0]
    kinds = schema.get("type", list(TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
               for kind in kinds):  # fmt: skip
        return [f"{where}: {kinds}"]
    found = []
    if isinstance(value, dict):
        found += [f"{where}: {key} is missing" for key in schema.get("required", ()) if key not in value]
        for key, one in value.items():
            inside = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
            found += faults(one, inside, f"{where}.{key}")
    elif isinstance(value, list):
        found += [f"{where}: too few"] * (len(value) < schema.get("minItems", 0))
        for i, one in enumerate(value):
            found += faults(one, schema.get("items", {}), f"{where}[{i}]")
    elif isinstance(value, int | float):
        inside = schema.get("minimum", value) <= value <= schema.get("maximum", value)
        found += [] if inside else [f"{where}: {value}"]
    return found


def test_the_files_are_what_the_module_says(script):
    for name, text in script.files().items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, "run python docs/results_schema.py"


def test_every_key_is_described_to_people():
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    for table in [value for name, value in vars(module).items() if name.isupper() and isinstance(value, dict)]:
        for key in table:
            assert f"`{key}`" in text, key
    for key in module.METRIC_KEYS:
        assert f"`{key}`" in text, key


@pytest.mark.parametrize("name", FAKES)
def test_the_schema_holds_for_results_and_not_for_others(script, name):
    schema, results = json.loads(json.dumps(script.schema())), to_json(FAKES[name]())
    assert faults(results, schema) == []
    assert faults(results | {"seed": "0"}, schema) == ["results.seed: ['integer']"]
    results["before"]["accuracy"]["value"] = 97.0
    del results["before"]["groups"][0]["n"]
    assert faults(results, schema) == ["results.before.accuracy.value: 97.0", "results.before.groups[0]: n is missing"]
