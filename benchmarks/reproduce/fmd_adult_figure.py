"""The figure of fmd_adult.py: bias against loss of accuracy."""

from pathlib import Path
from typing import Any

import numpy as np

# --- the picture

# Settings of one method share colour and marker; those of a sweep are joined by a line. Self-influence fine-tuning is
# left out: it loses 60 points of accuracy, and the scale would show nothing else.
STYLES = {
    "erm": ("MLP, trained", "#000000", "*"),
    "zero column": ("column held at its mean", "#000000", "X"),
    "retrain without": ("retrained without the column (and proxies)", "#000000", "d"),
    "retrain + flipped": ("retrained on train + flipped rows", "#000000", "P"),
    "fmd head ext": ("FMD head, ext: 5 searched rounds", "#7fb8de", "o"),
    "fmd head gradB": ("FMD head, gradB: 5 searched rounds", "#0b5fa5", "o"),
    "fmd head ext, one step": ("FMD head, ext: one step, swept", "#7fb8de", "."),
    "fmd head gradB, one step": ("FMD head, gradB: one step, swept", "#0b5fa5", "."),
    "fmd head ext, t = 1": ("FMD head, ext: one step, t = 1", "#7fb8de", "1"),
    "fmd row ext": ("FMD input row, ext: 5 searched rounds", "#f2a093", "o"),
    "fmd row gradB": ("FMD input row, gradB: 5 searched rounds", "#c1272d", "o"),
    "fmd row ext, one step": ("FMD input row, ext: one step, swept", "#f2a093", "."),
    "fmd row gradB, one step": ("FMD input row, gradB: one step, swept", "#c1272d", "."),
    "fmd row ext, t = 1": ("FMD input row, ext: one step, t = 1", "#f2a093", "1"),
    "dfr": ("DFR: L2, L1", "#7b3f9d", "s"),
    "refit head": ("head refitted: on train, on edit rows, + flipped", "#7b3f9d", "D"),
    "fine-tune head": ("head fine-tuned on pairs", "#7b3f9d", "v"),
    "fine-tune all": ("all layers fine-tuned on pairs", "#7b3f9d", "^"),
    "from scratch": ("from scratch on the pairs alone", "#7b3f9d", "<"),
    "logistic regression": ("logistic regression (LR)", "#6e6e6e", "*"),
    "CorrelationRemover + MLP": ("CorrelationRemover, MLP", "#7fc29b", "h"),
    "CorrelationRemover + LR": ("CorrelationRemover, LR", "#2e8b57", "H"),
    "ExponentiatedGradient DP": ("ExponentiatedGradient DP, LR", "#d98a00", "o"),
    "ExponentiatedGradient EO": ("ExponentiatedGradient EO, LR", "#8a5a00", "o"),
    "ThresholdOptimizer DP": ("ThresholdOptimizer DP, LR", "#d98a00", "^"),
    "ThresholdOptimizer EO": ("ThresholdOptimizer EO, LR", "#8a5a00", "^"),
}
PANELS = (
    ("counterfactual_bias", "counterfactual bias", 0.01, (0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)),
    ("demographic_parity_difference", "demographic parity difference", 0.05, (0, 0.02, 0.05, 0.1, 0.2)),
)
LOSSES = (0.5, 0.25, 0, -0.25, -0.5, -1, -2, -5, -10)


def _swept(method: str) -> bool:
    return "one step" in method or method.startswith(("Exponentiated", "Correlation", "retrain without"))


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy lost against counterfactual bias and against the parity difference; a row of panels per attribute.

    Means over seeds. The grey stairs are the frontier: to their right and below, something better was measured.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    attributes = list(dict.fromkeys(row["attribute"] for row in rows))
    height = 4.3 * len(attributes) + 0.5
    drawn, axes = plt.subplots(
        len(attributes), 2, figsize=(14.0, max(height, 6.6)), squeeze=False, sharey="row", layout="constrained"
    )
    known = [method for method in STYLES if any(row["method"] == method for row in rows)]
    handles: dict[str, Any] = {}
    for attribute, line_of_axes in zip(attributes, axes, strict=True):
        of_attribute = [row for row in rows if row["attribute"] == attribute]
        trained = next(row for row in of_attribute if row["method"] == "erm")
        for axis, (rate, label, linear, ticks) in zip(line_of_axes, PANELS, strict=True):
            spots = {
                method: np.array(
                    [
                        (row[rate]["value"], -100 * row["accuracy_loss"]["value"])
                        for row in of_attribute
                        if row["method"] == method
                    ]
                )
                for method in known
            }
            axis.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
            axis.plot(
                *_stairs(np.concatenate([spot for spot in spots.values() if len(spot)])),
                color="#cccccc",
                linewidth=5,
                solid_joinstyle="round",
                zorder=0,
            )
            for method, spot in spots.items():
                name, colour, marker = STYLES[method]
                if len(spot):
                    stroke = marker in ".1"  # no area to be outlined in white
                    (handles[name],) = axis.plot(
                        *spot.T,
                        color=colour,
                        marker=marker,
                        markersize=11 if marker == "*" else 8 if stroke else 6.5,
                        linewidth=1.0 if _swept(method) else 0.0,
                        markeredgecolor=colour if stroke else "white",
                        markeredgewidth=1.5 if marker == "1" else 0.5,
                        alpha=0.9,
                    )
            axis.set_xscale("symlog", linthresh=linear, linscale=0.6)
            axis.set_yscale("symlog", linthresh=0.5, linscale=0.7)
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_yticks(LOSSES, [f"{loss:+g}" if loss else "0" for loss in LOSSES])
            axis.minorticks_off()
            every = np.concatenate([spot for spot in spots.values() if len(spot)])
            axis.set_xlim(-0.12 * linear, 1.25 * every[:, 0].max())
            axis.set_ylim(1.3 * min(every[:, 1].min(), -1), max(0.15, 1.4 * every[:, 1].max()))
            axis.grid(color="#eeeeee", zorder=0)
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_xlabel(f"{label} ({attribute})")
        accuracy = f"{100 * trained['accuracy']['value']:.1f} %"
        line_of_axes[0].set_ylabel(f"accuracy, points against the trained MLP ({accuracy})")
    seeds = max(row["seeds"] for row in rows)
    drawn.suptitle(
        "Adult: what less bias costs in accuracy. Upper left is better, grey: frontier. "
        f"Test split, mean of {seeds} seed{'s' if seeds > 1 else ''}.",
        fontsize=11,
    )
    drawn.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8.5, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=110)
    plt.close(drawn)


def _stairs(spots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frontier of (lower is better, higher is better) as a line: the most of the second for at most the first."""
    order = np.lexsort((-spots[:, 1], spots[:, 0]))
    best = [spots[order[0]]]
    for spot in spots[order[1:]]:
        if spot[1] > best[-1][1]:
            best += [np.array([spot[0], best[-1][1]]), spot]
    return tuple(np.stack(best).T)
