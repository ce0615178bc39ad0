"""Who was drawn, in words and pictures: what page and terminal say about the draws of a record."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array
from jaxdebias.report import figures, formats, wording
from jaxdebias.report.figures import Series
from jaxdebias.results.records import DrawnSample, DrawnSet, Draws, RunResults

if TYPE_CHECKING:
    from rich.console import Console

FOLLOWS = 0.7
"""From this AUC on, the weights are said to follow a group; 0.5 is blind to it."""
MOST_GROUPS = 24
"""With more groups than this only all conflicting samples together are shown."""

Answer = Literal["even", "unknown", "follows", "blind"]


class NamedDraws(NamedTuple):
    """A set of samples by name, and what it gets of the draws."""

    name: str
    drawn: DrawnSet


def rows_of(record: RunResults) -> list[NamedDraws]:
    """The sets of samples whose draws are shown: every group, or all conflicting ones."""
    draws, labels, attributes = record.draws, record.label_names, record.attribute_names
    rows = [NamedDraws(f"{labels[group.label]} · {attributes[group.attribute]}", group) for group in draws.groups]
    rows = rows if len(rows) <= MOST_GROUPS else []
    if draws.conflicting is not None:
        rows.append(NamedDraws("all bias-conflicting", draws.conflicting))
    return rows


def followed(record: RunResults) -> NamedDraws | None:
    """The set that the weights follow most closely, if they follow one."""
    rows = [row for row in rows_of(record) if row.drawn.auc is not None and row.drawn.auc >= FOLLOWS]
    return max(rows, key=lambda row: row.drawn.auc, default=None)


def answer(record: RunResults) -> Answer:
    """`even`: every sample was as likely as another. Else, whether the draws go with a known group."""
    draws = record.draws
    if draws.ess > 0.999:
        return "even"
    if not any(row.drawn.auc is not None for row in rows_of(record)):
        return "unknown"
    return "blind" if followed(record) is None else "follows"


def verdict(record: RunResults) -> str:
    """The answer in plain sentences."""
    items, kind = wording.words(record).items, answer(record)
    if kind == "even":
        why = (
            "no latent carried anything by which they could differ"
            if record.draws.carrying == 0
            else "the resampling had not begun"
        )
        return f"All {items} were as likely to be drawn after the last epoch: {why}."
    if kind == "unknown":
        return f"The data know no groups, so whether the draws go with one is not known. Look at the {items} below."
    if kind == "follows":
        name, drawn = followed(record)  # pyright: ignore[reportGeneralTypeIssues]
        return (
            f"The draws follow a known group, {name}: {formats.percent(drawn.row_share)} of the {items}, "
            f"{formats.percent(drawn.draw_share)} of the draws. One of them outweighs another of its label with "
            f"a chance of {drawn.auc:.2f}."
        )
    highest = max(row.drawn.auc for row in rows_of(record) if row.drawn.auc is not None)
    return (
        f"The draws follow no known group (AUC at most {highest:.2f}; 0.50 is blind). What this model finds rare "
        "is something else, so no gain for a group is to be expected from the draws."
    )


def about(record: RunResults) -> str:
    """What the numbers are: for the head of the section."""
    items = wording.words(record).items
    return (
        f"Training drew those {items} more often that are rare in the model's own latent space, within their "
        "label. Weights are those after the last epoch. Groups are only compared with them here: no weight "
        "depends on a group."
    )


def facts(record: RunResults) -> list[str]:
    """Numbers of all weights together, as sentences."""
    draws, items = record.draws, wording.words(record).items
    return [
        f"The draws are worth {formats.percent(draws.ess, 0)} of the {formats.count(draws.rows)} {items} "
        f"(effective sample size); {formats.percent(draws.never_drawn, 0)} of them are left out of an epoch.",
        f"The heaviest gets {formats.percent(draws.largest)} of the draws.",
        f"{draws.carrying} of {len(draws.kl)} latents carry at least 0.01 nats.",
    ]


class DrawsRow(NamedTuple):
    """The numbers of one set as text, or the headers of these columns."""

    name: str
    rows: str
    draws: str
    auc: str


class Bin(NamedTuple):
    """One bin of the histogram of weights."""

    name: str
    value: str
    bar: str


class DrawnView(NamedTuple):
    """A sample, as it is and as the decoder rebuilds it."""

    images: list[str]
    name: str
    ratio: str


class DrawsSection(NamedTuple):
    """The draws, drawn and worded."""

    about: str
    verdict: str
    careful: bool
    facts: list[str]
    columns: DrawsRow
    rows: list[DrawsRow]
    chart: str
    histogram: list[Bin]
    rare: list[DrawnView]
    common: list[DrawnView]


COLUMNS = DrawsRow("", "of the training set", "of the draws", "AUC of the weights")


def table(record: RunResults) -> list[DrawsRow]:
    """The groups' numbers as text."""
    return [
        DrawsRow(
            name=name,
            rows=formats.percent(drawn.row_share),
            draws=formats.percent(drawn.draw_share),
            auc=formats.NONE if drawn.auc is None else f"{drawn.auc:.2f}",
        )
        for name, drawn in rows_of(record)
    ]


