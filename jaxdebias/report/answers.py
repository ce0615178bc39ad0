"""The five answers of an audit, in plain sentences: which shortcut, how strong, where, because of what, what to do.

An answer that the given inputs do not allow is empty, and says what would be needed.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxdebias.auditing.advice import LEAVE, UNTRIED
from jaxdebias.auditing.discovery import POWER
from jaxdebias.report import candidate_view, formats, map_view, patch_view, wording
from jaxdebias.report.formats import applies, percent

MOST_NAMED = 5
"""Samples or groups that a sentence lists."""
BOUND = 0.05
"""Of p, below which mistakes are said to lean."""
SUSPECT = {"aug-cell": "Something easier than shapes", "sih": "Something that is learned before the rest"}
UNSEEN = {"aug-cell": "A shortcut that is itself a shape", "sih": "A shortcut that is hardly easier than the label"}
"""By who judged the pictures: what their guesses speak of, and what they cannot see."""


class Answer(NamedTuple):
    question: str
    said: str
    """The answer; empty where there is none."""
    needs: str
    """What would be needed for an answer, or for a better one; empty if nothing."""


def answers(results: Mapping[str, Any]) -> list[Answer]:
    """The five, in order.

    Args:
      results: of `jaxdebias.audit`; see `jaxdebias.results.records`.
    """
    attribute = wording.words(results).attribute
    return [
        Answer("Which attribute is a shortcut?", *_which(results)),
        Answer("How strongly does the model follow it?", *_how_strongly(results)),
        Answer("On which pixels?", *_where(results)),
        Answer("Because of which training samples?", *_because(results, attribute)),
        Answer("What to do?", *_what_to_do(results)),
    ]


def headline(results: Mapping[str, Any]) -> str:
    """One line: the verdict and the advice."""
    return f"{wording.verdict(results).headline} {_advice_in_short(results)}"


def text(results: Mapping[str, Any]) -> str:
    """The headline, the answers and the findings, for a terminal."""
    said = [headline(results), ""]
    for number, one in enumerate(answers(results), 1):
        said.append(
            f"{number}. {one.question} {one.said or 'Not answered.'}" + (f" (Needs {one.needs}.)" if one.needs else "")
        )
    return "\n".join(said + [f"- {remark}" for remark in results["findings"]])


def suspected(results: Mapping[str, Any]) -> bool:
    """Whether a shortcut is suspected that no given attribute names."""
    found = results.get("discovered")
    return found is not None and found["cells"] is not None and found["cells"]["suspected"]


def _which(results: Mapping[str, Any]) -> tuple[str, str]:
    tested = [one for one in results["candidates"] if one["name"] != _cells_name(results)]
    said, needs = [], ""
    shortcuts = [one for one in tested if one["verdict"] == "shortcut"]
    over = f"over {len(tested)} candidates" if len(tested) > 1 else "one candidate was tested"
    if len(shortcuts) == 1:
        said.append(
            f"{_capital(shortcuts[0]['name'])} is one: mistakes lean to the class that it goes with in "
            f"training (p {_p(shortcuts[0])}, {over})."
        )
    elif shortcuts:
        listed = [f"{one['name']} (p {_p(one)})" for one in shortcuts]
        said.append(
            f"{_capital(_listing(listed))} are, {over}: mistakes lean to the class that each goes with in "
            "training. If one of them is meant to be used, that is what using it looks like."
        )
    for one in tested:
        if one["verdict"] == "explained":
            said.append(
                f"{_capital(one['name'])} is not one of its own: what it says is that of {one['explained_by']}."
            )
    clear = [one for one in tested if one["verdict"] == "none" and one["p_value"] >= BOUND]
    if clear:
        names = [one["name"] for one in clear[:MOST_NAMED]]
        names += [f"{len(clear) - MOST_NAMED} more"] if len(clear) > MOST_NAMED else []
        least = min(one["p_value"] for one in clear)
        said.append(
            f"No sign of {_listing(names, 'or')} (p {'at least ' if len(clear) > 1 else ''}"
            f"{candidate_view.p_value(least)})."
        )
    for one in tested:
        if one["verdict"] == "none" and one["p_value"] < BOUND:
            said.append(
                f"Mistakes lean with {one['name']} (p {_p(one)}), but in training it goes with the label no "
                "more than chance would have it: that is not called a shortcut."
            )
    for one in tested:
        if one["verdict"] == "unknown":
            said.append(f"{_capital(one['name'])} could not be judged: {one['reason']}.")
    if not tested:
        said.append("No attribute was given, so none could be tested.")
        needs = "a column of a suspected attribute for the test samples, better for the training samples too"
    found = results.get("discovered")
    if found is not None:
        said += _discovered(found, results)
    return " ".join(said), needs


def _discovered(found: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    said, cells = [], found["cells"]
    if cells is not None and cells["suspected"]:
        said.append(
            f"Without any, pictures are judged by {wording.JUDGES[cells['judges']]}: "
            f"{percent(cells['flagged_share'])} of the training samples look like another class with "
            f"confidence, and the model's mistakes follow them. {SUSPECT[cells['judges']]} is a suspect; look "
            "at these samples."
        )
    elif cells is not None:
        said.append(
            f"Without any, pictures are judged by {wording.JUDGES[cells['judges']]}: nothing was suspected. "
            f"{_power(cells['judges'])} {UNSEEN[cells['judges']]} would not show this way."
        )
    if found["groups"]:
        names = results["label_names"]
        worst = [
            f"{names[group['label']]} taken for {names[group['mistaken_for']]} "
            f"({percent(group['error']['value'])} wrong, {percent(group['others']['value'])} of the other "
            f"{names[group['label']]})"
            for group in found["groups"][:3]
        ]
        said.append(
            f"Mistakes gather in {len(found['groups'])} group{'s' if len(found['groups']) > 1 else ''} of "
            f"test samples that look alike to the model: {'; '.join(worst)}."
        )
    return said


def _power(judges: str) -> str:
    """How often such a search finds what is there.

    >>> _power("aug-cell")[:84]
    'This does not show that there is no shortcut: where a cue was planted, such a search'
    """
    shares = [f"{power.found} of {power.planted} sets of {power.pictures}" for power in POWER[judges]]
    return (
        "This does not show that there is no shortcut: where a cue was planted, such a search suspected something in "
        f"{_listing(shares)}."
    )


def _how_strongly(results: Mapping[str, Any]) -> tuple[str, str]:
    before, said = results["before"], []
    attribute, items = wording.words(results)
    aligned, conflicting = before["bias_aligned_accuracy"], before["bias_conflicting_accuracy"]
    first = results["candidates"][0] if results["candidates"] else None
    if applies(aligned) and applies(conflicting):
        gap = candidate_view.gap(first["gap"]) if first is not None and applies(first["gap"]) else None
        said.append(
            f"{percent(aligned['value'])} of the {items} whose {attribute} goes with their label are right, "
            f"{percent(conflicting['value'])} of the others."
            + (f" Within a label, the gap is {gap} on average." if gap else "")
            + f" {_chance(results)}"
        )
    if applies(before["counterfactual_bias"]):
        metric = wording.metric_of(results, "counterfactual_bias")
        said.append(
            f"{metric.name}: {metric.show(before['counterfactual_bias'])} "
            f"({formats.interval(before['counterfactual_bias'])})."
        )
    if first is not None and first["verdict"] not in ("shortcut",) and said:
        said.append("That a group is harder is no evidence of a shortcut.")
    if not said:
        return "", "bias-aligned and bias-conflicting test samples of known attribute"
    return " ".join(said), ""


def _chance(results: Mapping[str, Any]) -> str:
    """What guessing would give."""
    counts = [sum(map(sum, of_label)) for of_label in results["before"]["confusion_by_group"]]
    if not sum(counts):
        return ""
    return f"Always answering the most frequent class would be right in {percent(max(counts) / sum(counts))}."


def _where(results: Mapping[str, Any]) -> tuple[str, str]:
    said, maps, attribute = [], results.get("maps"), wording.words(results).attribute
    if maps is not None and maps["regions"]:
        everything = maps["rows"][0]
        said.append(
            "Where the model looks, Attention-IoU beside chance: "
            + ", ".join(
                f"{region['region']} {map_view.score(region['score'])} ({map_view.score_interval(region['score'])}; "
                f"{region['chance']:.2f})"
                for region in everything["regions"]
                if region["chance"] is not None
            )
            + "."
        )
    elif maps is not None:
        said.append("Maps of where the model looks are below; without masks they have no scores.")
    if results.get("patches") is not None:
        said.append(f"Where the data show the {attribute}: {patch_view.verdict(results)}")
    if said:
        return " ".join(said), ""
    return "", results["inputs"]["pixels"]


def _because(results: Mapping[str, Any], attribute: str) -> tuple[str, str]:
    harmful = [one for one in results["harmful"] if one["score"] > 0]
    if not harmful:
        return "", results["inputs"]["samples"]
    names, values = results["label_names"], results["attribute_names"]
    listed = ", ".join(
        f"{one['index']} ({names[one['label']]} · {values[one['attribute']] if one['attribute'] >= 0 else 'unknown'})"
        for one in harmful[:MOST_NAMED]
    )
    aligned = sum(one["attribute"] >= 0 and results["aligned"][one["label"]][one["attribute"]] for one in harmful)
    return (
        f"Training rows {listed} do most for the dependence on the {attribute}, by influence on the last layer; of "
        f"the first {len(harmful)}, {aligned} are bias-aligned. An explanation, not a list of samples to delete.",
        "",
    )


def _what_to_do(results: Mapping[str, Any]) -> tuple[str, str]:
    advice, said = results["advice"], []
    option = next((one for one in advice["options"] if one["name"] == advice["fix"]), None)
    if advice["fix"] == UNTRIED:
        said.append("No repair could be tried.")
    elif option is None:
        judged = [
            rate["n"]
            for one in advice["options"]
            for key, rate in one["expected"].items()
            if key == "group_mean_accuracy"
        ]
        said.append(
            f"Leave it: {advice['reason']}" + (f" ({formats.count(max(judged))} of them judged it)." if judged else ".")
        )
    else:
        said.append(
            f"{wording.method_name(option['name'])} on the last layer, {formats.seconds(option['seconds'])}: "
            f"expected {_effects(results, option['expected'])}, on held-out samples that chose nothing."
        )
        checked = advice["verified"]
        if checked is None:
            said.append("Not applied yet: fix=True applies it and tests it on the test set.")
        elif checked["held"]:
            said.append(f"Applied and verified on the test set, paired: {_effects(results, checked['changes'])}.")
        else:
            said.append(
                f"Applied, but not verified on the test set ({_effects(results, checked['changes'])}): the "
                "model was left as it is."
            )
    said += [f"{_capital(text)}." for text in advice["retrain"]]
    return " ".join(said), advice["missing"]


def _advice_in_short(results: Mapping[str, Any]) -> str:
    advice = results["advice"]
    if advice["fix"] == LEAVE:
        shortcut = any(one["verdict"] == "shortcut" for one in results["candidates"])
        return "No repair of the last layer is known to help." if shortcut else "Leave it as it is."
    if advice["fix"] == UNTRIED:
        return "No repair could be tried."
    name = wording.method_name(advice["fix"])
    if advice["verified"] is None:
        return f"{name} is expected to help."
    return f"{name} helped, verified." if advice["verified"]["held"] else f"{name} was tried and did not hold."


def _effects(results: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """The changes that a repair is judged by."""
    said = []
    for key in ("group_mean_accuracy", "bias_conflicting_accuracy", "bias_aligned_accuracy", "counterfactual_bias"):
        if applies(changes.get(key)):
            name = wording.metric_of(results, key).name
            said.append(f"{name[0].lower() + name[1:]} {candidate_view.gap(changes[key])}")
    return "; ".join(said) or "no change that can be counted"


def _listing(names: list[str], word: str = "and") -> str:
    """
    >>> _listing(["a"]), _listing(["a", "b", "c"], "or")
    ('a', 'a, b or c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def _cells_name(results: Mapping[str, Any]) -> str | None:
    found = results.get("discovered")
    return found["cells"]["name"] if found is not None and found["cells"] is not None else None


def _p(one: Mapping[str, Any]) -> str:
    return candidate_view.p_value(one["p_value"])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
