"""The figure of patch_noise.py: accuracy by how the region is hidden."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from patch_noise_cases import (
    CASES,
)

from jaxdebias.measure import over_seeds

VIEWS = {"clean": ("clean test images", "#0063b2", "o", 1), "own": ("hidden as in training", "#c44e00", "s", -1)}
"""Name, colour, mark and side of the line."""
LINES = {"plain": (0, (4, 2)), "ceiling": (0, (1, 1.5))}


def figure(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy on conflicting test images, a panel per case and a line per arm, the best on clean images on top: means
    over the seeds that are there with their t-intervals, clean and hidden as in training side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    of_case = {name: [row["arms"] for row in rows if row["case"] == name] for name in CASES}
    of_case = {name: some for name, some in of_case.items() if some}
    columns = min(2, len(of_case))
    drawn, axes = plt.subplots(
        -(-len(of_case) // columns),
        columns,
        squeeze=False,
        layout="constrained",
        figsize=(5.2 * columns, 0.4 + 3.6 * -(-len(of_case) // columns)),
    )
    for axis in axes.flat[len(of_case) :]:
        axis.set_visible(False)
    for (name, seeds), axis in zip(of_case.items(), axes.flat, strict=False):
        said = {
            arm: {
                view: over_seeds([arms[arm][view]["bias_conflicting"]["value"] for arms in seeds if arm in arms])
                for view in VIEWS
                if view in next(arms[arm] for arms in seeds if arm in arms)
            }
            for arm in dict.fromkeys(arm for arms in seeds for arm in arms)
        }
        order = sorted(said, key=lambda arm: said[arm]["clean"].value)
        for arm, style in LINES.items():
            axis.axvline(
                100 * said[arm]["clean"].value, color="#888888", linewidth=1.1, linestyle=style, zorder=0, label=arm
            )
        for view, (label, colour, mark, side) in VIEWS.items():
            places = [(place, said[arm][view]) for place, arm in enumerate(order) if view in said[arm]]
            value, low, high = (
                100 * np.array([getattr(one, part) for _, one in places]) for part in ("value", "low", "high")
            )
            # One seed has no interval.
            bars = np.nan_to_num([value - np.maximum(low, 0), np.minimum(high, 100) - value])
            axis.errorbar(
                value,
                [place + 0.16 * side for place, _ in places],
                xerr=bars,
                fmt=mark,
                color=colour,
                markersize=4.2,
                markerfacecolor=colour if view == "clean" else "white",
                linewidth=1.1,
                capsize=2,
                label=label,
            )
        axis.set(
            title=f"{name}, {len(seeds)} seed{'s' * (len(seeds) > 1)}",
            xlim=(-2, 102),
            yticks=range(len(order)),
            yticklabels=order,
            ylim=(-0.6, len(order) - 0.4),
            xlabel="accuracy on bias-conflicting images, %",
        )
        axis.grid(axis="x", color="#eeeeee")
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=110)
    plt.close(drawn)
