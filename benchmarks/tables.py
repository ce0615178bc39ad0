"""Writes the measured tables into README.md and benchmarks/README.md from the JSON in benchmarks/results.

`python benchmarks/tables.py` rewrites what stands between `<!-- table: NAME -->` and `<!-- end -->`;
with `--check` it changes nothing and exits with 1 where a page has drifted from the JSON.
"""

import argparse
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path

from headlines import headlines
from tables_audit import attention_iou, audit_cost, audit_networks, peers, speed, timed
from tables_faults import faults
from tables_repair import adult, colored_mnist, digits, full_colored_mnist, language_bias, samples, utkface
from tables_statistics import audit_power, interval_coverage
from tables_training import aug_cell, dbvae, experiments, patch_noise, reproduced, sih_step

HERE = Path(__file__).parent
PAGES = (HERE.parent / "README.md", HERE.parent / "docs" / "measured.md", HERE / "README.md")


TABLES: dict[str, Callable[[], str]] = {
    "headlines": headlines,
    "digits": digits,
    "colored-mnist": colored_mnist,
    "full-colored-mnist": full_colored_mnist,
    "utkface": utkface,
    "samples": samples,
    "adult": adult,
    "experiments": experiments,
    "reproduced": reproduced,
    "aug-cell": aug_cell,
    "attention-iou": attention_iou,
    "language-bias": language_bias,
    "patch-noise": patch_noise,
    "dbvae": functools.partial(dbvae, "dbvae"),
    "dbvae-again": functools.partial(dbvae, "dbvae_again"),
    "speed": speed,
    "sih-step": sih_step,
    "audit-networks": audit_networks,
    "audit-power": audit_power,
    "interval-coverage": interval_coverage,
    "audit-cost": audit_cost,
    "dbvae-speed": functools.partial(timed, "dbvae_speed"),
    "cam": functools.partial(timed, "cam"),
    "patches": functools.partial(timed, "patches"),
    "peers": peers,
    "faults": faults,
}


def render(page: Path) -> str:
    root = "" if page.parent == HERE else "benchmarks/" if page.parent == HERE.parent else "../benchmarks/"

    def table(match: re.Match) -> str:
        return f"<!-- table: {match[1]} -->\n{TABLES[match[1]]().replace('{root}', root)}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w-]+) -->.*?<!-- end -->", table, page.read_text(), flags=re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 where a page has drifted")
    arguments = parser.parse_args()
    drifted = 0
    for page in PAGES:
        new = render(page)
        if new == page.read_text():
            continue
        drifted += 1
        if arguments.check:
            print(f"{page}: drifted from benchmarks/results, run `python benchmarks/tables.py`")
        else:
            page.write_text(new)
            print(f"{page}: rewritten")
    return int(arguments.check and drifted > 0)


if __name__ == "__main__":
    sys.exit(main())
