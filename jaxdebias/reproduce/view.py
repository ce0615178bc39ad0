"""A reproduced table in the terminal: ours beside the published row."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxdebias.report import formats
from jaxdebias.report.formats import NONE
from jaxdebias.reproduce.published import published
from jaxdebias.results.records import TableResults

if TYPE_CHECKING:
    from rich.console import Console


def print_reproduced(table: TableResults, console: "Console | None" = None) -> None:
    """Prints a reproduced table: ours beside the published row, for each method and share of conflicting samples.

    Args:
      table: what `reproduce_table` returns.
      console: where to; standard output if None.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows, console = reproduced_rows(table), console or Console()
    # All in one table is wider than most terminals, and a value that is cut short is worse than two tables.
    beside = ("method", "conflicting", "seeds", "accuracy %", "published %", "against erm")
    within = ("method", "conflicting", "conflicting acc. %", "aligned acc. %", "seconds")
    for heads, keys in (
        (beside, ("method", "share", "seeds", "accuracy", "published", "gain")),
        (within, ("method", "share", "conflicting", "aligned", "seconds")),
    ):
        shown = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
        for head in heads:
            shown.add_column(head, justify="left" if head == "method" else "right", overflow="fold")
        for row in rows:
            said = {**row, "published": f"{row['published']} {row['verdict']}".strip()}
            shown.add_row(*(Text(said[key]) for key in keys))
        console.print(shown)
    console.print(f"Accuracy on the test digits: {table.protocol} {published(table.data).said}", markup=False)


def reproduced_rows(table: TableResults) -> list[dict[str, str]]:
    """The rows of a reproduced table as text, by column. Published rows are shown if the registry has them verified."""
    known = published(table.data)
    gains = {(gain["method"], gain["conflicting"]): gain for gain in table.paired}
    rows = []
    for row in table.summary:
        gain = gains.get((row["method"], row["conflicting"]))
        beside = row["published"] if known.find(row["method"], row["conflicting"]) is not None else None
        rows.append(
            {
                "method": row["method"],
                "share": f"{100 * row['conflicting']:g} %",
                "seeds": str(row["seeds"]),
                "accuracy": _mean_and_interval(row["accuracy"]),
                "published": NONE if beside is None else f"{beside['mean']:.1f} ± {beside['deviation']:.1f}",
                "verdict": "" if beside is None else beside["verdict"],
                "gain": NONE
                if gain is None
                else f"{formats.signed_points(gain['difference'])}"
                + (" (not separable)" if gain["verdict"] == "not separable" else ""),
                "conflicting": f"{100 * row['bias_conflicting_accuracy']['mean']:.1f}",
                "aligned": f"{100 * row['bias_aligned_accuracy']['mean']:.1f}",
                "seconds": f"{row['seconds']['mean']:.0f}",
            }
        )
    return rows


def _mean_and_interval(rate: Mapping[str, Any]) -> str:
    # A t-interval of few seeds may leave the range of a share.
    ends = "" if rate["low"] is None else f" ({100 * max(rate['low'], 0):.1f}–{100 * min(rate['high'], 1):.1f})"
    return f"{100 * rate['mean']:.1f}{ends}"
