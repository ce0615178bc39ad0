"""The two files that say what `results.json` holds are made from the records, and what is written follows them."""

import importlib.util
import json
import pathlib

import pytest
from report.fake_results import FAKES
from results.small_records import SMALL

from jaxdebias.results.codec import to_json

DOCS = pathlib.Path(__file__).parents[2] / "docs"
TYPES = {"string": str, "number": (int, float), "integer": int, "boolean": bool, "array": list, "object": dict,
         "null": type(None)}  # fmt: skip


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("results_schema", DOCS / "results_schema.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def schema():
    return json.loads((DOCS / "results.schema.json").read_text(encoding="utf-8"))


def faults(value, part, schema, where="results"):
    """What a value breaks of a JSON Schema: the few words of it that ours uses."""
    if "$ref" in part:
        return faults(value, schema["$defs"][part["$ref"].removeprefix("#/$defs/")], schema, where)
    for several in ("anyOf", "oneOf"):
        if several in part:
            found = [faults(value, one, schema, where) for one in part[several]]
            return [] if [] in found else found[0]
    if "const" in part or "enum" in part:
        return [] if value in part.get("enum", [part.get("const")]) else [f"{where}: {value!r}"]
    kind = part.get("type")
    if kind is not None and not (isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))):
        return [f"{where}: {kind}"]
    found = []
    if isinstance(value, dict):
        found += [f"{where}: {key} is missing" for key in part.get("required", ()) if key not in value]
        for key, one in value.items():
            inside = part.get("properties", {}).get(key, part.get("additionalProperties", {}))
            found += faults(one, inside, schema, f"{where}.{key}")
        if "properties" in part:
            found += [f"{where}: {key} is unknown" for key in value if key not in part["properties"]]
    elif isinstance(value, list):
        for i, one in enumerate(value):
            inside = part["prefixItems"][i] if "prefixItems" in part else part.get("items") or {}
            found += faults(one, inside, schema, f"{where}[{i}]")
    elif isinstance(value, int | float):
        inside = part.get("minimum", value) <= value <= part.get("maximum", value)
        found += [] if inside else [f"{where}: {value}"]
    return found


def test_the_files_are_current(script):
    for name, text in script.files().items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, "run python docs/results_schema.py"


def test_every_key_is_described(schema):
    texts = [
        (name, key, of["description"])
        for name, part in schema["$defs"].items()
        for key, of in part["properties"].items()
    ]
    assert len(texts) > 300
    for name, key, text in texts:
        assert text.strip().endswith("."), (name, key)
        assert text[0].isupper() or text[0] in "`0", (name, key)
    for name, part in schema["$defs"].items():
        assert part["description"], name


@pytest.mark.parametrize("name", [*FAKES, *SMALL])
def test_what_is_written_follows_the_schema(schema, name):
    plain = to_json({**FAKES, **SMALL}[name]())
    assert faults(plain, schema, schema) == []


def test_other_values_do_not_follow_it(schema):
    run = schema["$defs"]["RunResults"]
    plain = to_json(FAKES["birds"]())
    assert faults(plain | {"command": "bake"}, run, schema) == ["results.command: 'bake'"]
    plain["before"]["accuracy"]["value"] = 97.0
    del plain["before"]["groups"][0]["n"]
    plain["provenance"]["seed"] = "0"
    assert faults(plain, run, schema) == [
        "results.provenance.seed: integer",
        "results.before.accuracy.value: 97.0",
        "results.before.groups[0]: n is missing",
    ]


def test_class_is_called_so(schema):
    assert "class" in schema["$defs"]["Disparity"]["required"]
    assert "class_" not in schema["$defs"]["Disparity"]["properties"]
