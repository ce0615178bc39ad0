"""Tables of the simulations behind intervals and tests."""

import table_parts
from table_parts import markdown, read, source


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
