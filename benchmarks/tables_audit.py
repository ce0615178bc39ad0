"""Tables of the audit, of maps, and of speed."""

from typing import Any

import table_parts
from table_parts import fraction, has_summary, markdown, milliseconds, percent, read, signed, source


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


def audit_networks() -> str:
    """Shares over the generated sets, a row per family and strength, and the margins."""
    if not (table_parts.RESULTS / "audit_networks.json").exists():
        return "Not measured yet."
    table = read("audit_networks")
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
    ) + source("audit_networks")


def audit_cost() -> str:
    """Seconds of each step, first call and second."""
    if not (table_parts.RESULTS / "audit_cost.json").exists():
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
    if not (table_parts.RESULTS / f"{name}.json").exists():
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
