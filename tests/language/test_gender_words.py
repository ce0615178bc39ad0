import pytest

from jaxdebias.language import swap_gender
from jaxdebias.language._gender_words import PAIRS, gendered_words


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("He lost his keys.", "She lost her keys."),
        ("She lost her keys.", "He lost his keys."),
        ("The keys are his.", "The keys are hers."),
        ("The keys are hers.", "The keys are his."),
        ("I told her that HER boss saw him", "I told him that HIS boss saw her"),
        ("his old car; Mrs. King and the waitress", "her old car; Mr. Queen and the waiter"),
        ("Men, women: they rehearsed the theme.", "Women, men: they rehearsed the theme."),
    ],
)
def test_sentences(text, want):
    assert swap_gender(text) == want


def test_swapping_twice_changes_nothing():
    words = {word for pair in PAIRS for word in pair}
    assert len(words) == 2 * len(PAIRS)  # no word in two pairs
    text = " and ".join(sorted(words))
    assert swap_gender(text) != text
    assert swap_gender(swap_gender(text)) == text


def test_gendered_words_are_those_that_change():
    text = "The doctor told his sister that her colleague, a father, was late."
    assert gendered_words(text) == ["his", "sister", "her", "father"]
    assert gendered_words(swap_gender(text)) == ["her", "brother", "his", "mother"]
    assert gendered_words("The doctor left the theatre.") == []
