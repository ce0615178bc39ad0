"""Candidate attributes, in words: what the page and the terminal say about the candidates of a record."""

from typing import TYPE_CHECKING, NamedTuple

from jaxdebias.report import formats
from jaxdebias.report.formats import NONE, Estimate, applies
from jaxdebias.results.records import Candidate, RunResults

if TYPE_CHECKING:
    from rich.console import Console

ABOUT = (
    "Of a shortcut, mistakes lean to the class that the attribute goes with in training; a group that is merely "
    "harder makes as many mistakes the other way. p is the chance of as much leaning without a shortcut, over all "
    "candidates together (Holm); p below 0.05 is called a shortcut, unless the attribute goes with the label in "
    "training no more than chance would have it."
)


class CandidateRow(NamedTuple):
    """A candidate as text, by column."""

    name: str
    verdict: str
    gap: str
    p: str
    n: str


COLUMNS = CandidateRow("Candidate", "Verdict", "Accuracy, aligned minus conflicting", "p", "Samples")
NUMBERS = (2, 3, 4)
"""Columns that are aligned to the right."""


class CandidatesSection(NamedTuple):
    """The candidates as a table."""

    about: str
    columns: CandidateRow
    """Headers."""
    rows: list[CandidateRow]


def candidates_section(record: RunResults) -> CandidatesSection | None:
    """What the page, the terminal and the model card show of the candidates; None without them.

    One that was guessed from the pictures is suspected only.
    """
    if not record.candidates:
        return None
    cells = None if record.discovered is None else record.discovered.cells
    guessed = None if cells is None else cells.name
    rows = [
        CandidateRow(
            name=one.name,
            verdict="suspected" if one.name == guessed and one.verdict == "shortcut" else verdict(one),
            gap=gap(one.gap),
            p=p_value(one.p_value),
            n=formats.count(one.n),
        )
        for one in record.candidates
    ]
    return CandidatesSection(ABOUT, COLUMNS, rows)


def verdict(one: Candidate) -> str:
    """What is said of one candidate."""
    return {
        "shortcut": "a shortcut",
        "none": "no shortcut seen",
        "explained": f"explained by {one.explained_by}",
        "unknown": f"cannot be said: {one.reason}",
    }[one.verdict]


def gap(rate: Estimate | formats.Change | None) -> str:
    """A difference in points, with its interval.

    >>> gap(formats.Change(0.3, 0.25, 0.36))
    '+30.0 points (25.0 to 36.0)'
    """
    if not applies(rate):
        return NONE
    low, high = (f"{100 * end:.1f}".replace("-", "−") for end in (rate.low, rate.high))
    return f"{formats.signed_points(rate.value)} ({low} to {high})"


def p_value(p: float) -> str:
    """
    >>> p_value(3e-9), p_value(0.0213), p_value(0.66), p_value(1.0)
    ('<0.001', '0.021', '0.66', '1')
    """
    return "<0.001" if p < 0.001 else f"{p:.2g}"


def print_candidates(record: RunResults, console: "Console") -> None:
    """A row for each candidate."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    section = candidates_section(record)
    if section is None:
        return
    console.print(Text(section.about))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
    for i, header in enumerate(section.columns):
        table.add_column(header.lower(), justify="right" if i in NUMBERS else "left")
    for row in section.rows:
        table.add_row(*map(Text, row))
    console.print(table)
