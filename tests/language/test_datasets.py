"""Readers of sentence files: small files in the same layout, and the real ones where they are."""

import csv
import json

import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.language import crows_pairs, stereoset, swap_gender, wikitext, winogender, winogender_pairs
from jaxdebias.language._datasets import StereoItem, language_file, winogender_shares

FLAT = {
    "id": "1",
    "target": "poet",
    "context": "The poet can BLANK.",
    "sentences": {
        "stereotype": "The poet can rhyme.",
        "unrelated": "The poet can hip.",
        "anti-stereotype": "The poet can rap.",
    },
    "small": {"unrelated": 0.1, "stereotype": 0.3, "anti-stereotype": 0.2},
}
NESTED = {
    "id": "2",
    "target": "nurse",
    "bias_type": "profession",
    "context": "A BLANK nurse",
    "sentences": [
        {"sentence": "A kind nurse", "gold_label": "stereotype", "id": "a", "labels": []},
        {"sentence": "A fish nurse", "gold_label": "unrelated", "id": "b", "labels": []},
        {"sentence": "A rude nurse", "gold_label": "anti-stereotype", "id": "c", "labels": []},
    ],
    "harm": {"gold_label": "neutral"},
}


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_all_layouts_of_stereoset(tmp_path):
    flat = stereoset(written(tmp_path / "flat.json", [FLAT]))[0]
    assert flat == StereoItem(
        "poet",
        "gender",
        "The poet can BLANK.",
        ("The poet can rhyme.", "The poet can rap.", "The poet can hip."),
        {"small": (0.3, 0.2, 0.1)},
    )
    nested = stereoset(written(tmp_path / "list.json", [FLAT, NESTED]), bias_type="profession")
    assert nested == stereoset(written(tmp_path / "dev.json", {"version": "1", "data": {"intrasentence": [NESTED]}}))
    assert nested[0].sentences == ("A kind nurse", "A rude nurse", "A fish nurse")
    assert nested[0].published == {}


def test_blanks_are_found_by_the_place_of_the_word():
    item = StereoItem(
        "x",
        "gender",
        "I saw a BLANK, it was BLANK!",
        ("i saw a dog, it was dog!", "I saw a cat, it was cat!", "I saw a 7, it was 7!"),
        {},
    )
    assert item.blanks() == [
        ("I saw a ", "dog", ", it was dog!"),
        ("I saw a ", "cat", ", it was cat!"),
        ("I saw a ", "7", ", it was 7!"),
    ]


def test_crows_pairs(tmp_path):
    text = (
        ",sent_more,sent_less,stereo_antistereo,bias_type,annotations\n"
        '0,"He, a doctor","She, a doctor",stereo,gender,[]\n1,Old men,Young men,antistereo,age,[]\n'
    )
    path = written(tmp_path / "crows.csv", text)
    first, second = crows_pairs(path)
    assert (first.stereotype, first.anti, first.topic, first.antistereo) == (
        "He, a doctor",
        "She, a doctor",
        "gender",
        False,
    )
    assert second.antistereo
    assert crows_pairs(path, bias_type="age") == [second]
    with pytest.raises(ContractError, match="did you mean 'gender'"):
        crows_pairs(path, bias_type="gendre")


def test_winogender(tmp_path):
    rows = [
        f"{who}.client.{answer}.{gender}.txt\tThe {who} met the client, {answer}, {word}."
        for who in ("nurse", "plumber", "chef")
        for answer in (0, 1)
        for gender, word in (("male", "he"), ("female", "she"), ("neutral", "they"))
    ]
    sentences = winogender(written(tmp_path / "w.tsv", "\n".join(["sentid\tsentence", *rows])))
    assert len(sentences) == 18
    assert (sentences[1].occupation, sentences[1].answer, sentences[1].gender) == ("nurse", 0, "female")
    shares = winogender_shares(
        written(
            tmp_path / "s.tsv",
            "occupation\tbergsma_pct_female\tbls_pct_female\tbls_year\n"
            "nurse\t90\t89.58\t2015\nplumber\t1\t0.7\t2015\nchef\t50\t50\t2015\n",
        )
    )
    assert shares["nurse"] == pytest.approx(0.8958)
    nurse, plumber = winogender_pairs(sentences, shares)  # a chef is as often the one as the other
    assert (nurse.topic, nurse.stereotype, nurse.anti) == (
        "nurse",
        "The nurse met the client, 0, she.",
        "The nurse met the client, 0, he.",
    )
    assert plumber.stereotype == "The plumber met the client, 0, he."


