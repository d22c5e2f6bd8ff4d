import numpy as np
import pytest

from hwdiff.evaluation.handmade_features import COUNT, DIRECTIONS, GROUPS, handmade_features
from hwdiff.evaluation.sets import Sets, real_inks
from hwdiff.evaluation.writer_retrieval import WriterStyles, retrieve
from hwdiff.ink.ink import Ink


def of(inks, group, place=0):
    """One number of each ink."""
    start = 0
    for name, numbers in GROUPS.items():
        if name == group:
            return handmade_features(inks)[:, start + place]
        start += len(numbers)
    raise KeyError(group)


def changed(ink, matrix):
    return Ink(ink.offsets @ np.asarray(matrix, dtype=float).T, ink.pen_up, ink.text)


def with_more_points(ink):
    """The same ink, each offset drawn in two: as if the pen had been slower."""
    times = np.where(ink.pen_up, 1, 2)
    offsets = np.repeat(ink.offsets / times[:, None], times, axis=0)
    return Ink(offsets, np.repeat(ink.pen_up, times), ink.text)


def test_neither_scale_nor_the_pens_speed_is_seen(made_up_lines):
    before = handmade_features(made_up_lines)
    assert before.shape == (len(made_up_lines), COUNT)
    larger = handmade_features([changed(ink, 3 * np.eye(2)) for ink in made_up_lines])
    assert np.median(np.abs(larger - before)) < 1e-5
    np.testing.assert_allclose(larger, before, atol=0.05)
    slower = [with_more_points(ink) for ink in made_up_lines]
    assert len(slower[0]) > 1.5 * len(made_up_lines[0])
    # A stroke as long as a dot may fall on either side.
    assert np.mean(np.abs(handmade_features(slower) - before) > 0.05) < 0.01


def test_slant_is_seen(made_up_lines):
    slanted = [changed(ink, [[1, 0.3], [0, 1]]) for ink in made_up_lines]
    change = of(slanted, "slant") - of(made_up_lines, "slant")
    assert (change < 0).all()
    assert change.mean() < -0.15


def test_slant_is_that_of_what_is_drawn_downwards():
    down, up = (-0.5, -2.0), (1.5, 2.0)
    zigzag = Ink(np.tile([down, up], (20, 1)), np.zeros(40, dtype=bool), "w")
    assert of([zigzag], "slant")[0] == pytest.approx(-np.arctan(0.5 / 2), abs=0.05)


def test_a_dot_has_no_direction():
    line = Ink(np.tile([0.0, 1.0], (20, 1)), np.zeros(20, dtype=bool), "l")
    dotted = Ink(np.append(line.offsets, [[0.0, 0.5]], axis=0), np.append(line.pen_up, True), "i")
    assert len(dotted.strokes()) == 2
    for direction in range(DIRECTIONS):
        assert of([dotted], "directions", direction) == of([line], "directions", direction), direction


def test_the_slope_of_the_line_is_seen_and_is_no_slant(made_up_lines):
    rising = [changed(ink, [[1, 0], [0.1, 1]]) for ink in made_up_lines]
    slopes = of(rising, "zones", 4) - of(made_up_lines, "zones", 4)
    np.testing.assert_allclose(slopes, 0.1, atol=0.02)


def test_wide_gaps_between_words_are_seen(made_up_lines):
    wider = []
    for ink in made_up_lines:
        offsets = ink.offsets.copy()
        widest = np.argsort(offsets[:, 0] * ink.pen_up)[-ink.text.count(" ") :]
        offsets[widest, 0] += 5
        wider.append(Ink(offsets, ink.pen_up, ink.text))
    assert (of(wider, "spacing", 2) > of(made_up_lines, "spacing", 2) + 0.2).all()
    np.testing.assert_allclose(of(wider, "spacing", 4), of(made_up_lines, "spacing", 4), atol=0.05)


def test_corners_curves_and_strokes_are_told_apart():
    angles = np.linspace(0, 20 * np.pi, 800)
    circles = np.stack((np.cos(angles) + angles / 20, np.sin(angles)), axis=1)
    zigzag = np.stack((np.arange(40) / 4, np.arange(40) % 2), axis=1)
    pen_up = np.arange(40) % 8 == 0
    inks = [
        Ink(np.diff(circles, axis=0), np.arange(799) == 0, "a word"),
        Ink(np.diff(zigzag, axis=0, prepend=zigzag[:1]), np.arange(40) == 0, "a word"),
        Ink(np.diff(zigzag, axis=0, prepend=zigzag[:1]), pen_up, "a word"),
    ]
    assert of(inks, "curvature", 1)[0] > 10 * abs(of(inks, "curvature", 1)[1])  # to the left
    assert of(inks, "curvature", 2)[0] == 0 < of(inks, "curvature", 2)[1]
    np.testing.assert_allclose(np.exp(of(inks, "letters")), [1 / 5, 1 / 5, 5 / 5])
    directions = handmade_features(inks)[:, -24:-8] ** 2
    np.testing.assert_allclose(directions.sum(axis=1), 1)
    assert directions[0].max() < 0.1 < 0.4 < directions[1].max()


def test_an_ink_without_extent_has_no_features():
    empty, dots = Ink(np.zeros((0, 2)), []), Ink([(0, 0), (1, 0)], [True, True], "..")
    assert (handmade_features([empty, dots]) == 0).all()
    assert handmade_features([]).shape == (0, COUNT)
    stroke = Ink([(0, 0), (1, 0)], [True, False], "-")
    assert np.isfinite(handmade_features([stroke])).all()


def hit_rate(dataset, split, count, every=1):
    """How often the form of a real line is among the first ten, and how many forms there are."""
    others = np.flatnonzero(dataset.splits != split)
    others = others[np.isin(dataset.forms[others], np.unique(dataset.forms[others])[::every])]
    styles = WriterStyles.learn(handmade_features(real_inks(dataset, others)), dataset.forms[others])
    sets = Sets.draw(dataset, split, count=count, seed=0)
    asked = sets.second[np.isin(dataset.forms[sets.second], dataset.forms[sets.known])]
    seen = [styles(handmade_features(real_inks(dataset, lines))) for lines in (asked, sets.known)]
    forms = dataset.forms
    found = retrieve(seen[0], forms[asked], known=seen[1], known_forms=forms[sets.known])
    return np.mean(found <= 10), len(np.unique(forms[sets.known]))


def test_forms_of_people_are_found_by_them(iam_dataset):
    found, count = hit_rate(iam_dataset, "test", 200, every=8)
    assert count > 160
    assert found > 10 * 10 / count


def test_forms_of_built_in_writers_are_found_by_them(written):
    found, count = hit_rate(written, "train", 40)
    assert found > 2 * 10 / count
