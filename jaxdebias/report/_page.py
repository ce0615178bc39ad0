"""One self-contained HTML page of a result: no script, no request, readable on a phone, in the dark and on paper."""

import os
import pathlib
from collections.abc import Sequence

from jaxdebias.contracts import describe, expect
from jaxdebias.files import write_text
from jaxdebias.report import answers, figures, formats, verdict_phrases, verdict_words, wording
from jaxdebias.report._page_groups import confusions, group_maps, group_rows, worst_groups
from jaxdebias.report._page_metrics import baseline_rows, cards_of, panels_of
from jaxdebias.report._page_training import influence_section, rounds_section, steps_of, training_section
from jaxdebias.report.discovery_view import discovery_section
from jaxdebias.report.draw_view import draws_section
from jaxdebias.report.figures import Series
from jaxdebias.report.formats import applies
from jaxdebias.report.map_view import maps_section
from jaxdebias.report.method_names import method_name
from jaxdebias.report.patch_view import patches_section
from jaxdebias.report.pictures import Pictures, check_pictures, with_shown_channels
from jaxdebias.results.records import Measurement, RunResults

MANY_GROUPS = 24
"""With more groups than this the page shows heatmaps instead of a row per group."""


def write_page(record: RunResults, pictures: Pictures | None, path: str | os.PathLike[str]) -> None:
    """Writes the page of one run.

    Args:
      record: what was found.
      pictures: images to go with it, None for a table.
      path: of the HTML file; written under a temporary name, then renamed.

    Raises:
      ContractError: if a picture has another shape than its legend says, or the file cannot be written.
    """
    write_text(path, render_page(record, pictures))


def render_page(record: RunResults, pictures: Pictures | None) -> str:
    """The page of one run as HTML.

    Args:
      record: what was found.
      pictures: images to go with it, None for a table.

    Raises:
      ContractError: if a picture has another shape than its legend says.
    """
    import jinja2

    expect(isinstance(record, RunResults), "record", "RunResults", describe(record))
    pictures = pictures or Pictures()
    check_pictures(pictures)
    pictures = with_shown_channels(pictures)
    here = pathlib.Path(__file__).parent
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(here), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)  # fmt: skip
    environment.filters |= {"count": formats.count, "seconds": formats.seconds, "percent": formats.percent}
    style = (here / "page.css").read_text(encoding="utf-8")
    html = environment.get_template("page.html.j2").render(style=style, **_sections(record, pictures))
    # A number and its unit stay on one line.
    return html.replace(" %", "\u202f%").replace(" points", "\u00a0points")


def _sections(record: RunResults, pictures: Pictures) -> dict[str, object]:
    """Everything the template shows, already worded and drawn."""
    record = wording.as_shown(record)
    repaired = record.after is not None
    runs = [("before", record.before), ("after", record.after)] if record.after else [("", record.before)]
    groups = [group for group in record.before.groups if group.n > 0]
    many = len(record.before.groups) > MANY_GROUPS
    cards, rest = cards_of(record)
    return {
        "results": record,
        "words": wording.words(record),
        "verdict": wording.verdict(record),
        "judged": [] if record.verdict is None else verdict_words.sections(record.verdict),
        "comparisons": [] if record.verdict is None else verdict_phrases.rows(record.verdict),
        "comparison_columns": verdict_phrases.COLUMNS,
        "fall": _fall(record, runs),
        "method": method_name(record.method),
        "repaired": repaired,
        "has_aligned": any(map(any, record.aligned)),
        "confidence": f"{100 * record.level:g} %",
        "cards": cards,
        "rest": rest,
        "panels": panels_of(record),
        "baselines": baseline_rows(record),
        "baseline_remarks": wording.baseline_remarks(record),
        "many": many,
        "group_rows": group_rows(record, worst_groups(groups, 10) if many else groups),
        "group_maps": group_maps(record, runs) if many else [],
        "flagged": sum(group.flagged for group in groups),
        "groups": len(groups),
        "empty_groups": len(record.before.groups) - len(groups),
        "confusions": confusions(record, runs, by_group=not many),
        "worst_pictures": _worst_pictures(record, pictures),
        "answers": answers.evidence(record),
        "discovered": discovery_section(record, pictures.suspects, pictures.mistaken),
        "maps": maps_section(record, pictures.maps, pictures.maps_shown),
        "patches": patches_section(record, pictures.patch, pictures.patch_attribute, pictures.patch_label),
        "draws": draws_section(
            record, (pictures.rare, pictures.rare_decoded), (pictures.common, pictures.common_decoded)
        ),
        "matched": wording.matched(record),
        "pairs": _pairs(record, pictures),
        "influence": influence_section(record, pictures),
        "rounds": rounds_section(record),
        "train": training_section(record, pictures),
        "steps": steps_of(record),
    }


def _fall(record: RunResults, runs: Sequence[tuple[str, Measurement]]) -> str:
    """The picture of the verdict: how far accuracy falls from aligned to conflicting samples."""
    ends = [(title, m.bias_aligned_accuracy, m.bias_conflicting_accuracy) for title, m in runs]
    if not all(map(applies, ends[0][1:])):
        return ""
    lines = [
        Series(title or "accuracy", title or "before", [aligned.value, conflicting.value])
        for title, aligned, conflicting in ends
        if applies(aligned) and applies(conflicting)
    ]
    return figures.lines(lines, ("aligned", "conflicting"))


def _worst_pictures(record: RunResults, pictures: Pictures) -> list[dict[str, object]]:
    if pictures.worst is None:
        return []

    def guess(values: object, i: int) -> dict[str, object] | None:
        if values is None:
            return None
        right = pictures.worst_label is not None and int(values[i]) == int(pictures.worst_label[i])
        return {"name": record.label_names[int(values[i])], "right": right}

    return [{"image": figures.picture(image, "a sample of the worst group"), "before": guess(pictures.worst_before, i),
             "after": guess(pictures.worst_after, i)} for i, image in enumerate(pictures.worst)]  # fmt: skip


def _pairs(record: RunResults, pictures: Pictures) -> list[dict[str, object]]:
    if pictures.pairs is None:
        return []
    shown = []
    for i, pair in enumerate(pictures.pairs):
        label = None if pictures.pairs_label is None else record.label_names[int(pictures.pairs_label[i])]
        rows = [{"tone": tone, "shares": [formats.percent(float(p), 0) for p in values[i]]}
                for tone, values in (("before", pictures.pairs_before), ("after", pictures.pairs_after))
                if values is not None]  # fmt: skip
        images = [figures.picture(image, alt) for image, alt in zip(pair, ("aligned", "conflicting"), strict=True)]
        shown.append({"images": images, "label": label, "rows": rows})
    return shown
