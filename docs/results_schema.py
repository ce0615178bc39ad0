"""Writes what `results.json` holds, for people and for programs, from the module that checks it.

`python docs/results_schema.py` writes results.md and results.schema.json beside itself; with `--check` it changes
nothing and exits with 1 where one of them has drifted from `jaxdebias.results.records`.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdebias.results import records as module

HERE = Path(__file__).parent
HEAD = """# What `results.json` holds

Every run, repair and audit writes one: strict JSON (no NaN), whole or not at all. `jaxdebias.results.read_results`
reads and checks it; [results.schema.json](results.schema.json) is the same for other programs (JSON Schema, 2020-12).
Keys are added, not renamed; what is not listed may be there too. Written by `python docs/results_schema.py` from the
docstring of `jaxdebias/results/records.py`.

"""


def kinds(kind: type | tuple[type, ...]) -> Any:
    names = {
        str: "string",
        int: "integer",
        bool: "boolean",
        list: "array",
        Mapping: "object",
        type(None): "null",
        module.Number: "number",
    }
    found = [names[one] for one in (kind if isinstance(kind, tuple) else (kind,))]
    return found[0] if len(found) == 1 else found


def table(keys: Mapping[str, Any], **inside: Any) -> dict[str, Any]:
    """The schema of a dict that has these keys; `inside`: what more is known of some of them."""
    properties = {key: {"type": kinds(kind)} for key, kind in keys.items()}
    for key, more in inside.items():
        properties[key] = {**properties.get(key, {}), **more}
    return {"type": "object", "required": list(keys), "properties": properties}


def rows(of: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def or_null(of: Mapping[str, Any]) -> dict[str, Any]:
    return {**of, "type": [of["type"], "null"]}


def schema() -> dict[str, Any]:
    """As JSON Schema. What it cannot say (shapes that depend on the names, matching numbers) the module checks."""
    share = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
    rate = table(module._RATE, **dict.fromkeys(("value", "low", "high"), share))
    change = table(dict.fromkeys(("value", "low", "high"), (module.Number, type(None))))
    measurement = table(
        dict.fromkeys(module.METRIC_KEYS, (Mapping, type(None))) | {"groups": list, "confusion_by_group": list},
        **dict.fromkeys(module.METRIC_KEYS, or_null(rate)),
        groups=rows(table(module._GROUP, accuracy=or_null(rate))),
    )
    texts, counts = rows({"type": "string"}), rows(rows({"type": "integer", "minimum": 0}))
    ranked = rows(table(module._HARMFUL))
    drawn_groups = rows(table(module._DRAWN_GROUP))
    place = table(module._PLACE, information=table(module._RATE))
    option = table(module._OPTION, expected={"additionalProperties": table(module._RATE)})
    optional = {
        "attribute": {"type": ["string", "null"]},
        "items": {"type": ["string", "null"]},
        "level": {"type": "number"},
        "pairing": {"type": "string"},
        "helpful": ranked,
        "changes": {"type": "object", "additionalProperties": {"anyOf": [change, {"type": "null"}]}},
        "maps": or_null(
            table(
                module._MAPS,
                rows=rows(table(module._MAPS_ROW, regions=rows(table(module._REGION, score=rate, inside=rate)))),
                examples=rows(table(module._EXAMPLE)),
            )
        ),
        "patches": or_null(
            table(module._PATCHES, attribute=place, label=place, examples=rows(table(module._PATCH_EXAMPLE)))
        ),
        "draws": or_null(
            table(
                module._DRAWS,
                groups=drawn_groups,
                conflicting=or_null(table(module._DRAWN_SET)),
                rarest=rows(table(module._DRAWN)),
                commonest=rows(table(module._DRAWN)),
            )
        ),
        "answers": rows(table(module._ANSWER)),
        "advice": or_null(table(module._ADVICE, options=rows(option))),
        "discovered": or_null(
            table(
                {"cells": (Mapping, type(None)), "groups": list},
                cells=or_null(table(module._CELLS, followed=rate)),
                groups=rows(table(module._ERROR_GROUP)),
            )
        ),
    }
    found = table(
        module._KEYS,
        label_names={**texts, "minItems": 1},
        attribute_names={**texts, "minItems": 1},
        train_counts=counts,
        aligned=rows(rows({"type": ["boolean", "integer"]})),
        before=measurement,
        after=or_null(measurement),
        findings=texts,
        harmful=ranked,
        baselines={"additionalProperties": table(module._BASELINE, measurement=measurement)},
        edit=or_null(table(module._EDIT, rounds=rows(table(module._ROUND)))),
        training=table({"epochs": module.Number, "loss": list}, loss=rows({"type": ["number", "null"]})),
        **optional,
    )
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "results.json of jaxdebias", **found}


def files() -> dict[str, str]:
    """Name -> what it should hold."""
    _, _, said = (module.__doc__ or "").partition("\n\n")
    return {"results.md": HEAD + said.strip() + "\n", "results.schema.json": json.dumps(schema(), indent=1) + "\n"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file has drifted")
    check = parser.parse_args().check
    drifted = []
    for name, text in files().items():
        path = HERE / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            drifted.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    print(f"{', '.join(drifted) or 'nothing'} {'has drifted' if check else 'written'}")
    return int(check and bool(drifted))


if __name__ == "__main__":
    sys.exit(main())
