"""Is this checkout as fast as another one? `python benchmarks/speed/paired.py --before CHECKOUT` (20 minutes, 2 cores).

Each script of this folder runs as a process of its own in a clone of either commit, in turn, A B A B. A figure is a
median of warm calls; what is written is the ratio after / before of each pair. Rows of the peers, whose code did not
change, show how much the machine itself drifts.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from jaxdebias.results.provenance import device_name, versions

ROOT = Path(__file__).parents[2]
PATH = ROOT / "benchmarks" / "results" / "speed_paired.json"
SCRIPTS = {"speed.py": "speed.json", "patches.py": "patches.json", "dbvae.py": "dbvae_speed.json"}
WITHIN = 1.1
"""Ratio up to which two checkouts are called equally fast; written down before this was first run."""


def medians(result: dict) -> dict[str, float]:
    """Name of a figure -> seconds.

    >>> rows = [{"what": "a", "size": "n 3", "median": 2.0}, {"what": "b", "sides": {"ours": {"median": 1.0}}}]
    >>> medians({"rows": rows})
    {'a, n 3': 2.0, 'b: ours': 1.0}
    """
    found = {}
    for row in result["rows"]:
        for side, one in row.get("sides", {}).items():
            found[f"{row['what']}: {side}"] = one["median"]
        if "median" in row:
            found[f"{row['what']}, {row['size']}"] = row["median"]
    return found


def measured(checkout: Path, script: str) -> dict[str, float]:
    """Runs a script in a checkout, and reads what it wrote there."""
    written = checkout / "benchmarks" / "results" / SCRIPTS[script]
    written.unlink()  # what the commit holds is no measurement of today; a script that misses a bound ends with 1
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, str(checkout / "benchmarks" / "speed" / script)]
    subprocess.run(command, cwd=checkout, env=environment, check=False, stdout=subprocess.DEVNULL)
    return medians(json.loads(written.read_text()))


def commit(checkout: Path) -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="a git repository at the commit to compare with")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--scripts", nargs="+", choices=list(SCRIPTS), default=list(SCRIPTS))
    parser.add_argument("--out", type=Path, default=PATH)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sides = {"before": options.before.resolve(), "after": ROOT}
        clones = {}
        for name, source in sides.items():
            clones[name] = Path(folder) / name
            subprocess.run(["git", "clone", "-q", str(source), str(clones[name])], check=True)
        table = {
            "device": device_name(),
            "versions": versions(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "commits": {name: commit(clone) for name, clone in clones.items()},
            "within": WITHIN,
            "rows": [],
        }
        for script in options.scripts:
            runs = []
            for pair in range(options.pairs):
                runs.append({name: measured(clone, script) for name, clone in clones.items()})
                print(f"{script}: pair {pair + 1} of {options.pairs}", flush=True)
            for what in runs[0]["before"]:
                if what not in runs[0]["after"]:
                    print(f"{what}: only before", flush=True)
                    continue
                ratios = [run["after"][what] / run["before"][what] for run in runs]
                middle = statistics.median(ratios)
                table["rows"].append(
                    {
                        "script": script,
                        "what": what,
                        "before": [run["before"][what] for run in runs],
                        "after": [run["after"][what] for run in runs],
                        "ratio": {"median": middle, "low": min(ratios), "high": max(ratios)},
                        "met": middle <= WITHIN,
                    }
                )
                print(f"  {what}: {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)
            options.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
