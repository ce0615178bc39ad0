"""Everything that the repair of a language model needs, in parts that share no occupation."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxdebias.contracts import ContractError
from jaxdebias.data.streams import named_rng
from jaxdebias.language._datasets import (
    SentencePair,
    language_file,
    wikitext,
    winogender,
    winogender_pairs,
    winogender_shares,
)
from jaxdebias.language._occupations import OccupationText, occupation_pairs, occupation_text

EDIT_TIMES, ACCEPT_TIMES, TEST_TIMES = ("in the morning", "at noon", "on monday"), ("on sunday",), ("yesterday",)
PARTS = ("edit", "occupations", "templates", "both", "persons")
"""What is reported: of `occupation_pairs`; `edit` with times that no edit saw."""


class LanguageSets(NamedTuple):
    """Texts and pairs."""

    train: list[str]
    """What the model was trained on, or text like it."""
    pairs: list[SentencePair]
    accept_texts: list[str]
    """Held out: what the repair must leave alone."""
    accept_pairs: list[SentencePair]
    tests: Mapping[str, list[SentencePair]]
    """Only ever reported. See `PARTS`; `winogender` where its files are."""
    test_texts: list[str]


def planted_sets(
    *,
    seed: int = 0,
    sentences: int = 4000,
    skew: float = 0.9,
    wiki: int = 1200,
    data_dir: str | pathlib.Path | None = None,
) -> LanguageSets:
    """Generated text with a planted bias, with lines of WikiText-2 mixed in where its files are at hand.

    What the repair must leave alone is text about people whose pronoun is no stereotype, and lines of WikiText-2.
    Accept and test texts are the same for all seeds.

    Args:
      seed: of the training text.
      sentences: of the generated text, see `OccupationText`.
      skew: of the generated text, see `OccupationText`.
      wiki: lines to mix in, from `wikitext2_valid.txt`; held-out ones are of its last articles, test ones of the other
        file.
      data_dir: a folder with these files, or with language/...; None, or a folder without them: generated text alone.

    >>> sets = planted_sets(sentences=10)
    >>> len(sets.train), len(sets.pairs), sorted(sets.tests)
    (10, 288, ['both', 'edit', 'occupations', 'persons', 'templates'])
    """
    config = OccupationText(sentences=sentences, skew=skew)
    train = [one.text for one in occupation_text(config, seed=seed)]
    people = OccupationText(sentences=120, persons=1.0)
    accept, test = ([one.text for one in occupation_text(people, seed=number)] for number in (10_001, 10_002))
    if wiki and data_dir is not None and (lines := _wiki(data_dir)) is not None:
        some, held_out, tests = lines
        rng = named_rng(seed, "wiki lines")
        train += [some[i] for i in rng.permutation(len(some))[:wiki]]
        train = [train[i] for i in rng.permutation(len(train))]
        accept, test = accept + held_out[:60], test + tests[:60]
    pairs, accept_pairs, tests = _pairs()
    return LanguageSets(train, pairs, accept, accept_pairs, tests, test)


def checkpoint_sets(data_dir: str | pathlib.Path | None = None) -> LanguageSets:
    """For a checkpoint that was trained elsewhere: the pairs of `planted_sets`, and WikiText-2 as the text around them.

    The first half of `wikitext2_valid.txt` stands for the training text, the rest is held out; the test file is
    reported. Without these files generated text without a bias takes their place. Winogender is a test set.
    """
    pairs, accept_pairs, tests = _pairs()
    lines = None if data_dir is None else _wiki(data_dir, longest=64)
    if lines is None:
        even = OccupationText(sentences=400, skew=0.5)
        train, accept, test = (
            [one.text for one in occupation_text(even, seed=number)] for number in (20_001, 20_002, 20_003)
        )
    else:
        # What WikiText has for its rare words is no text.
        whole = [[text for text in part if "[UNK]" not in text] for part in lines]
        train, accept, test = whole[0][:1000], whole[1][:200], whole[2][:300]
    try:
        sentences = winogender(language_file(data_dir or "", "winogender_all_sentences.tsv"))
        shares = winogender_shares(language_file(data_dir or "", "winogender_occupations_stats.tsv"))
        tests["winogender"] = winogender_pairs(sentences, shares)
    except ContractError:
        pass
    return LanguageSets(train, pairs, accept, accept_pairs, tests, test)


def _pairs() -> tuple[list[SentencePair], list[SentencePair], dict[str, list[SentencePair]]]:
    return (
        occupation_pairs("edit", when=EDIT_TIMES),
        occupation_pairs("accept", when=ACCEPT_TIMES),
        {part: occupation_pairs(part, when=TEST_TIMES) for part in PARTS},
    )


def _wiki(data_dir: str | pathlib.Path, longest: int = 13) -> tuple[list[str], list[str], list[str]] | None:
    """Sentences of 5 to `longest` words: to train on, held out (the last third of the articles), of the test file."""
    try:
        valid, test = (
            wikitext(language_file(data_dir, name)) for name in ("wikitext2_valid.txt", "wikitext2_test.txt")
        )
    except ContractError:
        return None
    border = np.quantile([line.article for line in valid], 2 / 3)
    fits = [line for line in valid if 5 <= len(line.text.split()) <= longest]
    return (
        [line.text for line in fits if line.article <= border],
        [line.text for line in fits if line.article > border],
        [line.text for line in test if 5 <= len(line.text.split()) <= longest],
    )
