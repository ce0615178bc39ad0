"""What a repair is given shares nothing that it is judged by."""

import pytest

from jaxdebias.language._occupations import HELD_OUT_TEMPLATES
from jaxdebias.language.training_sets import PARTS, checkpoint_sets, planted_sets


def subjects(pairs):
    return {pair.topic for pair in pairs}


def test_parts_share_no_occupation_and_tests_no_time():
    sets = planted_sets(sentences=50)
    edit, accept = subjects(sets.pairs), subjects(sets.accept_pairs)
    assert not edit & accept
    assert not (edit | accept) & subjects(sets.tests["occupations"])
    assert subjects(sets.tests["occupations"]) == subjects(sets.tests["both"])
    assert {pair.template for pair in sets.tests["both"]} == set(HELD_OUT_TEMPLATES)
    seen = {pair.stereotype for pair in [*sets.pairs, *sets.accept_pairs]}
    assert tuple(sets.tests) == PARTS
    assert not seen & {pair.stereotype for pairs in sets.tests.values() for pair in pairs}
    assert all(not pair.template or "{they}" in pair.template or "{the" in pair.template for pair in sets.pairs)


def test_only_the_training_text_depends_on_the_seed():
    one, other = planted_sets(seed=0, sentences=50), planted_sets(seed=1, sentences=50)
    assert one.train != other.train
    assert one[1:] == other[1:]
    assert planted_sets(seed=0, sentences=50) == one


def test_without_files_there_is_generated_text(tmp_path):
    assert planted_sets(sentences=20, data_dir=tmp_path) == planted_sets(sentences=20)
    sets = checkpoint_sets(tmp_path)
    assert len(sets.train) == 400
    assert "winogender" not in sets.tests


@pytest.mark.realdata
def test_wikitext_is_mixed_in(data_dir):
    sets, plain = planted_sets(sentences=100, data_dir=data_dir), planted_sets(sentences=100)
    assert set(plain.train) < set(sets.train)
    assert len(sets.train) > 600
    assert not set(sets.train) & (set(sets.accept_texts[120:]) | set(sets.test_texts[120:]))
    real = checkpoint_sets(data_dir)
    assert len(real.tests["winogender"]) == 120
    assert not any("[UNK]" in text for text in [*real.train, *real.accept_texts, *real.test_texts])
    assert not set(real.train) & set(real.accept_texts)
