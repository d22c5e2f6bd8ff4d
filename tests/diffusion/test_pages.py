import warnings
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwdiff import HwdiffError
from hwdiff.diffusion import pages
from hwdiff.diffusion.generate import sample
from hwdiff.diffusion.pages import PIECE, count_pieces, wrap, write_pages
from hwdiff.evaluation import error_rates
from hwdiff.ink.page import Layout

TEXT = """Dear Mary,

thank you for the book that you sent me in May. I have read it twice, once on the train to the north."""


def test_texts_are_wrapped_at_words_and_keep_their_lines():
    lines = wrap(TEXT, Layout())
    assert lines[0] == ["Dear Mary,"]
    assert lines[1] == []
    pieces = [piece for line in lines for piece in line]
    assert " ".join(pieces).split() == TEXT.split()
    assert max(map(len, pieces)) <= PIECE
    assert count_pieces(TEXT, Layout()) == len(pieces)
    narrow = wrap(TEXT, Layout(paper="A5", margin=40))
    assert len(narrow) > len(lines)
    assert wrap("", Layout()) == [] and wrap(" \n", Layout()) == [[]]
    hyphens = [piece for line in wrap("a well-known half-timbered house " * 9, Layout()) for piece in line]
    assert {word for piece in hyphens for word in piece.split()} == {
        "a",
        "well-known",
        "half-timbered",
        "house",
    }
    assert wrap("incomprehensibilities and so on", Layout()) == [["incomprehensibilities", "and so on"]]
    assert wrap("\tone  two", Layout()) == [["one two"]]
    gaps = "the\u00a0incomprehensibilities of it now, please do"
    assert wrap(gaps, Layout()) == [["the incomprehensibilities of", "it now, please do"]]
    long = "a" * 100
    assert "".join(piece for line in wrap(long, Layout()) for piece in line) == long


def test_each_piece_is_written_as_sample_writes_it(network):
    told = []
    written = write_pages(network, TEXT, seed=3, steps=2, progress=told.append)
    pieces = [piece for line in wrap(TEXT, Layout()) for piece in line]
    assert written.pieces == len(pieces) == sum(told)
    assert written.wrong is None
    [page] = written.pages
    assert page.texts == [" ".join(line) for line in wrap(TEXT, Layout())]
    whole = sample(network, pieces, seed=3, steps=2)
    counted = sum(len(ink.strokes()) for ink in whole)
    assert sum(map(len, page.lines)) == pytest.approx(counted, rel=0.3)  # some were given more room
    again = write_pages(network, TEXT, seed=3, steps=2)
    np.testing.assert_array_equal(again.pages[0].lines[0][0], page.lines[0][0])


def test_pieces_keep_their_seeds_and_those_of_like_length_go_together(network, monkeypatch):
    text = "a piece of some thirty letters, then\nshort\na piece of some thirty letters, now\ntiny"
    pieces = [piece for line in wrap(text, Layout()) for piece in line]
    calls = []

    def spied(network, texts, style, **options):
        if "length" not in options:  # not again
            calls.append(list(zip(texts, options["seed"], strict=True)))
        return sample(network, texts, style, **options)

    monkeypatch.setattr(pages, "sample", spied)
    monkeypatch.setattr(pages, "BATCH_SIZE", 2)
    write_pages(network, text, seed=3, steps=2)
    written = [one for call in calls for one in call]
    assert sorted(seed for _, seed in written) == [3 + number for number in range(len(pieces))]
    assert all(text == pieces[seed - 3] for text, seed in written)
    lengths = [len(text) for text, _ in written]
    assert lengths == sorted(lengths) != [len(piece) for piece in pieces]


def test_a_piece_that_needs_more_points_gets_them(network, monkeypatch):
    lengths = []

    def spied(network, texts, style, **options):
        lengths.append(options.get("length"))
        return sample(network, texts, style, **{**options, "length": options.get("length") or 40})

    monkeypatch.setattr(pages, "sample", spied)
    monkeypatch.setattr(pages, "default_length", lambda text, points: 1)  # whatever was written filled it
    write_pages(network, "a quick fox", steps=2)
    assert lengths == [None, 8]
    # A piece that is written again because it is read wrong, too.
    write_pages(network, "a quick fox", steps=2, tries=1, is_right=lambda inks: [False] * len(inks))
    assert lengths[2:] == [None, 8, None, 8]


