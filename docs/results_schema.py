"""Writes what `results.json` holds, for people and for programs, from the records and the docstrings of their fields.

`python docs/results_schema.py` writes results.md and results.schema.json beside itself; with `--check` it changes
nothing and exits with 1 where one of them is not current.
"""

import argparse
import ast
import inspect
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec

from jaxdebias.results import codec, records

HERE = Path(__file__).parent
KINDS = (
    records.RunResults,
    records.FeatureResults,
    records.LanguageResults,
    records.CompareResults,
    records.TableResults,
)
HEAD = f"""# What `results.json` holds

Every command writes one: strict JSON (no NaN), whole or not at all. `jaxdebias.results.codec.read_results` reads and
checks it; [results.schema.json](results.schema.json) is the same for other programs (JSON Schema, 2020-12). Written by
`python docs/results_schema.py` from `jaxdebias/results/records.py`.

All keys lie at the top level: `schema`, the version of the format, {codec.SCHEMA}; `command` and `provenance`, the same
for every command; then what the command found. A key marked *optional* is left out where it does not apply. Rates and
differences are fractions in 0..1.
"""


def field_docstrings(kind: type) -> dict[str, str]:
    """Field -> the string below it, of a dataclass and those that it extends."""
    found = {}
    for base in reversed(kind.__mro__[:-1]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                found[field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return found


def schema() -> dict[str, Any]:
    """As JSON Schema. What it cannot say (tables that fit the names, indices that exist) reading checks."""
    tops, parts = msgspec.json.schema_components(KINDS, ref_template="#/$defs/{name}")
    for name, part in parts.items():
        texts = field_docstrings(getattr(records, name))
        part["description"] = " ".join(part["description"].split())
        part["properties"] = {
            codec.json_name(key): {**value, "description": texts[key]} for key, value in part["properties"].items()
        }
        part["required"] = [codec.json_name(key) for key in part["required"]]
    for kind in KINDS:
        part = parts[kind.__name__]
        version = {"const": codec.SCHEMA, "description": "Version of the format."}
        part["properties"] = {"schema": version, **part["properties"]}
        part["required"] = ["schema", *part["required"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "results.json of jaxdebias",
        "oneOf": list(tops),
        "$defs": parts,
    }


def type_text(of: dict[str, Any]) -> str:
    """A type as people read it: `number`, `Rate`, `list of Group`."""
    if "$ref" in of:
        name = of["$ref"].removeprefix("#/$defs/")
        return f"[{name}](#{name.lower()})"
    if "anyOf" in of:
        return " or ".join(map(type_text, of["anyOf"]))
    if "enum" in of:
        return " or ".join(f"`{json.dumps(value)}`" for value in of["enum"])
    if "const" in of:
        return f"`{json.dumps(of['const'])}`"
    if of.get("type") == "array":
        inside = of.get("items") or (of.get("prefixItems") or [{}])[0]
        return f"list of {type_text(inside)}" if inside else "list"
    if of.get("type") == "object":
        inside = of.get("additionalProperties")
        return f"name → {type_text(inside)}" if inside else "object"
    return of.get("type", "any value")


def table(part: dict[str, Any]) -> list[str]:
    """A row for each key."""
    lines = ["| key | type | what it holds |", "| --- | --- | --- |"]
    for key, of in part["properties"].items():
        optional = "" if key in part["required"] else "*optional* "
        if optional and "anyOf" in of:
            of = {**of, "anyOf": [one for one in of["anyOf"] if one != {"type": "null"}]}
        lines.append(f"| `{key}` | {optional}{type_text(of)} | {of['description']} |")
    return lines


def page() -> str:
    """As Markdown: the three kinds, then every record that they hold."""
    parts = schema()["$defs"]
    lines = [HEAD]
    tops = [kind.__name__ for kind in KINDS]
    for name in (*tops, *(name for name in parts if name not in tops)):
        heading = f"{'##' if name in tops else '###'} {name}"
        lines += [heading, "", parts[name]["description"], "", *table(parts[name]), ""]
    return "\n".join(lines).rstrip() + "\n"


def files() -> dict[str, str]:
    """Name -> what it should hold."""
    return {"results.md": page(), "results.schema.json": json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is not current")
    check = parser.parse_args().check
    old = []
    for name, text in files().items():
        path = HERE / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            old.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    print(f"{', '.join(old) or 'nothing'} {'not current' if check else 'written'}")
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
