"""Tables of training without the shortcut."""

from typing import Any

import table_parts
from table_parts import RESULTS, markdown, milliseconds, percent, read, signed, source

from jaxdebias.reproduce import EXPERIMENTS
from jaxdebias.reproduce.view import reproduced_rows
from jaxdebias.results.codec import read_results


def experiments() -> str:
    """Every table and figure of the registry: what it shows, what it reads, what it costs."""
    rows = [
        [
            f"`{name}`",
            f"{one.paper}, {one.place}",
            one.title,
            "nothing" if one.files is None else one.files.needs,
            one.cost,
        ]
        for name, one in EXPERIMENTS.items()
    ]
    return markdown(["`jaxdebias reproduce`", "paper", "what it shows", "reads", "the whole table takes"], rows)


def reproduced() -> str:
    """Methods x ratios beside the published rows, and what chose each method's weights."""
    table = read_results(RESULTS / "colored_mnist.json")
    rows = [
        [
            row["method"],
            row["level"],
            row["seeds"],
            row["accuracy"],
            row["published"],
            row["verdict"],
            row["gain"],
            row["bias_conflicting_accuracy"],
            row["bias_aligned_accuracy"],
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
        for row in table.summary
    }
    return "\n\n".join([markdown(head, rows), "\n".join(chosen.values())]) + source("colored_mnist")


def aug_cell() -> str:
    """A row per case and seed, a column per candidate."""
    if not (table_parts.RESULTS / "aug_cell.json").exists():
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


ROW_LIMITS = (
    "Intervals: Student's over seeds. The limits of single networks in the rows of the JSON are those of the library "
    "when the rows were made (Wilson's, or a bootstrap); no table uses them. New rows have exact and score limits."
)


def patch_noise() -> str:
    """Per case what the map says of itself, then a row per arm, tested on clean images and on its own corruption."""
    if not (table_parts.RESULTS / "patch_noise.json").exists():
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
    return "\n\n".join(filter(None, [*said, ROW_LIMITS])) + source("patch_noise")


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
    if not (table_parts.RESULTS / f"{name}.json").exists():
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
    parts = (markdown(head, shown), "\n".join(margins), aim, missing, ROW_LIMITS)
    return "\n\n".join(part for part in parts if part) + source(name)
