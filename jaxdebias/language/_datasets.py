"""Sentences that measure the bias of language models: StereoSet, CrowS-Pairs, Winogender; and WikiText-2 for the rest.

Readers of local files. The sentences contain stereotypes and slurs on purpose: what a model makes of them is measured.
"""

import csv
import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxdebias.contracts import ContractError, check_choice, expect

CROWS_TYPES = (
    "age",
    "disability",
    "gender",
    "nationality",
    "physical-appearance",
    "race-color",
    "religion",
    "sexual-orientation",
    "socioeconomic",
)
STEREOSET_TYPES = ("gender", "profession", "race", "religion")
KINDS = ("stereotype", "anti-stereotype", "unrelated")


class SentencePair(NamedTuple):
    """Two sentences that differ in whom they are about."""

    stereotype: str
    """The more stereotyping one."""
    anti: str
    """The less stereotyping one."""
    topic: str
    """What the pair is about: a type of bias, an occupation. Pairs of one topic belong together."""
    antistereo: bool = False
    """CrowS-Pairs: the pair's author wrote a sentence against a stereotype."""
    template: str = ""
    """What the pair was made from, if anything."""


class StereoItem(NamedTuple):
    """One item of StereoSet: three sentences that fill the same blank."""

    target: str
    """The word whose stereotype it is about; scores are averaged for each."""
    bias_type: str
    context: str
    """The sentence with BLANK in the place of the word that the three differ in."""
    sentences: tuple[str, str, str]
    """In the order of `KINDS`."""
    published: Mapping[str, tuple[float, float, float]]
    """Scores that StereoSet's authors published, by model, in the order of `KINDS`; empty where the file has none."""

    def blanks(self) -> list[tuple[str, str, str]]:
        """(text before the blank, word, text after it) of each sentence, as StereoSet's authors find the word.

        >>> item = StereoItem("chess", "x", "A BLANK!", ("A good!", "A bad!", "A fish!"), {})
        >>> item.blanks()[0]
        ('A ', 'good', '!')
        """
        before, _, after = self.context.partition("BLANK")
        place = next(i for i, word in enumerate(self.context.split(" ")) if "BLANK" in word)
        words = [sentence.split(" ")[place] for sentence in self.sentences]
        words = [re.sub(r"^\W+|\W+$", "", word) or word for word in words]
        return [(before, word, after.replace("BLANK", word)) for word in words]


class WinogenderSentence(NamedTuple):
    """A sentence about two people and one pronoun."""

    occupation: str
    participant: str
    answer: int
    """Whom the pronoun means: 0 the occupation, 1 the participant."""
    gender: str
    """Of the pronoun: male, female, neutral."""
    text: str


class WikiLine(NamedTuple):
    text: str
    article: int
    """Lines of one article belong together."""


def language_file(data_dir: str | pathlib.Path, name: str) -> pathlib.Path:
    """A file in `data_dir`, or in its folder `language`.

    Raises:
      ContractError: in neither.
    """
    root = pathlib.Path(data_dir)
    for folder in (root, root / "language"):
        if (folder / name).is_file():
            return folder / name
    raise ContractError(f"`data_dir`: expected a folder with {name}, or with language/{name}, got {root}")


def stereoset(path: str | pathlib.Path, *, bias_type: str | None = None) -> list[StereoItem]:
    """The intrasentence items of a file of StereoSet (Nadeem et al. 2021).

    Args:
      path: the authors' `dev.json`, a list of such items, or a list with `sentences` by kind and published scores.
      bias_type: only items of this type; a file that does not say is about gender.

    Raises:
      ContractError: no such file or type, or an item without one of the three sentences.
    """
    if bias_type is not None:
        check_choice("bias_type", bias_type, STEREOSET_TYPES)
    try:
        items = json.loads(_text(path))
        items = items if isinstance(items, list) else items["data"]["intrasentence"]
    except (json.JSONDecodeError, RecursionError, KeyError, TypeError):
        items = None
    good = isinstance(items, list) and all(isinstance(item, Mapping) for item in items)
    expect(good, "path", "a file of StereoSet's intrasentence items", path)
    read = [_stereo_item(item, number) for number, item in enumerate(items)]
    kept = [item for item in read if bias_type in (None, item.bias_type)]
    expect(len(kept) > 0, "bias_type", f"one of {', '.join(sorted({item.bias_type for item in read}))}", bias_type)
    return kept


def _stereo_item(item: Mapping, number: int) -> StereoItem:
    sentences = item.get("sentences", {})
    if not isinstance(sentences, Mapping):
        sentences = {one["gold_label"]: one["sentence"] for one in sentences}
    missing = [kind for kind in KINDS if kind not in sentences]
    expect(
        not missing and "BLANK" in item.get("context", ""),
        f"item {number}",
        f"a context with BLANK and sentences {', '.join(KINDS)}",
        f"none of {missing}" if missing else "no BLANK",
    )
    known = ("id", "target", "bias_type", "context", "sentences", "data", "harm")
    published = {
        name: tuple(float(scores[kind]) for kind in KINDS)
        for name, scores in item.items()
        if name not in known and isinstance(scores, Mapping) and set(KINDS) <= set(scores)
    }
    return StereoItem(
        item["target"],
        item.get("bias_type", "gender"),
        item["context"],
        tuple(sentences[kind] for kind in KINDS),
        published,
    )


