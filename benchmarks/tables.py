"""Writes the measured tables into README.md and benchmarks/README.md from the JSON in benchmarks/results.

`python benchmarks/tables.py` rewrites what stands between `<!-- table: NAME -->` and `<!-- end -->`;
with `--check` it changes nothing and exits with 1 where a page has drifted from the JSON.
"""

import argparse
import functools
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxdebias.report._tables import reproduced_rows

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGES = (HERE.parent / "README.md", HERE / "README.md")
NAMES = {
    "erm": "trained (ERM), no repair",
    "fmd ext": "**FMD**, direction `ext`",
    "fmd gradB": "**FMD**, direction `gradB`",
    "fmd ext, one step at t = 1": "FMD, one step at t = 1 (the trap)",
    "dfr": "DFR (last layer refitted)",
    "fine_tune": "fine-tuning, all layers",
    "scratch": "from scratch on the held-out digits alone",
}


def read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "| --- |" + " ---: |" * (len(columns) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def percent(cell: dict[str, float]) -> str:
    """Mean over seeds with its 95 % t-interval, which is cut where a share ends."""
    return f"{100 * cell['value']:.1f} ({100 * max(cell['low'], 0):.1f}–{100 * min(cell['high'], 1):.1f})"


def fraction(cell: dict[str, float]) -> str:
    return f"{cell['value']:.3f} ({max(cell['low'], 0):.3f}–{cell['high']:.3f})"


def source(name: str) -> str:
    table = read(name)
    stack = ", ".join(f"{package} {table['versions'][package]}" for package in ("jax", "flax", "python"))
    return f"\n\n[{name}.json]({{root}}results/{name}.json); {table['device']}; {stack}; {table['date']}."


def repair(name: str, conflicting: float) -> str:
    rows = [row for row in read(name)["summary"] if row["conflicting"] == conflicting]
    rates = ("accuracy", "bias_conflicting_accuracy", "bias_aligned_accuracy")
    cells = [
        [
            NAMES.get(row["method"], row["method"]),
            *(percent(row[rate]) for rate in rates),
            fraction(row["counterfactual_bias"]),
            f"{row['seconds']['median']:.1f}",
        ]
        for row in rows
    ]
    head = ["method", "accuracy %", "conflicting %", "aligned %", "counterfactual bias", "seconds"]
    return markdown(head, cells)


def digits() -> str:
    return repair("fmd_digits", 0.02) + source("fmd_digits")


# What the scripts on `fmd_methods` measure: their rows in the order of the pages.
METHODS = {
    "erm": "trained (ERM), no repair",
    "fmd ext": "**FMD**, head, `ext`",
    "fmd gradB": "**FMD**, head, `gradB`",
    "fmd ext, no floor": "**FMD**, head, `ext`, no aligned floor",
    "fmd gradB, no floor": "**FMD**, head, `gradB`, no aligned floor",
    "fmd 2 layers ext": "**FMD**, last 2 layers, `ext`, no aligned floor",
    "fmd 2 layers gradB": "**FMD**, last 2 layers, `gradB`, no aligned floor",
    "fmd 3 layers ext": "**FMD**, last 3 layers, `ext`, no aligned floor",
    "fmd 3 layers gradB": "**FMD**, last 3 layers, `gradB`, no aligned floor",
    "dfr l2": "DFR, L2",
    "dfr l1": "DFR, L1, 5 balanced subsamples averaged",
    "refit head": "head refitted, training set joined by the pairs' twins",
    "fine-tune head": "fine-tuning, head",
    "fine-tune 2 layers": "fine-tuning, last 2 layers",
    "fine-tune 3 layers": "fine-tuning, last 3 layers",
    "fine-tune mixing and head": "fine-tuning, channel mixing of layer 1 and head",
    "fine-tune mixing and 2 layers": "fine-tuning, channel mixing of layer 1 and last 2 layers",
    "fine-tune all": "fine-tuning, all layers",
    "self-influence": "self-influence fine-tuning, no attribute",
    "scratch": "from scratch on the held-out samples alone",
    "retrain, counterfactuals": "full retraining, training set joined by its counterfactuals",
    "retrain, recoloured": "full retraining, training set in random colours (ceiling)",
}


def has_summary(name: str) -> bool:
    """A table is shown when its script has come to its end, not while it runs."""
    return (RESULTS / f"{name}.json").exists() and "summary" in read(name)


def parts(name: str, make: Callable[[str], str]) -> str:
    """One table per cell of the results (a share, a data set's option), under its name, and where they come from."""
    if not has_summary(name):
        return "Not measured yet."
    cells = dict.fromkeys(row["cell"] for row in read(name)["summary"])
    return "\n\n".join(f"**{cell} conflicting**\n\n{make(cell)}" for cell in cells) + source(name)


def of_cell(name: str, cell: str) -> list[dict[str, Any]]:
    rows = {row["method"]: row for row in read(name)["summary"] if row["cell"] == cell}
    return [rows[method] for method in (*METHODS, *(m for m in rows if m not in METHODS)) if method in rows]


def mean(cell: dict[str, float]) -> str:
    return f"{100 * cell['value']:.1f}"


def signed(cell: dict[str, float]) -> str:
    return f"{cell['value']:+.2f} ({cell['low']:+.2f} to {cell['high']:+.2f})"


def processor(row: dict[str, Any]) -> str:
    """Median processor time of the first call, all threads together; of training, which has none, wall time."""
    return f"{row['cpu_seconds']['median']:.1f}" if "cpu_seconds" in row else f"{row['seconds']['median']:.1f} wall"


def cost(row: dict[str, Any]) -> list[str]:
    count = row["changed"]["median"]
    changed = f"{count:,.0f}" if count else "none"
    if row.get("free") and row["free"]["median"] < count:
        changed = f"{row['free']['median']:,.0f} free, in {changed}"
    return [changed, f"{row['samples']:,}", row["needs"] or "nothing", processor(row)]


COSTS = ["numbers changed", "held-out samples", "what it needs", "processor seconds"]


SHORT = (
    "erm",
    "fmd ext",
    "fmd gradB",
    "fmd 3 layers ext",
    "dfr l2",
    "fine-tune mixing and 2 layers",
    "fine-tune all",
    "scratch",
    "retrain, counterfactuals",
)


def colored_mnist() -> str:
    """The short table: the methods that a reader compares first, without the costs but time."""

    def make(cell: str) -> str:
        rows = [
            [
                METHODS[row["method"]],
                percent(row["accuracy"]),
                percent(row["bias_conflicting_accuracy"]),
                percent(row["bias_aligned_accuracy"]),
                fraction(row["counterfactual_bias"]),
                processor(row),
            ]
            for row in of_cell("fmd_full_colored_mnist", cell)
            if row["method"] in SHORT
        ]
        return markdown(
            ["method", "accuracy %", "conflicting %", "aligned %", "counterfactual bias", "processor seconds"], rows
        )

    return parts("fmd_full_colored_mnist", make)


def full_colored_mnist() -> str:
    def make(cell: str) -> str:
        rows = [
            [
                METHODS.get(row["method"], row["method"]),
                percent(row["accuracy"]),
                percent(row["bias_conflicting_accuracy"]),
                mean(row["bias_aligned_accuracy"]),
                mean(row["worst_group_accuracy"]),
                fraction(row["counterfactual_bias"]),
                *cost(row),
            ]
            for row in of_cell("fmd_full_colored_mnist", cell)
        ]
        head = ["method", "accuracy %", "conflicting %", "aligned %", "worst group %", "counterfactual bias", *COSTS]
        return markdown(head, rows)

    return parts("fmd_full_colored_mnist", make)


def utkface() -> str:
    def make(cell: str) -> str:
        rows = [
            [
                METHODS.get(row["method"], row["method"]),
                percent(row["accuracy"]),
                percent(row["bias_conflicting_accuracy"]),
                mean(row["bias_aligned_accuracy"]),
                mean(row["worst_group_accuracy"]),
                signed(row["group_gap"]),
                *cost(row),
            ]
            for row in of_cell("fmd_utkface", cell)
        ]
        return markdown(
            ["method", "accuracy %", "conflicting %", "aligned %", "worst group %", "group gap", *COSTS], rows
        )

    return parts("fmd_utkface", make)


def samples() -> str:
    def make(cell: str) -> str:
        rows = [
            [
                METHODS.get(row["method"], row["method"]),
                percent(row["accuracy"]),
                percent(row["bias_conflicting_accuracy"]),
                mean(row["bias_aligned_accuracy"]),
                fraction(row["counterfactual_bias"]),
                mean(row["aligned_share"]) if "aligned_share" in row else "",
                processor(row),
            ]
            for row in of_cell("fmd_samples", cell)
        ]
        head = [
            "training samples",
            "accuracy %",
            "conflicting %",
            "aligned %",
            "counterfactual bias",
            "aligned among the chosen %",
            "processor seconds",
        ]
        return markdown(head, rows)

    return parts("fmd_samples", make)


def adult() -> str:
    """Every method at its settings, per attribute; the picture of the same rows is the frontier."""
    if not has_summary("fmd_adult"):
        return "Not measured yet."
    rates = ("accuracy", "counterfactual_bias", "flips", "demographic_parity_difference", "equalised_odds_difference")
    head = [
        "method",
        "setting",
        "accuracy %",
        "counterfactual bias",
        "flips",
        "demographic parity",
        "equalised odds",
        "seconds",
        "seeds",
    ]
    said = []
    for attribute in dict.fromkeys(row["attribute"] for row in read("fmd_adult")["summary"]):
        rows = [
            [
                row["method"],
                row["setting"],
                percent(row[rates[0]]),
                fraction(row[rates[1]]),
                *(f"{row[rate]['value']:.3f}" for rate in rates[2:]),
                f"{row['seconds']['median']:.1f}",
                str(row["seeds"]),
            ]
            for row in read("fmd_adult")["summary"]
            if row["attribute"] == attribute
        ]
        said.append(f"**{attribute}**\n\n{markdown(head, rows)}")
    picture = "![accuracy against bias, and against demographic parity]({root}figures/fmd_adult.png)"
    return "\n\n".join([*said, picture]) + source("fmd_adult")


def peers() -> str:
    """Factor and scores of all samples together, as a multiple of ours."""

    def row(one: dict[str, Any]) -> list[str]:
        agreement = one["agreement"]
        return [
            one["method"],
            f"{one['n']:,}",
            str(one["m"]),
            f"{one['total']['median']:.3g}",
            f"{one['ratio']:.1f}x",
            f"{agreement['pearson']:.4f}",
            f"{agreement['max_relative_difference']:.0e}",
            one["note"],
        ]

    head = [
        "method",
        "n",
        "right-hand sides",
        "seconds",
        "of ours",
        "correlation with exact",
        "largest relative difference",
        "what it does",
    ]
    return markdown(head, [row(one) for one in read("influence_peers")["rows"]]) + source("influence_peers")


def reproduced() -> str:
    """Methods x ratios beside the published rows, and what chose each method's weights."""
    table = read("colored_mnist")
    rows = [
        [
            row["method"],
            row["share"],
            row["seeds"],
            row["accuracy"],
            row["published"],
            row["verdict"],
            row["gain"],
            row["conflicting"],
            row["aligned"],
        ]
        for row in reproduced_rows(table)
    ]
    head = [
        "method",
        "conflicting",
        "seeds",
        "accuracy %",
        "published %",
        "ours is",
        "points against erm",
        "conflicting acc. %",
        "aligned acc. %",
    ]
    chosen = {
        row["method"]: f"- `{row['method']}`: labels of the bias {row['labels']}; weights: {row['selection']}."
        for row in table["summary"]
    }
    return "\n\n".join([markdown(head, rows), "\n".join(chosen.values())]) + source("colored_mnist")


def aug_cell() -> str:
    """A row per case and seed, a column per candidate."""
    if not (RESULTS / "aug_cell.json").exists():
        return "Not measured yet."
    table = read("aug_cell")
    names = list(dict.fromkeys(name for row in table["rows"] for name in row["candidates"]))

    def cell(row: dict[str, Any], name: str) -> str:
        if name not in row["candidates"]:
            return ""
        said = row["candidates"][name]
        return (
            f"{100 * said['accuracy']:.1f} ({100 * said['bias_aligned_accuracy']:.1f} / "
            f"{100 * said['bias_conflicting_accuracy']:.1f})"
        )

    def suspects(row: dict[str, Any]) -> str:
        if row.get("cleared"):  # rows of a case that never looked for any may lack it
            return f"{row['cleared']} kept"
        wrong, conflicting = row.get("left_out_wrong", 0), row["left_out_conflicting"]
        return f"{wrong} wrong, {conflicting} conflicting left out" if wrong or conflicting else ""

    rows = [
        [
            row["case"],
            f"{100 * row['conflicting']:g} %",
            str(row["seed"]),
            *(cell(row, name) for name in names),
            row["chosen"],
            f"{100 * row['flagged_share']:.1f}",
            f"{row['confidence'][0]:.2f} / {row['confidence'][1]:.2f}",
            suspects(row),
        ]
        for row in table["rows"]
    ]
    head = [
        "case",
        "conflicting",
        "seed",
        *names,
        "returned",
        "flagged %",
        "judges' confidence, flagged / others",
        "suspects",
    ]
    return markdown(head, rows) + source("aug_cell")


def attention_iou() -> str:
    """A row per level, with the chance level beside each score; below it how the scores follow the bias."""
    if not has_summary("attention_iou"):
        return "Not measured yet."
    table = read("attention_iou")

    def scored(row: dict[str, Any], region: str) -> list[str]:
        of = [row[f"{region}_{name}"] for name in ("all", "aligned", "conflicting")]
        return [fraction(of[0]), f"{row[f'{region}_chance']:.3f}", *(f"{one['value']:.3f}" for one in of[1:])]

    head = [
        "aligned in training %",
        *(f"{name} %" for name in ("accuracy", "aligned", "conflicting", "worst group")),
        *(
            f"{region}{of}"
            for region in ("object", "background")
            for of in (" score", ", chance", ", aligned", ", conflicting")
        ),
    ]
    rates = ("accuracy", "bias_aligned_accuracy", "bias_conflicting_accuracy", "worst_group_accuracy")
    said = []
    for data, trend in table["trends"].items():
        rows = [
            [
                str(row["level"]),
                *(percent(row[rate]) for rate in rates),
                *scored(row, "object"),
                *scored(row, "background"),
            ]
            for row in table["summary"]
            if row["data"] == data
        ]
        taus = "; ".join(
            f"{region} {signed(trend[f'{region} tau, levels'])} over the levels' means, "
            f"{signed(trend[f'{region} tau, networks'])} over all networks"
            for region in ("object", "background")
        )
        first, last = trend["levels"][0], trend["levels"][-1]
        margins = [
            f"- {'met' if one['met'] else '**missed**'}: {one['quantity']} {one['margin']}, got {one['got']:.2f}"
            for one in table["margins"]
            if one["data"] == data
        ]
        said += [
            f"**{data}**, {len(trend['seeds'])} networks per level",
            markdown(head, rows),
            f"From {first} to {last} % the object score falls by {signed(trend['object fall'])}, the background "
            f"score rises by {signed(trend['background rise'])}. Kendall's tau-b with the accuracy on conflicting "
            f"pictures: {taus}.",
            "\n".join(margins),
        ]
    picture = "![both scores against the share of aligned training pictures]({root}figures/attention_iou.png)"
    return "\n\n".join([*filter(None, said), picture]) + source("attention_iou")


def patch_noise() -> str:
    """Per case what the map says of itself, then a row per arm, tested on clean images and on its own corruption."""
    if not (RESULTS / "patch_noise.json").exists():
        return "Not measured yet."
    table, said = read("patch_noise"), []
    for case, of in table["summary"].items():
        arms = [name.removesuffix(" gap") for name in of if name.endswith(" gap")]
        rows = []
        for arm in arms:
            own = f"{arm} gap, own" in of
            rows.append(
                [
                    arm,
                    *(percent(of[f"{arm} {rate}"]) for rate in ("bias_aligned", "bias_conflicting", "worst_group")),
                    "" if arm == "plain" else signed(of[f"{arm} over plain"]),
                    percent(of[f"{arm} bias_conflicting, own"]) if own else "",
                    signed(of[f"{arm} over plain, own"]) if own else "",
                    signed(of[f"{arm} gap"]),
                    signed(of[f"{arm} gap, own"]) if own else "",
                ]
            )
        head = [
            "arm",
            "aligned %",
            "conflicting %",
            "worst group %",
            "conflicting, over plain",
            "conflicting, own %",
            "own, over plain",
            "aligned minus conflicting",
            "that, own",
        ]
        spread = of["spread"]["value"]
        seeds = sum(row["case"] == case for row in table["rows"])
        place = (
            f"Its map was called spread out beforehand in {round(seeds * spread)} of {seeds} seeds"
            + "".join(
                f"; {quantity}: {100 * of[quantity]['value']:.0f} %"
                for quantity in ("bias in the top 10 %", "bias in the top 30 %", "budget area")
                if quantity in of
            )
            + "."
        )
        margins = [
            f"- {'met' if one['met'] else '**missed**'}: {one['quantity']} {one['margin']}, got {one['got']:.3f}"
            for one in table["margins"]
            if one["case"] == case
        ]
        said += [f"**{case}**, {seeds} seeds", place, markdown(head, rows), "\n".join(margins)]
    left = {row["case"] for row in table["rows"]} - set(table["summary"])
    if left:
        said.append(f"Measured in part, not summed up yet: {', '.join(sorted(left))}.")
    return "\n\n".join(filter(None, said)) + source("patch_noise")


def language_bias() -> str:
    """For each model a row per repair; below it the influence, and the margins."""
    if not has_summary("language_bias"):
        return "Not measured yet."
    table = read("language_bias")

    def cells(row: dict[str, Any]) -> list[str]:
        rise = f"{100 * row['rise']['value']:+.1f}" if "rise" in row else ""
        kept = row.get("kept as it was", 0)
        note = f"as it was in {kept} of {row['seeds']}" if kept else ""
        if row.get("hides"):
            note = f"hides the bias: {' and '.join(row['hides'])} fell by less than half as much"
        seconds = row.get("cpu_seconds_to_repair")
        return [
            row["method"],
            fraction(row["edit"]),
            *(f"{row[part]['value']:.3f}" for part in ("occupations", "templates")),
            fraction(row["both"]),
            f"{row['pronoun']['value']:.2f}",
            f"{row['persons']['value']:.3f}",
            f"{100 * row['persons_right']['value']:.0f}",
            f"{row['perplexity']['value']:.2f}",
            rise,
            f"{100 * row['changed']['value']:.1f}",
            row.get("needs", ""),
            f"{seconds['value']:.0f}" if seconds else "",
            note,
        ]

    head = [
        "repair",
        "edit",
        "occupations",
        "templates",
        "both",
        "pronoun",
        "persons",
        "right %",
        "perplexity",
        "rise %",
        "numbers changed %",
        "needs",
        "processor seconds",
        "",
    ]
    said = []
    for kind in dict.fromkeys(row["kind"] for row in table["summary"]):
        rows = [row for row in table["summary"] if row["kind"] == kind]
        said += [f"**{kind}**", markdown(head, [cells(row) for row in rows if row["method"] != "influence"])]
        for row in rows:
            if row["method"] == "influence":
                again = (
                    ""
                    if "without harmful" not in row
                    else (
                        f" Trained again without the 800 most harmful sentences: {fraction(row['without harmful'])}, "
                        f"without 800 random ones: {fraction(row['without random'])}."
                    )
                )
                said.append(
                    f"Influence tells aligned from conflicting sentences with an AUC of {fraction(row['auc'])}.{again}"
                )
    margins = [
        f"- {'met' if one['met'] else '**missed**'}: {one['kind']}, {one['method']}, {one['quantity']} "
        f"{one['margin']}, got {one['got']:.3f}"
        for one in table["margins"]
    ]
    return "\n\n".join([*said, "\n".join(margins)]) + source("language_bias")


def speed() -> str:
    rows = [
        [
            row["what"],
            row["size"],
            f"{row['median']:.3g} s",
            f"{row['min']:.3g}–{row['max']:.3g} s",
            row.get("bound", ""),
            row.get("beside", ""),
        ]
        for row in read("speed")["rows"]
    ]
    head = ["what", "size", "median, warm", "range", "asked", "beside it"]
    return markdown(head, rows) + source("speed")


def milliseconds(side: dict[str, float]) -> str:
    median, low, high = (
        f"{value:.2f}" if value < 10 else f"{value:.0f}"
        for value in (1e3 * side[name] for name in ("median", "min", "max"))
    )
    return f"{median} ({low}-{high})"


def sih_step() -> str:
    """A row per side; ratios are theirs over ours."""
    rows = []
    for of in read("sih_step")["rows"]:
        for side, times in of["sides"].items():
            ratio = f"{of['ratios'][side]:.2f}x" if side in of["ratios"] else ""
            met = "met" if of["met"] else "**missed**"
            bound = f"{of['bound']:g}x, {met}" if of["bound"] and side == "pytorch" else ""
            rows.append([of["what"], side.replace("_", " "), milliseconds(times), ratio, bound])
    return markdown(["what", "side", "ms, median (range)", "of ours", "asked"], rows) + source("sih_step")


def dbvae(name: str) -> str:
    """A row per case and arm of the cases that are whole, their margins and the aim; then what is still missing."""
    if not (RESULTS / f"{name}.json").exists():
        return "Not measured yet."
    table = read(name)

    def rate(row: dict[str, Any], name: str) -> str:
        return percent(row[name]) if name in row else ""

    shown = [
        [
            row["case"],
            row["arm"],
            str(row["seeds"]),
            *(rate(row, name) for name in ("rare", "common", "worst", "precision", "share")),
            *(f"{row[name]['value']:.2f}" if name in row else "" for name in ("auc", "ess")),
        ]
        for row in table["summary"]
    ]
    head = [
        "case",
        "arm",
        "seeds",
        "rare group %",
        "common %",
        "worst group %",
        "precision %",
        "share of draws %",
        "AUC of the weights",
        "effective sample size",
    ]
    margins = [
        f"- {'met' if one['met'] else '**missed**'}: {one['case']}, {one['quantity']} {one['margin']}, got "
        f"{one['got']:.3f}"
        for one in table["margins"]
    ]
    tried = [[one["case"], one["arm"], signed(one), "yes" if one["reached"] else ""] for one in table["aim"]]
    aim = markdown(["case", "arm", "worst group over plain", "aim reached"], tried) if tried else ""
    missing = ", ".join(f"{case} ({there} of {planned})" for case, (there, planned) in table["unfinished"].items())
    missing = missing and f"Not judged yet, as rows are missing: {missing}."
    return "\n\n".join(part for part in (markdown(head, shown), "\n".join(margins), aim, missing) if part) + source(
        name
    )


def audit_power() -> str:
    """Shares over the generated sets, a row per family and strength, and the margins."""
    if not (RESULTS / "audit_power.json").exists():
        return "Not measured yet."
    table = read("audit_power")
    if "summary" not in table:
        return f"Measured so far: {len(table['rows'])} of {table['planned']} sets."
    shares = [
        [part, quantity, percent(one), str(int(one["n"]))]
        for part, of in table["summary"].items()
        for quantity, one in of.items()
    ]
    sets, rows = [row for row in table["rows"] if row["part"] == "sets"], []
    for family, conflicting in dict.fromkeys((row["family"], row["conflicting"]) for row in sets):
        of = [row for row in sets if (row["family"], row["conflicting"]) == (family, conflicting)]
        states = "; ".join(
            f"{sum(row['state'] == state for row in of)} {state}"
            for state in ("clean", "weak", "strong")
            if any(row["state"] == state for row in of)
        )
        gaps = [100 * row["gap"]["value"] for row in of]
        advised = dict.fromkeys(row["fix"] for row in of)
        rows.append(
            [
                family,
                "none planted" if conflicting == "none" else f"{100 * conflicting:g} %",
                f"{min(gaps):.1f} to {max(gaps):.1f}",
                states,
                f"{sum(row['right'] for row in of)} of {len(of)}",
                ", ".join(f"{fix} {sum(row['fix'] == fix for row in of)}" for fix in advised),
                f"{sum(row['right_advice'] for row in of)} of {len(of)}",
            ]
        )
    head = ["family", "conflicting", "gap by the oracle, points", "state", "right verdicts", "advice", "right advice"]
    margins = [
        f"- {'met' if one['met'] else '**missed**'}: {one['part']}, {one['quantity']} {one['margin']}, got "
        f"{one['got']:.3f}"
        for one in table["margins"]
    ]
    return "\n\n".join(
        [markdown(["part", "of the sets", "share %", "sets"], shares), "\n".join(margins), markdown(head, rows)]
    ) + source("audit_power")


def audit_cost() -> str:
    """Seconds of each step, first call and second."""
    if not (RESULTS / "audit_cost.json").exists():
        return "Not measured yet."
    table = read("audit_cost")
    first, second = (table[name]["seconds"] for name in ("first call", "second call"))
    rows = [[step, f"{first[step]:.1f}", f"{second.get(step, 0):.1f}"] for step in first]
    rows.append(["**all**", f"{sum(first.values()):.1f}", f"{sum(second.values()):.1f}"])
    return (
        markdown(["step", "first call, seconds", "second call, seconds"], rows)
        + f"\n\n{table['said']}"
        + source("audit_cost")
    )


def timed(name: str) -> str:
    """Times, then the ratios and what was asked of them."""
    if not (RESULTS / f"{name}.json").exists():
        return "Not measured yet."
    table = read(name)
    times = [
        [of["what"], side.replace("_", " "), milliseconds(seconds)]
        for of in table["rows"]
        for side, seconds in of["sides"].items()
    ]
    asked = {
        **{figure: f"at most {bound:g}" for figure, bound in table["at_most"].items()},
        **{figure: f"at least {bound:g}" for figure, bound in table.get("at_least", {}).items()},
    }
    figures = [
        [
            of["what"],
            figure,
            f"{value:.3g}",
            asked.get(figure, ""),
            ("**missed**" if figure in of["missed"] else "met") if figure in asked else "",
        ]
        for of in table["rows"]
        for figure, value in of["figures"].items()
    ]
    return "\n\n".join(
        [
            markdown(["what", "side", "ms, median (range)"], times),
            markdown(["what", "figure", "measured", "asked", ""], figures),
        ]
    ) + source(name)


TABLES: dict[str, Callable[[], str]] = {
    "digits": digits,
    "colored-mnist": colored_mnist,
    "full-colored-mnist": full_colored_mnist,
    "utkface": utkface,
    "samples": samples,
    "adult": adult,
    "reproduced": reproduced,
    "aug-cell": aug_cell,
    "attention-iou": attention_iou,
    "language-bias": language_bias,
    "patch-noise": patch_noise,
    "dbvae": functools.partial(dbvae, "dbvae"),
    "dbvae-again": functools.partial(dbvae, "dbvae_again"),
    "speed": speed,
    "sih-step": sih_step,
    "audit-power": audit_power,
    "audit-cost": audit_cost,
    "dbvae-speed": functools.partial(timed, "dbvae_speed"),
    "cam": functools.partial(timed, "cam"),
    "patches": functools.partial(timed, "patches"),
    "peers": peers,
}


def render(page: Path) -> str:
    root = "" if page.parent == HERE else "benchmarks/"

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
