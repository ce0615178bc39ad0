"""The words of a verdict: every sentence that terminal, page, Markdown and model card show is a function of the record.

    record = with_words(record)                    # headline and advice as sentences, written into the record
    sections(record)                               # the three answers and the advice, as every output shows them

Numbers are rounded here, once, so that no two outputs can differ.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from jaxdebias.auditing.verdict import most_needed, overall_reliance, too_small
from jaxdebias.measure import overall_disparity
from jaxdebias.measure._disparity_entries import DECIDING, JOINED
from jaxdebias.report import formats
from jaxdebias.report.method_names import method_name
from jaxdebias.report.verdict_phrases import (
    ADVICE,
    DECIDERS,
    RIVALS,
    STATES,
    capital,
    claim,
    effect,
    ends,
    groups,
    lean,
    listing,
    measure,
    worse,
)
from jaxdebias.results.records import (
    Association,
    Disparity,
    Reliance,
    Verdict,
)

MOST_SHOWN = 3
"""Comparisons that are written out; a table holds all of them."""
COUNTED = {"exceeds": "above the tolerance", "cannot_tell": "undecided", "within": "within it"}
"""How comparisons that are not written out are counted."""
BALANCED, UNNAMED = "jaxdebias train --method group-balanced", "jaxdebias train --method aug-cell"
"""How to train again where the attribute of training rows is known, and where it is not."""


class Section(NamedTuple):
    """One answer."""

    title: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """The sentences as one paragraph."""
        return " ".join(self.sentences)


def with_words(verdict: Verdict) -> Verdict:
    """The verdict with its headline and the sentence of its advice."""
    advice = dataclasses.replace(verdict.advice, sentence=advice_sentence(verdict))
    return dataclasses.replace(verdict, headline=headline(verdict), advice=advice)


def sections(verdict: Verdict) -> tuple[Section, ...]:
    """The three answers and the advice, in the order in which they are shown."""
    return (
        Section("Does the model serve groups differently?", disparity_answer(verdict)),
        Section("Do its decisions depend on an attribute?", reliance_answer(verdict)),
        Section(
            "Are label and attribute associated in training?", tuple(map(association_sentence, verdict.association))
        ),
        Section("What to do?", (f"{ADVICE[verdict.advice.state]}. {verdict.advice.sentence}",)),
    )


def headline(verdict: Verdict) -> str:
    """One sentence: the finding that the advice is about."""
    state = verdict.advice.state
    if state.startswith("reliance"):
        found = [one for one in verdict.reliance if one.state in ("shown", "shown_given")]
        more = [one.attribute for one in found[1:]]
        also = f"; there is evidence for {listing(more)} too" if more else ""
        return f"{claim(found[0])}{lean(found[0])}{also}."
    if state.startswith("disparity"):
        worst = _deciding(verdict)[0]
        return (
            f"{capital(measure(worst))} differs by {worst.attribute}: {groups(worst)}, a gap of "
            f"{formats.points(worst.gap.value)} ({ends(worst.gap)}); the cause is "
            f"{'not shown' if state == 'disparity_cause_not_shown' else 'not shown, but a repair was verified'}."
        )
    if state == "no_problem_found":
        largest = max(_deciding(verdict), key=lambda entry: entry.gap.high)
        leaning = [one.attribute for one in verdict.reliance if one.state == "consistent"]
        rest = f"; mistakes lean with {listing(leaning)}, which does not show reliance" if leaning else ""
        return (
            f"No problem found: the largest gap of accuracy or error rates is at most "
            f"{formats.points(largest.gap.high)} ({largest.attribute}, {measure(largest)}: {groups(largest)}){rest}."
        )
    served = overall_disparity(verdict.disparity)
    undecided = [entry for entry in _deciding(verdict) if entry.state == "cannot_tell"]
    if served == "cannot_tell" and undecided:
        entry = undecided[0]
        return (
            f"Not enough data to tell whether {measure(entry)} differs by {entry.attribute} by more than "
            f"{formats.points(verdict.tolerance, 0)}: {groups(entry)}, a gap of {formats.points(entry.gap.value)} "
            f"({ends(entry.gap)})."
        )
    if not verdict.reliance:
        return "Not enough data: no attribute was given."
    if served == "cannot_tell":
        return "Not enough data: no attribute has two values with enough rows to compare."
    names = [one.attribute for one in verdict.reliance if one.state == "cannot_tell"] or ["an attribute"]
    return (
        f"No gap above {formats.points(verdict.tolerance, 0)}, but not enough data to tell whether decisions depend on "
        f"{listing(names, 'or')}."
    )


def disparity_answer(verdict: Verdict) -> tuple[str, ...]:
    """The overall state, the worst comparisons, and what is reported only."""
    limit, deciding = formats.points(verdict.tolerance, 0), _deciding(verdict)
    said = [
        {
            "exceeds": f"Yes: accuracy or error rates differ by more than the tolerance of {limit}.",
            "within": f"No: no gap of accuracy or error rates is larger than the tolerance of {limit}.",
            "cannot_tell": f"Cannot tell whether accuracy or error rates differ by more than the tolerance of {limit}.",
        }[overall_disparity(verdict.disparity)]
    ]
    if not verdict.disparity:
        return (*said, f"No attribute has two values with rows to compare (at least {verdict.min_group} each).")
    shown = _shown(deciding)
    said += [disparity_sentence(entry, verdict) for entry in shown]
    if len(deciding) > len(shown):
        rest = [entry.state for entry in deciding if entry not in shown]
        counts = [f"{rest.count(state)} {COUNTED[state]}" for state in COUNTED if state in rest]
        said.append(f"{formats.count(len(rest))} further comparisons (table): {listing(counts)}.")
    reported = [entry for entry in verdict.disparity if entry.measure not in DECIDING and entry.state == "exceeds"]
    said += [f"Reported, not judged: {_lower(disparity_sentence(entry, verdict))}" for entry in reported[:1]]
    return tuple(said)


def _shown(deciding: Sequence[Disparity]) -> list[Disparity]:
    """The comparisons that are written out, worst first.

    Those of a combination of attributes only where none of its parts is as bad by the same measure.
    """
    order = {"exceeds": 0, "cannot_tell": 1, "within": 2}
    alone = {(one.attribute, one.measure): order[one.state] for one in deciding if JOINED not in one.attribute}

    def adds(one: Disparity) -> bool:
        parts = [alone.get((part, one.measure), 9) for part in one.attribute.split(JOINED)]
        return JOINED not in one.attribute or order[one.state] < min(parts)

    return [one for one in deciding if adds(one)][:MOST_SHOWN] or list(deciding[:MOST_SHOWN])


def disparity_sentence(entry: Disparity, verdict: Verdict) -> str:
    """One comparison with its groups, gap, test, and what was left out."""
    said = (
        f"{capital(measure(entry))} by {entry.attribute}: {groups(entry)}; gap {formats.points(entry.gap.value)} "
        f"({ends(entry.gap)}), p {formats.p_value(entry.p)}: {STATES[entry.state]}."
    )
    if too_small(entry, verdict.min_group):
        said += f" Fewer than two groups have {verdict.min_group} rows."
    elif entry.indistinguishable and entry.state != "within":
        others = "other group" if entry.indistinguishable == 1 else "other groups"
        said += f" The lowest cannot be told from {entry.indistinguishable} {others}."
    if entry.left_out:
        small = [f"{group.name} (n = {formats.count(group.n)})" for group in entry.left_out[:MOST_SHOWN]]
        small += [f"{len(entry.left_out) - MOST_SHOWN} more"] if len(entry.left_out) > MOST_SHOWN else []
        least = 100 if entry.measure == "calibration_error" else verdict.min_group
        said += f" Too small to take part (fewer than {least}): {listing(small)}."
    return said


def reliance_answer(verdict: Verdict) -> tuple[str, ...]:
    """A sentence or two for each attribute, and whether it is meant to be used."""
    if not verdict.reliance:
        return ("Cannot tell: no attribute was given.",)
    said = [reliance_sentence(one, verdict) for one in verdict.reliance]
    relied = [one.attribute for one in verdict.reliance if one.state in ("shown", "shown_given")]
    leaning = [one.attribute for one in verdict.reliance if one.state == "consistent"]
    if leaning:
        said.append(f"What would decide about {listing(leaning)}: {DECIDERS}.")
    if relied:
        verb = "Is" if len(relied) == 1 else "Are"
        said.append(f"{verb} {listing(relied)} meant to be used? If so, this is expected.")
    return tuple(said)


def reliance_sentence(one: Reliance, verdict: Verdict) -> str:
    """What is known about one attribute, on which evidence."""
    name, tested = one.attribute, "" if one.p is None else f", p {formats.p_value(one.p)}"
    same = ""
    if one.copies:
        verb = "agrees" if len(one.copies) == 1 else "agree"
        same = f" {capital(listing(one.copies))} {verb} with it on at least 90 % of the rows: one finding."
    if one.state in ("shown", "shown_given"):
        return f"{claim(one)}{lean(one)}{tested}.{same}"
    if one.state == "consistent":
        open_ = [RIVALS[key] for key in RIVALS if getattr(one.rivals, key).state != "excluded"]
        why = f" It is also what {listing(open_, 'or')} would give." if open_ else ""
        return (
            f"Mistakes lean with {name}{lean(one)}{tested}. This is consistent with reliance and does not show "
            f"it.{why}{same}"
        )
    power = ""
    if one.detectable is not None:
        power = (
            f" A lean of {formats.points(one.detectable)} would be found in 80 % of such test sets "
            f"({formats.count(one.mistakes)} mistakes here)."
        )
    if one.state == "no_sign":
        if one.copies:
            return f"{capital(name)} has no separate effect: it is explained by {listing(one.copies)}{tested}."
        return f"No sign that decisions depend on {name}{tested}.{power}"
    if one.detectable is None:
        return (
            f"Cannot tell whether decisions depend on {name}: no test was possible. It needs at least "
            f"{verdict.min_group} rows of two values, and the training counts or a test set in which label and {name} "
            "are associated."
        )
    return f"Cannot tell whether decisions depend on {name}{tested}: too few mistakes.{power}"


def association_sentence(one: Association) -> str:
    """Association of label and attribute in the training set."""
    if one.cramers_v is None:
        return (
            f"Whether label and {one.attribute} are associated in training is unknown: no training counts were given."
        )
    v = one.cramers_v
    ends = f"Cramer's V {v.value:.2f} ({v.low:.2f} to {v.high:.2f}), {formats.count(one.n)} training rows"
    if v.low <= 0:
        return f"Label and {one.attribute} are not measurably associated in training: {ends}."
    return f"Label and {one.attribute} are associated in training: {ends}."


def advice_sentence(verdict: Verdict) -> str:
    """What to do, in a sentence or two that name the attribute."""
    state, advice = verdict.advice.state, verdict.advice
    if state == "no_problem_found":
        leaning = [one.attribute for one in verdict.reliance if one.state == "consistent"]
        names = listing(_names(verdict))
        said = f"No repair is needed for {names} at this tolerance."
        return said + (
            f" The lean with {listing(leaning)} is open; it would be decided by {DECIDERS}." if leaning else ""
        )
    if state == "not_enough_data":
        return _what_is_missing(verdict)
    if state.endswith("repaired"):
        about = _relied(verdict) if state.startswith("reliance") else _deciding(verdict)[0].attribute
        return (
            f"Use the repaired model. Verified repair ({about}): {method_name(advice.repair or '')}, balanced "
            f"accuracy {effect(advice.held_out)} on held-out rows, {effect(advice.test)} on the test set."
        )
    if state == "reliance_retrain":
        command = _command(verdict, _relied_names(verdict))
        return f"Train again to remove the reliance on {_relied(verdict)}: {command}.{_tried(verdict)}"
    worst = _deciding(verdict)[0]
    leaning = [one.attribute for one in verdict.reliance if one.state == "consistent"]
    decided = f" Whether {listing(leaning, 'or')} is the cause would be decided by {DECIDERS}." if leaning else ""
    return (
        f"Collect more training rows of {worse(worst)} ({worst.attribute}), review the labels, and train again, for "
        f"instance with {_command(verdict, worst.attribute.split(JOINED))}.{_tried(verdict)}{decided}"
    )


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _deciding(verdict: Verdict) -> list[Disparity]:
    return [entry for entry in verdict.disparity if entry.measure in DECIDING]


def _relied_names(verdict: Verdict) -> list[str]:
    return [one.attribute for one in verdict.reliance if one.state in ("shown", "shown_given")]


def _relied(verdict: Verdict) -> str:
    return listing(_relied_names(verdict))


def _names(verdict: Verdict) -> list[str]:
    """Names of all attributes, without combinations."""
    return list(dict.fromkeys(one.attribute for one in verdict.reliance)) or ["the attributes"]


def _command(verdict: Verdict, names: Sequence[str]) -> str:
    """How to train again: by groups only if the attributes are known of training rows."""
    counted = {one.attribute for one in verdict.association if one.n}
    return BALANCED if counted >= set(names) else UNNAMED


def _tried(verdict: Verdict) -> str:
    advice = verdict.advice
    if advice.repair is None or advice.held_out is None:
        return " No repair was tried."
    name, gain = method_name(advice.repair), effect(advice.held_out)
    said = f" Best repair tried: {name}, balanced accuracy {gain} on held-out rows"
    said += "" if advice.test is None else f", {effect(advice.test)} on the test set"
    return f"{said}; not verified."


def _what_is_missing(verdict: Verdict) -> str:
    """Which rows, or what else, would settle it."""
    said, limit = [], formats.points(verdict.tolerance, 0)
    needed = most_needed(verdict.disparity, verdict.tolerance, verdict.min_group)
    if overall_disparity(verdict.disparity) == "cannot_tell":
        small = [entry for entry in _deciding(verdict) if too_small(entry, verdict.min_group)]
        if needed is not None:
            said.append(
                f"About {formats.count(needed.rows)} rows of {needed.group} ({needed.entry.attribute}) would show "
                f"whether the gap is above {limit}, if the rates stay as they are; {measure(needed.entry)} needs most."
            )
        if small:
            said.append(
                f"At least {verdict.min_group} rows of a second value of "
                f"{listing(list(dict.fromkeys(entry.attribute for entry in small)), 'and of')} are missing."
            )
        if not _deciding(verdict):
            said.append(f"An attribute with at least {verdict.min_group} test rows of each of two values is missing.")
    elif overall_reliance(verdict.reliance) == "cannot_tell":
        if verdict.advice.rows_needed is not None:
            said.append(f"About {formats.count(verdict.advice.rows_needed)} test rows would show a lean of 10 points.")
        without = [one.attribute for one in verdict.reliance if one.state == "cannot_tell" and one.detectable is None]
        if without:
            said.append(
                f"For {listing(without)} the training counts are missing (rows of split train, or --train-counts), or "
                f"{verdict.min_group} rows of two values."
            )
        if not verdict.reliance:
            said.append("An attribute is missing.")
    return " ".join(said)
