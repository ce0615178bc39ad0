"""The five answers of an audit, in plain sentences: which shortcut, how strong, where, because of what, what to do.

An answer that the given inputs do not allow is empty, and says what would be needed.
"""

from collections.abc import Mapping

from jaxdebias.auditing.advice import LEAVE, UNTRIED
from jaxdebias.auditing.discovery import POWER
from jaxdebias.report import candidate_view, formats, map_view, patch_view, wording
from jaxdebias.report.formats import applies, percent
from jaxdebias.report.method_names import method_name
from jaxdebias.results.records import Answer, Candidate, Discovered, Interval, RunResults

MOST_NAMED = 5
"""Samples or groups that a sentence lists."""
BOUND = 0.05
"""Of p, below which mistakes are said to lean."""
SUSPECT = {"aug-cell": "Something easier than shapes", "sih": "Something that is learned before the rest"}
UNSEEN = {"aug-cell": "A shortcut that is itself a shape", "sih": "A shortcut that is hardly easier than the label"}
"""By who judged the pictures: what their guesses speak of, and what they cannot see."""


def answers(record: RunResults) -> tuple[Answer, ...]:
    """The five answers, in order, computed once: a record that has them keeps them.

    Args:
      record: of an audit.
    """
    if record.answers is not None:
        return record.answers
    answered = {
        "Which attribute is a shortcut?": _which(record),
        "How strongly does the model follow it?": _how_strongly(record),
        "On which pixels?": _where(record),
        "Because of which training samples?": _because(record, wording.words(record).attribute),
        "What to do?": _what_to_do(record),
    }
    return tuple(Answer(question=question, said=said, needs=needs) for question, (said, needs) in answered.items())


def headline(record: RunResults) -> str:
    """One line: the verdict and the advice."""
    return f"{wording.verdict(record).headline} {_advice_in_short(record)}"


def text(record: RunResults) -> str:
    """The headline, the answers and the findings, for a terminal."""
    said = [headline(record), ""]
    for number, one in enumerate(answers(record), 1):
        said.append(
            f"{number}. {one.question} {one.said or 'Not answered.'}" + (f" (Needs {one.needs}.)" if one.needs else "")
        )
    return "\n".join(said + [f"- {remark}" for remark in record.findings])


def suspected(record: RunResults) -> bool:
    """Whether a shortcut is suspected that no given attribute names."""
    found = record.discovered
    return found is not None and found.cells is not None and found.cells.suspected


def _which(record: RunResults) -> tuple[str, str]:
    tested = [one for one in record.candidates or () if one.name != _cells_name(record)]
    said, needs = [], ""
    shortcuts = [one for one in tested if one.verdict == "shortcut"]
    over = f"over {len(tested)} candidates" if len(tested) > 1 else "one candidate was tested"
    if len(shortcuts) == 1:
        said.append(
            f"{_capital(shortcuts[0].name)} is one: mistakes lean to the class that it goes with in "
            f"training (p {_p(shortcuts[0])}, {over})."
        )
    elif shortcuts:
        listed = [f"{one.name} (p {_p(one)})" for one in shortcuts]
        said.append(
            f"{_capital(_listing(listed))} are, {over}: mistakes lean to the class that each goes with in "
            "training. If one of them is meant to be used, that is what using it looks like."
        )
    for one in tested:
        if one.verdict == "explained":
            said.append(f"{_capital(one.name)} is not one of its own: what it says is that of {one.explained_by}.")
    clear = [one for one in tested if one.verdict == "none" and one.p_value >= BOUND]
    if clear:
        names = [one.name for one in clear[:MOST_NAMED]]
        names += [f"{len(clear) - MOST_NAMED} more"] if len(clear) > MOST_NAMED else []
        least = min(one.p_value for one in clear)
        said.append(
            f"No sign of {_listing(names, 'or')} (p {'at least ' if len(clear) > 1 else ''}"
            f"{candidate_view.p_value(least)})."
        )
    for one in tested:
        if one.verdict == "none" and one.p_value < BOUND:
            said.append(
                f"Mistakes lean with {one.name} (p {_p(one)}), but in training it goes with the label no "
                "more than chance would have it: that is not called a shortcut."
            )
    for one in tested:
        if one.verdict == "unknown":
            said.append(f"{_capital(one.name)} could not be judged: {one.reason}.")
    if not tested:
        said.append("No attribute was given, so none could be tested.")
        needs = "a column of a suspected attribute for the test samples, better for the training samples too"
    found = record.discovered
    if found is not None:
        said += _discovered(found, record)
    return " ".join(said), needs


