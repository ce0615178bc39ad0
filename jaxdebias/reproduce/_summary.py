"""What the rows of a table say: means over seeds, comparisons on the same seeds and with published rows, counts."""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxdebias.measure._seeds import over_seeds, paired_over_seeds
from jaxdebias.reproduce._experiment import Experiment, Level
from jaxdebias.reproduce.published import Published, published
from jaxdebias.results.build import plain

Row = Mapping[str, Any]


def level_of(row: Row) -> Level:
    """The level of a row; before tables had levels of other kinds it was called `conflicting`."""
    return row["level"] if "level" in row else row["conflicting"]


def summary(rows: Iterable[Row], experiment: Experiment, *, compared: bool = True) -> list[dict[str, Any]]:
    """A row per device, method and level: mean over seeds with its interval, and how it compares with published runs.

    Rows of different devices are never put together.

    Args:
      rows: of the table.
      experiment: says which rates there are, and the order of methods and levels.
      compared: whether to put published rows beside; not beside a miniature.
    """
    cells: dict[tuple[str, str, Level], list[Row]] = {}
    for row in rows:
        cells.setdefault((row.get("device", ""), row["method"], level_of(row)), []).append(row)
    beside, found = published(experiment.name) if compared else None, []
    for (device, method, level), of_cell in cells.items():
        said: dict[str, Any] = {"device": device, "method": method, "level": level, "seeds": len(of_cell)}
        said |= {name: of_cell[0][name] for name in ("labels", "needs", "selection") if name in of_cell[0]}
        for rate in (*(one.name for one in experiment.rates), "seconds"):
            values = [one[rate] for one in of_cell if one.get(rate) is not None]
            if values:
                said[rate] = spread(values)
        said["published"] = None
        if beside is not None and (theirs := beside.find(method, level)) is not None:
            ours = np.array([one[theirs.quantity] for one in of_cell])
            said["published"] = compare(100 * ours if theirs.percent else ours, theirs, beside.verified)
        found.append(said)
    devices = list(dict.fromkeys(device for device, *_ in cells))
    return sorted(plain(found), key=lambda row: _place(row, experiment, devices))


def _place(row: Row, experiment: Experiment, devices: Sequence[str]) -> tuple[Any, ...]:
    methods, levels = list(experiment.methods), list(experiment.levels)
    name = row["method"].partition("@")[0]
    known = name in methods, row["level"] in levels
    return (
        devices.index(row["device"]),
        methods.index(name) if known[0] else len(methods),
        row["method"],
        levels.index(row["level"]) if known[1] else len(levels),
        str(row["level"]),
    )


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean of the seeds with Student's 95 % interval, their standard deviation, median and range."""
    found, interval = np.array(values, float), over_seeds(values)
    return {
        "mean": interval.value,
        "low": interval.low,
        "high": interval.high,
        "deviation": found.std(ddof=1) if len(found) > 1 else None,
        "median": np.median(found),
        "min": found.min(),
        "max": found.max(),
    }


def compare(ours: np.ndarray, beside: Published, verified: bool = True) -> dict[str, Any]:
    """Ours against a published row in its units: difference of the means with Welch's 95 % interval.

    The verdict is `above` or `below` where the interval leaves out 0; `match` where it holds 0 and lies within two
    standard deviations of the published runs; otherwise `not separable`, as with a single run on either side. Beside
    numbers that could not be checked there is none: `unverified`.

    Args:
      ours: `[s]`, a value of each seed, in the units of the published row.
      beside: the published row.
      verified: whether it was read in its source.
    """
    from scipy import special

    theirs = np.asarray(beside.runs)
    spread = theirs.std(ddof=1) if len(theirs) > 1 else None
    said = {
        "quantity": beside.quantity,
        "mean": float(theirs.mean()),
        "deviation": None if spread is None else float(spread),
        "runs": len(theirs),
        "difference": float(ours.mean() - theirs.mean()),
        "low": None,
        "high": None,
        "verdict": "not separable" if verified else "unverified",
    }
    if len(ours) < 2 or spread is None or not verified:
        return said
    parts = np.array([ours.var(ddof=1) / len(ours), theirs.var(ddof=1) / len(theirs)])
    freedom = parts.sum() ** 2 / (parts**2 / (np.array([len(ours), len(theirs)]) - 1)).sum()
    half = float(special.stdtrit(freedom, 0.975) * np.sqrt(parts.sum()))
    low, high = said["difference"] - half, said["difference"] + half
    verdict = (
        "above" if low > 0 else "below" if high < 0 else "match" if max(-low, high) <= 2 * spread else "not separable"
    )
    return said | {"low": low, "high": high, "verdict": verdict}


def paired(rows: Sequence[Row], experiment: Experiment) -> list[dict[str, Any]]:
    """Differences in the first rate on the same seeds and device: methods less the baseline, and further pairs.

    `p` is that of the paired t test; one seed has none.

    Args:
      rows: of the table.
      experiment: says which rate, which baseline and which further pairs.
    """
    rate, found = experiment.rates[0].name, []
    cells = {
        (row.get("device", ""), row["method"], level_of(row), row["seed"]): row[rate]
        for row in rows
        if row.get(rate) is not None
    }
    for device, method, level in dict.fromkeys(key[:3] for key in cells):
        others = [experiment.baseline, *(other for name, other in experiment.against if name == method)]
        for other in dict.fromkeys(others):
            seeds = [key[3] for key in cells if key[:3] == (device, method, level)]
            seeds = [seed for seed in seeds if (device, other, level, seed) in cells]
            if method != other and seeds:
                before = [cells[device, other, level, seed] for seed in seeds]
                after = [cells[device, method, level, seed] for seed in seeds]
                found.append(
                    {"device": device, "method": method, "against": other, "level": level, "seeds": len(seeds)}
                    | _difference(before, after)
                )
    return plain(found)


def _difference(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    from scipy import special

    gain = paired_over_seeds(before, after)
    certain = bool(gain.low > 0 or gain.high < 0)  # NaN bounds, of one seed, are not
    n, p = len(before), None
    if n > 1:
        error = np.std(np.subtract(after, before), ddof=1) / np.sqrt(n)
        p = 2 * special.stdtr(n - 1, -abs(gain.value) / error) if error > 0 else float(gain.value == 0)
    return {
        "difference": gain.value,
        "low": gain.low,
        "high": gain.high,
        "p": p,
        "verdict": ("above" if gain.value > 0 else "below") if certain else "not separable",
    }


def counts(summary_rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Device -> how many rows of its summary match what was published, lie above or below, or cannot be separated."""
    found: dict[str, collections.Counter] = {}
    for row in summary_rows:
        if row["published"] is not None:
            found.setdefault(row["device"], collections.Counter())[row["published"]["verdict"]] += 1
    return {device: dict(of_device) for device, of_device in found.items()}


def margins(summary_rows: Sequence[Row], experiment: Experiment) -> list[dict[str, Any]]:
    """Bounds that were fixed beforehand, asked of the median over seeds, on each device."""
    found = []
    cells = {(row["device"], row["method"], row["level"]): row for row in summary_rows}
    for device in dict.fromkeys(row["device"] for row in summary_rows):
        for method, level, rate, sign, bound in experiment.margins:
            row = cells.get((device, method, level))
            if row is not None and rate in row:
                got = row[rate]["median"]
                met = got <= bound if sign == "<=" else got >= bound
                found.append(
                    {"device": device, "method": method, "level": level, "rate": rate, "margin": f"{sign} {bound}"}
                    | {"median": got, "met": bool(met)}
                )
    return found