def draws_section(
    record: RunResults, rare: Sequence[Array | None], common: Sequence[Array | None]
) -> DrawsSection | None:
    """What the page shows of the draws; None without them.

    Args:
      record: of a run.
      rare: (images, reconstructions), `[m h w c]` each or None, of the first m of the rarest samples.
      common: the same of the commonest.
    """
    draws = record.draws
    if draws is None:
        return None
    return DrawsSection(
        about=about(record),
        verdict=verdict(record),
        careful=answer(record) == "blind",
        facts=facts(record),
        columns=COLUMNS,
        rows=table(record),
        chart=_chart(draws),
        histogram=_histogram(draws),
        rare=_pictures(record, "rarest", draws.rarest, *rare),
        common=_pictures(record, "commonest", draws.commonest, *common),
    )


def _chart(draws: Draws) -> str:
    if len(draws.epochs) < 2:
        return ""
    return figures.lines([Series("effective sample size", "after", draws.ess_by_epoch),
                          Series("never drawn", "muted", draws.never_by_epoch)], draws.epochs,
                         step_name="epoch")  # fmt: skip


def _histogram(draws: Draws) -> list[Bin]:
    """A bar for each bin of weights, from the first to the last that has samples."""
    counts, edges = draws.histogram, draws.edges
    filled = [i for i, count in enumerate(counts) if count]
    most = float(max(counts))
    return [
        Bin(f"{edges[i]:.2g}–{edges[i + 1]:.2g} ×", formats.count(counts[i]),
            figures.length(counts[i], "other", full=most))
        for i in range(filled[0], filled[-1] + 1)
    ]  # fmt: skip


def _pictures(
    record: RunResults, which: str, samples: Sequence[DrawnSample], images: Array | None, decoded: Array | None
) -> list[DrawnView]:
    if images is None or decoded is None:
        return []
    shown = samples[: len(images)]
    expect(
        len(decoded) == len(images) == len(shown),
        f"pictures.{which}",
        f"{len(shown)} images and reconstructions",
        describe(decoded),
    )
    views = []
    for image, rebuilt, sample in zip(images, decoded, shown, strict=True):
        name = record.label_names[sample.label]
        name += f" · {record.attribute_names[sample.attribute]}" if sample.attribute >= 0 else ""
        ratio = f"{sample.ratio:.1f} ×" if sample.ratio >= 0.1 else f"{sample.ratio:.2g} ×"
        shots = [figures.picture(image, name), figures.picture(rebuilt, f"{name}, rebuilt")]
        views.append(DrawnView(shots, name, ratio))
    return views


def print_draws(record: RunResults, console: "Console") -> None:
    """The verdict and the groups' numbers, for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    console.print(Text(" ".join([about(record), *facts(record)])))
    rows = table(record)
    if rows:
        shown = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
        shown.add_column("draws")
        for header in COLUMNS[1:]:
            shown.add_column(header, justify="right")
        for row in rows:
            shown.add_row(*map(Text, row))
        console.print(shown)
    console.print(Text(verdict(record)))
