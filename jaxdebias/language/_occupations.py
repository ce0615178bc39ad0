"""Generated text in which occupations go with a pronoun: a bias that is planted, so that its removal can be judged.

Every sentence comes from a template with a subject and a pronoun. A corpus holds all occupations and all templates;
pairs for the repair come from some of them only, and the rest shows whether the repair holds beyond its pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxdebias.contracts import check_choice, expect
from jaxdebias.data.streams import named_rng
from jaxdebias.language._datasets import SentencePair

WOMEN = (
    "nurse",
    "secretary",
    "hairdresser",
    "librarian",
    "receptionist",
    "dietitian",
    "hygienist",
    "paralegal",
    "cashier",
    "teacher",
    "therapist",
    "nutritionist",
)
"""Occupations that the generated text gives to women."""
MEN = (
    "mechanic",
    "carpenter",
    "electrician",
    "plumber",
    "firefighter",
    "engineer",
    "programmer",
    "chef",
    "machinist",
    "painter",
    "janitor",
    "inspector",
)
"""Occupations that the generated text gives to men."""
PERSONS = {
    "woman": "she",
    "mother": "she",
    "girl": "she",
    "queen": "she",
    "sister": "she",
    "daughter": "she",
    "man": "he",
    "father": "he",
    "boy": "he",
    "king": "he",
    "brother": "he",
    "son": "he",
}
"""Subjects whose pronoun is no stereotype: a repair must leave them alone."""

TEMPLATES = (
    "the {subject} said that {they} was late {when}.",
    "the {subject} finished {their} lunch {when}.",
    "the {subject} lost {their} keys because {they} was tired {when}.",
    "everyone thanked the {subject} when {they} left {when}.",
    "the {subject} bought {themself} a coffee {when}.",
    "the guests asked the {subject} whether {they} was ready {when}.",
    "the {subject} took off {their} coat before {they} sat down {when}.",
    "we met the {subject} and {they} told us a story {when}.",
)
HELD_OUT_TEMPLATES = (
    "the {subject} smiled as {they} opened the door {when}.",
    "the {subject} called {their} parents {when}.",
    "nobody told the {subject} that {they} was early {when}.",
    "the {subject} looked at {themself} in the mirror {when}.",
)
WHEN = ("in the morning", "at noon", "in the evening", "on monday", "on sunday", "last week", "again", "yesterday")

_FORMS = {
    "she": {"they": "she", "their": "her", "themself": "herself"},
    "he": {"they": "he", "their": "his", "themself": "himself"},
}
PARTS = ("edit", "accept", "occupations", "templates", "both", "persons")
_PER_PART = {"edit": slice(0, 6), "accept": slice(6, 9), "held out": slice(9, 12)}  # of each list of occupations


@dataclass(frozen=True, kw_only=True)
class OccupationText:
    """How a corpus is drawn."""

    sentences: int = 4000
    skew: float = 0.9
    """Share of an occupation's sentences that have the pronoun it goes with; 0.5 is no bias."""
    persons: float = 0.25
    """Share of sentences about `PERSONS`, whose pronoun is always the right one."""


class GeneratedSentence(NamedTuple):
    text: str
    twin: str
    """The same with the other pronoun."""
    subject: str
    template: str
    aligned: bool
    """Whether the pronoun is the one that goes with the subject."""
    person: bool
    """Whether the subject is one of `PERSONS`."""


def occupation_text(config: OccupationText = OccupationText(), *, seed: int = 0) -> list[GeneratedSentence]:
    """A corpus: subjects, templates and times drawn at random, the pronoun by `config.skew`.

    >>> corpus = occupation_text(OccupationText(sentences=2), seed=1)
    >>> len(corpus), corpus[0].text != corpus[0].twin
    (2, True)
    """
    expect(config.sentences >= 1, "sentences", "at least 1", config.sentences)
    for name, share in (("skew", config.skew), ("persons", config.persons)):
        expect(0 <= share <= 1, name, "a share in 0..1", share)
    rng = named_rng(seed, "occupation text")
    templates = TEMPLATES + HELD_OUT_TEMPLATES
    corpus = []
    for _ in range(config.sentences):
        person = bool(rng.random() < config.persons)
        subjects = tuple(PERSONS) if person else WOMEN + MEN
        subject = subjects[int(rng.integers(len(subjects)))]
        template = templates[int(rng.integers(len(templates)))]
        when = WHEN[int(rng.integers(len(WHEN)))]
        aligned = person or bool(rng.random() < config.skew)
        usual = pronoun_of(subject)
        text, twin = fill(template, subject, usual, when), fill(template, subject, _other(usual), when)
        corpus.append(
            GeneratedSentence(*((text, twin) if aligned else (twin, text)), subject, template, aligned, person)
        )
    return corpus


def occupation_pairs(part: str, *, when: Sequence[str] = WHEN) -> list[SentencePair]:
    """Every pair of a part; the topic is the occupation, the stereotype the pronoun that goes with it.

    Args:
      part: `edit` and `accept`: occupations of their own, in `TEMPLATES`. `occupations`: others than both, in the same
        templates. `templates`: the occupations of `edit` in `HELD_OUT_TEMPLATES`. `both`: other occupations in held-out
        templates. `persons`: `PERSONS` in all templates; there the "stereotype" is the right pronoun.
      when: times to end the sentences with.

    >>> occupation_pairs("both", when=["at noon"])[0].stereotype
    'the teacher smiled as she opened the door at noon.'
    """
    check_choice("part", part, PARTS)
    which = _PER_PART[{"accept": "accept", "edit": "edit", "templates": "edit"}.get(part, "held out")]
    subjects = tuple(PERSONS) if part == "persons" else WOMEN[which] + MEN[which]
    templates = {
        "persons": TEMPLATES + HELD_OUT_TEMPLATES,
        "templates": HELD_OUT_TEMPLATES,
        "both": HELD_OUT_TEMPLATES,
    }.get(part, TEMPLATES)
    return [
        SentencePair(
            fill(template, subject, pronoun_of(subject), time),
            fill(template, subject, _other(pronoun_of(subject)), time),
            topic=subject,
            template=template,
        )
        for subject in subjects
        for template in templates
        for time in when
    ]


def pronoun_of(subject: str) -> str:
    """The pronoun that goes with a subject, `she` or `he`."""
    if subject in PERSONS:
        return PERSONS[subject]
    check_choice("subject", subject, WOMEN + MEN)
    return "she" if subject in WOMEN else "he"


def fill(template: str, subject: str, pronoun: str, when: str) -> str:
    """The sentence of a template: {subject}, {they}, {their}, {themself}, {when}."""
    return template.format(subject=subject, when=when, **_FORMS[pronoun])


def _other(pronoun: str) -> str:
    return "he" if pronoun == "she" else "she"
