"""What `jaxdebias reproduce fmd-language` measured, summed up for the page.

    python benchmarks/reproduce/language_bias.py TABLE.json

Reads the table and writes `benchmarks/results/language_bias.json`: the rows, means over seeds, by how much each repair
lets the bias fall, and the margins, which were fixed before the first full run. "hides" in the table: of the fall on
`edit` less than half is left on `both`, or of `pronoun`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxdebias.files import write_text
from jaxdebias.language.training_sets import PARTS
from jaxdebias.measure import over_seeds
from jaxdebias.reproduce._language_bias import ALL, KINDS
from jaxdebias.reproduce._language_repairs import PLAIN
from jaxdebias.results.codec import read_results
from jaxdebias.results.records import TableResults

RESULTS = Path(__file__).parents[1] / "results"
SEEDS = 3
# kind, method, quantity, sign, bound. "fall of X": share by which the bias on X falls, mean over seeds. "rise": share
# by which the perplexity rises.
MARGINS = (
    ("gpt2", PLAIN, "edit_signed", ">=", 0.15),
    ("bert", PLAIN, "edit_signed", ">=", 0.10),
    ("gpt2", "FMD, top", "fall of occupations", ">=", 0.5),
    ("gpt2", "FMD, top", "fall of both", ">=", 0.4),
    ("gpt2", "FMD, top", "persons_right", ">=", 0.95),
    ("gpt2", "FMD, top", "rise", "<=", 0.03),
    ("bert", "FMD, top", "fall of occupations", ">=", 0.3),
    ("bert", "FMD, top", "fall of both", ">=", 0.2),
    ("bert", "FMD, top", "persons_right", ">=", 0.95),
    ("bert", "FMD, top", "rise", "<=", 0.04),
    ("gpt2", "influence", "auc", ">=", 0.8),
    ("bert", "influence", "auc", ">=", 0.8),
    ("gpt2", "influence", "random less harmful", ">=", 0.02),
)


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per kind and method: means over seeds with their t-intervals; falls and rises are paired by seed."""
    said = []
    for kind, method in dict.fromkeys((row["kind"], row["method"]) for row in rows):
        own = {row["seed"]: row for row in rows if (row["kind"], row["method"]) == (kind, method)}
        plain = {row["seed"]: row for row in rows if (row["kind"], row["method"]) == (kind, PLAIN)}
        numbers = [
            name
            for name, value in next(iter(own.values())).items()
            if isinstance(value, float) and name not in ("seconds", "cpu_seconds")
        ]
        one: dict[str, Any] = {"kind": kind, "method": method, "seeds": len(own)}
        one |= {name: interval([row[name] for row in own.values()]) for name in numbers}
        if method not in (PLAIN, "influence"):
            for part in PARTS:
                one[f"fall of {part}"] = interval([1 - row[part] / plain[seed][part] for seed, row in own.items()])
            one["rise"] = interval([row["perplexity"] / plain[seed]["perplexity"] - 1 for seed, row in own.items()])
            one["fall of pronoun"] = interval(
                [1 - row["pronoun"] / plain[seed]["pronoun"] for seed, row in own.items()]
            )
            fallen = one["fall of edit"]["value"]
            carried = {part: one[f"fall of {part}"]["value"] >= 0.5 * fallen for part in ("both", "pronoun")}
            one["hides"] = [part for part, far in carried.items() if fallen > 0.2 and not far]
            one["needs"] = next(iter(own.values()))["needs"]
            one["kept as it was"] = sum(
                row["info"].get("chosen") == "as it is" or row["info"].get("accepted") is False for row in own.values()
            )
        said.append(one)
    return said


def interval(values: Sequence[float]) -> dict[str, float]:
    return {name: round(float(value), 5) for name, value in over_seeds(values)._asdict().items()}


def verdicts(said: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = {(one["kind"], one["method"]): one for one in said}
    judged = []
    for kind, method, quantity, sign, bound in MARGINS:
        if quantity in found.get((kind, method), {}):
            got = found[kind, method][quantity]["value"]
            judged.append(
                {
                    "kind": kind,
                    "method": method,
                    "quantity": quantity,
                    "margin": f"{sign} {bound}",
                    "got": got,
                    "met": got >= bound if sign == ">=" else got <= bound,
                }
            )
    return judged


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="JSON file that the command wrote")
    parser.add_argument("--out", type=Path, default=RESULTS / "language_bias.json")
    args = parser.parse_args()
    table = read_results(args.table)
    if not isinstance(table, TableResults) or table.data != "fmd-language":
        sys.exit(f"{args.table}: expected a table of fmd-language")
    rows = [{**row, "kind": row["level"]} for row in table.rows]
    wanted = {(kind, seed, method) for kind in KINDS for seed in range(SEEDS) for method in ALL}
    if wanted - {(row["kind"], row["seed"], row["method"]) for row in rows}:
        sys.exit("not all rows are there yet: no summary")
    said = summary(rows)
    made = {name: rows[-1][name] for name in ("device", "versions", "date")}
    judged = verdicts(said)
    write_text(args.out, json.dumps({"rows": rows, **made, "summary": said, "margins": judged}, indent=1) + "\n")
    for one in judged:
        print(
            f"{'met   ' if one['met'] else 'MISSED'} {one['kind']}, {one['method']}, {one['quantity']} "
            f"{one['margin']}, got {one['got']:.3f}"
        )
    return int(any(not one["met"] for one in judged))


if __name__ == "__main__":
    sys.exit(main())
