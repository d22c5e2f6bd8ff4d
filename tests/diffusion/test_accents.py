import unicodedata
from dataclasses import replace

import numpy as np
import pytest

from hwdiff.data.characters import MARKS
from hwdiff.diffusion.accents import SHAPES, draw_accents
from hwdiff.diffusion.alignment import Alignment
from hwdiff.diffusion.generate import sample
from hwdiff.diffusion.tracing import alignment_of_trace, trace
from hwdiff.ink.ink import Ink

POINTS = 16  # of a letter: two cells


def boxes(heights):
    """Letters that are upright rectangles, 4 wide and some heights high, side by side at x = 0, 6, 12, ..."""
    offsets, pen_up, at = [], [], np.zeros(2)
    for number, height in enumerate(heights):
        corners = np.array([(0, 0), (0, height), (4, height), (4, 0), (0, 0)]) + np.array((6 * number, 0))
        way = np.linspace(0, 4, POINTS)
        points = np.stack([np.interp(way, range(5), corners[:, axis]) for axis in (0, 1)], axis=1)
        offsets.append(np.diff(points, axis=0, prepend=at[None]))
        pen_up.append([True] + [False] * (POINTS - 1))
        at = points[-1]
    return Ink(np.concatenate(offsets), np.concatenate(pen_up))


def aligned(text):
    return Alignment(text, 8, np.repeat(np.eye(len(text)), POINTS // 8, axis=0))


def drawn(text, heights, *accents):
    ink = boxes(heights)
    ink.text = text
    result = draw_accents(ink, aligned(text), accents)
    assert result.offsets is ink.offsets
    return [np.asarray(stroke) for stroke in result.accents]


def test_every_mark_has_a_shape():
    assert set(SHAPES) == set(MARKS)
    for shapes in SHAPES.values():
        assert all(np.isfinite(shape).all() and np.abs(shape).max() < 1 for shape in shapes)


def test_an_accent_stands_over_its_letter_in_the_size_of_the_writing():
    [acute] = drawn("nen", [4, 4, 4], (1, "\u0301"))
    assert 6 < acute[:, 0].min() < acute[:, 0].max() < 10
    assert 4 < acute[:, 1].min() < acute[:, 1].max() < 8
    assert acute[0, 0] > acute[-1, 0]  # down to the left
    assert acute[0, 1] > acute[-1, 1]
    [larger] = drawn("nen", [8, 8, 8], (1, "\u0301"))
    assert np.ptp(larger[:, 1]) == pytest.approx(2 * np.ptp(acute[:, 1]))
    [capital] = drawn("nEn", [4, 9, 4], (1, "\u0301"))
    assert capital[:, 1].min() > 9


def test_marks_lie_above_below_and_across():
    dots = drawn("nun", [4, 4, 4], (1, "\u0308"))
    assert [len(dot) for dot in dots] == [1, 1]
    [cedilla] = drawn("ncn", [4, 4, 4], (1, "\u0327"))
    assert cedilla[:, 1].max() <= 0.5
    [slash] = drawn("non", [4, 4, 4], (1, "\u0338"))
    assert slash[:, 1].min() < 0.5
    assert slash[:, 1].max() > 3.5
    circumflex, tilde = drawn("nen", [4, 4, 4], (1, "\u0302"), (1, "\u0303"))
    assert tilde[:, 1].min() > circumflex[:, 1].max()


def test_an_accent_leans_as_the_writing_does():
    ink = boxes([4, 4, 4])
    leaning = Ink(ink.offsets + 0.5 * ink.offsets[:, 1:] * (1, 0), ink.pen_up, "nnn")
    [upright] = draw_accents(Ink(ink.offsets, ink.pen_up, "nnn"), aligned("nnn"), [(1, "\u0304")]).accents
    [accent] = draw_accents(leaning, aligned("nnn"), [(1, "\u0304")]).accents
    middle = accent[:, 0].mean() - upright[:, 0].mean()
    assert middle == pytest.approx(0.5 * accent[:, 1].mean(), abs=0.7)


def test_an_accent_of_a_letter_that_was_not_written_is_left_out():
    ink = boxes([4])
    ink.text = "né"
    ends_early = Alignment("ne", 8, np.array([[1.0, 0.0]] * 3))  # to the last point
    assert draw_accents(ink, ends_early, [(1, "\u0301")]).accents == []
    [written] = draw_accents(ink, ends_early, [(0, "\u0303"), (1, "\u0301")]).accents
    assert np.abs(np.mean(written, axis=0) - (2, 5)).max() < 1


def test_an_accent_takes_the_place_of_a_dot():
    ink = boxes([4, 4, 4])
    # The dots of the i in the middle and of another letter come last.
    end = ink.offsets.sum(axis=0)
    offsets = np.concatenate((ink.offsets, [(8 - end[0], 6 - end[1]), (6, 0)]))
    whole = Ink(offsets, np.concatenate((ink.pen_up, [True, True])), "nin")
    text = aligned("nin")
    result = draw_accents(whole, text, [(1, "\u0301")])
    assert result.covered == {3}
    assert [len(stroke) for stroke in result.strokes()] == [16, 16, 16, 1, len(SHAPES["\u0301"][0])]
    assert len(result) == len(whole)
    assert not draw_accents(whole, text, [(1, "\u0328")]).covered


def test_samples_with_accents_are_those_without_and_strokes_over_them(network):
    texts = ["naïve café", "plain"]
    with pytest.warns(UserWarning, match="the accents of ï é are drawn over"):
        accented, plain = sample(network, texts, steps=3, seed=4)
    bare = sample(network, ["naive cafe", "plain"], steps=3, seed=4)
    np.testing.assert_allclose(accented.offsets, bare[0].offsets, rtol=1e-3, atol=1e-3)
    assert accented.text == "naïve café"
    assert len(accented.accents) == 3
    assert len(accented.strokes()) == len(bare[0].strokes()) + 3 - len(accented.covered)
    assert not plain.accents
    # Marks of their own, which make the text longer, are the same accents.
    with pytest.warns(UserWarning, match="accents"):
        [decomposed] = sample(network, unicodedata.normalize("NFD", texts[0]), steps=3, seed=4)
    np.testing.assert_allclose(decomposed.offsets, accented.offsets, rtol=1e-3, atol=1e-3)
    seen = []
    with pytest.warns(UserWarning, match="accents"):
        sample(network, texts[:1], steps=3, seed=4, callback=lambda step: seen.append(step.t))
    assert seen == [3, 2, 1]
    # They are placed by the attention of the later half of the steps, as everywhere.
    with pytest.warns(UserWarning, match="accents"):
        traced = trace(network, texts[0], steps=6, seed=4)
        [ink] = sample(network, texts[:1], steps=6, seed=4)
    wanted = draw_accents(
        replace(traced.ink, text="naive cafe"),
        replace(alignment_of_trace(traced), text="naive cafe"),
        [(2, "\u0308"), (9, "\u0301")],
    )
    for one, other in zip(ink.accents, wanted.accents, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    with pytest.warns(UserWarning, match="accents"):
        traced = trace(network, texts[0], steps=3, seed=4).ink
    assert len(traced.strokes()) == len(bare[0].strokes())
