"""The repair of a language model as Markdown: one table of pairs and perplexity, StereoSet, CrowS-Pairs, sentences."""

from collections.abc import Mapping
from typing import Any

from jaxdebias.report._markdown import escape, table_lines
from jaxdebias.report.formats import NONE, applies

PARTS = {
    "edit": "the edit's occupations and templates",
    "occupations": "other occupations",
    "templates": "other templates",
    "both": "other occupations in other templates",
    "persons": "women and men (the preference is right)",
    "winogender": "Winogender",
}
METHODS = {"projection": "projection", "cda": "counterfactual fine-tuning (CDA)"}


def markdown(results: Mapping[str, Any]) -> str:
    """The page of `language_runs.debias_language`'s results."""
    edit = results["edit"]
    kept = "kept" if edit["accepted"] else "not kept"
    share = edit["parameters_changed"] / edit["parameters_of_model"]
    lines = [
        f"# Bias of {escape(results['model'])}, before and after FMD",
        "",
        f"The edit was {kept}: {edit['parameters_changed']:,} of {edit['parameters_of_model']:,} numbers "
        f"({share:.2%}), {len(edit['rounds'])} rounds, {edit['seconds']:.1f} s.",
        "",
        *results["findings"],
        "",
        "## Pairs and perplexity",
        "",
        "Pair bias: absolute difference of the log-probabilities of a token, nats. Intervals are 95 %.",
        "",
    ]
    others = results["baselines"]
    names = ["before", "after FMD", "change", *(METHODS.get(name, name) for name in others)]
    rows = []
    for part in results["before"]["pairs"]:
        measured = [results[when]["pairs"][part]["absolute"] for when in ("before", "after")]
        rows.append(
            [
                PARTS.get(part, part),
                *map(_value, measured),
                _signed(results["changes"]["pairs"][part]),
                *(_value(one["measurement"]["pairs"][part]["absolute"]) for one in others.values()),
            ]
        )
    if results["before"]["perplexity"] is not None:
        measured = [results[when]["perplexity"] for when in ("before", "after")]
        rows.append(
            [
                "perplexity",
                *(_value(one, 2) for one in measured),
                _signed(results["changes"]["perplexity"], 2),
                *(_value(one["measurement"]["perplexity"], 2) for one in others.values()),
            ]
        )
    lines += table_lines(["", *names], rows)
    if results["before"]["stereoset"]:
        lines += ["", "## StereoSet", "", "Percent. SS: ideal 50; LMS and ICAT: ideal 100.", ""]
        columns = [f"{part} {when}" for part in ("SS", "LMS", "ICAT") for when in ("before", "after", "change")]
        lines += table_lines(
            ["bias", "items", *columns],
            [
                [
                    name,
                    str(one["items"]),
                    *(
                        cell
                        for part in ("ss", "lms", "icat")
                        for cell in (
                            _value(one[part], 1),
                            _value(results["after"]["stereoset"][name][part], 1),
                            _signed(results["changes"]["stereoset"][name][part], 1),
                        )
                    ),
                ]
                for name, one in results["before"]["stereoset"].items()
            ],
        )
    if results["before"]["crows"]:
        lines += [
            "",
            "## CrowS-Pairs",
            "",
            "Percent of pairs whose more stereotyping sentence is more probable; ideal 50. A noisy benchmark, "
            "its authors warn: nothing was chosen by it.",
            "",
        ]
        lines += table_lines(
            ["pairs", "before", "after", "change"],
            [
                [
                    name,
                    _value(one["score"], 1),
                    _value(results["after"]["crows"][name]["score"], 1),
                    _signed(results["changes"]["crows"][name], 1),
                ]
                for name, one in results["before"]["crows"].items()
            ],
        )
    lines += [
        "",
        "## Training sentences behind the bias",
        "",
        "By influence on the bias of the edit's pairs; positive: taking the sentence away would lower it.",
        "",
    ]
    lines += table_lines(
        ["sentence", "score"],
        [[escape(one["text"]), f"{one['score']:+.2e}"] for one in [*results["harmful"], *results["helpful"]]],
    )
    stack = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    return "\n".join([*lines, "", f"{results['device']}; {stack}; {results['seconds']:.0f} s.", ""])


def side_by_side(found: Mapping[str, Mapping[str, Any]]) -> str:
    """StereoSet, CrowS-Pairs, pair bias and perplexity of several checkpoints (name -> results), before and after."""
    rows = {"StereoSet": [], "CrowS-Pairs": [], "Pair bias and perplexity": []}
    for name, results in found.items():
        before, after, changes = (results[part] for part in ("before", "after", "changes"))
        for kind, one in before["stereoset"].items():
            rows["StereoSet"] += [
                [
                    name,
                    f"{kind}, {part.upper()}",
                    _value(one[part], 1),
                    _value(after["stereoset"][kind][part], 1),
                    _signed(changes["stereoset"][kind][part], 1),
                ]
                for part in ("ss", "lms", "icat")
            ]
        rows["CrowS-Pairs"] += [
            [
                name,
                kind,
                _value(one["score"], 1),
                _value(after["crows"][kind]["score"], 1),
                _signed(changes["crows"][kind], 1),
            ]
            for kind, one in before["crows"].items()
        ]
        rows["Pair bias and perplexity"] += [
            [
                name,
                PARTS.get(part, part),
                _value(one["absolute"]),
                _value(after["pairs"][part]["absolute"]),
                _signed(changes["pairs"][part]),
            ]
            for part, one in before["pairs"].items()
        ]
        if before["perplexity"] is not None:
            rows["Pair bias and perplexity"].append(
                [
                    name,
                    "perplexity",
                    _value(before["perplexity"], 2),
                    _value(after["perplexity"], 2),
                    _signed(changes["perplexity"], 2),
                ]
            )
    lines = ["# Stereotypes of checkpoints, before and after FMD", ""]
    for title, of in rows.items():
        said = table_lines(["checkpoint", "of", "before", "after", "change"], of) if of else ["No file of it at hand."]
        lines += [f"## {title}", "", *said, ""]
    kept = ", ".join(
        f"{name}: {'kept' if results['edit']['accepted'] else 'not kept'}" for name, results in found.items()
    )
    return "\n".join([*lines, f"Edits: {kept}. Intervals are 95 %.", ""])


def _value(rate: Mapping[str, Any] | None, digits: int = 3) -> str:
    if not applies(rate):
        return NONE
    return f"{rate['value']:.{digits}f} ({_end(rate['low'], digits)}–{_end(rate['high'], digits)})"


def _signed(rate: Mapping[str, Any] | None, digits: int = 3) -> str:
    """A change with its interval, and whether it is more than chance."""
    if not applies(rate):
        return NONE
    said = f"{rate['value']:+.{digits}f} ({_end(rate['low'], digits, '+')} to {_end(rate['high'], digits, '+')})"
    apart = rate["low"] is not None and rate["high"] is not None and (rate["low"] > 0 or rate["high"] < 0)
    return said if apart else f"{said}, not separable"


def _end(value: float | None, digits: int, sign: str = "") -> str:
    return NONE if value is None else f"{value:{sign}.{digits}f}"
