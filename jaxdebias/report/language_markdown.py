"""The repair of a language model as Markdown: one table of pairs and perplexity, StereoSet, CrowS-Pairs, sentences."""

from collections.abc import Mapping, Sequence

from jaxdebias.report._markdown import escape, table_lines
from jaxdebias.report.formats import NONE, applies
from jaxdebias.results.records import (
    Change,
    Interval,
    LanguageMeasurement,
    LanguageResults,
    StereoSet,
    StereoSetChanges,
)

PARTS = {
    "edit": "the edit's occupations and templates",
    "occupations": "other occupations",
    "templates": "other templates",
    "both": "other occupations in other templates",
    "persons": "women and men (the preference is right)",
    "winogender": "Winogender",
}
METHODS = {"projection": "projection", "cda": "counterfactual fine-tuning (CDA)"}


def markdown(record: LanguageResults) -> str:
    """What was measured before and after the repair of a language model.

    Args:
      record: what was found.

    Returns:
      A Markdown page, ending in a newline.
    """
    edit = record.edit
    kept = "kept" if edit.accepted else "not kept"
    share = edit.parameters_changed / edit.parameters_of_model
    lines = [
        f"# Bias of {escape(record.model)}, before and after FMD",
        "",
        f"The edit was {kept}: {edit.parameters_changed:,} of {edit.parameters_of_model:,} numbers "
        f"({share:.2%}), {len(edit.rounds)} rounds, {record.provenance.seconds_by_step['edit']:.1f} s.",
        "",
        *record.findings,
        "",
        "## Pairs and perplexity",
        "",
        "Pair bias: absolute difference of the log-probabilities of a token, nats. Intervals are 95 %.",
        "",
        *_pairs_and_perplexity(record),
    ]
    if record.before.stereoset:
        lines += ["", "## StereoSet", "", "Percent. SS: ideal 50; LMS and ICAT: ideal 100.", "", *_stereoset(record)]
    if record.before.crows:
        lines += [
            "",
            "## CrowS-Pairs",
            "",
            "Percent of pairs whose more stereotyping sentence is more probable; ideal 50. A noisy benchmark, "
            "its authors warn: nothing was chosen by it.",
            "",
            *table_lines(["pairs", "before", "after", "change"], _crows_rows(record)),
        ]
    lines += [
        "",
        "## Training sentences behind the bias",
        "",
        "By influence on the bias of the edit's pairs; positive: taking the sentence away would lower it.",
        "",
    ]
    lines += table_lines(
        ["sentence", "score"],
        [[escape(one.text), f"{one.score:+.2e}"] for one in [*record.harmful, *record.helpful]],
    )
    made = record.provenance
    stack = ", ".join(f"{name} {number}" for name, number in made.versions.items())
    return "\n".join([*lines, "", f"{made.device}; {stack}; {made.seconds:.0f} s.", ""])


def _pairs_and_perplexity(record: LanguageResults) -> list[str]:
    """A row for each set of pairs, a column for each model."""
    others = [one.measurement for one in record.baselines.values()]
    models: Sequence[LanguageMeasurement] = (record.before, record.after)
    names = ["before", "after FMD", "change", *(METHODS.get(name, name) for name in record.baselines)]
    rows = [
        [
            PARTS.get(part, part),
            *(_value(one.pairs[part].absolute) for one in models),
            _signed(record.changes.pairs[part]),
            *(_value(one.pairs[part].absolute) for one in others),
        ]
        for part in record.before.pairs
    ]
    if record.before.perplexity is not None:
        rows.append(
            [
                "perplexity",
                *(_value(one.perplexity, 2) for one in models),
                _signed(record.changes.perplexity, 2),
                *(_value(one.perplexity, 2) for one in others),
            ]
        )
    return table_lines(["", *names], rows)


def _stereoset(record: LanguageResults) -> list[str]:
    """A row for each type of bias, three columns for each score."""
    columns = [f"{part} {when}" for part in ("SS", "LMS", "ICAT") for when in ("before", "after", "change")]
    rows = []
    for name, before in record.before.stereoset.items():
        scores = zip(
            *(_scores(one[name]) for one in (record.before.stereoset, record.after.stereoset)),
            _scores(record.changes.stereoset[name]),
            strict=True,
        )
        cells = [cell for old, new, change in scores for cell in (_value(old, 1), _value(new, 1), _signed(change, 1))]
        rows.append([name, str(before.items), *cells])
    return table_lines(["bias", "items", *columns], rows)


def _scores(found: StereoSet | StereoSetChanges) -> tuple:
    return found.ss, found.lms, found.icat


def _crows_rows(record: LanguageResults) -> list[list[str]]:
    return [
        [
            name,
            _value(before.score, 1),
            _value(record.after.crows[name].score, 1),
            _signed(record.changes.crows[name], 1),
        ]
        for name, before in record.before.crows.items()
    ]


def side_by_side(found: Mapping[str, LanguageResults]) -> str:
    """StereoSet, CrowS-Pairs, pair bias and perplexity of several checkpoints, before and after.

    Args:
      found: name of a checkpoint -> what was found.

    Returns:
      A Markdown page, ending in a newline.
    """
    stereoset, crows, pairs = [], [], []
    for name, record in found.items():
        before, after, changes = record.before, record.after, record.changes
        for kind, scores in before.stereoset.items():
            changed = zip(
                ("SS", "LMS", "ICAT"),
                _scores(scores),
                _scores(after.stereoset[kind]),
                _scores(changes.stereoset[kind]),
                strict=True,
            )
            stereoset += [
                [name, f"{kind}, {part}", _value(old, 1), _value(new, 1), _signed(change, 1)]
                for part, old, new, change in changed
            ]
        crows += [[name, *row] for row in _crows_rows(record)]
        pairs += [
            [
                name,
                PARTS.get(part, part),
                _value(one.absolute),
                _value(after.pairs[part].absolute),
                _signed(changes.pairs[part]),
            ]
            for part, one in before.pairs.items()
        ]
        if before.perplexity is not None:
            perplexity = [_value(before.perplexity, 2), _value(after.perplexity, 2), _signed(changes.perplexity, 2)]
            pairs.append([name, "perplexity", *perplexity])
    lines = ["# Stereotypes of checkpoints, before and after FMD", ""]
    columns = ["checkpoint", "of", "before", "after", "change"]
    for title, rows in (("StereoSet", stereoset), ("CrowS-Pairs", crows), ("Pair bias and perplexity", pairs)):
        shown = table_lines(columns, rows) if rows else ["No file of it at hand."]
        lines += [f"## {title}", "", *shown, ""]
    kept = ", ".join(f"{name}: {'kept' if one.edit.accepted else 'not kept'}" for name, one in found.items())
    return "\n".join([*lines, f"Edits: {kept}. Intervals are 95 %.", ""])


def _value(rate: Interval | None, digits: int = 3) -> str:
    if not applies(rate):
        return NONE
    return f"{rate.value:.{digits}f} ({_end(rate.low, digits)}–{_end(rate.high, digits)})"


def _signed(rate: Change | None, digits: int = 3) -> str:
    """A change with its interval, and whether it is more than chance."""
    if not applies(rate):
        return NONE
    said = f"{rate.value:+.{digits}f} ({_end(rate.low, digits, '+')} to {_end(rate.high, digits, '+')})"
    return f"{said}, not separable" if rate.separable is False else said


def _end(value: float | None, digits: int, sign: str = "") -> str:
    return NONE if value is None else f"{value:{sign}.{digits}f}"
