import dataclasses
import html
import itertools
import json
import re

import pytest
from report.fake_results import digits
from report.verdict_records import verdicts
from rich.console import Console

from jaxdebias import report
from jaxdebias.report import verdict_phrases, verdict_words, wording
from jaxdebias.report._markdown import escape, model_card, table
from jaxdebias.results.codec import from_json, to_json

NAMES = list(verdicts())
OLD = ("Leave it", "leave it", "follows the", "leans on the", "No sign that decisions differ", "NaN",
       "nan ", "None")  # fmt: skip


def run(name):
    return dataclasses.replace(digits(repaired=False), verdict=verdicts()[name])


def terminal(record):
    console = Console(width=2000, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    report.print_summary(record, console)
    return console.export_text()


def page(record, tmp_path):
    """The text that a browser shows."""
    report.write_page(record, None, tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text(encoding="utf-8")
    body = re.sub(r"<(style|svg)\b.*?</\1>", " ", source[source.index("<body") :], flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", " ", body)).replace("\u202f%", " %").replace("\u00a0", " ")


def plain(text):
    return " ".join(text.split())


def outputs(record, tmp_path):
    """The text of each output, and how it writes a sentence."""
    return {
        "terminal": (plain(terminal(record)), plain),
        "page": (plain(page(record, tmp_path)), plain),
        "markdown": (plain(table(record)), escape),
        "card": (plain(model_card(record)), escape),
    }


def test_there_are_forty_records_of_every_state():
    assert len(NAMES) == 40
    found = [verdicts()[name] for name in NAMES]
    assert {one.advice.state for one in found} == set(verdict_phrases.ADVICE)
    assert {entry.state for one in found for entry in one.disparity} == {"exceeds", "within", "cannot_tell"}
    assert len({entry.measure for one in found for entry in one.disparity}) == 6
    assert {one.state for verdict in found for one in verdict.reliance} == {
        "shown", "shown_given", "consistent", "no_sign", "cannot_tell"
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_five_outputs_agree(name, tmp_path):
    record = run(name)
    verdict = record.verdict
    again = from_json(json.loads(json.dumps(to_json(record))))
    assert again == record
    assert verdict_words.with_words(again.verdict) == verdict  # what JSON holds makes the same words
    sentences = [verdict.headline, verdict.advice.sentence]
    sentences += [sentence for section in verdict_words.sections(verdict) for sentence in section.sentences]
    assert all(sentence.strip() and sentence == plain(sentence) for sentence in sentences)
    others = set(verdict_phrases.ADVICE) - {verdict.advice.state}
    for output, (text, written) in outputs(record, tmp_path).items():
        for sentence in sentences:
            assert written(sentence) in text, (output, sentence)
        for row in verdict_phrases.rows(verdict):
            for cell in row:
                assert written(cell) in text, (output, cell)
        for old in OLD:
            assert old not in text, (output, old)
        for state in others:
            assert f"{verdict_phrases.ADVICE[state]}. " not in text, (output, state)
    assert "<script>" not in (tmp_path / "page.html").read_text(encoding="utf-8").split("<body")[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_words_are_those_of_the_codes(name):
    verdict = verdicts()[name]
    state, said = verdict.advice.state, verdict.headline
    deciding = [entry for entry in verdict.disparity if entry.measure in verdict_words.DECIDING]
    exceeds = any(entry.state == "exceeds" for entry in deciding)
    relied = [one for one in verdict.reliance if one.state in ("shown", "shown_given")]
    assert ("No problem found" in said) == (state == "no_problem_found")
    assert ("relies on" in said or "favours" in said or "depend on" in said.split(",")[0]) >= bool(relied)
    if relied:
        assert state.startswith("reliance")
        assert all(one.attribute in said for one in relied)
        assert any("meant to be used" in text for text in verdict_words.reliance_answer(verdict))
    elif exceeds:
        assert state.startswith("disparity")
        worst = deciding[0]
        for part in (worst.attribute, worst.highest.name, worst.lowest.name, f"(n = {worst.lowest.n}"):
            assert part in said
    if state in ("no_problem_found", "not_enough_data"):
        assert not exceeds
        assert not relied
    for one in relied:
        noisy = one.evidence == "mistakes" or one.evidence.startswith("given:")
        assert (verdict_phrases.CAVEAT in verdict_words.reliance_sentence(one, verdict)) == noisy
    answer = verdict_words.disparity_answer(verdict)[0]
    assert answer.startswith("Yes" if exceeds else ("No:", "Cannot tell"))
    assert wording.verdict(run(name)).headline == said
    assert said.endswith(".")
    assert ". " not in said.replace("Cramer's", "")


def test_numbers_of_the_record_are_those_of_the_words():
    for verdict in verdicts().values():
        for entry, row in zip(verdict.disparity, verdict_phrases.rows(verdict), strict=True):
            assert f"{100 * entry.gap.value:.1f} points" in row[3]
            assert f"{100 * entry.gap.low:.1f} to {100 * entry.gap.high:.1f}" in row[3]
            assert f"(n = {entry.lowest.n:,})" in row[5]


def test_words_differ_where_states_differ():
    """Of two records that differ in one state only, the sentences about it differ."""
    shown = [verdicts()[f"within-{kind}-{repair}"] for kind, repair in (
        ("twins", "verified"), ("no_direction", "not_held"))]  # fmt: skip
    for a, b in itertools.pairwise(shown):
        assert verdict_words.reliance_answer(a) != verdict_words.reliance_answer(b)
        assert verdict_words.disparity_answer(a) == verdict_words.disparity_answer(b)
