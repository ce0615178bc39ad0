"""The five answers of an audit, in plain sentences: disparity, reliance, where, because of what, what to do.

An answer that the given inputs do not allow is empty, and says what would be needed.
"""

from jaxdebias.auditing.discovery import POWER
from jaxdebias.report import map_view, patch_view, verdict_words, wording
from jaxdebias.report.formats import percent
from jaxdebias.report.verdict_phrases import listing
from jaxdebias.results.records import Answer, Discovered, RunResults

PIXELS, SAMPLES = "On which pixels?", "Because of which training samples?"
MOST_NAMED = 5
"""Samples or groups that a sentence lists."""
SUSPECT = {"aug-cell": "Something easier than shapes", "sih": "Something that is learned before the rest"}
UNSEEN = {"aug-cell": "A shortcut that is itself a shape", "sih": "A shortcut that is hardly easier than the label"}
"""By who judged the pictures: what their guesses speak of, and what they cannot see."""


def answers(record: RunResults) -> tuple[Answer, ...]:
    """The five answers, in order, computed once: a record that has them keeps them.

    Args:
      record: of an audit, with its verdict.
    """
    if record.answers is not None:
        return record.answers
    served, relied, associated, advised = verdict_words.sections(record.verdict)
    found = [] if record.discovered is None else _discovered(record.discovered, record)
    no_attribute = "" if record.verdict.reliance else "a column of an attribute for the test samples"
    answered = (
        (served.title, served.text, no_attribute),
        (relied.title, " ".join([*relied.sentences, *associated.sentences, *found]), no_attribute),
        (PIXELS, *_where(record)),
        (SAMPLES, *_because(record, wording.words(record).attribute)),
        (advised.title, advised.text, record.inputs.repairs),
    )
    return tuple(Answer(question=question, said=said, needs=needs) for question, said, needs in answered)


def evidence(record: RunResults) -> list[Answer]:
    """The answers that the verdict does not hold: on which pixels, because of which training samples."""
    return [one for one in answers(record) if one.question in (PIXELS, SAMPLES)] if record.inputs is not None else []


def text(record: RunResults) -> str:
    """The headline, the answers and the findings, for a terminal."""
    said = [record.verdict.headline, ""]
    sentences = {section.title: section.sentences for section in verdict_words.sections(record.verdict)}
    for number, one in enumerate(answers(record), 1):
        # What the verdict says stands sentence by sentence; what else was said to the question comes after it.
        lines = [line for line in sentences.get(one.question, ()) if line in one.said]
        rest = one.said
        for line in lines:
            rest = rest.replace(line, "", 1)
        lines += [rest.strip()] if rest.strip() else []
        lines += [] if one.said else ["Not answered."]
        lines += [f"Needs {one.needs}."] if one.needs else []
        said += [f"{number}. {one.question}", *(f"   {line}" for line in lines)]
    return "\n".join(said + [f"- {remark}" for remark in record.findings])


def suspected(record: RunResults) -> bool:
    """Whether a shortcut is suspected that no given attribute names."""
    found = record.discovered
    return found is not None and found.cells is not None and found.cells.suspected


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
        f"{listing(shares)}."
    )


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