def test_wikitext(tmp_path):
    text = (
        " \n = First = \n \n One of 3 @,@ 000 half @-@ timbered <unk> . Two ? Three ! \n = = Part = = \n Four .\n"
        " = Second title = \n Five .\n"
    )
    path = written(tmp_path / "wiki.txt", text)
    assert wikitext(path) == [
        ("One of 3,000 half-timbered [UNK] .", 0),
        ("Two ?", 0),
        ("Three !", 0),
        ("Four .", 0),
        ("Five .", 1),
    ]
    assert wikitext(path, sentences=False, unknown="?")[0].text == "One of 3,000 half-timbered ? . Two ? Three !"


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(ContractError, match="no file at"):
        wikitext(tmp_path / "none.txt")
    with pytest.raises(ContractError, match=r"expected a folder with a\.csv, or with language/a\.csv"):
        language_file(tmp_path, "a.csv")
    with pytest.raises(ContractError, match="none called sent_less"):
        crows_pairs(written(tmp_path / "a.csv", "sent_more,bias_type,stereo_antistereo\na,b,c\n"))
    with pytest.raises(ContractError, match="intrasentence items"):
        stereoset(written(tmp_path / "b.json", {"data": {}}))
    with pytest.raises(ContractError, match=r"`item 1`: expected .* got none of"):
        stereoset(written(tmp_path / "c.json", [FLAT, FLAT | {"sentences": {"stereotype": "x"}}]))
    (tmp_path / "language").mkdir()
    written(tmp_path / "language" / "d.csv", "")
    assert language_file(tmp_path, "d.csv") == tmp_path / "language" / "d.csv"


@pytest.mark.realdata
def test_counts_of_the_real_files(data_dir):
    gender = stereoset(language_file(data_dir, "stereoset_gender.json"))
    dev = stereoset(language_file(data_dir, "stereoset_dev.json"))
    assert (len(gender), len(dev), sum(item.bias_type == "gender" for item in dev)) == (253, 799, 83)
    for item in gender + dev:
        for sentence, (_, word, _) in zip(item.sentences, item.blanks(), strict=True):
            assert word in sentence
    pairs = crows_pairs(language_file(data_dir, "crows_pairs_anonymized.csv"))
    assert (len(pairs), len([pair for pair in pairs if pair.topic == "gender"])) == (1508, 262)
    with open(language_file(data_dir, "crows_pairs_anonymized.csv"), encoding="utf-8") as file:
        wanted = [(row["sent_more"], row["stereo_antistereo"] == "antistereo") for row in csv.DictReader(file)]
    assert [(pair.stereotype, pair.antistereo) for pair in pairs] == wanted
    lines = wikitext(language_file(data_dir, "wikitext2_valid.txt"))
    assert len({line.article for line in lines}) == 60
    assert np.mean([len(line.text.split()) for line in lines]) > 15
    assert not any("@-@" in line.text or "<unk>" in line.text or line.text.startswith("=") for line in lines)


@pytest.mark.realdata
def test_swapped_words_give_winogenders_other_sentences(data_dir):
    sentences = winogender(language_file(data_dir, "winogender_all_sentences.tsv"))
    assert len(sentences) == 720
    found = {(one.occupation, one.participant, one.answer, one.gender): one.text for one in sentences}
    for (*who, gender), text in found.items():
        if gender != "neutral":
            assert swap_gender(text) == found[*who, "male" if gender == "female" else "female"]
    shares = winogender_shares(language_file(data_dir, "winogender_occupations_stats.tsv"))
    pairs = winogender_pairs(sentences, shares)
    assert len(pairs) == 120
    assert all(pair.anti == swap_gender(pair.stereotype) for pair in pairs)