def test_what_is_read_wrong_is_written_again_and_counted(network, monkeypatch):
    seeds = []

    def spied(network, texts, style, **options):
        if "length" not in options:  # not again for want of room
            seeds.append(options["seed"])
        return sample(network, texts, style, **options)

    monkeypatch.setattr(pages, "sample", spied)
    monkeypatch.setattr(pages, "MORE_ROOM", 0.5)
    tried = []

    def is_right(inks):
        tried.append([ink.text for ink in inks])
        return [ink.text != "Dear Mary," or len(tried) == 3 for ink in inks]

    written = write_pages(network, TEXT, steps=2, tries=5, is_right=is_right)
    assert written.wrong == (1, 0)
    assert tried[1:] == [["Dear Mary,"]] * 2
    assert seeds[-2:] == [pages.SEED_STRIDE, 2 * pages.SEED_STRIDE]
    never = write_pages(network, TEXT, steps=2, tries=2, is_right=lambda inks: [False] * len(inks))
    assert never.wrong == (never.pieces, never.pieces)
    first = write_pages(network, TEXT, steps=2)
    np.testing.assert_array_equal(never.pages[0].lines[0][0], first.pages[0].lines[0][0])


def test_a_length_of_all_pieces_is_refused(network):
    with pytest.raises(HwdiffError, match="length: each piece of a page has its own"):
        write_pages(network, TEXT, steps=2, length=96)


def test_a_text_without_a_word_is_refused(network):
    with pytest.raises(HwdiffError, match="nothing in it can be written"):
        write_pages(network, " \n***\n")


def test_what_is_written_otherwise_is_told_once_for_the_whole_text(network):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        written = write_pages(network, "Voilà,\n\n***\n\nle café – 5 €", steps=2)
    assert [str(one.message).partition("': ")[2].partition(" (")[0] for one in told] == [
        "the accents of à é are drawn over the model's letters",
        "written with - for –",
        "the model cannot write '*'",
    ]
    assert written.pages[0].texts[0] == "Voilà,"
    assert written.pieces == 2  # nothing of the stars can be written


def test_accented_letters_are_read_without_their_accents(network, monkeypatch):
    monkeypatch.setattr(error_rates, "recognize", lambda inks, _: [SimpleNamespace(text="cafe")] * len(inks))
    with pytest.warns(UserWarning, match="accents"):
        [ink] = sample(network, "café", steps=1)
    assert ink.text == "café"
    assert error_rates.reads_right([ink]) == [True]


@settings(derandomize=True, deadline=None, max_examples=100, database=None)
@given(
    text=st.lists(
        st.sampled_from(
            ["a", "abc", "M?", "well-known", "café", "€", "a€", "\n", "\t", "\u00a0", "\u2028", "x" * 40]
        ),
        max_size=60,
    ).map(" ".join)
)
def test_wrapping_loses_nothing_that_can_be_written(text):
    lines = wrap(text, Layout("A5", margin=50))  # room for a word or two
    assert len(lines) >= len(text.splitlines())
    written = "".join(piece for line in lines for piece in line)
    meant = [character for character in text if not character.isspace()]
    kept = iter(meant)
    # In order; what is left out, with its whole piece, can't be written.
    assert all(character in kept for character in written if not character.isspace())
    lost = Counter(meant) - Counter(written)
    assert set(lost) <= {"€"}


def test_all_pieces_are_written_in_the_style_that_is_given(network, monkeypatch):
    seen, style = [], torch.rand(14, 1280, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(
        pages,
        "sample",
        lambda *given, **options: seen.append(given[2]) or sample(*given, **options),
    )
    write_pages(network, "a fox", style, steps=1, tries=1, is_right=lambda inks: [False] * len(inks))
    assert len(seen) > 1
    assert all(torch.equal(one, style) for one in seen)


def test_a_piece_with_more_room_keeps_its_own_noise(network, monkeypatch):
    seeds = []

    def spied(network, texts, style, **options):
        if options.get("length"):
            seeds.append(options["seed"])
        return sample(network, texts, style, **{**options, "length": options.get("length") or 40})

    monkeypatch.setattr(pages, "sample", spied)
    monkeypatch.setattr(pages, "default_length", lambda text, points: 1)
    write_pages(network, "a quick fox\nand a dog", seed=5, steps=1)
    assert seeds == [5, 6]
