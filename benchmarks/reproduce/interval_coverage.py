"""Do the intervals cover, and do the tests hold their level? `python benchmarks/reproduce/interval_coverage.py`

1,729 simulated designs (`coverage_designs.py`: independent rows; `coverage_units.py`: rows of units, means,
calibration), 2,000 data sets each. No files are needed; about 80 minutes on one core, half of them permutations.
Resumable: designs in the file are kept if they have as many simulations.

The margins were fixed before the run. Intervals at 95 %: coverage of at least 93 % (91 % with fewer than 10 units) in
every design; findings where there is nothing: at most 5 % (6.5 % for the largest difference); each less, or plus, two
standard errors of the simulation. `separable` finds changes at least as often as McNemar's exact test; one group at 0.7
among others at 0.9 of 100 rows each is found in at least 95 %.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import coverage_designs
import coverage_units
from coverage_designs import Design

from jaxdebias.results.provenance import device_name, versions

HERE = Path(__file__).parents[1]
PARTS = {**coverage_designs.PARTS, **coverage_units.PARTS}
SIMULATIONS = 2000
FEW_UNITS = 10
LEAST_POWER = 0.95
"""Of the largest difference."""
WRITE_EVERY = 60.0
"""Seconds."""


def plan(parts: Sequence[str] = tuple(PARTS)) -> list[Design]:
    return [design for name in parts for design in PARTS[name].designs(name)]


def standard_error(share: float, simulations: int) -> float:
    return (share * (1.0 - share) / simulations) ** 0.5


def least_coverage(design: Design, simulations: int) -> float:
    """The margin of an interval's coverage; 0 where a part has none."""
    if design.part in coverage_units.UNBOUNDED:
        return 0.0
    bound = 0.91 if design.units and int(design.units.split()[0]) < FEW_UNITS else 0.93
    return bound - 2.0 * standard_error(bound, simulations)


def most_claims(design: Design, simulations: int) -> float:
    """The margin of findings where there is nothing."""
    bound = 0.065 if "largest difference" in design.part else 0.05
    return bound + 2.0 * standard_error(bound, simulations)


def missed(row: dict[str, Any]) -> bool:
    """Whether a design misses its margin."""
    design, simulations = Design(*(row[name] for name in Design._fields)), row["simulations"]
    if "coverage" in row:
        return row["coverage"] < least_coverage(design, simulations) or row["zero_width"] > 0
    if "claimed" in row:
        return row["claimed"] > most_claims(design, simulations)
    least = row.get("mcnemar", LEAST_POWER)
    return row["power"] < least - 2.0 * standard_error(least, simulations)