def crows_pairs(path: str | pathlib.Path, *, bias_type: str | None = None) -> list[SentencePair]:
    """The pairs of `crows_pairs_anonymized.csv` (Nangia et al. 2020).

    Args:
      path: the file.
      bias_type: only pairs of this type.
    """
    if bias_type is not None:
        check_choice("bias_type", bias_type, CROWS_TYPES)
    rows = _rows(path, ",", ("sent_more", "sent_less", "stereo_antistereo", "bias_type"))
    return [
        SentencePair(row["sent_more"], row["sent_less"], row["bias_type"], row["stereo_antistereo"] == "antistereo")
        for row in rows
        if bias_type in (None, row["bias_type"])
    ]


def winogender(path: str | pathlib.Path) -> list[WinogenderSentence]:
    """The sentences of `winogender_all_sentences.tsv` (Rudinger et al. 2018)."""
    sentences = []
    for row in _rows(path, "\t", ("sentid", "sentence")):
        occupation, participant, answer, gender, *_ = row["sentid"].split(".")
        check_choice(f"gender of {row['sentid']}", gender, ("male", "female", "neutral"))
        sentences.append(WinogenderSentence(occupation, participant, int(answer), gender, row["sentence"]))
    return sentences


def winogender_shares(path: str | pathlib.Path) -> dict[str, float]:
    """Share of women in each occupation, 0..1, by the labour statistics in `winogender_occupations_stats.tsv`."""
    return {
        row["occupation"]: float(row["bls_pct_female"]) / 100
        for row in _rows(path, "\t", ("occupation", "bls_pct_female"))
    }


def winogender_pairs(sentences: Sequence[WinogenderSentence], shares: Mapping[str, float]) -> list[SentencePair]:
    """Pairs that differ in the gender of a pronoun that means the occupation; the topic is the occupation.

    The stereotype is the gender that most people of the occupation have; an occupation of exactly one half is left
    out. Sentences whose pronoun means the participant are, too: they say nothing of the occupation.
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    for one in sentences:
        if one.answer == 0:
            found.setdefault((one.occupation, one.participant), {})[one.gender] = one.text
    pairs = []
    for (occupation, participant), by_gender in found.items():
        expect(occupation in shares, "shares", f"a share for {occupation}", "none")
        expect(
            {"male", "female"} <= set(by_gender),
            "sentences",
            f"both genders of {occupation}, {participant}",
            ", ".join(by_gender),
        )
        if shares[occupation] != 0.5:
            kinds = ("female", "male") if shares[occupation] > 0.5 else ("male", "female")
            pairs.append(SentencePair(*(by_gender[kind] for kind in kinds), topic=occupation, template=participant))
    return pairs


def wikitext(path: str | pathlib.Path, *, sentences: bool = True, unknown: str = "[UNK]") -> list[WikiLine]:
    """Text of a file of WikiText (Merity et al. 2016), without headings.

    Args:
      path: a file of tokens, `wiki.test.tokens` or `wikitext2_test.txt`.
      sentences: cuts paragraphs after each " . ", " ? " and " ! ".
      unknown: what stands for the corpus's `<unk>`.

    Numbers and compounds are put together again ("1 @,@ 000" is "1,000"); the other spaces around signs stay.
    """
    lines, article = [], -1
    for line in _text(path).splitlines():
        line = line.strip()
        if re.fullmatch(r"= [^=].*[^=] =", line):
            article += 1
        if not line or line.startswith("= "):
            continue
        line = re.sub(r" @([-,.])@ ", r"\1", line).replace("<unk>", unknown)
        pieces = re.split(r"(?<= [.?!]) ", line) if sentences else [line]
        lines += [WikiLine(piece, max(article, 0)) for piece in pieces if piece]
    return lines


def _rows(path: str | pathlib.Path, delimiter: str, columns: Iterable[str]) -> list[dict[str, str]]:
    rows = list(csv.DictReader(_text(path).splitlines(), delimiter=delimiter))
    missing = [name for name in columns if not rows or name not in rows[0]]
    expect(not missing, str(path), "columns " + ", ".join(columns), f"none called {', '.join(missing)}")
    return rows


def _text(path: str | pathlib.Path) -> str:
    path = pathlib.Path(path)
    expect(path.is_file(), "path", "a file", f"no file at {path}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ContractError(f"`{path}`: expected text in UTF-8, got byte {error.object[error.start]:#04x}") from None
