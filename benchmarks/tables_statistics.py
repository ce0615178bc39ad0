"""Tables of the simulations behind intervals and tests."""

import table_parts
from table_parts import markdown, percent, read, source


def interval_coverage() -> str:
    """A row per family of designs: coverage, or findings where there is nothing, or power; and what misses a margin."""
    if not (table_parts.RESULTS / "interval_coverage.json").exists():
        return "Not measured yet."
    table = read("interval_coverage")
    measured = len(table["rows"])
    so_far = ""
    if measured < table["planned"]:
        so_far = f"Measured so far: {measured:,} of {table['planned']:,} designs.\n\n"
    words = {"coverage": "covered, least", "claimed": "false findings, most", "power": "power, least"}
    rows = [
        [
            part["part"],
            words[part["quantity"]],
            str(part["designs"]),
            f"{100 * part['mean']:.1f}",
            f"{100 * part['extreme']:.1f}",
            part["extreme_design"],
            f"{part['missed']} of {part['designs']}" if part["bounded"] else "no margin",
        ]
        for part in table["summary"]
    ]
    head = ["designs", "quantity", "number", "mean %", "extreme %", "extreme design", "margin missed"]
    simulations = table["rows"][0]["simulations"]
    return (
        so_far + markdown(head, rows) + f"\n\n{simulations:,} data sets of each design." + source("interval_coverage")
    )


def audit_power() -> str:
    """False claims of reliance by family, what is found where a model relies on an attribute, and the margins."""
    if not (table_parts.RESULTS / "audit_power.json").exists():
        return "Not measured yet."
    table = read("audit_power")
    found = table["summary"]
    so_far = ""
    if len(table["rows"]) < table["planned"]:
        so_far = f"Measured so far: {len(table['rows'])} of {table['planned']} designs.\n\n"
    families = [
        [
            one["family"],
            one["kind"],
            str(one["sets"]),
            percent(one["leans"]),
            percent(one["false"]) if one["kind"] != "apart" or one["family"].startswith("one-way") else "-",
            percent(one["used"]) if one["kind"] == "reliance" or one["family"].startswith("calibrated") else "-",
        ]
        for one in found["families"]
    ]
    if "pooled" in found:
        pooled = found["pooled"]
        families.append(["**clean, pooled**", "clean", str(int(pooled["n"])), "", f"**{percent(pooled)}**", "-"])
    power = [
        [
            f"{100 * one['gap']:.0f} points",
            str(one["n"]),
            one["drawn"].replace("_", " "),
            "yes" if one["scores"] else "no",
            percent(one["leans"]),
            percent(one["power"]),
            "-" if one["specified"] is None else f"{100 * one['specified']:.0f}",
        ]
        for one in found["power"]
    ]
    margins = [
        f"- {'met' if one['met'] else '**missed**'}: {one['margin']}; measured {percent(one)} %"
        for one in table["margins"]
    ]
    head = ["family", "kind", "sets", "mistakes lean %", "false claims %", "attribute in use found %"]
    head_power = ["gap", "rows", "drawn", "scores", "mistakes lean %", "found %", "specified %"]
    parts = [markdown(head, families), markdown(head_power, power), "\n".join(margins)]
    return so_far + "\n\n".join(parts) + source("audit_power")
