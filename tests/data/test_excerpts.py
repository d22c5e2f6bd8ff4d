from copy import copy

import numpy as np
import pytest
import torch

from hwdiff.data.batches import Lines
from hwdiff.data.dataset import style_lines
from hwdiff.data.excerpts import Excerpts, _character_starts, whole_lines, word_starts


def words_in_boxes(widths, gaps, points=6):
    """A zigzag for each word: offsets (N, 2) and pen_up (N,), and the number of the first point of each."""
    offsets, pen_up, starts = [], [], []
    for number, width in enumerate(widths):
        starts.append(len(offsets))
        step = width / (points - 1)
        offsets.append((gaps[number - 1] if number else 0.1, 0))
        offsets += [(step, 1 if place % 2 else -1) for place in range(points - 1)]
        pen_up += [True] + [False] * (points - 1)
    return np.array(offsets, dtype=np.float32), np.array(pen_up), starts


def test_words_begin_after_the_widest_gaps_that_fit_their_widths():
    offsets, pen_up, starts = words_in_boxes([6, 2, 4, 8], [2, 2, 2])
    assert word_starts(offsets, pen_up, "abcdef ab abcd abcdefgh").tolist() == starts
    # A gap inside a word, as wide as the others: the numbers of characters tell that it is no space.
    found = word_starts(offsets, pen_up, "abcdef abcdefgh abcdefgh")
    assert found.tolist() == [starts[0], starts[1], starts[3]]
    assert word_starts(offsets, pen_up, "one").tolist() == [0]


def test_what_is_uncertain_is_not_cut():
    def cut(widths, gaps, text):
        return word_starts(*words_in_boxes(widths, gaps)[:2], text)

    assert cut([5, 5], [2], "abcde abcde") is not None
    assert cut([5, 5], [0.2], "abcde abcde") is None  # hardly a gap
    assert cut([5, 5], [-3], "abcde abcde") is None  # ink of the second below the first
    assert cut([5, 5], [2], "abcde abcde abcde") is None  # fewer pieces than words
    assert cut([1, 9], [2], "abcdefgh ab") is None  # widths of other words
    assert word_starts(np.zeros((4, 2), np.float32), np.ones(4, bool), "a b") is None  # no extent
    assert word_starts(np.zeros((0, 2), np.float32), np.ones(0, bool), "") is None
    offsets, pen_up, _ = words_in_boxes([5, 5], [2])
    assert word_starts(offsets, np.zeros_like(pen_up), "abcde abcde") is None  # in one stroke


def test_cuts_of_the_built_in_writers_are_at_their_spaces(written):
    widths, characters, cut = [], [], 0
    for index in range(len(written)):
        offsets, pen_up = written.strokes(index)
        starts = word_starts(offsets, pen_up, str(written.texts[index]))
        if starts is not None:
            cut += 1
            x = np.cumsum(offsets[:, 0])
            assert all(x[start:].min() > x[:start].max() for start in starts[1:])
            widths += [np.ptp(word) / np.ptp(x) for word in np.split(x, starts[1:])]
            characters += [len(word) / len(written.texts[index]) for word in written.texts[index].split()]
    assert cut > 0.5 * len(written)
    assert np.corrcoef(widths, characters)[0, 1] > 0.95


def test_excerpts_hold_the_words_that_they_say(written):
    excerpts = Excerpts(written, seed=0)
    assert len(excerpts) > 0.5 * len(written)
    spans, whole = excerpts.of_epoch(3, 1.0), whole_lines(written)
    assert np.array_equal(spans, excerpts.of_epoch(3, 1.0))
    assert not np.array_equal(spans, excerpts.of_epoch(4, 1.0))
    counts = []
    for index in range(len(written)):
        first, end, first_character, end_character = spans[index]
        text, offsets, pen_up = str(written.texts[index]), *written.strokes(index)
        said = text[first_character:end_character]
        assert f" {said} " in f" {text} "
        assert 0 <= first < end <= len(offsets)
        assert pen_up[first]
        assert end == len(offsets) or pen_up[end]
        if not np.array_equal(spans[index], whole[index]):
            starts = word_starts(offsets, pen_up, text)
            number = starts.tolist().index(first)
            assert text.split()[number : number + len(said.split())] == said.split()
            counts.append(len(said.split()))
    assert counts.count(1) > counts.count(3) > 0
    assert np.array_equal(excerpts.of_epoch(0, 0.0), whole)