def measured(design: Design, simulations: int) -> dict[str, Any]:
    began = time.perf_counter()
    counts = PARTS[design.part].simulate(design, simulations)
    seconds = round(time.perf_counter() - began, 2)
    counts = {name: round(value, 5) for name, value in counts.items()}
    return {**design._asdict(), "simulations": simulations, **counts, "seconds": seconds}


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per part: mean and extreme of its main quantity, the extreme design, how many designs miss the margin."""
    out = []
    for name in dict.fromkeys(row["part"] for row in rows):
        of_part = [row for row in rows if row["part"] == name]
        quantity = next(key for key in ("coverage", "claimed", "power") if key in of_part[0])
        worst = sorted(of_part, key=lambda row: row[quantity], reverse=quantity == "claimed")[0]
        out.append(
            {
                "part": name,
                "quantity": quantity,
                "designs": len(of_part),
                "mean": round(sum(row[quantity] for row in of_part) / len(of_part), 4),
                "extreme": worst[quantity],
                "extreme_design": ", ".join(str(worst[f]) for f in Design._fields[1:] if worst[f]),
                "bounded": name not in coverage_units.UNBOUNDED,
                "missed": sum(missed(row) for row in of_part),
            }
        )
    return out


def figure(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Coverage of every design against the nominal 95 %, and findings where there is nothing against 5 %."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = [
        ("coverage", 0.95, 0.93, "coverage of nominal 95 % intervals"),
        ("claimed", 0.05, 0.065, "false findings"),
    ]
    names = {quantity: list(dict.fromkeys(row["part"] for row in rows if quantity in row)) for quantity, *_ in panels}
    heights = [max(len(names[quantity]), 1) for quantity, *_ in panels]
    drawn, axes = plt.subplots(2, 1, figsize=(9, 0.5 * sum(heights) + 1.8), height_ratios=heights, layout="constrained")
    for axis, (quantity, nominal, margin, label) in zip(axes, panels, strict=True):
        for place, name in enumerate(names[quantity]):
            of_part = [row for row in rows if row["part"] == name and quantity in row]
            for few, colour in ((False, "#0063b2"), (True, "#c44e00")):
                chosen = [r for r in of_part if bool(r["units"] and int(r["units"].split()[0]) < FEW_UNITS) == few]
                heights_in = [place + 0.5 * (number / max(len(chosen), 2) - 0.5) for number in range(len(chosen))]
                axis.scatter([row[quantity] for row in chosen], heights_in, s=9, color=colour, alpha=0.6, linewidths=0)
        axis.axvline(nominal, color="#222222", linewidth=1.2)
        axis.axvline(margin, color="#888888", linewidth=1.0, linestyle=(0, (4, 3)))
        axis.set_yticks(range(len(names[quantity])), names[quantity])
        axis.set_ylim(len(names[quantity]) - 0.4, -0.6)
        axis.set_xlabel(label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_title(
        "One dot per design; orange: fewer than 10 units. Line: nominal, dashed: margin.", fontsize=9, loc="left"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=130)
    plt.close(drawn)


def write(path: Path, table: dict[str, Any]) -> None:
    """JSON with a design per line."""
    rows = ",\n  ".join(json.dumps(row) for row in table["rows"])
    rest = json.dumps({name: value for name, value in table.items() if name != "rows"}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(f'{rest[:-2]},\n "rows": [\n  {rows}\n ]\n}}\n')
    os.replace(temporary, path)


def finished(table: dict[str, Any], planned: int) -> dict[str, Any]:
    return {
        "planned": planned,
        "device": device_name(),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
        "seeds": "CRC-32 of the design",
        "seconds": round(sum(row["seconds"] for row in table["rows"])),
        "summary": summary(table["rows"]),
        "rows": table["rows"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "interval_coverage.json")
    parser.add_argument("--figure", type=Path, default=HERE / "figures" / "interval_coverage.png")
    parser.add_argument("--simulations", type=int, default=SIMULATIONS, help="data sets of each design")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--figure-only", action="store_true", help="draw the rows that are there")
    parser.add_argument("--trial", action="store_true", help="a few designs into a temporary folder")
    args = parser.parse_args()
    designs = plan(args.parts)
    if args.trial:
        designs, args.simulations = designs[:: max(1, len(designs) // 20)], min(args.simulations, 200)
        folder = Path(tempfile.mkdtemp())
        args.out, args.figure = folder / args.out.name, folder / args.figure.name
    table = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    if not args.figure_only:
        planned = {tuple(design) for design in plan()}
        kept = {tuple(row[name] for name in Design._fields): row for row in table["rows"]}
        kept = {key: row for key, row in kept.items() if key in planned and row["simulations"] == args.simulations}
        missing = [design for design in designs if tuple(design) not in kept]
        written = time.perf_counter()
        for number, design in enumerate(missing):
            row = kept[tuple(design)] = measured(design, args.simulations)
            if design == missing[-1] or time.perf_counter() - written > WRITE_EVERY:
                table = finished({"rows": list(kept.values())}, len(planned))
                write(args.out, table)
                written = time.perf_counter()
            counts = ", ".join(f"{name} {row[name]:.3f}" for name in ("coverage", "claimed", "power") if name in row)
            print(f"{number + 1} of {len(missing)}: {', '.join(map(str, design))}: {counts}", flush=True)
    figure(table["rows"], args.figure)
    for part in table["summary"]:
        verdict = "MISSED" if part["missed"] else "met   " if part["bounded"] else "no margin"
        print(
            f"{verdict} {part['part']}: {part['quantity']} {part['mean']:.3f} on average, extreme "
            f"{part['extreme']:.3f} ({part['extreme_design']}); {part['missed']} of {part['designs']} designs missed"
        )
    print(args.out)
    return int(any(part["missed"] for part in table["summary"]))


if __name__ == "__main__":
    sys.exit(main())
