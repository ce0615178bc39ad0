"""Candidate attributes, in words: what the page and the terminal say about `results["candidates"]`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxdebias.report import formats
from jaxdebias.report.formats import NONE, applies

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS = {
    "name": "Candidate",
    "verdict": "Verdict",
    "gap": "Accuracy, aligned minus conflicting",
    "p": "p",
    "n": "Samples",
}
ABOUT = (
    "Of a shortcut, mistakes lean to the class that the attribute goes with in training; a group that is merely "
    "harder makes as many mistakes the other way. p is the chance of as much leaning without a shortcut, over all "
    "candidates together (Holm); p below 0.05 is called a shortcut, unless the attribute goes with the label in "
    "training no more than chance would have it."
)


def rows(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The candidates as text, by column. One that was guessed from the pictures is suspected only."""
    cells = (results.get("discovered") or {}).get("cells") or {}

    def said(one: Mapping[str, Any]) -> str:
        guessed = one["name"] == cells.get("name") and one["verdict"] == "shortcut"
        return "suspected" if guessed else verdict(one)

    return [
        {
            "name": one["name"],
            "verdict": said(one),
            "gap": gap(one["gap"]),
            "p": p_value(one["p_value"]),
            "n": formats.count(one["n"]),
        }
        for one in results["candidates"]
    ]


def verdict(one: Mapping[str, Any]) -> str:
    """What is said of one candidate.

    >>> verdict({"verdict": "explained", "explained_by": "colour", "reason": ""})
    'explained by colour'
    """
    return {
        "shortcut": "a shortcut",
        "none": "no shortcut seen",
        "explained": f"explained by {one['explained_by']}",
        "unknown": f"cannot be said: {one['reason']}",
    }[one["verdict"]]


def gap(rate: Mapping[str, Any] | None) -> str:
    """
    >>> gap({"value": 0.3, "low": 0.25, "high": 0.36, "n": 100})
    '+30.0 points (25.0 to 36.0)'
    """
    if not applies(rate):
        return NONE
    low, high = (f"{100 * rate[end]:.1f}".replace("-", "−") for end in ("low", "high"))
    return f"{formats.signed_points(rate['value'])} ({low} to {high})"


def p_value(p: float) -> str:
    """
    >>> p_value(3e-9), p_value(0.0213), p_value(0.66), p_value(1.0)
    ('<0.001', '0.021', '0.66', '1')
    """
    return "<0.001" if p < 0.001 else f"{p:.2g}"


def print_candidates(results: Mapping[str, Any], console: "Console") -> None:
    """A row for each candidate."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    console.print(Text(ABOUT))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
    for key, header in COLUMNS.items():
        table.add_column(header.lower(), justify="right" if key in ("gap", "p", "n") else "left")
    for row in rows(results):
        table.add_row(*(Text(row[key]) for key in COLUMNS))
    console.print(table)
