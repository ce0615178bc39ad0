"""A result as Markdown: one table of what was measured, and a section for a model card. Words are those of the page.

from jaxdebias.report import markdown
from jaxdebias.results.codec import read_run

print(markdown.model_card(read_run("run")))
"""

import re
from collections.abc import Sequence

from jaxdebias.report import formats, verdict_phrases, verdict_words, wording
from jaxdebias.report.formats import NONE, applies
from jaxdebias.report.method_names import method_name
from jaxdebias.results.records import GroupRate, Measurement, RunResults, Verdict

_ENTITIES = {"&": "&amp;", "<": "&lt;"}


def escape(text: str) -> str:
    r"""Text from outside as one line of plain text: no table cell, code, link, emphasis or HTML can begin in it.

    >>> escape("<b>a|b`c\nd")
    '&lt;b>a\\|b\\`c d'
    >>> escape("[x](y) *z* - "), escape("# no title"), escape("hair_colour")
    ('\\[x\\](y) \\*z\\* -', '\\# no title', 'hair\\_colour')
    """
    line = " ".join(text.split())
    line = re.sub(r"[&<]|[\\`*_\[\]|~]", lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), line)
    return re.sub(r"^[#>+=-]", r"\\\g<0>", line)


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose first column is to the left and all others to the right. Cells are Markdown.

    >>> table_lines(["", "n"], [["a", "3"]])
    ['|  | n |', '| --- | ---: |', '| a | 3 |']
    """
    return [
        "| " + " | ".join(columns) + " |",
        "| --- |" + " ---: |" * (len(columns) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def table(record: RunResults) -> str:
    """What was measured: a row for each metric that applies, with intervals; after a repair also that and the change.

    Args:
      record: what was found.

    Returns:
      A Markdown table, ending in a newline. A change that is none by its test is called not separable.
    """
    record = wording.as_shown(record)
    return "\n".join([*_verdict(record.verdict, headed=True), *_table(record)]) + "\n"


def _verdict(verdict: Verdict | None, *, headed: bool) -> list[str]:
    """The three answers, the advice and every comparison; nothing without a verdict."""
    if verdict is None:
        return []
    lines = [f"**{escape(verdict.headline)}**", ""] if headed else []
    for section in verdict_words.sections(verdict):
        if section.sentences:
            lines += [f"- **{section.title}** {escape(section.text)}"]
    rows = [list(map(escape, row)) for row in verdict_phrases.rows(verdict)[: verdict_phrases.MOST_ROWS]]
    table = ["", *table_lines(verdict_phrases.COLUMNS, rows)] if rows else []
    return [*lines, *table, ""]


def model_card(record: RunResults) -> str:
    """The section "Bias, Risks, and Limitations" of a model card: on which data, which attribute, how much, what then.

    It speaks of the model as it is now: after the repair, where one was made and kept.

    Args:
      record: what was found.

    Returns:
      Markdown that begins with a heading of the second level, ending in a newline.
    """
    record = wording.as_shown(record)
    attribute, items = map(escape, wording.words(record))
    measured = record.after or record.before
    verdict = wording.verdict(record)
    level = f"{100 * record.level:g} %"
    made = record.provenance
    versions = ", ".join(f"{escape(name)} {escape(version)}" for name, version in made.versions.items())
    done = " ".join(verdict.repair)
    if record.verdict is not None and record.command != "train":
        done = _what_was_done(record)
    elif record.command == "train" or not done:
        done = "No repair was tried."
        if record.method != "erm":
            done = f"Trained with {method_name(record.method)}; nothing was repaired afterwards."
    facts = [
        (
            "Model and data",
            f"{escape(record.model)} on {escape(record.dataset)}{_variant(record)}; "
            f"measured on {_test_size(measured)} test {items}",
        ),
        ("Attribute", f"{attribute} ({_names(record.attribute_names)}); labels: {_names(record.label_names)}"),
        ("Worst group", _worst(measured, items)),
        ("Gap", _gap(measured, items)),
        ("What was done", escape(done)),
        (
            "How it was measured",
            f"{versions or 'versions not recorded'}; {escape(made.device)}; seed {made.seed}; {level} intervals",
        ),
    ]
    said = f"**{escape(verdict.headline)}** {escape(' '.join(verdict.diagnosis))}".rstrip()
    lines = [
        "## Bias, Risks, and Limitations",
        "",
        said,
        "",
        *_verdict(record.verdict, headed=False),
        *(f"- **{name}**: {text.rstrip('. ')}." for name, text in facts),
        "",
        *_table(record),
    ]
    remarks = [*wording.baseline_remarks(record), *record.findings]
    if remarks:
        lines += ["", "### Recommendations", "", *(f"- {escape(text)}" for text in remarks)]
    return "\n".join(lines) + "\n"


def _what_was_done(record: RunResults) -> str:
    """Whether a repair was applied to the model that is described, and whether its gain was verified."""
    if record.after is None:
        return "Nothing was changed."
    if record.verdict.advice.state.endswith("repaired"):
        return f"The model was repaired with {method_name(record.method)}; this was verified on the test set."
    return f"The model was changed with {method_name(record.method)}; a gain was not verified."


def _table(record: RunResults) -> list[str]:
    repaired = record.after is not None
    columns = ["", "before" if repaired else "measured"]
    columns += [f"after {escape(method_name(record.method))}", "change"] if repaired else []
    models = [record.before, *([record.after] if repaired else [])]
    rows = []
    for metric in wording.metrics_of(record):
        if not any(applies(metric.of(one)) for one in models):
            continue
        cells = [_cell(metric, metric.of(one)) for one in models]
        if repaired:
            cells.append(_change(wording.metric_change(record, metric.key)))
        rows.append([metric.name, *cells])
    return table_lines(columns, rows)


def _cell(metric: wording.Metric, rate: formats.Estimate | None) -> str:
    ends = formats.interval(rate)
    group = f", {escape(rate.group)}" if isinstance(rate, GroupRate) and applies(rate) and rate.group else ""
    return escape(metric.show(rate)) + (f" ({ends})" if ends else "") + group


def _change(change: formats.Change | None) -> str:
    """A change with its interval, and whether it is more than chance."""
    if change is None:
        return NONE
    said = formats.signed_change(change)
    return f"{said}, not separable" if change.separable is False else said


def _worst(measured: Measurement, items: str) -> str:
    worst = measured.worst_group_accuracy
    if not applies(worst):
        return "not known: no test sample has a known attribute"
    ends, n = formats.interval(worst), worst.n
    others = worst.indistinguishable
    alike = f"; {others} other group{'s' * (others != 1)} cannot be told from it" if others else ""
    few = "" if n is None else f", {formats.count(n)} {items}{', too few to say much' if n < 30 else ''}"
    return (
        f"{escape(worst.group or 'its name was not recorded')}: accuracy "
        f"{escape(formats.percent(worst.value))}{f' ({ends})' if ends else ''}{few}{alike}"
    )


def _gap(measured: Measurement, items: str) -> str:
    gap = wording.gap_of(measured)
    if gap is None:
        return f"not measured: the test set has not both bias-aligned and bias-conflicting {items}"
    return f"accuracy on bias-aligned minus that on bias-conflicting {items}: {_change(gap)}"


def _variant(record: RunResults) -> str:
    parts = [escape(f"{key.replace('_', ' ')} {value}") for key, value in record.variant.items()]
    return f" ({', '.join(parts)})" if parts else ""


def _test_size(measured: Measurement) -> str:
    """Rows, known attribute or not: the accuracy's n is that of independent units."""
    n = sum(group.n for group in measured.groups)
    return formats.count(n or (0 if measured.accuracy is None else measured.accuracy.n or 0))


def _names(names: Sequence[str], most: int = 12) -> str:
    shown = [escape(name) for name in names[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")