def test_points_have_the_places_of_their_words(written):
    excerpts = Excerpts(written, seed=0)
    places = excerpts.places(488)
    known = np.isfinite(places[:, 0])
    assert known.mean() > 0.5
    for index in np.flatnonzero(known)[:50]:
        text, length = str(written.texts[index]), written.lengths[index]
        found = places[index, :length]
        assert np.isnan(places[index, length:]).all()
        assert (np.diff(found) > 0).all()
        starts = word_starts(*written.strokes(index), text)
        words = [text[round(place + 0.45) :].split()[0] for place in found[starts]]
        assert [word.split()[0] for word in words] == text.split()
        assert found[0] < 1
        assert len(text) - 2 < found[-1] < len(text)


def test_a_batch_has_places_of_its_excerpts(dataset, features, monkeypatch):
    monkeypatch.setattr(
        "hwdiff.data.excerpts.word_starts",
        lambda offsets, pen_up, text: np.array([0, 20]) if text == dataset.texts[2] else None,
    )
    monkeypatch.setattr("hwdiff.data.excerpts._character_starts", lambda text: np.array([0, 4]))
    lines = Lines(dataset, features, style_lines(dataset.forms), "cpu", Excerpts(dataset, seed=0))
    spans = np.array([[20, 30, 4, 9], [0, dataset.lengths[0], 0, len(dataset.texts[0])]])
    batch = lines.batch(np.array([2, 0]), spans=spans)
    length, characters = dataset.lengths[2] - 20, len(dataset.texts[2]) - 4
    expected = [(point + 0.5) * characters / length - 0.5 for point in range(10)]
    assert batch.places[0, :10].tolist() == pytest.approx(expected, abs=1e-4)
    assert batch.places[0, 10:].isnan().all()
    assert batch.places[1].isnan().all()


def test_a_batch_of_excerpts_is_made_of_their_points_and_characters(dataset, features):
    lines = Lines(dataset, features, style_lines(dataset.forms), "cpu")
    indices = np.array([2, 0])
    spans = np.array([[10, 25, 2, 7], [0, dataset.lengths[0], 0, len(dataset.texts[0])]])
    batch = lines.batch(indices, spans=spans)
    offsets, pen_up = dataset.strokes(2)
    assert torch.equal(batch.strokes[0, 1:15], torch.from_numpy(offsets[11:25]))
    assert batch.strokes[0, 0].tolist() == offsets[0].tolist()
    assert (batch.strokes[0, 15:] == 0).all()
    assert batch.pen_up[0, 1:15, 0].tolist() == pen_up[11:25].tolist()
    assert (batch.pen_up[0, 15:] == 1).all()
    assert batch.lengths.tolist() == [15, dataset.lengths[0]]
    assert batch.text[0, :5].tolist() == dataset.tokens(2)[2:7].tolist()
    assert batch.text[0, 5:7].tolist() == [1, 0]
    whole = lines.batch(indices[1:])
    assert torch.equal(batch.text[1], whole.text[0])
    assert torch.equal(batch.strokes[1], whole.strokes[0])
    short = lines.batch(indices[:1], spans=spans[:1])
    assert short.strokes.shape[1] == 32
    assert short.text.shape[1] == 8


def test_words_may_be_divided_by_any_white_space(dataset):
    odd = copy(dataset)
    odd.texts = dataset.texts.copy()
    odd.texts[0] = "a\tquick \u00a0 fox"
    assert _character_starts(odd.texts[0]).tolist() == [0, 2, 10]
    excerpts = Excerpts(odd, seed=0)
    excerpts.places(488)
    for epoch in range(20):
        excerpts.of_epoch(epoch, 1.0)


def test_an_excerpt_may_be_any_words(dataset, monkeypatch):
    monkeypatch.setattr(
        "hwdiff.data.excerpts.word_starts", lambda offsets, pen_up, text: np.arange(len(text.split())) * 5
    )
    excerpts, text = Excerpts(dataset, seed=0), str(dataset.texts[0])  # "a quick sketch"
    spans = [excerpts.of_epoch(epoch, 1.0)[0] for epoch in range(100)]
    found = {text[first:end] for _, _, first, end in spans}
    assert found == {"a", "quick", "sketch", "a quick", "quick sketch", text}
