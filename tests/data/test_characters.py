import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwdiff.data.characters import MARKS, REPLACED, spell
from hwdiff.data.tokenizer import unknown_characters


def test_what_the_alphabet_has_is_written_as_it_is():
    text = 'The quick (no) brown fox\'s 12.5, "yes" - what?!'
    spelled = spell(text)
    assert spelled.text == spelled.shown == text
    assert spelled.unknown == [(10, "("), (13, ")")]
    assert not spelled.accents
    assert not spelled.replaced


def test_quotes_dashes_and_ligatures_are_spelled_out():
    spelled = spell("“it’s” – a\u00a0ﬁne… Straße")
    assert spelled.text == spelled.shown == '"it\'s" - a fine... Strasse'
    assert list(spelled.replaced) == ["“", "’", "”", "–", "ﬁ", "…", "ß"]
    assert not unknown_characters("".join(REPLACED.values()))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_are_told_apart_from_their_letters(form):
    spelled = spell(unicodedata.normalize(form, "Zoë, ça: Łódź ễ"))
    assert spelled.text == "Zoe, ca: Lodz e"
    assert spelled.shown == "Zoë, ça: Łódź ễ"
    marks = [(number, unicodedata.name(mark).removeprefix("COMBINING ")) for number, mark in spelled.accents]
    assert marks == [
        (2, "DIAERESIS"),
        (5, "CEDILLA"),
        (9, "SHORT SOLIDUS OVERLAY"),
        (10, "ACUTE ACCENT"),
        (12, "ACUTE ACCENT"),
        (14, "CIRCUMFLEX ACCENT"),
        (14, "TILDE"),
    ]
    assert [character for _, character in spelled.unknown] == [":"]
    assert len(set(MARKS)) == len(MARKS)


def test_what_cannot_be_written_is_named_with_its_place():
    spelled = spell("a\u0331 b_€ 日")
    assert spelled.unknown == [(0, "a\u0331"), (4, "_"), (5, "€"), (7, "日")]
    assert len(spelled.text) == len(spelled.shown)
    assert not spelled.is_empty
    assert spell(" €\n _").is_empty
    assert spell("").is_empty
    assert spell("a\u0301\u0331").unknown == [(0, "á\u0331")]  # one mark of two can be drawn
    assert spell("\u0301a").unknown == [(0, "\u0301")]
    assert spell("a\tb\nc").text == "a b c"


@settings(derandomize=True, deadline=None, max_examples=200, database=None)
@given(text=st.one_of(st.text(max_size=40), st.text(st.sampled_from("aeoxAE ." + MARKS), max_size=40)))
def test_any_text_is_spelled_letter_by_letter(text):
    spelling = spell(text)
    assert len(spelling.shown) == len(spelling.text)
    assert all(0 <= place < len(spelling.text) for place, _ in spelling.accents)
    assert all(0 <= place < len(text) for place, _ in spelling.unknown)
    outside = unknown_characters(spelling.text)
    assert len(outside) <= len(spelling.unknown)
    assert spell(spelling.text).text == spelling.text