def _discovered(found: Discovered, record: RunResults) -> list[str]:
    said, cells = [], found.cells
    if cells is not None and cells.suspected:
        said.append(
            f"Without any, pictures are judged by {wording.JUDGES[cells.judges]}: "
            f"{percent(cells.flagged_share)} of the training samples look like another class with "
            f"confidence, and the model's mistakes follow them. {SUSPECT[cells.judges]} is a suspect; look "
            "at these samples."
        )
    elif cells is not None:
        said.append(
            f"Without any, pictures are judged by {wording.JUDGES[cells.judges]}: nothing was suspected. "
            f"{_power(cells.judges)} {UNSEEN[cells.judges]} would not show this way."
        )
    if found.groups:
        names = record.label_names
        worst = [
            f"{names[group.label]} taken for {names[group.mistaken_for]} "
            f"({percent(group.error.value)} wrong, {percent(group.others.value)} of the other "
            f"{names[group.label]})"
            for group in found.groups[:3]
        ]
        said.append(
            f"Mistakes gather in {len(found.groups)} group{'s' if len(found.groups) > 1 else ''} of "
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


def _how_strongly(record: RunResults) -> tuple[str, str]:
    before, said = record.before, []
    attribute, items = wording.words(record)
    aligned, conflicting = before.bias_aligned_accuracy, before.bias_conflicting_accuracy
    first = record.candidates[0] if record.candidates else None
    if applies(aligned) and applies(conflicting):
        gap = candidate_view.gap(first.gap) if first is not None and applies(first.gap) else None
        said.append(
            f"{percent(aligned.value)} of the {items} whose {attribute} goes with their label are right, "
            f"{percent(conflicting.value)} of the others."
            + (f" Within a label, the gap is {gap} on average." if gap else "")
            + f" {_chance(record)}"
        )
    if applies(before.counterfactual_bias):
        metric = wording.metric_of(record, "counterfactual_bias")
        said.append(
            f"{metric.name}: {metric.show(before.counterfactual_bias)} "
            f"({formats.interval(before.counterfactual_bias)})."
        )
    if first is not None and first.verdict not in ("shortcut",) and said:
        said.append("That a group is harder is no evidence of a shortcut.")
    if not said:
        return "", "bias-aligned and bias-conflicting test samples of known attribute"
    return " ".join(said), ""


def _chance(record: RunResults) -> str:
    """What guessing would give."""
    counts = [sum(map(sum, of_label)) for of_label in record.before.confusion_by_group]
    if not sum(counts):
        return ""
    return f"Always answering the most frequent class would be right in {percent(max(counts) / sum(counts))}."


def _where(record: RunResults) -> tuple[str, str]:
    said, maps, attribute = [], record.maps, wording.words(record).attribute
    if maps is not None and maps.regions:
        everything = maps.rows[0]
        said.append(
            "Where the model looks, Attention-IoU beside chance: "
            + ", ".join(
                f"{region.region} {map_view.score(region.score)} ({map_view.score_interval(region.score)}; "
                f"{region.chance:.2f})"
                for region in everything.regions
                if region.chance is not None
            )
            + "."
        )
    elif maps is not None:
        said.append("Maps of where the model looks are below; without masks they have no scores.")
    if record.patches is not None:
        said.append(f"Where the data show the {attribute}: {patch_view.verdict(record)}")
    if said:
        return " ".join(said), ""
    return "", record.inputs.pixels


def _because(record: RunResults, attribute: str) -> tuple[str, str]:
    harmful = [one for one in record.harmful if one.score > 0]
    if not harmful:
        return "", record.inputs.samples
    names, values = record.label_names, record.attribute_names
    listed = ", ".join(
        f"{one.index} ({names[one.label]} · {values[one.attribute] if one.attribute >= 0 else 'unknown'})"
        for one in harmful[:MOST_NAMED]
    )
    aligned = sum(one.attribute >= 0 and record.aligned[one.label][one.attribute] for one in harmful)
    return (
        f"Training rows {listed} do most for the dependence on the {attribute}, by influence on the last layer; of "
        f"the first {len(harmful)}, {aligned} are bias-aligned. An explanation, not a list of samples to delete.",
        "",
    )


def _what_to_do(record: RunResults) -> tuple[str, str]:
    advice, said = record.advice, []
    option = next((one for one in advice.options if one.name == advice.fix), None)
    if advice.fix == UNTRIED:
        said.append("No repair could be tried.")
    elif option is None:
        judged = [
            rate.n for one in advice.options for key, rate in one.expected.items() if key == "group_mean_accuracy"
        ]
        said.append(
            f"Leave it: {advice.reason}" + (f" ({formats.count(max(judged))} of them judged it)." if judged else ".")
        )
    else:
        said.append(
            f"{method_name(option.name)} on the last layer, {formats.seconds(option.seconds)}: "
            f"expected {_effects(record, option.expected)}, on held-out samples that chose nothing."
        )
        checked = advice.verified
        if checked is None:
            said.append("Not applied yet: fix=True applies it and tests it on the test set.")
        elif checked.held:
            said.append(f"Applied and verified on the test set, paired: {_effects(record, checked.changes)}.")
        else:
            said.append(
                f"Applied, but not verified on the test set ({_effects(record, checked.changes)}): the "
                "model was left as it is."
            )
    said += [f"{_capital(text)}." for text in advice.retrain]
    return " ".join(said), advice.missing


def _advice_in_short(record: RunResults) -> str:
    advice = record.advice
    if advice.fix == LEAVE:
        shortcut = any(one.verdict == "shortcut" for one in record.candidates or ())
        return "No repair of the last layer is known to help." if shortcut else "Leave it as it is."
    if advice.fix == UNTRIED:
        return "No repair could be tried."
    name = method_name(advice.fix)
    if advice.verified is None:
        return f"{name} is expected to help."
    return f"{name} helped, verified." if advice.verified.held else f"{name} was tried and did not hold."


def _effects(record: RunResults, changes: Mapping[str, Interval]) -> str:
    """The changes that a repair is judged by."""
    said = []
    for key in ("group_mean_accuracy", "bias_conflicting_accuracy", "bias_aligned_accuracy", "counterfactual_bias"):
        if applies(changes.get(key)):
            name = wording.metric_of(record, key).name
            said.append(f"{name[0].lower() + name[1:]} {candidate_view.gap(changes.get(key))}")
    return "; ".join(said) or "no change that can be counted"


def _listing(names: list[str], word: str = "and") -> str:
    """
    >>> _listing(["a"]), _listing(["a", "b", "c"], "or")
    ('a', 'a, b or c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def _cells_name(record: RunResults) -> str | None:
    found = record.discovered
    return found.cells.name if found is not None and found.cells is not None else None


def _p(one: Candidate) -> str:
    return candidate_view.p_value(one.p_value)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
