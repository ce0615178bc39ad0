import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.language import OccupationText, occupation_pairs, occupation_text, swap_gender
from jaxdebias.language._gender_words import gendered_words
from jaxdebias.language._occupations import HELD_OUT_TEMPLATES, MEN, PARTS, PERSONS, TEMPLATES, WHEN, WOMEN, pronoun_of


def test_share_of_aligned_sentences_is_the_skew():
    corpus = occupation_text(OccupationText(sentences=4000, skew=0.8, persons=0.25), seed=0)
    about_work = [one for one in corpus if not one.person]
    assert abs(len(about_work) / 4000 - 0.75) < 0.03
    assert abs(sum(one.aligned for one in about_work) / len(about_work) - 0.8) < 0.03
    assert all(one.aligned and one.subject in PERSONS for one in corpus if one.person)
    assert {one.subject for one in about_work} == set(WOMEN + MEN)
    assert {one.template for one in corpus} == set(TEMPLATES + HELD_OUT_TEMPLATES)


def test_sentence_and_twin_differ_in_the_pronoun_only():
    forms = {"she": {"she", "her", "herself"}, "he": {"he", "his", "himself"}}
    for one in occupation_text(OccupationText(sentences=300), seed=1):
        usual = pronoun_of(one.subject)
        mine = usual if one.aligned else ("he" if usual == "she" else "she")
        words = set(gendered_words(one.text)) - {one.subject}
        assert words
        assert words <= forms[mine]
        assert f"the {one.subject} " in one.text
        if not one.person:
            assert swap_gender(one.text) == one.twin


def test_equal_seeds_give_equal_text():
    config = OccupationText(sentences=50)
    assert occupation_text(config, seed=3) == occupation_text(config, seed=3)
    assert occupation_text(config, seed=3) != occupation_text(config, seed=4)


def test_parts_share_what_they_may_share_and_nothing_else():
    parts = {part: occupation_pairs(part) for part in PARTS}
    topics = {part: {pair.topic for pair in pairs} for part, pairs in parts.items()}
    templates = {part: {pair.template for pair in pairs} for part, pairs in parts.items()}
    assert [len(topics[part]) for part in PARTS] == [12, 6, 6, 12, 6, 12]
    for part in PARTS:
        if part != "persons":
            assert len(topics[part] & set(WOMEN)) == len(topics[part]) / 2
    assert topics["edit"] | topics["accept"] | topics["occupations"] == set(WOMEN + MEN)
    assert topics["templates"] == topics["edit"]
    assert topics["both"] == topics["occupations"]
    assert templates["edit"] == templates["accept"] == templates["occupations"] == set(TEMPLATES)
    assert templates["templates"] == templates["both"] == set(HELD_OUT_TEMPLATES)
    texts = [{pair.stereotype for pair in parts[part]} for part in PARTS]
    assert sum(map(len, texts)) == len(set().union(*texts))
    assert len(parts["edit"]) == 12 * len(TEMPLATES) * len(WHEN)


def test_stereotype_is_the_usual_pronoun():
    for pair in occupation_pairs("edit", when=["at noon"]) + occupation_pairs("persons", when=["at noon"]):
        woman = pair.topic in WOMEN or PERSONS.get(pair.topic) == "she"
        words = set(gendered_words(pair.stereotype)) - {pair.topic}
        assert words <= ({"she", "her", "herself"} if woman else {"he", "his", "himself"})


def test_bad_settings_are_named():
    with pytest.raises(ContractError, match="did you mean 'edit'"):
        occupation_pairs("edits")
    with pytest.raises(ContractError, match="`skew`"):
        occupation_text(OccupationText(skew=1.5))
    with pytest.raises(ContractError, match="`subject`"):
        pronoun_of("pilot")
