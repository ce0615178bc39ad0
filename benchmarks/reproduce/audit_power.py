"""Is what predictions show about reliance true? `python benchmarks/reproduce/audit_power.py` (no files, 10 minutes)

Predictions are simulated (`audit_families.py`), so that it is known whether the model relies on an attribute.
`measure.assess_reliance` gets the table, and where there are twins, `measure.quote_interventions` what they did. A
*claim* is the state `shown` or `shown_given`. It is false where the attribute is not used: in clean families, and of
the proxies of an attribute that is used. Families that cannot be told from reliance, or from its absence, by anyone
are reported apart.

The margins were fixed before the run: at most 2 % of the clean sets hold a false claim, with an upper limit of at most
4 %; in no family are false claims significantly above 5 %; the power for two balanced classes is not significantly
below that of the specification (`SPECIFIED`). Families, designs and rules were tried on other seeds. Resumable: designs
in the file are kept if they have as many sets. What networks do that are trained on generated data, and what the whole
audit advises, is measured by `audit_networks.py`.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from audit_families import FAMILIES, Table
from interval_coverage import write

from jaxdebias.measure import (
    Reliance,
    assess_reliance,
    changed_value_reliance,
    intervention_reliance,
    proportion_interval,
    quote_interventions,
)
from jaxdebias.results.provenance import device_name, versions

RESULTS = Path(__file__).parents[1] / "results"
SETS = {"clean": 320, "reliance": 320, "apart": 640}
"""Least number of sets of a family, by its kind; all its designs have equally many."""
EACH = {"balanced labels": {500: 600, 2000: 200}}
"""Sets of each design by its rows, in families whose designs are looked at one by one; the small ones are cheap."""
STATES = ("shown", "shown_given", "consistent", "no_sign", "cannot_tell")
CLAIMS = ("shown", "shown_given")
MOST_FALSE, MOST_FALSE_LIMIT, MOST_OF_FAMILY = 0.02, 0.04, 0.05
SPECIFIED = {
    (0.07, 500, True): 0.40,
    (0.07, 2000, True): 0.98,
    (0.14, 500, True): 0.97,
    (0.14, 2000, True): 1.0,
    (0.07, 500, False): 0.23,
    (0.07, 2000, False): 0.70,
    (0.14, 500, False): 0.73,
    (0.14, 2000, False): 1.0,
}
"""Power of balanced classes drawn as they come, by (gap, n, whether there are scores)."""
WRITE_EVERY = 60.0
"""Seconds."""


def sets_of(name: str, number: int, scale: float) -> int:
    """Sets of a design."""
    family = FAMILIES[name]
    sets = -(-SETS[family.kind] // len(family.designs))
    if name in EACH:
        sets = EACH[name][family.designs[number]["n"]]
    return max(1, round(scale * sets))


def answers(made: Table, key: Any) -> dict[str, Reliance]:
    """The answer for every attribute of a table, on the strongest evidence."""
    found = assess_reliance(**made.arguments, key=key)
    effects = {
        name: [intervention_reliance(before, after, toward, control=control, key=key)]
        for name, (before, after, control, toward) in made.twins.items()
    }
    changes = {name: [changed_value_reliance(*of, key=key)] for name, of in made.changed.items()}
    return quote_interventions(found, effects | changes)


def measured(name: str, number: int, sets: int) -> dict[str, Any]:
    """Counts over the sets of one design."""
    family, began = FAMILIES[name], time.perf_counter()
    design = family.designs[number]
    row: dict[str, Any] = {"family": name, "kind": family.kind, "design": design, "sets": sets}
    counts = dict.fromkeys(("false", "leans", "used"), 0) | dict.fromkeys(STATES, 0)
    seed = zlib.crc32(f"{name} {sorted(design.items())}".encode())
    for index in range(sets):
        made = family.make(np.random.default_rng([seed, index]), **design)
        found = answers(made, jax.random.fold_in(jax.random.key(seed), index))
        used = {"used"} if family.kind != "clean" else set()
        claimed = {attribute for attribute, answer in found.items() if answer.state in CLAIMS}
        counts["false"] += bool(claimed - used)
        counts["used"] += bool(claimed & used)
        counts["leans"] += any(answer.p is not None and answer.p <= 0.05 for answer in found.values())
        # Of the attribute that is used, or of the one that has got furthest.
        main = found["used"].state if used & set(found) else min((a.state for a in found.values()), key=STATES.index)
        counts[main] += 1
    return row | counts | {"seconds": round(time.perf_counter() - began, 2)}


def share(count: int, sets: int) -> dict[str, float]:
    """A share with its exact interval."""
    return {name: round(float(value), 4) for name, value in proportion_interval(count, sets)._asdict().items()}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """False claims by family and pooled, claims of what is used, and power by design of balanced labels."""
    out: dict[str, Any] = {"families": [], "power": []}
    for name in dict.fromkeys(row["family"] for row in rows):
        own = [row for row in rows if row["family"] == name]
        total = {field: sum(row[field] for row in own) for field in ("sets", "false", "used", "leans", *STATES)}
        out["families"].append(
            {
                "family": name,
                "kind": own[0]["kind"],
                "designs": len(own),
                "sets": total["sets"],
                "false": share(total["false"], total["sets"]),
                "used": share(total["used"], total["sets"]),
                "leans": share(total["leans"], total["sets"]),
                "states": {state: total[state] for state in STATES if total[state]},
                "worst": max(share(row["false"], row["sets"])["value"] for row in own),
            }
        )
    clean = [row for row in rows if row["kind"] == "clean"]
    if clean:
        out["pooled"] = share(sum(row["false"] for row in clean), sum(row["sets"] for row in clean))
    for row in rows:
        if row["family"] == "balanced labels":
            design = row["design"]
            specified = SPECIFIED.get((design["gap"], design["n"], design["scores"]))
            out["power"].append(
                {
                    **design,
                    "power": share(row["used"], row["sets"]),
                    "leans": share(row["leans"], row["sets"]),
                    "specified": specified if design["drawn"] == "as_they_come" else None,
                }
            )
    return out


def margins(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What was asked, what was found, and whether it is met."""
    out = []
    if "pooled" in found:
        pooled = found["pooled"]
        met = pooled["value"] <= MOST_FALSE and pooled["high"] <= MOST_FALSE_LIMIT
        out.append(
            {"margin": "false claims, clean families pooled: at most 2 %, upper limit 4 %", **pooled, "met": met}
        )
    for one in found["families"]:
        if one["kind"] != "apart":
            met = one["false"]["low"] <= MOST_OF_FAMILY
            out.append({"margin": f"false claims, {one['family']}: not above 5 %", **one["false"], "met": met})
    for one in found["power"]:
        if one["specified"] is not None:
            name = f"gap {100 * one['gap']:.0f}, n {one['n']}, {'with' if one['scores'] else 'without'} scores"
            met = one["power"]["high"] >= one["specified"]
            out.append({"margin": f"power, {name}: at least {one['specified']}", **one["power"], "met": met})
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "audit_power.json")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES), metavar="FAMILY")
    parser.add_argument("--scale", type=float, default=1.0, help="number of sets, relative to the full run")
    parser.add_argument("--trial", action="store_true", help="one set of each design, into a temporary folder")
    args = parser.parse_args()
    scale = 0.0 if args.trial else args.scale
    out = Path(tempfile.mkdtemp()) / args.out.name if args.trial else args.out
    plan = [(name, number) for name in args.families for number in range(len(FAMILIES[name].designs))]
    kept = json.loads(out.read_text())["rows"] if out.exists() else []
    done = {json.dumps([row["family"], row["design"], row["sets"]]): row for row in kept}
    rows, written = [], time.perf_counter()
    for count, (name, number) in enumerate(plan):
        sets = sets_of(name, number, scale)
        known = done.get(json.dumps([name, FAMILIES[name].designs[number], sets]))
        rows.append(known or measured(name, number, sets))
        last = count == len(plan) - 1
        if last or (known is None and time.perf_counter() - written > WRITE_EVERY):
            written = time.perf_counter()
            named = {(row["family"], json.dumps(row["design"])) for row in rows}
            rest = [row for row in kept if (row["family"], json.dumps(row["design"])) not in named]
            found = summary([*rows, *rest])
            provenance = {
                "planned": sum(len(family.designs) for family in FAMILIES.values()),
                "device": device_name(),
                "versions": versions(),
                "cores": len(os.sched_getaffinity(0)),
                "date": time.strftime("%Y-%m-%d"),
                "seeds": "CRC-32 of family and design, then the number of the set",
                "seconds": round(sum(row["seconds"] for row in [*rows, *rest])),
            }
            write(out, provenance | {"summary": found, "margins": margins(found), "rows": rows + rest})
            print(f"{count + 1} of {len(plan)} designs: {name}", flush=True)
    missed = [one for one in margins(summary(rows)) if not one["met"]]
    for one in missed:
        print(f"MISSED {one['margin']}: {one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})")
    print(out)
    return 0 if args.trial else int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
