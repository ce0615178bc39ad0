"""A table of methods x ratios x seeds: measured row by row, resumed where it stopped, compared with published rows.

A row is written as soon as it is measured, so a table that was stopped carries on where it stopped and ends the same.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxdebias.contracts import check_choice, expect
from jaxdebias.measure._seeds import over_seeds, paired_over_seeds
from jaxdebias.reproduce._cases import DATA, Cases
from jaxdebias.reproduce._fitting import accuracies
from jaxdebias.reproduce._methods import METHODS, method_of
from jaxdebias.reproduce.published import Published, published
from jaxdebias.results.build import plain
from jaxdebias.results.codec import read_results, write_results
from jaxdebias.results.provenance import device_name, provenance, versions
from jaxdebias.results.records import TableResults

RATIOS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """Which part of the table."""

    data: str = "colored-mnist"
    """Which table: a name in `DATA`."""
    data_dir: Path
    seeds: int = 1
    methods: tuple[str, ...] = ("erm", "sih", "aug-cell")
    ratios: tuple[float, ...] = RATIOS

    def __post_init__(self):
        check_choice("data", self.data, DATA)
        expect(self.seeds >= 1, "seeds", "at least 1", self.seeds)
        for name in self.methods:
            method_of(self.data, name)
        for ratio in self.ratios:
            expect(0 < ratio < 1, "ratios", "shares between 0 and 1", ratio)


def reproduce_table(
    config: TableConfig, out: Path, *, observe: Callable[[str], None] = lambda line: None
) -> TableResults:
    """Measures what is missing of the table, writes `out` after every row, and returns the table with its summary.

    Args:
      config: settings, see the class.
      out: a JSON file, made if missing; rows that it has are kept, with the device that made them.
      observe: called with a line of text now and then.

    Raises:
      ContractError: unknown methods, missing files, an `out` of something else.
    """
    beside = published(config.data)
    protocol = f"{beside.variant}; {beside.protocol}"
    rows = _rows_of(out, config.data)
    pictures = DATA[config.data](config.data_dir)

    def write(**more: Any) -> TableResults:
        seconds = {"rows": sum(row["seconds"] for row in rows)}
        arguments = {name: value for name, value in dataclasses.asdict(config).items() if name != "data_dir"}
        made = provenance(seconds, seed=0, arguments=arguments)
        table = TableResults(
            command="reproduce", provenance=made, data=config.data, protocol=protocol, rows=tuple(rows), **more
        )
        write_results(out, table)
        return table

    wanted = set(itertools.product(config.methods, config.ratios, range(config.seeds)))
    for name in config.methods:
        done = {(row["conflicting"], row["seed"]) for row in rows if row["method"] == name}
        # Seeds first: a table that is stopped early has every ratio.
        todo = [(ratio, seed) for seed in range(config.seeds) for ratio in config.ratios if (ratio, seed) not in done]
        method = method_of(config.data, name)
        for fitted in method.fit(Cases(pictures, todo), lambda line, name=name: observe(f"{name}: {line}")):
            row = plain(
                {
                    "method": name,
                    "conflicting": fitted.case.conflicting,
                    "seed": fitted.case.seed,
                    **accuracies(fitted.logits, fitted.case.test),
                    "seconds": fitted.seconds,
                    "selection": method.selection,
                    **fitted.said,
                    "device": device_name(),
                    "date": time.strftime("%Y-%m-%d"),
                    "versions": versions(),
                }
            )
            rows.append(row)
            write()
            have = sum((one["method"], one["conflicting"], one["seed"]) in wanted for one in rows)
            observe(
                f"{name}, {row['conflicting']:.1%}, seed {row['seed']}: accuracy {row['accuracy']:.2%}, "
                f"conflicting {row['bias_conflicting_accuracy']:.2%}, {row['seconds']:.0f} s "
                f"({have} of {len(wanted)} rows)"
            )
    return write(summary=tuple(summary(rows, config.data)), paired=tuple(paired(rows)))


def _rows_of(out: Path, data: str) -> list[dict[str, Any]]:
    """The rows that a table has already."""
    if not out.exists():
        return []
    table = read_results(out)
    expect(isinstance(table, TableResults), str(out), f"a table of {data}", f"results of {table.command}")
    assert isinstance(table, TableResults)
    expect(table.data == data, str(out), f"a table of {data}", table.data)
    return [dict(row) for row in table.rows]


def summary(rows: Iterable[Mapping[str, Any]], data: str = "colored-mnist") -> list[dict[str, Any]]:
    """A row per method and ratio: mean, interval over seeds, the published row and how the two compare."""
    cells: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["method"], row["conflicting"]), []).append(row)
    found, order = [], list(METHODS[data])
    for (method, ratio), of_cell in cells.items():
        row = {
            "method": method,
            "conflicting": ratio,
            "seeds": len(of_cell),
            "labels": method_of(data, method).labels,
            "selection": method_of(data, method).selection,
        }
        for rate in ("accuracy", "bias_aligned_accuracy", "bias_conflicting_accuracy", "seconds"):
            values = np.array([one[rate] for one in of_cell])
            interval = over_seeds(values)
            deviation = float(values.std(ddof=1)) if len(values) > 1 else None
            row[rate] = {"mean": interval.value, "low": interval.low, "high": interval.high, "deviation": deviation}
        row["published"] = None
        if (beside := published(data).find(method, ratio)) is not None:
            row["published"] = compare(100 * np.array([one["accuracy"] for one in of_cell]), beside)
        found.append(row)
    return sorted(
        plain(found),
        key=lambda row: (order.index(row["method"].partition("@")[0]), row["method"], row["conflicting"]),
    )


def compare(ours: np.ndarray, beside: Published) -> dict[str, Any]:
    """Ours against a published row, both in per cent: difference of the means with Welch's 95 % interval.

    The verdict is `above` or `below` where the interval leaves out 0; `match` where it holds 0 and lies within two
    standard deviations of the published runs; otherwise `not separable`, as with a single run.
    """
    from scipy import special

    theirs = np.asarray(beside.runs)
    spread = theirs.std(ddof=1)
    said = {
        "mean": float(theirs.mean()),
        "deviation": float(spread),
        "runs": len(theirs),
        "difference": float(ours.mean() - theirs.mean()),
        "low": None,
        "high": None,
        "verdict": "not separable",
    }
    if len(ours) < 2:
        return said
    parts = np.array([ours.var(ddof=1) / len(ours), theirs.var(ddof=1) / len(theirs)])
    freedom = parts.sum() ** 2 / (parts**2 / (np.array([len(ours), len(theirs)]) - 1)).sum()
    half = float(special.stdtrit(freedom, 0.975) * np.sqrt(parts.sum()))
    low, high = said["difference"] - half, said["difference"] + half
    verdict = (
        "above" if low > 0 else "below" if high < 0 else "match" if max(-low, high) <= 2 * spread else "not separable"
    )
    return said | {"low": low, "high": high, "verdict": verdict}


def paired(rows: Sequence[Mapping[str, Any]], baseline: str = "erm") -> list[dict[str, Any]]:
    """Each method's gain in accuracy over the baseline, with an interval over the seeds that both have."""
    cells = {(row["method"], row["conflicting"], row["seed"]): row["accuracy"] for row in rows}
    found = []
    for method, ratio in dict.fromkeys((row["method"], row["conflicting"]) for row in rows):
        seeds = [
            seed for name, share, seed in cells if (name, share) == (method, ratio) and (baseline, ratio, seed) in cells
        ]
        if method == baseline or not seeds:
            continue
        gain = paired_over_seeds(
            [cells[baseline, ratio, seed] for seed in seeds], [cells[method, ratio, seed] for seed in seeds]
        )
        certain = bool(gain.low > 0 or gain.high < 0)  # NaN bounds, of one seed, are not
        found.append(
            {
                "method": method,
                "against": baseline,
                "conflicting": ratio,
                "seeds": len(seeds),
                "difference": gain.value,
                "low": gain.low,
                "high": gain.high,
                "verdict": ("above" if gain.value > 0 else "below") if certain else "not separable",
            }
        )
    return plain(found)
