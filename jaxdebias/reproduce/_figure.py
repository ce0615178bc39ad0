"""The figure beside a table: its first rate against the level, a line per method, a panel per device."""

from pathlib import Path
from typing import Any

from jaxdebias.files import replacing
from jaxdebias.reproduce._experiment import named
from jaxdebias.reproduce._registry import EXPERIMENTS
from jaxdebias.results.records import TableResults


def draw_rates(table: TableResults, path: Path) -> None:
    """Draws means over seeds with their intervals, and published means as crosses of the same colour.

    Args:
      table: with its summary.
      path: of the PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rate = EXPERIMENTS[table.data].rates[0]
    devices = list(dict.fromkeys(row["device"] for row in table.summary))
    levels = list(dict.fromkeys(row["level"] for row in table.summary))
    methods = list(dict.fromkeys(row["method"] for row in table.summary))
    times = 100 if rate.percent else 1
    drawn, axes = plt.subplots(
        1, max(1, len(devices)), figsize=(6.4 * max(1, len(devices)), 4.2), squeeze=False, layout="constrained"
    )
    for device, axis in zip(devices, axes[0], strict=False):
        for i, method in enumerate(methods):
            rows = [row for row in table.summary if (row["device"], row["method"]) == (device, method)]
            rows = [row for row in rows if rate.name in row]
            if rows:
                _draw_method(axis, rows, levels, rate.name, times, shift=0.5 * (i - len(methods) / 2) / len(methods))
        axis.set_xticks(range(len(levels)), [named(level) for level in levels], rotation=0 if len(levels) < 8 else 30)
        axis.set_title(device, fontsize=9)
        axis.set_xlabel(EXPERIMENTS[table.data].level)
        axis.set_ylabel(rate.head + (" %" if rate.percent else ""))
        axis.grid(color="#eeeeee", zorder=0)
        axis.spines[["top", "right"]].set_visible(False)
    if methods:
        handles, names = axes[0, 0].get_legend_handles_labels()
        drawn.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    drawn.suptitle(f"{EXPERIMENTS[table.data].title}; bars: 95 % over seeds; crosses: published", fontsize=9)
    with replacing(path) as file:
        drawn.savefig(file, dpi=110, format="png")
    plt.close(drawn)


def _draw_method(axis: Any, rows: list[Any], levels: list[Any], rate: str, times: int, *, shift: float) -> None:
    x = [levels.index(row["level"]) + shift for row in rows]
    mean = [times * row[rate]["mean"] for row in rows]
    ends = [
        [times * abs(row[rate][end] - row[rate]["mean"]) if row[rate][end] is not None else 0.0 for row in rows]
        for end in ("low", "high")
    ]
    line = axis.errorbar(x, mean, ends, fmt="o-", markersize=3.5, linewidth=1, capsize=2, label=rows[0]["method"])
    beside = [
        (place, row["published"]["mean"])
        for place, row in zip(x, rows, strict=True)
        if row["published"] is not None and row["published"]["quantity"] == rate
    ]
    if beside:
        axis.plot(*zip(*beside, strict=True), "x", color=line[0].get_color(), markersize=6)
