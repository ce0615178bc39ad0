"""Tables of repairs: FMD beside its alternatives."""

from typing import Any

from table_parts import (
    COSTS,
    METHODS,
    cost,
    fraction,
    has_summary,
    markdown,
    mean,
    of_cell,
    parts,
    percent,
    processor,
    read,
    signed,
    source,
)

NAMES = {
    "erm": "trained (ERM), no repair",
    "fmd ext": "**FMD**, direction `ext`",
    "fmd gradB": "**FMD**, direction `gradB`",
    "fmd ext, one step at t = 1": "FMD, one step at t = 1 (the trap)",
    "dfr": "DFR (last layer refitted)",
    "fine_tune": "fine-tuning, all layers",
    "scratch": "from scratch on the held-out digits alone",
}


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
